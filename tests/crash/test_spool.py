"""A client's spool: killed at any call, failing at any call, and cut off from power anywhere.

After each of them one more process of the same producer finds what is left, and everything
that was promised is with the daemon once and in order.
"""

import contextlib
import copy
import errno
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from logengine.client.outbox import NEVER_SENT, Chunk, Numbering
from logengine.client.spool import Spool
from logengine.errors import DamagedSegment, LogEngineError
from tests.client_life import Life, World, last_life
from tests.crash.rig.cuts import SCRATCH
from tests.crash.rig.kill_points import in_a_process
from tests.crash.rig.power_cut import Disk
from tests.crash.rig.seed import SEED
from tests.crash.rig.system_calls import Attempt, Gate, SystemCalls

ACTIONS = 60
ENDS_WELL = 0.3
CUTS_PER_POINT_MAX = 6


def seeds(count: int, *, campaign_from: int) -> list[Any]:
    """That many seeds, those from the place `campaign_from` on for the campaign."""
    marks = [[pytest.mark.campaign] if place >= campaign_from else [] for place in range(count)]
    return [pytest.param(SEED + place, marks=marks[place]) for place in range(count)]


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="logengine-spool-", dir=SCRATCH) as name:
        yield Path(name)


def is_numbered(seed: int) -> bool:
    """Whether the application of `seed` numbers its records and goes on behind `resumed_at`."""
    return seed % 2 == 0


def lives(
    root: Path, world: World, source: random.Random, *, numbered: bool, note: Callable[[Any], None]
) -> None:
    """Two processes, which may end well."""
    for _ in range(2):
        life = Life(root, world, source, numbered=numbered, note=note)
        try:
            life.live(ACTIONS)
            if source.random() < ENDS_WELL:
                life.leave()
                continue
        except LogEngineError:
            pass  # the client ended, and with it the process
        life.delivery.forget()
        world.daemon.disconnect(source)
        note(world)


def killed_at(number: int, note: Callable[[Any], None], torn: int) -> Gate:
    def gate(attempt: Attempt) -> int | None:
        if attempt.number == number and attempt.call == "write":
            return torn
        if attempt.number >= number:
            note("killed")
            os._exit(0)
        return None

    return gate


def lives_until(number: int, seed: int, root: Path) -> list[Any]:
    """What is heard of the lives of `seed` whose process is killed at call `number`."""

    def work(note: Callable[[Any], None]) -> None:
        source = random.Random(seed)
        gate = killed_at(number, note, torn=random.Random(number).randint(0, 60))
        with SystemCalls(root, gate=gate).taken():
            lives(root, World(), source, numbered=is_numbered(seed), note=note)

    return in_a_process(root, work)


@pytest.mark.parametrize("seed", seeds(4, campaign_from=2))
def test_a_kill_at_any_call_loses_and_doubles_nothing(seed: int) -> None:
    kills = 0
    for number in range(1, 10_000):
        with scratch() as root:
            events = lives_until(number, seed, root)
            worlds = [event for event in events if isinstance(event, World)]
            world = worlds[-1] if worlds else World()
            source = random.Random(number)
            world.daemon.disconnect(source)
            found = last_life(root, world, source, numbered=is_numbered(seed))
            assert found == [], (seed, number)
        if events[-1] != "killed":
            break
        kills += 1
    assert kills > 20


class Failing:
    """A gate at which one call fails."""

    def __init__(self, number: int, error: int) -> None:
        self._number = number
        self._error = error
        self.has_failed = False

    def __call__(self, attempt: Attempt) -> None:
        if attempt.number == self._number:
            self.has_failed = True
            raise OSError(self._error, "injected", attempt.path)


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_failure_of_any_call_loses_and_doubles_nothing(error: int) -> None:
    failures = 0
    for seed in range(SEED, SEED + 3):
        for number in range(1, 10_000):
            source = random.Random(seed)
            world = World()
            gate = Failing(number, error)
            with scratch() as root:
                # A spool that cannot be opened is the application's to hear of.
                unheard = contextlib.suppress(OSError, DamagedSegment)
                with SystemCalls(root, gate=gate).taken(), unheard:
                    lives(root, world, source, numbered=is_numbered(seed), note=lambda _: None)
                world.daemon.disconnect(source)
                found = last_life(root, world, source, numbered=is_numbered(seed))
                assert found == [], (seed, number)
            if not gate.has_failed:
                break
            failures += 1
    assert failures > 100


def cut_everywhere(seed: int) -> tuple[int, list[str]]:
    """How many trees were tried, and what was wrong with one."""
    source = random.Random(seed)
    numbered = is_numbered(seed)
    with scratch() as root:
        calls = SystemCalls(root)
        with calls.taken():
            lives(
                root,
                World(),
                source,
                numbered=numbered,
                note=lambda world: calls.note(copy.deepcopy(world)),
            )
    trees, found = cut_from(calls.trace, 0, source, numbered=numbered)
    return trees, [f"seed {seed}, {each}" for each in found]


