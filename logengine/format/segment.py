"""A segment: an immutable file of consecutive records of one stream.

    00000000000000000001.ndjson          the name is the first sequence number
    {"_segment":1,"stream":"app",...}    the first line is the header
    {"_ts":"…",…}                        every other line is one record

`docs/format.md` is the specification. This module knows names and bytes, no files; what
a compressed segment is made of besides, `compression` knows.
"""

import hashlib
import re
from collections.abc import Callable

import msgspec
from msgspec import UNSET, UnsetType

from logengine.errors import DamagedSegment
from logengine.format.record import TIMESTAMP_START
from logengine.format.timestamp import TIMESTAMP_CHARACTERS, is_timestamp

FORMAT_VERSION = 1
SEGMENT_SUFFIX = ".ndjson"
COMPRESSED_SUFFIX = ".ndjson.zst"
# Enough for the header of a stream without producers, and for a few; see `header_length`.
HEADER_READ_BYTES = 4096
# What zstd can make of a byte: a block of 4 bytes gives at most 128 KiB.
_EXPANSION_MAX = 32 * 1024
STREAM_NAME_RULE = "[a-z0-9][a-z0-9._-]{0,63}"

# More than this is no name that a writer gave, and no number that a header can tell.
_SEQ_MAX = 2**63 - 1

_STREAM_NAME = re.compile(STREAM_NAME_RULE)
_SEGMENT_NAME = re.compile(r"(\d{20})\.ndjson(?:\.zst)?")


# What signs bytes, in hexadecimal.
Sign = Callable[[bytes], str]


class Frame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A part of a compressed body: `count` records, `body_bytes` in `stored_bytes` of the file."""

    stored_bytes: int
    body_bytes: int
    count: int


class IndexEntry(msgspec.Struct, frozen=True, array_like=True):
    """What a frame holds: records from `since` to `until`, the least and greatest `_ts`.

    `sha256` is the hexadecimal hash of its bytes in the file.
    """

    since: str
    until: str
    sha256: str


class Earlier(msgspec.Struct, frozen=True, kw_only=True):
    """What a seal knows of the `seals` sealed segments before it, of which the oldest is `first`.

    No record from there up to the seal itself is of before `since`.
    """

    first: int
    since: str
    seals: int


class UserBytes(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Bytes of one user's stored lines: in the stream before a segment, and its own."""

    before: int
    own: int


