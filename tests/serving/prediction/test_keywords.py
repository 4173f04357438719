"""Keywords in sidecars and photos: merged with what stands there, and nothing of that lost."""

import json
import os
import re
import shutil
import xml.etree.ElementTree as ElementTree

import photos_with_metadata as made
import pytest
from PIL import Image

from biam_tf.errors import UserError
from serving.prediction import photo_metadata, sidecars
from serving.prediction.keywords import Refused, merge, wanted_keywords
from serving.prediction.photo_list import sidecar_of
from serving.prediction.photo_metadata import update_photos
from serving.prediction.sidecars import keywords_inside, update_sidecar
from serving.prediction.xmp_packet import XmpPacket

needs_exiftool = pytest.mark.skipif(
    shutil.which("exiftool") is None, reason="the program exiftool is not installed"
)


@pytest.mark.unit
def test_only_what_was_written_here_is_replaced():
    first = merge(["Hund", "dog"], [], ["Dog", "boat"])
    assert (first.added, first.removed, first.own) == (("boat",), (), ("boat",))
    second = merge(first.result, first.own, ["car"])
    assert second.result == ("Hund", "dog", "car")
    assert (second.removed, second.own) == (("boat",), ("car",))
    # Somebody has removed it by hand: it is added again, as it is wanted.
    assert merge(["Hund"], ["car"], ["car"]).added == ("car",)
    assert merge(["Hund"], ["car"], []).own == ()


@pytest.mark.unit
def test_the_prefix_stands_above_the_tags_in_trees_alone():
    found = wanted_keywords(["red/white", "a|b", "x\x07y"], " auto / objects /")
    assert found == wanted_keywords(["red/white", "a|b", "x\x07y"], "auto|objects")
    assert found == {
        "subject": ["red/white", "a|b", "x y"],
        "tags_list": ["auto/objects/red-white", "auto/objects/a|b", "auto/objects/x y"],
        "hierarchy": ["auto|objects|red/white", "auto|objects|a-b", "auto|objects|x y"],
        "iptc": ["red/white", "a|b", "x y"],
    }


@pytest.mark.unit
def test_a_sidecar_is_named_as_the_one_that_stands_there(tmp_path):
    photo = str(tmp_path / "a.jpg")
    assert sidecar_of(photo).name == "a.jpg.xmp"
    (tmp_path / "a.XMP").touch()
    assert sidecar_of(photo).name == "a.XMP"
    (tmp_path / "a.NEF").touch()  # whose sidecar that is
    assert sidecar_of(photo).name == "a.jpg.xmp"
    (tmp_path / "A.JPG.xmp").touch()
    assert sidecar_of(photo).name == "A.JPG.xmp"


def canonical(text: str) -> str:
    """Returns XML without what has no meaning, such as the order of attributes and line breaks."""
    return re.sub(r">\s+<", "><", ElementTree.canonicalize(text, with_comments=True))


def in_place(path, names, prefix="auto"):
    return update_sidecar(str(path), names, prefix, dry_run=False)


@pytest.mark.unit
def test_a_keyword_that_stands_there_twice_is_not_taken_out():
    found = merge(["dog", "cat", "dog"], ["dog", "cat"], [])
    assert (found.removed, found.result, found.own) == (("cat",), ("dog", "dog"), ())


FORMS = {
    "an attribute": 'dc:subject="Hund"/>',
    "one value": "><dc:subject>Hund</dc:subject></rdf:Description>",
    "a resource": '><dc:subject rdf:parseType="Resource"><rdf:value>Hund</rdf:value><xmp:Label>'
    "kept</xmp:Label></dc:subject></rdf:Description>",
    "an address": '><dc:subject rdf:resource="Hund"/></rdf:Description>',
    "alternatives": '><dc:subject><rdf:Alt><rdf:li xml:lang="de">Hund</rdf:li></rdf:Alt>'
    "</dc:subject></rdf:Description>",
    "an item with a qualifier": "><dc:subject><rdf:Bag><rdf:li><rdf:Description "
    'rdf:value="Hund" xmp:Label="kept"/></rdf:li></rdf:Bag></dc:subject></rdf:Description>',
}
SIDECAR = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
    'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/">'
    '<rdf:Description rdf:about="" xmp:Rating="3" {}</rdf:RDF></x:xmpmeta>'
)