def cut_from(
    trace: Sequence[Any], begin: int, source: random.Random, *, numbered: bool
) -> tuple[int, list[str]]:
    """Cuts the power anywhere behind event `begin`; how many trees were tried, what is wrong."""
    disk, world, trees = Disk(), World(), 0
    for position, event in enumerate(trace):
        if isinstance(event, World):
            world = event
        elif not disk.apply(event):
            continue
        if position < begin:
            continue
        states = list(disk.states(source))
        for tree in source.sample(states, min(len(states), CUTS_PER_POINT_MAX)):
            trees += 1
            with scratch() as root:
                for path, content in sorted(tree.items()):
                    if content is None:
                        (root / path).mkdir()
                    else:
                        (root / path).write_bytes(content)
                after = copy.deepcopy(world)
                after.daemon.disconnect(source)
                found = last_life(root, after, source, numbered=numbered)
            if found:
                return trees, [f"cut after {str(event)[:90]}: {found[0]}"]
    return trees, []


def test_a_power_cut_anywhere_loses_and_doubles_nothing() -> None:
    tried = [cut_everywhere(seed) for seed in range(SEED, SEED + 20)]
    assert [found for _, found in tried if found] == []
    assert sum(trees for trees, _ in tried) > 1000


class Killed(BaseException):
    """The process is gone: nothing that it had still to do is done."""


class SyncFailsThenKill:
    """A gate at which the sync of a directory with number `at` fails, and all after it is not.

    With `revive` another process goes on.
    """

    def __init__(self, at: int) -> None:
        self._at = at
        self._syncs = 0
        self.has_failed = False
        self._is_alive = True

    def __call__(self, attempt: Attempt) -> None:
        if not self._is_alive:
            raise Killed
        is_of_directory = not attempt.path.endswith((".tmp", ".ndjson", ".json", ".lock"))
        if attempt.call != "fsync" or not is_of_directory or not attempt.path:
            return
        self._syncs += 1
        if self._syncs == self._at:
            self.has_failed = True
            self._is_alive = False
            raise OSError(errno.EIO, "injected", attempt.path)

    def revive(self) -> None:
        self._is_alive = True


def lives_after_a_failed_sync(seed: int, at: int, root: Path) -> tuple[list[Any], int] | None:
    """The events of two processes, and where those of the second begin; None if no sync failed."""
    source = random.Random(seed)
    numbered = is_numbered(seed)
    world = World()
    gate = SyncFailsThenKill(at)
    calls = SystemCalls(root, gate=gate)

    def note(world: World) -> None:
        calls.note(copy.deepcopy(world))

    with calls.taken():
        begun: list[Life] = []

        def begin_life() -> Life:
            begun.append(Life(root, world, source, numbered=numbered, note=note))
            return begun[-1]

        try:
            for _ in range(2):
                life = begin_life()
                life.live(ACTIONS)
                life.delivery.forget()
                world.daemon.disconnect(source)
                note(world)
        except (Killed, LogEngineError, OSError):
            pass
        if not gate.has_failed:
            return None
        for life in begun:
            life.delivery.forget()
        world.daemon.disconnect(source)
        note(world)
        gate.revive()
        begin = len(calls.trace)
        with contextlib.suppress(LogEngineError):
            life = begin_life()
            life.live(ACTIONS)
            if source.random() < ENDS_WELL:
                life.finish()
        begun[-1].delivery.forget()
        return calls.trace, begin


@pytest.mark.parametrize("seed", seeds(4, campaign_from=1))
def test_what_a_failed_sync_lost_is_written_again_before_a_power_cut(seed: int) -> None:
    failures = trees = 0
    for at in range(1, 1000):
        with scratch() as root:
            lived = lives_after_a_failed_sync(seed, at, root)
        if lived is None:
            break
        failures += 1
        cut, found = cut_from(*lived, random.Random(at), numbered=is_numbered(seed))
        trees += cut
        assert found == [], (seed, at)
    assert failures > 5
    assert trees > 100


def test_a_disk_with_no_room_for_a_second_copy_keeps_nobody_from_starting() -> None:
    def full(attempt: Attempt) -> None:
        if is_full and attempt.call == "create" and attempt.path.endswith(".tmp"):
            raise OSError(errno.ENOSPC, "injected", attempt.path)

    is_full: list[bool] = []
    told: list[str] = []
    chunk = Chunk(1, 1, b'{"id":1}\n')
    with scratch() as root, SystemCalls(root, gate=full).taken():
        spool = Spool.open(root / "spool", "s", "p")
        spool.add([chunk], NEVER_SENT)
        spool.close()
        is_full.append(True)
        spool = Spool.open(root / "spool", "s", "p", tell_damage=told.append)
        assert spool.read(1) == chunk
        spool.close()
    (line,) = told
    assert "injected" in line
    assert "a power cut may lose" in line


def _without_boundary(self: Spool) -> Numbering:
    return Numbering(self._stored.numbering.offset) if self._segments else Numbering()


def _numbering_forgotten(self: Spool, numbering: Numbering) -> None:
    self._stored = self._stored.__class__(
        self._stored.stream, self._stored.producer, self._stored.adoptable, numbering
    )
    self._is_stored = True


MUTANTS: dict[str, tuple[str, Any]] = {
    "what is new is taken for what was sent": ("numbering", property(_without_boundary)),
    "the numbering is not kept": ("keep_numbering", _numbering_forgotten),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_lives_would_show_it(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks the spool in one place, and finds it."""
    monkeypatch.setattr(Spool, *MUTANTS[mutant])
    for seed in range(400):
        source = random.Random(seed)
        with scratch() as root:
            world = World()
            try:
                lives(root, world, source, numbered=False, note=lambda _: None)
                if last_life(root, world, source, numbered=False):
                    return
            except LogEngineError:
                return
    pytest.fail("nothing was found")
