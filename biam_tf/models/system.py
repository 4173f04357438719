"""What a system of scoring classes is: BiAM and its rivals, behind one interface."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np

from biam_tf.errors import UserError, did_you_mean

# Labels (B, C) and the outputs of `System.training_outputs` to losses (B,).
Losses = Callable[[Any, Mapping[str, Any]], Any]


@dataclasses.dataclass(frozen=True, eq=False)
class HeadInputs:
    """What every head takes, and what it may be built from.

    Attributes:
        region_features: `keras.Input`, (batch, height, width, channels).
        scene_feature: `keras.Input`, (batch, scene_size).
        class_embeddings: `keras.Input`, (classes, embedding_size), without a batch axis.
        seen_embeddings: (seen classes, embedding_size) array, the classes it will be trained on;
            `None`: not known.
    """

    region_features: keras.KerasTensor
    scene_feature: keras.KerasTensor
    class_embeddings: keras.KerasTensor
    seen_embeddings: np.ndarray | None

    @classmethod
    def of_shapes(
        cls, region_shape, scene_size: int, embedding_size: int, seen_embeddings=None
    ) -> "HeadInputs":
        """Makes the three inputs.

        Raises:
            ValueError: the seen embeddings are no matrix of that embedding size.
        """
        if seen_embeddings is not None:
            seen_embeddings = np.asarray(seen_embeddings, np.float32)
            if seen_embeddings.ndim != 2 or seen_embeddings.shape[1] != embedding_size:
                raise ValueError(
                    f"seen_embeddings must be a matrix (seen classes, {embedding_size}); got "
                    f"shape {seen_embeddings.shape}"
                )
        return cls(
            keras.Input(region_shape, name="region_features"),
            keras.Input((scene_size,), name="scene_feature"),
            keras.Input(batch_shape=(None, embedding_size), name="class_embeddings"),
            seen_embeddings,
        )

    def require_seen_embeddings(self, purpose: str) -> np.ndarray:
        """Returns the seen embeddings.

        Raises:
            ValueError: they are not known; the message says that `purpose` needs them.
        """
        if self.seen_embeddings is None:
            raise ValueError(f"{purpose} needs seen_embeddings, those of the training classes")
        return self.seen_embeddings

    def model(self, outputs, name: str = "head") -> keras.Model:
        """Returns the functional model of the three inputs, in this order."""
        inputs = [self.region_features, self.scene_feature, self.class_embeddings]
        return keras.Model(inputs, outputs, name=name)


@dataclasses.dataclass(frozen=True)
class System:
    """A system that scores classes from region features, a scene feature and class embeddings.

    Attributes:
        title: what tables call it.
        source: where it comes from: authors, title, venue, and equations.
        presets: settings by name, frozen dataclasses of one type, `"paper"` among them. Their
            `__post_init__` raises a `UserError` that begins with the name of a wrong setting.
        build: inputs and settings to the scores (batch, classes), float32. Their layer is
            called `scores`. A layer with the name `response_maps` whose output is (batch, height,
            width, classes), on the grid of the region features, is shown as evidence.
        training_outputs: the built head to the outputs by name that its losses take; `None`: the
            scores alone.
        make_losses: the built head and its settings to its losses; `None`: those of the
            configuration's `training.loss`.
        fit: sets the head's weights from one pass over the training examples, for a closed form;
            takes the head, its settings, batches of (inputs by name, labels) and the seen
            embeddings. `None`: it is trained by gradient descent.
        prepare: takes the head and all labels (N, seen classes) of the training examples before
            the first step, to set what the head keeps of them. `None`: nothing.
        open_vocabulary: whether it scores classes that it was not trained on.
    """

    title: str
    source: str
    presets: Mapping[str, Any]
    build: Callable[[HeadInputs, Any], keras.KerasTensor]
    training_outputs: Callable[[keras.Model], Mapping[str, keras.KerasTensor]] | None = None
    make_losses: Callable[[keras.Model, Any], Losses] | None = None
    fit: Callable[[keras.Model, Any, Iterable, np.ndarray], None] | None = None
    prepare: Callable[[keras.Model, np.ndarray], None] | None = None
    open_vocabulary: bool = True

    @property
    def settings_type(self) -> type:
        """The dataclass of its settings."""
        return type(self.presets["paper"])

    def settings(self, preset: str = "paper", **changes: Any) -> Any:
        """Returns the settings of a preset with some of them changed.

        Raises:
            UserError: for an unknown preset or setting (with the nearest valid name), or a value
                that is not valid.
        """
        if preset not in self.presets:
            raise UserError(f"preset {preset!r} is unknown{did_you_mean(preset, self.presets)}")
        known = [field.name for field in dataclasses.fields(self.settings_type)]
        for name in changes:
            if name not in known:
                raise UserError(f"head setting {name!r} is unknown{did_you_mean(name, known)}")
        return dataclasses.replace(self.presets[preset], **changes)


def require_setting(condition: bool, name: str, value: Any, valid: str) -> None:
    """Raises the `UserError` of a setting that is not valid, which begins with its name."""
    if not condition:
        raise UserError(f"{name}: {value!r} is not valid; it must be {valid}")
