"""The daemon's own log: structlog to standard error, for people or for machines.

`line_limit` limits the lines of one cause, `log_writer` writes what is left.
"""

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from logengine.daemon.config_sections import LogConfig
from logengine.daemon.line_limit import LineLimit, Suppressed
from logengine.daemon.log_writer import Due, LogWriter
from logengine.printable import escape

_LEVELS = logging.getLevelNamesMapping()
_to_json = structlog.processors.JSONRenderer()


@contextlib.contextmanager
def daemon_log(config: LogConfig, stream: TextIO | None = None) -> Iterator[None]:
    """Writes the log to `stream`, standard error by default, until it is left.

    `stream` needs a descriptor. `auto` as the format is console on a terminal, one JSON object per
    line otherwise. Logging never blocks and never raises: a line that cannot be written is lost
    and counted, and so is one that repeats too often.
    """
    stream = stream or sys.stderr
    with contextlib.ExitStack() as stack:
        if stream is None:  # standard error is closed
            stream = stack.enter_context(open(os.devnull, "w"))
        on_terminal = stream.isatty()
        as_json = config.format == "json" or (config.format == "auto" and not on_terminal)
        renderers: list[Processor] = (
            [_in_order, _render_json]
            if as_json
            else [
                _printable,
                structlog.dev.ConsoleRenderer(
                    colors=on_terminal and not os.environ.get("NO_COLOR"),
                    sort_keys=False,
                    # The default depends on installed packages, and may print local variables.
                    exception_formatter=structlog.dev.plain_traceback,
                ),
            ]
        )
        processors: list[Processor] = [
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
            structlog.processors.format_exc_info,
            *renderers,
        ]
        limiter = _Limiter(LineLimit(config.max_lines, config.report_every), processors)
        writer = LogWriter(
            stream.fileno(),
            config.max_waiting,
            lost_line=limiter.lost_line,
            due=limiter.due,
            encoding=stream.encoding or "utf-8",
        )
        stack.callback(writer.close)
        structlog.configure(
            processors=[structlog.contextvars.merge_contextvars, limiter, *processors],
            wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[config.level.upper()]),
            logger_factory=lambda *_: writer,
            cache_logger_on_first_use=True,
        )
        forwarding = _Forwarding(logging.WARNING)
        logging.getLogger().addHandler(forwarding)
        stack.callback(logging.getLogger().removeHandler, forwarding)
        yield


class _Limiter:
    """Drops lines that repeat too often, and renders the lines that report what is not there."""

    def __init__(self, limit: LineLimit, processors: Sequence[Processor]) -> None:
        self._limit = limit
        self._processors = processors
        # Reentrant: a destructor that Python runs while this thread holds it may log.
        self._lock = threading.RLock()

    def __call__(self, _logger: WrappedLogger, method: str, fields: EventDict) -> EventDict:
        with self._lock:
            if self._limit.admits(fields, method, time.monotonic()):
                return fields
        raise structlog.DropEvent

    def due(self, now_s: float) -> Due:
        """Returns the lines that report what was suppressed in the periods over by `now_s`."""
        with self._lock:
            ended = self._limit.ended(now_s)
            next_s = self._limit.next_end_s()
        return Due([self._suppressed_line(each) for each in ended], next_s)

    def lost_line(self, lines: int) -> str:
        """Returns the line that reports `lines` lines that could not be written."""
        reason = "standard error could not be written, or not as fast as lines came"
        return self._rendered(
            "warning", {"event": "log_lines_lost", "lines": lines} | {"reason": reason}
        )

    def _suppressed_line(self, suppressed: Suppressed) -> str:
        cause = suppressed.cause
        who = {"uid": cause.uid, "stream": cause.stream}
        return self._rendered(
            suppressed.level,
            {"event": "log_lines_suppressed", "of": cause.event}
            | {name: value for name, value in who.items() if value is not None}
            | {"lines": suppressed.lines},
        )

    def _rendered(self, level: str, fields: EventDict) -> str:
        rendered: object = fields
        for processor in self._processors:
            rendered = processor(None, level, rendered)  # type: ignore[arg-type]
        return str(rendered)


class _Forwarding(logging.Handler):
    """Logs what libraries say by `logging`; on their own they would write to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):
            structlog.get_logger().log(
                record.levelno,
                "library",
                logger=record.name,
                message=record.getMessage(),
                exc_info=record.exc_info,
            )


def _in_order(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    """Returns the fields with those first that every line has."""
    return {name: fields.pop(name) for name in ("timestamp", "level", "event")} | dict(fields)


def _printable(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    """Escapes what a terminal would act on: senders choose the content of some fields."""
    for name, value in fields.items():
        if isinstance(value, str):
            lines = value.split("\n") if name in {"exception", "stack"} else [value]
            fields[name] = "\n".join(map(escape, lines))
    return fields


def _render_json(_logger: WrappedLogger, _method: str, fields: EventDict) -> str:
    # DEL is the one control character that JSON does not escape.
    return str(_to_json(_logger, _method, fields)).replace("\x7f", "\\u007f")
