"""`logengine fields`"""

import click
import msgspec

from logengine.aggregation.field_survey import (
    FIELDS_MAX,
    NAME_CHARACTERS_MAX,
    FieldSummary,
    FieldSurvey,
)
from logengine.cli.messages import note
from logengine.cli.options import data_option
from logengine.cli.output import Output
from logengine.cli.selection import Select, selection_options
from logengine.cli.table import (
    cell,
    print_csv,
    print_json,
    print_table,
    share,
    table_columns,
    table_format_option,
    terminal_columns,
    text_of,
)
from logengine.printable import columns

_FIELD_COLUMNS_MAX = 40
_EXAMPLE_COLUMNS_MAX = 24


@click.command(
    epilog="""\b
Examples:
  logengine fields
  logengine fields app --since 1h
  logengine fields app --where 'level >= error' --format json
"""
)
@selection_options
@table_format_option
@data_option
@click.pass_context
def command(ctx: click.Context, select: Select, form: str) -> None:
    """List the fields that the records of STREAMs have: how often, types, examples.

    Fields are written as --where and --by take them: http.status, tags[*]. Without STREAM, looks at
    all streams. Works without the daemon.
    """
    survey = FieldSurvey()
    output = Output("json")
    for block in select(output.report).blocks():
        survey.add(block)
    summaries = survey.summaries()
    if form == "json":
        print_json(map(_object, summaries))
    elif form == "csv":
        rows = [
            (each.text, str(each.records), " ".join(each.types), _first_example(each))
            for each in summaries
        ]
        print_csv([("field", "records", "types", "example"), *rows])
    else:
        _print_fields(summaries, survey.records)
    if survey.others:
        note(
            f"more than {FIELDS_MAX:,} fields, or {NAME_CHARACTERS_MAX:,} characters of their "
            f"names: {survey.others:,} values of those that came later are not listed"
        )
    ctx.exit(1 if output.problems else 0)


def _object(summary: FieldSummary) -> bytes:
    return msgspec.json.encode(
        {
            "field": summary.text,
            "records": summary.records,
            "types": summary.types,
            "examples": [msgspec.Raw(each) for each in summary.examples],
        }
    )


def _first_example(summary: FieldSummary) -> str:
    return text_of(summary.examples[0]) if summary.examples else ""


def _print_fields(summaries: list[FieldSummary], records: int) -> None:
    rows = [("FIELD", "RECORDS", "SHARE", "TYPE")]
    rows += [
        (
            cell(each.text, _FIELD_COLUMNS_MAX),
            f"{each.records:,}",
            share(each.records, records),
            _types(each),
        )
        for each in summaries
    ]
    width = terminal_columns() - table_columns([(*row, "") for row in rows])
    examples = ["EXAMPLES", *(_examples(each, width) for each in summaries)]
    print_table([(*row, each) for row, each in zip(rows, examples, strict=True)], "<>><<")


def _examples(summary: FieldSummary, width: int) -> str:
    """Returns one example, and further ones if there is space for them."""
    shown = ""
    for example in summary.examples:
        text = cell(text_of(example), _EXAMPLE_COLUMNS_MAX)
        if shown and columns(shown) + 2 + columns(text) > width:
            break
        shown += f", {text}" if shown else text
    return shown


def _types(summary: FieldSummary) -> str:
    if len(summary.types) == 1:
        return next(iter(summary.types))
    values = sum(summary.types.values())
    return ", ".join(f"{kind} {share(count, values)}" for kind, count in summary.types.items())
