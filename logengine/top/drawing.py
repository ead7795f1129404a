"""Lines of the screen: escaped text in, strips of cells out. Nothing is parsed as markup."""

from collections.abc import Sequence

from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text
from textual.strip import Strip
from textual.widget import Widget

from logengine.printable import columns
from logengine.top.columns import Tone

_TONES: dict[Tone, str] = {
    "": "",
    "quiet": "bright_black",
    "good": "green",
    "warning": "yellow",
    "error": "bold red",
}
FOREGROUND, BACKGROUND = "#d8dee4", "#14181d"
# What the names of colours mean; the terminal's own might not be readable on the background.
COLOURS = TerminalTheme(
    (20, 24, 29),
    (216, 222, 228),
    [
        (20, 24, 29),
        (255, 107, 107),
        (126, 211, 116),
        (240, 190, 90),
        (110, 168, 254),
        (215, 140, 230),
        (92, 204, 220),
        (216, 222, 228),
    ],
    [
        (138, 147, 158),
        (255, 135, 135),
        (150, 225, 140),
        (250, 210, 120),
        (140, 190, 255),
        (230, 165, 240),
        (125, 222, 235),
        (255, 255, 255),
    ],
)
_PLAIN = Style(color=FOREGROUND, bgcolor=BACKGROUND)
_SELECTED = Style(bgcolor="#2b4468")
_SELECTED_WITHOUT_COLOURS = Style(reverse=True)
HEADING = Style(bold=True, bgcolor="#2a3038")
KEY = Style(bold=True, color="cyan")


def style_of(tone: Tone) -> str:
    """Returns the style of figures of a tone."""
    return _TONES[tone]


def strip_of(
    text: Text,
    width: int,
    console: Console,
    *,
    style: Style | None = None,
    offset: int = 0,
) -> Strip:
    """Returns `width` cells of a line, from a cell on, filled with spaces."""
    text.end = ""
    text.no_wrap = True
    strip = Strip(text.render(console)).crop(offset, offset + width).extend_cell_length(width)
    if style is not None:
        strip = strip.apply_style(style)
    # Without colours, textual expects every segment to have a style.
    return Strip(
        [Segment(part, _PLAIN if own is None else _PLAIN + own) for part, own, _ in strip if part],
        width,
    )


def selected_style(widget: Widget) -> Style:
    """Returns the style of the selected line, which is also seen without colours."""
    return _SELECTED_WITHOUT_COLOURS if widget.app.no_color else _SELECTED


def joined(parts: Sequence[Text | str], width: int, gap: str = "  ") -> Text:
    """Returns as many of the parts as there is room for, the first ones first."""
    line = Text(no_wrap=True, end="")
    for part in parts:
        text = Text(part) if isinstance(part, str) else part
        space = gap if line.plain else ""
        if columns(line.plain) + columns(space) + columns(text.plain) > width:
            continue
        line.append(space)
        line.append_text(text)
    return line


def ends(left: Text, right: Text, width: int) -> Text:
    """Returns a line with one text at each end; the left one is cut where there is no room."""
    room = width - columns(right.plain) - 1
    if room < columns(left.plain):
        left = left.copy()
        left.truncate(max(0, room), overflow="ellipsis")
    line = left.copy()
    line.append(" " * max(1, width - columns(left.plain) - columns(right.plain)))
    line.append_text(right)
    line.no_wrap = True
    return line
