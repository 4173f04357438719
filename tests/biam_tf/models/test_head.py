import keras
import numpy as np
import pytest
import reference
from paper_weights import (
    conv_weights,
    matrix,
    randomize,
    region_context_weights,
    scene_context_weights,
)
from processor import MIXED_BFLOAT16

from biam_tf.layers import CosineRegionClassifier
from biam_tf.models import ABLATIONS, ATTENTION_VARIANTS, BIAM, bind_vocabulary, build_head
from biam_tf.models.context_blocks import REGION_CONTEXT, ContextBlock
from biam_tf.models.head import scores_alone, with_response_maps

pytestmark = [pytest.mark.unit, pytest.mark.rounding]

REGION_SHAPE, SCENE_SIZE, EMBEDDING_SIZE = (5, 4, 12), 10, 6
SMALL = {"channels": 16, "num_heads": 4, "top_k": 3}


@pytest.fixture
def inputs(rng):
    return {
        "region_features": rng.normal(size=(3, *REGION_SHAPE)).astype(np.float32),
        "scene_feature": rng.normal(size=(3, SCENE_SIZE)).astype(np.float32),
        "class_embeddings": rng.normal(size=(7, EMBEDDING_SIZE)).astype(np.float32),
    }


def small_head(**settings):
    return build_head(REGION_SHAPE, SCENE_SIZE, EMBEDDING_SIZE, **{**SMALL, **settings})


def paper_weights(head):
    return {
        "h": conv_weights(head.get_layer("region_embedding")),
        "rcb": region_context_weights(head.get_layer("region_context")),
        "scb": scene_context_weights(head.get_layer("scene_context")),
        "W_f": matrix(head.get_layer("fusion")),
        "b_f": np.asarray(head.get_layer("fusion").bias),
        # The layer maps embeddings to features: its kernel is the paper's W_a transposed.
        "W_a": np.asarray(head.get_layer("region_classifier").kernel).T,
    }


