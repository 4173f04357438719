"""Scores of many examples against a matrix of class embeddings."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf


def make_scorer(model: keras.Model) -> Callable[..., dict[str, tf.Tensor]]:
    """Returns a compiled function of (inputs by name, class_embeddings) to the model's outputs.

    It is traced once for all numbers of classes and batch sizes.

    Args:
        model: a head or tagger with an input `class_embeddings`; its other inputs come by name.
    """
    specs = {t.name: tf.TensorSpec(t.shape, t.dtype) for t in model.inputs}
    embeddings_spec = specs.pop("class_embeddings")
    order = [tensor.name for tensor in model.inputs]

    @tf.function(input_signature=[specs, embeddings_spec])
    def score(inputs, class_embeddings):
        tensors = {**inputs, "class_embeddings": class_embeddings}
        outputs = model([tensors[name] for name in order], training=False)
        return outputs if isinstance(outputs, dict) else {"scores": outputs}

    return score


def score_examples(scorer, batches: tf.data.Dataset, class_embeddings, progress=None) -> np.ndarray:
    """Returns the scores (N, C), float32, of all examples of `batches`.

    Args:
        scorer: of `make_scorer`.
        batches: inputs by name.
        class_embeddings: (C, d_a).
        progress: called with the number of examples of each batch, where given.
    """
    class_embeddings = tf.convert_to_tensor(class_embeddings, tf.float32)
    scores = []
    for inputs in batches:
        scores.append(scorer(inputs, class_embeddings)["scores"].numpy())
        if progress is not None:
            progress(len(scores[-1]))
    if not scores:
        return np.zeros((0, len(class_embeddings)), np.float32)
    return np.concatenate(scores)
