"""Which parts of its inputs a producer's numbers are: one note per portion sent. No I/O.

A history is a header, which says what is known at a number `base`, and notes on the portions after
it. A note that begins at a number that earlier notes already cover overrides them from there on:
those records were never stored, and their numbers were used again.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import msgspec

from logengine.errors import DamagedResumeState
from logengine.resume.cursor import Cursor, SeenEntries, highest_numbers

VERSION = 1
FINGERPRINT_BYTES_MAX = 1024
# At most this many inputs are remembered, the most recent ones.
INPUTS_MAX = 4096
SEQUENCES_MAX = 4096


class Identity(msgspec.Struct, frozen=True):
    """What identifies an input: its first `length` bytes and, for a file, the inode."""

    path: str  # absolute, also for a pipe; `-` for standard input
    inode: int
    length: int
    fingerprint: str
    begins: str  # the start of its first line, for messages


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A portion of an input, bytes `start` to `stop`, and how much of it is stored.

    The first `done` of its `lines` non-blank lines are stored, and so are the `before` lines ahead
    of it. `digest` is that of the portion's bytes; for standard input, which cannot be read from
    the middle, that of all bytes up to `stop`. `is_open`: the portion is one line, and the input
    ended without a newline.
    """

    input: int  # increases with each new input
    identity: Identity
    start: int
    stop: int
    digest: str
    before: int
    lines: int
    done: int
    is_open: bool = False

    @property
    def lines_stored(self) -> int:
        """How many lines of the input are stored."""
        return self.before + self.done


class LinesNote(msgspec.Struct, frozen=True, tag="lines"):
    """`count` records from `first` on are lines; `place` is where they end."""

    first: int
    count: int
    place: Place

    def cut(self, count: int) -> "LinesNote":
        """Returns the note on its first `count` records alone."""
        done = self.place.done - (self.count - count)
        return LinesNote(self.first, count, msgspec.structs.replace(self.place, done=done))


class EntriesNote(msgspec.Struct, frozen=True, tag="entries"):
    """The records from `first` on are a journal's entries: sequences, and the numbers in each."""

    first: int
    entries: list[tuple[str, list[int]]]

    @property
    def count(self) -> int:
        """How many records they are."""
        return sum(len(numbers) for _, numbers in self.entries)

    @property
    def cursors(self) -> Iterator[Cursor]:
        """The entries, in order."""
        return (Cursor(each, number) for each, numbers in self.entries for number in numbers)

    def cut(self, count: int) -> "EntriesNote":
        """Returns the note on its first `count` records alone."""
        return entries_note(self.first, list(self.cursors)[:count])


Note = LinesNote | EntriesNote


class Header(msgspec.Struct, frozen=True, kw_only=True, tag="resume"):
    """What is known at the number `base`; all records up to it are durable."""

    version: int = VERSION
    stream: str
    producer: str
    socket: str
    base: int = 0
    places: list[Place] = []
    journal: dict[str, int] = {}


@dataclass
class Known:
    """What is stored of the inputs: a place in each, and the seen entries of journals."""

    places: list[Place]
    entries: SeenEntries


_header_decoder = msgspec.json.Decoder(Header)
_note_decoder = msgspec.json.Decoder(LinesNote | EntriesNote)


