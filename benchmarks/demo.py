"""Response times of the demo page: `python -m benchmarks.demo`.

Trains the quickstart's tagger on a few pictures (its quality is not relevant here), exports it and
opens the page in Chromium, which must be installed. Measures the time as seen by the user: from the
start of the command to the page; from a dropped photo to its bars, and from a chosen tag to its
evidence; from words to the best photos of 10,000 indexed ones, shown with their evidence. The
10,000 photos are a few pictures under many names, with random region embeddings.

Also measures, without browser and server, a search of 10,000 photos with the sizes of
EfficientNet-Lite0 and GloVe (7x7 regions, 100 numbers), and drawing twelve photos of 1200x900
pixels.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from benchmarks.shared.benchmark_command import benchmark_command
from benchmarks.shared.random_index import write_random_index
from benchmarks.shared.timing import in_turns, milliseconds
from biam_tf.errors import UserError
from training.tables.table import Table

PHOTOS, ROUNDS, SHOWN = 10_000, 7, 12
SMOKE_PHOTOS = 300
EFFICIENTNET_GRID, GLOVE_SIZE, POOLED = (7, 7), 100, 10
_CHROMIUM = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update "
    "--disable-sync --no-first-run"
).split()


def main(argv=None) -> int:
    return benchmark_command("demo", __doc__, measure, argv)


def measure(smoke: bool) -> Sequence[Table]:
    """Returns the table described in the module docstring."""
    photos, rounds = (SMOKE_PHOTOS, 1) if smoke else (PHOTOS, ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        album = _draw_album(folder, photos)
        model_dir = _train_and_export(folder)
        rows = [
            *_page(folder, model_dir, album, photos, rounds),
            *_parts(folder, photos, rounds),
        ]
    return [Table("Response times of the demo page", ("step", "median", "rounds"), rows)]


def _draw_album(folder: pathlib.Path, photos: int) -> pathlib.Path:
    """Returns a folder with the given number of photos, hard links to a few drawn pictures."""
    from training.data.scenes.reader import draw_scenes

    drawn = sorted((draw_scenes(folder / "scenes", pictures=40, seed=0) / "images").iterdir())
    album = folder / "album"
    album.mkdir()
    for number in range(photos):
        os.link(drawn[number % len(drawn)], album / f"{number}.png")
    return album


def _train_and_export(folder: pathlib.Path) -> pathlib.Path:
    from serving import export
    from training import run

    settings = [
        f"data.directory={folder / 'scenes'}",
        "data.name=folder",
        "training.epochs=1",
        "training.report=false",
        f"output={folder / 'run'}",
    ]
    options = [word for setting in settings for word in ("--set", setting)]
    with contextlib.redirect_stdout(sys.stderr):
        if run.main(options) or export.main([str(folder / "run"), str(folder / "model")]):
            raise UserError("the model of the benchmark could not be trained or exported")
    return folder / "model"


def _page(folder, model_dir: pathlib.Path, album: pathlib.Path, photos: int, rounds: int):
    """Yields the rows measured in the browser."""
    from serving.indexing.folder_indexes import FolderIndexes

    indexes = folder / "indexes"
    index = FolderIndexes(model_dir, indexes).index_folder(album)
    index.mkdir(parents=True)
    write_random_index(index, photos, (12, 12), 14, 10, album, "{}.png".format)
    with _browser() as browser:
        started = []
        for _ in range(1 if rounds == 1 else 3):
            page = browser.new_page()
            start = time.perf_counter()
            with _command(model_dir, indexes) as address:
                page.goto(address)
                page.wait_for_selector("#tag-go")
                started.append(time.perf_counter() - start)
            page.close()
        yield "from the start of the command to the page", milliseconds(started), str(len(started))
        with _command(model_dir, indexes) as address:
            page = browser.new_page()
            page.goto(address)
            page.wait_for_selector("#tag-go")
            yield from _tagging(page, album, rounds)
            yield from _searching(page, album, photos, rounds)


def _tagging(page, album: pathlib.Path, rounds: int):
    dropped, chosen = [], []
    for number in range(rounds + 1):
        page.reload()
        page.wait_for_selector("#tag-go")
        file = page.locator("#tag-photos input[type=file]")
        start = time.perf_counter()
        file.set_input_files(str(album / f"{number}.png"))
        page.wait_for_selector("#tag-bars .bar")
        dropped.append(time.perf_counter() - start)
        caption = page.locator("#tag-evidence figcaption").inner_text()
        start = time.perf_counter()
        page.locator("#tag-bars .bar").nth(1).click()
        page.wait_for_function(
            "old => document.querySelector('#tag-evidence figcaption').innerText !== old",
            arg=caption,
        )
        chosen.append(time.perf_counter() - start)
    yield "from a dropped photo to its bars, 72 classes", milliseconds(dropped[1:]), str(rounds)
    yield "from a chosen tag to its evidence", milliseconds(chosen[1:]), str(rounds)


def _searching(page, album: pathlib.Path, photos: int, rounds: int):
    page.get_by_role("tab", name="Search").click()
    folder = page.locator("#search-folder input")
    folder.fill(str(album))
    folder.press("Enter")
    seconds = []
    for words in ["red plain star", "blue striped ring", "green plain cross"] * (rounds // 3 + 1):
        page.locator("#search-classes textarea").fill(words)
        start = time.perf_counter()
        page.click("#search-go")
        page.wait_for_function(
            "words => document.querySelector('#search-status').innerText.startsWith(words)",
            arg=words,
        )
        page.wait_for_selector("#search-grid .thumbnail-item img")
        seconds.append(time.perf_counter() - start)
    what = f"from words to the best {SHOWN} of {photos:,} photos, drawn"
    yield what, milliseconds(seconds[1:]), str(len(seconds) - 1)


def _parts(folder: pathlib.Path, photos: int, rounds: int):
    """Yields the rows measured without browser and server."""
    from PIL import Image

    from serving.demo_page.photo_search import Query, draw_all, forget_pictures, search
    from serving.indexing.photo_index import PhotoIndex

    rng = np.random.default_rng(0)
    for number in range(SHOWN):
        pixels = rng.integers(0, 256, (75, 100, 3), dtype=np.uint8)
        photo = Image.fromarray(pixels).resize((1200, 900))
        photo.save(folder / f"{number}.jpg", quality=90)
    index = folder / "large.index"
    index.mkdir()
    sizes = (photos, EFFICIENTNET_GRID, GLOVE_SIZE, POOLED)
    write_random_index(index, *sizes, folder, lambda number: f"{number % SHOWN}.jpg")
    opened = PhotoIndex(index)
    query = Query("a class", rng.normal(size=(1, GLOVE_SIZE)).astype(np.float32))
    found = search(opened, query, SHOWN)

    def draw() -> None:
        forget_pictures()
        draw_all(found)

    functions: dict[str, Callable] = {
        f"only the search of {photos:,} photos, 1 class": lambda: search(opened, query, SHOWN),
        f"only drawing {SHOWN} photos of 1200x900": draw,
    }
    for what, seconds in in_turns(functions, rounds).items():
        yield what, milliseconds(seconds), str(rounds)


@contextlib.contextmanager
def _command(model_dir: pathlib.Path, indexes: pathlib.Path) -> Iterator[str]:
    """Runs the command and yields the address that it prints."""
    command = [sys.executable, "-m", "serving.demo", str(model_dir), "--port", "0"]
    command += ["--indexes", str(indexes), "--no-browser"]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    try:
        address = process.stdout.readline().partition(" ")[0]
        if not address:
            raise UserError(f"{' '.join(command)}: exit status {process.wait()}")
        yield address
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def _browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise UserError(f"{error}; install it with pip install 'biam-tf[test]'") from error
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if found is None:
        raise UserError("no chromium on this machine (Debian: apt-get install chromium)")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=_CHROMIUM)
        yield browser
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
