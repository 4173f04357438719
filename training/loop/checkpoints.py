"""Checkpoints of a training: written whole or not at all, and verified when they are read."""

import json
import os
import pathlib
import re
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import keras
import tensorflow as tf

from biam_tf.errors import UserError
from biam_tf.files import replacing, sha256_of, write_json, writing_to

KEPT = 2
VARIABLES = "variables"  # prefix of TensorFlow's files
# Root of the names in them. Early versions had a list below another root, in the same order.
BY_NAME, BY_POSITION = "by_name", "variables"
MANIFEST = "manifest.json"


class Checkpoints:
    """The newest checkpoints of a run, each in a numbered folder.

    A checkpoint holds the values of all variables that training depends on, and copies of the
    best models at that time: a run that resumes from it must not find the model of a later
    epoch, which may turn out differently. A manifest lists the SHA-256 of every file. The folder
    is written under another name and renamed when everything is on the disk, so that a numbered
    folder is a whole checkpoint unless the disk damages it.

    Args:
        path: the folder of the numbered folders.
        variables: by name. Values are restored by name, so that a model with the same variables
            in another order gets the right ones, and one with other variables is refused.
        files: the best models; those that exist are copied into each checkpoint.
    """

    def __init__(
        self,
        path: pathlib.Path,
        variables: Mapping[str, tf.Variable],
        files: Sequence[pathlib.Path] = (),
    ):
        self._path = path
        self._variables = dict(variables)
        self._checkpoint = tf.train.Checkpoint(**{BY_NAME: self._variables})
        self._files = list(files)

    def save(self) -> None:
        """Writes a checkpoint, then removes all but the newest `KEPT`.

        Raises:
            UserError: it could not be written; earlier ones are as they were.
        """
        earlier = self._numbered()
        number = int(earlier[-1].name) + 1 if earlier else 1
        with writing_to(self._path):
            self._path.mkdir(parents=True, exist_ok=True)
            for partial in self._path.glob(".*partial"):  # of a process that was killed
                shutil.rmtree(partial)
            with replacing(self._path / f"{number:06d}") as partial:
                self._write(partial)
            _flush(self._path)
            for folder in earlier[: 1 - KEPT]:
                shutil.rmtree(folder)

    def _write(self, folder: pathlib.Path) -> None:
        folder.mkdir()
        self._checkpoint.write(str(folder / VARIABLES))
        for file in self._files:
            if file.exists():
                shutil.copyfile(file, folder / file.name)
        written = sorted(folder.iterdir())
        write_json(folder / MANIFEST, {file.name: sha256_of(file) for file in written})
        for path in (*written, folder / MANIFEST, folder):
            _flush(path)

    def restore(self) -> bool:
        """Reads the newest undamaged checkpoint and puts its models back in place.

        A damaged one is reported on standard error and renamed, and the one before it is used.

        Returns:
            Whether there was a checkpoint.

        Raises:
            UserError: all checkpoints are damaged, or they are of another model.
        """
        damaged = []
        for folder in reversed(self._numbered()):
            damage = _damage(folder)
            if damage:
                damaged.append((folder, damage))
                continue
            self._read(folder)
            with writing_to(self._path):
                for broken, damage in damaged:
                    print(f"{broken}: {damage}; continuing from {folder}", file=sys.stderr)
                    shutil.rmtree(self._path / f"damaged-{broken.name}", ignore_errors=True)
                    broken.rename(self._path / f"damaged-{broken.name}")
                self._put_models_back(folder)
            return True
        if damaged:
            what = "; ".join(f"{folder.name}: {damage}" for folder, damage in damaged)
            raise UserError(
                f"{self._path}: no checkpoint is whole ({what}). Bring the files back from a copy, "
                f"or delete {self._path} to train from the beginning"
            )
        return False

    def _numbered(self) -> list[pathlib.Path]:
        """The checkpoints, oldest first."""
        if not self._path.is_dir():
            return []
        return sorted(folder for folder in self._path.iterdir() if folder.name.isdecimal())

    def _read(self, folder: pathlib.Path) -> None:
        prefix = str(folder / VARIABLES)
        try:
            stored = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
            checkpoint = self._checkpoint
            if any(key.startswith(f"{BY_POSITION}/0/") for key in stored):
                checkpoint = tf.train.Checkpoint(**{BY_POSITION: list(self._variables.values())})
            checkpoint.read(prefix).assert_consumed()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            raise UserError(
                f"{folder}: its variables are not those of this model ({error}); it was written "
                "by another version of this program. Delete the run's folder to start again"
            ) from error

    def _put_models_back(self, folder: pathlib.Path) -> None:
        for file in self._files:
            kept = folder / file.name
            if not kept.exists():  # of an epoch that is still to come
                file.unlink(missing_ok=True)
            elif not file.exists() or sha256_of(file) != sha256_of(kept):
                with replacing(file) as partial:
                    shutil.copyfile(kept, partial)


def variable_names(model: keras.Model) -> dict[int, str]:
    """Returns a name for each variable of a model, by the variable's `id`.

    The names are the paths that Keras gives, such as `region_context/query/kernel`. Where a layer
    has no name of its own, Keras numbers it by what the process has built before (`dense_7`); such
    numbers are replaced by the rank among the siblings, so that a resumed run finds the same
    names. Variables with the same path, which layers of two joined models may have, are numbered
    in the order of the model.
    """
    renamed = _without_global_numbers(variable.path for variable in model.variables)
    names: dict[int, str] = {}
    uses: Counter[str] = Counter()
    for variable in model.variables:
        name = renamed[variable.path]
        names[id(variable)] = f"{name}@{uses[name]}" if uses[name] else name
        uses[name] += 1
    return names


def _without_global_numbers(paths: Iterable[str]) -> dict[str, str]:
    """Returns paths with `name_12` as `name` where 12 is the lowest number there, else `name#1`."""
    split = {path: path.split("/") for path in paths}
    numbers: dict[tuple[str, ...], set[int]] = defaultdict(
        set
    )  # by the parts before and the name without its number
    for parts in split.values():
        for depth, part in enumerate(parts):
            name, number = _split_number(part)
            numbers[*parts[:depth], name].add(number)
    renamed = {}
    for path, parts in split.items():
        new = []
        for depth, part in enumerate(parts):
            name, number = _split_number(part)
            rank = sorted(numbers[*parts[:depth], name]).index(number)
            new.append(f"{name}#{rank}" if rank else name)
        renamed[path] = "/".join(new)
    return renamed


def _split_number(part: str) -> tuple[str, int]:
    found = re.fullmatch(r"(.+)_(\d+)", part)
    return (found[1], int(found[2])) if found else (part, -1)


def _damage(folder: pathlib.Path) -> str | None:
    """Returns what is wrong with the files of a checkpoint, or None."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name, expected in manifest.items():
            if sha256_of(folder / name) != expected:
                return f"{name} is damaged (its SHA-256 is not that of {MANIFEST})"
    except FileNotFoundError as error:
        return f"{pathlib.Path(error.filename).name} is missing"
    except OSError as error:
        return f"cannot be read ({error})"
    except (ValueError, AttributeError, TypeError, RecursionError):
        return f"{MANIFEST} is damaged"
    return None


def _flush(path: pathlib.Path) -> None:
    """Waits until a file or folder is on the disk, safe from a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
