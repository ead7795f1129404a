"""The options of both clients, checked, and the names of producers."""

import os
import secrets
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from logengine.client.daemon_socket import DefaultSocket, Socket, find_default
from logengine.errors import InvalidOption, InvalidStreamName
from logengine.format.segment import STREAM_NAME_RULE, is_stream_name
from logengine.protocols.ndjson import PRODUCER_CHARACTERS_MAX, is_producer_name
from logengine.socket_address import absolute

OnFull = Literal["block", "drop", "raise"]
OnForgotten = Literal["warn", "raise"]
StrPath = str | os.PathLike[str]

# The daemon's default; its welcome says what applies.
MAX_RECORD_BYTES = 1024 * 1024
_NAME_CHARACTERS = 40
_SOCKET_PATH_BYTES_MAX = 107  # plus a NUL, this fills the kernel's sockaddr_un


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of `Client` and `AsyncClient`, described there. Raises on invalid ones."""

    stream: str
    socket: StrPath | None
    producer: str | None
    on_full: OnFull
    spool: StrPath | None
    max_records: int
    max_bytes: int
    max_spool_bytes: int
    block_max: float | None = None
    on_forgotten: OnForgotten = "warn"
    _directory: Path = field(init=False, repr=False)
    _named: str = field(init=False, repr=False)  # the environment's socket at construction

    def __post_init__(self) -> None:
        self._check()
        # Relative paths keep their meaning when the process changes its working directory.
        object.__setattr__(self, "_directory", _working_directory())
        object.__setattr__(self, "_named", os.environ.get("LOGENGINE_SOCKET", ""))
        if self.spool is not None:
            object.__setattr__(self, "spool", self._directory / self.spool)
        if self.socket is not None and not isinstance(self.socket, DefaultSocket):
            object.__setattr__(self, "socket", absolute(self.socket, self._directory))
        if self.socket is not None and len(os.fsencode(self.socket)) > _SOCKET_PATH_BYTES_MAX:
            raise InvalidOption(
                f"socket {os.fspath(self.socket)!r}: expected at most {_SOCKET_PATH_BYTES_MAX} "
                "bytes, the kernel's limit for the path of a socket"
            )

    def _check(self) -> None:
        if not is_stream_name(self.stream):
            raise InvalidStreamName(
                f"{self.stream!r} is not a valid stream name; expected {STREAM_NAME_RULE}"
            )
        if self.producer is not None and not is_producer_name(self.producer):
            raise InvalidOption(
                f"producer {self.producer!r}: expected 1 to {PRODUCER_CHARACTERS_MAX} "
                "characters without control characters"
            )
        for name, options in (("on_full", OnFull), ("on_forgotten", OnForgotten)):
            if (chosen := getattr(self, name)) not in get_args(options):
                raise InvalidOption(f"{name} {chosen!r}: expected {' or '.join(get_args(options))}")
        for name in ("max_records", "max_bytes", "max_spool_bytes"):
            if getattr(self, name) < 1:
                raise InvalidOption(f"{name} {getattr(self, name)}: expected at least 1")
        if self.block_max is not None and not self.block_max >= 0:
            raise InvalidOption(
                f"block_max {self.block_max}: expected a number of seconds, at least 0, or None"
            )

    @property
    def given_socket(self) -> Socket | None:
        """The socket that the options or the environment gave, if any."""
        if isinstance(self.socket, DefaultSocket):
            return self.socket
        named = self.socket or self._named
        return absolute(named, self._directory) if named else None

    def current_socket(self) -> Socket:
        """Where to find the daemon now; a different one may have been started meanwhile."""
        return self.given_socket or find_default()


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except OSError:  # removed, or not accessible: a relative path leads nowhere
        return Path("/")


def process_producer(name: str = "") -> str:
    """Returns a producer name unique to this process; it starts with `name` or the program's."""
    name = name or os.path.basename(sys.argv[0] if sys.argv else "") or "python"
    printable = "".join(c if c.isprintable() else "?" for c in name[:_NAME_CHARACTERS])
    host = os.uname().nodename[:_NAME_CHARACTERS]
    return f"{printable}-{host}-{os.getpid()}-{secrets.token_hex(4)}"
