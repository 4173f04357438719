"""The paths in a run's folder, and `load_run`, which reads a trained run."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from biam_tf.errors import UserError, nearest_names
from biam_tf.files import read_json, read_model
from biam_tf.models.systems import find_system, register_layers
from biam_tf.photos import Orientation
from biam_tf.thresholds import Thresholds
from biam_tf.vocabulary import Vocabulary

if TYPE_CHECKING:  # a wrong folder is reported without Keras
    import keras


@dataclasses.dataclass(frozen=True)
class RunPaths:
    """The paths in a run's folder.

    Attributes:
        path: the folder.
    """

    path: pathlib.Path

    @property
    def config(self) -> pathlib.Path:
        """The resolved configuration, YAML."""
        return self.path / "config.yaml"

    @property
    def vocabulary(self) -> pathlib.Path:
        """Names, embeddings and groups of the run's classes, npz."""
        return self.path / "vocabulary.npz"

    @property
    def lock(self) -> pathlib.Path:
        """The process that trains the run; exists only meanwhile."""
        return self.path / ".lock"

    @property
    def log(self) -> pathlib.Path:
        """One JSON object per line and epoch."""
        return self.path / "log.jsonl"

    @property
    def checkpoints(self) -> pathlib.Path:
        """TensorFlow checkpoints of model, optimizer and training position."""
        return self.path / "checkpoints"

    @property
    def model(self) -> pathlib.Path:
        """The head of the best epoch so far, in Keras format."""
        return self.path / "model.keras"

    @property
    def backbone(self) -> pathlib.Path:
        """The backbone of the best epoch, in Keras format; only if it was trained."""
        return self.path / "backbone.keras"

    @property
    def backbone_identity(self) -> pathlib.Path:
        """Name, image size and (if frozen) weights fingerprint of the backbone, JSON."""
        return self.path / "backbone.json"

    @property
    def metrics(self) -> pathlib.Path:
        """Figures on the test split, JSON; written last: a run that has it is complete."""
        return self.path / "metrics.json"

    @property
    def thresholds(self) -> pathlib.Path:
        """Calibration and thresholds of the classes, JSON; only with a validation split."""
        return self.path / "thresholds.json"

    @property
    def held_out(self) -> pathlib.Path:
        """Folder of the scores of validation photos by the held-out folds."""
        return self.path / "held_out"

    @property
    def data_manifest(self) -> pathlib.Path:
        """Checksums of the photos, labels and classes it used, JSON."""
        return self.path / "data_manifest.json"

    @property
    def tensorboard(self) -> pathlib.Path:
        """Files for TensorBoard."""
        return self.path / "tensorboard"

    @property
    def report(self) -> pathlib.Path:
        """Folder of the report and the contact sheet."""
        return self.path / "report"

    @property
    def report_page(self) -> pathlib.Path:
        """The report, one HTML file that needs no other."""
        return self.report / "index.html"

    @property
    def contact_sheet(self) -> pathlib.Path:
        """Photos with their best tags and response maps, PNG."""
        return self.report / "contact_sheet.png"

    def read_log(self) -> list[dict[str, Any]]:
        """Returns the records of the log, one per epoch.

        Raises:
            UserError: a line is damaged.
        """
        records: list[dict[str, Any]] = []
        try:
            for line in self.log.read_text(encoding="utf-8").splitlines():
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise ValueError("not a JSON object")
                records.append(record)
        except UnicodeDecodeError as error:
            raise UserError(f"{self.log}: damaged: not UTF-8 text ({error})") from error
        except OSError as error:
            raise UserError(f"{self.log}: cannot be read ({error.strerror or error})") from error
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{self.log}: line {len(records) + 1} is damaged ({error}); bring the "
                "file back from a copy, or remove that line"
            ) from error
        return records

    def read_metrics(self) -> dict[str, Any]:
        """Returns the figures of a complete run.

        Raises:
            UserError: the file is damaged.
        """
        metrics = read_json(self.metrics, "the figures of a run")
        if not isinstance(metrics, dict) or not metrics.keys() >= {"images", "split"}:
            raise UserError(
                f"{self.metrics}: damaged: not the figures of a run; bring it back from a copy, or "
                "delete it and start the run again, which then is evaluated again"
            )
        return metrics

    def way_to_restore(self, file: pathlib.Path) -> str:
        """Returns what to do about a damaged file of the best epoch, for a message."""
        for checkpoint in sorted(self.checkpoints.glob("*"), reverse=True):
            copy = checkpoint / file.name
            if checkpoint.name.isdecimal() and copy.exists():
                return f"bring it back from a copy, such as {copy}, or train again"
        return "bring it back from a copy, or train again"

    def _nearest_run(self) -> str:
        """Returns a hint at the run that may be meant, or `""`."""
        inside = sorted(str(file.parent) for file in self.path.glob(f"*/{self.config.name}"))
        if inside:
            return f"; runs in it: {', '.join(inside)}"
        beside = {file.parent.name for file in self.path.parent.glob(f"*/{self.config.name}")}
        nearest = nearest_names(self.path.name, sorted(beside), count=1)
        return f"; did you mean {str(self.path.parent / nearest[0])!r}?" if nearest else ""

    def require_whole(self) -> None:
        """Checks that the folder has a trained model.

        Raises:
            UserError: it has none; the message says what to do.
        """
        if not self.config.exists():
            raise UserError(
                f"{self.path} is not the folder of a run: it has no {self.config.name}"
                f"{self._nearest_run()}"
            )
        if not self.model.exists() or not self.vocabulary.exists():
            raise UserError(
                f"{self.path} has no trained model yet; run `python -m training.run --config "
                f"{self.config}` to finish its training"
            )


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A trained run: its settings, classes and models.

    Attributes:
        folder: its paths.
        settings: its resolved configuration, as plain values by section and key.
        vocabulary: the classes it was trained and evaluated with.
        head: `region_features`, `scene_feature` and `class_embeddings` to scores.
        backbone: `images` to `region_features` and `scene_feature`, with the weights that the
            head was trained on.
        thresholds: of its scores; None: it had no validation split, or was made by a version
            without thresholds.
        scorers: compiled functions of its models, kept because compiling them takes seconds; a
            copy of the run by `dataclasses.replace` has the same ones.
    """

    folder: RunPaths
    settings: Mapping[str, Any]
    vocabulary: Vocabulary
    head: keras.Model
    backbone: keras.Model
    thresholds: Thresholds | None = None
    scorers: dict[Any, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    @property
    def image_size(self) -> int:
        """Side of the backbone's input photos in pixels."""
        return self.backbone.input_shape[1]

    @property
    def orientation(self) -> Orientation:
        """Whether photos are turned upright as EXIF data say; early runs ignored these."""
        return self.settings["backbone"].get("orientation", "ignore")

    @property
    def system(self) -> str:
        """The system of its head: a key of `biam_tf.models.systems.SYSTEMS`."""
        return self.settings.get("head", {}).get("system", "biam")

    @property
    def open_vocabulary(self) -> bool:
        """Whether it can score classes that it was not trained on.

        Raises:
            UserError: this version does not have the system.
        """
        return find_system(self.system).open_vocabulary

    @property
    def all_seen(self) -> bool:
        """Whether it was trained for the standard task, in which all classes are seen."""
        return self.settings.get("data", {}).get("all_seen", False)

    @property
    def word_vectors(self) -> str | None:
        """The file of its class embeddings; None: the data set's own attributes."""
        return self.settings["vocabulary"]["word_vectors"]


