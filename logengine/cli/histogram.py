"""Counts over time as a table with a bar for each bucket, divided by the values counted."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, tzinfo

from logengine.aggregation.counting import Group, Value, rank_in
from logengine.aggregation.time_buckets import TimeBuckets
from logengine.cli import terminal
from logengine.cli.table import (
    OTHER,
    cell,
    print_table,
    table_columns,
    terminal_columns,
    text_of,
)

Values = tuple[Value, ...] | None

_PARTS = "█▓▒░#=+-"  # of a bar, for values in the order of their columns
_OTHER_PART = "·"
_COLUMNS_MAX = len(_PARTS)
_HEADER_COLUMNS_MAX = 20
_BAR_COLUMNS_MIN, _BAR_COLUMNS_MAX = 10, 80
_EMPTY_ROWS_MAX = 3
_SKIPPED = "…"
_RESET = "\x1b[0m"
_RED, _YELLOW, _GREEN, _BLUE, _GREY = (f"\x1b[{code}m" for code in (31, 33, 32, 34, 90))
# By rank: trace, debug, info, notice, warning, and errors of all kinds.
_STYLES = (_GREY, _GREY, _GREEN, _BLUE, _YELLOW, _RED, _RED, _RED, _RED)


def print_histogram(
    groups: Sequence[Group], fields: Sequence[str], buckets: TimeBuckets, zone: tzinfo
) -> None:
    """Prints a row for each bucket, with a column for each of the most frequent values.

    Levels are in the order of their severity. Times are in `zone`.
    """
    totals: Counter[Values] = Counter()
    by_start: dict[str, Counter[Values]] = {}
    for group in groups:
        totals[group.values] += group.count
        by_start.setdefault(group.start or "", Counter())[group.values] += group.count
    shown = _shown(totals) if fields else []
    has_others = bool(fields) and len(shown) < len(totals)
    parts = _PARTS[: len(shown)] + (_OTHER_PART if has_others else "") if fields else _PARTS[0]
    labels = [f"{_label(values)} {part}" for values, part in zip(shown, parts, strict=False)]
    header = ["TIME", "COUNT", *labels, *([f"other {_OTHER_PART}"] if has_others else []), ""]
    styles = [_style(values) for values in shown] + [""] * has_others if fields else [""]
    rows: list[list[str]] = []
    counts: list[list[int]] = []
    has_seconds = any(start[17:26] != "00.000000" for start in by_start if start)
    for start in _with_empty(sorted(by_start), buckets):
        if start is None:
            rows.append([_SKIPPED, *[""] * (len(header) - 2)])
            counts.append([])
            continue
        found = by_start.get(start, Counter())
        total = found.total()
        of_shown = [found[values] for values in shown]
        if has_others:
            of_shown.append(total - sum(of_shown))
        counts.append(of_shown if fields else [total])
        rows.append(
            [
                _local(start, zone, has_seconds=has_seconds),
                *(f"{each:,}" for each in (total, *of_shown)),
            ]
        )
    taken = table_columns([header[:-1], *rows]) + 2
    width = min(_BAR_COLUMNS_MAX, max(_BAR_COLUMNS_MIN, terminal_columns() - taken))
    greatest = max(map(sum, counts), default=0)
    is_colored = terminal.uses_colours("auto", os.environ, is_terminal=terminal.is_terminal())
    for row, each in zip(rows, counts, strict=True):
        lengths = bar_parts(each, greatest, width)
        row.append(
            "".join(
                f"{style}{part * length}{_RESET}"
                if is_colored and style and length
                else part * length
                for part, style, length in zip(parts, styles, lengths, strict=False)
            )
        )
    print_table([header, *rows], "<" + ">" * (len(header) - 2) + "<")


def bar_parts(counts: Sequence[int], greatest: int, width: int) -> list[int]:
    """Returns how long each part of a bar is, if `greatest` records take `width`.

    Whatever is there gets a part, so that a few errors among many records are seen. The longest
    part gives way.
    """
    total = sum(counts)
    if not total:
        return [0] * len(counts)
    lengths = [max(1, round(count * width / greatest)) if count else 0 for count in counts]
    excess = sum(lengths) - max(1, round(total * width / greatest))
    while excess > 0 and (longest := max(lengths)) > 1:
        lengths[lengths.index(longest)] -= 1
        excess -= 1
    return lengths


def _shown(totals: Counter[Values]) -> list[Values]:
    frequent = sorted(
        (values for values in totals if values is not None),
        key=lambda values: (-totals[values], _label(values)),
    )[:_COLUMNS_MAX]
    # The most severe first, and after the levels what is none.
    if any(_rank(values) >= 0 for values in frequent):
        frequent.sort(key=_rank, reverse=True)
    return list(frequent)


def _label(values: Values) -> str:
    texts = ("-" if value is None else text_of(value) for value in values or ())
    return cell(" ".join(texts), _HEADER_COLUMNS_MAX)


def _style(values: Values) -> str:
    rank = _rank(values)
    return "" if rank < 0 else _STYLES[rank]


def _rank(values: Values) -> int:
    """Returns the rank of a level; -1 of anything else."""
    rank = rank_in(values[0]) if values is not None and len(values) == 1 else None
    return -1 if rank is None else rank


def _with_empty(starts: Sequence[str], buckets: TimeBuckets) -> Iterator[str | None]:
    """Yields the starts, with those of empty buckets between them; None for many of these."""
    previous = None
    for start in starts:
        if previous:
            empty: list[str | None] = []
            following = buckets.after(previous)
            while following < start and len(empty) <= _EMPTY_ROWS_MAX:
                empty.append(following)
                following = buckets.after(following)
            yield from empty if len(empty) <= _EMPTY_ROWS_MAX else [None]
        yield start
        previous = start


def _local(start: str, zone: tzinfo, *, has_seconds: bool) -> str:
    if not start:
        return OTHER
    try:
        moment = datetime.fromisoformat(start).astimezone(zone)
    except (OverflowError, ValueError):  # at the ends of the calendar
        return start
    if not has_seconds:
        return f"{moment:%Y-%m-%d %H:%M}"
    fraction = start[20:26].rstrip("0")
    return f"{moment:%Y-%m-%d %H:%M:%S}" + (f".{fraction}" if fraction else "")
