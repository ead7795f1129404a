"""The screens of `logengine top`, driven by keys; the streams are files without a daemon."""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from textual.pilot import Pilot

from logengine.cli.top import ask_daemon
from logengine.format.timestamp import format_time
from logengine.protocols.status import FailingStream, Status, TotalsStatus
from logengine.top.app import ProblemQueue, TopApp
from logengine.top.figures import DaemonFigures
from logengine.top.source import RecordSource
from logengine.top.survey import AskDaemon, Survey
from tests.daemon import PATIENCE_S, Daemon
from tests.reading.streams import damage, line, write_stream
from tests.users import acting_as

ABSENT = DaemonFigures("absent", why="no daemon answers")
SIZES = [(80, 24), (200, 60)]


def text_of(app: TopApp) -> str:
    """What is on the screen."""
    strips = app.screen._compositor.render_strips()
    return "\n".join(strip.text.rstrip() for strip in strips)


class Screen:
    """A running `top`."""

    def __init__(self, app: TopApp, pilot: Pilot[None]) -> None:
        self.app = app
        self.pilot = pilot

    @property
    def text(self) -> str:
        return text_of(self.app)

    def row(self, *words: str) -> str:
        """The first row with all of these words; empty if there is none."""
        rows = self.text.split("\n")
        return next((row for row in rows if all(word in row for word in words)), "")

    @property
    def selected(self) -> str:
        """The selected row."""
        return self.row("▌")

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def type(self, text: str) -> None:
        await self.pilot.press(*text, "enter")

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"waited for {what}:\n{self.text}"
            await self.pilot.pause(0.02)

    async def shows(self, *words: str) -> None:
        await self.until(lambda: self.row(*words), f"a row with {words}")

    async def selects(self, word: str) -> None:
        await self.until(lambda: word in self.selected, f"{word} to be selected")


@asynccontextmanager
async def running(
    data: Path,
    size: tuple[int, int] = (80, 24),
    asked: Sequence[str] = (),
    ask: AskDaemon = lambda: ABSENT,
) -> AsyncIterator[Screen]:
    problems = ProblemQueue()
    source = RecordSource(data, asked, (), problems.add)
    app = TopApp(Survey(data, asked, ask, problems.add), source, problems)
    async with app.run_test(size=size) as pilot:
        screen = Screen(app, pilot)
        yield screen
    # Its threads end soon; none of them may use files that the next test removes.
    await asyncio.sleep(0)


def add_stream(data: Path, stream: str, *lines: bytes) -> None:
    """Adds a stream as a whole, so that nobody sees a part of it."""
    write_stream(data.with_name("aside"), stream, lines)
    (data.with_name("aside") / stream).rename(data / stream)


def event(number: int, level: str, second: int | None = None) -> bytes:
    return line(number, second, f',"level":"{level}","event":"event {number}"')


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """`app` with 50 records, of which 10 and 40 are errors, and `web` with three."""
    data = tmp_path / "data"
    lines = [event(n, "error" if n in (10, 40) else "info") for n in range(1, 51)]
    write_stream(data, "app", lines[:20], lines[20:45], lines[45:])
    write_stream(data, "web", [event(n, "warning", 5 * n) for n in (1, 2, 3)])
    return data


@pytest.mark.parametrize("size", SIZES)
async def test_it_shows_streams_records_and_one_record(data: Path, size: tuple[int, int]) -> None:
    async with running(data, size) as screen:
        await screen.shows("app", "0")
        await screen.shows("web")
        await screen.shows("no daemon answers")
        assert all(len(row) <= size[0] for row in screen.text.split("\n"))
        await screen.press("enter")
        await screen.selects("event 50")
        assert screen.row("● live")
        await screen.press("enter")
        await screen.shows("record 50")
        await screen.press("f")
        await screen.shows('"event": "event 50"')
        await screen.press("p")
        await screen.shows('"event": "event 49"')
        await screen.press("escape", "escape")
        await screen.shows("STREAM")


@pytest.mark.parametrize("size", SIZES)
async def test_it_goes_to_errors_times_and_both_ends(data: Path, size: tuple[int, int]) -> None:
    async with running(data, size) as screen:
        await screen.shows("web")
        await screen.press("enter")
        await screen.selects("event 50")
        await screen.press("E")
        await screen.selects("event 40")
        await screen.press("E")
        await screen.selects("event 10")
        await screen.press("E")
        await screen.shows("no error before this record")
        await screen.press("e")
        await screen.selects("event 40")
        await screen.press("t")
        await screen.type("2026-11-23T20:00:25Z")
        await screen.selects("event 25")
        await screen.press("home")
        await screen.selects("event 1")
        await screen.press("up")
        await screen.shows("this is the oldest record")
        await screen.press("end")
        await screen.selects("event 50")
        await screen.shows("● live")


