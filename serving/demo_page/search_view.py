"""The view Search: a folder of photos, indexed once and searched by words or by regions."""

import dataclasses
import hashlib
import os
import pathlib
import shutil
import tempfile
import time
import urllib.parse
from typing import Any

import gradio as gr

from biam_tf.errors import UserError
from serving.demo_page.components import (
    ClassesInput,
    Listen,
    add_classes_input,
    add_html,
    known_query,
    script,
)
from serving.demo_page.evidence import as_data_uri
from serving.demo_page.folder_choice import add_folder_choice
from serving.demo_page.html_parts import empty_panel, errors, evidence_panel, message, render
from serving.demo_page.photo_search import (
    Found,
    Query,
    draw_all,
    draw_example,
    draw_large,
    region_query,
    search,
)
from serving.demo_page.served_model import ServedModel
from serving.demo_page.tagging import ServerGone, page_error
from serving.indexing.folder_indexes import FolderIndexes
from serving.indexing.photo_index import PhotoIndex
from serving.indexing.search_photos import ranking_rows, write_ranking
from serving.rpc.tagging_client import TaggingError

_DEFAULT_COUNT = 12
_EARLIER = 20  # queries to which one can go back
_NO_SEARCH = "Photos that show what you look for will be here, best first."
_EMPTY = "Choose a photo to see its evidence; then a region of it finds more like that."


@dataclasses.dataclass(frozen=True, eq=False)
class SearchResults:
    """The results of a search in a browser tab.

    Attributes:
        found: the photos, best first; None before the first search.
        rank: rank of the photo that is shown large; None for no photo.
        earlier: the queries before this one, to which one can go back.
    """

    found: Found | None = None
    rank: int | None = None
    earlier: tuple[Query, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Outputs:
    """The components that show results."""

    results: gr.State
    status: gr.HTML
    grid: gr.HTML
    export: gr.DownloadButton
    panel: gr.HTML
    path: gr.Textbox
    link: gr.HTML
    back: gr.Button

    def all(self) -> list[gr.components.Component]:
        return [self.results, self.status, self.grid, self.export, *self.photo(), self.back]

    def photo(self) -> list[gr.components.Component]:
        """Those that show the photo that was chosen."""
        return [self.panel, self.path, self.link]


def _problem(error: Exception) -> tuple:
    """Updates of `_Outputs.all`: the error, and the results as they are."""
    return gr.skip(), message(str(error), "error"), *(gr.skip() for _ in range(6))


def add_search_view(
    served: ServedModel,
    indexes: FolderIndexes,
    start: pathlib.Path | None,
    downloads: pathlib.Path,
) -> None:
    """Adds the view to the page.

    Args:
        served: the model.
        indexes: the indexes of folders.
        start: the folder that is chosen at first; None: no folder, until one is typed.
        downloads: folder for files to download or to open.
    """
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=4, min_width=300):
            folder = add_folder_choice(indexes, start)
            words = add_classes_input(
                "search",
                "Words, joined by and, or, not",
                lambda _: served.model,
                lines=1,
                query=True,
            )
            with gr.Row(elem_classes="buttons"):
                go = gr.Button("Search", variant="primary", elem_id="search-go")
            count = gr.Slider(
                4, 48, _DEFAULT_COUNT, step=4, label="Photos shown at most", elem_id="search-count"
            )
        with gr.Column(scale=5, min_width=320):
            status = add_html(elem_id="search-status", elem_classes="problems")
            back = gr.Button("Back", size="sm", visible=False, elem_id="search-back")
            grid = add_html(
                message(_NO_SEARCH),
                elem_id="search-grid",
                js_on_load=script("choice_buttons"),
            )
            export = gr.DownloadButton(
                "Export CSV", size="sm", interactive=False, elem_id="search-export"
            )
        with gr.Column(scale=4, min_width=300):
            panel = add_html(
                empty_panel(_EMPTY), elem_id="search-evidence", js_on_load=script("choice_buttons")
            )
            path = gr.Textbox(
                label="File",
                interactive=False,
                visible=False,
                buttons=["copy"],
                elem_id="search-path",
            )
            link = add_html(elem_id="search-link")
    outputs = _Outputs(gr.State(SearchResults()), status, grid, export, panel, path, link, back)
    _add_searching(served, indexes, folder, words, count, go, outputs, downloads)
    _add_choices(count, outputs, downloads)


def _add_searching(
    served: ServedModel,
    indexes: FolderIndexes,
    folder: gr.Dropdown,
    words: ClassesInput,
    count: gr.Slider,
    go: gr.Button,
    outputs: _Outputs,
    downloads: pathlib.Path,
) -> None:
    def search_words(folder, text, count):
        try:
            index = _open_index(indexes, folder)
            query = word_query(served, text)
        except (UserError, ServerGone) as error:
            return _problem(error)
        return _search_updates(index, query, count, indexes.photos, downloads)

    events: list[Listen] = [go.click, words.text.submit, words.on_corrected]
    for on_event in events:
        on_event(
            search_words,
            [folder, words.text, count],
            outputs.all(),
            show_progress="hidden",
            trigger_mode="always_last",
        )


