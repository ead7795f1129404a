"""Connections from the network: how many there may be of an address, and how long they may idle.

The kernel knows no process and no user of such a sender, only an address. All senders of the
network together count as one user, `NETWORK_UID`.
"""

import asyncio
import fcntl
import ipaddress
import socket
import ssl
import sys
import termios
import time
from dataclasses import dataclass
from typing import Protocol

from logengine.format.record import Peer

# No process has this uid: setuid(2) takes it for "no change". The kernel reports it, too, as the
# uid of whoever is at the other end of a network socket.
NETWORK_UID = 2**32 - 1
_IDLE_LOOKS = 4  # in the time that a connection may idle


@dataclass(eq=False)
class Tls:
    """What new connections to a socket are encrypted with; a renewed certificate replaces it."""

    context: ssl.SSLContext


@dataclass(frozen=True, eq=False)
class Network:
    """The limits of one socket of the network. With `tls`, its connections are encrypted."""

    max_connections: int
    max_per_address: int
    idle_timeout_s: float
    handshake_timeout_s: float
    tls: Tls | None = None


class Idling(Protocol):
    """A connection that may be idle."""

    heard_s: float  # when it was read last, by the monotonic clock

    def end_idle(self) -> None:
        """Ends it, unless it was kept from sending."""


def address_text(address: object) -> str:
    """Returns the address of a sender, as the kernel reports it, without its port."""
    assert isinstance(address, tuple)
    host = str(address[0])
    try:
        mapped = getattr(ipaddress.ip_address(host), "ipv4_mapped", None)
    except ValueError:
        return host
    return host if mapped is None else str(mapped)


def log_fields(peer: Peer) -> dict[str, object]:
    """Returns what the daemon's log says of a sender: its process, or its address in the network.

    Always with a user, by which lines are limited: what else they name may be up to the sender.
    """
    if peer.address is not None:
        return {"addr": peer.address, "uid": NETWORK_UID}
    return {"pid": peer.pid, "uid": peer.uid}


def peer_address(connection: socket.socket) -> str | None:
    """Returns the address at the other end; None if the connection is gone."""
    try:
        return address_text(connection.getpeername())
    except OSError:
        return None


def bytes_waiting(connection: socket.socket) -> int:
    """Returns how many bytes have arrived and are not read yet."""
    return int.from_bytes(fcntl.ioctl(connection, termios.FIONREAD, bytes(4)), sys.byteorder)


class NetworkConnections:
    """Counts the connections of each address, and ends those that are idle for too long."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._connections: dict[Idling, tuple[Network, str]] = {}
        self._of_address: dict[tuple[Network, str], int] = {}
        self._of_socket: dict[Network, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def admits(self, network: Network, address: str) -> bool:
        """Whether there may be one more connection from `address`."""
        return (
            self._of_address.get((network, address), 0) < network.max_per_address
            and self._of_socket.get(network, 0) < network.max_connections
        )

    def add(self, connection: Idling, network: Network, address: str) -> None:
        """Notes a new connection."""
        self._connections[connection] = (network, address)
        self._of_address[network, address] = self._of_address.get((network, address), 0) + 1
        self._of_socket[network] = self._of_socket.get(network, 0) + 1
        self._look_within(network.idle_timeout_s / _IDLE_LOOKS)

    def remove(self, connection: Idling) -> None:
        """Notes that a connection has ended, if it is one of these."""
        found = self._connections.pop(connection, None)
        if found is None:
            return
        self._of_socket[found[0]] -= 1
        self._of_address[found] -= 1
        if not self._of_address[found]:
            del self._of_address[found]

    def close(self) -> None:
        """Cancels the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _look_within(self, time_s: float) -> None:
        due_s = self._loop.time() + time_s
        if self._timer is not None:
            if self._timer.when() <= due_s:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due_s, self._look)

    def _look(self) -> None:
        self._timer = None
        now_s = time.monotonic()
        for connection, (network, _) in list(self._connections.items()):
            if now_s - connection.heard_s >= network.idle_timeout_s:
                connection.end_idle()
        timeouts_s = {network.idle_timeout_s for network, _ in self._connections.values()}
        if timeouts_s:
            self._look_within(min(timeouts_s) / _IDLE_LOOKS)
