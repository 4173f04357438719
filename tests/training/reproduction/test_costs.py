"""Operations counted from the graph, against counts by hand."""

import numpy as np
import pytest
from plots import assert_drawn, assert_picture
from small_systems import SMALL, SPACE, small_backbone_classes

from biam_tf.models import build_head
from biam_tf.models.systems import SYSTEMS, build_system_head
from training.reproduction.costs import (
    Costs,
    count_operations,
    draw_costs,
    format_costs,
    write_costs,
)
from training.reproduction.entries import Entry, TrainedEntry

pytestmark = pytest.mark.unit

H, W, D_IN, SCENE, EMBEDDING, CLASSES = 3, 2, 12, 10, 6, 5


def operations(**settings) -> int:
    head = build_head((H, W, D_IN), SCENE, EMBEDDING, top_k=2, **settings)
    return count_operations(head, np.zeros((CLASSES, EMBEDDING), "float32"))


def test_convolution_attention_and_classifier_are_counted_as_by_hand():
    d, heads = 8, 2
    embedding = H * W * 3 * 3 * D_IN * d
    classifier = H * W * d * CLASSES  # the mapping of the embeddings is not a photo's
    none = {"channels": d, "region_context": "none", "scene_context": "none"}
    assert operations(**none) == 2 * (embedding + classifier)

    regions, size = H * W, d // heads
    projections = 4 * regions * d * d
    attention = 2 * heads * regions * regions * size
    two_convolutions = 2 * regions * d * 2 * d
    block = projections + attention + two_convolutions
    with_block = {**none, "region_context": "self_attention", "num_heads": heads}
    assert operations(**with_block) == 2 * (embedding + classifier + block)


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_can_be_counted(name):
    embeddings = np.random.default_rng(0).normal(size=(CLASSES, EMBEDDING)).astype("float32")
    joint = SYSTEMS[name].uses_joint_space  # one space of regions, scene and classes
    channels, scene = (EMBEDDING, EMBEDDING) if joint else (D_IN, SCENE)
    head = build_system_head(
        name,
        (H, W, channels),
        scene,
        EMBEDDING,
        seen_embeddings=embeddings,
        backbone_classes=small_backbone_classes(channels, scene, EMBEDDING),
        joint_space=SPACE,
        **SMALL.get(name, {}),
    )
    assert count_operations(head, embeddings) > 0


def test_costs_go_into_a_csv_file_and_a_picture(tmp_path, saved_figures):
    metrics = {"zsl": {"mAP": 0.25}, "headline": "mAP"}
    row = TrainedEntry(Entry("LESA"), folders=(tmp_path / "run",), metrics=(metrics,))
    trained = {"lesa": row, "gone": TrainedEntry(Entry("gone"), error="it is gone")}
    costs = {"lesa": Costs(61.5, 0.25, 0.125, 750_000_000)}
    write_costs(tmp_path / "t.csv", trained, costs)
    header, own = (tmp_path / "t.csv").read_text().splitlines()
    assert header == "method,run,train_seconds,inference_ms,gflop,memory_bytes"
    assert own == f"LESA,{tmp_path / 'run'},61.500,0.250,0.125,750000000"
    draw_costs(tmp_path / "t.png", trained, costs)
    assert_picture(tmp_path / "t.png")
    assert_drawn(saved_figures[0], 25.0, 61.5, 0.25, 0.125, 0.75)
    assert "| LESA | 25.0 | 62 s |" in format_costs(trained, costs)
