"""The tables of streams and senders: columns, their order, and how figures are written. No I/O."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from logengine.printable import columns as columns_of
from logengine.top.figures import SenderFigures, StreamFigures
from logengine.units import format_size_rounded

Row = TypeVar("Row")
Tone = Literal["", "quiet", "good", "warning", "error"]

_SPARKS = "▁▂▃▄▅▆▇█"
_GAP = 2
_FIRST_MIN, _FIRST_MAX = 12, 40
_SLOW_S, _VERY_SLOW_S = 0.5, 5.0
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400
_EXACT_MAX = 1_000_000


@dataclass(frozen=True)
class Column(Generic[Row]):
    """A column. `sort_key` gives what rows are sorted by, the greatest first if `is_descending`.

    `need`: columns are left out in this order, from the greatest on, where there is no room.
    """

    title: str
    width: int
    need: int
    text: Callable[[Row], str]
    sort_key: Callable[[Row], float | str]
    tone: Callable[[Row], Tone] = lambda _: ""
    is_descending: bool = True
    is_left: bool = False


def fitting(columns: Sequence[Column[Row]], width: int) -> list[tuple[Column[Row], int]]:
    """Returns the columns for which there is room, with their widths.

    The first is as wide as the others let it be.
    """
    first, *others = columns
    chosen: list[Column[Row]] = []
    room = width - max(_FIRST_MIN, first.width)
    for column in sorted(others, key=lambda each: each.need):
        if column.width + _GAP > room:
            break
        chosen.append(column)
        room -= column.width + _GAP
    flexible = min(_FIRST_MAX, max(_FIRST_MIN, first.width) + max(0, room))
    return [(first, flexible)] + [(each, each.width) for each in others if each in chosen]


def in_order(rows: Sequence[Row], column: Column[Row], *, is_reversed: bool) -> list[Row]:
    """Returns the rows in the order of a column. Equal ones stay as they are."""
    return sorted(rows, key=column.sort_key, reverse=column.is_descending != is_reversed)


def aligned(text: str, width: int, *, is_left: bool) -> str:
    """Returns a text of exactly `width` columns: cut, with a sign of it, or filled."""
    if columns_of(text) > width:
        cut = text[: width - 1]
        while columns_of(cut) > width - 1:
            cut = cut[:-1]
        text = f"{cut}…"
    space = " " * (width - columns_of(text))
    return text + space if is_left else space + text


def format_rate(per_s: float) -> str:
    """Returns a rate or count in at most seven characters: `0`, `0.2`, `12`, `1,204`, `1.2M`."""
    if per_s <= 0:
        return "0"
    if per_s < 0.1:  # noqa: PLR2004 - what would be written as 0.0
        return "<0.1"
    if per_s < 10 and per_s != int(per_s):  # noqa: PLR2004 - one digit
        return f"{per_s:.1f}"
    if per_s < _EXACT_MAX:
        return f"{per_s:,.0f}"
    for unit in "MGT":
        per_s /= 1000.0 if unit != "M" else _EXACT_MAX
        if per_s < 1000 or unit == "T":  # noqa: PLR2004 - the next unit
            break
    return f"{per_s:.1f}{unit}"


def format_delay(delay_s: float | None) -> str:
    """Returns a delay: `4ms`, `1.2s`, `3m05s`; `-` if none is known."""
    if delay_s is None:
        return "-"
    if delay_s < 1:
        return f"{max(1, round(delay_s * 1000))}ms"
    return f"{delay_s:.1f}s" if delay_s < 10 else format_age(delay_s)  # noqa: PLR2004


def format_age(age_s: float | None) -> str:
    """Returns how long ago, in its two greatest units: `now`, `42s`, `3m05s`, `2h10m`, `5d03h`."""
    if age_s is None:
        return "-"
    seconds = int(age_s)
    if seconds < 1:
        return "now"
    if seconds < _MINUTE_S:
        return f"{seconds}s"
    if seconds < _HOUR_S:
        return f"{seconds // _MINUTE_S}m{seconds % _MINUTE_S:02d}s"
    if seconds < _DAY_S:
        return f"{seconds // _HOUR_S}h{seconds % _HOUR_S // _MINUTE_S:02d}m"
    return f"{seconds // _DAY_S}d{seconds % _DAY_S // _HOUR_S:02d}h"


def sparkline(history: Sequence[float], width: int) -> str:
    """Returns a line of `width` bars, the newest at the right; spaces where there was nothing."""
    per = -(-len(history) // width)
    start = len(history) - per * width
    sums = [
        sum(history[max(0, start + per * place) : max(0, start + per * (place + 1))])
        for place in range(width)
    ]
    greatest = max(sums, default=0)
    return "".join(
        _SPARKS[min(len(_SPARKS) - 1, int(each / greatest * len(_SPARKS)))] if each > 0 else " "
        for each in sums
    )


def _estimated(row: StreamFigures, text: str) -> str:
    return f"~{text}" if row.is_sampled and text != "0" else text


def _count_tone(count: float, tone: Tone) -> Tone:
    return tone if count > 0 else "quiet"


def _delay_tone(delay_s: float | None) -> Tone:
    if delay_s is None:
        return "quiet"
    return "error" if delay_s >= _VERY_SLOW_S else "warning" if delay_s >= _SLOW_S else ""


def _stream_tone(row: StreamFigures) -> Tone:
    return "error" if row.failure or row.damaged else ""


def _stream_text(row: StreamFigures) -> str:
    return f"{row.stream} !" if row.failure or row.damaged else row.stream


def _newest_last(age_s: float | None) -> float:
    return float("inf") if age_s is None else age_s


STREAM_COLUMNS: Sequence[Column[StreamFigures]] = (
    Column(
        "STREAM",
        18,
        0,
        _stream_text,
        lambda row: row.stream,
        _stream_tone,
        is_descending=False,
        is_left=True,
    ),
    Column(
        "REC/S",
        7,
        1,
        lambda row: format_rate(row.activity.records_per_s),
        lambda row: row.activity.records_per_s,
        lambda row: _count_tone(row.activity.records_per_s, ""),
    ),
    Column(
        "BYTES/S",
        8,
        9,
        lambda row: format_size_rounded(int(row.activity.bytes_per_s)),
        lambda row: row.activity.bytes_per_s,
        lambda row: _count_tone(row.activity.bytes_per_s, ""),
    ),
    Column(
        "ERRORS",
        7,
        2,
        lambda row: _estimated(row, format_rate(row.activity.errors)),
        lambda row: row.activity.errors,
        lambda row: _count_tone(row.activity.errors, "error"),
    ),
    Column(
        "WARN",
        7,
        3,
        lambda row: _estimated(row, format_rate(row.activity.warnings)),
        lambda row: row.activity.warnings,
        lambda row: _count_tone(row.activity.warnings, "warning"),
    ),
    Column(
        "DELAY",
        6,
        5,
        lambda row: format_delay(row.delay_s),
        lambda row: -1 if row.delay_s is None else row.delay_s,
        lambda row: _delay_tone(row.delay_s),
    ),
    Column(
        "WAITING",
        9,
        7,
        lambda row: format_size_rounded(row.waiting_bytes) if row.failure else "-",
        lambda row: row.waiting_bytes,
        lambda row: "error" if row.failure else "quiet",
    ),
    Column(
        "RECORDS",
        13,
        8,
        lambda row: f"{row.records:,}",
        lambda row: row.records,
    ),
    Column(
        "DISK",
        9,
        4,
        lambda row: format_size_rounded(row.bytes),
        lambda row: row.bytes,
    ),
    Column(
        "LAST",
        6,
        6,
        lambda row: format_age(row.age_s),
        lambda row: _newest_last(row.age_s),
        is_descending=False,
    ),
    Column(
        "LAST MINUTE",
        20,
        10,
        lambda row: sparkline(row.activity.history, 20),
        lambda row: sum(row.activity.history),
        lambda _: "good",
        is_left=True,
    ),
)

SENDER_COLUMNS: Sequence[Column[SenderFigures]] = (
    Column(
        "PROGRAM",
        16,
        0,
        lambda row: row.sender.name or "-",
        lambda row: row.sender.name,
        is_descending=False,
        is_left=True,
    ),
    Column(
        "USER",
        10,
        4,
        lambda row: row.user or "-",
        lambda row: row.user,
        is_descending=False,
        is_left=True,
    ),
    Column(
        "UNIT",
        24,
        8,
        lambda row: row.sender.unit or "-",
        lambda row: row.sender.unit,
        is_descending=False,
        is_left=True,
    ),
    Column(
        "REC/S",
        7,
        1,
        lambda row: format_rate(row.activity.records_per_s),
        lambda row: row.activity.records_per_s,
        lambda row: _count_tone(row.activity.records_per_s, ""),
    ),
    Column(
        "BYTES/S",
        8,
        7,
        lambda row: format_size_rounded(int(row.activity.bytes_per_s)),
        lambda row: row.activity.bytes_per_s,
        lambda row: _count_tone(row.activity.bytes_per_s, ""),
    ),
    Column(
        "ERRORS",
        7,
        2,
        lambda row: format_rate(row.activity.errors),
        lambda row: row.activity.errors,
        lambda row: _count_tone(row.activity.errors, "error"),
    ),
    Column(
        "WARN",
        7,
        3,
        lambda row: format_rate(row.activity.warnings),
        lambda row: row.activity.warnings,
        lambda row: _count_tone(row.activity.warnings, "warning"),
    ),
    Column(
        "LAST",
        6,
        5,
        lambda row: format_age(row.age_s),
        lambda row: row.age_s,
        is_descending=False,
    ),
    Column(
        "STREAMS",
        20,
        6,
        lambda row: ", ".join(row.streams),
        lambda row: len(row.streams),
        is_left=True,
    ),
    Column(
        "LAST MINUTE",
        20,
        10,
        lambda row: sparkline(row.activity.history, 20),
        lambda row: sum(row.activity.history),
        lambda _: "good",
        is_left=True,
    ),
)
