"""The view Tag: photos and classes in, ranked tags and their evidence out."""

import dataclasses
import pathlib
import tempfile

import gradio as gr

from biam_tf.errors import UserError
from serving.demo_page import choices
from serving.demo_page.classes_input import ClassesInput, add_classes_input, known_classes
from serving.demo_page.downloads import as_csv, as_json, rows
from serving.demo_page.evidence import draw_evidence
from serving.demo_page.evidence_panel import draw_panel, empty_panel
from serving.demo_page.html_parts import add_html
from serving.demo_page.markup import message, render
from serving.demo_page.photo_files import read_picture
from serving.demo_page.photos_input import PhotosInput, add_photos_input, photo_files
from serving.demo_page.ranked_bars import cuts_of, draw_bars
from serving.demo_page.recipes import command_line, python_code
from serving.demo_page.served_model import ServedModel
from serving.demo_page.tagging import ServerGone, TaggedPhoto, tag_photo

_SIDE = 720
_DEFAULT_TOP = 8
_EMPTY = "The photo and where each tag was found will be here."
_NO_BARS = "Tags will be here, best first."

_STRIP = """
<div class="strip" role="group" aria-label="Photos">
{% for name in names %}
<button type="button" data-choice="{{ loop.index0 }}"
 aria-pressed="{{ 'true' if loop.index0 == chosen else 'false' }}">{{ name }}</button>
{% endfor %}
</div>
"""

_LEGEND = """
<div class="legend">
<span><span class="swatch seen"></span>seen in training</span>
<span><span class="swatch unseen"></span>unseen: no training photo</span>
<span><span class="tick">✓</span> reaches its threshold <span class="swatch line"></span></span>
</div>
"""


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """What a tab has been told so far.

    Attributes:
        tagged: the photos, in order.
        names: the classes they were tagged with.
        photo: place of the photo that is shown.
        tag: place of the class whose evidence is shown; None: the best one's.
    """

    tagged: tuple[TaggedPhoto, ...] = ()
    names: tuple[str, ...] = ()
    photo: int = 0
    tag: int | None = None

    @property
    def shown(self) -> TaggedPhoto | None:
        """The photo that is shown."""
        return self.tagged[min(self.photo, len(self.tagged) - 1)] if self.tagged else None

    @property
    def shown_tag(self) -> int | None:
        """The place of the class whose evidence is shown."""
        if self.shown is None:
            return None
        return int(self.shown.ranked(1)[0]) if self.tag is None else self.tag


def add_tag_view(served: ServedModel) -> PhotosInput:
    """Adds the view to the page; returns its photos, which other views start from."""
    model = served.model
    answers = gr.State(Answers(), time_to_live=3600)
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=4, min_width=300):
            photos = add_photos_input("tag")
            classes = add_classes_input("tag", "Classes: commas or lines", lambda _: served.model)
            with gr.Row(elem_classes="buttons"):
                go = gr.Button("Tag", variant="primary", elem_id="tag-go")
                fill = gr.Button(
                    f"Start from the run's {len(model.vocabulary)} classes", elem_id="tag-fill"
                )
            with gr.Accordion("How many, and from which score", open=True):
                top = gr.Slider(1, 30, _DEFAULT_TOP, step=1, label="Tags shown", elem_id="tag-top")
                calibrated = gr.Checkbox(
                    model.thresholds is not None,
                    label="Thresholds that the run has calibrated, one a class",
                    visible=model.thresholds is not None,
                    elem_id="tag-calibrated",
                )
                cut = gr.Slider(
                    -20,
                    20,
                    0.0,
                    step=0.05,
                    label="One threshold for all: the least score",
                    interactive=model.thresholds is None,
                    elem_id="tag-cut",
                )
        with gr.Column(scale=5, min_width=320):
            status = add_html(elem_id="tag-status", elem_classes="problems")
            strip = add_html(
                elem_id="tag-strip", elem_classes="strip-box", js_on_load=choices.ON_LOAD
            )
            panel = add_html(empty_panel(_EMPTY), elem_id="tag-evidence")
        with gr.Column(scale=4, min_width=300):
            add_html(render(_LEGEND))
            bars = add_html(message(_NO_BARS), elem_id="tag-bars", js_on_load=choices.ON_LOAD)
            with gr.Row(elem_classes="buttons"):
                csv_file = gr.DownloadButton("CSV", size="sm", interactive=False, elem_id="tag-csv")
                json_file = gr.DownloadButton(
                    "JSON", size="sm", interactive=False, elem_id="tag-json"
                )
            with gr.Accordion("The same in Python and on the command line", open=False):
                code = gr.Code(language="python", label="Python", elem_id="tag-code")
                command = gr.Code(language="shell", label="Command line", elem_id="tag-command")

    settings = [top, calibrated, cut]
    shown = [strip, panel, bars, csv_file, json_file]

    def tag(gallery, text, before, top, calibrated, cut):
        yield from _tag(served, gallery, text, before, top, _chosen_cut(calibrated, cut))

    tagging = {
        "fn": tag,
        "inputs": [photos.gallery, classes.text, answers, *settings],
        "outputs": [answers, status, *shown, code, command],
        "show_progress": "hidden",
        "trigger_mode": "always_last",
    }
    corrected, came = classes.corrected.then, photos.came.then
    for event in (go.click, classes.text.submit, photos.went, came, corrected):
        event(**tagging)

    def change_settings(answers, top, calibrated, cut):
        chosen = _chosen_cut(calibrated, cut)
        return gr.update(interactive=not calibrated), *_show_bars(answers, top, chosen)

    gr.on(
        [top.input, calibrated.input, cut.input],
        change_settings,
        [answers, *settings],
        [cut, bars, csv_file, json_file],
        show_progress="hidden",
        trigger_mode="always_last",
    )

    def choose_tag(event: gr.EventData, answers):
        changed = dataclasses.replace(answers, tag=int(event.choice))
        return changed, _draw_panel(changed)

    bars.click(choose_tag, answers, [answers, panel], show_progress="hidden")

    def choose_photo(event: gr.EventData, answers, top, calibrated, cut):
        changed = dataclasses.replace(answers, photo=int(event.choice), tag=None)
        shown = _show_bars(changed, top, _chosen_cut(calibrated, cut))
        return changed, _draw_panel(changed), shown[0]

    strip.click(choose_photo, [answers, *settings], [answers, panel, bars], show_progress="hidden")
    _add_filling(fill, served, classes)
    return photos


