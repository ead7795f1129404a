"""One run of a scenario: the daemon, its disk, its senders, and the events that hit them."""

import asyncio
import errno
import gc
import logging
import os
import random
import secrets
import select
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from logengine.daemon import daemon, open_store, service, sockets, upkeep
from logengine.disk import atomic, file_system, writes
from logengine.disk.commit_way import CommitWay
from logengine.disk.registered_cursors import CURSORS_NAME
from logengine.errors import DataDirectoryReplaced, DataDirectoryUnseen, LogEngineError
from logengine.format.record import Peer
from logengine.intake import connection, poller, server
from logengine.intake.quota import Admitted
from logengine.intake.quota_gate import QuotaGate
from logengine.intake.server import Server
from logengine.intake.shares import PRIVILEGED
from logengine.reading import follower as follower_module
from logengine.store import store as store_module
from logengine.store.committer import Committer
from logengine.store.writers_ahead import WriterAhead
from logengine.upkeep import retention, rewrite
from logengine.upkeep.compaction import Compactor
from logengine.upkeep.retention_clock import RetentionClock
from tests.simulation.calls import Fault, Latency, Space, SystemCalls, is_segment
from tests.simulation.clock import Kernel, Process, Thread, current_thread
from tests.simulation.coverage import Coverage, State
from tests.simulation.disk import Directory, Inode
from tests.simulation.inotify import Notifications
from tests.simulation.loop import SimulatedExecutor, SimulatedLoop
from tests.simulation.oracle import Oracle, Segment, Violation
from tests.simulation.readers import Follows, Reader
from tests.simulation.scenario import ERRORS, PATIENT_S, STREAMS, Event, Scenario
from tests.simulation.senders import ANSWERED, ASKING, NAMELESS, Outside, Sender
from tests.simulation.sockets import End, Epoll, Listener, Network

_WALL_NS = 1_795_000_000_000_000_000
_RESTART_S = 0.003
_STEPS_MAX = 3_000_000
# Errors that say that the data directory cannot be examined.
_OF_PLACE = (DataDirectoryReplaced, DataDirectoryUnseen)
_REASONS = [os.strerror(each) for each in ERRORS]
_STORED_TIMES = 8
_FOLLOWED_S = 1.0  # after this time a follower has shown everything
_SYNCS_OF_A_COMMIT = 4  # the file's, the directory's, a new stream's, and one waited for
_CALM_S = 120.0  # within this time after the last failure everything is acknowledged
_CRITICAL = frozenset({"create", "write", "fsync", "replace", "sync directory"})
_MODULES = [m for name, m in sorted(sys.modules.items()) if name.startswith("logengine.")]
# Default arguments that are clocks were bound to the real clock at definition.
_CLOCKS = [
    each.__init__ for each in (Server, Compactor, rewrite.Pace, retention.Retainer, RetentionClock)
]


@dataclass
class Counts:
    """Counts of what happened, in one run or in many."""

    runs: int = 0
    events: int = 0
    calls: int = 0
    commits: int = 0
    batches: int = 0
    records: int = 0
    acks: int = 0
    kills: int = 0
    cuts: int = 0
    stops: int = 0
    out_of_time: int = 0  # stops that ran out of time
    restarts: int = 0
    reads: int = 0
    shown: int = 0
    merges: int = 0
    seals: int = 0
    removed: int = 0
    dropped: int = 0
    over_quota: int = 0
    fenced: int = 0
    failures: int = 0
    simulated_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Counts") -> None:
        """Adds the counts of another run."""
        for name, value in vars(other).items():
            if isinstance(value, Counter):
                getattr(self, name).update(value)
            else:
                setattr(self, name, getattr(self, name) + value)


class _Log:
    """Replaces the engine's loggers."""

    def __init__(self, heard: Callable[[str, str, dict[str, Any]], None]) -> None:
        self._heard = heard

    def __getattr__(self, level: str) -> Callable[..., None]:
        def say(event: str, **fields: Any) -> None:
            self._heard(level, event, fields)

        return say


class _Lock:
    """A lock of simulated threads."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._is_taken = False

    def __enter__(self) -> None:
        while self._is_taken:
            self._kernel.sleep(1e-5)
        self._is_taken = True

    def __exit__(self, *_: object) -> None:
        self._is_taken = False


class _Flag:
    """`threading.Event` in simulated time."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True

    def wait(self, timeout: float) -> bool:
        until = self._kernel.now + timeout
        while not self._is_set and (left := until - self._kernel.now) > 0:
            self._kernel.sleep(min(left, 0.005))
        return self._is_set


