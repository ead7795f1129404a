"""The reader against a plain list, however the records are cut into segments."""

import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from logengine.disk.segment_file import list_segments, read_header, read_wanted
from logengine.format import compression
from logengine.format.block import Block, Record, runs
from logengine.format.compression import encode_compressed_header
from logengine.format.segment import Earlier, Header, segment_name, timestamp_of
from logengine.format.time_range import TimeRange
from logengine.reading import reader as reader_module
from logengine.reading.merging import merge_by_time
from logengine.reading.newest_records import last_records
from logengine.reading.problem import Gone, Problem
from logengine.reading.reader import StreamReader
from logengine.store.plan import Addition, StreamState, append
from logengine.upkeep.verify import verify_stream
from tests.compressed import compressed, sealed

# The clock may jump to and fro: seconds of one minute, in any order.
seconds = st.lists(st.integers(0, 59), min_size=1, max_size=40)
cuts = st.lists(st.integers(1, 7), max_size=40)


def line(seq: int, second: int) -> bytes:
    return b'{"_ts":"2026-11-23T20:00:%02d.000000Z","n":%d}' % (second, seq)


def at(second: int) -> str:
    return f"2026-11-23T20:00:{second:02d}.000000Z"


def segments(lines: list[bytes], sizes: list[int]) -> dict[int, bytes]:
    """The files of a stream with these records, cut at these sizes: content by first number."""
    files = {}
    state = StreamState("app")
    rest = list(lines)
    for size in [*sizes, len(lines)]:
        part, rest = rest[:size], rest[size:]
        if part:
            times = [timestamp_of(one) for one in part]
            plan, state = append(
                state,
                Addition([one + b"\n" for one in part], len(part), min(times), max(times)),
                rewrite_limit=0,
                max_producers=9,
            )
            files[plan.first] = b"".join(plan.render())
    return files


@contextmanager
def stream(files: dict[int, bytes], packed: Collection[int] = (), seals: int = 0) -> Iterator[Path]:
    """A data directory of these files: the first `seals` sealed, those of `packed` compressed."""
    chain = sealed(dict(list(files.items())[:seals]))
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name, "app")
        directory.mkdir()
        for first, content in files.items():
            stored = chain.get(first) or (compressed(content) if first in packed else content)
            name_here = segment_name(first, compressed=first in packed or first in chain)
            (directory / name_here).write_bytes(stored)
        (directory / ".00000000000000000009.ndjson.12.tmp").write_bytes(b"{")
        yield Path(name)


def small_frames() -> AbstractContextManager[object]:
    """Has compressed segments made of frames of two or three lines."""
    return patch.object(compression, "FRAME_BYTES", 120)


def no_problem(problem: Problem) -> None:
    pytest.fail(str(problem))


def read(
    data: Path, next_seq: int = 1, times: TimeRange | None = None
) -> tuple[list[tuple[int, bytes]], list[Problem]]:
    problems: list[Problem] = []
    reader = StreamReader(data, "app", problems.append, next_seq)
    if times is not None and times.since is not None:
        reader.seek_time(times.since)
    found = [
        (record.seq, record.line)
        for block in reader.read(times or TimeRange())
        for record in block.records()
    ]
    return found, problems


@given(seconds, cuts, st.integers(1, 45), st.sets(st.integers(1, 40)))
def test_reading_from_anywhere_gives_what_is_behind(
    times: list[int], sizes: list[int], start: int, packed: set[int]
) -> None:
    lines = [line(seq, second) for seq, second in enumerate(times, 1)]
    with small_frames(), stream(segments(lines, sizes), packed) as data:
        assert all(finding.harmless for finding in verify_stream(data / "app"))
        assert read(data, start) == (list(enumerate(lines, 1))[start - 1 :], [])


