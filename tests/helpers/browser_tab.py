"""A tab of the demo's page in a browser, and a server that can be lost and got back."""

import json

from tiny_server import ready, started

ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update "
    "--disable-sync --no-first-run"
).split()
# Every wait is for something that the page shows; a busy machine must not come near this limit.
WAIT_MS = 180_000
# How far things moved by themselves, as browsers count it.
WATCH_JUMPS = """
window.jumps = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.jumps += entry.value;
}).observe({type: 'layout-shift', buffered: true});
"""

# Two frames, so that a change of style has started its transitions; then their ends.
SETTLED = """async () => {
    for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame);
    const ending = document.getAnimations().filter(
        animation => animation.effect.getComputedTiming().endTime !== Infinity);
    await Promise.allSettled(ending.map(animation => animation.finished));
}"""


class Server:
    """A server that can be lost and got back, on the same port."""

    def __init__(self, model_dir):
        self._model_dir = model_dir
        self.running = ready(started(model_dir, drain_seconds=0.0))
        self.address, self._port = self.running.address, self.running.port

    def lose(self):
        self.running.stop()

    def get_back(self):
        self.running = ready(started(self._model_dir, port=self._port, drain_seconds=0.0))


class Tab:
    """A tab with the page, and what it asked the network for."""

    def __init__(self, browser, address, **options):
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.requests, self.errors = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.add_init_script(WATCH_JUMPS)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(address)
        self.page.wait_for_selector("#tag-go")
        self.wait_for_text("#server-state", "server")  # written by the page's own load event

    def drop(self, *files):
        from playwright.sync_api import TimeoutError

        # Files given before the page's scripts listen are lost: give them until they are sent.
        for _ in range(9):
            try:
                with self.page.expect_response(
                    lambda response: "/upload" in response.url, timeout=WAIT_MS / 9
                ):
                    self.page.set_input_files(
                        "#tag-photos input[type=file]", [str(file) for file in files]
                    )
                return
            except TimeoutError:
                continue
        raise AssertionError("the page does not send the photos")

    def type(self, view, text):
        self.page.locator(f"#{view}-classes textarea").click()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.type(text)

    def tag(self, text, bars):
        self.type("tag", text)
        self.page.click("#tag-go")
        self.page.wait_for_function(
            "count => document.querySelectorAll('#tag-bars .bar').length === count", arg=bars
        )

    def bars(self):
        return self.page.locator("#tag-bars .bar-name").all_inner_texts()

    def seen(self, selector):
        return self.page.locator(selector).get_attribute("src")

    def wait_for_text(self, selector, text):
        self.page.wait_for_function(
            "([selector, text]) => document.querySelector(selector)?.innerText.includes(text)",
            arg=[selector, text],
        )

    def check(self, axe, state):
        """Fails with what axe-core finds on the page."""
        self.page.evaluate(SETTLED)  # a color on its way from light to dark has another contrast
        found = axe.run(self.page).response["violations"]
        listed = [(each["id"], [node["html"] for node in each["nodes"]]) for each in found]
        assert not found, f"{state}: {json.dumps(listed, indent=1)}"
