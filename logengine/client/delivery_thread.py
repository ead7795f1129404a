"""The thread that delivers a `Client`'s records to the daemon, and how other threads wait for it.

Only this thread touches the `Delivery`, so the `Delivery` needs no lock. Each waiting thread waits
on a lock of its own, which the delivery thread releases and never acquires. Any thread that finds
the delivery thread missing starts it. If several do so at the same time, the first of the new
threads stays and the others exit.
"""

import contextlib
import errno
import random
import select
import time
from _thread import allocate_lock, get_ident, start_new_thread
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from logengine.client.backoff import Backoff
from logengine.client.clock import now_s
from logengine.client.daemon_socket import Socket, connect
from logengine.client.delivery import Delivery
from logengine.client.descriptors import OwnSocket, Wakeup
from logengine.client.encoding import encode_record
from logengine.client.handover import Cell, Handover
from logengine.client.outbox import drops_record
from logengine.client.process_mark import process_mark
from logengine.client.settings import Settings
from logengine.client.signal_context import leave_signals_to_others
from logengine.client.stderr_notices import forget, notice_once
from logengine.errors import DaemonUnavailable, LogEngineError, NotDurable

if TYPE_CHECKING:
    from _thread import LockType

# Looked up together, once: if a program is patched for greenlets later, both still match.
_poll = getattr(select, "poll", None)  # eventlet takes it away
_select = select.select

SPOOL_RETRY_S = 1.0
AWAY_TOLD_AFTER_S = 1.5
_START_AGAIN_S = 1.0
LOOK_S = 5.0  # no wake-up should be missed; if one is, this bounds the delay
_WAIT_S = 1.0
_BUSY_S = 0.005
_BUSY_LOOK_S = 0.001
_NOTE_BYTES = 100
_WITHIN_WAIT = 1.125
_NO_DESCRIPTOR_S = 0.1
_NO_DESCRIPTOR = {errno.EMFILE, errno.ENFILE}


