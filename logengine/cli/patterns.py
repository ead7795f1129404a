"""`logengine patterns`"""

import json

import click
import msgspec

from logengine.aggregation.message_patterns import PATTERNS_MAX, MessagePatterns, Pattern
from logengine.cli.messages import note
from logengine.cli.options import data_option
from logengine.cli.output import Output
from logengine.cli.selection import Select, selection_options
from logengine.cli.table import (
    OTHER,
    cell,
    print_csv,
    print_json,
    print_table,
    share,
    table_format_option,
    terminal_columns,
)

_PATTERN_COLUMNS_MIN = 40


@click.command(
    epilog="""\b
Examples:
  logengine patterns
  logengine patterns app --since 1h --where 'level >= warning'
  logengine patterns --field exception --top 20
"""
)
@selection_options
@click.option(
    "--field",
    metavar="FIELD",
    help="The field with the message. Default: the first of event, message and msg.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    metavar="N",
    help="Only the N most frequent patterns; the others are counted together.",
)
@table_format_option
@data_option
@click.pass_context
def command(
    ctx: click.Context, select: Select, field: str | None, top: int | None, form: str
) -> None:
    """Fold similar messages of STREAMs into patterns: words, and <*> for what differs.

    Without STREAM, looks at all streams. Records without a message are not counted. Works without
    the daemon.
    """
    messages = MessagePatterns(field)
    output = Output("json")
    for block in select(output.report).blocks():
        messages.add(block)
    patterns = messages.patterns()
    others = messages.others + sum(each.count for each in patterns[top:] if top is not None)
    patterns = patterns[:top]
    if form == "json":
        print_json([*map(_object, patterns), *_other_object(others)])
    elif form == "csv":
        rows = [(str(each.count), each.first, each.last, each.text) for each in patterns]
        if others:
            rows.append((str(others), "", "", OTHER))
        print_csv([("count", "first", "last", "pattern"), *rows])
    else:
        _print_patterns(patterns, others, messages.messages)
    if messages.others:
        note(
            f"more than {PATTERNS_MAX:,} patterns: messages that came later and match none are "
            "counted together, as other"
        )
    ctx.exit(1 if output.problems else 0)


def _object(pattern: Pattern) -> bytes:
    members = {
        "pattern": pattern.text,
        "count": pattern.count,
        "first": pattern.first,
        "last": pattern.last,
        "example": pattern.example,
    }
    try:
        return msgspec.json.encode(members)
    except UnicodeEncodeError:  # half of a surrogate pair, which has no UTF-8
        return json.dumps(members, separators=(",", ":")).encode()


def _other_object(count: int) -> list[bytes]:
    return [b'{"other":true,"count":%d}' % count] if count else []


def _print_patterns(patterns: list[Pattern], others: int, messages: int) -> None:
    rows = [(f"{each.count:,}", share(each.count, messages), each.text) for each in patterns]
    if others:
        rows.append((f"{others:,}", share(others, messages), OTHER))
    taken = max((len(count) for count, _, _ in rows), default=0) + len("  100.0%  ")
    width = max(_PATTERN_COLUMNS_MIN, terminal_columns() - taken)
    cells = [(count, part, cell(text, width)) for count, part, text in rows]
    print_table([("COUNT", "SHARE", "PATTERN"), *cells], ">><")