class History:
    """See the module's docstring."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self._notes: list[Note] = []

    @property
    def last(self) -> int:
        """The number of the last record that is noted."""
        return self._notes[-1].first + self._notes[-1].count - 1 if self._notes else self.base

    @property
    def base(self) -> int:
        """All records up to this number are durable."""
        return self.header.base

    def add(self, note: Note) -> None:
        """Adds a note on what is about to be sent. Raises `ValueError` if it leaves a hole."""
        if not self.base < note.first <= self.last + 1:
            raise ValueError(f"a note of {note.first} after {self.base} to {self.last}")
        while self._notes and self._notes[-1].first >= note.first:
            self._notes.pop()
        if self.last >= note.first:
            earlier = self._notes.pop()
            self._notes.append(earlier.cut(note.first - earlier.first))
        self._notes.append(note)

    def at(self, number: int) -> Known:
        """Returns what is known if all records up to `number` (`base` to `last`) are durable."""
        assert self.base <= number <= self.last
        entries = SeenEntries(self.header.journal)
        for note in self._notes_up_to(number):
            if isinstance(note, EntriesNote):
                for cursor in note.cursors:
                    if cursor not in entries:
                        entries.add(cursor)
        return Known(self._places_at(number), entries)

    def fold(self, number: int) -> bool:
        """Moves the notes on records up to `number` to the header; returns whether there were any.

        For a journal, the header then says that all entries up to the highest number are stored.
        """
        whole = [note for note in self._notes if note.first + note.count - 1 <= number]
        if not whole:
            return False
        base = whole[-1].first + whole[-1].count - 1
        places = self._places_at(base)[-INPUTS_MAX:]
        cursors = (
            cursor for note in whole if isinstance(note, EntriesNote) for cursor in note.cursors
        )
        journal = highest_numbers(self.header.journal, cursors, SEQUENCES_MAX)
        self._notes = self._notes[len(whole) :]
        self.header = msgspec.structs.replace(
            self.header, base=base, places=places, journal=journal
        )
        return True

    def touch(self, inputs: Collection[int]) -> None:
        """Marks inputs as present: if there are too many, others are forgotten first."""
        there = sorted(self.header.places, key=lambda place: place.input in inputs)
        self.header = msgspec.structs.replace(self.header, places=there)

    def add_begun(self, place: Place, *, replaces: bool) -> bool:
        """Adds an input of which nothing is stored yet; returns whether it was added.

        It is not added if its path already has a known input and `replaces` is false: the known
        one says more, because its file may be found among the rotated ones.
        """
        for each in self.header.places:
            if each.input == place.input:
                return False
            if each.identity.path == place.identity.path and not replaces:
                return False
        places = [*self.header.places, place][-INPUTS_MAX:]
        self.header = msgspec.structs.replace(self.header, places=places)
        return True

    def renumbered(self) -> "History":
        """Returns the same places for a daemon that counts from 1 again."""
        assert not self._notes
        return History(msgspec.structs.replace(self.header, base=0))

    def encode(self) -> bytes:
        """Returns the whole history, with one line for the header and one for each note."""
        return b"".join(map(encode_line, (self.header, *self._notes)))

    def _places_at(self, number: int) -> list[Place]:
        places = {place.input: place for place in self.header.places}
        for note in self._notes_up_to(number):
            if isinstance(note, LinesNote):
                places.pop(note.place.input, None)  # to move it to the end
                places[note.place.input] = note.place
        return list(places.values())

    def _notes_up_to(self, number: int) -> Iterator[Note]:
        for note in self._notes:
            if note.first > number:
                return
            yield (
                note if note.first + note.count - 1 <= number else note.cut(number + 1 - note.first)
            )


def entries_note(first: int, cursors: Iterable[Cursor]) -> EntriesNote:
    """Returns the note on these entries."""
    entries: list[tuple[str, list[int]]] = []
    for sequence, number in cursors:
        if not entries or entries[-1][0] != sequence:
            entries.append((sequence, []))
        entries[-1][1].append(number)
    return EntriesNote(first, entries)


def encode_line(line: Header | Note) -> bytes:
    """Returns a header or a note as a line of the file."""
    return msgspec.json.encode(line) + b"\n"


def decode_history(data: bytes, name: str) -> History:
    """Returns the history in a file's bytes. A torn last line is ignored.

    Raises `DamagedResumeState`, which names the file as `name`.
    """
    header, *notes = data.split(b"\n")[:-1] or [b""]
    try:
        decoded = _header_decoder.decode(header)
        if decoded.version != VERSION:
            raise ValueError(f"version {decoded.version}, expected {VERSION}")
        history = History(decoded)
        for line in notes:
            history.add(_note_decoder.decode(line))
    except (msgspec.MsgspecError, ValueError) as error:
        raise DamagedResumeState(
            f"{name} is damaged ({error}) and no longer says where to continue. Remove it to "
            "continue by count, or give another name to --resume"
        ) from None
    return history


@dataclass(frozen=True)
class Portion:
    """Lines to send as they are, `count` records, and the place where they end."""

    place: Place
    lines: bytes
    count: int

    def note(self, first: int) -> LinesNote:
        """Returns the note on this portion; its first record has the number `first`."""
        return LinesNote(first, self.count, self.place)


@dataclass(frozen=True)
class EntriesPortion:
    """Entries of a journal to send, as lines."""

    cursors: list[Cursor]
    lines: bytes

    @property
    def count(self) -> int:
        """How many records they are."""
        return len(self.cursors)

    def note(self, first: int) -> EntriesNote:
        """Returns the note on this portion; its first record has the number `first`."""
        return entries_note(first, self.cursors)