class DeliveryThread:
    """The part of a client that belongs to one process.

    The thread calls `prepare` before each connection and `welcomed` at each new welcome.
    `is_ended`: it takes no more records; `failure` is the reason, if there is one. `is_through`:
    nothing more happens here.
    """

    def __init__(
        self,
        settings: Settings,
        delivery: Delivery,
        *,
        away_max_s: float | None,
        prepare: Callable[[], object] = lambda: None,
        welcomed: Callable[[], object] = lambda: None,
    ) -> None:
        self.mark = process_mark()
        self.delivery = delivery
        self.handover = Handover(settings.max_records, settings.max_bytes)
        self.line_bytes_max = delivery.line_bytes_max
        self.failure: LogEngineError | None = None
        self.is_running = False
        self.is_ended = False
        self.is_through = False
        self.is_stopping = False
        self.has_thread = True  # otherwise the closing thread delivers everything, in `run_here`
        self.was_welcomed_ever = False
        self.is_drop_told = False
        self.made_at = self._progressed_at = now_s()
        self._full_since: float | None = None
        self._settings = settings
        self._away_max_s = away_max_s
        self._prepare = prepare
        self._welcomed = welcomed
        self._waiters: deque[LockType] = deque()
        self._wakeup: Wakeup | None = None
        self._connection: OwnSocket | None = None
        self._elected: dict[str, object] = {}
        self._asleep: list[Wakeup] = []  # one per sleeping thread, replaced threads included
        self._is_called = False
        self._busy_until = 0.0
        self._spool_again_at = 0.0
        self._thread = 0
        self._asked_at = -_START_AGAIN_S
        self._until: float | None = None  # the deadline of `run_here`
        self._drops_told = 0
        self.waiting: set[int] = set()  # the threads that wait for room
        self._bound()

    # These are for the application's threads.

    @property
    def taken(self) -> int:
        """The place of the last record taken, as the outbox counts."""
        return max(self.delivery.outbox.taken, self.delivery.inherited + self.handover.taken)

    @property
    def pending(self) -> int:
        """How many records are not known to be durable."""
        return max(0, self.taken - self.delivery.outbox.acked)

    @property
    def held_bytes(self) -> int:
        """How many bytes are in memory, roughly."""
        waiting = self.handover.taken_bytes - self.handover.drained_bytes
        return self.delivery.outbox.held_bytes + max(0, waiting)

    @property
    def held_records(self) -> int:
        """How many records are in memory, roughly."""
        return self.delivery.outbox.held_records + len(self.handover)

    def has_room(self, size: int) -> bool:
        """Whether there is room; a line larger than the bounds fits only into empty memory."""
        if self._fits(size):
            self._full_since = None
            return True
        return False

    def _fits(self, size: int) -> bool:
        handover = self.handover
        is_empty = not (self.delivery.outbox.held_bytes or len(handover) or handover.is_closed)
        return handover.has_room(size) or is_empty

    def takes_within_wait(self) -> bool:
        """Whether to take a record without room, from a signal handler or from within a wait.

        Neither can wait. Such records exceed the bounds by at most an eighth.
        """
        handover = self.handover
        return not handover.is_closed and (
            self.held_records < handover.records_max * _WITHIN_WAIT
            and self.held_bytes < handover.bytes_max * _WITHIN_WAIT
        )

    def patience_s(self, block_max_s: float | None) -> float | None:
        """Returns how long to wait for room, counted from the last progress; None is forever."""
        if block_max_s is None:
            return None
        now = now_s()
        full_since = self._full_since
        if full_since is None:
            full_since = self._full_since = now
        return max(0.0, max(self._progressed_at, full_since) + block_max_s - now)

    def not_durable(self) -> NotDurable:
        """Returns the error for the pending records."""
        return self.delivery.not_durable(self.delivery.trouble, self.pending)

    @property
    def is_in_own_thread(self) -> bool:
        """Whether the caller is the delivery thread, in a `__del__`: it cannot wait for itself."""
        return self._thread == get_ident()

    def keeps(self, cell: Cell) -> bool:
        """Wakes the thread for the record in `cell`; False if it has ended and did not take it."""
        if self.is_ended:
            return not self.handover.withdraw(cell)
        self.wake()
        return True

    def wake(self) -> None:
        """Tells the thread that there is work."""
        self.handover.wake()
        if not self._is_called:
            self.wake_certainly()

    def wake_certainly(self) -> None:
        """Like `wake`, for callers that wait: wakes the thread although it was called before.

        An exception in a signal handler may have interrupted that call before the thread woke up.
        """
        self.handover.wake()
        self._is_called = True
        # An awake thread checks for calls before it sleeps, so leave it alone: a system call here
        # would hand it the interpreter, perhaps in the middle of a signal handler.
        wakeup = self._wakeup
        if self._asleep and wakeup is not None and not wakeup.set():
            self._replace(wakeup)

    def _replace(self, wakeup: Wakeup) -> None:
        """Starts another thread: the old one waits, perhaps forever, on sockets closed under it."""
        try:
            self._asleep.remove(wakeup)
        except ValueError:
            return  # it has just woken up and detects this itself
        self.is_running = False
        self._asked_at = -_START_AGAIN_S
        self._elected.clear()
        self.ensure_running()

    def ensure_running(self) -> bool:
        """Starts the thread if there is none; False if none can be started now.

        Calls during the start return True without starting another; the start is retried later.
        """
        if self.is_running or self.is_ended:
            return True
        if not self.has_thread:
            return False
        now = now_s()
        if now < self._asked_at + _START_AGAIN_S:
            return True
        self._asked_at = now
        try:
            start_new_thread(self._run_alone, ())
        except RuntimeError as error:
            self._asked_at = -_START_AGAIN_S
            notice_once(
                "no thread",
                self.delivery.producer,
                f"records of stream {self._settings.stream!r} wait in memory, "
                f"the next one retries to start a thread: {error}",
            )
            return False
        return True

    def wait_for(self, condition: Callable[[], Any], timeout_s: float | None) -> bool:
        """Waits until `condition` is true or the client has ended; False on timeout."""
        deadline = None if timeout_s is None else now_s() + timeout_s
        while not (condition() or self.failure or self.is_ended):
            if self.is_in_own_thread:
                return False
            left_s = _WAIT_S if self.is_running else _WAIT_S / 20
            if deadline is not None:
                left_s = min(left_s, deadline - now_s())
                if left_s <= 0:
                    return False
            self.ensure_running()
            lock = allocate_lock()
            lock.acquire()
            self._waiters.append(lock)
            try:
                if not (condition() or self.failure or self.is_ended):
                    lock.acquire(True, left_s)
            finally:
                with contextlib.suppress(ValueError):
                    self._waiters.remove(lock)
        return True

    def fail(self, error: LogEngineError) -> None:
        """Ends the client: all its callers get `error`."""
        self.failure = error
        self.handover.close()
        self._release_waiters()

    def close(self) -> None:
        """Takes no more records."""
        self.handover.close()

    def stop(self, timeout_s: float) -> bool:
        """Ends the thread after spooling what is not durable; returns whether it ended in time."""
        self.handover.close()
        self.delivery.is_closing = self.is_stopping = True
        self.wake_certainly()
        if self.is_in_own_thread:
            return False
        if not self.is_running:
            self._run()  # the thread never started: do its remaining work here
        deadline = now_s() + timeout_s
        while not self.is_through and (left_s := deadline - now_s()) > 0:
            lock = allocate_lock()
            lock.acquire()
            self._waiters.append(lock)
            if not self.is_through:
                lock.acquire(True, min(left_s, _WAIT_S))
        return self.is_through

    def run_here(self, timeout_s: float) -> None:
        """Delivers in the caller's thread, if no other can be started, until all is durable.

        Stops after `timeout_s`.
        """
        self._until = now_s() + timeout_s
        self._run()

    def forget(self) -> None:
        """Closes everything in a forked process, without touching the parent's files."""
        self.is_ended = self.is_through = True
        self.delivery.forget()
        if self._connection is not None:
            self._connection.close()
        if self._wakeup is not None:
            self._wakeup.close()

    # The rest runs in the client's own thread.

    def _run_alone(self) -> None:
        leave_signals_to_others()
        self._run()

    def _run(self) -> None:
        me = object()
        if self._elected.setdefault("delivery", me) is not me or self.is_ended:
            return
        self._thread = get_ident()
        self.is_running = True
        forget("no thread", self.delivery.producer)
        try:
            self._renew_wakeup()
            self._deliver()
            if self._elected.get("delivery") is not me:
                return  # another thread continues
            self._finish()
        except _Replaced:
            return
        except LogEngineError as error:
            self._fail_and_save(error)
        except BaseException as error:
            if self._until is not None and not isinstance(error, Exception):
                self._save_when_interrupted()
                raise
            self.fail(LogEngineError(f"the client failed: {error!r}"))
        self._end()

    def _save_when_interrupted(self) -> None:
        """Ends after Ctrl-C or the like in the thread that called `run_here`."""
        self.is_stopping = self.delivery.is_closing = True
        self.delivery.lost("the wait for the daemon was interrupted")
        self._finish()
        self._end()

    def _fail_and_save(self, error: LogEngineError) -> None:
        self.fail(error)
        self.delivery.ended_by(error)
        if self.delivery.is_closing:
            with contextlib.suppress(LogEngineError):
                self._finish()

    def _renew_wakeup(self) -> None:
        """Creates the `Wakeup` of this thread; waits while no file descriptor is available.

        Returns without one if the client ends first.
        """
        if self._wakeup is not None:
            self._wakeup.close()
            self._wakeup = None
        while self._wakeup is None and not self._is_over():
            try:
                self._wakeup = Wakeup()
            except OSError as error:
                notice_once(
                    "no descriptor",
                    self.delivery.producer,
                    f"records of stream {self._settings.stream!r} wait in memory, "
                    f"the process has no free file descriptor: {error.strerror}",
                )
                time.sleep(_NO_DESCRIPTOR_S)
        forget("no descriptor", self.delivery.producer)

    def _finish(self) -> None:
        """Writes the remaining records to the spool."""
        self.handover.close()
        self._drain()
        if self.pending:
            self._open_spool()  # in case it ends before it ever tried to connect
        self.delivery.try_spool_again()
        while self._take_step():
            self._drain()

    def _end(self) -> None:
        self.handover.close()
        self.is_ended = True
        # A caller that adds a record after this withdraws it, unless it is drained here.
        while len(self.handover):
            self._drain()
            if self.failure is None or self.delivery.is_closing:
                with contextlib.suppress(LogEngineError):
                    while self._take_step():
                        pass
        if self._wakeup is not None:
            self._wakeup.close()
            self._wakeup = None
        self._thread = 0
        self.is_through = True
        self._release_waiters()

    def _is_over(self) -> bool:
        if self.is_stopping or self.failure is not None:
            return True
        return self._until is not None and (not self.pending or now_s() >= self._until)

    def _deliver(self) -> None:
        # The global one belongs to the application.
        pause = Backoff(random.Random().random)  # noqa: S311 - for pauses
        away_since = now_s()
        while not self._is_over():
            reason = "the connection was closed"
            self._open_spool()
            try:
                self._converse(away_since)
            except OSError as error:
                reason = unreached(self._settings.current_socket(), error)
            if self.delivery.is_welcomed:
                pause.reset()
                away_since = now_s()
            self.delivery.lost(reason)
            away_s = now_s() - away_since
            if self._away_max_s is not None and away_s >= self._away_max_s:
                raise unavailable(away_s, reason)
            self._rest(pause.take(), away_since, reason)

    def _open_spool(self) -> None:
        """Tries to open the spool of a forked child, which is new, unless it is open already."""
        try:
            self._prepare()
        except OSError as error:
            notice_once(
                "no spool",
                self.delivery.producer,
                f"the spool cannot be used, records wait only in memory: {error}",
            )

    def _rest(self, pause_s: float, away_since: float, reason: str) -> None:
        """Spills while no daemon is reachable, until it is time to reconnect."""
        until = now_s() + pause_s
        while not self._is_over() and (left_s := until - now_s()) > 0:
            self._drain()
            while self._take_step():
                self._drain()
            left_s = min(left_s, self._report_away(away_since, reason))
            self._wait(None, left_s, is_sending=False)

    def _report_away(self, away_since: float, reason: str) -> float:
        """Reports once that records wait for the daemon. Returns in how many seconds to check."""
        early_s = away_since + AWAY_TOLD_AFTER_S - now_s()
        if early_s > 0:
            return early_s
        if self.pending:
            notice_once("away", str(self._settings.current_socket()), f"{reason}; records wait")
        return LOOK_S

    def _converse(self, away_since: float) -> None:
        """Runs one connection until it fails with `OSError`, the client ends or it is replaced."""
        connection = OwnSocket(connect(self._settings.given_socket))
        self._connection = connection
        try:
            output = memoryview(self.delivery.connected())
            while not self._is_over():
                output = self._send(connection, output)
                if self._is_over() or self.delivery.needs_new_connection:
                    return
                look_s = LOOK_S
                if (reason := self.delivery.away) is not None:
                    look_s = self._report_away(away_since, reason)
                if self._wait(connection, look_s, is_sending=bool(output)):
                    self._receive(connection)
        finally:
            if self._connection is connection:
                self._connection = None
            connection.close()

    def _send(self, connection: OwnSocket, output: memoryview) -> memoryview:
        """Sends what may be sent now. Returns what the socket did not take."""
        while True:
            self._drain()
            while self._take_step():
                self._drain()
            if self._is_over():
                return output
            if not output:
                output = memoryview(self.delivery.next_output())
                if not output:
                    return output
            try:
                output = output[connection.send(output) :]
            except BlockingIOError:
                return output
            except ConnectionAbortedError:
                raise
            except ConnectionError:
                # The last answers can still be read: one may say that the name was taken over.
                while self._receive(connection):
                    pass
                raise

    def _receive(self, connection: OwnSocket) -> bool:
        """Reads the daemon's answers; False if there are none. Raises `OSError` at the end."""
        try:
            data = connection.receive()
        except BlockingIOError:
            return False
        if not data:
            raise ConnectionResetError("the daemon closed the connection")
        was_welcomed = self.delivery.is_welcomed
        self.delivery.received(data)
        self.line_bytes_max = self.delivery.line_bytes_max
        if not was_welcomed and self.delivery.is_welcomed:
            self.was_welcomed_ever = True
            forget("away", str(self._settings.current_socket()))
            self._welcomed()
        self._changed()
        return True

    def _drain(self) -> None:
        """Moves the records of the application's threads to the outbox."""
        handover = self.handover
        if lines := handover.drain():
            self.delivery.outbox.take_batch(lines)
            self._busy_until = now_s() + _BUSY_S
            self._bound()
        unsaid = handover.dropped - self._drops_told
        if unsaid and (handover.is_closed or self._fits(_NOTE_BYTES)):
            self._drops_told += unsaid
            self.is_drop_told = False
            handover.take(encode_record(drops_record(unsaid)))
            self._drain()

    def _wait(self, connection: OwnSocket | None, timeout_s: float, *, is_sending: bool) -> bool:
        """Waits until there is work: data, room in the socket, records, or an end.

        Returns whether the connection is, or may be, ready.
        """
        assert self._wakeup is not None
        if self.delivery.is_spool_failing:
            timeout_s = min(max(0.0, self._spool_again_at - now_s()), timeout_s)
        if self._until is not None:
            timeout_s = min(timeout_s, max(0.0, self._until - now_s()))
        wakeup = self._wakeup
        self._asleep.append(wakeup)
        outbox = self.delivery.outbox
        if now_s() < self._busy_until and connection and not outbox.in_flight:
            timeout_s = min(timeout_s, _BUSY_LOOK_S)  # more will come, without a wake-up
        elif not self.handover.sleep(outbox.held_bytes, self.delivery.wake_bytes):
            timeout_s = 0
        if self._is_called or self._is_over():
            timeout_s = 0
        ready = _wait_for_any(wakeup, connection, timeout_s, is_sending=is_sending)
        is_woken = wakeup.number in ready
        try:
            self._asleep.remove(wakeup)  # only its own: its replacement may be asleep too
        except ValueError:
            raise _Replaced from None
        self.handover.wake()
        self._is_called = False
        if self.delivery.is_spool_failing and now_s() >= self._spool_again_at:
            self.delivery.try_spool_again()
        if is_woken:
            wakeup.clear()
            if not wakeup.is_ours:
                self._renew_wakeup()
                return True
        return connection is not None and connection.number in ready

    def _take_step(self) -> bool:
        """Does one step on the spool; False if there is none."""
        step = self.delivery.next_step()
        if step is None:
            return False
        try:
            done = step.run()
        except OSError as error:
            self.delivery.spool_failed(step, error)
            self._spool_again_at = now_s() + SPOOL_RETRY_S
        else:
            self.delivery.spool_done(step, done)
        self._changed()
        return True

    def _bound(self) -> None:
        outbox = self.delivery.outbox
        self.handover.bound(outbox.held_bytes, outbox.spooled - self.delivery.inherited)

    def _changed(self) -> None:
        stop_before = self.handover.records_stop
        self._bound()
        if self.handover.records_stop != stop_before:
            self._progressed_at = now_s()
        if self._waiters and not self.pending:
            # The caller of `flush` may be about to fork in C; this thread should be asleep then.
            self._busy_until = 0.0
        self._release_waiters()

    def _release_waiters(self) -> None:
        try:
            while True:
                self._waiters.popleft().release()
        except IndexError:
            pass


