"""Pure decisions about a stream's ended segments: which become one, and which are sealed.

    64 KiB … 64 KiB -> 1 MiB … 1 MiB -> sealed, 16 MiB

A segment belongs to the tier whose limit it is below; limits are `fanout` apart. Neighbours
are merged as soon as they make one of a higher tier, and sealed as soon as they make
`seal_bytes`: a record is written again once per tier that it climbs, whatever the rate. Those
that cannot become more, because what is behind them is of a higher tier already, are merged
too, once, and climb with that. One that came in a full segment of 64 KiB is written twice
more, sealing included, one in a segment of at least 4 KiB three times. No files, no clock.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Annotated

import msgspec
from msgspec import UNSET

from logengine.format.cover import MERGED_SEGMENTS_MAX
from logengine.format.segment import Earlier, Header
from logengine.format.user_bytes import merged_users
from logengine.units import Duration, MiB, Size

FANOUT_MAX = MERGED_SEGMENTS_MAX // 2
# For how much longer than others a small stream must be quiet to be sealed.
SMALL_TIMES_LONGER = 24
# Tiers below that of a seal: 1 MiB, 64 KiB and 4 KiB with the defaults.
_TIERS = 3


class EndedSegment(msgspec.Struct, frozen=True):
    """An ended segment, of `bytes` bytes of body. No commit writes it any more."""

    first: int
    last: int
    bytes: int
    is_compressed: bool = False


class Merge(msgspec.Struct, frozen=True):
    """Neighbours that are to become one plain segment."""

    parts: Sequence[EndedSegment]


class Seal(msgspec.Struct, frozen=True):
    """Neighbours that are to become one sealed segment."""

    parts: Sequence[EndedSegment]


class CompactionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[compaction]`: how segments are merged and sealed."""

    enabled: bool = True
    fanout: Annotated[int, msgspec.Meta(ge=2, le=FANOUT_MAX)] = 16
    seal_bytes: Size = Size(16 * MiB)
    seal_after: Duration = Duration(3600)
    seal_small_after: Duration = Duration(SMALL_TIMES_LONGER * 3600)
    max_rate: Size = Size(96 * MiB)
    level: Annotated[int, msgspec.Meta(ge=1, le=19)] = 3
    seal_key: str = ""

    @property
    def small_bytes(self) -> int:
        """A quiet stream with less than this is left alone for longer."""
        return self.seal_bytes // self.fanout**2

    @property
    def tiers(self) -> list[int]:
        """The limits of the tiers below a seal, in bytes, ascending."""
        return [max(1, self.seal_bytes // self.fanout**power) for power in range(_TIERS, 0, -1)]


def choose(
    parts: Sequence[EndedSegment], seal_from: int | None, config: CompactionConfig
) -> Merge | Seal | None:
    """What to do next with the unsealed segments of a stream that goes on; None if nothing.

    `parts` are in the order of their names; where one does not begin behind the one before
    it there is damage, which nothing is merged over. `seal_from` is where the next sealed
    segment has to begin, None where none may: what is behind damage is merged all the same.
    """
    for run in _runs(parts):
        if run[0].first == seal_from and (ready := _reaching(run, config.seal_bytes)):
            return Seal(ready)
    for tier in (*config.tiers, config.seal_bytes):
        for run in _runs(parts, below=tier):
            if tier == config.seal_bytes and run[0].first == seal_from:
                continue  # it will be sealed, and need not be merged that far
            window = _reaching(run, tier)
            is_ended = run[-1] is not parts[-1]
            # So small that sixteen do not fill the lowest tier: not too many of them either.
            are_tiny = tier == config.tiers[0] and len(run) >= 2 * config.fanout
            if window is None and (is_ended or are_tiny):
                window = run[:MERGED_SEGMENTS_MAX]
            if window is not None and len(window) > 1:
                return Merge(window)
    return None


def choose_when_quiet(
    parts: Sequence[EndedSegment], seal_from: int | None, config: CompactionConfig
) -> Merge | Seal | None:
    """What to do next with the unsealed segments of a stream that has gone quiet.

    What was left to be done while it went on comes first: a long run of segments is merged tier
    by tier, for a seal can be made of so many only. Then all of it is sealed.
    """
    if (action := choose(parts, seal_from, config)) is not None:
        return action
    for run in _runs(parts):
        if run[0].first == seal_from:
            return Seal(run[:MERGED_SEGMENTS_MAX])
    return None


def quiet_after(unsealed_bytes: int, config: CompactionConfig) -> float:
    """For how many seconds a stream must be quiet until what it has is sealed.

    Longer where there is little: a record every two hours would otherwise make a sealed file
    every two hours, which stays as small as it is.
    """
    is_small = unsealed_bytes < config.small_bytes
    return max(config.seal_after, config.seal_small_after) if is_small else config.seal_after


def merged_header(headers: Sequence[Header], sha256: str) -> Header:
    """The header of the plain segment that has the records of `headers`, which are neighbours.

    `sha256` is the hash of their bodies, one after the other. How far producers are is said by
    the last of them.
    """
    return msgspec.structs.replace(
        headers[-1],
        first=headers[0].first,
        count=sum(header.count for header in headers),
        bytes=sum(header.bytes for header in headers),
        since=min(header.since for header in headers),
        until=max(header.until for header in headers),
        sha256=sha256,
        users=merged_users(headers),
        frames=UNSET,
        index=UNSET,
        erased=UNSET,
    )


def earlier_seals(before: Header, farther: Header | None) -> Earlier:
    """What the seal behind `before`, which is one too, says of the seals before it.

    `farther` is the seal at which what `before` says begins; None if that one is not there.
    Spans of 1, 3, 7, 15 … seals, as in a random-access list (Myers, "An applicative
    random-access stack", 1983): a reader that goes by them from any seal to any before it looks
    at as many as the logarithm of their number, and no seal is ever written again for it.
    """
    nearer = before.earlier
    if nearer is not UNSET and farther is not None and farther.earlier is not UNSET:
        far = farther.earlier
        if far.seals == nearer.seals:
            since = min(before.since, nearer.since, far.since)
            return Earlier(first=far.first, since=since, seals=1 + nearer.seals + far.seals)
    return Earlier(first=before.first, since=before.since, seals=1)


def _runs(
    parts: Sequence[EndedSegment], below: int | None = None
) -> Iterator[Sequence[EndedSegment]]:
    """Neighbours, each run as long as can be; with `below` only plain ones of fewer bytes."""
    run: list[EndedSegment] = []
    for part in parts:
        is_wanted = below is None or (part.bytes < below and not part.is_compressed)
        if run and not (is_wanted and part.first == run[-1].last + 1):
            yield run
            run = []
        if is_wanted:
            run.append(part)
    if run:
        yield run


def _reaching(run: Sequence[EndedSegment], size: int) -> Sequence[EndedSegment] | None:
    """As many of `run`, from its first, as have `size` bytes; None if all do not, or too many."""
    for count, total in enumerate(accumulate(part.bytes for part in run[:MERGED_SEGMENTS_MAX]), 1):
        if total >= size:
            return run[:count]
    return None
