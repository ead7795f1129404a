"""Calls that fail: once, or for good until somebody mends it.

Of each run it is asked that all records arrive once and in order as soon as the fault is
gone, that the streams it does not touch are served all the while, that a file whose write
or sync failed is never synced again nor given a name, and that the power may be cut at
any point.
"""

import errno
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from logengine.errors import LogEngineError
from tests.crash.rig import cuts, oracle, workload
from tests.crash.rig.cuts import Report
from tests.crash.rig.oracle import Durable, Producer
from tests.crash.rig.recorded import recorded
from tests.crash.rig.system_calls import Attempt

ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.EROFS, errno.EINTR)
SHORT = 0  # no error: a write that takes only part of what it was given
ALL_ERRORS = (*ERRORS, SHORT)
_LACKS_ROOM = {errno.ENOSPC, errno.EDQUOT}
_TAKES_ROOM = {"create", "write", "fsync", "link", "rename", "mkdir"}
_FAILURES_MIN = 3  # of a lasting fault, before it may be mended
_ATTEMPTS_MAX = 3000  # of a run: more means that it runs in circles


def any_call(_attempt: Attempt) -> bool:
    """Whatever is called."""
    return True


def sync_of_stream(attempt: Attempt) -> bool:
    """Whether a call syncs the directory of a stream."""
    name = attempt.path.rpartition("/")[2]
    return attempt.call == "fsync" and attempt.path.count("/") == 1 and name[0] != "."


def sync_of_commit(attempt: Attempt) -> bool:
    """Whether a call syncs the directory of a stream, or a file in it."""
    is_file = attempt.call == "fsync" and attempt.path.endswith(".tmp")
    return sync_of_stream(attempt) or is_file


@dataclass(frozen=True)
class Fault:
    """The call with number `at` fails with `error`; if `lasting`, so do all such after it.

    Numbers begin at 1 and count only the calls that are `among` those meant. So one of them fails
    whatever the order of the other calls, which may differ from run to run.

    A lasting fault holds for the calls of the same stream, and is mended when the other
    streams have everything on disk. A full disk fails what takes room, and is mended too when
    a segment is removed.
    """

    at: int
    error: int
    lasting: bool
    among: Callable[[Attempt], bool] = any_call

    def __str__(self) -> str:
        name = errno.errorcode.get(self.error, "short write")
        kind = self.among.__name__.replace("_", " ")
        return f"{kind} {self.at}: {name}{', lasting' if self.lasting else ''}"