def unreached(socket: Socket, error: OSError) -> str:
    """Returns why there is no connection to the daemon at `socket`."""
    why = error.strerror or str(error)
    if error.errno in _NO_DESCRIPTOR:
        return f"the daemon at {socket} cannot be reached: {why}"
    return f"no daemon at {socket}: {why}"


def unavailable(away_s: float, reason: str) -> DaemonUnavailable:
    """Returns the error of a client that gives up on its daemon."""
    return DaemonUnavailable(
        f"{reason}, for {away_s:.1f} s; is `logengine run` running, and is that its socket?"
    )


class _Replaced(Exception):
    """Another thread has replaced this one."""


def _wait_for_any(
    wakeup: Wakeup, connection: OwnSocket | None, timeout_s: float, *, is_sending: bool
) -> list[int]:
    """Returns the numbers of the descriptors that became ready within `timeout_s`."""
    numbers = [wakeup.number, *([connection.number] if connection else [])]
    if _poll is None:
        writing = numbers[1:] if is_sending else []
        try:
            return [
                number for ready in _select(numbers, writing, [], timeout_s) for number in ready
            ]
        except (OSError, ValueError):  # one of them was closed
            return numbers
    poll = _poll()
    poll.register(wakeup.number, select.POLLIN)
    if connection is not None:
        poll.register(connection.number, select.POLLIN | (select.POLLOUT if is_sending else 0))
    return [number for number, _ in poll.poll(timeout_s * 1000)]
