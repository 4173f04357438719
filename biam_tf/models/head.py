"""The head: region features, a scene feature and class embeddings in, a score a class out."""

import keras
import numpy as np
from keras import layers

from biam_tf.layers import (
    BoundClassEmbeddings,
    ConvReluBatchNorm,
    RegionClassifier,
    RegionContextBlock,
    SceneContextBlock,
    TopKSpatialPooling,
)
from biam_tf.models.presets import HeadSettings, head_settings


def build_head(
    region_shape,
    scene_size,
    embedding_size,
    preset="paper",
    *,
    return_response_maps=False,
    name="head",
    **settings,
):
    """Builds the BiAM head (section 2 and figure 3 of the paper) as a functional model.

    Args:
        region_shape: `(height, width, channels)` of the region features; height and width may
            be `None`.
        scene_size: int, length of the scene feature.
        embedding_size: int, length of a class embedding.
        preset: `"paper"` (the equations) or `"released"` (the authors' code); see `PRESETS`.
        return_response_maps: bool, give the response maps beside the scores.
        name: str, name of the model.
        **settings: fields of `HeadSettings` that replace the preset's, e.g. `num_heads=4`,
            `top_k=6`, `region_context="none"`.

    Returns:
        A `keras.Model` with the inputs, in this order or as a dictionary by name,

        - `region_features` `(batch, height, width, channels)`,
        - `scene_feature` `(batch, scene_size)`,
        - `class_embeddings` `(classes, embedding_size)`, *without* a batch axis: any number of
          classes, another one at every call;

        and the output scores `(batch, classes)`, float32, or, with `return_response_maps`, a
        dictionary of `scores` and `response_maps` `(batch, height, width, classes)`.

    Raises:
        ValueError: a setting is unknown or not valid, or does not fit the shapes.
    """
    chosen = head_settings(preset, **settings)
    if return_response_maps and chosen.classify != "regions":
        raise ValueError(
            f"response maps need classify='regions'; with classify={chosen.classify!r} no region "
            "is classified"
        )

    # === Functional Model ===
    region_features = keras.Input(region_shape, name="region_features")
    scene_feature = keras.Input((scene_size,), name="scene_feature")
    class_embeddings = keras.Input(batch_shape=(None, embedding_size), name="class_embeddings")

    features = _region_embedding(chosen, region_features)
    features = _context(chosen, features, scene_feature)
    classifier = RegionClassifier(use_bias=chosen.classifier_bias, name="region_classifier")
    # Scores leave in float32 under any dtype policy: a ranking loss needs their differences.
    if chosen.classify == "regions":
        response_maps = classifier([features, class_embeddings])
        pooling = TopKSpatialPooling(chosen.top_k, dtype="float32", name="scores")
        scores = pooling(response_maps)
    else:
        pooled = layers.GlobalAveragePooling2D(name="pooled_features")(features)
        scores = classifier([pooled, class_embeddings])
        scores = layers.Activation("linear", dtype="float32", name="scores")(scores)

    inputs = [region_features, scene_feature, class_embeddings]
    outputs = {"scores": scores, "response_maps": response_maps} if return_response_maps else scores
    return keras.Model(inputs, outputs, name=name)


def _region_embedding(chosen: HeadSettings, region_features):
    """h_r, the region features that both context blocks start from."""
    if chosen.region_dropout:
        dropout = layers.SpatialDropout2D(chosen.region_dropout, name="region_dropout")
        region_features = dropout(region_features)
    return ConvReluBatchNorm(
        chosen.channels,
        momentum=chosen.batch_norm_momentum,
        epsilon=chosen.batch_norm_epsilon,
        name="region_embedding",
    )(region_features)


