"""A trained run as an ONNX file: `python -m serving.onnx RUN FILE.onnx`."""

import argparse
import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is first imported

import numpy as np

from biam_tf.command_line import run_command
from biam_tf.errors import UserError

DESCRIPTION = """\
Writes a trained run as an ONNX file for ONNX Runtime and its kin. Photos and classes may be any
number in every call. The file is run and compared with the TensorFlow model before it is kept.

--part full (default): images (B, S, S, 3), float RGB from 0 to 255, and class_embeddings (C, d_a)
--part head:           region_features, scene_feature and class_embeddings
Both give scores (B, C) and response_maps (B, h, w, C).

ONNX decodes no photos: decode them and resize them to S x S yourself, bilinear with antialiasing
(as Pillow's Image.resize does). S, the names of the run's classes and what goes in and out stand
in the file's metadata; the classes' embeddings in RUN/vocabulary.npz.
"""

EXAMPLES = """\
examples:
  python -m serving.onnx runs/quickstart quickstart.onnx
  python -m serving.onnx runs/quickstart head.onnx --part head
"""

PARTS = ("full", "head")
# Rounding of another order of summation, as a share of the largest number (or of 1).
TOLERANCE = 1e-4
DEFAULT_OPSET = 18


@dataclasses.dataclass(frozen=True)
class _Part:
    """What is converted: a function of TensorFlow operations and its inputs, by name."""

    function: Callable
    inputs: dict[str, tuple[int | str, ...]]


def main(argv=None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.onnx",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", type=pathlib.Path, help="folder of a trained run")
    parser.add_argument("file", metavar="FILE.onnx", type=pathlib.Path, help="replaced if there")
    parser.add_argument("--part", choices=PARTS, default="full", help="default: full")
    parser.add_argument(
        "--opset",
        type=int,
        default=DEFAULT_OPSET,
        metavar="N",
        help=f"version of ONNX's operators (default: {DEFAULT_OPSET})",
    )
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    require_packages()
    from biam_tf.runs import load_run

    run = load_run(arguments.run)
    differences = export_onnx(run, arguments.file, arguments.part, arguments.opset)
    size = arguments.file.stat().st_size / 1e6
    print(f"{arguments.file}: {size:.1f} MB, largest difference from TensorFlow")
    for name, difference in differences.items():
        print(f"  {name:16}{difference:.1e}")


def export_onnx(
    run, file: str | os.PathLike, part: str = "full", opset: int = DEFAULT_OPSET
) -> dict[str, float]:
    """Writes a run as an ONNX file, checked before it gets its name.

    Args:
        run: a `biam_tf.runs.TrainedRun`.
        file: where to write; an existing file is replaced.
        part: `"full"`: from pixels; `"head"`: from features.
        opset: version of ONNX's operators.

    Returns:
        The largest difference of each output from the TensorFlow function that an exported
        SavedModel holds, as ONNX Runtime computes it; relative to the output's largest number
        where that exceeds 1.

    Raises:
        UserError: a needed package is missing, or `file` or `opset` can't be used.
        RuntimeError: the file does not give what TensorFlow gives.
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
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        onnx.save(model, partial)
        differences = _compare(run, chosen, partial)
        os.replace(partial, file)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return differences


def require_packages() -> None:
    """Raises a UserError that names what to install where a package of the extra [onnx] lacks."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise UserError(
            f'the package {error.name} is missing; install it with pip install "biam-tf[onnx]"'
        ) from None


def _head(run) -> _Part:
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


def _full(run) -> _Part:
    from biam_tf.backbones import fold_batch_norms

    score, backbone = _scorer(run), fold_batch_norms(run.backbone)

    def function(images, class_embeddings):
        features = backbone(images, training=False)
        return score(features["region_features"], features["scene_feature"], class_embeddings)

    size = run.image_size
    classes = ("classes", run.vocabulary.embedding_size)
    return _Part(function, {"images": ("photos", size, size, 3), "class_embeddings": classes})


def _scorer(run) -> Callable:
    from serving.graph.signatures import explainer

    return explainer(run) or (lambda *inputs: {"scores": run.head(list(inputs), training=False)})


def _convert(part: _Part, opset: int):
    import tensorflow as tf
    import tf2onnx

    specs = [
        tf.TensorSpec([None if isinstance(size, str) else size for size in shape], name=name)
        for name, shape in part.inputs.items()
    ]

    @tf.function(autograph=False, input_signature=specs)
    def function(*inputs):
        outputs = part.function(**dict(zip(part.inputs, inputs, strict=True)))
        return {name: tf.identity(value, name) for name, value in outputs.items()}

    model, _ = tf2onnx.convert.from_function(function, input_signature=specs, opset=opset)
    return model


def _describe(model, run, part: str) -> None:
    """Names the sizes that may change, and says in the file what goes in and what comes out."""
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


def _compare(run, part: _Part, file: pathlib.Path) -> dict[str, float]:
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
                raise RuntimeError(f"ONNX gives {name} {found[name].shape}, not {value.shape}")
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


def _sample_inputs(run, part: _Part, photos: int, classes: int) -> dict[str, np.ndarray]:
    """Noise as photos, their features, and random classes of length 1 or of the run's own."""
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


if __name__ == "__main__":
    sys.exit(main())
