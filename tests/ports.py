"""Ports for servers that take no socket from whoever starts them."""

import secrets
import socket
from pathlib import Path

HOST = "127.0.0.1"
_FIRST = 10_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")  # from which the kernel itself takes them


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of `HOST` that nobody has.

    It is one that the kernel gives to nobody who does not ask for it, such as another test that
    connects before the server listens. Tests in other processes choose others by chance.
    """
    end = int(_RANGE.read_text().split()[0])
    while True:
        port = _FIRST + secrets.randbelow(end - _FIRST)
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
