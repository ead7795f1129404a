"""`verify` beside a compaction that takes away what it has listed, or has read."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from logengine.disk.durable_names import remove_covered
from logengine.disk.segment_file import read_header, read_segment
from logengine.format.segment import segment_name
from logengine.store.store import Store, StoreLimits
from logengine.upkeep import verify
from logengine.upkeep.compaction import Part
from logengine.upkeep.rewrite import Pace, Rewriter
from logengine.upkeep.survey import survey
from tests.crash import oracle
from tests.unnoted import unnoted

RECORDS = 9


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A stream of segments of one record each."""
    store = Store(tmp_path, oracle.AtOnce(), StoreLimits(rewrite_limit=1))
    store.open()
    asyncio.run(store.recover_stream("app"))
    for number in range(1, RECORDS + 1):
        planned = store.plan("app", oracle.addition("p", number, 9))
        assert not asyncio.run(store.commit({"app": planned}))
    store.close()
    return tmp_path


def parts(data: Path, first: int, last: int) -> list[Part]:
    found = survey(data / "app", last + 1).parts
    return [part for part in found if part.first >= first]


def merge(data: Path, first: int, last: int) -> None:
    """Merges what begins with numbers `first` to `last`."""
    merged = parts(data, first, last)
    writer, _ = Rewriter(data, Pace(1e12), names=unnoted(), direct_above=9999, level=1).merge(
        "app", merged
    )
    writer.publish()
    remove_covered(data / "app", [segment_name(part.first) for part in merged[1:]])


def seal(data: Path, first: int, last: int) -> None:
    """Seals what begins with numbers `first` to `last`."""
    before = survey(data / "app", first).sealed
    sealed = parts(data, first, last)
    writer, _ = Rewriter(data, Pace(1e12), names=unnoted(), direct_above=9999, level=1).seal(
        "app", sealed, before.first if before else None
    )
    writer.publish()
    remove_covered(data / "app", [segment_name(part.first) for part in sealed])


def merge_twice(data: Path) -> None:
    merge(data, 1, 3)
    merge(data, 4, 6)
    merge(data, 1, 8)


def seal_twice(data: Path) -> None:
    seal(data, 1, 4)
    seal(data, 5, 8)


def seal_each(data: Path) -> None:
    for number in range(1, RECORDS):
        seal(data, number, number)


def seal_each_and_remove_most(data: Path) -> None:
    seal_each(data)
    for number in range(1, RECORDS - 1):
        (data / "app" / segment_name(number, compressed=True)).unlink()


@pytest.mark.parametrize("at", range(1, RECORDS + 1))
@pytest.mark.parametrize(
    "change",
    [
        lambda data: merge(data, 1, 8),
        lambda data: merge(data, 3, 6),
        merge_twice,
        lambda data: seal(data, 1, 8),
        seal_twice,
        seal_each,
        seal_each_and_remove_most,
    ],
)
def test_what_is_compacted_meanwhile_is_no_finding(
    data: Path, at: int, change: Callable[[Path], None]
) -> None:
    reads = 0

    def read(directory: Path, first: int) -> Any:
        nonlocal reads
        reads += 1
        if reads == at:
            change(data)
        return read_segment(directory, first)

    with patch.object(verify, "read_segment", read):
        findings = list(verify.verify_stream(data / "app"))
    assert [str(finding) for finding in findings if not finding.harmless] == []
    assert read_header(data / "app", RECORDS).count == 1
    assert [str(finding) for finding in verify.verify_stream(data / "app")] == []
