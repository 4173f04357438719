"""Tags photos from Python: `Tagger`, also `biam_tf.Tagger`."""

import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from biam_tf.class_calibration import ClassCalibration, Selection
from biam_tf.class_calibration import Tag as Tag
from biam_tf.embeddings.name_embedder import NameEmbedder
from biam_tf.errors import UserError, nearest_path
from biam_tf.files import version_number
from biam_tf.learned_classes import (
    OTHERS_AT_MOST,
    OtherPhotos,
    learned_embedding,
    photo_vectors,
    require_learnable,
    spread_over,
)
from biam_tf.photo_inputs import PhotoInput, photo_inputs
from biam_tf.photos import NOT_WHOLE, PhotoError, decoding_problem
from biam_tf.pretrained import PRETRAINED, pretrained_run
from biam_tf.runs import RunPaths, load_run
from biam_tf.scoring_models import MODEL_FILE, ExportModel, Features, RunModel, ScoringModel
from biam_tf.thresholds import Thresholds
from biam_tf.vocabulary import Vocabulary

PHOTOS_AT_A_TIME = 16

THRESHOLD = "threshold"


class Tagger:
    """Tags photos with any classes; threads may share it.

    `Tagger.load` and `Tagger.from_preset` make one:

    >>> from biam_tf import Tagger
    >>> tagger = Tagger.load("models/mine")
    >>> for tag in tagger.tag("beach.jpg", ["dog", "red car", "sunset"]):
    ...     print(tag.name, tag.probability, tag.present)

    Photos are paths, the bytes of files, Pillow images or uint8 arrays `(height, width, channels)`,
    one or several (also an array with a fourth axis). Classes are names, of which each finds its
    embedding by the rule of docs/class_embeddings.md, or a `Vocabulary`; without classes, they are
    the model's own.

    Args:
        model: what it runs.

    Attributes:
        vocabulary: the model's own classes.
        thresholds: calibration and thresholds of the model's scores; None: it has none.
    """

    def __init__(self, model: ScoringModel):
        self._model = model
        self._embed = NameEmbedder(model.vocabulary, model.embed_others)
        self.vocabulary: Vocabulary = model.vocabulary
        self.thresholds: Thresholds | None = model.thresholds
        self._calibrated: tuple[Sequence[str], np.ndarray, ClassCalibration] | None = None

    def __repr__(self) -> str:
        return f"Tagger({self._model.name!r}, {len(self.vocabulary)} classes of its own)"

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Tagger":
        """Loads a model.

        Args:
            path: the folder of a trained run, or of an exported model (the newest version is
                taken) or one of its versions.

        Raises:
            UserError: the folder is neither, or the run's backbone is not available.
        """
        folder = pathlib.Path(path).expanduser()
        if not folder.is_dir():
            is_preset = str(path) in PRETRAINED
            hint = f"; Tagger.from_preset({str(path)!r})?" if is_preset else nearest_path(folder)
            raise UserError(f"{path}: no such folder{hint}")
        if (folder / MODEL_FILE).is_file():
            return cls(ExportModel(folder))
        if RunPaths(folder).config.exists():
            return cls(RunModel(load_run(folder)))
        versions = [
            version
            for version in folder.iterdir()
            if version_number(version.name) is not None and (version / MODEL_FILE).is_file()
        ]
        if not versions:
            raise UserError(
                f"{path} is neither the folder of a run (it has no config.yaml) nor that of an "
                f"exported model (it has no version with {MODEL_FILE})"
            )
        return cls(ExportModel(max(versions, key=lambda version: int(version.name))))

    @classmethod
    def from_preset(cls, name: str) -> "Tagger":
        """Loads a tagger that needs no training; see docs/pretrained_taggers.md.

        It is assembled from installed packages at first, and kept in a cache (`BIAM_CACHE`, or
        `~/.cache/biam_tf`).

        Args:
            name: such as `"efficientnet_lite0_imagenet_minilm"`.

        Raises:
            UserError: the name is unknown, or packages are missing (the message names the command
                that installs them).
        """
        return cls(RunModel(load_run(pretrained_run(name))))

    def tag(
        self,
        photos: Any,
        classes: Sequence[str] | Vocabulary | None = None,
        *,
        top: int | None = None,
        at: float | Literal["threshold"] | None = None,
    ) -> Any:
        """Tags photos.

        Args:
            photos: one or several.
            classes: names, or a vocabulary. Defaults to `None`: the model's own classes.
            top: largest number of tags of a photo. Defaults to `None`: no limit.
            at: which classes are returned: those at or above their `"threshold"`, or of at least
                this probability (which then decides `present`). Defaults to `None`: all, present or
                not.

        Returns:
            For one photo a list of `Tag`, the highest score first; for several a list of these.

        Raises:
            UserError: a photo cannot be read, a class has no embedding, or `at` needs thresholds
                that the model does not have.
        """
        if top is not None and top < 1:
            raise UserError(f"top: {top} tags; use at least 1")
        self._check_at(at)
        inputs, single = photo_inputs(photos)
        names, embeddings = self._classes(classes)
        its, probabilities, present = self._calibration(names, embeddings), None, None
        number = None if at is None or at == THRESHOLD else float(at)
        selection = Selection(top, only_present=at == THRESHOLD, probability=number)
        tagged = []
        for batch in self._scores(inputs, embeddings):
            for scores in batch:
                if its is not None:
                    probabilities, present = its.probabilities(scores), its.decide(scores)
                tagged.append(selection.tags(names, scores, probabilities, present))
        return tagged[0] if single else tagged

    def scores(self, photos: Any, classes: Sequence[str] | Vocabulary | None = None) -> np.ndarray:
        """Returns the scores (photos, classes), float32, of one or several photos.

        `classes` and errors are those of `tag`.
        """
        inputs, _ = photo_inputs(photos)
        _, embeddings = self._classes(classes)
        scores = np.concatenate(list(self._scores(inputs, embeddings)))
        return scores.astype(np.float32, copy=False)

    def explain(
        self, photos: Any, classes: Sequence[str] | Vocabulary | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns scores (photos, classes) and response maps (photos, h, w, classes), float32.

        A response map says how strongly each region of the photo, from top left to bottom right,
        speaks for a class. `classes` and errors are those of `tag`.

        Raises:
            UserError: as `tag`, or the model has no response maps.
        """
        inputs, _ = photo_inputs(photos)
        _, embeddings = self._classes(classes)
        scores, maps = [], []
        for batch in self._read(inputs):
            found = self._run(batch, lambda photos: self._model.explain(photos, embeddings))
            scores.append(found[0])
            maps.append(found[1])
        return np.concatenate(scores), np.concatenate(maps)

    def features(self, photos: Any) -> Features:
        """Returns region features (photos, h, w, d) and scene features (photos, d_g), float32.

        Raises:
            UserError: a photo cannot be read.
        """
        inputs, _ = photo_inputs(photos)
        regions, scenes = zip(*self._features(inputs), strict=True)
        return np.concatenate(regions), np.concatenate(scenes)

    def embed(self, names: Sequence[str]) -> np.ndarray:
        """Returns the embeddings (classes, d_a) of class names, float32, of length 1.

        Raises:
            UserError: a name is empty or has no embedding.
        """
        return self._embed(names)

    def learn(
        self, name: str, photos: Any, *, others: Any = None, like: str | None = None
    ) -> Vocabulary:
        """Learns a class from photos that show it; `tag` and the others then know its name.

        >>> tagger.learn("my cat", ["cat1.jpg", "cat2.jpg"], like="cat").save("my-cat.npz")
        >>> tagger.tag("garden.jpg", ["my cat", "dog"])

        Args:
            name: any name that is not one of the model's own classes.
            photos: one or several; five are much better than one.
            others: at least 20 ordinary photos; better 200, of the kind that will be tagged. A
                few may show the class. Defaults to `None`: those that the model was trained on.
            like: a name for something like it, which then counts as much as two photos. Defaults
                to `None`.

        Returns:
            The class and its embedding, which fits this model alone; `add_classes` reads it later.

        Raises:
            UserError: a photo cannot be read, there are too few other photos, or the model's scores
                are no products of photos and class embeddings.
        """
        return self.learn_classes({name: photos}, others=others, like={name: like} if like else {})

    def learn_classes(
        self,
        examples: Mapping[str, Any],
        *,
        others: Any = None,
        like: Mapping[str, str] = MappingProxyType({}),
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Vocabulary:
        """Learns several classes at once, each compared with the examples of the others, too.

        Args:
            examples: photos by class; a photo may show several.
            others: as in `learn`.
            like: names for something like a class, by class.
            progress: called with the number of photos that were read, and of all.

        Returns:
            The classes, in their order; raises as `learn`.
        """
        side = self._model.class_side()
        require_learnable(side, self._model.name)
        self._embed.require_new(examples)
        shown = {name: photo_inputs(photos)[0] for name, photos in examples.items()}
        if others is None:
            others = spread_over(self._model.training_photos(), OTHERS_AT_MOST)
        inputs = photo_inputs(others)[0] if len(others) else []
        every = {photo.key: photo for photos in (*shown.values(), inputs) for photo in photos}
        rows = {key: row for row, key in enumerate(every)}
        found: list[np.ndarray] = []
        for batch in self._read(list(every.values())):
            found += list(photo_vectors(self._run(batch, self._model.region_vectors), side))
            progress(len(found), len(every))
        vectors = np.stack(found)
        learned = []
        for name, photos in shown.items():
            own = sorted({rows[photo.key] for photo in photos})
            rest = np.delete(vectors, own, axis=0)
            named = self._embed([like[name]])[0] if name in like else None
            learned.append(learned_embedding(vectors[own], OtherPhotos.of(rest), side, named))
        groups = ["unseen"] * len(learned)
        classes = Vocabulary(tuple(shown), np.stack(learned), tuple(groups))
        self.add_classes(classes)
        return classes

    def add_classes(self, classes: Vocabulary) -> None:
        """Makes classes known by name, such as those that `learn` returned and `save` wrote.

        Raises:
            UserError: one is among the model's own classes, or the embeddings have another length.
        """
        self._embed.add(classes)

    def _classes(
        self, classes: Sequence[str] | Vocabulary | None
    ) -> tuple[Sequence[str], np.ndarray]:
        vocabulary = self.vocabulary if classes is None else classes
        if isinstance(vocabulary, Vocabulary):
            if not len(vocabulary):
                raise UserError(f"{self._model.name}: it has no classes of its own; name some")
            size = self.vocabulary.embedding_size
            if vocabulary.embedding_size != size:
                raise UserError(
                    f"classes: embeddings of {vocabulary.embedding_size} numbers, where "
                    f"{self._model.name} takes {size}"
                )
            return vocabulary.names, vocabulary.embeddings
        names = [vocabulary] if isinstance(vocabulary, str) else list(vocabulary)
        return names, self._embed(names)

    def _calibration(self, names: Sequence[str], embeddings: np.ndarray) -> ClassCalibration | None:
        """Returns the calibration of classes; None: the model has none.

        That of the last classes is kept: batch after batch asks for the same.
        """
        if self.thresholds is None:
            return None
        kept = self._calibrated
        if kept is None or kept[0] is not names or kept[1] is not embeddings:
            found = self.thresholds.for_classes(names, embeddings, self.vocabulary)
            kept = self._calibrated = names, embeddings, found
        return kept[2]

    def _check_at(self, at: float | str | None) -> None:
        if at is None:
            return
        if self.thresholds is None:
            raise UserError(
                f"at: {at!r}, but {self._model.name} has no thresholds: it was trained without "
                "validation photos; order by score, or take the best with top"
            )
        number = isinstance(at, (int, float)) and not isinstance(at, bool)
        if not (number and 0 <= float(at) <= 1) and at != THRESHOLD:
            raise UserError(f"at: {at!r}; use 'threshold', or a probability from 0 to 1")

    def _features(self, inputs: Sequence[PhotoInput]) -> Iterator[Features]:
        for batch in self._read(inputs):
            yield self._run(batch, self._model.features)

    def _scores(self, inputs: Sequence[PhotoInput], embeddings: np.ndarray) -> Iterator[np.ndarray]:
        for batch in self._read(inputs):
            yield self._run(batch, lambda photos: self._model.scores(photos, embeddings))

    def _read(self, inputs: Sequence[PhotoInput]) -> Iterator[list[tuple[PhotoInput, bytes]]]:
        """Yields photos and their contents, some at a time."""
        for start in range(0, len(inputs), PHOTOS_AT_A_TIME):
            batch = []
            for photo in inputs[start : start + PHOTOS_AT_A_TIME]:
                try:
                    batch.append((photo, photo.read()))
                except PhotoError as error:
                    raise UserError(f"{photo.name}: {error}") from None
            yield batch

    def _run(self, batch: list[tuple[PhotoInput, bytes]], function: Any) -> Any:
        """Returns what a function makes of the contents; names the photo that it refuses."""
        try:
            return function([contents for _, contents in batch])
        except tf.errors.InvalidArgumentError as error:
            for photo, contents in batch:
                reason = decoding_problem(contents)
                if reason is not None:
                    raise UserError(f"{photo.name}: {reason}") from None
            if len(batch) > 1:
                raise
            raise UserError(f"{batch[0][0].name}: {NOT_WHOLE}") from error
