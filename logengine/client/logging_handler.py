"""`LogEngineHandler`: the standard library's logging, as records with fields."""

import logging
import traceback
from typing import Any

from logengine.client.encoding import represent
from logengine.client.sender import Sender
from logengine.client.threads import Client
from logengine.format.timestamp import format_time


class LogEngineHandler(logging.Handler):
    """Sends log records to a stream, each as one JSON object.

    Fields: `time`, `level`, `logger`, `message`, `file`, `line`, `function`, `thread`; then
    what `extra` gave, under its own names; with an exception `exception`, the traceback, and
    `exception_type` and `exception_message`; with stack info `stack`. A value that is not
    JSON becomes its `repr`; a record too large for the daemon is cut, and has `"cut":true`.
    A formatter set on the handler is not used: the fields say it all.

    `stream` and `options` are those of `Client`, but that a full memory makes the application
    wait for at most `block_max` seconds, 1 if that is not given; `on_full="block"` is for ever.
    Nothing is raised into the application: what goes wrong is said once, in one line on
    standard error, and what is lost from then on is counted. A handler has no lock: what logs
    in a signal handler or in a `__del__` does so while somebody else does. `logging.shutdown`
    waits for what is pending, for `close_timeout` seconds.
    """

    def __init__(
        self, stream: str = "default", *, level: int | str = logging.NOTSET, **options: Any
    ) -> None:
        super().__init__(level)
        self._sender = Sender(stream, **options)

    @property
    def client(self) -> Client:
        """What sends the records."""
        return self._sender.client

    def createLock(self) -> None:  # noqa: N802 - logging calls it
        """None: the client needs none, and where foreign code runs it would be one to wait for."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> Any:
        """As logging has it, without the lock."""
        found: Any = self.filter(record)
        if isinstance(found, logging.LogRecord):  # since Python 3.12
            record = found
        if found:
            self.emit(record)
        return found

    def emit(self, record: logging.LogRecord) -> None:
        """Sends `record`."""
        try:
            self._sender.send(fields_of(record))
        except Exception:  # noqa: BLE001 - logging is not to fail because of a log
            self.handleError(record)

    def flush(self) -> None:
        """Waits until all that was logged is durable, and says on standard error if it is not."""
        self._sender.flush()

    def close(self) -> None:
        """Ends the client, as its `close` does; what is not durable by then is told."""
        self._sender.close()
        super().close()


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
