"""Commits that flush the disk once, on a file system that allows it."""

import asyncio
import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest

from logengine.disk import one_flush
from logengine.disk.commit_way import CommitWay
from logengine.disk.segment_file import list_segments, read_segment
from logengine.store import store as store_module
from logengine.store.settings import CommitConfig
from logengine.store.store import Store
from tests.crash.rig.oracle import AtOnce, addition
from tests.crash.rig.system_calls import Made, Renamed, Synced, SystemCalls, Written, WrittenBack

AUTO = CommitConfig(one_flush="auto")
ONE = CommitWay(1, "the test says so")
# More streams than a batch may have whose files stay open.
MANY = [f"app{number}" for number in range(9)]


@pytest.fixture
def calls(tmp_path: Path) -> Iterator[SystemCalls]:
    calls = SystemCalls(tmp_path)
    with patch.object(store_module, "commit_way_at", lambda _: ONE), calls.taken():
        yield calls


@pytest.fixture
def store(calls: SystemCalls) -> Iterator[Store]:
    store = Store(calls.data, AtOnce(), AUTO)
    store.open()
    for stream in ["app", *MANY]:
        asyncio.run(store.recover_stream(stream))
    yield store
    store.close()


def _os_with(**replaced: Any) -> SimpleNamespace:
    names = {name: getattr(os, name) for name in ("fsync", "fstat", "strerror")}
    return SimpleNamespace(**{**names, **replaced})


def commit(store: Store, *streams: str, size: int = 9, number: int = 1) -> dict[str, Exception]:
    planned = {
        stream: store.plan(stream, addition("p", number, size)) for stream in streams or ["app"]
    }
    return asyncio.run(store.commit(planned))


def committed(calls: SystemCalls, store: Store, *streams: str, size: int = 9) -> list[Any]:
    """The calls of a stream's second commit, whose directory exists."""
    assert not commit(store, *streams)
    del calls.trace[:]
    assert not commit(store, *streams, size=size, number=2)
    return [type(event) for event in calls.trace]


def failing(calls: SystemCalls, call: str, number: int) -> None:
    """Lets the next such call fail."""

    def gate(attempt: Any) -> None:
        if attempt.call == call and attempt.path.endswith(".tmp"):
            calls.gate = lambda _: None
            raise OSError(number, os.strerror(number))

    calls.gate = gate


def test_the_data_is_written_back_before_the_rename_and_the_file_synced_after_it(
    calls: SystemCalls, store: Store
) -> None:
    assert committed(calls, store) == [Made, Written, WrittenBack, Renamed, Synced, Written]
    made, *_ = (each for each in calls.trace if isinstance(each, Made))
    (synced,) = (each for each in calls.trace if isinstance(each, Synced))
    assert synced.inode == made.inode
    assert store.commit_way == ONE


def test_a_batch_of_many_streams_takes_two_flushes(calls: SystemCalls, store: Store) -> None:
    made = committed(calls, store, *MANY)
    assert WrittenBack not in made
    assert made.count(Synced) == 2 * len(MANY)


def test_a_batch_of_few_streams_takes_one(calls: SystemCalls, store: Store) -> None:
    made = committed(calls, store, *MANY[:4])
    assert made.count(WrittenBack) == made.count(Synced) == 4
    # All are written before any has its name.
    assert made.index(Renamed) > len(made) - 1 - made[::-1].index(WrittenBack)


def test_where_few_files_may_be_open_only_a_batch_of_one_stream_takes_one(
    calls: SystemCalls,
) -> None:
    with patch.object(resource, "getrlimit", lambda _: (100, 100)):
        store = Store(calls.data, AtOnce(), AUTO)
    store.open()
    for stream in MANY[:3]:
        asyncio.run(store.recover_stream(stream))
    assert committed(calls, store, *MANY[:2]).count(WrittenBack) == 0
    assert committed(calls, store, MANY[2]).count(WrittenBack) == 1
    store.close()


def test_a_large_segment_takes_two_flushes(calls: SystemCalls, store: Store) -> None:
    assert WrittenBack not in committed(calls, store, size=300_000)


def test_a_file_on_another_device_takes_two_flushes(calls: SystemCalls, store: Store) -> None:
    assert not commit(store)
    assert store._one_flush is not None
    store._one_flush.device += 1
    assert WrittenBack not in committed(calls, store)


