"""The head: region features, a scene feature and class embeddings in, one score per class out."""

from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import ArrayLike

from biam_tf.backbones.classifier import BackboneClasses
from biam_tf.layers import (
    AddDirection,
    BoundClassEmbeddings,
    ConvReluBatchNorm,
    CosineRegionClassifier,
    PointwiseConv2D,
    RegionClassifier,
    TopKRegionScores,
    TopKSpatialPooling,
)
from biam_tf.models.backbone_direction import Recognized, recognize
from biam_tf.models.context_blocks import REGION_CONTEXT, SCENE_CONTEXT
from biam_tf.models.k_means import k_means
from biam_tf.models.presets import BIAM, HeadSettings
from biam_tf.models.system import HeadInputs
from biam_tf.tensor_types import Shape
from biam_tf.ways_to_compute import require_channels_last


def build_head(
    region_shape: Shape,
    scene_size: int,
    embedding_size: int,
    preset: str = "paper",
    *,
    seen_embeddings: ArrayLike | None = None,
    backbone_classes: BackboneClasses | None = None,
    return_response_maps: bool = False,
    name: str = "head",
    **settings: Any,
) -> keras.Model:
    """Builds the BiAM head (section 2 and figure 3 of the paper) as a functional model.

    Args:
        region_shape: `(height, width, channels)` of the region features; height and width may
            be `None`.
        scene_size: int, length of the scene feature.
        embedding_size: int, length of a class embedding.
        preset: `"paper"` (the equations), `"released"` (the authors' code) or `"recommended"`
            (the best on validation photos); see `PRESETS`. Defaults to `"paper"`.
        seen_embeddings: array-like `(seen classes, embedding_size)`, the classes it will be
            trained on; needed with `center_embeddings` and `anchor_weight`. Defaults to `None`.
        backbone_classes: the classes that the backbone was trained on, needed with
            `use_backbone_classes="required"`, used with `"if_known"`. Defaults to `None`.
        return_response_maps: bool, whether it returns the response maps too. Defaults to `False`.
        name: str, name of the model. Defaults to `"head"`.
        **settings: fields of `HeadSettings` that replace the preset's, e.g. `num_heads=4`,
            `top_k=6`, `region_context="none"`.

    Returns:
        A `keras.Model` with the inputs, in this order or as a dictionary by name,

        - `region_features` `(batch, height, width, channels)`,
        - `scene_feature` `(batch, scene_size)`,
        - `class_embeddings` `(classes, embedding_size)`, *without* a batch axis: any number of
          classes, which may differ from call to call;

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

    require_channels_last("build_head")
    inputs = HeadInputs.of_shapes(
        region_shape, scene_size, embedding_size, seen_embeddings, backbone_classes
    )
    head = inputs.model(build_scores(inputs, chosen), name)
    return with_response_maps(head, name) if return_response_maps else head


def build_scores(inputs: HeadInputs, chosen: HeadSettings) -> keras.KerasTensor:
    """Returns the scores (batch, classes), float32, of BiAM's head for its inputs.

    Raises:
        ValueError: settings do not fit the shapes, or need seen embeddings, which are missing.
    """
    known = _recognized(chosen, inputs)
    regions, direction = inputs.region_features, None
    if known is not None:
        direction = known.direction
        if chosen.region_source == "backbone_classifier" and len(known.hidden.shape) == 4:
            regions = known.hidden
    features = _region_embedding(chosen, regions)
    features = _context(chosen, features, inputs.scene_feature)
    pooled_first = chosen.classify == "pooled_features"
    if pooled_first:
        features = layers.GlobalAveragePooling2D(name="pooled_features")(features)
    if chosen.classifier == "cosine":
        classifier = _cosine_classifier(chosen, inputs)
        size = inputs.class_embeddings.shape[-1] + classifier.num_anchors
        features = _in_embedding_space(chosen, features, inputs.scene_feature, direction, size)
    else:
        classifier = RegionClassifier(use_bias=chosen.classifier_bias, name="region_classifier")
    responses = classifier([features, inputs.class_embeddings])
    # Scores are float32 under any dtype policy: a loss needs their differences.
    if pooled_first:
        return layers.Activation("linear", dtype="float32", name="scores")(responses)
    return TopKSpatialPooling(chosen.top_k, dtype="float32", name="scores")(responses)


def _region_embedding(
    chosen: HeadSettings, region_features: keras.KerasTensor
) -> keras.KerasTensor:
    """Returns h_r, the input of both context blocks."""
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


def _recognized(chosen: HeadSettings, inputs: HeadInputs) -> Recognized | None:
    """Returns what the backbone's classes are in the regions; `None` for a head without them.

    A classifier that takes the scene feature alone is applied to that.
    """
    if chosen.use_backbone_classes == "none":
        return None
    if chosen.use_backbone_classes == "required":
        inputs.require_backbone_classes("use_backbone_classes: required")
    classes = inputs.backbone_classes
    if classes is None:
        return None
    features, dense = inputs.region_features, classes.classifier.region_layers
    if dense is None:
        features, dense = inputs.scene_feature, classes.classifier.scene_layers
    return recognize(features, dense, classes, chosen.kept_classes, chosen.class_temperature)


def _for_features(direction: keras.KerasTensor, features: keras.KerasTensor) -> keras.KerasTensor:
    """Returns directions of regions, or of the photo, with the axes of the classified features."""
    if len(features.shape) == len(direction.shape):
        return direction
    if len(features.shape) == 2:
        return layers.GlobalAveragePooling2D(name="pooled_directions")(direction)
    return layers.Reshape((1, 1, direction.shape[-1]), name="direction_of_every_region")(direction)


def _in_embedding_space(
    chosen: HeadSettings,
    features: keras.KerasTensor,
    scene: keras.KerasTensor,
    direction: keras.KerasTensor | None,
    size: int,
) -> keras.KerasTensor:
    """Maps features to unit vectors in the embedding space; adds those of scene and backbone."""
    features = layers.Dense(size, name="region_projection")(features)
    if direction is not None:
        direction = _for_features(direction, features)
    if direction is not None and chosen.backbone_input:
        scaled = layers.Rescaling(chosen.backbone_input, name="scaled_direction")(direction)
        projected = layers.Dense(size, use_bias=False, name="direction_projection")(scaled)
        features = layers.Add(name="region_and_direction")([features, projected])
    features = layers.UnitNormalization(name="region_direction")(features)
    if chosen.scene_scores:
        scene = _scene_direction(chosen, scene, size)
        if len(features.shape) == 4:
            scene = layers.Reshape((1, 1, size), name="scene_of_every_region")(scene)
        features = layers.Add(name="region_and_scene")([features, scene])
    if direction is None:
        return features
    add = AddDirection(chosen.backbone_weight, name="and_backbone_direction")
    return add([features, direction])


def _scene_direction(
    chosen: HeadSettings, scene: keras.KerasTensor, size: int
) -> keras.KerasTensor:
    if chosen.scene_scores_dropout:
        scene = layers.Dropout(chosen.scene_scores_dropout, name="scene_scores_dropout")(scene)
    if chosen.scene_scores_channels is not None:
        hidden = layers.Dense(
            chosen.scene_scores_channels, activation="relu", name="scene_embedding"
        )
        scene = hidden(scene)
        # The hidden units overfit easily to the training photos.
        scene = layers.Dropout(0.5, name="scene_embedding_dropout")(scene)
    projection = layers.Dense(size, name="scene_projection")
    return layers.UnitNormalization(name="scene_direction")(projection(scene))


def _context(
    chosen: HeadSettings, h_r: keras.KerasTensor, scene_feature: keras.KerasTensor
) -> keras.KerasTensor:
    """Returns e_f, the fused outputs of the chosen context blocks; h_r itself without any."""
    enriched = []
    if chosen.region_context != "none":
        block = REGION_CONTEXT[chosen.region_context].build(chosen, "region_context")
        enriched.append(block(h_r))
    if chosen.scene_context != "none":
        block = SCENE_CONTEXT[chosen.scene_context].build(chosen, "scene_context")
        enriched.append(block([h_r, scene_feature]))
    if len(enriched) < 2:
        return enriched[0] if enriched else h_r

    e_f = layers.Concatenate(name="both_contexts")(enriched)
    e_f = PointwiseConv2D(chosen.fused_channels or chosen.channels, name="fusion")(e_f)  # eq. 9
    if chosen.fusion_activation == "leaky_relu":
        e_f = layers.LeakyReLU(negative_slope=0.2, name="fusion_activation")(e_f)
    return e_f


def bind_vocabulary(
    head: keras.Model, class_embeddings: ArrayLike, name: str | None = None
) -> keras.Model:
    """Returns the head with constant class embeddings; the weights are shared.

    The inputs of the result are `region_features` and `scene_feature`, which have a batch axis, so
    that it trains under `fit` and `tf.distribute`, which would split class embeddings like a
    batch.

    Args:
        head: a model of `build_head`, or any model with an input `class_embeddings`.
        class_embeddings: array-like `(classes, embedding_size)`.
        name: str, name of the new model. Defaults to `None`: the head's, with the prefix `bound_`.

    Raises:
        ValueError: the embeddings are not a matrix of the head's embedding length.
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
    # float32, like the input that it replaces: a classifier may need more than 16 bits.
    bound = BoundClassEmbeddings(class_embeddings, dtype="float32", name="bound_class_embeddings")
    tensors = {**fresh, "class_embeddings": bound(next(iter(fresh.values())))}
    scores = head([tensors[tensor.name] for tensor in head.inputs])
    return keras.Model(list(fresh.values()), scores, name=name or f"bound_{head.name}")


