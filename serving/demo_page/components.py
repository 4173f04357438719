"""Gradio components that the views share: HTML, the input of photos and the input of classes."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
from gradio.events import Dependency

from biam_tf.errors import UserError
from serving.demo_page.class_list import replace_class, write_classes
from serving.demo_page.evidence import as_data_uri
from serving.demo_page.html_parts import class_chips, errors, message, render
from serving.demo_page.photo_files import PhotoFile, open_photo_file, read_picture
from serving.demo_page.served_model import ExportedModel
from serving.indexing.class_query import ClassQuery, quoted

MAX_PHOTOS = 24
_SAMPLE_SIDE = 160
_EXAMPLES = 3

GetModel = Callable[[str | None], ExportedModel]
# Adds a function to an event of a component, such as `button.click`.
Listen = Callable[..., Dependency]


def add_html(value: str = "", **options: Any) -> gr.HTML:
    """Adds HTML to the page, without Gradio's style of texts, which would change its buttons.

    Args:
        value: the result of a function of `serving.demo_page.html_parts`.
        **options: further arguments of `gr.HTML`.
    """
    return gr.HTML(value, apply_default_css=False, **options)


def script(name: str) -> str:
    """Returns the JavaScript of `scripts/{name}.js`, for `js_on_load`."""
    return pathlib.Path(__file__).with_name("scripts").joinpath(f"{name}.js").read_text("utf-8")


@dataclasses.dataclass(frozen=True)
class PhotosInput:
    """The input of photos.

    Attributes:
        gallery: the photos.
        problems: errors of the files that were left out.
        on_added: adds a listener for photos that were added and checked.
        on_removed: adds a listener for a photo that was removed.
        on_sample: adds a listener for a sample picture that was chosen; None: there are none.
    """

    gallery: gr.Gallery
    problems: gr.HTML
    on_added: Listen
    on_removed: Listen
    on_sample: Listen | None = None


def add_photos_input(name: str, samples: Sequence[pathlib.Path] = ()) -> PhotosInput:
    """Adds an input where photos are dropped, pasted or chosen.

    Args:
        name: begins the element ids.
        samples: pictures to choose from, in a folder that the page may serve.
    """
    add_html(render("photos_title"), js_on_load=script("photos_input").replace("NAME", name))
    gallery = gr.Gallery(
        label="Photos",
        show_label=False,
        type="filepath",
        file_types=["image"],
        sources=["upload", "clipboard"],
        interactive=True,
        allow_preview=False,
        columns=3,
        height="auto",
        object_fit="contain",
        buttons=[],
        elem_id=f"{name}-photos",
        elem_classes="photos",
    )
    problems = add_html(elem_id=f"{name}-photo-problems", elem_classes="problems")
    added = gallery.upload(_keep_photos, gallery, [gallery, problems], show_progress="hidden")
    on_sample = _add_samples(name, samples, gallery) if samples else None
    return PhotosInput(gallery, problems, added.then, gallery.delete, on_sample)


def _add_samples(name: str, samples: Sequence[pathlib.Path], gallery: gr.Gallery) -> Listen:
    """Adds buttons that show the samples; a pressed one takes the place of all photos."""
    shown = [
        {"name": path.stem, "source": as_data_uri(read_picture(path, _SAMPLE_SIDE))}
        for path in samples
    ]
    buttons = add_html(
        render("samples", samples=shown),
        elem_id=f"{name}-samples",
        js_on_load=script("choice_buttons"),
    )

    def choose(event: gr.EventData) -> list[tuple[str, str]]:
        path = samples[int(event.choice)]
        return [(str(path), path.name)]

    return buttons.click(choose, None, gallery, show_progress="hidden").then


def photo_files(gallery: list[tuple[str, str | None]] | None) -> list[PhotoFile]:
    """Returns the photos in a gallery's value."""
    return [open_photo_file(path) for path, _ in gallery or []]


def _keep_photos(gallery: list[tuple[str, str | None]] | None) -> tuple:
    """Names the photos, and removes files that are none with a message that gives the reasons."""
    kept, problems = [], []
    for path, caption in gallery or []:
        try:
            name = open_photo_file(path).name
            kept.append((path, caption or name))
        except UserError as error:
            problems.append(str(error))
    if len(kept) > MAX_PHOTOS:
        problems.append(
            f"{len(kept)} photos; the first {MAX_PHOTOS} are kept. For more, index their folder "
            "in the view Search, or tag it with python -m serving.predict"
        )
        kept = kept[:MAX_PHOTOS]
    return kept, errors(problems)


