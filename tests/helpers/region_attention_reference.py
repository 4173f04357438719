"""What the systems that attend to regions share, in NumPy: one photo and one region at a time."""

import numpy as np
from reference import batch_norm, relu, softmax

from biam_tf.models.systems import build_system_head

GRID, CHANNELS, SCENE, EMBEDDING, CLASSES = (3, 2), 5, 4, 6, 7


def random_head(system, rng, seen_embeddings=None, **settings):
    """A small head with no weight at its start, so that biases and statistics count."""
    settings |= {"seen_embeddings": seen_embeddings}
    head = build_system_head(system, (*GRID, CHANNELS), SCENE, EMBEDDING, **settings)
    for weight in head.weights:
        if weight.name != "centroids":
            weight.assign(rng.uniform(0.2, 1, weight.shape) * rng.choice([-1, 1], weight.shape))
    norm = head.get_layer("region_batch_norm")
    norm.moving_variance.assign(rng.uniform(0.5, 2, norm.moving_variance.shape))
    return head


def random_inputs(rng, photos=2):
    """Region features, a scene feature and class embeddings."""
    shapes = [(photos, *GRID, CHANNELS), (photos, SCENE), (CLASSES, EMBEDDING)]
    return [rng.normal(size=shape).astype("float32") for shape in shapes]


def embedded_regions(head, photo):
    """ReLU(BN(conv)) of one photo (h, w, d): windows of 2x2, with zeros below and to the right."""
    kernel = head.get_layer("region_conv").kernel.numpy()
    norm = head.get_layer("region_batch_norm")
    weights = {
        "gamma": norm.gamma.numpy(),
        "beta": norm.beta.numpy(),
        "mean": norm.moving_mean.numpy(),
        "variance": norm.moving_variance.numpy(),
    }
    padded = np.pad(photo.astype(np.float64), ((0, 1), (0, 1), (0, 0)))
    rows = [
        np.einsum("abc,abcd->d", padded[i : i + 2, j : j + 2], kernel)
        for i in range(GRID[0])
        for j in range(GRID[1])
    ]
    return relu(batch_norm(np.array(rows), weights))  # (h w, d)


def attention_of(logits):
    """Softmax over the regions of logits (regions, attentions); (attentions, regions)."""
    return np.array([softmax(column) for column in logits.T])


def dense(head, name, x):
    """x W + b of a layer of the head, by name; without activation."""
    layer = head.get_layer(name)
    return x @ layer.kernel.numpy() + (layer.bias.numpy() if layer.use_bias else 0)
