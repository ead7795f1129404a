"""What must hold of a data directory, whatever happened to it.

Files are judged by the documented format alone (`walker`), and again by the engine's own
recovery, which is then used to go on.
"""

import asyncio
import functools
import json
import math
import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from structlog.testing import capture_logs

from logengine.disk.directory import AnyDirectory
from logengine.disk.durable_names import DurableNames
from logengine.errors import DataDirectoryIncomplete
from logengine.format.producers import Producer as NumberedProducer
from logengine.store.committer import Committer
from logengine.store.plan import Addition
from logengine.store.settings import CommitConfig, LimitsConfig
from logengine.store.store import Store
from logengine.upkeep.compaction import Compactor
from logengine.upkeep.compaction_plan import CompactionConfig
from logengine.upkeep.retention import Retainer
from logengine.upkeep.rewrite import Pace, Rewriter
from tests.crash.rig.walker import decompressed, fault_of

# Small enough that active segments end, and are evicted, within a few records.
COMMIT = CommitConfig(rewrite_limit=1024, direct_above=700)
LIMITS = LimitsConfig(active_cache=300)
TIME = "2026-11-23T20:00:00.000001Z"
# What is remembered of files, and how large one may be for that.
_SEGMENTS_KNOWN = 4096
_KNOWN_BYTES_MAX = 16384

Producer = tuple[str, str]  # stream and name
MakeRetainer = Callable[[AnyDirectory, DurableNames], Retainer]


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


class Trims(NamedTuple):
    """The oldest segments of a stream may go; where `seals_only`, none but sealed ones."""

    stream: str
    seals_only: bool


class Reads(NamedTuple):
    """A registered cursor: of a stream it holds what is behind `seq`, and nothing before."""

    stream: str
    name: str
    seq: int


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
    trimmed: dict[str, Trims] = field(default_factory=dict)
    read: dict[tuple[str, str], int] = field(default_factory=dict)

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
            case Trims(stream):
                self.trimmed[stream] = event
            case Reads(stream, name, seq):
                self.read[stream, name] = max(seq, self.read.get((stream, name), 0))
            case _:
                pass
        return False

    def broken_by(self, found: "Found") -> list[str]:
        """Which promises do not hold of what was found."""
        broken = list(found.faults)
        gone: dict[str, list[range]] = {}  # of each producer, how many may be gone with the oldest
        for producer, sent in self.sent.items():
            wanted = sorted(set(sent))
            here = found.numbers.get(producer, [])
            known = found.known.get(producer)
            durable = self.durable.get(producer, 0)
            is_trimmed = found.begins.get(producer[0], 1) > 1
            before = 0
            if is_trimmed and here:
                before = bisect_left(wanted, here[0])
            elif is_trimmed:
                before = bisect_right(wanted, durable if known is None else known)
            if here != wanted[before : before + len(here)]:
                broken.append(f"{producer}: stored {here}, sent {wanted}")
                continue
            is_open = is_trimmed and not here and known is None
            at_most = len(wanted) if is_open else before
            gone.setdefault(producer[0], []).append(range(before, at_most + 1))
            last = here[-1] if here else wanted[before - 1] if before else 0
            missing = [n for n in wanted if last < n <= durable]
            if missing:
                broken.append(f"{producer}: {missing} are lost, which were acknowledged")
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
            place = seq - found.begins.get(stream, 1)
            stored = found.lines.get(stream, [])
            if place >= 0 and stored[place : place + 1] != [line]:
                broken.append(f"{stream}:{seq} was shown, and is another one now")
        for stream, first in found.begins.items():
            if first > 1:
                broken += self._broken_by_what_is_gone(found, stream, gone.get(stream, []))
        broken += [
            f"{stream}: begins at {first}, and {name} has read up to {seq}"
            for (stream, name), seq in self.read.items()
            for first in (found.begins.get(stream, 1), found.begins_later.get(stream, 1))
            if first > seq + 1
        ]
        return broken

    def _broken_by_what_is_gone(
        self, found: "Found", stream: str, gone: Sequence[range]
    ) -> Iterator[str]:
        """What is wrong with a stream's beginning, of whose producers so many records are gone."""
        first = found.begins[stream]
        trims = self.trimmed.get(stream)
        if trims is None:
            yield f"{stream}: begins at {first}"
            return
        if not sum(each[0] for each in gone) < first <= sum(each[-1] for each in gone) + 1:
            yield f"{stream}: begins at {first}, and of its producers {gone} are gone"
        if not trims.seals_only:
            return
        if stream not in found.sealed:
            yield f"{stream}: begins at {first} with a segment that is not sealed"


