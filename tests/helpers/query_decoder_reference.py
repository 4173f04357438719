"""One decoder layer over regions in NumPy, float64: one photo, one head and one query at a time."""

import numpy as np
from reference import relu, softmax


def dense(layer, x):
    """x W + b of a built Keras layer."""
    return x @ layer.kernel.numpy().astype(np.float64) + layer.bias.numpy()


def layer_norm(layer, x):
    rows = [(row - row.mean()) / np.sqrt(row.var() + 1e-5) for row in x]
    return np.array(rows) * layer.gamma.numpy() + layer.beta.numpy()


def attend(decoder, part, queries, memory):
    """Gathered values (Q, d) and attention (H, Q, n)."""
    q, k, v = (
        dense(decoder.maps[f"{part}_{name}"], x)
        for name, x in (("query", queries), ("key", memory), ("value", memory))
    )
    size = q.shape[1] // decoder.num_heads
    gathered, attention = np.zeros_like(q), []
    for head in range(decoder.num_heads):
        own = slice(head * size, (head + 1) * size)
        weights = np.array([softmax(k[:, own] @ row / np.sqrt(size)) for row in q[:, own]])
        gathered[:, own] = weights @ v[:, own]
        attention.append(weights)
    return dense(decoder.maps[f"{part}_output"], gathered), np.array(attention)


def decode(decoder, queries, regions):
    """Decoded queries (Q, d) and mean attention (Q, n) of regions (n, d) of one photo."""
    own = attend(decoder, "self", queries, queries)[0] if decoder.self_attention else queries
    q = layer_norm(decoder.norms[0], queries + own)
    gathered, attention = attend(decoder, "cross", q, regions)
    q = layer_norm(decoder.norms[1], q + gathered)
    hidden = relu(dense(decoder.maps["feed_forward_1"], q))
    q = layer_norm(decoder.norms[2], q + dense(decoder.maps["feed_forward_2"], hidden))
    return q, attention.mean(axis=0)
