"""Decides what a client does next with its outbox, its spool and its conversation.

Both clients share it: each asks for the next piece of work and does it, in a thread or in a task.
The methods here are quick. Work on the disk is returned as a `Step`: its `run` blocks and touches
no state of the delivery, its `finish` is quick again.
"""

from collections.abc import Callable
from enum import Enum, auto
from typing import Any, NamedTuple

from logengine.client.conversation import Conversation
from logengine.client.outbox import Chunk, Outbox
from logengine.client.settings import MAX_RECORD_BYTES, Settings
from logengine.client.spool import Spool
from logengine.client.stderr_notices import forget, notice_once, tell
from logengine.errors import (
    DaemonUnavailable,
    NotDurable,
    ProducerForgotten,
    ProtocolError,
    RecordTooLarge,
    TooManyStreams,
)

# These end a client, but its records keep their numbers: the next process can send them.
_LEAVES_RECORDS = (DaemonUnavailable, ProtocolError, TooManyStreams)
_UNREAD = "spool not read"


class Work(Enum):
    """The kind of a step. Each kind fails and is retried independently."""

    SPILL = auto()
    RELEASE = auto()
    NUMBER = auto()
    READ = auto()


class Step(NamedTuple):
    """One piece of work on the spool; `finish` takes the result of `run`."""

    work: Work
    run: Callable[[], Any]
    finish: Callable[[Any], None] = lambda _: None


