"""Texts of others in Markdown: names of classes, runs and files, which may hold its signs.

A class may be named `[free](http://evil.example)` or `<img src=…>` by whoever made the list. In a
model card it stands as it is written, on one line, without becoming a link, a picture or HTML.
"""

import re

# Those that mean something within a line. Signs at the beginning of a line have no such place.
_SIGNS = re.compile(r"([\\`*_\[\]<>|~&#!])")
# Addresses that become links by themselves.
_LINKS = re.compile(r"(?i)(?<=[a-z0-9])(:)(?=//)|(?<=www)(\.)|(@)(?=\w)")


def escaped(text: object) -> str:
    """Returns a text that Markdown shows as it is, on one line.

    An underscore between letters or digits means nothing in Markdown and stays.
    """
    line = " ".join(str(text).split())
    line = re.sub(r"(?<=[^\W_])_(?=[^\W_])", "\0", line)
    line = _SIGNS.sub(r"\\\1", line)
    line = _LINKS.sub(lambda found: f"\\{found[0]}", line)
    return line.replace("\0", "_")


def code(text: object) -> str:
    """Returns a text as code within a line; backquotes in it do not end it."""
    line = " ".join(str(text).split())
    fence = _longer_than_any_in(line, 1)
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}"


def code_block(text: str) -> str:
    """Returns lines as a block of code; a row of backquotes in them does not end it."""
    fence = _longer_than_any_in(text, 3)
    return f"{fence}\n{text}\n{fence}"


def _longer_than_any_in(text: str, least: int) -> str:
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    return "`" * max(least, longest + 1)
