"""The demo's page as a person has it: in a browser, looked at and pressed."""

import base64
import csv
import http.client
import json
import pathlib
import urllib.parse

import pytest
from browser_tab import WAIT_MS
from photo_files import encoded

from biam_tf.shape_painter import OBJECT_CLASSES
from serving.client import TaggingClient
from serving.demo_page.photo_files import MAX_BYTES
from serving.demo_page.served_model import read_newest

# Gradio's queue warns of what its pandas will do.
pytestmark = pytest.mark.filterwarnings("ignore::Warning:gradio.queueing")

PHOTOS = 300
FIRST, SECOND = "red plain star", "blue striped ring"
NAMES = [each.name for each in OBJECT_CLASSES]
MISSPELT, MEANT = "green plane cross", "green plain cross"


@pytest.mark.slow
def test_a_foreign_name_an_other_site_and_a_huge_upload_are_refused(address):
    netloc = urllib.parse.urlsplit(address).netloc

    def status(path, body=None, **headers):
        connection = http.client.HTTPConnection(netloc, timeout=WAIT_MS / 1000)
        connection.request("GET" if body is None else "POST", path, body, headers)
        return connection.getresponse().status

    def form(contents):
        head = 'Content-Disposition: form-data; name="files"; filename="photo.png"'
        return f"--x\r\n{head}\r\n\r\n".encode() + contents + b"\r\n--x--\r\n"

    upload = {"Content-Type": "multipart/form-data; boundary=x", "Origin": f"http://{netloc}"}
    assert status("/") == 200
    assert status("/", Host="evil.example") == 403
    assert status("/config", Host=f"evil.example:{netloc.rpartition(':')[2]}") == 403
    assert status("/gradio_api/upload", form(b"x"), **upload) == 200
    foreign = upload | {"Origin": "http://evil.example"}
    assert status("/gradio_api/upload", form(b"x"), **foreign) == 403
    assert status("/gradio_api/upload", form(bytes(MAX_BYTES + 1)), **upload) == 413


