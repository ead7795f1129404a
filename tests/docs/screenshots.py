"""Draws the pictures of the README from a real run: `python -m tests.docs.screenshots`.

A daemon gets half a minute of records from several programs; then `tail` and `top` show them. The
records are the same each time, their times are not.
"""

import asyncio
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text
from textual.pilot import Pilot

from logengine.cli.top import ask_daemon
from logengine.client.threads import Client
from logengine.top.app import ProblemQueue, TopApp
from logengine.top.source import RecordSource
from logengine.top.survey import Survey
from tests.daemon import Daemon

PICTURES = Path(__file__).parents[2] / "docs" / "screenshots"
COLUMNS, ROWS = 116, 22
RUN_S = 30
PROGRAMS = {"shop": 9.0, "nginx": 45.0, "postgres": 4.0, "worker": 14.0, "sshd": 0.6}
_TRACE = (
    "Traceback (most recent call last):\n"
    '  File "payments.py", line 88, in charge\n'
    "    answer = bank.charge(order.total, timeout=2)\n"
    "TimeoutError: no answer within 2 s"
)


def records_of(program: str, chosen: random.Random) -> Iterator[dict[str, Any]]:
    """What a program of this name logs."""
    number = 5100
    while True:
        number += 1
        user = chosen.choice(["ann", "bob", "chen", "dora", "emil"])
        if program == "shop":
            kind = chosen.random()
            if kind < 0.06:
                yield {
                    "level": "error",
                    "event": "payment failed",
                    "order": number,
                    "user": user,
                    "exception": _TRACE,
                }
            elif kind < 0.2:
                waited = chosen.randrange(600, 1900)
                yield {"level": "warning", "event": "bank is slow", "waited_ms": waited}
            else:
                total = chosen.randrange(500, 20000) / 100
                yield {"level": "info", "event": "order placed", "order": number, "user": user} | {
                    "total": total
                }
        elif program == "nginx":
            path = chosen.choice(["/", "/cart", "/search?q=lamp", "/api/orders", "/health"])
            status = chosen.choices([200, 304, 404, 502], [80, 12, 6, 1])[0]
            yield {
                "level": "error" if status == 502 else "info",
                "event": f"GET {path}",
                "http": {"status": status, "bytes": chosen.randrange(300, 40000)},
                "took_ms": chosen.randrange(1, 140),
            }
        elif program == "postgres":
            took = chosen.randrange(2, 400)
            level = "warning" if took > 350 else "debug"
            yield {"level": level, "event": "query", "table": "orders", "took_ms": took}
        elif program == "worker":
            yield {"level": "info", "event": "mail sent", "to": f"{user}@example.com"}
        else:
            yield {"level": "notice", "event": f"Accepted publickey for {user}", "port": 52000}


def send(program: str, socket: str) -> None:
    """Logs for a while as a program of this name."""
    Path("/proc/self/comm").write_text(program)
    chosen = random.Random(program)
    with Client(program, socket=socket) as client:
        until = time.monotonic() + RUN_S
        for record in records_of(program, chosen):
            client.send(record)
            time.sleep(chosen.expovariate(PROGRAMS[program]))
            if time.monotonic() > until:
                return


def without_web(svg: str, name: str) -> str:
    """The picture without fonts from elsewhere and without names that change each time."""
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"terminal-[\w-]*?-(?=[a-z])|terminal-\d+-", f"{name}-", svg)
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def draw_tail(daemon: Daemon) -> None:
    """Draws what `tail` prints."""
    command = ["tail", "shop", "postgres", "worker", "-n1", "--where", "level >= error"]
    around = ["-B7", "-A5", "--color", "always", "--utc", "--format", "pretty"]
    printed = daemon.cli(*command, *around).stdout.decode()
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        console.print(Text.from_ansi(printed), no_wrap=True, crop=True)
        svg = console.export_svg(
            title=f"logengine {' '.join(command[:-1])} '{command[-1]}' -B7 -A5",
            unique_id="terminal-0-",
        )
    (PICTURES / "tail.svg").write_text(without_web(svg, "tail"))


async def draw_top(daemon: Daemon) -> None:
    """Draws the tables of `top`, and the records at an error."""
    problems = ProblemQueue()
    data = Path(os.path.relpath(daemon.data))
    source = RecordSource(data, (), (), problems.add)
    survey = Survey(data, (), lambda: ask_daemon(daemon.socket), problems.add)
    app = TopApp(survey, source, problems)

    def save(name: str) -> None:
        svg = app.export_screenshot(title="logengine top")
        (PICTURES / f"{name}.svg").write_text(without_web(svg, name))

    async with app.run_test(size=(COLUMNS, ROWS)) as pilot:
        await shows(pilot, "nginx")
        await pilot.pause(4)
        save("top")
        while "shop" not in selected(app):
            await pilot.press("down")
        await pilot.press("enter")
        await shows(pilot, "shop:")
        await pilot.press("E")
        await shows(pilot, "ERROR")
        await pilot.pause(2)
        save("top-records")


async def shows(pilot: Pilot[None], text: str) -> None:
    """Waits until a text is on the screen."""
    while text not in "".join(each.text for each in strips(pilot.app)):
        await pilot.pause(0.1)


def selected(app: TopApp) -> str:
    """The selected row."""
    return next(str(each.text) for each in strips(app) if "▌" in each.text)


def strips(app: Any) -> list[Any]:
    """The lines of the screen."""
    strips: list[Any] = app.screen._compositor.render_strips()
    return strips


def main() -> None:
    """Draws all pictures."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as root:
        os.chdir(root)
        daemon = Daemon(Path(root)).start()
        senders = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.docs.screenshots", program, str(daemon.socket)],
                env=os.environ | {"PYTHONPATH": str(PICTURES.parents[1])},
            )
            for program in PROGRAMS
        ]
        try:
            time.sleep(RUN_S * 2 // 3)
            asyncio.run(draw_top(daemon))
            draw_tail(daemon)
        finally:
            for sender in senders:
                sender.wait()
            daemon.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        send(*sys.argv[1:])
    else:
        main()