@given(
    seconds | st.lists(st.integers(0, 59), min_size=1, max_size=40).map(sorted),
    cuts,
    st.integers(0, 59),
    st.integers(0, 59),
    st.sets(st.integers(1, 40)),
    st.integers(0, 40),
    st.integers(0, 3),
)
def test_times_choose_exactly_the_records_in_the_range(
    times: list[int],
    sizes: list[int],
    since: int,
    until: int,
    packed: set[int],
    seals: int,
    retained_no_longer: int,
) -> None:
    lines = [line(seq, second) for seq, second in enumerate(times, 1)]
    files = segments(lines, sizes)
    oldest = list(files)[min(retained_no_longer, max(0, seals - 1), len(files) - 1)]
    expected = [
        (seq, line(seq, second))
        for seq, second in enumerate(times, 1)
        if since <= second < until and seq >= oldest
    ]
    with small_frames(), stream(files, packed, seals) as data:
        for first in [first for first in files if first < oldest]:
            (data / "app" / segment_name(first, compressed=True)).unlink()
        assert all(finding.harmless for finding in verify_stream(data / "app"))
        assert read(data, times=TimeRange(at(since), at(until))) == (expected, [])
        expected = [(seq, line(seq, times[seq - 1])) for seq in range(oldest, len(times) + 1)]
        expected = [record for record in expected if times[record[0] - 1] < until]
        assert read(data, times=TimeRange(until=at(until))) == (expected, [])


@given(seconds, cuts, st.integers(1, 45), st.integers(1, 45), st.integers(1, 50))
def test_reading_up_to_a_number_can_be_gone_on_from(
    times: list[int], sizes: list[int], start: int, stop: int, count: int
) -> None:
    lines = [line(seq, second) for seq, second in enumerate(times, 1)]
    expected = list(enumerate(lines, 1))
    with small_frames(), stream(segments(lines, sizes)) as data:
        reader = StreamReader(data, "app", no_problem, start)

        def seen(blocks: Iterator[Block]) -> list[tuple[int, bytes]]:
            return [(record.seq, record.line) for block in blocks for record in block.records()]

        assert seen(reader.read(stop=stop)) == expected[start - 1 : stop - 1]
        assert reader.next_seq == max(start, min(stop, len(lines) + 1))
        newest = list_segments(data / "app")[-1]
        assert seen(reader.read_changed(newest, stop)) == []
        assert seen(reader.read_changed(newest)) == expected[max(start, stop) - 1 :]
        last = last_records(StreamReader(data, "app", no_problem), count, stop=stop)
        assert [record.line for record in last] == lines[: stop - 1][-count:]


@given(seconds, cuts, st.data())
def test_what_was_removed_is_told_once_to_who_wanted_it(
    times: list[int], sizes: list[int], source: st.DataObject
) -> None:
    lines = [line(seq, second) for seq, second in enumerate(times, 1)]
    files = segments(lines, sizes)
    firsts = list(files)
    kept = source.draw(st.integers(0, len(firsts) - 1))
    start = source.draw(st.integers(1, len(lines)))
    problems: list[Problem] = []
    with stream(files) as data:
        reader = StreamReader(data, "app", problems.append, start, reports_removed=True)
        for first in firsts[:kept]:
            (data / "app" / segment_name(first)).unlink()
        seqs = [record.seq for block in reader.read() for record in block.records()]
    assert seqs == list(range(max(start, firsts[kept]), len(lines) + 1))
    gone = [problem.gone for problem in problems]
    assert gone == ([Gone(start, firsts[kept] - 1, "removed")] if start < firsts[kept] else [])
    assert all(problem.expected for problem in problems)


def test_what_goes_while_it_is_read_is_one_hole() -> None:
    lines = [line(seq, 0) for seq in range(1, 301)]
    files = segments(lines, [1] * 300)
    problems: list[Problem] = []
    with stream(files) as data:
        reader = StreamReader(data, "app", problems.append)
        blocks = reader.read()
        assert next(blocks).first == 1
        (data / "app" / segment_name(1)).unlink()

        def remove_the_next(directory: Path, first: int, *asked: Any) -> Any:
            # Retention is always just ahead of the reader, for far more than a hundred times.
            if 2 <= first < 290:
                (directory / segment_name(first)).unlink()
            return read_wanted(directory, first, *asked)

        with patch.object(reader_module, "read_wanted", remove_the_next):
            seqs = [record.seq for block in blocks for record in block.records()]
    assert seqs == list(range(290, 301))
    assert [problem.gone for problem in problems] == [Gone(2, 289, "removed")]


def test_a_segment_that_is_told_of_and_gone_again_and_again_is_no_problem() -> None:
    lines = [line(seq, 0) for seq in range(1, 4)]
    with stream(segments(lines, [3])) as data:
        reader = StreamReader(data, "app", no_problem)
        for first in (2, 3, 2, 3, 2, 2):  # merged into the first since
            reader.next_seq = 3
            assert [block.first for block in reader.read_changed(first)] == [3]


