"""The widget of a list of records: one line for each, as `tail` prints them."""

from datetime import tzinfo

from rich.style import Style
from rich.text import Text
from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from logengine.format.block import Record, Rows
from logengine.rendering.clock import WallClock
from logengine.rendering.pretty import Look, Pretty
from logengine.top.drawing import selected_style, strip_of
from logengine.top.window import RecordWindow

_COLUMNS_WITH_DATE_MIN = 110
_SHIFT_COLUMNS = 20
_WHEEL_ROWS = 3
_REMEMBERED_MAX = 2000
# Of a line that is longer, the rest is in the opened record.
_LINE_CHARACTERS_MAX = 8192
_QUIET = Style(color="bright_black")


def row_of(record: Record, pretty: Pretty) -> Text:
    """Returns the first line of a record as `pretty` renders it, and how many there are below."""
    rows = Rows([record.stream], [record.seq], [record.line], record.line + b"\n")
    first, *below = pretty.render(rows).decode().rstrip("\n").split("\n")
    # The only escape sequences are the colours of `rendering`: everything else is escaped.
    text = Text.from_ansi(first, no_wrap=True, end="")
    if len(text) > _LINE_CHARACTERS_MAX:
        text.truncate(_LINE_CHARACTERS_MAX, overflow="ellipsis")
    if below:
        text.append(f"  ↵ {len(below)} more", _QUIET)
    return text


class RecordList(Widget, can_focus=True):
    """The records of a window, the oldest first."""

    DEFAULT_CSS = "RecordList { height: 1fr; }"

    class Opened(Message):
        """The selected record was chosen."""

    class AtEdge(Message):
        """The selection was moved beyond the first record (`step` < 0) or beyond the last."""

        def __init__(self, step: int) -> None:
            super().__init__()
            self.step = step

    class Moved(Message):
        """Another record is selected."""

    def __init__(self, window: RecordWindow, zone: tzinfo) -> None:
        super().__init__()
        self.window = window
        self._of_none = ""
        self._zone = zone
        self._offset = 0
        self._with_date = False
        self._rows: dict[tuple[str, int, bytes], Text] = {}
        self._pretty = self._made(with_date=False)

    def _made(self, *, with_date: bool) -> Pretty:
        clock = WallClock(self._zone, time_only=not with_date)
        return Pretty(Look(clock=clock, colours=True))

    def say_of_none(self, text: str) -> None:
        """Says what is shown while there is no record."""
        if text != self._of_none:
            self._of_none = text
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """See `Widget`."""
        width = self.size.width
        index = self.window.first_shown + y
        if index >= len(self.window.records):
            text = Text(f" {self._of_none}" if y == 0 and not index else "", "bright_black")
            return strip_of(text, width, self.app.console)
        is_selected = index == self.window.cursor
        style = selected_style(self) if is_selected else None
        row = self._row(self.window.records[index])
        strip = strip_of(
            row.copy(), max(0, width - 1), self.app.console, style=style, offset=self._offset
        )
        mark = Text("▌" if is_selected else " ", "cyan")
        return Strip.join([strip_of(mark, 1, self.app.console, style=style), strip])

    def _row(self, record: Record) -> Text:
        key = (record.stream, record.seq, record.line)
        row = self._rows.get(key)
        if row is None:
            if len(self._rows) >= _REMEMBERED_MAX:
                self._rows.clear()
            row = self._rows[key] = row_of(record, self._pretty)
        return row

    def on_resize(self) -> None:
        """Adapts to the size."""
        with_date = self.size.width >= _COLUMNS_WITH_DATE_MIN
        if with_date != self._with_date:
            self._with_date = with_date
            self._pretty = self._made(with_date=with_date)
            self._rows.clear()
        self.window.resize(self.size.height)
        self.refresh()

    def on_key(self, event: events.Key) -> None:
        """Moves the selection, or the text sideways."""
        page = max(1, self.size.height - 1)
        steps = {"up": -1, "k": -1, "down": 1, "j": 1, "pageup": -page, "pagedown": page}
        if event.key in steps:
            self.move(steps[event.key])
        elif event.key in ("left", "right"):
            shift = _SHIFT_COLUMNS if event.key == "right" else -_SHIFT_COLUMNS
            self._offset = max(0, min(self._offset + shift, _LINE_CHARACTERS_MAX))
            self.refresh()
        elif event.key == "enter":
            self.post_message(self.Opened())
        else:
            return
        event.stop()

    def move(self, step: int) -> None:
        """Moves the selection."""
        target = self.window.cursor + step
        self.window.select(target)
        if not 0 <= target < len(self.window.records):
            self.post_message(self.AtEdge(step))
        self.post_message(self.Moved())
        self.refresh()

    def on_mouse_scroll_down(self) -> None:
        """Moves the selection."""
        self.move(_WHEEL_ROWS)

    def on_mouse_scroll_up(self) -> None:
        """Moves the selection."""
        self.move(-_WHEEL_ROWS)

    def on_click(self, event: events.Click) -> None:
        """Selects a record, or opens the selected one."""
        index = self.window.first_shown + event.y
        if index == self.window.cursor:
            self.post_message(self.Opened())
        elif index < len(self.window.records):
            self.window.select(index)
            self.post_message(self.Moved())
            self.refresh()
