"""What must hold of a data directory, whatever happened to it.

Files are judged by the documented format alone (`walker`), and again by the engine's own
recovery, which is then used to go on.
"""

import asyncio
import json
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from logengine.committer import CommitLimits, Committer
from logengine.compaction import CompactionLimits
from logengine.compactor import Compactor
from logengine.plan import Addition
from logengine.rewrite import Pace, Rewriter
from logengine.store import Store, StoreLimits
from tests.crash.walker import decompressed, fault_of

# Small enough that active segments end, and are evicted, within a few records.
LIMITS = StoreLimits(rewrite_limit=1024, direct_above=700, active_cache=300)
TIME = "2026-11-23T20:00:00.000001Z"

Producer = tuple[str, str]  # stream and name


class Durable(NamedTuple):
    """A promise that left the daemon: all of a producer's records up to `number`."""

    producer: Producer
    number: int


class Shown(NamedTuple):
    """A record that a follower handed out, which is a promise too."""

    stream: str
    seq: int
    line: bytes


class Sent(NamedTuple):
    """A record that is about to be sent."""

    producer: Producer
    number: int


class AtOnce(Executor):
    """Runs what is submitted there and then."""

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            future.set_result(call(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - as any executor does
            future.set_exception(error)
        return future


@dataclass
class Promises:
    """What the daemon has promised so far, and all that it was ever given."""

    sent: dict[Producer, list[int]] = field(default_factory=dict)
    durable: dict[Producer, int] = field(default_factory=dict)
    shown: dict[tuple[str, int], bytes] = field(default_factory=dict)

    def take(self, event: object) -> bool:
        """Takes one event of a trace; whether it promised something new."""
        match event:
            case Sent(producer, number):
                self.sent.setdefault(producer, []).append(number)
            case Durable(producer, number):
                before = self.durable.get(producer, 0)
                self.durable[producer] = max(before, number)
                return number > before
            case Shown(stream, seq, line):
                self.shown[stream, seq] = line
                return True
            case _:
                pass
        return False

    def broken_by(self, found: "Found") -> list[str]:
        """Which promises do not hold of what was found."""
        broken = list(found.faults)
        for producer, sent in self.sent.items():
            wanted = sorted(set(sent))
            here = found.numbers.get(producer, [])
            if here != wanted[: len(here)]:
                broken.append(f"{producer}: stored {here}, sent {wanted}")
                continue
            last = here[-1] if here else 0
            missing = [n for n in wanted if last < n <= self.durable.get(producer, 0)]
            if missing:
                broken.append(f"{producer}: {missing} are lost, which were acknowledged")
            known = found.known.get(producer)
            if known is not None and here and known < last:
                broken.append(f"{producer}: {last} is stored and {known} known: it would double")
            if known is not None and [n for n in wanted if last < n <= known]:
                broken.append(f"{producer}: {known} is known and {last} stored: records are lost")
        broken += [
            f"{producer}: {set(numbers)} were never sent"
            for producer, numbers in found.numbers.items()
            if producer not in self.sent
        ]
        for (stream, seq), line in self.shown.items():
            stored = found.lines.get(stream, [])
            if stored[seq - 1 : seq] != [line]:
                broken.append(f"{stream}:{seq} was shown, and is another one now")
        return broken


@dataclass
class Found:
    """What is in a data directory, and what is wrong with it."""

    faults: list[str] = field(default_factory=list)
    lines: dict[str, list[bytes]] = field(default_factory=dict)
    numbers: dict[Producer, list[int]] = field(default_factory=dict)
    known: dict[Producer, int] = field(default_factory=dict)
    leftovers: list[Path] = field(default_factory=list)


def record_line(producer: str, number: int, size: int) -> bytes:
    """What a producer of the campaign sends."""
    return b'{"p":"%s","n":%d,"x":"%s"}' % (producer.encode(), number, b"x" * size)


def addition(producer: str, number: int, size: int) -> Addition:
    """A batch of one record of the campaign, as a store takes it."""
    line = b'{"_ts":"%s",%s\n' % (TIME.encode(), record_line(producer, number, size)[1:])
    return Addition([line], 1, TIME, TIME, {producer: number})


class _Chain:
    """The last seal of each stream, as the next one has to name it."""

    def __init__(self) -> None:
        self._seals: dict[str, str] = {}

    def fault_of(self, path: Path, content: bytes) -> str | None:
        header = json.loads(decompressed(path, content).partition(b"\n")[0])
        if "prev" not in header:
            return None
        before = self._seals.get(path.parent.name, "")
        self._seals[path.parent.name] = header["header_sha256"]
        return None if header["prev"] == before else f"names {header['prev']}, not {before}"


def look_at(data: Path) -> Found:
    """What the files say, read by the documented format alone."""
    found = Found()
    chain = _Chain()
    for path in sorted(data.glob("*/[0-9]*")) if data.exists() else []:
        stream = path.parent.name
        content = path.read_bytes()
        if fault := fault_of(path, content):
            found.faults.append(f"{stream}/{path.name}: {fault}")
            continue
        if path.with_name(f"{path.name}.zst").exists():
            found.leftovers.append(path)
            continue  # there compressed too, which counts
        if fault := chain.fault_of(path, content):
            found.faults.append(f"{stream}/{path.name}: {fault}")
        lines = found.lines.setdefault(stream, [])
        first, body = int(path.name[:20]), decompressed(path, content).split(b"\n")[1:-1]
        if first + len(body) - 1 <= len(lines) and first <= len(lines):
            found.leftovers.append(path)
            continue  # a merge left it: the one before holds all of it
        if first != len(lines) + 1:
            found.faults.append(f"{stream}/{path.name}: begins at {first} after {len(lines)}")
        lines += body
    for stream, lines in found.lines.items():
        for line in lines:
            record = json.loads(line)
            if "p" not in record:
                continue  # of a hostile sender, who was promised nothing
            found.numbers.setdefault((stream, record["p"]), []).append(record["n"])
    return found


def recover(
    data: Path, producers: Iterable[Producer], note: Callable[[object], None] = lambda _: None
) -> Found:
    """Recovers a data directory as the daemon does; what is in it then.

    One of the `producers` of each stream goes on with one record more, to see that it can;
    what is given back is from before that. `note` hears what producers would be told.
    """
    before = look_at(data)
    store = Store(data, AtOnce(), LIMITS)
    try:
        return _recover(store, data, before, list(producers), note)
    except OSError as error:
        before.faults.append(f"recovery failed: {error}")
        return before
    finally:
        store.close()


def _recover(
    store: Store,
    data: Path,
    before: Found,
    producers: Sequence[Producer],
    note: Callable[[object], None],
) -> Found:
    faults = before.faults
    for stream, recovery in store.open().items():
        if isinstance(recovery, OSError):
            faults.append(f"{stream}: cannot be recovered: {recovery}")
        else:
            faults += [f"{stream}: recovery says: {damage}" for damage in recovery.damaged]
            faults += [f"{stream}: recovery misses {gap}" for gap in recovery.gaps]
    found = look_at(data)
    if found.lines != before.lines:
        faults.append("recovery changed what is stored")
    faults += [f"{temp}: a temp is left" for temp in data.glob("*/.*")]
    found.faults = faults
    found.known = {each: store.last_durable(*each) for each in producers if each[1][0] != "_"}
    for producer, number in found.known.items():
        note(Durable(producer, number))
    faults += asyncio.run(_go_on(store, data, found, note))
    left = look_at(data)
    if left.leftovers:
        asyncio.run(_clear_up(store))
        cleared = look_at(data)
        faults += [f"after clearing up: {fault}" for fault in cleared.faults]
        faults += [f"{path}: is left after clearing up" for path in cleared.leftovers]
        if cleared.lines != left.lines:
            faults.append("clearing up changed what is stored")
    return found


async def _clear_up(store: Store) -> None:
    """Has a compactor remove what another one left; it finds nothing else to do."""
    async with asyncio.TaskGroup() as tasks:
        committer = Committer(store, CommitLimits(), tasks)
        rewriter = Rewriter(store.data, Pace(math.inf), direct_above=LIMITS.direct_above, level=1)
        limits = CompactionLimits(seal_after=math.inf, seal_small_after=math.inf)
        compactor = Compactor(store, committer, rewriter, limits, AtOnce())
        tasks.create_task(compactor.run())
        await compactor.idle()
        await compactor.stop()
        await committer.close()


async def _go_on(
    store: Store, data: Path, found: Found, note: Callable[[object], None]
) -> list[str]:
    """Sends one record more to each stream; what goes wrong with that."""
    planned = {}
    going_on = {}
    for stream, name in found.known:
        if stream in planned:
            continue
        if not store.is_ready(stream):
            await store.recover_stream(stream)
        number = found.known[stream, name] + 1
        going_on[stream] = Durable((stream, name), number)
        note(Sent((stream, name), number))
        planned[stream] = store.plan(stream, addition(name, number, 5))
    failed = await store.commit(planned)
    for stream, promise in going_on.items():
        if stream not in failed:
            note(promise)
    after = look_at(data)
    faults = [f"{stream}: cannot go on: {error}" for stream, error in failed.items()]
    faults += [f"after going on: {fault}" for fault in after.faults]
    for stream in planned:
        before = found.lines.get(stream, [])
        if after.lines[stream][:-1] != before:
            faults.append(f"{stream}: going on changed what was stored")
    return faults