def test_a_link_in_place_of_a_segment_is_a_problem_and_the_rest_is_served() -> None:
    lines = [line(seq, 0) for seq in range(1, 7)]
    with stream(segments(lines, [2, 2, 2])) as data:
        path = data / "app" / segment_name(3)
        path.unlink()
        path.symlink_to("nowhere")
        found, problems = read(data)
    assert [seq for seq, _ in found] == [1, 2, 5, 6]
    assert "it is a symbolic link, expected a regular file" in str(problems[0])
    assert problems[-1].gone == Gone(3, 4, "damaged")


@given(seconds, cuts, st.integers(1, 45))
def test_the_last_records_are_the_last(times: list[int], sizes: list[int], count: int) -> None:
    lines = [line(seq, second) for seq, second in enumerate(times, 1)]
    with stream(segments(lines, sizes)) as data:
        reader = StreamReader(data, "app", lambda _: None)
        found = last_records(reader, count)
        assert [record.line for record in found] == lines[-count:]
        assert reader.next_seq == len(lines) + 1


@given(seconds, cuts, st.data())
def test_what_an_interrupted_merge_left_doubles_nothing(
    times: list[int], sizes: list[int], source: st.DataObject
) -> None:
    lines = [line(seq, second) for seq, second in enumerate(times, 1)]
    files = segments(lines, sizes)
    firsts = list(files)
    start = source.draw(st.integers(0, len(firsts) - 1))
    stop = source.draw(st.integers(start + 1, len(firsts)))
    bounds = [*firsts, len(lines) + 1]
    # The merged segment replaces the first of those it covers; it has its own `latest`.
    sizes_before = [after - before for before, after in pairwise(firsts[: start + 1])]
    merged = segments(lines, [*sizes_before, bounds[stop] - firsts[start]])[firsts[start]]
    left = source.draw(st.sets(st.sampled_from(firsts[start + 1 : stop] or [0])))
    kept = {
        first: content
        for first, content in files.items()
        if first not in firsts[start + 1 : stop] or first in left
    }
    kept[firsts[start]] = merged
    begin = source.draw(st.integers(1, len(lines) + 1))
    since = source.draw(st.integers(0, 59))
    until = source.draw(st.integers(0, 59))
    seals = source.draw(st.integers(0, start + 1))
    with stream(kept, seals=seals) as data:
        assert read(data, begin) == (list(enumerate(lines, 1))[begin - 1 :], [])
        expected = [
            (seq, line(seq, second)) for seq, second in enumerate(times, 1) if second >= since
        ]
        assert read(data, times=TimeRange(at(since))) == (expected, [])
        expected = [(seq, one) for seq, one in expected if times[seq - 1] < until]
        assert read(data, times=TimeRange(at(since), at(until))) == (expected, [])
        assert [f for f in verify_stream(data / "app") if not f.harmless] == []


@given(seconds, cuts, st.data())
def test_any_damage_is_found_and_told_and_the_rest_is_served(
    times: list[int], sizes: list[int], source: st.DataObject
) -> None:
    lines = [line(seq, second) for seq, second in enumerate(times, 1)]
    files = segments(lines, sizes)
    first = source.draw(st.sampled_from(list(files)))
    content = bytearray(files[first])
    body_start = content.index(b"\n") + 1
    if source.draw(st.booleans()):
        place = source.draw(st.integers(body_start, len(content) - 1))
        content[place] ^= 1 << source.draw(st.integers(0, 7))
    else:
        del content[source.draw(st.integers(0, len(content) - 1)) :]
    files[first] = bytes(content)
    bounds = [*files, len(lines) + 1]
    damaged = range(first, bounds[list(files).index(first) + 1])
    with stream(files) as data:
        found, problems = read(data)
        assert found == [(seq, one) for seq, one in enumerate(lines, 1) if seq not in damaged]
        assert segment_name(first) in str(problems[0])
        harmful = [finding for finding in verify_stream(data / "app") if not finding.harmless]
        assert any(finding.path.endswith(segment_name(first)) for finding in harmful)


