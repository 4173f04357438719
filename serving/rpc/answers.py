"""Classes of requests, and answers: scores of photos with probabilities and tags."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from biam_tf.class_calibration import ClassCalibration, Selection, Tag

# Outputs of the signatures `embed` and `calibrate`, in the order of `ClassCalibration`.
_COLUMNS = ("slopes", "offsets", "cuts")


@dataclasses.dataclass(frozen=True, eq=False)
class Classes:
    """Classes of requests, as a version of the model knows them.

    Attributes:
        names: C names; None: the request brings embeddings without names.
        embeddings: (C, d_a) float32.
        calibration: from scores to probabilities and tags; None: the model has none, because its
            run had no validation photos or it was exported by an early version.
        version: of the model; None: any.
    """

    names: tuple[str, ...] | None
    embeddings: np.ndarray
    calibration: ClassCalibration | None
    version: int | None

    @classmethod
    def scored_only(cls, class_embeddings: npt.ArrayLike) -> "Classes":
        """Returns classes without names, for which only scores are asked for."""
        return cls(None, np.asarray(class_embeddings, np.float32), None, None)


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """What a model says of B photos and C classes.

    Attributes:
        classes: the classes.
        scores: (B, C) float32.
        response_maps: (B, h, w, C) float32; None: not asked for.
    """

    classes: Classes
    scores: np.ndarray
    response_maps: np.ndarray | None = None

    @property
    def probabilities(self) -> np.ndarray | None:
        """(B, C) float64, NaN for a class that is not calibrated; None: there are none."""
        its = self.classes.calibration
        return None if its is None else its.probabilities(self.scores)

    @property
    def present(self) -> np.ndarray | None:
        """(B, C) bool, whether a class reaches its threshold; None: there are no thresholds."""
        its = self.classes.calibration
        return None if its is None else its.decide(self.scores)


def read_calibration(outputs: Mapping[str, np.ndarray]) -> ClassCalibration | None:
    """Returns the calibration in the outputs of `embed` or `calibrate`; None: there is none."""
    if not outputs.keys() >= {*_COLUMNS}:
        return None
    return ClassCalibration(*(outputs[name] for name in _COLUMNS))


def read_known_tags(outputs: Mapping[str, np.ndarray], selection: Selection) -> list[list[Tag]]:
    """Returns the tags of each photo in the outputs of the signature `tag_known`."""
    tagged = []
    for row, names in enumerate(outputs["names"]):
        probabilities, present = (
            outputs[name][row] if name in outputs else None for name in ("probabilities", "present")
        )
        its = [name.decode() for name in names]
        tagged.append(selection.tags(its, outputs["scores"][row], probabilities, present))
    return tagged
