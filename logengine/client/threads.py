"""The client for programs with threads: `send` takes microseconds, a thread does the rest."""

import atexit
import contextlib
import os
import random
import select
import socket
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from logengine.client.base import NEVER, RECEIVE_BYTES, SPOOL_RETRY_S, BaseClient, noted_on
from logengine.client.delivery import Delivery
from logengine.client.encoding import encode_record
from logengine.client.pause import Pause
from logengine.client.settings import process_producer
from logengine.errors import LogEngineError


class Client(BaseClient):
    """Sends records to a stream, each exactly once, whatever becomes of the daemon.

    `send` returns as soon as the record is in memory; a thread, begun with the first one,
    sends it and keeps it until the daemon says that it is durable. Safe for many threads.
    A process that is forked has a client of its own, with its own producer: what its parent
    took is its parent's to send. At exit, `close` is called.
    """

    def _begin(self, delivery: Delivery) -> None:
        super()._begin(delivery)
        # Reentrant: a signal handler may log while its thread is in here.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None
        self._wakeup: int | None = None
        _clients.add(self)
        if delivery.outbox.pending:
            self._start()

    def resumed_at(self, timeout: float | None = None) -> int:
        """The number of the last record that earlier processes with this name brought to safety.

        It is durable, or in the spool. Whoever numbers his records 1, 2, … goes on behind it.
        Waits for the daemon. Raises `NotDurable` if none is there in time, and what ended the
        client.
        """
        with self._changed:
            delivery = self._usable()
            self._start()
            if not self._changed.wait_for(lambda: delivery.was_welcomed or self._failure, timeout):
                raise delivery.not_durable(delivery.trouble)
            self._usable()
            return delivery.resumed_at

    def send(self, record: Mapping[str, Any] | bytes) -> int:
        """Takes a record: a dict, or bytes that are one line of JSON or text.

        Gives its place among the records of this client, from 1; 0 if it is blank or was
        dropped. What it holds may be anything, see `encode_record`. It is copied: the record
        may be changed afterwards. Raises `RecordTooLarge`, `ClientFull`, `ClientClosed`, and
        what ended the client, such as `ProducerFenced`.
        """
        line = encode_record(record)
        with self._lock:
            if self._obstacle or not 0 < len(line) <= self._line_bytes_max:
                return self._send_past_obstacles(line)
            delivery = self._delivery
            outbox = delivery.outbox
            place = outbox.try_take(line)
            if not place:
                return self._send_past_obstacles(line)
            if outbox.held_bytes >= self._wake_bytes:
                self._wake()
            return place - delivery.inherited

    def _send_past_obstacles(self, line: bytes) -> int:
        delivery = self._usable()
        self._start()
        if not line:
            return 0
        delivery.check_size(line)
        outbox = delivery.outbox
        outbox.tell_of_drops()
        while not (place := outbox.try_take(line)):
            if not self._is_to_wait():
                return 0
            self._wake()
            self._changed.wait()
            self._usable()
        self._obstacle = False
        self._line_bytes_max = delivery.line_bytes_max
        self._wake()
        return place - delivery.inherited

    def flush(self, timeout: float | None = None) -> None:
        """Returns when all that was sent before is durable.

        Raises `NotDurable` if it is not within `timeout` seconds, or if the daemon refused
        records since the last flush, and what ended the client.
        """
        with self._changed:
            self._flush(self._usable(), timeout)

    def close(self, timeout: float | None = None) -> None:
        """Waits for what is pending, then ends; what is not durable by then goes to the spool.

        `timeout` seconds, without it `close_timeout`. Raises `NotDurable` for what is lost
        with the process: without a spool, all that is pending; and what ended the client.
        Does nothing the second time.
        """
        with self._changed:
            if self._closed:
                return
            self._closed = self._obstacle = True
            delivery = self._delivery
            error: LogEngineError | None = None
            try:
                if self._failure is None and (delivery.outbox.pending or self._thread):
                    self._flush(delivery, self._close_timeout_s if timeout is None else timeout)
            except LogEngineError as raised:
                error = raised
            delivery.is_closing = self._stopping = True
            self._wake()
        if self._orphans is not None:
            self._orphans.stop()
        if self._thread is not None:
            self._thread.join()
        if self._wakeup is not None:
            os.close(self._wakeup)
            self._wakeup = None
        delivery.end()
        _clients.discard(self)
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

    def _flush(self, delivery: Delivery, timeout: float | None) -> None:
        outbox = delivery.outbox
        outbox.tell_of_drops(regardless=True)
        place = outbox.taken
        if outbox.acked < place:
            self._start()
            self._wake()
        if not self._changed.wait_for(lambda: outbox.acked >= place or self._failure, timeout):
            raise delivery.not_durable(delivery.trouble)
        if outbox.acked < place and self._failure is not None:
            raise self._failure
        delivery.check_refused()

    # What follows runs in, or begins, the client's own thread.

    def _start(self) -> None:
        if self._thread is not None:
            return
        self._delivery.use_spool(self._open_spool)
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="logengine-client", daemon=True)
        _close_at_exit_of_a_child()
        self._thread.start()

    def _wake(self) -> None:
        self._wake_bytes = NEVER  # once is enough
        if self._wakeup is not None:
            os.eventfd_write(self._wakeup, 1)

    def _run(self) -> None:
        try:
            self._deliver()
            while self._take_step():
                pass  # into the spool with what is left
        except LogEngineError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - told to whoever sends, whatever it is
            self._fail(LogEngineError(f"the client ended: {error!r}"))

    def _fail(self, error: LogEngineError) -> None:
        with self._changed:
            self._failure = error
            self._obstacle = True
            self._changed.notify_all()

    def _deliver(self) -> None:
        pause = Pause(random.random)
        away_since = time.monotonic()
        while not self._stopping:
            reason = "the client was closed"
            try:
                self._converse()
            except OSError as error:
                reason = self._no_daemon(error)
            with self._changed:
                if self._delivery.is_welcomed:
                    pause.reset()
                    away_since = time.monotonic()
                self._delivery.lost(reason)
                away_s = time.monotonic() - away_since
            if self._away_max_s is not None and away_s >= self._away_max_s:
                raise self._unavailable(away_s, reason)
            self._rest(pause.take())

    def _rest(self, pause_s: float) -> None:
        """Spills while no daemon is there, until it is time to look for one again."""
        until = time.monotonic() + pause_s
        while not self._stopping and (left_s := until - time.monotonic()) > 0:
            while self._take_step():
                pass
            with self._lock:
                self._wake_bytes = self._delivery.wake_bytes
                if self._delivery.outbox.held_bytes >= self._wake_bytes:
                    self._wake()
            self._wait(select.poll(), left_s)

    def _converse(self) -> None:
        """One connection, to its end, which is an `OSError`, or to that of the client."""
        connection = socket.socket(socket.AF_UNIX)
        self._socket = connection
        try:
            connection.setblocking(False)
            connection.connect(os.fspath(self._settings.socket_path()))
            with self._lock:
                output = memoryview(self._delivery.connected())
            poll = select.poll()
            while not self._stopping:
                output = self._send(connection, output)
                poll.register(connection, select.POLLIN | (select.POLLOUT if output else 0))
                self._wait(poll, None)
                self._receive(connection)
        finally:
            self._socket = None
            connection.close()

    def _send(self, connection: socket.socket, output: memoryview) -> memoryview:
        """Sends what may be sent now; gives what the socket did not take."""
        while True:
            while self._take_step():
                pass
            if self._stopping:
                return output
            if not output:
                with self._lock:
                    output = memoryview(self._delivery.next_output())
                    if not output:
                        self._wake_bytes = self._delivery.wake_bytes
                        return output
            try:
                output = output[connection.send(output) :]
            except BlockingIOError:
                return output
            except ConnectionError:
                # Its last answers can still be read: perhaps that another took over the name.
                while self._receive(connection):
                    pass
                raise

    def _receive(self, connection: socket.socket) -> bool:
        """Takes what the daemon said; False if that is nothing. Raises `OSError` at its end."""
        try:
            data = connection.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return False
        if not data:
            raise ConnectionResetError("the daemon closed the connection")
        with self._changed:
            was_welcomed = self._delivery.is_welcomed
            self._delivery.received(data)
            self._line_bytes_max = self._delivery.line_bytes_max
            self._changed.notify_all()
        if not was_welcomed and self._delivery.is_welcomed:
            self._drain_orphans(Client)
        return True

    def _wait(self, poll: "select.poll", timeout_s: float | None) -> None:
        """Returns when something is to be done: data, room in the socket, records, or an end."""
        assert self._wakeup is not None
        if self._delivery.is_spool_failing:
            timeout_s = min(SPOOL_RETRY_S, timeout_s or SPOOL_RETRY_S)
        poll.register(self._wakeup, select.POLLIN)
        woken = poll.poll(None if timeout_s is None else timeout_s * 1000)
        if not woken:
            self._delivery.is_spool_failing = False  # it is tried again
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wakeup)

    def _take_step(self) -> bool:
        """Does one thing with the spool; False if there is nothing to be done."""
        with self._lock:
            step = self._delivery.next_step()
        if step is None:
            return False
        try:
            done = step.run()
        except OSError as error:
            with self._changed:
                self._delivery.spool_failed(step, error)
                self._changed.notify_all()
            return True
        with self._changed:
            step.finish(done)
            self._changed.notify_all()
        return True

    # What follows is for the end of a process, and for the beginning of a forked one.

    def give_up(self) -> None:
        """Ends what waits for the daemon, with `NotDurable`; to be closed all the same."""
        with self._changed:
            self._fail(self._delivery.not_durable("given up"))

    def hold_still(self) -> None:
        """No other thread is in the midst of anything until `go_on`: the process forks now."""
        self._lock.acquire()

    def go_on(self) -> None:
        """Ends `hold_still`."""
        self._lock.release()

    def begin_anew(self) -> None:
        """In a forked process: what was taken is the parent's; from here on it is another one."""
        delivery = self._delivery
        delivery.forget()
        if self._socket is not None:
            self._socket.close()
        if self._wakeup is not None:
            os.close(self._wakeup)
        self._adoptable = True
        name = process_producer(self._settings.producer or "")
        self._begin(Delivery(self._settings, name, None))


_clients: "weakref.WeakSet[Client]" = weakref.WeakSet()
_held_still: list[Client] = []


def _hold_still() -> None:
    _held_still.extend(sorted(_clients, key=id))
    for client in _held_still:
        client.hold_still()


def _go_on() -> None:
    while _held_still:
        _held_still.pop().go_on()


def _begin_anew() -> None:
    while _held_still:
        _held_still.pop().begin_anew()


def _close_all() -> None:
    for client in list(_clients):
        try:
            client.close()
        except LogEngineError as error:
            print(f"logengine: {error}", file=sys.stderr)  # noqa: T201 - nobody else is left


def _close_at_exit_of_a_child() -> None:
    """A process of multiprocessing ends without `atexit`, but with its own finalizers."""
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        util.Finalize(None, _close_all, exitpriority=0)


atexit.register(_close_all)
os.register_at_fork(before=_hold_still, after_in_parent=_go_on, after_in_child=_begin_anew)
