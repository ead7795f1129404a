"""The widget of a long text: lines that can be scrolled."""

from collections.abc import Sequence

from rich.text import Text
from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from logengine.top.drawing import strip_of

_WHEEL_ROWS = 3


class TextView(Widget, can_focus=True):
    """Lines, none of which is wrapped."""

    DEFAULT_CSS = "TextView { height: 1fr; }"

    class Scrolled(Message):
        """Other lines are shown."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: Sequence[Text] = ()
        self._first = 0

    def show(self, lines: Sequence[Text]) -> None:
        """Shows other lines, from the first one on."""
        self._lines = lines
        self._first = 0
        self.refresh()
        self.post_message(self.Scrolled())

    @property
    def place(self) -> str:
        """Which lines are on the screen, if these are not all."""
        last = min(len(self._lines), self._first + self.size.height)
        is_all = self._first == 0 and last == len(self._lines)
        return "" if is_all else f"lines {self._first + 1} to {last} of {len(self._lines)}"

    def render_line(self, y: int) -> Strip:
        """See `Widget`."""
        index = self._first + y
        text = self._lines[index].copy() if index < len(self._lines) else Text()
        return strip_of(text, self.size.width, self.app.console)

    def on_key(self, event: events.Key) -> None:
        """Scrolls."""
        page = max(1, self.size.height - 1)
        steps = {
            "up": -1,
            "k": -1,
            "down": 1,
            "j": 1,
            "pageup": -page,
            "pagedown": page,
            "space": page,
            "home": -len(self._lines),
            "end": len(self._lines),
        }
        if event.key in steps:
            self._scroll(steps[event.key])
            event.stop()

    def on_mouse_scroll_down(self) -> None:
        """Scrolls."""
        self._scroll(_WHEEL_ROWS)

    def on_mouse_scroll_up(self) -> None:
        """Scrolls."""
        self._scroll(-_WHEEL_ROWS)

    def _scroll(self, step: int) -> None:
        greatest = max(0, len(self._lines) - self.size.height)
        self._first = max(0, min(self._first + step, greatest))
        self.refresh()
        self.post_message(self.Scrolled())
