"""One record from the arguments of a command, as in `logengine send 'a message' level=warning`."""

import os
import re
from collections.abc import Sequence

import click
import msgspec

from logengine.exchange.line_fields import plain_value
from logengine.format.record import readable_text

_FIELD = re.compile(r"(?P<key>[^\s=]+)=(?P<value>.*)", re.DOTALL)
_WHITE_SPACE = re.compile(r"\s")


def is_message(arguments: Sequence[str]) -> bool:
    """Whether these are a message and its fields, and not names of files.

    A single word is the name of a file, so that a mistyped name is not stored as a message.
    """
    if not arguments or any(each == "-" or os.path.lexists(each) for each in arguments):
        return False
    first, *rest = arguments
    if _WHITE_SPACE.search(first):
        return True
    return bool(rest) and all(_FIELD.fullmatch(each) for each in rest)


def message_record(text: str, fields: Sequence[str]) -> bytes:
    """Returns the record as a line, with `message` after the fields.

    Raises `click.UsageError` if a field is not KEY=VALUE, or a key occurs twice.
    """
    record: dict[str, str | int | float | bool] = {}
    for field in map(_readable, fields):
        found = _FIELD.fullmatch(field)
        if found is None:
            raise click.UsageError(
                f"{field!r} after a message; expected KEY=VALUE. Quote a message of several words."
            )
        if found["key"] in record or found["key"] == "message":
            raise click.UsageError(f"{found['key']} has two values; a record has one for each key")
        record[found["key"]] = plain_value(found["value"])
    record["message"] = _readable(text)
    return msgspec.json.encode(record) + b"\n"


def _readable(argument: str) -> str:
    return readable_text(os.fsencode(argument))
