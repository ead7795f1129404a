r"""The one definition of the JSON object that a record is, for all that write, check or read one.

A line is *admitted* as an object if every common reader reads it, and all to the same value:
valid JSON in UTF-8, nested at most `NESTING_MAX` levels, no integer of more than
`INTEGER_DIGITS_MAX` digits. Everything else is admitted as text. What is stored has no control
characters: those between tokens become spaces, DEL and U+0080 to U+009F become `\u00xx`.

A line is *stored* soundly if it is a JSON object that begins with `_ts`. This is wider than what
is admitted, because earlier versions admitted more: any nesting, any number, control characters,
half of a surrogate pair. Such a line is no damage, and readers read it. No function here depends
on how deep its caller's stack is. All take O(bytes).
"""

import re
from itertools import accumulate

import msgspec
from msgspec import Raw

from logengine.format.timestamp import TIMESTAMP_CHARACTERS, is_timestamp

# jq 1.6 stops at 256 levels, and reads nothing after that line. The record's object is one level.
NESTING_MAX = 255
# Python converts no more digits to an int, unless it is told to.
INTEGER_DIGITS_MAX = 4300
# No object of so few bytes exceeds the limits: each level in it takes two brackets.
HARMLESS_BYTES_MAX = min(len(b'{"":}') + 2 * NESTING_MAX - 1, INTEGER_DIGITS_MAX)

OPENING = b'{"_ts":"'  # of every stored line

_fields_decoder = msgspec.json.Decoder(dict[str, Raw])

_TIMESTAMP_STOP = len(OPENING) + TIMESTAMP_CHARACTERS

