"""Errors that are part of the interface: what is wrong, where, and what to do about it."""

import difflib
import itertools
import os
import re
from collections.abc import Collection, Iterable

_MOST_COMPARED = 1000


class UserError(ValueError):
    """Input that cannot be used as it is: a wrong key, a broken file, a missing folder.

    The message alone is meant to be enough: it names the file, row or key, the value, and the
    way out. Command lines print it without a traceback and exit with status 2.
    """


class TemporaryFailure(RuntimeError):
    """Work that was ended from outside, with nothing wrong in it: the same command goes on.

    Command lines print the message without a traceback and exit with `exit_status`, which no
    other outcome has, so that a scheduler can tell what to start again.
    """

    exit_status = 75  # EX_TEMPFAIL of sysexits.h


def nearest_names(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Returns up to `count` of the `known` names that look most like `name`, best first."""
    return difflib.get_close_matches(name, list(known), n=count, cutoff=0.6)


def nearest_words(word: str, known: Collection[str]) -> list[str]:
    """Returns up to three of the `known` words, of which there may be millions, nearest first."""
    # Comparing with each of a million words takes minutes; a misspelling nearly always keeps
    # its first letter or its ending, and about its length.
    word = word.lower()
    likely = {
        other
        for other in known
        if abs(len(other) - len(word)) <= 2
        and (other[:1].lower() == word[:1] or other[-3:].lower() == word[-3:])
    }
    return difflib.get_close_matches(word, sorted(likely), n=3, cutoff=0.65)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns `; did you mean 'x'?`, or the list of what is known where nothing is near."""
    known = list(known)
    nearest = nearest_names(name, known, count=1)
    if nearest:
        return f"; did you mean {nearest[0]!r}?"
    return f"; known: {', '.join(sorted(known))}" if known else ""


def nearest_path(path: str | os.PathLike) -> str:
    """Returns `; did you mean 'models/x'?`, beside a missing path; empty if nothing is near."""
    folder, name = os.path.split(os.fspath(path).rstrip(os.sep))
    try:
        with os.scandir(folder or os.curdir) as entries:
            # Comparing with each of thousands of photos takes seconds.
            beside = [entry.name for entry in itertools.islice(entries, _MOST_COMPARED)]
    except OSError:
        return ""
    nearest = nearest_names(name, sorted(beside), count=1)
    return f"; did you mean {os.path.join(folder, nearest[0])!r}?" if nearest else ""


def plain_message(message: str) -> str:
    """Returns the message of a check in an exported graph, without what TensorFlow adds to it."""
    found = re.search(r"^assertion failed: \[(.*)\]$", message, re.MULTILINE)
    return found[1] if found else message.partition("\n")[0]
