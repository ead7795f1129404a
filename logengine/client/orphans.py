"""Sends what clients that are no more left in a directory of spools.

A process without a name of its own has no successor, and neither has a forked one: what they
could not send is sent by whoever uses the same directory and finds a daemon.
"""

import contextlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from logengine.client.settings import Settings
from logengine.client.spool import orphans
from logengine.errors import LogEngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from logengine.client.threads import Client


class OrphanDrain:
    """At most one thread, which goes through the orphaned spools one by one and ends."""

    def __init__(self, settings: Settings, client: "Callable[..., Client]") -> None:
        self._settings = settings
        self._new_client = client
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._client: Client | None = None
        self._stopping = False

    def start(self) -> None:
        """Looks for orphans, if that is not being done."""
        with self._lock:
            if self._stopping or (self._thread is not None and self._thread.is_alive()):
                return
            self._thread = threading.Thread(target=self._run, name="logengine-orphans", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Returns when nothing goes on any more; what was not sent is still in its spool."""
        with self._lock:
            self._stopping = True
            if self._client is not None:
                self._client.give_up()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        assert self._settings.spool is not None
        for stream, producer in list(orphans(Path(self._settings.spool))):
            # In use, damaged, or the daemon went away: it is there the next time as well.
            with contextlib.suppress(LogEngineError, OSError):
                self._drain(stream, producer)

    def _drain(self, stream: str, producer: str) -> None:
        with self._lock:
            if self._stopping:
                return
            self._client = self._new_client(
                stream,
                socket=self._settings.socket_path(),
                producer=producer,
                spool=self._settings.spool,
                max_spool_bytes=self._settings.max_spool_bytes,
                drains_orphan=True,
            )
        try:
            self._client.flush()
        finally:
            with self._lock:
                client, self._client = self._client, None
            client.close(timeout=0)
