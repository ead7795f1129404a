"""Pure decisions about a stream's ended segments: which to merge, and which to seal.

    64 KiB … 64 KiB -> 1 MiB … 1 MiB -> sealed, 16 MiB

A segment belongs to the lowest tier whose limit is above its size; limits are a factor of `fanout`
apart. Neighbours are merged as soon as together they reach a higher tier, and sealed as soon as
they reach `seal_bytes`. A record is therefore rewritten once per tier that it climbs, whatever the
rate. Segments that cannot grow further, because a segment of a higher tier already follows, are
merged once as they are, and climb with that one. A record that arrives in a full segment of 64 KiB
is rewritten twice, sealing included, one in a segment of at least 4 KiB three times. No files, no
clock.
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
# How many times longer than others a small stream must be quiet before it is sealed.
SMALL_TIMES_LONGER = 24
# Tiers below a seal: 1 MiB, 64 KiB and 4 KiB with the defaults.
_TIERS = 3


class EndedSegment(msgspec.Struct, frozen=True):
    """An ended segment whose body has `bytes` bytes. No commit writes to it any more."""

    first: int
    last: int
    bytes: int
    is_compressed: bool = False


class Merge(msgspec.Struct, frozen=True):
    """Neighbours to merge into one plain segment."""

    parts: Sequence[EndedSegment]


class Seal(msgspec.Struct, frozen=True):
    """Neighbours to merge into one sealed segment."""

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
    search_filters: bool = True

    @property
    def small_bytes(self) -> int:
        """A quiet stream with fewer unsealed bytes than this is left alone for longer."""
        return self.seal_bytes // self.fanout**2

    @property
    def tiers(self) -> list[int]:
        """The limits of the tiers below a seal, in bytes, ascending."""
        return [max(1, self.seal_bytes // self.fanout**power) for power in range(_TIERS, 0, -1)]


def choose(
    parts: Sequence[EndedSegment], seal_from: int | None, config: CompactionConfig
) -> Merge | Seal | None:
    """Returns what to do next with the unsealed segments of an active stream; None if nothing.

    `parts` are in the order of their names. If one does not begin right after the one before it,
    there is damage between them, and no merge spans it. `seal_from` is where the next sealed
    segment must begin, None if none may follow. What comes after damage is merged all the same.
    """
    for run in _runs(parts):
        if run[0].first == seal_from and (ready := _reaching(run, config.seal_bytes)):
            return Seal(ready)
    for tier in (*config.tiers, config.seal_bytes):
        for run in _runs(parts, below=tier):
            if tier == config.seal_bytes and run[0].first == seal_from:
                continue  # it will be sealed, and need not be merged up to this tier
            window = _reaching(run, tier)
            is_ended = run[-1] is not parts[-1]
            # So small that `fanout` of them do not fill the lowest tier: limit their number too.
            are_tiny = tier == config.tiers[0] and len(run) >= 2 * config.fanout
            if window is None and (is_ended or are_tiny):
                window = run[:MERGED_SEGMENTS_MAX]
            if window is not None and len(window) > 1:
                return Merge(window)
    return None


def choose_when_quiet(
    parts: Sequence[EndedSegment], seal_from: int | None, config: CompactionConfig
) -> Merge | Seal | None:
    """Returns what to do next with the unsealed segments of a quiet stream; None if nothing.

    Regular merges come first: a long run of segments is merged tier by tier, because a seal can
    be made of a limited number only. Then everything is sealed.
    """
    if (action := choose(parts, seal_from, config)) is not None:
        return action
    for run in _runs(parts):
        if run[0].first == seal_from:
            return Seal(run[:MERGED_SEGMENTS_MAX])
    return None


def quiet_after(unsealed_bytes: int, config: CompactionConfig) -> float:
    """Returns for how many seconds a stream must be quiet before the rest of it is sealed.

    Longer if there is little: otherwise, a record every two hours would make a sealed file every
    two hours, which stays that small.
    """
    is_small = unsealed_bytes < config.small_bytes
    return max(config.seal_after, config.seal_small_after) if is_small else config.seal_after


def merged_header(headers: Sequence[Header], sha256: str) -> Header:
    """Returns the header of the plain segment that merges those of `headers`, which are neighbours.

    `sha256` is the hash of their concatenated bodies. The numbers of producers are those of the
    last header.
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
    """Returns the `earlier` of the seal that follows the seal `before`.

    `farther` is the seal at which `before.earlier` begins; None if it no longer exists. The spans
    are 1, 3, 7, 15 … seals, as in a random-access list (Myers, "An applicative random-access
    stack", 1983). A reader that follows them from any seal to any earlier one visits a number of
    seals that is logarithmic in their count, and no seal is ever rewritten for this.
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
    """Yields maximal runs of neighbours; with `below`, only plain ones of fewer bytes."""
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
    """Returns the shortest prefix of `run` with `size` bytes; None if it needs too many segments.

    Also None if the whole run has fewer bytes.
    """
    for count, total in enumerate(accumulate(part.bytes for part in run[:MERGED_SEGMENTS_MAX]), 1):
        if total >= size:
            return run[:count]
    return None
