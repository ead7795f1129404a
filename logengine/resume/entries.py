"""Reads a journal, as printed by `journalctl -o export` or `-o json`, entry by entry."""

from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec

from logengine.errors import MalformedInput
from logengine.exchange.importing import begins_journal, journal_entry
from logengine.format.record import split_lines
from logengine.protocols.journal_export import JournalEntry, JournalExportParser
from logengine.resume.cursor import Cursor, SeenEntries, parse_cursor
from logengine.resume.history import EntriesPortion


class _WithCursor(msgspec.Struct):
    cursor: str = msgspec.field(name="__CURSOR")


_decoder = msgspec.json.Decoder(_WithCursor)


class EntryReader(Protocol):
    """Returns the unseen entries of a journal, and marks them as seen."""

    skipped: int

    def receive(self, data: bytes) -> EntriesPortion | None:
        """Returns the entries that `data` completes. Raises `MalformedInput`."""

    def end(self) -> EntriesPortion | None:
        """Returns the rest. Raises `MalformedInput` for an incomplete entry."""


def entry_reader(form: str, start: bytes, seen: SeenEntries) -> EntryReader | None:
    """Returns a reader for an input that begins with the line `start`; None if not a journal.

    `form` is one of `importing.FORMATS`, or `lines`.
    """
    if form == "journal" or (form == "auto" and begins_journal(start)):
        return ExportReader(seen)
    if form != "text" and _json_cursor(start) is not None:
        return JsonReader(seen)
    return None


class _Seen:
    """Selects the entries that were not seen."""

    def __init__(self, seen: SeenEntries) -> None:
        self._seen = seen
        self._count = 0
        self._error: MalformedInput | None = None
        self.skipped = 0

    def _unseen(self, entries: Iterable[tuple[Cursor | None, bytes]]) -> EntriesPortion | None:
        """Returns the unseen entries. An error after them is raised by the next call."""
        if self._error is not None:
            raise self._error
        cursors: list[Cursor] = []
        lines: list[bytes] = []
        try:
            for cursor, line in self._identified(entries):
                if cursor in self._seen:
                    self.skipped += 1
                    continue
                self._seen.add(cursor)
                cursors.append(cursor)
                lines.append(line + b"\n")
        except MalformedInput as error:
            self._error = error
        return EntriesPortion(cursors, b"".join(lines)) if cursors else None

    def _identified(
        self, entries: Iterable[tuple[Cursor | None, bytes]]
    ) -> Iterator[tuple[Cursor, bytes]]:
        for cursor, line in entries:
            self._count += 1
            if cursor is None:
                raise MalformedInput(
                    f"entry {self._count} has no __CURSOR of the form s=…;i=…, which --resume "
                    "needs to know what is stored"
                )
            yield cursor, line


class ExportReader(_Seen):
    """Reads journald's export format."""

    def __init__(self, seen: SeenEntries) -> None:
        super().__init__(seen)
        self._parser = JournalExportParser()

    def receive(self, data: bytes) -> EntriesPortion | None:
        """See `EntryReader`."""
        return self._unseen(
            (_export_cursor(entry), journal_entry(entry)) for entry in self._parser.receive(data)
        )

    def end(self) -> EntriesPortion | None:
        """See `EntryReader`."""
        self._unseen(())
        for _ in self._parser.end():
            # If it were stored now, the next run would take it for the whole entry.
            raise MalformedInput(
                f"it ends within entry {self._count + 1}, before the empty line: that entry was "
                "not stored; was the input cut short?"
            )
        return None


class JsonReader(_Seen):
    """Reads one JSON object per line, and passes the lines on as they are."""

    def __init__(self, seen: SeenEntries) -> None:
        super().__init__(seen)
        self._rest = bytearray()

    def receive(self, data: bytes) -> EntriesPortion | None:
        """See `EntryReader`."""
        cut = data.rfind(b"\n") + 1
        if not cut:
            self._rest += data
            return None
        lines = bytes(self._rest) + data[:cut]
        self._rest[:] = data[cut:]
        return self._unseen((_json_cursor(line), line) for line in split_lines(lines))

    def end(self) -> EntriesPortion | None:
        """See `EntryReader`."""
        portion = self._unseen(
            (_json_cursor(line), line) for line in split_lines(bytes(self._rest))
        )
        if self._error is not None:
            raise self._error
        return portion


def _export_cursor(entry: JournalEntry) -> Cursor | None:
    text = next((value for name, value in entry.fields if name == "__CURSOR"), b"")
    return parse_cursor(text.decode("utf-8", "replace"))


def _json_cursor(line: bytes) -> Cursor | None:
    try:
        return parse_cursor(_decoder.decode(line.strip()).cursor)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