def test_paper_preset_equals_the_equations_in_numpy(inputs, rng):
    head = small_head()
    randomize(head, rng)
    expected = [
        reference.biam(
            inputs["region_features"][i].astype(np.float64),
            inputs["scene_feature"][i].astype(np.float64),
            inputs["class_embeddings"].astype(np.float64),
            paper_weights(head),
            SMALL["num_heads"],
            SMALL["top_k"],
        )
        for i in range(3)
    ]
    np.testing.assert_allclose(head(inputs), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("preset", ["paper", "released"])
def test_permuting_the_classes_permutes_the_scores(preset, inputs, rng):
    head = small_head(preset=preset)
    order = rng.permutation(7)
    permuted = {**inputs, "class_embeddings": inputs["class_embeddings"][order]}
    np.testing.assert_allclose(head(permuted), np.asarray(head(inputs))[:, order], atol=1e-5)


@pytest.mark.parametrize("preset", ["paper", "released"])
def test_adding_a_class_leaves_the_other_scores_unchanged(preset, inputs):
    head = small_head(preset=preset)
    fewer = {**inputs, "class_embeddings": inputs["class_embeddings"][:4]}
    np.testing.assert_allclose(head(fewer), np.asarray(head(inputs))[:, :4], atol=1e-5)


def test_an_image_is_scored_the_same_alone_and_in_a_batch(inputs):
    head = small_head()
    alone = {
        "region_features": inputs["region_features"][1:2],
        "scene_feature": inputs["scene_feature"][1:2],
        "class_embeddings": inputs["class_embeddings"],
    }
    np.testing.assert_allclose(head(alone), np.asarray(head(inputs))[1:2], atol=1e-5)


def test_inputs_are_taken_in_order_or_by_name(inputs):
    head = small_head()
    np.testing.assert_array_equal(head(list(inputs.values())), head(inputs))


def test_height_and_width_may_be_unknown(inputs, rng):
    head = build_head((None, None, 12), SCENE_SIZE, EMBEDDING_SIZE, **SMALL)
    wide = {**inputs, "region_features": rng.normal(size=(3, 2, 9, 12)).astype(np.float32)}
    assert head(inputs).shape == head(wide).shape == (3, 7)


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_ablations_drop_exactly_their_block(ablation, inputs):
    head = small_head(**ABLATIONS[ablation])
    names = {layer.name for layer in head.layers}
    changes = ABLATIONS[ablation]
    assert ("region_context" in names) == (changes.get("region_context") != "none")
    assert ("scene_context" in names) == (changes.get("scene_context") != "none")
    assert ("fusion" in names) == ("region_context" in names and "scene_context" in names)
    assert head(inputs).shape == (3, 7)


# variant: class of the region context block, and what differs in the blocks' configurations
CHOSEN = {
    "region_context_layer_norm": ("RegionContextBlock", {"layer_norm": True}, {}),
    "region_context_sigmoid": ("RegionContextBlock", {"attention": "sigmoid"}, {}),
    "scene_context_softmax": ("RegionContextBlock", {}, {"attention": "softmax"}),
    "non_local": ("NonLocalBlock", {"batch_norm_momentum": 0.9}, None),
    "criss_cross": ("CrissCrossAttention", {"recurrence": 2}, None),
}


@pytest.mark.parametrize("variant", ATTENTION_VARIANTS)
def test_an_attention_variant_changes_exactly_its_block(variant, inputs, tmp_path):
    region_class, region_changes, scene_changes = CHOSEN[variant]
    head, paper = small_head(**ATTENTION_VARIANTS[variant]), small_head()
    region = head.get_layer("region_context")
    assert type(region).__name__ == region_class
    expected = paper.get_layer("region_context").get_config()
    if region_class != "RegionContextBlock":
        expected = region.get_config()
    assert region.get_config() == expected | region_changes
    names = {layer.name for layer in head.layers}
    if scene_changes is None:
        assert not names & {"scene_context", "fusion"}
    else:
        expected = paper.get_layer("scene_context").get_config() | scene_changes
        assert head.get_layer("scene_context").get_config() == expected

    head.save(tmp_path / "head.keras")
    again = keras.models.load_model(tmp_path / "head.keras")
    np.testing.assert_array_equal(again(inputs), head(inputs))


def test_blocks_without_heads_ask_for_no_divisor():
    small_head(region_context="non_local", num_heads=5)
    small_head(region_context="criss_cross", num_heads=5)
    with pytest.raises(ValueError, match=r"num_heads: 5 .* divisor of channels"):
        small_head(region_context="self_attention_sigmoid", num_heads=5)


def test_pooled_classification_scores_the_mean_region_feature(inputs):
    head = small_head(classify="pooled_features")
    features = keras.Model(head.inputs, head.get_layer("fusion").output)(inputs)
    class_weights = inputs["class_embeddings"] @ np.asarray(
        head.get_layer("region_classifier").kernel
    )
    expected = np.asarray(features).mean(axis=(1, 2)) @ class_weights.T
    np.testing.assert_allclose(head(inputs), expected, atol=1e-5)


def test_region_dropout_drops_whole_channels_in_training_only(inputs):
    head = small_head(region_dropout=0.5)
    dropout = head.get_layer("region_dropout")
    features = np.ones((2, 5, 4, 12), np.float32)
    np.testing.assert_array_equal(dropout(features, training=False), features)
    dropped = np.asarray(dropout(features, training=True))
    assert set(np.unique(dropped)) == {0.0, 2.0}
    assert (dropped == dropped[:, :1, :1]).all()


def test_response_maps_pool_to_the_scores(inputs):
    outputs = small_head(return_response_maps=True)(inputs)
    maps = np.asarray(outputs["response_maps"]).reshape(3, 20, 7)
    strongest = np.sort(maps, axis=1)[:, -3:].mean(axis=1)
    np.testing.assert_allclose(outputs["scores"], strongest, atol=1e-5)


def test_with_response_maps_shares_the_weights(inputs):
    head = small_head()
    outputs = with_response_maps(head)(inputs)
    np.testing.assert_array_equal(outputs["scores"], head(inputs))
    with pytest.raises(ValueError, match="does not classify regions"):
        with_response_maps(small_head(classify="pooled_features"))


@pytest.mark.parametrize("preset", ["paper", "released", "recommended"])
def test_scores_alone_are_the_scores_by_the_same_weights(preset, inputs):
    seen = inputs["class_embeddings"]
    head = small_head(preset=preset, seen_embeddings=seen)
    alone = scores_alone(head)
    np.testing.assert_allclose(alone(inputs), head(inputs), atol=1e-5)
    assert "region_classifier" not in {layer.name for layer in alone.layers}
    ours, others = ({id(v) for v in m.trainable_variables} for m in (alone, head))
    assert ours == others


def test_scores_alone_of_a_head_without_region_classifier_are_the_head():
    head = small_head(classify="pooled_features")
    assert scores_alone(head) is head


@pytest.mark.integration
def test_bound_vocabulary_gives_the_same_scores_and_trains_the_same_weights(inputs, tmp_path):
    head = small_head(attention_dropout=0.0, output_dropout=0.0, scene_dropout=0.0)
    bound = bind_vocabulary(head, inputs["class_embeddings"])
    features = {key: inputs[key] for key in ("region_features", "scene_feature")}
    np.testing.assert_allclose(bound(features), head(inputs), atol=1e-6)

    assert len(bound.trainable_variables) == len(head.trainable_variables)
    before = np.asarray(head(inputs))
    bound.compile("sgd", "mse")
    bound.fit(features, np.ones((3, 7)), verbose=0)
    assert np.abs(np.asarray(head(inputs)) - before).max() > 1e-3

    bound.save(tmp_path / "bound.keras")
    again = keras.models.load_model(tmp_path / "bound.keras")
    np.testing.assert_allclose(again(features), bound(features), atol=1e-6)


def test_bound_vocabulary_refuses_embeddings_of_another_length(inputs):
    with pytest.raises(ValueError, match=r"matrix \(classes, 6\).*\(7, 5\)"):
        bind_vocabulary(small_head(), inputs["class_embeddings"][:, :5])


@pytest.mark.parametrize("precision", ["mixed_float16", MIXED_BFLOAT16])
def test_scores_are_float32_under_mixed_precision(precision, inputs):
    whole = small_head()
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        half = small_head()
    finally:
        keras.config.set_dtype_policy(policy)
    half.set_weights(whole.get_weights())
    assert half.get_layer("region_context").compute_dtype == precision.removeprefix("mixed_")
    scores = half(inputs)
    assert scores.dtype == "float32"
    np.testing.assert_allclose(scores, whole(inputs), atol=0.15)


@pytest.mark.parametrize("precision", ["mixed_float16", MIXED_BFLOAT16])
def test_a_cosine_head_keeps_the_digits_of_class_embeddings(precision, inputs):
    # Directions from the mean of 1000 that 16 bits do not hold.
    classes = inputs["class_embeddings"] + 1000
    given = {**inputs, "class_embeddings": classes}
    features = {key: inputs[key] for key in ("region_features", "scene_feature")}
    whole = small_head(preset="recommended", seen_embeddings=classes)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        half = small_head(preset="recommended", seen_embeddings=classes)
        bound = bind_vocabulary(half, classes)
    finally:
        keras.config.set_dtype_policy(policy)
    half.set_weights(whole.get_weights())
    np.testing.assert_allclose(half(given), whole(given), atol=0.3)
    np.testing.assert_allclose(bound(features), half(given), atol=1e-5)
    np.testing.assert_allclose(scores_alone(half)(given), half(given), atol=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_heads": 5}, "num_heads: 5 .* divisor of channels"),
        ({"top_k": 21}, "k=21 is larger than the 20 regions"),
        ({"num_head": 4}, "'num_head' is unknown; did you mean 'num_heads'"),
        ({"preset": "papr"}, "'papr' is unknown; did you mean 'paper'"),
        ({"residual": "inputs"}, "residual: 'inputs' is not valid"),
        ({"attention_dropout": 1.0}, "attention_dropout: 1.0"),
        ({"classify": "pooled_features", "return_response_maps": True}, "response maps need"),
    ],
)
def test_settings_that_cannot_be_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        small_head(**settings)


