"""What was planned on a state that did not come about is never published, whoever asks for it."""

import asyncio
import errno
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from logengine.errors import OutdatedPlan
from logengine.plan import Addition
from logengine.segment_file import list_segments
from logengine.store import Store, StoreLimits
from tests.crash.oracle import addition

NOTHING = Addition([], 0, "", "")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with ThreadPoolExecutor(2) as executor:
        store = Store(tmp_path, executor, StoreLimits(rewrite_limit=1))
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
    assert store.last_durable("app", "p") == 2


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
        store = Store(tmp_path, executor, StoreLimits(rewrite_limit=100_000))
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
    assert store.last_durable("app", "p") == 1
    failing_once(monkeypatch, "fsync")
    assert commit(store, planned)
    assert store.last_durable("app", "p") == 1
    assert not commit(store, plan(store, 2))
    assert store.last_durable("app", "p") == 2


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
    assert store.last_durable("app", "p") == 0
    syncs_fail = False
    assert not commit(store, plan(store, 1))
    assert list_segments(tmp_path / "app") == [1]
