"""Loads the authors' released PyTorch checkpoints as Keras heads."""

import os
from collections.abc import Mapping

import keras
import numpy as np

from biam_tf.errors import UserError
from biam_tf.legacy_formats.torch_files import read_torch_state
from biam_tf.legacy_formats.torch_weights import assign_torch_weights
from biam_tf.models import build_head

__all__ = ["load_released_checkpoint", "read_torch_state"]

# Each size of the released model: a name in the file, an axis of its array, and the size in the
# published checkpoints, which is used if the file lacks the name, so that the error can list all
# that is missing.
SIZES = {
    "channels": ("region_context_block.w_q.weight", 0, 256),
    "region_channels": ("conv_3X3.body.weight", 1, 512),
    "scene_size": ("scene_context_block.w_g.weight", 1, 4096),
    "fused_channels": ("conv_1X1.body.weight", 0, 512),
    "embedding_size": ("W.weight", 1, 300),
}


def load_released_checkpoint(
    path: str | os.PathLike,
    num_heads: int,
    top_k: int = 6,
    region_size: tuple[int | None, int | None] = (14, 14),
) -> keras.Model:
    """Builds the head of the preset `released` with the weights of an authors' checkpoint.

    The sizes are read from the file, except the arguments below, which are not recorded in it.

    Args:
        path: a `.pth` file as the authors' code (https://github.com/akshitac8/BiAM) saves it:
            the state dictionary of the model, alone or as `{"state_dict": …}`.
        num_heads: attention heads that the model was trained with (8 in the authors' logs). A
            wrong number that divides the channels gives wrong scores, not an error.
        top_k: number of regions averaged for a class.
        region_size: height and width of the region features, 14x14 in the authors' code; the
            weights fit any size, and `(None, None)` accepts all.

    Returns:
        A model of `build_head`: `region_features` `(batch, 14, 14, channels)`, `scene_feature`
        `(batch, scene_size)` and `class_embeddings` `(classes, embedding_size)` to scores
        `(batch, classes)`.

    Raises:
        UserError: the file is not a checkpoint of this model (the error lists
            missing and unexpected names and differing shapes), or `num_heads` does not divide the
            channels.
    """
    state = read_torch_state(path)
    sizes = _sizes(state)
    channels = sizes["channels"]
    if num_heads < 1 or channels % num_heads:
        raise UserError(
            f"{path}: num_heads={num_heads} does not divide the {channels} channels of this "
            "checkpoint; give the number of heads it was trained with"
        )
    head = build_head(
        (*region_size, sizes["region_channels"]),
        sizes["scene_size"],
        sizes["embedding_size"],
        preset="released",
        channels=channels,
        fused_channels=sizes["fused_channels"],
        num_heads=num_heads,
        top_k=top_k,
    )
    assign_torch_weights(_released_names(head), state, path)
    return head


def _sizes(state: Mapping[str, np.ndarray]) -> dict[str, int]:
    sizes = {}
    for size, (name, axis, published) in SIZES.items():
        shape = state[name].shape if name in state else ()
        sizes[size] = shape[axis] if axis < len(shape) and shape[axis] else published
    return sizes


def _released_names(head: keras.Model) -> dict[str, keras.Layer]:
    """Returns the layers of a head of the preset `released` by prefix in the authors' files."""
    region_embedding = head.get_layer("region_embedding")
    region_context = head.get_layer("region_context")
    scene_context = head.get_layer("scene_context")
    return {
        "conv_3X3.body": region_embedding.conv,
        "conv_3X3.bn": region_embedding.batch_norm,
        "region_context_block.w_q": region_context.query,
        "region_context_block.w_k": region_context.key,
        "region_context_block.w_v": region_context.value,
        "region_context_block.w_o": region_context.projection,
        "region_context_block.sub_network.conv1": region_context.feed_forward_in,
        "region_context_block.sub_network.conv2": region_context.feed_forward_out,
        "scene_context_block.w_g": scene_context.key,
        "scene_context_block.gcff.body": scene_context.conv.conv,
        "scene_context_block.gcff.bn": scene_context.conv.batch_norm,
        "scene_context_block.channel_conv.body": scene_context.value,
        "W": head.get_layer("region_classifier"),
        "conv_1X1.body": head.get_layer("fusion"),
    }
