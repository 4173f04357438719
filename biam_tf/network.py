"""Addresses: which are of this machine, and which are of no public network."""

import contextlib
import ipaddress
import os
import re
import socket
from collections.abc import Iterator

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_SCHEME = re.compile(r"^(?:dns:(?://[^/]*/)?|ipv[46]:)", re.IGNORECASE)
_OWN_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")
_UNIX = ("unix:", "unix-abstract:")
_PROXY_VARIABLES = ("no_proxy", "NO_PROXY")
# What not every version of Python knows: site-local addresses (RFC 3879), translation to IPv4 in a
# private network (RFC 8215), documentation (RFC 9637), and relays of 6to4 (RFC 7526).
_NOT_PUBLIC = tuple(
    map(ipaddress.ip_network, ("fec0::/10", "64:ff9b:1::/48", "3fff::/20", "192.88.99.0/24"))
)


def host_of(address: str) -> str:
    """Returns the host of `host:port`, `[::1]:port` or `dns:///host:port`, as gRPC takes them."""
    if address.startswith(_UNIX):
        return address
    address = _SCHEME.sub("", address)
    if address.startswith("["):
        return address[1:].partition("]")[0]
    host, colon, _ = address.rpartition(":")
    return address if not colon or ":" in host else host


def is_loopback(host: str) -> bool:
    """Returns whether a host name or address is this machine's own, without asking the network.

    Such are `localhost` and names that end in it, its other names on Linux, 127.0.0.0/8 and ::1,
    0.0.0.0 and ::, which lead to this machine, too, in every way of writing them, and a socket of
    Unix.
    """
    name = host.lower().rstrip(".")
    if name in _OWN_NAMES or name.endswith(".localhost") or name.startswith(_UNIX):
        return True
    address = _as_address(name)
    return address is not None and (address.is_loopback or address.is_unspecified)


def is_public(address: str) -> bool:
    """Returns whether an IP address belongs to a machine of the public Internet.

    Private networks, loopback, link-local addresses (with the metadata services of clouds),
    multicast and reserved addresses do not, nor do IPv6 addresses that stand for one of them.
    """
    found = _as_address(address)
    if found is None or any(found in network for network in _NOT_PUBLIC):
        return False
    return found.is_global and not found.is_multicast and not found.is_reserved


@contextlib.contextmanager
def no_proxy_for(*hosts: str) -> Iterator[None]:
    """Adds hosts to the environment's list of those that are reached without a proxy.

    It is for libraries that read `http_proxy` themselves. The environment is as before on exit.
    """
    before = {name: os.environ.get(name) for name in _PROXY_VARIABLES}
    listed = [given for given in before.values() if given] + list(hosts)
    os.environ.update(dict.fromkeys(_PROXY_VARIABLES, ",".join(dict.fromkeys(listed))))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _as_address(text: str) -> IPAddress | None:
    """Returns the address that a text is, IPv4 addresses in IPv6 as IPv4; None for a name."""
    try:
        address: IPAddress = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        try:
            # Short and hexadecimal forms, such as 127.1, which connections accept, too.
            return ipaddress.IPv4Address(socket.inet_aton(text))
        except (OSError, UnicodeError):
            return None
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or _nat64(address)
        return inner or address
    return address


def _nat64(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in ipaddress.IPv6Network("64:ff9b::/96"):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None
