"""The page: its header, its views, its looks, and the web server."""

import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Callable, Collection, Iterator

import gradio as gr

from biam_tf.errors import UserError
from biam_tf.network import no_proxy_for
from serving.demo_page.compare_view import add_compare_view
from serving.demo_page.components import MAX_PHOTOS, add_html, script
from serving.demo_page.html_parts import render
from serving.demo_page.http_guard import BoundedBody, ContentPolicy, OwnSiteOnly
from serving.demo_page.photo_files import MAX_BYTES
from serving.demo_page.search_view import add_search_view
from serving.demo_page.served_model import ExportedModel, ServedModel
from serving.demo_page.tag_view import add_tag_view
from serving.indexing.folder_indexes import FolderIndexes

TITLE = "Which of your words are in a photo, and where"
STYLE = pathlib.Path(__file__).with_name("style.css")

_SECONDS_BETWEEN_CHECKS = 2.0
# Looks for uploaded photos every hour and deletes those older than a day.
_CACHE_SECONDS = (3600, 86400)


@dataclasses.dataclass(frozen=True)
class Models:
    """The models of the page.

    Attributes:
        first: the model of all views.
        second: a model to compare with; None for none.
    """

    first: ServedModel
    second: ServedModel | None = None

    def by_name(self) -> dict[str, ServedModel]:
        """Returns the models by their names on the page."""
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
    names: Collection[str] = (),
    auth: Callable[[str, str], bool] | None = None,
) -> Iterator[str]:
    """Serves the page and yields its address; closes it on exit.

    Args:
        models: the models.
        indexes: folder for indexes of searched folders.
        photos: only folders in this one may be searched; None for any folder.
        host: address to listen on.
        port: port of the page; 0 for any free one.
        names: host names under which the page is answered; see `OwnSiteOnly`.
        auth: whether a user name and a password are accepted; None: nobody is asked for one.

    Raises:
        UserError: the port is already in use.
    """
    from starlette.middleware import Middleware

    with tempfile.TemporaryDirectory(prefix="demo-") as downloads:
        page = build_page(models, indexes, photos, pathlib.Path(downloads))
        try:
            # Gradio asks its own address whether it answers, otherwise through `http_proxy`.
            with no_proxy_for("localhost", "127.0.0.1", "::1", host):
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
                    app_kwargs={
                        "middleware": [
                            Middleware(OwnSiteOnly, names=names),
                            Middleware(BoundedBody, upload_bytes=(MAX_PHOTOS + 1) * MAX_BYTES),
                            Middleware(ContentPolicy),
                        ]
                    },
                    auth=auth,
                    # A form has a few hundred bytes around the photo.
                    max_file_size=MAX_BYTES,
                    allowed_paths=[downloads],
                    theme=theme(),
                    css_paths=STYLE,
                )
        except OSError as error:
            raise UserError(f"can't listen on {host}:{port}; is another page there?") from error
        try:
            yield address
        finally:
            page.close(verbose=False)


def build_page(
    models: Models, indexes: pathlib.Path, photos: pathlib.Path | None, downloads: pathlib.Path
) -> gr.Blocks:
    """Returns the page of `open_page` without a web server.

    Args:
        models: the models.
        indexes: folder for indexes of searched folders.
        photos: only folders in this one may be searched; None for any folder.
        downloads: folder for files to download.
    """
    first = models.first
    model = first.model
    with gr.Blocks(
        title=f"Tag photos: {model.name}",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=_CACHE_SECONDS,
    ) as page:
        with gr.Row(elem_classes="top"):
            add_html(render("header", title=TITLE, text=_about(model)), js_on_load=script("alerts"))
            state = add_html(_server_state(first), elem_id="server-state")
        with gr.Tabs():
            with gr.Tab("Tag", id="tag"):
                photos_input = add_tag_view(first, downloads)
            if model.can_be_indexed:
                with gr.Tab("Search a folder", id="search"):
                    add_search_view(
                        first, FolderIndexes(first.model_dir, indexes, photos), photos, downloads
                    )
            with gr.Tab("Compare", id="compare") as opened:
                add_compare_view(models.by_name(), photos_input.gallery, opened)
        timer = gr.Timer(_SECONDS_BETWEEN_CHECKS)
        timer.tick(lambda: _server_state(first), None, state, show_progress="hidden")
    page.queue(default_concurrency_limit=4)
    return page


def _about(model: ExportedModel) -> str:
    """Says which model tags, and what it knows."""
    seen, unseen = (model.vocabulary.groups.count(group) for group in ("seen", "unseen"))
    if not seen:  # a pretrained tagger
        words = "tags with any words" if model.classes.any_phrase else f"tags with {unseen:,} names"
        return f"Pretrained model {model.name}: {words}, without training on photos of yours"
    without = f", {unseen:,} without" if unseen else ""
    return f"Model {model.name}: {seen:,} classes with training photos{without}"


def _server_state(served: ServedModel) -> str:
    return render("server_state", good=served.client.answers(), address=served.address)


def theme() -> gr.themes.Base:
    """Returns a theme with the system's fonts; Gradio's own themes download theirs."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.blue,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_md,
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        # The contrast of texts is at least 4.5 in both schemes; Gradio's own colors have less.
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        input_placeholder_color="*neutral_600",
        input_placeholder_color_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        color_accent="*primary_600",
    )