@pytest.mark.unit
@pytest.mark.parametrize("form", FORMS)
def test_a_keyword_stays_in_whatever_form_it_stands(tmp_path, form):
    sidecar = tmp_path / "a.jpg.xmp"
    text = SIDECAR.format(FORMS[form])
    sidecar.write_text(text)
    in_place(tmp_path / "a.jpg", ["hund", "a, b; c"])
    written = sidecar.read_bytes()
    assert XmpPacket(written).standing().keywords["subject"] == ["Hund", "a, b; c"]
    assert written.count(b"kept") == text.count("kept") and b'Rating="3"' in written
    in_place(tmp_path / "a.jpg", ["sea"])
    assert XmpPacket(sidecar.read_bytes()).standing().keywords["subject"] == ["Hund", "sea"]
    in_place(tmp_path / "a.jpg", [])
    assert XmpPacket(sidecar.read_bytes()).standing().keywords["subject"] == ["Hund"]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("encoding", "declared", "then"),
    [
        ("utf-16", "", "utf-16"),
        ("utf-16", '<?xml version="1.0" encoding="UTF-16"?>\n', "utf-16"),
        ("utf-16-be", "", "utf-16-be"),
        ("utf-8-sig", "", "utf-8"),
        ("latin-1", '<?xml version="1.0" encoding="ISO-8859-1"?>', "utf-8"),
    ],
)
def test_a_sidecar_in_another_encoding_is_read_and_written(tmp_path, encoding, declared, then):
    sidecar = tmp_path / "a.jpg.xmp"
    text = SIDECAR.format("><dc:subject>Köln</dc:subject></rdf:Description>")
    sidecar.write_bytes((declared + text + "\n").encode(encoding))
    in_place(tmp_path / "a.jpg", ["Übung"])
    written = sidecar.read_bytes()
    assert XmpPacket(written).standing().keywords["subject"] == ["Köln", "Übung"]
    assert "<rdf:li>Köln</rdf:li>" in written.decode(then) and b"8859" not in written


@pytest.mark.unit
def test_two_rdf_in_one_sidecar_are_refused(tmp_path):
    sidecar = tmp_path / "a.jpg.xmp"
    whole = SIDECAR.format("/>")
    rdf = whole[whole.index("<rdf:RDF") : whole.index("</x:")]
    sidecar.write_text(whole.replace(rdf, rdf + rdf))
    with pytest.raises(Refused, match="it has 2 rdf:RDF, and XMP has one"):
        in_place(tmp_path / "a.jpg", ["dog"])
    assert sidecar.read_text() == whole.replace(rdf, rdf + rdf)


