"""The command line: one module per command, imported when the command is called."""

import errno
import importlib
import keyword
import os
import signal
import sys
from typing import Any

import click
from click.shell_completion import CompletionItem

from logengine import __version__
from logengine.cli.messages import tell
from logengine.cli.standard_descriptors import (
    check_output,
    closed_error,
    drop_output,
    open_closed,
    reader_has_left,
)
from logengine.errors import InvalidFilter, InvalidOption, InvalidStreamName, LogEngineError
from logengine.printable import escape

_COMMANDS = {
    "run": "run the daemon in the foreground",
    "send": "send lines or NDJSON to the daemon, and wait until all is on disk",
    "exec": "run a command and send its output",
    "tail": "print the last records; -f also prints new ones as they arrive",
    "cat": "print records, optionally from a cursor or a time on",
    "count": "count records, by values of fields and by time",
    "rate": "print how many records arrive, every second",
    "fields": "list the fields that records have, with types and examples",
    "patterns": "fold similar messages into patterns, with their counts",
    "query": "answer SQL about records, by DuckDB",
    "web": "serve a page with the records, for a browser on this machine",
    "ls": "list the streams with their sizes and times",
    "status": "show the daemon's health: failures, pending records, totals",
    "top": "show streams, senders and records on a live screen",
    "verify": "read and check every byte of the streams",
    "seals": "print the newest seal of each stream, to be kept elsewhere",
    "repair": "move damaged files aside and record which records are gone",
    "erase": "permanently replace records with tombstones",
    "backup": "copy the data directory, consistently, while the daemon runs",
    "export": "write records to a file: NDJSON, also compressed, CSV or Parquet",
    "import": "send other programs' logs, and wait until all is on disk",
    "retain": "remove segments past their retention, while the daemon is stopped",
    "keygen": "generate a key that signs sealed segments",
    "config": "check and show the configuration",
    "completion": "print the script for completion in bash, zsh or fish",
}
_WITHOUT_OUTPUT = {"run", "send", "exec", "import", "export"}  # or only with some options
_COMPLETION_VARIABLE = "_LOGENGINE_COMPLETE"  # click derives it from the name of the program
_EXIT_USAGE = 2  # as click's own
_EXIT_INTERRUPTED = 128 + 2
# A record may be nested nearly as deep as Python's default limit, and readers have more frames on
# the stack than the code that accepted it.
_RECURSION_LIMIT = 5000


class _OutputClosed(Exception):
    """The reader of our output has closed it, as `head` does."""


class _Commands(click.Group):
    """Imports only the module of the command that is called: `tail` does not import the daemon."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        name = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        module = importlib.import_module(f"logengine.cli.{name}")
        command: click.Command = module.command
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # click's own imports every command.
        return [
            *(
                CompletionItem(name, help=text)
                for name, text in _COMMANDS.items()
                if name.startswith(incomplete)
            ),
            *click.Command.shell_complete(self, ctx, incomplete),
        ]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if name not in _WITHOUT_OUTPUT:
            check_output(ctx.obj or {})  # before it changes anything
        return name, command, rest

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _ignore_what_is_cut_off()
            # On a terminal, click ends the line that shows ^C. A file should get nothing.
            if sys.stderr.isatty():
                raise
            raise click.Abort from None
        except BrokenPipeError:
            if not reader_has_left():
                raise
            raise _OutputClosed from None  # click would exit with 1

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  logengine run --data ./data --socket ./socket
  echo '{"event":"hello"}' | logengine send --socket ./socket
  logengine tail -f --data ./data

\b
Shell completion, for bash (also zsh, fish):
  eval "$(logengine completion bash)"
""",
)
@click.version_option(__version__, prog_name="logengine")
def cli() -> None:
    """A log-writing daemon that never loses an acknowledged record, and its tools."""


def main(arguments: list[str] | None = None) -> Any:
    """Runs the command line and exits with the command's status. Prints an error as one line."""
    # `__main__` sets this, so that no traceback is printed while nothing handles a ^C.
    ends_at_once = signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    try:
        if _COMPLETION_VARIABLE in os.environ:
            from logengine.cli.shell_completion import register

            register()
        if ends_at_once:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        status = _run(arguments)
    except KeyboardInterrupt:
        status = _EXIT_INTERRUPTED
    if ends_at_once:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if status == _EXIT_INTERRUPTED:
        drop_output()  # the reader may have ended by the same ^C
    sys.exit(status)


def _ignore_what_is_cut_off() -> None:
    """Prints nothing about objects that a further ^C kept from being closed: the process ends."""
    sys.unraisablehook = lambda _: None


def _run(arguments: list[str] | None) -> Any:
    sys.setrecursionlimit(_RECURSION_LIMIT)
    closed: dict[int, str] = {}
    status: Any
    try:
        closed = open_closed()
        status = cli.main(arguments, prog_name="logengine", standalone_mode=False, obj=closed)
        sys.stdout.flush()
    except click.ClickException as error:
        # It quotes arguments, which may be names of other people's files.
        message = escape(error.format_message())
        error.format_message = lambda: message  # type: ignore[method-assign]
        error.show()
        status = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _ignore_what_is_cut_off()
        status = _EXIT_INTERRUPTED
    except (_OutputClosed, BrokenPipeError):
        drop_output()
        status = 0
    except InvalidFilter as error:
        first, *more = error.lines()
        tell(first)
        for line in more:
            click.echo(line, err=True)
        status = _EXIT_USAGE
    except (InvalidOption, InvalidStreamName) as error:
        tell(str(error))
        status = _EXIT_USAGE
    except LogEngineError as error:
        tell(str(error))
        status = 1
    except OSError as error:
        if error.errno == errno.EBADF and closed:
            tell(str(closed_error(list(closed.values()))))
        else:
            what = f"{os.fsdecode(error.filename)}: " if error.filename else ""
            tell(f"{what}{error.strerror or error}")
        drop_output()
        status = 1
    return status
