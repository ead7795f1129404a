"""One run with `--resume`: sends what earlier runs did not, according to daemon and notes."""

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

import msgspec

from logengine.errors import AnotherInput, InvalidOption, MalformedInput, NotDurable
from logengine.exchange.input import naming
from logengine.resume.entries import EntryReader, entry_reader
from logengine.resume.history import (
    FINGERPRINT_BYTES_MAX,
    INPUTS_MAX,
    EntriesPortion,
    History,
    Known,
    Note,
    Place,
    Portion,
)
from logengine.resume.lines import (
    LineReader,
    StreamReader,
    begins_as,
    identify,
    input_name,
    place_at_start,
    resumed_offset,
    skip_lines,
)
from logengine.resume.log_file import LogFiles, opened, pieces, skip_to
from logengine.resume.recognition import Step, plan_reading
from logengine.resume.state_file import StateFile

# A larger file of notes is rewritten without the notes on durable records.
_STATE_BYTES_MAX = 4 * 1024 * 1024


class Sender(Protocol):
    """The part of `AsyncClient` that is used here."""

    @property
    def acked(self) -> int:
        """How many of the records given to it are durable."""

    @property
    def pending_bytes(self) -> int:
        """The size of the other records, in bytes."""

    @property
    def max_record(self) -> int:
        """The size of the longest record that the daemon accepts, in bytes."""

    async def resumed_at(self) -> int:
        """Returns the number of the last durable record of earlier runs."""

    async def send_lines(self, lines: bytes) -> int:
        """Accepts complete lines."""

    async def flush(self) -> None:
        """Waits until everything is durable."""


Convert = Callable[[str, bytes], bytes]


