"""The view Compare: the same photos, tagged by two models or with two lists of classes."""

from collections.abc import Iterator, Sequence

import gradio as gr

from biam_tf.errors import UserError
from serving.demo_page.components import (
    Listen,
    add_classes_input,
    add_html,
    add_photos_input,
    known_classes,
    photo_files,
)
from serving.demo_page.evidence import as_data_uri, draw_evidence
from serving.demo_page.html_parts import Html, bar_scale, errors, message, ranked_bars, render
from serving.demo_page.photo_files import PhotoFile, read_picture
from serving.demo_page.served_model import ExportedModel, ServedModel
from serving.demo_page.tagging import ServerGone, TaggedPhoto, tag_photo, verdicts_of

_PICTURE_SIDE = 320
_DEFAULT_TOP = 5
_SIDES = ("Left", "Right")


def add_compare_view(
    models: dict[str, ServedModel], first_photos: gr.Gallery, opened: gr.Tab
) -> None:
    """Adds the view to the page.

    Args:
        models: one or two models by their names on the page.
        first_photos: photos of another view, with which this one starts.
        opened: the tab of this view.
    """
    names = list(models)
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=3, min_width=300):
            photos = add_photos_input("compare")
        sides = [
            _add_side(models, name, side)
            for side, name in zip(_SIDES, (names[0], names[-1]), strict=True)
        ]
    with gr.Row(elem_classes="columns"):
        go = gr.Button("Compare", variant="primary", scale=1, elem_id="compare-go")
        top = gr.Slider(
            1, 20, _DEFAULT_TOP, step=1, label="Tags shown", scale=2, elem_id="compare-top"
        )
    status = add_html(elem_id="compare-status", elem_classes="problems")
    result = add_html(elem_id="compare-result")

    def start_with(own, others):
        return gr.skip() if own else others

    opened.select(
        start_with, [photos.gallery, first_photos], photos.gallery, show_progress="hidden"
    )

    def compare(gallery, top, *chosen):
        yield from _compare(models, gallery, top, [chosen[:2], chosen[2:]])

    events: list[Listen] = [go.click, top.release]
    for on_event in events:
        on_event(
            compare,
            [photos.gallery, top, *(each for side in sides for each in side)],
            [status, result],
            show_progress="hidden",
            trigger_mode="always_last",
        )


def _add_side(
    models: dict[str, ServedModel], name: str, title: str
) -> tuple[gr.Dropdown, gr.Textbox]:
    key = f"compare-{title.lower()}"
    with gr.Column(scale=3, min_width=280):
        which = gr.Dropdown(
            list(models), value=name, label=f"{title}: model", elem_id=f"{key}-model"
        )

        def get_model(chosen: str | None) -> ExportedModel:
            return models[chosen or name].model

        classes = add_classes_input(key, f"{title}: classes", get_model, which)
    return which, classes.text


def _compare(
    models: dict[str, ServedModel],
    gallery: list | None,
    top: int,
    sides: Sequence[tuple[str, str]],
) -> Iterator[tuple]:
    """Tags photo by photo on both sides; yields the status and the result after each."""
    try:
        files = photo_files(gallery)
        lists = [(name, known_classes(models[name].model, text)) for name, text in sides]
    except UserError as error:
        yield message(str(error), "error"), gr.skip()
        return
    if not files:
        yield message("Drop photos first.", "error"), gr.skip()
        return
    titles = [f"{side}: {name}" for side, (name, _) in zip(_SIDES, lists, strict=True)]
    same_model = lists[0][0] == lists[1][0]
    compared: list[dict] = []
    problems: list[str] = []
    for photo in files:
        try:
            tagged = [
                tag_photo(models[name].client, models[name].model, photo, names)
                for name, names in lists
            ]
            compared.append(_compared_photo(photo, titles, tagged, top, same_model))
        except UserError as error:
            problems.append(str(error))
        except ServerGone as error:
            yield message(str(error), "error"), gr.skip()
            return
        yield errors(problems), render("comparison", photos=compared)


def _compared_photo(
    photo: PhotoFile,
    titles: Sequence[str],
    tagged: Sequence[TaggedPhoto],
    top: int,
    same_model: bool,
) -> dict:
    """The values of a photo in the template `comparison`."""
    # Scores of one model have one scale on both sides, and probabilities have one everywhere.
    scales = [bar_scale([its], top, None) for its in tagged]
    if same_model and not any(scale.of_probabilities for scale in scales):
        scales = [bar_scale(tagged, top, None)] * 2
    picture = read_picture(photo.path, _PICTURE_SIDE)
    sides = []
    for title, its, scale in zip(titles, tagged, scales, strict=True):
        best = int(its.ranked(1)[0])
        evidence = None
        found = verdicts_of(its, None)[best] is not False
        if its.response_maps is not None and found:
            seen = read_picture(photo.path, _PICTURE_SIDE, its.orientation)
            drawn = draw_evidence(seen, its.response_maps[:, :, best], its.pooled)
            evidence = as_data_uri(drawn)
        sides.append(
            {
                "title": title,
                "bars": Html(ranked_bars(its, top, None, fixed=True, scale=scale)),
                "best": its.names[best],
                "evidence": evidence,
                "none_given": not found,
            }
        )
    return {"name": photo.name, "source": as_data_uri(picture), "sides": sides}
