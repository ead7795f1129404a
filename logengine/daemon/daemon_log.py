"""The daemon's own log: structlog to standard error, for people or for machines."""

import contextlib
import logging
import os
import sys
import threading
from typing import TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

_LEVELS = logging.getLevelNamesMapping()


def configure_daemon_log(level: str, form: str, stream: TextIO | None = None) -> None:
    """Writes the log to `stream`, standard error by default.

    `level` is debug, info, warning or error. `form` is console, json, or auto: console on a
    terminal, one JSON object per line otherwise. If `stream` cannot be written, the line is lost;
    logging never raises for that.
    """
    stream = stream or sys.stderr
    on_terminal = stream.isatty()
    as_json = form == "json" or (form == "auto" and not on_terminal)
    renderers: list[structlog.typing.Processor] = (
        [_in_order, structlog.processors.JSONRenderer()]
        if as_json
        else [
            _printable,
            structlog.dev.ConsoleRenderer(
                colors=on_terminal and not os.environ.get("NO_COLOR"),
                sort_keys=False,
                # The default depends on installed packages, and may print every local variable.
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ]
    )
    output = _Output(stream)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
            structlog.processors.format_exc_info,
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level.upper()]),
        logger_factory=lambda *_: output,
        cache_logger_on_first_use=True,
    )


class _Output:
    """Writes lines to a stream, and continues if a write fails.

    Standard error may be a file on the very disk that is full: reporting that must not keep the
    daemon from retrying its commits.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def write(self, line: str) -> None:
        # ValueError: the stream is closed.
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()

    debug = info = warning = error = critical = write


def _in_order(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    """Returns the fields with those first that every line has."""
    return {name: fields.pop(name) for name in ("timestamp", "level", "event")} | dict(fields)


def _printable(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    """Escapes what a terminal would act on: senders choose the content of some fields."""
    for name, value in fields.items():
        if isinstance(value, str) and not value.isprintable():
            lines = value.split("\n") if name in {"exception", "stack"} else [value]
            fields[name] = "\n".join("".join(map(_shown, line)) for line in lines)
    return fields


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")
