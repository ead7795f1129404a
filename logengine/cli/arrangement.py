"""In which order records are printed, and how many of those around them."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import click

from logengine.cli.cursor_file import CursorFile
from logengine.cli.output import Output
from logengine.reading import Batch, Reading

# Records before a match are kept in memory.
_AROUND = click.IntRange(min=0, max=10_000)

_OPTIONS = (
    click.option(
        "-A",
        "--after-context",
        "after",
        type=_AROUND,
        metavar="N",
        help="Also N records after each.",
    ),
    click.option(
        "-B",
        "--before-context",
        "before",
        type=_AROUND,
        metavar="N",
        help="Also N records before each.",
    ),
    click.option(
        "-C",
        "--context",
        "around",
        type=_AROUND,
        metavar="N",
        help="Also N records around each that --grep and --where select; -- is between groups.",
    ),
    click.option("-r", "--reverse", is_flag=True, help="Print the newest first."),
)


class Arrangement(NamedTuple):
    """How many records before and after each to print, and whether the newest come first."""

    before: int
    after: int
    reverse: bool

    @property
    def is_plain(self) -> bool:
        """Whether the records are printed as they come."""
        return self == (0, 0, False)

    def check(self, *, chooses_all: bool) -> None:
        """Raises `click.UsageError` if no filter chooses what context is around."""
        if (self.before or self.after) and chooses_all:
            raise click.UsageError(
                "-A, -B and -C print what is around selected records; select some by --grep or "
                "--where"
            )


def arrangement_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `-A`, `-B`, `-C` and `--reverse`: the command gets `arrangement`."""

    @functools.wraps(command)
    def with_arrangement(
        *arguments: Any,
        before: int | None,
        after: int | None,
        around: int | None,
        reverse: bool,
        **others: Any,
    ) -> Any:
        both = around or 0
        arrangement = Arrangement(
            both if before is None else before, both if after is None else after, reverse
        )
        if reverse and (arrangement.before or arrangement.after):
            raise click.UsageError("-A, -B and -C print records in their order; omit --reverse")
        return command(*arguments, arrangement=arrangement, **others)

    return functools.reduce(lambda made, option: option(made), reversed(_OPTIONS), with_arrangement)


def print_records(
    reading: Reading,
    output: Output,
    arrangement: Arrangement,
    limit: int | None = None,
    cursors: CursorFile | None = None,
) -> None:
    """Prints the records so arranged; with `limit`, only the first so many that are selected.

    Notes in `cursors` what was printed.
    """
    if cursors is not None:
        if arrangement.reverse:
            raise click.UsageError("--cursor-file notes what was printed last; omit --reverse")
        output.pager_command = None  # what is in a pager is not read yet
    try:
        for batch in _batches(reading, arrangement, limit):
            if batch is None:
                output.separate()
                continue
            output.write(batch)
            if cursors is not None:
                output.flush()
                cursors.note(batch)
                cursors.save_if_due()
    finally:
        if cursors is not None:
            cursors.save()


def _batches(
    reading: Reading, arrangement: Arrangement, limit: int | None
) -> Iterator[Batch | None]:
    """Yields what to print; None stands between groups that are not adjacent."""
    if arrangement.before or arrangement.after:
        arrangement.check(chooses_all=reading.chooses_all)
        yield from reading.with_context(arrangement.before, arrangement.after, limit=limit)
        return
    remaining = limit
    for batch in reading.backwards() if arrangement.reverse else reading.batches():
        if remaining is None:
            yield batch
            continue
        yield batch if len(batch) <= remaining else batch.part(0, remaining)
        remaining -= len(batch)
        if remaining <= 0:
            return