@dataclass
class Found:
    """What is in a data directory, and what is wrong with it."""

    faults: list[str] = field(default_factory=list)
    begins: dict[str, int] = field(default_factory=dict)  # where each stream does
    sealed: set[str] = field(default_factory=set)  # the streams that begin with a sealed segment
    lines: dict[str, list[bytes]] = field(default_factory=dict)
    numbers: dict[Producer, list[int]] = field(default_factory=dict)
    known: dict[Producer, int] = field(default_factory=dict)
    leftovers: list[Path] = field(default_factory=list)
    begins_later: dict[str, int] = field(default_factory=dict)  # once retention has gone on


def record_line(producer: str, number: int, size: int) -> bytes:
    """What a producer of the campaign sends."""
    return b'{"p":"%s","n":%d,"x":"%s"}' % (producer.encode(), number, b"x" * size)


def addition(producer: str, number: int, size: int) -> Addition:
    """A batch of one record of the campaign, as a store takes it."""
    line = b'{"_ts":"%s",%s\n' % (TIME.encode(), record_line(producer, number, size)[1:])
    return Addition([line], 1, TIME, TIME, {_of_this_user(producer): number})


def _of_this_user(producer: str) -> NumberedProducer:
    return NumberedProducer(os.getuid(), producer)


class _Chain:
    """The last seal of each stream, as the next one has to name it."""

    def __init__(self) -> None:
        self._seals: dict[str, str] = {}

    def fault_of(self, header: Mapping[str, Any], begins: int) -> str | None:
        if "prev" not in header:
            return None
        # Where the oldest are gone, one of those may be the one that is named.
        before = self._seals.get(header["stream"], "" if begins == 1 else None)
        self._seals[header["stream"]] = header["header_sha256"]
        is_right = before is None or header["prev"] == before
        return None if is_right else f"names {header['prev']}, not {before}"


class _Segment(NamedTuple):
    """What one file says."""

    fault: str | None
    header: dict[str, Any]
    lines: list[bytes]
    numbers: list[tuple[str, int]]  # of the campaign's own records: the producer, and which


def _segment(stream: str, name: str, content: bytes) -> _Segment:
    path = Path(stream, name)
    if fault := fault_of(path, content):
        return _Segment(fault, {}, [], [])
    line, _, rest = decompressed(path, content).partition(b"\n")
    lines = rest.split(b"\n")[:-1]
    records = map(json.loads, lines)
    # Those of a hostile sender are not numbered: it was promised nothing.
    numbers = [(record["p"], record["n"]) for record in records if "p" in record]
    return _Segment(None, json.loads(line), lines, numbers)


# The trees after two cuts differ in few files.
_known_segment = functools.lru_cache(_SEGMENTS_KNOWN)(_segment)


def _segments_in(data: Path) -> Iterator[tuple[str, str, bool]]:
    """The stream and name of each file, in order, and whether it is there compressed too."""
    for stream in sorted(os.listdir(data)) if data.exists() else []:
        if not os.path.isdir(data / stream):
            continue
        names = {name for name in os.listdir(data / stream) if name[0].isdigit()}
        for name in sorted(names):
            yield stream, name, f"{name}.zst" in names