def test_nothing_is_visible_of_data_that_could_not_be_written_back(
    calls: SystemCalls, store: Store
) -> None:
    assert not commit(store)
    failing(calls, "write back", errno.EIO)
    assert commit(store, number=2)["app"].errno == errno.EIO  # type: ignore[attr-defined]
    header, _ = read_segment(calls.data / "app", 1)
    assert header.count == 1
    assert not list(calls.data.glob("app/.*"))
    assert store.commit_way == ONE
    assert not commit(store, number=2)
    assert store.names.may_remove_from("app")


def test_a_failed_fsync_after_the_rename_counts_as_a_failed_sync_of_the_directory(
    calls: SystemCalls, store: Store
) -> None:
    assert not commit(store)
    failing(calls, "fsync", errno.EIO)
    error = commit(store, number=2)["app"]
    assert error.published  # type: ignore[attr-defined]
    assert list_segments(calls.data / "app") == [1]
    header, _ = read_segment(calls.data / "app", 1)
    assert header.count == 2  # whole, as a reader of this boot sees it
    assert store.unsynced == {"app"}
    del calls.trace[:]
    assert not commit(store, number=2)
    # Written again, to a new file, and with two flushes until the next boot.
    assert [type(event) for event in calls.trace] == [
        *(Made, Written, Synced, Renamed, Synced, Written)
    ]


def test_an_fsync_is_not_believed_if_the_file_system_is_gone(
    calls: SystemCalls, store: Store
) -> None:
    assert not commit(store)
    real, synced = os.fstat, []

    def gone(descriptor: int) -> os.stat_result:
        if any(isinstance(event, Renamed) for event in calls.trace):
            synced.append(descriptor)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor)

    del calls.trace[:]
    with patch.object(one_flush, "os", _os_with(fstat=gone)):
        error = commit(store, number=2)["app"]
    assert error.published  # type: ignore[attr-defined]
    assert len(synced) == 1
    assert store.unsynced == {"app"}


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EINVAL, errno.ESPIPE, errno.EPERM])
def test_a_system_without_the_call_takes_two_flushes_from_then_on(
    calls: SystemCalls, store: Store, number: int
) -> None:
    assert not commit(store, "app0")
    failing(calls, "write back", number)
    # The same commit takes the other way.
    assert not commit(store)
    assert store.commit_way.flushes == 2
    assert "sync_file_range" in store.commit_way.reason
    store.look_at_file_system()
    assert store.commit_way.flushes == 2
    assert WrittenBack not in committed(calls, store, "app1")


def test_it_is_off_unless_it_is_asked_for(calls: SystemCalls) -> None:
    store = Store(calls.data, AtOnce())
    store.open()
    assert store.commit_way == CommitWay(2, "`commit.one_flush` is never")
    asyncio.run(store.recover_stream("app"))
    assert WrittenBack not in committed(calls, store)
    store.close()


def test_another_look_at_the_file_system_changes_the_way(calls: SystemCalls, store: Store) -> None:
    assert not commit(store)
    two = CommitWay(2, "mounted again")
    with patch.object(store_module, "commit_way_at", lambda _: two):
        store.look_at_file_system()
    assert store.commit_way == two
    assert WrittenBack not in committed(calls, store)
    store.look_at_file_system()
    assert WrittenBack in committed(calls, store, "app1")


def test_a_file_is_written_back_by_the_real_call(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with file.open("wb", buffering=0) as opened:
        opened.write(b"x" * 10_000)
        one_flush.write_back(opened.fileno())
    assert file.read_bytes() == b"x" * 10_000


def test_all_of_the_file_is_waited_for() -> None:
    given = []

    def sync_file_range(*arguments: Any) -> int:
        given.append([getattr(each, "value", each) for each in arguments])
        return 0

    with patch.object(one_flush, "_libc", SimpleNamespace(sync_file_range=sync_file_range)):
        one_flush.write_back(7)
    wait_before, write, wait_after = 1, 2, 4  # linux/fs.h
    assert given == [[7, 0, 0, wait_before | write | wait_after]]


def test_a_library_without_the_call_has_no_such_call() -> None:
    with (
        patch.object(one_flush, "_libc", SimpleNamespace()),
        pytest.raises(OSError, match="not implemented") as raised,
    ):
        one_flush.write_back(7)
    assert raised.value.errno == errno.ENOSYS


def test_what_cannot_be_written_back_is_an_error() -> None:
    reading, writing = os.pipe()
    with pytest.raises(OSError, match="seek") as raised:
        one_flush.write_back(writing)
    assert raised.value.errno == errno.ESPIPE
    os.close(reading)
    os.close(writing)
