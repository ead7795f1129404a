"""`logengine rate`"""

import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from logengine.aggregation.counting import Counting, Group, keep_most_frequent, parse_by
from logengine.cli.filtering import filter_options
from logengine.cli.following_end import when_output_closes
from logengine.cli.options import (
    Duration,
    complete_fields,
    data_option,
    resolve_data,
    streams_argument,
)
from logengine.cli.output import Output
from logengine.cli.standard_descriptors import drop_output
from logengine.cli.table import OTHER, cell, print_json, text_of, write
from logengine.format.timestamp import format_timestamp
from logengine.local_zone import LOCAL_ZONE
from logengine.reading import Batch, Filter, Following, follow
from logengine.units import format_duration, format_size_rounded

_EVERY_S_MIN, _EVERY_S_MAX = 0.1, 86_400.0
_VALUES_SHOWN = 8
_VALUE_COLUMNS_MAX = 30
_HEADER_EVERY_ROWS = 20


@click.command(
    epilog="""\b
Examples:
  logengine rate
  logengine rate app --by level
  logengine rate --by _stream --every 10s
  logengine rate 'web-*' --where 'status >= 500' --format json
"""
)
@streams_argument
@click.option(
    "--by",
    "fields",
    multiple=True,
    metavar="FIELD",
    shell_complete=complete_fields,
    help="Count for each value of this field, as `count --by` does.",
)
@click.option(
    "--every",
    type=Duration(),
    metavar="DURATION",
    default="1s",
    show_default=True,
    help="Print a row after each such time.",
)
@click.option("--timeout", type=Duration(), metavar="DURATION", help="End after this time.")
@filter_options
@click.option(
    "-o",
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="table: for people. json: one object per line.",
)
@data_option
@click.pass_context
def command(
    ctx: click.Context,
    streams: tuple[str, ...],
    fields: tuple[str, ...],
    every: float,
    timeout: float | None,
    chosen: Filter,
    form: str,
    data: Path | None,
) -> None:
    """Print how many records arrive in STREAMs, every second.

    A record counts once it is on disk. Without STREAM, counts all streams, also new ones. Works
    without the daemon.
    """
    if not _EVERY_S_MIN <= every <= _EVERY_S_MAX:
        raise click.UsageError(
            f"--every is not from {format_duration(_EVERY_S_MIN)} to "
            f"{format_duration(_EVERY_S_MAX)}; expected a duration such as 1s or 1m"
        )
    output = Output("json")
    following = follow(
        *streams,
        data=resolve_data(data),
        where=chosen,
        timeout_s=timeout,
        on_problem=output.report,
    )
    rate = _Rate(fields, form)
    try:
        asyncio.run(_follow(following, rate, every))
    except BrokenPipeError:
        drop_output()
    ctx.exit(1 if output.problems else 0)


class _Rate:
    """Counts what arrived since the last row, and prints rows."""

    def __init__(self, fields: Sequence[str], form: str) -> None:
        self._fields = fields
        self._by = parse_by(fields)
        self._form = form
        self._rows = 0
        self._since_s = time.monotonic()
        self._counting = Counting(self._by)
        self._bytes = 0

    def add(self, batch: Batch) -> None:
        """Counts the records of a batch."""
        for block in batch.blocks():
            self._bytes += len(block.body)
            self._counting.add(block)

    def print_rest(self) -> None:
        """Prints a last row if anything was counted since the one before it."""
        if self._counting.records:
            self.print_row()

    def print_row(self) -> None:
        """Prints what was counted, and begins again."""
        now_s = time.monotonic()
        passed_s = now_s - self._since_s
        counting, size = self._counting, self._bytes
        self._since_s, self._counting, self._bytes = now_s, Counting(self._by), 0
        # No more values than a row has room for.
        groups = keep_most_frequent(counting.groups(), _VALUES_SHOWN) if self._by else []
        if self._form == "json":
            print_json([self._object(groups, counting.records, size, passed_s)])
        else:
            self._print_text(groups, counting.records, size, passed_s)

    def _object(self, groups: Sequence[Group], records: int, size: int, passed_s: float) -> bytes:
        members: dict[str, Any] = {
            "time": format_timestamp(time.time_ns()),
            "seconds": round(passed_s, 3),
            "records": records,
            "bytes": size,
        }
        if self._by:
            counts: Counter[str] = Counter()
            for group in groups:
                counts[self._label(group)] += group.count
            members["by"] = dict(counts)
        return msgspec.json.encode(members)

    def _print_text(
        self, groups: Sequence[Group], records: int, size: int, passed_s: float
    ) -> None:
        if self._rows % _HEADER_EVERY_ROWS == 0 and (self._rows == 0 or sys.stdout.isatty()):
            write("TIME      RECORDS/S     BYTES/S\n")
        self._rows += 1
        per_s = records / passed_s
        shown = f"{per_s:,.0f}" if per_s >= 1 or not records else f"{per_s:.2g}"
        values = "".join(
            f"  {cell(self._label(each), _VALUE_COLUMNS_MAX)} {each.count:,}" for each in groups
        )
        clock = datetime.now(LOCAL_ZONE)
        rate = format_size_rounded(round(size / passed_s))
        write(f"{clock:%H:%M:%S}  {shown:>9}  {rate:>10}{values}\n")

    def _label(self, group: Group) -> str:
        if group.values is None:
            return OTHER
        return " ".join("-" if value is None else text_of(value) for value in group.values)


async def _follow(following: Following, rate: _Rate, every_s: float) -> None:
    """Prints a row after each `every_s`, until the time is over or the output is closed."""

    async def print_rows() -> None:
        loop = asyncio.get_running_loop()
        next_s = loop.time()
        while True:
            # From the start on, so that rows do not drift; none twice after a stop of the process.
            next_s = max(next_s + every_s, loop.time())
            await asyncio.sleep(next_s - loop.time())
            rate.print_row()

    batches = following.async_batches()
    rows = asyncio.get_running_loop().create_task(print_rows())
    rows.add_done_callback(lambda _: following.stop())
    try:
        with when_output_closes(following.stop):
            async for batch in batches:
                rate.add(batch)
        rate.print_rest()
    finally:
        await batches.aclose()
        rows.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await rows