def look_at(data: Path) -> Found:
    """What the files say, read by the documented format alone."""
    found = Found()
    chain = _Chain()
    for stream, name, is_also_compressed in _segments_in(data):
        path = data / stream / name
        content = path.read_bytes()
        read = _segment if len(content) > _KNOWN_BYTES_MAX else _known_segment
        fault, header, body, numbers = read(stream, name, content)
        if fault:
            found.faults.append(f"{stream}/{name}: {fault}")
            continue
        if is_also_compressed:
            found.leftovers.append(path)
            continue  # there compressed too, which counts
        first = int(name[:20])
        if stream not in found.begins:
            found.begins[stream] = first
            if "prev" in header:
                found.sealed.add(stream)
        if fault := chain.fault_of(header, found.begins[stream]):
            found.faults.append(f"{stream}/{name}: {fault}")
        lines = found.lines.setdefault(stream, [])
        last = found.begins[stream] + len(lines) - 1
        if first + len(body) - 1 <= last and first <= last:
            found.leftovers.append(path)
            continue  # a merge left it: the one before holds all of it
        if first != last + 1:
            found.faults.append(f"{stream}/{name}: begins at {first} after {last}")
        lines += body
        for producer, number in numbers:
            found.numbers.setdefault((stream, producer), []).append(number)
    return found


def recover(
    data: Path,
    producers: Iterable[Producer],
    note: Callable[[object], None] = lambda _: None,
    make_retainer: MakeRetainer | None = None,
) -> Found:
    """Recovers a data directory as the daemon does; what is in it then.

    One of the `producers` of each stream goes on with one record more, to see that it can;
    what is given back is from before that. `note` hears what producers would be told. Then a
    compactor clears up if need be, and retains if it has what for.
    """
    before = look_at(data)
    store = Store(data, AtOnce(), COMMIT, LIMITS)
    try:
        with capture_logs():
            found = _recover(store, data, before, list(producers), note)
        left = look_at(data)
        if left.leftovers or make_retainer is not None:
            retainer = make_retainer(data, store.names) if make_retainer is not None else None
            with capture_logs():
                asyncio.run(_clear_up(store, retainer))
            cleared = look_at(data)
            found.begins_later = cleared.begins
            found.faults += [f"after clearing up: {each}" for each in _spoiled(left, cleared)]
        return found
    except (OSError, DataDirectoryIncomplete) as error:
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
    faults += [f"{temp}: a temp is left" for temp in data.glob("[!.]*/.*")]
    found.faults = faults
    found.known = {
        each: store.last_durable(each[0], _of_this_user(each[1]))
        for each in producers
        if each[1][0] != "_"
    }
    for producer, number in found.known.items():
        note(Durable(producer, number))
    faults += asyncio.run(_go_on(store, data, found, note))
    return found


def _spoiled(before: Found, after: Found) -> Iterator[str]:
    """What is wrong where nothing was sent, and the oldest may have gone."""
    yield from after.faults
    yield from (f"{path}: is left" for path in after.leftovers)
    for stream, lines in before.lines.items():
        gone = after.begins.get(stream, 1) - before.begins[stream]
        if after.lines.get(stream) != lines[gone:]:
            yield f"{stream}: what is stored changed"
        if gone and stream not in after.sealed:
            yield f"{stream}: begins with a segment that is not sealed"


async def _clear_up(store: Store, retainer: Retainer | None) -> None:
    """Has a compactor remove what another one left, and what is kept no longer; nothing else."""
    async with asyncio.TaskGroup() as tasks:
        committer = Committer(store, CommitConfig(), tasks)
        rewriter = Rewriter(
            store.data,
            Pace(math.inf),
            names=store.names,
            direct_above=COMMIT.direct_above,
            level=1,
        )
        config = CompactionConfig(seal_after=math.inf, seal_small_after=math.inf)
        compactor = Compactor(store, committer, rewriter, config, AtOnce(), retainer=retainer)
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
