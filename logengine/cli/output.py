"""Writes records to standard output, or to a pager, in one of several forms."""

import functools
import os
import re
import sys
import time
import warnings
from collections.abc import Callable
from datetime import UTC
from types import TracebackType
from typing import IO, Any, Self

import click

from logengine.cli import terminal
from logengine.cli.gap_marker import gap_marker
from logengine.cli.messages import tell
from logengine.cli.options import complete_fields
from logengine.local_zone import LOCAL_ZONE
from logengine.reading import Batch, Problem
from logengine.rendering import Rendering
from logengine.rendering.clock import Ages, Clock, Deltas, WallClock
from logengine.rendering.fields import FieldChoice, names_in

FORMS = ("pretty", "short", "json", "raw", "logfmt", "csv", "template")
_FORMS_FOR_PEOPLE = ("pretty", "short", "template")
_FORMS_WITH_GAPS = ("pretty", "short")  # each line of a template is a record
# On a narrower terminal, the date would take too much of each row.
_COLUMNS_WITH_DATE_MIN = 70
_SEPARATOR = b"--\n"
# Reports that wait until the user leaves the pager; more are only counted.
_HELD_MAX = 1000

_OPTIONS = (
    click.option(
        "-o",
        "--format",
        "form",
        type=click.Choice(FORMS),
        show_default="pretty on a terminal, else json; template with --template",
        help="pretty: for people. short: time, level and message. json: the record with _stream "
        "and _seq added. raw: the stored line, unchanged. logfmt, csv. template: see --template.",
    ),
    click.option(
        "--template",
        metavar="TEXT",
        help="Print each record so, for example '{time} {level:<5} {http.status} {message}'. Also "
        "{stream}, {seq}, {cursor}, {program}, {pid}, {fields} and any field.",
    ),
    click.option(
        "--fields",
        "only",
        multiple=True,
        metavar="NAMES",
        shell_complete=complete_fields,
        help="Show only these fields, in this order: a,b.c. Pretty rows have the message anyway.",
    ),
    click.option(
        "--hide",
        "hidden",
        multiple=True,
        metavar="NAMES",
        shell_complete=complete_fields,
        help="Do not show these fields: a,b.c.",
    ),
    click.option(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        help="Colours. auto: on a terminal, unless NO_COLOR is set or TERM is dumb; with "
        "FORCE_COLOR also elsewhere.",
    ),
    click.option("--utc", is_flag=True, help="Show times in UTC, not in local time."),
    click.option("--relative", is_flag=True, help="Show how long ago it was: '3m12s ago'."),
    click.option("--delta", is_flag=True, help="Show the time since the record before, too."),
)
_NO_PAGER = click.option(
    "--no-pager", is_flag=True, help="On a terminal, do not use $PAGER, which is less by default."
)