@pytest.mark.slow
def test_from_a_dropped_photo_to_its_evidence(open_tab, photos, page_server, tagger_dir):
    tab = open_tab()
    page = tab.page
    tab.wait_for_text("#server-state", "The server answers")
    page.evaluate("window.jumps = 0")
    tab.drop(photos / "000.png")
    page.wait_for_selector("#tag-bars .bar")
    assert page.locator("#tag-bars .bar").count() == 8

    tab.type("tag", f"{FIRST}, {MISSPELT}\n{SECOND}")
    tab.wait_for_text("#tag-chips", "3 classes, 1 unknown")
    unknown = page.locator("#tag-chips .chip.unknown")
    assert page.locator("#tag-chips .chip").count() == 3
    assert unknown.locator(".chip-name").inner_text() == MISSPELT
    unknown.get_by_role("button", name=f"Take {MEANT}").click()
    tab.wait_for_text("#tag-chips .chip:nth-of-type(3)", MEANT)
    page.wait_for_function("document.querySelectorAll('#tag-bars .bar').length === 3")
    typed = page.locator("#tag-classes textarea").input_value()
    assert typed.splitlines() == [FIRST, MEANT, SECOND]
    with TaggingClient(page_server.address) as client:
        (scores,) = client.tag(photos / "000.png", [FIRST, MEANT, SECOND])
    ranked = [[FIRST, MEANT, SECOND][c] for c in (-scores).argsort()]
    assert tab.bars() == ranked
    calibration = read_newest(tagger_dir).thresholds.for_names(ranked)
    ordered = sorted(scores, reverse=True)
    probabilities, yes = calibration.probabilities(ordered), calibration.decide(ordered)
    numbers = page.locator("#tag-bars .bar-score").all_inner_texts()
    assert numbers == [f"{100 * probability:.0f} %" for probability in probabilities]
    verdicts = page.locator("#tag-bars .verdict").all_inner_texts()
    assert verdicts == ["✓ yes" if each else "no" for each in yes]

    tab.wait_for_text("#tag-evidence figcaption", f"{ranked[0]}: ")
    assert page.evaluate("window.jumps") < 0.05

    # All are above the lowest threshold, none is above the highest.
    page.locator("#tag-settings button").first.click()
    page.get_by_label("Raw scores").check()
    page.wait_for_function("document.querySelectorAll('#tag-bars .raw').length === 3")
    shown = page.locator("#tag-bars .raw").all_inner_texts()
    assert [float(text.split()[-1]) for text in shown] == pytest.approx(ordered, abs=0.006)
    page.get_by_label("The model's calibrated thresholds").uncheck()
    level = page.locator("#tag-level input[type=number]")
    level.fill("99")
    level.press("Enter")
    page.wait_for_function("document.querySelectorAll('#tag-bars .bar.given').length === 0")
    tab.wait_for_text("#tag-evidence figcaption", "no regions are shown")
    assert page.get_by_alt_text("The photo 000.png").count() == 1
    level.fill("1")
    level.press("Enter")
    page.wait_for_function("document.querySelectorAll('#tag-bars .bar.given').length === 3")

    # The best one's evidence is there at once; another's when it is chosen, by keyboard, too.
    tab.wait_for_text("#tag-evidence figcaption", f"{ranked[0]}: ")
    assert page.get_by_alt_text(f"Where {ranked[0]} was found in 000.png").count() == 1
    assert "the 3 regions" in page.locator("#tag-evidence figcaption").inner_text()
    first = tab.seen("#tag-evidence img")
    page.locator("#tag-bars .bar").nth(0).focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    tab.wait_for_text("#tag-evidence figcaption", f"{ranked[1]}: ")
    assert tab.seen("#tag-evidence img") != first
    pressed = page.locator("#tag-bars .bar[aria-pressed=true] .bar-name")
    assert pressed.all_inner_texts() == [ranked[1]]

    # Fewer are shown where fewer are asked for.
    top = page.locator("#tag-top input[type=number]")
    top.fill("2")
    top.press("Enter")
    page.wait_for_function("document.querySelectorAll('#tag-bars .bar').length === 2")

    with page.expect_download() as download:
        page.click("#tag-csv")
    with open(download.value.path()) as file:
        assert [row["tag"] for row in csv.DictReader(file)] == ranked
    with page.expect_download() as download:
        page.click("#tag-json")
    (photo,) = json.loads(pathlib.Path(download.value.path()).read_text())
    assert photo["photo"] == "000.png" and len(photo["tags"]) == 3
    page.locator("#tag-recipes button").first.click()
    tab.wait_for_text("#tag-command", "python -m serving.client")

    # Results of other classes go.
    tab.type("tag", FIRST)
    tab.wait_for_text("#tag-evidence", "The classes have changed")
    assert not tab.bars() and page.locator("#tag-csv").is_hidden()


def test_what_is_no_photo_is_told_of_beside_the_photos(open_tab, photos, tmp_path):
    tab = open_tab()
    (tmp_path / "notes.jpg").write_text("a text")
    (tmp_path / "cut.png").write_bytes(encoded("PNG", (60, 50))[:2000])
    tab.drop(photos / "001.png", tmp_path / "notes.jpg", tmp_path / "cut.png")
    tab.wait_for_text("#tag-photo-problems", "notes.jpg: not a whole JPEG")
    tab.wait_for_text("#tag-photo-problems", "cut.png: not a whole JPEG")
    tab.page.wait_for_selector("#tag-bars .bar")  # of the one that is whole
    tab.wait_for_text("#tag-evidence figcaption", ":")