@given(st.integers(2, 40), st.data())
def test_of_a_damaged_segment_all_frames_that_are_whole_are_served(
    count: int, source: st.DataObject
) -> None:
    lines = [line(seq, seq) for seq in range(1, count + 1)]
    with small_frames(), stream(segments(lines, []), seals=1) as data:
        path = data / "app" / segment_name(1, compressed=True)
        header = read_header(data / "app", 1)
        assert header.frames is not UNSET
        content = bytearray(path.read_bytes())
        place, seq = len(content) - header.stored_bytes, 1
        served = dict(enumerate(lines, 1))
        broken = source.draw(st.sets(st.integers(0, len(header.frames) - 1), min_size=1))
        for index, frame in enumerate(header.frames):
            if index in broken:
                content[place + source.draw(st.integers(0, frame.stored_bytes - 1))] ^= 255
                for lost in range(seq, seq + frame.count):
                    del served[lost]
            place, seq = place + frame.stored_bytes, seq + frame.count
        content += source.draw(st.sampled_from([b"", b"more", bytes(content)]))
        path.write_bytes(content)
        since = source.draw(st.integers(0, 45))
        found, problems = read(data, times=TimeRange(at(since)))
        assert found == [(seq, one) for seq, one in served.items() if seq >= since]
        found, problems = read(data)
        assert found == list(served.items())
        said = " ".join(map(str, problems))
        for first, last in runs(sorted(set(range(1, count + 1)) - served.keys())):
            assert f"records {first} to {last} are not served" in said
        # What is there plain, too, or was covered, is taken from that.
        plain = segments(lines, [])[1]
        (data / "app" / segment_name(1)).write_bytes(plain)
        found, problems = read(data)
        assert found == list(enumerate(lines, 1))
        assert segment_name(1, compressed=True) in str(problems)
        content[0] ^= 255
        path.write_bytes(content)
        assert read(data, times=TimeRange(at(1)))[0] == found


@given(seconds, cuts, st.data())
def test_any_flipped_bit_of_a_header_is_found(
    times: list[int], sizes: list[int], source: st.DataObject
) -> None:
    lines = [line(seq, second) for seq, second in enumerate(times, 1)]
    files = segments(lines, sizes)
    first = source.draw(st.sampled_from(list(files)))
    content = bytearray(files[first])
    place = source.draw(st.integers(0, content.index(b"\n")))
    content[place] ^= 1 << source.draw(st.integers(0, 7))
    files[first] = bytes(content)
    with stream(files) as data:
        found, problems = read(data)
        assert set(found) <= set(enumerate(lines, 1))
        assert [seq for seq, _ in found] == sorted({seq for seq, _ in found})
        assert segment_name(first) in str(problems[0])
        harmful = [finding for finding in verify_stream(data / "app") if not finding.harmless]
        assert any(finding.path.endswith(segment_name(first)) for finding in harmful)


def test_a_missing_segment_is_a_gap_that_is_told() -> None:
    lines = [line(seq, seq) for seq in range(1, 10)]
    files = segments(lines, [3, 3, 3])
    del files[4]
    with stream(files) as data:
        found, problems = read(data)
        assert [seq for seq, _ in found] == [1, 2, 3, 7, 8, 9]
        assert [str(problem) for problem in problems] == ["app: records 4 to 6 are missing"]
        assert any("missing" in finding.what for finding in verify_stream(data / "app"))


def test_the_oldest_segments_may_be_gone() -> None:
    files = segments([line(seq, seq) for seq in range(1, 10)], [3, 3, 3])
    del files[1]
    with stream(files) as data:
        found, problems = read(data)
        assert [seq for seq, _ in found] == [4, 5, 6, 7, 8, 9]
        assert problems == []


@given(st.lists(st.lists(st.integers(0, 59), max_size=8), max_size=4))
def test_streams_are_merged_by_time_and_keep_their_own_order(streams: list[list[int]]) -> None:
    records = [
        [Record(f"s{number}", seq, line(seq, second)) for seq, second in enumerate(times, 1)]
        for number, times in enumerate(streams)
    ]
    merged = list(merge_by_time(records))
    for number in range(len(streams)):
        assert [r for r in merged if r.stream == f"s{number}"] == records[number]
    if all(times == sorted(times) for times in streams):
        assert [timestamp_of(r.line) for r in merged] == sorted(
            at(second) for times in streams for second in times
        )


def test_reading_from_a_covered_segment_goes_on_in_the_one_that_covers_it() -> None:
    lines = [line(seq, seq) for seq in range(1, 4)]
    files = {1: segments(lines, [3])[1], 2: segments(lines, [1, 1, 1])[2]}
    with stream(files) as data:
        assert read(data, 2) == (list(enumerate(lines, 1))[1:], [])