def output_options(*, paged: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds the options that say how records look. The command gets `output` instead of them.

    With `paged`, records go to a pager on a terminal, unless `--no-pager` or `--follow` is given.
    """

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_output(
            *arguments: Any,
            form: str | None,
            template: str | None,
            only: tuple[str, ...],
            hidden: tuple[str, ...],
            color: str,
            utc: bool,
            relative: bool,
            delta: bool,
            no_pager: bool = False,
            **others: Any,
        ) -> Any:
            form = _form(form, template)
            columns = terminal.width(os.environ)
            output = Output(
                form,
                _rendering(
                    form,
                    template=template,
                    choice=FieldChoice(names_in(only), names_in(hidden)),
                    clock=_clock(form, columns, utc=utc, relative=relative, delta=delta),
                    colours=terminal.uses_colours(
                        color, os.environ, is_terminal=terminal.is_terminal()
                    ),
                    columns=columns,
                ),
            )
            if paged and not no_pager and not others.get("follow"):
                output.pager_command = terminal.pager_command(
                    os.environ, is_terminal=terminal.is_terminal()
                )
            return command(*arguments, output=output, **others)

        options = (*_OPTIONS, _NO_PAGER) if paged else _OPTIONS
        return functools.reduce(lambda made, option: option(made), reversed(options), with_output)

    return add


class Output:
    """Writes records to standard output and problems to standard error.

    Without `rendering`, records are printed as they are stored: `json` or `raw`. It is used as a
    context manager, at whose end the user leaves the pager.
    """

    def __init__(self, form: str, rendering: Rendering | None = None) -> None:
        self._form = form
        self._rendering = rendering
        self._is_begun = False
        self._pager: terminal.Pager | None = None
        self._held: list[str] = []
        self._unheld = 0
        self.pager_command: str | None = None
        self.problems = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if kind is None:
            self._begin()
        if self._pager is None:
            if kind is None:
                self.flush()
            return False
        if not self._pager.wait():
            self.problems += 1
            tell(
                f"the pager {self.pager_command!r} cannot be run; "
                "set PAGER, or print with --no-pager"
            )
        for text in self._held:
            tell(text)
        if self._unheld:
            tell(f"{self._unheld} more reports; print without a pager to see them")
        return kind is BrokenPipeError  # the user has left the pager, and seen enough

    def write(self, batch: Batch) -> None:
        """Writes the records, one per line; a pretty record may span several lines."""
        stream = self._begin()
        if self._rendering is None:
            stream.writelines(batch.raw() if self._form == "raw" else batch.json())
            return
        render = self._rendering.render
        for name, gaps, part in batch.between_gaps():
            if self._form in _FORMS_WITH_GAPS:
                stream.writelines(f"{gap_marker(name, gone)}\n".encode() for gone in gaps)
            stream.writelines(render(rows) for rows in part.rows())

    def separate(self) -> None:
        """Writes a line between groups of records, in the forms for people."""
        if self._form in _FORMS_FOR_PEOPLE:
            self._begin().write(_SEPARATOR)

    def flush(self) -> None:
        """Flushes standard output, so that its reader sees the records now."""
        (sys.stdout.buffer if self._pager is None else self._pager.input).flush()

    def report(self, problem: Problem) -> None:
        """Prints what could not be read, and counts it if the exit status must reflect it."""
        self.problems += not problem.expected
        text = f"{'note: ' if problem.expected else ''}{problem}"
        if self._pager is None:
            tell(text)
        elif len(self._held) < _HELD_MAX:
            self._held.append(text)  # the pager has the screen
        else:
            self._unheld += 1

    def _begin(self) -> IO[bytes]:
        """Starts the pager, if there is to be one, and returns where records go."""
        if not self._is_begun and self.pager_command is not None:
            sys.stdout.flush()
            self._pager = terminal.Pager(self.pager_command)
        stream = sys.stdout.buffer if self._pager is None else self._pager.input
        if not self._is_begun and self._rendering is not None:
            stream.write(self._rendering.heading)
        self._is_begun = True
        return stream


def _form(form: str | None, template: str | None) -> str:
    if template is not None:
        if form not in (None, "template"):
            raise click.UsageError(f"--template says how records look, and so does -o {form}")
        return "template"
    if form == "template":
        raise click.UsageError("-o template needs --template TEXT, such as '{time} {message}'")
    return form or ("pretty" if terminal.is_terminal() else "json")


def _clock(form: str, columns: int | None, *, utc: bool, relative: bool, delta: bool) -> Clock:
    if form not in _FORMS_FOR_PEOPLE and (utc or relative or delta):
        raise click.UsageError(
            f"--utc, --relative and --delta are for {', '.join(_FORMS_FOR_PEOPLE)}; -o {form} has "
            "the time as it is stored, in UTC"
        )
    if relative and delta:
        raise click.UsageError("--relative and --delta are two ways to show times; choose one")
    if relative:
        return Ages(time.time)
    is_narrow = columns is not None and columns < _COLUMNS_WITH_DATE_MIN
    zone = UTC if utc else LOCAL_ZONE
    clock = WallClock(zone, time_only=delta or is_narrow or form == "short")
    return Deltas(clock) if delta else clock


def _rendering(
    form: str,
    *,
    template: str | None,
    choice: FieldChoice,
    clock: Clock,
    colours: bool,
    columns: int | None,
) -> Rendering | None:
    chooses = bool(choice.only or choice.hidden)
    if form in ("json", "raw") and not chooses:
        return None
    if form == "raw":
        raise click.UsageError(
            "-o raw prints stored lines as they are; for --fields and --hide use another"
        )
    if form == "template" and choice.only:
        raise click.UsageError("the template names the fields; omit --fields")
    # Each is imported only if it is used.
    if form == "json":
        from logengine.rendering.json_fields import JsonFields

        made: Rendering = JsonFields(choice)
    elif form == "logfmt":
        from logengine.rendering.logfmt import Logfmt

        made = Logfmt(choice)
    elif form == "csv":
        from logengine.rendering.comma_separated import CommaSeparated

        made = CommaSeparated(choice)
    elif form == "template":
        from logengine.rendering.template import Template

        try:
            made = Template(template or "", clock, choice)
        except ValueError as error:
            raise click.UsageError(f"--template: {error}") from None
    else:
        from logengine.rendering.pretty import Look, Pretty

        made = Pretty(
            Look(
                clock=clock,
                colours=colours,
                columns=columns,
                fields=choice,
                highlighted=_highlighted() if colours else None,
                is_short=form == "short",
            )
        )
    return made


def _highlighted() -> re.Pattern[str] | None:
    """Returns what `--grep` searches, to be highlighted in what is shown; None if nothing."""
    chosen = click.get_current_context().params
    patterns = chosen.get("patterns")
    if not patterns or chosen.get("invert"):
        return None
    if chosen.get("fixed"):
        patterns = [re.escape(each) for each in patterns]
    flags = re.ASCII | (re.IGNORECASE if chosen.get("ignore_case") else 0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what a pattern may mean in the future
            return re.compile("|".join(f"(?:{each})" for each in patterns), flags)
    except (re.error, OverflowError, RecursionError):
        return None  # it says something else about bytes, or several together: nothing to show
