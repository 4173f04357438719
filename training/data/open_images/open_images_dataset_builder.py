"""Zero-shot Open Images v4 builder for TensorFlow Datasets; uses training's reader."""

import dataclasses
from typing import ClassVar

import tensorflow_datasets as tfds

from training.data.open_images.reader import read_open_images
from training.data.tfds_examples import examples, split_examples, tagging_info

HOMEPAGE = "https://storage.googleapis.com/openimages/web/factsfigures_v4.html"
DESCRIPTION = """\
Flickr photos with human-verified image-level labels, present or absent; classes that were not
verified are unknown. The 7,186 trainable classes are seen, 400 others unseen.
"""
CITATION = """\
@article{kuznetsova2020openimages,
  author  = {Alina Kuznetsova and Hassan Rom and Neil Alldrin and Jasper Uijlings and Ivan Krasin
             and Jordi Pont-Tuset and Shahab Kamali and Stefan Popov and Matteo Malloci and
             Alexander Kolesnikov and Tom Duerig and Vittorio Ferrari},
  title   = {The {Open Images} Dataset {V4}},
  journal = {International Journal of Computer Vision},
  year    = {2020},
}
"""
LICENSE = (
    "Annotations: CC BY 4.0 (Google LLC). Photos are listed as CC BY 2.0; the publisher asks users "
    "to verify the license of each photo."
)


@dataclasses.dataclass
class OpenImagesConfig(tfds.core.BuilderConfig):
    """The rule for the unseen classes, and machine labels; see `read_open_images`."""

    unseen_classes: str = "most_frequent"
    machine_confidence: float | None = None


class OpenImagesZeroShot(tfds.core.GeneratorBasedBuilder):
    """Open Images v4; `manual_dir` holds the official CSV files and any part of the photos."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {
        "1.0.0": "Human-verified image-level labels of v4 (2018_04); missing photos are left out.",
    }
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    Put class-descriptions.csv, classes-trainable.txt and the three files
    *-annotations-human-imagelabels.csv from https://storage.googleapis.com/openimages/2018_04/ into
    manual_dir, and the photos, such as train/000060e3121c7305.jpg, anywhere below it.
    """
    BUILDER_CONFIGS: ClassVar = [
        OpenImagesConfig(
            name="most_frequent",
            description="Unseen: the 400 classes most frequent in the test labels that are not "
            "trainable.",
        ),
        OpenImagesConfig(
            name="released",
            description="Unseen: the 400 classes of the released code's lists.",
            unseen_classes="released",
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        return tagging_info(
            self, description=DESCRIPTION, homepage=HOMEPAGE, citation=CITATION, license=LICENSE
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        config = self.builder_config
        dataset = read_open_images(
            dl_manager.manual_dir, config.unseen_classes, config.machine_confidence
        )
        return split_examples(self.info, dataset)

    def _generate_examples(self, dataset, split):
        return examples(dataset, split)
