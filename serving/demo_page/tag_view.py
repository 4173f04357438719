"""The view Tag: photos and classes in, ranked tags and their evidence out."""

import dataclasses
import pathlib
from collections.abc import Iterator

import gradio as gr

from biam_tf.errors import UserError
from serving.demo_page.class_list import write_classes
from serving.demo_page.components import (
    ClassesInput,
    Listen,
    PhotosInput,
    add_classes_input,
    add_html,
    add_photos_input,
    known_classes,
    photo_files,
    script,
)
from serving.demo_page.html_parts import empty_panel, errors, message, render
from serving.demo_page.sample_pictures import draw_samples
from serving.demo_page.served_model import ExportedModel, ServedModel
from serving.demo_page.tag_results import (
    NO_BARS,
    NO_PHOTO,
    Display,
    TagResults,
    show_bars,
    show_code,
    show_files,
    show_panel,
    show_strip,
)
from serving.demo_page.tagging import ServerGone, tag_photo

_DEFAULT_TOP = 8
_LOWEST_SCORE = -50


@dataclasses.dataclass(frozen=True)
class _Outputs:
    """The components that show results."""

    status: gr.HTML
    strip: gr.HTML
    panel: gr.HTML
    bars: gr.HTML
    csv_file: gr.DownloadButton
    json_file: gr.DownloadButton
    code: gr.Code
    command: gr.Code

    def all(self) -> list[gr.components.Component]:
        return [getattr(self, field.name) for field in dataclasses.fields(self)]


@dataclasses.dataclass(frozen=True)
class _Settings:
    """The components that set how results are shown."""

    top: gr.Slider
    raw: gr.Checkbox
    calibrated: gr.Checkbox
    level: gr.Slider

    def all(self) -> list[gr.components.Component]:
        return [self.top, self.raw, self.calibrated, self.level]


@dataclasses.dataclass(frozen=True)
class _Contents:
    """Computes the contents of the outputs from results."""

    served: ServedModel
    downloads: pathlib.Path

    def all(self, results: TagResults, status: str, display: Display) -> tuple:
        """The results and the contents of all outputs, in order."""
        return (
            results,
            status,
            show_strip(results),
            show_panel(results, display.level),
            show_bars(results, display),
            *show_files(results, display.level, self.downloads),
            *show_code(results, self.served.address, display.top),
        )

    def display(self, top: int, raw: bool, calibrated: bool, level: float) -> Display:
        """The values of the settings."""
        if self.served.model.thresholds is not None:
            return Display(top, None if calibrated else level / 100, raw)
        return Display(top, None if level <= _LOWEST_SCORE else level)


