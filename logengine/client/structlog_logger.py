"""Sends structlog's events as records. To configure it:

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
    """Returns processors that add context variables, `level`, `time`, and exceptions as text.

    None of them is a renderer: the fields that leave the last one are sent as the record.
    """
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]


class StructlogFactory:
    """Makes loggers that send their events to one stream, through one client.

    `stream` and `options` are those of `Client`. As with `LogEngineHandler`, nothing is raised
    into the application, and it waits for at most `block_max` seconds. Close `client`, or leave
    that to the exit.
    """

    def __init__(self, stream: str = "default", **options: Any) -> None:
        self._sender = Sender(stream, **options)

    @property
    def client(self) -> Client:
        """The client that sends the events."""
        return self._sender.client

    def __call__(self, *_: Any) -> "StructlogLogger":
        """Returns a logger; structlog calls this."""
        return StructlogLogger(self._sender)


class StructlogLogger:
    """The logger that structlog wraps: each method sends its fields. Copies share the client."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def send(self, /, message: str | None = None, **fields: Any) -> None:
        """Sends the fields of an event, or the text that a renderer made from them."""
        if message is not None:
            fields["event"] = message
        self._sender.send(fields)

    debug = info = warning = warn = error = critical = fatal = exception = msg = log = send
