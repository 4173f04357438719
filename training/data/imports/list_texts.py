"""Lists written into a cell: of JSON, Python, NumPy and Label Studio."""

import ast
import json
import re

_QUOTED = re.compile(r"""[uUr]?('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""", re.DOTALL)
_BARE = re.compile(r'[^,"\[\]{}]+')
_ARRAY = re.compile(r"(?:np\.|numpy\.)?array\((\[.*\])(?:, dtype=[^)]*)?\)", re.DOTALL)
_BRACKETS = {"[": "]", "{": "}", "(": ")"}


def listed_in(cell: str) -> tuple[list[str], bool] | None:
    """Returns the items of a list in brackets, and whether one of them is in quotes.

    `["a", "b"]`, `['a', 'b']`, `('a', 'b')`, `{'a', 'b'}`, NumPy's `['a' 'b']`, `[a, b]` and
    `{a,b}` are lists of the same two items. Numbers and null are their text.

    Returns:
        None if the text is not such a list, or not a whole one.
    """
    cell = cell.strip()
    if array := _ARRAY.fullmatch(cell):
        cell = array[1]
    if cell in ("[]", "{}", "()", "set()"):
        return [], False
    if len(cell) < 2 or _BRACKETS.get(cell[0]) != cell[-1]:
        return None
    try:
        # Numbers stay as they are written.
        values = json.loads(cell, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return _items(cell)
    if not isinstance(values, list) or any(isinstance(value, list | dict) for value in values):
        return None
    quoted = any(isinstance(value, str) for value in values) and '"' in cell
    return ["null" if value is None else str(value) for value in values], quoted


def named_in(cell: str) -> list[str] | None:
    """Returns the names in Label Studio's form of a cell, such as `{"choices": ["a", "b"]}`.

    Returns:
        None if the text is neither an object with a list of names nor a list of such objects.
    """
    cell = cell.strip()
    if not cell.startswith(("{", "[")):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        values = value if isinstance(value, list) else [value]
        found = [names_of_value(one) for one in values]
        if not found or any(names is None for names in found):
            return None
        return list(dict.fromkeys(name for names in found for name in names or ()))
    return None


def names_of_value(value: object, whole_path: bool = False) -> list[str] | None:
    """Returns the names in a result of Label Studio.

    Args:
        value: such as `{"choices": ["a"]}`, `{"rectanglelabels": ["a"], "x": 3}` or
            `{"taxonomy": [["animal", "dog"]]}`.
        whole_path: whether names of a taxonomy are its whole path, `animal/dog`; else its leaf.

    Returns:
        None if the value has no names.
    """
    if not isinstance(value, dict):
        return None
    for key, listed in value.items():
        if key == "choices" or key == "taxonomy" or str(key).endswith("labels"):
            paths = [listed] if isinstance(listed, str) else listed
            if isinstance(paths, list) and all(map(_is_name_or_path, paths)):
                return [_joined(path, whole_path) for path in paths]
    return None


def _is_name_or_path(path: object) -> bool:
    parts = path if isinstance(path, list) and path else [path]
    return all(isinstance(part, str) and part.strip() for part in parts)


def _joined(path: str | list[str], whole_path: bool) -> str:
    if isinstance(path, str):
        return path
    return "/".join(part.strip() for part in path) if whole_path else path[-1]


def _items(cell: str) -> tuple[list[str], bool] | None:
    inner, items, quoted, position = cell[1:-1], [], False, 0
    while position < len(inner):
        if inner[position].isspace() or inner[position] == ",":
            position += 1
            continue
        if found := _QUOTED.match(inner, position):
            try:
                items.append(ast.literal_eval(found[1]))
            except (ValueError, SyntaxError):
                return None
            quoted, position = True, found.end()
            if not re.match(r"\s*(,|$)|\s+['\"]", inner[position:]):
                return None  # 'a'b: not a list
        elif found := _BARE.match(inner, position):
            items.append(found[0].strip())
            position = found.end()
        else:
            return None
    if "..." in items or (cell[0] == "(" and not quoted):
        return None  # a list that NumPy cut short; a name in parentheses
    return items, quoted
