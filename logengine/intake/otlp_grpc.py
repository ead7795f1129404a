"""OTLP over gRPC: each connection is passed on to gRPC's own server, inside of this process.

gRPC binds its sockets itself, and does not say who has connected to one. So the daemon accepts the
connections, as all others, and passes their bytes on to a socket of gRPC in a directory that nobody
else may enter. The name of the connecting socket, which gRPC does say, tells whose request it is.

Implements the daemon's side of `docs/otlp.md`. Imported only if there is such a listener.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Callable
from typing import Any, cast

import structlog

from logengine.intake.context import IntakeContext
from logengine.intake.network import log_fields
from logengine.intake.requests import Refused, RequestConnection, Requests, RequestSender
from logengine.protocols.http2_streams import Http2Streams
from logengine.protocols.otlp import Encoding
from logengine.protocols.otlp_answers import accepted, status
from logengine.protocols.otlp_grpc import METHOD, SERVICE, STATUS_TRAILER

# What gRPC has to say would otherwise be lines of its own on standard error.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
_silent = logging.getLogger("grpc")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False

import grpc  # noqa: E402 - it reads the variable
import grpc.aio  # noqa: E402

log = structlog.get_logger()

_STREAMS_MAX = 128
_METADATA_BYTES_MAX = 8 * 1024
_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}
_PREFIX, _SOCKET = "logengine-grpc-", "socket"
# A daemon listens in its directory long before that.
_LEFTOVER_AFTER_S = 60.0


class GrpcServer:
    """gRPC's server, which runs until its task is cancelled.

    If it cannot start, for example because the disk is full, the next connection tries again.
    """

    def __init__(self, requests: Requests, tasks: asyncio.TaskGroup) -> None:
        self.requests = requests
        # By the name of the socket from which a connection is passed on, as gRPC says it.
        self.senders: dict[str, RequestSender] = {}
        self._tasks = tasks
        self._started = self._start()

    async def path(self) -> str:
        """Returns where gRPC listens, once it does. Raises `OSError` if it cannot."""
        if self._started.done() and self._started.exception() is not None:
            self._started = self._start()
        return await asyncio.shield(self._started)

    def _start(self) -> asyncio.Future[str]:
        started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._tasks.create_task(self._run(started))
        return started

    async def _run(self, started: asyncio.Future[str]) -> None:
        try:
            _remove_leftovers(tempfile.gettempdir())
            directory = tempfile.mkdtemp(prefix=_PREFIX)
        except OSError as error:
            _failed(started, error)
            return
        try:
            await self._serve(os.path.join(directory, _SOCKET), started)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    async def _serve(self, path: str, started: asyncio.Future[str]) -> None:
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", self.requests.max_request),
                ("grpc.max_concurrent_streams", _STREAMS_MAX),
                ("grpc.max_metadata_size", _METADATA_BYTES_MAX),
                ("grpc.absolute_max_metadata_size", 2 * _METADATA_BYTES_MAX),
                ("grpc.so_reuseport", 0),
            ]
        )
        handler = grpc.unary_unary_rpc_method_handler(self._export)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),)
        )
        try:
            server.add_insecure_port(f"unix:{path}")
            await server.start()
            started.set_result(path)
            await asyncio.get_running_loop().create_future()  # until it is cancelled
        except RuntimeError as error:
            _failed(started, OSError(str(error)))
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await server.stop(None)

    async def _export(self, body: bytes, context: Any) -> bytes:
        sender = self.senders.get(context.peer())
        if sender is None:  # its connection has ended
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the connection has ended")
        assert sender is not None
        result = self.requests.refusal(sender)
        if result is None:
            with self.requests.under_way(sender) as held:
                held.change(len(body))
                stored = await self.requests.store(sender, body, Encoding.PROTOBUF, held)
            if not isinstance(stored, Refused):
                return accepted(stored.rejected, stored.why)
            result = stored
        details = status(result.code, result.why, result.retry_after_s)
        code = _STATUS_CODES[result.code.value]
        await context.abort(code, result.why, ((STATUS_TRAILER, details),))
        raise AssertionError("abort raises")


def _remove_leftovers(parent: str) -> None:
    """Removes what daemons of this user left in `parent` that were killed. Raises `OSError`."""
    with os.scandir(parent) as entries:
        found = [each.path for each in entries if each.name.startswith(_PREFIX)]
    for directory in found:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            status = os.lstat(directory)
            is_old = time.time() - status.st_mtime > _LEFTOVER_AFTER_S
            if not (stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and is_old):
                continue
            probe.setblocking(False)  # a daemon's backlog may be full
            try:
                probe.connect(os.path.join(directory, _SOCKET))
            except (ConnectionRefusedError, FileNotFoundError):
                shutil.rmtree(directory)


def _failed(started: asyncio.Future[str], error: OSError) -> None:
    log.error("grpc_not_started", reason=str(error))
    started.set_exception(error)
    started.exception()  # it is known, even if nobody waits


class _Side(asyncio.Protocol):
    """One of the two ends of a connection that is passed on."""

    def __init__(self, on_data: Callable[[bytes], None], on_lost: Callable[[], None]) -> None:
        self._on_data = on_data
        self._on_lost = on_lost
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._on_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._on_lost()

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()


class GrpcConnection(RequestConnection):
    """A connection whose bytes are passed on to gRPC, and back."""

    def __init__(
        self,
        around: IntakeContext,
        server: GrpcServer,
        accepted: socket.socket,
        sender: RequestSender,
        on_closed: Callable[[RequestConnection], None],
    ) -> None:
        super().__init__(around, sender, on_closed)
        self._admission = around.admission
        self._server = server
        self._requests = server.requests
        self._socket = accepted
        self._loop = asyncio.get_running_loop()
        self._streams = Http2Streams()
        self._name = ""
        self._is_connecting = True
        self._early = b""
        self._timer: asyncio.TimerHandle | None = None
        self._accounted_bytes = 0
        self._client = _Side(self._from_client, self._on_client_lost)
        self._grpc = _Side(self._from_server, self._on_grpc_lost)
        self._client.other, self._grpc.other = self._grpc, self._client

    @property
    def has_unread(self) -> bool:
        """Whether a request is under way."""
        return self._streams.open > 0

    async def run(self) -> None:
        """Serves the connection from now on."""
        try:
            await self._connect(await self._server.path())
        except Exception as error:
            # No failure caused by one sender may stop the daemon. It tries again by itself.
            log.warning(
                "connection_failed",
                stream=self.sender.stream,
                pid=self.sender.peer.pid,
                uid=self.sender.uid,
                reason=str(error),
                exc_info=not isinstance(error, OSError),
            )
            if self._client.transport is None:
                self._socket.close()
            self._is_stopping = True
        self._is_connecting = False
        if self._client.transport is None:
            self._on_client_lost()
        elif self._is_stopping:
            self.close()

    async def _connect(self, path: str) -> None:
        """Connects to gRPC, and passes on from now on. Raises `OSError`."""
        inside = socket.socket(socket.AF_UNIX)
        try:
            inside.setblocking(False)
            inside.bind("")  # the kernel chooses a name
            self._name = f"unix-abstract:{inside.getsockname()[1:].decode()}"
            self._server.senders[self._name] = self.sender
            await self._loop.sock_connect(inside, path)
            # First the client: gRPC speaks as soon as it is connected.
            await self._loop.connect_accepted_socket(lambda: self._client, self._socket)
            await self._loop.create_unix_connection(lambda: self._grpc, sock=inside)
        except BaseException:
            inside.close()
            raise
        self._pass_on_early()

    def _pass_on_early(self) -> None:
        """Passes on what the client sent before gRPC was connected."""
        if self._grpc.transport is not None:
            self._grpc.transport.write(self._early)
        self._early = b""
        if self._client.transport is not None:
            self._client.transport.resume_reading()

    def stop(self) -> None:
        """Lets complete requests be answered, and ends it then."""
        self._is_stopping = True
        self._end_if_through()

    def close(self) -> None:
        """Ends it immediately. Queued entries are still committed."""
        self._is_stopping = True
        side = self._grpc if self._client.transport is None else self._client
        if side.transport is not None:
            side.transport.abort()

    def _from_client(self, data: bytes) -> None:
        self.heard_s = time.monotonic()
        if not self._streams.has_begun:
            self._hello_timeout.begins(self)
        if self._streams.sent_by_client(data, self._loop.time()):
            self._seats.heard(self)
        if self._streams.has_begun:
            self._hello_timeout.ends(self)
        if self._account() > 0 and self._takes_too_much():
            log.warning(
                "request_refused",
                stream=self.sender.stream,
                reason="too much waits to be written, or is not complete",
                **log_fields(self.sender.peer),
            )
            self.close()
            return
        self._watch()
        if self._grpc.transport is not None:
            self._grpc.transport.write(data)
        elif self._client.transport is not None:
            self._early += data
            self._client.transport.pause_reading()

    def _from_server(self, data: bytes) -> None:
        self.heard_s = time.monotonic()
        self._streams.sent_by_server(data)
        self._account()
        if self._client.transport is not None:
            self._client.transport.write(data)
        if self._is_stopping:
            self._end_if_through()

    def _account(self) -> int:
        """Counts what has arrived of incomplete requests. Returns how much that is more."""
        change_bytes = self._streams.incomplete_bytes - self._accounted_bytes
        if change_bytes:
            self._accounted_bytes += change_bytes
            self.sender.held_bytes += change_bytes
            self._admission.hold(self.sender, change_bytes, finished=False)
        return change_bytes

    def _takes_too_much(self) -> bool:
        if self._accounted_bytes > 2 * self._requests.max_request:
            return True
        sender = self.sender.before_decoding
        return (
            self._admission.room_for(sender) is None
            and not self._admission.tokens_in_s(sender)
            and not self._is_stopping
        )

    def _watch(self) -> None:
        """Ends the connection once a request is incomplete for too long."""
        if self._timer is None and self._streams.incomplete_since_s is not None:
            due_s = self._streams.incomplete_since_s + self._requests.timeout_s
            self._timer = self._loop.call_at(due_s, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        since_s = self._streams.incomplete_since_s
        if since_s is not None and since_s + self._requests.timeout_s <= self._loop.time():
            log.warning("stalled_sender_closed", **log_fields(self.sender.peer))
            self.close()
        else:
            self._watch()

    def _end_if_through(self) -> None:
        if not self._streams.answering and self._client.transport is not None:
            self._client.transport.close()  # after what is still to be written

    def _on_client_lost(self) -> None:
        """Ends the side of gRPC, once gRPC has closed its socket too: that is a file as well."""
        if self._grpc.transport is not None and not self._grpc.transport.is_closing():
            self._grpc.transport.write_eof()
            self._close_in_time()
        self._end_if_lost()

    def _on_grpc_lost(self) -> None:
        """Ends the side of the client, once it has read what gRPC had to say."""
        if self._client.transport is not None:
            self._client.transport.close()
            self._close_in_time()
        self._end_if_lost()

    def _close_in_time(self) -> None:
        self._stop_timer()
        self._timer = self._loop.call_later(self._requests.timeout_s, self.close)

    def _end_if_lost(self) -> None:
        """Gives back what the connection had, once both sides have ended: they are open files."""
        if self._is_connecting or self._client.transport or self._grpc.transport:
            return
        self._server.senders.pop(self._name, None)
        self._stop_timer()
        self.sender.held_bytes -= self._accounted_bytes
        self._admission.hold(self.sender, -self._accounted_bytes, finished=False)
        self._accounted_bytes = 0
        self._closed()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
