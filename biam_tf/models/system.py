"""The interface of a system that scores classes: BiAM and the baselines."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from biam_tf.errors import UserError, did_you_mean, nearest_names
from biam_tf.sparse_labels import Labels

if TYPE_CHECKING:  # settings are checked without Keras
    import keras
    import tensorflow as tf
    from numpy.typing import ArrayLike

    from biam_tf.backbones.classifier import BackboneClasses
    from biam_tf.backbones.joint_space import JointSpace
    from biam_tf.tensor_types import Shape

# Function of labels (B, C) and the outputs of `System.training_outputs` to losses (B,).
Losses = Callable[["tf.Tensor", Mapping[str, "tf.Tensor"]], "tf.Tensor"]


@dataclasses.dataclass(frozen=True, eq=False)
class HeadInputs:
    """The inputs of every head, and the seen classes, which it may be built from.

    Attributes:
        region_features: `keras.Input`, (batch, height, width, channels).
        scene_feature: `keras.Input`, (batch, scene_size).
        class_embeddings: `keras.Input`, (classes, embedding_size), without a batch axis.
        seen_embeddings: array (seen classes, embedding_size), the classes it will be trained on;
            `None`: unknown.
        backbone_classes: the classes that the backbone was trained on; `None`: unknown.
        joint_space: the space of images and texts that the features are in; `None`: none.
    """

    region_features: keras.KerasTensor
    scene_feature: keras.KerasTensor
    class_embeddings: keras.KerasTensor
    seen_embeddings: np.ndarray | None
    backbone_classes: BackboneClasses | None = None
    joint_space: JointSpace | None = None

    @classmethod
    def of_shapes(
        cls,
        region_shape: Shape,
        scene_size: int,
        embedding_size: int,
        seen_embeddings: ArrayLike | None = None,
        backbone_classes: BackboneClasses | None = None,
        joint_space: JointSpace | None = None,
    ) -> HeadInputs:
        """Makes the three inputs.

        Args:
            region_shape: `(height, width, channels)` of the region features.
            scene_size: length of the scene feature.
            embedding_size: length of a class embedding.
            seen_embeddings: `(seen classes, embedding_size)`. Defaults to `None`.
            backbone_classes: the classes that the backbone was trained on. Defaults to `None`.
            joint_space: the space of images and texts that the features are in. Defaults to
                `None`.

        Raises:
            ValueError: the seen embeddings are not a matrix of that embedding size, or those of
                the backbone's classes have another length.
        """
        import keras

        seen = None
        if seen_embeddings is not None:
            seen = np.asarray(seen_embeddings, np.float32)
            if seen.ndim != 2 or seen.shape[1] != embedding_size:
                raise ValueError(
                    f"seen_embeddings must be a matrix (seen classes, {embedding_size}); got "
                    f"shape {seen.shape}"
                )
        if backbone_classes is not None:
            length = np.shape(backbone_classes.embeddings)[1]
            if length != embedding_size:
                raise ValueError(
                    f"the embeddings of the backbone's classes have {length} numbers, class "
                    f"embeddings {embedding_size}; they must be of one source"
                )
        return cls(
            keras.Input(region_shape, name="region_features"),
            keras.Input((scene_size,), name="scene_feature"),
            keras.Input(batch_shape=(None, embedding_size), name="class_embeddings"),
            seen,
            backbone_classes,
            joint_space,
        )

    def require_seen_embeddings(self, purpose: str) -> np.ndarray:
        """Returns the seen embeddings.

        Raises:
            ValueError: they are unknown; the message says that `purpose` needs them.
        """
        if self.seen_embeddings is None:
            raise ValueError(f"{purpose} needs seen_embeddings, those of the training classes")
        return self.seen_embeddings

    def require_backbone_classes(self, purpose: str) -> BackboneClasses:
        """Returns the classes of the backbone.

        Raises:
            ValueError: they are unknown; the message says that `purpose` needs them.
        """
        if self.backbone_classes is None:
            raise ValueError(
                f"{purpose} needs backbone_classes, the classes that the backbone was trained on"
            )
        return self.backbone_classes

    def model(self, outputs: keras.KerasTensor, name: str = "head") -> keras.Model:
        """Returns the functional model of the three inputs, in this order."""
        import keras

        inputs = [self.region_features, self.scene_feature, self.class_embeddings]
        return keras.Model(inputs, outputs, name=name)


@dataclasses.dataclass(frozen=True)
class System:
    """A system that scores classes from region features, a scene feature and class embeddings.

    Attributes:
        title: its name in tables.
        source: authors, title, venue and equations of its paper.
        presets: settings by name, frozen dataclasses of one type, with `"paper"` among them. Their
            `__post_init__` raises a `UserError` that begins with the name of a wrong setting.
        build: function of inputs and settings to the scores (batch, classes), float32, the
            output of a layer named `scores`. The output of a layer named `response_maps`,
            (batch, height, width, classes) on the grid of the region features, is shown as
            evidence.
        training_outputs: function of the built head to the inputs of its losses by name. Defaults
            to `None`: the scores.
        make_losses: function of the built head and its settings to its losses. Defaults to `None`:
            those of the configuration's `training.loss`.
        fit: for a closed form, sets the head's weights in one pass over the training examples;
            called with the head, its settings, batches of (inputs by name, labels) and the seen
            embeddings. Defaults to `None`: the head is trained by gradient descent.
        prepare: called with the head and all labels (N, seen classes) of the training examples
            before the first step, to set weights that depend on them. Defaults to `None`.
        trained: whether it has weights to train or to solve for. Defaults to `True`; `False`: it is
            complete as it is built, and training photos are not read.
        uses_backbone_classes: whether it is, or can be, built from the classes of the backbone
            (`HeadInputs.backbone_classes`); its settings then have the fields `name_vectors` and
            `template` of `biam_tf.baselines.backbone_classes`, and `use_backbone_classes` of BiAM
            where that is a choice. Defaults to `False`.
        uses_joint_space: whether features and class embeddings must be of one space of images and
            texts (`HeadInputs.joint_space`). Defaults to `False`.
        candidates: function of the settings to those of which the best on validation photos is
            taken, for systems that are not trained. Defaults to `None`: the settings are used as
            they are.
        earlier_presets: for presets that have changed, the names by which the settings that they
            had in version 0.1 are found now. Defaults to none.
        open_vocabulary: whether it scores classes that it was not trained on. Defaults to `True`.
        classifier: name of the layer that multiplies vectors of regions, or of the photo, with
            vectors of classes (`biam_tf.models.factors.Classifier`), if the scores are the means
            of each class's k strongest products (`TopKSpatialPooling`), or the products of the
            photo: stored vectors are then searched for any class without the model. Defaults to
            `None`: the scores have another last step.
        compares_images: whether an image's loss of `make_losses` depends on the other images of
            its batch; with several devices or `training.accumulation_steps`, such losses are
            computed from the gathered outputs of the whole batch. Defaults to `False`.
    """

    title: str
    source: str
    presets: Mapping[str, Any]
    build: Callable[[HeadInputs, Any], keras.KerasTensor]
    training_outputs: Callable[[keras.Model], Mapping[str, keras.KerasTensor]] | None = None
    make_losses: Callable[[keras.Model, Any], Losses] | None = None
    fit: Callable[[keras.Model, Any, Iterable, np.ndarray], None] | None = None
    prepare: Callable[[keras.Model, Labels], None] | None = None
    open_vocabulary: bool = True
    classifier: str | None = None
    compares_images: bool = False
    trained: bool = True
    uses_backbone_classes: bool = False
    uses_joint_space: bool = False
    candidates: Callable[[Any], list[Any]] | None = None
    earlier_presets: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def settings_type(self) -> type:
        """The dataclass of its settings."""
        return type(self.presets["paper"])

    def settings(self, preset: str = "paper", **changes: Any) -> Any:
        """Returns the settings of a preset with some of them changed.

        Raises:
            UserError: a preset or setting is unknown (with the nearest valid name), or a value is
                not valid.
        """
        if preset not in self.presets:
            raise UserError(f"preset {preset!r} is unknown{did_you_mean(preset, self.presets)}")
        known = [field.name for field in dataclasses.fields(self.settings_type)]
        for name in changes:
            if name not in known:
                raise UserError(f"head setting {name!r} is unknown{did_you_mean(name, known)}")
        return dataclasses.replace(self.presets[preset], **changes)


def require_setting(condition: bool, name: str, value: Any, valid: str) -> None:
    """Raises a `UserError` that begins with the name of a setting unless `condition` holds."""
    if not condition:
        raise UserError(f"{name}: {value!r} is not valid; it must be {valid}")


def require_choice(settings: Any, name: str, valid: Collection[str]) -> None:
    """Raises a `UserError` with the nearest valid value unless a setting is one of `valid`."""
    value = getattr(settings, name)
    nearest = nearest_names(str(value), valid, count=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    require_setting(value in valid, name, value, f"one of {', '.join(valid)}{hint}")


def require_at_least(settings: Any, least: int, *names: str) -> None:
    """Raises a `UserError` that begins with the name of a setting below `least`."""
    for name in names:
        value = getattr(settings, name)
        require_setting(value >= least, name, value, f"at least {least}")


def require_share(settings: Any, *names: str) -> None:
    """Raises a `UserError` that begins with the name of a setting outside [0, 1)."""
    for name in names:
        value = getattr(settings, name)
        require_setting(0.0 <= value < 1.0, name, value, "at least 0 and below 1")
