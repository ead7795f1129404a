"""Commits and recovery against a plain list of records, for any history of a stream."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from logengine.format.producers import Producer, numbers_in
from logengine.format.segment import FORMAT_VERSION, Header, check_body, decode_header
from logengine.store.plan import (
    Addition,
    Found,
    SegmentPlan,
    StreamState,
    append,
    plan_recovery,
    state_after,
    with_active,
)

MAX_PRODUCERS = 3


def at(second: int) -> str:
    return f"2026-11-23T20:00:{second:02d}.000000Z"


@dataclass(frozen=True)
class Batch:
    """What arrives together: a time for each record, and how far producers got."""

    seconds: list[int]
    producers: dict[Producer, int]
    refused_at: int  # the time of the refused record, where there is no other


@dataclass
class Model:
    """The same stream as a plain list."""

    seconds: list[int] = field(default_factory=list)
    producers: dict[Producer, int] = field(default_factory=dict)
    began_with_refused_at: int | None = None

    @property
    def latest(self) -> int:
        """The greatest time; a stream that began with a refused record counts that one's too."""
        refused = [] if self.began_with_refused_at is None else [self.began_with_refused_at]
        return max(self.seconds + refused)

    def add(self, batch: Batch) -> None:
        if not self.seconds and not batch.seconds and self.began_with_refused_at is None:
            self.began_with_refused_at = batch.refused_at
        self.seconds += batch.seconds
        for name, number in batch.producers.items():
            self.producers.pop(name, None)
            self.producers[name] = number
        while len(self.producers) > MAX_PRODUCERS:
            del self.producers[next(iter(self.producers))]


producers = st.dictionaries(
    st.sampled_from([Producer(7, name) for name in "abcde"]), st.integers(1, 99), max_size=3
)
batches = st.builds(
    Batch, st.lists(st.integers(0, 59), max_size=5), producers, st.integers(0, 59)
).filter(lambda batch: bool(batch.seconds or batch.producers))
# What may happen between two commits: nothing, a full cache, a restart that reads the body, one
# that does not.
interludes = st.sampled_from(["", "", "evict", "restart", "restart with active"])
histories = st.lists(st.tuples(batches, interludes), max_size=12)
limits = st.sampled_from([0, 1, 100, 250, 10_000])


def line(seq: int, second: int) -> bytes:
    return b'{"_ts":"%s","n":%d}\n' % (at(second).encode(), seq)


def addition(batch: Batch, next_seq: int) -> Addition:
    lines = [line(next_seq + place, second) for place, second in enumerate(batch.seconds)]
    times = [at(second) for second in batch.seconds] or [at(batch.refused_at)]
    return Addition(lines, len(lines), min(times), max(times), batch.producers)


def written(plan: SegmentPlan) -> tuple[Header, bytes]:
    head, *pieces = plan.render()
    return decode_header(head, "file"), b"".join(pieces)


@given(histories, limits)
def test_any_history_reads_back_as_one_sequence(
    history: list[tuple[Batch, str]], rewrite_limit: int
) -> None:
    model = Model()
    state = StreamState("app")
    files: dict[int, tuple[Header, bytes]] = {}
    for batch, interlude in history:
        before = len(model.seconds)
        plan, state = append(
            state,
            addition(batch, state.next_seq),
            rewrite_limit=rewrite_limit,
            max_producers=MAX_PRODUCERS,
        )
        model.add(batch)
        header, body = files[plan.first] = written(plan)
        check_body(header, body, "file")
        assert header.sha256 == hashlib.sha256(body).hexdigest()
        assert plan.begins_stream == (before == 0)

        # The segment holds what its header says, and the stream is told on to its end.
        seconds = model.seconds[header.first - 1 : header.last]
        assert body == b"".join(
            line(seq, second) for seq, second in enumerate(seconds, header.first)
        )
        assert header.last == len(model.seconds) == state.next_seq - 1
        if seconds:
            assert header.since == at(min(seconds))
            assert header.until == at(max(seconds))
        assert header.latest == at(model.latest)
        assert list(numbers_in(header).items()) == list(model.producers.items())
        assert state.active is None or len(state.active.body) < rewrite_limit

        if interlude == "evict":
            state = state.without_active()
        elif interlude:
            found = [Found(first, header) for first, (header, _) in sorted(files.items())]
            recovered = plan_recovery("app", found)
            assert (recovered.covered, recovered.gaps) == ([], [])
            assert recovered.newest == header
            assert recovered.state == state.without_active() == state_after(header)
            state = recovered.state
            if interlude == "restart with active" and len(body) < rewrite_limit:
                state = with_active(state, header, body)
    numbers = [seq for header, _ in files.values() for seq in range(header.first, header.last + 1)]
    assert numbers == list(range(1, len(model.seconds) + 1))


