"""Binds a socket again if its file is removed while the daemon runs.

A job that cleans `/tmp`, a shared volume or a directory below `/run` may remove the file. Without
the file no sender can connect, and nothing else would report that.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from logengine.daemon.sockets import Listening
from logengine.errors import ConfigError

log = structlog.get_logger()

_SCAN_EVERY_S = 2.0


class SocketWatch:
    """Checks the sockets' files at intervals, and binds those again that are gone.

    `moved` is called with the old listener, and with the `Listening` that has a new one.
    """

    def __init__(
        self,
        sockets: Iterable[Listening],
        moved: Callable[[socket.socket, Listening], None],
        *,
        look_every_s: float = _SCAN_EVERY_S,
    ) -> None:
        self._sockets = list(sockets)
        self._moved = moved
        self._look_every_s = look_every_s
        self._told: dict[Path, str] = {}

    async def run(self) -> None:
        """Watches until it is cancelled."""
        while True:
            await asyncio.sleep(self._look_every_s)
            for each in self._sockets:
                if each.is_named:
                    self._told.pop(each.path, None)
                else:
                    await self._bind_again(each)

    async def _bind_again(self, each: Listening) -> None:
        if each.inherited:
            self._tell(each.path, "systemd owns the socket: restart the socket unit")
            return
        try:
            # In a thread: it connects to the path to detect another listener, which may block.
            before = await asyncio.to_thread(each.bind_again)
        except (ConfigError, OSError) as error:
            self._tell(each.path, str(error))
            return
        self._moved(before, each)
        log.warning("socket_removed", socket=str(each.path), reason="the daemon bound it again")

    def _tell(self, path: Path, why: str) -> None:
        if self._told.get(path) != why:
            self._told[path] = why
            log.error("socket_gone", socket=str(path), reason=f"no sender can connect; {why}")