def test_photos_are_pasted_and_dropped_onto_those_that_are_there(open_tab, photos):
    tab = open_tab()
    page = tab.page
    give = """
      ([kind, selector, name, base64]) => {
        const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], name, {type: 'image/png'}));
        const event = kind === 'paste'
          ? new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true})
          : new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true});
        document.querySelector(selector).dispatchEvent(event);
      }
    """
    contents = base64.b64encode((photos / "007.png").read_bytes()).decode()
    page.evaluate(give, ["paste", "body", "pasted.png", contents])
    tab.wait_for_text("#tag-evidence figcaption", ":")
    place = "#tag-photos .thumbnail-item"
    page.wait_for_selector(place)
    page.evaluate(give, ["drop", place, "dropped.png", contents])
    tab.wait_for_text("#tag-strip", "dropped.png")
    assert page.locator(place).count() == 2
    assert page.locator("#tag-strip button").all_inner_texts() == ["pasted.png", "dropped.png"]


def test_a_sample_is_tagged_and_pasted_classes_are_checked(open_tab):
    tab = open_tab()
    # The first thing that is done on the page is pasting.
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.page.evaluate("text => navigator.clipboard.writeText(text)", f"{FIRST}, {SECOND}")
    classes = tab.page.locator("#tag-classes textarea")
    classes.focus()
    tab.page.keyboard.press("Control+V")
    tab.wait_for_text("#tag-chips", "2 classes")
    example = classes.get_attribute("placeholder").split("  (")[0]
    assert set(example.split(", ")) < set(NAMES)

    tab.page.locator("#tag-samples button").nth(1).click()
    tab.wait_for_text("#tag-evidence figcaption", ":")
    assert sorted(tab.bars()) == sorted([FIRST, SECOND])
    (thumbnail,) = tab.page.locator("#tag-photos .thumbnail-item").all()
    assert thumbnail.get_attribute("aria-label") == "shapes 2.png"
    box, own = tab.page.locator("#tag-photos").bounding_box(), thumbnail.bounding_box()
    assert own["y"] + own["height"] <= box["y"] + box["height"]  # all of it is seen
    fit = "image => getComputedStyle(image).objectFit"
    assert thumbnail.locator("img").evaluate(fit) == "contain"

    classes.press("Backspace")
    tab.wait_for_text("#tag-chips", "2 classes, 1 unknown")
    classes.fill("")
    tab.page.wait_for_function("document.querySelectorAll('#tag-chips .chip').length === 0")


def test_strange_names_are_shown_and_not_run(open_tab, photos):
    tab = open_tab()
    tab.type("tag", "🐶, <img src=x onerror=alert(1)>, ${7*7} {{7*7}}")
    tab.wait_for_text("#tag-chips", "{{7*7}}")  # the last of it
    names = tab.page.locator("#tag-chips .chip-name").all_inner_texts()
    assert names == ["🐶", "<img src=x onerror=alert(1)>", "${7*7} {{7*7}}"]
    tab.drop(photos / "001.png")
    tab.wait_for_text("#tag-status", "None of these classes is known")