@pytest.mark.unit
def test_keywords_inside_a_photo_are_those_of_xmp_and_iptc(tmp_path):
    """As a new sidecar hides them, they are copied into it, whoever reads the format."""
    packet = SIDECAR.format("><dc:subject>Hund</dc:subject></rdf:Description>").encode()
    gif = tmp_path / "a.gif"
    Image.new("L", (2, 2)).save(gif)
    # As exiftool writes it; Pillow does not read it there.
    block = b"\x21\xff\x0bXMP DataXMP" + packet + b"\x01" + bytes(range(255, -1, -1)) + b"\0"
    gif.write_bytes(gif.read_bytes().replace(b"\x2c", block + b"\x2c", 1))
    assert keywords_inside(str(gif)).keywords["subject"] == ["Hund"]
    names = [b"Hund", b"Katze", b"a" * 64]
    iptc = b"".join(b"\x1c\x02\x19" + len(n).to_bytes(2, "big") + n for n in names)
    resource = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + len(iptc).to_bytes(4, "big") + iptc
    segment = b"\xff\xed" + (len(resource) + 2 + len(iptc) % 2).to_bytes(2, "big") + resource
    packet = packet.replace(b"Hund<", b"<rdf:Bag><rdf:li>Hund</rdf:li><rdf:li>" + b"a" * 70, 1)
    packet = packet.replace(b"/dc:subject>", b"/rdf:li></rdf:Bag></dc:subject>", 1).replace(
        b"aa/rdf", b"aa</rdf", 1
    )
    jpeg = tmp_path / "a.jpg"
    Image.new("L", (8, 8)).save(jpeg, xmp=packet)
    jpeg.write_bytes(
        jpeg.read_bytes()[:2] + segment + b"\0" * (len(iptc) % 2) + jpeg.read_bytes()[2:]
    )
    assert keywords_inside(str(jpeg)).keywords["subject"] == ["Hund", "a" * 70, "Katze"]


@pytest.mark.unit
def test_a_sidecar_of_digikam_keeps_everything_in_its_place(tmp_path):
    photo, sidecar = tmp_path / "a.jpg", tmp_path / "a.jpg.xmp"
    sidecar.write_text(made.DIGIKAM_SIDECAR, encoding="utf-8")
    os.chmod(sidecar, 0o640)
    path, changes = in_place(photo, ["hund", "red car", "Übung"])
    assert path == sidecar and set(changes) == {"subject", "tags_list", "hierarchy"}
    text = sidecar.read_text(encoding="utf-8")
    standing = XmpPacket(text.encode()).standing()
    assert standing.keywords["subject"] == ["Hund", "Köln", "red car", "Übung"]
    assert standing.keywords["tags_list"] == [
        *("Tiere/Hund", "Orte/Köln", "auto/hund", "auto/red car", "auto/Übung")
    ]
    assert standing.keywords["hierarchy"][2:] == ["auto|hund", "auto|red car", "auto|Übung"]
    assert standing.own["subject"] == ["red car", "Übung"]
    assert text.startswith("<?xpacket begin=") and text.endswith('<?xpacket end="w"?>')
    assert sidecar.stat().st_mode & 0o777 == 0o640
    assert in_place(photo, ["hund", "red car", "Übung"])[1] == {}
    in_place(photo, ["boat"])
    standing = XmpPacket(sidecar.read_bytes()).standing()
    assert standing.keywords["subject"] == ["Hund", "Köln", "boat"]
    in_place(photo, [])
    after = XmpPacket(sidecar.read_bytes()).standing()
    assert after == XmpPacket(made.DIGIKAM_SIDECAR.encode()).standing()
    assert canonical(sidecar.read_text(encoding="utf-8")) == canonical(made.DIGIKAM_SIDECAR)
    assert "tagged by hand" in canonical(made.DIGIKAM_SIDECAR)
    assert in_place(photo, [])[1] == {}


@needs_exiftool
def test_a_sidecar_of_lightroom_is_read_by_others_as_before(tmp_path):
    photo, sidecar = tmp_path / "b.jpg", tmp_path / "b.xmp"
    made.write_photo(photo, "plain")
    sidecar.write_text(made.LIGHTROOM_SIDECAR, encoding="utf-8")
    before = made.other_metadata(sidecar)
    assert len(before) > 8
    assert in_place(photo, ["dog", "狗"], "auto/x")[0] == sidecar
    assert made.other_metadata(sidecar) == before
    assert made.keywords(sidecar, "XMP-dc:Subject") == ["dog", "狗"]
    assert made.keywords(sidecar, "XMP-digiKam:TagsList") == ["auto/x/dog", "auto/x/狗"]
    assert made.keywords(sidecar, "XMP-lr:HierarchicalSubject") == ["auto|x|dog", "auto|x|狗"]
    assert not (tmp_path / "b.jpg.xmp").exists()


