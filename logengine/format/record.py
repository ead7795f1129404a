"""Records: one JSON object per line, starting with the engine's envelope.

A sender's line becomes a stored line by inserting the envelope (`_ts`, `_pid`, …) before its
first key; the sender's own bytes stay as they are, except for control characters. A line that is
not admitted as a JSON object is stored as `{"message": "<the line>"}`; `json_object` defines what
is. `stamp` does this for a chunk of lines. It has fast paths for chunks that are plainly NDJSON, or
plainly text, and an exact path for everything else; all produce the same bytes.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, NoReturn

import msgspec
from msgspec import UNSET, Raw, UnsetType

from logengine.format.json_object import (
    HARMLESS_BYTES_MAX,
    OPENING,
    exceeds_limits,
    has_controls,
    may_exceed_limits,
    object_fields,
    without_controls,
)

# Set by the engine, never by a sender. `_erased` replaces the content of an erased record;
# `_stream`, `_seq` and `_gaps` are added on output only.
ENVELOPE_NAMES = (
    *("_ts", "_pid", "_uid", "_gid", "_comm", "_unit", "_user_unit", "_addr", "_file"),
    "_erased",
    *("_stream", "_seq", "_gaps"),
)

# The fields that a record may have its message in; the first that it has counts.
MESSAGE_FIELDS = ("event", "message", "msg")
BLANK = b" \t\r"  # a line of nothing else is not a record
# The top two bits of a UTF-8 character's first byte, and of the up to three bytes after it.
_CHARACTER_BITS = 0b11
_CONTINUATION_BITS = 0b10
_CONTINUATION_BYTES_MAX = 3
# All bytes with which no character of several bytes begins (Unicode 15.0, table 3-7).
_NO_FIRST_BYTES = bytes(set(range(256)) - set(range(0xC2, 0xF5)))
TIMESTAMP_START = len(OPENING)
# Ordinary lines of so many bytes together have fewer brackets than one that is nested too deep.
_PIECE_BYTES = 16 * 1024
_PERHAPS_OBJECT = re.compile(rb"(?:\A|\n)[ \t\r]*\{")
# The exact path takes longer for each line, and less for each byte of it.
_SHORT_LINE_BYTES = 64
_BLANK_LINE = re.compile(rb"(?m:^)[ \t\r]*\n")
_EMPTY_OBJECT = re.compile(rb"(?m:^)\{\}\n")
# An object with one key, of a byte that UTF-8 does not have, in place of an empty one.
_MARKED_OBJECT = b'{"\xff}\n'


class _Refused:
    """A type that no value has."""


def _refuse(_type: type, _value: object) -> NoReturn:
    raise ValueError("a name of the engine's")


# Refuses an object that has one of the engine's keys, however escaped. The default is UNSET and
# not None, because a sender may well write `"_pid":null`.
_foreign_decoder = msgspec.json.Decoder(
    msgspec.defstruct(
        "_Foreign",
        [
            (name.lstrip("_"), _Refused | UnsetType, msgspec.field(default=UNSET, name=name))
            for name in ENVELOPE_NAMES
        ],
        frozen=True,
        gc=False,
    ),
    dec_hook=_refuse,
)

_ABSENT = Raw(b"")
# Finds those of the engine's names that an object has. Of an object with 100,000 keys that takes a
# tenth of the time of decoding them all.
_names_decoder = msgspec.json.Decoder(
    msgspec.defstruct(
        "_Names",
        [
            (name.lstrip("_"), Raw, msgspec.field(default=_ABSENT, name=name))
            for name in ENVELOPE_NAMES
        ],
        frozen=True,
        gc=False,
    )
)
# An escaped letter or underscore: no other escape can be part of one of the engine's names.
_ESCAPED_ASCII = b"\\u00"


class Peer(msgspec.Struct, frozen=True):
    """The sending process, as the kernel reports it; None for what the kernel does not know.

    `file` is the path of a followed file, which no process is known for.
    """

    pid: int | None = None
    uid: int | None = None
    gid: int | None = None
    comm: str | None = None
    unit: str | None = None
    user_unit: str | None = None
    address: str | None = None  # of a sender that is not on this host
    file: str | None = None


class Stamped(NamedTuple):
    """Concatenated stored lines, each with its newline, and their number."""

    body: bytes
    records: int


def envelope(timestamp: str, peer_fields: bytes) -> bytes:
    """Returns the start of a stored record: an open object, such as `{"_ts":"…","_pid":1`."""
    return b'%s%s"%s' % (OPENING, timestamp.encode(), peer_fields)


def peer_fields(peer: Peer) -> bytes:
    """Returns the part of the envelope that is the same for a whole connection."""
    known = {
        "_pid": peer.pid,
        "_uid": peer.uid,
        "_gid": peer.gid,
        "_comm": peer.comm,
        "_unit": peer.unit,
        "_user_unit": peer.user_unit,
        "_addr": peer.address,
        "_file": peer.file,
    }
    fields = {name: value for name, value in known.items() if value is not None}
    # A process chooses its own name, and that of a file, and may put control characters into it.
    return b"," + without_controls(msgspec.json.encode(fields))[1:-1] if fields else b""


def stamp(chunk: bytes, opening: bytes) -> Stamped:
    """Returns the stored lines for `chunk`: complete lines of one sender, each with its newline.

    `opening` comes from `envelope`. Blank lines are dropped. Never raises: every line that is
    not blank becomes exactly one stored line. O(bytes of the chunk).
    """
    is_one_line = chunk.find(b"\n") == len(chunk) - 1
    return (
        (_stamp_one if is_one_line else _stamp_fast)(chunk, opening)
        or _stamp_messages(chunk, opening)
        or stamp_exactly(chunk, opening)
    )


def _stamp_fast(chunk: bytes, opening: bytes) -> Stamped | None:
    r"""Does the same as `stamp_exactly` without splitting lines; None if that cannot be proven.

    Together, the conditions prove that each part between two `}\n{"` is the inside of one JSON
    object that has at least one key, and none of the engine's: if parts, newlines and objects are
    equal in number, a line that begins with `{"` and ends with `}` is neither half an object nor
    two. No condition exists for speed alone; without any one of them a wrong chunk is accepted.

    Lines of `{}` are marked, so that each line has a key; the marks are removed at the end.
    """
    if not (chunk.startswith((b'{"', b"{}")) and chunk.endswith(b"}\n")):
        return None
    # From the end: it searches for the rarer end of the separator, in half the time.
    parts = chunk.rsplit(b'}\n{"')
    # `count` inspects every byte; `replace` jumps from newline to newline.
    count = len(chunk) - len(chunk.replace(b"\n", b""))
    marked = chunk
    if len(parts) != count or chunk.startswith(b"{}"):
        # Only here, since a search for empty objects takes a third of the time of all else.
        marked = _EMPTY_OBJECT.sub(_MARKED_OBJECT, chunk)
        parts = marked.rsplit(b'}\n{"')
        if len(parts) != count or marked.startswith(b"{}"):
            return None
    try:
        if not chunk.isascii():
            chunk.decode()
        if len(_foreign_decoder.decode_lines(chunk)) != count:
            return None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if (
        len(chunk) > HARMLESS_BYTES_MAX
        and max(map(len, parts)) + len(b'{"}') > HARMLESS_BYTES_MAX
        and _exceed_limits(chunk)
    ):
        return None
    if has_controls(chunk):
        parts = without_controls(marked).rsplit(b'}\n{"')
    prefix = opening + b',"'
    parts[0] = prefix + parts[0][2:]
    body = (b"}\n" + prefix).join(parts)
    return Stamped(body if marked is chunk else body.replace(b',"\xff}', b"}"), count)


def _stamp_one(line: bytes, opening: bytes) -> Stamped | None:
    """Does the same as `_stamp_fast` for one line, as a sender at its own pace writes it."""
    if line == b"{}\n":
        return Stamped(opening + line[1:], 1)
    if not (line.startswith(b'{"') and line.endswith(b"}\n")):
        return None
    try:
        if not line.isascii():
            line.decode()
        _foreign_decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if exceeds_limits(line):
        return None
    return Stamped(b"%s,%s" % (opening, without_controls(line[1:])), 1)


def _exceed_limits(chunk: bytes) -> bool:
    """Returns whether one of the objects in lines of `chunk` exceeds the limits.

    Examines single lines only in pieces of the chunk that leave a doubt.
    """
    start = 0
    while start < len(chunk):
        stop = chunk.find(b"\n", start + _PIECE_BYTES) + 1 or len(chunk)
        piece = chunk[start:stop]
        if may_exceed_limits(piece) and any(map(exceeds_limits, piece.split(b"\n"))):
            return True
        start = stop
    return False


def _stamp_messages(chunk: bytes, opening: bytes) -> Stamped | None:
    r"""Does the same as `stamp_exactly` for short lines of text; None if it may have an object.

    All messages are encoded as one string, and `\n` in that string becomes the end of one record
    and the beginning of the next. For that, the backslashes that are content are set aside as 0xff,
    a byte that UTF-8 does not have.
    """
    if len(chunk) > _SHORT_LINE_BYTES * chunk.count(b"\n") or _PERHAPS_OBJECT.search(chunk):
        return None
    lines = chunk
    while b"\n\n" in lines:  # leaves half of many empty lines each time, and fewer to the pattern
        lines = lines.replace(b"\n\n", b"\n")
    lines = _BLANK_LINE.sub(b"", lines)
    count = lines.count(b"\n")
    if not count:
        return Stamped(b"", 0)
    beginning = opening + b',"message":"'
    encoded = msgspec.json.encode(readable_text(lines)).replace(rb"\\", b"\xff")
    body = encoded.replace(rb"\r\n", rb"\n").replace(rb"\n", b'"}\n' + beginning)
    # The string was quoted, and a beginning too many follows the last newline.
    body = beginning + body[1 : -len(beginning) - 1].replace(b"\xff", rb"\\")
    return Stamped(without_controls(body), count)


def stamp_exactly(chunk: bytes, opening: bytes) -> Stamped:
    """Does what `stamp` does, line by line: the reference for the fast path."""
    stamped = [_stamp_line(line, opening) for line in split_lines(chunk)]
    return Stamped(b"".join(stamped), len(stamped))


def split_lines(chunk: bytes) -> Iterator[bytes]:
    """Yields the lines of `chunk` that are not blank, without their newlines."""
    return (line for line in chunk.split(b"\n") if line.strip(BLANK))


def count_lines(chunk: bytes) -> int:
    """Returns how many lines of `chunk` are not blank, and so how many record numbers it uses."""
    return sum(1 for _ in split_lines(chunk))


def _stamp_line(line: bytes, opening: bytes) -> bytes:
    inside = _inside_of_object(line.strip(BLANK))
    if inside is None:
        message = msgspec.json.encode(readable_text(line.removesuffix(b"\r")))
        return b'%s,"message":%s}\n' % (opening, without_controls(message))
    return b"%s,%s}\n" % (opening, without_controls(inside)) if inside else b"%s}\n" % opening


def readable_text(text: bytes) -> str:
    r"""Returns `text` with each byte that is not UTF-8 as `\xff`, readable and without loss.

    Equals `text.decode("utf-8", "backslashreplace")`, which takes ten times as long.
    """
    try:
        return text.decode()
    except UnicodeDecodeError:
        pass
    if not text.translate(None, _NO_FIRST_BYTES):  # it has no character of several bytes
        return _readable_bytes(text)
    escaped = text.decode("utf-8", "surrogateescape")
    if len(escaped) == len(text):  # nor has this
        return _readable_bytes(text)
    # The codec writes `\udcff` for such a byte. A `Z` marks those that are part of the text.
    marked = escaped.replace(r"\udc", r"\udcZ")
    encoded = marked.encode("utf-8", "backslashreplace")
    if len(marked) == len(escaped):
        return encoded.replace(rb"\udc", rb"\x").decode()
    for digit in b"89abcdef":
        encoded = encoded.replace(rb"\udc%c" % digit, rb"\x%c" % digit)
    return encoded.replace(rb"\udcZ", rb"\udc").decode()


def _readable_bytes(text: bytes) -> str:
    """Does what `readable_text` does for text without a character of several bytes."""
    return text.decode("latin-1").encode("ascii", "backslashreplace").decode("ascii")


def _inside_of_object(text: bytes) -> bytes | None:
    """Returns what is between the braces of the JSON object `text`, or None if it is not one."""
    if not (text.startswith(b"{") and text.endswith(b"}")):
        return None
    try:
        text.decode()
        found = msgspec.structs.astuple(_names_decoder.decode(text))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if exceeds_limits(text):
        return None
    names = [name for name, value in zip(ENVELOPE_NAMES, found, strict=True) if value != _ABSENT]
    if names:
        renamed = _renamed_in_place(text, names)
        if renamed is None:
            fields = object_fields(text)
            return None if fields is None else _with_renamed_keys(fields)
        text = renamed
    inside = text[1:-1]
    return b"" if inside.isspace() else inside


def _renamed_in_place(text: bytes, names: Sequence[str]) -> bytes | None:
    """Returns an object with another `_` before the keys `names`, each of which it has.

    Returns None if it may have one of them twice, or a key of the new name: all keys count then.
    """
    if _ESCAPED_ASCII in text:
        return None
    for name in names:
        key, free = b'"%s"' % name.encode(), b'"_%s"' % name.encode()
        if text.count(key) > 1 or free in text:
            return None
        text = text.replace(key, free)
    return text


def _with_renamed_keys(fields: Mapping[str, Raw]) -> bytes:
    """Returns the inside of an object, with another `_` before keys that are the engine's names.

    The object is encoded again: if a key occurs twice, its last value is kept.
    """
    free_names: dict[str, str] = {}
    for name in ENVELOPE_NAMES:
        if name in fields:
            free = f"_{name}"
            # The sender may use that name too; neither value may be lost.
            while free in fields:
                free = f"_{free}"
            free_names[name] = free
    names = list(fields)
    for name, free in free_names.items():
        names[names.index(name)] = free
    return msgspec.json.encode(dict(zip(names, fields.values(), strict=True)))[1:-1]


def between_characters(text: bytes, stop: int) -> int:
    """Returns where to cut UTF-8 `text`: at `stop`, or just before the character it would split."""
    first = stop
    lowest = max(0, stop - _CONTINUATION_BYTES_MAX)
    while first > lowest and text[first] >> 6 == _CONTINUATION_BITS:
        first -= 1
    return first if 0 < first < stop and text[first] >> 6 == _CHARACTER_BITS else stop
