"""Sends the records that clients of dead processes left in a directory of spools.

A process without a producer name has no successor, and neither has a forked process. Another client
that uses the same directory and reaches a daemon sends their remaining records.
"""

import contextlib
import time
from _thread import start_new_thread
from pathlib import Path
from typing import TYPE_CHECKING

from logengine.client.clock import now_s
from logengine.client.settings import Settings
from logengine.client.signal_context import leave_signals_to_others
from logengine.client.spool import orphans
from logengine.errors import LogEngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from logengine.client.threads import Client

_LOOK_S = 0.005


class OrphanDrain:
    """Runs at most one thread, which drains the orphaned spools one by one and exits.

    It has no lock, like the rest of the client: each side sets its flag first and checks the
    other's last.
    """

    def __init__(self, settings: Settings, client: "Callable[..., Client]") -> None:
        self._settings = settings
        self._new_client = client
        self._is_running = False
        self._client: Client | None = None
        self._stopping = False

    def start(self) -> None:
        """Starts the search for orphans unless one is running. Only one thread calls this."""
        if self._stopping or self._is_running:
            return
        self._is_running = True
        try:
            start_new_thread(self._run, ())
        except RuntimeError:  # no thread available: the next welcome, or another client, retries
            self._is_running = False

    def stop(self, timeout_s: float) -> None:
        """Waits until the thread has ended, at most `timeout_s`; unsent records stay spooled."""
        self._stopping = True
        deadline = now_s() + timeout_s
        while self._is_running and now_s() < deadline:
            if (client := self._client) is not None:
                client.give_up()
            time.sleep(_LOOK_S)

    def _run(self) -> None:
        leave_signals_to_others()
        assert self._settings.spool is not None
        try:
            for stream, producer in list(orphans(Path(self._settings.spool))):
                # In use, damaged, or the daemon went away: the next run finds the spool again.
                with contextlib.suppress(LogEngineError, OSError):
                    self._drain(stream, producer)
        finally:
            self._is_running = False

    def _drain(self, stream: str, producer: str) -> None:
        if self._stopping:
            return
        client = self._client = self._new_client(
            stream,
            socket=self._settings.current_socket(),
            producer=producer,
            spool=self._settings.spool,
            max_spool_bytes=self._settings.max_spool_bytes,
            drains_orphan=True,
        )
        try:
            if not self._stopping:
                client.flush()
        finally:
            self._client = None
            client.close(timeout=0)
