"""structlog's events as records.

structlog.configure(
processors=logengine.structlog_processors(),
logger_factory=logengine.StructlogFactory("app"),
)
"""

from typing import Any

import structlog
from structlog.typing import Processor

from logengine.client.sender import Sender
from logengine.client.threads import Client


def structlog_processors() -> list[Processor]:
    """What makes an event a record: context variables, `level`, `time`, and text of exceptions.

    There is no renderer among them: the last one's fields are what is sent.
    """
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]


class StructlogFactory:
    """Makes loggers that send what they are given to one stream, by one client.

    `stream` and `options` are those of `Client`, and what holds for `LogEngineHandler` holds
    here: nothing is raised into the application, and it waits for at most `block_max` seconds.
    `client` is to be closed, or is at exit.
    """

    def __init__(self, stream: str = "default", **options: Any) -> None:
        self._sender = Sender(stream, **options)

    @property
    def client(self) -> Client:
        """What sends the events."""
        return self._sender.client

    def __call__(self, *_: Any) -> "StructlogLogger":
        """A logger; structlog calls this."""
        return StructlogLogger(self._sender)


class StructlogLogger:
    """What structlog wraps: every method sends its fields. A copy sends by the same client."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def send(self, /, message: str | None = None, **fields: Any) -> None:
        """Sends the fields of an event, or the text that a renderer made of it."""
        if message is not None:
            fields["event"] = message
        self._sender.send(fields)

    debug = info = warning = warn = error = critical = fatal = exception = msg = log = send