@pytest.mark.slow
def test_a_folder_is_indexed_and_searched_by_words_and_by_regions(open_tab, photos):
    tab = open_tab()
    page = tab.page
    page.get_by_role("tab", name="Search").click()
    folder = page.locator("#search-folder input")
    folder.fill(str(photos))
    folder.press("Enter")
    page.click("#search-index")
    tab.wait_for_text("#search-progress", f"{PHOTOS} photos are indexed")
    tab.type("search", MISSPELT)
    tab.wait_for_text("#search-chips", MISSPELT)  # not of a part of it, while it is still typed
    page.get_by_role("button", name=f"Take {MEANT}").click()
    tab.wait_for_text("#search-status", f"{MEANT}: ")
    assert f"{PHOTOS} photos" in page.locator("#search-status").inner_text()
    page.wait_for_selector("#search-grid .caption-label")
    labels = page.locator("#search-grid .caption-label").all_inner_texts()
    with page.expect_download() as download:
        page.click("#search-export")
    listed = list(csv.DictReader(download.value.path().read_text("utf-8").splitlines()))
    scores = [float(row["rank by"]) for row in listed]
    assert scores == sorted(scores, reverse=True)
    assert [label.split(" · ")[0] for label in labels] == [
        row["photo"] for row in listed[: len(labels)]
    ]

    page.locator("#search-grid .thumbnail-item").nth(1).click()
    tab.wait_for_text("#search-evidence figcaption", f"{listed[1]['photo']}: {scores[1]:.2f}")
    chosen = photos / listed[1]["photo"]
    assert page.locator("#search-path textarea, #search-path input").input_value() == str(chosen)
    with page.expect_popup() as opened:
        page.get_by_role("link", name=f"Open {chosen.name}").click()
    answer = page.request.get(opened.value.url)
    assert answer.status == 200 and answer.body() == chosen.read_bytes()
    opened.value.close()
    regions = page.locator("#search-evidence .regions button")
    assert regions.count() == 144
    page.locator("#search-evidence .regions button[tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    tab.wait_for_text("#search-status", "like row 7, column 8 of")


@pytest.mark.slow
def test_a_server_that_is_lost_and_got_back_costs_nothing(open_tab, photos, page_server):
    tab = open_tab()
    page = tab.page
    tab.wait_for_text("#server-state", "The server answers")
    tab.drop(photos / "002.png")
    tab.tag(f"{FIRST}, {SECOND}", bars=2)
    page_server.lose()
    tab.type("tag", f"{FIRST}, {SECOND}, {MEANT}")
    page.click("#tag-go")
    tab.wait_for_text("#tag-status", "The server does not answer")
    tab.wait_for_text("#server-state", "does not answer")
    assert tab.bars() == []  # those of other classes
    assert page.locator("#tag-photos .thumbnail-item").count() == 1
    assert page.locator("#tag-classes textarea").input_value().count(",") == 2
    page_server.get_back()
    tab.wait_for_text("#server-state", "The server answers")
    page.click("#tag-go")
    page.wait_for_function("document.querySelectorAll('#tag-bars .bar').length === 3")
    page.wait_for_function("document.querySelector('#tag-status').innerText.trim() === ''")


def test_two_tabs_do_not_mix(open_tab, photos):
    one, other = open_tab(), open_tab()
    one.drop(photos / "003.png")
    other.drop(photos / "004.png")
    one.tag(f"{FIRST}, {SECOND}", bars=2)
    other.tag(f"{MEANT}", bars=1)
    assert sorted(one.bars()) == sorted([FIRST, SECOND]) and other.bars() == [MEANT]
    one.page.locator("#tag-bars .bar").nth(1).click()
    one.wait_for_text("#tag-evidence figcaption", one.bars()[1])
    assert one.seen("#tag-evidence img") != other.seen("#tag-evidence img")


@pytest.mark.slow
def test_two_models_side_by_side_on_the_photos_of_the_first_view(open_tab, photos):
    tab = open_tab(color_scheme="dark", viewport={"width": 390, "height": 844})
    page = tab.page
    tab.drop(photos / "005.png", photos / "006.png")
    page.wait_for_selector("#tag-strip button")
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_selector("#compare-photos .thumbnail-item")
    tab.type("compare-left", f"{FIRST}, {SECOND}")
    tab.type("compare-right", MEANT)
    page.click("#compare-go")
    page.wait_for_function("document.querySelectorAll('.compared-photo').length === 2")
    titles = page.locator(".compared-photo").first.locator("h2").all_inner_texts()
    assert titles == ["Left: tagger (version 1)", "Right: other (version 1)"]
    sides = page.locator(".compared-photo").nth(1).locator("h2 + .bars")
    assert sorted(sides.nth(0).locator(".bar-name").all_inner_texts()) == sorted([FIRST, SECOND])
    assert sides.nth(1).locator(".bar-name").all_inner_texts() == [MEANT]
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width == 390  # nothing to scroll sideways on a phone
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(part) for part in dark.strip("rgb()").split(",")) < 60


