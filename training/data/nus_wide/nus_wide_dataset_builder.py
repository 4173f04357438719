"""NUS-WIDE builder for TensorFlow Datasets; uses the same reader as training."""

import dataclasses
from typing import ClassVar

import tensorflow_datasets as tfds

from training.data.nus_wide.reader import read_nus_wide
from training.data.tfds_examples import examples, split_examples, tagging_info

HOMEPAGE = "https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html"
DESCRIPTION = """\
269,648 Flickr photos with the 1,000 most frequent user tags and 81 manually verified concepts. For
zero-shot tagging, the tags that are not concepts are seen classes and the concepts are unseen.
"""
CITATION = """\
@inproceedings{chua2009nuswide,
  author    = {Tat-Seng Chua and Jinhui Tang and Richang Hong and Haojie Li and Zhiping Luo and
               Yantao Zheng},
  title     = {{NUS-WIDE}: a real-world web image database from {National University of Singapore}},
  booktitle = {ACM International Conference on Image and Video Retrieval},
  year      = {2009},
}
"""
LICENSE = (
    "For research; the photos belong to their photographers on Flickr and are provided by the "
    "authors of the data set on request, under its Agreement and Disclaimer Form."
)


@dataclasses.dataclass
class NusWideConfig(tfds.core.BuilderConfig):
    """The classes, and how photos without a label are treated; see `read_nus_wide`."""

    classes: str = "zero_shot"
    unlabelled: str = "keep"


class NusWide(tfds.core.GeneratorBasedBuilder):
    """NUS-WIDE; `manual_dir` holds the official archives, unpacked, and the photos."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {
        "1.0.0": "Tags spelled exactly like a concept are not seen classes; the last fifth of the "
        "training list is used for validation.",
    }
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"""\
    Unpack ConceptsList.zip, Groundtruth.zip, ImageList.zip and NUS_WID_Tags.zip from {HOMEPAGE}
    into manual_dir, and put the photos anywhere below it. The authors send the photos on request.
    """
    BUILDER_CONFIGS: ClassVar = [
        NusWideConfig(
            name="zero_shot",
            description="925 tags seen, 81 concepts unseen.",
            classes="zero_shot",
        ),
        NusWideConfig(
            name="standard_81",
            description="The 81 concepts, all seen.",
            classes="standard_81",
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        return tagging_info(
            self, description=DESCRIPTION, homepage=HOMEPAGE, citation=CITATION, license=LICENSE
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        config = self.builder_config
        dataset = read_nus_wide(dl_manager.manual_dir, config.classes, config.unlabelled)
        return split_examples(self.info, dataset)

    def _generate_examples(self, dataset, split):
        return examples(dataset, split)
