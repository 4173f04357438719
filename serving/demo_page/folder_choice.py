"""The choice of a folder of photos in the view Search, and its indexing."""

import pathlib
from collections.abc import Iterator

import gradio as gr

from biam_tf.errors import UserError
from serving.demo_page.components import add_html, script
from serving.demo_page.html_parts import errors, message, render
from serving.indexing.folder_indexes import FolderIndexes, IndexingJob
from serving.indexing.photo_index import PhotoIndex

_SECONDS_BETWEEN_UPDATES = 0.3
_BROKEN_SHOWN = 5


def add_folder_choice(indexes: FolderIndexes, start: pathlib.Path | None) -> gr.Dropdown:
    """Adds the choice of a folder, and the buttons that start and stop indexing it.

    A folder is typed, chosen in the list, or reached step by step by the buttons below it.

    Args:
        indexes: the indexes of folders; only folders that they allow are shown.
        start: the folder that is chosen at first; None: none, and one can start at home.
    """
    folder = gr.Dropdown(
        [] if start is None else indexes.nearby(str(start)),
        value=None if start is None else str(start),
        label="Folder of photos, on this machine",
        info=None if start else "Type or paste its path, or go there by the buttons below.",
        allow_custom_value=True,
        elem_id="search-folder",
    )
    places = add_html(
        folder_places(indexes, None if start is None else str(start)),
        elem_id="search-places",
        js_on_load=script("choice_buttons"),
    )
    with gr.Row(elem_classes="buttons"):
        go = gr.Button("Index", elem_id="search-index")
        stop = gr.Button("Stop", interactive=False, elem_id="search-stop")
    progress = add_html(elem_id="search-progress", elem_classes="problems")

    folder.change(
        lambda text: (
            gr.update(choices=indexes.nearby(text) if text else []),
            folder_places(indexes, text),
        ),
        folder,
        [folder, places],
        show_progress="hidden",
    )

    def enter(event: gr.EventData):
        return event.choice

    places.click(enter, None, folder, show_progress="hidden")

    def follow(folder):
        yield from _follow(indexes, folder)

    go.click(follow, folder, [progress, stop], show_progress="hidden")
    stop.click(
        lambda folder: _stop(indexes, folder), folder, progress, queue=False, show_progress="hidden"
    )
    return folder


def folder_places(indexes: FolderIndexes, text: str | None) -> str:
    """Returns buttons that lead to the folder above and to those in a folder."""
    shown = indexes.nearby(text) if text else []
    if not shown:  # none is chosen, or it is none that may be searched
        first = indexes.photos or pathlib.Path.home()
        return render("folder_places", places=[(str(first), f"Start in {first}")])
    here, *others = shown
    above = str(pathlib.Path(here).parent)
    places = [(path, "\u2191 up" if path == above else pathlib.Path(path).name) for path in others]
    return render("folder_places", places=places)


def _follow(indexes: FolderIndexes, folder: str | None) -> Iterator[tuple]:
    """Starts indexing a folder and yields the progress until it ends."""
    try:
        job = indexes.start(folder or "")
    except UserError as error:
        yield message(str(error), "error"), gr.update(interactive=False)
        return
    while job.running:
        text = f"{job.done:,} of {job.total:,} photos" if job.total else "reading the folder …"
        yield (
            render("indexing_progress", done=job.done, total=job.total, text=text),
            gr.update(interactive=True),
        )
        job.wait(_SECONDS_BETWEEN_UPDATES)
    yield _outcome(indexes, folder or "", job), gr.update(interactive=False)


def _outcome(indexes: FolderIndexes, folder: str, job: IndexingJob) -> str:
    if job.error is not None:
        return message(job.error, "error")
    index = indexes.open(folder)
    if job.stopped or index is None:
        count = 0 if index is None else len(index)
        return message(f"Stopped: {count:,} photos are indexed. Press Index to continue.")
    return message(f"{len(index):,} photos are indexed", "good") + _left_out(index)


def _left_out(index: PhotoIndex) -> str:
    broken = index.manifest.broken
    if not broken:
        return ""
    lines = ["1 file is left out:" if len(broken) == 1 else f"{len(broken):,} files are left out:"]
    lines += [f"{photo.path}: {reason}" for photo, reason in broken[:_BROKEN_SHOWN]]
    if len(broken) > _BROKEN_SHOWN:
        lines.append(f"and {len(broken) - _BROKEN_SHOWN:,} more")
    return errors(lines)


def _stop(indexes: FolderIndexes, folder: str | None) -> str:
    indexes.stop(folder or "")
    return message("Stopping after the current photos …")
