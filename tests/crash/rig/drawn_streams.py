"""Streams as years and accidents leave them, drawn from a seed, and a short life of a daemon.

Segments are sealed, merged or as they were committed; what a compaction covers may still be
there; some may be gone and recorded as that; some may be damaged; a reader may have a cursor.
"""

import asyncio
import math
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from logengine.disk.durable_names import remove_covered
from logengine.disk.registered_cursors import CURSORS_NAME
from logengine.disk.segment_file import list_segments, read_header
from logengine.format.segment import segment_name
from logengine.format.time_range import ALL_TIMES
from logengine.reading.filter import Filter
from logengine.store.committer import Committer
from logengine.store.settings import CommitConfig
from logengine.store.store import Store
from logengine.upkeep.compaction import Compactor
from logengine.upkeep.compaction_plan import CompactionConfig, EndedSegment
from logengine.upkeep.erase import Erasure, Wanted
from logengine.upkeep.erase_plan import Mark
from logengine.upkeep.repair import Repair
from logengine.upkeep.retention import Retainer
from logengine.upkeep.retention_plan import RetentionRules
from logengine.upkeep.rewrite import Pace, Rewriter
from logengine.upkeep.verify import verify_stream
from tests.crash.rig.oracle import AtOnce, addition
from tests.crash.rig.power_cut import Tree
from tests.crash.rig.retaining import retainer
from tests.crash.rig.withstanding import tree_of
from tests.crash.test_bit_rot import read
from tests.unnoted import unnoted

STREAM = "app"
WHEN = "2026-11-25T00:00:00.000001Z"
_LIMITS = CommitConfig(rewrite_limit=1)  # each commit a segment of its own
_LONG = 10_000
_LIVES = 3  # times that a daemon's streams go quiet


@dataclass(frozen=True)
class Case:
    """A stream, as it is before anything of it goes."""

    tree: Tree
    lines: dict[int, bytes]  # by seq, of what can be read
    findings: frozenset[str]
    newest: int  # where the newest segment begins
    next_seq: int
    cursor: int | None
    seed: float  # of what a daemon then does


@dataclass(frozen=True)
class Life:
    """What a stream has that nothing has happened to."""

    lines: dict[int, bytes]  # by seq
    next_seq: int


def drawn_life(root: Path, source: random.Random) -> Life:
    """A whole stream below `root`: sealed, merged, with recorded gaps, with erased records."""
    data = root / "data"
    count = source.randint(4, 11)
    _commit(data, range(1, count + 1))
    if source.random() < 0.8:
        _compact(data, source, count)
    if source.random() < 0.3:
        _lose_one(data, source)
    if source.random() < 0.2:
        _erase_one(data, source.randint(1, count))
    return Life(stored_lines(data), count + 1)


def _erase_one(data: Path, seq: int) -> None:
    wanted = Wanted(seq - 1, seq, ALL_TIMES, Filter())
    mark = Mark(WHEN, "ann")
    for _ in Erasure(data, STREAM, wanted, lambda _: None, names=unnoted()).run(
        mark, patience_s=60
    ):
        pass


def drawn_case(root: Path, source: random.Random) -> Case:
    """A stream below `root`, and what is known of it."""
    data, directory = root / "data", root / "data" / STREAM
    count = source.randint(4, 11)
    _commit(data, range(1, count + 1))
    _compact(data, source, count)
    if source.random() < 0.3:
        _lose_one(data, source)
    is_covered = any(each.harmless for each in verify_stream(directory))
    # What a damaged one covers, a start may remove: that is told in docs/guarantees.md.
    if source.random() < 0.2 and not is_covered:
        _damage_one(directory, source)
    if source.random() < 0.2:
        (directory / f".{segment_name(3)}.0123.tmp").write_bytes(b"half")
    cursor = None
    if source.random() < 0.3:
        cursor = source.randint(0, count)
        (data / CURSORS_NAME).mkdir()
        (data / CURSORS_NAME / "relay").write_text(f"{STREAM}:{cursor}\n")
    return Case(
        tree_of(root),
        stored_lines(data),
        findings(data),
        list_segments(directory)[-1],
        count + 1,
        cursor,
        source.random(),
    )


def _commit(data: Path, numbers: range) -> None:
    store = Store(data, AtOnce(), _LIMITS)
    store.open()
    asyncio.run(store.recover_stream(STREAM))
    for number in numbers:
        planned = store.plan(STREAM, addition("p", number, 9))
        assert not asyncio.run(store.commit({STREAM: planned}))
    store.close()


