"""Options that choose records by their content."""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import click

from logengine.reading import Filter

_OPTIONS = (
    click.option(
        "--grep",
        "pattern",
        metavar="PATTERN",
        help="Only records whose stored line matches this regular expression.",
    ),
    click.option(
        "-F", "--fixed-strings", "fixed", is_flag=True, help="PATTERN is text, as it stands."
    ),
    click.option("-i", "--ignore-case", is_flag=True, help="PATTERN matches in either case."),
    click.option("-v", "--invert-match", "invert", is_flag=True, help="PATTERN must not match."),
    click.option(
        "--where",
        "wheres",
        multiple=True,
        metavar="KEY=VALUE",
        help="Only records in which this field, or a.b in an object, has this value. "
        "If given more than once, all must hold.",
    ),
)


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--grep` and `--where`, which the command gets as `chosen`, a `Filter`."""

    @functools.wraps(command)
    def with_filter(
        *arguments: Any,
        pattern: str | None,
        fixed: bool,
        ignore_case: bool,
        invert: bool,
        wheres: Sequence[str],
        **others: Any,
    ) -> Any:
        if pattern is None and (fixed or ignore_case or invert):
            raise click.UsageError("-F, -i and -v say how --grep matches, which is not given")
        chosen = Filter.of(
            wheres,
            None if pattern is None else os.fsencode(pattern),
            fixed=fixed,
            ignore_case=ignore_case,
            invert=invert,
        )
        return command(*arguments, chosen=chosen, **others)

    return functools.reduce(lambda made, option: option(made), reversed(_OPTIONS), with_filter)