class Life:
    """One daemon, from start to exit."""

    def __init__(self, world: "World") -> None:
        self.world = world
        scenario = world.scenario
        self.process = Process(world.kernel)
        self.process.on_end.append(self._gone)
        self.loop = SimulatedLoop(self.process, scenario.turn_s, world.on_loop_error)
        self.committer: Committer | None = None
        self.server: Server | None = None
        self.compactor: Any = None
        self.is_stopping = False
        self.recovered: list[str] = []
        self.known_at_stop: list[str] = []  # the streams whose end the daemon knew
        self.has_moved = False  # the data directory could not be used for a while
        self.failed_logs: Counter[str] = Counter()
        self.told: dict[str, str] = {}  # the reason of each failing stream
        self.dropped: Counter[str] = Counter()  # records, by quotas
        self.told_over_quota: Counter[str] = Counter()
        self.ran_out = False  # its stop ran out of time
        # The removed segments: stream, name, first and last number.
        self.trimmed: list[tuple[str, str, int, int]] = []
        self.retention_removed: tuple[str, str] | None = None  # the last one
        self.told_removed: set[tuple[str, str]] = set()
        # From which number to which, for each stream: what a full disk removed, or was about to.
        self.told_dropped: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        self.told_dropping: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        self.injected: Counter[str] = Counter()
        self.outcome: BaseException | str | None = None
        main = Thread(self.process, self._main)
        main.role = "main"
        main.start(0.0)

    def _main(self) -> None:
        world, config = self.world, self.world.scenario.config
        executor: Any = SimulatedExecutor(self.process, config.commit.threads, "commit")
        small: Any = SimulatedExecutor(self.process, 2, "commit")
        compacting: Any = SimulatedExecutor(self.process, 1, "compact")
        try:
            with open_store.opened_store(config, executor, small) as store:
                self.recovered = store.ready_streams()
                world.network.loop = self.loop
                world.listener.loop = self.loop
                inherited = world.scenario.inherits_listener
                listener: Any = world.listener
                listeners: list[sockets.Listening] = [
                    _Listening(listener, config.listen[0], inherited=inherited)
                ]
                self.loop.run_until_complete(
                    daemon.serve(config, {}, store, compacting, None, listeners)
                )
                self._wait_for_threads("default")  # as a loop does when it is closed
                self.known_at_stop = store.ready_streams()
            self._wait_for_threads("commit", "compact")
            self.outcome = "stopped"
        except (OSError, LogEngineError) as error:
            self.outcome = error
        except Exception as error:  # noqa: BLE001 - any exception is a fault of the daemon
            self.outcome = error
            world.violate(Violation("the daemon ended", repr(error)))
        world.kernel.after(0.0, lambda: world.on_ended(self))

    def _wait_for_threads(self, *roles: str) -> None:
        while any(thread.role in roles for thread in self.process.threads):
            self.world.kernel.sleep(1e-4)

    def stop(self) -> None:
        """SIGTERM."""
        self.is_stopping = True
        self.loop.signal(signal.SIGTERM)

    def hear_of_removals(self, event: str, fields: dict[str, Any]) -> None:
        """Notes the segments and records that the log reports as permanently removed."""
        match event:
            case "segment_removed":
                self.told_removed.add((fields["stream"], fields["segment"]))
            case "oldest_segments_dropped":
                self.told_dropped[fields["stream"]].append((fields["first"], fields["last"]))
            case "dropping_oldest_segments":
                self.told_dropping[fields["stream"]].append((fields["first"], fields["last"]))
            case "over_quota":
                self.told_over_quota[fields["stream"]] += fields["records"]

    def _gone(self) -> None:
        """Drops everything that this daemon was about to do."""
        for task in asyncio.all_tasks(self.loop._as_loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            with suppress(BaseException):
                task.get_coro().close()


class World:
    """The run of one scenario. `run` raises `Violation` if a promise was broken."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.counts = Counts(runs=1)
        self.coverage = Coverage()
        self.violation: Violation | None = None
        seed = scenario.seed
        self.kernel = Kernel(random.Random(f"kernel {seed}"))
        self.calls = SystemCalls(
            self.kernel,
            random.Random(f"calls {seed}"),
            Latency(scenario.sync_s, scenario.call_s, scenario.spread, dict(scenario.slow_streams)),
            has_journal=scenario.has_journal,
        )
        self.calls.set_faults(scenario.fresh_faults())
        self.calls.space = scenario.fresh_spaces()
        self.calls.short_writes = scenario.short_writes
        self.calls.on_fault = self._on_fault
        self._clock_step_ns = 0
        self.calls.wall_ns = self._wall_ns
        self.oracle = Oracle(lambda: self.calls.disk, scenario.trims, scenario.keeps_what_is_unread)
        self.oracle.on_trimmed = self._on_trimmed
        disk = self.calls.disk
        # A newly created file system has this directory, so its root is not empty.
        disk.mkdir(disk.root, "lost+found")
        disk.root.sync(disk.changes)
        disk.on_name = self.guarded(self._on_name)
        self.network = Network(self.kernel, random.Random(f"network {seed}"), scenario.network_s)
        self.network.on_taken = lambda _: None
        self.listener = Listener(self.network)
        self._cuts = random.Random(f"cuts {seed}")
        self.life: Life | None = None
        self.is_over = False
        self._opens_ahead: Thread | None = None
        self._is_calm = False
        self._is_through = False  # everything is acknowledged, and the daemon was told to stop
        self._restart_is_due = False
        self._readers: list[Reader] = []
        self._followers: list[Follows] = []
        self.notifications = Notifications(
            self.calls.look_up, lambda call: self.kernel.after(self.network.delay_s(), call)
        )
        self.calls.on_change = self.notifications.tell
        self.log: list[tuple[float, str, str, dict[str, Any]]] = []
        self.outside = Outside(
            self.kernel,
            self.network,
            self.listener,
            self.oracle,
            self.guarded,
            int(scenario.config.limits.max_record),
            scenario.buffer_bytes,
        )
        self.outside.is_listening = scenario.inherits_listener
        # Half a hello is half a record of the socket's own stream.
        self.oracle.odd_lines_allowed.add(scenario.config.listen[0].stream)
        for plan in scenario.senders:
            if plan.kind in (NAMELESS, ANSWERED):
                self.oracle.odd_lines_allowed.add(plan.stream)
        self.senders = [Sender(plan, self.outside, f"{seed}") for plan in scenario.senders]

    # Running ------------------------------------------------------------------------------

    def run(self) -> None:
        """The whole scenario. Raises `Violation`."""
        with self._entered():
            try:
                self._run()
            finally:
                self.counts.events = self.kernel.events
                self.counts.calls = self.calls.count
                self.counts.acks = self.oracle.acks
                self.counts.simulated_s = self.kernel.now
                self.counts.fenced = sum(sender.fenced for sender in self.senders)
                if self.life is not None:
                    self._end_life(self.life)
                self._end_readers()

    def _run(self) -> None:
        self._start()
        for event in self.scenario.events:
            self.kernel.at(event.at_s, lambda event=event: self._happen(event))  # type: ignore[misc]
        self.kernel.at(self.scenario.ends_s, self._calm)
        kernel = self.kernel
        steps = 0
        while not self.is_over:
            if self.violation is not None:
                raise self.violation
            try:
                if not kernel.step():
                    raise Violation("stuck", "nothing is to happen any more")
            except Violation as violation:
                raise violation from None
            steps += 1
            if steps > _STEPS_MAX:
                raise Violation("busy for ever", f"after {kernel.now:.3f} s")
        if self.violation is not None:
            raise self.violation

    def violate(self, violation: Violation) -> None:
        """Notes a broken promise where the code under test would catch an exception."""
        if self.violation is None:
            self.violation = violation

    def guarded(self, call: Callable[..., Any]) -> Callable[..., None]:
        """Wraps `call` for places where the engine would catch what it raises."""

        def guarded_call(*args: Any) -> None:
            try:
                call(*args)
            except Violation as violation:
                self.violate(violation)

        return guarded_call

    def _start(self) -> None:
        self._restart_is_due = False
        if self.life is not None or self.is_over:
            return
        self.counts.restarts += 1
        self.outside.lives += 1
        if not self.scenario.inherits_listener:
            self.listener = self.outside.listener = Listener(self.network)
        self.network.forget_closed()
        self.life = Life(self)
        self.outside.daemon = self.life.process

    def _restart_soon(self) -> None:
        if not self._restart_is_due and not self.is_over:
            self._restart_is_due = True
            self.kernel.after(_RESTART_S * self._cuts.random() * 2, self._start)

    def _end_life(self, life: Life) -> None:
        self._count(life)
        life.process.end()
        self.calls.release(life.process)
        keeps = self.listener if self.scenario.inherits_listener else None
        self.listener.loop = None
        self.network.loop = None
        if keeps is None:
            self.outside.is_listening = False
        self.network.end_of(life.process, keeps)
        self.life = None

    def _count(self, life: Life) -> None:
        if life.committer is not None:
            totals = life.committer.totals
            self.counts.batches += totals.batches
            self.counts.records += totals.records
            self.counts.failures += totals.failures
            self.counts.dropped += totals.dropped_records
        self.counts.over_quota += life.dropped.total()
        if life.compactor is not None:
            self.counts.merges += life.compactor.totals.merges
            self.counts.seals += life.compactor.totals.seals
            self.counts.removed += life.compactor.totals.removed

    def on_ended(self, life: Life) -> None:
        """A daemon's main thread has returned."""
        if self.life is not life or self.is_over:
            return
        left = self.calls.descriptors(life.process)
        was_asked = life.is_stopping
        outcome = life.outcome
        self._end_life(life)
        if outcome == "stopped":
            if not was_asked:
                raise Violation("the daemon ended", "nobody asked for it")
            if left and not life.has_moved:  # a directory may just be opened in its place
                raise Violation("descriptors left", f"{left} are open after a stop")
            self._hold_failures(life)
            self._hold_temps(life)
            self._hold_removed(life)
            if not life.ran_out:
                self.oracle.dropped_and_told += life.dropped
            self.oracle.look_at_all("after a stop")
            if self._is_through:
                self.kernel.after(_FOLLOWED_S, lambda: self._finish(life.known_at_stop))
                return
        elif self._is_calm:
            raise Violation("the daemon ended", f"nothing fails, and it says: {outcome!r}")
        self._restart_soon()

    # Events -------------------------------------------------------------------------------

    def _happen(self, event: Event) -> None:  # noqa: PLR0912 - one case for each kind
        life = self.life
        match event.kind:
            case "kill":
                if life is not None:
                    self.counts.kills += 1
                    self._end_life(life)
                    self._hold_removed_until_killed(life)
                    self.oracle.look_at_all("after a kill")
                    self._restart_soon()
            case "cut":
                self._cut()
            case "stop":
                if life is not None and life.committer is not None and not life.is_stopping:
                    self.counts.stops += 1
                    life.stop()
            case "clock":
                self._clock_step_ns += int(event.value * 1e9)
            case "read":
                self._read(STREAMS[event.target])
            case "cursor":
                self._register(STREAMS[event.target], int(event.value))
            case "follow":
                self._follow()
            case "rival":
                self._sender(event.target, Sender.rival)
            case "hang up":
                self._sender(event.target, Sender.hang_up)
            case "refuse to accept":
                self.listener.accept_errors += 1
                if self.listener.loop is not None:
                    self.listener.loop.look()
            case _:
                raise ValueError(event.kind)

    def _happen_unless_calm(self, event: Event) -> None:
        if not self._is_calm:
            self._happen(event)

    def _sender(self, number: int, call: Callable[[Sender], None]) -> None:
        for sender in self.senders:
            if sender.plan.number == number and sender.plan.kind not in (NAMELESS, ASKING):
                call(sender)

    def _cut(self) -> None:
        self.counts.cuts += 1
        if (life := self.life) is not None:
            self._end_life(life)
            self._hold_removed_until_killed(life)
        self._end_readers()
        self.calls.disk = self.calls.disk.after_cut(self._cuts)
        self.calls.boot_id = f"boot-{self.counts.cuts + 1}"
        self.oracle.forget_reading()
        self.oracle.look_at_all("after a power cut", is_cut=True)
        self._restart_soon()

    def _end_readers(self) -> None:
        self.counts.shown += sum(follower.shown for follower in self._followers)
        readers: list[Reader | Follows] = [*self._readers, *self._followers]
        for each in readers:
            each.end()
            self.calls.release(each.process)
        self._readers.clear()
        self._followers.clear()
        self.notifications.forget_all()

    def _read(self, stream: str) -> None:
        """Starts a reader of a stream now."""
        self._readers.append(
            Reader(
                self.kernel,
                stream,
                self.violate,
                self._reader_ended,
                may_report=self._reads_fail or self.scenario.trims(stream),
            )
        )

    def _reader_ended(self, reader: Reader) -> None:
        self.counts.reads += 1
        if reader in self._readers:
            self._readers.remove(reader)
            self.calls.release(reader.process)

    def _register(self, stream: str, seq: int) -> None:
        """Registers a cursor, at once and durably: what comes after `seq` is to be kept."""
        disk = self.calls.disk
        data = disk.root.sure.get("data")
        if not isinstance(data, Directory):
            return  # no daemon has started in it
        if CURSORS_NAME not in data.entries:
            disk.mkdir(data, CURSORS_NAME)
        directory = data.entries[CURSORS_NAME]
        assert isinstance(directory, Directory)
        begins = self.oracle.begins(stream)
        name = f"reader-{len(directory.entries)}"
        cursor = disk.create(directory, name, 0o644)
        disk.write(cursor, 0, b"%s:%d\n" % (stream.encode(), max(seq, begins)))
        cursor.durable = cursor.content
        directory.sync(disk.changes)
        data.sync(disk.changes)
        reached = max(seq, begins)
        # A removal in progress may not have seen it.
        self.kernel.after(
            50 * self.scenario.sync_s * self.scenario.spread,
            lambda: self.oracle.cursors.setdefault(stream, []).append(reached),
        )

    def _follow(self) -> None:
        """Starts a follower of all streams now."""
        scenario = self.scenario
        self._followers.append(
            Follows(
                self.kernel,
                self.oracle,
                self.violate,
                scenario.turn_s,
                may_report=self._reads_fail or any(map(scenario.trims, STREAMS)),
                trims=scenario.trims,
            )
        )

    @property
    def _reads_fail(self) -> bool:
        return any(
            fault.errno and fault.calls & {"open", "read", "list", "stat"}
            for fault in self.scenario.faults
        )

    # The end ------------------------------------------------------------------------------

    def _calm(self) -> None:
        """From here on nothing fails: everything must be acknowledged soon."""
        self.calls.set_faults([])
        self.calls.space.clear()
        self.calls.short_writes = 0.0
        self._is_calm = True
        for sender in self.senders:
            for other in list(sender.others):
                other.hang_up()
        if self.life is None:
            self._restart_soon()
        deadline_s = self.kernel.now + self._calm_s
        self._wait_for_all(deadline_s)

    @property
    def _calm_s(self) -> float:
        """The time limit for acknowledging everything once nothing fails, each record alone."""
        scenario = self.scenario
        slowest_s = max([scenario.sync_s, *(sync_s for _, sync_s in scenario.slow_streams)])
        records = sum(plan.records for plan in scenario.senders)
        return _CALM_S + records * _SYNCS_OF_A_COMMIT * slowest_s * (1 + scenario.spread)

    def _wait_for_all(self, deadline_s: float) -> None:
        life = self.life
        if life is not None and not life.is_stopping and self._all_done(life):
            self._is_through = True
            self._hold_nothing_left(life)
            life.stop()
            # A merge or seal in progress has as long as in any other scenario.
            enough_s = max(self.scenario.config.stop_timeout, PATIENT_S) + 1.0
            self.kernel.after(enough_s, lambda: self._not_stopped(life))
            return
        if self.kernel.now > deadline_s:
            waiting = [str(s.plan) + f", acked {s.acked}" for s in self.senders if not s.is_done]
            failing = life.committer.failing() if life and life.committer else []
            raise Violation(
                "stuck",
                f"{self._calm_s:.0f} s after the last fault {waiting} wait; failing: {failing}; "
                f"pending: {life.committer.pending_bytes if life and life.committer else None}",
            )
        self.kernel.after(
            max(0.001, self.scenario.sync_s * 3), lambda: self._wait_for_all(deadline_s)
        )

    def _all_done(self, life: Life) -> bool:
        if life.committer is None or life.server is None:
            return False
        return (
            all(sender.is_done for sender in self.senders)
            and not life.server.connections
            and not self.listener.backlog
            and life.committer.is_idle
            and not life.committer.failing()  # a stream may still wait for its recovery
        )

    def _not_stopped(self, life: Life) -> None:
        if self.life is life:
            raise Violation("stuck", "the daemon does not stop")

    def _hold_failures(self, life: Life) -> None:
        """Checks that every failure in a commit was logged and counted."""
        if life.committer is None:
            return
        failures = life.committer.totals.failures
        if failures != sum(life.failed_logs.values()):
            raise Violation(
                "not counted", f"{failures} failures, and the log has {life.failed_logs}"
            )
        if life.has_moved:
            return  # a failure while a directory is opened is reported elsewhere, or tolerated
        for stream, count in life.injected.items():
            if count and not life.failed_logs[stream]:
                raise Violation("swallowed", f"{count} calls failed in {stream}, and none is told")

    def _hold_removed(self, life: Life) -> None:
        """Checks that the log has all that quotas dropped, and retention or a full disk removed."""
        if life.told_over_quota != life.dropped:
            what = f"{dict(life.dropped)} were, and the log has {dict(life.told_over_quota)}"
            raise Violation("dropped untold", what)
        for stream, name in _untold(life, life.told_dropped):
            raise Violation("removed untold", f"{stream}/{name}")

    def _hold_removed_until_killed(self, life: Life) -> None:
        """Checks that the log has what a full disk removed from a daemon that ends just now.

        It has what retention removed, too, but for the one that it was just removing.
        """
        for stream, name in _untold(life, life.told_dropping):
            if (stream, name) != life.retention_removed:
                raise Violation("removed untold", f"{stream}/{name}, and the daemon was killed")

    def _hold_nothing_left(self, life: Life) -> None:
        """Checks that no state is left when no sender waits."""
        committer, held = life.committer, life.server
        assert committer is not None
        assert held is not None
        left = {
            "pending": committer.pending_bytes,
            "waiting": committer._waiting_bytes,
            "held": held.admission.held_bytes,
            "queues": len(committer._pending),
            "failing": len(committer.failing()),
            "paused": held.admission.paused,
            "producers": held.producers.connected,
        }
        if any(left.values()):
            raise Violation("something is left", f"where nobody waits: {left}")

    def _hold_memory(self, life: Life) -> None:
        """Checks that the memory of what is not durable exceeds its limit by about one read.

        By two, if the privileged read out of their reserve after a user's read filled the memory.
        """
        committer, held = life.committer, life.server
        if committer is None or held is None:
            return
        limits = self.scenario.config.limits
        pending_bytes = committer.pending_bytes + held.admission.held_bytes
        # A stored line is longer by the envelope; the shortest becomes many times as long.
        holders = {held.admission._holder(uid) for uid in committer.uids}
        reads = 2 if PRIVILEGED in holders and len(holders) > 1 else 1
        read_bytes = _STORED_TIMES * self.scenario.buffer_bytes
        most = limits.max_pending + reads * read_bytes + limits.max_record
        if pending_bytes > most:
            raise Violation("memory", f"{pending_bytes} bytes wait, of {limits.max_pending}")

    def _hold_temps(self, life: Life) -> None:
        """Checks that no recovered stream has half-written files."""
        if any(fault.errno and "unlink" in fault.calls for fault in self.scenario.faults):
            return
        if not life.recovered:
            return  # it may have been stopped before its data directory could be created
        data = self.calls.disk.root.entries.get("data")
        assert isinstance(data, Directory)
        for stream in life.recovered:
            directory = data.entries.get(stream)
            left = [name for name in getattr(directory, "entries", ()) if name.endswith(".tmp")]
            if left:
                raise Violation("a temp is left", f"{stream}/{left[0]}")

    def _finish(self, known: Collection[str]) -> None:
        """Checks followers against what the daemon knew; nothing notified them of other streams."""
        for follower in self._followers:
            if follower.has_ended:
                continue
            for stream, next_seq in follower.next_seq.items():
                if (
                    stream in known
                    and not follower.may_miss
                    and next_seq != self.oracle.end_of(stream)
                ):
                    what = f"{stream}: {next_seq} of {self.oracle.end_of(stream)}"
                    raise Violation("a follower is not told", what)
        for sender in self.senders:
            if sender.is_delivered and self.outside.lives == 1:
                self.oracle.promise(sender.sent, sender.sent.most, "a stop")
        self.oracle.look_at_all("in the end")
        self.is_over = True

    # Observations -------------------------------------------------------------------------

    def _on_name(
        self, directory: Directory, name: str, before: Inode | None, after: Inode | None
    ) -> None:
        thread = current_thread()
        if after is not None and thread is not None and thread.role != "compact":
            self.counts.commits += is_segment(name)
        self.oracle.name_changed(directory, name, before, after)
        if self.life is not None:
            self._hold_memory(self.life)

    def _on_trimmed(self, stream: str, name: str, segment: Segment) -> None:
        if self.life is not None:
            self.life.trimmed.append((stream, name, segment.first, segment.last))
            thread = current_thread()
            if thread is not None and thread.role == "compact":
                self.life.retention_removed = (stream, name)

    def _on_admitted(self, sender: Any, body: bytes, count: int, admitted: Admitted) -> None:
        """Notes how many of a connection's lines a quota admitted."""
        oracle = self.oracle
        passed = admitted.body
        for who, number in oracle.rows(passed):
            oracle.sent[who].dropped.discard(number)
        if admitted.over is None or self.life is None:
            return
        dropped = oracle.rows(body[len(passed) :])
        for who, number in dropped:
            oracle.sent[who].dropped.add(number)
        self.outside.by_end[sender._socket.number].dropped.update(number for _, number in dropped)
        self.life.dropped[sender.stream] += count - admitted.records
        oracle.dropped[sender.stream] += count - admitted.records

    def _ahead(self, real: Callable[..., None]) -> Callable[..., None]:
        """Notes which thread opens a writer ahead: a failure there fails nothing."""

        def noted(*args: Any) -> None:
            self._opens_ahead = current_thread()
            try:
                real(*args)
            finally:
                self._opens_ahead = None

        return noted

    def _on_fault(self, call: str, stream: str, fault: Fault | Space | None, error: int) -> None:
        kind = "short write" if fault is None else "slow"
        if error:
            kind = errno.errorcode[error]
        self.counts.faults[f"{kind} {call}"] += 1
        if isinstance(fault, Fault) and fault.then and not self._is_calm:
            event = Event(self.kernel.now, fault.then)
            self.kernel.after(fault.then_s, lambda: self._happen_unless_calm(event))
        life = self.life
        thread = current_thread()
        if not error or life is None or thread is None or thread.process is not life.process:
            return
        committer = life.committer
        if committer is None or thread.role not in ("commit", "main"):
            return
        if thread is self._opens_ahead:
            return  # its next commit opens a writer itself
        if (
            call in _CRITICAL
            and stream in STREAMS
            and self._holder(life, stream) in ("nobody", "compactor")
        ):
            life.injected[stream] += 1
        batches = [batch.taken for batch in committer._under_way]
        streams = (
            [stream] if stream in STREAMS else list({s: None for taken in batches for s in taken})
        )
        for each in streams:
            holds = "".join("s" if each in taken else "-" for taken in batches)
            holder = self._holder(life, each)
            if "s" in holds:
                what = call if stream in STREAMS or call == "mkdir" else "data directory"
                self.coverage[State(holds, what, holder)] += 1

    @staticmethod
    def _holder(life: Life, stream: str) -> str:
        committer = life.committer
        assert committer is not None
        pending = committer._pending.get(stream)
        if pending is not None and pending.recovering:
            return "recovery"
        if committer._stream_locks.is_held(stream):
            return "drop" if pending is not None and pending.attempts else "compactor"
        return "nobody"

    def _hear_of_unread(self, event: str, fields: dict[str, Any]) -> None:
        """Notes that what a sender had sent before it went is lost, as nobody was told."""
        if event == "connection_gave_way" and fields["has_unread"]:
            self.outside.by_end[fields["pid"]].sender.is_delivered = False

    def _heard(self, level: str, event: str, fields: dict[str, Any]) -> None:
        thread = current_thread()
        if thread is not None and not thread.process.is_alive:
            return  # logged while its calls unwind, which a killed process never does
        self.log.append((self.kernel.now, level, event, fields))
        life = self.life
        if level == "exception":
            self.violate(Violation("an exception", f"{event}: {sys.exc_info()[1]!r} {fields}"))
        error = fields.get("exc_info")
        if isinstance(error, BaseException) and not isinstance(error, _OF_PLACE):
            self.violate(Violation("an exception", f"{event}: {error!r} {fields}"))
        if event == "records_missing":
            self.violate(Violation("records missing", f"{fields}"))
        if life is None:
            return
        life.hear_of_removals(event, fields)
        self._hear_of_unread(event, fields)
        if event in ("commit_failed", "stream_not_recovered"):
            self._hold_told_once(life, level, fields)
        elif event == "data_directory_unusable":
            life.has_moved = True
            if "in use" in fields["reason"] or "another directory" in fields["reason"]:
                self.violate(Violation("a wrong reason", f"nobody moved it: {fields}"))
        elif event == "stream_recovered":
            life.told.pop(fields["stream"], None)
        elif event == "listening":
            self.outside.is_listening = True
        elif event == "stopping" and not self.scenario.inherits_listener:
            self.outside.is_listening = False
        elif event == "stop_timeout":
            self._hold_out_of_time()

    def _hold_out_of_time(self) -> None:
        """Checks that a stop ran out of time only after a failure, or with hardly any time."""
        self.counts.out_of_time += 1
        if self.life is not None:
            self.life.ran_out = True
        is_idle = self._is_through and not self.scenario.drops  # which a stop reports
        if is_idle or (self._is_calm and not self.scenario.hurries):
            self.violate(Violation("stuck", "a stop ran out of time, and nothing fails"))

    def _hold_told_once(self, life: Life, level: str, fields: dict[str, Any]) -> None:
        """Checks that a stream that fails again for the same reason is not logged again."""
        stream = fields["stream"]
        life.failed_logs[stream] += 1
        error = fields["error"]
        of_system = _REASONS if error.startswith(("cannot ", "[Errno")) else ()
        reason = next((text for text in of_system if text in error), error)
        if level == "error" and life.told.get(stream) == reason:
            self.violate(Violation("told again", f"{fields}"))
        life.told[stream] = reason

    def on_loop_error(self, context: dict[str, Any]) -> None:
        """Handles what no task or callback caught."""
        error = context.get("exception")
        if isinstance(error, Violation):
            self.violate(error)
        else:
            self.violate(Violation("an exception", f"{context.get('message')}: {error!r}"))

    # Patching -----------------------------------------------------------------------------

    def _wall_ns(self) -> int:
        return _WALL_NS + int(self.kernel.now * 1e9) + self._clock_step_ns

    @contextmanager
    def _entered(self) -> Iterator[None]:
        kernel = self.kernel
        wall_ns = self._wall_ns

        def now() -> float:
            return kernel.now

        clocks = {
            time.time_ns: wall_ns,
            time.time: lambda: wall_ns() / 1e9,
            time.monotonic: now,
            time.perf_counter: now,
            time.clock_gettime: lambda _: kernel.now,
            time.thread_time: now,
            time.sleep: kernel.sleep,
        }
        was_enabled = gc.isenabled()
        log = _Log(self._heard)
        names = SimpleNamespace(token_hex=self.calls.token_hex)
        threads = _Namespace(threading, Lock=lambda: _Lock(kernel), Event=lambda: _Flag(kernel))
        with ExitStack() as stack:
            enter = stack.enter_context
            enter(self.calls.entered())
            for real, simulated in clocks.items():
                enter(patch.object(time, real.__name__, simulated))
            for function in _CLOCKS:
                defaults = function.__defaults__ or ()
                enter(
                    patch.object(
                        function, "__defaults__", tuple(_replaced(clocks, d) for d in defaults)
                    )
                )
                named = function.__kwdefaults__ or {}
                replaced = {name: _replaced(clocks, default) for name, default in named.items()}
                enter(patch.object(function, "__kwdefaults__", replaced))
            for module in _MODULES:
                if hasattr(module, "log"):
                    enter(patch.object(module, "log", log))
                if getattr(module, "threading", None) is threading:
                    enter(patch.object(module, "threading", threads))
                if getattr(module, "secrets", None) is secrets:
                    enter(patch.object(module, "secrets", names))
            enter(
                patch.object(
                    poller,
                    "select",
                    _Namespace(select, epoll=lambda: Epoll(self.network)),
                )
            )
            for of_files in ("FileIO", "TempFile"):
                enter(patch.object(atomic, of_files, self.calls.raw_file))
            enter(patch.object(follower_module, "Inotify", self.notifications.begin))
            enter(patch.object(connection, "peer_of", _peer_of))
            enter(patch.object(server, "uid_of", _uid_of))
            enter(patch.object(connection.Connection, "__hash__", _hash_of_connection))
            enter(patch.object(daemon, "gc", SimpleNamespace(freeze=lambda: None)))
            enter(patch.object(writes, "_ALIGNMENT", 512))
            enter(patch.object(writes, "_STAGING_BYTES", 1024))
            enter(patch.object(writes, "_staging_areas", type(writes._staging_areas)()))
            enter(patch.object(service, "Committer", self._noted("committer", Committer)))
            enter(patch.object(service, "Server", self._noted("server", Server)))
            enter(patch.object(upkeep, "Compactor", self._noted("compactor", Compactor)))
            enter(patch.object(WriterAhead, "open", self._ahead(WriterAhead.open)))
            if self.scenario.drops:
                enter(patch.object(QuotaGate, "admit", self._watched(QuotaGate.admit)))
            enter(patch.object(file_system, "_read", _nothing_to_read))
            way = CommitWay(1 if self.scenario.has_journal else 2, "the scenario says so")
            enter(patch.object(store_module, "commit_way_at", lambda _: way))
            enter(patch.object(sys, "unraisablehook", lambda _: None))
            level = logging.root.manager.disable
            logging.disable(logging.CRITICAL)
            gc.disable()
            try:
                yield
            finally:
                if was_enabled:
                    gc.enable()
                logging.disable(level)
                asyncio._set_running_loop(None)

    def _watched(self, admit: Callable[..., Admitted]) -> Callable[..., Admitted]:
        def watched(gate: QuotaGate, sender: Any, body: bytes, count: int) -> Admitted:
            admitted = admit(gate, sender, body, count)
            self._on_admitted(sender, body, count, admitted)
            return admitted

        return watched

    def _noted(self, name: str, make: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*args: Any, **kwargs: Any) -> Any:
            made = make(*args, **kwargs)
            if self.life is not None:
                setattr(self.life, name, made)
            return made

        return noting


class _Listening(sockets.Listening):
    """A listening socket whose name only the daemon removes."""

    is_named = True


def _nothing_to_read(path: str) -> str:
    """Simulates a kernel that reports nothing about mounts."""
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def _replaced(clocks: dict[Any, Any], default: Any) -> Any:
    try:
        return clocks.get(default, default)
    except TypeError:
        return default


def _peer_of(end: End) -> Peer:
    return Peer(end.number, end.uid, end.uid, "sender", None)


def _uid_of(end: End) -> int:
    return end.uid


def _untold(life: Life, dropped: Mapping[str, list[tuple[int, int]]]) -> Iterator[tuple[str, str]]:
    """The removed segments that the log has neither by name nor within what was `dropped`."""
    for stream, name, first, last in life.trimmed:
        is_dropped = any(low <= first and last <= high for low, high in dropped.get(stream, ()))
        if not is_dropped and (stream, name) not in life.told_removed:
            yield stream, name


def _hash_of_connection(self: connection.Connection) -> int:
    return hash(self._socket)


class _Namespace:
    """A module with some of its names replaced."""

    def __init__(self, module: Any, **names: Any) -> None:
        self._module = module
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)
