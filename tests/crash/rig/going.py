"""What goes of drawn streams: by retention, as a command or in a daemon, or by a full disk.

Whatever is cut off or fails, what is left is a whole end of the stream, never less of it than
may stay, and a daemon that starts then and compacts leaves it so.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from logengine.disk.segment_file import list_segments
from logengine.store.store import Store
from logengine.store.stream import drop_oldest
from logengine.upkeep.retention_plan import RetentionRules
from logengine.upkeep.verify import verify_stream
from tests.crash.rig import cuts
from tests.crash.rig.drawn_streams import (
    STREAM,
    Case,
    drawn_case,
    findings,
    live,
    newest_seal,
    stored_lines,
)
from tests.crash.rig.oracle import AtOnce
from tests.crash.rig.power_cut import Disk
from tests.crash.rig.retaining import drawn_rules, retainer
from tests.crash.rig.system_calls import Attempt, SystemCalls
from tests.crash.rig.withstanding import (
    Cut,
    Tried,
    cut_everywhere,
    drawn_cases,
    fail_every_call,
    recorded,
    scratch_place,
)
from tests.unnoted import unnoted


@dataclass(frozen=True)
class Going:
    """A case, what is done to it, and up to where records may go at the most.

    With retention that is the newest seal, too, which may come meanwhile.
    """

    case: Case
    work: Callable[[Path], None]
    begins_max: int
    rules: RetentionRules | None = None


def retained(root: Path, source: random.Random) -> Going:
    """Retention, by the command or by a daemon."""
    case, rules = drawn_case(root, source), drawn_rules(source)
    is_held = case.cursor is not None and not rules.keep_free
    begins_max = case.cursor + 1 if case.cursor is not None and is_held else case.next_seq

    def by_command(root: Path) -> None:
        kept = retainer(root / "data", rules, unnoted())
        kept.look()
        while (removal := kept.next_removal()) is not None:
            kept.remove(removal)

    def by_daemon(root: Path) -> None:
        for _ in live(root / "data", rules, random.Random(case.seed)):
            pass  # it is asked again after the cut

    return Going(case, source.choice([by_command, by_daemon]), begins_max, rules)


def dropped(root: Path, source: random.Random) -> Going:
    """A drop of the oldest, for some room."""
    case = drawn_case(root, source)
    wanted_bytes = source.choice([1, 5000, 10**9])

    def drop(root: Path) -> None:
        drop_oldest(root / "data" / STREAM, wanted_bytes, case.next_seq, unnoted())

    return Going(case, drop, case.newest)


def wrong(data: Path, going: Going) -> Iterator[str]:
    """What is not as it may be."""
    case, begins_max = going.case, going.begins_max
    yield from findings(data) - case.findings
    left = stored_lines(data)
    begins = min(left, default=case.next_seq)
    if left != {seq: line for seq, line in case.lines.items() if seq >= begins}:
        yield f"what is left is {sorted(left)}, of {sorted(case.lines)}"
    if going.rules is not None:
        begins_max = min(begins_max, max(newest_seal(data / STREAM), min(case.lines, default=1)))
    if any(begins_max <= seq < begins for seq in case.lines):
        yield f"begins at {begins}, and may at {begins_max}"


def after(root: Path, going: Going, seed: float) -> Iterator[str]:
    """What is wrong, also once a daemon has started and compacted."""
    data = root / "data"
    yield from wrong(data, going)
    started = list(live(data, going.rules, random.Random(seed)))
    if not going.case.findings:
        yield from started
    for each in wrong(data, going):
        yield f"after a start: {each}"
    store = Store(data, AtOnce())
    try:
        with capture_logs():
            recovery = store.open()[STREAM]
        assert not isinstance(recovery, OSError)
        if recovery.state.next_seq < going.case.next_seq:
            yield f"{recovery.state.next_seq} would be given out again"
    finally:
        store.close()


Make = Callable[[Path, random.Random], Going]


def cut_goings(seeds: Iterable[int], make: Make, *, states_max: int | None = None) -> Tried:
    """Cuts what is drawn for each seed everywhere, with at most `states_max` states for a cut."""
    tried = Tried()
    with scratch_place() as place:
        for source, going, root in drawn_cases(place, seeds, make):
            trace = recorded(root, going.case.tree, going.work).trace
            tried += Tried(1, _cut_one(place, going, trace, source, states_max))
    return tried


def fail_goings(
    seeds: Iterable[int], make: Make, cut: float, *, states_max: int | None = None
) -> Tried:
    """Lets each call of what is drawn for each seed fail once.

    Where that is a sync, and of a share `cut` of the others, all is cut everywhere, with at most
    `states_max` states for a cut.
    """
    total = Tried()
    with scratch_place() as place:
        for source, going, _ in drawn_cases(place, seeds, make):
            total += _fail_one(place, going, source, cut, states_max)
    return total


def _cut_one(
    place: Path,
    going: Going,
    trace: Sequence[Any],
    source: random.Random,
    states_max: int | None,
) -> int:
    def judge(cut: Cut) -> Iterator[str]:
        return after(cut.root, going, cut.source.random())

    return cut_everywhere(place, going.case.tree, trace, source, judge, states_max=states_max)


def _fail_one(
    place: Path, going: Going, source: random.Random, cut: float, states_max: int | None
) -> Tried:
    tried = Tried(1)

    def judge(root: Path, calls: SystemCalls, at: Attempt) -> Iterator[str]:
        yield from after(root, going, source.random())
        if at.call == "fsync" or source.random() < cut:
            tried.trees += _cut_one(place, going, calls.trace, source, states_max)

    # Whoever does it once more cannot know what the sync that failed has lost.
    tried.failing_calls += fail_every_call(
        place,
        going.case.tree,
        going.work,
        source,
        judge,
        again=False,
    )
    return tried


def broken_by_cuts(calls: SystemCalls, since: str, newest: int) -> Iterator[str]:
    """What is wrong after any cut `since` that note, from when on segment `newest` is durable."""
    disk, source, has_begun = Disk(), random.Random(1), False
    with cuts.bench([]) as bench:
        for event in calls.trace:
            has_begun = has_begun or event == since
            if not disk.apply(event) or not has_begun:
                continue
            for tree in disk.states(source):
                directory = bench.make(tree) / "data" / STREAM
                yield from (str(f) for f in verify_stream(directory) if not f.harmless)
                if list_segments(directory)[-1] != newest:
                    yield "the newest is gone"
