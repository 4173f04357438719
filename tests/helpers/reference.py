"""The paper's equations in NumPy, float64, one image and one head at a time.

Written from the text of the papers, not from the layers, and as plain as can be: loops where a
paper has indices. `weights` are plain arrays by the paper's symbols.
"""

import numpy as np

BATCH_NORM_EPSILON = 1e-3
LAYER_NORM_EPSILON = 1e-5


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


def layer_norm(x, weights):
    """Every row of x (rows, channels) by itself."""
    normalized = [(row - row.mean()) / np.sqrt(row.var() + LAYER_NORM_EPSILON) for row in x]
    return np.array(normalized) * weights["gamma"] + weights["beta"]


def region_context_block(h_r, weights, num_heads, attention=softmax):
    """Equations 2 to 5 for one image; normalized like Vaswani's encoder where weights say so."""
    height, width, channels = h_r.shape
    regions = h_r.reshape(height * width, channels)
    size = channels // num_heads
    attended = []
    for head in range(num_heads):
        part = slice(head * size, (head + 1) * size)
        q = regions @ weights["W_Q"][:, part] + weights["b_Q"][part]
        k = regions @ weights["W_K"][:, part] + weights["b_K"][part]
        v = regions @ weights["W_V"][:, part] + weights["b_V"][part]
        r = attention(q @ k.T / np.sqrt(size))
        attended.append(r @ v)
    o_r = np.concatenate(attended, axis=1) @ weights["W_o"] + weights["b_o"]
    x = regions + o_r
    if "attention_norm" in weights:
        x = layer_norm(x, weights["attention_norm"])
    c_r = relu(x @ weights["W_1"] + weights["b_1"]) @ weights["W_2"] + weights["b_2"]
    e_r = c_r + x
    if "feed_forward_norm" in weights:
        e_r = layer_norm(e_r, weights["feed_forward_norm"])
    return e_r.reshape(h_r.shape)


def scene_context_block(h_r, x_g, weights, attention=sigmoid):
    """Equations 6 to 8 for one image."""
    q = h_r.mean(axis=(0, 1))
    k = x_g @ weights["W_g"] + weights["b_g"]
    alpha = h_r * attention(q * k)
    c_g = batch_norm(relu(conv(alpha, weights["kernel"], weights["bias"])), weights)
    return c_g + h_r


def non_local_block(x, weights):
    """Wang et al. 2018, equations 1 (embedded Gaussian) and 6, for one image."""
    regions = x.reshape(-1, x.shape[-1])
    theta, phi, g = (regions @ weights[f"W_{s}"] + weights[f"b_{s}"] for s in ("theta", "phi", "g"))
    y = np.zeros_like(g)
    for i in range(len(regions)):
        f = np.array([np.exp(theta[i] @ phi[j]) for j in range(len(regions))])
        for j in range(len(regions)):
            y[i] += f[j] / f.sum() * g[j]
    z = batch_norm(y @ weights["W_z"] + weights["b_z"], weights) + regions
    return z.reshape(x.shape)


def criss_cross_attention(x, weights, recurrence):
    """Huang et al. 2019, section 3, for one image."""
    for _ in range(recurrence):
        x = criss_cross_step(x, weights)
    return x


def criss_cross_step(x, weights):
    height, width = x.shape[:2]
    q, k, v = (x @ weights[f"W_{s}"] + weights[f"b_{s}"] for s in "QKV")
    result = np.zeros_like(x)
    for i in range(height):
        for j in range(width):
            cross = {(row, j) for row in range(height)} | {(i, column) for column in range(width)}
            places = sorted(cross)  # a set: (i, j) is in it once
            a = softmax(np.array([q[i, j] @ k[place] for place in places]))
            attended = sum(a[n] * v[place] for n, place in enumerate(places))
            result[i, j] = weights["gamma"] * attended + x[i, j]
    return result


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
