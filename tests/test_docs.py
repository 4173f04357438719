"""Every path, command, module and link in the documentation exists."""

import dataclasses
import importlib
import pathlib
import re
import subprocess
import sys

import keras  # noqa: F401  starts a process when first imported, which a unit test must not
import pytest

pytestmark = pytest.mark.unit

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
FOLDERS = "biam_tf|training|serving|benchmarks|tests|configs|docs"
PATH = re.compile(rf"(?<![\w/.$~-])(?:{FOLDERS})/[\w./-]*")
COMMAND = re.compile(r"python3? -m ((?:biam_tf|training|serving|benchmarks)[\w.]*\w)")
MODULE = re.compile(r"(?<![\w/.-])(?:biam_tf|training|serving|benchmarks)(?:\.\w+)+")
DEFINED_IN = re.compile(r"`(\w+)`\s+(?:of|in)\s+`((?:" + FOLDERS + r")/[\w/]+\.py)`")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
# Written by the reader of docs/extending.md, below the user's cache folder, and on TensorBoard.
NOT_FILES = re.compile(
    r"biam_tf/(baselines/scene_pooling\.py|layers/squeeze_excitation\.py|indexes)|training/data/class_folders\.py"
    r"|training/(loss|loss_of_epoch|learning_rate|images_per_second)$"
)


def texts(page: pathlib.Path) -> list[str]:
    """Returns the code blocks and code spans of a page."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```.*?```", text, re.DOTALL)
    return blocks + re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def module_exists(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, something in a module, or a setting."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if module_exists(".".join(parts[:length])):
            break
    found = importlib.import_module(".".join(parts[:length])) if length < len(parts) else None
    for part in parts[length:]:
        if not hasattr(found, part):
            return is_setting(parts)
        found = getattr(found, part)
    return True


def is_setting(parts: list[str]) -> bool:
    from training.config import RunConfig

    found = RunConfig()
    for part in parts:
        if part not in {field.name for field in dataclasses.fields(found)}:
            return False
        found = getattr(found, part)
    return True


def named(pattern: re.Pattern, page: pathlib.Path) -> set[str]:
    return {found.rstrip(".") for text in texts(page) for found in pattern.findall(text)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
class TestPage:
    def test_its_links_and_paths_exist(self, page):
        links = {str(page.parent / link) for link in LINK.findall(page.read_text("utf-8"))}
        paths = {str(ROOT / path) for path in named(PATH, page) if not NOT_FILES.match(path)}
        assert [path for path in sorted(links | paths) if not pathlib.Path(path).exists()] == []

    def test_what_is_in_a_file_is_there(self, page):
        found = DEFINED_IN.findall(page.read_text("utf-8"))
        missing = [
            f"{name} in {path}"
            for name, path in found
            if not re.search(
                rf"^( *((async )?def|class) )?{name}\b", (ROOT / path).read_text("utf-8"), re.M
            )
        ]
        assert missing == []

    def test_its_commands_exist(self, page):
        missing = [name for name in sorted(named(COMMAND, page)) if not module_exists(name)]
        assert missing == []

    def test_its_modules_and_settings_exist(self, page):
        if page.name == "datasets.md":
            pytest.importorskip("tensorflow_datasets", reason="extra [datasets]")
        missing = [name for name in sorted(named(MODULE, page)) if not resolves(name)]
        assert missing == []


def test_messages_among_the_frequent_questions_are_those_of_the_code():
    page = (ROOT / "docs" / "questions.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `([^`]*)` \|", page, re.MULTILINE)
    assert len(messages) >= 10
    sources = "\n".join(
        path.read_text(encoding="utf-8")
        for package in ("biam_tf", "training", "serving")
        for path in (ROOT / package).rglob("*.py")
    )
    joined = re.sub(r'"\s*\n\s*f?"', "", sources)  # strings over several lines
    pieces = {piece for message in messages for piece in message.split("…")}
    assert [piece for piece in sorted(pieces) if piece.strip(" ;:,") not in joined] == []


def test_what_does_not_exist_is_noticed():
    assert not resolves("training.pipelines") and not resolves("biam_tf.layers.NoSuchLayer")
    assert not resolves("training.no_such_setting") and resolves("training.optimizer.beta_1")
    assert resolves("biam_tf.layers.RegionClassifier") and resolves("serving.demo_page")


@pytest.mark.integration
@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path):
    pytest.importorskip("sphinx", reason="extra [docs]")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", tmp_path / "trees"]
    site = tmp_path / "site"
    done = subprocess.run([*command, ROOT / "docs", site], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {str(page.relative_to(site)): page.read_text() for page in site.rglob("*.html")}
    for name in ("index.html", "serving.html", "project/architecture.html"):
        fetched = re.findall(
            r'<(?:script|link)[^>]+(?:src|href)="((?:https?:)?//[^"]+)"', pages[name]
        )
        assert fetched == []
    assert "num_heads" in pages["api/layers.html"] and "--most-changes" in pages["commands.html"]
    assert "thresholds" in (site / "searchindex.js").read_text()
    notebooks = {path.name for path in (ROOT / "docs" / "notebooks").iterdir()}
    assert {path.name for path in site.rglob("*.ipynb")} == notebooks and len(notebooks) >= 2
