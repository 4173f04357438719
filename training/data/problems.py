"""Collects the problems of a data set while it is read."""

import pathlib
from collections.abc import Callable

from biam_tf.errors import UserError

PROBLEMS_SHOWN = 30


class Problems:
    """The problems of a data set, to be reported in one error."""

    def __init__(self, directory: pathlib.Path):
        self._directory = directory
        self._lines: list[str] = []
        self.count = 0

    def add(self, file: str, row: int | None, problem: str | Callable[[], str]) -> None:
        """Adds a problem; a function is only called if its text is shown."""
        self.count += 1
        if self.count <= PROBLEMS_SHOWN:
            place = file if row is None else f"{file} row {row}"
            text = problem() if callable(problem) else problem
            self._lines.append(f"  {place}: {text}")

    def raise_if_any(self, alone_in_one_line: bool = False) -> None:
        """Raises one `UserError` with all problems, if there are any.

        Args:
            alone_in_one_line: whether a single problem has no heading.
        """
        if not self.count:
            return
        if self.count == 1 and alone_in_one_line:
            raise UserError(f"{self._directory}: {self._lines[0].strip()}")
        hidden = self.count - len(self._lines)
        more = [f"  and {hidden} more"] if hidden else []
        count = "1 problem" if self.count == 1 else f"{self.count} problems"
        raise UserError("\n".join([f"{self._directory}: {count}", *self._lines, *more]))
