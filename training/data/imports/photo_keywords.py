"""Reads the keywords that photo programs write into photos and beside them."""

import dataclasses
import os
import pathlib
import warnings
from typing import Any

from PIL import Image, ImageFile, IptcImagePlugin

from biam_tf.errors import UserError
from biam_tf.photos import photo_problem
from training.data.file_walk import files_below
from training.data.imports.listed_photos import ListedPhoto, Listing, clean_name, some_of
from training.data.imports.photo_paths import PhotoPaths
from training.data.imports.xml_files import parse_xml
from training.data.problems import Problems

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .gif .bmp .webp .heic .heif .avif .tif .tiff .jxl".split()
)
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_FLAT = "{http://purl.org/dc/elements/1.1/}subject"
_HIERARCHICAL = {  # and the sign between the levels
    "{http://www.digikam.org/ns/1.0/}tagslist": "/",
    "{http://ns.adobe.com/lightroom/1.0/}hierarchicalsubject": "|",
}
_XMP_OF_JPEG = b"http://ns.adobe.com/xap/1.0/\x00"
_INTERNAL = "_Digikam_Internal_Tags_"
_IPTC_KEYWORDS = (2, 25)


@dataclasses.dataclass
class Keywords:
    """The keywords of a photo.

    Attributes:
        flat: without levels.
        paths: levels of hierarchical keywords, from the outermost.
        is_guessed: whether letters beyond ASCII were read as Latin-1, as IPTC did not say.
    """

    flat: list[str] = dataclasses.field(default_factory=list)
    paths: list[tuple[str, ...]] = dataclasses.field(default_factory=list)
    is_guessed: bool = False

    def names(self, whole_path: bool) -> list[str]:
        """Returns the class names.

        Args:
            whole_path: whether a hierarchical keyword is its path, `animal/dog`; its levels are
                then no keywords of their own. Else it is its last level.
        """
        if not whole_path:
            return list(dict.fromkeys([path[-1] for path in self.paths] + self.flat))
        levels = {clean_name(level) for path in self.paths for level in path}
        flat = [name for name in self.flat if clean_name(name) not in levels]
        return list(dict.fromkeys(["/".join(path) for path in self.paths] + flat))


def read_keywords(
    directory: pathlib.Path,
    split: str | None,
    whole_path: bool,
    keep_untagged: bool,
    shares: tuple[float, float],
    problems: Problems,
) -> Listing:
    """Reads the photos below a folder; their keywords are their labels.

    Args:
        directory: with photos in any sub-folders.
        split: of all photos; None: by path.
        whole_path: see `Keywords.names`.
        keep_untagged: whether photos without keywords are kept, as showing no class.
        shares: of the photos in val and test where `split` is None.
        problems: of the folder as a whole.

    Returns:
        The photos; those that cannot be opened, or whose XMP is broken, are in `failed`.

    Raises:
        UserError: there is no such folder.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: no such folder; give a folder of photos")
    listing = Listing()
    finder = PhotoPaths(directory)
    files = sorted(path for path, _ in files_below(directory))
    by_lower_case = {path.lower(): path for path in files}
    paths_of: dict[str, set[str]] = {}
    untagged, guessed = 0, []
    photos = [path for path in files if os.path.splitext(path)[1].lower() in SUFFIXES]
    for path in photos:
        location = str(directory / path)
        own_split = split or finder.split(location, shares)
        try:
            keywords = _keywords(directory, path, by_lower_case)
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            listing.failed[location] = str(error)
            listing.photos.append(ListedPhoto(location, own_split, (), None, path))
            continue
        for levels in keywords.paths:
            paths_of.setdefault(clean_name(levels[-1]), set()).add("/".join(levels))
        guessed += [path] if keywords.is_guessed else []
        names = [listing.classes.add(name, path) for name in keywords.names(whole_path)]
        untagged += not names
        if names or keep_untagged:
            unique = tuple(dict.fromkeys(names))
            listing.photos.append(ListedPhoto(location, own_split, unique, None, path))
    listing.classes.sort()
    listing.notes += _notes(directory, untagged, keep_untagged, guessed)
    others = len(files) - len(photos) - sum(path.lower().endswith(".xmp") for path in files)
    if others:
        listing.notes.append(f"{directory}: {others} files that are not photos are left out")
    shared = [f"{name!r} for {some_of(sorted(p))}" for name, p in paths_of.items() if len(p) > 1]
    if shared and not whole_path:
        listing.notes.append(
            f"one class is several hierarchical keywords: {some_of(shared)}; --whole-path keeps "
            "them apart"
        )
    if not photos:
        problems.add(str(directory), None, "has no photos")
    elif not listing.classes.names and not listing.failed:
        problems.add(str(directory), None, f"none of the {len(photos)} photos has keywords")
    return listing


def keywords_of_photo(path: str | os.PathLike[str]) -> Keywords:
    """Returns the keywords in a photo: those of XMP, or else those of IPTC.

    Raises:
        ValueError: the photo cannot be opened, or its XMP is broken.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about unusual metadata
        try:
            with Image.open(path) as photo:
                if photo.format == "PNG":
                    photo.load()  # some programs write XMP after the pixels
                xmp, iptc = _xmp(photo), _iptc(photo)
        except Exception as error:  # decoders raise many types of errors for broken bytes
            raise ValueError(photo_problem(path) or "cannot be opened") from error
    keywords = keywords_of_xmp(xmp) if xmp else Keywords()
    return keywords if keywords.flat or keywords.paths or iptc is None else _decoded(iptc)


