"""Addresses of the network, and how many connections each may have."""

import pytest

from logengine.intake.network import Network, NetworkConnections, address_text
from logengine.socket_address import network_address, network_text


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:514", "127.0.0.1", 514),
        ("[::1]:6514", "::1", 6514),
        ("[0:0:0:0:0:0:0:1]:1", "::1", 1),
        ("0.0.0.0:0", "0.0.0.0", 0),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, host: str, port: int) -> None:
    assert network_address(text) == (host, port)
    assert network_address(network_text(host, port)) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        *("", "514", ":514", "localhost:514", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536"),
        *("::1:514", "[127.0.0.1]:514", "1.2.3.4:-1", "1.2.3.4:٣", "/run/log", "[::1]"),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        network_address(text)


def test_an_address_of_ipv4_is_the_same_over_a_socket_of_ipv6() -> None:
    assert address_text(("::ffff:192.0.2.1", 5, 0, 0)) == "192.0.2.1"
    assert address_text(("192.0.2.1", 5)) == "192.0.2.1"
    assert address_text(("2001:db8::1", 5, 0, 0)) == "2001:db8::1"
    assert address_text(("fe80::1%eth0", 5, 0, 2)) == "fe80::1%eth0"


class Connection:
    heard_s = 0.0

    def end_idle(self) -> None:
        raise AssertionError


async def test_an_address_and_a_socket_have_so_many_connections_and_no_more() -> None:
    connections = NetworkConnections()
    network, other = (Network(3, 2, 3600, 10) for _ in range(2))
    mine = [Connection(), Connection()]
    for each in mine:
        assert connections.admits(network, "192.0.2.1")
        connections.add(each, network, "192.0.2.1")
    assert not connections.admits(network, "192.0.2.1")
    assert connections.admits(other, "192.0.2.1")
    connections.add(Connection(), network, "192.0.2.2")
    assert not connections.admits(network, "192.0.2.3")  # the socket has its three
    for _ in range(2):
        connections.remove(mine[0])
    assert connections.admits(network, "192.0.2.1")
    connections.close()
