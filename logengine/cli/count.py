"""`logengine count`"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import click
import msgspec

from logengine.aggregation.counting import (
    GROUP_BYTES_MAX,
    GROUPS_MAX,
    Counting,
    Group,
    keep_most_frequent,
    parse_by,
)
from logengine.aggregation.time_buckets import TimeBuckets
from logengine.cli.histogram import print_histogram
from logengine.cli.messages import note, say
from logengine.cli.options import Duration, complete_fields, data_option
from logengine.cli.output import Output
from logengine.cli.selection import ONLY_RANGE_BY, Select, selection_options
from logengine.cli.table import (
    OTHER,
    cell,
    print_csv,
    print_json,
    print_table,
    share,
    table_format_option,
    text_of,
)
from logengine.local_zone import LOCAL_ZONE
from logengine.units import MiB, format_duration

_LENGTH_S_MIN = 0.001
_LENGTH_S_MAX = 36_525 * 86_400
_MISSING = "-"


@click.command(
    epilog="""\b
Examples:
  logengine count
  logengine count app --since 1h --where 'level >= error'
  logengine count --by status --top 10
  logengine count --by _stream --by level --format csv
  logengine count app --since today --every 5m --by level
"""
)
@partial(selection_options, range_by_names=ONLY_RANGE_BY)
@click.option(
    "--by",
    "fields",
    multiple=True,
    metavar="FIELD",
    shell_complete=complete_fields,
    help="Count for each value of this field, such as level, http.status or tags[*]; _stream is "
    "the stream. Repeat it to count for each combination of values.",
)
@click.option(
    "--every",
    type=Duration(),
    metavar="DURATION",
    help="Count for each 5m, 1h or 1d of the time that --range-by says.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    metavar="N",
    help="Only the N most frequent values; the others are counted together.",
)
@table_format_option
@data_option
@click.pass_context
def command(
    ctx: click.Context,
    select: Select,
    fields: tuple[str, ...],
    every: float | None,
    top: int | None,
    form: str,
) -> None:
    """Count the records of STREAMs, by the values of fields and by time.

    Without STREAM, counts all streams. Works without the daemon. The time is local; days begin at
    midnight, weeks on Monday.
    """
    if every is not None and not _LENGTH_S_MIN <= every <= _LENGTH_S_MAX:
        raise click.UsageError(
            f"--every is not from {format_duration(_LENGTH_S_MIN)} to "
            f"{format_duration(_LENGTH_S_MAX)}; expected a duration such as 30s, 5m, 1h or 1d"
        )
    if top is not None and not fields:
        raise click.UsageError("--top needs --by FIELD: it says how many values are shown")
    buckets = None if every is None else TimeBuckets(every, LOCAL_ZONE)
    by = parse_by(fields)
    output = Output("json")
    reading = select(output.report)
    counting = Counting(by, buckets, by_arrival=reading.by_arrival)
    for block in reading.blocks():
        counting.add(block)
    groups = counting.groups()
    if top is not None:
        groups = keep_most_frequent(groups, top)
    if form == "json":
        print_json(_object(group, fields) for group in groups)
    elif form == "csv":
        print_csv(_csv(groups, fields, has_times=buckets is not None))
    elif buckets is not None:
        print_histogram(groups, fields, buckets, LOCAL_ZONE)
    elif fields:
        _print_values(groups, fields, counting.records)
    else:
        say(str(counting.records))
    if counting.is_limited:
        note(
            f"more than {GROUPS_MAX:,} different values, or {GROUP_BYTES_MAX // MiB} MiB of them: "
            "those that came later are counted together, as other"
        )
    ctx.exit(1 if output.problems else 0)


def _object(group: Group, fields: Sequence[str]) -> bytes:
    members: dict[str, Any] = {}
    if group.start is not None:
        members["time"] = group.start
    if group.values is None:
        members["other"] = True
    elif fields:
        members["by"] = {
            field: msgspec.Raw(value)
            for field, value in zip(fields, group.values, strict=True)
            if value is not None
        }
    members["count"] = group.count
    return msgspec.json.encode(members)


def _csv(groups: Sequence[Group], fields: Sequence[str], *, has_times: bool) -> list[list[str]]:
    rows = [[*(["time"] if has_times else []), *fields, "count"]]
    for group in groups:
        time = [group.start or ""] if has_times else []
        values = [OTHER] + [""] * (len(fields) - 1)
        if group.values is not None:
            values = ["" if value is None else text_of(value) for value in group.values]
        rows.append([*time, *values, str(group.count)])
    return rows


def _print_values(groups: Sequence[Group], fields: Sequence[str], records: int) -> None:
    rows = [[*map(cell, fields), "COUNT", "SHARE"]]
    for group in groups:
        values = [OTHER] + [""] * (len(fields) - 1)
        if group.values is not None:
            values = [_MISSING if each is None else cell(text_of(each)) for each in group.values]
        rows.append([*values, f"{group.count:,}", share(group.count, records)])
    print_table(rows, "<" * len(fields) + ">>")
