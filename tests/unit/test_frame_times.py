"""Frame times: what they say about a segment counts for that one, not for one in its place."""

from pathlib import Path

from logengine.disk.directory import Directory
from logengine.disk.search_filters import FILTERS_NAME, FrameTimes, times_name, write_file
from logengine.format.frame_times import Bounds, encode_frame_times
from logengine.format.own_time import time_bounds
from logengine.format.time_range import TimeRange

RANGE = TimeRange("2026-11-25T00:00:00.000000Z", "2026-11-26T00:00:00.000000Z")
INSIDE = ("2026-11-25T01:00:00.000000Z", "2026-11-25T02:00:00.000000Z")
AT_THE_EDGE = ("2026-11-25T01:00:00.000000Z", "2026-11-27T02:00:00.000000Z")
OUTSIDE = ("2026-11-27T01:00:00.000000Z", "2026-11-27T02:00:00.000000Z")


def write(data: Path, segment: str, *frames: Bounds) -> None:
    with Directory.open(data) as directory:
        write_file(directory, "app", times_name(1), encode_frame_times(segment, frames))


def times_of(data: Path) -> FrameTimes:
    return FrameTimes(data, "app", RANGE, lambda _: None)


def test_a_frame_that_has_records_in_the_range_may_match(tmp_path: Path) -> None:
    write(tmp_path, "a", INSIDE, AT_THE_EDGE, OUTSIDE)
    times = times_of(tmp_path)
    assert times.may_match(1, "a") == [True, True, False]
    assert not times.encloses(1)


def test_the_bounds_of_a_large_frame_are_those_of_all_its_pieces() -> None:
    times = ["2026-11-25T12:00:00.000000Z"] * 3600
    times[1800], times[1200] = "2026-11-24T00:00:00.000000Z", "2026-11-26T00:00:00.000000Z"
    body = b"".join(b'{"_ts":"%s","text":"%s"}\n' % (each.encode(), b"x" * 99) for each in times)
    sizes: list[int] = []
    assert time_bounds(body, sizes.append) == (times[1800], times[1200])
    assert len(sizes) > 2, "it has one piece"


def test_times_that_are_possible_and_damaged_are_not_believed(tmp_path: Path) -> None:
    write(tmp_path, "a", INSIDE)
    path = tmp_path / FILTERS_NAME / "app" / times_name(1)
    path.write_bytes(path.read_bytes().replace(b"2026-11-25", b"2026-11-19"))
    problems: list[str] = []
    times = FrameTimes(tmp_path, "app", RANGE, problems.append)
    assert times.may_match(1, "a") is None
    (problem,) = problems
    assert "sha256" in problem


def test_a_segment_is_enclosed_only_as_it_was_read_last(tmp_path: Path) -> None:
    write(tmp_path, "a", INSIDE, INSIDE)
    times = times_of(tmp_path)
    assert times.may_match(1, "a") == [True, True]
    assert times.encloses(1)
    # Another segment has its place, and nothing is known about it.
    assert times.may_match(1, "b") is None
    assert not times.encloses(1)
