"""The daemon's own log: structlog to standard error, for people or for machines."""

import logging
import sys
from typing import TextIO

import structlog

_LEVELS = logging.getLevelNamesMapping()


def configure_logs(level: str, form: str, stream: TextIO | None = None) -> None:
    """Sends the log to `stream`, standard error by default.

    `level` is debug, info, warning or error. `form` is console, json, or auto: console
    on a terminal, one JSON object per line otherwise.
    """
    stream = stream or sys.stderr
    on_terminal = stream.isatty()
    as_json = form == "json" or (form == "auto" and not on_terminal)
    renderers: list[structlog.types.Processor] = (
        [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
        if as_json
        else [structlog.dev.ConsoleRenderer(colors=on_terminal)]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