class Gap(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a segment without records says of records that are gone, up to number `last`.

    `when` it was recorded, and `why` they are gone. `guessed`: nobody can tell whether all
    of these numbers were given out.
    """

    last: int
    when: str
    why: str
    guessed: bool = False


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """What a compressed segment says after `count` of its records were replaced by tombstones.

    `original` is the `header_sha256` it had before the first of them.
    """

    original: str
    count: int


class Restored(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a sealed segment says that a repair wrote: `when`, and `why` it was needed.

    `header` is the line, without its newline, of the seal of which this one has the records, or
    some of them. Without it nothing is known of a seal that had them.
    """

    when: str
    why: str
    header: str = ""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a segment.

    `count` records of `bytes` bytes in all begin at sequence number `first`. `since` and
    `until` are the least and greatest `_ts` in it, `latest` the greatest in the stream up
    to its end. `sha256` is the hexadecimal hash of the body. `producers` holds, for each
    producer, the number of its last record in this segment or before it, the least
    recently active first; `users`, where they are counted, the bytes of each user likewise.
    `gap` is in the place of records that are gone, and only there;
    `erased` is in a compressed one of which some were erased, `restored` in a sealed one that a
    repair wrote. `frames` says where in a
    compressed segment what is, and `index` what is in each of them; a plain one has neither.
    A sealed one has `prev`, the `header_sha256` that the sealed segment before it had, empty in
    a stream's first; it may have `earlier`, by which a reader of old records finds them without
    looking at each seal behind them, and a `signature` of all that is before that key. The line
    ends with a hash of what is before it, `header_sha256`, which is none of the header's values.
    """

    version: int = msgspec.field(name="_segment")
    stream: str
    first: int
    count: int
    bytes: int
    since: str
    until: str
    latest: str
    sha256: str
    producers: dict[str, int] = {}
    users: dict[int, UserBytes] | UnsetType = UNSET
    gap: Gap | UnsetType = UNSET
    erased: Erased | UnsetType = UNSET
    restored: Restored | UnsetType = UNSET
    frames: tuple[Frame, ...] | UnsetType = UNSET
    index: tuple[IndexEntry, ...] | UnsetType = UNSET
    prev: str | UnsetType = UNSET
    earlier: Earlier | UnsetType = UNSET
    signature: str | UnsetType = UNSET

    @property
    def last(self) -> int:
        """The last sequence number that it accounts for; `first` - 1 where there is none."""
        return self.first + self.count - 1 if self.gap is UNSET else self.gap.last

    @property
    def is_compressed(self) -> bool:
        """Whether the file holds the body in zstd frames."""
        return self.frames is not UNSET

    @property
    def is_sealed(self) -> bool:
        """Whether the segment is a link of the stream's chain of seals."""
        return self.prev is not UNSET

    @property
    def file_name(self) -> str:
        """The name of the file whose header this is."""
        return segment_name(self.first, compressed=self.is_compressed)

    @property
    def stored_bytes(self) -> int:
        """How many bytes of the file are behind the header."""
        if self.frames is UNSET:
            return self.bytes
        return sum(frame.stored_bytes for frame in self.frames)


_HEADER_SHA256 = b',"header_sha256":"'
_SIGNATURE = b',"signature":"'


class _BareHeader(Header, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A header without `header_sha256`, as a writer of the first days or a hand left it.

    In it no other unknown key is taken either: that may be `header_sha256`, damaged.
    """


_header_decoder = msgspec.json.Decoder(Header)
_bare_header_decoder = msgspec.json.Decoder(_BareHeader)


def is_stream_name(name: str) -> bool:
    """Whether `name` may be a stream, and so a directory: no such name leaves its parent."""
    return _STREAM_NAME.fullmatch(name) is not None


def segment_name(first: int, *, compressed: bool = False) -> str:
    """The file name of the segment whose first sequence number is `first`."""
    return f"{first:020d}{COMPRESSED_SUFFIX if compressed else SEGMENT_SUFFIX}"


def first_of_name(name: str) -> int | None:
    """The first sequence number that a file name tells, or None if it names no segment."""
    match = _SEGMENT_NAME.fullmatch(name)
    return int(match[1]) if match and 0 < int(match[1]) <= _SEQ_MAX else None


def encode_header(header: Header) -> bytes:
    """The header's line, with its newline and the hash that shows any flipped bit of it."""
    checked = msgspec.json.encode(header)[:-1]
    digest = hashlib.sha256(checked).hexdigest().encode()
    return b'%s%s%s"}\n' % (checked, _HEADER_SHA256, digest)


def header_sha256(line: bytes) -> str:
    """What the last key of a header's line says, or would say."""
    return hashlib.sha256(line.rpartition(_HEADER_SHA256)[0]).hexdigest()


def hash_for_successor(header: Header, line: bytes) -> str:
    """What the seal behind the one with this header, and its line, has as `prev`.

    That is what the header's hash was when it was sealed, whatever was erased or repaired since.
    """
    header, line = original_of(header) or (header, line)
    return header_sha256(line) if header.erased is UNSET else header.erased.original


def original_of(header: Header) -> tuple[Header, bytes] | None:
    """The header of the seal that a restored segment is of, or was, and its line; else None."""
    restored = header.restored
    if restored is UNSET or not restored.header:
        return None
    line = restored.header.encode()
    return _header_decoder.decode(line), line


def signed_part(line: bytes) -> bytes:
    """What a signature in a header's line is of, or would be: all that is before that key."""
    checked = line.rpartition(_HEADER_SHA256)[0]
    before, is_signed, _ = checked.rpartition(_SIGNATURE)
    return before if is_signed else checked


def signed(header: Header, sign: Sign) -> Header:
    """The same header, signed."""
    unsigned = msgspec.structs.replace(header, signature=UNSET)
    return msgspec.structs.replace(header, signature=sign(signed_part(encode_header(unsigned))))


def body_sha256(body: bytes) -> str:
    """What a header says of a body: `sha256`."""
    return hashlib.sha256(body).hexdigest()


def header_length(start: bytes) -> int | None:
    """How many bytes of a file that begins with `start` are its header line, if `start` tells."""
    return start.find(b"\n") + 1 or None


def decode_header(line: bytes, path: str) -> Header:
    """The header in a segment's first line, with or without its newline.

    Raises `DamagedSegment` for `path` if it is not a header of a known version that can
    be true. Unknown keys of a header that is hashed are ignored, so that older readers
    read newer files.
    """
    checked, is_hashed, hash_and_end = line.rpartition(_HEADER_SHA256)
    if is_hashed:
        digest = hashlib.sha256(checked).hexdigest().encode()
        if hash_and_end.removesuffix(b"\n") != digest + b'"}':
            raise DamagedSegment(path, "the sha256 of its header is not the one at its end")
    try:
        header = (_header_decoder if is_hashed else _bare_header_decoder).decode(line)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DamagedSegment(path, f"its first line is no segment header: {error}") from None
    except UnicodeDecodeError:
        raise DamagedSegment(path, "its first line is no segment header: not UTF-8") from None
    if header.version != FORMAT_VERSION:
        raise DamagedSegment(
            path,
            f"segment format {header.version}, expected {FORMAT_VERSION}: of a newer logengine?",
        )
    if not is_stream_name(header.stream):
        raise DamagedSegment(path, f"its header names an invalid stream {header.stream!r}")
    if header.first < 1 or min(header.count, header.bytes, _least_of_users(header)) < 0:
        raise DamagedSegment(path, "its header has a number that is out of range")
    times = (header.since, header.until, header.latest)
    if not all(map(is_timestamp, times)) or not header.since <= header.until <= header.latest:
        raise DamagedSegment(path, "its header has times that cannot be")
    _check_gap(header, path)
    if header.frames is not UNSET:
        _check_frames(header, header.frames, path)
    _check_index(header, path)
    _check_seal(header, path)
    _check_restored(header, path)
    return header


def _least_of_users(header: Header) -> int:
    """The least number of bytes that it says of a user; 0 if it speaks of none."""
    users = header.users or {}
    return min((min(each.before, each.own) for each in users.values()), default=0)


def _check_seal(header: Header, path: str) -> None:
    is_signed = header.signature is not UNSET
    if (header.is_sealed and not header.is_compressed) or (is_signed and not header.is_sealed):
        raise DamagedSegment(path, "its header has a seal that cannot be")
    earlier = header.earlier
    if earlier is not UNSET and not (
        header.is_sealed
        and 1 <= earlier.first < header.first
        and earlier.seals >= 1
        and is_timestamp(earlier.since)
    ):
        raise DamagedSegment(path, "its header tells of earlier seals that cannot be")


def _check_restored(header: Header, path: str) -> None:
    """Raises `DamagedSegment` unless what it says of its restoring, if anything, can be."""
    restored = header.restored
    if restored is UNSET:
        return
    is_possible = header.is_sealed and is_timestamp(restored.when)
    if is_possible and restored.header:
        line = restored.header.encode()
        original = decode_header(line, path)
        is_possible = (
            _HEADER_SHA256 in line
            and original.restored is UNSET
            and (original.stream, original.prev) == (header.stream, header.prev)
            and original.first <= header.first <= header.last <= original.last
        )
    if not is_possible:
        raise DamagedSegment(path, "its header says that it was restored of what cannot be")


def _check_gap(header: Header, path: str) -> None:
    """Raises `DamagedSegment` unless the gap, if there is one, can be."""
    gap = header.gap
    if gap is UNSET:
        return
    is_empty = (header.count, header.bytes) == (0, 0) and header.frames is UNSET
    if not is_empty or gap.last < header.first or not is_timestamp(gap.when):
        raise DamagedSegment(path, "its header has a gap that cannot be")


def _check_frames(header: Header, frames: tuple[Frame, ...], path: str) -> None:
    """Raises `DamagedSegment` unless the frames can be, and are together what the header says.

    So nobody allocates for a body what no file of this size can hold.
    """
    for frame in frames:
        if (
            min(frame.stored_bytes, frame.body_bytes, frame.count) < 1
            or frame.body_bytes > frame.stored_bytes * _EXPANSION_MAX
        ):
            raise DamagedSegment(path, "its header has a frame that cannot be")
    if (header.bytes, header.count) != (
        sum(frame.body_bytes for frame in frames),
        sum(frame.count for frame in frames),
    ):
        raise DamagedSegment(path, "the frames in its header do not add up to its body")


def _check_index(header: Header, path: str) -> None:
    """Raises `DamagedSegment` unless the index, if there is one, is of the header's frames."""
    index = header.index
    if index is UNSET:
        return
    if header.frames is UNSET or len(index) != len(header.frames):
        raise DamagedSegment(path, "its header has an index that is not of its frames")
    for entry in index:
        if not (is_timestamp(entry.since) and is_timestamp(entry.until)):
            raise DamagedSegment(path, "its header has an index with times that cannot be")
    if index and (header.since, header.until) != (
        min(entry.since for entry in index),
        max(entry.until for entry in index),
    ):
        raise DamagedSegment(path, "the times in its header's index are not its own")


def check_header_of(
    header: Header, stream: str, first: int, path: str, *, compressed: bool
) -> None:
    """Raises `DamagedSegment` unless a header has the stream, number and kind that a path tells."""
    if header.stream != stream:
        raise DamagedSegment(path, f"its header says stream {header.stream!r}, not {stream!r}")
    if header.first != first:
        raise DamagedSegment(path, f"its header says first {header.first}, its name {first}")
    if header.is_compressed is not compressed:
        kind = "compressed" if compressed else "plain"
        raise DamagedSegment(path, f"its name says that it is {kind}, its header that it is not")


def check_body(header: Header, body: bytes, path: str) -> None:
    """Raises `DamagedSegment` unless `body` is, to the bit, what `header` says.

    O(bytes); the hash releases the GIL.
    """
    if len(body) != header.bytes:
        raise DamagedSegment(
            path, f"its body has {len(body)} bytes, its header says {header.bytes}"
        )
    if body_sha256(body) != header.sha256:
        raise DamagedSegment(path, "the sha256 of its body is not the one in its header")


def count_newlines(lines: bytes) -> int:
    """How many newlines there are: what `count` says, at a fifth of the time."""
    return len(lines) - len(lines.replace(b"\n", b""))


def describe_gap(first: int, gap: Gap) -> str:
    """What a person is told of the records from `first` on that are gone."""
    which = f"{first} to {gap.last}"
    if gap.guessed:
        which = f"from {first} on, none of them above {gap.last},"
    return f"records {which} are gone, as recorded at {gap.when}: {gap.why}"


def timestamp_of(line: bytes) -> str:
    """The `_ts` of a stored line; it always stands first and has one width."""
    return line[TIMESTAMP_START : TIMESTAMP_START + TIMESTAMP_CHARACTERS].decode("ascii", "replace")
