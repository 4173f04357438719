"""A model of the page: what its files say, and a server that runs it."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from biam_tf.class_calibration import ClassCalibration
from biam_tf.embeddings.names import look_up, normalize
from biam_tf.errors import UserError
from biam_tf.photos import Orientation
from biam_tf.thresholds import Thresholds
from biam_tf.vocabulary import Vocabulary
from serving.demo_page.class_list import KnownClasses
from serving.rpc.tagging_client import TaggingClient
from serving.rpc.tagging_server import ServerSettings, TaggingServer
from serving.rpc.version_folders import (
    MODEL_FILE,
    newest_version,
    photo_orientation,
    takes_any_phrase,
)


@dataclasses.dataclass(frozen=True, eq=False)
class ExportedModel:
    """The files of a model version that the page reads; the server has the model itself.

    Attributes:
        path: the version's folder.
        vocabulary: the classes of the training run.
        classes: the names that the model can score.
        thresholds: the run's calibrated thresholds; None if it has none.
        signatures: names of the model's signatures.
        orientation: whether the model turns photos upright as EXIF data say.
    """

    path: pathlib.Path
    vocabulary: Vocabulary
    classes: KnownClasses
    thresholds: Thresholds | None
    signatures: frozenset[str]
    orientation: Orientation = "follow"

    @property
    def name(self) -> str:
        """The name of the model on the page: its folder and version."""
        return f"{self.path.parent.name} (version {self.path.name})"

    @property
    def has_response_maps(self) -> bool:
        """Whether the model returns response maps."""
        return "explain" in self.signatures

    @property
    def can_be_indexed(self) -> bool:
        """Whether photos can be indexed with it: its scores follow from something to store."""
        return {"features", "rescore"} <= self.signatures or self.has_response_maps

    @property
    def tells_seen_from_unseen(self) -> bool:
        """Whether some classes have training photos; those of a pretrained tagger have none."""
        return "seen" in self.vocabulary.groups

    def calibration(
        self, names: Sequence[str] | None, class_embeddings: np.ndarray
    ) -> ClassCalibration | None:
        """Returns the calibration of classes; None: the run has none.

        Args:
            names: of C classes; None: they have none, and all are new to the model.
            class_embeddings: (C, d_a).
        """
        if self.thresholds is None:
            return None
        return self.thresholds.for_classes(names, class_embeddings, self.vocabulary)

    def groups(self, names: Sequence[str]) -> list[str]:
        """Returns "seen" or "unseen" for each name; classes without training photos are unseen.

        Of a model without any seen class, a pretrained tagger, all are alike: "".
        """
        if not self.tells_seen_from_unseen:
            return [""] * len(names)
        rows = [look_up(name, None, self.vocabulary.index).row for name in names]
        return ["unseen" if row is None else self.vocabulary.groups[row] for row in rows]


def read_newest(model_dir: str | os.PathLike) -> ExportedModel:
    """Reads the files of the newest version of a model, once per version.

    Raises:
        UserError: there is no version, or it can't look up class names.
    """
    return _read(newest_version(pathlib.Path(model_dir)).resolve())


@functools.lru_cache(maxsize=8)
def _read(path: pathlib.Path) -> ExportedModel:
    assets = path / "assets.extra"
    if not (assets / "vocabulary.npz").is_file():
        raise UserError(f"{path}: no assets.extra/vocabulary.npz; python -m serving.export adds it")
    vocabulary = Vocabulary.load(assets / "vocabulary.npz")
    signatures = _signatures(path)
    if "tag" not in signatures:
        raise UserError(
            f"{path}: the model can't look up class names; export it again with --word-vectors FILE"
        )
    thresholds = assets / "thresholds.json"
    return ExportedModel(
        path=path,
        vocabulary=vocabulary,
        classes=KnownClasses(vocabulary.names, _words(path), takes_any_phrase(path)),
        thresholds=Thresholds.load(thresholds) if thresholds.is_file() else None,
        signatures=signatures,
        orientation=photo_orientation(path),
    )


def _words(path: pathlib.Path) -> frozenset[str]:
    """The words of `serving.graph.name_table`, which the SavedModel holds as an asset."""
    file = path / "assets" / "words.txt"
    if not file.is_file():
        return frozenset()
    return frozenset(map(normalize, file.read_bytes().decode().split("\n"))) - {""}


def _signatures(path: pathlib.Path) -> frozenset[str]:
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((path / MODEL_FILE).read_bytes())
    return frozenset(name for graph in saved.meta_graphs for name in graph.signature_def)


@dataclasses.dataclass(frozen=True, eq=False)
class ServedModel:
    """A model's folder and a server of it, which does all tagging.

    Attributes:
        model_dir: folder of the model, with one sub-folder per version.
        address: `host:port` of the server.
        client: connected to the server.
        server: the embedded server; None if the server is another program.
    """

    model_dir: pathlib.Path
    address: str
    client: TaggingClient
    server: TaggingServer | None = None

    @property
    def model(self) -> ExportedModel:
        """The files of the newest version."""
        return read_newest(self.model_dir)

    def wait_until_loaded(self) -> None:
        """Waits for the embedded server, if there is one.

        Raises:
            UserError: the model can't be loaded.
        """
        if self.server is None:
            return
        versions = self.server.versions
        while versions.current is None:
            failed = [state.error for state in versions.states.values() if state.error]
            if failed:
                raise UserError(f"{self.model_dir}: the model can't be loaded: {failed[-1]}")
            time.sleep(0.05)


@contextlib.contextmanager
def serve_model(
    model_dir: pathlib.Path, address: str | None, **client_options: Any
) -> Iterator[ServedModel]:
    """Yields a model with its server; starts an embedded server if there is no address.

    Args:
        model_dir: folder of the model, with one sub-folder per version.
        address: `host:port` of a running server; None to start one.
        **client_options: options of `connect` for a running server.

    Raises:
        UserError: the folder holds no model with class names, or a package is missing.
    """
    from serving.graph.warmup import require_protos

    require_protos()
    read_newest(model_dir)  # report problems of the folder before anything starts
    with contextlib.ExitStack() as stack:
        if address is None:
            server = stack.enter_context(
                TaggingServer(model_dir, ServerSettings(port=0, drain_seconds=1.0))
            )
            client = stack.enter_context(connect(server.address))
            yield ServedModel(model_dir, server.address, client, server)
        else:
            client = stack.enter_context(connect(address, **client_options))
            yield ServedModel(model_dir, address, client)


def connect(address: str, **options: Any) -> TaggingClient:
    """Returns a client that soon reports a server that can't be reached.

    Args:
        address: `host:port` of the server.
        **options: further arguments of `TaggingClient`.
    """
    return TaggingClient(address, timeout_seconds=60.0, retries=3, **options)
