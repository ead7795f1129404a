"""Sends what clients that are no more left in a directory of spools.

A process without a name of its own has no successor, and neither has a forked one: what they
could not send is sent by whoever uses the same directory and finds a daemon.
"""

import contextlib
import time
from _thread import start_new_thread
from pathlib import Path
from typing import TYPE_CHECKING

from logengine.client.settings import Settings
from logengine.client.spool import orphans
from logengine.errors import LogEngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from logengine.client.threads import Client

_LOOK_S = 0.005


class OrphanDrain:
    """At most one thread, which goes through the orphaned spools one by one and ends.

    Without a lock, as all of the client: what is set first is looked at last.
    """

    def __init__(self, settings: Settings, client: "Callable[..., Client]") -> None:
        self._settings = settings
        self._new_client = client
        self._is_running = False
        self._client: Client | None = None
        self._stopping = False

    def start(self) -> None:
        """Looks for orphans, if that is not being done. Called by one thread alone."""
        if self._stopping or self._is_running:
            return
        self._is_running = True
        try:
            start_new_thread(self._run, ())
        except RuntimeError:  # no thread to be had: at the next welcome, or by another client
            self._is_running = False

    def stop(self, timeout_s: float) -> None:
        """Returns when nothing goes on any more; what was not sent is still in its spool."""
        self._stopping = True
        deadline = time.monotonic() + timeout_s
        while self._is_running and time.monotonic() < deadline:
            if (client := self._client) is not None:
                client.give_up()
            time.sleep(_LOOK_S)

    def _run(self) -> None:
        assert self._settings.spool is not None
        try:
            for stream, producer in list(orphans(Path(self._settings.spool))):
                # In use, damaged, or the daemon went away: it is there the next time as well.
                with contextlib.suppress(LogEngineError, OSError):
                    self._drain(stream, producer)
        finally:
            self._is_running = False

    def _drain(self, stream: str, producer: str) -> None:
        if self._stopping:
            return
        client = self._client = self._new_client(
            stream,
            socket=self._settings.socket_path(),
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
