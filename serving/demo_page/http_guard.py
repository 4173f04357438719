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