def with_response_maps(head: keras.Model, name: str | None = None) -> keras.Model:
    """Returns a model that outputs `scores` and `response_maps` and shares the head's weights.

    Raises:
        ValueError: the head has no response maps, because it classifies pooled features.
    """
    layer = response_map_layer(head)
    if layer is None:
        raise ValueError(f"model {head.name!r} does not classify regions: it has no response maps")
    outputs = {"scores": head.get_layer("scores").output, "response_maps": layer.output}
    return keras.Model(head.inputs, outputs, name=name or f"{head.name}_with_response_maps")


def scores_alone(head: keras.Model) -> keras.Model:
    """Returns a model of the same scores and weights that holds no response maps in memory.

    It is used for training and for scoring many classes. A head without a region classifier
    and top-k pooling is returned as it is.
    """
    classifier, pooling = region_classifier(head), head.get_layer("scores")
    if classifier is None or not isinstance(pooling, TopKSpatialPooling):
        return head
    scores = TopKRegionScores(classifier, pooling.k, name="scores")(classifier.input)
    return keras.Model(head.inputs, scores, name=head.name)


def region_classifier(head: keras.Model) -> keras.Layer | None:
    """Returns BiAM's classifier of regions or pooled features; `None` for heads without one."""
    found = [layer for layer in head.layers if layer.name == "region_classifier"]
    return found[0] if found else None


def response_map_layer(head: keras.Model) -> keras.Layer | None:
    """Returns the layer whose output is the response maps; `None` if the head has none."""
    for name in ("response_maps", "region_classifier"):
        for layer in head.layers:
            if layer.name == name and len(layer.output.shape) == 4:
                return layer
    return None
