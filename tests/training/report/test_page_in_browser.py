"""The report as a reader uses it: in Chromium, from a file, with the keyboard, and on paper."""

import shutil

import pytest


@pytest.fixture
def page(finished):
    playwright = pytest.importorskip("playwright.sync_api", reason="a browser needs playwright")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if found is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(finished.report_page.as_uri())
        yield page
        browser.close()
    assert not problems


def column(page, number: int) -> list[str]:
    rows = page.locator("table[data-sortable] tbody tr:not([hidden])")
    return rows.locator(f"xpath=./*[{number}]").all_text_contents()


def test_classes_are_sorted_and_filtered_and_nothing_is_lost_on_paper(page):
    heading = page.locator("table[data-sortable] thead th")
    names = heading.all_text_contents()
    ap = names.index("AP") + 1
    values = [float(text) for text in column(page, ap)]
    assert values == sorted(values, reverse=True) and len(values) > 5
    # By keyboard.
    heading.nth(ap - 1).get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert [float(text) for text in column(page, ap)] == sorted(values)
    assert heading.nth(ap - 1).get_attribute("aria-sort") == "ascending"
    heading.first.get_by_role("button").click()
    listed = column(page, 1)
    assert listed == sorted(listed)
    groups = dict(zip(listed, column(page, 2), strict=True))
    word = next(name for name in listed if groups[name] == "unseen").split()[0]
    page.get_by_label("Name contains").fill(word.upper())
    page.get_by_label("Group").select_option("unseen")
    shown = column(page, 1)
    assert shown == [name for name in listed if word in name and groups[name] == "unseen"]
    assert page.locator("[data-count]").text_content() == f"{len(shown)} of {len(values)} classes"

    page.set_viewport_size({"width": 390, "height": 844})
    wide = "document.documentElement.scrollWidth"
    assert page.evaluate(wide) <= 390
    # A4 without its margins, at 96 pixels per inch.
    page.set_viewport_size({"width": 700, "height": 990})
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(wide) <= 700
    inside = "table => table.getBoundingClientRect().right <= 700"
    tables = page.locator("table")
    assert all(tables.nth(i).evaluate(inside) for i in range(tables.count()))
    assert page.locator("details:not([open])").count() == 0
    rows = page.locator("table[data-sortable] tbody tr")
    assert all(rows.nth(i).is_visible() for i in range(len(values)))  # the filter is of the screen
    style = "bar => getComputedStyle(bar).printColorAdjust"
    assert page.locator(".bar i").first.evaluate(style) == "exact"