class Delivery:
    """The records of one producer on their way to the daemon; those in the spool go first."""

    def __init__(self, settings: Settings, producer: str, spool: Spool | None) -> None:
        self.producer = producer
        self._settings = settings
        self._spool = spool
        self._conversation: Conversation | None = None
        self.line_bytes_max = MAX_RECORD_BYTES + 1  # how long a line may be, with its newline
        self._output = b""  # read from the spool, to be sent
        self.is_pressed = False  # a caller waits for room
        self._awaited = 0  # up to which place callers wait for records to be durable
        self._flushed = 0  # up to which place this connection was asked for that
        self.is_closing = False
        # The next record's number does not follow the last one's: see `Outbox.skip`.
        self.needs_new_connection = False
        self._failing: set[Work] = set()
        self._spool_errors: dict[Work, str] = {}  # until a step of that kind succeeds
        self._no_connection = "no daemon was reached yet"
        self._refused_told = 0
        bounds = (settings.max_records, settings.max_bytes)
        self.outbox = (
            Outbox(*bounds)
            if spool is None
            else Outbox(
                *bounds,
                spooled_first=spool.begin,
                spooled_last=spool.last,
                numbering=spool.numbering,
            )
        )
        self.inherited = self.outbox.taken

    def use_spool(self, open_spool: Callable[[str], Spool | None]) -> None:
        """Opens the spool if none is open. It must be new and empty."""
        if self._spool is None:
            self._spool = open_spool(self.producer)

    @property
    def is_welcomed(self) -> bool:
        """Whether a daemon is connected and accepts records."""
        return self._conversation is not None and self._conversation.is_welcomed

    @property
    def away(self) -> str | None:
        """Why no daemon accepts records at the moment; None if one does."""
        if self.is_welcomed:
            return None
        if self._conversation is not None:
            return f"the daemon at {self._settings.current_socket()} does not answer"
        return self._no_connection

    @property
    def was_welcomed(self) -> bool:
        """Whether the number of the first record is known."""
        return self.outbox.numbering.offset is not None and self.outbox.numbering.until is None

    @property
    def resumed_at(self) -> int:
        """The number of the last record that earlier processes saved."""
        return self.inherited + (self.outbox.numbering.offset or 0)

    @property
    def spooled(self) -> int:
        """How many of the pending records are in the spool."""
        return self.outbox.spooled - self.outbox.acked if self._spool is not None else 0

    def connected(self) -> bytes:
        """Starts a new connection. Returns the hello to send on it."""
        self._conversation = Conversation(
            self.outbox, self._settings.stream, self.producer, self._on_forgotten
        )
        self._output = b""
        self._flushed = 0
        self.needs_new_connection = False
        return self._conversation.hello()

    def received(self, data: bytes) -> None:
        """Handles `data` from the daemon. Raises like `Conversation.receive`."""
        assert self._conversation is not None
        self._conversation.receive(data)
        if self._conversation.is_welcomed:
            self.line_bytes_max = self._conversation.max_record + 1
        self.outbox.tell_of_drops()

    def _on_forgotten(self, text: str) -> None:
        if self._settings.on_forgotten == "raise":
            raise ProducerForgotten(text)
        tell(text)

    def lost(self, reason: str) -> None:
        """Notes that the connection ended or could not be made, and why."""
        self._conversation = None
        self._no_connection = reason

    @property
    def trouble(self) -> str:
        """Why the pending records are not durable yet."""
        for error in list(self._spool_errors.values()):
            return error
        return self.away or f"the daemon at {self._settings.current_socket()} has not stored them"

    def check_size(self, line: bytes) -> None:
        """Raises `RecordTooLarge` for a line, with its newline, that the daemon would refuse."""
        if len(line) > self.line_bytes_max:
            raise RecordTooLarge(
                f"a record of {len(line) - 1} bytes is too large; "
                f"the daemon takes {self.line_bytes_max - 1}",
                self.line_bytes_max - 1,
            )

    def wait_for(self, place: int) -> None:
        """Notes that a caller waits until the records up to `place` are durable. Any thread."""
        # Of two threads at the same time, the one that waits for less may win: the other one's
        # records are then committed at the daemon's pace.
        self._awaited = max(self._awaited, place)

    def next_output(self) -> bytes:
        """Returns the bytes to send now; none if a step or more records must come first."""
        if not self.is_welcomed or self.needs_new_connection:
            return b""
        if self._output:
            output, self._output = self._output, b""
            return output
        outbox = self.outbox
        if outbox.sends_from_spool:
            return b""
        if outbox.is_worth_sending or outbox.sent < self._awaited:
            chunk = outbox.next_chunk()
            if chunk is not None:
                return chunk.lines + self._flush()
        return self._flush()

    def _flush(self) -> bytes:
        """Returns an empty line if a caller waits for records that were sent without one."""
        outbox = self.outbox
        awaited = self._awaited
        if not max(self._flushed, outbox.acked) < awaited <= outbox.sent:
            return b""
        self._flushed = outbox.sent
        return b"\n"

    def may_spill(self) -> bool:
        """Whether the records in memory may go to the spool to make room."""
        return (
            self._spool is not None
            and Work.SPILL not in self._failing
            and self._spool.bytes + self.outbox.held_bytes <= self._settings.max_spool_bytes
        )

    @property
    def wake_bytes(self) -> float:
        """At how many bytes in memory there is something to do."""
        if self.is_welcomed:
            return self.outbox.worth_sending_bytes
        return self._settings.max_bytes // 2 if self.may_spill() else float("inf")

    def next_step(self) -> Step | None:
        """Returns the next step for the spool, which comes before anything else, or None."""
        if self._spool is None:
            return None
        return self._step_back(self._spool) or self._step_out(self._spool)

    def _step_back(self, spool: Spool) -> Step | None:
        """Returns a step out of the spool: removes durable records, or reads the next to send."""
        outbox = self.outbox
        if not spool.last and not outbox.sends_from_spool:
            return None
        releases = spool.releases(outbox.acked)
        if releases and Work.RELEASE not in self._failing:
            acked = outbox.acked
            return Step(Work.RELEASE, lambda: spool.release(acked))
        if not self.is_welcomed:
            return None
        if spool.numbering_kept != outbox.numbering:
            # Only after durable records are removed: they have numbers of the old numbering.
            return None if releases else self._step_to_number(spool)
        return self._step_to_read(spool)

    def _step_to_number(self, spool: Spool) -> Step | None:
        if Work.NUMBER in self._failing:
            return None
        numbering = self.outbox.numbering
        return Step(Work.NUMBER, lambda: spool.keep_numbering(numbering))

    def _step_to_read(self, spool: Spool) -> Step | None:
        outbox = self.outbox
        if self._output or not outbox.sends_from_spool or Work.READ in self._failing:
            return None
        if self.needs_new_connection:
            return None
        lost = spool.gap_behind(outbox.sent, outbox.spooled)
        if lost == outbox.sent:
            place = outbox.sent + 1
            return Step(Work.READ, lambda: spool.read(place), self._read)
        offset = outbox.numbering.offset
        if outbox.in_flight or offset is None:
            return None  # pass a gap only after everything before it is durable
        first, known = outbox.sent + 1, offset

        def skip(_: None) -> None:
            # Otherwise the connection has changed meanwhile; the new one passes the gap.
            if self.is_welcomed and not outbox.in_flight and outbox.sent == first - 1:
                outbox.skip(lost)
                self.needs_new_connection = True

        return Step(Work.READ, lambda: spool.pass_gap(first, lost, known), skip)

    def _read(self, chunk: Chunk | None) -> None:
        # Otherwise it is read again, on the next connection or after a repair of the segment.
        if chunk is not None and self.is_welcomed:
            self.outbox.spool_sent(chunk)
            self._output = chunk.lines

    def _step_out(self, spool: Spool) -> Step | None:
        """Returns a step into the spool if memory is full or nearly full, or the process exits."""
        outbox = self.outbox
        is_due = self.is_closing or self.is_pressed
        if not self.is_welcomed:
            is_due |= outbox.held_bytes * 2 >= self._settings.max_bytes
            is_due |= outbox.held_records * 2 >= self._settings.max_records
        if not (is_due and outbox.held_bytes and self.may_spill()):
            return None
        chunks, numbering = outbox.to_spool(), outbox.numbering
        if not chunks:
            return None

        def finish(_: None) -> None:
            outbox.is_spooled(chunks[-1].last)
            self.is_pressed = False

        return Step(Work.SPILL, lambda: spool.add(chunks, numbering), finish)

    @property
    def is_spool_failing(self) -> bool:
        """Whether steps failed and wait for `try_spool_again`."""
        return bool(self._failing)

    def spool_done(self, step: Step, done: Any) -> None:
        """Completes `step` with `done`, the result of its `run`."""
        if self._spool_errors.pop(step.work, None) and step.work is Work.READ:
            forget(_UNREAD, self.producer)
        step.finish(done)

    def spool_failed(self, step: Step, error: OSError) -> None:
        """Notes that `step.run` raised; offers no step of its kind until `try_spool_again`.

        Records that could not be spilled stay in memory; unread ones stay in the spool.
        """
        self._failing.add(step.work)
        self._spool_errors[step.work] = str(error)
        if step.work is Work.READ:
            notice_once(
                _UNREAD,
                self.producer,
                f"records of stream {self._settings.stream!r} cannot be read from the spool; "
                f"they and all later records wait and are retried: {error}",
            )

    def try_spool_again(self) -> None:
        """Allows failed kinds of steps again. Called some time after a failure."""
        self._failing.clear()

    def check_refused(self) -> None:
        """Raises `NotDurable` if the daemon refused records since the last call."""
        refused = self.outbox.refused - self._refused_told
        self._refused_told = self.outbox.refused
        if refused:
            reasons = ", ".join(sorted({refusal.reason for refusal in self.outbox.refusals}))
            raise NotDurable(f"the daemon refused {refused} records: {reasons}", refused)

    def not_durable(self, why: str, pending: int | None = None) -> NotDurable:
        """Returns the error for the pending records; `pending` overrides the outbox's count."""
        count, spooled = self.outbox.pending if pending is None else pending, self.spooled
        in_spool = f", {spooled} of them in the spool" if spooled else ""
        return NotDurable(
            f"{count} records of stream {self._settings.stream!r} are not durable{in_spool}: {why}",
            count,
            spooled,
        )

    def ended_by(self, error: Exception) -> None:
        """Notes the error that ends the client; next steps put the rest into the spool."""
        self.lost(str(error))
        self.is_closing = isinstance(error, _LEAVES_RECORDS)

    def end(self) -> None:
        """Closes the spool."""
        forget(_UNREAD, self.producer)
        if self._spool is not None:
            self._spool.close()

    def forget(self) -> None:
        """Closes everything in a forked process, without touching the parent's files."""
        if self._spool is not None:
            self._spool.forget()
