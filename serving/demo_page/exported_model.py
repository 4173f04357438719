"""What the page must know of a model, read from the folder of its newest version."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence

from biam_tf.errors import UserError
from biam_tf.thresholds import Thresholds
from biam_tf.vocabulary import Vocabulary
from serving.demo_page.class_list import KnownClasses


@dataclasses.dataclass(frozen=True, eq=False)
class ExportedModel:
    """A version of a model, as its files describe it; the server has the model itself.

    Attributes:
        path: the version's folder.
        vocabulary: the classes that the run was trained with.
        classes: names that the model can score.
        thresholds: the run's calibrated thresholds; None: it has none.
        signatures: names of what the model answers to.
    """

    path: pathlib.Path
    vocabulary: Vocabulary
    classes: KnownClasses
    thresholds: Thresholds | None
    signatures: frozenset[str]

    @property
    def name(self) -> str:
        """How the page calls it: the folder and the version."""
        return f"{self.path.parent.name} (version {self.path.name})"

    @property
    def has_response_maps(self) -> bool:
        """Whether it tells where in a photo a class was found."""
        return "explain" in self.signatures

    def groups(self, names: Sequence[str]) -> list[str]:
        """Returns "seen" or "unseen" for each name: what no training photo showed is unseen."""
        own = dict(zip(self.vocabulary.names, self.vocabulary.groups, strict=True))
        return [own.get(name) or own.get(name.lower(), "unseen") for name in names]


def read_newest(model_dir: str | os.PathLike) -> ExportedModel:
    """Reads the newest version in a model's folder; again only when there is a newer one.

    Raises:
        UserError: there is none, or it knows no class names.
    """
    from serving.rpc.loader import newest_version

    return _read(newest_version(pathlib.Path(model_dir)).resolve())


@functools.lru_cache(maxsize=8)
def _read(path: pathlib.Path) -> ExportedModel:
    facts = path / "assets.extra"
    if not (facts / "vocabulary.npz").is_file():
        raise UserError(f"{path}: no assets.extra/vocabulary.npz; python -m serving.export adds it")
    vocabulary = Vocabulary.load(facts / "vocabulary.npz")
    signatures = _signatures(path)
    if "tag" not in signatures:
        raise UserError(
            f"{path}: the model knows no class names, so there is nothing to type; export it again "
            "with --word-vectors FILE"
        )
    thresholds = facts / "thresholds.json"
    return ExportedModel(
        path=path,
        vocabulary=vocabulary,
        classes=KnownClasses(vocabulary.names, _words(path)),
        thresholds=Thresholds.load(thresholds) if thresholds.is_file() else None,
        signatures=signatures,
    )


def _words(path: pathlib.Path) -> frozenset[str]:
    """The words of `serving.graph.name_table`, which saving the model copied here."""
    file = path / "assets" / "words.txt"
    if not file.is_file():
        return frozenset()
    return frozenset(file.read_bytes().decode().split("\n")) - {""}


def _signatures(path: pathlib.Path) -> frozenset[str]:
    from tensorflow.core.protobuf import saved_model_pb2

    from serving.rpc.loader import MODEL_FILE

    saved = saved_model_pb2.SavedModel.FromString((path / MODEL_FILE).read_bytes())
    return frozenset(name for graph in saved.meta_graphs for name in graph.signature_def)
