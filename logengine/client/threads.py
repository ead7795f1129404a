"""The client for programs with threads: `send` takes microseconds, a thread does the rest.

Everything here follows the rule that `handover` explains: no lock that an application's thread
takes is ever held where foreign code can run. So `send` may be called from a signal handler, from
a `__del__`, from within itself, and in a child forked in the middle of a `send`. Each call checks
that the thread that delivers exists in this process.
"""

import os
from _thread import get_ident
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from logengine.client import shutdown
from logengine.client.base import BaseClient, clients_of, noted_on
from logengine.client.delivery import Delivery
from logengine.client.delivery_thread import DeliveryThread
from logengine.client.encoding import encode_record
from logengine.client.settings import process_producer
from logengine.client.signal_context import is_in_signal_handler
from logengine.errors import ClientClosed, ClientFull, LogEngineError, NotDurable, renewed

_SPILL_S_MAX = 5.0
_NEVER_REACHED_S = 0.5


class Client(BaseClient):
    """Sends records to a stream, each exactly once, whatever happens to the daemon.

    `send` returns as soon as the record is in memory; a thread, started with the first record,
    sends it and keeps it until the daemon acknowledges it as durable. Safe to use from many
    threads, from signal handlers and from `__del__`. A forked process has its own client, with
    its own producer: the parent sends what the parent took. `close` is called at exit.
    """

    def _begin(self, delivery: Delivery) -> None:
        shutdown.prepare()
        self._threads: dict[int, DeliveryThread] = {}
        self._ended_at_exit = False
        self._thread = self._threads.setdefault(os.getpid(), self._new_thread(delivery))
        if delivery.outbox.pending:
            self._start(self._thread)

    def _new_thread(self, delivery: Delivery) -> DeliveryThread:
        return DeliveryThread(
            self._settings,
            delivery,
            away_max_s=self._away_max_s,
            prepare=lambda: delivery.use_spool(self._open_spool),
            welcomed=lambda: self._drain_orphans(Client),
        )

    @property
    def _delivery(self) -> Delivery:
        return self._here().delivery

    @property
    def _failure(self) -> LogEngineError | None:
        return self._here().failure

    @property
    def pending(self) -> int:
        """How many records are not known to be durable, those found in the spool included."""
        return self._here().pending

    @property
    def pending_bytes(self) -> int:
        """How many bytes the pending records in memory take."""
        return self._here().held_bytes

    @property
    def dropped(self) -> int:
        """How many records were dropped for lack of room."""
        return self._here().handover.dropped

    def resumed_at(self, timeout: float | None = None) -> int:
        """Returns the number of the last record that earlier processes with this name saved.

        That record is durable, or in the spool. A caller that numbers its records 1, 2, …
        continues after it. Waits for the daemon. Raises `NotDurable` if none answers in time, and
        the error that ended the client.
        """
        thread = self._here()
        delivery = self._usable()
        self._start(thread)
        if not thread.wait_for(lambda: delivery.was_welcomed, timeout):
            raise thread.not_durable()
        self._usable()
        return delivery.resumed_at

    def send(self, record: Mapping[str, Any] | bytes) -> int:
        """Takes a record: a dict, or bytes that are one line of JSON or text.

        Returns its place among the records of this client, from 1; 0 if the record is blank or
        was dropped. The record may contain any values, see `encode_record`. It is copied, so the
        caller may change it afterwards. Raises `RecordTooLarge`, `ClientFull`, `ClientClosed`, and
        the error that ended the client, such as `ProducerFenced`.
        """
        line = encode_record(record)
        thread = self._thread
        handover = thread.handover
        if not (
            thread.mark[0]
            and thread.is_running
            and 0 < len(line) <= thread.line_bytes_max
            and handover.has_room(len(line))
        ):
            return self._send_past_obstacles(line)
        cell = handover.take(line)
        if handover.taken_bytes >= handover.wake_bytes and not thread.keeps(cell):
            return self._send_past_obstacles(line)
        place: int = cell[1]
        return place

    def _send_past_obstacles(self, line: bytes) -> int:
        while True:
            thread = self._here()
            if self._ended_at_exit:
                return self._send_late(line)
            delivery = self._usable()
            if thread.is_ended:
                raise ClientClosed(f"the client of stream {self.stream!r} is being closed")
            self._start(thread)
            if not line:
                return 0
            delivery.check_size(line)
            me = get_ident()
            has_room = thread.has_room(len(line))
            is_within = not has_room and (me in thread.waiting or is_in_signal_handler())
            if has_room or (is_within and thread.takes_within_wait()):
                cell = thread.handover.take(line)
                if thread.keeps(cell):
                    place: int = cell[1]
                    return place
                continue
            is_outermost = me not in thread.waiting
            thread.waiting.add(me)
            try:
                if not self._waits_for_room(thread, len(line), is_within=is_within):
                    return 0
            finally:
                if is_outermost:
                    thread.waiting.discard(me)

    def _waits_for_room(self, thread: DeliveryThread, size: int, *, is_within: bool) -> bool:
        """Returns whether to try again; if not, the record was dropped. Raises `ClientFull`."""
        settings, delivery = self._settings, thread.delivery

        def is_worth_waiting() -> bool:
            return delivery.may_spill() or settings.on_full == "block"

        if is_worth_waiting():
            left_s = 0.0 if is_within else thread.patience_s(settings.block_max)
            if left_s != 0:
                delivery.is_pressed = True
                delivery.wait_for(delivery.outbox.taken)
                thread.wake_certainly()
            if thread.wait_for(lambda: thread.has_room(size) or not is_worth_waiting(), left_s):
                return True
            is_patient = thread.patience_s(settings.block_max) != 0
            if is_patient and not (is_within or thread.is_in_own_thread):
                return True  # there was progress meanwhile
        elif settings.on_full == "raise":
            raise ClientFull(
                f"{thread.held_records} records of {thread.held_bytes} bytes wait for the daemon "
                f"and memory is full: {delivery.trouble}"
            )
        thread.handover.drop()
        if not thread.is_drop_told:
            thread.is_drop_told = True
            self._tell_of_drops()
        return False

    def _send_late(self, line: bytes) -> int:
        """Sends a record immediately, after all clients were closed at exit and none waits."""
        settings = self._settings
        late = Client(
            settings.stream,
            socket=settings.given_socket,
            spool=settings.spool,
            close_timeout=self._close_timeout_s,
        )
        # During interpreter shutdown, as in an object's `__del__`, a thread can still be started
        # but no longer runs.
        late._thread.has_thread = False
        try:
            return late.send(line)
        finally:
            late.close()

    def flush(self, timeout: float | None = None) -> None:
        """Returns when everything sent before is durable.

        Raises `NotDurable` if that takes longer than `timeout` seconds, or if the daemon refused
        records since the last flush, and the error that ended the client.
        """
        thread = self._here()
        self._usable()
        self._flush(thread, lambda wait: wait(timeout))

    def flush_in_time(self) -> None:
        """Like `flush` for `close_timeout` seconds, less if other clients just waited in vain."""
        thread = self._here()
        self._usable()
        self._flush(thread, lambda wait: self._wait_together(thread, None, wait))

    def close(self, timeout: float | None = None) -> None:
        """Waits for pending records, then ends; those not durable by then go to the spool.

        An exception that interrupts the wait, such as Ctrl-C, gets a note about what is lost.

        Waits for `timeout` seconds; by default for `close_timeout`, or less if other clients of the
        same daemon have just waited for it in vain. Raises `NotDurable` for records that are lost
        with the process (without a spool, all pending ones), and the error that ended the client.
        The second call does nothing.
        """
        if timeout is None:
            self._close(lambda thread, wait: self._wait_together(thread, None, wait))
        else:
            self._close(lambda _, wait: wait(timeout))

    def close_at_exit(self, began: float) -> None:
        """Closes the client; records sent after that are sent immediately, one by one.

        A close that has begun may never end: if it runs in a daemon thread, or if this is called
        from a signal handler that has interrupted it.
        """

        def wait_together(thread: DeliveryThread, wait: Any) -> bool:
            return self._wait_together(thread, began, wait)

        if not self._closed:
            self._close(wait_together)
        elif not (thread := self._here()).is_through:
            self._end_close(thread, wait_together)

    def _end_close(self, thread: DeliveryThread, patiently: Any) -> None:
        error: LogEngineError | None = None
        try:
            if thread.failure is None and thread.pending:
                self._flush(thread, lambda wait: patiently(thread, wait), is_end=True)
        except LogEngineError as raised:
            error = raised
        finally:
            if thread.is_running:
                thread.stop(_SPILL_S_MAX)
        self._raise_what_is_lost(error)

    def _close(self, patiently: Any) -> None:
        thread = self._here()
        if self._closed:
            return
        self._closed = True
        self._ended_at_exit = shutdown.is_exiting()
        thread.close()
        error: LogEngineError | None = None
        interruption: BaseException | None = None
        try:
            if thread.failure is None and (thread.pending or thread.is_running):
                self._flush(thread, lambda wait: patiently(thread, wait), is_end=True)
        except LogEngineError as raised:
            error = raised
        except BaseException as raised:  # noqa: BLE001 - such as Ctrl-C, raised again below
            error, interruption = thread.not_durable(), raised
        finally:
            is_ended = thread.stop(_SPILL_S_MAX)
            if self._orphans is not None:
                self._orphans.stop(_SPILL_S_MAX)
            if is_ended:
                thread.delivery.end()
            shutdown.leave(self)
        if interruption is not None:
            with noted_on(interruption):
                self._raise_what_is_lost(error)
            raise interruption
        self._raise_what_is_lost(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with noted_on(exc):
            self.close()

    def _flush(self, thread: DeliveryThread, patiently: Any, *, is_end: bool = False) -> None:
        outbox = thread.delivery.outbox
        place = thread.taken

        def wait(timeout_s: float | None) -> bool:
            if outbox.acked < place:
                thread.delivery.wait_for(place)
                if not self._start(thread) and is_end:
                    thread.run_here(self._close_timeout_s if timeout_s is None else timeout_s)
                thread.wake_certainly()
            thread.wait_for(lambda: outbox.acked >= place, timeout_s)
            return outbox.acked >= place or thread.failure is not None

        patiently(wait)
        if outbox.acked < place:
            if thread.failure is not None:
                raise renewed(thread.failure)
            raise thread.not_durable()
        thread.delivery.check_refused()

    def _wait_together(self, thread: DeliveryThread, began: float | None, wait: Any) -> bool:
        timeout_s = self._close_timeout_s
        if self._settings.spool is not None and not thread.was_welcomed_ever:
            timeout_s = min(timeout_s, _NEVER_REACHED_S)  # records are as safe in the spool
        where = os.fspath(self._settings.current_socket())
        return shutdown.wait_together(where, timeout_s, began, wait, thread.made_at)

    def _start(self, thread: DeliveryThread) -> bool:
        """Ensures that a thread delivers or is about to; False if none can be started."""
        if thread.is_running:
            return True
        shutdown.enter(self)
        return thread.ensure_running()

    def give_up(self) -> None:
        """Ends all waits for the daemon with `NotDurable`. The client must still be closed."""
        self._thread.fail(NotDurable("given up", self.pending))

    # The rest handles a forked process.

    def _here(self) -> DeliveryThread:
        """Returns the delivery thread of the calling process; creates it after a fork."""
        thread = self._thread
        if thread.mark[0]:
            return thread
        pid = os.getpid()
        name = process_producer(self._settings.producer or "")
        self._adoptable = True
        mine = self._new_thread(Delivery(self._settings, name, None))
        # Several threads of a child may get here at the same time; only the first one wins.
        if self._threads.setdefault(pid, mine) is mine:
            self._orphans = None
            self._threads = {pid: mine}
            self._thread = mine
            thread.forget()
        return self._threads[pid]

    def begin_here(self) -> None:
        """Gives a forked process its own producer: records taken before are the parent's."""
        if not self._closed:
            self._here()


def _begin_here() -> None:
    shutdown.forget_all()
    for client in clients_of(Client):
        client.begin_here()


# The first `send` also detects a fork that ran no hooks; this hook closes files sooner.
os.register_at_fork(after_in_child=_begin_here)
