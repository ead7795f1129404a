"""What both clients are and have, whichever way they wait."""

import contextlib
import secrets
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

from logengine.client.delivery import Delivery
from logengine.client.orphans import OrphanDrain
from logengine.client.outbox import Refusal
from logengine.client.settings import OnFull, Settings, StrPath, process_producer
from logengine.client.spool import Spool
from logengine.client.stderr_notices import tell
from logengine.errors import ClientClosed, LogEngineError, NotDurable, renewed

SomeClient = TypeVar("SomeClient", bound="BaseClient")

_of_token: "weakref.WeakValueDictionary[str, BaseClient]" = weakref.WeakValueDictionary()


@contextlib.contextmanager
def noted_on(exc: BaseException | None) -> Iterator[None]:
    """For the end of a `with`: what ended its block is the one to be raised, with a note."""
    try:
        yield
    except LogEngineError as error:
        if exc is None:
            raise
        exc.add_note(str(error))


class BaseClient:
    """A producer of one stream. The options:

    `socket`: the daemon's; without it `$LOGENGINE_SOCKET`, or where `logengine run` listens.
    `producer`: a name that outlives the process. Whoever comes next under it goes on where
    this one stopped (`resumed_at`); two at once fence each other. Without it, one is made up.
    `max_records`, `max_bytes`: what may wait in memory. `on_full` is what `send` does then:
    "block", "drop" (counted, and a record tells how many), or "raise" `ClientFull`.
    `block_max`: how many seconds without any progress "block" waits before it drops, until
    there is room again; None is for ever.
    `spool`: a directory for what does not fit in memory, and for what is not durable at exit;
    it is sent by this process or the next one with the same `producer`; that of a process
    without a name by any other client with this directory. `max_spool_bytes` bounds it.
    `close_timeout`: how many seconds `close`, and so the exit, waits for the daemon.
    `away_max`: after so many seconds without a daemon it is given up; None is never.

    A copy is the same client. One that is unpickled is the same in the same process, and in
    another one a client of its own with these options.

    Raises `InvalidOption` and `InvalidStreamName` for what cannot be, and with a spool
    `SpoolInUse` and `OSError`. It does not matter whether a daemon is there.
    """

    def __init__(
        self,
        stream: str = "default",
        *,
        socket: StrPath | None = None,
        producer: str | None = None,
        on_full: OnFull = "block",
        block_max: float | None = None,
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
            spool=spool,
            max_records=max_records,
            max_bytes=max_bytes,
            max_spool_bytes=max_spool_bytes,
        )
        self._close_timeout_s = close_timeout
        self._away_max_s = away_max
        self._drains_orphan = drains_orphan
        self._closed = False
        self._adoptable = drains_orphan or producer is None
        self._orphans: OrphanDrain | None = None
        self._token = secrets.token_hex(16)
        name = producer if producer is not None else process_producer()
        self._begin(Delivery(self._settings, name, self._open_spool(name)))
        _of_token[self._token] = self

    def _begin(self, delivery: Delivery) -> None:
        """What each process has of its own."""
        raise NotImplementedError

    def _open_spool(self, producer: str) -> Spool | None:
        spools = self._settings.spool
        if spools is None:
            return None
        return Spool.open(
            Path(spools), self.stream, producer, adoptable=self._adoptable, tell_damage=tell
        )

    @property
    def _delivery(self) -> Delivery:
        raise NotImplementedError

    @property
    def _failure(self) -> LogEngineError | None:
        """What ended the client, if anything did."""
        raise NotImplementedError

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        settings = self._settings
        options = {
            "stream": settings.stream,
            "socket": settings.named_socket,
            "producer": settings.producer,
            "on_full": settings.on_full,
            "block_max": settings.block_max,
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
        """The stream that records go to."""
        return self._settings.stream

    @property
    def producer(self) -> str:
        """The name under which the daemon knows this process."""
        return self._delivery.producer

    @property
    def close_timeout(self) -> float:
        """How many seconds `close` waits if it is not told."""
        return self._close_timeout_s

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more records because it was closed."""
        return self._closed

    @property
    def acked(self) -> int:
        """How many of the records that this client took are durable."""
        return max(0, self._delivery.outbox.acked - self._delivery.inherited)

    @property
    def pending(self) -> int:
        """How many records are not known to be durable, those found in the spool included."""
        return self._delivery.outbox.pending

    @property
    def pending_bytes(self) -> int:
        """What the pending records in memory take."""
        return self._delivery.outbox.held_bytes

    @property
    def max_record(self) -> int:
        """The longest record that the daemon takes, in bytes; 1 MiB while it has not said so."""
        return self._delivery.line_bytes_max - 1

    @property
    def dropped(self) -> int:
        """How many records there was no room for."""
        return self._delivery.outbox.dropped

    @property
    def refused(self) -> int:
        """How many records the daemon did not store: too large for it, or over a quota."""
        return self._delivery.outbox.refused

    @property
    def refusals(self) -> list[Refusal]:
        """The last hundred of those refusals, by places as `send` gave them."""
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
        """Says that memory is full, the first time."""
        tell(
            f"the memory for stream {self.stream!r} is full, records are dropped and counted: "
            f"{self._delivery.trouble}"
        )

    def _drain_orphans(self, new_client: Callable[..., Any]) -> None:
        if self._settings.spool is None or self._drains_orphan:
            return
        if self._orphans is None:
            self._orphans = OrphanDrain(self._settings, new_client)
        self._orphans.start()

    def _raise_what_is_lost(self, error: LogEngineError | None) -> None:
        """At the end: what is in the spool is not lost."""
        error = self._failure or error
        lost = self.pending > self._delivery.spooled
        if error is not None and (lost or not isinstance(error, NotDurable)):
            raise renewed(error)


def clients_of(kind: type[SomeClient]) -> list[SomeClient]:
    """Those of this process that are in use somewhere."""
    return [client for client in list(_of_token.values()) if isinstance(client, kind)]


def _unpickled(kind: type[BaseClient], token: str, options: dict[str, Any]) -> BaseClient:
    client = _of_token.get(token)
    if client is None:
        if options["producer"] is not None:
            # The name is still that of the process that pickled it.
            options = options | {"producer": process_producer(options["producer"])}
        client = kind(**options)
        client._token = token  # noqa: SLF001 - the same again, when it comes again
        client = _of_token.setdefault(token, client)
    return client
