"""The view Search: a folder of photos, indexed once, and any words."""

import dataclasses
import pathlib
import time

import gradio as gr

from biam_tf.errors import UserError
from serving.demo_page import choices
from serving.demo_page.classes_input import add_classes_input, known_classes
from serving.demo_page.evidence_panel import draw_panel, empty_panel
from serving.demo_page.folder_index import FolderIndexes, IndexingJob
from serving.demo_page.html_parts import add_html
from serving.demo_page.markup import message, render
from serving.demo_page.photo_search import (
    Found,
    Query,
    draw_all,
    draw_large,
    region_query,
    search,
)
from serving.demo_page.served_model import ServedModel
from serving.demo_page.tagging import ServerGone, said_of
from serving.indexing.photo_index import PhotoIndex
from serving.rpc.tagging_client import TaggingError

_DEFAULT_COUNT = 12
_SECONDS_BETWEEN_LOOKS = 0.3
_BROKEN_SHOWN = 5
_EMPTY = "Choose a photo to see its evidence; then a region of it finds more like that."

_PROGRESS = """
<div class="message" role="status">
<progress max="{{ total or 1 }}" value="{{ done }}" aria-label="Photos indexed"></progress>
{{ said }}
</div>
"""


@dataclasses.dataclass(frozen=True, eq=False)
class Shown:
    """What a tab shows of a search.

    Attributes:
        found: the photos, best first; None: nothing was looked for yet.
        place: of the photo that is shown large; None: none is.
    """

    found: Found | None = None
    place: int | None = None


def add_search_view(served: ServedModel, indexes: FolderIndexes, start: pathlib.Path) -> None:
    """Adds the view to the page.

    Args:
        served: the model.
        indexes: the folders that were indexed.
        start: the folder to begin with.
    """
    shown = gr.State(Shown())
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=4, min_width=300):
            folder = gr.Dropdown(
                indexes.around(str(start)),
                value=str(start),
                label="Folder of photos, on this machine",
                allow_custom_value=True,
                elem_id="search-folder",
            )
            with gr.Row(elem_classes="buttons"):
                go = gr.Button("Index", elem_id="search-index")
                stop = gr.Button("Stop", interactive=False, elem_id="search-stop")
            progress = add_html(elem_id="search-progress", elem_classes="problems")
            words = add_classes_input("search", "Words", lambda _: served.model, lines=1)
            with gr.Row(elem_classes="buttons"):
                look = gr.Button("Search", variant="primary", elem_id="search-go")
            count = gr.Slider(
                4, 48, _DEFAULT_COUNT, step=4, label="Photos shown", elem_id="search-count"
            )
        with gr.Column(scale=5, min_width=320):
            status = add_html(elem_id="search-status", elem_classes="problems")
            grid = gr.Gallery(
                label="Best photos, best first",
                show_label=False,
                interactive=False,
                allow_preview=False,
                columns=4,
                height="auto",
                object_fit="cover",
                format="jpeg",
                buttons=[],
                elem_id="search-grid",
            )
        with gr.Column(scale=4, min_width=300):
            panel = add_html(
                empty_panel(_EMPTY), elem_id="search-evidence", js_on_load=choices.ON_LOAD
            )

    folder.change(
        lambda text: gr.update(choices=indexes.around(text or "")),
        folder,
        folder,
        show_progress="hidden",
    )

    def follow(folder):
        yield from _follow(indexes, folder)

    go.click(follow, folder, [progress, stop], show_progress="hidden")
    stop.click(
        lambda folder: _stop(indexes, folder), folder, progress, queue=False, show_progress="hidden"
    )

    def search_words(folder, text, count):
        try:
            index = _index(indexes, folder)
            query = _query(served, text)
        except (UserError, ServerGone) as error:
            return gr.skip(), message(str(error), "error"), gr.skip(), gr.skip()
        return _search(index, query, count)

    looking = {
        "fn": search_words,
        "inputs": [folder, words.text, count],
        "outputs": [shown, status, grid, panel],
        "show_progress": "hidden",
        "trigger_mode": "always_last",
    }
    for event in (look.click, words.text.submit, words.corrected.then):
        event(**looking)

    def choose_photo(event: gr.SelectData, before):
        return _choose(before, event.index)

    grid.select(choose_photo, shown, [shown, panel], show_progress="hidden")

    def more_like(event: gr.EventData, before, count):
        try:
            query = region_query(before.found, before.place, int(event.choice))
        except UserError as error:
            return gr.skip(), message(str(error), "error"), gr.skip(), gr.skip()
        return _search(before.found.index, query, count)

    panel.click(more_like, [shown, count], [shown, status, grid, panel], show_progress="hidden")


