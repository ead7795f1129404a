"""What was planned on a state that did not come about is never published, whoever asks for it."""

import asyncio
import errno
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from pathlib import Path
from typing import Any

import pytest

from logengine.disk.directory import create_directories
from logengine.disk.segment_file import list_segments
from logengine.errors import OutdatedPlan
from logengine.format.producers import Producer
from logengine.store.plan import Addition
from logengine.store.settings import CommitConfig
from logengine.store.store import Store
from tests.crash.rig.oracle import addition

NOTHING = Addition([], 0, "", "")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with ThreadPoolExecutor(2) as executor:
        store = Store(tmp_path, executor, CommitConfig(rewrite_limit=1))
        store.open()
        asyncio.run(store.recover_stream("app"))
        yield store
        store.close()


def plan(store: Store, *numbers: int) -> dict[str, Any]:
    (number,) = numbers
    return {"app": store.plan("app", addition("p", number, 5))}


def commit(store: Store, planned: dict[str, Any]) -> dict[str, Exception]:
    return asyncio.run(store.commit(planned))


def failing_once(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    real = getattr(os, call)
    failures = iter([True])

    def fail(*args: Any, **kwargs: Any) -> Any:
        if next(failures, False):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*args, **kwargs)

    monkeypatch.setattr(os, call, fail)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_plan_made_on_a_commit_that_failed_is_not_published(
    call: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not commit(store, plan(store, 1))
    first, second, third = plan(store, 2), plan(store, 3), plan(store, 4)
    failing_once(monkeypatch, call)
    assert isinstance(commit(store, first)["app"], OSError)
    # Nobody says that these depend on the first.
    assert isinstance(commit(store, second)["app"], OutdatedPlan)
    assert isinstance(commit(store, third)["app"], OutdatedPlan)
    assert list_segments(tmp_path / "app") == [1]
    assert not commit(store, plan(store, 2))
    assert list_segments(tmp_path / "app") == [1, 2]
    assert store.last_durable("app", Producer(os.getuid(), "p")) == 2


def test_a_plan_that_comes_before_its_turn_is_not_published(store: Store, tmp_path: Path) -> None:
    first, second = plan(store, 1), plan(store, 2)
    assert isinstance(commit(store, second)["app"], OutdatedPlan)
    assert not commit(store, first)
    assert list_segments(tmp_path / "app") == [1]


def test_a_plan_is_published_once(store: Store, tmp_path: Path) -> None:
    planned = plan(store, 1)
    assert not commit(store, planned)
    assert isinstance(commit(store, planned)["app"], OutdatedPlan)
    assert list_segments(tmp_path / "app") == [1]


def test_an_addition_of_nothing_is_durable_only_if_what_is_before_it_is(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not commit(store, plan(store, 1))
    first = plan(store, 2)
    nothing = {"app": store.plan("app", NOTHING)}
    failing_once(monkeypatch, "fsync")
    assert commit(store, first)
    assert isinstance(commit(store, nothing)["app"], OutdatedPlan)
    assert not commit(store, {"app": store.plan("app", NOTHING)})


def test_the_active_segment_is_not_ended_under_a_plan_that_goes_on_with_it(
    tmp_path: Path,
) -> None:
    with ThreadPoolExecutor(2) as executor:
        store = Store(tmp_path, executor, CommitConfig(rewrite_limit=100_000))
        store.open()
        asyncio.run(store.recover_stream("app"))
        assert not commit(store, plan(store, 1))
        nothing = {"app": store.plan("app", NOTHING)}
        store.end_active("app")
        assert not commit(store, nothing)
        assert not commit(store, plan(store, 2))
        assert list_segments(tmp_path / "app") == [1]
        store.end_active("app")
        assert not commit(store, plan(store, 3))
        assert list_segments(tmp_path / "app") == [1, 3]
        store.close()


def test_a_producer_hears_what_is_durable_and_not_what_is_planned(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not commit(store, plan(store, 1))
    planned = plan(store, 2)
    assert store.last_durable("app", Producer(os.getuid(), "p")) == 1
    failing_once(monkeypatch, "fsync")
    assert commit(store, planned)
    assert store.last_durable("app", Producer(os.getuid(), "p")) == 1
    assert not commit(store, plan(store, 2))
    assert store.last_durable("app", Producer(os.getuid(), "p")) == 2


def test_a_stream_whose_directory_was_not_synced_is_not_durable(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_fsync, real_rmdir = os.fsync, os.rmdir
    syncs_fail, has_failed = True, False

    def fsync(descriptor: int) -> None:
        nonlocal has_failed
        if syncs_fail and os.readlink(f"/proc/self/fd/{descriptor}") == str(tmp_path):
            has_failed = True
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real_fsync(descriptor)

    def rmdir(*args: Any, **kwargs: Any) -> None:
        if syncs_fail and has_failed:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real_rmdir(*args, **kwargs)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rmdir", rmdir)
    failure = commit(store, plan(store, 1))["app"]
    assert isinstance(failure, OSError)
    assert failure.errno == errno.EIO
    assert (tmp_path / "app").is_dir(), "the directory could not be removed"
    assert list_segments(tmp_path / "app") == []
    assert store.last_durable("app", Producer(os.getuid(), "p")) == 0
    syncs_fail = False
    assert not commit(store, plan(store, 1))
    assert list_segments(tmp_path / "app") == [1]


def test_a_plan_made_on_a_commit_that_failed_stays_outdated_after_another_in_its_place(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not commit(store, plan(store, 1))
    first, second = plan(store, 2), plan(store, 3)
    failing_once(monkeypatch, "fsync")
    assert commit(store, first)
    # What is durable now goes on at the same number, but it is not what `second` was made on.
    assert not commit(store, plan(store, 7))
    assert isinstance(commit(store, second)["app"], OutdatedPlan)
    assert list_segments(tmp_path / "app") == [1, 2]
    assert store.last_durable("app", Producer(os.getuid(), "p")) == 7


def test_a_plan_that_is_outdated_by_what_its_own_commit_awaits_is_not_published(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not commit(store, plan(store, 1))
    begin = store._begin

    async def begin_meanwhile(commits: Any) -> None:
        await begin(commits)
        store._durable["app"] = copy(store._durable["app"])  # somebody else's, of the same number

    monkeypatch.setattr(store, "_begin", begin_meanwhile)
    assert isinstance(commit(store, plan(store, 2))["app"], OutdatedPlan)
    assert list_segments(tmp_path / "app") == [1]


def test_no_directory_is_made_for_a_plan_that_is_outdated(store: Store, tmp_path: Path) -> None:
    planned = plan(store, 1)
    assert not commit(store, planned)
    shutil.rmtree(tmp_path / "app")
    assert isinstance(commit(store, planned)["app"], OutdatedPlan)
    assert not (tmp_path / "app").exists()


def test_a_stream_that_goes_again_after_a_failure_ends_its_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadPoolExecutor(2) as executor:
        store = Store(tmp_path, executor, CommitConfig(rewrite_limit=100_000))
        store.open()
        asyncio.run(store.recover_stream("app"))
        assert not commit(store, plan(store, 1))
        failing_once(monkeypatch, "fsync")
        assert commit(store, plan(store, 2))
        store.end_active("app")  # it may be visible with record 2, so it stays the active one
        assert not commit(store, plan(store, 2))
        assert list_segments(tmp_path / "app") == [1]
        store.end_active("app")
        assert not commit(store, plan(store, 3))
        assert list_segments(tmp_path / "app") == [1, 3]
        store.close()


class Beginning(ThreadPoolExecutor):
    """Notes which directories it is asked to make, and makes none before it may."""

    def __init__(self) -> None:
        super().__init__(4)
        self.asked_for: list[str] = []
        self.may_go_on = threading.Event()

    def submit(self, call: Any, /, *args: Any, **kwargs: Any) -> Any:
        if call is not create_directories:
            return super().submit(call, *args, **kwargs)
        self.asked_for += args[1]

        def create() -> Any:
            assert self.may_go_on.wait(60)
            return call(*args, **kwargs)

        return super().submit(create)


async def test_one_commit_at_a_time_makes_directories(tmp_path: Path) -> None:
    with Beginning() as executor:
        store = Store(tmp_path, executor)
        store.open()
        tasks = []
        for stream in ("app", "web"):
            await store.recover_stream(stream)
            planned = {stream: store.plan(stream, addition("p", 1, 5))}
            tasks.append(asyncio.create_task(store.commit(planned)))
        for _turn in range(10):
            await asyncio.sleep(0)
        assert executor.asked_for == ["app"]
        executor.may_go_on.set()
        assert await asyncio.gather(*tasks) == [{}, {}]
        assert executor.asked_for == ["app", "web"]
        store.close()