def _add_filling(fill: gr.Button, served: ServedModel, classes: ClassesInput) -> None:
    from serving.demo_page.class_chips import draw_chips
    from serving.demo_page.class_list import write_classes

    def start_from_vocabulary():
        model = served.model
        names = model.vocabulary.names
        return write_classes(names), draw_chips(model.classes, names, model.vocabulary.groups)

    fill.click(start_from_vocabulary, None, [classes.text, classes.chips], show_progress="hidden")


def _chosen_cut(calibrated: bool, cut: float) -> float | None:
    return None if calibrated else cut


def _tag(served: ServedModel, gallery, text: str, before: Answers, top: int, cut: float | None):
    """Tags photo by photo, and shows each answer as it comes."""
    keep = (gr.skip(),) * 9

    def said(text: str, kind: str):
        return gr.skip(), message(text, kind), *keep[2:]

    try:
        files = photo_files(gallery)
        names = known_classes(served.model, text)
    except UserError as error:
        yield said(str(error), "error")
        return
    if not files:
        yield Answers(), "", *_show(Answers(), top, cut), "", ""
        return
    known = {each.photo.path: each for each in before.tagged if before.names == tuple(names)}
    tagged, problems = [], []
    for photo in files:
        if photo.path not in known:
            yield said(f"{photo.name} …", "quiet")
        try:
            tagged.append(
                known.get(photo.path) or tag_photo(served.client, served.model, photo, names)
            )
        except UserError as error:
            problems.append(str(error))
            continue
        except ServerGone as error:
            yield said(str(error), "error")
            return
        if len(tagged) == 1 and len(files) > 1:
            first = Answers(tuple(tagged), tuple(names))
            yield first, gr.skip(), *_show(first, top, cut), gr.skip(), gr.skip()
    answers = Answers(tuple(tagged), tuple(names), _same_photo(before, tagged))
    server, shown = served.address, [photo.name for photo in files]
    typed = names if text.strip() else list(names)
    yield (
        answers,
        message("\n".join(problems), "error") if problems else "",
        *_show(answers, top, cut),
        python_code(server, shown, typed),
        command_line(server, shown, typed, top),
    )


def _same_photo(before: Answers, tagged: list[TaggedPhoto]) -> int:
    """The place of the photo that was shown before, or of the last one that came."""
    paths = [photo.photo.path for photo in tagged]
    if before.shown is not None and before.shown.photo.path in paths:
        return paths.index(before.shown.photo.path)
    return 0


def _show(answers: Answers, top: int, cut: float | None) -> tuple:
    names = [photo.photo.name for photo in answers.tagged]
    strip = render(_STRIP, names=names, chosen=answers.photo) if len(names) > 1 else ""
    return strip, _draw_panel(answers), *_show_bars(answers, top, cut)


def _show_bars(answers: Answers, top: int, cut: float | None) -> tuple:
    if answers.shown is None:
        nothing = gr.update(value=None, interactive=False)
        return message(_NO_BARS), nothing, nothing
    bars = draw_bars(answers.shown, top, cut, answers.shown_tag)
    return bars, *_write_files(answers, cut)


def _write_files(answers: Answers, cut: float | None) -> tuple:
    table = [rows(photo, photo.scores >= cuts_of(photo, cut)) for photo in answers.tagged]
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tags-"))
    written = []
    for name, text in (("tags.csv", as_csv(table)), ("tags.json", as_json(table))):
        path = folder / name
        path.write_text(text, encoding="utf-8", newline="")
        written.append(gr.update(value=str(path), interactive=True))
    return tuple(written)


def _draw_panel(answers: Answers) -> str:
    photo, tag = answers.shown, answers.shown_tag
    if photo is None:
        return empty_panel(_EMPTY)
    try:
        picture = read_picture(photo.photo.path, _SIDE)
    except UserError as error:
        return empty_panel(str(error))
    name = photo.names[tag]
    if photo.response_maps is None:
        return draw_panel(picture, photo.photo.name, f"{photo.photo.name}: no response maps")
    drawn = draw_evidence(picture, photo.response_maps[:, :, tag], photo.pooled)
    return draw_panel(
        drawn,
        f"Where {name} was found in {photo.photo.name}",
        _caption(photo, tag),
    )


def _caption(photo: TaggedPhoto, tag: int) -> str:
    decided = ""
    if photo.pooled is not None:
        decided = f"; outlined: the {photo.pooled} regions whose mean is its score"
    return f"{photo.names[tag]}: {photo.scores[tag]:.2f}{decided}"
