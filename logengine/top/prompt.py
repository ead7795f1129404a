"""One line at the bottom of a screen to type a filter, a name or a time into."""

from collections.abc import Callable, Sequence

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input, Static

from logengine.printable import escape

# Takes what was typed; returns what is wrong with it, in lines, or none.
Take = Callable[[str], Sequence[str]]


class Prompt(Vertical):
    """Asks for a text until it is right, or until it is left with Esc."""

    DEFAULT_CSS = """
    Prompt { height: auto; display: none; }
    Prompt.asking { display: block; }
    Prompt Input, Prompt Input:focus {
        border: none; height: 1; padding: 0 1; background: #2a3038;
    }
    Prompt .error { color: #ff6b6b; height: auto; padding: 0 1; display: none; }
    Prompt .label { height: 1; padding: 0 1; color: #5cccdc; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._take: Take = lambda _: ()
        self._label = Static(markup=False, classes="label")
        self._error = Static(markup=False, classes="error")
        self._input = Input(select_on_focus=False)

    def compose(self) -> ComposeResult:
        """See `Widget`."""
        yield self._error
        yield self._label
        yield self._input

    @property
    def is_asking(self) -> bool:
        """Whether it is on the screen."""
        return self.has_class("asking")

    def ask(self, label: str, value: str, take: Take) -> None:
        """Asks for a text; `take` gets it."""
        self._take = take
        self._label.update(Text(label))
        self._error.display = False
        self._input.value = value
        self._input.cursor_position = len(value)
        self.add_class("asking")
        self._input.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Hands the text over."""
        event.stop()
        if wrong := self._take(event.value):
            self._error.update(Text("\n".join(escape(line) for line in wrong)))
            self._error.display = True
            return
        self._close()

    def on_key(self, event: events.Key) -> None:
        """Leaves with Esc."""
        if event.key == "escape" and self.is_asking:
            event.stop()
            self._close()

    def _close(self) -> None:
        self.remove_class("asking")
        self.screen.set_focus(None)
        self.screen.query("Table, RecordList").filter(".-shown").first().focus()
