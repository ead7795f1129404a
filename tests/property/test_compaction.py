"""What compaction decides, for any way in which commits come."""

import hashlib
from collections.abc import Sequence
from itertools import pairwise

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import UNSET

from logengine.format.cover import MERGED_SEGMENTS_MAX
from logengine.format.segment import FORMAT_VERSION, Header
from logengine.upkeep.compaction_plan import (
    CompactionConfig,
    EndedSegment,
    Merge,
    Seal,
    choose,
    choose_when_quiet,
    earlier_seals,
    merged_header,
)

LIMITS = CompactionConfig()
KiB = 1024


class Stream:
    """A stream as a list of segments; it counts how often the bytes of each were rewritten."""

    def __init__(self, limits: CompactionConfig = LIMITS) -> None:
        self.limits = limits
        self.parts: list[EndedSegment] = []
        self.rewrites: dict[int, int] = {}  # by the first number of what was committed
        self.committed: dict[int, int] = {}
        self.sealed_to = 0
        self.seals = 0
        self.files_max = 0

    def commit(self, size: int) -> None:
        seq = self.parts[-1].last + 1 if self.parts else self.sealed_to + 1
        self.parts.append(EndedSegment(seq, seq, size))
        self.committed[seq] = size
        self.rewrites[seq] = 0
        self.compact()

    def compact(self, *, quiet: bool = False) -> None:
        decide = choose_when_quiet if quiet else choose
        while (action := decide(self.parts, self.sealed_to + 1, self.limits)) is not None:
            self.carry_out(action)
        self.files_max = max(self.files_max, len(self.parts))

    def carry_out(self, action: Merge | Seal) -> None:
        parts = list(action.parts)
        assert len(parts) <= MERGED_SEGMENTS_MAX
        assert all(before.last + 1 == after.first for before, after in pairwise(parts))
        at = self.parts.index(parts[0])
        assert self.parts[at : at + len(parts)] == parts
        for seq in range(parts[0].first, parts[-1].last + 1):
            self.rewrites[seq] += 1
        size = sum(part.bytes for part in parts)
        if isinstance(action, Seal):
            assert at == 0
            self.sealed_to = parts[-1].last
            self.seals += 1
            self.parts[at : at + len(parts)] = []
        else:
            assert len(parts) > 1
            self.parts[at : at + len(parts)] = [EndedSegment(parts[0].first, parts[-1].last, size)]

    def amplification(self) -> float:
        written = sum(self.committed[seq] * times for seq, times in self.rewrites.items())
        return written / sum(self.committed.values())


sizes = st.one_of(
    st.integers(64 * KiB, 70 * KiB),
    st.integers(64 * KiB, 8 * KiB * KiB),
    st.integers(4 * KiB, 64 * KiB),
)
patterns = st.lists(st.tuples(sizes, st.integers(1, 300)), min_size=1, max_size=6)


@given(st.lists(st.integers(0, 59), min_size=1, max_size=300))
def test_what_seals_say_of_earlier_ones_is_so_and_leads_back_in_logarithmic_steps(
    seconds: list[int],
) -> None:
    headers: list[Header] = []
    for first, second in enumerate(seconds, 1):
        header = header_at(first, second)
        if headers:
            before = headers[-1]
            farther = None if before.earlier is UNSET else headers[before.earlier.first - 1]
            header = msgspec.structs.replace(header, earlier=earlier_seals(before, farther))
        headers.append(header)
    for header in headers[1:]:
        earlier = header.earlier
        assert earlier is not UNSET
        covered = headers[earlier.first - 1 : header.first - 1]
        assert earlier.seals == len(covered)
        assert earlier.since == min(each.since for each in covered)
    # From any to any before it: over a whole span where it does not go too far, else one back.
    for goal in range(1, len(headers)):
        at, steps = len(headers), 0
        while at > goal:
            earlier = headers[at - 1].earlier
            assert earlier is not UNSET
            at = earlier.first if earlier.first >= goal else at - 1
            steps += 1
        assert steps <= 3 * len(headers).bit_length()


def header_at(first: int, second: int) -> Header:
    time = f"2026-11-23T20:00:{second:02d}.000000Z"
    return Header(
        version=FORMAT_VERSION,
        stream="app",
        first=first,
        count=1,
        bytes=1,
        since=time,
        until=time,
        latest=time,
        sha256="",
        frames=(),
        prev="",
    )


@given(patterns)
@example([(4 * KiB, 115), (64 * KiB, 1), (4 * KiB, 125)])
def test_no_byte_is_rewritten_more_than_three_times_whatever_the_rate(
    pattern: list[tuple[int, int]],
) -> None:
    stream = Stream()
    for size, count in pattern:
        for _ in range(count):
            stream.commit(size)
    stream.compact(quiet=True)
    assert stream.parts == []
    assert max(stream.rewrites.values()) <= 3
    assert stream.files_max <= 3 * LIMITS.fanout


@given(st.lists(st.integers(40, 4 * KiB), min_size=1, max_size=2000))
def test_of_segments_as_small_as_a_record_bytes_are_rewritten_four_times_or_so(
    committed: list[int],
) -> None:
    stream = Stream()
    for size in committed:
        stream.commit(size)
    stream.compact(quiet=True)
    assert stream.parts == []
    assert stream.amplification() <= 5
    assert stream.files_max <= 6 * LIMITS.fanout


