"""Sees to it that senders find the daemon under its sockets' names.

Whoever cleans `/tmp`, a shared volume, or a directory below `/run` may remove the file of a socket
while the daemon listens at it: nobody could connect any more, and nobody would say why.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from logengine.errors import ConfigError
from logengine.intake.listeners import bind_listener

log = structlog.get_logger()

_LOOK_EVERY_S = 2.0


class ListeningSocket:
    """A socket at which senders connect, and the file that is its name.

    An `is_inherited` one is systemd's, which alone could give it another.
    """

    def __init__(
        self, listener: socket.socket, path: Path, mode: int, stream: str, *, is_inherited: bool
    ) -> None:
        self.listener = listener
        self.path = path
        self.stream = stream
        self.is_inherited = is_inherited
        self._mode = mode
        self._identity = _identity(path)

    @classmethod
    def bound(cls, path: Path, mode: int, stream: str) -> "ListeningSocket":
        """A new one at `path`. Raises `ConfigError` as `bind_listener`."""
        return cls(bind_listener(path, mode), path, mode, stream, is_inherited=False)

    @property
    def is_named(self) -> bool:
        """Whether the file at `path` is still the one that leads here."""
        if self._identity is None:
            return self.is_inherited  # where systemd sees it, and this process does not
        return _identity(self.path) == self._identity

    def bind_again(self) -> socket.socket:
        """Gives the name to a new socket, which is the `listener` then; gives the one before.

        Raises `ConfigError` as `bind_listener`.
        """
        before = self.listener
        self.listener = bind_listener(self.path, self._mode)
        self._identity = _identity(self.path)
        return before

    def remove(self) -> None:
        """Takes the name away, if it is still its own; a stop is not to end for that."""
        if self.is_inherited or not self.is_named:
            return
        try:
            self.path.unlink()
        except OSError as error:
            # The next daemon takes it for a dead one's.
            log.warning("socket_not_removed", socket=str(self.path), error=str(error))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class SocketWatch:
    """Looks at the names now and then, and listens again where one is gone.

    `moved` is called with the listener before and the one now.
    """

    def __init__(
        self,
        sockets: Iterable[ListeningSocket],
        moved: Callable[[socket.socket, socket.socket], None],
        *,
        look_every_s: float = _LOOK_EVERY_S,
    ) -> None:
        self._sockets = list(sockets)
        self._moved = moved
        self._look_every_s = look_every_s
        self._told: dict[Path, str] = {}

    async def run(self) -> None:
        """Watches for ever."""
        while True:
            await asyncio.sleep(self._look_every_s)
            for each in self._sockets:
                if each.is_named:
                    self._told.pop(each.path, None)
                else:
                    await self._bind_again(each)

    async def _bind_again(self, each: ListeningSocket) -> None:
        if each.is_inherited:
            self._tell(each.path, "it is systemd's: restart the socket unit")
            return
        try:
            # It asks whether anybody listens there, who may take his time.
            before = await asyncio.to_thread(each.bind_again)
        except (ConfigError, OSError) as error:
            self._tell(each.path, str(error))
            return
        self._moved(before, each.listener)
        log.warning("socket_removed", socket=str(each.path), reason="it is there again")

    def _tell(self, path: Path, why: str) -> None:
        if self._told.get(path) != why:
            self._told[path] = why
            log.error("socket_gone", socket=str(path), reason=f"nobody can connect; {why}")
