"""The view Compare: the same photos, tagged by two models or with two lists of classes."""

import gradio as gr

from biam_tf.errors import UserError
from serving.demo_page.classes_input import add_classes_input, known_classes
from serving.demo_page.evidence import as_data_uri, draw_evidence
from serving.demo_page.html_parts import add_html
from serving.demo_page.markup import Html, message, render
from serving.demo_page.photo_files import PhotoFile, read_picture
from serving.demo_page.photos_input import add_photos_input, photo_files
from serving.demo_page.ranked_bars import draw_bars
from serving.demo_page.served_model import ServedModel
from serving.demo_page.tagging import ServerGone, TaggedPhoto, tag_photo

_PICTURE_SIDE = 320
_DEFAULT_TOP = 5
_SIDES = ("Left", "Right")

_PHOTOS = """
<div class="compared">
{% for photo in photos %}
<section class="compared-photo" aria-label="{{ photo.name }}">
<div><img src="{{ photo.source }}" alt="{{ photo.name }}"><p>{{ photo.name }}</p></div>
{% for side in photo.sides %}
<div><h3>{{ side.title }}</h3>{{ side.bars }}
{% if side.evidence %}<p>Where {{ side.best }} was found:</p>
<img src="{{ side.evidence }}" alt="Where {{ side.best }} was found">{% endif %}</div>
{% endfor %}
</section>
{% endfor %}
</div>
"""


def add_compare_view(
    models: dict[str, ServedModel], first_photos: gr.Gallery, opened: gr.Tab
) -> None:
    """Adds the view to the page.

    Args:
        models: one or two, by the names they are shown by.
        first_photos: photos of another view, which this one starts with.
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

    comparing = {
        "fn": compare,
        "inputs": [photos.gallery, top, *(each for side in sides for each in side)],
        "outputs": [status, result],
        "show_progress": "hidden",
        "trigger_mode": "always_last",
    }
    go.click(**comparing)
    top.release(**comparing)


def _add_side(models: dict[str, ServedModel], name: str, title: str) -> tuple:
    key = f"compare-{title.lower()}"
    with gr.Column(scale=3, min_width=280):
        which = gr.Dropdown(
            list(models), value=name, label=f"{title}: model", elem_id=f"{key}-model"
        )

        def get_model(chosen: str | None):
            return models[chosen or name].model

        classes = add_classes_input(key, f"{title}: classes", get_model, which)
    return which, classes.text


def _compare(models: dict[str, ServedModel], gallery, top: int, sides):
    """Tags photo by photo on both sides, and shows each as it comes."""
    try:
        files = photo_files(gallery)
        lists = []
        for name, text in sides:
            lists.append((name, known_classes(models[name].model, text)))
    except UserError as error:
        yield message(str(error), "error"), gr.skip()
        return
    if not files:
        yield message("Drop photos first.", "error"), gr.skip()
        return
    titles = [f"{side}: {name}" for side, (name, _) in zip(_SIDES, lists, strict=True)]
    compared, problems = [], []
    for photo in files:
        try:
            tagged = [
                tag_photo(models[name].client, models[name].model, photo, names)
                for name, names in lists
            ]
            compared.append(_compared(photo, titles, tagged, top))
        except UserError as error:
            problems.append(str(error))
        except ServerGone as error:
            yield message(str(error), "error"), gr.skip()
            return
        said = message("\n".join(problems), "error") if problems else ""
        yield said, render(_PHOTOS, photos=compared)


def _compared(photo: PhotoFile, titles: list[str], tagged: list[TaggedPhoto], top: int) -> dict:
    picture = read_picture(photo.path, _PICTURE_SIDE)
    sides = []
    for title, its in zip(titles, tagged, strict=True):
        best = int(its.ranked(1)[0])
        evidence = None
        if its.response_maps is not None:
            drawn = draw_evidence(picture, its.response_maps[:, :, best], its.pooled)
            evidence = as_data_uri(drawn)
        sides.append(
            {
                "title": title,
                "bars": Html(draw_bars(its, top, None, fixed=True)),
                "best": its.names[best],
                "evidence": evidence,
            }
        )
    return {"name": photo.name, "source": as_data_uri(picture), "sides": sides}
