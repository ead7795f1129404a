"""Ranges by the records' own times: what of sealed segments is read, and what is reported."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Self
from unittest.mock import patch

import pytest

import logengine
from logengine.disk.search_filters import FILTERS_NAME, TIMES_SUFFIX
from logengine.errors import InvalidOption
from logengine.format import compression
from logengine.format.segment import segment_name
from tests.compressed import compress_file
from tests.reading.streams import at, line, write_stream
from tests.reading.test_search_filters import FIRSTS, build, damage_frame, flip

RECORDS = 300


def own(number: int) -> str:
    """The first records go back from 21:00 as they arrive; the last segment has no such times."""
    hour, minute = divmod(1260 - number, 60)
    return "" if number > FIRSTS[-1] else f',"time":"2026-11-23T{hour:02d}:{minute:02d}:00Z"'


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """300 records of `app` in three sealed segments of several frames, with frame times."""
    data = tmp_path / "data"
    lines = [
        line(number, number % 60, f'{own(number)},"m":"{"x " * 40}"')
        for number in range(1, RECORDS + 1)
    ]
    write_stream(data, "app", *[lines[first - 1 : first + 99] for first in FIRSTS])
    with patch.object(compression, "FRAME_BYTES", 5000):
        for first in FIRSTS:
            compress_file(data / "app" / segment_name(first))
        build(data)
        yield data


def times(data: Path) -> list[Path]:
    return sorted((data / FILTERS_NAME / "app").glob(f"*{TIMES_SUFFIX}"))


def found(data: Path, **options: object) -> tuple[list[int], list[str]]:
    problems: list[str] = []
    reading = logengine.read(
        "app",
        data=data,
        on_problem=lambda problem: problems.append(str(problem)),
        **options,  # type: ignore[arg-type]
    )
    return [record.seq for record in reading], problems


class Reads:
    """Counts the bytes of bodies that are decompressed."""

    def __init__(self) -> None:
        self.bytes = 0

    def __enter__(self) -> Self:
        decompress = compression.decompress_frames

        def counting(*arguments: object) -> bytes:
            body = decompress(*arguments)  # type: ignore[arg-type]
            self.bytes += len(body)
            return body

        self._patch = patch.object(compression, "decompress_frames", counting)
        self._patch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.stop()


# The 118th to the 122nd minute before 21:00.
RANGE = {"since": "2026-11-23T18:58:00Z", "until": "2026-11-23T19:03:00Z"}
IN_RANGE = [118, 119, 120, 121, 122]


def test_every_sealed_segment_has_frame_times(data: Path) -> None:
    assert [path.name for path in times(data)] == [f"{first:020d}.times" for first in FIRSTS]
    assert all(path.stat().st_mode & 0o777 == 0o640 for path in times(data))


def test_a_range_is_by_the_own_time_or_by_arrival(data: Path) -> None:
    assert found(data, **RANGE) == (IN_RANGE, [])
    assert found(data, **RANGE, last=2) == (IN_RANGE[-2:], [])
    assert found(data, **RANGE, by="arrival") == ([], [])
    arrived = {"since": at(7), "until": at(8)}
    assert found(data, **arrived, by="arrival")[0] == [7, 67, 127, 187, 247]
    assert found(data, since=datetime(2026, 11, 23, 20, 0, 59, tzinfo=UTC), until=at(60 - 1)) == (
        [],
        [],
    )


def test_another_kind_of_range_is_refused(data: Path) -> None:
    with pytest.raises(InvalidOption, match="by is 'sent'; expected 'time' or 'arrival'"):
        logengine.read("app", data=data, by="sent")  # type: ignore[arg-type]


def test_only_frames_with_records_of_the_range_are_read(data: Path) -> None:
    with Reads() as everything:
        found(data)
    with Reads() as some:
        assert found(data, **RANGE) == (IN_RANGE, [])
    assert 0 < some.bytes < everything.bytes / 4
    with Reads() as none:
        assert found(data, until="2026-11-01T00:00:00Z") == ([], [])
    assert none.bytes == 0
    for path in times(data):
        path.unlink()
    with Reads() as without_times:
        assert found(data, **RANGE) == (IN_RANGE, [])
    assert without_times.bytes == everything.bytes


def test_frames_must_have_both_the_time_and_the_text(data: Path) -> None:
    with Reads() as some:
        assert found(data, **RANGE, grep="no such word") == ([], [])
    assert some.bytes == 0
    assert found(data, **RANGE, grep='"n":119,') == ([119], [])


def test_damage_outside_the_range_does_not_disturb(data: Path) -> None:
    damage_frame(data, 1, 0)
    damage_frame(data, 201, -1)
    assert found(data, **RANGE) == (IN_RANGE, [])
    numbers, problems = found(data, since="2026-11-23T20:30:00Z")
    assert len(problems) == 1
    assert "are not served" in problems[0]
    assert 1 not in numbers


def test_damaged_times_are_reported_and_hide_nothing(data: Path) -> None:
    _, second, _ = times(data)
    flip(second, 100)
    numbers, (problem,) = found(data, **RANGE)
    assert numbers == IN_RANGE
    assert f"{second} is damaged" in problem
    assert "no record is missing" in problem
    second.unlink()
    os.mkfifo(second)
    numbers, (problem,) = found(data, **RANGE)
    assert numbers == IN_RANGE
    assert "it is a FIFO" in problem


def test_times_of_another_segment_hide_nothing(data: Path) -> None:
    first, second, _ = times(data)
    second.write_bytes(first.read_bytes())
    assert found(data, **RANGE) == (IN_RANGE, [])


def test_an_old_segment_gets_times_and_keeps_its_filters(data: Path) -> None:
    filters = [path.with_suffix("") for path in times(data)]
    inodes = [path.stat().st_ino for path in filters]
    contents = [path.read_bytes() for path in times(data)]
    for path in times(data):
        path.unlink()
    build(data)
    assert [path.read_bytes() for path in times(data)] == contents
    assert [path.stat().st_ino for path in filters] == inodes


def test_times_without_a_segment_are_removed(data: Path) -> None:
    (data / "app" / segment_name(1, compressed=True)).unlink()
    build(data)
    assert [path.name for path in times(data)] == [f"{first:020d}.times" for first in FIRSTS[1:]]


def test_a_follower_starts_with_the_records_of_the_range(data: Path) -> None:
    for last, expected in ((None, IN_RANGE), (3, IN_RANGE[-3:])):
        following = logengine.follow(
            "app",
            data=data,
            since=RANGE["since"],
            where="time < 2026-11-23T19:03:00Z",
            last=last,
            timeout_s=30,
        )
        numbers = []
        for record in following:
            numbers.append(record.seq)
            if len(numbers) == len(expected):
                following.stop()
        assert numbers == expected
