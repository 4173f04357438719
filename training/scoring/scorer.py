"""Scores of many examples against a matrix of class embeddings."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from biam_tf.metrics.stored_scores import Scores, collect_scores

# Inputs by name, and class embeddings (C, d_a), to outputs by name.
Scorer = Callable[[Mapping[str, tf.Tensor], tf.Tensor], Mapping[str, tf.Tensor]]


def make_scorer(model: keras.Model) -> Scorer:
    """Returns a compiled function of inputs and class embeddings to the model's outputs.

    It is traced once for all numbers of classes and batch sizes.

    Args:
        model: a head or tagger with an input `class_embeddings`.
    """
    specs = {t.name: tf.TensorSpec(t.shape, t.dtype) for t in model.inputs}
    embeddings_spec = specs.pop("class_embeddings")
    order = [tensor.name for tensor in model.inputs]

    @tf.function(input_signature=[specs, embeddings_spec], autograph=False)
    def score(
        inputs: Mapping[str, tf.Tensor], class_embeddings: tf.Tensor
    ) -> Mapping[str, tf.Tensor]:
        tensors = {**inputs, "class_embeddings": class_embeddings}
        outputs = model([tensors[name] for name in order], training=False)
        return outputs if isinstance(outputs, dict) else {"scores": outputs}

    return score


def score_examples(
    scorer: Scorer,
    batches: tf.data.Dataset,
    class_embeddings: np.ndarray,
    images: int,
    progress: Callable[[int], Any] | None = None,
) -> Scores:
    """Returns the scores (N, C), float32, of all examples; large ones are kept in a file.

    Args:
        scorer: of `make_scorer`.
        batches: inputs by name.
        class_embeddings: (C, d_a).
        images: N, the number of examples.
        progress: called with the number of examples of each batch.
    """
    class_embeddings = tf.convert_to_tensor(class_embeddings, tf.float32)

    def scored() -> Iterator[np.ndarray]:
        for inputs in batches:
            scores = scorer(inputs, class_embeddings)["scores"].numpy()
            yield scores
            if progress is not None:
                progress(len(scores))

    return collect_scores(scored(), images, len(class_embeddings))
