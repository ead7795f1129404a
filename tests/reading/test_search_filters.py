"""Searches of sealed segments with search filters, and without."""

import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from msgspec import UNSET

import logengine
from logengine.disk.search_filters import FILTERS_NAME
from logengine.disk.segment_file import read_header
from logengine.format import compression
from logengine.format.segment import segment_name
from logengine.upkeep.search_filter_builder import SearchFilterBuilder
from tests.compressed import compress_file
from tests.reading.streams import line, write_stream

RECORDS = 300
FIRSTS = (1, 101, 201)
NEEDLES = {17: "needle", 250: "Needle-4bf92f3577b34da6a3ce929d0e0e4736"}


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """300 records of `app` in three compressed segments, with filters.

    Each has three frames; the last is too small for a filter.
    """
    data = tmp_path / "data"
    lines = [
        line(number, number % 60, f',"m":"{NEEDLES.get(number, "message")} {"x " * 40}"')
        for number in range(1, RECORDS + 1)
    ]
    write_stream(data, "app", *[lines[first - 1 : first + 99] for first in FIRSTS])
    with patch.object(compression, "FRAME_BYTES", 5000):
        for first in FIRSTS:
            compress_file(data / "app" / segment_name(first))
        build(data)
        yield data


def build(data: Path) -> None:
    builder = SearchFilterBuilder(data)
    while builder.has_work:
        builder.step(lambda _: None)


def filters(data: Path) -> list[Path]:
    return sorted(path for path in (data / FILTERS_NAME / "app").iterdir() if path.name.isdigit())


def found(data: Path, **options: object) -> tuple[list[int], list[str]]:
    problems: list[str] = []
    reading = logengine.read(
        "app",
        data=data,
        on_problem=lambda problem: problems.append(str(problem)),
        **options,  # type: ignore[arg-type]
    )
    return [record.seq for record in reading], problems


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def damage_frame(data: Path, first: int, frame: int) -> None:
    """Flips a bit in a frame that is counted from the end."""
    frames = read_header(data / "app", first).frames
    assert frames is not UNSET
    stored = [each.stored_bytes for each in frames]
    flip(data / "app" / segment_name(first, compressed=True), -sum(stored[frame:]) + 20)


def test_every_sealed_segment_has_filters(data: Path) -> None:
    assert [int(path.name) for path in filters(data)] == list(FIRSTS)
    assert all(path.stat().st_mode & 0o777 == 0o640 for path in filters(data))


@pytest.mark.parametrize(
    "options",
    [
        {"grep": "needle"},
        {"grep": "eedl"},
        {"grep": "NEEDLE", "ignore_case": True},
        {"grep": "needle", "invert": True},
        {"grep": "N[e]*dle-4bf92f3577b3"},
        {"grep": "4bf92f3577b34da6a3ce929d0e0e4736"},
        {"grep": "needle|Needle"},
        {"grep": "no such word"},
        {"grep": '"n":2', "fixed": True},
        {"grep": '"n":250,', "fixed": True},
        {"grep": "20:00:17.000000Z"},
        {"where": "n=250"},
        {"where": ["n=250", "m=needle"]},
        {"grep": "needle", "last": 1},
        {"grep": "[nN]eedle", "last": 1},
        {"grep": "eedle", "after": "app:17"},
    ],
)
def test_with_filters_the_same_is_found(data: Path, options: dict[str, object]) -> None:
    with_filters = found(data, **options)
    for path in filters(data):
        path.unlink()
    assert found(data, **options) == with_filters
    assert with_filters[1] == []


def test_a_frame_that_cannot_match_is_not_read(data: Path) -> None:
    damage_frame(data, 1, -2)
    damage_frame(data, 101, -2)
    damage_frame(data, 201, -3)
    assert found(data, grep="eedle") == ([17, 250], [])
    assert len(found(data)[1]) == len(FIRSTS)


def test_of_a_segment_with_a_damaged_frame_that_may_match_every_frame_is_read(data: Path) -> None:
    damage_frame(data, 1, 0)
    numbers, problems = found(data, grep="needle")
    assert numbers == []
    assert "are not served" in "".join(problems)
    damage_frame(data, 1, -1)
    assert len(found(data, grep="needle")[1]) == 2


def test_damaged_filters_are_reported_and_hide_nothing(data: Path) -> None:
    first, *others = filters(data)
    flip(first, -40)
    numbers, problems = found(data, grep="eedle")
    assert numbers == [17, 250]
    (problem,) = problems
    assert f"{first} is damaged" in problem
    assert "no record is missing" in problem
    for other in others:
        other.write_bytes(b"")
    numbers, problems = found(data, grep="eedle")
    assert (numbers, len(problems)) == ([17, 250], 3)


def test_filters_of_another_segment_hide_nothing(data: Path) -> None:
    first, second, _ = filters(data)
    first.write_bytes(second.read_bytes())
    assert found(data, grep="eedle") == ([17, 250], [])


def test_what_is_no_file_is_reported_and_hides_nothing(data: Path) -> None:
    first, *_ = filters(data)
    first.unlink()
    os.mkfifo(first)
    numbers, problems = found(data, grep="eedle")
    assert numbers == [17, 250]
    assert f"{first} cannot be read: it is a FIFO" in problems[0]


def test_a_link_in_place_of_the_filters_is_not_followed(data: Path, tmp_path: Path) -> None:
    (data / FILTERS_NAME).rename(tmp_path / "elsewhere")
    (data / FILTERS_NAME).symlink_to(tmp_path / "elsewhere")
    numbers, problems = found(data, grep="eedle")
    assert numbers == [17, 250]
    assert "symbolic link" in problems[0]


def test_filters_without_a_segment_are_removed(data: Path) -> None:
    (data / "app" / segment_name(1, compressed=True)).unlink()
    (data / FILTERS_NAME / "app" / ".00000000000000000001.5f.tmp").write_bytes(b"half")
    (data / FILTERS_NAME / "gone").mkdir()
    (data / FILTERS_NAME / "gone" / filters(data)[1].name).write_bytes(b"")
    build(data)
    assert [int(path.name) for path in filters(data)] == [101, 201]
    assert list((data / FILTERS_NAME / "gone").iterdir()) == []


def test_filters_of_a_segment_that_was_written_again_are_made_again(data: Path) -> None:
    segment = data / "app" / segment_name(101, compressed=True)
    segment.write_bytes(segment.read_bytes())
    first, second, third = filters(data)
    second.write_bytes(first.read_bytes())
    os.utime(second, (1, 1))
    before = third.stat()
    build(data)
    assert second.read_bytes() != first.read_bytes()
    assert third.stat().st_ino == before.st_ino
    damage_frame(data, 101, -2)
    assert found(data, grep="eedle") == ([17, 250], [])


def test_a_damaged_segment_gets_no_filters(data: Path) -> None:
    for path in filters(data):
        path.unlink()
    damage_frame(data, 101, -1)
    flip(data / "app" / segment_name(1, compressed=True), 30)
    build(data)
    assert [int(path.name) for path in filters(data)] == [201]


def test_filters_leave_the_reserve_free(data: Path) -> None:
    for path in filters(data):
        path.unlink()
    builder = SearchFilterBuilder(data, lambda: 2**62)
    with pytest.raises(OSError, match="left to records"):
        while builder.has_work:
            builder.step(lambda _: None)
    while builder.has_work:
        builder.step(lambda _: None)
    assert filters(data) == []
    builder.changed("app")
    assert builder.has_work
