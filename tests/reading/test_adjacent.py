"""Pages of records before and after one: what they have is what a full read has there."""

import random
from pathlib import Path

import pytest

from logengine.format.block import Record
from logengine.reading import (
    Filter,
    Problem,
    read,
    records_after,
    records_before,
    records_since,
    stream_names,
)
from tests.reading.streams import at, damage, line, write_stream


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three streams with many records of the same time."""
    data = tmp_path / "data"
    chosen = random.Random(7)
    for stream in ("app", "db", "web"):
        seconds = sorted(chosen.randrange(20) for _ in range(40))
        levels = [chosen.choice(["info", "error"]) for _ in seconds]
        lines = [
            line(n, second, f',"level":"{level}"')
            for n, (second, level) in enumerate(zip(seconds, levels, strict=True), 1)
        ]
        write_stream(data, stream, lines[:11], lines[11:30], lines[30:])
    return data


def unexpected(problem: Problem) -> None:
    raise AssertionError(problem)


@pytest.mark.parametrize("streams", [("app",), ("app", "web"), ()])
@pytest.mark.parametrize("where", ["", "level == error"])
@pytest.mark.parametrize("count", [1, 3, 50, 500])
def test_pages_have_what_a_full_read_has(
    data: Path, streams: tuple[str, ...], where: str, count: int
) -> None:
    every = list(read(*streams, data=data))
    chosen = Filter.of([where] if where else [])
    wanted = {record.cursor for record in read(*streams, data=data, where=chosen)}
    names = stream_names(*streams, data=data)
    for index, place in [*enumerate(every)][:: 1 + len(every) // 40]:
        before = [each for each in every[:index] if each.cursor in wanted]
        after = [each for each in every[index + 1 :] if each.cursor in wanted]
        assert records_before(data, names, place, count, chosen, unexpected) == before[-count:]
        assert records_after(data, names, place, count, chosen, unexpected) == after[:count]


def test_a_page_from_a_time_on(data: Path) -> None:
    names = stream_names(data=data)
    for second in (0, 7, 19, 30):
        found = records_since(data, names, at(second), 10, Filter(), unexpected)
        assert found == list(read(data=data, since=at(second)))[:10]


def test_a_stream_that_is_gone_is_empty(data: Path) -> None:
    place = Record("aaa", 5, line(1, 10))
    before = list(read("app", data=data, until=at(10)))
    found = records_before(data, ["app", "aaa"], place, 5, Filter(), unexpected)
    assert found == before[-5:]
    assert records_after(data, ["aaa"], place, 5, Filter(), unexpected) == []


def test_what_is_damaged_is_reported_and_the_rest_is_there(data: Path) -> None:
    damage(data, "app", 12)
    every: list[Problem] = []
    last = Record("app", 41, line(41, 30))
    found = records_before(data, ["app"], last, 40, Filter(), every.append)
    seqs = [record.seq for record in found]
    assert seqs[:11] == list(range(1, 12))
    assert seqs[-10:] == list(range(31, 41))
    assert every
