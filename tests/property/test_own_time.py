"""Ranges by the records' own times against their definition, line by line."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from logengine.disk.search_filters import FILTERS_NAME, TIMES_SUFFIX
from logengine.format.block import Record
from logengine.format.own_time import record_time, record_times, time_bounds
from logengine.format.time_range import TimeRange
from logengine.reading import Limit, Pages, Problem, Reading, read
from logengine.upkeep.search_filter_builder import SearchFilterBuilder
from tests.property.test_reader import at, cuts, segments, small_frames, stream

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(second: int) -> datetime:
    return datetime(2026, 11, 23, 20, 0, second, tzinfo=UTC)


def since_1970(second: int, digits: int) -> str:
    return str((moment(second) - EPOCH) // timedelta(seconds=1)).ljust(digits, "0")


def in_zone(second: int, minutes: int) -> str:
    return moment(second).astimezone(timezone(timedelta(minutes=minutes))).isoformat()


KNOWN: list[Callable[[int], str]] = [
    lambda second: f'"time":"{at(second)}"',
    lambda second: f'"a":{{"time":"x"}},"time":"{at(second)}"',
    lambda second: f'"time": "2026-11-23T20:00:{second:02d}Z"',
    lambda second: f'"time":"2026-11-23 20:00:{second:02d},000 +0000"',
    lambda second: f'"time":"2026-11-23t20:00:{second:02d}.000000000z"',
    lambda second: f'"time":"{in_zone(second, 60)}"',
    lambda second: f'"time":"{in_zone(second, -570)}"',
    lambda second: f'"time":"23/Nov/2026:20:00:{second:02d} +0000"',
    lambda second: f'"time":{since_1970(second, 10)}',
    lambda second: f'"time":{since_1970(second, 10)}.000',
    lambda second: f'"time":{since_1970(second, 13)}',
    lambda second: f'"time":{since_1970(second, 16)}',
    lambda second: f'"time":{since_1970(second, 19)}',
    lambda second: f'"time":"nothing","time":"{at(second)}"',
    lambda second: f'"ti\\u006de":"{at(second)}"',
    lambda second: f'"time":"{at(second)[:-1]}\\u005a"',
]
UNKNOWN: list[Callable[[int], str]] = [
    lambda second: f'"m":{second}',
    lambda second: f'"m":"\\"time\\":{second}"',
    lambda second: f'"time":"{at(second)}","time":null',
    lambda second: f'"Time":"{at(second)}"',
    lambda second: f'"a":{{"time":"{at(second)}"}}',
    lambda second: f'"time":["{at(second)}"]',
    lambda second: f'"time":{{"time":"{at(second)}"}}',
    lambda second: f'"time":"{at(second)[:-1]}"',  # without an offset
    lambda second: f'"time":"2026-11-23 20:00:{second:02d}"',
    lambda second: f'"time":"Nov 23 20:00:{second:02d}"',
    lambda second: f'"time":"at {at(second)}"',
    lambda second: f'"time":"{at(second)} and so on"',
    lambda second: f'"time":"{at(second)}{" " * 64}"',
    lambda second: f'"time":"2026-02-30T20:00:{second:02d}Z"',
    lambda second: f'"time":"2026-11-23T20:00:{second:02d}+25:00"',
    lambda second: f'"time":"0001-01-01T00:00:{second:02d}Z"',
    lambda second: f'"time":"1970-01-01T00:00:{second:02d}Z"',
    lambda second: f'"time":{second}.5',
    lambda second: f'"time":-{since_1970(second, 10)}',
    lambda second: f'"time":{since_1970(second, 10)}e0',
    lambda second: f'"time":{since_1970(second, 12)}',
    lambda second: f'"time":"{since_1970(second, 10)}"',
    lambda second: '"time":"\\ud800"',
    lambda second: '"time":true',
    lambda second: '"n":1e999,"time":' + "9" * 5000,
]


@dataclass(frozen=True)
class Sent:
    """A record that arrived in one second of a minute, and says to be of another."""

    arrived: int
    own: int
    form: Callable[[int], str]

    @property
    def time(self) -> str:
        """The definition."""
        return at(self.own if self.form in KNOWN else self.arrived)

    @property
    def line(self) -> bytes:
        envelope = f'{{"_ts":"{at(self.arrived)}","_pid":1,'
        return (envelope + self.form(self.own) + "}").encode()


second = st.integers(0, 59)
sent = st.builds(Sent, second, second, st.sampled_from(KNOWN + UNKNOWN))
# With and without a clock that goes forward, and with own times near those of arrival.
records = st.lists(sent, min_size=1, max_size=40) | st.lists(sent, min_size=1, max_size=40).map(
    lambda each: sorted(each, key=lambda one: one.time)
)


@pytest.mark.parametrize("form", range(len(KNOWN)))
def test_a_known_form_is_the_time_of_a_record(form: int) -> None:
    one = Sent(1, 59, KNOWN[form])
    assert record_time(one.line) == at(59)


@pytest.mark.parametrize("form", range(len(UNKNOWN)))
def test_with_any_other_form_the_time_of_arrival_counts(form: int) -> None:
    one = Sent(1, 59, UNKNOWN[form])
    assert record_time(one.line) == at(1)


@given(records)
def test_the_times_of_many_lines_are_those_of_each(sent: list[Sent]) -> None:
    lines = [one.line for one in sent]
    body = b"".join(line + b"\n" for line in lines)
    expected = [one.time for one in sent]
    assert list(map(record_time, lines)) == expected
    assert list(record_times(body, lines)) == expected
    assert time_bounds(body, lambda _: None) == (min(expected), max(expected))


def build(data: Path) -> None:
    builder = SearchFilterBuilder(data)
    while builder.has_work:
        builder.step(lambda _: None)


def spoil(data: Path, draw: st.DataObject) -> bool:
    """Removes, damages and exchanges files with times; returns whether it damaged any."""
    is_damaged = False
    paths = sorted((data / FILTERS_NAME / "app").glob(f"*{TIMES_SUFFIX}"))
    for path in paths:
        what = draw.draw(st.sampled_from(["keep", "keep", "remove", "flip", "cut", "exchange"]))
        if what == "remove":
            path.unlink()
        elif what == "exchange":
            path.write_bytes(paths[0].read_bytes() if paths[0].exists() else b"")
            is_damaged = True
        elif what == "cut":
            path.write_bytes(path.read_bytes()[: draw.draw(st.integers(0, 300))])
            is_damaged = True
        elif what == "flip":
            content = bytearray(path.read_bytes())
            content[draw.draw(st.integers(0, len(content) - 1))] ^= 1
            path.write_bytes(content)
            is_damaged = True
    return is_damaged


@given(
    records,
    cuts,
    st.none() | second,
    st.none() | second,
    st.sets(st.integers(1, 40)),
    st.integers(0, 40),
    st.integers(1, 10),
    st.data(),
)
def test_a_range_has_exactly_the_records_whose_times_are_in_it(
    sent: list[Sent],
    sizes: list[int],
    since: int | None,
    until: int | None,
    packed: set[int],
    seals: int,
    count: int,
    draw: st.DataObject,
) -> None:
    assume(since is None or until is None or since <= until)
    lines = [one.line for one in sent]
    start, stop = (None if each is None else at(each) for each in (since, until))
    expected = [
        (seq, one.line)
        for seq, one in enumerate(sent, 1)
        if (start is None or one.time >= start) and (stop is None or one.time < stop)
    ]
    with small_frames(), stream(segments(lines, sizes), packed, seals) as data:
        is_damaged = False
        if draw.draw(st.booleans()):
            build(data)
            is_damaged = spoil(data, draw)
        problems: list[Problem] = []

        def reading(last: int | None = None) -> Reading:
            return read(
                "app", data=data, since=start, until=stop, last=last, on_problem=problems.append
            )

        def found(batches: object) -> list[tuple[int, bytes]]:
            return [(one.seq, one.line) for batch in batches for one in batch]  # type: ignore[attr-defined]

        assert found(reading().batches()) == expected
        assert found(reading(count).batches()) == expected[-count:]
        assert found(reading().backwards()) == expected[::-1]
        assert is_damaged or not problems
        times = TimeRange(start, stop, by_arrival=False)
        pages = Pages(["app"], data=data, times=times)
        limit = Limit(1000, 1 << 30, lambda: False)
        for page in (pages.after(pages.start(), limit), pages.before(pages.end(), limit)):
            there = [(one.seq, one.line) for one in page.items if isinstance(one, Record)]
            assert there == expected
