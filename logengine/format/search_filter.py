"""Search filters: which frames of a sealed segment cannot contain a literal.

    bits = frame_filter(body)                     what a frame's records contain, in 1 % of its size
    Search([[b"OOMKilled"]]).may_match(bits)      False only if no line contains the literal

`docs/format.md` is the specification. A filter is a Bloom filter of two kinds of entries: the
first bytes of each word, and each four neighbouring letters in it. A word ends at everything that
is not a letter or a digit of ASCII, and also at some letters and at one digit. So a long random id
consists of several words, and a part of it that begins and ends anywhere contains whole ones. Bytes
in, values out.
"""

import hashlib
import re
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice

import msgspec

from logengine.errors import DamagedSearchFilters
from logengine.format.record import TIMESTAMP_START
from logengine.format.timestamp import TIMESTAMP_CHARACTERS

# All lines that are sought contain, for each inner collection, at least one of its literals.
Literals = Sequence[Collection[bytes]]

FILTERS_VERSION = 1
# A frame of 1 MiB has at most 16 KiB of bits, and a smaller frame at most this part of its size.
_BITS_MAX = 128 * 1024
# An entry has two places: the lower and the upper bits of its hash, which has 32.
_LAST_PLACE = _BITS_MAX - 1
_SECOND_SHIFT = 32 - _LAST_PLACE.bit_length()
_BITS_MIN = 512
_BODY_BYTES_PER_FILTER_BYTE = 64
# With more than this share of the bits set, the filter becomes twice as large if it may.
_FULL = 0.25
_WORD_BYTES_MIN = 4
_WORD_BYTES_MAX = 8
_LETTERS = 4
_DIGEST_BYTES = hashlib.sha256().digest_size

# Collecting words holds the GIL: other work waits a fraction of a millisecond for a piece.
_PIECE_BYTES = 32 * 1024
_PIECE_WORDS = 1024

# Rare in words, frequent enough in random ids: about one character in eight of a hexadecimal one.
_CUTS = b"3bjqxz"
_DIGITS = b"0123456789"
_LOWER = b"abcdefghijklmnopqrstuvwxyz"
_SPACE = b" "[0]


def _folded(byte: int) -> int:
    lower = bytes([byte]).lower()
    return lower[0] if lower in _LOWER + _DIGITS else _SPACE


def _without(characters: bytes) -> bytes:
    return bytes(_SPACE if byte in characters else byte for byte in range(256))


_FOLD = bytes(map(_folded, range(256)))
_WITHOUT_CUTS = _without(_CUTS)
_WITHOUT_DIGITS = _without(_DIGITS)
_WORD = re.compile(rb"[^ ]+")

# The microseconds of `_ts` differ in every record, and nobody searches for them. They are left out,
# so a literal is not searched for where it may be a part of them.
_SECONDS_END = TIMESTAMP_START + len("2026-11-28T18:00:00.")
_TIMESTAMP_END = TIMESTAMP_START + TIMESTAMP_CHARACTERS
_MICROSECONDS = re.compile(rb"(?:\A|(?<=\.))[0-9]{0,6}(?:[Zz]|\Z)")
# An entry of its own: JSON may have any character of a value as an escape that begins so.
_ESCAPE = b"\\u"


def _free(_count: int) -> None:
    """Sets no pace."""


