"""A thousand streams in one batch, and a clock that jumps while they are written."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from logengine.format.time_range import TimeRange
from logengine.format.timestamp import format_timestamp
from logengine.reading.reader import StreamReader
from logengine.store.committer import Committer
from logengine.store.pending import Entry
from logengine.store.settings import CommitConfig
from logengine.store.store import Store
from logengine.upkeep.verify import verify_stream
from tests.whole_path import whole_path

NOW_S = 1_795_000_000
MINUTE_S, YEAR_S = 60, 365 * 86_400
STREAMS = [f"stream-{number:04d}" for number in range(1000)]


class Acks:
    uid = 1000

    def __init__(self) -> None:
        self.number = 0

    def durable(self, number: int) -> None:
        self.number = number


def time_at(seconds: int) -> str:
    return format_timestamp(seconds * 1_000_000_000)


def entry(number: int, sender: Acks, seconds: int = NOW_S) -> Entry:
    body = b'{"_ts":"%s","n":%d}\n' % (time_at(seconds).encode(), number)
    return Entry(body, 1, time_at(seconds), number, sender)


@asynccontextmanager
async def committing(data: Path) -> AsyncIterator[Committer]:
    with ThreadPoolExecutor(8) as executor:
        store = Store(data, executor, CommitConfig(rewrite_limit=200))
        store.open()
        async with asyncio.TaskGroup() as tasks:
            committer = Committer(store, CommitConfig(in_loop_below=0, retry_min=0.005), tasks)
            yield committer
            await committer.close()
        store.close()


def numbers_in(data: Path, stream: str, times: TimeRange | None = None) -> list[int]:
    reader = StreamReader(data, stream, lambda problem: pytest.fail(str(problem)))
    if times is not None and times.since is not None:
        reader.seek_time(times.since)
    blocks = reader.read(times) if times else reader.read()
    return [int(line.split(b'"n":')[1].rstrip(b"}")) for block in blocks for line in block.lines()]


async def test_a_thousand_streams_are_one_batch(tmp_path: Path) -> None:
    async with committing(tmp_path) as committer:
        acks = {stream: Acks() for stream in STREAMS}
        for stream in STREAMS:  # the first of each waits for what is there of it
            committer.add(stream, entry(1, acks[stream]))
        await committer.drained()
        batches = committer.totals.batches
        for stream in STREAMS:
            committer.add(stream, entry(2, acks[stream]))
        await committer.drained()
        assert committer.totals.batches == batches + 1
        assert {each.number for each in acks.values()} == {2}
    assert all(numbers_in(tmp_path, stream) == [1, 2] for stream in STREAMS)


async def test_one_that_fails_among_a_thousand_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path) as committer:
        acks = {stream: Acks() for stream in STREAMS}
        for stream in STREAMS:
            committer.add(stream, entry(1, acks[stream]))
        await committer.drained()
        real = os.replace

        def replace(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
            if STREAMS[500] in whole_path(target, dst_dir_fd):
                raise OSError(errno.EIO, "injected")
            real(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

        monkeypatch.setattr(os, "replace", replace)
        for stream in STREAMS:
            committer.add(stream, entry(2, acks[stream]))
        async with asyncio.timeout(60):
            while sum(each.number == 2 for each in acks.values()) < len(STREAMS) - 1:  # noqa: ASYNC110 - what it waits for tells no event
                await asyncio.sleep(0.005)
            while not committer.failing():  # noqa: ASYNC110 - what it waits for tells no event
                await asyncio.sleep(0.005)
        assert [failing.stream for failing in committer.failing()] == [STREAMS[500]]
        assert acks[STREAMS[500]].number == 1
        monkeypatch.undo()
        await committer.drained()
        assert acks[STREAMS[500]].number == 2


@pytest.mark.parametrize("jump_s", [YEAR_S, -YEAR_S, -MINUTE_S])
async def test_a_clock_that_jumps_spoils_no_order_no_range_and_no_check(
    tmp_path: Path, jump_s: int
) -> None:
    written: list[tuple[int, int]] = []  # number, seconds
    acks = Acks()
    seconds = NOW_S
    for life in range(3):  # the daemon is started anew while the clock is wrong, and when right
        async with committing(tmp_path) as committer:
            for _ in range(30):
                written.append((len(written) + 1, seconds))
                committer.add("app", entry(len(written), acks, seconds))
                await committer.drained()
                seconds += 7
        seconds += jump_s if life == 0 else -jump_s
    assert acks.number == len(written)
    assert numbers_in(tmp_path, "app") == [number for number, _ in written]
    assert all(finding.harmless for finding in verify_stream(tmp_path / "app"))
    for start in {moment - 1 for _, moment in written[::10]}:
        times = TimeRange(time_at(start), time_at(start + MINUTE_S))
        expected = [number for number, at in written if start <= at < start + MINUTE_S]
        assert expected
        assert numbers_in(tmp_path, "app", times) == expected