def add_tag_view(served: ServedModel, downloads: pathlib.Path) -> PhotosInput:
    """Adds the view to the page.

    Args:
        served: the model.
        downloads: folder for files to download.

    Returns:
        The input of photos, with which other views start.
    """
    samples = downloads / "samples"
    samples.mkdir(exist_ok=True)
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=4, min_width=300):
            photos = add_photos_input("tag", draw_samples(served.model.vocabulary.names, samples))
            classes = add_classes_input(
                "tag", "Classes: commas or newlines", lambda _: served.model
            )
            add_html(_known_names(served.model), elem_id="tag-known")
            with gr.Row(elem_classes="buttons"):
                go = gr.Button("Tag", variant="primary", scale=1, min_width=90, elem_id="tag-go")
                own = len(served.model.vocabulary)
                fill = gr.Button(
                    f"Fill in the model's {own:,} classes", scale=2, elem_id="tag-fill"
                )
            status = add_html(elem_id="tag-status", elem_classes="problems")
            settings = _add_settings(served.model.thresholds is not None)
        with gr.Column(scale=5, min_width=320, elem_classes="evidence-column"):
            panel = add_html(empty_panel(NO_PHOTO), elem_id="tag-evidence")
            strip = add_html(elem_id="tag-strip", js_on_load=script("choice_buttons"))
        with gr.Column(scale=4, min_width=300, elem_classes="bars-column"):
            bars = add_html(
                message(NO_BARS), elem_id="tag-bars", js_on_load=script("choice_buttons")
            )
            add_html(
                render("bars_legend", groups=served.model.tells_seen_from_unseen),
                elem_id="tag-legend",
            )
            with gr.Row(elem_classes="buttons"):
                csv_file = gr.DownloadButton("CSV", size="sm", interactive=False, elem_id="tag-csv")
                json_file = gr.DownloadButton(
                    "JSON", size="sm", interactive=False, elem_id="tag-json"
                )
            with gr.Accordion("The same in Python or a shell", open=False, elem_id="tag-recipes"):
                code = gr.Code(language="python", label="Python", elem_id="tag-code")
                command = gr.Code(language="shell", label="Command line", elem_id="tag-command")
    outputs = _Outputs(status, strip, panel, bars, csv_file, json_file, code, command)
    results = gr.State(TagResults())
    contents = _Contents(served, downloads)
    _add_tagging(contents, results, photos, classes, go, settings, outputs)
    _add_settings_changes(contents, results, settings, outputs)
    _add_choices(contents, results, settings, outputs)
    _add_staleness(contents, results, classes, settings, outputs)
    _add_filling(served, fill, classes)
    return photos


def _add_settings(calibrated: bool) -> _Settings:
    with gr.Accordion("Number of tags and threshold", open=False, elem_id="tag-settings"):
        return _Settings(
            top=gr.Slider(1, 30, _DEFAULT_TOP, step=1, label="Tags shown", elem_id="tag-top"),
            raw=gr.Checkbox(
                False,
                label="Raw scores next to probabilities",
                visible=calibrated,
                elem_id="tag-raw",
            ),
            calibrated=gr.Checkbox(
                calibrated,
                label="The model's calibrated thresholds, one per class",
                visible=calibrated,
                elem_id="tag-calibrated",
            ),
            level=_add_level(calibrated),
        )


def _add_level(calibrated: bool) -> gr.Slider:
    """One threshold for all classes: a probability if the run has a calibration, else a score.

    The range is fixed, because Gradio refuses a value that was sent before the range changed.
    """
    low: float
    if calibrated:
        label, (low, high, value, step) = "probability in per cent", (1, 99, 50, 1.0)
    else:
        label = f"score ({_LOWEST_SCORE}: none)"
        low, high, value, step = _LOWEST_SCORE, 50, _LOWEST_SCORE, 0.1
    return gr.Slider(
        low,
        high,
        value,
        step=step,
        label=f"One threshold for all classes: {label}",
        interactive=not calibrated,
        elem_id="tag-level",
    )


def _add_tagging(
    contents: _Contents,
    results: gr.State,
    photos: PhotosInput,
    classes: ClassesInput,
    go: gr.Button,
    settings: _Settings,
    outputs: _Outputs,
) -> None:
    """Tags after a press, and after photos were added or removed or a class was corrected."""

    def tag(gallery, text, before, *settings):
        yield from _tag(contents, gallery, text, before, contents.display(*settings))

    events: list[Listen] = [
        go.click,
        classes.text.submit,
        photos.on_removed,
        photos.on_added,
        classes.on_corrected,
    ]
    if photos.on_sample is not None:
        events.append(photos.on_sample)
    for on_event in events:
        on_event(
            tag,
            [photos.gallery, classes.text, results, *settings.all()],
            [results, *outputs.all()],
            show_progress="hidden",
            trigger_mode="always_last",
        )


