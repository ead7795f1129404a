"""A spool that other users may write to, or have written to, is not used, and logging goes on."""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import logengine
from logengine.client import stderr_notices
from logengine.client.spool import orphans
from tests.daemon import Daemon, eventually

OTHER = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")


@pytest.fixture(autouse=True)
def _not_told_yet() -> None:
    stderr_notices._told.clear()


@pytest.fixture
def spools(root: Path) -> Path:
    (root / "spools").mkdir(mode=0o700)
    return root / "spools"


def left_spool(spools: Path, producer: str | None = None) -> Path:
    """Leaves one record in a spool. Returns the directory of its producer."""
    before = set(spools.iterdir())
    client = logengine.Client(
        "app", socket=spools.parent / "nobody", spool=spools, producer=producer, close_timeout=0
    )
    client.send({"left": 1})
    client.close()
    (made,) = set(spools.iterdir()) - before
    return made


def give(path: Path, uid: int) -> None:
    for each in [path, *path.rglob("*")]:
        os.chown(each, uid, uid, follow_symlinks=False)


def by_anybody(spools: Path) -> None:
    spools.chmod(0o777)


def by_a_group(spools: Path) -> None:
    spools.chmod(0o770)


def owned_by_another(spools: Path) -> None:
    os.chown(spools, OTHER, OTHER)


def linked_by_another(spools: Path) -> None:
    spools.rename(spools.with_name("elsewhere"))
    spools.symlink_to("elsewhere")
    os.chown(spools, OTHER, OTHER, follow_symlinks=False)


@needs_root
@pytest.mark.parametrize(
    "made_unsafe", [by_anybody, by_a_group, owned_by_another, linked_by_another]
)
def test_a_directory_of_spools_that_others_may_write_to_is_not_used(
    daemon: Daemon,
    spools: Path,
    capfd: pytest.CaptureFixture[str],
    made_unsafe: Callable[[Path], None],
) -> None:
    left_spool(spools)
    before = set(spools.iterdir())
    made_unsafe(spools)
    for number in (1, 2):
        with logengine.Client("app", socket=daemon.socket, spool=spools) as client:
            client.send({"n": number})
    assert [each["n"] for each in daemon.values("app")] == [1, 2]
    assert set(spools.iterdir()) == before
    assert not list(orphans(spools))
    told = capfd.readouterr().err
    assert told.count(f"{spools} is not safe as a spool: ") == 1
    assert "records wait only in memory" in told


@needs_root
def test_in_a_directory_for_everybody_only_ones_own_spools_are_sent(
    daemon: Daemon, spools: Path
) -> None:
    give(left_spool(spools), OTHER)
    left_spool(spools)
    spools.chmod(0o1777)
    with logengine.Client("app", socket=daemon.socket, spool=spools) as client:
        client.send({"n": 1})
        client.flush(20)
        eventually(lambda: len(daemon.values("app")) == 2)
    assert sorted(map(str, daemon.values("app"))) == ["{'left': 1}", "{'n': 1}"]


def planted_lock(spool: Path, target: Path) -> None:
    (spool / ".lock").unlink()
    (spool / ".lock").symlink_to(target / "made")


def planted_state(spool: Path, target: Path) -> None:
    (spool / "spool.json").rename(target / "spool.json")
    (spool / "spool.json").symlink_to(target / "spool.json")
    os.chown(spool / "spool.json", OTHER, OTHER, follow_symlinks=False)


def planted_stream(spool: Path, target: Path) -> None:
    (spool / "app").rename(spool.parent / ".moved")
    (spool / "app").symlink_to(target)


def planted_segment(spool: Path, target: Path) -> None:
    (segment,) = (spool / "app").iterdir()
    segment.rename(target / "segment")
    segment.symlink_to(target / "segment")
    os.chown(segment, OTHER, OTHER, follow_symlinks=False)


def planted_fifo(spool: Path, target: Path) -> None:
    (spool / "spool.json").unlink()
    os.mkfifo(spool / "spool.json", 0o600)


def writable_segment(spool: Path, target: Path) -> None:
    (segment,) = (spool / "app").iterdir()
    segment.chmod(0o666)


PLANTS = [
    planted_lock,
    pytest.param(planted_state, marks=needs_root),
    planted_stream,
    pytest.param(planted_segment, marks=needs_root),
    planted_fifo,
    writable_segment,
]


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("producer", [None, "worker-1"])
def test_a_link_or_a_fifo_in_a_spool_is_not_followed_and_nothing_there_is_sent(
    daemon: Daemon,
    root: Path,
    spools: Path,
    plant: Callable[[Path, Path], None],
    producer: str | None,
) -> None:
    target = root / "home"
    target.mkdir()
    (target / ".precious.tmp").write_text("mine")
    plant(left_spool(spools, producer), target)
    before = sorted(target.iterdir())
    with logengine.Client("app", socket=daemon.socket, spool=spools, producer=producer) as client:
        client.send({"n": 1})
    assert daemon.values("app") == [{"n": 1}]
    assert sorted(target.iterdir()) == before


@needs_root
def test_a_named_producer_keeps_its_name_if_its_spool_is_anothers(
    daemon: Daemon, spools: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    theirs = left_spool(spools, "worker-1")
    give(theirs, OTHER)
    with logengine.Client("app", socket=daemon.socket, spool=spools, producer="worker-1") as client:
        assert client.producer == "worker-1"
        client.send({"n": 1})
    assert daemon.values("app") == [{"n": 1}]
    assert f"{theirs} is not safe as a spool: it belongs to user 65534" in capfd.readouterr().err


def test_a_named_producer_loses_nothing_of_a_spool_that_is_made_safe_later(
    daemon: Daemon, spools: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    left_spool(spools, "worker-1")
    spools.chmod(0o777)
    with logengine.Client("app", socket=daemon.socket, spool=spools, producer="worker-1") as client:
        assert client.producer != "worker-1"
        for number in range(5):
            client.send({"n": number})
    assert "uses a generated name" in capfd.readouterr().err
    spools.chmod(0o700)
    with logengine.Client("app", socket=daemon.socket, spool=spools, producer="worker-1") as client:
        client.flush(20)
    assert {"left": 1} in daemon.values("app")


def test_handlers_and_async_clients_go_on_without_an_unsafe_spool(
    daemon: Daemon, spools: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spools.chmod(0o777)
    handler = logengine.LogEngineHandler("app", socket=daemon.socket, spool=spools)
    handler.emit(logging.makeLogRecord({"msg": "by a handler"}))
    handler.close()

    async def run() -> None:
        async with logengine.AsyncClient("app", socket=daemon.socket, spool=spools) as client:
            await client.send({"message": "by a task"})

    asyncio.run(run())
    assert [each["message"] for each in daemon.values("app")] == ["by a handler", "by a task"]
    assert capfd.readouterr().err.count("is not safe as a spool") == 1
    assert not list(spools.iterdir())