def load_run(path: str | os.PathLike) -> TrainedRun:
    """Reads a trained run.

    Raises:
        UserError: the folder is not a trained run, or its frozen backbone is not available with
            the same weights.
    """
    folder = RunPaths(pathlib.Path(path))
    folder.require_whole()
    settings = _read_settings(folder)
    register_layers()
    return TrainedRun(
        folder=folder,
        settings=settings,
        vocabulary=Vocabulary.load(folder.vocabulary),
        head=read_model(folder.model, folder.way_to_restore(folder.model)),
        backbone=_load_backbone(folder, settings),
        thresholds=Thresholds.load(folder.thresholds) if folder.thresholds.exists() else None,
    )


def _read_settings(folder: RunPaths) -> Mapping[str, Any]:
    try:
        settings = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
        for section in ("backbone", "vocabulary"):
            settings[section].items()
    except (
        yaml.YAMLError,
        OSError,
        UnicodeDecodeError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise UserError(
            f"{folder.config}: not the resolved configuration of a run ({error!r}); files in a "
            "run's folder must not be edited"
        ) from error
    return settings


def _load_backbone(folder: RunPaths, settings: Mapping[str, Any]) -> keras.Model:
    """The trained backbone, or the frozen one, built again and checked to have the same weights."""
    from biam_tf.backbones import build_backbone, load_backbone, weights_fingerprint
    from biam_tf.backbones.spec import TOKENS

    if folder.backbone.exists():
        return load_backbone(settings["backbone"]["name"], folder.backbone)
    identity = read_json(folder.backbone_identity, "what identifies the backbone of a run")
    keys = ("name", "image_size", "weights_fingerprint")
    if not isinstance(identity, dict) or not identity.keys() >= set(keys):
        raise UserError(f"{folder.backbone_identity}: damaged: expected the keys {', '.join(keys)}")
    weights = identity.get("weights", settings["backbone"]["weights"])  # early runs lack the key
    regions = identity.get("regions", TOKENS)  # as of all early runs
    backbone = build_backbone(identity["name"], identity["image_size"], weights, regions=regions)
    found = weights_fingerprint(backbone)
    if found != identity["weights_fingerprint"]:
        raise UserError(
            f"{folder.path} was trained on {identity['name']} with weights "
            f"{identity['weights_fingerprint']}; on this machine they are {found}"
        )
    return backbone