def test_a_registered_block_is_a_setting_and_a_layer(inputs, monkeypatch):
    block = ContextBlock(lambda settings, name: keras.layers.Rescaling(2.0, name=name))
    with pytest.raises(ValueError, match="region_context: 'twice' is not valid"):
        BIAM.settings(region_context="twice")
    monkeypatch.setitem(REGION_CONTEXT, "twice", block)
    head = small_head(region_context="twice", scene_context="none", num_heads=5)
    assert head.get_layer("region_context").scale == 2.0
    assert head(inputs).shape == (3, 7)


COSINE = {
    "region_embedding": "dense",
    "region_context": "none",
    "scene_context": "none",
    "classifier": "cosine",
}


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def dense(layer, x):
    return x @ matrix(layer) + np.asarray(layer.bias, np.float64)


def test_cosine_head_adds_the_cosines_of_region_and_scene_with_the_centered_classes(inputs, rng):
    seen = inputs["class_embeddings"][:4]
    head = small_head(
        **COSINE, score_scale=7.0, center_embeddings=True, scene_scores=True, seen_embeddings=seen
    )
    randomize(head, rng)
    x_r, x_g, classes = (value.astype(np.float64) for value in inputs.values())
    h_r = np.maximum(dense(head.get_layer("region_embedding"), x_r), 0)
    regions = unit(dense(head.get_layer("region_projection"), h_r))
    scene = unit(dense(head.get_layer("scene_projection"), x_g))
    directions = unit(classes - seen.mean(axis=0))
    maps = 7.0 * (regions @ directions.T + (scene @ directions.T)[:, None, None])
    strongest = np.sort(maps.reshape(3, -1, len(classes)), axis=1)[:, -3:]
    outputs = with_response_maps(head)(inputs)
    np.testing.assert_allclose(outputs["response_maps"], maps, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(outputs["scores"], strongest.mean(axis=1), rtol=1e-4, atol=1e-4)


def test_anchored_classes_are_told_by_their_similarities_to_seen_classes_too(inputs, rng):
    seen = inputs["class_embeddings"][:4]
    settings = {"center_embeddings": True, "seen_embeddings": seen, "score_scale": 7.0}
    head = small_head(**COSINE, **settings, anchor_weight=0.5, anchor_temperature=0.2)
    kept = head.get_layer("region_classifier").anchors
    np.testing.assert_array_equal(kept, seen)
    randomize(head, rng)
    kept.assign(seen)
    x_r, _, classes = (value.astype(np.float64) for value in inputs.values())
    h_r = np.maximum(dense(head.get_layer("region_embedding"), x_r), 0)
    regions = unit(dense(head.get_layer("region_projection"), h_r))
    directions, anchors = (unit(rows - seen.mean(axis=0)) for rows in (classes, seen))
    similarities = np.exp(directions @ anchors.T / 0.2)
    sides = unit(np.concatenate([directions, 0.5 * unit(similarities)], axis=1))
    maps = 7.0 * regions @ sides.T
    found = with_response_maps(head)(inputs)["response_maps"]
    np.testing.assert_allclose(found, maps, rtol=1e-4, atol=1e-4)

    again = keras.Model.from_config(head.get_config())
    again.set_weights(head.get_weights())
    np.testing.assert_allclose(again(inputs), head(inputs), atol=1e-6)


def test_anchors_are_left_out_in_training_for_all_classes_at_once(rng):
    anchors = rng.normal(size=(400, EMBEDDING_SIZE)).astype(np.float32)
    layer = CosineRegionClassifier(
        anchors=anchors, anchor_weight=2.0, anchor_temperature=1.0, anchor_dropout=0.3
    )
    layer.build([(None, EMBEDDING_SIZE + 400), (None, EMBEDDING_SIZE)])
    whole = np.asarray(layer.class_weights(anchors[:5]))
    assert (whole[:, EMBEDDING_SIZE:] > 0).all()
    left_out = []
    for _ in range(2):
        similarities = np.asarray(layer.class_weights(anchors[:5], training=True))
        np.testing.assert_allclose(np.linalg.norm(similarities, axis=1), 10.0, rtol=1e-5)
        similarities = similarities[:, EMBEDDING_SIZE:]
        absent = (similarities == 0).all(axis=0)
        assert (similarities[:, ~absent] > 0).all() and 0.2 < absent.mean() < 0.4
        # The others keep their proportions.
        share = similarities[:, ~absent] / whole[:, EMBEDDING_SIZE:][:, ~absent]
        np.testing.assert_allclose(share, share[:, :1] * np.ones_like(share), rtol=1e-4)
        left_out.append(absent)
    assert (left_out[0] != left_out[1]).any()


def test_many_seen_classes_share_centroids_as_anchors(inputs):
    seen = np.repeat(np.eye(4, inputs["class_embeddings"].shape[1]), 3, axis=0)
    seen += 0.01 * np.arange(len(seen))[:, None]
    head = small_head(**COSINE, anchor_weight=1.0, max_anchors=4, seen_embeddings=seen)
    anchors = np.asarray(head.get_layer("region_classifier").anchors)
    of_three = seen.reshape(4, 3, -1).mean(axis=1)
    distances = np.linalg.norm(anchors[:, None] - of_three, axis=-1)
    assert sorted(distances.argmin(axis=1)) == [0, 1, 2, 3] and distances.min(axis=1).max() < 1e-5


def test_cosine_head_may_classify_pooled_features_and_needs_no_center(inputs, rng):
    head = small_head(**COSINE, classify="pooled_features", scene_scores=True)
    randomize(head, rng)
    scores = head(inputs)
    longer = {**inputs, "class_embeddings": 3 * inputs["class_embeddings"]}
    np.testing.assert_allclose(head(longer), scores, rtol=1e-4, atol=1e-5)
    assert np.abs(scores).max() <= 20.0 + 1e-4


def test_settings_that_only_a_cosine_has_are_refused_without_one():
    with pytest.raises(ValueError, match="scene_scores: True is not valid"):
        BIAM.settings(scene_scores=True)
    with pytest.raises(ValueError, match=r"anchor_weight: 0\.5 is"):
        BIAM.settings(anchor_weight=0.5)
    with pytest.raises(ValueError, match="center_embeddings needs seen_embeddings"):
        small_head(**COSINE, center_embeddings=True)
    with pytest.raises(ValueError, match="anchor_weight needs seen_embeddings"):
        small_head(**COSINE, anchor_weight=1.0)