def _compact(data: Path, source: random.Random, count: int) -> None:
    """Seals some of the oldest segments, merges some behind; what they cover is left, or not."""
    directory = data / STREAM
    rewriter = Rewriter(data, Pace(math.inf), names=unnoted(), direct_above=1000, level=1)
    first, after = 1, None
    seals = source.choice([0, 1, 2, 3, 4])
    while first < count and (seals or source.random() < 0.5):
        last = min(count - 1, first + source.randint(0, 3))
        parts = [
            EndedSegment(seq, seq, read_header(directory, seq).bytes)
            for seq in range(first, last + 1)
        ]
        names = [segment_name(part.first) for part in parts]
        is_seal = seals > 0
        if is_seal:
            writer, header = rewriter.seal(STREAM, parts, after)
            after, seals = header.first, seals - 1
        else:
            writer, _ = rewriter.merge(STREAM, parts)
            names = names[1:]
        writer.publish()
        # Whatever sync of a name's removal failed: any part of it may be back.
        left = source.choice([0, 0, 1, 1, len(names)])
        remove_covered(directory, source.sample(names, max(0, len(names) - left)))
        first = last + 1


def _lose_one(data: Path, source: random.Random) -> None:
    """One that is not the newest goes with all of its names, and that is recorded."""
    directory = data / STREAM
    names: dict[str, list[Path]] = {}
    for path in sorted(directory.iterdir()):
        names.setdefault(path.name[:20], []).append(path)
    if len(names) > 1:
        lose_one(data, *names[source.choice(sorted(names)[:-1])])
    else:
        lose_one(data)


def lose_one(data: Path, *paths: Path) -> None:
    """A segment of the stream goes with all of its names, `paths`, and that is recorded."""
    for path in paths:
        os.unlink(path)
    Repair(data, STREAM, WHEN, lambda _: None, names=unnoted()).run()


def _damage_one(directory: Path, source: random.Random) -> None:
    path = source.choice(sorted(directory.glob("[0-9]*"))[:-1] or sorted(directory.glob("[0-9]*")))
    content = bytearray(path.read_bytes())
    content[source.randrange(len(content))] ^= 0xFF
    path.write_bytes(content)


def stored_lines(data: Path) -> dict[int, bytes]:
    """What can be read of the stream, by seq."""
    return {record.seq: record.line for record in read(data)[0]}


def findings(data: Path) -> frozenset[str]:
    """What `verify` has to say against the stream."""
    return frozenset(each.what for each in verify_stream(data / STREAM) if not each.harmless)


def newest_seal(directory: Path) -> int:
    """Where the newest compressed segment begins; 0 where there is none."""
    return max((int(path.name[:20]) for path in directory.glob("*.zst")), default=0)


def live(data: Path, rules: RetentionRules | None, source: random.Random) -> Iterator[str]:
    """A daemon starts, and compacts, and retains by `rules`; what is wrong about where it goes on.

    Raises `OSError` where it cannot start.
    """
    store = Store(data, AtOnce(), _LIMITS)
    try:
        for stream, recovery in store.open().items():
            if isinstance(recovery, OSError):
                raise recovery
            yield from (f"{stream}: recovery misses {gap}" for gap in recovery.gaps)
        kept = None if rules is None else retainer(data, rules, store.names)
        asyncio.run(_live(store, kept, source))
    finally:
        store.close()


async def _live(store: Store, retainer: Retainer | None, source: random.Random) -> None:
    passed = 0
    async with asyncio.TaskGroup() as tasks:
        committer = Committer(store, CommitConfig(), tasks)
        rewriter = Rewriter(
            store.data, Pace(math.inf), names=store.names, direct_above=1000, level=1
        )
        quiet = source.choice([_LONG // 2, math.inf])
        config = CompactionConfig(
            fanout=2,
            seal_bytes=source.choice([200, 10_000]),
            seal_after=quiet,
            seal_small_after=quiet,
        )
        compactor = Compactor(
            store,
            committer,
            rewriter,
            config,
            AtOnce(),
            lambda: passed,
            retainer=retainer,
            retry_max_s=1,
        )
        tasks.create_task(compactor.run())
        for _ in range(_LIVES):
            await compactor.idle()
            passed += _LONG
            compactor.look()
        await compactor.idle()
        await compactor.stop()
        await committer.close()
