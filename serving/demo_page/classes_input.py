"""Where classes are typed, with the unknown ones marked below in their place."""

import dataclasses
from collections.abc import Callable

import gradio as gr

from biam_tf.errors import UserError
from serving.demo_page.class_chips import ON_LOAD, draw_chips
from serving.demo_page.class_list import replace_class, write_classes
from serving.demo_page.exported_model import ExportedModel
from serving.demo_page.html_parts import add_html
from serving.demo_page.markup import message

GetModel = Callable[[str | None], ExportedModel]


@dataclasses.dataclass(frozen=True)
class ClassesInput:
    """The components of the input.

    Attributes:
        text: what is typed.
        chips: the classes of it.
        corrected: the event after an unknown class was replaced or left out.
    """

    text: gr.Textbox
    chips: gr.HTML
    corrected: object


def add_classes_input(
    name: str, label: str, get_model: GetModel, which: gr.Component | None = None, lines: int = 3
) -> ClassesInput:
    """Adds the input to the page.

    Args:
        name: begins the ids of its elements.
        label: of the text.
        get_model: gives the model that the classes are for, by the value of `which`.
        which: a component that chooses the model; None: there is one.
        lines: height of the text.
    """
    own = len(get_model(None).vocabulary)
    text = gr.Textbox(
        label=label,
        placeholder=f"dog, red car, beach …  (empty: the {own} classes of the run)",
        lines=lines,
        max_lines=8,
        elem_id=f"{name}-classes",
    )
    chips = add_html(elem_id=f"{name}-chips", elem_classes="chip-box", js_on_load=ON_LOAD)
    others = [] if which is None else [which]

    def check(text: str, which: str | None = None) -> str:
        model = get_model(which)
        try:
            names = model.classes.read(text)
        except UserError as error:
            return message(str(error), "error")
        return draw_chips(model.classes, names, model.groups(names))

    def correct(event: gr.EventData, text: str, which: str | None = None):
        model = get_model(which)
        names = model.classes.read(text)
        if event.name:
            names = replace_class(names, event.name, event.other or None)
        else:
            unknown = {each.name for each in model.classes.unknown(names)}
            names = [each for each in names if each not in unknown]
        return write_classes(names), draw_chips(model.classes, names, model.groups(names))

    checking = {"show_progress": "hidden", "trigger_mode": "always_last"}
    text.input(check, [text, *others], chips, **checking)
    if which is not None:
        which.change(check, [text, which], chips, **checking)
    corrected = chips.click(correct, [text, *others], [text, chips], show_progress="hidden")
    return ClassesInput(text, chips, corrected)


def known_classes(model: ExportedModel, text: str) -> list[str]:
    """Returns the classes of a text that the model knows; those of its run where it is empty.

    Raises:
        UserError: they are too many, or the model knows none of them.
    """
    names = model.classes.read(text)
    if not names:
        return list(model.vocabulary.names)
    unknown = {each.name for each in model.classes.unknown(names)}
    known = [name for name in names if name not in unknown]
    if not known:
        raise UserError("The model knows none of these classes; take a suggestion below them.")
    return known
