"""The screen of the tables: how all streams are, and who sends."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from logengine.printable import escape
from logengine.protocols.status import FailingStream
from logengine.top.columns import (
    SENDER_COLUMNS,
    STREAM_COLUMNS,
    Tone,
    format_age,
    format_delay,
    format_rate,
    sparkline,
)
from logengine.top.drawing import ends, joined, style_of
from logengine.top.figures import Figures, Sender, SenderFigures, StreamFigures, Totals
from logengine.top.problems import Problems
from logengine.top.prompt import Prompt
from logengine.top.records_screen import RecordsScreen
from logengine.top.screens import Bar, Keys, ScreenWithKeys, problems_text
from logengine.top.source import RecordSource
from logengine.top.tables import Table
from logengine.units import format_size_rounded

_SPARK_COLUMNS_MIN, _SPARK_COLUMNS_MAX = 10, 60


class TablesScreen(ScreenWithKeys):
    """Streams and senders."""

    keys: ClassVar[Keys] = (
        ("q", "quit"),
        ("?", "help"),
        ("Enter", "records"),
        ("Space", "pause"),
        ("s", "sort"),
        ("/", "find"),
        ("Tab", "senders"),
        ("a", "all records"),
        ("r", "reverse"),
        ("!", "problems"),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "table('streams')"),
        Binding("2", "table('senders')"),
        Binding("tab,shift+tab", "other_table", priority=True),
        Binding("s", "sort(1)"),
        Binding("S", "sort(-1)"),
        Binding("r", "reverse"),
        Binding("a", "all_records"),
        Binding("slash", "find"),
        Binding("space", "pause"),
        Binding("exclamation_mark", "app.problems"),
        Binding("question_mark", "app.help"),
        Binding("q", "app.quit"),
    ]

    def __init__(
        self,
        figures: Figures,
        problems: Problems,
        source: RecordSource,
    ) -> None:
        super().__init__()
        self._figures = figures
        self._problems = problems
        self._source = source
        self._find = ""
        self._paused_at: float | None = None
        self._streams: Table[StreamFigures] = Table(
            STREAM_COLUMNS, "REC/S", lambda row: row.stream, "no streams yet", id="streams"
        )
        self._senders: Table[SenderFigures] = Table(
            SENDER_COLUMNS,
            "REC/S",
            lambda row: row.sender,
            "nobody has sent anything in the last minute",
            id="senders",
        )
        self._shown: Table[Any] = self._streams

    def compose(self) -> ComposeResult:
        """See `Screen`."""
        yield Bar(id="title")
        yield Bar(id="rates")
        yield Bar(id="state")
        yield Bar(id="alert")
        yield self._streams
        yield self._senders
        yield Bar(id="note")
        yield Prompt()
        yield Bar(id="keys")

    def on_mount(self) -> None:
        """Shows the streams first."""
        self.action_table("streams")

    def on_resize(self) -> None:
        """Draws everything again."""
        self.draw()

    def on_screen_resume(self) -> None:
        """Shows what happened meanwhile."""
        self.draw()

    def draw(self) -> None:
        """Shows the newest figures, unless it is paused."""
        if not self._figures.has_looked:
            self._draw_title()
        elif self._paused_at is None:
            text = self._find
            self._streams.show([row for row in self._figures.streams() if text in row.stream])
            self._senders.show(
                [
                    row
                    for row in self._figures.senders()
                    if text in row.sender.name or text in row.user or text in row.sender.unit
                ]
            )
            self._draw_head()
        self._draw_note()
        self.show_keys()

    def _draw_title(self) -> None:
        name = Text.assemble((" logengine top", "bold"), f"  {escape(str(self._source.data))}")
        state = self._daemon_text() if self._figures.has_looked else Text()
        self.query_one("#title", Bar).show(ends(name, state, self.size.width - 1))

    def _draw_head(self) -> None:
        self._draw_title()
        width = self.size.width - 1
        totals = self._figures.totals()
        rates = _rates_of(totals)
        line = joined(rates, width - 1)
        line = Text(" ").append_text(line)
        room = min(_SPARK_COLUMNS_MAX, width - len(line.plain) - 2)
        if room >= _SPARK_COLUMNS_MIN:
            line = ends(line, Text(sparkline(totals.activity.history, room), "green"), width)
        self.query_one("#rates", Bar).show(line)
        self.query_one("#state", Bar).show(
            Text(" ").append_text(joined(self._state_parts(totals), width - 1))
        )
        alert = self._alert()
        bar = self.query_one("#alert", Bar)
        bar.display = bool(alert)
        bar.show(ends(Text(f" {alert}", "bold red"), Text(), width))

    def _daemon_text(self) -> Text:
        daemon = self._figures.daemon
        if daemon.status is None:
            return Text(daemon.why or "no daemon answers", "yellow")
        is_ok = daemon.status.ok
        up = format_age(daemon.status.uptime_s)
        return Text.assemble(
            ("● daemon ok" if is_ok else "● daemon: not ok", "green" if is_ok else "bold red"),
            (f", up {up}", "bright_black"),
        )

    def _state_parts(self, totals: Totals) -> list[Text]:
        parts = []
        status = self._figures.daemon.status
        if status is not None:
            pending = format_size_rounded(status.pending_bytes)
            parts.append(
                _figure(
                    "backlog ",
                    pending,
                    f" of {format_size_rounded(status.max_pending)}",
                    "error" if status.pending_bytes > status.max_pending // 2 else "",
                )
            )
            waits = status.waiting_senders
            parts.append(
                _figure(
                    "connections ",
                    f"{max(0, status.connections - 1):,}",  # without the one that asks
                    f", {waits:,} wait" if waits else "",
                    "warning" if waits else "",
                )
            )
        parts.append(
            _figure("", f"{totals.streams:,}", " stream" if totals.streams == 1 else " streams")
        )
        parts.append(_figure("disk ", format_size_rounded(totals.bytes)))
        free = self._figures.free_bytes
        if free is not None:
            is_low = status is not None and status.is_space_low
            parts.append(_figure("free ", format_size_rounded(free), "", "error" if is_low else ""))
        return parts

    def _alert(self) -> str:
        status = self._figures.daemon.status
        alerts = []
        if status is not None:
            if status.unusable:
                alerts.append(f"nothing is committed: {escape(status.unusable)}")
            alerts += [self._failure_text(each) for each in status.failing]
            if status.is_space_low:
                alerts.append("free space is low: what is left is shared out among users")
            alerts += [f"{each} has used up its max_bytes" for each in status.streams_at_max_bytes]
        more = f" (and {len(alerts) - 1} more)" if len(alerts) > 1 else ""
        return f"{alerts[0]}{more}" if alerts else ""

    def _failure_text(self, failing: FailingStream) -> str:
        records = "1 record waits"
        if failing.waiting_records != 1:
            records = f"{failing.waiting_records:,} records wait"
        # The screen names the directory already, and what is wrong comes at the end.
        error = failing.error.replace(f"{self._source.data}/", "")
        return (
            f"{failing.stream} cannot be committed for {format_age(max(1, failing.for_s))}, "
            f"{records}: {escape(error)}"
        )

    def _draw_note(self) -> None:
        note = Text(" ")
        if self._paused_at is not None:
            new = self._figures.arrived - self._paused_at
            note.append(" PAUSED ", "reverse bold")
            note.append(f" {format_rate(new)} new records; Space goes on")
        elif self._shown.is_held:
            note.append("rows keep their places; Home sorts again", "bright_black")
            selected = self._shown.selected
            if isinstance(selected, StreamFigures) and (what := _trouble_of(selected)):
                note = Text(f" {what}", "bold red")
        else:
            name = "streams" if self._shown is self._streams else "senders"
            note.append(f"{name} by {self._shown.order}", "bright_black")
        if self._find:
            note.append(f"   names with “{self._find}”", "cyan")
        width = self.size.width - 1
        self.query_one("#note", Bar).show(ends(note, problems_text(self._problems), width))

    def on_key(self) -> None:
        """Draws the note again after the selection was moved."""
        self.call_after_refresh(self._draw_note)

    def action_table(self, name: str) -> None:
        """Shows one of the tables."""
        self._shown = self._streams if name == "streams" else self._senders
        for table in (self._streams, self._senders):
            table.display = table is self._shown
            table.set_class(table is self._shown, "-shown")
        self._shown.focus()
        self.draw()

    def action_other_table(self) -> None:
        """Shows the other table."""
        self.action_table("senders" if self._shown is self._streams else "streams")

    def action_sort(self, step: int) -> None:
        """Sorts by another column."""
        self._shown.sort_by_next(step)
        self._draw_note()

    def action_reverse(self) -> None:
        """Sorts the other way around."""
        self._shown.reverse()

    def action_pause(self) -> None:
        """Pauses, or goes on."""
        self._paused_at = self._figures.arrived if self._paused_at is None else None
        self.draw()

    def action_find(self) -> None:
        """Asks for a part of the names."""

        def take(text: str) -> Sequence[str]:
            self._find = escape(text.strip())
            self.draw()
            return ()

        self.query_one(Prompt).ask("names that contain (empty: all)", self._find, take)

    def action_all_records(self) -> None:
        """Follows all streams."""
        self.app.push_screen(RecordsScreen(self._source, "all streams", self._problems))

    def on_table_opened(self) -> None:
        """Follows the selected stream or sender."""
        row = self._shown.selected
        if isinstance(row, StreamFigures):
            source = replace(self._source, asked=(row.stream,))
            self.app.push_screen(RecordsScreen(source, row.stream, self._problems))
        elif isinstance(row, SenderFigures):
            source = replace(self._source, wheres=(*self._source.wheres, where_sender(row.sender)))
            title = f"records of {row.sender.name or row.user}"
            self.app.push_screen(RecordsScreen(source, title, self._problems))


def where_sender(sender: Sender) -> str:
    """Returns an expression for the records of a sender."""
    conditions = []
    if sender.uid is not None:
        conditions.append(f"_uid == {sender.uid}")
    # A name that was escaped or cut is not the one in the records.
    if sender.name.isascii() and sender.name and not {*sender.name} & {*"\\\"'"}:
        conditions.append(f"_comm == {json.dumps(sender.name)}")
    if sender.unit.isascii() and sender.unit and not {*sender.unit} & {*"\\\"'"}:
        name = json.dumps(sender.unit)
        conditions.append(f"(_unit == {name} or _user_unit == {name})")
    return " and ".join(conditions) or "has _ts"


def _figure(before: str, figure: str, after: str = "", tone: Tone = "") -> Text:
    return Text.assemble(
        (before, "bright_black"), (figure, style_of(tone) or "bold"), (after, "bright_black")
    )


def _rates_of(totals: Totals) -> list[Text]:
    activity = totals.activity
    return [
        _figure("", format_rate(activity.records_per_s), " rec/s"),
        _figure("", f"{format_size_rounded(int(activity.bytes_per_s))}", "/s"),
        _figure("", format_rate(activity.errors), " errors", "error" if activity.errors else ""),
        _figure(
            "", format_rate(activity.warnings), " warnings", "warning" if activity.warnings else ""
        ),
        _figure("delay ", format_delay(totals.delay_s)),
    ]


def _trouble_of(row: StreamFigures) -> str:
    """Returns what is wrong with a stream, escaped; empty if nothing is."""
    if row.failure:
        return f"{row.stream} cannot be committed: {row.failure}"
    if row.damaged:
        return f"{row.stream} has damaged segments; run `logengine verify {row.stream}`"
    return ""