@needs_exiftool
def test_a_new_sidecar_begins_with_the_keywords_of_the_photo(tmp_path):
    for kind, expected in (
        ("xmp", ["dog", "Grüße"]),
        ("iptc_utf8", ["犬"]),
        ("iptc_latin", ["café"]),
    ):
        photo = tmp_path / f"{kind}.jpg"
        made.write_photo(photo, kind)
        contents = photo.read_bytes()
        sidecar, _ = in_place(photo, ["boat"])
        assert photo.read_bytes() == contents
        assert made.keywords(sidecar, "XMP-dc:Subject") == [*expected, "boat"]
        in_place(photo, [])
        assert made.keywords(sidecar, "XMP-dc:Subject") == expected
    assert keywords_inside(str(tmp_path / "none.jpg")).keywords == {}


@pytest.mark.unit
@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (made.DIGIKAM_SIDECAR[:900].encode(), "not whole XML"),
        (b"", "not whole XML"),
        (b"<html/>", "it has no rdf:RDF"),
        (b'<!DOCTYPE a [<!ENTITY e "x">]><a>&e;</a>', "declares a document type"),
    ],
)
def test_a_broken_sidecar_is_refused_named_and_untouched(tmp_path, contents, reason):
    sidecar = tmp_path / "a.jpg.xmp"
    sidecar.write_bytes(contents)
    with pytest.raises(Refused, match=rf"a\.jpg\.xmp: .*{reason}"):
        in_place(tmp_path / "a.jpg", ["dog"])
    assert sidecar.read_bytes() == contents
    assert os.listdir(tmp_path) == ["a.jpg.xmp"]


@pytest.mark.unit
def test_a_full_disk_leaves_the_sidecar(tmp_path, monkeypatch):
    sidecar = tmp_path / "a.jpg.xmp"
    sidecar.write_text(made.DIGIKAM_SIDECAR, encoding="utf-8")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sidecars.shutil, "copymode", full)
    with pytest.raises(UserError, match="No space left on device"):
        in_place(tmp_path / "a.jpg", ["dog"])
    assert sidecar.read_text(encoding="utf-8") == made.DIGIKAM_SIDECAR
    assert os.listdir(tmp_path) == ["a.jpg.xmp"]


def _flat_keywords(photo):
    return made.keywords(photo, "XMP-dc:Subject"), made.keywords(photo, "IPTC:Keywords")


@needs_exiftool
def test_photos_of_all_kinds_keep_all_other_metadata(tmp_path):
    photos = []
    for ending in made.FORMATS:
        for kind in made.EDITS:
            photos.append(tmp_path / f"{kind} ü.{ending}")
            made.write_photo(photos[-1], kind)
            os.utime(photos[-1], ns=(10**18, 10**18))
            os.chmod(photos[-1], 0o640)
    before = {p: (made.other_metadata(p), made.pixels(p)) for p in photos}
    stood = {
        p: (made.keywords(p, "XMP-dc:Subject"), made.keywords(p, "IPTC:Keywords")) for p in photos
    }
    contents = {p: p.read_bytes() for p in photos}

    def update(names, dry_run=False):
        done = update_photos([(str(p), names) for p in photos], "auto", dry_run)
        assert [one.problem for one in done] == [None] * len(photos)
        return [bool(one.changes) for one in done]

    names = ["red car", "dog", "café"]
    assert all(update(names, dry_run=True))
    assert {p: p.read_bytes() for p in photos} == contents
    assert all(update(names))
    for photo in photos:
        assert (made.other_metadata(photo), made.pixels(photo)) == before[photo]
        subject, iptc = stood[photo]
        expected = subject + [name for name in names if name not in subject]
        assert made.keywords(photo, "XMP-dc:Subject") == expected
        tree = made.keywords(photo, "XMP-lr:HierarchicalSubject")
        assert tree[-3:] == ["auto|red car", "auto|dog", "auto|café"]
        if photo.suffix == ".jpg":
            # What does not say that it is UTF-8 gets no more letters beyond ASCII.
            added = ["red car", "dog"] if "latin" in photo.name else names
            assert made.keywords(photo, "IPTC:Keywords") == iptc + added
        status = photo.stat()
        assert (status.st_mtime_ns, status.st_mode & 0o777) == (10**18, 0o640)
    assert not any(update(names))
    update([])
    for photo in photos:
        assert _flat_keywords(photo) == stood[photo]
        assert made.other_metadata(photo) == before[photo][0]
    assert len(os.listdir(tmp_path)) == len(photos)


