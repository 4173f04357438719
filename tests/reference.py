"""The paper's equations in NumPy, float64, one image and one head at a time.

Written from the text of the paper, not from the layers, and as plain as can be: loops where the
paper has indices. `weights` are plain arrays by the paper's symbols.
"""

import numpy as np

BATCH_NORM_EPSILON = 1e-3


def conv(x, kernel, bias):
    """Convolution with "same" zero padding; x (h, w, c_in), kernel (n, n, c_in, c_out)."""
    n = kernel.shape[0]
    margin = n // 2
    padded = np.pad(x, ((margin, margin), (margin, margin), (0, 0)))
    height, width = x.shape[:2]
    result = np.zeros((height, width, kernel.shape[3]))
    for i in range(height):
        for j in range(width):
            window = padded[i : i + n, j : j + n]
            result[i, j] = np.einsum("abc,abcd->d", window, kernel) + bias
    return result


def relu(x):
    return np.maximum(x, 0.0)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def batch_norm(x, weights):
    scale = weights["gamma"] / np.sqrt(weights["variance"] + BATCH_NORM_EPSILON)
    return (x - weights["mean"]) * scale + weights["beta"]


def region_context_block(h_r, weights, num_heads):
    """Equations 2 to 5 for one image."""
    height, width, channels = h_r.shape
    regions = h_r.reshape(height * width, channels)
    size = channels // num_heads
    attended = []
    for head in range(num_heads):
        part = slice(head * size, (head + 1) * size)
        q = regions @ weights["W_Q"][:, part] + weights["b_Q"][part]
        k = regions @ weights["W_K"][:, part] + weights["b_K"][part]
        v = regions @ weights["W_V"][:, part] + weights["b_V"][part]
        r = softmax(q @ k.T / np.sqrt(size))
        attended.append(r @ v)
    o_r = np.concatenate(attended, axis=1) @ weights["W_o"] + weights["b_o"]
    x = regions + o_r
    c_r = relu(x @ weights["W_1"] + weights["b_1"]) @ weights["W_2"] + weights["b_2"]
    return (c_r + x).reshape(h_r.shape)


def scene_context_block(h_r, x_g, weights):
    """Equations 6 to 8 for one image."""
    q = h_r.mean(axis=(0, 1))
    k = x_g @ weights["W_g"] + weights["b_g"]
    alpha = h_r * sigmoid(q * k)
    c_g = batch_norm(relu(conv(alpha, weights["kernel"], weights["bias"])), weights)
    return c_g + h_r


def biam(x_r, x_g, class_embeddings, weights, num_heads, top_k):
    """Scores (C,) of one image, equations 1 to 9."""
    h = weights["h"]
    h_r = batch_norm(relu(conv(x_r, h["kernel"], h["bias"])), h)
    e_r = region_context_block(h_r, weights["rcb"], num_heads)
    e_g = scene_context_block(h_r, x_g, weights["scb"])
    e_f = np.concatenate([e_r, e_g], axis=-1) @ weights["W_f"] + weights["b_f"]
    m = e_f @ weights["W_a"] @ class_embeddings.T
    return np.array(
        [np.sort(m[..., c], axis=None)[-top_k:].mean() for c in range(len(class_embeddings))]
    )
