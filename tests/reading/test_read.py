"""`logengine.read`: which records, what a record knows, and what is said of those not there."""

import subprocess
import sys
import warnings
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import logengine
from logengine.errors import (
    InvalidCursor,
    InvalidFilter,
    InvalidOption,
    InvalidStreamName,
    UnknownStream,
)
from logengine.format.segment import segment_name
from logengine.reading import Filter
from tests.compressed import sealed
from tests.reading.streams import at, damage, line, write_stream


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Nine records of `app` in three segments, and four of `web` between them."""
    data = tmp_path / "data"
    segments = [[line(number) for number in range(first, first + 3)] for first in (1, 4, 7)]
    write_stream(data, "app", *segments)
    write_stream(data, "web", [line(number, 2 * number) for number in (1, 2, 3, 4)])
    return data


def numbers(reading: logengine.reading.Reading) -> list[int]:
    return [record.seq for record in reading]


def test_a_stream_is_read_in_order(data: Path) -> None:
    assert numbers(logengine.read("app", data=data)) == list(range(1, 10))


def test_several_streams_are_merged_by_time(data: Path) -> None:
    found = list(logengine.read(data=data))
    assert len(found) == 13
    assert [record.timestamp for record in found] == sorted(record.timestamp for record in found)
    assert found == list(logengine.read("app", "web", data=data))


@pytest.mark.parametrize("options", [{}, {"last": 3}, {"where": "n > 1"}, {"after": "app:1"}])
def test_blocks_have_the_same_records_stream_by_stream(data: Path, options: Any) -> None:
    reading = logengine.read(data=data, **options)
    records = [record for block in reading.blocks() for record in block.records()]
    assert sorted(reading, key=lambda each: (each.stream, each.seq)) == sorted(
        records, key=lambda each: (each.stream, each.seq)
    )
    for stream in reading.streams:
        seqs = [record.seq for record in records if record.stream == stream]
        assert seqs == sorted(seqs)


def test_each_pass_reads_what_is_there_then(data: Path) -> None:
    reading = logengine.read("late", data=data) if (data / "late").exists() else None
    assert reading is None
    (data / "late").mkdir()
    reading = logengine.read("late", data=data)
    assert numbers(reading) == []
    (data / "late").rmdir()
    write_stream(data, "late", [line(1), line(2)])
    assert numbers(reading) == [1, 2]
    assert numbers(reading) == [1, 2]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"after": "app:7"}, [8, 9]),
        ({"after": logengine.Cursor("app", 7)}, [8, 9]),
        ({"after": ["app:7"]}, [8, 9]),
        ({"after": "app:9"}, []),
        ({"since": at(8)}, [8, 9]),
        ({"until": at(3)}, [1, 2]),
        ({"since": datetime(2026, 11, 23, 20, 0, 8, tzinfo=UTC)}, [8, 9]),
        ({"since": at(4), "until": at(6)}, [4, 5]),
        ({"last": 2}, [8, 9]),
        ({"last": 0}, []),
        ({"last": 100}, list(range(1, 10))),
        ({"last": 2, "until": at(6)}, [4, 5]),
        ({"last": 2, "after": "app:8"}, [9]),
        ({"where": "n=5"}, [5]),
        ({"where": ["n=5", "n=6"]}, []),
        ({"where": Filter.of("n=5")}, [5]),
        ({"grep": '"n":[35]'}, [3, 5]),
        ({"grep": b'"N":3', "ignore_case": True}, [3]),
        ({"grep": '"n":[35]', "invert": True, "last": 2}, [8, 9]),
        ({"grep": '"n":[35]', "fixed": True}, []),
    ],
)
def test_what_is_read_is_what_was_asked_for(
    data: Path, options: dict[str, object], expected: list[int]
) -> None:
    assert numbers(logengine.read("app", data=data, **options)) == expected  # type: ignore[arg-type]


def test_a_cursor_says_which_stream_is_read(data: Path) -> None:
    assert [record.stream for record in logengine.read(data=data, after="web:3")] == ["web"]


def test_a_cursor_of_one_stream_leaves_another_from_its_start(data: Path) -> None:
    found = list(logengine.read("app", "web", data=data, after="app:9"))
    assert [(record.stream, record.seq) for record in found] == [("web", n) for n in (1, 2, 3, 4)]


def test_the_last_of_several_streams_are_the_last_of_all(data: Path) -> None:
    found = list(logengine.read(data=data, last=3))
    assert found == list(logengine.read(data=data))[-3:]


@pytest.mark.parametrize(
    ("patterns", "streams"),
    [
        (["w*"], ["web"]),
        (["*"], ["app", "web"]),
        (["web", "?pp"], ["web", "app"]),
        (["[a-b]*", "*p*"], ["app"]),
        (["web", "*"], ["web", "app"]),
    ],
)
def test_a_pattern_stands_for_the_streams_that_match_it(
    data: Path, patterns: list[str], streams: list[str]
) -> None:
    assert list(logengine.read(*patterns, data=data).streams) == streams
    assert [each.stream for each in logengine.streams(*patterns, data=data)] == streams


@pytest.mark.parametrize(
    ("since", "until"),
    [
        (since, until)
        for since in (0, 1, 4, 5, 9, 12)
        for until in (0, 3, 5, 7, 9, 20)
        if since <= until
    ],
)
@pytest.mark.parametrize("last", [0, 1, 3, 100])
@pytest.mark.parametrize("where", [(), "n == 4 or n == 2 or n == 7"])
def test_the_last_of_a_time_are_the_last_of_all_in_it(
    data: Path, since: int, until: int, last: int, where: str | tuple[()]
) -> None:
    in_time = logengine.read(data=data, where=where, since=at(since), until=at(until))
    last_of_it = logengine.read(data=data, where=where, since=at(since), until=at(until), last=last)
    every = [record.cursor for record in in_time]
    found = [record.cursor for record in last_of_it]
    assert found == every[max(0, len(every) - last) :]


def test_the_last_of_a_time_are_found_though_the_clock_went_back(tmp_path: Path) -> None:
    seconds = [1, 2, 30, 4, 31, 5, 6, 32, 7]
    lines = [[line(number, second)] for number, second in enumerate(seconds, 1)]
    write_stream(tmp_path / "data", "app", *lines)
    for since, until, last in ((30, 59, 2), (4, 31, 3), (5, 7, 1), (2, 6, 9)):
        wanted = [n for n, second in enumerate(seconds, 1) if since <= second < until][-last:]
        reading = logengine.read(
            "app", data=tmp_path / "data", since=at(since), until=at(until), last=last
        )
        assert numbers(reading) == wanted


def backwards(reading: logengine.reading.Reading) -> list[str]:
    return [str(record.cursor) for batch in reading.backwards() for record in batch]


@pytest.mark.parametrize(
    ("streams", "options"),
    [
        ((), {}),
        (("app",), {}),
        (("app",), {"after": "app:5"}),
        ((), {"since": at(3), "until": at(8)}),
        ((), {"where": "n in (2, 3, 7)"}),
        ((), {"last": 5}),
        ((), {"last": 3, "where": "n < 4"}),
        (("app",), {"since": at(50)}),
    ],
)
def test_records_are_read_backwards(
    data: Path, streams: tuple[str, ...], options: dict[str, Any]
) -> None:
    reading = logengine.read(*streams, data=data, **options)
    assert backwards(reading) == [str(record.cursor) for record in reading][::-1]


def test_damage_is_reported_backwards_too(data: Path) -> None:
    damage(data, "app", 4)
    problems: list[logengine.Problem] = []
    reading = logengine.read("app", data=data, on_problem=problems.append)
    assert backwards(reading) == ["app:9", "app:8", "app:7", "app:3", "app:2", "app:1"]
    assert any(problem.gone == logengine.Gone(4, 6, "damaged") for problem in problems)


@pytest.mark.parametrize(
    "options",
    [{}, {"where": "n > 1"}, {"since": at(2)}, {"after": "app:1"}, {"last": 8, "where": "n > 1"}],
)
def test_a_missing_segment_is_reported_backwards_too(data: Path, options: Any) -> None:
    (data / "app" / segment_name(4)).unlink()
    problems: list[logengine.Problem] = []
    reading = logengine.read("app", data=data, on_problem=problems.append, **options)
    found = backwards(reading)
    assert found[:4] == ["app:9", "app:8", "app:7", "app:3"]
    assert [problem.gone for problem in problems] == [logengine.Gone(4, 6, "missing")]


def test_only_what_is_missing_after_the_cursor_is_reported_backwards(data: Path) -> None:
    (data / "app" / segment_name(4)).unlink()
    problems: list[logengine.Problem] = []
    reading = logengine.read("app", data=data, after="app:4", on_problem=problems.append)
    assert backwards(reading) == ["app:9", "app:8", "app:7"]
    assert [problem.gone for problem in problems] == [logengine.Gone(5, 6, "missing")]


def test_a_damaged_header_is_reported_backwards_with_the_records_it_had(data: Path) -> None:
    (data / "app" / segment_name(4)).write_bytes(b"")
    problems: list[logengine.Problem] = []
    reading = logengine.read("app", data=data, on_problem=problems.append)
    assert backwards(reading) == ["app:9", "app:8", "app:7", "app:3", "app:2", "app:1"]
    assert logengine.Gone(4, 6, "damaged") in [problem.gone for problem in problems]


@pytest.mark.parametrize("last", [None, 9])
def test_what_was_removed_after_a_cursor_is_reported_backwards_too(
    data: Path, last: int | None
) -> None:
    (data / "app" / segment_name(1)).unlink()
    problems: list[logengine.Problem] = []
    reading = logengine.read("app", data=data, after="app:1", last=last, on_problem=problems.append)
    assert len(backwards(reading)) == 6
    assert [problem.gone for problem in problems] == [logengine.Gone(2, 3, "removed")]
    assert backwards(logengine.read("app", data=data, last=last)) == backwards(reading)


@pytest.mark.parametrize("last", [None, 9])
def test_a_missing_segment_before_a_time_is_reported(data: Path, last: int | None) -> None:
    (data / "app" / segment_name(4)).unlink()
    problems: list[logengine.Problem] = []
    reading = logengine.read("app", data=data, until=at(7), last=last, on_problem=problems.append)
    assert numbers(reading) == [1, 2, 3]
    assert [problem.gone for problem in problems] == [logengine.Gone(4, 6, "missing")]


@pytest.mark.parametrize("last", [None, 9])
def test_a_missing_segment_after_a_time_in_a_sealed_one_is_not_reported(
    data: Path, last: int | None
) -> None:
    plain = data / "app" / segment_name(1)
    (data / "app" / segment_name(1, compressed=True)).write_bytes(
        sealed({1: plain.read_bytes()})[1]
    )
    plain.unlink()
    (data / "app" / segment_name(4)).unlink()
    reading = logengine.read("app", data=data, until=at(3), by="arrival", last=last)
    assert numbers(reading) == [1, 2]


def shown(
    reading: logengine.reading.Reading, before: int, after: int, limit: int | None = None
) -> list[str]:
    """The cursors of what is shown, and `--` between groups."""
    parts: list[str] = []
    for batch in reading.with_context(before, after, limit=limit):
        parts += ["--"] if batch is None else [str(record.cursor) for record in batch]
    return parts


@pytest.mark.parametrize(
    ("where", "before", "after", "limit", "expected"),
    [
        ("n == 5", 1, 1, None, "4 5 6"),
        ("n == 5", 0, 2, None, "5 6 7"),
        ("n == 5", 3, 0, None, "2 3 4 5"),
        ("n in (1, 9)", 2, 2, None, "1 2 3 -- 7 8 9"),
        ("n in (2, 5)", 1, 1, None, "1 2 3 4 5 6"),
        ("n in (2, 6)", 1, 1, None, "1 2 3 -- 5 6 7"),
        ("n in (2, 3, 8)", 0, 0, None, "2 3 -- 8"),
        ("n in (2, 3, 8)", 1, 1, 1, "1 2 3"),
        ("n in (2, 3, 8)", 1, 1, 2, "1 2 3 4"),
        ("n == 77", 2, 2, None, ""),
        ("n > 0", 9, 9, None, "1 2 3 4 5 6 7 8 9"),
    ],
)
def test_records_are_shown_with_those_around_them(
    data: Path, where: str, before: int, after: int, limit: int | None, expected: str
) -> None:
    reading = logengine.read("app", data=data, where=where)
    found = [each.removeprefix("app:") for each in shown(reading, before, after, limit=limit)]
    assert " ".join(found) == expected


def test_what_is_around_a_record_is_what_is_around_it_in_all_streams(data: Path) -> None:
    reading = logengine.read(data=data, where="n == 3")
    every = [str(record.cursor) for record in logengine.read(data=data)]
    first, second = (place for place, each in enumerate(every) if each in ("app:3", "web:3"))
    assert second - first > 3
    around = [*every[first - 1 : first + 2], "--", *every[second - 1 : second + 2]]
    assert shown(reading, 1, 1) == around


@pytest.mark.parametrize("last", [1, 2, 3, 9])
@pytest.mark.parametrize("streams", [("app",), ()])
@pytest.mark.parametrize("context", [(1, 1), (2, 0), (0, 3)])
def test_the_last_records_are_shown_with_those_around_them(
    data: Path, last: int, streams: tuple[str, ...], context: tuple[int, int]
) -> None:
    where = "n in (2, 3, 8)"
    found = logengine.read(*streams, data=data, where=where, last=last)
    every = [str(record.cursor) for record in logengine.read(*streams, data=data)]
    chosen = [every.index(str(record.cursor)) for record in found]
    before, after = context
    kept = {place for each in chosen for place in range(each - before, each + after + 1)}
    expected = [each for place, each in enumerate(every) if place in kept]
    assert [each for each in shown(found, before, after) if each != "--"] == expected


def test_damage_around_the_last_records_is_reported_once(data: Path) -> None:
    damage(data, "app", 4)
    problems: list[logengine.Problem] = []
    reading = logengine.read(
        "app", data=data, where="n in (2, 8)", last=2, on_problem=problems.append
    )
    assert shown(reading, 0, 9) == [f"app:{seq}" for seq in (2, 3, 7, 8, 9)]
    said = [str(problem) for problem in problems]
    assert len(said) == len(set(said)) > 0


def test_a_time_without_a_zone_is_local(data: Path) -> None:
    local = datetime(2026, 11, 23, 20, 0, 8, tzinfo=UTC).astimezone().replace(tzinfo=None)
    assert numbers(logengine.read("app", data=data, since=local)) == [8, 9]


def test_the_data_directory_may_be_said_by_the_environment(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGENGINE_DATA", str(data))
    assert len(list(logengine.read())) == 13


@pytest.mark.parametrize(
    ("streams", "options", "error", "says"),
    [
        (("nope",), {}, UnknownStream, "there are: app, web"),
        (("n*",), {}, UnknownStream, "no stream matches 'n\\*'"),
        (("../*",), {}, InvalidStreamName, "a pattern such as"),
        (("w*",), {"after": "app:1"}, InvalidOption, "app"),
        ((), {"after": "app"}, InvalidCursor, "app"),
        (("app",), {"after": "web:1"}, InvalidOption, "web"),
        (("app",), {"last": -1}, InvalidOption, "last"),
        (("app",), {"since": at(5), "until": at(4)}, InvalidOption, "no record can be between"),
        (("app",), {"since": "soon"}, InvalidOption, "since: 'soon' is not a time"),
        (("app",), {"where": "level"}, InvalidFilter, "expected an operator"),
        (("app",), {"grep": "("}, InvalidFilter, "not a regular expression"),
        (("app",), {"invert": True}, InvalidFilter, "grep"),
    ],
)
def test_a_mistake_is_said_before_anything_is_read(
    data: Path, streams: tuple[str, ...], options: dict[str, object], error: type, says: str
) -> None:
    with pytest.raises(error, match=says):
        logengine.read(*streams, data=data, **options)  # type: ignore[arg-type]


def test_a_record_knows_its_place_its_time_and_its_fields(data: Path) -> None:
    (record,) = logengine.read("app", data=data, where="n=5")
    assert (record.stream, record.seq, str(record.cursor)) == ("app", 5, "app:5")
    assert record.timestamp == at(5)
    assert record.taken_at - datetime(2026, 11, 23, 20, tzinfo=UTC) == timedelta(seconds=5)
    assert record.line == line(5)
    assert record.fields == {"_ts": at(5), "n": 5}
    assert record.fields is record.fields
    assert record.json == b'{"_stream":"app","_seq":5,' + line(5)[1:]


@pytest.mark.parametrize(
    ("json", "value"),
    [
        ("1e999", float("inf")),
        ("123456789012345678901234567890", 123456789012345678901234567890),
        ("9" * 5000, Decimal("9" * 5000)),
        (r'"\ud800"', "\ud800"),
        (r'{"a":[1,{"b":null}]}', {"a": [1, {"b": None}]}),
    ],
)
def test_fields_are_whatever_json_may_be(tmp_path: Path, json: str, value: object) -> None:
    write_stream(tmp_path, "odd", [line(1, more=f',"x":{json}')])
    (record,) = logengine.read("odd", data=tmp_path)
    assert record.fields["x"] == value


def test_damage_is_an_error_after_the_records_before_it(data: Path) -> None:
    damage(data, "app", 4)
    seen: list[logengine.Record] = []
    with pytest.raises(logengine.IncompleteRead, match="records 4 to 6") as raised:
        seen.extend(logengine.read("app", data=data))
    assert raised.value.problem.gone == logengine.Gone(4, 6, "damaged")
    assert [record.seq for record in seen] == [1, 2, 3]


def test_who_takes_problems_reads_on_after_them(data: Path) -> None:
    damage(data, "app", 4)
    problems: list[logengine.Problem] = []
    found = numbers(logengine.read("app", data=data, on_problem=problems.append))
    assert found == [1, 2, 3, 7, 8, 9]
    assert [problem.gone for problem in problems if problem.gone] == [
        logengine.Gone(4, 6, "damaged")
    ]
    assert not any(problem.expected for problem in problems)


def test_problems_come_as_values_where_they_are(data: Path) -> None:
    damage(data, "app", 4)
    shown = [
        each.seq if isinstance(each, logengine.Record) else each.gone
        for each in logengine.read("app", data=data).with_problems()
    ]
    assert [each for each in shown if each] == [
        *(1, 2, 3),
        logengine.Gone(4, 6, "damaged"),
        *(7, 8, 9),
    ]


def test_a_problem_after_the_last_record_comes_too(data: Path) -> None:
    damage(data, "app", 7)
    *_, last = logengine.read("app", data=data).with_problems()
    assert isinstance(last, logengine.Problem)


def test_what_was_removed_after_a_cursor_is_a_warning(data: Path) -> None:
    (data / "app" / segment_name(1)).unlink()
    with pytest.warns(logengine.RecordsGone, match="records 2 to 3 were removed"):
        assert numbers(logengine.read("app", data=data, after="app:1")) == list(range(4, 10))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert numbers(logengine.read("app", data=data)) == list(range(4, 10))


def test_gaps_are_in_the_json_and_in_the_batch(data: Path) -> None:
    (data / "app" / segment_name(1)).unlink()
    reading = logengine.read("app", data=data, after="app:1", on_problem=lambda _: None)
    batches = list(reading.batches())
    gone = logengine.Gone(2, 3, "removed")
    assert [batch.gaps for batch in batches if batch.gaps] == [{("app", 4): [gone]}]
    json = b"".join(piece for batch in batches for piece in batch.json())
    assert json.count(b'"_gaps":[{"first":2,"last":3,"reason":"removed"}]') == 1


def test_streams_are_summed_up(data: Path) -> None:
    (app, web) = logengine.streams(data=data)
    assert (app.stream, app.records, app.first_seq, app.last_seq) == ("app", 9, 1, 9)
    assert (app.since, app.until, app.segments, app.damaged) == (at(1), at(9), 3, 0)
    assert logengine.streams("web", data=data) == [web]
    assert web.bytes == (data / "web" / segment_name(1)).stat().st_size
    with pytest.raises(UnknownStream):
        logengine.streams("nope", data=data)


def test_the_newest_number_is_0_of_a_stream_that_never_was(data: Path) -> None:
    assert logengine.reading.newest_seq("app", data=data) == 9
    assert logengine.reading.newest_seq("nope", data=data) == 0


def test_no_module_takes_the_place_of_a_name() -> None:
    room = Path(logengine.reading.__file__).parent
    modules = {path.stem for path in room.glob("*.py")}
    assert not modules & set(logengine.reading.__all__)
    for name in logengine.reading.__all__:
        assert callable(getattr(logengine.reading, name))


@pytest.mark.parametrize(
    ("program", "absent"),
    [
        ("import logengine", ("asyncio", "msgspec", "typing", "re", "logengine.errors")),
        ("import logengine; logengine.errors", ("asyncio", "msgspec", "logengine.reading")),
        ("import logengine; logengine.read", ("asyncio", "structlog", "logengine.client")),
        ("import logengine; logengine.follow", ("asyncio", "structlog", "logengine.client")),
        ("import logengine; logengine.streams", ("asyncio", "logengine.reading.reader")),
    ],
)
def test_a_name_loads_no_more_than_it_needs(program: str, absent: tuple[str, ...]) -> None:
    show = "import sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; {show}"], capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    assert "logengine" in loaded
    assert not [
        name
        for name in loaded
        if name in absent or name.startswith(tuple(f"{each}." for each in absent))
    ]
