"""Which addresses are this machine's own, and which are public."""

import os

import pytest

from biam_tf.network import host_of, is_loopback, is_public, no_proxy_for

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("localhost:8500", "localhost"),
        ("tags.example.org:443", "tags.example.org"),
        ("[::1]:8500", "::1"),
        ("::1", "::1"),
        ("127.0.0.1", "127.0.0.1"),
        ("dns:///localhost:8500", "localhost"),
        ("ipv4:127.0.0.1:8500", "127.0.0.1"),
    ],
)
def test_the_host_of_an_address(address, host):
    assert host_of(address) == host


def test_loopback_in_all_its_forms():
    own = ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.9.9.9", "::1", "0.0.0.0"]
    own += ["::ffff:127.0.0.1", "127.1", "0x7f.1", "unix:/run/tags.sock"]
    own += ["ip6-localhost", "localhost.localdomain"]
    others = ["localhost.example.org", "unixes.example.org", "10.0.0.1", "8.8.8.8", "mylocalhost"]
    assert [host for host in own + others if is_loopback(host)] == own


def test_public_addresses():
    public = ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8"]
    others = ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"]
    others += ["0.0.0.0", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1"]
    others += ["::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::a00:1", "example.org"]
    others += ["0177.0.0.1", "2130706433", "0x7f000001", "::127.0.0.1", "::ffff:0:127.0.0.1"]
    others += ["fec0::1", "64:ff9b:1::808:808", "2001:0:7f00:1::1", "3fff::1", "192.88.99.1"]
    assert [address for address in public + others if is_public(address)] == public


def test_hosts_without_proxy_are_added_to_those_of_the_environment(monkeypatch):
    monkeypatch.setenv("no_proxy", "example.org")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with no_proxy_for("localhost", "::1"):
        assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "example.org,localhost,::1"
    assert os.environ["no_proxy"] == "example.org" and "NO_PROXY" not in os.environ
