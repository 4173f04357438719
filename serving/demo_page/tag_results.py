"""The results in the view Tag, and the contents of its outputs."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping, Sequence

import gradio as gr

from biam_tf.errors import UserError
from serving.demo_page.downloads import as_csv, as_json, command_line, python_code, rows
from serving.demo_page.evidence import draw_evidence
from serving.demo_page.html_parts import (
    empty_panel,
    evidence_panel,
    message,
    number_of,
    ranked_bars,
    render,
)
from serving.demo_page.photo_files import read_picture
from serving.demo_page.tagging import TaggedPhoto, cuts_of, verdicts_of

NO_PHOTO = "The photo and where each tag was found will be here."
NO_BARS = "Tags will be here, best first."
STALE = "The classes have changed. Press Tag for their results."
_SIDE = 720


@dataclasses.dataclass(frozen=True, eq=False)
class TagResults:
    """The tagged photos of a browser tab, and which of them is shown.

    Attributes:
        tagged: the photos in order.
        names: the classes that they were tagged with.
        model: folder of the version that they were tagged by.
        photo_index: index of the photo that is shown.
        class_index: index of the class whose evidence is shown; None for the best one's.
        stale: whether the classes have changed since; then nothing is shown.
    """

    tagged: tuple[TaggedPhoto, ...] = ()
    names: tuple[str, ...] = ()
    model: pathlib.Path | None = None
    photo_index: int = 0
    class_index: int | None = None
    stale: bool = False

    @property
    def current(self) -> tuple[TaggedPhoto, ...]:
        """The photos whose results are shown: none if they are stale."""
        return () if self.stale else self.tagged

    @property
    def shown(self) -> TaggedPhoto | None:
        """The photo that is shown; None without photos, and if its results are stale."""
        return self.current[self.photo_index] if self.current else None

    def reusable(
        self, names: tuple[str, ...], model: pathlib.Path
    ) -> Mapping[pathlib.Path, TaggedPhoto]:
        """Returns the photos by path, if they were tagged with these classes by this model."""
        if self.names != names or self.model != model:
            return {}
        return {photo.photo.path: photo for photo in self.tagged}

    def replaced_by(
        self, tagged: Sequence[TaggedPhoto], names: tuple[str, ...], model: pathlib.Path
    ) -> "TagResults":
        """Returns new results that show the same photo as these, if it is among them."""
        photo_index, class_index = 0, None
        before = self.tagged[self.photo_index].photo.path if self.tagged else None
        for index, each in enumerate(tagged):
            if each.photo.path == before:
                photo_index = index
                class_index = self.class_index if names == self.names else None
        return TagResults(tuple(tagged), names, model, photo_index, class_index)


@dataclasses.dataclass(frozen=True)
class Display:
    """How results are shown.

    Attributes:
        top: number of tags.
        level: as for `serving.demo_page.tagging.cuts_of`.
        raw: whether scores are shown next to probabilities.
    """

    top: int
    level: float | None = None
    raw: bool = False


def show_strip(results: TagResults) -> str:
    """Returns buttons to choose one of several photos."""
    names = [photo.photo.name for photo in results.current]
    return render("photo_strip", names=names, chosen=results.photo_index) if len(names) > 1 else ""


def show_panel(results: TagResults, level: float | None) -> str:
    """Returns the shown photo, with the evidence of the chosen class if that is given as a tag."""
    photo = results.shown
    if photo is None:
        return empty_panel(STALE if results.stale else NO_PHOTO)
    try:
        picture = read_picture(photo.photo.path, _SIDE, photo.orientation)
    except UserError as error:
        return empty_panel(str(error))
    c = _class_index(results, photo)
    file, name = photo.photo.name, photo.names[c]
    caption, given = f"{name}: {number_of(photo, c)}", verdicts_of(photo, level)[c]
    if given is False:
        caption += ", no. Below its threshold: no regions are shown."
        return evidence_panel(picture, f"The photo {file}", caption)
    caption += ", yes" if given else ""
    if photo.response_maps is None:
        caption += ". This model cannot show where"
        return evidence_panel(picture, f"The photo {file}", caption)
    drawn = draw_evidence(picture, photo.response_maps[:, :, c], photo.pooled)
    if photo.pooled is not None:
        caption += f". Outlined: the {photo.pooled} regions that decide"
    return evidence_panel(drawn, f"Where {name} was found in {file}", caption)


def show_bars(results: TagResults, display: Display) -> str:
    """Returns the ranked tags of the shown photo."""
    photo = results.shown
    if photo is None:
        return "" if results.stale else message(NO_BARS)
    chosen = _class_index(results, photo)
    return ranked_bars(photo, display.top, display.level, chosen, raw=display.raw)


def show_files(results: TagResults, level: float | None, folder: pathlib.Path) -> tuple:
    """Writes the tags of all photos into `folder`; returns updates of the CSV and JSON buttons."""
    if not results.current:
        return (gr.update(value=None, interactive=False),) * 2
    table = [rows(photo, photo.scores >= cuts_of(photo, level)) for photo in results.current]
    updates = []
    for name, text in (("tags.csv", as_csv(table)), ("tags.json", as_json(table))):
        contents = text.encode()
        # All browser tabs share the folder, and a file is downloaded under its own name.
        path = folder / hashlib.sha256(contents).hexdigest()[:16] / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(contents)
        updates.append(gr.update(value=str(path), interactive=True))
    return tuple(updates)


def show_code(results: TagResults, server: str, top: int) -> tuple[str, str]:
    """Returns the Python code and the command line that send the same requests."""
    if not results.current:
        return "", ""
    photos = [photo.photo.name for photo in results.tagged]
    maps = results.tagged[0].response_maps is not None
    return (
        python_code(server, photos, results.names, maps),
        command_line(server, photos, results.names, top, maps),
    )


def _class_index(results: TagResults, photo: TaggedPhoto) -> int:
    return int(photo.ranked(1)[0]) if results.class_index is None else results.class_index
