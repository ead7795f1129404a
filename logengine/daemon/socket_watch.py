"""Sees to it that senders find the daemon under its sockets' names.

Whoever cleans `/tmp`, a shared volume, or a directory below `/run` may remove the file of a socket
while the daemon listens at it: nobody could connect any more, and nobody would say why.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from logengine.daemon.sockets import Listening
from logengine.errors import ConfigError

log = structlog.get_logger()

_LOOK_EVERY_S = 2.0


class SocketWatch:
    """Looks at the names now and then, and listens again where one is gone.

    `moved` is called with the listener before, and with what has another one now.
    """

    def __init__(
        self,
        sockets: Iterable[Listening],
        moved: Callable[[socket.socket, Listening], None],
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

    async def _bind_again(self, each: Listening) -> None:
        if each.inherited:
            self._tell(each.path, "it is systemd's: restart the socket unit")
            return
        try:
            # It asks whether anybody listens there, who may take his time.
            before = await asyncio.to_thread(each.bind_again)
        except (ConfigError, OSError) as error:
            self._tell(each.path, str(error))
            return
        self._moved(before, each)
        log.warning("socket_removed", socket=str(each.path), reason="it is there again")

    def _tell(self, path: Path, why: str) -> None:
        if self._told.get(path) != why:
            self._told[path] = why
            log.error("socket_gone", socket=str(path), reason=f"nobody can connect; {why}")
