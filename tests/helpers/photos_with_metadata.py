"""Photos and sidecars with the metadata that cameras and photo programs leave in them."""

import atexit
import functools
import os
import pathlib
import re
import subprocess
import tempfile
from typing import IO

from PIL import Image, ImageCms, ImageDraw

EDITS = {
    "plain": [],
    "exif": [
        *("-EXIF:Make=Ricoh", "-EXIF:Model=GR III", "-EXIF:DateTimeOriginal=2021:05:06 07:08:09"),
        *("-EXIF:Orientation#=6", "-GPSLatitude=48.2", "-GPSLatitudeRef=N", "-EXIF:Artist=Zoë"),
    ],
    "xmp": [
        *("-XMP-dc:Subject=dog", "-XMP-dc:Subject=Grüße", "-XMP-dc:Title-de=Der Hund"),
        *("-XMP-dc:Title=The dog", "-XMP-xmp:Rating=4", "-XMP-lr:HierarchicalSubject=Tiere|dog"),
        *("-XMP-digiKam:TagsList=Tiere/dog", "-XMP-mwg-rs:RegionName=Anna"),
        *(
            "-XMP-mwg-rs:RegionType=Face",
            "-XMP-acdsee:Caption=other software",
            "-XMP-crs:Version=15",
        ),
        "-XMP-xmpMM:HistoryAction=saved",
    ],
    "iptc_latin": [
        "-IPTC:Keywords=caf\xe9",
        "-IPTC:Caption-Abstract=Fr\xfchling",
        "-IPTC:City=K\xf6ln",
    ],
    "iptc_utf8": [
        *("-IPTC:CodedCharacterSet=UTF8", "-IPTC:Keywords=犬", "-IPTC:City=京都"),
        *("-Photoshop:IPTCDigest=new", "-XMP-dc:Subject=犬"),
    ],
}
FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}


def write_photo(path: pathlib.Path, kind: str, profile: bool = True, number: int = 0) -> None:
    """Writes a photo of 40x30 pixels with the metadata of a kind in `EDITS`."""
    image = Image.new("RGB", (40, 30), (number * 37 % 256, 90, 200))
    ImageDraw.Draw(image).ellipse((5, 5, 30, 25), fill=(240, number * 11 % 256, 20))
    options = {}
    if profile:
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        options["icc_profile"] = srgb.tobytes()
    image.save(path, FORMATS[path.suffix[1:]], **options)
    edits = [edit for edit in EDITS[kind] if path.suffix == ".jpg" or "IPTC" not in edit]
    if edits:
        exiftool("-overwrite_original", *edits, str(path))


@functools.cache
def _process() -> tuple[subprocess.Popen, IO[str]]:
    """Exiftool as a process that stays, as its start takes longer than its work; its errors."""
    errors = tempfile.TemporaryFile("w+", encoding="utf-8")
    process = subprocess.Popen(
        ["exiftool", "-stay_open", "True", "-@", "-", "-common_args", "-charset", "filename=UTF8"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        encoding="utf-8",
        bufsize=1,
    )
    atexit.register(process.communicate, "-stay_open\nFalse\n")
    return process, errors


def exiftool(*arguments: str) -> str:
    """Runs a command of exiftool, which must succeed, and returns its output."""
    process, errors = _process()
    errors.seek(0, os.SEEK_END)
    before = errors.tell()
    process.stdin.write("\n".join([*arguments, "-echo3", "status ${status}", "-execute", ""]))
    process.stdin.flush()
    lines = list(iter(process.stdout.readline, "{ready}\n"))
    errors.seek(before)
    assert lines[-1:] == ["status 0\n"], errors.read()
    return "".join(lines[:-1])


# What changes with every write, and the keywords, which are compared on their own.
_OTHERS = re.compile(
    r"\[(System|ExifTool)\]|\[File\] +(Current IPTC Digest|CurrentIPTCDigest)|IPTCDigest|XMPToolkit"
    r"|\[XMP-biam\]|\[XMP-dc\] +Subject|TagsList|HierarchicalSubject|\[IPTC\] +Keywords"
    r"|ApplicationRecordVersion|EnvelopeRecordVersion|CodedCharacterSet|\[RIFF\] +WebP_Flags"
)


def other_metadata(path: pathlib.Path) -> list[str]:
    """Returns all that exiftool tells of a file, besides keywords and the file's own facts."""
    lines = exiftool("-a", "-G1", "-s", "-u", str(path)).splitlines()
    return sorted(line for line in lines if not _OTHERS.search(line))


def keywords(path: pathlib.Path, tag: str) -> list[str]:
    """Returns a list of keywords, as exiftool reads it."""
    text = exiftool("-s3", "-sep", "§", f"-{tag}", str(path)).rstrip("\n")
    return text.split("§") if text else []


def pixels(path: pathlib.Path) -> bytes:
    """Returns the pixels of a photo as they are stored."""
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


DIGIKAM_SIDECAR = """\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:digiKam="http://www.digikam.org/ns/1.0/"
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:acdsee="http://ns.acdsee.com/iptc/1.0/"
    xmlns:lr="http://ns.adobe.com/lightroom/1.0/"
    xmlns:MicrosoftPhoto="http://ns.microsoft.com/photo/1.0/"
   digiKam:ColorLabel="0"
   digiKam:PickLabel="2"
   acdsee:rating="3">
   <!-- tagged by hand -->
   <digiKam:TagsList>
    <rdf:Seq>
     <rdf:li>Tiere/Hund</rdf:li>
     <rdf:li>Orte/Köln</rdf:li>
    </rdf:Seq>
   </digiKam:TagsList>
   <MicrosoftPhoto:LastKeywordXMP>
    <rdf:Bag>
     <rdf:li>Tiere/Hund</rdf:li>
    </rdf:Bag>
   </MicrosoftPhoto:LastKeywordXMP>
   <lr:hierarchicalSubject>
    <rdf:Bag>
     <rdf:li>Tiere|Hund</rdf:li>
     <rdf:li>Orte|Köln</rdf:li>
    </rdf:Bag>
   </lr:hierarchicalSubject>
   <dc:subject>
    <rdf:Bag>
     <rdf:li>Hund</rdf:li>
     <rdf:li>Köln</rdf:li>
    </rdf:Bag>
   </dc:subject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""

LIGHTROOM_SIDECAR = """\
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Adobe XMP Core 7.0-c000 1.000000">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/"
    xmlns:stEvt="http://ns.adobe.com/xap/1.0/sType/ResourceEvent#"
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/"
   xmp:Rating="5"
   xmp:Label="Rot"
   xmpMM:DocumentID="xmp.did:1"
   crs:Exposure2012="+0.35">
   <xmpMM:History>
    <rdf:Seq>
     <rdf:li stEvt:action="saved" stEvt:changed="/metadata"/>
    </rdf:Seq>
   </xmpMM:History>
   <dc:title>
    <rdf:Alt>
     <rdf:li xml:lang="x-default">Strand &amp; Meer</rdf:li>
    </rdf:Alt>
   </dc:title>
   <crs:ToneCurvePV2012>
    <rdf:Seq>
     <rdf:li>0, 0</rdf:li>
     <rdf:li>255, 255</rdf:li>
    </rdf:Seq>
   </crs:ToneCurvePV2012>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""
