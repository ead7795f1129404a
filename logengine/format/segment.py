"""A segment: an immutable file of consecutive records of one stream.

    00000000000000000001.ndjson          the name is the first sequence number
    {"_segment":1,"stream":"app",...}    the first line is the header
    {"_ts":"…",…}                        every other line is one record

`docs/format.md` is the specification. This module handles names and bytes, not files. The zstd
frames of compressed segments are in `compression`.
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
# Enough for the header of a stream with no producers or a few; see `header_length`.
HEADER_READ_BYTES = 4096
# How much zstd can expand a byte: a block of 4 bytes becomes at most 128 KiB.
_EXPANSION_MAX = 32 * 1024
# A reader has a whole body in memory, or a whole frame: no more than the configuration allows any
# writer. A frame has 1 MiB and perhaps one long record more.
BODY_BYTES_MAX = 1024 * 1024 * 1024
FRAME_BODY_BYTES_MAX = 256 * 1024 * 1024
HEADER_START = b'{"_segment":'
STREAM_NAME_RULE = "[a-z0-9][a-z0-9._-]{0,63}"
STREAM_NAME_MAX = 64

# No writer gives a name with a higher number, and no header can contain one.
SEQ_MAX = 2**63 - 1
_UID_MAX = 2**32 - 1

_STREAM_NAME = re.compile(STREAM_NAME_RULE)
_NOT_OF_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_MARKS = "._-"  # with which no name begins
_SEGMENT_NAME = re.compile(r"(\d{20})\.ndjson(?:\.zst)?")


# Returns the signature of the given bytes, in hexadecimal.
Sign = Callable[[bytes], str]


class Frame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A part of a compressed body: `count` records of `body_bytes`, `stored_bytes` in the file."""

    stored_bytes: int
    body_bytes: int
    count: int


class IndexEntry(msgspec.Struct, frozen=True, array_like=True):
    """The content of a frame: records from `since` to `until`, the least and greatest `_ts`.

    `sha256` is the hexadecimal hash of its bytes in the file.
    """

    since: str
    until: str
    sha256: str


class Earlier(msgspec.Struct, frozen=True, kw_only=True):
    """What a seal says about the `seals` sealed segments before it, the oldest being `first`.

    No record from there up to the seal itself is older than `since`.
    """

    first: int
    since: str
    seals: int