def _add_settings_changes(
    contents: _Contents, results: gr.State, settings: _Settings, outputs: _Outputs
) -> None:
    def change_settings(results, top, raw, calibrated, level):
        display = contents.display(top, raw, calibrated, level)
        return (
            gr.update(interactive=not calibrated),
            show_panel(results, display.level),
            show_bars(results, display),
            *show_files(results, display.level, contents.downloads),
            show_code(results, contents.served.address, top)[1],
        )

    gr.on(
        [each.input for each in (settings.top, settings.raw, settings.calibrated, settings.level)],
        change_settings,
        [results, *settings.all()],
        [
            settings.level,
            outputs.panel,
            outputs.bars,
            outputs.csv_file,
            outputs.json_file,
            outputs.command,
        ],
        show_progress="hidden",
        trigger_mode="always_last",
    )


def _add_choices(
    contents: _Contents, results: gr.State, settings: _Settings, outputs: _Outputs
) -> None:
    """Shows the evidence of the class that is pressed, or the photo that is pressed."""

    def choose_class(event: gr.EventData, results, *values):
        changed = dataclasses.replace(results, class_index=int(event.choice))
        return changed, show_panel(changed, contents.display(*values).level)

    outputs.bars.click(
        choose_class,
        [results, *settings.all()],
        [results, outputs.panel],
        show_progress="hidden",
    )

    def choose_photo(event: gr.EventData, results, *values):
        display = contents.display(*values)
        changed = dataclasses.replace(results, photo_index=int(event.choice), class_index=None)
        return changed, show_panel(changed, display.level), show_bars(changed, display)

    outputs.strip.click(
        choose_photo,
        [results, *settings.all()],
        [results, outputs.panel, outputs.bars],
        show_progress="hidden",
    )


def _add_staleness(
    contents: _Contents,
    results: gr.State,
    classes: ClassesInput,
    settings: _Settings,
    outputs: _Outputs,
) -> None:
    """Takes the results away while the text has other classes than they are of."""

    def compare(text, before, *values):
        try:
            names = tuple(known_classes(contents.served.model, text))
        except UserError:
            names = ()
        stale = bool(before.tagged) and names != before.names
        if stale == before.stale:
            return (gr.skip(),) * (1 + len(outputs.all()))
        changed = dataclasses.replace(before, stale=stale)
        return contents.all(changed, "", contents.display(*values))

    classes.text.change(
        compare,
        [classes.text, results, *settings.all()],
        [results, *outputs.all()],
        show_progress="hidden",
        trigger_mode="always_last",
    )


def _known_names(model: ExportedModel) -> str:
    """Says which names the model knows, and lists them on demand."""
    names, count = model.vocabulary.names, f"{len(model.vocabulary):,}"
    if model.classes.any_phrase:
        title = f"Any words can be classes. The {count} names of the model"
    elif model.classes.words:
        title = f"The {count} names of the model; others may consist of words that the model knows"
    else:
        title = f"This model knows only these {count} names"
    return render("known_names", title=title, names=names)


def _add_filling(served: ServedModel, fill: gr.Button, classes: ClassesInput) -> None:
    def fill_in_vocabulary() -> str:
        return write_classes(served.model.vocabulary.names)

    fill.click(fill_in_vocabulary, None, classes.text, show_progress="hidden")


def _tag(
    contents: _Contents,
    gallery: list | None,
    text: str,
    before: TagResults,
    display: Display,
) -> Iterator[tuple]:
    """Tags photo by photo; yields the first result at once and the others together."""
    served = contents.served
    try:
        files, model = photo_files(gallery), served.model
        names = tuple(known_classes(model, text))
    except UserError as error:
        yield _status_alone(message(str(error), "error"))
        return
    known = before.reusable(names, model.path)
    tagged, problems = [], []
    for photo in files:
        if photo.path not in known:
            yield _status_alone(message(f"{photo.name} …"))
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
            yield contents.all(before.replaced_by(tagged, names, model.path), "", display)
    if problems and not tagged:
        yield _status_alone(errors(problems))
        return
    results = before.replaced_by(tagged, names, model.path)
    yield contents.all(results, errors(problems), display)


def _status_alone(status: str) -> tuple:
    """A new status; the results and the other outputs stay."""
    return gr.skip(), status, *(gr.skip(),) * 7
