"""Writes records to standard output, for people and for programs: pretty, json, raw."""

import sys
from collections.abc import Callable
from typing import Any

import click
import msgspec

from logengine.cli.gap_marker import gap_marker
from logengine.cli.messages import tell
from logengine.format.block import Record
from logengine.format.json_object import decode_string, stored_fields
from logengine.format.record import ENVELOPE_NAMES
from logengine.printable import escape
from logengine.reading import Batch, Problem

_EVENT_KEYS = ("event", "message", "msg")
_SHOWN_LAST = ("exception", "stack")
# structlog's renderer gives these keys a meaning of their own.
_RENDERED_APART = {"exc_info", "exception", "level", "logger_name", "stack"}


def format_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--format`, whose default depends on where the output goes."""
    return click.option(
        "--format",
        "form",
        type=click.Choice(["pretty", "json", "raw"]),
        default=lambda: "pretty" if sys.stdout.isatty() else "json",
        show_default="pretty on a terminal, else json",
        help="pretty: for people. json: the record with _stream and _seq added. raw: the stored "
        "line, unchanged.",
    )(command)


class Output:
    """Writes records to standard output and problems to standard error."""

    def __init__(self, form: str) -> None:
        self._form = form
        self._pretty = _pretty_renderer() if form == "pretty" else None
        self.problems = 0

    def write(self, batch: Batch) -> None:
        """Writes the records, one per line; a pretty record may span several lines."""
        match self._form:
            case "raw":
                sys.stdout.buffer.writelines(batch.raw())
            case "json":
                sys.stdout.buffer.writelines(batch.json())
            case _:
                assert self._pretty is not None
                for stream, gaps, part in batch.between_gaps():
                    for gone in gaps:
                        sys.stdout.buffer.write(f"{gap_marker(stream, gone)}\n".encode())
                    sys.stdout.buffer.write(b"".join([self._pretty(each) + b"\n" for each in part]))

    def flush(self) -> None:
        """Flushes standard output, so that its reader sees the records now."""
        sys.stdout.buffer.flush()

    def report(self, problem: Problem) -> None:
        """Prints what could not be read, and counts it if the exit status must reflect it."""
        self.problems += not problem.expected
        prefix = "note: " if problem.expected else ""
        tell(f"{prefix}{problem}")


def _pretty_renderer() -> Callable[[Record], bytes]:
    import os

    import structlog

    colors = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    console = structlog.dev.ConsoleRenderer(
        colors=colors, sort_keys=False, exception_formatter=structlog.dev.plain_traceback
    )

    def render(record: Record) -> bytes:
        # Values stay undecoded, as sent: Python cannot represent every JSON number.
        fields = stored_fields(record.line)
        assert fields is not None
        last = [
            f"\n    {name}: {_indented(_text(fields.pop(name)))}"
            for name in _SHOWN_LAST
            if name in fields
        ]
        text = str(console(None, "", _event_dict(record, fields)))
        return "".join([text, *last]).encode("utf-8", "backslashreplace")

    return render


def _event_dict(record: Record, fields: dict[str, msgspec.Raw]) -> dict[str, Any]:
    """Returns the fields for structlog's renderer: time, level, event and sender first."""
    event_key = next((key for key in _EVENT_KEYS if key in fields), None)
    event = _text(fields.pop(event_key)) if event_key else ""
    shown: dict[str, Any] = {"timestamp": record.timestamp, "event": _indented(event)}
    if bytes(fields.get("level", b"")).startswith(b'"'):
        shown["level"] = escape(_text(fields.pop("level")))
    comm, pid = (_text(fields[name]) if name in fields else "?" for name in ("_comm", "_pid"))
    shown["logger"] = escape(f"{record.stream}:{record.seq} {comm}[{pid}]")
    for name, value in fields.items():
        if name in ENVELOPE_NAMES and name != "_erased":
            continue
        # A field must not replace one to which the renderer gives a meaning of its own.
        key = escape(name)
        while key in shown or key in _RENDERED_APART:
            key += "_"
        shown[key] = escape(_text(value))
    return shown


def _text(value: msgspec.Raw) -> str:
    text = bytes(value)
    return decode_string(text) if text.startswith(b'"') else text.decode()


def _indented(text: str) -> str:
    """Returns `text` with later lines indented, so that none looks like the start of a record."""
    return "\n    ".join(escape(line) for line in text.split("\n"))