class ResumedSending:
    """One run. `form` is the format of the inputs, `convert` turns their lines into records.

    `read_pipe` reads inputs that are not regular files, `-` for standard input.
    `records_of_stream` returns how many records the stream ever had, if that can be known. `report`
    is called with lines for the user: where the run continues, and why.
    """

    def __init__(
        self,
        client: Sender,
        state: StateFile,
        *,
        form: str,
        convert: Convert,
        anew: bool,
        read_pipe: Callable[[str], AsyncIterator[bytes]],
        records_of_stream: Callable[[], int | None],
        progress: Callable[[int], None],
        report: Callable[[str], None],
    ) -> None:
        self._client = client
        self._state = state
        self._form = form
        self._convert = convert
        self._anew = anew
        self._read_pipe = read_pipe
        self._records_of_stream = records_of_stream
        self._progress = progress
        self._report = report
        self._name = state.header.producer
        self._stored = 0  # how many records of earlier runs the daemon has
        self._last = 0  # the number of the last noted record
        self._history = History(state.header)
        self._is_written = False  # whether the file matches the history
        self._inputs = 0
        self._read_bytes = 0
        self._begun: list[tuple[Place, bool]] = []
        self.skipped = 0

    async def run(self, names: Sequence[str]) -> None:
        """Sends what is new in the inputs; on return, all of it is durable or was refused.

        Raises `AnotherInput`, `MalformedInput`, `DamagedResumeState`, and what the client raises.
        """
        if len(names) > INPUTS_MAX:
            raise InvalidOption(
                f"{len(names):,} inputs: --resume remembers at most {INPUTS_MAX:,}; give the "
                "others to a separate run with its own name"
            )
        self._stored = await self._client.resumed_at()
        known = self._know()
        self._inputs = max((place.input for place in known.places), default=0)
        try:
            await self._read_all(names, known)
        except (AnotherInput, MalformedInput, OSError):
            # What was read before the error is stored all the same.
            await self._flush()
            raise
        await self._flush()
        if self._last < self._stored:
            raise AnotherInput(
                f"the input has {self._last:,} lines, but the daemon has {self._stored:,} records "
                f"of {self._name}: this is not the input in which it stopped. --resume-anew stores "
                "it from its start"
            )
        is_new = self._history.fold(self._last)
        for place, replaces in self._begun:
            is_new |= self._history.add_begun(place, replaces=replaces)
        if is_new:
            await asyncio.to_thread(self._state.write, self._history)
        self._progress(self._read_bytes)

    async def _flush(self) -> None:
        with contextlib.suppress(NotDurable):  # the caller counts and reports what was refused
            await self._client.flush()

    def _know(self) -> Known:
        """Returns what is stored of the inputs, from the notes or, without any, from the count."""
        history = self._state.read()
        if history is None:
            if self._stored and not self._anew:
                self._report(
                    f"there are no notes on where {self._name} stopped ({self._state.path}): "
                    f"continuing by count, after {self._stored:,} records. This is right only if "
                    "the input begins where it did then"
                )
            self._begin(0 if not self._anew else self._stored)
            return self._history.at(self._history.base)
        stored = self._stored
        if history.base <= stored <= history.last:
            self._history = history
        elif stored == 0 and history.base == history.last:
            self._history = self._forgotten(history)
        elif self._anew:
            self._begin(stored)
        else:
            raise AnotherInput(
                f"the daemon has {stored:,} records of {self._name}, but according to "
                f"{self._state.path} it should have {_range(history)}: another sender has used the "
                "name, or an older state of either was restored. --resume-anew or another NAME "
                "stores the input from its start"
            )
        self._last = stored
        return self._history.at(stored)

    def _begin(self, base: int) -> None:
        header = msgspec.structs.replace(self._state.header, base=base)
        self._history, self._last = History(header), base

    def _forgotten(self, history: History) -> History:
        """Returns the history for a daemon that no longer knows the name."""
        records = self._records_of_stream()
        if records is None and not self._anew:
            raise AnotherInput(
                f"the daemon no longer knows {self._name}, of which {history.base:,} records were "
                "stored: other names have displaced it, or its data is new, and this "
                "user may not ask which. --resume-anew stores the input from its start"
            )
        if records is not None and records >= history.base:
            self._report(
                f"the daemon no longer knows {self._name}, but has its stream: continuing after "
                f"the {history.base:,} records that were stored"
            )
            return history.renumbered()
        self._report(
            f"the daemon no longer knows {self._name}, and its data is new: starting at the "
            "beginning"
        )
        return History(self._state.header)

    async def _read_all(self, names: Sequence[str], known: Known) -> None:
        paths = {name: os.path.abspath(name) for name in names if os.path.isfile(name)}
        files = LogFiles()
        journals = {
            name: reader
            for name, path in paths.items()
            if (reader := entry_reader(self._form, files.first_line(path), known.entries))
        }
        steps = plan_reading(
            [path for name, path in paths.items() if name not in journals],
            known.places,
            files,
            anew=self._anew,
        )
        places = [step.place for step in steps if step.place is not None]
        self._history.touch({place.input for place in places})
        self.skipped += sum(place.lines_stored for place in places)
        for name in dict.fromkeys(names):
            with naming(name):
                if name not in paths:
                    await self._read_pipe_input(name, known)
                elif name in journals:
                    await self._read_journal(journals[name], _chunks_of(paths[name]))
                else:
                    for step in steps:
                        if step.belongs_to == paths[name]:
                            await self._read_file(step, files)

    async def _read_file(self, step: Step, files: LogFiles) -> None:
        path, place = step.path, step.place
        with opened(path) as (file, inode):
            if inode != files.inode(path):
                raise AnotherInput(f"{path} was rotated just now; run this again")
            head, open_line = b"", None
            if place is None:
                self._inputs += 1
                head = file.read(FINGERPRINT_BYTES_MAX)
                identity = identify(step.belongs_to, inode, head)
                reader = LineReader(self._inputs, identity, self._line_bytes_max)
                self._begun.append((place_at_start(self._inputs, identity), step.is_anew))
            else:
                skip_to(file, resumed_offset(place))
                if place.is_open and place.done:
                    head = file.read(place.stop - place.start)
                    open_line = head
                if path != step.belongs_to:
                    self._report(f"{step.belongs_to} was rotated: continuing in {path}")
                reader = LineReader(
                    place.input,
                    place.identity,
                    self._line_bytes_max,
                    place=place,
                    open_line=open_line,
                )
            for piece in itertools.chain((head,), pieces(file)):
                await self._send(path, reader.receive(piece))
            await self._send(path, reader.end())
        self._report_open_line(path, reader)

    async def _read_pipe_input(self, name: str, known: Known) -> None:
        path = name if name == "-" else os.path.abspath(name)
        places = (each for each in known.places if each.identity.path == path)
        place = max(places, key=lambda each: each.input, default=None)
        wanted = place.identity.length if place is not None else 0
        start, chunks = await _peek(
            self._read_pipe(name),
            lambda start: (
                len(start) >= wanted
                and (b"\n" in start.lstrip() or len(start) >= self._line_bytes_max)
            ),
        )
        first_line = start.lstrip().partition(b"\n")[0]
        journal = entry_reader(self._form, first_line, known.entries)
        if journal is not None:
            await self._read_journal(journal, chunks)
        elif place is not None and self._anew and not begins_as(start, place):
            await self._read_stream(path, None, chunks)
        else:
            await self._read_stream(path, place, chunks)

    async def _read_stream(
        self, path: str, place: Place | None, chunks: AsyncIterator[bytes]
    ) -> None:
        if place is None:
            self._inputs += 1
        number = self._inputs if place is None else place.input
        reader = StreamReader(number, path, self._line_bytes_max, place)
        async for chunk in chunks:
            for portion in reader.receive(chunk):
                await self._send(path, portion)
        for portion in reader.end():
            await self._send(path, portion)
        if place is not None and reader.has_passed:
            self.skipped += place.lines_stored
        self._report_open_line(input_name(path), reader)

    async def _read_journal(self, reader: EntryReader, chunks: AsyncIterator[bytes]) -> None:
        async for chunk in chunks:
            await self._send(None, reader.receive(chunk))
        await self._send(None, reader.end())
        self.skipped += reader.skipped

    async def _send(self, name: str | None, portion: Portion | EntriesPortion | None) -> None:
        """Sends a portion once its note is durable; `name` is its input, None for a journal."""
        if portion is None:
            return
        first = self._last + 1
        self._last += portion.count
        note = portion.note(first)
        self._history.add(note)
        self._read_bytes += len(portion.lines)
        if self._last <= self._stored:
            self.skipped += portion.count
            return
        lines = portion.lines if name is None else self._convert(name, portion.lines)
        already = max(0, self._stored + 1 - first)
        self.skipped += already
        await asyncio.to_thread(self._keep, note)
        await self._client.send_lines(skip_lines(lines, already))
        self._progress(self._read_bytes - self._client.pending_bytes)

    def _keep(self, note: Note) -> None:
        if self._is_written and self._state.bytes < _STATE_BYTES_MAX:
            self._state.append(note)
            return
        if self._is_written:
            self._history.fold(self._stored + self._client.acked)
        self._state.write(self._history)
        self._is_written = True

    @property
    def _line_bytes_max(self) -> int:
        return self._client.max_record + 2  # refused even if it ends with CR

    def _report_open_line(self, name: str, reader: LineReader | StreamReader) -> None:
        if reader.stored_without_end:
            self._report(
                f"the last line of {name} had no newline when it was stored, and has grown since: "
                "stored again, whole"
            )


def _range(history: History) -> str:
    if history.base == history.last:
        return f"{history.base:,}"
    return f"{history.base:,} to {history.last:,}"


async def _peek(
    chunks: AsyncIterator[bytes], is_enough: Callable[[bytes], bool]
) -> tuple[bytes, AsyncIterator[bytes]]:
    """Returns the start of an input, as much as is enough, and all of it, start included."""
    start = b""
    async for chunk in chunks:
        start += chunk
        if is_enough(start):
            break

    async def whole() -> AsyncIterator[bytes]:
        if start:
            yield start
        async for chunk in chunks:
            yield chunk

    return start, whole()


async def _chunks_of(path: str) -> AsyncIterator[bytes]:
    with opened(path) as (file, _):
        for piece in pieces(file):
            yield piece
