"""Where a stream goes on, by the segments that are found."""

import hashlib
import math
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from logengine.disk.segment_file import list_segments, read_segment
from logengine.format.compression import compress_body, encode_compressed_header
from logengine.format.cover import COVER_SEGMENTS_MAX, MERGED_SEGMENTS_MAX
from logengine.format.producers import Producer
from logengine.format.segment import Header, segment_name
from logengine.reading.reader import StreamReader
from logengine.store.plan import Addition, StreamState, append
from logengine.store.stream import SegmentWriter, recover
from logengine.upkeep.compaction_plan import EndedSegment
from logengine.upkeep.rewrite import Pace, Rewriter
from tests.crash.rig.drawn_streams import lose_one
from tests.unnoted import unnoted

PRODUCER = Producer(1000, "p")
TIME = "2026-11-23T20:00:00.000001Z"


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    directory = tmp_path / "app"
    directory.mkdir()
    return directory


def line(number: int) -> bytes:
    return b'{"_ts":"%s","n":%d}\n' % (TIME.encode(), number)


def write_compressed(directory: Path, first: int, last: int) -> Path:
    body = b"".join(map(line, range(first, last + 1)))
    frames = list(compress_body([body], 1))
    header = Header(
        version=1,
        stream=directory.name,
        first=first,
        count=last - first + 1,
        bytes=len(body),
        since=TIME,
        until=TIME,
        latest=TIME,
        sha256=hashlib.sha256(body).hexdigest(),
        producers={"p": last},
        frames=tuple(each.frame for each in frames),
    )
    path = directory / segment_name(first, compressed=True)
    path.write_bytes(encode_compressed_header(header) + frames[0].content)
    return path


def commit(directory: Path, state: StreamState, number: int) -> StreamState:
    addition = Addition([line(number)], 1, TIME, TIME, {PRODUCER: number})
    plan, after = append(state, addition, rewrite_limit=65536, max_producers=10)
    SegmentWriter(directory.parent, plan, names=unnoted(), direct_above=65536).publish()
    return after


def commits(directory: Path, count: int) -> StreamState:
    """Segments of one record each."""
    state = StreamState(directory.name)
    for number in range(1, count + 1):
        state = commit(directory, state, number).without_active()
    return state


def merge_all(directory: Path) -> None:
    """Publishes the longest merge there is, and removes nothing."""
    parts = [EndedSegment(seq, seq, len(line(seq))) for seq in range(1, MERGED_SEGMENTS_MAX + 1)]
    rewriter = Rewriter(
        directory.parent, Pace(math.inf), names=unnoted(), direct_above=65536, level=1
    )
    writer, _ = rewriter.merge(directory.name, parts)
    writer.publish()


def state_of(directory: Path) -> StreamState:
    return recover(directory, names=unnoted(), rewrite_limit=65536, active_bytes_max=65536).state


def bodies(directory: Path) -> bytes:
    return b"".join(read_segment(directory, first)[1] for first in list_segments(directory))


def test_a_stream_goes_on_behind_a_compressed_segment(stream: Path) -> None:
    path = write_compressed(stream, 1, 3)
    before = path.read_bytes()
    state = commit(stream, state_of(stream), 4)
    commit(stream, state, 5)
    assert list_segments(stream) == [1, 4]
    assert path.read_bytes() == before
    assert bodies(stream) == b"".join(map(line, range(1, 6)))
    assert state_of(stream).next_seq == 6
    assert state_of(stream).producers == {Producer(None, "p"): 3, PRODUCER: 5}


def test_covered_segments_of_either_kind_are_removed_with_a_sync_after_each(
    stream: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_compressed(stream, 1, 6)
    write_compressed(stream, 3, 4)
    commit(stream, StreamState("app", next_seq=5, latest=TIME), 5)
    calls: list[str] = []
    fsync, unlink = os.fsync, os.unlink

    def noted_fsync(descriptor: int) -> None:
        calls.append("fsync")
        fsync(descriptor)

    def noted_unlink(name: str, *, dir_fd: int) -> None:
        calls.append("unlink")
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "unlink", noted_unlink)
    recovery = recover(stream, names=unnoted(), rewrite_limit=65536, active_bytes_max=65536)
    assert recovery.covered_removed == 2
    assert calls == ["fsync", "unlink", "fsync", "unlink", "fsync"]
    assert [path.name for path in stream.iterdir()] == [segment_name(1, compressed=True)]
    assert recovery.state.next_seq == 7


@pytest.mark.parametrize("behind", [0, 1])
def test_the_longest_merge_is_found_where_what_it_covers_is_left(stream: Path, behind: int) -> None:
    count = MERGED_SEGMENTS_MAX + behind
    state = StreamState("app")
    for number in range(1, count + 1):
        state = commit(stream, state.without_active(), number)
    merge_all(stream)
    assert len(list_segments(stream)) == count
    problems: list[object] = []
    for seq in range(1, count + 1):
        reader = StreamReader(stream.parent, "app", problems.append, next_seq=seq)
        blocks = list(reader.read())
        assert b"".join(block.body for block in blocks) == b"".join(
            map(line, range(seq, count + 1))
        )
    assert problems == []
    recovery = recover(stream, names=unnoted(), rewrite_limit=65536, active_bytes_max=65536)
    assert recovery.covered_removed == MERGED_SEGMENTS_MAX - 1
    assert recovery.state.next_seq == count + 1


