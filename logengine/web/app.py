"""The HTTP of the page, by aiohttp: who may ask, which headers, and how much at once."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from logengine.errors import (
    InvalidCursor,
    InvalidFilter,
    InvalidOption,
    InvalidStreamName,
    LogEngineError,
    UnknownStream,
)
from logengine.local_zone import local_now
from logengine.web.access import Access
from logengine.web.answers import Answer, Answers, Cancelled
from logengine.web.live import LiveFeed
from logengine.web.query import Query, parse_query
from logengine.web.rows import LEVELS, rows_of

THREADS = 4
WAITING_MAX = 32  # requests; more are refused
LIVE_PAGES_MAX = 16
# A place in all streams is part of a URL, and may be long.
_REQUEST_LINE_BYTES_MAX = 64 * 1024
_END_S_MAX = 2.0
_LIVE_RECORDS_AT_ONCE = 500
_LIVE_EVERY_S = 0.1
_ALIVE_EVERY_S = 15
# A page that takes nothing for so long is gone.
_LIVE_WRITE_S_MAX = 60

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_PAGE_FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_REFUSED = "Open the URL that `logengine web` printed: this page needs its token.\n"
_USAGE_ERRORS = (InvalidCursor, InvalidFilter, InvalidOption, InvalidStreamName)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
AnswerTo = Callable[[Query, threading.Event], Answer]


class Page:
    """The page of a data directory: `application` serves it.

    Calls `on_let_in` with the transport of each request that is let in.
    """

    def __init__(
        self,
        answers: Answers,
        access: Access,
        on_let_in: Callable[[asyncio.BaseTransport | None], None] = lambda _: None,
    ) -> None:
        self._answers = answers
        self._access = access
        self._on_let_in = on_let_in
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="web")
        self._waiting = 0
        self._live_pages = 0
        self._feeds: set[LiveFeed] = set()
        self._is_closing = asyncio.Event()

    def runner(self) -> web.AppRunner:
        """What runs the application. A request whose client has left is cancelled."""
        return web.AppRunner(
            self.application(),
            handler_cancellation=True,
            access_log=None,
            logger=_logger(),
            shutdown_timeout=_END_S_MAX,
            max_line_size=_REQUEST_LINE_BYTES_MAX,
        )

    def application(self) -> web.Application:
        """The application, which also ends the threads of this when it is cleaned up."""
        application = web.Application(middlewares=[self._guard], client_max_size=1024)
        for path, (name, kind) in _PAGE_FILES.items():
            application.router.add_get(path, _file(name, kind))
        for name, answer in (
            ("streams", self._answers.streams),
            ("records", self._answers.records),
            ("record", self._answers.record),
            ("histogram", self._answers.histogram),
        ):
            application.router.add_get(f"/api/{name}", self._answering(answer))
        application.router.add_get("/api/live", self._live)
        application.on_response_prepare.append(_add_headers)
        application.on_shutdown.append(self._end_feeds)
        application.on_cleanup.append(self._close)
        return application

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        access = self._access
        if not access.allows_host(request.host):
            return web.Response(
                status=403, text=f"{request.host[:100]!r} is not a name of this page\n"
            )
        given = request.query.get("token")
        if given is not None and request.path == "/":
            if not access.is_token(given):
                return web.Response(status=403, text=_REFUSED)
            return self._with_cookie(request, given)
        is_own = request.path == "/" or access.allows_site(request.headers)
        if not is_own or not access.allows(request.cookies, request.headers):
            return web.Response(status=403, text=_REFUSED)
        self._on_let_in(request.transport)
        return await handler(request)

    def _with_cookie(self, request: web.Request, token: str) -> web.Response:
        """The same page with a cookie instead of the token, which no history then shows."""
        rest = [(name, value) for name, value in request.query.items() if name != "token"]
        location = f"/?{urlencode(rest)}" if rest else "/"
        response = web.Response(status=303, headers={"Location": location})
        if self._access.token is not None:
            response.set_cookie(
                self._access.cookie, token, httponly=True, samesite="Strict", path="/"
            )
        return response

    def _answering(self, answer: AnswerTo) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            if self._waiting >= WAITING_MAX:
                return _failed(503, "too many requests at once; try again")
            cancelled = threading.Event()
            self._waiting += 1
            try:
                query = parse_query(request.query.items(), local_now())
                found = await asyncio.get_running_loop().run_in_executor(
                    self._pool, _encoded, answer, query, cancelled
                )
            except _USAGE_ERRORS as error:
                return _failed(400, _described(error))
            except UnknownStream as error:
                return _failed(404, str(error))
            except (LogEngineError, OSError) as error:
                return _failed(500, str(error))
            finally:
                # The client has left, or nothing looks at it any more.
                cancelled.set()
                self._waiting -= 1
            return web.Response(body=found, content_type="application/json", charset="utf-8")

        return handle

    async def _live(self, request: web.Request) -> web.StreamResponse:
        if self._live_pages >= LIVE_PAGES_MAX:
            return _failed(503, f"{LIVE_PAGES_MAX} pages are live already; close one")
        self._live_pages += 1
        try:
            return await self._follow(request)
        finally:
            self._live_pages -= 1

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def notify() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and the thread will
                loop.call_soon_threadsafe(changed.set)

        def feed_of(query: Query) -> LiveFeed:
            chosen = self._answers.filter(query)
            return LiveFeed(lambda report: self._answers.following(query, report), chosen, notify)

        try:
            query = parse_query(request.query.items(), local_now())
            feed = await loop.run_in_executor(self._pool, feed_of, query)
        except _USAGE_ERRORS as error:
            return _failed(400, _described(error))
        except (LogEngineError, OSError) as error:
            return _failed(404, str(error))
        self._feeds.add(feed)
        try:
            return await self._send_live(request, feed, changed)
        finally:
            feed.stop()
            self._feeds.discard(feed)

    async def _send_live(
        self, request: web.Request, feed: LiveFeed, changed: asyncio.Event
    ) -> web.StreamResponse:
        """Sends what a feed has, as server-sent events, until one side ends."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"retry: 2000\n: live\n\n")
        feed.start()
        while not self._is_closing.is_set():
            try:
                async with asyncio.timeout(_ALIVE_EVERY_S):
                    await changed.wait()
            except TimeoutError:
                await response.write(b": alive\n\n")
                continue
            changed.clear()
            arrived = feed.take(_LIVE_RECORDS_AT_ONCE)
            event = {
                "rows": rows_of(arrived.items),
                "dropped": arrived.dropped,
                "dropped_from": arrived.dropped_from,
            }
            is_failed = feed.is_ended and not feed.has_more
            if is_failed:
                event["error"] = str(feed.error or "the server ends")
            try:
                async with asyncio.timeout(_LIVE_WRITE_S_MAX):
                    await response.write(b"data: %s\n\n" % msgspec.json.encode(event))
            except TimeoutError:
                break
            if is_failed:
                break
            if feed.has_more:
                changed.set()
            await asyncio.sleep(_LIVE_EVERY_S)
        return response

    async def _end_feeds(self, _application: web.Application) -> None:
        self._is_closing.set()
        for feed in tuple(self._feeds):
            feed.stop()

    async def _close(self, _application: web.Application) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._answers.close()


