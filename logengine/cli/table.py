"""Tables and bars for a terminal, and the same numbers as JSON and CSV for programs."""

import csv
import io
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from logengine.format.json_object import decode_string, without_controls
from logengine.printable import columns, cut, escape

CELL_COLUMNS_MAX = 60
OTHER = "(other)"  # the row of what is counted together
_BETWEEN = 2


def table_format_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `-o` and `--format`: the command gets `form`."""
    return click.option(
        "-o",
        "--format",
        "form",
        type=click.Choice(["table", "json", "csv"]),
        default="table",
        show_default=True,
        help="table: for people. json: one object per line. csv: one row per line, with a header.",
    )(command)


def terminal_columns() -> int:
    """Returns the width of the terminal; 80 if there is none."""
    return shutil.get_terminal_size().columns


def text_of(value: bytes) -> str:
    """Returns the text of a string in JSON, and any other value as it is written."""
    return decode_string(value) if value.startswith(b'"') else value.decode()


def cell(text: str, columns_max: int = CELL_COLUMNS_MAX) -> str:
    """Returns text as it is safe in a table, cut to this width."""
    # More characters than columns are only those that take none.
    shown = escape(text[: 4 * columns_max])
    if columns(shown) <= columns_max and len(text) <= 4 * columns_max:
        return shown
    return cut(shown, columns_max - 1) + "…"


def share(count: int, total: int) -> str:
    """Returns a part of a total as a percentage."""
    return f"{100 * count / total:.1f}%" if total else "-"


def table_columns(rows: Sequence[Sequence[str]]) -> int:
    """Returns the width of a table with these rows."""
    widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
    return sum(widths) + _BETWEEN * (len(widths) - 1)


def print_table(rows: Sequence[Sequence[str]], align: str) -> None:
    """Prints rows of cells, which are safe, in columns: `<` or `>` for each of them.

    A cell of the last column may have colours, and is not padded.
    """
    widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        padded = [
            _padded(text, width, side) for text, width, side in zip(row, widths, align, strict=True)
        ]
        padded[-1] = row[-1] if align[-1] == "<" else padded[-1]
        lines.append((" " * _BETWEEN).join(padded).rstrip() + "\n")
    write("".join(lines))


def print_csv(rows: Iterable[Sequence[str]]) -> None:
    """Prints rows as RFC 4180 has them, with a newline alone after each."""
    escapes = sys.stdout.isatty()
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    for row in rows:
        writer.writerow([escape(each) for each in row] if escapes else row)
    write(written.getvalue())


def print_json(lines: Iterable[bytes]) -> None:
    """Prints JSON objects, one per line."""
    sys.stdout.buffer.write(b"".join([without_controls(line) + b"\n" for line in lines]))
    sys.stdout.buffer.flush()


def write(text: str) -> None:
    """Writes text to standard output, in UTF-8."""
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
    sys.stdout.buffer.flush()


def _padded(text: str, width: int, side: str) -> str:
    spaces = " " * (width - columns(text))
    return spaces + text if side == ">" else text + spaces
