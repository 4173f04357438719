"""What a tab has been told of its photos, and how that is shown."""

import dataclasses
import hashlib
import pathlib

import gradio as gr

from biam_tf.errors import UserError
from serving.demo_page.downloads import as_csv, as_json, rows
from serving.demo_page.evidence import draw_evidence
from serving.demo_page.evidence_panel import draw_panel, empty_panel
from serving.demo_page.markup import message, render
from serving.demo_page.photo_files import read_picture
from serving.demo_page.ranked_bars import cuts_of, draw_bars
from serving.demo_page.recipes import command_line, python_code
from serving.demo_page.tagging import TaggedPhoto

NO_PHOTO = "The photo and where each tag was found will be here."
NO_BARS = "Tags will be here, best first."
_SIDE = 720

_STRIP = """
<div class="strip" role="group" aria-label="Photos">
{% for name in names %}
<button type="button" data-choice="{{ loop.index0 }}"
 aria-pressed="{{ 'true' if loop.index0 == chosen else 'false' }}">{{ name }}</button>
{% endfor %}
</div>
"""


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """What a tab has been told so far.

    Attributes:
        tagged: the photos, in order.
        names: the classes they were tagged with.
        model: folder of the version that they were tagged by.
        photo: place of the photo that is shown.
        tag: place of the class whose evidence is shown; None: the best one's.
    """

    tagged: tuple[TaggedPhoto, ...] = ()
    names: tuple[str, ...] = ()
    model: pathlib.Path | None = None
    photo: int = 0
    tag: int | None = None

    @property
    def shown(self) -> TaggedPhoto | None:
        """The photo that is shown."""
        return self.tagged[self.photo] if self.tagged else None

    @property
    def shown_tag(self) -> int | None:
        """The place of the class whose evidence is shown."""
        if self.shown is None:
            return None
        return int(self.shown.ranked(1)[0]) if self.tag is None else self.tag

    def still_valid(self, names: tuple[str, ...], model: pathlib.Path) -> dict:
        """Returns the photos by path, if they were tagged with these classes by this model."""
        if self.names != names or self.model != model:
            return {}
        return {photo.photo.path: photo for photo in self.tagged}

    def followed_by(
        self, tagged: list[TaggedPhoto], names: tuple[str, ...], model: pathlib.Path
    ) -> "Answers":
        """Returns new answers that show the photo that is shown here, if it is among them."""
        photo, tag = 0, None
        for place, each in enumerate(tagged):
            if self.shown is not None and each.photo.path == self.shown.photo.path:
                photo, tag = place, self.tag if names == self.names else None
        return Answers(tuple(tagged), names, model, photo, tag)


def show_strip(answers: Answers) -> str:
    """Returns buttons to choose one of several photos by."""
    names = [photo.photo.name for photo in answers.tagged]
    return render(_STRIP, names=names, chosen=answers.photo) if len(names) > 1 else ""


def show_panel(answers: Answers) -> str:
    """Returns the photo with the evidence of its chosen tag."""
    photo, tag = answers.shown, answers.shown_tag
    if photo is None:
        return empty_panel(NO_PHOTO)
    try:
        picture = read_picture(photo.photo.path, _SIDE)
    except UserError as error:
        return empty_panel(str(error))
    file, name = photo.photo.name, photo.names[tag]
    if photo.response_maps is None:
        return draw_panel(picture, file, f"{file}: this model does not tell where")
    drawn = draw_evidence(picture, photo.response_maps[:, :, tag], photo.pooled)
    caption = f"{name}: {photo.scores[tag]:.2f}"
    if photo.pooled is not None:
        caption += f". Outlined: the {photo.pooled} regions whose mean is this score"
    return draw_panel(drawn, f"Where {name} was found in {file}", caption)


def show_bars(answers: Answers, top: int, level: float | None) -> str:
    """Returns the ranked tags of the photo that is shown."""
    if answers.shown is None:
        return message(NO_BARS)
    return draw_bars(answers.shown, top, level, answers.shown_tag)


def show_files(answers: Answers, level: float | None, folder: pathlib.Path) -> tuple:
    """Writes all photos' tags into `folder`; returns updates of the buttons for CSV and JSON."""
    if not answers.tagged:
        return (gr.update(value=None, interactive=False),) * 2
    table = [rows(photo, photo.scores >= cuts_of(photo, level)) for photo in answers.tagged]
    updates = []
    for name, text in (("tags.csv", as_csv(table)), ("tags.json", as_json(table))):
        contents = text.encode()
        # Tabs share the folder, and each file keeps the name that it is saved under.
        path = folder / hashlib.sha256(contents).hexdigest()[:16] / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(contents)
        updates.append(gr.update(value=str(path), interactive=True))
    return tuple(updates)


def show_recipes(answers: Answers, server: str, top: int) -> tuple[str, str]:
    """Returns Python and a command line that ask for the same."""
    if not answers.tagged:
        return "", ""
    photos = [photo.photo.name for photo in answers.tagged]
    maps = answers.tagged[0].response_maps is not None
    return (
        python_code(server, photos, answers.names, maps),
        command_line(server, photos, answers.names, top, maps),
    )
