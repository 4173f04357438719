"""Photos that an import fetches from a server that has its moods."""

import contextlib
import csv
import functools
import http.server
import os
import pathlib
import re
import signal
import socket
import threading
import time
import types
import urllib.parse

import pytest
from import_tables import write_table

from training.data.folder.reader import read_folder
from training.data.imports.downloads import CONNECTIONS, downloader
from training.data.imports.photo_collection import _file_name, collect_photos
from training.import_data import main

# What servers answer to the question when to come again.
PAUSES = {
    "hours": "7200",
    "soon": "soon",
    "half-a-second": "0.5",
    "never": "Mon, 01 Jan 999999999999999999 00:00:00 GMT",
}


class Troubled(http.server.SimpleHTTPRequestHandler):
    """Answers `/TROUBLE/NAME` with the trouble that the path names, else with the photo NAME."""

    asked: list[str] = []  # noqa: RUF012  shared on purpose: a handler lives for one request

    def do_GET(self):
        self.asked.append(self.path)
        times = self.asked.count(self.path)
        trouble, _, name = self.path[1:].rpartition("/")
        if trouble == "html":
            self.answer(b"<html>Please sign in</html>", "text/html")
        elif trouble.startswith("cut"):  # cut3: three answers break off
            photo = (pathlib.Path(self.directory) / name).read_bytes()
            self.answer(photo[:99] if times <= int(trouble[3:]) else photo, length=len(photo))
        elif trouble == "moved":
            self.send_response(302)
            self.send_header("Location", f"/cut3/{name}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif trouble.startswith("to-"):
            self.send_response(302)
            target = urllib.parse.unquote(trouble[3:])
            target = target.replace("PORT", str(self.server.server_port))
            self.send_header("Location", f"http://{target}/cut0/{name}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif trouble == "large":  # as much as anyone reads, and its header does not say so
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(bytes(1 << 16))
        elif trouble == "drip":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(6000):
                    self.wfile.write(b"x")
                    self.wfile.flush()
                    time.sleep(0.05)
        elif trouble == "half":  # nothing says that this is not all
            self.answer((pathlib.Path(self.directory) / name).read_bytes()[:-99])
        elif times == 1:
            self.send_response(503)
            if trouble in PAUSES:
                self.send_header("Retry-After", PAUSES[trouble])
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.path = f"/{name}"
            super().do_GET()

    def answer(self, content, kind="image/jpeg", length=None):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        if length:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def address(photos):
    Troubled.asked.clear()
    handler = functools.partial(Troubled, directory=str(photos))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def pauses(monkeypatch):
    """The seconds that imports would have paused, which they do not."""
    retry = pytest.importorskip("urllib3").util.retry
    made = []
    monkeypatch.setattr(retry, "time", types.SimpleNamespace(sleep=made.append, time=time.time))
    return made


def test_photos_are_fetched_with_patience_and_only_once(address, photos, tmp_path, capsys):
    rows = [(f"{address}/{name}.jpg", "dog", "train") for name in ("0", "1", "gone")]
    table, out = write_table(photos / "urls.csv", rows), tmp_path / "data"
    arguments = ["csv", "--anywhere", str(table), str(out), "--split-column=split"]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "1 of 3 photos are missing" in error and "the server responded with status 404" in error
    assert not (out / "annotations.csv").exists()
    assert "gone.jpg" in (out / "failed_photos.csv").read_text()

    assert main([*arguments, "--max-broken-share=0.34"]) == 0
    assert Troubled.asked.count("/0.jpg") == 2  # 503, then the photo; none in the second import
    assert len(read_folder(out).splits["train"]) == 2


def test_what_breaks_off_is_asked_for_four_times(address, photos, tmp_path, pauses):
    rows = [(f"{address}/cut{n}/0.jpg", "dog", "train") for n in (3, 4)]
    table, out = write_table(photos / "urls.csv", rows), tmp_path / "data"
    assert main(["csv", "--anywhere", str(table), str(out), "--max-broken-share=0.5"]) == 0
    assert Troubled.asked.count("/cut3/0.jpg") == Troubled.asked.count("/cut4/0.jpg") == 4
    failed = (out / "failed_photos.csv").read_text()
    assert re.search('/cut4/0.jpg,"download failed: .*Connection broken', failed)
    assert "/cut3/" not in failed
    (photo,) = (out / "images").iterdir()
    assert photo.read_bytes() == (photos / "0.jpg").read_bytes()
    assert sorted(pauses) == [1, 1, 2, 2]  # none after the first try


def test_no_server_makes_an_import_wait_for_hours(address, photos, tmp_path, pauses):
    table = write_table(photos / "urls.csv", [(f"{address}/hours/0.jpg", "dog", "train")])
    assert main(["csv", "--anywhere", str(table), str(tmp_path / "data")]) == 0
    assert pauses == [60]


@pytest.mark.parametrize("trouble", ["soon", "half-a-second", "never", "moved"])
def test_unusual_answers_cost_no_try(address, photos, tmp_path, pauses, trouble):
    rows = [(f"{address}/{trouble}/0.jpg".replace("http:", "HTTP:"), "dog", "train")]
    table, out = write_table(photos / "urls.csv", rows), tmp_path / "data"
    assert main(["csv", "--anywhere", str(table), str(out)]) == 0
    assert Troubled.asked.count("/cut3/0.jpg") == (4 if trouble == "moved" else 0)


def test_addresses_of_many_photos_do_not_meet():
    # The first eight hexadecimal digits of these two are the same.
    names = {_file_name(f"https://example.org/photo?id={n}") for n in (41268, 43299)}
    assert len(names) == 2


def test_what_is_no_photo_is_not_brought(address, photos, tmp_path, pauses):
    rows = [(f"{address}/{n}/0.jpg", "dog", "train") for n in ("html", "half", "cut0")]
    table, out = write_table(photos / "urls.csv", rows), tmp_path / "data"
    assert main(["csv", "--anywhere", str(table), str(out), "--max-broken-share=0.7"]) == 0
    with (out / "failed_photos.csv").open(newline="") as file:
        failed = {row["photo"]: row["problem"] for row in csv.DictReader(file)}
    assert list(failed) == [rows[0][0], rows[1][0]]
    assert "(text/html): not a whole JPEG" in failed[rows[0][0]]
    assert "not a whole JPEG" in failed[rows[1][0]]
    assert len(list((out / "images").iterdir())) == 1


def failures(out):
    with (out / "failed_photos.csv").open(newline="") as file:
        return [row["problem"] for row in csv.DictReader(file)]


def test_addresses_of_this_machine_are_not_for_every_list(address, photos, tmp_path, capsys):
    names = ("127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]", "2130706433", "[::1]")
    names += ("0177.0.0.1", "0x7f.0.0.1", "017700000001", "0.0.0.0", "[::]", "169.254.169.254")
    port = address.rpartition(":")[2]
    rows = [(f"http://{name}:{port}/cut0/0.jpg", "dog", "train") for name in names]
    table, out = write_table(photos / "urls.csv", rows), tmp_path / "data"
    assert main(["csv", str(table), str(out)]) == 2
    assert not Troubled.asked
    for problem in failures(out):
        assert "an address of this machine or of a private network" in problem, problem
    assert "--anywhere" in capsys.readouterr().err


@pytest.mark.parametrize("trusted", [[], ["--anywhere"]])
def test_a_public_server_does_not_lead_to_this_machine(
    address, photos, tmp_path, monkeypatch, trusted
):
    # The name of the list is public, as its addresses say; its server stands here all the same.
    port = int(address.rpartition(":")[2])
    names = {"photos.example": "93.184.215.14", "rebound.example": "127.0.0.1"}
    found, connected = socket.getaddrinfo, []

    def getaddrinfo(host, *arguments, **options):
        return found(names.get(host, host), *arguments, **options)

    def create_connection(target, *arguments, **options):
        connected.append(target[0])
        return create(("127.0.0.1", target[1]), *arguments, **options)

    connection = pytest.importorskip("urllib3").util.connection
    create = connection.create_connection
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(connection, "create_connection", create_connection)
    hosts = ("localhost", "rebound.example", "169.254.169.254", "2130706433", "0177.0.0.1")
    hosts += ("[::1]", "[::ffff:127.0.0.1]", "[fec0::1]", "0.0.0.0", "0x7f.1", "127.1")
    ways = ("cut0", *(f"to-{host}:PORT" for host in hosts))
    rows = [(f"http://photos.example:{port}/{way}/0.jpg", "dog", "train") for way in ways]
    table, out = write_table(photos / "urls.csv", rows), tmp_path / "data"
    assert main(["csv", str(table), str(out), "--max-broken-share=0.95", *trusted]) == 0
    assert len(failures(out)) == len(hosts) and len(list((out / "images").iterdir())) == 1
    for problem, host in zip(failures(out), hosts, strict=True):
        assert problem.startswith(host.strip("[]")) and "private network" in problem
    # Every connection went to the address that was checked, without another resolution.
    assert set(connected) == {"93.184.215.14"}


def test_a_download_ends(address, photos, tmp_path, pauses):
    rows = [(f"{address}/{way}/0.jpg", "dog", "train") for way in ("large", "drip", "cut0")]
    table, out = write_table(photos / "urls.csv", rows), tmp_path / "data"
    limits = ["--max-download-mb=1", "--max-download-seconds=1", "--max-broken-share=0.7"]
    start = time.monotonic()
    assert main(["csv", "--anywhere", str(table), str(out), *limits]) == 0
    assert time.monotonic() - start < 200
    large, drip = failures(out)
    assert large == "is larger than 1.0 MB" and drip == "took longer than 1 seconds"


def test_photos_outside_the_folder_of_the_list_need_consent(photos, tmp_path, capsys):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes((photos / "0.jpg").read_bytes())
    (photos / "link.jpg").symlink_to(secret)
    (photos / "passwd.jpg").write_text("root:x:0:0:root:/root:/bin/bash\n")
    listed = [str(secret), "../secret.jpg", "link.jpg", "/etc/passwd", "passwd.jpg", "1.jpg"]
    rows = [(name, "dog", "train") for name in listed]
    table, out = write_table(photos / "t.csv", rows), tmp_path / "data"
    assert main(["csv", str(table), str(out), "--max-broken-share=0.9"]) == 0
    problems = failures(out)
    assert len(problems) == 5 and len(list((out / "images").iterdir())) == 1
    for problem in problems[:4]:
        assert problem == f"lies outside {photos}; --anywhere takes photos from everywhere"
    assert "not a whole JPEG" in problems[4]

    trusted = tmp_path / "trusted"
    assert main(["csv", str(table), str(trusted), "--max-broken-share=0.9", "--anywhere"]) == 0
    assert len(list((trusted / "images").iterdir())) == 4  # all that are photos
    assert ["not a whole JPEG" in problem for problem in failures(trusted)] == [True, True]

    folder = tmp_path / "elsewhere"
    for option in (["--photo-folder", str(tmp_path)], ["--replace-path", "/old/=../"]):
        rows = [("secret.jpg" if "folder" in option[0] else "/old/secret.jpg", "dog", "train")]
        table = write_table(photos / "named.csv", rows)
        assert main(["csv", str(table), str(folder / option[0].strip("-")), *option]) == 0


def test_an_import_that_is_stopped_does_not_wait_for_slow_servers(address, photos, tmp_path):
    names = [f"{address}/drip/{n}.jpg" for n in range(40)]
    loading = downloader(anywhere=True)

    def stop():  # once downloads are under way
        while len(Troubled.asked) < CONNECTIONS:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    # Programs that a script starts in the background ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=stop, daemon=True).start()
    start = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            collect_photos(names, tmp_path, download=loading)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - start < 60 and len(Troubled.asked) == CONNECTIONS