@needs_exiftool
def test_a_photo_is_whole_when_the_work_is_ended_at_any_moment(tmp_path, monkeypatch):
    photo = tmp_path / "a.jpg"
    made.write_photo(photo, "xmp")
    contents = photo.read_bytes()
    monkeypatch.setattr(photo_metadata, "_put", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        update_photos([(str(photo), ["boat"])], "", False)
    assert photo.read_bytes() == contents and os.listdir(tmp_path) == ["a.jpg"]


@needs_exiftool
def test_what_exiftool_cannot_write_is_refused_and_untouched(tmp_path):
    made.write_photo(tmp_path / "good.jpg", "plain")
    made.write_photo(tmp_path / "real.png", "plain")
    os.rename(tmp_path / "real.png", tmp_path / "png.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:300])
    (tmp_path / "b.bmp").write_bytes(b"BM" + bytes(80))
    names = ("good.jpg", "png.jpg", "cut.jpg", "b.bmp", "gone.jpg")
    contents = {n: (tmp_path / n).read_bytes() for n in names[1:4]}
    done = update_photos([(str(tmp_path / name), ["dog"]) for name in names], "", False)
    assert done[0].problem is None
    for one, words in zip(done[1:], ("PNG", "", "--xmp sidecar", "cannot be read"), strict=True):
        assert one.problem is not None and words in one.problem and one.changes == {}
    assert {n: (tmp_path / n).read_bytes() for n in names[1:4]} == contents
    assert made.keywords(tmp_path / "good.jpg", "IPTC:Keywords") == ["dog"]


def test_the_command_writes_the_present_tags(finished, photos, capsys, tmp_path):
    from serving import predict

    command = [
        str(photos),
        "--model",
        str(finished.path),
        "--xmp",
        "sidecar",
        "--xmp-prefix",
        "auto",
    ]
    (photos / "broken.jpg").unlink()
    names = sorted(path.name for path in photos.rglob("*"))
    assert predict.main([*command, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert sorted(path.name for path in photos.rglob("*")) == names
    assert predict.main([*command, "--jsonl", str(tmp_path / "t.jsonl")]) == 0
    written = 0
    for line in (tmp_path / "t.jsonl").read_text(encoding="utf-8").splitlines():
        value = json.loads(line)
        present = [tag["name"] for tag in value["tags"] if tag["present"]]
        sidecar = f"{value['photo']}.xmp"
        assert os.path.exists(sidecar) == bool(present) == (f"{sidecar}: +" in shown)
        if present:
            standing = XmpPacket(open(sidecar, "rb").read()).standing()
            assert standing.keywords["subject"] == present
            ElementTree.parse(sidecar)
            written += 1
    assert written
    capsys.readouterr()
    assert predict.main([*command, "--dry-run"]) == 0
    assert "0 photos would change, 20 as they were" in capsys.readouterr().err
    first = next(photos.rglob("*.xmp"))
    first.write_text("<broken")
    assert predict.main(command) == 1
    assert f"keywords not written: {first}: not whole XML" in capsys.readouterr().err