def frame_filter(body: bytes, pace: Callable[[int], None] = _free) -> bytes:
    """Returns the filter of a frame whose content is `body`, whole stored lines.

    It is empty if the frame is too small for one. `pace` is called with the number of bytes after
    every piece, and may sleep.
    """
    bits_max = min(_BITS_MAX, len(body) * 8 // _BODY_BYTES_PER_FILTER_BYTE)
    if bits_max < _BITS_MIN:
        return b""
    words: set[bytes] = set()
    for piece in _pieces(body):
        words.update(_words_of_lines(piece.split(b"\n")))
        pace(len(piece))
    hashes = {_hash(_ESCAPE)} if _ESCAPE in body else set[int]()
    rest = iter(words)
    while some := b" ".join(islice(rest, _PIECE_WORDS)):
        hashes.update(map(_hash, _starts(some)))
        hashes.update(map(_hash, _letters(some)))
        pace(0)
    places = {hashed & _LAST_PLACE for hashed in hashes}
    places.update(hashed >> _SECOND_SHIFT for hashed in hashes)
    bits = _BITS_MIN
    while 2 * bits <= bits_max and len(places) > _FULL * bits:
        bits *= 2
    table = bytearray(b"0") * bits
    one = b"1"[0]
    for place in places:
        table[place & (bits - 1)] = one
    return int(table, 2).to_bytes(bits // 8, "big")


class Search:
    """Literals to search for. Immutable; threads may share it."""

    def __init__(self, literals: Literals) -> None:
        self._needed: list[list[frozenset[int]]] = []
        for alternatives in literals:
            places = [frozenset(_places_in(literal)) for literal in alternatives]
            if places and all(places):
                self._needed.append(places)

    @property
    def can_skip(self) -> bool:
        """Whether a filter can say anything about the literals."""
        return bool(self._needed)

    def may_match(self, bits: bytes) -> bool:
        """Returns False only if no line of the frame with this filter contains the literals."""
        if not bits:
            return True
        last = 8 * len(bits) - 1

        def has(place: int) -> bool:
            place &= last
            return bool(bits[place >> 3] & 0x80 >> (place & 7))

        return all(
            any(all(map(has, places)) for places in alternatives) for alternatives in self._needed
        )


class _Start(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line of a file of filters."""

    version: int = msgspec.field(name="_filters")
    segment: str
    bytes: tuple[int, ...]


def encode_filters(segment: str, filters: Sequence[bytes]) -> bytes:
    """Returns the file with the filters of all frames of a segment.

    `segment` is the `header_sha256` of the segment.
    """
    start = _Start(FILTERS_VERSION, segment, tuple(map(len, filters)))
    content = b"%s\n%s" % (msgspec.json.encode(start), b"".join(filters))
    return content + hashlib.sha256(content).digest()


def decode_filters(content: bytes, segment: str, path: str) -> list[bytes] | None:
    """Returns the filters in a file at `path`; None if they are not of `segment`.

    `segment` is the `header_sha256` of the segment. Also returns None for a version that this
    reader does not know. Raises `DamagedSearchFilters`.
    """
    checked, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if hashlib.sha256(checked).digest() != digest:
        raise DamagedSearchFilters(path, "its sha256 is not the one at its end")
    line, _, rest = checked.partition(b"\n")
    try:
        start = _start_decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DamagedSearchFilters(path, f"its first line is not as expected: {error}") from None
    if start.version != FILTERS_VERSION or start.segment != segment:
        return None
    if not all(map(_is_size, start.bytes)) or sum(start.bytes) != len(rest):
        raise DamagedSearchFilters(path, "its filters have impossible sizes")
    filters = []
    for size in start.bytes:
        filters.append(rest[:size])
        rest = rest[size:]
    return filters


_start_decoder = msgspec.json.Decoder(_Start)


def _is_size(size: int) -> bool:
    return size == 0 or (_BITS_MIN <= 8 * size <= _BITS_MAX and size & (size - 1) == 0)


def _pieces(body: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(body):
        stop = body.find(b"\n", start + _PIECE_BYTES) + 1 or len(body)
        yield body[start:stop]
        start = stop


def _words_of_lines(lines: Sequence[bytes]) -> list[bytes]:
    starts = {line[:_SECONDS_END] for line in lines}
    text = b"\n".join([*starts, *[line[_TIMESTAMP_END:] for line in lines]])
    return text.translate(_FOLD).split()


def _starts(words: bytes) -> Iterator[bytes]:
    """Yields the first bytes of each word, cut, among folded `words`."""
    for word in words.translate(_WITHOUT_CUTS).split():
        if len(word) >= _WORD_BYTES_MIN:
            yield word[:_WORD_BYTES_MAX]


def _letters(words: bytes) -> set[bytes]:
    """Returns all runs of `_LETTERS` letters in folded `words`."""
    runs = set(words.translate(_WITHOUT_DIGITS).split())
    return {
        run[start : start + _LETTERS] for run in runs for start in range(len(run) - _LETTERS + 1)
    }


_hash = zlib.crc32


def _places_in(literal: bytes) -> Iterator[int]:
    """Yields the places that are set in the filter of every frame with `literal`."""
    for hashed in map(_hash, _entries_of(literal)):
        yield hashed & _LAST_PLACE
        yield hashed >> _SECOND_SHIFT


def _entries_of(literal: bytes) -> Iterator[bytes]:
    if _ESCAPE in literal:
        yield _ESCAPE
    for part in _MICROSECONDS.split(literal):
        folded = part.translate(_FOLD)
        yield from _letters(folded)
        yield from _starts_known(folded.translate(_WITHOUT_CUTS))


def _starts_known(words: bytes) -> Iterator[bytes]:
    """Yields what `_starts` does for words whose beginning is known, and whose end if it matters.

    At both ends of `words`, a word may go on.
    """
    for match in _WORD.finditer(words):
        start, stop = match.span()
        word = match[0]
        is_whole = stop < len(words) and len(word) >= _WORD_BYTES_MIN
        if start and (is_whole or len(word) >= _WORD_BYTES_MAX):
            yield word[:_WORD_BYTES_MAX]
