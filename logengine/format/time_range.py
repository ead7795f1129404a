"""A time range, and which segments, frames and lines are within it. No I/O."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from msgspec import UNSET

from logengine.errors import InvalidOption
from logengine.format.own_time import record_times
from logengine.format.segment import Header, timestamp_of


class Times(Protocol):
    """The least and greatest `_ts` of some records, as in a header or its index."""

    @property
    def since(self) -> str:
        """The least."""

    @property
    def until(self) -> str:
        """The greatest."""


@dataclass(frozen=True)
class TimeRange:
    """Timestamps from `since`, inclusive, to `until`, exclusive; None if that side is open.

    They are those of arrival, `_ts`; unless `by_arrival`, those of `format.own_time`, of which
    headers say nothing.
    """

    since: str | None = None
    until: str | None = None
    by_arrival: bool = True

    @property
    def holds_every_time(self) -> bool:
        """Whether both sides are open."""
        return self.since is None and self.until is None

    def may_hold(self, times: Times) -> bool:
        """Returns whether some of the records, with these `_ts`, can be in the range."""
        return not self.by_arrival or self.overlaps(times.since, times.until)

    def holds_all(self, times: Times) -> bool:
        """Returns whether all of the records, with these `_ts`, are known to be in the range."""
        if not self.by_arrival:
            return self.holds_every_time
        return self.encloses(times.since, times.until)

    def overlaps(self, least: str, greatest: str) -> bool:
        """Returns whether a time from `least` to `greatest` can be in the range."""
        return (self.since is None or greatest >= self.since) and (
            self.until is None or least < self.until
        )

    def encloses(self, least: str, greatest: str) -> bool:
        """Returns whether all times from `least` to `greatest` are in the range."""
        return (self.since is None or least >= self.since) and (
            self.until is None or greatest < self.until
        )

    def holds_each(self, body: bytes, lines: Sequence[bytes]) -> Iterable[bool]:
        """Returns for each of the `lines` of `body` whether it is in the range."""
        times = map(timestamp_of, lines) if self.by_arrival else record_times(body, lines)
        return (self.encloses(time, time) for time in times)


ALL_TIMES = TimeRange()


def checked(times: TimeRange) -> TimeRange:
    """Returns a range that somebody asked for.

    Raises `InvalidOption` if it ends before it begins.
    """
    if times.since is not None and times.until is not None and times.until < times.since:
        raise InvalidOption(
            f"until is {times.until}, before since, {times.since}: no record can be between; "
            "exchange them"
        )
    return times


def wanted_frames(
    header: Header, next_seq: int, times: TimeRange, stop: int | None = None
) -> range:
    """Returns the frames to read for a segment's records from `next_seq` on within `times`.

    With `stop`, only for those before that number. The range is contiguous, so some frames inside
    it may contain no such record. A plain segment counts as one frame.
    """
    if header.last < next_seq or not times.may_hold(header):
        return range(0)
    if header.frames is UNSET:
        return range(1)
    if header.index is UNSET:
        return range(len(header.frames))
    wanted = []
    last = header.first - 1
    for at, (frame, index) in enumerate(zip(header.frames, header.index, strict=True)):
        if stop is not None and last + 1 >= stop:
            break
        last += frame.count
        if last >= next_seq and times.may_hold(index):
            wanted.append(at)
    return range(wanted[0], wanted[-1] + 1) if wanted else range(0)
