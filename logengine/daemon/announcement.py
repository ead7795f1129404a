"""Reports the daemon's state to the service manager."""

import asyncio
from collections.abc import Callable, Mapping

from logengine.daemon.systemd import notify

_PAUSE_S = 0.2


class Announcement:
    """Reports `state` to the service manager when it has changed.

    `told` is the state that was reported before.
    """

    def __init__(self, environ: Mapping[str, str], state: Callable[[], str], told: str) -> None:
        self._environ = environ
        self._state = state
        self._told = told
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def renew(self) -> None:
        """Schedules a report; the delay merges many changes, such as those of a full disk."""
        if self._timer is None and not self._is_closed:
            self._timer = asyncio.get_running_loop().call_later(_PAUSE_S, self._tell)

    def close(self) -> None:
        """Stops reporting."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self) -> None:
        self._timer = None
        state = self._state()
        if state != self._told:
            self._told = state
            notify(f"STATUS={state}", self._environ)
