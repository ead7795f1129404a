"""`logengine.follow`: a plain loop and an asyncio one, and how they end."""

import asyncio
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

import logengine
from logengine.disk.crash_mark import CRASH_MARK_NAME, read_boot_id
from logengine.disk.durable_mark import DurableMarks
from logengine.errors import InvalidOption, InvalidStreamName
from logengine.format.segment import segment_name
from logengine.reading import follow_records
from tests.daemon import Daemon, eventually
from tests.reading.forked import FORKED, said_by_child
from tests.reading.streams import at, damage, line, write_stream

PATIENCE_S = 60.0


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Nine records in segments of one each."""
    data = tmp_path / "data"
    write_stream(data, "app", *[[line(number)] for number in range(1, 10)])
    return data


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    eventually(lambda: threading.active_count() <= before, "the threads to end")


def taken(following: logengine.reading.Following, count: int) -> list[int]:
    return [record.seq for record in islice(following, count)]


def place(shown: logengine.Record | logengine.Problem) -> str:
    """The cursor after a record, or what a problem says."""
    return str(shown) if isinstance(shown, logengine.Problem) else str(shown.cursor)


def add(data: Path, stream: str, number: int) -> None:
    """Adds a record in a segment of its own, as a commit does."""
    written = data.with_name("written")
    write_stream(written, stream, *[[line(each)] for each in range(1, number + 1)])
    (written / stream / segment_name(number)).rename(data / stream / segment_name(number))
    shutil.rmtree(written)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"last": 2}, [8, 9]),
        ({"after": "app:6"}, [7, 8, 9]),
        ({"after": "app:6", "where": "n=8"}, [8]),
        ({"last": 3, "grep": '"n":[37]'}, [3, 7]),
    ],
)
def test_it_begins_where_it_is_told_to(
    data: Path, options: dict[str, object], expected: list[int]
) -> None:
    following = logengine.follow("app", data=data, timeout_s=PATIENCE_S, **options)  # type: ignore[arg-type]
    assert taken(following, len(expected)) == expected


def test_it_begins_at_a_time_and_merges_the_streams(data: Path) -> None:
    write_stream(data, "web", [line(1, 2)], [line(2, 7)], [line(3, 9)])
    following = logengine.follow(data=data, since=at(7))
    begun = [str(record.cursor) for record in islice(following, 5)]
    assert begun == ["app:7", "web:2", "app:8", "app:9", "web:3"]
    shown: list[int] = []
    for record in logengine.follow("app", data=data, since=at(8), where="n != 9", timeout_s=60):
        shown.append(record.seq)
        if shown == [8]:
            add(data, "app", 10)
        if len(shown) == 2:
            break
    assert shown == [8, 10]


def test_from_a_time_on_only_what_is_durable_is_shown(data: Path) -> None:
    (data / CRASH_MARK_NAME).touch()
    marks = DurableMarks(data, read_boot_id())
    marks.begin("app", 0)
    marks.move("app", 8, 8)
    for since, durable in ((7, [7, 8]), (9, []), (30, [])):
        following = logengine.follow("app", data=data, since=at(since), timeout_s=0.2)
        assert [record.seq for record in following] == durable
    shown: list[int] = []
    for record in logengine.follow("app", data=data, since=at(8), timeout_s=60):
        shown.append(record.seq)
        if shown == [8]:
            marks.move("app", 9, 9)
        if len(shown) == 2:
            break
    assert shown == [8, 9]


def test_a_time_may_be_limited_to_the_last_records(data: Path) -> None:
    assert taken(logengine.follow("app", data=data, since=at(3), last=2), 2) == [8, 9]
    nothing = logengine.follow("app", data=data, since=at(3), last=0, timeout_s=0.2)
    assert [record.seq for record in nothing] == []


def test_streams_that_match_a_pattern_may_come_later(data: Path, tmp_path: Path) -> None:
    following = logengine.follow("w*", data=data, timeout_s=60)
    taken_streams: list[str] = []
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write_stream(elsewhere, "web-1", [line(1)])
    done = threading.Timer(0.3, lambda: (elsewhere / "web-1").rename(data / "web-1"))
    done.start()
    for record in following:
        taken_streams.append(record.stream)
        following.stop()
    done.join()
    assert taken_streams == ["web-1"]


def test_what_comes_is_shown_once_it_is_durable(daemon: Daemon) -> None:
    daemon.cli("send", "-s", "app", stdin=b"1\n")
    shown = iter(logengine.follow("app", data=daemon.data, last=1, timeout_s=PATIENCE_S))
    assert next(shown).fields["message"] == "1"
    daemon.cli("send", "-s", "web", stdin=b"of another stream\n")
    for message in ("2", "3"):
        daemon.cli("send", "-s", "app", stdin=message.encode() + b"\n")
        assert next(shown).fields["message"] == message


def test_a_data_directory_and_a_stream_may_come_later(tmp_path: Path) -> None:
    data = tmp_path / "later" / "data"
    following = logengine.follow("app", data=data, timeout_s=PATIENCE_S)
    (tmp_path / "elsewhere").mkdir()
    write_stream(tmp_path / "elsewhere", "app", [line(1), line(2)])
    coming = threading.Timer(0.2, lambda: (tmp_path / "elsewhere").rename(data))
    data.parent.mkdir()
    coming.start()
    assert taken(following, 2) == [1, 2]
    coming.join()


@pytest.mark.parametrize("options", [{"last": 2}, {"after": ("app:7", "web:1")}])
@pytest.mark.parametrize("moved", ["data", "data/app"])
def test_a_directory_that_was_moved_away_and_comes_back_is_gone_on_with(
    tmp_path: Path, data: Path, moved: str, options: dict[str, object]
) -> None:
    write_stream(data, "web", [line(1)])
    following = logengine.follow("app", "web", data=data, timeout_s=PATIENCE_S, **options)  # type: ignore[arg-type]
    shown = following.with_problems()
    assert [place(each) for each in islice(shown, 2)] == ["app:8", "app:9"]
    add(data, "web", 2)
    assert place(next(shown)) == "web:2"
    (tmp_path / moved).rename(tmp_path / "away")
    if moved == "data/app":
        add(data, "web", 3)
        assert place(next(shown)) == "web:3"
    (tmp_path / "away").rename(tmp_path / moved)
    add(data, "app", 10)
    assert place(next(shown)) == "app:10"
    following.stop()


@pytest.mark.parametrize("moved", ["data", "data/app"])
def test_another_stream_of_the_same_length_is_shown_from_its_first_record_on(
    tmp_path: Path, data: Path, moved: str
) -> None:
    other = tmp_path / "other"
    write_stream(other / "data", "app", *[[line(number, number + 1)] for number in range(1, 12)])
    (other / "data" / "app" / segment_name(1)).unlink()
    write_stream(data, "web", [line(1)])
    following = logengine.follow("app", "web", data=data, last=2, timeout_s=PATIENCE_S)
    shown = following.with_problems()
    assert [place(each) for each in islice(shown, 2)] == ["app:8", "app:9"]
    add(data, "app", 10)
    assert place(next(shown)) == "app:10"
    add(data, "web", 2)
    assert place(next(shown)) == "web:2"
    (tmp_path / moved).rename(tmp_path / "away")
    if moved == "data/app":
        add(data, "web", 3)
        assert place(next(shown)) == "web:3"
    (other / moved).rename(tmp_path / moved)
    assert [place(each) for each in islice(shown, 10)] == [f"app:{n}" for n in range(2, 12)]
    following.stop()


def test_it_ends_after_its_timeout(data: Path) -> None:
    assert [record.seq for record in logengine.follow(data=data, last=1, timeout_s=0.2)] == [9]


def test_it_is_stopped_from_another_thread_while_it_waits(data: Path) -> None:
    following = logengine.follow(data=data, last=1)
    shown = []
    for record in following:
        shown.append(record.seq)
        threading.Timer(0.1, following.stop).start()
    assert shown == [9]
    assert list(following) == []  # also what is still to begin


def test_it_is_stopped_by_a_signal_while_it_waits(data: Path) -> None:
    following = logengine.follow(data=data, last=1)
    before = signal.signal(signal.SIGALRM, lambda *_: following.stop())
    try:
        for record in following:
            assert record.seq == 9
            signal.setitimer(signal.ITIMER_REAL, 0.1)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_nothing_is_shown_after_a_stop(data: Path) -> None:
    following = logengine.follow(data=data, last=9)
    for record in following:
        if record.seq == 3:
            following.stop()
        assert record.seq <= 3


def test_a_loop_begun_before_a_fork_is_an_error_in_the_child(data: Path) -> None:
    shown = iter(logengine.follow("app", data=data, after="app:0", timeout_s=PATIENCE_S))
    assert next(shown).seq == 1
    assert said_by_child(lambda: next(shown)) == FORKED
    assert said_by_child(shown.close) == "None"  # type: ignore[attr-defined]
    assert [record.seq for record in islice(shown, 8)] == list(range(2, 10))
    shown.close()  # type: ignore[attr-defined]


def test_a_loop_that_is_left_ends_its_thread(data: Path) -> None:
    for record in logengine.follow(data=data, last=1):
        assert record.seq == 9
        break


def test_it_reads_no_more_than_a_few_blocks_ahead(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put: list[object] = []
    is_full = threading.Event()
    take_place = follow_records._Pass.put

    def counted(self: follow_records._Pass, item: logengine.Problem) -> None:
        if len(put) == follow_records._AHEAD_MAX + 1:
            is_full.set()
        take_place(self, item)
        put.append(item)

    monkeypatch.setattr(follow_records._Pass, "put", counted)
    batches = logengine.follow(data=data, after="app:0").batches()
    assert [record.seq for record in next(batches)] == [1]
    assert is_full.wait(PATIENCE_S)
    assert len(put) == follow_records._AHEAD_MAX + 1
    assert [record.seq for batch in islice(batches, 8) for record in batch] == list(range(2, 10))


def test_a_plain_loop_goes_on_within_a_running_event_loop(data: Path) -> None:
    async def notebook() -> list[int]:
        return taken(logengine.follow(data=data, last=2, timeout_s=PATIENCE_S), 2)

    assert asyncio.run(notebook()) == [8, 9]


async def test_an_asyncio_loop_needs_no_thread(data: Path) -> None:
    threads = threading.active_count()
    following = logengine.follow(data=data, last=2)
    shown = []
    async for record in following:
        shown.append(record.seq)
        assert threading.active_count() == threads
        if record.seq == 9:
            asyncio.get_running_loop().call_later(0.1, following.stop)
    assert shown == [8, 9]


async def test_an_asyncio_loop_ends_after_its_timeout(data: Path) -> None:
    following = logengine.follow(data=data, last=1, timeout_s=0.2)
    assert [record.seq async for record in following] == [9]


async def test_an_asyncio_loop_may_be_cancelled(data: Path) -> None:
    async def follow() -> None:
        async for record in logengine.follow(data=data, last=1):
            assert record.seq == 9
            shown.set()

    shown = asyncio.Event()
    task = asyncio.create_task(follow())
    await asyncio.wait_for(shown.wait(), PATIENCE_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_damage_is_an_error_in_its_place(data: Path) -> None:
    damage(data, "app", 5)
    shown: list[logengine.Record] = []
    with pytest.raises(logengine.IncompleteRead, match="records 5 to 5"):
        shown.extend(logengine.follow(data=data, after="app:2", timeout_s=PATIENCE_S))
    assert [record.seq for record in shown] == [3, 4]
    shown.clear()
    for each in logengine.follow(data=data, after="app:2", timeout_s=PATIENCE_S).with_problems():
        if isinstance(each, logengine.Problem):
            break
        shown.append(each)
    assert [record.seq for record in shown] == [3, 4]


async def test_damage_is_an_error_for_asyncio_too(data: Path) -> None:
    damage(data, "app", 5)
    shown = []
    with pytest.raises(logengine.IncompleteRead):
        async for record in logengine.follow(data=data, after="app:2", timeout_s=PATIENCE_S):
            shown.append(record.seq)  # noqa: PERF401
    assert shown == [3, 4]


def test_what_is_gone_after_a_cursor_is_reported_in_the_callers_thread(data: Path) -> None:
    for number in (1, 2, 3):
        (data / "app" / segment_name(number)).unlink()
    problems: list[tuple[logengine.Gone | None, int]] = []
    following = logengine.follow(
        data=data,
        after="app:1",
        timeout_s=PATIENCE_S,
        on_problem=lambda problem: problems.append((problem.gone, threading.get_ident())),
    )
    assert taken(following, 2) == [4, 5]
    assert problems == [(logengine.Gone(2, 3, "removed"), threading.get_ident())]


def test_an_error_of_the_disk_is_raised_where_the_loop_is(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> list[str]:
        raise PermissionError(13, "Permission denied", str(data))

    monkeypatch.setattr(follow_records, "list_streams", fails)
    with pytest.raises(PermissionError):
        list(logengine.follow(data=data, last=1, timeout_s=PATIENCE_S))


@pytest.mark.parametrize(
    ("streams", "options", "error"),
    [
        (("../etc",), {}, InvalidStreamName),
        (("app",), {"after": "web:1"}, InvalidOption),
        (("app",), {"last": -1}, InvalidOption),
        (("app",), {"last": 1, "after": "app:1"}, InvalidOption),
    ],
)
def test_a_mistake_is_said_before_anything_is_followed(
    data: Path, streams: tuple[str, ...], options: dict[str, object], error: type
) -> None:
    with pytest.raises(error):
        logengine.follow(*streams, data=data, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "where", "expected"),
    [
        ({}, "n == 10", [8, 9, 10, 11]),
        ({}, "n in (9, 11, 12)", [9, 10, 11, 12, 13]),
        ({"last": 1}, "n in (2, 4)", [2, 3, 4, 5]),
        ({"last": 2}, "n in (2, 7, 14)", [1, 2, 3, None, 5, 6, 7, 8, None, 12, 13, 14, 15]),
        ({"since": at(7)}, "n in (2, 8)", [7, 8, 9]),
        ({"after": "app:8"}, "n in (8, 10)", [9, 10, 11]),
        ({}, "n == 3", []),
    ],
)
async def test_records_around_the_chosen_ones_come_too_also_those_before_the_begin(
    data: Path, options: dict[str, str | int], where: str, expected: list[int | None]
) -> None:
    following = logengine.follow("app", data=data, where=where, **options)  # type: ignore[arg-type]
    shown: list[int | None] = []

    async def show() -> None:
        async for group in following.async_groups(2, 1):
            shown.extend([None] if group is None else [each.seq for each in group])

    task = asyncio.create_task(show())
    if "after" not in options:
        await asyncio.to_thread(eventually, lambda: following.began_after, "the begin")
    for number in range(10, 16):
        add(data, "app", number)
    await asyncio.to_thread(eventually, lambda: len(shown) >= len(expected), "the records")
    following.stop()
    await task
    await asyncio.get_running_loop().shutdown_default_executor()
    assert shown == expected


def test_a_loop_ends_if_its_thread_cannot_start_to_follow(data: Path) -> None:
    program = (
        "import sys, threading, logengine\n"
        f"records = iter(logengine.follow('app', data={str(data)!r}))\n"
        "import logengine.reading\n"
        "for name in [each for each in sys.modules if each.startswith('asyncio')]:\n"
        "    del sys.modules[name]\n"
        "sys.modules['asyncio'] = None\n"
        "try:\n    next(records)\n"
        "except ImportError as error:\n    print(type(error).__name__)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.stdout.split() == ["ModuleNotFoundError"], ran.stderr
