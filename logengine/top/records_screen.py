"""The screen of records: it follows, holds still while it is read, goes to times and errors."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from logengine.errors import InvalidFilter, LogEngineError
from logengine.format.block import Record
from logengine.format.timestamp import parse_time
from logengine.local_zone import LOCAL_ZONE, local_now
from logengine.printable import escape
from logengine.top.drawing import ends
from logengine.top.problems import Problems
from logengine.top.prompt import Prompt
from logengine.top.record_list import RecordList
from logengine.top.record_screen import RecordScreen
from logengine.top.screens import Bar, Keys, ScreenWithKeys, problems_text
from logengine.top.source import Follow, IsStopped, RecordSource, Work
from logengine.top.window import RecordWindow

_PUMP_S = 0.1

Read = Callable[[IsStopped], list[Record]]
Then = Callable[[list[Record]], None]


class RecordsScreen(ScreenWithKeys):
    """The records of a source: the newest ones first, and what arrives."""

    keys: ClassVar[Keys] = (
        ("Esc", "back"),
        ("?", "help"),
        ("Space", "pause"),
        ("/", "filter"),
        ("e", "next error"),
        ("E", "previous"),
        ("t", "time"),
        ("End", "newest"),
        ("Enter", "open"),
        ("Home", "oldest"),
        ("!", "problems"),
        ("q", "quit"),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back"),
        Binding("space", "pause"),
        Binding("slash", "filter"),
        Binding("e", "error(1)"),
        Binding("E", "error(-1)"),
        Binding("t", "time"),
        Binding("end,G", "newest"),
        Binding("home,g", "oldest"),
        Binding("exclamation_mark", "app.problems"),
        Binding("question_mark", "app.help"),
        Binding("q", "app.quit"),
    ]

    def __init__(self, source: RecordSource, title: str, problems: Problems) -> None:
        super().__init__()
        self._source = source
        self._title = title
        self._problems = problems
        self._filter = ""
        self._note = ""
        self._failure = ""  # why nothing is followed any more
        self._window = RecordWindow()
        self._list = RecordList(self._window, LOCAL_ZONE)
        self._follow: Follow | None = None
        # The next records of `_follow` are the last ones there are, and replace the window; this
        # record stays selected, if it is among them.
        self._is_starting = True
        self._kept: Record | None = None
        self._work: Work[list[Record]] | None = None
        self._then: Then = lambda _: None

    def compose(self) -> ComposeResult:
        """See `Screen`."""
        yield Bar(id="title")
        yield self._list
        yield Bar(id="note")
        yield Prompt()
        yield Bar(id="keys")

    def on_mount(self) -> None:
        """Begins with the newest records."""
        self._list.set_class(True, "-shown")
        self._list.focus()
        self._start()
        self.set_interval(_PUMP_S, self._pump)

    def on_unmount(self) -> None:
        """Ends the threads."""
        self._cancel()
        if self._follow is not None:
            self._follow.stop()

    def on_resize(self) -> None:
        """Draws everything again."""
        self._draw()

    @property
    def _filtered(self) -> RecordSource:
        wheres = (*self._source.wheres, self._filter) if self._filter else self._source.wheres
        return replace(self._source, wheres=wheres)

    def _start(self, kept: Record | None = None) -> None:
        """Follows from the newest records on."""
        if self._follow is not None:
            self._follow.stop()
        self._follow = Follow(self._filtered)
        self._failure = ""
        self._is_starting = True
        self._kept = kept

    def _pump(self) -> None:
        """Shows what the threads have found."""
        if self._follow is not None:
            arrived = self._follow.take()
            for problem in arrived.problems:
                self._problems.add(problem)
            if arrived.error is not None:
                self._problems.add(f"{self._title}: {_text_of(arrived.error)}")
                self._failure = escape(_text_of(arrived.error))
            if self._is_starting:
                if arrived.count or self._follow.has_begun:
                    self._is_starting = False
                    self._begin(arrived.records)
            elif arrived.count:
                self._window.arrive(arrived.records, arrived.count)
                self._list.refresh()
        if self._work is not None and self._work.is_done:
            work, self._work, self._note = self._work, None, ""
            if work.error is not None:
                self._problems.add(f"{self._title}: {_text_of(work.error)}")
                self._note = escape(_text_of(work.error))
            elif work.result is not None:
                self._then(work.result)
            self._list.refresh()
        self._draw()

    def _begin(self, records: Sequence[Record]) -> None:
        kept, self._kept = self._kept, None
        cursor = len(records) - 1
        if kept is not None:
            places = [place for place, each in enumerate(records) if each.cursor == kept.cursor]
            cursor = places[0] if places else cursor
        self._window.replace(records, cursor=cursor, is_joined=True)
        self._list.refresh()

    def _draw(self) -> None:
        width = self.size.width - 1
        window = self._window
        self._list.say_of_none(
            self._failure
            or ("reading…" if self._is_starting else "no record, so far; new ones appear here")
        )
        title = Text.assemble((f" {self._title}", "bold"))
        if self._filter:
            title.append(f"  {escape(self._filter)}", "cyan")
        if self._failure:
            state = Text("cannot be followed", "bold red")
        elif window.is_paused:
            state = Text(" PAUSED ", "reverse bold")
        elif window.is_live:
            state = Text("● live", "green")
        else:
            state = Text("holding still", "yellow")
        if window.new:
            state = Text.assemble((f"{window.new:,} new  ", "bold yellow"), state)
        self.query_one("#title", Bar).show(ends(title, state, width))
        selected = window.selected
        note = Text(" ")
        if self._note:
            note.append(self._note, "yellow")
        elif selected is not None:
            note.append(f"{selected.stream}:{selected.seq}", "bright_black")
            if not window.is_live:
                note.append("   End: the newest, and go on", "bright_black")
        self.query_one("#note", Bar).show(ends(note, problems_text(self._problems), width))
        self.show_keys()

    def _do(self, note: str, read: Read, then: Then) -> None:
        """Reads in a thread, and then shows the result. What was under way is not wanted now."""
        self._cancel()
        self._note = f"{note}  (Esc: stop)"
        self._then = then
        self._work = Work(read)

    def _cancel(self) -> bool:
        if self._work is None:
            return False
        self._work.stop()
        self._work = None
        self._note = ""
        return True

    def action_back(self) -> None:
        """Stops what is under way, or goes back to the tables."""
        if not self._cancel():
            self.dismiss()

    def action_pause(self) -> None:
        """Pauses, or goes on with the newest."""
        if self._window.is_live:
            self._window.is_paused = True
        else:
            self.action_newest()
        self._draw()

    def action_newest(self) -> None:
        """Goes to the newest record, and on from there."""
        self._cancel()
        self._note = ""
        if not self._window.take_new() or self._failure:
            self._start()
        self._list.refresh()

    def action_oldest(self) -> None:
        """Goes to the oldest record."""
        self._do("reading the oldest records…", self._filtered.oldest, self._show_first)

    def _show_first(self, records: list[Record]) -> None:
        if records:
            self._window.replace(records, cursor=0, is_joined=False)
        else:
            self._note = "there is no record"

    def action_error(self, step: int) -> None:
        """Goes to the next error, or to the one before."""
        place = self._window.selected
        if place is None:
            return
        source = self._filtered

        def read(is_stopped: IsStopped) -> list[Record]:
            search = source.error_after if step > 0 else source.error_before
            found = search(place, is_stopped)
            return [found[0], *source.around(found[0], is_stopped)] if found else []

        def then(records: list[Record]) -> None:
            if not records:
                self._note = f"no error {'after' if step > 0 else 'before'} this record"
                return
            found, *around = records
            self._select(found, around)

        which = "next error" if step > 0 else "error before"
        self._do(f"searching for the {which}…", read, then)

    def _select(self, record: Record, around: Sequence[Record]) -> None:
        """Selects a record in the window, or in other records that take its place."""
        for place, each in enumerate(self._window.records):
            if each.cursor == record.cursor:
                self._window.select(place)
                self._window.show_around()
                return
        places = [place for place, each in enumerate(around) if each.cursor == record.cursor]
        self._window.replace(around, cursor=places[0], is_joined=False)
        self._window.show_around()

    def action_time(self) -> None:
        """Asks for a time to go to."""

        def take(text: str) -> Sequence[str]:
            try:
                timestamp = parse_time(text, local_now())
            except ValueError as error:
                return [str(error)]
            self._go_to(timestamp)
            return ()

        self.query_one(Prompt).ask("go to a time: 14:00, yesterday 14:00, 10m ago", "", take)

    def _go_to(self, timestamp: str) -> None:
        source = self._filtered

        def read(is_stopped: IsStopped) -> list[Record]:
            after = source.since(timestamp, is_stopped)
            if not after:
                return []
            return [after[0], *source.before(after[0], is_stopped), *after]

        def then(records: list[Record]) -> None:
            if not records:
                self.action_newest()
                self._note = "no record from that time on; these are the newest"
                return
            found, *around = records
            self._select(found, around)

        self._do("reading…", read, then)

    def action_filter(self) -> None:
        """Asks for an expression."""

        def take(text: str) -> Sequence[str]:
            before, self._filter = self._filter, text.strip()
            try:
                self._filtered.chosen()
            except InvalidFilter as error:
                self._filter = before
                return error.lines()
            self._cancel()
            self._window.replace([], cursor=0, is_joined=True)
            self._start()
            return ()

        self.query_one(Prompt).ask(
            'only records for which this holds, such as  level >= warning and path ~ "^/api"',
            self._filter,
            take,
        )

    def on_record_list_opened(self) -> None:
        """Opens the selected record."""
        if (record := self._window.selected) is not None:
            if self._window.is_live:
                self._window.is_paused = True  # so that it is still there
            self.app.push_screen(RecordScreen(record, self._step))

    def _step(self, step: int) -> Record | None:
        before = self._window.selected
        self._list.move(step)
        record = self._window.selected
        return None if record is before else record

    def on_record_list_moved(self) -> None:
        """Names the record that is selected now."""
        if self._work is None:
            self._note = ""
        self._draw()

    def on_record_list_at_edge(self, event: RecordList.AtEdge) -> None:
        """Reads more records before the first, or after the last."""
        place = self._window.selected
        if place is None or self._work is not None or self._is_starting:
            return
        source = self._filtered
        if event.step < 0:
            self._do("reading…", lambda stopped: source.before(place, stopped), self._show_before)
        elif not self._window.is_joined:
            self._do("reading…", lambda stopped: source.after(place, stopped), self._show_after)
        elif not self._window.is_paused and self._window.new:
            self.action_newest()

    def _show_before(self, records: list[Record]) -> None:
        if not records:
            self._note = "this is the oldest record"
            return
        self._window.prepend(records)
        self._list.move(-1)

    def _show_after(self, records: list[Record]) -> None:
        if records:
            self._window.extend(records)
            self._list.move(1)
        else:
            self._start(self._window.selected)


def _text_of(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) if isinstance(error, LogEngineError) else f"{type(error).__name__}: {error}"
