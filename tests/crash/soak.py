"""All of the campaign at random, for as long as you like.

    python -m tests.crash.soak --minutes 60 [--seed SEED] [--round N]

Rounds are drawn from the seed, which is printed. `--round` runs one of them again. Rounds by
model (power cuts, faults, rot, retention, full disks, repairs, erasures, kill points with drawn
threads) are then the same to the last call; those with real processes do the same things to
them, but time is their own.
"""

import contextlib
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from tests.crash.rig.going import cut_goings, dropped, fail_goings, retained
from tests.crash.rig.image import image, missing
from tests.crash.rig.load import Load
from tests.crash.test_bit_rot import all_damages, rot, store_records
from tests.crash.test_erase import cut_erasures, fail_erasures
from tests.crash.test_faults import fail_runs
from tests.crash.test_file_systems import PRODUCERS, cut_under_load
from tests.crash.test_hostile_senders import CONFIG, Fuzz, fuzz
from tests.crash.test_kill_points import kill_runs
from tests.crash.test_power_cut import cut_runs
from tests.crash.test_repair import cut_repairs, fail_repairs, mend
from tests.daemon import Daemon

Round = Callable[[random.Random], list[str]]


def power_cut(source: random.Random) -> list[str]:
    """One drawn run, cut everywhere."""
    seed = source.randrange(2**40)
    streams, records = source.randint(1, 4), source.randint(3, 20)
    retains = source.random() < 0.5
    return cut_runs(
        [seed], streams=streams, records=records, kills=0.05, retains=retains
    ).violations


def faults(source: random.Random) -> list[str]:
    """One drawn run, some of its calls failing."""
    seed = source.randrange(2**40)
    return fail_runs(
        [seed],
        share=0.05,
        cut=0.1,
        records=source.randint(3, 14),
        retains=source.random() < 0.4,
        drops_oldest=source.random() < 0.4,
    ).violations


def kill_points(source: random.Random) -> list[str]:
    """One drawn run, killed at every call."""
    kill_runs(source.randrange(2**40), 1, threads=source.choice([0, 0, 1, 2]), share=0.02)
    return []


def bit_rot(source: random.Random) -> list[str]:
    """Some damaged segments of a small stream."""
    with tempfile.TemporaryDirectory(prefix="logengine-rot-") as root:
        data = Path(root, "data")
        assert not store_records(data, range(1, source.randint(2, 12)))
        damages = all_damages(data)
        return rot(data, source.sample(damages, min(300, len(damages)))).violations


def retention(source: random.Random) -> list[str]:
    """What is to go of drawn streams, cut off and failing."""
    seeds = _seeds(source, 10)
    cut_goings(seeds, retained)
    fail_goings(seeds[:2], retained, cut=0.1)
    return []


def full_disk(source: random.Random) -> list[str]:
    """Drawn streams that drop their oldest, cut off and failing."""
    seeds = _seeds(source, 20)
    cut_goings(seeds, dropped)
    fail_goings(seeds[:5], dropped, cut=0.3)
    return []


def repair(source: random.Random) -> list[str]:
    """Drawn damage, repaired, cut off and failing."""
    seeds = _seeds(source, 10)
    mend(seeds)
    cut_repairs(seeds[:3])
    fail_repairs(seeds[:3])
    return []


def erasure(source: random.Random) -> list[str]:
    """Drawn records erased, cut off and failing."""
    seeds = _seeds(source, 5)
    cut_erasures(seeds)
    fail_erasures(seeds[:1], cut=0.1)
    return []


def hostile_senders(source: random.Random) -> list[str]:
    """Drawn input for one daemon."""
    with tempfile.TemporaryDirectory(prefix="le-") as root:
        return fuzz(Path(root), source, 300).violations


def cut_off(source: random.Random) -> list[str]:
    """A real file system cut off under load."""
    return cut_under_load(source.choice(_kinds()), source, 5).violations


def storm(source: random.Random) -> list[str]:
    """Everything at once, on one data directory: load, hostile senders, kills, a full disk."""
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="le-")))
        kinds = _kinds()
        disk = stack.enter_context(image(source.choice(kinds))) if kinds else None
        data = disk.directory / "data" if disk else root / "data"
        daemon = Daemon(root, CONFIG, data=data)
        stack.callback(daemon.close)
        load = Load(PRODUCERS, source)
        for _ in range(source.randint(2, 6)):
            daemon.start()
            load.start(daemon.socket)
            with _hostile_input(daemon, random.Random(source.random())):
                time.sleep(source.uniform(0.05, 0.5))
                if disk and source.random() < 0.3:
                    with disk.without_space():
                        time.sleep(source.uniform(0.05, 0.5))
                if disk and source.random() < 0.3:
                    disk.cut_off()
                    daemon.kill()
                elif source.random() < 0.7:
                    daemon.kill()
                else:
                    assert daemon.stop() == 0
            load.join()
            if disk:
                disk.unmount()
                disk.mount()
            if violations := load.violations(data):
                return violations
        return []


ROUNDS: list[Round] = [
    power_cut,
    faults,
    kill_points,
    bit_rot,
    retention,
    full_disk,
    repair,
    erasure,
    hostile_senders,
    cut_off,
    storm,
]


def _seeds(source: random.Random, count: int) -> list[int]:
    return [source.randrange(2**40) for _ in range(count)]


def _kinds() -> list[str]:
    return [kind for kind in ("ext4", "xfs") if missing(kind) is None]


@contextlib.contextmanager
def _hostile_input(daemon: Daemon, source: random.Random) -> Iterator[None]:
    over = threading.Event()

    def send() -> None:
        while not over.is_set():
            # The daemon may be gone, or in no state to answer: nobody asks here.
            with contextlib.suppress(OSError):
                Fuzz(daemon, source).gone()

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(60)
        assert not thread.is_alive()


def run_round(seed: int, number: int) -> list[str]:
    """Runs round `number` under `seed`, and tells of it; what was violated."""
    source = random.Random(f"{seed}/{number}")
    kinds = _kinds()
    drawn = source.choice(ROUNDS)
    if drawn is cut_off and not kinds:
        drawn = storm
    began = time.monotonic()
    try:
        violations = drawn(source)
    except AssertionError as error:
        violations = [str(error) or repr(error)]
    took_s = time.monotonic() - began
    print(f"round {number}: {drawn.__name__}, {took_s:.1f} s, {len(violations)} violations")
    sys.stdout.flush()
    return violations


@click.command()
@click.option("--minutes", default=10.0, help="For how long.")
@click.option("--seed", type=int, help="To run the same rounds again.")
@click.option("--round", "only", type=int, help="Just this round.")
def main(minutes: float, seed: int | None, only: int | None) -> None:
    """Runs rounds until the time is over or a promise is broken."""
    if seed is None:
        seed = random.SystemRandom().randrange(10**9)
    print(f"seed {seed}")
    deadline = time.monotonic() + 60 * minutes
    number = only or 1
    while True:
        violations = run_round(seed, number)
        if violations:
            for violation in violations[:10]:
                print(violation)
            print(f"again: python -m tests.crash.soak --seed {seed} --round {number}")
            sys.exit(1)
        if only or time.monotonic() >= deadline:
            return
        number += 1


if __name__ == "__main__":
    main()
