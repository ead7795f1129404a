"""What is opened before there is something to write, for a sender that waits for its acks."""

import asyncio
import errno
import math
import os
import resource
import shutil
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from logengine.disk.atomic import is_temp_name
from logengine.disk.durable_mark import MarkReader
from logengine.disk.segment_file import list_segments, read_segment
from logengine.format.segment import segment_name
from logengine.store import store as store_module
from logengine.store import writers_ahead
from logengine.store.committer import Committer
from logengine.store.pending import Entry
from logengine.store.plan import Addition
from logengine.store.settings import CommitConfig
from logengine.store.store import Store

TIME = "2026-11-23T20:00:00.000001Z"


class Acks:
    uid = 1000

    def __init__(self, on_ack: Callable[[int], None] = lambda _: None) -> None:
        self.numbers: list[int] = []
        self._on_ack = on_ack

    def durable(self, number: int) -> None:
        self.numbers.append(number)
        self._on_ack(number)


@asynccontextmanager
async def committing(data: Path, **limits: Any) -> AsyncIterator[tuple[Committer, Store]]:
    """A store whose loop commits what arrives alone."""
    with ThreadPoolExecutor(4) as executor:
        store = Store(data, executor)
        store.open()
        async with asyncio.TaskGroup() as tasks:
            config = CommitConfig(**{"in_loop_below": math.inf, "retry_min": 0.005, **limits})
            committer = Committer(store, config, tasks)
            yield committer, store
            await committer.close()
        store.close()


async def send(committer: Committer, *numbers: int, stream: str = "app", size: int = 60) -> None:
    """Sends one record after the other, each when the one before is durable."""
    for number in numbers:
        body = b'{"_ts":"%s","n":%d}' % (TIME.encode(), number)
        committer.add(stream, Entry(body.ljust(size) + b"\n", 1, TIME, number, Acks()))
        await committer.drained()
        await asyncio.sleep(0)


def temps(data: Path, stream: str = "app") -> list[str]:
    return [name for name in os.listdir(data / stream) if is_temp_name(name)]


def numbers_in(data: Path, stream: str = "app") -> list[int]:
    return [
        int(line.split(b'"n":')[1].split(b"}")[0])
        for first in list_segments(data / stream)
        for line in read_segment(data / stream, first)[1].splitlines()
    ]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what it waits for tells no event
            await asyncio.sleep(0.001)


async def test_the_next_record_of_a_waiting_sender_makes_no_file_before_its_ack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open
    opened: list[str] = []

    def noted(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        opened.append(os.fspath(path))
        return real(path, flags, *args, **kwargs)

    async with committing(tmp_path) as (committer, _):
        await send(committer, 1, 2, 3)
        (temp,) = temps(tmp_path)
        assert (tmp_path / "app" / temp).stat().st_size == 0
        monkeypatch.setattr(os, "open", noted)
        before_ack: list[list[str]] = []
        body = b'{"_ts":"%s","n":4}\n' % TIME.encode()
        acks = Acks(lambda _: before_ack.append(opened.copy()))
        committer.add("app", Entry(body, 1, TIME, 4, acks))
        await committer.drained()
        assert before_ack == [[]]
        await until(lambda: len(temps(tmp_path)) == 1)
        assert temps(tmp_path) != [temp]
    assert numbers_in(tmp_path) == [1, 2, 3, 4]


async def test_a_new_segment_takes_the_temp_file_too(tmp_path: Path) -> None:
    async with committing(tmp_path) as (committer, _):
        await send(committer, *range(1, 10), size=5000)
    assert len(list_segments(tmp_path / "app")) > 1
    assert numbers_in(tmp_path) == list(range(1, 10))


async def test_a_single_record_makes_no_file_ahead(tmp_path: Path) -> None:
    async with committing(tmp_path) as (committer, _):
        # The first one of a stream makes its directory, in a thread.
        await send(committer, 1, 2)
        assert not temps(tmp_path)


async def test_of_a_quiet_stream_nothing_stays_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path) as (committer, _):
        await send(committer, 1)
        descriptors = len(os.listdir("/proc/self/fd"))
        monkeypatch.setattr(store_module, "KEPT_S", 0.01)
        monkeypatch.setattr(writers_ahead, "KEPT_S", 0.01)
        await send(committer, 2, 3, 4)
        await until(lambda: not temps(tmp_path))
        await until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)
        monkeypatch.setattr(store_module, "KEPT_S", 60)
        monkeypatch.setattr(writers_ahead, "KEPT_S", 60)
        await send(committer, 5, 6)
        assert len(temps(tmp_path)) == 1
    assert numbers_in(tmp_path) == [1, 2, 3, 4, 5, 6]


