"""A client behind a logging library: whatever happens, the application goes on.

Nothing is raised into it. What goes wrong is said in one line, once; what is lost from then on
is counted, and said at the end.
"""

import contextlib
import logging
from collections.abc import Callable
from itertools import repeat
from operator import length_hint
from typing import Any

from logengine.client.encoding import encode_record, represent
from logengine.client.stderr_notices import tell
from logengine.client.threads import Client
from logengine.errors import InvalidOption, LogEngineError, RecordTooLarge, SpoolInUse

_BLOCK_S_MAX = 1.0
_COUNTED_MAX = 2**62
_CUT = "… (cut)"


class Sender:
    """A `Client`, made with `options`, for the records of a logging library.

    Where `on_full` is not given, a full memory makes the application wait for `block_max`
    seconds at most, 1 if that is not given. Where the spool cannot be had, it goes on without
    it, or with one of its own, and says so.
    """

    def __init__(self, stream: str = "default", **options: Any) -> None:
        if "on_full" not in options:
            options.setdefault("block_max", _BLOCK_S_MAX)
        self._begin(_client(stream, options))

    def _begin(self, client: Client) -> None:
        self.client = client
        self._told: dict[str, bool] = {}
        self._lost = repeat(None, _COUNTED_MAX)  # `next` counts, without a lock

    def __deepcopy__(self, _: dict[int, Any]) -> "Sender":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _of_client, (self.client,)

    @property
    def lost(self) -> int:
        """How many records the client did not take because of an error."""
        return _COUNTED_MAX - length_hint(self._lost)

    def send(self, fields: dict[str, Any]) -> None:
        """Sends a record; one that is too large is cut."""
        try:
            try:
                self.client.send(fields)
            except RecordTooLarge as error:
                self.client.send(cut(fields, error.limit))
        except LogEngineError as error:
            next(self._lost)
            kind = type(error).__name__
            if self._told.setdefault(kind, False) is False:
                self._told[kind] = True
                _say(
                    f"a record of stream {self.client.stream!r} is lost, more are counted: "
                    f"{kind}: {error}"
                )

    def flush(self) -> None:
        """Waits until all is durable, for `close_timeout`; says so if it is not."""
        if not self.client.is_closed:
            self._try(self.client.flush_in_time)

    def close(self) -> None:
        """Ends the client; says what is not durable by then, and what was lost before."""
        if self.client.is_closed:
            return
        self._try(self.client.close)
        if lost := self.lost:
            _say(f"{lost} records of stream {self.client.stream!r} were lost in all")

    def _try(self, end: Callable[[], None]) -> None:
        try:
            end()
        except LogEngineError as error:
            if self._told.setdefault(str(error), False) is False:
                self._told.clear()  # `logging.shutdown` flushes and closes: it is the same twice
                self._told[str(error)] = True
                _say(str(error))


def _of_client(client: Client) -> Sender:
    sender = Sender.__new__(Sender)
    sender._begin(client)  # noqa: SLF001 - the rest of its constructor
    return sender


def _client(stream: str, options: dict[str, Any]) -> Client:
    try:
        return Client(stream, **options)
    except InvalidOption:
        raise
    except SpoolInUse as error:
        # As for the workers of a server that all are given one name.
        tell(f"{error}; this one uses a name of its own")
        return Client(stream, **options | {"producer": None})
    except OSError as error:
        # Under the name of the records that are in it, others would be taken for them.
        tell(f"the spool cannot be used, records wait in memory alone: {error}")
        return Client(stream, **options | {"producer": None, "spool": None})


def _say(text: str) -> None:
    with contextlib.suppress(Exception):
        if logging.raiseExceptions:
            tell(text)


def cut(fields: dict[str, Any], bytes_max: int) -> dict[str, Any]:
    """`fields` with the large ones cut, so that they are a record of at most `bytes_max`."""
    characters_max = bytes_max // 8
    while True:
        shorter = {name: _cut_value(value, characters_max) for name, value in fields.items()}
        shorter["cut"] = True
        if len(encode_record(shorter)) <= bytes_max or not characters_max:
            return shorter
        characters_max //= 2


def _cut_value(value: Any, characters_max: int) -> Any:
    if isinstance(value, str):
        text = value
    elif len(encode_record({"": value})) <= characters_max:
        return value
    else:
        text = represent(value)
    return text if len(text) <= characters_max else text[:characters_max] + _CUT
