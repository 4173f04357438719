"""The text side of an image-text model in a graph embeds phrases as in Python."""

import pathlib
import unicodedata

import numpy as np
import pytest
import tensorflow as tf

from biam_tf.embeddings.run_encoder import RunEncoder

pytest.importorskip("keras_hub", reason="keras-hub is not installed")
pytest.importorskip("tensorflow_text", reason="tensorflow-text is not installed")

from biam_tf.backbones.hugging_face import convert
from biam_tf.embeddings.text_tower import TextTower
from serving.graph.text_tower import TowerEncoder

PUBLISHED = pathlib.Path(__file__).parents[2] / "data" / "image_text"
PHRASES = [
    "red car",
    "don't 2024 dogs!!",
    "Caf\u00e9 \u00c5NGSTR\u00d6M",
    "\u1ebech",
    "\ud55c\uad6d \uac1c",
    "\u732b \U0001f43b",
    "photos  of\tx",
    "a text that is longer than the context of these small models is",
]


@pytest.mark.filterwarnings("ignore:.*is not read")
@pytest.mark.parametrize("case", ["clip", "metaclip_2", "siglip"])
def test_a_saved_graph_embeds_phrases_as_in_python(case, tmp_path):
    convert(PUBLISHED / case, tmp_path / "preset")
    name = f"keras_hub:{tmp_path / 'preset'}"
    templates = ("a photo of {name}", "{name}!")
    encoder = RunEncoder(TextTower.load(name), templates, name)
    graph = TowerEncoder(encoder)
    signature = tf.function(
        lambda texts: dict(zip(("rows", "blank"), graph(texts), strict=True)), autograph=False
    ).get_concrete_function(tf.TensorSpec((None,), tf.string, name="texts"))
    tf.saved_model.save(graph, tmp_path / "saved", signatures=signature)
    # As the table of names hands texts over.
    texts = [unicodedata.normalize("NFD", phrase) for phrase in PHRASES]
    found = tf.saved_model.load(tmp_path / "saved").signatures["serving_default"](
        texts=tf.constant([*texts, " "])
    )
    np.testing.assert_allclose(found["rows"][:-1], encoder.embed(PHRASES), atol=1e-5)
    np.testing.assert_array_equal(found["blank"], [False] * len(PHRASES) + [True])
