"""Describes one run: every limit, sender, fault and event, drawn from a seed.

Swarm testing (Groce et al., "Swarm Testing", ISSTA 2012): each run has some features and
kinds of fault and lacks the others altogether, so that none drowns what another would show.
A scenario is a value; one with fewer senders, faults or events is also a scenario.
"""

import errno
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from msgspec import structs

from logengine.daemon.config_sections import (
    Config,
    ListenConfig,
    RetentionConfig,
    StreamConfig,
)
from logengine.intake.quota import QuotaConfig, QuotasConfig
from logengine.store.settings import CommitConfig, LimitsConfig
from logengine.units import Duration, RecordsPerSecond, Size
from logengine.upkeep.compaction_plan import CompactionConfig
from logengine.upkeep.retention_plan import RetentionRule
from tests.simulation.calls import Fault, Space
from tests.simulation.disk import ROOT
from tests.simulation.senders import ANSWERED, ASKING, NAMED, NAMELESS, SenderPlan

STREAMS = ("s", "t", "u", "v", "w", "x")
DATA = f"{ROOT}/data"
PATIENT_S = 10.0  # a stop finishes within this time if nothing fails
ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE)
_COMMIT_CALLS = ("create", "write", "fsync", "replace", "sync directory")
_OTHER_CALLS = ("open", "read", "list", "stat", "statvfs", "unlink", "mkdir", "rmdir")
_UNREAD_CHANCE = 0.2
# Full disks on which segments are dropped, while syncs fail.
_REMOVING_CHANCE = 0.05
_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT)
_UNREAD_ONCE_CHANCE = 0.5
_HURRIED_CHANCE = 0.15
_HURRIED_TURNS_MIN = 50  # the turns of a stop that has nothing left to do
_DROPPING_CHANCE = 0.15
_RETAINING_CHANCE = 0.15
_JOURNAL_CHANCE = 0.4
_ENVELOPE_BYTES = 120  # approximate
_PAYLOADS = {"tiny": (0, 20), "mixed": (0, 300), "large": (200, 1500)}


@dataclass(frozen=True)
class Event:
    """Something that happens to the world at a time; `target` says to what, if that matters."""

    at_s: float
    kind: str
    target: int = 0
    value: float = 0.0

    def __str__(self) -> str:
        return f"{self.kind} {self.target} at {self.at_s:.4f}"


@dataclass(frozen=True)
class Scenario:
    """One run."""

    seed: int
    config: Config
    senders: tuple[SenderPlan, ...]
    faults: tuple[Fault, ...]
    spaces: tuple[Space, ...]
    events: tuple[Event, ...]
    ends_s: float
    sync_s: float
    call_s: float
    spread: float
    slow_streams: tuple[tuple[str, float], ...]
    turn_s: float
    network_s: float
    buffer_bytes: int
    short_writes: float
    inherits_listener: bool
    loses_ordered: bool = False
    has_journal: bool = False  # and commits take one flush

    @classmethod
    def drawn(cls, seed: int) -> "Scenario":
        """The scenario of a seed."""
        return _Drawing(seed).scenario()

    def keeping(self, **kept: list[int]) -> "Scenario":
        """The same with only those `senders`, `faults`, `spaces` and `events`, by index."""
        changes: dict[str, Any] = {
            part: tuple(getattr(self, part)[at] for at in places) for part, places in kept.items()
        }
        return replace(self, **changes)

    def fresh_faults(self) -> list[Fault]:
        """The faults, reset as if none had occurred."""
        return [replace(fault, is_over=False, hits=0, passed=0) for fault in self.faults]

    def fresh_spaces(self) -> list[Space]:
        """The full disks, reset as if none had been hit."""
        return [replace(space, limit_bytes=None) for space in self.spaces]

    @property
    def hurries(self) -> bool:
        """Whether a stop may run out of time because of the disk's latency alone."""
        return self.config.stop_timeout < PATIENT_S

    @property
    def drops(self) -> bool:
        """Whether a quota drops what is over it."""
        quota = self.config.quota
        return "drop" in (quota.stream.over, quota.uid.over)

    def trims(self, stream: str) -> bool:
        """Whether the oldest segments of a stream may be removed."""
        said = self.config.stream.get(stream)
        retention = self.config.retention
        on_full = said.on_full if said and said.on_full else self.config.on_full
        return on_full == "drop_oldest" or bool(
            retention.max_bytes
            or retention.max_age
            or retention.keep_free != "0B"
            or (said and said.retention)
        )

    def keeps_what_is_unread(self, stream: str) -> bool:
        """Whether only retention removes from a stream: seals that all cursors have passed."""
        said = self.config.stream.get(stream)
        on_full = said.on_full if said and said.on_full else self.config.on_full
        return on_full != "drop_oldest" and self.config.retention.keep_free == "0B"