def keywords_of_xmp(content: bytes) -> Keywords:
    """Returns `dc:subject`, `digiKam:TagsList` and `lr:hierarchicalSubject` of an XMP packet.

    Raises:
        ValueError: the packet is not well-formed XML, or declares entities.
    """
    try:
        root = parse_xml(content.strip(b"\x00 \t\r\n"))
    except UserError:
        raise
    except ValueError as error:
        raise ValueError(f"its XMP {error}") from None
    keywords = Keywords()
    for element in root.iter():
        found = [(str(element.tag), _texts(element))]
        found += [(key, [value]) for key, value in element.attrib.items()]
        for tag, texts in found:
            if tag == _FLAT:
                for text in texts:
                    _add(keywords, text, "|")
            elif sign := _HIERARCHICAL.get(_lower_name(tag)):
                for text in texts:
                    _add(keywords, text, sign, is_path=True)
    return keywords


def _lower_name(tag: str) -> str:
    space, bracket, name = tag.rpartition("}")
    return f"{space}{bracket}{name.lower()}"


def _texts(element: Any) -> list[str]:
    items = list(element.iter(f"{_RDF}li"))
    return [item.text or "" for item in items] or [element.text or ""]


def _add(keywords: Keywords, text: str, sign: str, is_path: bool = False) -> None:
    for part in text.split(";"):  # some programs write all keywords into one item
        levels = tuple(level.strip() for level in part.split(sign) if level.strip())
        if not levels or levels[0] == _INTERNAL:
            continue
        if is_path or len(levels) > 1:
            keywords.paths.append(levels)
        else:
            keywords.flat.append(levels[0])


def _keywords(directory: pathlib.Path, path: str, by_lower_case: dict[str, str]) -> Keywords:
    """Returns the keywords of a photo's sidecar if it has some, else those in the photo."""
    for name in (f"{path}.xmp", f"{os.path.splitext(path)[0]}.xmp"):
        sidecar = by_lower_case.get(name.lower())
        if sidecar:
            try:
                keywords = keywords_of_xmp((directory / sidecar).read_bytes())
            except OSError as error:
                raise ValueError(f"{sidecar}: {error.strerror}") from None
            except UserError:
                raise
            except ValueError as error:
                raise ValueError(f"{sidecar}: {error}") from None
            if keywords.flat or keywords.paths:
                return keywords
    return keywords_of_photo(directory / path)


def _xmp(photo: ImageFile.ImageFile) -> bytes | None:
    xmp = photo.info.get("xmp") or photo.info.get("XML:com.adobe.xmp")
    for _, content in () if xmp else getattr(photo, "applist", ()):  # Pillow before 11
        if content.startswith(_XMP_OF_JPEG):
            xmp = content.removeprefix(_XMP_OF_JPEG)
    return xmp.encode() if isinstance(xmp, str) else xmp


def _iptc(photo: ImageFile.ImageFile) -> dict | None:
    try:
        return IptcImagePlugin.getiptcinfo(photo)
    except Exception:  # broken records, of which nothing can be said
        return None


def _decoded(iptc: dict) -> Keywords:
    values = iptc.get(_IPTC_KEYWORDS, [])
    values = values if isinstance(values, list) else [values]
    keywords = Keywords()
    for value in values:
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = value.decode("latin-1")
            keywords.is_guessed = True
        _add(keywords, text.rstrip("\x00"), "|")
    return keywords


def _notes(
    directory: pathlib.Path, untagged: int, keep_untagged: bool, guessed: list[str]
) -> list[str]:
    notes = []
    if untagged:
        what = (
            "are kept, as showing no class" if keep_untagged else "are left out (--keep-untagged)"
        )
        notes.append(f"{directory}: {untagged} photos without keywords {what}")
    if guessed:
        notes.append(
            f"IPTC keywords of {len(guessed)} photos were read as Latin-1, as they are not UTF-8: "
            f"{some_of(guessed)}"
        )
    return notes