async def test_a_stop_leaves_no_temp_file(tmp_path: Path) -> None:
    async with committing(tmp_path) as (committer, _):
        await send(committer, 1, 2, 3)
        assert temps(tmp_path)
    assert not temps(tmp_path)


async def test_a_start_removes_the_temp_file_that_a_kill_left(tmp_path: Path) -> None:
    async with committing(tmp_path / "data") as (committer, _):
        await send(committer, 1, 2, 3)
        # What a killed process leaves: everything as it is now.
        shutil.copytree(tmp_path / "data", tmp_path / "left")
    assert len(temps(tmp_path / "left")) == 1
    async with committing(tmp_path / "left") as (committer, _):
        assert not temps(tmp_path / "left")
        await send(committer, 4)
    assert numbers_in(tmp_path / "left") == [1, 2, 3, 4]


async def test_few_streams_have_a_writer_ahead(tmp_path: Path) -> None:
    streams = [f"s{number}" for number in range(writers_ahead.WRITERS_AHEAD_MAX + 3)]
    async with committing(tmp_path) as (committer, _):
        for stream in streams:
            await send(committer, 1, 2, 3, stream=stream)
        found = sum(len(temps(tmp_path, stream)) for stream in streams)
        assert found == writers_ahead.WRITERS_AHEAD_MAX


async def test_where_few_open_files_are_allowed_none_is_kept_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    async with committing(tmp_path) as (committer, _):
        await send(committer, 1, 2, 3, 4)
        assert not temps(tmp_path)


async def test_what_cannot_be_opened_ahead_is_opened_for_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open
    is_full = False

    def open_or_fail(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & os.O_CREAT and is_full:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", open_or_fail)
    async with committing(tmp_path) as (committer, _):
        await send(committer, 1, 2, 3)
        is_full = True
        await send(committer, 4)
        assert not temps(tmp_path)
        is_full = False
        await send(committer, 5, 6)
        assert len(temps(tmp_path)) == 1
        assert not committer.totals.failures
    assert numbers_in(tmp_path) == [1, 2, 3, 4, 5, 6]


async def test_the_directory_that_has_the_streams_name_now_is_written_to(tmp_path: Path) -> None:
    data, app = tmp_path / "data", tmp_path / "data" / "app"
    async with committing(data) as (committer, _):
        await send(committer, 1, 2, 3)
        assert temps(data)
        shutil.copytree(app, tmp_path / "copy")
        app.rename(tmp_path / "away")
        (tmp_path / "copy").rename(app)
        await send(committer, 4)
        assert numbers_in(data) == [1, 2, 3, 4]
        segments = list_segments(tmp_path / "away")
        (tmp_path / "away").rename(tmp_path / "app")
        _, body = read_segment(tmp_path / "app", segments[-1])
        assert b'"n":4' not in body


def _delete(temp: Path) -> None:
    temp.unlink()


def _append(temp: Path) -> None:
    with temp.open("ab") as file:
        file.write(b"x" * 3000)


def _link(temp: Path) -> None:
    temp.with_name("linked").hardlink_to(temp)


def _swap(temp: Path) -> None:
    temp.rename(temp.with_name("taken"))
    temp.write_bytes(b"")


def _put_a_fifo(temp: Path) -> None:
    temp.unlink()
    os.mkfifo(temp)


def _put_a_link(temp: Path) -> None:
    temp.unlink()
    temp.symlink_to("elsewhere")


def _put_a_directory(temp: Path) -> None:
    temp.unlink()
    temp.mkdir()


@pytest.mark.parametrize(
    "touch", [_delete, _append, _link, _swap, _put_a_fifo, _put_a_link, _put_a_directory]
)
async def test_a_temp_file_that_somebody_touched_never_becomes_a_segment(
    tmp_path: Path, touch: Callable[[Path], None]
) -> None:
    async with committing(tmp_path) as (committer, _):
        await send(committer, 1, 2, 3)
        (temp,) = temps(tmp_path)
        touch(tmp_path / "app" / temp)
        await send(committer, 4)
        segment = tmp_path / "app" / segment_name(list_segments(tmp_path / "app")[-1])
        assert segment.lstat().st_nlink == 1
        assert numbers_in(tmp_path) == [1, 2, 3, 4]
        assert not committer.totals.failures
        await send(committer, 5)
    assert numbers_in(tmp_path) == [1, 2, 3, 4, 5]


async def test_a_stream_whose_directory_was_removed_goes_on_with_its_next_number(
    tmp_path: Path,
) -> None:
    async with committing(tmp_path) as (committer, store):
        await send(committer, 1, 2, 3)
        assert temps(tmp_path)
        shutil.rmtree(tmp_path / "app")
        await send(committer, 4, 5)
        assert store.ended_before("app") == 4
    assert numbers_in(tmp_path) == [4, 5]


@pytest.mark.parametrize("call", ["fsync", "replace", "writev"])
async def test_after_a_failed_commit_its_temp_file_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    real = getattr(os, call)
    failures = iter([True])

    def fail(*args: Any, **kwargs: Any) -> Any:
        if next(failures, False):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*args, **kwargs)

    async with committing(tmp_path) as (committer, store):
        await send(committer, 1, 2, 3)
        (temp,) = temps(tmp_path)
        monkeypatch.setattr(os, call, fail)
        await send(committer, 4)
        assert committer.totals.failures == 1
        assert temp not in temps(tmp_path)
        await send(committer, 5, 6, 7)
        assert not store.unsynced
    assert numbers_in(tmp_path) == [1, 2, 3, 4, 5, 6, 7]
    assert not temps(tmp_path)


