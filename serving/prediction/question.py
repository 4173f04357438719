"""What is asked about photos: the model, the classes, and which tags are wanted."""

import dataclasses
import json
import pathlib
from collections.abc import Iterable

from biam_tf.class_calibration import Selection
from biam_tf.errors import UserError, nearest_path
from serving import DEFAULT_MODEL_NAME

DEFAULT_TOP = 5
# Files of a run that its answers depend on.
_RUN_FILES = (".keras", ".npz", ".json", ".yaml")


@dataclasses.dataclass(frozen=True)
class Question:
    """The model, the classes, and which tags are wanted; can be sent to other machines.

    Attributes:
        model: folder of a run or of an exported model; None: another is given.
        preset: name of a pretrained tagger; None: another is given.
        server: `host:port`; None: another is given.
        model_name: on the server.
        timeout: seconds for a request to the server.
        classes: names; None: the model's own.
        top: largest number of tags of a photo; None: no limit.
        present: whether classes below their threshold are left out.
        threshold: lowest score of a tag, in place of the model's thresholds.
        probability: lowest probability of a tag, likewise.
    """

    model: str | None = None
    preset: str | None = None
    server: str | None = None
    model_name: str = DEFAULT_MODEL_NAME
    timeout: float = 60.0
    classes: tuple[str, ...] | None = None
    top: int | None = DEFAULT_TOP
    present: bool = False
    threshold: float | None = None
    probability: float | None = None

    @property
    def selection(self) -> Selection:
        """Which classes are tags."""
        return Selection(self.top, self.present, self.probability, self.threshold)

    @property
    def name(self) -> str:
        """The model, for people."""
        return self.server or self.model or self.preset or ""

    def identity(self) -> list[str]:
        """Returns all that the answers depend on besides the photos; TensorFlow is not imported.

        Raises:
            UserError: there is no such model.
        """
        chosen = dataclasses.replace(self, timeout=0.0)
        facts = [json.dumps(dataclasses.astuple(chosen))]
        if self.preset is not None:
            from biam_tf.embeddings.sources import PRESET_PREFIX, is_text_tower
            from biam_tf.pretrained import FORMAT, find_pretrained

            facts += [str(FORMAT)]
            if is_text_tower(self.preset):  # without reading gigabytes of weights
                files = pathlib.Path(self.preset.removeprefix(PRESET_PREFIX)).expanduser()
                facts += _states_of(file for file in files.rglob("*") if file.is_file())
            else:
                tagger = find_pretrained(self.preset)
                facts += [repr(dataclasses.replace(tagger, weights={})), *tagger.weights]
        elif self.model is not None:
            facts += _states(pathlib.Path(self.model))
        return facts


def _states(folder: pathlib.Path) -> list[str]:
    """Returns path, size and time of each file of a model."""
    from serving.rpc.version_folders import MODEL_FILE, newest_version

    if not folder.is_dir():
        from biam_tf.pretrained import PRETRAINED

        is_preset = str(folder) in PRETRAINED
        hint = f"; did you mean --preset {folder}?" if is_preset else nearest_path(folder)
        raise UserError(f"--model {folder}: no such folder{hint}")
    if (folder / "config.yaml").exists():
        files = [path for path in folder.iterdir() if path.suffix in _RUN_FILES]
    else:
        version = folder if (folder / MODEL_FILE).is_file() else newest_version(folder)
        files = [path for path in version.rglob("*") if path.is_file()]
    return _states_of(files)


def _states_of(files: Iterable[pathlib.Path]) -> list[str]:
    return [
        f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
        for path in sorted(files)
        for status in (path.stat(),)
    ]
