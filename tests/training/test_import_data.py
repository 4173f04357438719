import csv
import functools
import http.server
import json
import threading

import numpy as np
import pytest
from PIL import Image

from training.data.folder import read_folder
from training.import_data import main


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(folder / f"{number}.jpg")
    return folder


def write_table(path, rows, header=("image", "labels", "split")):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def labels_of(dataset, split):
    part = dataset.splits[split]
    return [{dataset.names[column] for column in np.flatnonzero(row > 0)} for row in part.labels]


def test_a_table_with_a_row_a_label_becomes_a_folder_data_set(photos, tmp_path, capsys):
    table = write_table(
        photos / "labels.csv",
        [("0.jpg", "dog", "train"), ("0.jpg", "sea;dog", "train"), ("1.jpg", "zebra", "test")],
    )
    out = tmp_path / "data"
    assert main(["csv", str(table), str(out), "--split-column=split", "--unseen=zebra"]) == 0
    dataset = read_folder(out)
    assert dict(zip(dataset.names, dataset.groups, strict=True)) == {
        "dog": "seen",
        "sea": "seen",
        "zebra": "unseen",
    }
    assert labels_of(dataset, "train") == [{"dog", "sea"}]
    assert labels_of(dataset, "test") == [{"zebra"}]
    photo = dataset.photo_path(dataset.splits["train"].images[0])
    assert photo.samefile(photos / "0.jpg")  # a link, no copy
    assert "photos 1 train, 1 test; classes 2 seen, 1 unseen" in capsys.readouterr().out


def test_splits_are_drawn_by_the_file_name_alone(photos, tmp_path):
    rows = [(f"{number}.jpg", "dog") for number in range(6)]
    splits = []
    for name, part in (("a", rows), ("b", rows[::-1])):
        table = write_table(photos / f"{name}.csv", part, ("image", "labels"))
        options = ["--val-share=0.3", "--test-share=0.3", "--photos=copy"]
        assert main(["csv", str(table), str(tmp_path / name), *options]) == 0
        read = read_folder(tmp_path / name)
        splits.append({name: set(part.images) for name, part in read.splits.items()})
    assert splits[0] == splits[1] and len(splits[0]) > 1


def test_parquet_may_hold_lists(photos, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"file": ["0.jpg", "1.jpg"], "tags": [["a;b", "c"], []], "part": ["train", "val"]}
    parquet.write_table(pyarrow.table(columns), photos / "t.parquet")
    out = tmp_path / "data"
    options = ["--image-column=file", "--labels-column=tags", "--split-column=part"]
    # A name with the sign that joins names is refused by the writer of the folder form.
    assert main(["csv", str(photos / "t.parquet"), str(out), *options]) == 2
    columns["tags"][0][0] = "a b"
    parquet.write_table(pyarrow.table(columns), photos / "t.parquet")
    assert main(["csv", str(photos / "t.parquet"), str(out), *options]) == 0
    assert labels_of(read_folder(out), "train") == [{"a b", "c"}]


class Flaky(http.server.SimpleHTTPRequestHandler):
    """Is busy at the first request for each photo."""

    asked: list[str] = []  # noqa: RUF012  shared on purpose: a handler lives for one request

    def do_GET(self):
        self.asked.append(self.path)
        if self.asked.count(self.path) == 1:
            self.send_error(503)
        else:
            super().do_GET()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def address(photos):
    Flaky.asked.clear()
    handler = functools.partial(Flaky, directory=str(photos))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_photos_are_fetched_with_patience_and_only_once(address, photos, tmp_path, capsys):
    rows = [(f"{address}/{name}.jpg", "dog", "train") for name in ("0", "1", "gone")]
    table, out = write_table(photos / "urls.csv", rows), tmp_path / "data"
    arguments = ["csv", str(table), str(out), "--split-column=split"]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "1 of 3 photos could not be had" in error and "the server answered 404" in error
    assert not (out / "annotations.csv").exists()
    assert "gone.jpg" in (out / "failed_photos.csv").read_text()

    assert main([*arguments, "--max-broken-share=0.34"]) == 0
    assert Flaky.asked.count("/0.jpg") == 2  # 503, then the photo; none in the second import
    assert len(read_folder(out).splits["train"]) == 2


def coco(path, annotations):
    path.write_text(
        json.dumps(
            {
                "images": [{"id": 7, "file_name": "0.jpg"}, {"id": 9, "file_name": "1.jpg"}],
                "categories": [{"id": 3, "name": "dog"}, {"id": 90, "name": "traffic light"}],
                "annotations": annotations,
            }
        )
    )
    return path


def test_objects_of_coco_become_labels(photos, tmp_path):
    entries = [{"image_id": 9, "category_id": 90}, {"image_id": 9, "category_id": 90}]
    path, out = coco(tmp_path / "instances.json", entries), tmp_path / "data"
    arguments = ["coco", str(out), f"--annotations=train={path}", f"--images=train={photos}"]
    assert main([*arguments, "--ignored", "dog"]) == 0
    dataset = read_folder(out)
    assert dataset.names == ("traffic light",)
    assert labels_of(dataset, "train") == [set(), {"traffic light"}]
    assert main(arguments) == 2  # nothing is overwritten


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([("0.jpg", "dog", "dev")], ["--split-column=split"], "t.csv row 2: unknown split 'dev'"),
        ([("0.jpg", "dog", "train")], ["--split-column=splt"], "did you mean 'split'?"),
        ([("0.jpg", "dog", "train")], ["--unseen=dgo"], "no photo has 'dgo'; did you mean 'dog'?"),
        ([("0.jpg", "dog", "train")], ["--unseen=dog"], "no class is left to train on"),
        ([("x.jpg", "dog", "train")], [], "x.jpg: No such file or directory"),
        ([("0.jpg", "dog", "train")], ["--val-share=1"], "--val-share 1: expected 0 or more"),
        ([], [], "lists no photo"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(photos, tmp_path, capsys, rows, options, message):
    table = write_table(photos / "t.csv", rows)
    assert main(["csv", str(table), str(tmp_path / "data"), *options]) == 2
    assert message in capsys.readouterr().err


def test_entries_of_coco_that_do_not_fit_are_named(photos, tmp_path, capsys):
    path = coco(tmp_path / "i.json", [{"image_id": 1, "category_id": 3}, {"image_id": 7}])
    arguments = ["coco", str(tmp_path / "d"), f"--annotations=val={path}", f"--images=val={photos}"]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "annotations[0]: image_id 1 is no image" in error
    assert "annotations[1]: category_id None is no category" in error
