"""The view Tag: photos and classes in, ranked tags and their evidence out."""

import dataclasses
import pathlib

import gradio as gr

from biam_tf.errors import UserError
from serving.demo_page import choices
from serving.demo_page.answers import (
    NO_BARS,
    NO_PHOTO,
    Answers,
    show_bars,
    show_files,
    show_panel,
    show_recipes,
    show_strip,
)
from serving.demo_page.class_chips import draw_chips
from serving.demo_page.class_list import write_classes
from serving.demo_page.classes_input import ClassesInput, add_classes_input, known_classes
from serving.demo_page.evidence_panel import empty_panel
from serving.demo_page.html_parts import add_html
from serving.demo_page.markup import message, render
from serving.demo_page.photos_input import PhotosInput, add_photos_input, photo_files
from serving.demo_page.served_model import ServedModel
from serving.demo_page.tagging import ServerGone, tag_photo

_DEFAULT_TOP = 8

_LEGEND = """
<div class="legend">
<span><span class="swatch seen"></span>seen in training</span>
<span><span class="swatch unseen"></span>unseen: no training photo</span>
<span><span class="tick">✓</span> reaches its threshold <span class="swatch line"></span></span>
</div>
"""


@dataclasses.dataclass(frozen=True)
class _Outputs:
    """Where answers are shown."""

    status: gr.HTML
    strip: gr.HTML
    panel: gr.HTML
    bars: gr.HTML
    csv_file: gr.DownloadButton
    json_file: gr.DownloadButton
    code: gr.Code
    command: gr.Code


@dataclasses.dataclass(frozen=True)
class _Settings:
    """How many tags are shown, and from which score they are given."""

    top: gr.Slider
    calibrated: gr.Checkbox
    level: gr.Slider

    def all(self) -> list[gr.Component]:
        return [self.top, self.calibrated, self.level]


def add_tag_view(served: ServedModel, downloads: pathlib.Path) -> PhotosInput:
    """Adds the view to the page; returns its photos, which other views start from.

    Args:
        served: the model.
        downloads: folder for files that are downloaded.
    """
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=4, min_width=300):
            photos = add_photos_input("tag")
            classes = add_classes_input("tag", "Classes: commas or lines", lambda _: served.model)
            with gr.Row(elem_classes="buttons"):
                go = gr.Button("Tag", variant="primary", scale=1, min_width=90, elem_id="tag-go")
                own = len(served.model.vocabulary)
                fill = gr.Button(f"Fill in the run's {own} classes", scale=2, elem_id="tag-fill")
            settings = _add_settings(served.model.thresholds is not None)
        with gr.Column(scale=5, min_width=320):
            status = add_html(elem_id="tag-status", elem_classes="problems")
            strip = add_html(elem_id="tag-strip", js_on_load=choices.ON_LOAD)
            panel = add_html(empty_panel(NO_PHOTO), elem_id="tag-evidence")
        with gr.Column(scale=4, min_width=300):
            add_html(render(_LEGEND))
            bars = add_html(message(NO_BARS), elem_id="tag-bars", js_on_load=choices.ON_LOAD)
            with gr.Row(elem_classes="buttons"):
                csv_file = gr.DownloadButton("CSV", size="sm", interactive=False, elem_id="tag-csv")
                json_file = gr.DownloadButton(
                    "JSON", size="sm", interactive=False, elem_id="tag-json"
                )
            with gr.Accordion("The same in Python, in a shell", open=False, elem_id="tag-recipes"):
                code = gr.Code(language="python", label="Python", elem_id="tag-code")
                command = gr.Code(language="shell", label="Command line", elem_id="tag-command")
    outputs = _Outputs(status, strip, panel, bars, csv_file, json_file, code, command)
    answers = gr.State(Answers())
    shown = _Shown(served, downloads)
    _add_tagging(shown, answers, photos, classes, go, settings, outputs)
    _add_choosing(shown, answers, settings, outputs)
    _add_filling(served, fill, classes)
    return photos


def _add_settings(calibrated: bool) -> _Settings:
    with gr.Accordion("How many tags, and from which score", open=False, elem_id="tag-settings"):
        return _Settings(
            top=gr.Slider(1, 30, _DEFAULT_TOP, step=1, label="Tags shown", elem_id="tag-top"),
            calibrated=gr.Checkbox(
                calibrated,
                label="The run's calibrated thresholds, one a class",
                visible=calibrated,
                elem_id="tag-calibrated",
            ),
            level=_add_level(calibrated),
        )


def _add_level(calibrated: bool) -> gr.Slider:
    """One threshold for all classes: a probability where there are any, else a score.

    Its range is fixed: Gradio refuses a value that was sent before the range moved.
    """
    if calibrated:
        label, (low, high, value, step) = "probability, per cent", (1, 99, 50, 1)
    else:
        label, (low, high, value, step) = "score", (-50, 50, -50, 0.1)
    return gr.Slider(
        low,
        high,
        value,
        step=step,
        label=f"One threshold for all classes: {label}",
        interactive=not calibrated,
        elem_id="tag-level",
    )


