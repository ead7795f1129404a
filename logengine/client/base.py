"""The base of both clients: what they share, however they wait."""

import contextlib
import dataclasses
import os
import secrets
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

from logengine.client.delivery import Delivery
from logengine.client.orphans import OrphanDrain
from logengine.client.outbox import Refusal
from logengine.client.settings import OnForgotten, OnFull, Settings, StrPath, process_producer
from logengine.client.spool import Spool, may_have_own_spool
from logengine.client.stderr_notices import notice_once, tell
from logengine.errors import (
    ClientClosed,
    InvalidOption,
    LogEngineError,
    NotDurable,
    UnsafeSpool,
    renewed,
)

SomeClient = TypeVar("SomeClient", bound="BaseClient")

_of_token: "weakref.WeakValueDictionary[str, BaseClient]" = weakref.WeakValueDictionary()


@contextlib.contextmanager
def noted_on(exc: BaseException | None) -> Iterator[None]:
    """For `__exit__`: if the block raised `exc`, a client's error becomes a note on it."""
    try:
        yield
    except LogEngineError as error:
        if exc is None:
            raise
        exc.add_note(str(error))


class BaseClient:
    """A producer of one stream. The options:

    `socket`: the daemon's socket; by default `$LOGENGINE_SOCKET`, else where `logengine run`
    listens.
    `producer`: a name that outlives the process. The next client of that name continues where
    this one stopped (`resumed_at`); two at the same time fence each other. By default, a name is
    generated.
    `max_records`, `max_bytes`: how much may wait in memory. `on_full` is what `send` does when
    memory is full: "block", "drop" (counts, and sends a record with the count), or "raise"
    `ClientFull`.
    `block_max`: how many seconds without any progress "block" waits before it drops, until
    there is room again; None waits forever.
    `on_forgotten`: what happens if the daemon no longer knows the producer, so that records that
    were sent and not acknowledged may be stored twice: "warn" reports it on standard error, "raise"
    ends the client with `ProducerForgotten`.
    `spool`: a directory for records that do not fit in memory, and for those that are not durable
    at exit. This process sends them, or the next one with the same `producer`; for a process
    without a name, any other client with this directory. `max_spool_bytes` bounds it.
    `close_timeout`: how many seconds `close`, and so the exit, waits for the daemon.
    `away_max`: after how many seconds without a daemon the client gives up; None is never.

    A copy is the same client. An unpickled client is the same one in the same process, and a
    separate client with these options in another process.

    Raises `InvalidOption` and `InvalidStreamName` for invalid options, and with a spool
    `SpoolInUse` and `OSError`. A spool that other users may write to, or have written to, is
    reported on standard error, and the client continues without one. No daemon needs to be running.
    """

    def __init__(
        self,
        stream: str = "default",
        *,
        socket: StrPath | None = None,
        producer: str | None = None,
        on_full: OnFull = "block",
        block_max: float | None = None,
        on_forgotten: OnForgotten = "warn",
        spool: StrPath | None = None,
        max_records: int = 100_000,
        max_bytes: int = 16 * 1024 * 1024,
        max_spool_bytes: int = 1024 * 1024 * 1024,
        close_timeout: float = 5.0,
        away_max: float | None = None,
        drains_orphan: bool = False,
    ) -> None:
        self._settings = Settings(
            stream=stream,
            socket=socket,
            producer=producer,
            on_full=on_full,
            block_max=block_max,
            on_forgotten=on_forgotten,
            spool=spool,
            max_records=max_records,
            max_bytes=max_bytes,
            max_spool_bytes=max_spool_bytes,
        )
        for name, given in (("close_timeout", close_timeout), ("away_max", away_max or 0.0)):
            if not (isinstance(given, int | float) and given >= 0):
                raise InvalidOption(f"{name} {given!r}: expected a number of seconds, at least 0")
        self._close_timeout_s = close_timeout
        self._away_max_s = away_max
        self._drains_orphan = drains_orphan
        self._closed = False
        self._adoptable = drains_orphan or producer is None
        self._orphans: OrphanDrain | None = None
        self._token = secrets.token_hex(16)
        name = producer if producer is not None else process_producer()
        opened: Spool | None = None
        try:
            opened = self._open_spool(name)
        except UnsafeSpool as error:
            name = self._go_on_without_spool(name, error)
        self._begin(Delivery(self._settings, name, opened))
        _of_token[self._token] = self

    def _begin(self, delivery: Delivery) -> None:
        """Sets up the state that each process has of its own."""
        raise NotImplementedError

    def _open_spool(self, producer: str) -> Spool | None:
        spools = self._settings.spool
        if spools is None:
            return None
        return Spool.open(
            Path(spools), self.stream, producer, adoptable=self._adoptable, tell_damage=tell
        )

    def _go_on_without_spool(self, producer: str, error: UnsafeSpool) -> str:
        """Reports that the spool is not safe. Returns the producer name to use without it."""
        spools = self._settings.spool
        assert spools is not None
        how = "records wait only in memory"
        if may_have_own_spool(Path(spools), self.stream, producer):
            # Its records have numbers of this name: new ones would be mistaken for them.
            producer = process_producer(producer)
            how += ", and this client uses a generated name"
        notice_once("unsafe spool", os.fspath(spools), f"{error}; {how}")
        self._settings = dataclasses.replace(self._settings, spool=None)
        return producer

    @property
    def _delivery(self) -> Delivery:
        raise NotImplementedError

    @property
    def _failure(self) -> LogEngineError | None:
        """The error that ended the client, if any."""
        raise NotImplementedError

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        settings = self._settings
        options = {
            "stream": settings.stream,
            "socket": settings.given_socket,
            "producer": settings.producer,
            "on_full": settings.on_full,
            "block_max": settings.block_max,
            "on_forgotten": settings.on_forgotten,
            "spool": settings.spool,
            "max_records": settings.max_records,
            "max_bytes": settings.max_bytes,
            "max_spool_bytes": settings.max_spool_bytes,
            "close_timeout": self._close_timeout_s,
            "away_max": self._away_max_s,
        }
        return _unpickled, (type(self), self._token, options)

    @property
    def stream(self) -> str:
        """The stream that receives the records."""
        return self._settings.stream

    @property
    def producer(self) -> str:
        """The producer name of this process."""
        return self._delivery.producer

    @property
    def close_timeout(self) -> float:
        """How many seconds `close` waits if it is called without a timeout."""
        return self._close_timeout_s

    @property
    def is_closed(self) -> bool:
        """Whether the client was closed and takes no more records."""
        return self._closed

    @property
    def away(self) -> str | None:
        """Why no daemon accepts records at the moment; None if one does."""
        return self._delivery.away

    @property
    def acked(self) -> int:
        """How many of this client's records are durable."""
        return max(0, self._delivery.outbox.acked - self._delivery.inherited)

    @property
    def pending(self) -> int:
        """How many records are not known to be durable, those found in the spool included."""
        return self._delivery.outbox.pending

    @property
    def pending_bytes(self) -> int:
        """How many bytes the pending records in memory take."""
        return self._delivery.outbox.held_bytes

    @property
    def max_record(self) -> int:
        """The longest record that the daemon accepts, in bytes; 1 MiB until its first welcome."""
        return self._delivery.line_bytes_max - 1

    @property
    def dropped(self) -> int:
        """How many records were dropped for lack of room."""
        return self._delivery.outbox.dropped

    @property
    def refused(self) -> int:
        """How many records the daemon did not store: too large, or over a quota."""
        return self._delivery.outbox.refused

    @property
    def refusals(self) -> list[Refusal]:
        """The last hundred of those refusals, with the places that `send` returned."""
        inherited = self._delivery.inherited
        return [
            Refusal(first - inherited, last - inherited, reason)
            for first, last, reason in list(self._delivery.outbox.refusals)
        ]

    def _usable(self) -> Delivery:
        if self._closed:
            raise ClientClosed(f"the client of stream {self.stream!r} was closed")
        if self._failure is not None:
            raise renewed(self._failure)
        return self._delivery

    def _tell_of_drops(self) -> None:
        """Reports that memory is full."""
        tell(
            f"memory for stream {self.stream!r} is full, records are dropped and counted: "
            f"{self._delivery.trouble}"
        )

    def _drain_orphans(self, new_client: Callable[..., Any]) -> None:
        if self._settings.spool is None or self._drains_orphan:
            return
        if self._orphans is None:
            self._orphans = OrphanDrain(self._settings, new_client)
        self._orphans.start()

    def _raise_what_is_lost(self, error: LogEngineError | None) -> None:
        """Raises at the end if pending records are lost: those in the spool are not."""
        error = self._failure or error
        lost = self.pending > self._delivery.spooled
        if error is not None and (lost or not isinstance(error, NotDurable)):
            raise renewed(error)


def clients_of(kind: type[SomeClient]) -> list[SomeClient]:
    """Returns the clients of this kind that are referenced in this process."""
    return [client for client in list(_of_token.values()) if isinstance(client, kind)]


def _unpickled(kind: type[BaseClient], token: str, options: dict[str, Any]) -> BaseClient:
    client = _of_token.get(token)
    if client is None:
        if options["producer"] is not None:
            # The process that pickled the client still uses this name.
            options = options | {"producer": process_producer(options["producer"])}
        client = kind(**options)
        client._token = token  # noqa: SLF001 - unpickling it again returns the same client
        client = _of_token.setdefault(token, client)
    return client