class UserBytes(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Bytes of one user's stored lines: in the stream before a segment, and in the segment."""

    before: int
    own: int


class Gap(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a segment without records says about records that are gone, up to number `last`.

    `when` is when this was recorded, `why` the reason. `guessed`: it is unknown whether all of
    these numbers were ever given out.
    """

    last: int
    when: str
    why: str
    guessed: bool = False


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """What a compressed segment says after `count` of its records were replaced by tombstones.

    `original` is the `header_sha256` that it had before the first of them.
    """

    original: str
    count: int


class Restored(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The mark of a sealed segment that a repair wrote: `when`, and `why` it was needed.

    `header` is the header line, without its newline, of the seal whose records, or some of them,
    this segment contains. It is empty if no such seal is known.
    """

    when: str
    why: str
    header: str = ""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a segment.

    The segment contains `count` records from sequence number `first` on, `bytes` bytes in all.
    `since` and `until` are the least and greatest `_ts` in it, `latest` is the greatest in the
    stream up to its end. `sha256` is the hexadecimal hash of the body. `producers_of` gives, for
    each uid and each of its producers, the number of its last record in this segment or before it,
    the least recently active first; `producers` has those whose uid is not known. `users`, if
    they are counted, gives the bytes of each user in the same order. `gap` is set only in place of
    records that are gone, `erased` in a compressed segment with erased records, and `restored` in a
    sealed segment that a repair wrote. In a compressed segment, `frames` gives the location of each
    frame and `index` its content; a plain segment has neither. A sealed segment has `prev`, the
    `header_sha256` of the sealed segment before it, which is empty in a stream's first. It may have
    `earlier`, with which a reader of old records skips most of the newer seals, and a `signature`
    of everything before that key. The line ends with `header_sha256`, a hash of everything before
    it, which is not a field of this struct.
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
    producers_of: dict[int, dict[str, int]] | UnsetType = UNSET
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
        """The last sequence number that the segment accounts for; `first` - 1 if there is none."""
        return self.first + self.count - 1 if self.gap is UNSET else self.gap.last

    @property
    def is_compressed(self) -> bool:
        """Whether the file contains the body in zstd frames."""
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
        """The number of bytes in the file after the header."""
        if self.frames is UNSET:
            return self.bytes
        return sum(frame.stored_bytes for frame in self.frames)


_HEADER_SHA256 = b',"header_sha256":"'
_SIGNATURE = b',"signature":"'


class _BareHeader(Header, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A header without `header_sha256`, as early writers or a manual edit leave it.

    Unknown keys are rejected in it: one may be `header_sha256`, damaged.
    """


_header_decoder = msgspec.json.Decoder(Header)
_bare_header_decoder = msgspec.json.Decoder(_BareHeader)
_raw_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_KEYS = frozenset(Header.__struct_encode_fields__)


def is_stream_name(name: str) -> bool:
    """Returns whether `name` is a valid stream name. As a path, no such name leaves its parent."""
    return _STREAM_NAME.fullmatch(name) is not None


def stream_name_from(text: str) -> str | None:
    """Returns the stream name that `text` becomes; None if nothing of it can be in a name.

    A to Z become lower case, and each run of other characters that no name has becomes one `-`.
    What is then left of the first letter or digit, and right of the last, is removed. No more than
    `STREAM_NAME_MAX` characters are kept. O(characters). Never raises.
    """
    name = _NOT_OF_NAME.sub("-", text).lower()
    return name.lstrip(_MARKS)[:STREAM_NAME_MAX].rstrip(_MARKS) or None


def segment_name(first: int, *, compressed: bool = False) -> str:
    """Returns the file name of the segment whose first sequence number is `first`."""
    return f"{first:020d}{COMPRESSED_SUFFIX if compressed else SEGMENT_SUFFIX}"


def first_of_name(name: str) -> int | None:
    """Returns the first sequence number in a file name, or None if it does not name a segment."""
    match = _SEGMENT_NAME.fullmatch(name)
    return int(match[1]) if match and 0 < int(match[1]) <= SEQ_MAX else None


def encode_header(header: Header) -> bytes:
    """Returns the header's line, with its newline and the hash that reveals any flipped bit."""
    checked = msgspec.json.encode(header)[:-1]
    digest = hashlib.sha256(checked).hexdigest().encode()
    return b'%s%s%s"}\n' % (checked, _HEADER_SHA256, digest)


def header_sha256(line: bytes) -> str:
    """Returns the value that the last key of a header's line has or should have."""
    return hashlib.sha256(line.rpartition(_HEADER_SHA256)[0]).hexdigest()


def hash_for_successor(header: Header, line: bytes) -> str:
    """Returns the `prev` of the seal that follows the one with this header and line.

    It is the header's hash as of sealing, whatever was erased or repaired since.
    """
    header, line = original_of(header) or (header, line)
    return header_sha256(line) if header.erased is UNSET else header.erased.original


def original_of(header: Header) -> tuple[Header, bytes] | None:
    """Returns header and line of the seal that a restored segment was made from, if known."""
    restored = header.restored
    if restored is UNSET or not restored.header:
        return None
    line = restored.header.encode()
    return _header_decoder.decode(line), line


def signed_part(line: bytes) -> bytes:
    """Returns the part of a header's line that a signature covers: everything before that key."""
    checked = line.rpartition(_HEADER_SHA256)[0]
    before, is_signed, _ = checked.rpartition(_SIGNATURE)
    return before if is_signed else checked


def signed(header: Header, sign: Sign) -> Header:
    """Returns the header, signed."""
    unsigned = msgspec.structs.replace(header, signature=UNSET)
    return msgspec.structs.replace(header, signature=sign(signed_part(encode_header(unsigned))))


def body_sha256(body: bytes) -> str:
    """Returns the `sha256` that the header of a body has."""
    return hashlib.sha256(body).hexdigest()


def header_length(start: bytes) -> int | None:
    """Returns the length of a file's header line; None if `start` does not contain all of it."""
    return start.find(b"\n") + 1 or None


def decode_header(line: bytes, path: str) -> Header:
    """Returns the header in a segment's first line, which may lack its newline.

    Raises `DamagedSegment` for `path` if the line is not a header of a known version, is not
    written as `encode_header` writes it, or cannot be true. Unknown keys before the signature are
    ignored in a header with a hash, so older readers can read newer files.
    """
    checked, is_hashed, hash_and_end = line.rpartition(_HEADER_SHA256)
    if is_hashed:
        digest = hashlib.sha256(checked).hexdigest().encode()
        if hash_and_end.removesuffix(b"\n") != digest + b'"}':
            raise DamagedSegment(path, "the sha256 of its header is not the one at its end")
    try:
        header = (_header_decoder if is_hashed else _bare_header_decoder).decode(line)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DamagedSegment(path, f"its first line is not a segment header: {error}") from None
    except UnicodeDecodeError:
        raise DamagedSegment(path, "its first line is not a segment header: not UTF-8") from None
    if header.version != FORMAT_VERSION:
        raise DamagedSegment(
            path,
            f"segment format {header.version}, expected {FORMAT_VERSION}: from a newer logengine?",
        )
    object_bytes = checked + b"}" if is_hashed else line.removesuffix(b"\n")
    _check_encoding(header, object_bytes, path, is_hashed=bool(is_hashed))
    if not is_stream_name(header.stream):
        raise DamagedSegment(path, f"its header names an invalid stream {header.stream!r}")
    _check_numbers(header, path)
    times = (header.since, header.until, header.latest)
    if not all(map(is_timestamp, times)) or not header.since <= header.until <= header.latest:
        raise DamagedSegment(path, "its header has impossible times")
    _check_producers(header, path)
    _check_gap(header, path)
    if header.frames is not UNSET:
        _check_frames(header, header.frames, path)
    _check_index(header, path)
    _check_seal(header, path)
    _check_restored(header, path)
    return header


def _check_numbers(header: Header, path: str) -> None:
    """Raises `DamagedSegment` for numbers that no writer gives.

    Readers allocate what a header says, before they can check the body.
    """
    if header.first < 1 or min(header.count, header.bytes, _least_of_users(header)) < 0:
        raise DamagedSegment(path, "its header has a number that is out of range")
    if header.bytes > BODY_BYTES_MAX:
        raise DamagedSegment(
            path,
            f"its header says {header.bytes} bytes, but no body has more than {BODY_BYTES_MAX}",
        )
    if 2 * header.count > header.bytes:  # a line has at least a character and its newline
        raise DamagedSegment(
            path, f"its header says {header.count} records in {header.bytes} bytes"
        )


def _check_encoding(header: Header, found: bytes, path: str, *, is_hashed: bool) -> None:
    """Raises `DamagedSegment` unless `found` is the one way to write the header.

    `found` is the header's JSON object without `header_sha256`. A signature covers what is before
    it, and a decoder takes the last of two equal keys, so no key may be there twice or after it.
    """
    expected = msgspec.json.encode(header)
    # The second comparison is slow, and needed only for the keys of a newer writer.
    if found != expected and not (is_hashed and _known_keys_of(found) == expected):
        raise DamagedSegment(
            path, "its header has a key twice, out of place, or not written as docs/format.md says"
        )
    if header.is_sealed and not is_hashed:
        raise DamagedSegment(path, "its header is that of a seal, but has no header_sha256")


def _known_keys_of(found: bytes) -> bytes | None:
    """Returns a header's JSON object without the keys that this version does not know.

    Returns None if it has a key twice, `header_sha256`, or a key before `_segment` or after
    `signature`, or if it is not compact.
    """
    try:
        values = _raw_decoder.decode(found)
        keys = list(values)
        pieces = {key: b"%s:%s" % (msgspec.json.encode(key), bytes(values[key])) for key in keys}
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    is_compact = found == b"{%s}" % b",".join(pieces.values())
    is_in_place = keys[0] == "_segment" and "signature" not in keys[:-1]
    if not is_compact or not is_in_place or "header_sha256" in values:
        return None
    return b"{%s}" % b",".join(piece for key, piece in pieces.items() if key in _KEYS)


def _least_of_users(header: Header) -> int:
    """Returns the least number of bytes that the header has for a user; 0 if it has no users."""
    users = header.users or {}
    return min((min(each.before, each.own) for each in users.values()), default=0)


def _check_producers(header: Header, path: str) -> None:
    """Raises `DamagedSegment` if the header has an impossible `producers_of`."""
    producers_of = header.producers_of
    if producers_of is UNSET:
        return
    is_possible = bool(producers_of) and all(
        0 <= uid <= _UID_MAX and numbers and min(numbers.values()) >= 1
        for uid, numbers in producers_of.items()
    )
    if not is_possible:
        raise DamagedSegment(path, "its header has an impossible entry for a producer")


def _check_seal(header: Header, path: str) -> None:
    is_signed = header.signature is not UNSET
    if (header.is_sealed and not header.is_compressed) or (is_signed and not header.is_sealed):
        raise DamagedSegment(path, "its header has an impossible seal")
    earlier = header.earlier
    if earlier is not UNSET and not (
        header.is_sealed
        and 1 <= earlier.first < header.first
        and earlier.seals >= 1
        and is_timestamp(earlier.since)
    ):
        raise DamagedSegment(path, "its header has an impossible entry for earlier seals")


def _check_restored(header: Header, path: str) -> None:
    """Raises `DamagedSegment` if the header has an impossible `restored`."""
    restored = header.restored
    if restored is UNSET:
        return
    is_possible = header.is_sealed and is_timestamp(restored.when)
    if is_possible and restored.header:
        line = restored.header.encode()
        original = decode_header(line, path)
        is_possible = (
            _HEADER_SHA256 in line
            and not line.endswith(b"\n")
            and original.restored is UNSET
            and (original.stream, original.prev) == (header.stream, header.prev)
            and original.first <= header.first <= header.last <= original.last
        )
    if not is_possible:
        raise DamagedSegment(path, "its header says that it was restored from an impossible seal")


def _check_gap(header: Header, path: str) -> None:
    """Raises `DamagedSegment` if the header has an impossible gap."""
    gap = header.gap
    if gap is UNSET:
        return
    is_empty = (header.count, header.bytes) == (0, 0) and header.frames is UNSET
    if not is_empty or gap.last < header.first or not is_timestamp(gap.when):
        raise DamagedSegment(path, "its header has an impossible gap")


def _check_frames(header: Header, frames: tuple[Frame, ...], path: str) -> None:
    """Raises `DamagedSegment` if a frame is impossible, or the frames do not add up to the header.

    This keeps readers from allocating more for a body than a file of this size can contain.
    """
    for frame in frames:
        if (
            min(frame.stored_bytes, frame.body_bytes, frame.count) < 1
            or frame.body_bytes > FRAME_BODY_BYTES_MAX
            or frame.body_bytes > frame.stored_bytes * _EXPANSION_MAX
        ):
            raise DamagedSegment(path, "its header has an impossible frame")
    if (header.bytes, header.count) != (
        sum(frame.body_bytes for frame in frames),
        sum(frame.count for frame in frames),
    ):
        raise DamagedSegment(path, "the frames in its header do not add up to its body")


def _check_index(header: Header, path: str) -> None:
    """Raises `DamagedSegment` if the header has an index that does not match its frames."""
    index = header.index
    if index is UNSET:
        return
    if header.frames is UNSET or len(index) != len(header.frames):
        raise DamagedSegment(path, "its header has an index that does not match its frames")
    for entry in index:
        if not (is_timestamp(entry.since) and is_timestamp(entry.until)):
            raise DamagedSegment(path, "its header has an index with impossible times")
    if index and (header.since, header.until) != (
        min(entry.since for entry in index),
        max(entry.until for entry in index),
    ):
        raise DamagedSegment(path, "the times in its header's index are not those of its header")


def check_header_of(
    header: Header, stream: str, first: int, path: str, *, compressed: bool
) -> None:
    """Raises `DamagedSegment` unless a header has the stream, number and kind given by its path."""
    if header.stream != stream:
        raise DamagedSegment(path, f"its header says stream {header.stream!r}, not {stream!r}")
    if header.first != first:
        raise DamagedSegment(path, f"its header says first {header.first}, its name {first}")
    if header.is_compressed is not compressed:
        kind = "compressed" if compressed else "plain"
        raise DamagedSegment(path, f"its name says that it is {kind}, its header that it is not")


def check_body(header: Header, body: bytes, path: str) -> None:
    """Raises `DamagedSegment` unless `body` has the length and hash in `header`.

    O(bytes); the hash releases the GIL.
    """
    if len(body) != header.bytes:
        raise DamagedSegment(
            path, f"its body has {len(body)} bytes, its header says {header.bytes}"
        )
    if body_sha256(body) != header.sha256:
        raise DamagedSegment(path, "the sha256 of its body is not the one in its header")


def count_newlines(lines: bytes) -> int:
    """Returns the number of newlines: what `bytes.count` returns, in a fifth of the time."""
    return len(lines) - len(lines.replace(b"\n", b""))


def describe_gap(first: int, gap: Gap) -> str:
    """Returns the message for users about the records from `first` on that are gone."""
    which = f"{first} to {gap.last}"
    if gap.guessed:
        which = f"from {first} on, none of them above {gap.last},"
    return f"records {which} are gone, as recorded at {gap.when}: {gap.why}"


def timestamp_of(line: bytes) -> str:
    """Returns the `_ts` of a stored line, which is always first and of fixed width."""
    return line[TIMESTAMP_START : TIMESTAMP_START + TIMESTAMP_CHARACTERS].decode("ascii", "replace")
