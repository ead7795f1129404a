"""The widget of a table: a heading to sort by, rows, and the selected one."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

from rich.text import Text
from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from logengine.top.columns import Column, aligned, fitting, in_order
from logengine.top.drawing import HEADING, selected_style, strip_of, style_of

Row = TypeVar("Row")

_GAP = "  "
_WHEEL_ROWS = 3


class Table(Widget, Generic[Row], can_focus=True):
    """Rows in the order of one of the columns.

    Rows keep their places while another row than the first is selected, so that none moves away
    under the hand; only their figures change.
    """

    DEFAULT_CSS = "Table { height: 1fr; }"

    class Opened(Message):
        """The selected row was chosen."""

    def __init__(
        self,
        columns: Sequence[Column[Row]],
        sort_title: str,
        key_of: Callable[[Row], Hashable],
        nothing: str,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._columns = columns
        self._column = next(each for each in columns if each.title == sort_title)
        self._is_reversed = False
        self._key_of = key_of
        self._nothing = nothing
        self._rows: list[Row] = []
        self._is_known = False  # whether there are rows
        self._cursor = 0
        self._first_shown = 0

    @property
    def selected(self) -> Row | None:
        """The selected row; None if there is none."""
        return self._rows[self._cursor] if self._rows else None

    @property
    def is_held(self) -> bool:
        """Whether rows keep their places."""
        return self._cursor > 0

    @property
    def order(self) -> str:
        """What the rows are sorted by."""
        return self._column.title

    def show(self, rows: Sequence[Row]) -> None:
        """Shows other figures."""
        self._is_known = True
        ordered = in_order(rows, self._column, is_reversed=self._is_reversed)
        if self.is_held:
            by_key = {self._key_of(row): row for row in ordered}
            held = [by_key.pop(key) for key in map(self._key_of, self._rows) if key in by_key]
            selected = self._key_of(self._rows[self._cursor])
            ordered = [*held, *by_key.values()]
            keys = [self._key_of(row) for row in ordered]
            self._cursor = keys.index(selected) if selected in keys else self._cursor
        self._rows = ordered
        self._select(self._cursor)

    def sort_by_next(self, step: int = 1) -> None:
        """Sorts by the next column that is shown."""
        shown = [column for column, _ in fitting(self._columns, self.size.width - 2)]
        place = shown.index(self._column) if self._column in shown else 0
        self._sort_by(shown[(place + step) % len(shown)])

    def reverse(self) -> None:
        """Turns the order around."""
        self._is_reversed = not self._is_reversed
        self._sort_again()

    def render_line(self, y: int) -> Strip:
        """See `Widget`."""
        width = self.size.width
        fitted = fitting(self._columns, width - 2)
        if y == 0:
            return self._heading(fitted, width)
        index = self._first_shown + y - 1
        if index >= len(self._rows):
            is_empty = y == 1 and self._is_known and not self._rows
            text = Text(f" {self._nothing}" if is_empty else "", "bright_black")
            return strip_of(text, width, self.app.console)
        row, is_selected = self._rows[index], index == self._cursor
        line = Text().append("▌" if is_selected else " ", "cyan")
        for place, (column, columns) in enumerate(fitted):
            cell = aligned(column.text(row), columns, is_left=column.is_left)
            line.append(_GAP if place else "")
            line.append(cell, style_of(column.tone(row)))
        style = selected_style(self) if is_selected else None
        return strip_of(line, width, self.app.console, style=style)

    def _heading(self, fitted: Sequence[tuple[Column[Row], int]], width: int) -> Strip:
        line = Text(" ")
        for place, (column, columns) in enumerate(fitted):
            title = column.title
            is_chosen = column is self._column
            if is_chosen:
                title += "▼" if column.is_descending != self._is_reversed else "▲"
            line.append(_GAP if place else "")
            line.append(
                aligned(title, columns, is_left=column.is_left), "cyan" if is_chosen else ""
            )
        return strip_of(line, width, self.app.console, style=HEADING)

    def on_key(self, event: events.Key) -> None:
        """Moves the selection."""
        page = max(1, self.size.height - 2)
        steps = {
            "up": -1,
            "k": -1,
            "down": 1,
            "j": 1,
            "pageup": -page,
            "pagedown": page,
            "home": -len(self._rows),
            "g": -len(self._rows),
            "end": len(self._rows),
            "G": len(self._rows),
        }
        if event.key == "enter":
            self.post_message(self.Opened())
        elif event.key in steps or (event.character or "") in steps:
            step = steps.get(event.key, steps.get(event.character or "", 0))
            self._select(self._cursor + step)
        else:
            return
        event.stop()

    def on_mouse_scroll_down(self) -> None:
        """Moves the selection."""
        self._select(self._cursor + _WHEEL_ROWS)

    def on_mouse_scroll_up(self) -> None:
        """Moves the selection."""
        self._select(self._cursor - _WHEEL_ROWS)

    def on_click(self, event: events.Click) -> None:
        """Selects a row, opens the selected one, or sorts by a column."""
        if event.y > 0:
            index = self._first_shown + event.y - 1
            if index == self._cursor and self._rows:
                self.post_message(self.Opened())
            else:
                self._select(min(index, len(self._rows) - 1))
            return
        start = 1
        for column, columns in fitting(self._columns, self.size.width - 2):
            if start <= event.x < start + columns:
                if column is self._column:
                    self.reverse()
                else:
                    self._sort_by(column)
            start += columns + len(_GAP)

    def on_resize(self) -> None:
        """Keeps the selected row on the screen."""
        self._select(self._cursor)

    def _sort_by(self, column: Column[Row]) -> None:
        self._column = column
        self._is_reversed = False
        self._sort_again()

    def _sort_again(self) -> None:
        self._rows = in_order(self._rows, self._column, is_reversed=self._is_reversed)
        self._select(0)

    def _select(self, index: int) -> None:
        height = max(1, self.size.height - 1)
        self._cursor = max(0, min(index, len(self._rows) - 1))
        greatest = min(self._cursor, max(0, len(self._rows) - height))
        self._first_shown = max(self._cursor - height + 1, 0, min(self._first_shown, greatest))
        self.refresh()