def _add_choices(count: gr.Slider, outputs: _Outputs, downloads: pathlib.Path) -> None:
    """Shows the photo that is pressed; searches for the region that is pressed."""

    def choose_photo(event: gr.EventData, before):
        return _show_photo(before, int(event.choice), downloads)

    outputs.grid.click(
        choose_photo,
        outputs.results,
        [outputs.results, *outputs.photo()],
        show_progress="hidden",
    )

    def search_region(event: gr.EventData, before, count):
        try:
            query = region_query(before.found, before.rank, int(event.choice))
        except UserError as error:
            return _problem(error)
        earlier = (*before.earlier, before.found.query)[-_EARLIER:]
        index, within = before.found.index, before.found.within
        return _search_updates(index, query, count, within, downloads, earlier)

    def go_back(before, count):
        if before.found is None or not before.earlier:
            return (gr.skip(),) * len(outputs.all())
        *earlier, query = before.earlier
        index, within = before.found.index, before.found.within
        return _search_updates(index, query, count, within, downloads, tuple(earlier))

    outputs.back.click(go_back, [outputs.results, count], outputs.all(), show_progress="hidden")
    outputs.panel.click(
        search_region, [outputs.results, count], outputs.all(), show_progress="hidden"
    )


def _open_index(indexes: FolderIndexes, folder: str | None) -> PhotoIndex:
    index = indexes.open(folder or "")
    if index is None or not len(index):
        raise UserError(f"{folder}: not indexed yet; press Index first")
    return index


def word_query(served: ServedModel, text: str) -> Query:
    """Returns the query for classes joined by `and`, `or` and `not`, embedded by the server.

    Raises:
        UserError: the text is no query, or the model does not know a class of it.
        ServerGone: the server does not answer.
    """
    if not text.strip():
        raise UserError("Type what to look for.")
    classes = known_query(served.model, text)
    try:
        class_embeddings = served.client.embed(list(classes.names))
    except TaggingError as error:
        raise page_error(error) from error
    return Query(" ".join(text.split()), class_embeddings, classes.names, classes=classes)


def show_search(
    index: PhotoIndex,
    query: Query,
    count: int,
    within: pathlib.Path | None,
    downloads: pathlib.Path,
    earlier: tuple[Query, ...] = (),
) -> tuple:
    """Searches and returns updates of the components that show results.

    Photos for which the query holds by the model's thresholds are shown, `count` at most; without
    thresholds, and for a region, the best `count`.

    Returns:
        results, status, (picture, caption) of each photo, the file to export, the panel of the
        chosen photo without one, and the button that goes back.
    """
    start = time.perf_counter()
    found = search(index, query, int(count), within, given=True)
    milliseconds = 1000 * (time.perf_counter() - start)
    text = f"{query.text}: {found.summary()} (found in {milliseconds:.0f} ms)"
    export = _export(found, downloads)
    example = draw_example(found)
    shown = "" if example is None else render("search_example", source=as_data_uri(example))
    found, pictures, problems = draw_all(found)
    labels = [found.label(rank) for rank in range(len(found.rows))]
    return (
        SearchResults(found, earlier=earlier),
        shown + message(text) + errors(problems),
        list(zip(pictures, labels, strict=True)),
        gr.update(value=export, interactive=export is not None),
        empty_panel(_EMPTY),
        gr.update(value="", visible=False),
        "",
        gr.update(value=_back_to(earlier), visible=bool(earlier)),
    )


def _search_updates(*arguments: Any) -> tuple:
    """Updates of `_Outputs.all` after a search with the arguments of `show_search`."""
    results, status, pictures, *others = show_search(*arguments)
    photos = [{"source": as_data_uri(picture), "label": label} for picture, label in pictures]
    return results, status, render("search_grid", photos=photos), *others


def _back_to(earlier: tuple[Query, ...]) -> str:
    return f"Back to: {earlier[-1].text}" if earlier else "Back"


def _export(found: Found, downloads: pathlib.Path) -> str | None:
    """Writes the photos of a search as `serving.retag --query` does; None: there are none."""
    listed = found.listed
    if listed is None or not len(listed.rows):
        return None
    names = found.query.names or (found.query.text,)
    path = pathlib.Path(tempfile.mkdtemp(dir=downloads)) / "photos.csv"
    write_ranking(path, names, ranking_rows(found.index, names, listed))
    return str(path)


def _show_photo(before: SearchResults, rank: int, downloads: pathlib.Path) -> tuple:
    found = before.found
    if found is None:
        return (gr.skip(),) * 4
    try:
        picture = draw_large(found, rank)
        path = found.path(rank)
        link = _link(path, downloads)
    except UserError as error:
        return gr.skip(), empty_panel(str(error)), gr.update(value="", visible=False), ""
    caption = f"{path.name}: {found.caption(rank)}. "
    alt = f"Where {found.query.text} was found in {path.name}"
    if found.response_map(rank) is None:
        caption += "Nothing in it reaches its threshold: no regions are outlined. "
        alt = f"The photo {path.name}"
    caption += "Press a region: more like it."
    panel = evidence_panel(picture, alt, caption, found.index.manifest.grid)
    results = dataclasses.replace(before, rank=rank)
    return results, panel, gr.update(value=str(path), visible=True), link


def _link(path: pathlib.Path, downloads: pathlib.Path) -> str:
    """A link that opens a copy of a photo: the page serves no files of the folder itself."""
    try:
        key = f"{path}\n{path.stat().st_mtime_ns}".encode("utf-8", "surrogateescape")
        copy = downloads / hashlib.sha256(key).hexdigest()[:16] / path.name
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)
    except OSError as error:
        raise UserError(f"{path.name}: {error.strerror}; index the folder again") from error
    return render("photo_link", path=urllib.parse.quote(os.fsencode(copy)), name=path.name)
