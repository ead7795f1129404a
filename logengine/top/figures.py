"""What the tables show, computed from one look at the streams after another. No I/O, no clock.

A look has the state of each stream, and a tally of the records that are new since the look before.
Rates are those of the last whole seconds before the look, by when the records arrived (`_ts`);
errors and warnings are those of the last minute. Everything older is forgotten, so that memory
grows with the streams and senders of one minute alone.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from logengine.filtering.levels import LEVEL_NAMES
from logengine.format.block import Rows
from logengine.format.segment import timestamp_of
from logengine.format.timestamp import parse_timestamp
from logengine.printable import escape
from logengine.protocols.status import Status
from logengine.reading import StreamSummary
from logengine.rendering.fields import decode, text_of
from logengine.rendering.levels import level_field, rank_of

WINDOW_S = 60  # what errors and warnings are counted over
RATE_S = 5
DELAY_S = 10  # the greatest delay of this time is shown
# Senders choose their names. Of more in one minute, the rest is counted together.
SENDERS_MAX = 1000
_NAME_CHARACTERS_MAX = 64
_STREAMS_OF_A_SENDER_MAX = 100
_OTHERS = "(others)"
_NS_PER_S = 1_000_000_000
_WARNING, _ERROR = LEVEL_NAMES.index("warning"), LEVEL_NAMES.index("error")

DaemonState = Literal["absent", "denied", "answers"]


class Sender(NamedTuple):
    """Who sent a record, as the kernel reported it: the user, and the unit or the program."""

    uid: int | None
    name: str
    unit: str


class TallyKey(NamedTuple):
    """What is counted together: records of a stream and a sender that arrived in one second."""

    stream: str
    second: int
    sender: Sender


@dataclass
class Amount:
    """How many records and bytes, and how many of the records are warnings and errors."""

    records: float = 0
    bytes: float = 0
    warnings: float = 0
    errors: float = 0

    def add(self, other: "Amount", weight: float = 1) -> None:
        """Adds another amount, `weight` times."""
        self.records += other.records * weight
        self.bytes += other.bytes * weight
        self.warnings += other.warnings * weight
        self.errors += other.errors * weight


Tally = dict[TallyKey, Amount]


def tally(rows: Rows, into: Tally, since_s: int) -> None:
    """Counts records that arrived from a second on. O(bytes)."""
    for stream, line, fields in zip(rows.streams, rows.lines, decode(rows), strict=False):
        second = parse_timestamp(timestamp_of(line)) // _NS_PER_S
        if second < since_s:
            continue
        amount = into.setdefault(TallyKey(stream, second, sender_of(fields)), Amount())
        amount.records += 1
        amount.bytes += len(line) + 1
        name = level_field(fields)
        rank = None if name is None else rank_of(name, fields[name])
        if rank is not None and rank >= _ERROR:
            amount.errors += 1
        elif rank == _WARNING:
            amount.warnings += 1


def sender_of(fields: Mapping[str, Any]) -> Sender:
    """Returns who sent a record, escaped, by its envelope."""
    uid = fields.get("_uid")
    unit = _name(fields.get("_unit") or fields.get("_user_unit") or "")
    return Sender(uid if type(uid) is int else None, _name(fields.get("_comm", "")), unit)


def _name(value: Any) -> str:
    return escape(text_of(value)[:_NAME_CHARACTERS_MAX])


@dataclass(frozen=True)
class StreamState:
    """One stream at a look. `delay_s`: from the arrival of its newest record to its file."""

    summary: StreamSummary
    delay_s: float | None = None
    is_sampled: bool = False  # more records arrived than were read: their kinds are estimated


@dataclass(frozen=True)
class DaemonFigures:
    """What the daemon says. `status` is there if it answers, `why` if it does not."""

    state: DaemonState
    status: Status | None = None
    why: str = ""


@dataclass(frozen=True)
class Look:
    """What was seen at `at_s`, in seconds since 1970. `tally` has what is new since the last."""

    at_s: float
    streams: Mapping[str, StreamState]
    tally: Tally
    daemon: DaemonFigures
    free_bytes: int | None = None
    users: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Activity:
    """The last minute: rates per second of the last seconds, counts of all of it, and a history."""

    records_per_s: float
    bytes_per_s: float
    errors: float
    warnings: float
    history: Sequence[float]  # records in each second, the oldest first


@dataclass(frozen=True)
class StreamFigures:
    """One row of the table of streams."""

    stream: str
    activity: Activity
    delay_s: float | None
    waiting_records: int
    waiting_bytes: int
    failure: str  # why it cannot be committed
    records: int
    bytes: int
    segments: int
    damaged: int
    age_s: float | None  # since its last record
    is_sampled: bool


@dataclass(frozen=True)
class SenderFigures:
    """One row of the table of senders."""

    sender: Sender
    user: str
    activity: Activity
    streams: Sequence[str]
    age_s: float


@dataclass(frozen=True)
class Totals:
    """What the head of the screen says of all streams."""

    activity: Activity
    delay_s: float | None
    bytes: int
    streams: int
    damaged_streams: int


class _Seconds:
    """What arrived in each of the last seconds."""

    def __init__(self) -> None:
        self._by_second: dict[int, Amount] = {}

    def add(self, second: int, amount: Amount, weight: float) -> None:
        self._by_second.setdefault(second, Amount()).add(amount, weight)

    def forget_before(self, second: int) -> bool:
        """Returns whether anything is left."""
        for each in [each for each in self._by_second if each < second]:
            del self._by_second[each]
        return bool(self._by_second)

    def last(self) -> int:
        return max(self._by_second)

    def activity(self, now: int) -> Activity:
        """The second of `now` itself is not over, and has no rate yet."""
        recent, all_of_it = Amount(), Amount()
        for second, amount in self._by_second.items():
            if now - RATE_S <= second < now:
                recent.add(amount)
            if second <= now:
                all_of_it.add(amount)
        history = [
            self._by_second[second].records if second in self._by_second else 0.0
            for second in range(now - WINDOW_S, now)
        ]
        return Activity(
            recent.records / RATE_S,
            recent.bytes / RATE_S,
            all_of_it.errors,
            all_of_it.warnings,
            history,
        )


class Figures:
    """The figures of the last minute, kept up to date by `add`."""

    def __init__(self) -> None:
        self._look: Look | None = None
        self._all = _Seconds()
        self._streams: dict[str, _Seconds] = {}
        self._senders: dict[Sender, _Seconds] = {}
        self._streams_of: dict[Sender, dict[str, int]] = {}
        self._delays: dict[str, deque[tuple[float, float]]] = {}
        self.arrived = 0.0  # records, since the first look

    @property
    def has_looked(self) -> bool:
        """Whether there was a look: what there is not before that is not known."""
        return self._look is not None

    def add(self, look: Look) -> None:
        """Takes the next look into account."""
        is_first = self._look is None
        self._look = look
        if not is_first:
            self.arrived += sum(each.records for each in look.tally.values())
        for (stream, second, sender), amount in look.tally.items():
            self._all.add(second, amount, 1)
            self._streams.setdefault(stream, _Seconds()).add(second, amount, 1)
            if sender not in self._senders and len(self._senders) >= SENDERS_MAX:
                sender = Sender(None, _OTHERS, "")  # noqa: PLW2901
            self._senders.setdefault(sender, _Seconds()).add(second, amount, 1)
            names = self._streams_of.setdefault(sender, {})
            if stream in names or len(names) < _STREAMS_OF_A_SENDER_MAX:
                names[stream] = second
        for stream, state in look.streams.items():
            if state.delay_s is not None:
                self._delays.setdefault(stream, deque()).append((look.at_s, state.delay_s))
        self._forget(int(look.at_s) - WINDOW_S, look)

    def _forget(self, before: int, look: Look) -> None:
        self._all.forget_before(before)
        for stream in [each for each in self._streams if each not in look.streams]:
            del self._streams[stream]
        for stream in [
            each for each, kept in self._streams.items() if not kept.forget_before(before)
        ]:
            del self._streams[stream]
        gone = [each for each, kept in self._senders.items() if not kept.forget_before(before)]
        for sender in gone:
            del self._senders[sender], self._streams_of[sender]
        for names in self._streams_of.values():
            for stream in [each for each, second in names.items() if second < before]:
                del names[stream]
        for stream, delays in list(self._delays.items()):
            while delays and delays[0][0] < look.at_s - DELAY_S:
                delays.popleft()
            if not delays or stream not in look.streams:
                del self._delays[stream]

    @property
    def daemon(self) -> DaemonFigures:
        """What the daemon said at the last look."""
        return DaemonFigures("absent") if self._look is None else self._look.daemon

    @property
    def free_bytes(self) -> int | None:
        """The free space of the file system at the last look."""
        return None if self._look is None else self._look.free_bytes

    def streams(self) -> list[StreamFigures]:
        """Returns a row for each stream, by name."""
        look = self._look
        if look is None:
            return []
        now = int(look.at_s)
        failing = {each.stream: each for each in (look.daemon.status or _NO_STATUS).failing}
        none = _Seconds()
        rows = []
        for name, state in sorted(look.streams.items()):
            summary, failure = state.summary, failing.get(name)
            rows.append(
                StreamFigures(
                    name,
                    self._streams.get(name, none).activity(now),
                    self._delay(name),
                    failure.waiting_records if failure else 0,
                    failure.waiting_bytes if failure else 0,
                    escape(failure.error) if failure else "",
                    summary.records,
                    summary.bytes,
                    summary.segments,
                    summary.damaged,
                    None
                    if summary.until is None
                    else max(0.0, look.at_s - _seconds(summary.until)),
                    state.is_sampled,
                )
            )
        return rows

    def senders(self) -> list[SenderFigures]:
        """Returns a row for each sender of the last minute."""
        look = self._look
        if look is None:
            return []
        now = int(look.at_s)
        return [
            SenderFigures(
                sender,
                "" if sender.uid is None else look.users.get(sender.uid, str(sender.uid)),
                seconds.activity(now),
                sorted(self._streams_of[sender]),
                max(0.0, look.at_s - seconds.last()),
            )
            for sender, seconds in self._senders.items()
        ]

    def totals(self) -> Totals:
        """Returns what is true of all streams together."""
        look = self._look
        states = () if look is None else look.streams.values()
        delays = [delay for name in self._delays if (delay := self._delay(name)) is not None]
        return Totals(
            self._all.activity(0 if look is None else int(look.at_s)),
            max(delays, default=None),
            sum(each.summary.bytes for each in states),
            len(states),
            sum(each.summary.damaged > 0 for each in states),
        )

    def _delay(self, stream: str) -> float | None:
        return max((delay for _, delay in self._delays.get(stream, ())), default=None)


class _NoStatus:
    failing: Sequence[Any] = ()


_NO_STATUS = _NoStatus()


def _seconds(timestamp: str) -> float:
    return parse_timestamp(timestamp) / _NS_PER_S


def weighted(found: Tally, weight: float) -> Iterable[tuple[TallyKey, Amount]]:
    """Yields what was counted in a part of the records, as much of it as there is in all."""
    for key, amount in found.items():
        scaled = Amount()
        scaled.add(amount, weight)
        yield key, scaled
