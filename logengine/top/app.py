"""The program on the screen: it looks at the streams once a second, until it is left."""

import asyncio
import contextlib
import queue
import signal
import threading
import time
from typing import ClassVar

from textual.app import App
from textual.binding import Binding, BindingType

from logengine.errors import LogEngineError
from logengine.reading import Problem
from logengine.top.drawing import BACKGROUND, COLOURS, FOREGROUND
from logengine.top.figures import Figures, Look
from logengine.top.problems import Problems
from logengine.top.screens import HELP, TextScreen
from logengine.top.source import RecordSource
from logengine.top.survey import Survey
from logengine.top.tables_screen import TablesScreen
from logengine.top.terminal_driver import TerminalDriver

_EVERY_S = 1.0
# A look takes at most such a part of the time, however many streams there are.
_SHARE_MAX = 0.25
_PUMP_S = 0.1
_PROBLEMS_AHEAD_MAX = 200
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class TopApp(App[None]):
    """`logengine top`. Ends with `q`, Ctrl-C, a signal, or the end of its terminal."""

    ENABLE_COMMAND_PALETTE = False
    CSS = f"Screen {{ background: {BACKGROUND}; color: {FOREGROUND}; }}"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "quit", priority=True, show=False),
        Binding("ctrl+q", "quit", priority=True, show=False),
    ]

    def __init__(self, survey: Survey, source: RecordSource, problems: "ProblemQueue") -> None:
        super().__init__(driver_class=TerminalDriver)
        self.ansi_theme_dark = COLOURS
        self.figures = Figures()
        self.problems = Problems()
        self._survey = survey
        self._source = source
        self._reported = problems
        self._looks: queue.Queue[Look] = queue.Queue(maxsize=1)
        self._is_over = threading.Event()
        self._tables = TablesScreen(self.figures, self.problems, source)

    def on_load(self) -> None:
        """Handles signals before the terminal is another one than it was."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            # Not in the main thread of a test, or where a signal cannot be handled.
            with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
                loop.add_signal_handler(number, self.exit)

    def on_mount(self) -> None:
        """Begins to look."""
        self.push_screen(self._tables)
        threading.Thread(target=self._look_regularly, daemon=True).start()
        self.set_interval(_PUMP_S, self._pump)

    def on_unmount(self) -> None:
        """Looks no more."""
        self._is_over.set()

    def action_help(self) -> None:
        """Shows the keys, and what the figures mean."""
        self.push_screen(TextScreen("logengine top: keys and figures", HELP.splitlines()))

    def action_problems(self) -> None:
        """Shows what could not be read."""
        texts = self.problems.texts() or ["nothing: everything could be read"]
        self.push_screen(TextScreen("what could not be read", texts))

    def _pump(self) -> None:
        for problem in self._reported.take():
            self.problems.add(problem)
        driver = self._driver
        if isinstance(driver, TerminalDriver):  # not in a test without a terminal
            if driver.is_behind:
                return
            if driver.has_lost:
                driver.has_lost = False
                self.screen.refresh()
        with contextlib.suppress(queue.Empty):
            self.figures.add(self._looks.get_nowait())
            if self.screen is self._tables:
                self._tables.draw()

    def _look_regularly(self) -> None:
        clock = time.monotonic
        while not self._is_over.is_set():
            begun_s = clock()
            try:
                self._looks.put(self._survey.look())
            except (OSError, LogEngineError) as error:
                what = error.strerror if isinstance(error, OSError) else None
                self._reported.add(Problem(str(self._source.data), what or str(error)))
            taken_s = clock() - begun_s
            self._is_over.wait(max(_EVERY_S - taken_s, taken_s / _SHARE_MAX - taken_s, 0))


class ProblemQueue:
    """Takes problems from any thread; of too many, the last are kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._problems: list[Problem] = []

    def add(self, problem: Problem) -> None:
        """Adds one."""
        with self._lock:
            self._problems = [*self._problems, problem][-_PROBLEMS_AHEAD_MAX:]

    def take(self) -> list[Problem]:
        """Returns those that are new."""
        with self._lock:
            problems, self._problems = self._problems, []
        return problems