@given(histories, limits)
def test_a_header_may_be_rendered_late_or_never(
    history: list[tuple[Batch, str]], rewrite_limit: int
) -> None:
    """The hash of a plan does not depend on whether those before it were ever asked for."""
    state = StreamState("app")
    plans = []
    for batch, _ in history:
        plan, state = append(
            state,
            addition(batch, state.next_seq),
            rewrite_limit=rewrite_limit,
            max_producers=MAX_PRODUCERS,
        )
        plans.append(plan)
    for plan in reversed(plans):
        header, body = written(plan)
        check_body(header, body, "file")
        assert written(plan) == (header, body)


@given(st.lists(batches, min_size=1, max_size=4), st.lists(batches, min_size=1, max_size=4), limits)
def test_a_failed_plan_leaves_no_trace(
    kept: list[Batch], failed: list[Batch], rewrite_limit: int
) -> None:
    def plan_all(state: StreamState, batches: list[Batch]) -> tuple[list[SegmentPlan], StreamState]:
        plans = []
        for batch in batches:
            plan, state = append(
                state,
                addition(batch, state.next_seq),
                rewrite_limit=rewrite_limit,
                max_producers=MAX_PRODUCERS,
            )
            plans.append(plan)
        return plans, state

    _, durable = plan_all(StreamState("app"), kept)
    plan_all(durable, failed)
    again, _ = plan_all(durable, failed)
    _, fresh = plan_all(StreamState("app"), kept)
    expected, _ = plan_all(fresh, failed)
    assert list(map(written, again)) == list(map(written, expected))


# Recovery.


def segment(first: int, last: int) -> Header:
    return Header(
        version=FORMAT_VERSION,
        stream="app",
        first=first,
        count=last - first + 1,
        bytes=0,
        since=at(0),
        until=at(0),
        latest=at(last % 60),
        sha256="",
        producers={"p": last},
    )


@dataclass(frozen=True)
class Merge:
    """Adjacent segments, of which those from `start` to before `stop` were merged into one."""

    headers: list[Header]  # as they were before
    start: int
    stop: int
    left: list[Header]  # what is there after a crash in the merge, in order of name


@st.composite
def merges(draw: st.DrawFn) -> Merge:
    sizes = draw(st.lists(st.integers(1, 5), min_size=2, max_size=10))
    begin = draw(st.integers(1, 50))  # older segments may be gone
    bounds = [begin]
    for size in sizes:
        bounds.append(bounds[-1] + size)
    headers = [segment(first, after - 1) for first, after in pairwise(bounds)]
    start = draw(st.integers(0, len(headers) - 2))
    stop = draw(st.integers(start + 2, len(headers)))
    covered = headers[start + 1 : stop]
    kept = draw(st.lists(st.booleans(), min_size=len(covered), max_size=len(covered)))
    merged = segment(headers[start].first, headers[stop - 1].last)
    left = [
        *headers[:start],
        merged,
        *(header for header, stays in zip(covered, kept, strict=True) if stays),
        *headers[stop:],
    ]
    return Merge(headers, start, stop, left)


def found(headers: Sequence[Header], damaged: Mapping[int, bool] | None = None) -> list[Found]:
    return [
        Found(header.first, None if damaged and damaged.get(header.first) else header)
        for header in headers
    ]