@dataclasses.dataclass(frozen=True)
class _Shown:
    """Makes of answers what the outputs of the view show."""

    served: ServedModel
    downloads: pathlib.Path

    def all(self, answers: Answers, status: str, top: int, level: float | None) -> tuple:
        """Everything, in the order of the outputs of tagging."""
        return (
            answers,
            status,
            show_strip(answers),
            show_panel(answers),
            show_bars(answers, top, level),
            *show_files(answers, level, self.downloads),
            *show_recipes(answers, self.served.address, top),
        )


def _add_tagging(shown, answers, photos: PhotosInput, classes: ClassesInput, go, settings, out):
    def tag(gallery, text, before, top, calibrated, level):
        yield from _tag(shown, gallery, text, before, top, _chosen_level(shown, calibrated, level))

    tagging = {
        "fn": tag,
        "inputs": [photos.gallery, classes.text, answers, *settings.all()],
        "outputs": [
            *(answers, out.status, out.strip, out.panel, out.bars, out.csv_file, out.json_file),
            *(out.code, out.command),
        ],
        "show_progress": "hidden",
        "trigger_mode": "always_last",
    }
    came, corrected = photos.came.then, classes.corrected.then
    for event in (go.click, classes.text.submit, photos.went, came, corrected):
        event(**tagging)


def _add_choosing(shown: _Shown, answers: gr.State, settings: _Settings, out: _Outputs):
    def change_settings(answers, top, calibrated, level):
        chosen = _chosen_level(shown, calibrated, level)
        return (
            gr.update(interactive=not calibrated),
            show_bars(answers, top, chosen),
            *show_files(answers, chosen, shown.downloads),
            show_recipes(answers, shown.served.address, top)[1],
        )

    gr.on(
        [settings.top.input, settings.calibrated.input, settings.level.input],
        change_settings,
        [answers, *settings.all()],
        [settings.level, out.bars, out.csv_file, out.json_file, out.command],
        show_progress="hidden",
        trigger_mode="always_last",
    )

    def choose_tag(event: gr.EventData, answers):
        changed = dataclasses.replace(answers, tag=int(event.choice))
        return changed, show_panel(changed)

    out.bars.click(choose_tag, answers, [answers, out.panel], show_progress="hidden")

    def choose_photo(event: gr.EventData, answers, top, calibrated, level):
        changed = dataclasses.replace(answers, photo=int(event.choice), tag=None)
        bars = show_bars(changed, top, _chosen_level(shown, calibrated, level))
        return changed, show_panel(changed), bars

    out.strip.click(
        choose_photo,
        [answers, *settings.all()],
        [answers, out.panel, out.bars],
        show_progress="hidden",
    )


def _add_filling(served: ServedModel, fill: gr.Button, classes: ClassesInput) -> None:
    def start_from_vocabulary():
        known = served.model.vocabulary
        chips = draw_chips(served.model.classes, known.names, known.groups)
        return write_classes(known.names), chips

    fill.click(start_from_vocabulary, None, [classes.text, classes.chips], show_progress="hidden")


def _chosen_level(shown: _Shown, calibrated: bool, level: float) -> float | None:
    """What `serving.demo_page.ranked_bars.cuts_of` takes."""
    if calibrated:
        return None
    return level if shown.served.model.thresholds is None else level / 100


def _tag(shown: _Shown, gallery, text: str, before: Answers, top: int, level: float | None):
    """Tags photo by photo; the first answer is shown at once, the others together."""
    served = shown.served
    try:
        files, model = photo_files(gallery), served.model
        names = tuple(known_classes(model, text))
    except UserError as error:
        yield _said(str(error), "error")
        return
    known, tagged, problems = before.still_valid(names, model.path), [], []
    for photo in files:
        if photo.path not in known:
            yield _said(f"{photo.name} …")
        try:
            found = known.get(photo.path) or tag_photo(served.client, model, photo, names)
        except UserError as error:
            problems.append(str(error))
            continue
        except ServerGone as error:
            problems.append(str(error))
            break
        tagged.append(found)
        if len(tagged) == 1 and len(files) > 1 and before.shown is None:
            yield shown.all(before.followed_by(tagged, names, model.path), "", top, level)
    problem = message("\n".join(problems), "error") if problems else ""
    if problems and not tagged:
        yield gr.skip(), problem, *(gr.skip(),) * 7  # what was shown before stays
        return
    yield shown.all(before.followed_by(tagged, names, model.path), problem, top, level)


def _said(text: str, kind: str = "quiet") -> tuple:
    return gr.skip(), message(text, kind), *(gr.skip(),) * 7
