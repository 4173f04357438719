"""Addresses and TLS files of the server, and what is wrong with them."""

import errno
import pathlib
import socket
import ssl

from biam_tf.errors import UserError


def address_of(host: str, port: int) -> str:
    """Returns `host:port`, with an IPv6 address in brackets."""
    bare = host.strip("[]")
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"


def listening_socket(host: str, port: int, option: str) -> socket.socket:
    """Returns a socket that is bound to an address.

    Args:
        host: name or address.
        port: port; 0 for any free one.
        option: the option that gave the port, for the error message.

    Raises:
        UserError: the address can't be used; the message says why.
    """
    bare = host.strip("[]")
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
            bare, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--host {host}: no such address ({reason})") from error
    found = socket.socket(family, kind, protocol)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(128)
    except OSError as error:
        found.close()
        if error.errno == errno.EADDRINUSE:
            reason = f"{option} {port}: the port is in use; is another server there?"
        elif error.errno == errno.EACCES:
            reason = f"{option} {port}: not permitted; ports below 1024 are the system's"
        elif error.errno == errno.EADDRNOTAVAIL:
            reason = f"--host {host}: not an address of this machine"
        else:
            reason = f"{error.strerror or error}"
        raise UserError(f"can't listen on {address_of(host, port)}: {reason}") from error
    return found


def require_address(host: str, port: int) -> None:
    """Raises a `UserError` if the gRPC server can't listen on an address."""
    listening_socket(host, port, "--port").close()


def tls_context(certificate: pathlib.Path, key: pathlib.Path) -> ssl.SSLContext:
    """Returns the context of a TLS server, after a check of its files.

    Raises:
        UserError: a file can't be read, holds something else, or the two do not belong together.
    """
    for option, path in (("--tls-certificate", certificate), ("--tls-key", key)):
        try:
            path.read_bytes()
        except OSError as error:
            raise UserError(f"{option} {path}: {error.strerror}") from error
    try:
        # `cadata` reads certificates only, and tells the certificate from the key.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(
            cadata=certificate.read_text(encoding="ascii")
        )
    except (ssl.SSLError, ValueError) as error:
        raise UserError(
            f"--tls-certificate {certificate}: no certificate in PEM format, which starts with "
            "-----BEGIN CERTIFICATE-----"
        ) from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    encrypted = False

    def password() -> str:
        nonlocal encrypted
        encrypted = True
        return ""

    try:
        context.load_cert_chain(certificate, key, password)
    except (ssl.SSLError, ValueError) as error:
        if encrypted:
            reason = "the key is encrypted; store it without a password"
        elif isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            reason = f"not the key of the certificate in {certificate}"
        else:
            reason = "no private key in PEM format, which starts with -----BEGIN PRIVATE KEY-----"
        raise UserError(f"--tls-key {key}: {reason}") from error
    return context
