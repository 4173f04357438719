import collections

import numpy as np
import tensorflow_datasets as tfds
from miniatures import (
    CLASS_NAMES,
    OPEN_IMAGES_PHOTOS,
    OTHER,
    TRAINABLE,
    open_images_rows,
    write_open_images,
)

from training.data.open_images.from_tfds import main, write_official_layout
from training.data.open_images.reader import read_open_images

SOURCES = ("verification", "crowdsource-verification", "machine", "freeform", "xclick", "activemil")


class OpenImagesV4(tfds.core.GeneratorBasedBuilder):
    """The features of TensorFlow Datasets' `open_images_v4`, without boxes, of a miniature."""

    VERSION = tfds.core.Version("2.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "a miniature"

    def _info(self):
        def labels(names):
            return tfds.features.Sequence(
                {
                    "label": tfds.features.ClassLabel(names=list(names)),
                    "confidence": np.int32,
                    "source": tfds.features.ClassLabel(names=list(SOURCES)),
                }
            )

        features = {
            "image": tfds.features.Image(),
            "image/filename": tfds.features.Text(),
            "objects": labels((*TRAINABLE, *OTHER)),
            "objects_trainable": labels(TRAINABLE),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {
            split: self._generate_examples(dl_manager.manual_dir, split)
            for split in OPEN_IMAGES_PHOTOS
        }

    def _generate_examples(self, manual_dir, split):
        of_photo = collections.defaultdict(list)
        for photo, source, label, value in open_images_rows(split):
            of_photo[photo].append(
                {"label": label, "source": source, "confidence": 10 * int(value)}
            )
        for path in sorted((manual_dir / split).iterdir()):
            objects = of_photo[path.name.split(".")[0]]
            if split == "train":
                machine = {"label": TRAINABLE[0], "source": "machine", "confidence": 7}
                objects = [*objects, machine]
            trainable = [own for own in objects if own["label"] in TRAINABLE]
            yield (
                path.name,
                {
                    "image": str(path),
                    "image/filename": path.name,
                    "objects": objects,
                    "objects_trainable": trainable,
                },
            )


def test_open_images_v4_of_tfds_becomes_the_official_layout(tmp_path):
    original = write_open_images(tmp_path / "original")
    builder = OpenImagesV4(data_dir=str(tmp_path / "records"))
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=str(original))
    )
    calls = []
    written = tmp_path / "written"
    write_official_layout(builder, written, progress=lambda *call: calls.append(call))
    described = [f"{a},{b}\n" for a, b in zip((*TRAINABLE, *OTHER), CLASS_NAMES, strict=True)]
    (written / "class-descriptions.csv").write_text("".join(described))
    assert calls[-1] == (42, 42)
    assert read_open_images(written).fingerprint == read_open_images(original).fingerprint
    for path in (original / "test").iterdir():
        assert (written / "test" / path.name).read_bytes() == path.read_bytes()
    with_machine = read_open_images(written, machine_confidence=0.7).split("train")
    assert (with_machine.labels[:, 0] != 0).all()
    assert (
        read_open_images(written, machine_confidence=0.8).split("train").labels[:, 0] == 0
    ).any()

    command = [str(tmp_path / "records" / "open_images_v4" / "2.0.0"), str(tmp_path / "some")]
    assert main([*command, "--limit", "5"]) == 0
    assert len(list((tmp_path / "some" / "train").iterdir())) == 5
    assert not list((tmp_path / "some").glob(".*"))


def test_what_is_no_prepared_data_set_is_refused(tmp_path, capsys):
    assert main([str(tmp_path), str(tmp_path / "out")]) == 2
    assert f"{tmp_path}: not a prepared TensorFlow Datasets data set" in capsys.readouterr().err
