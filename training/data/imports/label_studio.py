"""Reads labeled photos from the exports of Label Studio."""

import collections
import dataclasses
import json
import os
import pathlib
import re
import reprlib
import urllib.parse
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from biam_tf.errors import UserError, did_you_mean
from training.data.imports.list_texts import names_of_value
from training.data.imports.listed_photos import ListedPhoto, Listing, clean_name, some_of
from training.data.imports.photo_collection import is_url
from training.data.imports.photo_paths import PhotoPaths
from training.data.imports.table_files import open_table
from training.data.problems import Problems

FORM = "an export of Label Studio as JSON, JSON-MIN or CSV"
_ABOUT = {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "annotators"}
_USUAL_CONTROLS = {"choice", "choices", "label", "labels", "tag", "tags", "taxonomy"}
_PHOTO = re.compile(r"\.(jpe?g|png|gif|bmp|webp|tiff?|heic|avif)$", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class _Annotation:
    """What one annotator said about a photo; `labels` None: nothing, or the task was skipped."""

    place: str
    image: object
    labels: tuple[str, ...] | None
    is_ground_truth: bool = False


@dataclasses.dataclass(frozen=True)
class LabelStudioOptions:
    """How an export is read.

    Attributes:
        image: field of the photo; None: `image`, or the only field with a photo's path.
        controls: controls of the labeling interface whose labels are taken; empty: all.
        whole_path: whether names of a taxonomy are whole paths; else their last part.
        shares: of the photos in val and test where no split is given.
    """

    image: str | None = None
    controls: Collection[str] = ()
    whole_path: bool = False
    shares: tuple[float, float] = (0.1, 0.1)


def read_label_studio(
    path: pathlib.Path,
    split: str | None,
    options: LabelStudioOptions,
    paths: PhotoPaths,
    problems: Problems,
) -> Listing:
    """Reads an export; the labels of a photo are the choices, and the labels of its regions.

    Where annotators differ, labels that all of them gave are present, labels that some gave are
    unknown. An annotation marked as ground truth counts alone. Tasks without annotations, and
    skipped ones, are left out. Predictions are not taken.

    Args:
        path: a `.json` file (JSON or JSON-MIN) or a CSV file.
        split: of all photos; None: by path.
        options: which fields are read, and how.
        paths: finds the photos.
        problems: collects invalid tasks.

    Raises:
        UserError: the file cannot be read or has another form.
    """
    listing = Listing()
    reader = _Reader(path, options, problems, listing.notes)
    annotations = list(reader.annotations())
    by_photo: dict[str, list[_Annotation]] = {}
    written: dict[str, object] = {}
    for annotation in annotations:
        location, problem = _location(annotation.image, paths)
        if not problem and written.setdefault(location, annotation.image) != annotation.image:
            problem = f"{written[location]} and {annotation.image} are both {location}"
        if problem:
            problems.add(annotation.place, None, problem)
        else:
            by_photo.setdefault(location, []).append(annotation)
    read: list[tuple[str, str, list[set[str]], list[str]]] = []
    for location, given in by_photo.items():
        done = [a for a in given if a.labels is not None]
        done = [a for a in done if a.is_ground_truth] or done
        if done:
            sets = [{listing.classes.add(name, a.place) for name in a.labels or ()} for a in done]
            order = list(dict.fromkeys(clean_name(n) for a in done for n in a.labels or ()))
            read.append((location, done[0].place, sets, order))
    listing.classes.sort()
    names = listing.classes.names
    differ = 0
    for location, place, sets, order in read:
        agreed, named = set.intersection(*sets), set.union(*sets)
        absent = None
        if agreed != named:
            differ += 1
            absent = tuple(name for name in names if name not in named)
        present = tuple(name for name in order if name in agreed)
        own_split = split or paths.split(location, options.shares)
        listing.photos.append(ListedPhoto(location, own_split, present, absent, place))
    if differ:
        listing.notes.append(
            f"{path.name}: annotators differ on {differ} photos; labels that only some of them "
            "gave are unknown there"
        )
    if len(by_photo) > len(read):
        listing.notes.append(
            f"{path.name}: {len(by_photo) - len(read)} photos without an annotation, or skipped, "
            "are left out"
        )
    if not read and not problems.count:
        problems.add(path.name, None, "has no annotated photo")
    return listing


class _Reader:
    """Yields the annotations of an export of any of the three forms."""

    def __init__(
        self,
        path: pathlib.Path,
        options: LabelStudioOptions,
        problems: Problems,
        notes: list[str],
    ):
        self._path = path
        self._options = options
        self._problems = problems
        self._notes = notes
        self._taken: collections.Counter[str] = collections.Counter()
        self._seen: set[str] = set()

    def annotations(self) -> Iterator[_Annotation]:
        if self._path.suffix.lower() == ".json":
            yield from self._of_tasks(self._tasks())
        else:
            table = open_table(self._path, (), self._problems)
            rows = [(f"{self._path.name} row {row}", cells) for row, cells in table.rows]
            yield from self._of_flat(rows)
        unknown = [name for name in self._options.controls if name not in self._taken]
        self._seen |= set(self._taken)
        if unknown and not self._problems.count:
            raise UserError(
                f"{self._path}: --controls: no labels of {unknown[0]!r}"
                f"{did_you_mean(unknown[0], self._seen)}"
            )
        if self._taken:
            counts = [f"{name} ({count})" for name, count in self._taken.items()]
            self._notes.append(f"{self._path.name}: labels of the controls {some_of(counts, 10)}")

    def _tasks(self) -> list:
        try:
            content = json.loads(self._path.read_bytes())
        except OSError as error:
            raise UserError(f"{self._path}: {error.strerror}; give {FORM}") from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self._path}: is not JSON: {error}") from None
        tasks = [content] if isinstance(content, dict) and "data" in content else content
        if not isinstance(tasks, list):
            raise UserError(f"{self._path}: is no list of tasks; give {FORM}")
        return tasks

    def _of_tasks(self, tasks: list) -> Iterator[_Annotation]:
        flat = []
        predicted = 0
        for index, task in enumerate(tasks):
            place = f"{self._path.name} [{index}]"
            if not isinstance(task, dict):
                self._problems.add(place, None, f"expected a task, got {reprlib.repr(task)}")
            elif isinstance(task.get("data"), dict):
                predicted += bool(task.get("predictions"))
                yield from self._of_whole(task, place)
            else:
                flat.append((place, task))
        if flat:
            yield from self._of_flat(flat)
        if predicted:
            self._notes.append(f"{self._path.name}: predictions of {predicted} tasks are not taken")

    def _of_whole(self, task: Mapping, place: str) -> Iterator[_Annotation]:
        field = self._image_field(task["data"], place)
        if field is None:
            return
        image = task["data"][field]
        given = task.get("annotations", task.get("completions"))
        done = []
        for annotation in given if isinstance(given, list) else []:
            results = annotation.get("result") if isinstance(annotation, dict) else None
            if not isinstance(results, list) or annotation.get("was_cancelled"):
                continue
            labels: list[str] = []
            for result in results:
                if not isinstance(result, dict):
                    continue
                control = str(result.get("from_name"))
                names = names_of_value(result.get("value"), self._options.whole_path)
                self._seen |= {control} if names else set()
                if names and self._is_wanted(control):
                    labels += names
                    self._taken[control] += len(names)
            is_truth = bool(annotation.get("ground_truth"))
            done.append(_Annotation(place, image, tuple(labels), is_truth))
        yield from done or [_Annotation(place, image, None)]

    def _of_flat(self, tasks: Sequence[tuple[str, Mapping]]) -> Iterator[_Annotation]:
        """Yields annotations of JSON-MIN and CSV, where labels are fields beside the data."""
        if not tasks:
            return
        field = self._image_field(tasks[0][1], tasks[0][0])
        if field is None:
            return
        controls, others = self._controls([task for _, task in tasks], field)
        if others:
            self._notes.append(
                f"{self._path.name}: not taken: the fields {some_of(map(repr, others), 10)} "
                "(--controls names those that hold labels)"
            )
        if not controls:
            raise UserError(
                f"{self._path}: which fields hold labels? Give --controls with one or several of "
                f"{', '.join(others) or 'them'}"
            )
        for place, task in tasks:
            labels: list[str] = []
            for control in controls:
                names, problem = self._names(task.get(control))
                if problem:
                    self._problems.add(place, None, f"{control}: {problem}")
                self._taken[control] += len(names)
                labels += names
            is_done = labels or task.get("annotation_id") or task.get("annotator")
            is_done = is_done or not {"annotation_id", "annotator"} & task.keys()
            yield _Annotation(place, task.get(field), tuple(labels) if is_done else None)

    def _controls(self, tasks: Iterable[Mapping], image: str) -> tuple[list[str], list[str]]:
        """Returns the fields with labels, and the other fields of the tasks."""
        fields: dict[str, bool] = {}
        for task in tasks:
            keys = list(task)
            for key in keys:
                value = _read_cell(task[key])
                is_label = names_of_value(value) is not None or (
                    isinstance(value, list) and any(names_of_value(one) for one in value)
                )
                fields[key] = fields.get(key, False) or is_label
            if "id" in keys and "annotator" in keys:
                # Label Studio writes the data, the id, the labels, and who gave them.
                between = keys[keys.index("id") + 1 : keys.index("annotator")]
                fields |= dict.fromkeys(between, True)
        wanted = self._options.controls
        controls = [
            key
            for key, is_label in fields.items()
            if key != image
            and key not in _ABOUT
            and (key in wanted if wanted else is_label or key.lower() in _USUAL_CONTROLS)
        ]
        left = [k for k in fields if k not in controls and k not in _ABOUT and k != image]
        return controls, left

    def _names(self, cell: object) -> tuple[list[str], str | None]:
        value = _read_cell(cell)
        if value is None or value == "" or value == []:
            return [], None
        if isinstance(value, str):
            return [value], None
        names: list[str] = []
        for one in value if isinstance(value, list) else [value]:
            own = [one] if isinstance(one, str) else names_of_value(one, self._options.whole_path)
            if own is None:
                return [], f"{reprlib.repr(one)} has no labels"
            names += own
        return names, None

    def _is_wanted(self, control: str) -> bool:
        return not self._options.controls or control in self._options.controls

    def _image_field(self, data: Mapping, place: str) -> str | None:
        """Returns the field of the photo; adds a problem if that is not clear."""
        if self._options.image is not None:
            if self._options.image in data:
                return self._options.image
            known = did_you_mean(self._options.image, data)
            self._problems.add(place, None, f"no field {self._options.image!r}{known}")
            return None
        found = [key for key, value in data.items() if _is_photo(value)]
        if "image" in data or len(found) == 1:
            return "image" if "image" in data else found[0]
        self._problems.add(
            place,
            None,
            f"which field is the photo? Give --image-column with one of "
            f"{', '.join(found or map(str, data))}",
        )
        return None


