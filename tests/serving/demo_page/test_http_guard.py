"""Which requests the page answers: under its own names, and from its own site."""

import asyncio
import os
import socket
from urllib.parse import urlsplit

import pytest

from serving.demo import main
from serving.demo_page.http_guard import OTHER_BYTES, BoundedBody, OwnSiteOnly

pytestmark = pytest.mark.unit


@pytest.fixture
def gradio():
    """Imported by the tests that need it alone: that takes seconds."""
    return pytest.importorskip("gradio", reason="the demo's page needs gradio")


def status_of(names=(), kind="http", **headers) -> int:
    """The status of a request with these headers; 200 where it reaches the page."""
    sent = []

    async def page(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "headers": pairs, "method": "GET", "path": "/"}
    asyncio.run(OwnSiteOnly(page, names)(scope, None, send))
    return sent[0].get("status", sent[0].get("code"))


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:7860",
        "localhost:7860",
        "LOCALHOST",
        "[::1]:7860",
        "192.0.2.7",
        "Tags.Example.:80",
    ],
)
def test_own_names_and_addresses_are_answered(host):
    assert status_of(["tags.example"], host=host) == 200
    assert status_of(["tags.example"], host=host, origin=f"http://{host}") == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:7860", "localhost.evil.example", "", "[", "127.0.0.1.x"),
        *("evil.example@127.0.0.1", "127.0.0.1/x", "localhost, evil.example", "2130706433"),
        *("127.0.0.1:7860@evil.example", "0x7f.1", "localhost%00.evil.example", "a.localhost"),
    ],
)
def test_foreign_names_are_refused(host):
    assert status_of(["tags.example"], host=host) == 403
    assert status_of(["tags.example"], host=host, origin=f"http://{host}") == 403
    assert status_of(["tags.example"], kind="websocket", host=host) == 1008


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:8000", "http://127.0.0.1"]
)
def test_requests_of_other_sites_are_refused(origin):
    assert status_of(host="127.0.0.1:7860", origin=origin) == 403


def test_a_request_without_a_name_is_refused():
    assert status_of() == 403


@pytest.mark.parametrize(
    ("path", "bodies", "status"),
    [
        ("/gradio_api/upload", [b"x" * 50, b"x" * 50], 200),
        ("/gradio_api/upload", [b"x" * 50, b"x" * 51], 413),
        ("/gradio_api/queue/join", [b"x" * 101], 200),
        ("/gradio_api/queue/join", [bytes(OTHER_BYTES // 2)] * 3, 413),
        ("/gradio_api/queue/join", [b""] * 3, 200),
    ],
)
def test_the_body_of_a_request_is_bounded(path, bodies, status):
    sent, left = [], [*bodies]

    async def page(scope, receive, send):
        while (await receive())["more_body"]:
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive():
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "headers": [], "method": "POST", "path": path}
    asyncio.run(BoundedBody(page, 100)(scope, receive, send))
    assert sent[0]["status"] == status
    assert status == 200 or b"at most" in sent[1]["body"]


@pytest.mark.integration
def test_the_page_opens_where_http_proxy_is_set(gradio, monkeypatch, tmp_path):
    from serving.demo_page import web_page

    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody answers there
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with gradio.Blocks() as page:
        pass
    monkeypatch.setattr(web_page, "build_page", lambda *arguments: page)
    with web_page.open_page(None, tmp_path, None, "127.0.0.1", 0) as address:
        with socket.create_connection(("127.0.0.1", urlsplit(address).port), 10):
            pass
    assert "no_proxy" not in os.environ


@pytest.mark.integration
def test_a_port_in_use_is_reported_with_a_free_one(gradio, tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main([str(tmp_path / "never-read"), "--port", str(port)]) == 2
    message = capsys.readouterr().err
    assert f"port {port} of 127.0.0.1 is already in use" in message
    assert "use --port " in message


@pytest.mark.integration
@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ("", "no line of NAME:PASSWORD"),
        ("ada:secret\nnobody\n", "line 2: expected NAME:PASSWORD"),
        (None, "No such file"),
    ],
)
def test_a_file_of_passwords_that_cannot_be_used_is_named(
    gradio, contents, message, tmp_path, capsys
):
    path = tmp_path / "people.txt"
    if contents is not None:
        path.write_text(contents)
    model = tmp_path / "never-read"
    assert main([str(model), "--port", "0", "--auth", str(path), "--no-browser"]) == 2
    assert message in capsys.readouterr().err


def test_passwords_are_compared_by_name(tmp_path):
    from serving.demo import _accounts

    path = tmp_path / "people.txt"
    path.write_text("ada:a:b\n\nbob:ü\n", encoding="utf-8")
    accepts = _accounts(path)
    assert accepts("ada", "a:b") and accepts("bob", "ü")
    assert not accepts("ada", "ü") and not accepts("eve", "") and not accepts("bob", "")
