"""Reports that a command waits for the daemon, and gives up in time, also if the daemon hangs."""

import asyncio
from typing import NoReturn

from logengine.cli.messages import tell
from logengine.client.aio import AsyncClient
from logengine.client.daemon_socket import Socket
from logengine.errors import DaemonUnavailable
from logengine.units import format_duration

_LOOK_S = 0.2
_AWAY_TOLD_AFTER_S = 1.0
# A commit takes as long as the disk does.
_STALLED_TOLD_AFTER_S = 5.0
# An answer takes a moment, also if the user wants to wait for nothing.
_PATIENCE_S_MIN = 1.0


async def watch(client: AsyncClient, socket: Socket, timeout_s: float | None) -> NoReturn:
    """Prints one line each time that nothing is acknowledged for a moment, although some is sent.

    Raises `DaemonUnavailable` after `timeout_s` without an answer.
    """
    loop = asyncio.get_running_loop()
    looked_at = loop.time()
    waited_s = 0.0
    is_told = False
    before: tuple[object, ...] | None = None
    while True:
        away = client.away
        seen = (away is None, client.acked, client.refused)
        if seen != before or (away is None and not client.pending):
            waited_s, is_told = 0.0, False
        before = seen
        reason = away or f"the daemon at {socket} acknowledges nothing"
        if timeout_s is not None and waited_s >= max(timeout_s, _PATIENCE_S_MIN):
            raise DaemonUnavailable(f"{reason}, for {waited_s:.1f} s; its log may tell why")
        told_after_s = _AWAY_TOLD_AFTER_S if away else _STALLED_TOLD_AFTER_S
        if not is_told and waited_s >= told_after_s:
            limit = "" if timeout_s is None else f", for at most {format_duration(timeout_s)}"
            tell(f"waiting for the daemon{limit}: {reason}")
            is_told = True
        await asyncio.sleep(_LOOK_S)
        # A process that was stopped meanwhile, as by ^Z, has not waited.
        waited_s += min(loop.time() - looked_at, 2 * _LOOK_S)
        looked_at = loop.time()