def test_full_segments_are_written_twice_more_sealing_included() -> None:
    stream = Stream()
    for _ in range(2560):
        stream.commit(64 * KiB)
    assert (stream.parts, stream.seals) == ([], 10)
    assert 1.9 < stream.amplification() <= 2
    assert stream.files_max <= 2 * LIMITS.fanout


@given(st.integers(1, 600), st.sampled_from([4 * KiB, 16 * KiB, 64 * KiB, 512 * KiB]))
def test_what_piled_up_before_a_stream_went_quiet_costs_no_more_than_what_did_not(
    count: int, size: int
) -> None:
    stream = Stream()
    stream.parts = [EndedSegment(seq, seq, size) for seq in range(1, count + 1)]
    stream.committed = dict.fromkeys(range(1, count + 1), size)
    stream.rewrites = dict.fromkeys(range(1, count + 1), 0)
    stream.compact(quiet=True)
    assert stream.parts == []
    assert max(stream.rewrites.values()) <= 3


def test_large_batches_are_only_sealed() -> None:
    stream = Stream()
    for _ in range(30):
        stream.commit(8 * KiB * KiB)
    assert (stream.seals, stream.amplification()) == (15, 1)


def test_where_nothing_can_be_sealed_segments_become_no_more_than_there_must_be() -> None:
    stream = Stream()
    stream.parts, stream.rewrites = [EndedSegment(7, 7, 64 * KiB)], {7: 0}  # behind damage
    stream.committed[7] = 64 * KiB
    for _ in range(2559):
        stream.commit(64 * KiB)
    assert stream.seals == 0
    assert len(stream.parts) < 10 + 2 * LIMITS.fanout
    assert stream.amplification() <= 2


segments = st.lists(
    st.builds(
        lambda count, size, gap, is_compressed: (count, size, gap, is_compressed),
        st.integers(1, 9),
        st.integers(1, 70 * KiB),
        st.sampled_from([0, 0, 0, 0, 3]),
        st.sampled_from([False, False, False, True]),
    ),
    max_size=150,
)
small_limits = st.builds(
    CompactionConfig, fanout=st.integers(2, 31), seal_bytes=st.integers(4 * KiB, 1024 * KiB)
)


@given(segments, small_limits, st.booleans())
def test_a_gap_is_never_merged_over_and_it_comes_to_an_end(
    found: list[tuple[int, int, int, bool]], limits: CompactionConfig, quiet: bool
) -> None:
    stream = Stream(limits)
    seq = 1
    gaps = set()
    for count, size, gap, is_compressed in found:
        if gap:
            gaps.add(seq)
        seq += gap
        stream.parts.append(EndedSegment(seq, seq + count - 1, size, is_compressed))
        stream.rewrites |= dict.fromkeys(range(seq, seq + count), 0)
        seq += count
    stream.sealed_to = stream.parts[0].first - 1 if stream.parts else 0
    # Each step leaves fewer segments, so this ends; `carry_out` looks for gaps.
    stream.compact(quiet=quiet)
    if quiet and stream.parts:
        assert stream.parts[0].first > stream.sealed_to + 1, "only a gap is in the way of a seal"
        assert gaps


@given(segments)
def test_nothing_is_sealed_but_behind_what_is_sealed(
    found: list[tuple[int, int, int, bool]],
) -> None:
    parts, seq = [], 10
    for count, size, gap, is_compressed in found:
        parts.append(EndedSegment(seq + gap, seq + gap + count - 1, size, is_compressed))
        seq += gap + count
    for decide in (choose, choose_when_quiet):
        for seal_from in (None, 1, seq):
            action = decide(parts, seal_from, CompactionConfig(fanout=2, seal_bytes=4096))
            assert not isinstance(action, Seal)
            assert action is None or not any(part.is_compressed for part in action.parts)


def at(second: int) -> str:
    return f"2026-11-23T20:00:{second:02d}.000000Z"


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 59), min_size=1, max_size=4),
            st.dictionaries(st.sampled_from("abc"), st.integers(1, 9)),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_the_merged_header_is_what_one_commit_of_all_would_have_written(
    pieces: list[tuple[list[int], dict[str, int]]],
) -> None:
    headers: list[Header] = []
    bodies: list[bytes] = []
    seq, latest = 7, 0
    for seconds, producers in pieces:
        body = b"".join(b"%d\n" % second for second in seconds)
        latest = max(latest, *seconds)
        headers.append(header_of(seq, seconds, latest, producers, [body]))
        bodies.append(body)
        seq += len(seconds)
    everything = [second for seconds, _ in pieces for second in seconds]
    digest = hashlib.sha256(b"".join(bodies)).hexdigest()
    assert merged_header(headers, digest) == header_of(7, everything, latest, pieces[-1][1], bodies)


def header_of(
    first: int,
    seconds: list[int],
    latest: int,
    producers: dict[str, int],
    bodies: Sequence[bytes],
) -> Header:
    return Header(
        version=FORMAT_VERSION,
        stream="app",
        first=first,
        count=len(seconds),
        bytes=sum(map(len, bodies)),
        since=at(min(seconds)),
        until=at(max(seconds)),
        latest=at(latest),
        sha256=hashlib.sha256(b"".join(bodies)).hexdigest(),
        producers=producers,
    )