@dataclasses.dataclass(frozen=True)
class ClassesInput:
    """The input of classes.

    Attributes:
        text: the text box.
        chips: the classes of the text, with unknown ones marked.
        on_corrected: adds a listener for an unknown class that was replaced or left out.
    """

    text: gr.Textbox
    chips: gr.HTML
    on_corrected: Listen


def add_classes_input(
    name: str,
    label: str,
    get_model: GetModel,
    which: gr.Dropdown | None = None,
    lines: int = 3,
    query: bool = False,
) -> ClassesInput:
    """Adds a text box for classes to the page, with the unknown ones marked below it.

    Args:
        name: begins the element ids.
        label: label of the text box.
        get_model: returns the model of the classes for a value of `which`.
        which: a component that chooses the model; None if there is only one.
        lines: height of the text box.
        query: whether the text is a query, read by `read_query`, and not a list of classes.
    """
    model = get_model(None)
    placeholder = _example_query(model) if query else _example_classes(model)
    text = gr.Textbox(
        label=label,
        placeholder=placeholder,
        lines=lines,
        max_lines=8,
        elem_id=f"{name}-classes",
    )
    chips = add_html(
        elem_id=f"{name}-chips", elem_classes="chip-box", js_on_load=script("class_chips")
    )
    others = [] if which is None else [which]

    def check(text: str, which: str | None = None) -> str:
        model = get_model(which)
        if query:
            return _query_chips(model, text)
        try:
            names = model.classes.read(text)
        except UserError as error:
            return message(str(error), "error")
        return class_chips(model.classes, names, model.groups(names))

    def correct(event: gr.EventData, text: str, which: str | None = None) -> str:
        model = get_model(which)
        if query:
            return read_query(model, text).replaced(event.name, event.other)
        names = model.classes.read(text)
        if event.name:
            names = replace_class(names, event.name, event.other or None)
        else:
            unknown = {each.name for each in model.classes.unknown(names)}
            names = [each for each in names if each not in unknown]
        return write_classes(names)

    # Gradio's `input` event is that of a key that writes a character: pasting, deleting, dictation
    # and most keyboards of phones send `change` alone.
    changes: list[Listen] = [text.change] if which is None else [text.change, which.change]
    for on_change in changes:
        on_change(
            check,
            [text, *others],
            chips,
            show_progress="hidden",
            trigger_mode="always_last",
        )
    corrected = chips.click(correct, [text, *others], text, show_progress="hidden")
    return ClassesInput(text, chips, corrected.then)


def known_classes(model: ExportedModel, text: str) -> list[str]:
    """Returns the classes of a text that the model can score, or the run's if it is empty.

    Raises:
        UserError: they are too many, or none of them is known.
    """
    names = model.classes.read(text)
    if not names:
        return list(model.vocabulary.names)
    unknown = {each.name for each in model.classes.unknown(names)}
    known = [name for name in names if name not in unknown]
    if not known:
        raise UserError("None of these classes is known; choose a suggestion below them.")
    return known


def read_query(model: ExportedModel, text: str) -> ClassQuery:
    """Returns the query of a text: class names joined by `and`, `or`, `not` and brackets.

    Raises:
        UserError: the text is no query; the message says where and why.
    """
    return ClassQuery.parse(text, model.vocabulary.index.rows)


def known_query(model: ExportedModel, text: str) -> ClassQuery:
    """Returns the query of a text, all classes of which the model can score.

    Raises:
        UserError: the text is no query, or a class is unknown.
    """
    query = read_query(model, text)
    if unknown := [each.name for each in model.classes.unknown(query.names)]:
        listed = ", ".join(repr(name) for name in unknown)
        raise UserError(
            f"The model does not know {listed}; choose a suggestion or change the words."
        )
    return query


def _query_chips(model: ExportedModel, text: str) -> str:
    """The classes of a query; what it still lacks is no error while it is typed."""
    if not text.strip():
        return ""
    try:
        names = read_query(model, text).names
    except UserError as error:
        return message(str(error))
    return class_chips(model.classes, names, model.groups(names), removable=False)


def _example_classes(model: ExportedModel) -> str:
    """An example of a list of classes that the model knows."""
    names = model.vocabulary.names
    # Neighbors in a list of classes are often alike.
    chosen = [names[i * len(names) // _EXAMPLES] for i in range(min(_EXAMPLES, len(names)))]
    return f"{', '.join(chosen)}  (empty: all {len(names):,} classes of the model)"


def _example_query(model: ExportedModel) -> str:
    """An example of a query, of classes that the model knows."""
    first, *others = (quoted(name) for name in model.vocabulary.names[:3])
    if len(others) < 2:
        return f"{first}, or: not {first}"
    return f"{first}, or: ({first} or {others[0]}) and not {others[1]}"
