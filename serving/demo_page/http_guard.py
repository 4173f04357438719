"""ASGI middleware of the page: which requests are answered, and what the page may load.

A page on this machine can be reached by any website that its user opens elsewhere: the website
sends requests to the page's address (cross-site request forgery), or lets its own name point to
this machine, so that the browser takes the page for a part of the website (DNS rebinding). The
first has the website's `Origin`, the second the website's name as `Host`.
"""

import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse

# The page loads nothing from other servers, whatever a version of Gradio tries.
CONTENT_POLICY = (
    "default-src 'self' data: blob:; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; "
    "connect-src 'self' data: blob:; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)

# A name or address and a port: nothing that a parser of URLs could take for something else.
_HOST = re.compile(r"(\[[0-9A-Za-z:.%]+\]|[0-9A-Za-z_.-]+)(:[0-9]{1,5})?")

# Ten thousand names of classes have a tenth of it.
OTHER_BYTES = 8 << 20

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[..., Awaitable[None]]


class ContentPolicy:
    """Adds `CONTENT_POLICY` to every response."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Callable, send: Send) -> None:
        """Handles a request."""

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", CONTENT_POLICY.encode())
                message["headers"] = [*message.get("headers", ()), policy]
            await send(message)

        await self._app(scope, receive, send_with_policy)


class _TooLarge(Exception):
    """A body exceeds its limit."""


class BoundedBody:
    """Refuses requests whose body is too large, with status 413.

    Gradio bounds each file of a form, and neither their number nor what is no file.

    Args:
        app: answers the other requests.
        upload_bytes: of an upload; other requests have at most `OTHER_BYTES`.
    """

    def __init__(self, app: App, upload_bytes: int) -> None:
        self._app, self._upload_bytes = app, upload_bytes

    async def __call__(self, scope: Message, receive: Callable, send: Send) -> None:
        """Handles a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._upload_bytes if scope["path"].endswith("/upload") else OTHER_BYTES
        received, is_answered = 0, False

        async def receive_part() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise _TooLarge
            return message

        async def send_part(message: Message) -> None:
            nonlocal is_answered
            is_answered = True
            await send(message)

        try:
            await self._app(scope, receive_part, send_part)
        except _TooLarge:
            if not is_answered:
                text = f"a request here has at most {most:,} bytes\n"
                await PlainTextResponse(text, status_code=413)(scope, receive, send)


class OwnSiteOnly:
    """Refuses requests under a foreign name or from another website, with status 403.

    Args:
        app: answers the other requests.
        names: host names of the page besides `localhost`; addresses such as `192.0.2.7` need no
            name, since no website can have one as its own name.
    """

    def __init__(self, app: App, names: Collection[str] = ()) -> None:
        self._app = app
        self._names = {name.lower().rstrip(".") for name in names}

    async def __call__(self, scope: Message, receive: Callable, send: Send) -> None:
        """Handles a request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        problem = self._problem(headers)
        if problem is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": problem})
        else:
            await PlainTextResponse(problem + "\n", status_code=403)(scope, receive, send)

    def _problem(self, headers: dict[str, list[str]]) -> str | None:
        hosts, origins = headers.get("host", []), headers.get("origin", [])
        if len(hosts) != 1 or not self._is_own(host := hosts[0]):
            shown = ", ".join(hosts) or "no name"
            return f"{shown!r} is not a name of this page; --host-name NAME allows one"
        for origin in origins:
            if urlsplit(origin).netloc.lower() != host.lower():
                return f"the request comes from another site, {origin!r}"
        return None

    def _is_own(self, host: str) -> bool:
        if not _HOST.fullmatch(host):
            return False
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:  # brackets without an address in them
            return False
        if name == "localhost" or name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def names_of_this_machine() -> set[str]:
    """Returns the names under which other machines may know this one."""
    return {socket.gethostname(), socket.getfqdn()}