@given(merges())
def test_any_subset_of_the_unlinks_is_completed(merge: Merge) -> None:
    plan = plan_recovery("app", found(merge.left))
    leftovers = [
        header.first
        for header in merge.headers[merge.start + 1 : merge.stop]
        if header in merge.left
    ]
    assert plan.covered == leftovers[::-1], "newest first: no older one may be gone before it"
    assert plan.gaps == []
    # The stream goes on as if the merge had been completed, or never begun.
    assert plan.state == plan_recovery("app", found(merge.headers)).state
    assert plan.state.next_seq == merge.headers[-1].last + 1
    clean = [header for header in merge.left if header.first not in plan.covered]
    again = plan_recovery("app", found(clean))
    assert (again.covered, again.gaps, again.state) == ([], [], plan.state)


@given(merges(), st.data())
def test_recovery_may_itself_be_cut_short_anywhere(merge: Merge, source: st.DataObject) -> None:
    plan = plan_recovery("app", found(merge.left))
    done = plan.covered[: source.draw(st.integers(0, len(plan.covered)))]
    rest = [header for header in merge.left if header.first not in done]
    again = plan_recovery("app", found(rest))
    assert again.covered == plan.covered[len(done) :]
    assert (again.gaps, again.state) == ([], plan.state)


@given(merges(), st.data())
def test_gaps_are_exactly_the_numbers_that_nobody_holds(
    merge: Merge, source: st.DataObject
) -> None:
    headers = source.draw(
        st.lists(st.sampled_from(merge.headers), min_size=1, unique_by=lambda header: header.first)
    )
    headers.sort(key=lambda header: header.first)
    held = {seq for header in headers for seq in range(header.first, header.last + 1)}
    plan = plan_recovery("app", found(headers))
    missing = [seq for first, last in plan.gaps for seq in range(first, last + 1)]
    assert missing == sorted(set(range(headers[0].first, headers[-1].last + 1)) - held)
    assert plan.covered == []


def damaging(merge: Merge, source: st.DataObject) -> list[Found]:
    return found(
        merge.left,
        {header.first: source.draw(st.booleans()) for header in merge.left},
    )


@given(merges(), st.data())
def test_with_damage_too_only_what_another_one_holds_is_removed(
    merge: Merge, source: st.DataObject
) -> None:
    segments = damaging(merge, source)
    plan = plan_recovery("app", segments)
    readable = [one.header for one in segments if one.header]
    kept = {
        seq
        for header in readable
        if header.first not in plan.covered
        for seq in range(header.first, header.last + 1)
    }
    for header in readable:
        assert set(range(header.first, header.last + 1)) <= kept
    assert not set(plan.covered) & {one.first for one in segments if one.header is None}


@given(merges(), st.data())
def test_no_number_behind_an_unreadable_newest_one_is_used_again(
    merge: Merge, source: st.DataObject
) -> None:
    newest = merge.headers[-1]
    damaged = {newest.first: True}
    plan = plan_recovery("app", found(merge.headers, damaged))
    assert plan.state.next_seq > newest.last
    assert plan.newest is None
    assert plan.state.active is None


@given(merges(), st.data())
def test_damage_in_front_of_a_whole_newest_one_changes_nothing(
    merge: Merge, source: st.DataObject
) -> None:
    *older, newest = merge.headers
    damaged = {header.first: source.draw(st.booleans()) for header in older}
    plan = plan_recovery("app", found(merge.headers, damaged))
    assert plan.state == state_after(newest)
    assert plan.newest == newest


@given(st.lists(st.integers(1, 5), min_size=3, max_size=8), st.data())
def test_a_damaged_leftover_does_not_hide_how_far_the_merged_segment_went(
    sizes: list[int], source: st.DataObject
) -> None:
    bounds = [1]
    for size in sizes:
        bounds.append(bounds[-1] + size)
    leftovers = [segment(first, after - 1) for first, after in pairwise(bounds)][1:]
    # The newest leftover is unlinked first, so that it may be gone; the damaged one is before it.
    left = leftovers[: source.draw(st.integers(2, len(leftovers)))]
    damaged = {source.draw(st.sampled_from(left[:-1])).first: True}
    merged = segment(1, bounds[-1] - 1)
    plan = plan_recovery("app", found([merged, *left], damaged))
    assert plan.state.next_seq > merged.last
    assert plan.state.producers[Producer(None, "p")] == merged.last
