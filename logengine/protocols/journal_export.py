"""journald's export format: bytes in, entries out. No files.

    __REALTIME_TIMESTAMP=1763928000000123       a text field
    MESSAGE                                     a binary field: its name alone, then
    <8 bytes: length, little-endian><bytes>     its length, that many bytes, and LF
                                                an empty line ends the entry

Source: systemd's "Journal Export Formats".
"""

from collections.abc import Iterator
from typing import NamedTuple

from logengine.errors import MalformedInput

# A longer field is left out: with the default max_record, the daemon would refuse its record.
FIELD_BYTES_MAX = 1024 * 1024
# Once the fields of an entry reach this size or this number, its further fields are left out.
ENTRY_BYTES_MAX = 16 * 1024 * 1024
FIELDS_MAX = 4096
_NAME_BYTES_MAX = 256
_LENGTH_BYTES = 8


class JournalEntry(NamedTuple):
    """The fields of an entry, in order, and the names of the fields that were left out."""

    fields: list[tuple[str, bytes]]
    left_out: list[str]


class JournalExportParser:
    """Parses a journal export that arrives in chunks.

    Keeps one entry and one chunk in memory; O(bytes). Raises `MalformedInput` with the offset of
    the wrong byte.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._offset = 0  # of the buffer's first byte in the input
        self._entry = JournalEntry([], [])
        self._entry_bytes = 0
        # While skipping a field that is left out: the bytes still to come, with its LF ...
        self._skipping = 0
        self._skips_text = False  # ... or, of a text field, all bytes up to its LF

    def receive(self, data: bytes) -> Iterator[JournalEntry]:
        """Yields the entries that `data` completes."""
        self._buffer += data
        place = 0
        while True:
            step = self._step(place)
            if step is None:
                break
            place, is_end = step
            if is_end and (self._entry.fields or self._entry.left_out):
                yield self._take()
        del self._buffer[:place]
        self._offset += place

    def end(self) -> Iterator[JournalEntry]:
        """Yields the last entry, if no empty line ended it."""
        if self._buffer or self._skipping or self._skips_text:
            raise self._malformed(0, "the input ends inside a field")
        if self._entry.fields or self._entry.left_out:
            yield self._take()

    def _take(self) -> JournalEntry:
        entry, self._entry, self._entry_bytes = self._entry, JournalEntry([], []), 0
        return entry

    def _step(self, place: int) -> tuple[int, bool] | None:
        """Parses the field or empty line at `place`.

        Returns where it ends, and whether it ends the entry; None if it is not complete yet.
        """
        if self._skips_text:
            return self._skip_text(place)
        if self._skipping:
            here = min(self._skipping, len(self._buffer) - place)
            self._skipping -= here
            return (place + here, False) if here else None
        stop = self._buffer.find(b"\n", place)
        if stop == place:
            return place + 1, True
        equals = self._buffer.find(b"=", place, stop if stop >= 0 else place + _NAME_BYTES_MAX)
        if equals >= 0:
            return self._text_field(place, equals, stop)
        if stop < 0:
            if len(self._buffer) - place > _NAME_BYTES_MAX:
                raise self._malformed(place, "expected the name of a field")
            return None
        return self._binary_field(place, stop)

    def _text_field(self, place: int, equals: int, stop: int) -> tuple[int, bool] | None:
        name = self._name(place, equals)
        if stop < 0:
            if len(self._buffer) - equals <= FIELD_BYTES_MAX + 1:
                return None
            self._leave_out(name)
            self._skips_text = True
            return equals + 1, False
        self._add(name, equals + 1, stop)
        return stop + 1, False

    def _skip_text(self, place: int) -> tuple[int, bool] | None:
        stop = self._buffer.find(b"\n", place)
        if stop >= 0:
            self._skips_text = False
            return stop + 1, False
        return (len(self._buffer), False) if place < len(self._buffer) else None

    def _binary_field(self, place: int, name_stop: int) -> tuple[int, bool] | None:
        name = self._name(place, name_stop)
        start = name_stop + 1 + _LENGTH_BYTES
        if len(self._buffer) < start:
            return None
        length = int.from_bytes(self._buffer[name_stop + 1 : start], "little")
        if length > FIELD_BYTES_MAX:
            self._leave_out(name)
            self._skipping = length + 1
            return start, False
        stop = start + length
        if len(self._buffer) <= stop:
            return None
        if self._buffer[stop] != ord("\n"):
            raise self._malformed(stop, f"expected a newline after the {length} bytes of {name}")
        self._add(name, start, stop)
        return stop + 1, False

    def _name(self, start: int, stop: int) -> str:
        name = bytes(self._buffer[start:stop])
        if not name.isascii() or len(name) > _NAME_BYTES_MAX or not name.decode().isidentifier():
            raise self._malformed(start, f"{name[:40]!r} is not the name of a field")
        return name.decode()

    def _add(self, name: str, start: int, stop: int) -> None:
        size = stop - start
        is_full = len(self._entry.fields) >= FIELDS_MAX
        if size > FIELD_BYTES_MAX or self._entry_bytes + size > ENTRY_BYTES_MAX or is_full:
            self._leave_out(name)
            return
        self._entry.fields.append((name, bytes(self._buffer[start:stop])))
        self._entry_bytes += size

    def _leave_out(self, name: str) -> None:
        if len(self._entry.left_out) >= FIELDS_MAX:
            raise self._malformed(0, f"an entry has more than {2 * FIELDS_MAX} fields")
        self._entry.left_out.append(name)

    def _malformed(self, place: int, what: str) -> MalformedInput:
        return MalformedInput(f"at byte {self._offset + place}: {what}; is it a journal export?")
