"""Writes the archives of this folder; to be run at commit 773874a, as README.md says."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import zipfile
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw
from training.data.feature_store import FeatureStore

from biam_tf.backbones import build_backbone
from biam_tf.runs import load_run
from serving import export, index, retag
from training import extract_features, run

COLORS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 60, 220)}
SHAPES = ("square", "circle")
UNSEEN = ("blue circle", "red square")
SIZE = 32
ACTIVE_FILTERS = 4

SETTINGS = [
    "data.name=folder",
    "data.directory=photos",
    f"backbone.image_size={SIZE}",
    "backbone.weights=backbone.weights.h5",
    "head.channels=8",
    "head.num_heads=2",
    "head.top_k=3",
    "training.epochs=3",
    "training.batch_size=6",
    # A smooth objective: rounding does not decide which pairs of classes count.
    "training.loss.name=softmax",
    "training.report=false",
    "training.tensorboard=false",
]
TRAINED_BACKBONE = ["backbone.trainable=true"]
STORED_FEATURES = [
    "backbone.trainable=false",
    "data.feature_store=features",
    "head.preset=recommended",
    "head.scene_scores_channels=8",
]


def draw_photos(folder: pathlib.Path) -> None:
    """Draws a folder data set of six classes, two of them unseen, on 40 photos."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    classes = [f"{color} {shape}" for color in COLORS for shape in SHAPES]
    rows = ["image,split,labels"]
    for number in range(40):
        split = "train" if number < 24 else "val" if number < 32 else "test"
        own = [name for name in classes if split != "train" or name not in UNSEEN]
        chosen = [own[number % len(own)], own[(number // len(own) + number + 1) % len(own)]]
        photo = Image.new("RGB", (SIZE, SIZE), tuple(int(v) for v in rng.integers(90, 160, 3)))
        for side, name in enumerate(chosen):
            color, shape = name.split()
            x, y = int(rng.integers(0, 4)) + 16 * side, int(rng.integers(0, 18))
            draw = getattr(
                ImageDraw.Draw(photo), {"square": "rectangle", "circle": "ellipse"}[shape]
            )
            draw([x, y, x + 11, y + 11], fill=COLORS[color])
        photo.save(folder / "images" / f"{number:02}.png")
        rows.append(f"images/{number:02}.png,{split},{';'.join(sorted(set(chosen)))}")
    (folder / "annotations.csv").write_text("\n".join(rows) + "\n")
    groups = [f"{name},{'unseen' if name in UNSEEN else 'seen'}" for name in classes]
    (folder / "classes.csv").write_text("\n".join(["name,group", *groups]) + "\n")
    words = [*COLORS, *SHAPES]
    table = [
        ",".join([name, *(str(int(word in name.split())) for word in words)]) for name in classes
    ]
    (folder / "class_attributes.csv").write_text(
        "\n".join([f"name,{','.join(words)}", *table]) + "\n"
    )


def write_backbone_weights(path: str) -> None:
    """Writes weights of `small` in which all but a few filters are switched off: small archives."""
    keras.utils.set_random_seed(0)
    model = build_backbone("small", SIZE, "none")
    for layer in model.layers:
        if layer.name.startswith("conv"):
            kernel = layer.get_weights()[0]
            kernel[:, :, :, ACTIVE_FILTERS:] = 0
            if layer.name != "conv1":
                kernel[:, :, ACTIVE_FILTERS:] = 0
            layer.set_weights([kernel])
        elif layer.name.startswith("bn"):
            gamma, beta, mean, variance = layer.get_weights()
            gamma[ACTIVE_FILTERS:] = 0
            layer.set_weights([gamma, beta, mean, variance])
    model.save_weights(path)


def train(output: str, *settings: str) -> int:
    """Runs the training command."""
    command = []
    for setting in (*SETTINGS, *settings, f"output={output}"):
        command += ["--set", setting]
    return run.main(command)


@contextlib.contextmanager
def stopping_after(steps: int):
    """Sends SIGTERM to this process after so many training steps."""
    done = []

    def step(*arguments, **keywords):
        done.append(1)
        if len(done) == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    with mock.patch("tqdm.tqdm.set_postfix_str", step):
        yield


def read_photos(split: str) -> tuple[list[str], list[bytes], np.ndarray]:
    """Returns paths, files and pixels of the photos of a split."""
    rows = pathlib.Path("photos/annotations.csv").read_text().splitlines()[1:]
    names = [row.split(",")[0] for row in rows if row.split(",")[1] == split]
    files = [pathlib.Path("photos", name).read_bytes() for name in names]
    pixels = [np.asarray(Image.open(f"photos/{name}"), np.float32) for name in names]
    return names, files, np.stack(pixels)


def scores_of_run(path: str, pixels: np.ndarray) -> np.ndarray:
    """Returns scores (B, C) of all classes of a run."""
    trained = load_run(path)
    features = trained.backbone(pixels, training=False)
    embeddings = tf.constant(trained.vocabulary.embeddings)
    answer = trained.head({**features, "class_embeddings": embeddings}, training=False)
    return np.asarray(answer["scores"] if isinstance(answer, dict) else answer)


def losses_of_run(path: str) -> np.ndarray:
    """Returns the loss of each epoch."""
    lines = [json.loads(line) for line in pathlib.Path(path, "log.jsonl").read_text().splitlines()]
    return np.array([line["loss"] for line in lines])


def main() -> None:
    """Writes everything below the current folder, then the archives."""
    photos = pathlib.Path("photos")
    draw_photos(photos)
    write_backbone_weights("backbone.weights.h5")

    expected = {}
    for name, settings in (("finished", TRAINED_BACKBONE), ("recommended", STORED_FEATURES)):
        if settings is STORED_FEATURES:
            command = ["--output", "features"]
            for setting in (*SETTINGS, "backbone.trainable=false"):
                command += ["--set", setting]
            assert extract_features.main(command) == 0
        assert train(f"runs/{name}", *settings) == 0
        with stopping_after(6):  # in the second epoch of four steps
            assert train(f"runs/{name}_stopped", *settings) == 75
        shutil.copytree(f"runs/{name}_stopped", f"resumed/{name}")
        assert train(f"resumed/{name}", *settings) == 0
        expected[f"{name}/losses"] = losses_of_run(f"resumed/{name}")

    names, files, pixels = read_photos("test")
    expected["images"] = np.array(names)
    for name in ("finished", "recommended"):
        expected[f"{name}/scores"] = scores_of_run(f"runs/{name}", pixels)
        resumed = scores_of_run(f"resumed/{name}", pixels)
        np.testing.assert_array_equal(resumed, expected[f"{name}/scores"])
    store = FeatureStore.open("features")
    expected["features/regions"], expected["features/scene"] = store.read(names)

    assert (
        export.main(
            ["runs/finished", "models/tagger", "--word-vectors", "photos/class_attributes.csv"]
        )
        == 0
    )
    loaded = tf.saved_model.load("models/tagger/1").signatures
    classes = load_run("runs/finished").vocabulary
    answers = {
        "serving_default": loaded["serving_default"](
            images=tf.constant(files), class_embeddings=tf.constant(classes.embeddings)
        ),
        "tag": loaded["tag"](images=tf.constant(files), class_names=tf.constant(classes.names)),
        "explain": loaded["explain"](
            images=tf.constant(files), class_embeddings=tf.constant(classes.embeddings)
        ),
        "tag_known": loaded["tag_known"](images=tf.constant(files)),
    }
    for signature, answer in answers.items():
        for output, values in answer.items():
            array = values.numpy()
            expected[f"{signature}/{output}"] = (
                array.astype(str) if array.dtype == object else array
            )

    assert index.main(["models/tagger", "photos/images", "index"]) == 0
    manifest = pathlib.Path("index/index.json")
    text = manifest.read_text().replace(str(pathlib.Path.cwd()), "/old")
    manifest.write_text(text)
    command = ["index", "--classes", ",".join(classes.names), "--top", "6", "--output", "tags.json"]
    assert retag.main(command) == 0
    tags = {
        row["photo"]: {t["tag"]: t["score"] for t in row["tags"]}
        for row in json.loads(pathlib.Path("tags.json").read_text())
    }
    expected["index/photos"] = np.array(sorted(tags))
    expected["index/scores"] = np.array([[tags[p][c] for c in classes.names] for p in sorted(tags)])
    expected["classes"] = np.array(classes.names)
    np.savez_compressed("expected.npz", **expected)

    # Only the newest checkpoint of the runs that were stopped is of use.
    for name in ("finished", "recommended"):
        shutil.rmtree(f"runs/{name}/checkpoints")
        shutil.rmtree(min(pathlib.Path(f"runs/{name}_stopped/checkpoints").iterdir()))
    for pattern in ("runs/*/thresholds.json", "runs/*/metrics.json", "runs/*/config.yaml"):
        for path in pathlib.Path().glob(pattern):
            assert str(pathlib.Path.cwd()) not in path.read_text(), path
    for name in ("photos", "backbone.weights.h5", "runs", "features", "models", "index"):
        members = [pathlib.Path(name), *sorted(pathlib.Path(name).rglob("*"))]
        with zipfile.ZipFile(
            f"{name.split('.')[0]}.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9
        ) as file:
            for member in members:
                file.write(member)


if __name__ == "__main__":
    main()
