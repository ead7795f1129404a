"""Where a socket is: at a path, at `@NAME` (an abstract socket without a file), or in the network.

Anybody may connect to an abstract socket, and take its name while nobody has it. Source: unix(7).
A socket of TCP has an IP address and a port.
"""

import ipaddress
import os
from pathlib import Path

_PORT_MAX = 65535
_IPV6 = 6

Where = str | os.PathLike[str]


def is_abstract(where: Where) -> bool:
    """Whether this names an abstract socket; a file called `@NAME` needs its directory in front."""
    return os.fspath(where).startswith("@")


def address_of(where: Where) -> str | bytes:
    """Returns the address for connect(2)."""
    return b"\0" + os.fsencode(where)[1:] if is_abstract(where) else os.fspath(where)


def name_of(address: str | bytes) -> str:
    """Returns the path or `@NAME` of an address of getsockname(2); empty if it has none."""
    if isinstance(address, bytes):
        return "@" + os.fsdecode(address[1:]) if address.startswith(b"\0") else os.fsdecode(address)
    return address


def absolute(where: Where, directory: Path) -> Path:
    """Returns a path that keeps its meaning in another directory; `@NAME` has no directory."""
    return Path(where) if is_abstract(where) else directory / where


def network_address(text: str) -> tuple[str, int]:
    """Returns the host and port in `127.0.0.1:514` or `[::1]:514`.

    Raises `ValueError` for anything else: a name might mean another address tomorrow.
    """
    host, colon, port = text.rpartition(":")
    if not (colon and port.isascii() and port.isdecimal() and int(port) <= _PORT_MAX):
        raise ValueError(f"{text!r} has no port")
    is_bracketed = host.startswith("[") and host.endswith("]")
    found = ipaddress.ip_address(host[1:-1] if is_bracketed else host)
    if is_bracketed != (found.version == _IPV6):
        raise ValueError(f"{text!r} needs brackets around an address of IPv6, and no other")
    return str(found), int(port)


def network_text(host: str, port: int) -> str:
    """Returns the inverse of `network_address`, in one spelling."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def one_spelling(where: Where) -> str:
    """Returns the same text for all spellings of a path, links resolved."""
    return os.fspath(where) if is_abstract(where) else os.path.realpath(where)


_PORT_MAX = 65535


def tcp_address_of(text: str) -> tuple[str, int] | None:
    """Returns the address and port of `127.0.0.1:4318` or `[::1]:4318`; None if it is neither."""
    address, _, port = text.rpartition(":")
    is_in_brackets = address.startswith("[") and address.endswith("]")
    try:
        found = ipaddress.ip_address(address[1:-1] if is_in_brackets else address)
    except ValueError:
        return None
    if (found.version == 6) != is_in_brackets or not (port.isdecimal() and port.isascii()):  # noqa: PLR2004
        return None
    return (str(found), int(port)) if 0 < int(port) <= _PORT_MAX else None
