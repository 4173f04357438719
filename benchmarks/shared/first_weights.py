"""First weights of a small image encoder, with which it learns in minutes what takes hours else."""

from typing import Any

import numpy as np

PLACES = 16  # channels of the positions, as many as a head has
# Steps to the neighbors that the four heads of the first two layers attend to, down and right.
NEIGHBORS = (((-1, 0), (1, 0), (0, -1), (0, 1)), ((-1, -1), (-1, 1), (1, -1), (1, 1)))


def whiten_patches(encoder: Any, pixels: np.ndarray, rng: np.random.Generator) -> None:
    """Lets the first layer begin with the principal components of patches, at equal variance.

    With random values it would see little but the mean color, which has most of the variance. The
    last `PLACES` channels are left to the positions.
    """
    patch, channels = encoder.patch_size, encoder.hidden_dim
    scaled = pixels[rng.permutation(len(pixels))[:300]] / np.float32(127.5) - 1
    side = encoder.image_shape[0] // encoder.patch_size
    patches = scaled.reshape(-1, side, patch, side, patch, 3).swapaxes(2, 3)
    patches = patches.reshape(-1, patch * patch * 3)
    mean = patches.mean(0)
    variances, components = np.linalg.eigh(np.cov((patches - mean).T))
    largest = np.argsort(-variances)[: channels - PLACES]
    kernel = np.zeros((len(mean), channels))
    kernel[:, : channels - PLACES] = (
        0.5 * components[:, largest] / np.sqrt(variances[largest] + 3e-4)
    )
    layer = encoder.embedding.patch_embedding
    layer.kernel.assign(kernel.reshape(patch, patch, 3, channels))
    layer.bias.assign(-mean @ kernel)


def start_as_convolution(encoder: Any) -> None:
    """Lets each head of the first two layers attend to one neighbor of a token.

    As the networks of d'Ascoli et al., ConViT, ICML 2021, begin. Positions are waves in channels of
    their own; a query turns them by the step to the neighbor, so that its product with a key is
    largest there.
    """
    import keras

    channels, heads = encoder.hidden_dim, encoder.num_heads
    rates = np.array([1.5, 0.75, 0.4, 0.2])  # radians from token to token
    side = encoder.image_shape[0] // encoder.patch_size
    angles = np.outer(np.arange(side), rates)
    waves = np.stack([np.cos(angles), np.sin(angles)], -1).reshape(side, -1)
    rows = np.broadcast_to(waves[:, None], (side, side, PLACES // 2))
    columns = np.broadcast_to(waves[None], (side, side, PLACES // 2))
    positions = np.zeros((side, side, channels))
    positions[..., -PLACES:] = 0.7 * np.concatenate([rows, columns], -1)
    encoder.embedding.position_embedding.embeddings.assign(positions.reshape(-1, channels))

    def turned(step: float) -> np.ndarray:
        block = np.zeros((PLACES // 2, PLACES // 2))
        for number, angle in enumerate(step * rates):
            own = slice(2 * number, 2 * number + 2)
            block[own, own] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        return block

    size, sharpness = channels // heads, 2.2
    for layer, steps in zip(encoder.encoder_layers, NEIGHBORS, strict=False):
        query, key = np.zeros((2, channels, heads, size))
        for head, (down, right) in enumerate(steps):
            query[-PLACES : -PLACES // 2, head, : PLACES // 2] = turned(down)
            query[-PLACES // 2 :, head, PLACES // 2 :] = turned(right)
            key[-PLACES:, head] = np.eye(PLACES)
        attention = layer.self_attn
        attention.query_dense.kernel.assign(sharpness * query)
        attention.key_dense.kernel.assign(sharpness * key)
        # At first, no layer changes the positions.
        for kernel in (attention.output_dense.kernel, layer.mlp.fc2.kernel):
            values = keras.ops.convert_to_numpy(kernel).copy()
            values[..., -PLACES:] = 0
            kernel.assign(values)
