"""The client for programs on asyncio: one task, and a thread only for work on the spool."""

import asyncio
import concurrent.futures
import contextlib
import os
import random
import weakref
from _thread import get_ident
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from logengine.client import shutdown
from logengine.client.backoff import Backoff
from logengine.client.base import BaseClient, noted_on
from logengine.client.clock import now_s
from logengine.client.daemon_socket import connect
from logengine.client.delivery import Delivery, Step
from logengine.client.delivery_thread import (
    AWAY_TOLD_AFTER_S,
    LOOK_S,
    SPOOL_RETRY_S,
    DeliveryThread,
    unavailable,
    unreached,
)
from logengine.client.descriptors import RECEIVE_BYTES, above_standard
from logengine.client.encoding import encode_record
from logengine.client.handover import NEVER
from logengine.client.process_mark import process_mark
from logengine.client.stderr_notices import forget, notice_once, tell
from logengine.client.threads import Client
from logengine.errors import ClientFull, LogEngineError, renewed

if TYPE_CHECKING:
    import socket

_SENDS_PER_TURN = 100


class AsyncClient(BaseClient):
    """`Client` for asyncio: `await client.send(record)` waits only for room in memory.

    Works on one event loop at a time, and raises an error on a second one that runs in another
    thread meanwhile. Its task runs there from the first call until `close`, or to
    the end of an `async with`. If the task was cancelled or its loop has ended, the next call
    starts another task. Records that remain when the process exits are sent then, as by `Client`.
    Do not use it in a forked process: create another client there.
    """

    tells_when_away = True  # on standard error; `exec` leaves that to its command

    def _begin(self, delivery: Delivery) -> None:
        shutdown.prepare()
        self._own_delivery = delivery
        self._ended_by: LogEngineError | None = None
        self._obstacle = True  # `send` cannot take its fast path
        self._wake_bytes = NEVER  # at how many bytes in memory to call `_wake`
        self._stopping = False
        self._mark = process_mark()
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._task: asyncio.Task[None] | None = None
        self._yield_at = 0  # at how many records taken the next `send` lets others run
        self._yielder: weakref.ref[asyncio.Task[Any]] | None = None
        self._step: tuple[Step, concurrent.futures.Future[Any]] | None = None
        self._spool_again_at = 0.0
        self._dropped_at = -1  # the released place when it last dropped for lack of progress
        self._wakeup = asyncio.Event()  # for the task
        self._changed = asyncio.Event()  # for callers that wait for acks or for room

    @property
    def _delivery(self) -> Delivery:
        return self._own_delivery

    @property
    def _failure(self) -> LogEngineError | None:
        return self._ended_by

    async def send(self, record: Mapping[str, Any] | bytes) -> int:
        """Takes a record, like `Client.send`; waits for room if `on_full` says so."""
        line = encode_record(record)
        delivery = self._own_delivery
        outbox = delivery.outbox
        loop = self._loop
        if not (
            self._mark[0]
            and not self._obstacle
            and loop is not None
            and loop.is_running()  # `get_running_loop` costs a system call
            and get_ident() == self._loop_thread
            and outbox.taken < self._yield_at
            and 0 < len(line) <= delivery.line_bytes_max
            and (place := outbox.try_take(line))
        ):
            return await self._send_past_obstacles(line)
        if outbox.held_bytes >= self._wake_bytes:
            self._wake()
        return place - delivery.inherited

    async def _send_past_obstacles(self, line: bytes) -> int:
        if not line:
            return 0
        self._delivery.check_size(line)
        await self._room(len(line), 1)
        return self._taken(self._delivery.outbox.try_take(line))

    async def send_lines(self, lines: bytes) -> int:
        """Takes complete lines, each a record like bytes in `send`. Returns the last one's place.

        Drops all of them if there is no room for all. The daemon refuses lines that are too large.
        """
        is_taken = await self._room(len(lines), lines.count(b"\n"))
        return self._taken(self._delivery.outbox.take_lines(lines) if is_taken else 0)

    async def _room(self, size: int, count: int) -> bool:
        """Waits for room for `count` records; False if they were dropped instead."""
        delivery = self._start()
        if delivery.outbox.taken >= self._yield_at:
            await self._let_others_run()
            delivery = self._start()
        delivery.outbox.tell_of_drops()
        while not delivery.outbox.has_room(size, count):
            if not await self._waits_for_room(count):
                return False
            delivery = self._start()
        self._obstacle = False
        self._dropped_at = -1
        return True

    async def _waits_for_room(self, count: int) -> bool:
        """Returns whether to try again; if not, the records were dropped. Raises `ClientFull`."""
        settings, delivery = self._settings, self._delivery
        outbox = delivery.outbox
        if delivery.may_spill() or settings.on_full == "block":
            delivery.is_pressed = True
            delivery.wait_for(outbox.taken)
            self._wakeup.set()
            released = outbox.spooled
            if released != self._dropped_at:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(settings.block_max):
                        await self._change()
                        return True
                if released != outbox.spooled:
                    return True
                self._dropped_at = released
                self._tell_of_drops()
        elif settings.on_full == "raise":
            raise ClientFull(
                f"{outbox.held_records} records of {outbox.held_bytes} bytes wait for the daemon "
                f"and memory is full: {delivery.trouble}"
            )
        outbox.drop(count)
        self._obstacle = True
        return False

    async def _let_others_run(self) -> None:
        """Yields if one task sends again and again, which lets not even the client's task run.

        Before the record is taken: a `send` that was cancelled has taken nothing. Tasks that send
        one record each go on in their order.
        """
        self._yield_at = self._delivery.outbox.taken + _SENDS_PER_TURN
        task = asyncio.current_task()
        is_same = self._yielder is not None and self._yielder() is task
        self._yielder = weakref.ref(task) if task is not None else None
        if is_same:
            await asyncio.sleep(0)

    def _taken(self, place: int) -> int:
        if not place:
            return 0
        if self._delivery.outbox.held_bytes >= self._wake_bytes:
            self._wake()
        return place - self._delivery.inherited

    async def durable(self, place: int, timeout: float | None = None) -> None:
        """Returns when the record with this `place` is durable. Raises like `flush`."""
        await self._until_durable(self._delivery.inherited + place, timeout)

    async def flush(self, timeout: float | None = None) -> None:
        """Returns when everything sent before is durable. Raises like `Client.flush`."""
        self._delivery.outbox.tell_of_drops(regardless=True)
        await self._until_durable(self._delivery.outbox.taken, timeout)

    async def resumed_at(self, timeout: float | None = None) -> int:
        """Like `Client.resumed_at`."""
        delivery = self._start()
        if not await self._until(lambda: delivery.was_welcomed, timeout):
            raise delivery.not_durable(delivery.trouble)
        self._usable()
        return delivery.resumed_at

    async def failed(self) -> None:
        """Waits until an error ends the client, and raises it."""
        self._start()
        await self._until(lambda: False, None)
        self._usable()

    async def close(self, timeout: float | None = None) -> None:
        """Waits for pending records, then ends, like `Client.close`."""
        if self._closed:
            return
        self._closed = self._obstacle = True
        delivery = self._delivery
        error: LogEngineError | None = None
        is_interrupted = True
        try:
            if self._failure is None and (delivery.outbox.pending or self._task):
                delivery.outbox.tell_of_drops(regardless=True)
                self._begin_task()
                self._obstacle = True
                await self._until_durable(
                    delivery.outbox.taken,
                    self._close_timeout_s if timeout is None else timeout,
                )
            is_interrupted = False
        except LogEngineError as raised:
            error, is_interrupted = raised, False
        finally:
            delivery.is_closing = self._stopping = True
            self._wake()
            if self._task is not None and self._pid == os.getpid():
                self._begin_task()  # if it was cancelled: the spool must still be written
                await self._task
            if self._orphans is not None:
                await asyncio.to_thread(self._orphans.stop, self._close_timeout_s)
            delivery.end()
            shutdown.leave(self)
            if is_interrupted and self.pending > delivery.spooled:
                # Whoever cancelled this waits for no other exception.
                tell(str(delivery.not_durable("the wait for the daemon was interrupted")))
        self._raise_what_is_lost(error)

    def close_at_exit(self, began: float) -> None:
        """Sends the remaining records in the exiting thread, after the event loop has ended."""
        if self._closed or self._pid != os.getpid():
            return
        self._closed = self._obstacle = True
        delivery = self._delivery
        if self._failure is not None or not delivery.outbox.pending:
            return
        if self._loop is not None and self._loop.is_running():
            raise delivery.not_durable("its event loop still runs while the process exits")
        if self._step is not None:
            concurrent.futures.wait([self._step[1]], self._close_timeout_s)
        delivery.lost("its event loop ended")
        delivery.wait_for(delivery.outbox.taken)
        delivery.is_closing = True
        delivery_thread = DeliveryThread(self._settings, delivery, away_max_s=None)
        delivery_thread.run_here(max(0.0, began + self._close_timeout_s - now_s()))
        delivery.end()
        if delivery.outbox.pending > delivery.spooled:
            raise delivery.not_durable(delivery.trouble)

    async def __aenter__(self) -> Self:
        self._start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with noted_on(exc):
            await self.close()

    async def _until_durable(self, place: int, timeout: float | None) -> None:
        delivery = self._delivery
        outbox = delivery.outbox
        if outbox.acked < place:
            delivery.wait_for(place)
            if not self._closed:
                self._start()
            self._wake()
            if not await self._until(lambda: outbox.acked >= place, timeout):
                raise delivery.not_durable(delivery.trouble)
            if outbox.acked < place and self._failure is not None:
                raise renewed(self._failure)
        delivery.check_refused()

    async def _until(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Waits until `condition` is true or the client has ended; False on timeout."""
        try:
            async with asyncio.timeout(timeout):
                while not (condition() or self._failure):
                    self._begin_task()
                    await self._change()
        except TimeoutError:
            return False
        return True

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _start(self) -> Delivery:
        delivery = self._usable()
        self._begin_task()
        return delivery

    def _begin_task(self) -> None:
        if os.getpid() != self._pid:
            raise LogEngineError(
                "this AsyncClient was created before its process forked; create another one here"
            )
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if (
                self._loop is not None
                and self._loop.is_running()
                and self._loop_thread != get_ident()
            ):
                raise LogEngineError(
                    f"this AsyncClient of stream {self.stream!r} is in use by an event loop in "
                    "another thread; create one for each event loop, or use Client"
                )
            if self._task is not None and self._loop is not None and not self._loop.is_closed():
                # That loop may run again; its connection would then be a second sender.
                self._task.cancel()
            self._loop, self._loop_thread = loop, get_ident()
            self._task = None
            self._wakeup, self._changed = asyncio.Event(), asyncio.Event()
            shutdown.enter(self)
        if self._failure is None and (self._task is None or self._task.done()):
            self._delivery.lost("the client's task was cancelled")
            self._task = loop.create_task(self._run(), name="logengine-client")
            self._task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if task is self._task:
            self._obstacle = True
            self._changed.set()

    def _wake(self) -> None:
        self._wake_bytes = NEVER  # once is enough
        self._wakeup.set()

    # The rest runs in the client's own task.

    async def _run(self) -> None:
        try:
            try:
                await self._deliver()
            except LogEngineError as error:
                self.fail(error)
            self._delivery.try_spool_again()
            await self._take_steps()  # writes the remaining records to the spool
        except LogEngineError as error:
            self.fail(error)
        except Exception as error:  # noqa: BLE001 - later calls raise it, whatever it is
            self.fail(LogEngineError(f"the client failed: {error!r}"))

    def fail(self, error: LogEngineError) -> None:
        """Ends the client: all its callers get `error`."""
        self._ended_by = error
        self._delivery.ended_by(error)
        self._obstacle = self._stopping = True
        self._wakeup.set()
        self._changed.set()

    async def _deliver(self) -> None:
        # The global one belongs to the application.
        pause = Backoff(random.Random().random)  # noqa: S311 - for pauses
        loop = asyncio.get_running_loop()
        away_since = loop.time()
        while not self._stopping:
            reason = "the connection was closed"
            try:
                await self._converse(away_since)
            except OSError as error:
                reason = unreached(self._settings.current_socket(), error)
            if self._delivery.is_welcomed:
                pause.reset()
                away_since = loop.time()
            self._delivery.lost(reason)
            away_s = loop.time() - away_since
            if self._away_max_s is not None and away_s >= self._away_max_s:
                raise unavailable(away_s, reason)
            await self._rest(pause.take(), away_since, reason)

    async def _rest(self, pause_s: float, away_since: float, reason: str) -> None:
        """Spills while no daemon is reachable, until it is time to reconnect."""
        loop = asyncio.get_running_loop()
        until = loop.time() + pause_s
        while not self._stopping and (left_s := until - loop.time()) > 0:
            await self._take_steps()
            await self._wait(min(left_s, self._report_away(away_since, reason)))

    def _report_away(self, away_since: float, reason: str) -> float:
        """Reports once that records wait for the daemon. Returns in how many seconds to check."""
        early_s = away_since + AWAY_TOLD_AFTER_S - asyncio.get_running_loop().time()
        if early_s > 0:
            return early_s
        if self.pending and self.tells_when_away:
            notice_once("away", str(self._settings.current_socket()), f"{reason}; records wait")
        return LOOK_S

    async def _converse(self, away_since: float) -> None:
        """Runs one connection until it fails with `OSError`, the client ends or it is replaced."""
        loop = asyncio.get_running_loop()
        link = _Link(self._received, self._wakeup.set)
        transport: asyncio.WriteTransport | None = None
        try:
            connection = connect(self._settings.given_socket)
            transport, _ = await loop.create_unix_connection(lambda: link, sock=connection)
            transport.write(self._delivery.connected())
            while not self._stopping:
                await self._take_steps()
                if link.ended is not None:
                    raise link.ended
                while not link.is_paused and (output := self._delivery.next_output()):
                    transport.write(output)
                    await self._take_steps()
                if self._delivery.needs_new_connection:
                    return
                away = self._delivery.away
                await self._wait(None if away is None else self._report_away(away_since, away))
        finally:
            # The outbox also has the data still in the transport, until it is acknowledged.
            if transport is not None:
                transport.abort()
            link.close()

    def _received(self, data: bytes) -> None:
        was_welcomed = self._delivery.is_welcomed
        try:
            self._delivery.received(data)
        except LogEngineError as error:
            self.fail(error)
            return
        if not was_welcomed and self._delivery.is_welcomed:
            forget("away", str(self._settings.current_socket()))
            self._drain_orphans(Client)
        self._wakeup.set()
        self._changed.set()

    async def _wait(self, timeout_s: float | None) -> None:
        """Returns when there is work: answers, room in the socket, records, or an end."""
        self._wake_bytes = self._delivery.wake_bytes
        loop = asyncio.get_running_loop()
        if self._delivery.is_spool_failing:
            left_s = max(0.0, self._spool_again_at - loop.time())
            timeout_s = left_s if timeout_s is None else min(left_s, timeout_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._wakeup.wait()
        if self._delivery.is_spool_failing and loop.time() >= self._spool_again_at:
            self._delivery.try_spool_again()
        self._wakeup.clear()

    async def _take_steps(self) -> None:
        """Does the pending work on the spool, in a thread, one step after the other.

        A step continues if the task is cancelled; the next task first waits until it is done.
        """
        while True:
            if self._step is None:
                step = self._delivery.next_step()
                if step is None:
                    return
                self._step = step, _in_a_thread(step)
            step, result = self._step
            await asyncio.wait([asyncio.wrap_future(result)])
            self._step = None
            error = result.exception()
            if error is None:
                self._delivery.spool_done(step, result.result())
            elif isinstance(error, OSError):
                self._delivery.spool_failed(step, error)
                self._spool_again_at = asyncio.get_running_loop().time() + SPOOL_RETRY_S
            else:
                raise error
            self._changed.set()


def _in_a_thread(step: Step) -> concurrent.futures.Future[Any]:
    result: concurrent.futures.Future[Any] = concurrent.futures.Future()
    result.set_running_or_notify_cancel()  # from here on it cannot be cancelled

    def run() -> None:
        try:
            result.set_result(step.run())
        except BaseException as error:  # noqa: BLE001 - the waiting task raises it
            result.set_exception(error)

    asyncio.get_running_loop().run_in_executor(None, run)
    return result


class _Link(asyncio.Protocol):
    """The callbacks of one connection. The task checks for its end."""

    def __init__(self, received: Callable[[bytes], None], wake: Callable[[], None]) -> None:
        self._received = received
        self._wake = wake
        self.is_paused = False
        self.ended: OSError | None = None
        self._answers: socket.socket | None = None
        self._is_closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._is_closed:  # the task no longer waits for it
            assert isinstance(transport, asyncio.WriteTransport)
            transport.abort()
            return
        self._answers = above_standard(transport.get_extra_info("socket").dup())

    def data_received(self, data: bytes) -> None:
        if self.ended is None and not self._is_closed:
            self._received(data)

    def pause_writing(self) -> None:
        self.is_paused = True

    def resume_writing(self) -> None:
        self.is_paused = False
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._hear_out()
        self.ended = (
            exc
            if isinstance(exc, OSError)
            else ConnectionResetError("the daemon closed the connection")
        )
        self._wake()

    def _hear_out(self) -> None:
        """Reads the daemon's last answers: a transport that failed to write stops reading.

        One of them may say that another sender took over the producer's name.
        """
        with contextlib.suppress(OSError):
            while self._answers and (data := self._answers.recv(RECEIVE_BYTES)):
                self._received(data)

    def close(self) -> None:
        """Closes the socket."""
        self._is_closed = True
        if self._answers is not None:
            self._answers.close()
