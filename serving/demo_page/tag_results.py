"""The results in the view Tag, and the contents of its outputs."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping, Sequence

import gradio as gr

from biam_tf.errors import UserError
from serving.demo_page.downloads import as_csv, as_json, command_line, python_code, rows
from serving.demo_page.evidence import draw_evidence
from serving.demo_page.html_parts import empty_panel, evidence_panel, message, ranked_bars, render
from serving.demo_page.photo_files import read_picture
from serving.demo_page.tagging import TaggedPhoto, cuts_of

NO_PHOTO = "The photo and where each tag was found will be here."
NO_BARS = "Tags will be here, best first."
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
    """

    tagged: tuple[TaggedPhoto, ...] = ()
    names: tuple[str, ...] = ()
    model: pathlib.Path | None = None
    photo_index: int = 0
    class_index: int | None = None

    @property
    def shown(self) -> TaggedPhoto | None:
        """The photo that is shown; None without photos."""
        return self.tagged[self.photo_index] if self.tagged else None

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
        for index, each in enumerate(tagged):
            if self.shown is not None and each.photo.path == self.shown.photo.path:
                photo_index = index
                class_index = self.class_index if names == self.names else None
        return TagResults(tuple(tagged), names, model, photo_index, class_index)


def show_strip(results: TagResults) -> str:
    """Returns buttons to choose one of several photos."""
    names = [photo.photo.name for photo in results.tagged]
    return render("photo_strip", names=names, chosen=results.photo_index) if len(names) > 1 else ""


def show_panel(results: TagResults) -> str:
    """Returns the shown photo with the evidence of the chosen class."""
    photo = results.shown
    if photo is None:
        return empty_panel(NO_PHOTO)
    try:
        picture = read_picture(photo.photo.path, _SIDE, photo.orientation)
    except UserError as error:
        return empty_panel(str(error))
    class_index = _class_index(results, photo)
    file, name = photo.photo.name, photo.names[class_index]
    if photo.response_maps is None:
        return evidence_panel(picture, file, f"{file}: this model has no response maps")
    drawn = draw_evidence(picture, photo.response_maps[:, :, class_index], photo.pooled)
    caption = f"{name}: {photo.scores[class_index]:.2f}"
    if photo.pooled is not None:
        caption += f". Outlined: the {photo.pooled} regions whose mean is this score"
    return evidence_panel(drawn, f"Where {name} was found in {file}", caption)


def show_bars(results: TagResults, top: int, level: float | None) -> str:
    """Returns the ranked tags of the shown photo."""
    photo = results.shown
    if photo is None:
        return message(NO_BARS)
    return ranked_bars(photo, top, level, _class_index(results, photo))


def show_files(results: TagResults, level: float | None, folder: pathlib.Path) -> tuple:
    """Writes the tags of all photos into `folder`; returns updates of the CSV and JSON buttons."""
    if not results.tagged:
        return (gr.update(value=None, interactive=False),) * 2
    table = [rows(photo, photo.scores >= cuts_of(photo, level)) for photo in results.tagged]
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
    if not results.tagged:
        return "", ""
    photos = [photo.photo.name for photo in results.tagged]
    maps = results.tagged[0].response_maps is not None
    return (
        python_code(server, photos, results.names, maps),
        command_line(server, photos, results.names, top, maps),
    )


def _class_index(results: TagResults, photo: TaggedPhoto) -> int:
    return int(photo.ranked(1)[0]) if results.class_index is None else results.class_index
