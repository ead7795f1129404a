"""What the screens have in common: bars of one line, and the last line with the keys."""

from collections.abc import Sequence
from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Static

from logengine.top.drawing import KEY, ends, joined
from logengine.top.problems import Problems
from logengine.top.text_view import TextView

Keys = Sequence[tuple[str, str]]

HELP = """\
In the tables
  1  2  Tab        streams, senders
  ↑ ↓ PgUp PgDn    select a row; while it is not the first one, rows keep their places
  Home             the first row; rows are sorted again
  s  S  r          sort by the next column, by the one before, the other way around
  Enter            the records of the stream, or of the sender, as they arrive
  a                the records of all streams
  /                only names that contain a text
  Space            pause: nothing moves, and new records are counted
  !                what could not be read

In the records
  ↑ ↓ PgUp PgDn    select a record; with another than the newest, nothing moves
  ← →              the rest of long lines
  Home g           the oldest record       End G   the newest, and go on
  e  E             the next error, the error before
  t                go to a time: 14:00, yesterday 14:00, 10m ago, 2026-11-20 14:00
  /                filter: level >= warning and not path ~ "^/health" (docs/filter.md)
  Space            pause, go on
  Enter            the whole record        Esc     back

In a record
  n  p             the next record, the one before
  f                for people, or as JSON
  Esc              back

Everywhere: ? this help, q or Ctrl-C quit

What the figures mean
  REC/S, BYTES/S   what arrived in each of the last 5 seconds
  ERRORS, WARN     records of level error and above, and warnings, in the last minute;
                   ~ if more arrived than is read, so that it is an estimate
  DELAY            the longest time of the last 10 seconds from the arrival of a record
                   until it was in its file
  WAITING          what the daemon holds in memory because the stream cannot be committed
  RECORDS, DISK    what is kept, and the size of its files
  LAST             how long ago the last record arrived
"""


class Bar(Static):
    """One line of text that is made each time, and drawn only if it has changed."""

    DEFAULT_CSS = "Bar { height: 1; width: 1fr; }"

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, **options)
        self._text = Text()

    def show(self, text: Text) -> None:
        """Shows a line."""
        if text != self._text or text.style != self._text.style:
            self._text = text
            self.update(text, layout=False)


class ScreenWithKeys(Screen[None]):
    """A screen whose last line names the keys."""

    keys: ClassVar[Keys] = ()

    def show_keys(self) -> None:
        """Draws the last line: the keys for which there is room."""
        parts = [Text.assemble((key, KEY), f" {what}") for key, what in self.keys]
        line = Text(" ").append_text(joined(parts, self.size.width - 2))
        self.query_one("#keys", Bar).show(line)


class TextScreen(ScreenWithKeys):
    """A text to read: the help, or the problems."""

    keys: ClassVar[Keys] = (("Esc", "back"), ("↑ ↓", "scroll"), ("q", "quit"))
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,question_mark", "back"),
        Binding("q", "app.quit"),
    ]

    def __init__(self, title: str, lines: Sequence[str]) -> None:
        super().__init__()
        self._title = title
        self._lines = [Text(f" {line}") for line in lines]
        self._view = TextView()

    def compose(self) -> ComposeResult:
        """See `Screen`."""
        yield Bar(id="title")
        yield self._view
        yield Bar(id="keys")

    def on_mount(self) -> None:
        """Shows the text."""
        self._view.show(self._lines)
        self._view.focus()

    def on_resize(self) -> None:
        """Draws everything again."""
        self.call_after_refresh(self.on_text_view_scrolled)
        self.show_keys()

    def on_text_view_scrolled(self) -> None:
        """Says which lines are shown."""
        place = Text(self._view.place, "bright_black")
        title = ends(Text(f" {self._title}", "bold"), place, self.size.width - 1)
        self.query_one("#title", Bar).show(title)

    def action_back(self) -> None:
        """Closes it."""
        self.dismiss()


def problems_text(problems: Problems) -> Text:
    """Returns the newest problem, and how many there are; empty if there is none."""
    if not problems.count:
        return Text()
    what = "1 problem" if problems.count == 1 else f"{problems.count} problems"
    return Text.assemble((what, "bold yellow"), (" (!)", "bright_black"))
