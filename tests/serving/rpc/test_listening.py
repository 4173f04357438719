"""Addresses and TLS files that can't be used are named."""

import socket

import pytest

from biam_tf.errors import UserError
from serving.rpc.listening import address_of, listening_socket, tls_context

pytestmark = pytest.mark.integration


def test_ipv6_addresses_are_in_brackets():
    assert address_of("::1", 85) == address_of("[::1]", 85) == "[::1]:85"
    assert address_of("127.0.0.1", 85) == "127.0.0.1:85"


def test_an_address_that_cannot_be_used_is_named():
    with listening_socket("127.0.0.1", 0, "--port") as found:
        with pytest.raises(UserError, match=r"--port .* is another server there"):
            listening_socket("127.0.0.1", found.getsockname()[1], "--port")
    with pytest.raises(UserError, match=r"--host 192\.0\.2\.7: not an address of this machine"):
        listening_socket("192.0.2.7", 0, "--port")
    if socket.has_ipv6:
        listening_socket("::1", 0, "--port").close()


def test_a_tls_file_that_holds_something_else_is_named(tmp_path):
    garbage = tmp_path / "garbage.pem"
    garbage.write_bytes(b"\xff no certificate")
    with pytest.raises(UserError, match=r"--tls-certificate .*garbage\.pem: no certificate"):
        tls_context(garbage, garbage)
    with pytest.raises(UserError, match=r"--tls-key .*missing\.pem: No such file"):
        tls_context(garbage, tmp_path / "missing.pem")
