"""A run made from a checkpoint of the authors' released code, which holds a head only."""

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from biam_tf.errors import UserError
from biam_tf.files import replacing
from biam_tf.vocabulary import Vocabulary, require_embedding_size
from training.config import RunConfig, load_config

if TYPE_CHECKING:
    import keras

# The checkpoint says nothing about its data; the authors published most of them for this one.
SETTINGS = (
    "data.name=nus_wide",
    "backbone.name=vgg19",
    "backbone.image_size=null",
    "backbone.weights=imagenet",
    "head.preset=released",
    "training.optimizer.beta_1=0.9",
)


def import_run(
    checkpoint: pathlib.Path,
    target: pathlib.Path,
    num_heads: int,
    top_k: int,
    vocabulary_file: pathlib.Path | None = None,
    overrides: Sequence[str] = (),
) -> None:
    """Creates the folder of a run whose head is that of a checkpoint.

    Args:
        checkpoint: file of the released code, `.pth`.
        target: the folder to create.
        num_heads: attention heads of the checkpoint.
        top_k: regions averaged for each class.
        vocabulary_file: the classes of the checkpoint, `.npz`; None: none.
        overrides: `key=value` settings of the run.

    Raises:
        UserError: the folder exists, or files or settings do not fit each other; nothing is
            written.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UserError(f"{target} exists already; nothing was changed. Choose another folder")
    for option, number in (("--num-heads", num_heads), ("--top-k", top_k)):
        if number < 1:
            raise UserError(f"{option} {number}: {option[2:].replace('-', '_')} must be at least 1")
    # Wrong settings are answered before TensorFlow is imported.
    _config(target, overrides)
    given = None if vocabulary_file is None else Vocabulary.load(vocabulary_file)

    from biam_tf.backbones import build_backbone
    from biam_tf.checkpoints import load_released_checkpoint
    from training.pipeline.run_folder import RunFolder, save_model

    # Any number of regions: that depends on the backbone, and the weights fit all.
    head = load_released_checkpoint(checkpoint, num_heads, top_k, region_size=(None, None))
    sizes = (
        f"head.num_heads={num_heads}",
        f"head.top_k={top_k}",
        f"head.channels={head.get_layer('region_embedding').output.shape[-1]}",
        f"head.fused_channels={head.get_layer('fusion').output.shape[-1]}",
    )
    config = _config(target, [*sizes, *overrides])
    size = _input_sizes(head)["class_embeddings"]
    vocabulary = Vocabulary((), np.empty((0, size), np.float32), ()) if given is None else given
    require_embedding_size(vocabulary, size, str(vocabulary_file))
    settings = config.backbone
    backbone = build_backbone(
        settings.name, settings.image_size, settings.weights, regions=settings.regions
    )
    _require_fitting(backbone, settings.name, head, checkpoint)

    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as partial:
        folder = RunFolder(partial)
        folder.claim(config)
        vocabulary.save(folder.vocabulary)
        folder.write_backbone_identity(settings, backbone)
        save_model(folder.model, head)


def _config(target: pathlib.Path, overrides: Sequence[str]) -> RunConfig:
    # The weights of a trainable backbone would have to be stored in the run.
    last = ("backbone.trainable=false", f"output={target}")
    return load_config(None, [*SETTINGS, *overrides, *last])


def _require_fitting(
    backbone: "keras.Model", name: str, head: "keras.Model", checkpoint: pathlib.Path
) -> None:
    """Raises a UserError if the features of the backbone are not those of the head."""
    for feature in ("region_features", "scene_feature"):
        given, wanted = backbone.output[feature].shape[-1], _input_sizes(head)[feature]
        if given != wanted:
            raise UserError(
                f"{checkpoint} was trained on {feature} of {wanted} numbers; the backbone {name} "
                f"has {given}. Choose another one with --set backbone.name=NAME"
            )


def _input_sizes(head: "keras.Model") -> dict[str, int]:
    return {tensor.name: tensor.shape[-1] for tensor in head.inputs}
