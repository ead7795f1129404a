"""`reading.pages`: the same records in both directions, whatever the size and time of a page."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import logengine
from logengine.format.cursor import Cursor
from logengine.format.segment import segment_name
from logengine.format.time_range import TimeRange
from logengine.reading import Filter, Limit, Page, Pages, Problem, SealedFrame
from tests.reading.streams import at, damage, line, seal, write_stream

Row = tuple[str, int]
LIMIT = Limit(1000, 1 << 20, lambda: False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three streams whose records are mixed in time, in segments of different sizes."""
    data = tmp_path / "data"
    write_stream(data, "app", *[[line(n, n) for n in range(i, i + 4)] for i in (1, 5, 9, 13)])
    write_stream(data, "db", [line(n, 5) for n in range(1, 8)])
    write_stream(data, "web", *[[line(n, 2 * n) for n in range(i, i + 3)] for i in (1, 4, 7)])
    return data


def rows(page: Page) -> list[Row]:
    return [
        (each.stream, each.seq) if not isinstance(each, Problem) else (each.stream, -1)
        for each in page.items
    ]


def walk_back(pages: Pages, limit: Limit) -> Iterator[Page]:
    place = pages.end()
    while True:
        page = pages.before(place, limit)
        yield page
        if page.is_last:
            return
        assert page.begin != place, "a page that leads nowhere"
        place = page.begin


def walk(pages: Pages, limit: Limit) -> Iterator[Page]:
    place = pages.start()
    while True:
        page = pages.after(place, limit)
        yield page
        if page.is_last:
            return
        assert page.end != place, "a page that leads nowhere"
        place = page.end


