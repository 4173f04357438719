"""XMP as XML, changed in place: what is not a keyword stays as it is, comments included."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from biam_tf.errors import UserError
from serving.prediction.keywords import (
    DC,
    DIGIKAM,
    IPTC,
    IPTC_RECORD,
    LIGHTROOM,
    OWN,
    XMP_FIELDS,
    FieldChange,
    Refused,
    Standing,
)

try:
    from lxml import etree
except ImportError as missing:
    raise UserError(
        "keywords in sidecars need the package lxml; install it with pip install 'biam-tf[xmp]'"
    ) from missing

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_PREFIXES = {"dc": DC, "digiKam": DIGIKAM, "lr": LIGHTROOM, "biam": OWN}
_CONTAINERS = tuple(f"{{{RDF}}}{kind}" for kind in ("Bag", "Seq", "Alt"))
_EMPTY = f"""\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="biam_tf">
 <rdf:RDF xmlns:rdf="{RDF}">
  <rdf:Description rdf:about=""/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
""".encode()


class XmpPacket:
    """The XMP of a sidecar or photo.

    Args:
        contents: of the file; None: there is none yet.

    Raises:
        Refused: it is not well-formed XML, declares a document type, or is no XMP.
    """

    def __init__(self, contents: bytes | None = None):
        contents = _EMPTY if contents is None else contents
        self._wide = _wide_encoding(contents)
        try:
            if self._wide is not None:
                contents = contents.decode(self._wide).encode()
            contents = contents.strip(b"\x00 \t\r\n")
            root = etree.fromstring(contents, _parser(self._wide))
        except (etree.XMLSyntaxError, ValueError) as error:
            raise Refused(f"not whole XML ({error})") from None
        self._tree = root.getroottree()
        if self._tree.docinfo.internalDTD is not None:
            raise Refused("it declares a document type, which XMP does not have")
        found = list(root.iter(f"{{{RDF}}}RDF"))
        if len(found) != 1:
            raise Refused(f"no XMP: it has {len(found) or 'no'} rdf:RDF, and XMP has one")
        self._rdf = found[0]
        self._declared = contents.lstrip(b"\xef\xbb\xbf").startswith(b"<?xml ")

    def standing(self) -> Standing:
        """Returns the keywords, and those of them that were written here."""
        keywords, own = {}, {}
        for field, place in XMP_FIELDS.items():
            keywords[field] = self._texts(place.namespace, place.name)
            own[field] = self._texts(OWN, place.record)
        own[IPTC] = self._texts(OWN, IPTC_RECORD)
        return Standing(keywords, own)

    def change(self, changes: Mapping[str, FieldChange]) -> None:
        """Changes lists of keywords, and the lists of what was written here."""
        for field, change in changes.items():
            place = XMP_FIELDS[field]
            self._remove(place.namespace, place.name, change.removed)
            self._add(place.namespace, place.name, place.container, change.added)
            old = self._texts(OWN, place.record)
            self._remove(OWN, place.record, [item for item in old if item not in change.own])
            self._add(OWN, place.record, "Bag", [item for item in change.own if item not in old])

    def to_bytes(self) -> bytes:
        """Returns the contents of a file, in the Unicode encoding that it had, else in UTF-8."""
        if self._wide is not None:
            text = etree.tostring(self._tree, encoding="unicode")
            if self._declared:
                text = f'<?xml version="1.0" encoding="{self._wide[:6].upper()}"?>\n{text}'
            return f"\ufeff{text}".encode(self._wide)
        other = (self._tree.docinfo.encoding or "UTF-8").upper() not in ("UTF-8", "US-ASCII")
        return etree.tostring(self._tree, encoding="UTF-8", xml_declaration=self._declared or other)

    def _descriptions(self) -> list[Any]:
        return [child for child in self._rdf if isinstance(child.tag, str)]

    def _properties(self, namespace: str, name: str) -> Iterator[Any]:
        """Yields the elements of a property; programs differ in the case of its name."""
        for description in self._descriptions():
            for child in description:
                if isinstance(child.tag, str) and _is(child.tag, namespace, name):
                    yield child

    def _texts(self, namespace: str, name: str) -> list[str]:
        found = [
            value
            for description in self._descriptions()
            for key, value in description.attrib.items()
            if _is(str(key), namespace, name)
        ]
        for element in self._properties(namespace, name):
            found += [_text(item) for item in _items(element) or _single(element)]
        return found

    def _remove(self, namespace: str, name: str, texts: Any) -> None:
        if not texts:
            return
        for description in self._descriptions():
            for key, value in list(description.attrib.items()):
                if _is(str(key), namespace, name) and value in texts:
                    del description.attrib[key]
        for element in list(self._properties(namespace, name)):
            items, description = _items(element), element.getparent()
            for item in items:
                if _text(item) in texts:
                    _take_out(item)
            if any(_text(single) in texts for single in _single(element)):
                _take_out(element)
            elif items and not _items(element):
                _take_out(element)
            if not len(description) and set(description.attrib) <= {f"{{{RDF}}}about"}:
                if len(self._descriptions()) > 1:
                    _take_out(description)

    def _add(self, namespace: str, name: str, container: str, texts: Any) -> None:
        if not texts:
            return
        element = next(self._properties(namespace, name), None)
        if element is None:
            element = self._new_property(namespace, name)
        held = next((child for child in element if child.tag in _CONTAINERS), None)
        if held is None:
            held = self._new_list(element, container, self._take_attributes(namespace, name))
        for text in texts:
            _append(held, text)

    def _new_list(self, element: Any, container: str, texts: Sequence[str]) -> Any:
        """Returns a new list in a property, whose items are texts and what was its single value."""
        held = etree.Element(f"{{{RDF}}}{container}")
        for text in texts:
            etree.SubElement(held, f"{{{RDF}}}li").text = text
        if _single(element):
            item = etree.SubElement(held, f"{{{RDF}}}li", dict(element.attrib))
            item.text, item[:] = element.text, element[:]
            element.attrib.clear()
            element.text = None
        element.append(held)
        return held

    def _take_attributes(self, namespace: str, name: str) -> list[str]:
        """Removes a property from the attributes, to write it as an element."""
        return [
            description.attrib.pop(key)
            for description in self._descriptions()
            for key in list(description.attrib)
            if _is(str(key), namespace, name)
        ]

    def _new_property(self, namespace: str, name: str) -> Any:
        descriptions = self._descriptions()
        for description in descriptions:
            if namespace in description.nsmap.values():
                break
        else:
            about = descriptions[0].get(f"{{{RDF}}}about", "") if descriptions else ""
            description = etree.SubElement(
                self._rdf, f"{{{RDF}}}Description", {f"{{{RDF}}}about": about}, nsmap=_PREFIXES
            )
            if descriptions:
                description.tail, descriptions[-1].tail = descriptions[-1].tail, self._rdf.text
        element = etree.SubElement(description, f"{{{namespace}}}{name}")
        element.tail = "\n  "
        return element


def _is(tag: str, namespace: str, name: str) -> bool:
    space, _, local = tag.rpartition("}")
    return space == f"{{{namespace}" and local.lower() == name.lower()


def _items(element: Any) -> list[Any]:
    return [
        item for held in element if held.tag in _CONTAINERS for item in held.findall(f"{{{RDF}}}li")
    ]


def _single(element: Any) -> list[Any]:
    """Returns the element itself if it holds one value instead of a list."""
    is_list = any(child.tag in _CONTAINERS for child in element)
    return [element] if not is_list and _text(element) else []


def _text(item: Any) -> str:
    """Returns the text of a value: its own, that of its rdf:value, or the address it refers to."""
    for node in item.iter():
        for key in ("value", "resource"):
            if f"{{{RDF}}}{key}" in node.attrib:
                return node.get(f"{{{RDF}}}{key}").strip()
    value = item.find(f".//{{{RDF}}}value") if len(item) else None
    return ((item if value is None else value).text or "").strip()


def _wide_encoding(contents: bytes) -> str | None:
    """Returns the encoding of XML whose characters have two or four bytes; None: of no other."""
    for encoding in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"):
        for first in ("\ufeff", "<"):
            if contents.startswith(first.encode(encoding)):
                return encoding
    return None


def _parser(wide: str | None) -> Any:
    # lxml reads entities and other files unless it is told not to. What it is given of a wide
    # encoding is in UTF-8, whatever its declaration says.
    encoding = None if wide is None else "utf-8"
    return etree.XMLParser(
        encoding=encoding, resolve_entities=False, no_network=True, load_dtd=False
    )


def _append(held: Any, text: str) -> None:
    """Adds an item to a list, indented like those before it."""
    last = held[-1] if len(held) else None
    item = etree.SubElement(held, f"{{{RDF}}}li")
    item.text = text
    if last is not None:
        item.tail, last.tail = last.tail, held.text


def _take_out(element: Any) -> None:
    """Removes an element; what follows it takes its place."""
    previous, parent = element.getprevious(), element.getparent()
    if previous is not None and element.getnext() is None:
        previous.tail = element.tail
    parent.remove(element)