def test_large_segments_are_read_ahead_and_damage_among_them_is_told() -> None:
    lines = [line(seq, 0)[:-1] + b',"x":"%s"}' % (b"x" * 60_000) for seq in range(1, 101)]
    files = segments(lines, [10] * 10)
    files[41] = files[41][:-9] + b'yyyyyy"}\n'
    del files[71]
    with stream(files, packed=[11, 51]) as data:
        found, problems = read(data)
    there = [seq for seq in range(1, 101) if not (41 <= seq <= 50 or 71 <= seq <= 80)]
    assert found == [(seq, lines[seq - 1]) for seq in there]
    assert "sha256 of its body" in str(problems[0])
    assert str(problems[1]) == "app: records 71 to 80 are missing"


def test_what_is_asked_of_old_times_costs_the_logarithm_of_the_seals_behind() -> None:
    lines = [line(seq, seq // 40) for seq in range(1, 2001)]
    files = segments(lines, [2] * 1000)
    with stream(files, seals=990) as data, counted_headers() as headers:
        found, problems = read(data, times=TimeRange(at(20), at(21)))
    assert (found, problems) == ([(seq, lines[seq - 1]) for seq in range(800, 840)], [])
    # 10 unsealed ones, the way back to the range, the bisection, the range itself.
    assert len(headers) <= 10 + 3 * 10 + 11 + 22
    # A jump of the clock makes it slower, and no other.
    lines[1900] = line(1901, 20)
    with stream(segments(lines, [2] * 1000), seals=990) as data:
        found, _ = read(data, times=TimeRange(at(20), at(21)))
    assert found == [(seq, lines[seq - 1]) for seq in [*range(800, 840), 1901]]


@contextmanager
def counted_headers() -> Iterator[list[int]]:
    """The first numbers of the segments whose headers are read."""
    read_ones: list[int] = []

    def count(directory: Path, first: int, *asked: Any) -> object:
        read_ones.append(first)
        return read_wanted(directory, first, *asked)

    with patch.object(reader_module, "read_wanted", count):
        yield read_ones


def test_of_a_sealed_segment_only_the_frames_in_the_range_are_read() -> None:
    lines = [line(seq, seq) for seq in range(1, 41)]
    with small_frames(), stream(segments(lines, []), seals=1) as data:
        path = data / "app" / segment_name(1, compressed=True)
        header = read_header(data / "app", 1)
        assert header.frames is not UNSET
        content = bytearray(path.read_bytes())
        content[-header.frames[-1].stored_bytes // 2] ^= 1  # in the last frame
        path.write_bytes(content)
        found, problems = read(data, times=TimeRange(at(10), at(13)))
        assert (found, problems) == ([(seq, lines[seq - 1]) for seq in range(10, 13)], [])
        lost = range(41 - header.frames[-1].count, 41)
        found, problems = read(data, times=TimeRange(at(10)))
        assert found == [(seq, lines[seq - 1]) for seq in range(10, lost[0])]
        assert f"records {lost[0]} to 40 are not served" in str(problems[0])
        assert len(problems) == 1
        assert read(data, next_seq=40)[0] == []
        assert any(not finding.harmless for finding in verify_stream(data / "app"))


@pytest.mark.parametrize(
    "claim",
    [
        lambda header: {"earlier": Earlier(first=1, since=at(2), seals=1)},
        lambda header: {
            "index": (*header.index[:-1], msgspec.structs.replace(header.index[-1], since=at(10)))
        },
    ],
)
def test_verify_finds_a_header_that_says_what_is_not_so(
    claim: Callable[[Header], dict[str, object]],
) -> None:
    lines = [line(seq, seq) for seq in range(1, 11)]
    with small_frames(), stream(segments(lines, [5, 5]), seals=2) as data:
        assert all(finding.harmless for finding in verify_stream(data / "app"))
        path = data / "app" / segment_name(6, compressed=True)
        header = read_header(data / "app", 6)
        body = path.read_bytes()[-header.stored_bytes :]
        header = msgspec.structs.replace(header, **claim(header))
        path.write_bytes(encode_compressed_header(header) + body)
        assert any(not finding.harmless for finding in verify_stream(data / "app"))
