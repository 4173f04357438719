"""Finds a prepared data set of TensorFlow Datasets and its label features."""

import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from biam_tf.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


def find_builder(name: str) -> "tfds.core.DatasetBuilder":
    """Returns the builder of a prepared data set; downloads nothing.

    Args:
        name: such as `coco/2017` or `coco/2017:1.1.0`, or the version folder of a prepared data
            set.

    Raises:
        UserError: TensorFlow Datasets is not installed, or the data set does not exist or is not
            prepared.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(
            f"data.name: tfds needs TensorFlow Datasets ({error}); pip install 'biam-tf[datasets]'"
        ) from error
    if pathlib.Path(name).is_dir():
        return builder_in(name, "data.builder: ")
    try:
        builder = tfds.builder(name)
    except (ImportError, ValueError, AssertionError) as error:
        # DatasetNotFoundError is an ImportError and a ValueError; a wrong version fails an assert.
        known = tfds.list_builders()
        stem = name.partition("/")[0].partition(":")[0]
        hint = f": {error}" if stem in known else did_you_mean(stem, known)
        raise UserError(
            f"data.builder: {name!r}: not a data set of TensorFlow Datasets{hint}"
        ) from error
    if not builder.info.splits:
        raise UserError(
            f"data.builder: {name!r} is not prepared in {builder.data_dir}; download and prepare "
            f"it with: tfds build {name}"
        )
    return builder


def builder_in(folder: str, setting: str = "") -> "tfds.core.DatasetBuilder":
    """Returns the builder of a prepared data set's folder.

    Args:
        folder: the version folder.
        setting: prefix of the error message.

    Raises:
        UserError: the folder is not a prepared data set.
    """
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_from_directory(folder)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{setting}{folder}: not a prepared TensorFlow Datasets data set: {error}"
        ) from error


def full_name(builder: "tfds.core.DatasetBuilder") -> str:
    """Returns `name/config:version`."""
    config = f"/{builder.builder_config.name}" if builder.builder_config else ""
    return f"{builder.name}{config}:{builder.version}"


def class_names(features: Mapping[str, Any], path: str, key: str) -> list[str]:
    """Returns the class names of a multi-label feature.

    Args:
        features: a `tfds.features.FeaturesDict`.
        path: feature names joined by `.`, such as `objects.label`.
        key: the setting that holds the path, for error messages.

    Raises:
        UserError: the feature does not exist, or holds a single class per photo.
    """
    import tensorflow_datasets as tfds

    feature: Any = features
    sequences = 0
    for part in path.split("."):
        if isinstance(feature, tfds.features.Sequence):
            feature, sequences = feature.feature, sequences + 1
        if not isinstance(feature, tfds.features.FeaturesDict) or part not in feature:
            known = multi_label_features(features)
            raise UserError(f"{key}: no feature {path!r}{did_you_mean(path, known)}")
        feature = feature[part]
    if isinstance(feature, tfds.features.Sequence):
        feature, sequences = feature.feature, sequences + 1
    if not isinstance(feature, tfds.features.ClassLabel) or sequences != 1:
        several = ", ".join(multi_label_features(features)) or "none"
        raise UserError(
            f"{key}: {path!r} is not a sequence of class labels; features that are: {several}"
        )
    return list(feature.names)


def multi_label_features(
    features: Mapping[str, Any], before: str = "", inside: bool = False
) -> list[str]:
    """Returns the paths of all features that hold several classes per photo."""
    import tensorflow_datasets as tfds

    found = []
    for name, feature in features.items():
        own = inside
        if isinstance(feature, tfds.features.Sequence) and not inside:
            feature, own = feature.feature, True
        if isinstance(feature, tfds.features.FeaturesDict):
            found += multi_label_features(feature, f"{before}{name}.", own)
        elif own and isinstance(feature, tfds.features.ClassLabel):
            found.append(f"{before}{name}")
    return sorted(found)  # the features of a prepared data set have no fixed order


def photo_feature(features: Mapping[str, Any], builder: str) -> str:
    """Returns the name of the photo feature: `image`, or else the only image feature."""
    import tensorflow_datasets as tfds

    images = [name for name, own in features.items() if isinstance(own, tfds.features.Image)]
    if "image" in images:
        return "image"
    if len(images) != 1:
        raise UserError(
            f"data.builder: {builder}: expected one image feature, "
            f"got {', '.join(images) or 'none'}"
        )
    return images[0]


def only(path: str) -> dict:
    """Returns the `PartialDecoding` specification that decodes only one feature."""
    *outer, last = path.split(".")
    spec: dict[str, Any] = {last: True}
    for part in reversed(outer):
        spec = {part: spec}
    return spec


def value_at(example: dict, path: str) -> Any:
    """Returns the value of a feature in an example."""
    for part in path.split("."):
        example = example[part]
    return example
