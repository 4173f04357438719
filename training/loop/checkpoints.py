"""Checkpoints of a training: written whole or not at all, checked when they are read."""

import json
import os
import pathlib
import shutil
import sys
from collections.abc import Sequence

import tensorflow as tf

from biam_tf.errors import UserError
from biam_tf.files import sha256_of, write_json, writing_to

KEPT = 2
VARIABLES = "variables"  # prefix of TensorFlow's files
MANIFEST = "manifest.json"


class Checkpoints:
    """The newest checkpoints of a run, a numbered folder each.

    A checkpoint holds the values of all variables that training depends on, and copies of the
    best models as they then were: a run that goes on from it must not find the model of a later
    epoch, which may not come again in the same way. A manifest with the SHA-256 of every file
    is part of it. The folder is written under another name and renamed when everything is on
    the disk, so that a folder with a number is a whole checkpoint unless the disk spoils it.

    Args:
        path: the folder of the folders.
        variables: by position: the same settings build the same ones in the same order.
        files: the best models; those that exist are kept in each checkpoint.
    """

    def __init__(
        self,
        path: pathlib.Path,
        variables: Sequence[tf.Variable],
        files: Sequence[pathlib.Path] = (),
    ):
        self._path = path
        self._checkpoint = tf.train.Checkpoint(variables=list(variables))
        self._files = list(files)

    def save(self) -> None:
        """Writes a checkpoint, then removes all but the newest `KEPT`.

        Raises:
            UserError: it could not be written; earlier ones are as they were.
        """
        earlier = self._numbered()
        number = int(earlier[-1].name) + 1 if earlier else 1
        aside = self._path / ".partial"
        with writing_to(self._path):
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            self._checkpoint.write(str(aside / VARIABLES))
            for file in self._files:
                if file.exists():
                    shutil.copyfile(file, aside / file.name)
            written = sorted(aside.iterdir())
            write_json(aside / MANIFEST, {file.name: sha256_of(file) for file in written})
            for file in (*written, aside / MANIFEST, aside):
                _flush(file)
            os.rename(aside, self._path / f"{number:06d}")
            _flush(self._path)
            for folder in earlier[: 1 - KEPT]:
                shutil.rmtree(folder)

    def restore(self) -> bool:
        """Reads the newest checkpoint that is whole and puts its models back in place.

        A damaged one is named on standard error and set aside, and the one before it is taken.

        Returns:
            Whether there was a checkpoint.

        Raises:
            UserError: there are checkpoints, but none is whole, or they are not of this model.
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
                    print(f"{broken}: {damage}; going on from {folder}", file=sys.stderr)
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
        try:
            self._checkpoint.read(str(folder / VARIABLES)).assert_consumed()
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
                aside = file.with_name(f".partial-{file.name}")
                shutil.copyfile(kept, aside)
                os.replace(aside, file)


def _damage(folder: pathlib.Path) -> str | None:
    """Says what is wrong with a checkpoint's files, if anything is."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name, expected in manifest.items():
            if sha256_of(folder / name) != expected:
                return f"{name} is damaged (its SHA-256 is not that of {MANIFEST})"
    except FileNotFoundError as error:
        return f"{pathlib.Path(error.filename).name} is missing"
    except OSError as error:
        return f"cannot be read ({error})"
    except (ValueError, AttributeError):
        return f"{MANIFEST} is damaged"
    return None


def _flush(path: pathlib.Path) -> None:
    """Waits until a file or folder is on the disk itself, whatever happens to the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
