"""A picture of the page, from a real run: `python -m tests.web.screenshot docs/web.png`.

A daemon takes the records of a shop, `logengine web` serves them, Chromium shows them.
"""

import random
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from logengine import Client
from tests.daemon import Daemon
from tests.web.chromium import browser, find
from tests.web.served import Served

_ROUNDS = 120
_PAUSE_S = 0.1
_SIZE = {"width": 1180, "height": 540}
_EVENTS = (
    ("info", "order placed", lambda: {"order": random.randint(100, 999), "user": _user()}),
    ("info", "request", lambda: _request(200)),
    ("info", "request", lambda: _request(200)),
    ("debug", "cache hit", lambda: {"key": f"user:{random.randint(1, 99)}", "age_ms": 12}),
    ("info", "request", lambda: _request(304)),
    ("warning", "slow query", lambda: {"took_ms": random.randint(250, 900), "table": "orders"}),
    ("error", "payment failed", lambda: {"order": 571, "http": {"status": 503}, "attempt": 2}),
)


def _user() -> str:
    return random.choice(("ann", "bob", "cem", "dana"))


def _request(status: int) -> dict[str, object]:
    path = random.choice(("/api/items/7", "/api/cart", "/api/orders", "/health"))
    return {"method": "GET", "path": path, "status": status, "took_ms": random.randint(2, 80)}


def _send(daemon: Daemon) -> None:
    with ExitStack() as stack:
        clients = [
            (stack.enter_context(Client(stream, socket=daemon.socket)), most)
            for stream, most in (("shop", 60), ("web", 90), ("worker", 25))
        ]
        for _ in range(_ROUNDS):
            for client, most in clients:
                weights = (3, 6, 6, 3, 2, 1, 0.4)
                chosen = random.choices(_EVENTS, weights, k=random.randint(3, most))
                for level, event, more in chosen:
                    client.send({"level": level, "event": event, **more()})
            time.sleep(_PAUSE_S)


def main(target: Path) -> None:
    """Makes the picture."""
    random.seed(7)
    with tempfile.TemporaryDirectory(prefix="le-") as name:
        root = Path(name)
        daemon = Daemon(root).start()
        try:
            _send(daemon)
            with Served(daemon.data) as served, browser() as chromium:
                page = chromium.new_page(viewport=_SIZE, color_scheme="dark")
                page.goto(served.url)
                page.wait_for_selector(".row.error")
                page.locator(".row.error").last.click()
                page.keyboard.press("Enter")
                page.wait_for_selector("#record:not([hidden])")
                page.wait_for_function("() => document.querySelector('#bars-note').textContent")
                page.screenshot(path=str(target))
        finally:
            daemon.close()


if __name__ == "__main__":
    if find() is None:
        sys.exit("there is no Chromium; see tests/web/chromium.py")
    main(Path(sys.argv[1]))