def _follow(indexes: FolderIndexes, folder: str):
    """Indexes a folder and tells how far it is, until it ends."""
    try:
        job = indexes.start(folder or "")
    except UserError as error:
        yield message(str(error), "error"), gr.update(interactive=False)
        return
    while job.running:
        said = f"{job.done:,} of {job.total:,} photos" if job.total else "reading the folder …"
        yield (
            render(_PROGRESS, done=job.done, total=job.total, said=said),
            gr.update(interactive=True),
        )
        job.wait(_SECONDS_BETWEEN_LOOKS)
    yield _ended(indexes, folder, job), gr.update(interactive=False)


def _ended(indexes: FolderIndexes, folder: str, job: IndexingJob) -> str:
    if job.error is not None:
        return message(job.error, "error")
    index = indexes.open(folder)
    if job.stopped:
        there = 0 if index is None else len(index)
        return message(f"Stopped: {there:,} photos are indexed. Index goes on from there.")
    return message(_indexed(index), "good")


def _indexed(index: PhotoIndex) -> str:
    broken = index.manifest.broken
    said = f"{len(index):,} photos are indexed"
    if not broken:
        return said
    lines = [f"{said}; {len(broken):,} files are left out:"]
    lines += [f"{photo.path}: {why}" for photo, why in broken[:_BROKEN_SHOWN]]
    if len(broken) > _BROKEN_SHOWN:
        lines.append(f"and {len(broken) - _BROKEN_SHOWN:,} more")
    return "\n".join(lines)


def _stop(indexes: FolderIndexes, folder: str) -> str:
    indexes.stop(folder or "")
    return message("Stopping after the photos that are being looked at …")


def _index(indexes: FolderIndexes, folder: str | None) -> PhotoIndex:
    index = indexes.open(folder or "")
    if index is None or not len(index):
        raise UserError(f"{folder}: not indexed yet; press Index first")
    return index


def _query(served: ServedModel, text: str) -> Query:
    """Words as they are embedded by the server."""
    if not text.strip():
        raise UserError("Type what to look for.")
    names = known_classes(served.model, text)
    try:
        return Query(", ".join(names), served.client.embed(names))
    except TaggingError as error:
        raise said_of(error) from error


def _search(index: PhotoIndex, query: Query, count: int) -> tuple:
    start = time.perf_counter()
    found = search(index, query, count)
    milliseconds = 1000 * (time.perf_counter() - start)
    said = f"{query.said}: the best of {len(index):,} photos, found in {milliseconds:.0f} ms"
    found, pictures, problems = draw_all(found)
    captions = [f"{score:.2f}" for score in found.scores]
    text = message(said) + (message("\n".join(problems), "error") if problems else "")
    return Shown(found), text, list(zip(pictures, captions, strict=True)), empty_panel(_EMPTY)


def _choose(before: Shown, place: int) -> tuple:
    found = before.found
    try:
        picture = draw_large(found, place)
    except UserError as error:
        return gr.skip(), empty_panel(str(error))
    name = found.path(place).name
    caption = f"{name}: {found.scores[place]:.2f}. Press a region: more like it."
    alt = f"Where {found.query.said} was found in {name}"
    drawn = draw_panel(picture, alt, caption, found.index.manifest.grid)
    return Shown(found, place), drawn
