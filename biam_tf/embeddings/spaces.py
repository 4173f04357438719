"""The space of images and texts that class embeddings are in, known by a fingerprint.

Embeddings of two image-text models may have the same length and yet nothing to do with each other:
features of one are not scored against embeddings of the other.
"""

import json
import pathlib

from biam_tf.backbones.joint_space import JointSpace
from biam_tf.backbones.preset_folder import PresetFolder
from biam_tf.embeddings.files import read_note
from biam_tf.embeddings.sources import is_text_tower, load_encoder
from biam_tf.errors import UserError


def space_of_file(path: str) -> str | None:
    """Returns the fingerprint of the image-text model that made a file of embeddings.

    Args:
        path: an .npz file that `training.embed_classes` wrote, or another file.

    Returns:
        The fingerprint; None: it is unknown, or the embeddings are of several sources.
    """
    if pathlib.Path(path).suffix.lower() != ".npz":
        return None
    note = read_note(pathlib.Path(path))
    if note is None:
        return None
    try:
        (source,) = json.loads(note)["sources"]
        return source.get("space")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def require_joint_space(
    space: JointSpace | None, word_vectors: str | None, backbone: str, where: str
) -> None:
    """Checks that class embeddings are in the space of a backbone's features.

    Args:
        space: of the features; None: they are in no space of texts.
        word_vectors: the source of the class embeddings; None: the data set's attributes.
        backbone: its name.
        where: begins the errors, such as the setting that asks for such a space.

    Raises:
        UserError: they are in another space, or it is not known in which.
    """
    if space is None:
        raise UserError(
            f"{where}: needs features in the space of texts, and those of {backbone} are not: set "
            "backbone.name to keras_hub:PRESET of an image-text model (CLIP, MetaCLIP 2, SigLIP, "
            "SigLIP 2), and backbone.regions to joint"
        )
    if word_vectors is not None and is_text_tower(word_vectors):
        if _is_same_preset(word_vectors, backbone):
            return
        found = load_encoder(word_vectors).space
    else:
        found = None if word_vectors is None else space_of_file(word_vectors)
    if found == space.fingerprint:
        return
    remedy = (
        f"set vocabulary.word_vectors to {backbone}, or to a file that python -m "
        f"training.embed_classes made with --source {backbone}"
    )
    if found is None:
        raise UserError(
            f"{where}: class embeddings must be those of the text side of {backbone}, and nothing "
            f"says that those of {word_vectors or 'the data set'} are; {remedy}"
        )
    raise UserError(
        f"{where}: the class embeddings of {word_vectors} are in the space {found}, the features "
        f"of {backbone} in {space.fingerprint}: they are of two different models; {remedy}"
    )


def _is_same_preset(one: str, other: str) -> bool:
    if one == other:
        return True
    if not is_text_tower(other):
        return False
    return PresetFolder(one).folder.resolve() == PresetFolder(other).folder.resolve()
