"""A served model for the parts of the page."""

import shutil

import pytest
from browser_tab import ARGUMENTS, Server, Tab
from photo_files import encoded
from tiny_server import ready, started

from serving.demo_page.served_model import ServedModel, connect

PHOTOS = 300


@pytest.fixture(scope="module")
def served(tagger_dir, cold_dir):
    server = ready(started(cold_dir))
    with connect(server.address) as client:
        yield ServedModel(tagger_dir, server.address, client, server)
    server.stop()


@pytest.fixture(scope="module")
def chromium():
    pytest.importorskip("gradio", reason="the demo's page needs gradio")
    playwright = pytest.importorskip("playwright.sync_api", reason="a browser needs playwright")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if found is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page_server(chromium, tagger_dir):
    server = Server(tagger_dir)
    yield server
    server.lose()


@pytest.fixture(scope="module")
def photos(scenes, tmp_path_factory):
    """300 drawn pictures: those of the data set, and small noise."""
    folder = tmp_path_factory.mktemp("data") / "album"
    folder.mkdir()
    drawn = sorted((scenes / "images").iterdir())
    for place in range(PHOTOS):
        path = folder / f"{place:03}.png"
        if place < len(drawn):
            shutil.copy(drawn[place], path)
        else:
            path.write_bytes(encoded("PNG", (16, 16), place))
    return folder


@pytest.fixture(scope="module")
def address(page_server, tagger_dir, photos, tmp_path_factory):
    from serving.demo import demo, demo_parser

    indexes = tmp_path_factory.mktemp("indexes")
    command = [str(tagger_dir), "--server", page_server.address, "--port", "0"]
    other = tmp_path_factory.mktemp("models") / "other"
    shutil.copytree(tagger_dir, other)
    command += ["--compare", str(other), "--compare-server", page_server.address]
    command += ["--indexes", str(indexes), "--photos", str(photos.parent)]
    with demo(demo_parser().parse_args(command)) as address:
        yield address


@pytest.fixture
def open_tab(chromium, address):
    tabs = []

    def open_tab(**options):
        tabs.append(
            Tab(chromium, address, **{"viewport": {"width": 1400, "height": 900}} | options)
        )
        return tabs[-1]

    yield open_tab
    for tab in tabs:
        tab.context.close()
        assert not tab.errors
        outside = [url for url in tab.requests if not url.startswith((address, "data:", "blob:"))]
        assert not outside, "the page asked for something elsewhere"
