"""The screen of one record: all of it, for people or as JSON."""

import re
from collections.abc import Callable, Sequence
from typing import ClassVar

import msgspec
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from logengine.format.block import Record, Rows
from logengine.local_zone import LOCAL_ZONE
from logengine.printable import escape
from logengine.rendering.clock import WallClock
from logengine.rendering.pretty import Look, Pretty
from logengine.rendering.styled import CYAN, wrap
from logengine.top.drawing import ends
from logengine.top.screens import Bar, Keys, ScreenWithKeys
from logengine.top.text_view import TextView

_INDENTATION = 2
_KEY = re.compile(r'( *)("(?:[^"\\]|\\.)*")(: ?)')
_COLUMNS_MIN = 20
# Of a record with more, the rest is left to `logengine cat`.
_LINES_MAX = 20_000


def pretty_lines(record: Record, width: int) -> list[Text]:
    """Returns a record as `tail` prints it, wrapped. Everything in it is escaped."""
    rows = Rows([record.stream], [record.seq], [record.line], record.line + b"\n")
    pretty = Pretty(Look(clock=WallClock(LOCAL_ZONE), colours=True, columns=width))
    return _texts(pretty.render(rows).decode().rstrip("\n").split("\n"))


def json_lines(record: Record, width: int) -> list[Text]:
    """Returns a record as JSON, indented and wrapped. Everything in it is escaped."""
    try:
        formatted = msgspec.json.format(record.json, indent=_INDENTATION)
    except (msgspec.MsgspecError, RecursionError):
        formatted = record.json
    lines: list[str] = []
    for line in formatted.decode("utf-8", "backslashreplace").split("\n")[:_LINES_MAX]:
        escaped = escape(line)
        if found := _KEY.match(escaped):
            escaped = f"{found[1]}{CYAN(found[2])}{found[3]}{escaped[found.end() :]}"
        own = len(line) - len(line.lstrip(" "))
        lines += wrap(escaped, width, own + _INDENTATION).split("\n")
    return _texts(lines)


def _texts(lines: Sequence[str]) -> list[Text]:
    texts = [Text.from_ansi(line, no_wrap=True, end="") for line in lines[:_LINES_MAX]]
    if len(lines) > _LINES_MAX:
        texts.append(Text(f"… {len(lines) - _LINES_MAX:,} lines more", "bright_black"))
    return texts


class RecordScreen(ScreenWithKeys):
    """One record. `step` selects another one of the list, and returns it."""

    keys: ClassVar[Keys] = (
        ("Esc", "back"),
        ("n", "next"),
        ("p", "previous"),
        ("f", "JSON or pretty"),
        ("↑ ↓", "scroll"),
        ("q", "quit"),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter", "back"),
        Binding("n,right", "step(1)"),
        Binding("p,left", "step(-1)"),
        Binding("f", "form"),
        Binding("question_mark", "app.help"),
        Binding("q", "app.quit"),
    ]

    def __init__(self, record: Record, step: Callable[[int], Record | None]) -> None:
        super().__init__()
        self._record = record
        self._step = step
        self._is_json = False
        self._view = TextView()

    def compose(self) -> ComposeResult:
        """See `Screen`."""
        yield Bar(id="title")
        yield self._view
        yield Bar(id="keys")

    def on_mount(self) -> None:
        """Lets the keys scroll."""
        self._view.focus()

    def on_resize(self) -> None:
        """Wraps everything again."""
        self._draw()

    def _draw(self) -> None:
        width = self.size.width
        lines_of = json_lines if self._is_json else pretty_lines
        self._view.show(lines_of(self._record, max(_COLUMNS_MIN, width - 1)))
        self.show_keys()

    def on_text_view_scrolled(self) -> None:
        """Says which record it is, and which of its lines are shown."""
        record = self._record
        title = Text.assemble((f" {record.stream}", "bold"), f"  record {record.seq:,}")
        place = Text(self._view.place or record.timestamp, "bright_black")
        self.query_one("#title", Bar).show(ends(title, place, self.size.width - 1))

    def action_form(self) -> None:
        """Shows the record in the other form."""
        self._is_json = not self._is_json
        self._draw()

    def action_step(self, step: int) -> None:
        """Shows another record."""
        if (record := self._step(step)) is not None:
            self._record = record
            self._draw()

    def action_back(self) -> None:
        """Closes it."""
        self.dismiss()
