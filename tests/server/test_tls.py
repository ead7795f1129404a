"""A connection with TLS in the test's own process: what becomes of both of its directions."""

import contextlib
import select
import socket
import ssl
import struct
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from logengine.daemon.config_sections import NetworkConfig
from logengine.daemon.network_sockets import tls_context
from logengine.intake.tls import TlsSockets
from tests.daemon import PATIENCE_S, eventually
from tests.e2e.test_network import Authority, authority, unacknowledged_bytes
from tests.ports import HOST

__all__ = ["authority"]

RECEIVED_BYTES = 1024 * 1024
SMALL_BYTES = 8 * 1024


class Ends(NamedTuple):
    """The socket of a client, and the daemon's two: the encrypted one, and what it reads."""

    plain: socket.socket
    accepted: socket.socket
    outer: socket.socket


@pytest.fixture
def context(authority: Authority) -> ssl.SSLContext:
    certificate, key = map(str, authority.issue("server"))
    return tls_context(NetworkConfig(address=f"{HOST}:0", certificate=certificate, key=key))


@pytest.fixture
def connected(context: ssl.SSLContext) -> Iterator[Ends]:
    """A client that has not begun the handshake. TCP holds few of its answers."""
    sockets = TlsSockets()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((HOST, 0)))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVED_BYTES)
        plain = stack.enter_context(socket.socket())
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BYTES)
        plain.settimeout(PATIENCE_S)
        plain.connect(listener.getsockname())
        accepted, _ = listener.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BYTES)
        accepted.setblocking(False)
        stack.callback(sockets.close)
        outer = stack.enter_context(sockets.decrypted(accepted, context, 3600, HOST))
        outer.settimeout(PATIENCE_S)
        yield Ends(plain, accepted, outer)


def all_of(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def write_until_it_blocks(outer: socket.socket) -> None:
    outer.setblocking(False)
    while select.select([], [outer], [], 0.1)[1]:
        outer.send(b"answer" * 1024)
    outer.settimeout(PATIENCE_S)


def test_a_sender_that_does_not_read_its_answers_is_still_read(
    connected: Ends, authority: Authority
) -> None:
    plain, _, outer = connected
    with authority.client().wrap_socket(plain, server_hostname=HOST) as client:
        write_until_it_blocks(outer)
        for said in (b"one", b"two", b"three"):
            client.sendall(said)
            assert outer.recv(100) == said


def test_what_a_sender_sent_before_a_reset_is_read_even_if_an_answer_finds_it_gone(
    connected: Ends, authority: Authority
) -> None:
    plain, _, outer = connected
    said = b"record\n" * 20_000
    with authority.client().wrap_socket(plain, server_hostname=HOST) as client:
        client.sendall(said)
        eventually(lambda: unacknowledged_bytes(client) == 0, "all to arrive")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    outer.sendall(b"answer")
    eventually(lambda: unacknowledged_bytes(outer) == 0, "the answer to be sent in vain")
    assert all_of(outer) == said


def test_a_sender_that_does_not_read_its_answers_does_not_outlive_its_connection(
    connected: Ends, authority: Authority
) -> None:
    plain, accepted, outer = connected
    with authority.client().wrap_socket(plain, server_hostname=HOST):
        write_until_it_blocks(outer)
        outer.close()
        eventually(lambda: accepted.fileno() == -1, "the end of the connection")


@pytest.mark.parametrize("written", [b"", b"settings"])
def test_a_handshake_ends_with_the_connection(connected: Ends, written: bytes) -> None:
    _, accepted, outer = connected
    outer.sendall(written)
    outer.close()
    eventually(lambda: accepted.fileno() == -1, "the end of the handshake")


def test_a_sender_that_ends_its_half_of_the_connection_by_tcp_alone_gets_its_answers(
    connected: Ends, authority: Authority
) -> None:
    plain, _, outer = connected
    arrived, leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = authority.client().wrap_bio(arrived, leaving, server_hostname=HOST)
    while True:
        try:
            client.do_handshake()
            break
        except ssl.SSLWantReadError:
            plain.sendall(leaving.read())
            assert arrived.write(plain.recv(65536))
    client.write(b"said")
    plain.sendall(leaving.read())
    plain.shutdown(socket.SHUT_WR)
    assert all_of(outer) == b"said"
    outer.sendall(b"answer")
    outer.shutdown(socket.SHUT_WR)
    arrived.write(all_of(plain))
    assert client.read(100) == b"answer"