def _context(chosen: HeadSettings, h_r, scene_feature):
    """e_f: what the chosen blocks make of h_r (h_r itself without any), fused if both stand."""
    enriched = []
    if chosen.region_context != "none":
        block = REGION_CONTEXT[chosen.region_context](chosen)
        enriched.append(block(h_r))
    if chosen.scene_context != "none":
        block = SCENE_CONTEXT[chosen.scene_context](chosen)
        enriched.append(block([h_r, scene_feature]))
    if len(enriched) < 2:
        return enriched[0] if enriched else h_r

    e_f = layers.Concatenate(name="both_contexts")(enriched)
    e_f = layers.Conv2D(chosen.fused_channels or chosen.channels, 1, name="fusion")(e_f)  # eq. 9
    if chosen.fusion_activation == "leaky_relu":
        e_f = layers.LeakyReLU(negative_slope=0.2, name="fusion_activation")(e_f)
    return e_f


def _region_context_block(chosen: HeadSettings) -> keras.Layer:
    return RegionContextBlock(
        num_heads=chosen.num_heads,
        attention_dropout=chosen.attention_dropout,
        output_dropout=chosen.output_dropout,
        mask_zero_scores=chosen.mask_zero_scores,
        name="region_context",
    )


def _scene_context_block(chosen: HeadSettings) -> keras.Layer:
    return SceneContextBlock(
        value_projection=chosen.value_projection,
        residual=chosen.residual,
        scene_dropout=chosen.scene_dropout,
        batch_norm_momentum=chosen.batch_norm_momentum,
        batch_norm_epsilon=chosen.batch_norm_epsilon,
        name="scene_context",
    )


# Blocks by the names that configurations use; every name but "none" in `presets.CHOICES`.
REGION_CONTEXT = {"self_attention": _region_context_block}
SCENE_CONTEXT = {"channel_gate": _scene_context_block}


def bind_vocabulary(head, class_embeddings, name=None):
    """Returns the head with its class embeddings held as a constant; the weights are shared.

    The result takes `region_features` and `scene_feature` only, both with a batch axis, so it
    trains under `fit` and `tf.distribute`, where an input without a batch axis would be split
    like the rest of the batch.

    Args:
        head: a model of `build_head`, or any model with an input `class_embeddings`.
        class_embeddings: array-like `(classes, embedding_size)`.
        name: str, name of the new model.

    Raises:
        ValueError: the embeddings are no matrix of the head's embedding length.
    """
    inputs = {tensor.name: tensor for tensor in head.inputs}
    if "class_embeddings" not in inputs:
        raise ValueError(
            f"model {head.name!r} has no input 'class_embeddings'; its inputs are "
            f"{', '.join(inputs)}"
        )
    class_embeddings = np.asarray(class_embeddings)
    embedding_size = inputs.pop("class_embeddings").shape[-1]
    if class_embeddings.ndim != 2 or class_embeddings.shape[-1] != embedding_size:
        raise ValueError(
            f"class_embeddings must be a matrix (classes, {embedding_size}) for this head; got "
            f"shape {class_embeddings.shape}"
        )
    fresh = {
        key: keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=key)
        for key, tensor in inputs.items()
    }
    bound = BoundClassEmbeddings(class_embeddings, name="bound_class_embeddings")
    tensors = {**fresh, "class_embeddings": bound(next(iter(fresh.values())))}
    scores = head([tensors[tensor.name] for tensor in head.inputs])
    return keras.Model(list(fresh.values()), scores, name=name or f"bound_{head.name}")


def with_response_maps(head):
    """Returns the same head, sharing all weights, that gives `scores` and `response_maps`.

    Raises:
        ValueError: the head classifies pooled features, so there are no maps.
    """
    names = [layer.name for layer in head.layers]
    if "region_classifier" not in names or "pooled_features" in names:
        raise ValueError(f"model {head.name!r} classifies no single regions: it has no maps")
    outputs = {
        "scores": head.get_layer("scores").output,
        "response_maps": head.get_layer("region_classifier").output,
    }
    return keras.Model(head.inputs, outputs, name=f"{head.name}_with_response_maps")
