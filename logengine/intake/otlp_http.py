"""OTLP over HTTP: aiohttp parses, this decides what a request must look like and what it gets.

Implements the daemon's side of `docs/otlp.md`. Imported only if there is such a listener.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import cast

import structlog
from aiohttp import StreamReader, web

from logengine.errors import MalformedInput
from logengine.format.decompression import Decompressor
from logengine.intake.context import IntakeContext
from logengine.intake.requests import (
    Accepted,
    Held,
    Refused,
    RequestConnection,
    Requests,
    RequestSender,
)
from logengine.protocols.otlp import Encoding
from logengine.protocols.otlp_answers import Code
from logengine.protocols.otlp_http import (
    COMPRESSIONS,
    METHOD,
    PATH,
    answer,
    encoding_of,
    http_status,
    refusal,
)
from logengine.units import format_size

log = structlog.get_logger()

_HEADERS_MAX = 64
_HEADER_BYTES_MAX = 8 * 1024
# After a refusal, so much longer the rest of a body is read, so that its sender reads the answer.
_LINGER_S = 2.0
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# What aiohttp has to say would otherwise be lines of its own on standard error.
_silent = logging.getLogger("logengine.otlp")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


class HttpConnection(RequestConnection, asyncio.Protocol):
    """A connection over which requests come one after the other.

    Stands between the transport and aiohttp, which has no limit of time for the head of a request.
    """

    def __init__(
        self,
        around: IntakeContext,
        requests: Requests,
        accepted: socket.socket,
        sender: RequestSender,
        on_closed: Callable[[RequestConnection], None],
    ) -> None:
        super().__init__(around, sender, on_closed)
        self._requests = requests
        self._socket = accepted
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        server = web.Server(
            self._handle,
            logger=_silent,
            access_log=None,
            max_line_size=_HEADER_BYTES_MAX,
            max_field_size=_HEADER_BYTES_MAX,
            max_headers=_HEADERS_MAX,
            lingering_time=_LINGER_S,
            auto_decompress=False,  # here the size is limited
        )
        self._http = server()
        self._is_busy = False
        self._has_begun = False  # a request, whose head is not complete or not looked at yet
        self._content: StreamReader | None = None  # of the request under way
        self._sends_no_more = False
        self._reading: asyncio.Timeout | None = None  # of the body that is being read

    @property
    def has_unread(self) -> bool:
        """Whether a request is under way."""
        return self._is_busy

    async def run(self) -> None:
        """Serves the connection from now on."""
        try:
            await self._loop.connect_accepted_socket(lambda: self, self._socket)
        except OSError:  # the sender is gone
            self._socket.close()
            self._closed()

    def stop(self) -> None:
        """Lets the request under way finish if it is complete, and refuses it otherwise."""
        self._is_stopping = True
        if self._reading is not None:
            self._reading.reschedule(self._loop.time())
        elif not self._is_busy:
            self.close()

    def close(self) -> None:
        """Ends it immediately. Queued entries are still committed."""
        if self._transport is not None:
            self._transport.abort()
        else:
            self._is_stopping = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins."""
        self._transport = cast("asyncio.Transport", transport)
        self._http.connection_made(transport)
        if self._is_stopping:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends."""
        self._http.connection_lost(exc)
        self._transport = None
        self._closed()

    def data_received(self, data: bytes) -> None:
        """Passes on what was received."""
        self.heard_s = time.monotonic()
        if not self._is_busy:
            self._has_begun = True
            self._hello_timeout.begins(self)
        self._http.data_received(data)

    def eof_received(self) -> bool:
        """Returns whether the sender, which sends no more, may still wait for an answer."""
        self._sends_no_more = True
        self._http.eof_received()
        if self._content is None:
            return self._has_begun
        return self._content.is_eof()

    def pause_writing(self) -> None:
        """Passes on that the sender does not read its answers."""
        self._http.pause_writing()

    def resume_writing(self) -> None:
        """Passes on that it reads them again."""
        self._http.resume_writing()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self._hello_timeout.ends(self)
        self._seats.heard(self)
        self._is_busy, self._has_begun = True, False
        self._content = request.content
        if self._sends_no_more and not request.content.is_eof():
            self.close()  # the rest of the body never comes
        try:
            response = await self._answer(request)
        except Exception as error:
            if isinstance(error, ConnectionError):
                raise
            # No failure caused by one sender may stop the daemon.
            log.exception("connection_failed", stream=self.sender.stream, pid=self.sender.peer.pid)
            response = web.Response(status=HTTPStatus.INTERNAL_SERVER_ERROR)
        finally:
            self._is_busy, self._content = False, None
            self.heard_s = time.monotonic()
        if self._is_stopping or self._sends_no_more or not request.content.at_eof():
            response.force_close()
        response.headers["Server"] = "logengine"
        return response

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        fits = _fit(request)
        if isinstance(fits, web.Response):
            return fits
        encoding, compression = fits
        if refused := self._requests.refusal(self.sender):
            return _refused(refused, encoding)
        if (request.content_length or 0) > self._requests.max_request:
            return self._too_large(encoding)
        with self._requests.under_way(self.sender) as held:
            body = await self._body(request, compression, encoding, held)
            if isinstance(body, web.Response):
                return body
            result = await self._requests.store(self.sender, body, encoding, held)
        if isinstance(result, Refused):
            return _refused(result, encoding)
        return _accepted(result, encoding)

    async def _body(
        self, request: web.BaseRequest, compression: str, encoding: Encoding, held: Held
    ) -> bytes | web.Response:
        """Returns the body of a request, decompressed, or the answer that refuses it."""
        if request.headers.get("Expect", "").lower() == "100-continue":
            assert self._transport is not None
            self._transport.write(_CONTINUE)
        try:
            async with asyncio.timeout(self._requests.timeout_s) as self._reading:
                if self._is_stopping:
                    self._reading.reschedule(self._loop.time())
                return await self._read(request, compression, encoding, held)
        except TimeoutError:
            stopping = self._requests.pressure(self.sender) if self._is_stopping else None
            why = f"the body took longer than {self._requests.timeout_s:g} s"
            return _refused(stopping or Refused(Code.DEADLINE_EXCEEDED, why), encoding)
        except (MalformedInput, web.RequestPayloadError) as error:
            return _refused(Refused(Code.INVALID_ARGUMENT, f"the body {error}"), encoding)
        finally:
            self._reading = None

    async def _read(
        self, request: web.BaseRequest, compression: str, encoding: Encoding, held: Held
    ) -> bytes | web.Response:
        parts: list[bytes] = []
        received_bytes = size_bytes = 0
        decompressor = Decompressor("gzip") if compression == "gzip" else None
        while data := await request.content.readany():
            received_bytes += len(data)
            for piece in [data] if decompressor is None else decompressor.receive(data):
                size_bytes += len(piece)
                held.change(len(piece))
                parts.append(piece)
                # Compressed input may be long too, and decompress to nothing.
                if max(size_bytes, received_bytes) > self._requests.max_request:
                    return self._too_large(encoding)
            if refused := self._requests.pressure(self.sender):
                return _refused(refused, encoding)
        if decompressor is not None:
            decompressor.end()
        return b"".join(parts)

    def _too_large(self, encoding: Encoding) -> web.Response:
        limit = format_size(self._requests.max_request)
        why = f"the request is larger than {limit} (max_request); send fewer records at a time"
        return _unfit(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, why, encoding=encoding)


def _fit(request: web.BaseRequest) -> tuple[Encoding, str] | web.Response:
    """Returns the encoding and compression of a request, or the answer to one that is none."""
    if request.path != PATH:
        return _unfit(HTTPStatus.NOT_FOUND, f"expected {METHOD} {PATH}")
    if request.method != METHOD:
        return _unfit(HTTPStatus.METHOD_NOT_ALLOWED, f"expected {METHOD}", {"Allow": METHOD})
    encoding = encoding_of(request.content_type)
    if encoding is None:
        expected = " or ".join(each.value for each in Encoding)
        why = f"the Content-Type is {request.content_type!r}; expected {expected}"
        return _unfit(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, why, {"Accept": expected})
    compression = request.headers.get("Content-Encoding", COMPRESSIONS[0]).strip().lower()
    if compression not in COMPRESSIONS:
        expected = ", ".join(COMPRESSIONS)
        why = f"the Content-Encoding is {compression!r}; expected one of {expected}"
        headers = {"Accept-Encoding": expected}
        return _unfit(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, why, headers, encoding)
    return encoding, compression


def _accepted(accepted: Accepted, encoding: Encoding) -> web.Response:
    body = answer(encoding, accepted.rejected, accepted.why)
    return web.Response(body=body, content_type=encoding.value)


def _refused(refused: Refused, encoding: Encoding) -> web.Response:
    headers = {"Retry-After": str(refused.retry_after_s)} if refused.retry_after_s else {}
    return web.Response(
        status=http_status(refused.code),
        body=refusal(encoding, refused.code, refused.why),
        content_type=encoding.value,
        headers=headers,
    )


def _unfit(
    status: HTTPStatus,
    why: str,
    headers: dict[str, str] | None = None,
    encoding: Encoding = Encoding.JSON,
) -> web.Response:
    """Returns the answer to what is never accepted, however often it is sent."""
    return web.Response(
        status=status,
        body=refusal(encoding, Code.INVALID_ARGUMENT, why),
        content_type=encoding.value,
        headers=headers,
    )