@pytest.mark.parametrize("records", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("where", [(), "n > 5", "n == 3", "n == 99"])
@pytest.mark.parametrize("times", [TimeRange(), TimeRange(at(4), at(11))])
@pytest.mark.parametrize("is_over", [True, False])
def test_pages_have_the_records_of_a_read(
    data: Path, records: int, where: str, times: TimeRange, is_over: bool
) -> None:
    reading = logengine.read(data=data, where=where, since=times.since, until=times.until)
    expected = [(each.stream, each.seq) for each in reading]
    pages = Pages(["app", "db", "web"], data=data, chosen=Filter.of(where), times=times)
    limit = Limit(records, 1 << 20, lambda: is_over)
    assert [row for page in walk(pages, limit) for row in rows(page)] == expected
    back = [rows(page) for page in walk_back(pages, limit)]
    assert [row for page in back[::-1] for row in page] == expected
    assert all(len(page) <= records for page in back)


def test_a_page_ends_before_it_has_too_many_bytes(data: Path) -> None:
    pages = Pages(["app"], data=data)
    limit = Limit(100, 1, lambda: False)
    assert [len(page.items) for page in walk(pages, limit)] == [1] * 16
    assert sum(len(page.items) for page in walk_back(pages, limit)) == 16


def test_both_directions_of_a_record_meet_at_it(data: Path) -> None:
    pages = Pages(["app", "db", "web"], data=data)
    place = pages.at(Cursor("app", 9))
    after, before = pages.after(place, LIMIT), pages.before(place, LIMIT)
    assert rows(after)[0] == ("app", 9)
    every = [(each.stream, each.seq) for each in logengine.read(data=data)]
    assert rows(before) + rows(after) == every


@pytest.mark.parametrize("second", [0, 1, 5, 8, 30])
def test_the_place_of_a_time_is_before_its_first_records(data: Path, second: int) -> None:
    pages = Pages(["app", "db", "web"], data=data)
    after = pages.after(pages.at_time(at(second)), LIMIT)
    expected = logengine.read(data=data, since=at(second))
    assert rows(after) == [(each.stream, each.seq) for each in expected]


def gaps(page: Page) -> list[tuple[int, int, str]]:
    problems = [each for each in page.items if isinstance(each, Problem)]
    found = [each.gone for each in problems if each.gone is not None]
    return [(each.first, each.last, each.reason) for each in found]


@pytest.mark.parametrize("records", [1, 2, 100])
@pytest.mark.parametrize("gone", [5, 9])
def test_missing_records_are_a_row_in_both_directions(data: Path, records: int, gone: int) -> None:
    (data / "app" / segment_name(gone)).unlink()
    pages = Pages(["app"], data=data)
    limit = Limit(records, 1 << 20, lambda: False)
    there = [each for each in range(1, 17) if not gone <= each < gone + 4]
    for direction in (list(walk(pages, limit)), list(walk_back(pages, limit))[::-1]):
        assert [seq for page in direction for _, seq in rows(page) if seq > 0] == there
        found = [each for page in direction for each in gaps(page)]
        assert found == [(gone, gone + 3, "missing")]


def test_a_damaged_segment_is_a_row_in_both_directions(data: Path) -> None:
    for first in (9, 13):
        damage(data, "app", first)
    pages = Pages(["app"], data=data)
    for page in (pages.after(pages.start(), LIMIT), pages.before(pages.end(), LIMIT)):
        assert [seq for _, seq in rows(page) if seq > 0] == list(range(1, 9))
        assert gaps(page)[0][0::2] == (9, "damaged")


def test_what_was_removed_is_the_first_row(data: Path) -> None:
    for first in (1, 5):
        (data / "app" / segment_name(first)).unlink()
    pages = Pages(["app"], data=data)
    for page in (pages.after(pages.start(), LIMIT), pages.before(pages.end(), LIMIT)):
        assert gaps(page) == [(1, 8, "removed")]
        assert rows(page)[1:] == [("app", seq) for seq in range(9, 17)]


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_a_stream_of_others_is_a_row(data: Path) -> None:
    (data / "db").chmod(0)
    pages = Pages(["app", "db"], data=data)
    page = pages.before(pages.end(), LIMIT)
    assert ("db", -1) in rows(page)
    assert ("app", 16) in rows(page)


def test_a_stream_that_does_not_exist_has_no_records(data: Path) -> None:
    pages = Pages(["none"], data=data)
    assert pages.before(pages.end(), LIMIT).items == []
    assert pages.after(pages.start(), LIMIT).is_last


@pytest.mark.parametrize("is_over", [True, False])
def test_blocks_before_a_place_are_all_records(data: Path, is_over: bool) -> None:
    pages = Pages(["app", "db", "web"], data=data)
    place, found, done = pages.end(), 0, False

    def add(block: logengine.format.block.Block) -> None:
        nonlocal found
        found += block.count

    while not done:
        place, done = pages.each_block_before(place, add, lambda: is_over)
    assert found == 16 + 7 + 9


@pytest.fixture
def sealed(data: Path) -> Path:
    """The same streams; `app` is sealed in frames of a few records but for its newest segment."""
    newest = data / "app" / segment_name(13)
    content = newest.read_bytes()
    newest.unlink()
    seal(data, "app", 90)
    newest.write_bytes(content)
    return data


def numbers(pages: Pages, passed: Callable[[SealedFrame], bool], *, is_over: bool) -> list[int]:
    """The numbers of the records of `app` that were passed or read, each as often as it was."""
    found: list[int] = []

    def passes(frame: SealedFrame) -> bool:
        is_passed = passed(frame)
        if is_passed:
            found.extend(range(frame.first, frame.last + 1))
        return is_passed

    place, done = pages.end(), False
    while not done:
        place, done = pages.each_block_before(
            place,
            lambda block: found.extend(range(block.first, block.first + block.count)),
            lambda: is_over,
            passes,
        )
    return sorted(found)


@pytest.mark.parametrize("is_over", [True, False])
@pytest.mark.parametrize("modulus", [1, 2, 3, 99])
@pytest.mark.parametrize(
    "times", [TimeRange(), TimeRange(at(4), at(11)), TimeRange(at(2), None), TimeRange(None, at(9))]
)
def test_records_are_passed_or_read_and_each_once(
    sealed: Path, modulus: int, times: TimeRange, is_over: bool
) -> None:
    pages = Pages(["app"], data=sealed, times=times)
    wanted = [record.seq for record in logengine.read("app", data=sealed, by="arrival")]
    wanted = [seq for seq in wanted if times.encloses(at(seq), at(seq))]
    assert numbers(pages, lambda frame: frame.first % modulus == 0, is_over=is_over) == wanted


def test_a_frame_that_is_passed_is_not_read(sealed: Path) -> None:
    (sealed / "app" / segment_name(13)).unlink()
    with (sealed / "app" / segment_name(9, compressed=True)).open("r+b") as file:
        file.seek(-20, os.SEEK_END)
        file.write(bytes(20))
    pages = Pages(["app"], data=sealed)
    assert numbers(pages, lambda _: True, is_over=False) == [*range(1, 13)]
    assert numbers(pages, lambda _: False, is_over=False) == [*range(1, 12)]


def test_a_frame_that_is_not_passed_is_the_next_block(sealed: Path) -> None:
    asked: list[SealedFrame] = []
    read: list[tuple[int, int]] = []

    def passes(frame: SealedFrame) -> bool:
        asked.append(frame)
        return False

    Pages(["app"], data=sealed).each_block_before(
        {"app": 13}, lambda block: read.append((block.first, block.count)), lambda: False, passes
    )
    assert [(frame.first, frame.count) for frame in asked] == read
    assert read == [(12, 1), (9, 3), (8, 1), (5, 3), (4, 1), (1, 3)]
    assert [(frame.since, frame.until) for frame in asked[-1:]] == [(at(1), at(3))]


def test_a_filter_has_every_frame_read(sealed: Path) -> None:
    pages = Pages(["app"], data=sealed, chosen=Filter.of("n <= 3"))
    assert numbers(pages, lambda _: True, is_over=False) == [1, 2, 3]