async def test_it_holds_still_and_counts_while_it_is_read(data: Path) -> None:
    async with running(data) as screen:
        await screen.shows("web")
        await screen.press("a")
        await screen.selects("event 50")
        await screen.press("up", "up")
        before = [row for row in screen.text.split("\n") if "event" in row]
        add_stream(data, "later", *(event(n, "info", 59) for n in (91, 92)))
        await screen.shows("2 new", "holding still")
        assert [row for row in screen.text.split("\n") if "event" in row] == before
        await screen.press("end")
        await screen.selects("event 92")
        await screen.press("space")
        await screen.shows("PAUSED")
        add_stream(data, "latest", event(93, "info", 59))
        await screen.shows("1 new", "PAUSED")
        assert "event 92" in screen.selected
        await screen.press("space")
        await screen.selects("event 93")


async def test_a_filter_chooses_and_a_wrong_one_says_where(data: Path) -> None:
    async with running(data) as screen:
        await screen.shows("web")
        await screen.press("enter")
        await screen.selects("event 50")
        await screen.press("slash")
        await screen.type("level >= loud")
        await screen.shows("'loud' is not a level")
        await screen.shows("^")
        await screen.press(*["backspace"] * 4)
        await screen.type("error")
        await screen.selects("event 40")
        await screen.shows("app", "level >= error")
        assert not screen.row("event 50")
        assert screen.row("event 10")


async def test_a_time_that_is_none_says_what_is_one(data: Path) -> None:
    async with running(data) as screen:
        await screen.shows("web")
        await screen.press("enter")
        await screen.selects("event 50")
        await screen.press("t")
        await screen.type("soonish")
        await screen.shows("'soonish' is not a time")
        await screen.press("escape")
        await screen.until(lambda: not screen.row("soonish"), "the prompt to close")
        await screen.press("up")
        await screen.selects("event 49")


async def test_streams_appear_and_vanish(data: Path) -> None:
    async with running(data) as screen:
        await screen.shows("web")
        add_stream(data, "new", event(1, "info"))
        await screen.shows("new")
        shutil.rmtree(data / "web")
        await screen.until(lambda: not screen.row("web"), "web to vanish")
        await screen.shows("2 streams")


async def test_damage_is_shown_as_a_problem_and_the_rest_is_there(data: Path) -> None:
    damage(data, "app", 21)
    (data / "web" / "00000000000000000001.ndjson").write_bytes(b"nonsense\n")
    async with running(data) as screen:
        await screen.shows("web !")
        await screen.press("a")
        await screen.selects("event 50")
        await screen.press("home")
        await screen.selects("event 1")
        await screen.shows("problem")
        await screen.press("exclamation_mark")
        await screen.shows("what could not be read")
        await screen.shows("web: ")
        await screen.press("escape", "escape", "down")
        await screen.shows("web has damaged segments")


