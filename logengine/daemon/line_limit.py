"""Limits how many lines of the daemon's own log one cause can bring about.

A sender can cause a line with each record, for example with records that are too large. So in each
period only the first lines of a cause are written; then one line says how many were suppressed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

# Beyond this number of causes in one period, those of one event count as one.
_CAUSES_MAX = 1000


class Cause(NamedTuple):
    """What lines have in common that count together.

    The user, if the line names one: users choose the names of streams.
    """

    event: str
    uid: int | None
    stream: str | None


@dataclass
class Suppressed:
    """Lines of `cause` that were not written; `level` is that of the last one."""

    cause: Cause
    lines: int
    level: str


@dataclass
class _Period:
    ends_s: float
    lines: int
    suppressed: Suppressed


class LineLimit:
    """Admits `lines_max` lines of each cause in `period_s` seconds, which begin with the first.

    Worst case O(1) for each line; memory for `_CAUSES_MAX` causes and one more for each event.
    """

    def __init__(self, lines_max: int, period_s: float) -> None:
        self._lines_max = lines_max
        self._period_s = period_s
        # In the order in which the periods end.
        self._periods: dict[Cause, _Period] = {}

    def admits(self, fields: Mapping[str, Any], level: str, now_s: float) -> bool:
        """True if the line with these fields is to be written; otherwise it is counted."""
        cause = self._cause(fields)
        period = self._periods.get(cause)
        if period is None:
            ends_s = now_s + self._period_s
            period = self._periods[cause] = _Period(ends_s, 0, Suppressed(cause, 0, level))
        if period.lines < self._lines_max:
            period.lines += 1
            return True
        period.suppressed.lines += 1
        period.suppressed.level = level
        return False

    def next_end_s(self) -> float | None:
        """When the next period ends; None if there is none."""
        for period in self._periods.values():
            return period.ends_s
        return None

    def ended(self, now_s: float) -> list[Suppressed]:
        """Ends the periods that are over. Returns what was suppressed in them."""
        ended = []
        for cause, period in list(self._periods.items()):
            if period.ends_s > now_s:
                break
            del self._periods[cause]
            if period.suppressed.lines:
                ended.append(period.suppressed)
        return ended

    def _cause(self, fields: Mapping[str, Any]) -> Cause:
        event, uid, stream = str(fields["event"]), fields.get("uid"), fields.get("stream")
        cause = Cause(event, uid, None if uid is not None else stream)
        if cause not in self._periods and len(self._periods) >= _CAUSES_MAX:
            return Cause(event, None, None)
        return cause