async def test_after_a_failed_sync_of_the_directory_nothing_is_opened_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    countdown = iter([False, True])

    def fail(descriptor: int) -> None:
        if next(countdown, False):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    async with committing(tmp_path) as (committer, store):
        await send(committer, 1, 2, 3)
        monkeypatch.setattr(os, "fsync", fail)
        await send(committer, 4)
        assert store.unsynced == {"app"}
        await until(lambda: not temps(tmp_path))
        await send(committer, 5, 6)
        assert not temps(tmp_path)
    assert numbers_in(tmp_path) == [1, 2, 3, 4, 5, 6]


async def test_what_was_opened_before_a_sync_of_another_failed_is_not_used(tmp_path: Path) -> None:
    async with committing(tmp_path) as (committer, store):
        await send(committer, 1, 2, 3)
        (temp,) = temps(tmp_path)
        with (tmp_path / "app" / temp).open("rb") as held:  # so that no other gets its inode
            inode = os.fstat(held.fileno()).st_ino
            store.names.note_failed_sync("app")  # as a compaction does
            await send(committer, 4)
            await until(lambda: not temps(tmp_path))
            assert inode not in [each.stat().st_ino for each in (tmp_path / "app").iterdir()]
    assert numbers_in(tmp_path) == [1, 2, 3, 4]


async def test_the_durable_mark_follows_each_ack_and_never_goes_back(tmp_path: Path) -> None:
    reader = MarkReader(tmp_path)

    def marked() -> int:
        mark = reader.read("app")
        return 0 if mark is None else mark.last

    async with committing(tmp_path) as (committer, _):
        for number in range(1, 8):
            # Every other record is too large for the loop: a thread commits it.
            await send(committer, number, size=20_000 if number % 2 else 60)
            await until(lambda number=number: marked() == number)  # type: ignore[misc]
        body = b'{"_ts":"%s","n":8}\n' % TIME.encode()
        acks = Acks()
        committer.add("app", Entry(body, 1, TIME, 8, acks))
        await until(lambda: acks.numbers == [8])
        committer.add("app", Entry(body.ljust(20_000), 1, TIME, 9, acks))
        await committer.drained()
        await until(lambda: marked() == 9)


async def test_a_stop_right_after_an_ack_leaves_the_mark_of_a_directory_in_doubt(
    tmp_path: Path,
) -> None:
    with ThreadPoolExecutor(1) as executor:
        store = Store(tmp_path, executor)
        store.open()
        await store.recover_stream("app")
        for number in (1, 2):
            line = b'{"_ts":"%s","n":%d}\n' % (TIME.encode(), number)
            addition = Addition([line], 1, TIME, TIME)
            planned = {"app": store.plan("app", addition)}
            if number == 1:
                assert not await store.commit(planned)  # it makes the directory
            else:
                assert store.commit_alone(planned) == {}
        store.names.note_failed_sync("app")
        store.close()
    mark = MarkReader(tmp_path).read("app")
    assert mark is not None
    assert mark.last == 2
