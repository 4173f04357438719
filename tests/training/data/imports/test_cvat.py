"""Files of CVAT."""

import pytest
from import_tables import imported

from training.import_data import main

pytest.importorskip("defusedxml")
pytestmark = pytest.mark.unit

META = """<version>1.1</version><meta><job><labels>
<label><name>sea</name></label><label><name>dog</name></label><label><name>person</name></label>
<label><name>nose</name><parent>person</parent></label></labels></job></meta>"""


def write(path, images, meta=META):
    path.write_text(
        f'<?xml version="1.0" encoding="utf-8"?><annotations>{meta}{images}</annotations>'
    )
    return path


def test_tags_and_shapes_become_labels(photos, tmp_path, capsys):
    path = write(
        photos / "annotations.xml",
        """<image id="0" name="0.jpg" width="8" height="8">
             <box label="dog" source="manual" xtl="1" ytl="1" xbr="2" ybr="2" z_order="0">
               <attribute name="color">red</attribute></box>
             <box label="dog" xtl="1" ytl="1" xbr="2" ybr="2"></box>
             <tag label="sea" source="manual"></tag></image>
           <image id="1" name="1.jpg" width="8" height="8">
             <skeleton label="person"><points label="nose" points="1,1"></points></skeleton>
           </image>
           <image id="2" name="2.jpg" width="8" height="8"></image>""",
    )
    out = tmp_path / "out"
    assert main(["cvat", f"train={path}", str(out)]) == 0
    assert imported(out) == (
        [
            ["image", "split", "labels"],
            ["0.jpg", "train", "dog;sea"],
            ["1.jpg", "train", "person"],
            ["2.jpg", "train", ""],
        ],
        [["name", "group"], ["sea", "seen"], ["dog", "seen"], ["person", "seen"]],
    )
    text = capsys.readouterr().out
    assert "1 of 3 photos have no tag and no shape" in text
    assert "attributes such as 'color' are not taken (1 values)" in text


def test_subsets_of_a_project_are_its_splits(photos, tmp_path):
    folder = tmp_path / "export"
    for subset, number in (("Train", 0), ("Validation", 1)):
        (folder / "images" / subset).mkdir(parents=True)
        (photos / f"{number}.jpg").rename(folder / "images" / subset / f"{number}.jpg")
    write(
        folder / "annotations.xml",
        """<image id="0" name="0.jpg" subset="Train"><tag label="dog"/></image>
           <image id="1" name="1.jpg" subset="Validation"><tag label="other"/></image>""",
    )
    out = tmp_path / "out"
    assert main(["cvat", str(folder), str(out)]) == 0
    annotations, classes = imported(out)
    assert annotations[1:] == [["0.jpg", "train", "dog"], ["1.jpg", "val", "other"]]
    assert classes[-1] == ["other", "seen"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("<annotations><track/></annotations>", "is of a video; export it from CVAT as"),
        ("<annotations><image", "is not well-formed XML"),
        ("<annotation/>", "begins with <annotation>"),
        ('<image name="0.jpg"/><image name="./0.jpg"/>', "is already image 0"),
        ('<image name="0.jpg"><tag/></image>', "a tag has no label"),
        ('<image name=""/>', "names no photo"),
        ('<image name="0.jpg" subset="train"/><image name="1.jpg" subset="x"/>', "unknown subset"),
        ("", "lists no photos"),
        (
            '<!DOCTYPE a [<!ENTITY b "c">]><annotations>&b;</annotations>',
            "declares a document type or entities",
        ),
    ],
)
def test_what_is_wrong_is_said(photos, tmp_path, capsys, text, complaint):
    path = photos / "a.xml"
    if text.startswith(("<annotation", "<!")):
        path.write_text(text)
    else:
        write(path, text)
    assert main(["cvat", str(path), str(tmp_path / "out")]) == 2
    assert complaint in capsys.readouterr().err