_DIGITS = b"0123456789"
_TO_ZERO = bytes.maketrans(_DIGITS, b"0" * len(_DIGITS))
# Every so many bytes, one is examined: of too many digits in a row, that finds so many.
_SAMPLE_BYTES = 64
_SAMPLED_ZEROS = b"0" * ((INTEGER_DIGITS_MAX + 1) // _SAMPLE_BYTES)
_NUMBER = re.compile(rb"[-+.eE0-9]++")
_OF_NUMBERS = b"-+.eE0123456789"
_NUMBERS_TO_ZERO = bytes.maketrans(_OF_NUMBERS, b"0" * len(_OF_NUMBERS))
_TOO_LONG = b"0" * (INTEGER_DIGITS_MAX + 1)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_TO_SQUARE = bytes.maketrans(b"{}", b"[]")
_STEPS = [{ord("["): 1, ord("]"): -1}.get(byte, 0) for byte in range(256)]
_EMPTIED_TIMES = 3

_TAB, _CR, _DEL, _C1_START = b"\t\r\x7f\xc2"
_TO_SPACE = bytes.maketrans(b"\t\r", b"  ")
_C1 = re.compile(rb"\xc2[\x80-\x9f]")
_C1_ESCAPES = {chr(code).encode(): b"\\u%04x" % code for code in range(0x80, 0xA0)}

_TOKEN = re.compile(
    rb"""
    [ \t\r\n]*+
    (?: (?P<string> "[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+" )
    |   (?P<scalar> -?+(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][-+]?+[0-9]++)?+
                  | true | false | null )
    |   (?P<mark> [][{},:] )
    )
    [ \t\r\n]*+
    """,
    re.VERBOSE,
)
_OPENED = {"{": "object", "[": "array"}
_CLOSING = ("}", "]")
_VALUE = {"string": "complete", "scalar": "complete", "{": "first key", "[": "first item"}
# What may come next: for each state, the tokens it allows, and the state after each.
_NEXT = {
    "start of object": {"{": "first key"},
    "start of array": {"[": "first item"},
    "first key": {"string": "colon", "}": "complete"},
    "key": {"string": "colon"},
    "colon": {":": "value"},
    "value": _VALUE,
    "first item": _VALUE | {"]": "complete"},
    "object": {",": "key", "}": "complete"},
    "array": {",": "value", "]": "complete"},
    "end": {},
}


def object_fields(text: bytes) -> dict[str, Raw] | None:
    """Returns the fields of `text` if it is admitted as an object, with nothing around it."""
    if not (text.startswith(b"{") and text.endswith(b"}")):
        return None
    try:
        text.decode()
        fields = _fields_decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return None if exceeds_limits(text) else fields


def exceeds_limits(text: bytes) -> bool:
    """Returns whether `text`, a JSON object, is nested too deep or has an integer too long."""
    if not may_exceed_limits(text):
        return False
    structure = _outside_strings(text)
    return _is_too_deep(structure) or _is_too_long(structure)


def may_exceed_limits(text: bytes) -> bool:
    """Returns False only if neither `text` nor any object in it exceeds the limits.

    Takes a small part of the time that decoding takes.
    """
    if len(text) <= HARMLESS_BYTES_MAX:
        return False
    return _count_openings(text) > NESTING_MAX or (
        len(text) > INTEGER_DIGITS_MAX
        and _SAMPLED_ZEROS in text[::_SAMPLE_BYTES].translate(_TO_ZERO)
        and _TOO_LONG in text.translate(_TO_ZERO)
    )


def _count_openings(text: bytes) -> int:
    """Returns how many opening brackets of both kinds `text` has, in strings too."""
    # `count` inspects every byte; `replace` jumps from one to the next.
    return 2 * len(text) - len(text.replace(b"{", b"")) - len(text.replace(b"[", b""))


def _outside_strings(text: bytes) -> bytes:
    """Returns valid JSON without its strings."""
    # Only strings have backslashes. Without these escapes, each quote begins or ends a string.
    plain = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(plain.split(b'"')[::2])


def _is_too_deep(structure: bytes) -> bool:
    brackets = structure.translate(_TO_SQUARE, _NO_BRACKETS)
    limit = NESTING_MAX
    # Removes the innermost level of all: most objects with many brackets are wide, not deep.
    for _ in range(_EMPTIED_TIMES):
        if len(brackets) <= 2 * limit:
            return False
        brackets = brackets.replace(b"[]", b"")
        limit -= 1
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > limit


def _is_too_long(structure: bytes) -> bool:
    # A search for so many zeros finds where the next long number begins, however many short ones
    # come before it.
    zeros = structure.translate(_NUMBERS_TO_ZERO)
    start = zeros.find(_TOO_LONG)
    while start >= 0 and (found := _NUMBER.match(structure, start)):
        number = found[0].removeprefix(b"-")
        if len(number) > INTEGER_DIGITS_MAX and number.isdigit():
            return True
        start = zeros.find(_TOO_LONG, found.end())
    return False


def has_controls(json: bytes) -> bool:
    """Returns whether `without_controls` changes `json`."""
    # A number is found much faster than bytes of length 1.
    return (
        _TAB in json
        or _CR in json
        or _DEL in json
        or (_C1_START in json and _C1.search(json) is not None)
    )


def without_controls(json: bytes) -> bytes:
    r"""Returns valid JSON with the same value, and no control character except `\n`.

    A terminal acts on these characters: a carriage return between tokens, or an escape sequence
    that begins with U+009B, could show another record than the one that is stored.
    """
    if not has_controls(json):
        return json
    json = json.translate(_TO_SPACE).replace(b"\x7f", b"\\u007f")
    # One pass for each of the 32 characters that occurs, however often it does.
    place = 0
    while found := _C1.search(json, place):
        place = found.start()
        json = json.replace(found[0], _C1_ESCAPES[found[0]])
    return json


def fault_of_line(line: bytes) -> str | None:
    """Returns why a line, without its newline, is not a stored record; None if it is one."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return f"is not JSON: {error}"
    try:
        _fields_decoder.decode(line)
    except msgspec.ValidationError:
        return "is not a JSON object"
    except (msgspec.MsgspecError, RecursionError) as error:
        if _scan(line) is None:
            return f"is not JSON: {error}"
    time = line[len(OPENING) : _TIMESTAMP_STOP].decode("ascii", "replace")
    is_opened = line.startswith(OPENING) and line.startswith(b'"', _TIMESTAMP_STOP)
    if not (is_opened and is_timestamp(time)):
        return "does not begin with the _ts of the envelope"
    return None


def stored_fields(text: bytes) -> dict[str, Raw] | None:
    """Returns the fields of any JSON object, however old, as JSON; None if `text` is not one.

    If a key occurs twice, the last one counts.
    """
    try:
        text.decode()
        return _fields_decoder.decode(text)
    except UnicodeDecodeError:
        return None
    except (msgspec.MsgspecError, RecursionError):
        return _scan(text)


def decode_string(text: bytes) -> str:
    """Returns the value of a string in JSON; half of a surrogate pair stays one."""
    try:
        return msgspec.json.decode(text, type=str)
    except msgspec.MsgspecError:
        import json

        value: str = json.loads(text.decode())
        return value


def _scan(text: bytes) -> dict[str, Raw] | None:
    """Does what `stored_fields` does, for nesting of any depth and half of a surrogate pair."""
    members = _members(text, "object")
    return None if members is None else {decode_string(name): value for name, value in members}


def stored_items(text: bytes) -> list[Raw] | None:
    """Returns the items of any JSON array in a stored object; None if `text` is not one."""
    members = _members(text, "array")
    return None if members is None else [value for _, value in members]


def _members(text: bytes, kind: str) -> list[tuple[bytes, Raw]] | None:
    """Returns the members of an object, with their names as JSON, or the items of an array."""
    members: list[tuple[bytes, Raw]] = []
    around: list[str] = []  # for each open bracket, what it opened
    name, start, place = b"", 0, 0
    state = f"start of {kind}"
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None or token.lastgroup is None:
            return None
        kind = token.lastgroup
        symbol = token[kind].decode() if kind == "mark" else kind
        if len(around) == 1 and state in ("value", "first item"):
            start = token.start(kind)
        state = _NEXT[state].get(symbol, "")
        if not state:
            return None
        if symbol in _OPENED:
            around.append(_OPENED[symbol])
        elif symbol in _CLOSING:
            around.pop()
        if len(around) == 1 and state == "colon":
            name = token[kind]
        if state == "complete":
            state = around[-1] if around else "end"
            if len(around) == 1:
                members.append((name, Raw(text[start : token.end(kind)])))
        place = token.end()
    return members if state == "end" else None