def test_everything_is_reached_and_done_with_the_keyboard(open_tab):
    tab = open_tab()
    page = tab.page

    def go_to(selector):
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert style == "solid", f"{selector}: the focus is not seen"
                return
        raise AssertionError(f"{selector}: not reached")

    go_to("#tag-samples button")
    page.keyboard.press("Enter")
    page.wait_for_selector("#tag-bars .bar")
    go_to("#tag-classes textarea")
    page.keyboard.type(f"{FIRST}, {MISSPELT}, {SECOND}")
    tab.wait_for_text("#tag-chips", "3 classes, 1 unknown")
    go_to("#tag-chips button[data-other]")
    page.keyboard.press("Enter")  # takes the nearest name, and tags
    page.wait_for_function("document.querySelectorAll('#tag-bars .bar').length === 3")
    assert MEANT in tab.bars()
    go_to("#tag-settings button")
    go_to("#tag-bars .bar:nth-child(2)")
    page.keyboard.press("Enter")
    tab.wait_for_text("#tag-evidence figcaption", f"{tab.bars()[1]}: ")


@pytest.mark.slow
def test_axe_finds_nothing_on_desktop_and_phone_in_light_and_dark(open_tab, photos):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tab = open_tab()
    page = tab.page

    tab.drop(photos / "002.png")
    page.wait_for_selector("#tag-bars .bar")
    page.locator("#tag-settings button").first.click()
    page.locator("#tag-known summary").click()
    tab.type("tag", f"{FIRST}, {MISSPELT}")
    tab.wait_for_text("#tag-chips", "2 classes, 1 unknown")
    page.click("#tag-go")
    page.wait_for_selector("#tag-bars .bar")
    tab.check(axe, "tags, desktop, light")
    tab.type("tag", MISSPELT)
    page.click("#tag-go")
    tab.wait_for_text("#tag-status", "None of these classes is known")
    page.wait_for_function("document.querySelector('[role=alert]').textContent.includes('None')")
    assert page.locator("[role=alert]").count() == 1
    page.emulate_media(color_scheme="dark")
    page.wait_for_selector("body.dark, .dark body, .dark")
    tab.check(axe, "an error, desktop, dark")
    page.set_viewport_size({"width": 390, "height": 844})
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_selector("#compare-photos .thumbnail-item")
    page.click("#compare-go")
    page.wait_for_selector(".compared-photo")
    tab.check(axe, "a comparison, phone, dark")
    page.emulate_media(color_scheme="light")
    page.wait_for_selector("body:not(.dark)")
    page.get_by_role("tab", name="Tag").click()
    tab.tag(f"{FIRST}, {SECOND}", bars=2)
    tab.check(axe, "tags, phone, light")

    page.get_by_role("tab", name="Search").click()
    folder = page.locator("#search-folder input")
    folder.fill(str(photos))
    folder.press("Enter")
    page.click("#search-index")
    tab.wait_for_text("#search-progress", "photos are indexed")
    tab.type("search", f"{FIRST} or {SECOND}")
    page.click("#search-go")
    page.locator("#search-grid .thumbnail-item").nth(1).click()
    tab.wait_for_text("#search-evidence figcaption", "Press a region")
    page.locator("#search-evidence .regions button[tabindex='0']").press("Enter")
    page.wait_for_selector("#search-back")
    page.locator("#search-grid .thumbnail-item").first.hover()
    for size, width in (("phone", 390), ("desktop", 1280)):
        page.set_viewport_size({"width": width, "height": 844})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.wait_for_selector(".dark" if scheme == "dark" else "body:not(.dark)")
            tab.check(axe, f"photos found, {size}, {scheme}")
            assert page.evaluate("document.documentElement.scrollWidth") == width
