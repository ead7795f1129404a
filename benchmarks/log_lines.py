"""Lines of a host's logs that repeat no more than real ones do, for measuring compression.

Keys, levels, paths and agents repeat, and busy clients occur more often than others;
every line has a time, numbers and, most of them, a random id of its own. The same seed and the
same times produce the same lines.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeVar

from logengine.format.timestamp import format_timestamp

T = TypeVar("T")

_BLOCK_LINES = 256
_DAY_NS = 24 * 3600 * 10**9
_CLIENTS = 20_000
_USERS = 200_000
_ID_BITS = 64

_METHODS = ("GET", "GET", "GET", "GET", "GET", "GET", "POST", "POST", "PUT", "DELETE")
_STATUSES = (200, 200, 200, 200, 200, 200, 201, 204, 304, 302, 400, 401, 404, 404, 500, 503)
_RESOURCES = (
    *("orders", "orders", "orders", "carts", "products", "products", "users", "sessions"),
    *("search", "invoices", "payments", "reviews", "images", "stock", "shipments", "coupons"),
)
_AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/130.0.0.0",
    "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Firefox/132.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Safari/605.1.15",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) Mobile/15E148",
    "Mozilla/5.0 (Linux; Android 14) Chrome/130.0.0.0 Mobile",
    "python-requests/2.32.3",
    "Go-http-client/2.0",
    "curl/8.5.0",
)
_EVENTS = (
    *("order placed", "payment authorised", "mail queued", "cache miss", "cache filled"),
    *("query was slow", "job taken", "job done", "session expired", "stock reserved"),
)
_MODULES = ("shop.orders", "shop.payment", "shop.mail", "shop.cache", "shop.db", "shop.worker")
_LEVELS = ("info", "info", "info", "info", "debug", "debug", "warning", "error")
_JOBS = ("logrotate", "certbot renew", "sync-stock", "send-newsletter", "vacuum", "check-disks")
_ACTIONS = ("login", "login", "logout", "sudo", "key added", "password changed")
_PHASES = ("scan", "read", "compress", "upload", "upload", "upload", "prune")


class LogLines:
    """Makes lines of several kinds, each with its newline."""

    def __init__(self, seed: int) -> None:
        self._source = random.Random(seed)
        addresses = random.Random(1)  # the same clients for every seed
        self._clients = [
            ".".join(str(addresses.randrange(1, 255)) for _ in range(4)) for _ in range(_CLIENTS)
        ]
        self._kinds = {
            "web": self._web,
            "app": self._app,
            "cron": self._cron,
            "audit": self._audit,
            "backup": self._backup,
        }

    def line(self, kind: str, time_ns: int) -> bytes:
        """A line of `kind`: web, app, cron, audit or backup."""
        inside = self._kinds[kind]()
        return f'{{"time":"{format_timestamp(time_ns)}",{inside}}}\n'.encode()

    def _web(self) -> str:
        share = self._source.random
        return (
            f'"level":"info","event":"request","method":"{_METHODS[int(share() * 10)]}",'
            f'"path":"/api/v1/{self._one_of(_RESOURCES)}/{int(share() * 10**7)}",'
            f'"status":{self._one_of(_STATUSES)},"ms":{1 + share() ** 4 * 500:.3f},'
            f'"bytes":{int(share() ** 2 * 60000)},'
            f'"client":"{self._clients[int(share() ** 2 * _CLIENTS)]}",'
            f'"user":{int(share() ** 2 * _USERS)},"agent":"{self._one_of(_AGENTS)}",'
            f'"request_id":"{self._id()}"'
        )

    def _app(self) -> str:
        share = self._source.random
        return (
            f'"level":"{self._one_of(_LEVELS)}","event":"{self._one_of(_EVENTS)}",'
            f'"module":"{self._one_of(_MODULES)}","order":{int(share() * 10**7)},'
            f'"user":{int(share() ** 2 * _USERS)},"ms":{share() ** 4 * 2000:.3f},'
            f'"request_id":"{self._id()}"'
        )

    def _cron(self) -> str:
        share = self._source.random
        return (
            f'"level":"info","event":"job","job":"{self._one_of(_JOBS)}",'
            f'"pid":{int(1000 + share() * 4_000_000)},"exit":{int(share() ** 20 * 3)},'
            f'"seconds":{share() ** 3 * 60:.2f}'
        )

    def _audit(self) -> str:
        share = self._source.random
        return (
            f'"level":"notice","event":"{self._one_of(_ACTIONS)}",'
            f'"user":{int(share() ** 2 * 200)},"client":"{self._one_of(self._clients)}",'
            f'"session":"{self._id()}"'
        )

    def _backup(self) -> str:
        share = self._source.random
        return (
            f'"level":"info","event":"{self._one_of(_PHASES)}",'
            f'"file":"/srv/{self._one_of(_RESOURCES)}/{int(share() * 10**6):06d}.db",'
            f'"bytes":{int(share() ** 3 * 10**9)},"sha256":"{self._id()}{self._id()}"'
        )

    def _one_of(self, things: Sequence[T]) -> T:
        return things[int(self._source.random() * len(things))]

    def _id(self) -> str:
        return f"{self._source.getrandbits(_ID_BITS):016x}"


def a_day_of_requests(count: int, start_ns: int, needle: bytes) -> Iterator[bytes]:
    """`count` requests over a day, in blocks; in the middle, one has `needle` as its id."""
    lines = LogLines(seed=2)
    step_ns = _DAY_NS // count
    jitter = random.Random(3)
    numbers = iter(range(count))
    while of_block := list(islice(numbers, _BLOCK_LINES)):
        block = [
            lines.line("web", start_ns + number * step_ns + int(jitter.random() * step_ns))
            for number in of_block
        ]
        if of_block[0] <= count // 2 <= of_block[-1]:
            line = block[count // 2 - of_block[0]]
            block[count // 2 - of_block[0]] = line[: -len(needle) - 3] + needle + b'"}\n'
        yield b"".join(block)
