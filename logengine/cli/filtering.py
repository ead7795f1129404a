"""The options that select records by their content."""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from logengine.cli.options import given_streams
from logengine.reading import Filter


def _complete_expression(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from logengine.cli.field_completion import completed_expressions, known_fields

    known = known_fields(ctx.params.get("data"), given_streams(ctx))
    return [CompletionItem(each) for each in completed_expressions(incomplete, known)]


_OPTIONS = (
    click.option(
        "--grep",
        "patterns",
        multiple=True,
        metavar="PATTERN",
        help="Only records whose stored line matches this regular expression. Repeated, all must "
        "match.",
    ),
    click.option(
        "-F",
        "--fixed-strings",
        "fixed",
        is_flag=True,
        help="Treat PATTERN as literal text, not as a regular expression.",
    ),
    click.option("-i", "--ignore-case", is_flag=True, help="Ignore case when matching PATTERN."),
    click.option(
        "-v",
        "--invert-match",
        "invert",
        is_flag=True,
        help="Only records that do not match PATTERN.",
    ),
    click.option(
        "--where",
        "wheres",
        multiple=True,
        metavar="EXPRESSION",
        shell_complete=_complete_expression,
        help="Only records for which this holds, such as 'level >= warning and not path ~ "
        '"^/health"\', or KEY=VALUE. Repeated, all must hold. See docs/filter.md.',
    ),
)


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--grep`, its flags, and `--where`; the command gets `chosen`, a `Filter`."""

    @functools.wraps(command)
    def with_filter(
        *arguments: Any,
        patterns: Sequence[str],
        fixed: bool,
        ignore_case: bool,
        invert: bool,
        wheres: Sequence[str],
        **others: Any,
    ) -> Any:
        if not patterns and (fixed or ignore_case or invert):
            raise click.UsageError("-F, -i and -v need --grep PATTERN: they say how it matches")
        chosen = Filter.of(
            wheres,
            [os.fsencode(pattern) for pattern in patterns],
            fixed=fixed,
            ignore_case=ignore_case,
            invert=invert,
        )
        return command(*arguments, chosen=chosen, **others)

    return functools.reduce(lambda made, option: option(made), reversed(_OPTIONS), with_filter)
