"""Keywords in photos and beside them."""

import io

import pytest
from import_tables import imported
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from training.data.imports.photo_keywords import keywords_of_photo, keywords_of_xmp
from training.import_data import main

pytest.importorskip("defusedxml")
pytestmark = pytest.mark.unit

PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:digiKam="http://www.digikam.org/ns/1.0/" xmlns:lr="http://ns.adobe.com/lightroom/1.0/">
{}</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""


def packet(*properties):
    texts = []
    for name, array, *items in properties:
        listed = "".join(f"<rdf:li>{item}</rdf:li>" for item in items)
        texts.append(f"<{name}><rdf:{array}>{listed}</rdf:{array}></{name}>")
    return PACKET.format("".join(texts)).encode()


def subject(*items):
    return ("dc:subject", "Bag", *items)


def iptc(*keywords, utf8=True):
    """An APP13 segment of Photoshop with IPTC keywords."""
    records = [(1, 90, b"\x1b%G")] if utf8 else []
    records += [(2, 25, keyword) for keyword in keywords]
    data = b"".join(bytes([28, r, n]) + len(v).to_bytes(2, "big") + v for r, n, v in records)
    block = b"8BIM\x04\x04\x00\x00" + len(data).to_bytes(4, "big") + data + b"\0" * (len(data) % 2)
    segment = b"Photoshop 3.0\x00" + block
    return b"\xff\xed" + (len(segment) + 2).to_bytes(2, "big") + segment


def save(path, xmp=None, app13=b""):
    photo, content = Image.new("RGB", (8, 8)), io.BytesIO()
    if path.suffix == ".png" and xmp:
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp.decode())
        photo.save(path, pnginfo=info)
        return
    form = {".jpg": "JPEG", ".webp": "WEBP", ".png": "PNG"}[path.suffix]
    photo.save(content, form, **({"xmp": xmp} if xmp else {}))
    data = content.getvalue()
    path.write_bytes(data[:2] + app13 + data[2:])


def test_keywords_of_three_formats_and_sidecars_become_labels(tmp_path, capsys):
    folder = tmp_path / "photos"
    (folder / "b").mkdir(parents=True)
    save(folder / "0.jpg", packet(subject("sea", "traffic  light", "sea")))
    save(folder / "1.png", packet(subject("caf\u00e9")))
    save(folder / "b" / "2.jpg")
    (folder / "b" / "2.xmp").write_bytes(packet(("digiKam:TagsList", "Seq", "animal/dog")))
    save(folder / "3.jpg", packet(subject("old")))
    (folder / "3.jpg.XMP").write_bytes(packet(subject("new")))
    save(folder / "4.jpg", None, iptc("caf\u00e9".encode(), b"sea"))
    save(folder / "5.jpg")
    (folder / "notes.txt").write_text("x")
    out = tmp_path / "out"
    assert main(["keywords", f"train={folder}", str(out)]) == 0
    assert imported(out) == (
        [
            ["image", "split", "labels"],
            ["0.jpg", "train", "sea;traffic light"],
            ["1.png", "train", "caf\u00e9"],
            ["3.jpg", "train", "new"],
            ["4.jpg", "train", "caf\u00e9;sea"],
            ["2.jpg", "train", "dog"],
        ],
        [
            ["name", "group"],
            *([name, "seen"] for name in ("caf\u00e9", "dog", "new", "sea", "traffic light")),
        ],
    )
    text = capsys.readouterr().out
    assert "1 photos without keywords are left out" in text
    assert "1 files that are not photos are left out" in text
    assert main(["keywords", f"train={folder}", str(tmp_path / "all"), "--keep-untagged"]) == 0
    assert ["5.jpg", "train", ""] in imported(tmp_path / "all")[0]


def test_hierarchical_keywords_are_leaves_or_whole_paths(tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    lightroom = packet(
        subject("animal", "dog", "sunny"),
        ("lr:hierarchicalSubject", "Bag", "animal|dog", "sunny"),
    )
    save(folder / "0.jpg", lightroom)
    save(
        folder / "1.jpg",
        packet(("digiKam:TagsList", "Seq", "toy/dog", "_Digikam_Internal_Tags_/x")),
    )
    for name, options, expected in (
        ("leaf", [], ["dog;sunny;animal", "dog"]),
        ("path", ["--whole-path"], ["animal/dog;sunny", "toy/dog"]),
    ):
        assert main(["keywords", f"train={folder}", str(tmp_path / name), *options]) == 0
        assert [row[2] for row in imported(tmp_path / name)[0][1:]] == expected
        text = capsys.readouterr().out
        assert ("'dog' for animal/dog, toy/dog; --whole-path" in text) is (name == "leaf")


def test_webp_has_keywords(tmp_path):
    save(tmp_path / "0.webp", packet(subject("sea")))
    assert keywords_of_photo(tmp_path / "0.webp").flat == ["sea"]


def test_other_ways_to_write_xmp():
    text = PACKET.replace('rdf:about=""', 'rdf:about="" dc:subject="a;b"')
    text = text.format("<dc:title><rdf:Alt><rdf:li>no</rdf:li></rdf:Alt></dc:title>")
    assert keywords_of_xmp(text.encode() + b"\n   \0\0").flat == ["a", "b"]
    assert keywords_of_xmp(packet(subject("x|y"))).paths == [("x", "y")]


def test_iptc_without_a_character_set_is_read_and_said(tmp_path):
    save(tmp_path / "0.jpg", None, iptc("caf\u00e9".encode("latin-1"), utf8=False))
    keywords = keywords_of_photo(tmp_path / "0.jpg")
    assert keywords.flat == ["caf\u00e9"] and keywords.is_guessed
    save(tmp_path / "1.jpg", packet(subject("sea")), iptc(b"old"))
    assert keywords_of_photo(tmp_path / "1.jpg").flat == ["sea"]  # XMP counts where there is both


def test_broken_photos_and_broken_xmp_are_named_together(tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    bomb = b'<!DOCTYPE a [<!ENTITY b "c">]>' + packet(subject("&b;")).partition(b"?>")[2]
    save(folder / "0.jpg", packet(subject("sea")))
    save(folder / "1.jpg")
    (folder / "1.jpg.xmp").write_bytes(bomb)
    save(folder / "2.jpg")
    (folder / "2.xmp").write_bytes(b"<x:xmpmeta")
    (folder / "3.jpg").write_bytes(b"")
    (folder / "4.jpg").write_bytes(b"not a photo")
    arguments = ["keywords", f"train={folder}", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert "4 of 5 photos are missing or broken" in capsys.readouterr().err
    failed = (tmp_path / "out" / "failed_photos.csv").read_text()
    assert "1.jpg.xmp: its XMP declares a document type or entities" in failed
    assert "2.xmp: its XMP is not well-formed XML" in failed
    assert "3.jpg" in failed and "4.jpg" in failed
    assert main([*arguments, "--max-broken-share=0.8"]) == 0


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda folder: None, "no such folder"),
        (lambda folder: folder.mkdir(), "has no photos"),
        (
            lambda folder: (folder.mkdir(), save(folder / "0.jpg")),
            "none of the 1 photos has keywords",
        ),
    ],
)
def test_a_folder_without_keywords_is_said(tmp_path, capsys, make, complaint):
    make(tmp_path / "photos")
    assert main(["keywords", str(tmp_path / "photos"), str(tmp_path / "out")]) == 2
    assert complaint in capsys.readouterr().err
