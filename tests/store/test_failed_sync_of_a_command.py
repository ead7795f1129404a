"""Repairing or erasing where the sync of a stream's directory fails, at each of its calls."""

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock

import pytest

from logengine.disk.durable_names import DurableNames
from logengine.disk.segment_file import list_segments
from logengine.format.segment import segment_name
from logengine.format.time_range import ALL_TIMES
from logengine.reading.filter import Filter, Grep
from logengine.upkeep.erase import Erasure, Wanted
from logengine.upkeep.erase_plan import Mark
from logengine.upkeep.repair import Repair
from tests.store.test_compaction import running
from tests.unnoted import unnoted

WHEN = "2026-11-25T00:00:00.000001Z"
TEMP = ".left.tmp"


def repair(data: Path, names: DurableNames) -> None:
    Repair(data, "app", WHEN, lambda _: None, names=names).run()


def erase(data: Path, names: DurableNames) -> None:
    wanted = Wanted(0, None, ALL_TIMES, Filter([Grep(b'"n":7,', fixed=True)]))
    list(Erasure(data, "app", wanted, lambda _: None, names=names).run(Mark(WHEN, "ann"), 0.0))


@pytest.mark.parametrize("command", [repair, erase])
async def test_a_failed_sync_of_the_streams_directory_ends_removals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[[Path, DurableNames], None]
) -> None:
    whole = tmp_path / "whole"
    async with running(whole, compacts=False) as at:
        for _ in range(4):
            await at.commit(records=12)
    if command is repair:
        damaged = whole / "app" / segment_name(list_segments(whole / "app")[1])
        damaged.write_bytes(damaged.read_bytes()[:-20])
    temp = whole / "app" / TEMP
    temp.touch()
    fsync = os.fsync
    fails_at = syncs = 0
    has_failed = True
    data = whole

    def may_fail(descriptor: int) -> None:
        nonlocal syncs, has_failed
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(data / "app"):
            syncs += 1
            if syncs == fails_at:
                has_failed = True
                raise OSError(errno.EIO, "injected")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", may_fail)
    while has_failed:
        data = tmp_path / str(fails_at)
        shutil.copytree(whole, data)
        fails_at, syncs, has_failed = fails_at + 1, 0, False
        names = unnoted()
        with suppress(OSError):
            command(data, names)
        assert names.unsynced == ({"app"} if has_failed else set())
    assert fails_at >= 3


async def test_what_was_erased_before_a_sync_failed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, compacts=False) as at:
        await at.commit(records=12)
    wanted = Wanted(0, None, ALL_TIMES, Filter([Grep(b'"n":7,', fixed=True)]))
    erasure = Erasure(tmp_path, "app", wanted, lambda _: None, names=unnoted())
    expected = list(erasure.affected())
    assert expected
    with monkeypatch.context() as patch, pytest.raises(OSError, match="injected"):
        replace = os.replace

        def replace_and_fail_from_then_on(source: str, target: str, **directories: int) -> None:
            replace(source, target, **directories)
            patch.setattr(os, "fsync", Mock(side_effect=OSError(errno.EIO, "injected")))

        patch.setattr(os, "replace", replace_and_fail_from_then_on)
        list(erasure.run(Mark(WHEN, "ann"), 0.0))
    assert [erasure.unfinished] == expected
    # Only now could it be named: nothing is left to erase.
    assert not list(Erasure(tmp_path, "app", wanted, lambda _: None, names=unnoted()).affected())