def _about(source: random.Random) -> Callable[[float, float], float]:
    """Draws between two numbers, each order of magnitude with the same probability."""
    return lambda least, most: math.exp(source.uniform(math.log(least), math.log(most)))


class _Drawing:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.source = random.Random(f"scenario {seed}")
        source = self.source
        self.sync_s = 10 ** source.uniform(-4.0, -2.3)
        self.length_s = self.sync_s * 10 ** source.uniform(1.3, 3.0)
        count = source.choice((1, 2, 2, 3, 3, 4, 5, 6))
        self.streams = list(STREAMS[:count])

    def _is_on(self, chance: float = 0.5) -> bool:
        return self.source.random() < chance

    def _log(self, low: float, high: float) -> float:
        return math.exp(self.source.uniform(math.log(low), math.log(high)))

    def _at(self) -> float:
        return self.source.random() * self.length_s

    def scenario(self) -> Scenario:
        source = self.source
        max_record = int(self._log(200, 3000))
        buffer_bytes = int(self._log(1000, 60_000))
        senders = self._senders(max_record)
        faults = self._faults()
        faults += self._unread(len(faults))
        spaces = self._spaces() if self._is_on(0.3) else ()
        config = self._config(max_record)
        events = self._events(senders)
        slow = [s for s in self.streams if self._is_on(0.3)] if self._is_on(0.6) else []
        drawn = Scenario(
            seed=self.seed,
            config=config,
            senders=senders,
            faults=faults,
            spaces=spaces,
            events=events,
            ends_s=0.0,
            sync_s=self.sync_s,
            call_s=self._log(1e-7, 1e-4) if self._is_on() else 1e-6,
            spread=source.choice((0.1, 1.0, 3.0, 10.0)),
            slow_streams=tuple((s, self.sync_s * self._log(2, 30)) for s in slow),
            turn_s=self._log(2e-6, 2e-4),
            network_s=self._log(1e-6, 3e-4),
            buffer_bytes=buffer_bytes,
            short_writes=source.choice((0.0, 0.0, 0.1, 0.5)),
            inherits_listener=self._is_on(),
            # Drawn separately, to leave the rest of a scenario as it was.
            has_journal=random.Random(f"journal {self.seed}").random() < _JOURNAL_CHANCE,
        )
        drawn = self._removing(self._retaining(self._dropping(self._hurried(drawn))))
        return replace(drawn, ends_s=self._ends_s(drawn))

    def _ends_s(self, drawn: Scenario) -> float:
        return max(
            [self.length_s]
            + [fault.end_s for fault in drawn.faults if math.isfinite(fault.end_s)]
            + [space.end_s for space in drawn.spaces]
            + [event.at_s for event in drawn.events]
        )

    def _hurried(self, drawn: Scenario) -> Scenario:
        """Adds stops that run out of time, with half-closed senders that wait for end of file.

        Drawn separately, to leave the rest of a scenario as it was.
        """
        source = random.Random(f"hurried {self.seed}")
        if source.random() > _HURRIED_CHANCE:
            return drawn
        about = _about(source)

        patience_s = max(self.sync_s * about(0.1, 30), _HURRIED_TURNS_MIN * drawn.turn_s)
        senders, faults, events = list(drawn.senders), list(drawn.faults), list(drawn.events)
        stream = self.streams[0]
        for _ in range(source.randint(1, 3)):
            stop_s = source.random() * self.length_s
            events.append(Event(stop_s, "stop"))
            for _ in range(source.randint(1, 3)):
                before_s = self.sync_s * about(0.1, 10)
                bursts = [
                    (before_s * source.random(), tuple(source.choices(range(90), k=size)))
                    for size in source.choices(range(1, 6), k=source.randint(1, 3))
                ]
                senders.append(
                    SenderPlan(
                        number=len(senders),
                        kind=source.choice((NAMELESS, NAMELESS, ANSWERED)),
                        stream=stream,
                        bursts=tuple(bursts),
                        refused=frozenset(),
                        begins_s=max(0.0, stop_s - before_s),
                        piece_bytes=source.choice((0, 50)),
                        hangs_up=0.0,
                        half_closes=1.0,
                        tells_first=0.0,
                        waits_for_ack=0.0,
                        read_s=0.0,
                        uid=0,
                        ends_open=source.random() < 0.3,
                    )
                )
            fails, once = source.random() < 0.5, source.random() < 0.3
            faults.append(
                Fault(
                    len(faults),
                    frozenset([source.choice(_COMMIT_CALLS)]),
                    source.choice((stream, stream, None)),
                    max(0.0, stop_s - self.sync_s * about(1, 30)),
                    stop_s + patience_s * about(0.3, 5),
                    errno=source.choice(ERRORS) if fails else 0,
                    slow_s=0.0 if fails else patience_s * about(0.3, 10),
                    once=once,
                )
            )
        return replace(
            drawn,
            config=structs.replace(drawn.config, stop_timeout=Duration(patience_s)),
            senders=tuple(senders),
            faults=tuple(faults),
            events=tuple(sorted(events, key=lambda event: event.at_s)),
        )

    def _dropping(self, drawn: Scenario) -> Scenario:
        """Adds quotas that drop, of a stream or a user; drawn separately, as the stops are."""
        source = random.Random(f"dropping {self.seed}")
        if source.random() > _DROPPING_CHANCE:
            return drawn
        about = _about(source)
        sizes = [size for plan in drawn.senders for _, burst in plan.bursts for size in burst]
        per_s = len(sizes) / self.length_s * about(0.05, 3)
        line_bytes = _ENVELOPE_BYTES + sum(sizes) / max(1, len(sizes))
        limits = source.sample(("records", "bytes", "space"), source.choice((1, 1, 2)))
        quota = QuotaConfig(
            records_per_s=RecordsPerSecond(max(1, int(per_s)) if "records" in limits else 0),
            bytes_per_s=Size(max(1, int(per_s * line_bytes)) if "bytes" in limits else 0),
            burst=Duration(self.length_s * about(0.001, 0.3)),
            max_bytes=Size(int(about(500, 30_000)) if "space" in limits else 0),
            over="drop",
        )
        of_whom = source.choice((("stream",), ("uid",), ("stream", "uid")))
        quotas = structs.replace(
            drawn.config.quota,
            report_every=Duration(self.length_s * about(0.01, 1)),
            **dict.fromkeys(of_whom, quota),
        )
        return replace(drawn, config=structs.replace(drawn.config, quota=quotas))

    def _retaining(self, drawn: Scenario) -> Scenario:
        """Adds streams with a `max_bytes` retention; also drawn separately."""
        source = random.Random(f"retaining {self.seed}")
        if source.random() > _RETAINING_CHANCE:
            return drawn
        about = _about(source)
        streams = dict(drawn.config.stream)
        for stream in source.sample(self.streams, source.randint(1, len(self.streams))):
            kept = RetentionRule(max_bytes=Size(int(about(300, 20_000))))
            streams[stream] = structs.replace(streams.get(stream, StreamConfig()), retention=kept)
        compaction = structs.replace(drawn.config.compaction, enabled=True)
        return replace(
            drawn, config=structs.replace(drawn.config, stream=streams, compaction=compaction)
        )

    def _senders(self, max_record: int) -> tuple[SenderPlan, ...]:
        source = self.source
        count = source.choice((1, 2, 2, 3, 3, 4, 4, 5, 6, 8, 10, 12))
        has_others = self._is_on()
        refuses = self._is_on(0.3)
        low, high = _PAYLOADS[source.choice(("tiny", "mixed", "mixed", "large"))]
        high = min(high, max_record - 60)
        low = min(low, high)
        piece_bytes = source.choice((0, 0, 50, 500, 3000))
        hangs_up = source.choice((0.0, 0.0, 0.03, 0.2))
        waits = source.choice((0.0, 0.0, 0.1, 0.9))
        burst_most = int(self._log(1, 60))
        is_busy = self._is_on(0.7)  # hardly a pause, to make batches overlap
        reads_late = self._is_on(0.2)
        plans = []
        for number in range(count):
            kind = NAMED
            if has_others and number:
                kind = source.choice((NAMED, NAMED, ANSWERED, NAMELESS, ASKING))
            bursts = []
            burst_max = int(self._log(1, burst_most + 1))
            left = total = int(self._log(1, 100 * burst_max**0.5))
            pause_s = 0.0
            if self._is_on(0.9):
                pause_s = self.length_s / total * burst_max
                if is_busy:
                    pause_s = min(pause_s, self.sync_s * self._log(0.1, 3))
            while left > 0:
                size = min(left, source.randint(1, burst_max))
                left -= size
                sizes = tuple(source.randint(low, high) for _ in range(size))
                drawn_s = source.expovariate(1 / pause_s) if pause_s else 0.0
                bursts.append((min(drawn_s, self.length_s), sizes))
            refused = frozenset(n for n in range(1, total + 1) if refuses and self._is_on(0.1))
            stream = source.choice(self.streams)
            plans.append(
                SenderPlan(
                    number=number,
                    kind=kind,
                    stream=self.streams[0] if kind == NAMELESS else stream,
                    bursts=tuple(bursts),
                    refused=refused,
                    begins_s=0.0 if self._is_on() else self._at(),
                    piece_bytes=piece_bytes,
                    hangs_up=hangs_up if kind in (NAMED, ANSWERED) else 0.0,
                    half_closes=source.choice((0.0, 0.5, 1.0)),
                    tells_first=source.choice((0.0, 0.5, 1.0)),
                    waits_for_ack=waits,
                    read_s=self.sync_s * source.random() * 5 if reads_late else 0.0,
                    uid=source.choice((0, 0, 1000)),
                    asks=source.choice((0.0, 0.0, 0.3, 1.0)),
                )
            )
        return tuple(_named_alike(plans))

    def _faults(self) -> tuple[Fault, ...]:
        source = self.source
        faults: list[Fault] = []
        if self._is_on(0.1):
            # Only one stream fails for long: it must not delay any other.
            start_s = self._at() / 3
            return (
                Fault(
                    0,
                    frozenset([source.choice(_COMMIT_CALLS)]),
                    source.choice(self.streams),
                    start_s,
                    start_s + self.length_s,
                    errno=source.choice(ERRORS),
                ),
            )
        kinds = [kind for kind in _COMMIT_CALLS if self._is_on(0.4)] or ["sync directory"]
        if self._is_on(0.25):
            kinds += [kind for kind in _OTHER_CALLS if self._is_on(0.3)]
        errors = [each for each in ERRORS if self._is_on(0.4)] or [errno.EIO]
        is_faulty, is_slow = self._is_on(0.8), self._is_on(0.7)
        ends = self._is_on(0.4)  # sometimes the daemon does not survive the failure
        if is_faulty:
            for _ in range(int(self._log(1, 25))):
                once = self._is_on(0.6)
                skips = int(self._log(1, 60)) if once and self._is_on(0.7) else 0
                start_s = 0.0 if skips else self._at()
                length_s = self.length_s * source.random() ** 3
                calls = [source.choice(kinds)]
                error = source.choice(errors)
                ends_it = ends and self._is_on(0.3)
                faults.append(
                    Fault(
                        len(faults),
                        frozenset(calls),
                        self._where(),
                        start_s,
                        start_s + (length_s if not once else self.length_s),
                        errno=error,
                        once=once,
                        skips=skips,
                        then=source.choice(("kill", "kill", "cut", "stop")) if ends_it else "",
                        then_s=self.sync_s * self._log(0.1, 20),
                    )
                )
        if is_slow:
            for _ in range(int(self._log(1, 25))):
                once = self._is_on(0.6)
                skips = int(self._log(1, 60)) if once and self._is_on(0.7) else 0
                start_s = 0.0 if skips else self._at()
                faults.append(
                    Fault(
                        len(faults),
                        frozenset([source.choice(("fsync", "fsync", "sync directory", *kinds))]),
                        self._where(),
                        start_s,
                        start_s + (self.length_s if once else self.length_s * source.random() ** 2),
                        slow_s=self.sync_s * self._log(2, 100),
                        once=once,
                        skips=skips,
                    )
                )
        return tuple(faults)

    def _unread(self, number: int) -> tuple[Fault, ...]:
        """Adds failing reads around the start after a kill, when nearly all reads are the start's.

        Drawn separately, to leave the rest of a scenario as it was.
        """
        source = random.Random(f"unread {self.seed}")
        if source.random() > _UNREAD_CHANCE:
            return ()
        faults = []
        for at in range(number, number + source.randint(1, 4)):
            start_s = source.random() * self.length_s
            faults.append(
                Fault(
                    at,
                    frozenset(["read"]),
                    source.choice([*self.streams, None]),
                    start_s,
                    start_s + self.length_s * source.random(),
                    errno=errno.EIO,
                    once=source.random() < _UNREAD_ONCE_CHANCE,
                    skips=source.choice((0, 0, 1, 3)),
                    then=source.choice(("", "", "kill", "stop", "cut")),
                    then_s=self.sync_s * math.exp(source.uniform(-2, 3)),
                )
            )
        return tuple(faults)

    def _removing(self, drawn: Scenario) -> Scenario:
        """Adds full disks on which the oldest segments are dropped, and syncs fail meanwhile.

        Some end the daemon. Drawn separately, as the stops are.
        """
        source = random.Random(f"removing {self.seed}")
        if source.random() > _REMOVING_CHANCE:
            return drawn
        faults, spaces = list(drawn.faults), list(drawn.spaces)
        streams = dict(drawn.config.stream)
        for stream in self.streams:
            said = streams.get(stream, StreamConfig())
            streams[stream] = structs.replace(said, on_full="drop_oldest")
        for _ in range(source.randint(1, 4)):
            start_s = source.random() * self.length_s
            end_s = start_s + self.length_s * source.random()
            left_bytes = source.randint(10, 2000)
            spaces.append(Space(start_s, end_s, left_bytes, source.choice(_FULL_ERRORS)))
            faults.append(
                Fault(
                    len(faults),
                    frozenset([source.choice(("sync directory", "sync directory", "unlink"))]),
                    source.choice([*self.streams, None]),
                    start_s,
                    end_s,
                    errno=source.choice(ERRORS),
                    once=True,
                    skips=source.randint(0, 12),
                    then=source.choice(("", "stop", "kill", "cut", "cut")),
                    then_s=self.sync_s * math.exp(source.uniform(-3, 3)),
                )
            )
        return replace(
            drawn,
            config=structs.replace(drawn.config, stream=streams),
            faults=tuple(faults),
            spaces=tuple(spaces),
        )

    def _where(self) -> str | None:
        draw = self.source.random()
        if draw < 0.7:
            return self.source.choice(self.streams)
        return "" if draw < 0.8 else None

    def _spaces(self) -> tuple[Space, ...]:
        source = self.source
        spaces = []
        for _ in range(source.randint(1, 3)):
            start_s = self._at()
            spaces.append(
                Space(
                    start_s,
                    start_s + self.length_s * source.random(),
                    int(self._log(10, 20_000)),
                    source.choice(_FULL_ERRORS),
                )
            )
        return tuple(spaces)

    def _events(self, senders: tuple[SenderPlan, ...]) -> tuple[Event, ...]:
        source = self.source
        kinds: list[tuple[str, float, float]] = [
            ("kill", 0.4, 4),
            ("cut", 0.4, 4),
            ("stop", 0.3, 3),
            ("clock", 0.2, 4),
            ("read", 0.5, 8),
            ("follow", 0.4, 2),
            ("cursor", 0.3, 2),
            ("rival", 0.4, 8),
            ("hang up", 0.3, 6),
            ("refuse to accept", 0.1, 3),
        ]
        events = []
        for kind, chance, most in kinds:
            if not self._is_on(chance):
                continue
            for _ in range(int(self._log(1, most + 1))):
                target = 0
                if kind in ("rival", "hang up"):
                    target = source.choice(senders).number
                elif kind in ("read", "cursor"):
                    target = source.randrange(len(self.streams))
                value = source.uniform(-7200, 7200) if kind == "clock" else 0.0
                if kind == "cursor":
                    value = float(source.randint(0, 60))
                events.append(Event(self._at(), kind, target, value))
        return tuple(sorted(events, key=lambda event: event.at_s))

    def _config(self, max_record: int) -> Config:
        source = self.source
        pick = source.choice
        streams = {}
        drops = self._is_on(0.25)
        for stream in self.streams:
            if drops and self._is_on():
                streams[stream] = StreamConfig(on_full="drop_oldest")
        retention = RetentionConfig()
        if self._is_on(0.2):
            retention = pick(
                (
                    RetentionConfig(max_bytes=Size(self._log(500, 20_000))),
                    RetentionConfig(max_age=Duration(self.length_s * source.random())),
                    RetentionConfig(keep_free="1MiB"),
                )
            )
        quota = QuotasConfig()
        if self._is_on(0.15):
            per_s = max(20.0, 100 / self.length_s)
            quota = QuotasConfig(
                stream=QuotaConfig(
                    records_per_s=RecordsPerSecond(int(per_s * self._log(0.5, 5))),
                    bytes_per_s=Size(0 if self._is_on() else int(per_s * self._log(100, 3000))),
                    burst=Duration(self._log(0.01, 1)),
                )
            )
        seal_bytes = int(self._log(1000, 100_000))
        seal_after = self.length_s * self._log(0.05, 3)
        return Config(
            data=DATA,
            stop_timeout=Duration(max(PATIENT_S, 100 * self.length_s)),
            reserve=Size(pick((0, 0, 2000))),
            commit=CommitConfig(
                one_flush="auto",
                linger=Duration(self.sync_s * self._log(0.5, 100) if self._is_on(0.6) else 0.0),
                rewrite_limit=Size(pick((1, 200, 1000, 4000, 64 * 1024))),
                direct_above=Size(pick((300, 2000, 256 * 1024))),
                max_batch=Size(int(self._log(200, 100_000))),
                pipeline_bytes=Size(pick((1, 1, 1, 1, 100, 1000, 5000, 2 * 1024 * 1024))),
                in_loop_below=Duration(pick((0.0, 0.0, 0.005, math.inf))),
                threads=pick((1, 2, 3, 8, 8, 8)),
                retry_min=Duration(self.sync_s * self._log(0.5, 10)),
                retry_max=Duration(self.sync_s * self._log(10, 40)),
            ),
            limits=LimitsConfig(
                max_record=Size(max_record),
                max_pending=Size(int(self._log(500, 500_000))),
                max_pending_stream=Size(int(self._log(300, 100_000))),
                max_connections=pick((2, 4, 64, 64, 64, 64)),
                active_cache=Size(pick((0, 300, 800, 2000, 5000, 1 << 20))),
                stall_timeout=Duration(self.length_s * self._log(0.3, 3)),
            ),
            quota=quota,
            stream=streams,
            listen=(ListenConfig(path=f"{ROOT}/socket", stream=self.streams[0]),),
            compaction=CompactionConfig(
                enabled=self._is_on(0.75),
                fanout=pick((2, 2, 3, 8)),
                seal_bytes=Size(seal_bytes),
                seal_after=Duration(seal_after),
                seal_small_after=Duration(seal_after * self._log(1, 10)),
                level=1,
            ),
            retention=retention,
        )


def _named_alike(plans: Sequence[SenderPlan]) -> Iterator[SenderPlan]:
    """Names the producers so that those of each uid have the same names in a stream."""
    taken: Counter[tuple[str, int]] = Counter()
    for plan in plans:
        if plan.kind == NAMED:
            taken[plan.stream, plan.uid] += 1
            yield replace(plan, producer=f"n{taken[plan.stream, plan.uid]}")
        else:
            yield plan
