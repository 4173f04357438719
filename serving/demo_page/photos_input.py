"""Where photos are dropped, pasted or chosen, with what is wrong with them beside it."""

import dataclasses

import gradio as gr

from biam_tf.errors import UserError
from serving.demo_page.html_parts import add_html
from serving.demo_page.markup import message, render
from serving.demo_page.photo_files import PhotoFile, open_photo_file

_TITLE = '<h2 class="part-title">Photos: drop, paste or choose</h2>'
# Gradio takes what is dropped on its own place for that. Photos also come from a paste with the
# keyboard, and from a drop on the photos that are there.
_ON_LOAD = """
const box = () => document.getElementById('NAME-photos');
const give = (files) => {
  const input = box().querySelector('input[type=file]');
  const photos = new DataTransfer();
  for (const file of files) photos.items.add(file);
  if (!input || !photos.files.length) return;
  input.files = photos.files;
  input.dispatchEvent(new Event('change', {bubbles: true}));
};
const taken = (event) =>
  box()?.contains(event.target) && !event.target.closest('[aria-dropeffect]');
document.addEventListener('paste', (event) => {
  const files = [...event.clipboardData.files].filter((file) => file.type.startsWith('image/'));
  if (!files.length || !box()?.offsetParent) return;
  event.preventDefault();
  give(files);
});
document.addEventListener('dragover', (event) => { if (taken(event)) event.preventDefault(); });
document.addEventListener('drop', (event) => {
  if (!taken(event)) return;
  event.preventDefault();
  give(event.dataTransfer.files);
});
"""
# A screenful, and what a person waits for.
MAX_PHOTOS = 24


@dataclasses.dataclass(frozen=True)
class PhotosInput:
    """The components of the input.

    Attributes:
        gallery: the photos.
        problems: what is wrong with some of them.
        came: the event after photos came and were checked.
        went: the event of a photo that was taken out.
    """

    gallery: gr.Gallery
    problems: gr.HTML
    came: object
    went: object


def add_photos_input(name: str) -> PhotosInput:
    """Adds the input to the page; `name` begins the ids of its elements."""
    add_html(render(_TITLE), js_on_load=_ON_LOAD.replace("NAME", name))
    gallery = gr.Gallery(
        label="Photos",
        show_label=False,
        type="filepath",
        file_types=["image"],
        sources=["upload", "clipboard"],
        interactive=True,
        allow_preview=False,
        columns=3,
        height=190,
        object_fit="contain",
        buttons=[],
        elem_id=f"{name}-photos",
        elem_classes="photos",
    )
    problems = add_html(elem_id=f"{name}-photo-problems", elem_classes="problems")
    came = gallery.upload(_keep_photos, gallery, [gallery, problems], show_progress="hidden")
    return PhotosInput(gallery, problems, came, gallery.delete)


def photo_files(gallery: list | None) -> list[PhotoFile]:
    """Returns the photos of a gallery's value."""
    return [open_photo_file(path) for path, _ in gallery or []]


def _keep_photos(gallery: list | None):
    """Leaves out what is no photo, and says what and why."""
    kept, problems = [], []
    for path, caption in gallery or []:
        try:
            open_photo_file(path)
            kept.append((path, caption))
        except UserError as error:
            problems.append(str(error))
    if len(kept) > MAX_PHOTOS:
        problems.append(
            f"{len(kept)} photos; the first {MAX_PHOTOS} are kept. For more, index their folder "
            "in the view Search, or use python -m serving.client"
        )
        kept = kept[:MAX_PHOTOS]
    if not problems:
        return gr.skip(), ""
    return kept, message("\n".join(problems), "error")
