"""The head: region features, a scene feature and class embeddings in, a score a class out."""

import functools

import keras
import numpy as np
from keras import layers

from biam_tf.layers import (
    BoundClassEmbeddings,
    ConvReluBatchNorm,
    CosineRegionClassifier,
    CrissCrossAttention,
    NonLocalBlock,
    PointwiseConv2D,
    RegionClassifier,
    RegionContextBlock,
    SceneContextBlock,
    TopKRegionScores,
    TopKSpatialPooling,
)
from biam_tf.models.k_means import k_means
from biam_tf.models.presets import PRESETS, HeadSettings
from biam_tf.models.system import HeadInputs, System


def build_head(
    region_shape,
    scene_size,
    embedding_size,
    preset="paper",
    *,
    seen_embeddings=None,
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
        preset: `"paper"` (the equations), `"released"` (the authors' code) or `"recommended"`
            (what does better on validation photos); see `PRESETS`.
        seen_embeddings: array-like `(seen classes, embedding_size)`, the classes it will be
            trained on; needed with `center_embeddings` and `anchor_weight`.
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
    chosen = BIAM.settings(preset, **settings)
    if return_response_maps and chosen.classify != "regions":
        raise ValueError(
            f"response maps need classify='regions'; with classify={chosen.classify!r} no region "
            "is classified"
        )

    inputs = HeadInputs.of_shapes(region_shape, scene_size, embedding_size, seen_embeddings)
    head = inputs.model(build_scores(inputs, chosen), name)
    return with_response_maps(head, name) if return_response_maps else head


def build_scores(inputs: HeadInputs, chosen: HeadSettings) -> keras.KerasTensor:
    """Returns the scores (batch, classes), float32, of BiAM's head for its inputs.

    Raises:
        ValueError: settings that do not fit the shapes, or need seen embeddings.
    """
    features = _region_embedding(chosen, inputs.region_features)
    features = _context(chosen, features, inputs.scene_feature)
    pooled_first = chosen.classify == "pooled_features"
    if pooled_first:
        features = layers.GlobalAveragePooling2D(name="pooled_features")(features)
    if chosen.classifier == "cosine":
        classifier = _cosine_classifier(chosen, inputs)
        size = inputs.class_embeddings.shape[-1] + classifier.num_anchors
        features = _in_embedding_space(chosen, features, inputs.scene_feature, size)
    else:
        classifier = RegionClassifier(use_bias=chosen.classifier_bias, name="region_classifier")
    responses = classifier([features, inputs.class_embeddings])
    # Scores leave in float32 under any dtype policy: a loss needs their differences.
    if pooled_first:
        return layers.Activation("linear", dtype="float32", name="scores")(responses)
    return TopKSpatialPooling(chosen.top_k, dtype="float32", name="scores")(responses)


def _region_embedding(chosen: HeadSettings, region_features):
    """h_r, the region features that both context blocks start from."""
    if chosen.region_dropout:
        dropout = layers.SpatialDropout2D(chosen.region_dropout, name="region_dropout")
        region_features = dropout(region_features)
    if chosen.region_embedding == "dense":
        dense = PointwiseConv2D(chosen.channels, activation="relu", name="region_embedding")
        return dense(region_features)
    return ConvReluBatchNorm(
        chosen.channels,
        momentum=chosen.batch_norm_momentum,
        epsilon=chosen.batch_norm_epsilon,
        name="region_embedding",
    )(region_features)


def _cosine_classifier(chosen: HeadSettings, inputs: HeadInputs) -> CosineRegionClassifier:
    center = anchors = None
    if chosen.center_embeddings:
        center = inputs.require_seen_embeddings("center_embeddings").mean(axis=0)
    if chosen.anchor_weight:
        anchors = inputs.require_seen_embeddings("anchor_weight")
        if len(anchors) > chosen.max_anchors:
            anchors = k_means(anchors, chosen.max_anchors)
    return CosineRegionClassifier(
        chosen.score_scale,
        center,
        anchors,
        anchor_weight=chosen.anchor_weight,
        anchor_temperature=chosen.anchor_temperature,
        anchor_dropout=chosen.anchor_dropout,
        name="region_classifier",
    )


def _in_embedding_space(chosen: HeadSettings, features, scene, size: int):
    """Unit vectors in the space of the classes; the scene's added to every region's."""
    projection = layers.Dense(size, name="region_projection")
    features = layers.UnitNormalization(name="region_direction")(projection(features))
    if not chosen.scene_scores:
        return features
    if chosen.scene_scores_dropout:
        scene = layers.Dropout(chosen.scene_scores_dropout, name="scene_scores_dropout")(scene)
    if chosen.scene_scores_channels is not None:
        hidden = layers.Dense(
            chosen.scene_scores_channels, activation="relu", name="scene_embedding"
        )
        scene = hidden(scene)
        # The hidden units are as many ways to remember the training photos.
        scene = layers.Dropout(0.5, name="scene_embedding_dropout")(scene)
    projection = layers.Dense(size, name="scene_projection")
    scene = layers.UnitNormalization(name="scene_direction")(projection(scene))
    if len(features.shape) == 4:
        scene = layers.Reshape((1, 1, size), name="scene_of_every_region")(scene)
    return layers.Add(name="region_and_scene")([features, scene])


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
    e_f = PointwiseConv2D(chosen.fused_channels or chosen.channels, name="fusion")(e_f)  # eq. 9
    if chosen.fusion_activation == "leaky_relu":
        e_f = layers.LeakyReLU(negative_slope=0.2, name="fusion_activation")(e_f)
    return e_f


def _region_context_block(
    chosen: HeadSettings, attention: str = "softmax", layer_norm: bool = False
) -> keras.Layer:
    return RegionContextBlock(
        num_heads=chosen.num_heads,
        attention_dropout=chosen.attention_dropout,
        output_dropout=chosen.output_dropout,
        attention=attention,
        mask_zero_scores=chosen.mask_zero_scores,
        layer_norm=layer_norm,
        name="region_context",
    )


def _non_local_block(chosen: HeadSettings) -> keras.Layer:
    return NonLocalBlock(
        batch_norm_momentum=chosen.batch_norm_momentum,
        batch_norm_epsilon=chosen.batch_norm_epsilon,
        name="region_context",
    )


def _criss_cross_attention(chosen: HeadSettings) -> keras.Layer:
    return CrissCrossAttention(name="region_context")


def _scene_context_block(chosen: HeadSettings, attention: str = "sigmoid") -> keras.Layer:
    return SceneContextBlock(
        value_projection=chosen.value_projection,
        residual=chosen.residual,
        scene_dropout=chosen.scene_dropout,
        attention=attention,
        batch_norm_momentum=chosen.batch_norm_momentum,
        batch_norm_epsilon=chosen.batch_norm_epsilon,
        name="scene_context",
    )


# Blocks by the names that configurations use; every name but "none" in `presets.CHOICES`.
REGION_CONTEXT = {
    "self_attention": _region_context_block,
    "self_attention_layer_norm": functools.partial(_region_context_block, layer_norm=True),
    "self_attention_sigmoid": functools.partial(_region_context_block, attention="sigmoid"),
    "non_local": _non_local_block,
    "criss_cross": _criss_cross_attention,
}
SCENE_CONTEXT = {
    "channel_gate": _scene_context_block,
    "channel_softmax": functools.partial(_scene_context_block, attention="softmax"),
}


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


def with_response_maps(head, name=None):
    """Returns the same head, sharing all weights, that gives `scores` and `response_maps`.

    Raises:
        ValueError: the head has no response maps: it classifies pooled features, say.
    """
    layer = response_map_layer(head)
    if layer is None:
        raise ValueError(f"model {head.name!r} classifies no single regions: it has no maps")
    outputs = {"scores": head.get_layer("scores").output, "response_maps": layer.output}
    return keras.Model(head.inputs, outputs, name=name or f"{head.name}_with_response_maps")


def scores_alone(head):
    """Returns the same head, sharing all weights, that never holds its response maps in memory.

    For training and for scoring many classes; a head of another make is returned as it is.
    """
    classifier, pooling = region_classifier(head), head.get_layer("scores")
    if classifier is None or not isinstance(pooling, TopKSpatialPooling):
        return head
    scores = TopKRegionScores(classifier, pooling.k, name="scores")(classifier.input)
    return keras.Model(head.inputs, scores, name=head.name)


def region_classifier(head) -> keras.Layer | None:
    """Returns BiAM's classifier of regions or pooled features; `None` in a head of another make."""
    found = [layer for layer in head.layers if layer.name == "region_classifier"]
    return found[0] if found else None


def response_map_layer(head) -> keras.Layer | None:
    """Returns the layer of a head whose output is its response maps; `None` without any."""
    for name in ("response_maps", "region_classifier"):
        for layer in head.layers:
            if layer.name == name and len(layer.output.shape) == 4:
                return layer
    return None


BIAM = System(
    title="BiAM",
    source=(
        "Narayan et al., Discriminative region-based multi-label zero-shot learning, ICCV 2021, "
        "section 2"
    ),
    presets=PRESETS,
    build=build_scores,
)
