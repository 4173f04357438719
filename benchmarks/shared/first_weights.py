"""First weights of a small image encoder, with which it learns in minutes what takes hours else."""

from typing import Any

import numpy as np


def whiten_patches(encoder: Any, pixels: np.ndarray, rng: np.random.Generator) -> None:
    """Lets the first layer begin with the principal components of patches, at equal variance.

    With random values it would see little but the mean color, which has most of the variance.

    Args:
        encoder: a vision encoder of KerasHub's SigLIP.
        pixels: `(N, S, S, 3)` uint8, pictures whose patches are taken, at least one per component.
        rng: chooses 600 of the pictures.
    """
    patch, channels = encoder.patch_size, encoder.hidden_dim
    scaled = pixels[rng.permutation(len(pixels))[:600]] / np.float32(127.5) - 1
    side = encoder.image_shape[0] // encoder.patch_size
    patches = scaled.reshape(-1, side, patch, side, patch, 3).swapaxes(2, 3)
    patches = patches.reshape(-1, patch * patch * 3)
    mean = patches.mean(0)
    variances, components = np.linalg.eigh(np.cov((patches - mean).T))
    largest = np.argsort(-variances)[:channels]
    kernel = 0.5 * components[:, largest] / np.sqrt(variances[largest] + 3e-4)
    layer = encoder.embedding.patch_embedding
    layer.kernel.assign(kernel.reshape(patch, patch, 3, channels))
    layer.bias.assign(-mean @ kernel)


def start_as_trained(encoder: Any, rng: np.random.Generator) -> None:
    """Gives attention and positions the form that they have in large trained encoders.

    Mimetic initialization (Trockman and Kolter, ICML 2023): in each head the product of query and
    key matrix is near the identity, so that tokens attend to similar tokens; the product of value
    and output matrix is near minus the identity; positions are waves.

    Args:
        encoder: a vision encoder of KerasHub's SigLIP.
        rng: of the random part of the matrices.
    """
    channels, heads = encoder.hidden_dim, encoder.num_heads
    size = channels // heads

    def near_identity(identity: float, noise: float) -> tuple[np.ndarray, np.ndarray]:
        """Returns A and B, `(channels, channels)`, with A B = noise Z + identity I."""
        random = rng.normal(size=(channels, channels)) / np.sqrt(channels)
        left, values, right = np.linalg.svd(noise * random + identity * np.eye(channels))
        return left * np.sqrt(values), np.sqrt(values)[:, None] * right

    for layer in encoder.encoder_layers:
        attention = layer.self_attn
        query, key = np.zeros((2, channels, heads, size))
        for head in range(heads):
            left, right = near_identity(0.7, 0.7)
            query[:, head], key[:, head] = left[:, :size], right[:size].T
        left, right = near_identity(-0.4, 0.4)
        attention.query_dense.kernel.assign(query)
        attention.key_dense.kernel.assign(key)
        attention.value_dense.kernel.assign(left.reshape(channels, heads, size))
        attention.output_dense.kernel.assign(right.reshape(heads, size, channels))
    side = encoder.image_shape[0] // encoder.patch_size
    rates = 1000.0 ** -np.linspace(0, 1, channels // 4, endpoint=False)
    angles = np.outer(np.arange(side), rates)
    waves = np.concatenate([np.sin(angles), np.cos(angles)], -1)
    rows = np.broadcast_to(waves[:, None], (side, side, channels // 2))
    columns = np.broadcast_to(waves[None], (side, side, channels // 2))
    positions = 0.5 * np.concatenate([rows, columns], -1).reshape(-1, channels)
    encoder.embedding.position_embedding.embeddings.assign(positions)