def _read_cell(cell: object) -> object:
    """Returns the value of a CSV cell that holds JSON; other values as they are."""
    if isinstance(cell, str) and cell.strip().startswith(("{", "[")):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            return cell
    return cell.strip() if isinstance(cell, str) else cell


def _is_photo(value: object) -> bool:
    return isinstance(value, str) and bool(_PHOTO.search(value.partition("?")[0]) or _local(value))


def _local(image: str) -> str | None:
    """Returns the path of a photo of Label Studio's local storage, or None."""
    parts = urllib.parse.urlsplit(image)
    if parts.path.rstrip("/").endswith("/data/local-files"):
        return (urllib.parse.parse_qs(parts.query).get("d") or [""])[0]
    return None


def _location(image: object, paths: PhotoPaths) -> tuple[str, str | None]:
    """Returns the location of a task's photo, and what is wrong with it or None."""
    if not isinstance(image, str):
        return "", f"the photo {reprlib.repr(image)} is not a string"
    local = _local(image)
    if local is not None:
        return paths.find(local)
    location, problem = paths.find(image)
    _, mark, upload = image.partition("/data/upload/")
    if not mark or is_url(image) or problem or os.path.lexists(location):
        return location, problem
    upload = urllib.parse.unquote(upload)
    choices = [paths.find(part) for part in (upload, f"upload/{upload}", upload.rpartition("/")[2])]
    return next((found for found in choices if os.path.lexists(found[0])), choices[0])
