"""Levels by the names and the numbers that loggers write, on one scale.

| scale | fields | from the least to the most severe |
|---|---|---|
| syslog | `priority`, `severity`, …; others from 0 to 7 | 7 debug … 0 emergency |
| Python | `levelno`, … | 10 debug, 20 info, 25 notice, 30 warning, 40 error, 50 critical |
| OpenTelemetry | `severity_number` | 1 trace, 5 debug, 9 info, 13 warning, 17 error, 21 fatal |
| pino, bunyan | others from 10 on | 10 trace, 20 debug, 30 info, 40 warning, 50 error, 60 fatal |

Sources: RFC 5424 section 6.2.1; journald's `PRIORITY` and GELF's `level`, which are the same; the
documentation of Python's logging, of pino and bunyan, and of OpenTelemetry's log data model.
"""

from bisect import bisect

# In ascending order; the rank of a level is its index.
LEVELS = (
    ("trace", "verbose", "silly", "finest", "finer"),
    ("debug", "dbg", "fine", "d"),
    ("info", "information", "informational", "inf", "i"),
    ("notice",),
    ("warning", "warn", "wrn", "w"),
    ("error", "err", "eror", "severe", "e"),
    ("critical", "crit", "fatal", "ftl", "f", "c"),
    ("alert",),
    ("emergency", "emerg", "panic"),
)
LEVEL_NAMES = tuple(names[0] for names in LEVELS)
_RANKS = {name: rank for rank, names in enumerate(LEVELS) for name in names}
_TRACE, _DEBUG, _INFO, _NOTICE, _WARNING, _ERROR, _CRITICAL, _ALERT, _EMERGENCY = range(len(LEVELS))

_SYSLOG = (_EMERGENCY, _ALERT, _CRITICAL, _ERROR, _WARNING, _NOTICE, _INFO, _DEBUG)

# A scale is the least number of each level, and the greatest number that it has at all.
Scale = tuple[tuple[tuple[int, int], ...], int]
_PYTHON: Scale = (
    (
        (1, _TRACE),
        (10, _DEBUG),
        (20, _INFO),
        (25, _NOTICE),
        (30, _WARNING),
        (40, _ERROR),
        (50, _CRITICAL),
    ),
    99,
)
_PINO: Scale = (
    ((10, _TRACE), (20, _DEBUG), (30, _INFO), (40, _WARNING), (50, _ERROR), (60, _CRITICAL)),
    99,
)
_OPEN_TELEMETRY: Scale = (
    ((1, _TRACE), (5, _DEBUG), (9, _INFO), (13, _WARNING), (17, _ERROR), (21, _CRITICAL)),
    24,
)
_OF_SYSLOG = {"priority", "severity", "severity_code", "syslog_severity", "syslog_level"}
_OF_PYTHON = {"levelno", "level_no", "levelnum"}
_OF_OPEN_TELEMETRY = {"severity_number", "severitynumber"}
_OTHERS = {
    *("level", "lvl", "loglevel", "log_level", "levelname", "level_name", "severitytext"),
    "severity_text",
}
_FIELDS = _OF_SYSLOG | _OF_PYTHON | _OF_OPEN_TELEMETRY | _OTHERS
# All whole numbers that are a level on some scale are below this.
NUMBERS_STOP = 100


def is_level_field(name: str) -> bool:
    """Returns whether a field of this name contains a level; case does not matter."""
    return name.lower() in _FIELDS


def rank_of_name(text: str) -> int | None:
    """Returns the rank of a level by any of its names, in any case; None if there is none."""
    return _RANKS.get(text.lower()) if text.isascii() else None


def rank_of_number(number: int, field: str) -> int | None:
    """Returns the rank of a number in a field of this name; None if the scale has no such one."""
    name = field.lower()
    if name in _OF_SYSLOG or (name in _OTHERS and 0 <= number < len(_SYSLOG)):
        return _SYSLOG[number] if 0 <= number < len(_SYSLOG) else None
    starts, greatest = (
        _PYTHON if name in _OF_PYTHON else _OPEN_TELEMETRY if name in _OF_OPEN_TELEMETRY else _PINO
    )
    place = bisect(starts, (number, len(LEVELS)))
    return starts[place - 1][1] if place and number <= greatest else None


def names_of_ranks(ranks: set[int]) -> list[str]:
    """Returns all names of levels of these ranks, in lower case."""
    return [name for name, rank in _RANKS.items() if rank in ranks]