def _logger() -> logging.Logger:
    """The log of aiohttp, without what any stranger can make it write: bytes that are not HTTP."""
    logger = logging.getLogger("logengine.web")
    logger.addFilter(_is_own_mistake)
    return logger


def _is_own_mistake(entry: logging.LogRecord) -> bool:
    return not (entry.exc_info and isinstance(entry.exc_info[1], HttpProcessingError))


def _encoded(answer: AnswerTo, query: Query, cancelled: threading.Event) -> bytes:
    """The answer as JSON, in the thread that made it; empty if nobody waits for it."""
    if cancelled.is_set():
        return b""
    try:
        return msgspec.json.encode(answer(query, cancelled))
    except Cancelled:
        return b""


def _file(name: str, kind: str) -> Handler:
    content = files("logengine.web").joinpath("page", name).read_bytes()
    content = content.replace(b"{levels}", ",".join(LEVELS).encode())

    async def handle(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=content, content_type=kind, charset="utf-8")

    return handle


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
    response.headers.pop("Server", None)


def _failed(status: int, why: str | Mapping[str, Any]) -> web.Response:
    body = msgspec.json.encode({"error": why} if isinstance(why, str) else why)
    return web.Response(status=status, body=body, content_type="application/json")


def _described(error: LogEngineError) -> Mapping[str, Any]:
    """The error; of an expression also where in it the mistake is."""
    if not isinstance(error, InvalidFilter) or error.expression is None:
        return {"error": str(error)}
    return {"error": error.lines()[0], "expression": "\n".join(error.lines()[1:])}
