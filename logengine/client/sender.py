"""A client for a logging library: whatever happens, the application continues.

Nothing is raised into the application. The first failure is reported in one line; records lost
from then on are counted, and the count is reported at the end.
"""

import contextlib
import logging
import os
import weakref
from collections.abc import Callable
from itertools import repeat
from operator import length_hint
from typing import Any

from logengine.client import shutdown
from logengine.client.encoding import encode_record, represent
from logengine.client.stderr_notices import tell
from logengine.client.threads import Client
from logengine.errors import InvalidOption, LogEngineError, RecordTooLarge, SpoolInUse

_BLOCK_S_MAX = 1.0
_COUNTED_MAX = 2**62
_CUT = "… (cut)"
_SHORT_CHARACTERS = 100  # shorter values are of no use: rather leave fields out

_senders: "weakref.WeakSet[Sender]" = weakref.WeakSet()


class Sender:
    """Sends the records of a logging library through a `Client` created with `options`.

    Without `on_full`, a full memory makes the application wait for at most `block_max` seconds, by
    default 1. If the spool cannot be opened, the sender continues without one, or with one of its
    own, and reports that.
    """

    def __init__(self, stream: str = "default", **options: Any) -> None:
        if "on_full" not in options:
            options.setdefault("block_max", _BLOCK_S_MAX)
        self._begin(_client(stream, options))

    def _begin(self, client: Client) -> None:
        self.client = client
        self.forget()
        _senders.add(self)

    def forget(self) -> None:
        """Forgets what was lost and told, in a forked process."""
        self._told: dict[str, bool] = {}
        self._lost = repeat(None, _COUNTED_MAX)  # `next` counts, without a lock
        self._lost_told = 0

    def __deepcopy__(self, _: dict[int, Any]) -> "Sender":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _of_client, (self.client,)

    @property
    def lost(self) -> int:
        """How many records the client rejected with an error."""
        return _COUNTED_MAX - length_hint(self._lost)

    def send(self, fields: dict[str, Any]) -> None:
        """Sends a record; truncates it if it is too large."""
        try:
            try:
                self.client.send(fields)
            except RecordTooLarge as error:
                self.client.send(cut(fields, error.limit))
        except Exception as error:  # noqa: BLE001 - for example, memory ran out
            self.note_loss(error)

    def note_loss(self, error: Exception) -> None:
        """Counts a record that was lost by `error`; reports the first one of that kind."""
        next(self._lost)
        kind = type(error).__name__
        if self._told.setdefault(kind, False) is False:
            self._told[kind] = True
            why = f"{kind}: {error}" if isinstance(error, LogEngineError) else represent(error)
            _say(
                f"a record of stream {self.client.stream!r} was lost, later ones are counted: {why}"
            )

    def flush(self) -> None:
        """Waits until everything is durable, at most `close_timeout`; reports if it is not."""
        if not self.client.is_closed:
            self._try(self.client.flush_in_time)

    def close(self) -> None:
        """Closes the client; reports what is not durable by then, and what was lost before."""
        if not self.client.is_closed:
            self._try(self.client.close)
        self.report_lost()

    def report_lost(self) -> None:
        """Reports how many records were lost, unless that was reported."""
        lost = self.lost
        if lost > self._lost_told:
            self._lost_told = lost
            _say(f"{lost} records of stream {self.client.stream!r} were lost in total")

    def _try(self, end: Callable[[], None]) -> None:
        try:
            end()
        except LogEngineError as error:
            if self._told.setdefault(str(error), False) is False:
                # `logging.shutdown` flushes and closes, which may fail with the same error twice.
                self._told.clear()
                self._told[str(error)] = True
                _say(str(error))


def _of_client(client: Client) -> Sender:
    sender = Sender.__new__(Sender)
    sender._begin(client)  # noqa: SLF001 - this is the second half of its constructor
    return sender


def _client(stream: str, options: dict[str, Any]) -> Client:
    try:
        return Client(stream, **options)
    except InvalidOption:
        raise
    except SpoolInUse as error:
        # For example, all workers of a server were configured with the same name.
        tell(f"{error}; this client uses a generated name")
        return Client(stream, **options | {"producer": None})
    except OSError as error:
        # The records in the spool have numbers of this name: new ones would be mistaken for them.
        tell(f"the spool cannot be used, records wait only in memory: {error}")
        return Client(stream, **options | {"producer": None, "spool": None})


def _say(text: str) -> None:
    with contextlib.suppress(Exception):
        if logging.raiseExceptions:
            tell(text)


def cut(fields: dict[str, Any], bytes_max: int) -> dict[str, Any]:
    """Returns `fields` with the large ones truncated to make a record of at most `bytes_max`.

    If there are too many fields, the last ones are left out.
    """
    characters_max = bytes_max // 8
    while True:
        shorter = {name: _cut_value(value, characters_max) for name, value in fields.items()}
        shorter["cut"] = True
        if len(encode_record(shorter)) <= bytes_max:
            return shorter
        if characters_max <= _SHORT_CHARACTERS:
            return _first_of(shorter, bytes_max)
        characters_max //= 2


def _first_of(fields: dict[str, Any], bytes_max: int) -> dict[str, Any]:
    marked = {"cut": True}
    left_bytes = bytes_max - len(encode_record(marked))
    kept = {}
    for name, value in fields.items():
        left_bytes -= len(encode_record({name: value}))
        if left_bytes < 0:
            break
        kept[name] = value
    return kept | marked


def _cut_value(value: Any, characters_max: int) -> Any:
    if isinstance(value, str):
        text = value
    elif len(encode_record({"": value})) <= characters_max:
        return value
    else:
        text = represent(value)
    return text if len(text) <= characters_max else text[:characters_max] + _CUT


def _report_lost() -> None:
    for sender in list(_senders):
        sender.report_lost()


def _forget_losses() -> None:
    for sender in list(_senders):
        sender.forget()


shutdown.report_after(_report_lost)
os.register_at_fork(after_in_child=_forget_losses)
