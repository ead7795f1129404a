"""`LogEngineHandler`: sends the standard library's log records as records with fields."""

import logging
import traceback
from typing import Any

from logengine.client.encoding import represent
from logengine.client.sender import Sender
from logengine.client.threads import Client
from logengine.format.timestamp import format_time


class LogEngineHandler(logging.Handler):
    """Sends log records to a stream, each as one JSON object.

    Fields: `time`, `level`, `logger`, `message`, `file`, `line`, `function`, `thread`; then the
    keys of `extra`, under their own names; with an exception `exception` (the traceback),
    `exception_type` and `exception_message`; with stack info `stack`. A value that is not
    JSON becomes its `repr`; a record too large for the daemon is truncated and gets `"cut":true`.
    A formatter set on the handler is not used: the fields contain everything.

    `stream` and `options` are those of `Client`, except that a full memory makes the application
    wait for at most `block_max` seconds, by default 1; an explicit `on_full="block"` waits
    forever. Nothing is raised into the application: the handler reports the first failure in one
    line on standard error and counts the records lost from then on. A handler has no lock: signal
    handlers and `__del__` may log while another call is logging. `logging.shutdown` waits for
    pending records, for `close_timeout` seconds.
    """

    def __init__(
        self, stream: str = "default", *, level: int | str = logging.NOTSET, **options: Any
    ) -> None:
        super().__init__(level)
        self._sender = Sender(stream, **options)

    @property
    def client(self) -> Client:
        """The client that sends the records."""
        return self._sender.client

    def createLock(self) -> None:  # noqa: N802 - logging calls it
        """Sets no lock: the client needs none, and foreign code could run while it is held."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> Any:
        """Filters and emits `record` like `logging.Handler.handle`, without the lock."""
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
        except Exception as error:  # noqa: BLE001 - it must not make the application fail
            self._sender.note_loss(error)

    def flush(self) -> None:
        """Waits until everything logged is durable; reports on standard error if it is not."""
        self._sender.flush()

    def close(self) -> None:
        """Closes the client; reports on standard error what is not durable by then."""
        self._sender.close()
        super().close()


_STANDARD = {*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"}
_STANDARD_COUNT = len(logging.makeLogRecord({}).__dict__)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Returns the fields that are sent for a log record."""
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
    except Exception:  # noqa: BLE001 - keep the message even if its arguments do not fit
        text = record.msg if type(record.msg) is str else represent(record.msg)
        if not record.args:
            return text
        return f"{text} (with arguments that do not fit: {represent(record.args)})"


def _add_exception(fields: dict[str, Any], exc_info: Any) -> None:
    kind, error, _ = exc_info
    if kind is None:  # logging.exception outside of an except
        return
    fields["exception_type"] = kind.__qualname__
    try:
        fields["exception_message"] = str(error)
        fields["exception"] = "".join(traceback.format_exception(*exc_info)).rstrip("\n")
    except Exception:  # noqa: BLE001 - the exception cannot format itself
        fields["exception"] = represent(error)


def _free(name: str, fields: dict[str, Any]) -> str:
    """Returns `name`, with `_` appended until no other field has it."""
    while name in fields:
        name += "_"
    return name
