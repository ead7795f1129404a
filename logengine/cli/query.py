"""`logengine query`"""

import json
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import click

from logengine.cli.messages import note
from logengine.cli.options import data_option
from logengine.cli.output import Output
from logengine.cli.selection import Select, selection_options
from logengine.cli.table import cell, print_csv, print_json, print_table, table_format_option
from logengine.exchange.querying import Answer, Database

TABLE_ROWS_MAX = 10_000
_BATCH_ROWS = 1000
_NO_VALUE = "-"


@click.command(
    epilog="""\b
Examples:
  logengine query 'SELECT level, count(*) FROM app GROUP BY ALL'
  logengine query "SELECT _ts, message FROM app WHERE record->>'order' = '7'" --since 1h
  logengine query 'SELECT _stream, max(_ts) FROM logengine.records GROUP BY ALL' --format csv
"""
)
@click.argument("sql", metavar="SQL")
@selection_options
@table_format_option
@data_option
@click.pass_context
def command(ctx: click.Context, sql: str, select: Select, form: str) -> None:
    """Answer SQL about the records of STREAMs, by DuckDB.

    Each stream is a view with the columns _stream, _seq, _ts (in UTC), _pid, _uid, _comm, _unit,
    level, message, record (JSON), _addr and _file; logengine.records has all. Without STREAM, only
    the streams that the query reads are loaded, into a temporary file. --since and --where load
    less. Works without the daemon.
    """
    output = Output("json")
    with Database() as database:
        reading = select(output.report)
        streams = database.streams_of(sql, reading.streams)
        database.load(reading.blocks(streams), streams)
        answer = database.answer(sql)
        if form == "table":
            _print_table(answer)
        elif form == "csv":
            print_csv([answer.names])
            for rows in _batches(answer):
                print_csv([["" if each is None else str(each) for each in row] for row in rows])
        else:
            for rows in _batches(answer):
                print_json(_object(answer.names, row) for row in rows)
    ctx.exit(1 if output.problems else 0)


def _batches(answer: Answer) -> Iterator[Sequence[Sequence[Any]]]:
    rows = answer.rows()
    while batch := list(islice(rows, _BATCH_ROWS)):
        yield batch


def _object(names: Sequence[str], row: Sequence[Any]) -> bytes:
    values = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in zip(names, row, strict=True)
    }
    return json.dumps(values, default=str, separators=(",", ":")).encode()


def _print_table(answer: Answer) -> None:
    rows = answer.rows()
    shown = list(islice(rows, TABLE_ROWS_MAX))
    are_numbers = [
        all(isinstance(row[place], int | float | None) for row in shown)
        for place in range(len(answer.names))
    ]
    cells = [[_NO_VALUE if each is None else cell(str(each)) for each in row] for row in shown]
    print_table(
        [[cell(name) for name in answer.names], *cells],
        "".join("<>"[each] for each in are_numbers),
    )
    if next(rows, None) is not None:
        note(f"only the first {TABLE_ROWS_MAX:,} rows are shown; --format csv and json show all")