@dataclass
class _FaultyDisk:
    fault: Fault
    wanted: dict[Producer, int]
    stream: str | None = None
    failures: int = 0
    attempts: int = 0
    numbered: int = 0  # of the attempts, those that the fault numbers
    unlink_failed: bool = False
    mended: bool = False
    tainted: set[int] = field(default_factory=set)
    durable: dict[Producer, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def gate(self, attempt: Attempt) -> int | None:
        self.attempts += 1
        assert self.attempts < _ATTEMPTS_MAX, "it tries again and again"
        is_file = attempt.path.endswith((".tmp", ".ndjson", ".ndjson.zst"))
        if (
            is_file
            and attempt.inode in self.tainted
            and attempt.call
            in (
                "write back",
                "fsync",
                "rename",
            )
        ):
            self.wrong.append(f"{attempt.call} of a file whose write or sync had failed")
        if not self._fails(attempt):
            return None
        self.failures += 1
        self.unlink_failed = self.unlink_failed or attempt.call == "unlink"
        if self.fault.error == SHORT:
            # A byte a call, for good, would be a run of thousands of calls.
            return None if attempt.call != "write" else 100 if self.fault.lasting else 1
        if (
            attempt.inode is not None
            and is_file
            and attempt.call
            in (
                "write",
                "write back",
                "fsync",
            )
        ):
            self.tainted.add(attempt.inode)
        raise OSError(self.fault.error, "injected", attempt.path)

    def note(self, event: Any) -> None:
        if isinstance(event, Durable):
            before = self.durable.get(event.producer, 0)
            self.durable[event.producer] = max(before, event.number)

    def _fails(self, attempt: Attempt) -> bool:
        is_numbered = self.fault.among(attempt)
        self.numbered += is_numbered
        if is_numbered and self.numbered == self.fault.at:
            self.stream = _stream_of(attempt.path)
            return True
        if not self.fault.lasting or self.numbered < self.fault.at or self.mended:
            return False
        if self.fault.error in _LACKS_ROOM and attempt.call not in _TAKES_ROOM:
            is_this = attempt.call == "unlink" and _stream_of(attempt.path) == self.stream
            self.mended = is_this and not attempt.path.endswith(".tmp")
            return False
        if not is_numbered:
            return False
        if self.failures >= _FAILURES_MIN and self._others_are_served():
            return False
        return self.stream is None or _stream_of(attempt.path) == self.stream

    def _others_are_served(self) -> bool:
        return self.stream is None or all(
            self.durable.get(producer, 0) >= number
            for producer, number in self.wanted.items()
            if producer[0] != self.stream
        )


def _stream_of(path: str) -> str | None:
    parts = path.split("/")
    return parts[1] if len(parts) > 1 and not parts[1].startswith(".") else None


def faults_of(
    attempts: Sequence[Attempt], source: random.Random, share: float, errors: Sequence[int]
) -> Iterator[Fault]:
    """Every call with every one of `errors`, once and lasting; or a drawn share of those."""
    for attempt in attempts:
        for error in errors:
            for lasting in (False, True):
                if source.random() < share:
                    yield Fault(attempt.number, error, lasting)


def failing_syncs(
    attempts: Sequence[Attempt],
    source: random.Random,
    share: float,
    among: Callable[[Attempt], bool] = sync_of_stream,
) -> Iterator[Fault]:
    """Every sync of a stream's directory, failing once; or a drawn share of those."""
    for at in range(1, sum(map(among, attempts)) + 1):
        if source.random() < share:
            yield Fault(at, errno.EIO, lasting=False, among=among)


def run_with(
    plan: workload.Plan, fault: Fault, source: random.Random, cut: float, kills: float = 0.0
) -> Report:
    """One run under a fault; a share `cut` of the runs is also cut everywhere.

    At a share `kills` of the points of those the process is killed first, and another one
    starts in the same boot.
    """
    wanted = {producer: _last_stored(producer, bursts) for producer, bursts in plan.bursts.items()}
    disk = _FaultyDisk(fault, wanted)
    report = Report(faults=1)
    try:
        with recorded(plan, gate=disk.gate, note=disk.note) as calls:
            promises = oracle.Promises()
            for event in calls.trace:
                promises.take(event)
            temps = [] if disk.unlink_failed else list(calls.data.glob("*/.*"))
            report.violations += [f"{temp} is left" for temp in temps]
            found = oracle.recover(calls.data, plan.bursts, make_retainer=plan.make_retainer)
            report.violations += disk.wrong + promises.broken_by(found)
            report.violations += [
                f"{producer}: only {disk.durable.get(producer)} of {number} arrived"
                for producer, number in wanted.items()
                if disk.durable.get(producer, 0) < number
            ]
    except (LogEngineError, OSError) as error:
        # A daemon that cannot open its data says so and ends; anything later is to be survived.
        if isinstance(error, TimeoutError) or disk.durable:
            report.violations.append(f"the run ended: {error!r}")
        return _named(report, fault)
    except BaseExceptionGroup as error:
        report.violations.append(f"the run ended: {error.exceptions!r}")
        return _named(report, fault)
    except AssertionError as error:  # of the gate, when the store is closed behind all tasks
        report.violations.append(f"the run ended: {error!r}")
        return _named(report, fault)
    if not report.violations and source.random() < cut:
        with cuts.bench(plan.bursts, plan.make_retainer) as bench:
            report += cuts.cut_everywhere(
                calls.trace,
                bench,
                source,
                disk=plan.disk(),
                kills=kills,
                notes_failed_syncs=plan.retention is not None,
            )
    return _named(report, fault)


def _last_stored(producer: Producer, bursts: list[int]) -> int:
    numbers = range(1, sum(bursts) + 1)
    return max((n for n in numbers if not workload.is_refused(producer, n)), default=0)


def _named(report: Report, fault: Fault) -> Report:
    report.violations = [f"{fault}: {violation}" for violation in report.violations]
    return report
