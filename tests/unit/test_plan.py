"""What a commit writes, and what recovery keeps."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from logengine.format.producers import Producer
from logengine.format.segment import FORMAT_VERSION, Header, UserBytes, decode_header
from logengine.store.plan import (
    SEGMENT_RECORDS_MAX,
    Addition,
    Found,
    SegmentPlan,
    StreamState,
    append,
    plan_recovery,
)

UID = 1000


def at(second: int) -> str:
    return f"2026-11-23T20:00:{second:02d}.000000Z"


def adding(text: bytes, *, time: int = 0, **producers: int) -> Addition:
    return Addition(
        [text + b"\n"] if text else [],
        int(bool(text)),
        at(time),
        at(time),
        {Producer(UID, name): number for name, number in producers.items()},
    )


def added(
    state: StreamState, addition: Addition, limit: int = 100
) -> tuple[SegmentPlan, StreamState]:
    return append(state, addition, rewrite_limit=limit, max_producers=3)


def header_of(plan: SegmentPlan) -> Header:
    return decode_header(plan.render()[0], "file")


def test_a_small_segment_is_written_again_with_more() -> None:
    first, state = added(StreamState("app"), adding(b"one"))
    second, state = added(state, adding(b"two"))
    assert (first.first, first.count) == (1, 1)
    assert (second.first, second.count) == (1, 2)
    assert b"".join(second.render()[1:]) == b"one\ntwo\n"
    assert state.next_seq == 3


def test_a_segment_at_the_limit_is_left_and_a_new_one_begins() -> None:
    _, state = added(StreamState("app"), adding(b"x" * 99))
    plan, state = added(state, adding(b"next"))
    assert (plan.first, plan.count) == (2, 1)
    assert b"".join(plan.render()[1:]) == b"next\n"


def test_a_segment_of_more_than_two_pages_is_left_by_a_batch_smaller_than_it() -> None:
    _, large = added(StreamState("app"), adding(b"x" * 10_000), limit=65536)
    plan, state = added(large, adding(b"small"), limit=65536)
    assert (plan.first, plan.body_bytes) == (2, 6)
    assert state.active is not None, "the new one is rewritten in its turn"
    plan, _ = added(large, adding(b"y" * 10_000), limit=65536)
    assert (plan.first, plan.body_bytes) == (1, 20_002)


def test_a_segment_after_one_that_is_left_begins_with_its_own_records() -> None:
    _, state = added(StreamState("app"), adding(b"x" * 10_000, time=1), limit=65536)
    plan, _ = added(state, adding(b"small", time=5), limit=65536)
    header = header_of(plan)
    assert (header.first, header.count, header.since, header.until) == (2, 1, at(5), at(5))


def test_a_segment_that_is_left_counts_its_users_as_before_the_next_one() -> None:
    of_user = {UID: 10_001}
    _, state = added(StreamState("app"), replace(adding(b"x" * 10_000), users=of_user), limit=65536)
    plan, _ = added(state, replace(adding(b"small"), users={UID: 6}), limit=65536)
    assert header_of(plan).users == {UID: UserBytes(10_001, 6)}


@given(st.lists(st.integers(2, 40_000), min_size=1, max_size=40))
def test_what_is_written_is_in_proportion_and_no_file_is_tiny(sizes: list[int]) -> None:
    state = StreamState("app")
    files: dict[int, int] = {}
    for size in sizes:
        plan, state = added(state, adding(b"x" * (size - 1)), limit=65536)
        assert plan.body_bytes <= max(8192 + size, 2 * size)
        files[plan.first] = plan.body_bytes
    *ended, _ = files.values()
    assert all(size > 8192 for size in ended)


def test_the_hash_is_that_of_the_whole_body_however_it_grew() -> None:
    state = StreamState("app")
    for text in (b"one", b"two", b"three"):
        plan, state = added(state, adding(text))
    rendered = plan.render()
    assert header_of(plan).sha256 == hashlib.sha256(b"".join(rendered[1:])).hexdigest()


def test_the_least_recently_active_producers_are_forgotten_first() -> None:
    state = StreamState("app")
    for number, name in enumerate(["a", "b", "c", "a", "d"], 1):
        plan, state = added(state, adding(b"x", **{name: number}))
    assert header_of(plan).producers_of == {UID: {"c": 3, "a": 4, "d": 5}}
    assert list(state.producers) == [Producer(UID, name) for name in "cad"]


def test_a_refused_record_alone_advances_its_producer() -> None:
    plan, state = added(StreamState("app"), adding(b"", time=5, web=1))
    assert header_of(plan).count == 0
    assert header_of(plan).producers_of == {UID: {"web": 1}}
    assert state.next_seq == 1
    plan, state = added(state, adding(b"x", time=2, web=2))
    header = header_of(plan)
    assert (header.first, header.count, header.since, header.until) == (1, 1, at(2), at(2))
    plan, _ = added(state, adding(b"", time=9, web=3))
    assert (header_of(plan).count, header_of(plan).until) == (1, at(2))


def test_a_clock_that_jumps_is_told_as_it_was_and_latest_only_grows() -> None:
    _, state = added(StreamState("app"), adding(b"x" * 200, time=30))
    plan, state = added(state, adding(b"y", time=10))
    header = header_of(plan)
    assert (header.since, header.until, header.latest) == (at(10), at(10), at(30))
    plan, _ = added(state, adding(b"z", time=20))
    header = header_of(plan)
    assert (header.since, header.until, header.latest) == (at(10), at(20), at(30))


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=60), st.integers(0, 59)), max_size=30))
def test_any_additions_read_back_as_one_sequence(additions: list[tuple[bytes, int]]) -> None:
    state = StreamState("app")
    files: dict[int, tuple[Header, bytes]] = {}
    for text, time in additions:
        plan, state = added(state, adding(text.replace(b"\n", b""), time=time))
        files[plan.first] = (header_of(plan), b"".join(plan.render()[1:]))
    sent = [text.replace(b"\n", b"") for text, _ in additions]
    bodies = b"".join(body for _, (_, body) in sorted(files.items()))
    assert bodies == b"".join(text + b"\n" for text in sent if text)
    next_seq = 1
    for first, (header, body) in sorted(files.items()):
        assert first == next_seq
        assert header.bytes == len(body)
        assert header.sha256 == hashlib.sha256(body).hexdigest()
        next_seq = header.last + 1
    assert state.next_seq == next_seq


def segment(first: int, last: int, latest: int = 0) -> Found:
    return Found(
        first,
        Header(
            version=FORMAT_VERSION,
            stream="app",
            first=first,
            count=last - first + 1,
            bytes=0,
            since=at(latest),
            until=at(latest),
            latest=at(latest),
            sha256="",
            producers={"p": last},
        ),
    )


def test_recovery_goes_on_behind_the_newest() -> None:
    plan = plan_recovery("app", [segment(1, 10), segment(11, 20)])
    assert (plan.covered, plan.gaps, plan.state.next_seq) == ([], [], 21)
    assert plan.state.producers == {Producer(None, "p"): 20}


@given(st.sets(st.integers(1, 4)))
def test_whatever_an_interrupted_merge_left_is_covered(left: set[int]) -> None:
    whole = segment(1, 50)
    leftovers = [segment(1 + 10 * number, 10 + 10 * number) for number in sorted(left)]
    for behind in ([], [segment(51, 60)]):
        plan = plan_recovery("app", [whole, *leftovers, *behind])
        assert plan.covered == [found.first for found in leftovers][::-1]
        assert plan.gaps == []
        assert plan.state.next_seq == (61 if behind else 51)


def test_a_gap_is_told() -> None:
    assert plan_recovery("app", [segment(1, 10), segment(15, 20)]).gaps == [(11, 14)]


def test_numbers_of_an_unreadable_newest_segment_are_never_used_again() -> None:
    plan = plan_recovery("app", [segment(1, 10), Found(11, None)])
    assert plan.state.next_seq == 11 + SEGMENT_RECORDS_MAX
    assert plan.state.producers == {Producer(None, "p"): 10}
    assert plan.newest is None
    plan = plan_recovery("app", [Found(11, None), segment(500, 600)])
    assert (plan.gaps, plan.state.next_seq) == ([], 601)


def test_an_empty_newest_segment_is_no_covered_one() -> None:
    plan = plan_recovery("app", [segment(1, 10), segment(11, 10)])
    assert (plan.covered, plan.gaps, plan.state.next_seq) == ([], [], 11)


@pytest.mark.parametrize("limit", [0, 1, 10_000])
def test_no_segments_is_a_stream_at_its_beginning(limit: int) -> None:
    plan = plan_recovery("app", [])
    assert (plan.state.next_seq, plan.newest) == (1, None)
    assert added(plan.state, adding(b"x"), limit)[0].first == 1
