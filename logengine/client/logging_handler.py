"""`LogEngineHandler`: the standard library's logging, as records with fields."""

import logging
import sys
import traceback
from collections.abc import Callable
from typing import Any

from logengine.client.encoding import encode_record, represent
from logengine.client.threads import Client
from logengine.errors import LogEngineError, RecordTooLarge
from logengine.timestamp import format_time

_CUT = "… (cut)"


class LogEngineHandler(logging.Handler):
    """Sends log records to a stream, each as one JSON object.

    Fields: `time`, `level`, `logger`, `message`, `file`, `line`, `function`, `thread`; then
    what `extra` gave, under its own names; with an exception `exception`, the traceback, and
    `exception_type` and `exception_message`; with stack info `stack`. A value that is not
    JSON becomes its `repr`; a record too large for the daemon is cut, and has `"cut":true`.
    A formatter set on the handler is not used: the fields say it all.

    `stream` and `options` are those of `Client`. Nothing is raised into the application:
    what goes wrong is told as logging does it, on standard error. `logging.shutdown` waits
    for what is pending, for `close_timeout` seconds.
    """

    def __init__(
        self, stream: str = "default", *, level: int | str = logging.NOTSET, **options: Any
    ) -> None:
        super().__init__(level)
        self._close_timeout_s = options.get("close_timeout", 5.0)
        self.client = Client(stream, **options)

    def emit(self, record: logging.LogRecord) -> None:
        """Sends `record`."""
        try:
            fields = fields_of(record)
            try:
                self.client.send(fields)
            except RecordTooLarge as error:
                self.client.send(cut(fields, error.limit))
        except Exception:  # noqa: BLE001 - logging is not to fail because of a log
            self.handleError(record)

    def flush(self) -> None:
        """Waits until all that was logged is durable, and tells on standard error if it is not."""
        if not self.client.is_closed:  # as it is when logging is shut down at exit
            self._try(lambda: self.client.flush(self._close_timeout_s))

    def close(self) -> None:
        """Ends the client, as its `close` does; what is not durable by now is told."""
        if not self.client.is_closed:
            # `logging.shutdown` has just flushed it.
            self._try(lambda: self.client.close(timeout=0))
        super().close()

    def _try(self, end: Callable[[], None]) -> None:
        try:
            end()
        except LogEngineError as error:
            if logging.raiseExceptions and sys.stderr is not None:
                print(f"logengine: {error}", file=sys.stderr)  # noqa: T201


_STANDARD = {*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"}
_STANDARD_COUNT = len(logging.makeLogRecord({}).__dict__)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What is sent for a log record."""
    fields: dict[str, Any] = {
        "time": format_time(record.created),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": _message(record),
        "file": record.pathname,
        "line": record.lineno,
        "function": record.funcName,
        "thread": record.threadName,
    }
    if len(record.__dict__) != _STANDARD_COUNT:
        for name, value in record.__dict__.items():
            if name not in _STANDARD:
                fields[_free(name, fields)] = value
    if record.exc_info:
        _add_exception(fields, record.exc_info)
    elif record.exc_text:
        fields["exception"] = record.exc_text
    if record.stack_info:
        fields["stack"] = record.stack_info
    return fields


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


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that do not fit are no reason to lose the message
        return f"{record.msg} (with arguments that do not fit: {represent(record.args)})"


def _add_exception(fields: dict[str, Any], exc_info: Any) -> None:
    kind, error, _ = exc_info
    if kind is None:  # logging.exception outside of an except
        return
    fields["exception_type"] = kind.__qualname__
    try:
        fields["exception_message"] = str(error)
        fields["exception"] = "".join(traceback.format_exception(*exc_info)).rstrip("\n")
    except Exception:  # noqa: BLE001 - an exception whose own text cannot be had
        fields["exception"] = represent(error)


def _free(name: str, fields: dict[str, Any]) -> str:
    """`name`, or with `_` behind it where a field of ours has it."""
    while name in fields:
        name += "_"
    return name