# A kill leaves the oldest of what was to be removed, a power cut may leave any.
@pytest.mark.parametrize("left", [range(2, 31), (7, 8, 20, 41), (MERGED_SEGMENTS_MAX,)])
def test_leftovers_of_a_merge_before_many_new_segments_are_not_taken_for_missing_records(
    stream: Path, left: Collection[int]
) -> None:
    count = MERGED_SEGMENTS_MAX + COVER_SEGMENTS_MAX - 2
    commits(stream, count)
    merge_all(stream)
    for number in set(range(2, MERGED_SEGMENTS_MAX + 1)) - set(left):
        (stream / segment_name(number)).unlink()
    recovery = recover(stream, names=unnoted(), rewrite_limit=65536, active_bytes_max=65536)
    assert recovery.gaps == []
    assert recovery.state.next_seq == count + 1
    problems: list[object] = []
    assert b"".join(
        block.body for block in StreamReader(stream.parent, "app", problems.append).read()
    ) == b"".join(map(line, range(1, count + 1)))
    assert problems == []


@pytest.mark.parametrize("missing", [MERGED_SEGMENTS_MAX + 1, MERGED_SEGMENTS_MAX + 9])
def test_records_missing_after_the_leftovers_of_a_merge_are_reported(
    stream: Path, missing: int
) -> None:
    count = MERGED_SEGMENTS_MAX + COVER_SEGMENTS_MAX - 2
    commits(stream, count)
    merge_all(stream)
    for number in [*range(31, MERGED_SEGMENTS_MAX + 1), missing]:
        (stream / segment_name(number)).unlink()
    recovery = recover(stream, names=unnoted(), rewrite_limit=65536, active_bytes_max=65536)
    assert recovery.gaps == [(missing, missing)]


def test_a_stream_goes_on_behind_a_recorded_gap_and_leaves_it_as_it_is(stream: Path) -> None:
    commits(stream, 3)
    path = stream / segment_name(3)
    path.write_bytes(b"{" + path.read_bytes())
    lose_one(stream.parent)
    gap = path.read_bytes()
    state = state_of(stream)
    commit(stream, state, 4)
    assert path.read_bytes() == gap
    assert list_segments(stream) == [1, 2, 3, state.next_seq]


def test_a_newest_segment_with_a_damaged_body_is_told_and_left_as_it_is(stream: Path) -> None:
    commits(stream, 2)
    path = stream / segment_name(2)
    damaged = path.read_bytes()[:-2] + b"!\n"
    path.write_bytes(damaged)
    recovery = recover(stream, names=unnoted(), rewrite_limit=65536, active_bytes_max=65536)
    assert [Path(each.path).name for each in recovery.damaged] == [segment_name(2)]
    commit(stream, recovery.state, 3)
    assert path.read_bytes() == damaged
    assert list_segments(stream) == [1, 2, 3]


def test_a_newest_segment_is_kept_in_memory_up_to_a_size_only(stream: Path) -> None:
    size_bytes = len(line(1))
    commits(stream, 1)
    for room_bytes, is_kept in ((size_bytes, False), (size_bytes + 1, True)):
        state = recover(
            stream, names=unnoted(), rewrite_limit=65536, active_bytes_max=room_bytes
        ).state
        assert (state.active is not None) == is_kept
        assert state.next_seq == 2


@pytest.fixture
def removals_and_syncs(stream: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done to the names of the stream's directory, in order; `sync` makes it durable."""
    done: list[str] = []
    unlink, fsync = os.unlink, os.fsync

    def noted_unlink(name: Any, **directory: int) -> None:
        unlink(name, **directory)
        done.append(os.path.basename(name))

    def noted_fsync(descriptor: int) -> None:
        fsync(descriptor)
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(stream):
            done.append("sync")

    monkeypatch.setattr(os, "unlink", noted_unlink)
    monkeypatch.setattr(os, "fsync", noted_fsync)
    return done


def test_what_is_found_is_durable_before_it_is_told(
    stream: Path, removals_and_syncs: list[str]
) -> None:
    commits(stream, 2)
    removals_and_syncs.clear()
    state_of(stream)
    assert removals_and_syncs == ["sync"]


def test_no_covered_segment_is_removed_before_the_removal_of_a_newer_one_is_durable(
    stream: Path, removals_and_syncs: list[str]
) -> None:
    write_compressed(stream, 1, 6)
    for first in (3, 5):
        write_compressed(stream, first, first + 1)
    state_of(stream)
    newer, older = (segment_name(first, compressed=True) for first in (5, 3))
    assert removals_and_syncs == ["sync", newer, "sync", older, "sync"]
