"""A stream of segments of one record each, and merges and seals of them, for tests."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

from logengine.disk.durable_names import remove_covered
from logengine.format.segment import segment_name
from logengine.store.settings import CommitConfig
from logengine.store.store import Store
from logengine.upkeep.compaction_plan import EndedSegment
from logengine.upkeep.rewrite import Pace, Rewriter
from logengine.upkeep.survey import survey
from tests.crash.rig import oracle
from tests.unnoted import unnoted

RECORDS = 9


def commit(data: Path, numbers: Iterable[int]) -> None:
    """Commits a segment for each number."""
    store = Store(data, oracle.AtOnce(), CommitConfig(rewrite_limit=1))
    store.open()
    asyncio.run(store.recover_stream("app"))
    for number in numbers:
        planned = store.plan("app", oracle.addition("p", number, 9))
        assert not asyncio.run(store.commit({"app": planned}))
    store.close()


def _parts(data: Path, first: int, last: int) -> list[EndedSegment]:
    return [part for part in survey(data / "app", last + 1).parts if part.first >= first]


def _rewriter(data: Path) -> Rewriter:
    return Rewriter(data, Pace(1e12), names=unnoted(), direct_above=9999, level=1)


def merge(data: Path, first: int, last: int) -> None:
    """Merges what begins with numbers `first` to `last`."""
    merged = _parts(data, first, last)
    writer, _ = _rewriter(data).merge("app", merged)
    writer.publish()
    remove_covered(data / "app", [segment_name(part.first) for part in merged[1:]])


def seal(data: Path, first: int, last: int) -> None:
    """Seals what begins with numbers `first` to `last`."""
    before = survey(data / "app", first).sealed
    sealed = _parts(data, first, last)
    writer, _ = _rewriter(data).seal("app", sealed, before.first if before else None)
    writer.publish()
    remove_covered(data / "app", [segment_name(part.first) for part in sealed])


def seal_twice(data: Path) -> None:
    """Seals all but the newest segment, in two parts."""
    seal(data, 1, 4)
    seal(data, 5, 8)


def seal_each(data: Path) -> None:
    """Seals each segment but the newest by itself."""
    for number in range(1, RECORDS):
        seal(data, number, number)


def seal_each_and_remove_most(data: Path) -> None:
    """The same, and then only the last seal is left."""
    seal_each(data)
    for number in range(1, RECORDS - 1):
        (data / "app" / segment_name(number, compressed=True)).unlink()
