"""Names in Markdown, read back by a parser of Markdown that is independent of the code."""

import re

import pytest

from biam_tf.markdown import code, code_block, escaped

pytestmark = pytest.mark.unit

NAMES = [
    "dog",
    "red_car",
    "_secret_",
    "[free](http://evil.example)",
    "![](http://evil.example/pixel.png)",
    "<img src=x onerror=alert(1)>",
    "**bold** ~~gone~~ `code`",
    "a\\*b\\",
    "| cell | cell |",
    "&lt;b&gt;",
    "two\nlines\n# heading",
    "http://evil.example/a_b www.evil.example x@evil.example",
    "l'été à 5 %",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_as_it_is_written(name):
    text = escaped(name)
    # What CommonMark shows of a line without any active sign: backslashes before punctuation go.
    shown = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text)
    assert shown == " ".join(name.split()) and "\n" not in text
    active = re.sub(r"\\[!-/:-@\[-`{-~]", "", text)
    assert not re.search(r"[`*\[\]<>|~&]|://|www\.|(?<!\w)_|_(?!\w)", active)


def test_common_names_stay_readable():
    assert escaped("red_car") == "red_car" and escaped("t-shirt (blue)") == "t-shirt (blue)"


def test_code_is_not_ended_by_what_is_in_it():
    assert code("a photo of {name}") == "`a photo of {name}`"
    assert code("a `b` c``") == "``` a `b` c`` ```"
    block = code_block("dog\n```\n# x\n````")
    assert block.startswith("`````\n") and block.endswith("\n`````")
