"""The page: its views, its header, and the web server it is on."""

import contextlib
import dataclasses
import pathlib
import tempfile

import gradio as gr

from biam_tf.errors import UserError
from serving.demo_page.compare_view import add_compare_view
from serving.demo_page.folder_index import FolderIndexes
from serving.demo_page.html_parts import add_html
from serving.demo_page.look import STYLE, ContentPolicy, theme
from serving.demo_page.markup import render
from serving.demo_page.search_view import add_search_view
from serving.demo_page.served_model import ServedModel
from serving.demo_page.tag_view import add_tag_view

_SECONDS_BETWEEN_LOOKS = 2.0
# Uploaded photos are forgotten after a day.
_CACHE_SECONDS = (3600, 86400)

_HEADER = """
<header class="header">
<h1>{{ title }}</h1>
<p>{{ seen }} seen and {{ unseen }} unseen classes{{ ', and any others that its words can name'
 if words else '' }}</p>
</header>
"""

_STATE = """
<span class="state {{ 'good' if good else 'error' }}" role="status">
{{ 'The server answers' if good else 'The server does not answer' }} ({{ address }})</span>
"""


@dataclasses.dataclass(frozen=True)
class Models:
    """The models of the page: the one it is for, and one to compare with, if there is one."""

    first: ServedModel
    second: ServedModel | None = None

    def by_name(self) -> dict[str, ServedModel]:
        """Returns the models by the names they are shown by."""
        both = [self.first] if self.second is None else [self.first, self.second]
        names = [served.model.name for served in both]
        if len(set(names)) < len(names):
            names = [str(served.model.path) for served in both]
        return dict(zip(names, both, strict=True))


@contextlib.contextmanager
def open_page(
    models: Models,
    indexes: pathlib.Path,
    photos: pathlib.Path | None,
    host: str,
    port: int,
):
    """Serves the page; gives its address, and ends it on leaving.

    Args:
        models: what it shows.
        indexes: where indexes of searched folders are kept.
        photos: photos may only be searched in here; None: anywhere.
        host: address to listen on.
        port: 0: any free one.

    Raises:
        UserError: the port is taken.
    """
    from starlette.middleware import Middleware

    with tempfile.TemporaryDirectory(prefix="demo-") as downloads:
        page = build_page(models, indexes, photos, pathlib.Path(downloads))
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port or None,
                share=False,
                inbrowser=False,
                quiet=True,
                prevent_thread_lock=True,
                show_error=True,
                ssr_mode=False,
                run_history=False,
                enable_monitoring=False,
                footer_links=[],
                app_kwargs={"middleware": [Middleware(ContentPolicy)]},
                allowed_paths=[downloads],
                theme=theme(),
                css_paths=STYLE,
            )
        except OSError as error:
            raise UserError(f"the page can't be on {host}:{port}; is another one there?") from error
        try:
            yield address
        finally:
            page.close(verbose=False)


def build_page(
    models: Models, indexes: pathlib.Path, photos: pathlib.Path | None, downloads: pathlib.Path
) -> gr.Blocks:
    """Returns the page of `open_page`, not yet on a web server.

    Args:
        models: as all but the last, see `open_page`.
        indexes: likewise.
        photos: likewise.
        downloads: folder for files that are downloaded.
    """
    first = models.first
    model = first.model
    groups = model.vocabulary.groups
    with gr.Blocks(
        title=f"{model.name}: try it",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=_CACHE_SECONDS,
    ) as page:
        with gr.Row(elem_classes="top"):
            add_html(
                render(
                    _HEADER,
                    title=model.name,
                    seen=groups.count("seen"),
                    unseen=groups.count("unseen"),
                    words=bool(model.classes.words),
                )
            )
            state = add_html(_state(first), elem_id="server-state")
        with gr.Tabs():
            with gr.Tab("Tag", id="tag"):
                photos_input = add_tag_view(first, downloads)
            with gr.Tab("Search a folder", id="search"):
                start = photos or pathlib.Path.home()
                add_search_view(first, FolderIndexes(first.model_dir, indexes, photos), start)
            with gr.Tab("Compare", id="compare") as opened:
                add_compare_view(models.by_name(), photos_input.gallery, opened)
        timer = gr.Timer(_SECONDS_BETWEEN_LOOKS)
        timer.tick(lambda: _state(first), None, state, show_progress="hidden")
    page.queue(default_concurrency_limit=4)
    return page


def _state(served: ServedModel) -> str:
    return render(_STATE, good=served.client.answers(), address=served.address)