async def test_more_is_read_at_both_ends_of_a_long_stream(tmp_path: Path) -> None:
    data = tmp_path / "data"
    lines = [event(n, "info", n // 100) for n in range(1, 2001)]
    write_stream(data, "app", lines[:700], lines[700:])
    async with running(data) as screen:
        await screen.shows("app", "KiB")
        await screen.press("enter")
        await screen.selects("event 2000")
        await screen.press("E")
        await screen.shows("no error before")
        await screen.press("t")
        await screen.type("2026-11-23T20:00:10Z")
        await screen.selects("event 1000")
        for _ in range(25):  # further than a page was read
            await screen.press("pageup")
        await screen.until(lambda: screen.row("event 5"), "what is before the page")
        await screen.press("end")
        await screen.selects("event 2000")


async def test_a_table_is_sorted_by_the_chosen_column_and_keeps_the_selected_row(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    for name, count in (("a", 3), ("b", 9), ("c", 6)):
        write_stream(data, name, [event(n, "info") for n in range(1, count + 1)])
    async with running(data, (120, 24)) as screen:
        await screen.shows("c ", "6")

        def order() -> str:
            rows = screen.text.split("\n")[4:9]
            return "".join(row[1] for row in rows if row[1:2] in ("a", "b", "c"))

        await screen.press("S", "S", "S")  # from the first figure back to the last ones
        while "RECORDS▼" not in screen.text:
            await screen.press("S")
        assert order() == "bca"
        await screen.press("r")
        assert order() == "acb"
        await screen.press("down")
        await screen.selects("c ")
        add_stream(data, "0new", event(1, "info"))
        await screen.shows("0new")
        assert "c " in screen.selected
        assert order() == "acb"


async def test_only_chosen_streams_are_shown(data: Path) -> None:
    async with running(data, asked=["w*"]) as screen:
        await screen.shows("web")
        await screen.shows("1 stream ")
        assert not screen.row("app ")


async def test_a_thousand_streams_are_shown_and_found_by_name(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for number in range(1000):
        write_stream(data, f"s{number:04d}", [event(1, "info")])
    async with running(data) as screen:
        await screen.shows("1,000 streams")
        await screen.press("end")
        await screen.selects("s0999")
        await screen.press("slash")
        await screen.type("s012")
        await screen.shows("s0129")
        assert not screen.row("s0200")


async def test_senders_are_named_by_user_program_and_unit(tmp_path: Path) -> None:
    data = tmp_path / "data"
    now = format_time(time.time() - 2)
    sent = f'{{"_ts":"{now}","_pid":7,"_uid":0,"_comm":"web","level":"error","n":1}}'
    write_stream(data, "app", [sent.encode()])
    async with running(data) as screen:
        await screen.shows("app", "1")
        await screen.press("tab")
        await screen.shows("web", "root", "1")
        await screen.press("enter")
        await screen.shows("records of web")
        await screen.selects("n=1")


async def test_help_names_the_keys_and_the_figures(data: Path) -> None:
    async with running(data, (80, 60)) as screen:
        await screen.shows("web")
        await screen.press("question_mark")
        await screen.shows("DELAY")
        await screen.shows("the next error")
        await screen.press("escape")
        await screen.shows("STREAM")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")
async def test_a_user_who_may_not_ask_the_daemon_sees_what_may_be_read(
    daemon: Daemon, root: Path
) -> None:
    for stream in ("secret", "shop"):
        daemon.cli("send", "-s", stream, stdin=b'{"event":"hello"}\n')
    root.chmod(0o755)
    daemon.data.chmod(0o755)
    (daemon.data / "secret").chmod(0o700)
    (daemon.data / "shop").chmod(0o755)
    for path in (daemon.data / "shop").iterdir():
        path.chmod(0o644)
    (daemon.data / ".durable").chmod(0o644)
    daemon.socket.chmod(0o666)
    async with running(daemon.data) as screen:  # imports what the other user may not read
        await screen.shows("secret")
        await screen.press("exclamation_mark", "escape", "enter")
        await screen.selects("hello")
    with acting_as(65534):
        asking = partial(running, daemon.data, ask=lambda: ask_daemon(daemon.socket))
        async with asking(asked=["shop"]) as screen:
            await screen.shows("only root and its user may ask")
            await screen.shows("shop")
            await screen.press("enter")
            await screen.selects("hello")
        async with asking(asked=["secret"]) as screen:
            await screen.shows("1 problem")
            await screen.press("exclamation_mark")
            await screen.shows("secret: Permission denied")
            await screen.press("escape", "enter")
            await screen.shows("cannot be followed")
            await screen.shows("Permission denied")


async def test_a_stream_that_cannot_be_committed_is_at_the_top(data: Path) -> None:
    # With a path of the data directory, which is named above already, what is wrong is cut off.
    error = f"cannot write {data}/web/{'1'.zfill(20)}.ndjson: no space left"
    failing = FailingStream("web", error, 42.0, 9, 1234, 5_000_000)
    totals = TotalsStatus(0, 0, 0, 0, 0, 0, 0, 0)
    status = Status(1, False, 7, "", 5.0, 2, 3, 9, 1, 800, 1000, 1, [failing], totals)
    async with running(data, (120, 24), ask=lambda: DaemonFigures("answers", status)) as screen:
        await screen.shows("web cannot be committed for 42s", "1,234 records wait", "no space")
        await screen.shows("daemon: not ok")
        await screen.shows("backlog 800B of 1000B", "connections 2, 1 wait")
        await screen.shows("web !", "4.8MiB")


async def test_pausing_the_tables_freezes_them_and_counts(data: Path) -> None:
    async with running(data) as screen:
        await screen.shows("web")
        await screen.press("space")
        await screen.shows("PAUSED", "0 new records")
        moment = format_time(time.time() - 1)
        sent = [f'{{"_ts":"{moment}","n":{n}}}'.encode() for n in range(3)]
        add_stream(data, "late", *sent)
        await screen.shows("PAUSED", "3 new records")
        assert not screen.row("late")
        await screen.press("space")
        await screen.shows("late")
