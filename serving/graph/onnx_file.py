"""Converts a trained run into an ONNX file that is compared with TensorFlow."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from biam_tf.errors import UserError
from biam_tf.files import replacing

if TYPE_CHECKING:
    import onnx

    from biam_tf.runs import TrainedRun

PARTS = ("full", "head")
# Rounding of another order of summation, relative to the largest number (or to 1).
TOLERANCE = 1e-4
DEFAULT_OPSET = 18


@dataclasses.dataclass(frozen=True)
class _Part:
    """A function of TensorFlow operations and the shapes of its inputs, by name."""

    function: Callable
    inputs: dict[str, tuple[int | str, ...]]


def export_onnx(
    run: "TrainedRun", file: str | os.PathLike, part: str = "full", opset: int = DEFAULT_OPSET
) -> dict[str, float]:
    """Writes a run as an ONNX file, checked before the file gets its name.

    Args:
        run: the trained run.
        file: the file to write; an existing one is replaced.
        part: `"full"` for the model from pixels to scores, `"head"` for features to scores.
        opset: version of the ONNX operators.

    Returns:
        The largest difference of each output, as computed by ONNX Runtime, from TensorFlow's;
        relative to the output's largest number where that exceeds 1.

    Raises:
        UserError: a required package is missing, or `file` or `opset` can't be used.
        RuntimeError: the outputs differ from TensorFlow's by more than rounding.
    """
    require_packages()
    import onnx

    file = pathlib.Path(file)
    if not file.parent.is_dir():
        raise UserError(f"{file}: there is no folder {file.parent}")
    if file.is_dir():
        raise UserError(f"{file} is a folder; name a file in it")
    oldest, newest = 13, onnx.defs.onnx_opset_version()
    if not oldest <= opset <= newest:
        raise UserError(f"--opset {opset}: use {oldest} to {newest}")
    chosen = _full(run) if part == "full" else _head(run)
    model = _convert(chosen, opset)
    _describe(model, run, part)
    with replacing(file) as partial:
        onnx.save(model, partial)
        return _compare(run, chosen, partial)


def require_packages() -> None:
    """Raises a `UserError` that says what to install if a package of [onnx] is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"the package {error.name} is missing; install it with pip install 'biam-tf[onnx]'"
        ) from None


def _head(run: "TrainedRun") -> _Part:
    shapes = {tensor.name: tensor.shape for tensor in run.head.inputs}
    score = _scorer(run)
    return _Part(
        lambda **inputs: score(*(inputs[name] for name in shapes)),
        {
            "region_features": ("photos", *shapes["region_features"][1:]),
            "scene_feature": ("photos", *shapes["scene_feature"][1:]),
            "class_embeddings": ("classes", *shapes["class_embeddings"][1:]),
        },
    )


def _full(run: "TrainedRun") -> _Part:
    import tensorflow as tf

    from biam_tf.backbones import fold_batch_norms

    score, backbone = _scorer(run), fold_batch_norms(run.backbone)

    def function(images: tf.Tensor, class_embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        features = backbone(images, training=False)
        return score(features["region_features"], features["scene_feature"], class_embeddings)

    size = run.image_size
    classes = ("classes", run.vocabulary.embedding_size)
    return _Part(function, {"images": ("photos", size, size, 3), "class_embeddings": classes})


def _scorer(run: "TrainedRun") -> Callable:
    from serving.graph.signatures import explainer

    return explainer(run) or (lambda *inputs: {"scores": run.head(list(inputs), training=False)})


def _convert(part: _Part, opset: int) -> "onnx.ModelProto":
    import tensorflow as tf
    import tf2onnx

    from biam_tf.ways_to_compute import without_blocks

    specs = [
        tf.TensorSpec([None if isinstance(size, str) else size for size in shape], name=name)
        for name, shape in part.inputs.items()
    ]

    @tf.function(autograph=False, input_signature=specs)
    def function(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = part.function(**dict(zip(part.inputs, inputs, strict=True)))
        return {name: tf.identity(value, name) for name, value in outputs.items()}

    with without_blocks():  # tf2onnx converts no arrays of blocks
        model, _ = tf2onnx.convert.from_function(function, input_signature=specs, opset=opset)
    return model


def _describe(model: "onnx.ModelProto", run: "TrainedRun", part: str) -> None:
    """Names the variable sizes, and writes inputs and classes into the file's metadata."""
    import onnx

    sizes = {"images": "photos", "region_features": "photos", "scene_feature": "photos"}
    for value in model.graph.input:
        first = value.type.tensor_type.shape.dim[0]
        first.dim_param = sizes.get(value.name, "classes")
    for value in model.graph.output:
        dims = value.type.tensor_type.shape.dim
        dims[0].dim_param, dims[-1].dim_param = "photos", "classes"
    vocabulary = run.vocabulary
    facts = {
        "part": part,
        "run": run.folder.path.name,
        "embedding_size": str(vocabulary.embedding_size),
        "class_names": json.dumps(vocabulary.names),
        "class_groups": json.dumps(vocabulary.groups),
    }
    if part == "full":
        facts["image_size"] = str(run.image_size)
        facts["images"] = "RGB, 0 to 255, resized to image_size x image_size, bilinear, antialiased"
    onnx.helper.set_model_props(model, facts)
    model.producer_name = "biam_tf"
    model.doc_string = "Tagger: scores for the classes that class_embeddings describes"


def _compare(run: "TrainedRun", part: _Part, file: pathlib.Path) -> dict[str, float]:
    import onnxruntime
    import tensorflow as tf

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    differences = dict.fromkeys(sorted(names), 0.0)
    for photos, classes in ((1, 1), (3, 7)):
        inputs = _sample_inputs(run, part, photos, classes)
        found = dict(zip(names, session.run(None, inputs), strict=True))
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        for name, value in part.function(**tensors).items():
            value = np.asarray(value)
            if found[name].shape != value.shape:
                raise RuntimeError(f"ONNX: {name} has shape {found[name].shape}, not {value.shape}")
            scale = max(1.0, float(np.abs(value).max()))
            difference = float(np.abs(found[name] - value).max()) / scale
            differences[name] = max(differences[name], difference)
    wrong = [f"{name} by {value:.1e}" for name, value in differences.items() if value > TOLERANCE]
    if wrong:
        raise RuntimeError(
            f"ONNX Runtime differs from TensorFlow ({', '.join(wrong)}; at most {TOLERANCE:g} is "
            "rounding); nothing was written"
        )
    return differences


def _sample_inputs(
    run: "TrainedRun", part: _Part, photos: int, classes: int
) -> dict[str, np.ndarray]:
    """Noise as photos, their features, and random unit vectors or the run's classes."""
    rng = np.random.default_rng(0)
    size = run.image_size
    images = rng.uniform(0, 255, (photos, size, size, 3)).astype(np.float32)
    if run.open_vocabulary:
        class_embeddings = rng.normal(size=(classes, run.vocabulary.embedding_size))
        class_embeddings /= np.linalg.norm(class_embeddings, axis=1, keepdims=True)
    else:
        class_embeddings = rng.choice(run.vocabulary.embeddings, classes)
    inputs = {"images": images, "class_embeddings": class_embeddings.astype(np.float32)}
    if "region_features" in part.inputs:
        features = run.backbone(images, training=False)
        inputs |= {name: np.asarray(value, np.float32) for name, value in features.items()}
    return {name: inputs[name] for name in part.inputs}
