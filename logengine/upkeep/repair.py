"""Repairs a damaged stream: moves damaged files away and records missing numbers as gaps.

    DATA/.damaged/app-20261125T200000.000123Z-00000000000000000412.ndjson           as it was
    DATA/.damaged/app-20261125T200000.000123Z-00000000000000000412.ndjson.salvaged  its lines
    DATA/.damaged/app-20261125T200000.000123Z-00000000000000000412.ndjson.report    what and why

Records that the damaged files prove are put back into the stream under their own numbers. Nothing
is deleted: a damaged file has a durable second name before anything else takes its first one. If
the repair is killed at any point, the stream is as damaged as before or less, and no number would
be given out again; another run finishes the repair.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import msgspec
from msgspec import UNSET

from logengine.disk.atomic import AtomicWriter, is_temp_name
from logengine.disk.directory import Directory, create_directory
from logengine.disk.durable_names import DurableNames
from logengine.disk.segment_file import SEGMENT_BYTES_MAX, Provable, ProvenFrame, read_provable
from logengine.errors import AtomicWriteError, DamagedSegment, RepairRefused, UnreadableSegment
from logengine.format.block import Block
from logengine.format.compression import (
    RecordFrame,
    compress_body,
    encode_compressed_header,
    encode_compressed_line,
    record_frame,
    with_frames,
)
from logengine.format.json_object import fault_of_line
from logengine.format.segment import (
    COMPRESSED_SUFFIX,
    Frame,
    Header,
    body_sha256,
    encode_header,
    first_of_name,
    timestamp_of,
)
from logengine.upkeep.repair_plan import Examined, FileRemoval, Piece, RepairPlan, Span, plan_repair
from logengine.upkeep.salvage import SalvageReport, encode_salvage, salvage
from logengine.upkeep.verify import check_segment

DAMAGED_DIRECTORY = ".damaged"
# Unreadable parts are skipped in steps of this size, the block size of most disks.
_BLOCK_BYTES = 4096
_READ_BYTES = 1024 * 1024
# How much of a file is looked at that is larger than any segment.
_OF_TOO_LARGE_BYTES = 64 * 1024 * 1024
_LEVEL = 3


def examine_stream(
    directory: Path, when: str, *, unreadable_is_damaged: bool = False
) -> RepairPlan:
    """Returns what repairing a stream at the time `when` would do; reads every byte.

    Raises `OSError`, and `RepairRefused` for a file that the disk cannot read now, unless
    `unreadable_is_damaged`.
    """
    files = []
    for name in _names_in(directory):
        first = first_of_name(name)
        if first is not None:
            compressed = name.endswith(COMPRESSED_SUFFIX)
            file, damage = _examine(directory, first, compressed=compressed)
            if isinstance(damage, UnreadableSegment) and not unreadable_is_damaged:
                raise RepairRefused(
                    f"{damage}; it may be whole, so its stream was not repaired. Try again later. "
                    "If the disk can never read it again, add --unreadable-is-damaged: this moves "
                    f"the file to {DAMAGED_DIRECTORY} and records its records as gone"
                )
            files.append(file)
    return plan_repair(directory.name, files, when)


def temps_in(directory: Path) -> list[str]:
    """Returns the temps that killed writers left. Raises `OSError`."""
    return [name for name in _names_in(directory) if is_temp_name(name)]


def _names_in(directory: Path) -> list[str]:
    with Directory.open_itself(directory) as within:
        return sorted(within.names())


class Repair:
    """The repair of one stream of a locked data directory, at the time `when`.

    `tell` is called with a line for each action once it is durable. After a failed sync, `names`
    allows no further removal from the stream. With `unreadable_is_damaged`, a file that the disk
    cannot read is moved away like a damaged one.
    """

    def __init__(
        self,
        data: Path,
        stream: str,
        when: str,
        tell: Callable[[str], None],
        *,
        names: DurableNames,
        unreadable_is_damaged: bool = False,
    ) -> None:
        self._names = names
        self._unreadable_is_damaged = unreadable_is_damaged
        self._data = data
        self._stream = stream
        self._directory = data / stream
        self._damaged = data / DAMAGED_DIRECTORY
        self._when = when
        self._tell = tell

    def run(self) -> None:
        """Does the whole repair; durable on return.

        Raises `OSError`, and what was done until then stays done; or `RepairRefused`, before
        anything was done.
        """
        # Renames that a killed process did not sync must be durable before anything relies on them.
        self._sync()
        plan = examine_stream(
            self._directory, self._when, unreadable_is_damaged=self._unreadable_is_damaged
        )
        temps = temps_in(self._directory)
        if not (plan.removals or plan.gaps or plan.pieces or temps):
            return
        for name, own_name in plan.links:
            self._name(name, own_name)
        if plan.removals or temps:
            create_directory(self._damaged)
            self._remove_own_temps()
        for removal in plan.removals:
            self._keep_segment(removal)
        for temp in temps:
            self._keep(temp)
        self._write_new(plan)
        for removal in reversed(plan.removals):
            if not plan.replaces(removal):
                self._remove(removal.file.name)
        for temp in temps:
            self._remove(temp)

    def _write_new(self, plan: RepairPlan) -> None:
        # Newest first: while a damaged file still has its first name, it shows at least as much of
        # the numbers given out as the new segments after it, and contains their records.
        written: list[Header | Piece] = sorted([*plan.gaps, *plan.pieces], key=_first_of)
        for each in reversed(written):
            if isinstance(each, Piece):
                self._put_back(each)
            else:
                self._record(each)

    def _name(self, name: str, own_name: str) -> None:
        """Gives a whole file the name that matches its header, in addition to its own."""
        path = self._directory / name
        try:
            with self._opened() as directory:
                directory.link(name, own_name)
        except OSError as error:
            raise AtomicWriteError.of(error, str(path), f"give the name {own_name} to") from error
        self._sync()
        self._tell(f"{path}: is {own_name} by its header, and has that name now")

    def _remove_own_temps(self) -> None:
        """Removes temps of reports that a killed repair left; a stream's own temps are kept."""
        with self._opened_damaged() as damaged:
            for name in filter(is_temp_name, damaged.names()):
                damaged.unlink(name)

    def _keep_segment(self, removal: FileRemoval) -> None:
        file = removal.file
        kept_as = self._keep(file.name)
        told = f"{self._stream}/{file.name}: kept as {self._damaged / kept_as}: {removal.why}"
        with self._opened_damaged() as damaged:
            content = _read_what_can_be(damaged, kept_as) if damaged.is_file(kept_as) else None
        if removal.leftover or content is None:
            self._tell(told)
            return
        found = salvage(
            content,
            file.first,
            file.header,
            compressed=file.is_compressed,
        )
        report = SalvageReport.of(
            found,
            stream=self._stream,
            file=file.name,
            kept_as=kept_as,
            when=self._when,
            why=removal.why,
            first=file.first,
            header=file.header,
        )
        self._write(f"{kept_as}.salvaged", encode_salvage(found, self._stream))
        self._write(f"{kept_as}.report", [report.encode()])
        proven = sum(line.is_proven for line in found.lines)
        proof = f", {proven} of them proven to be as they were stored" if proven else ""
        self._tell(f"{told}; {len(found.lines)} of its lines are whole{proof}")

    def _keep(self, name: str) -> str:
        """Gives a file of the stream a durable second name, unless it has one; returns it."""
        with self._opened() as directory, self._opened_damaged() as damaged:
            found = directory.stat(name, follow_links=False)
            kept_as = self._name_of(name, found, damaged)
            if kept_as is None:
                kept_as = f"{self._stream}-{_compact(self._when)}-{name}"
                # A directory can have only one name, and a segment cannot replace it there.
                keep = directory.move if stat.S_ISDIR(found.st_mode) else directory.link
                try:
                    keep(name, kept_as, damaged)
                except OSError as error:
                    path = directory.path_of(name)
                    raise AtomicWriteError.of(error, path, "move into .damaged") from error
            damaged.sync()
        return kept_as

    def _name_of(self, name: str, found: os.stat_result, damaged: Directory) -> str | None:
        """Returns the second name that an earlier, killed repair gave a file, or None."""
        for other in damaged.names():
            if (
                other.startswith(f"{self._stream}-")
                and other.endswith(f"-{name}")
                and os.path.samestat(found, damaged.stat(other, follow_links=False))
            ):
                return other
        return None

    def _write(self, name: str, lines: Iterable[bytes]) -> None:
        with AtomicWriter(
            self._damaged / name, "wb", buffering=0, open_directory=self._opened_damaged
        ) as writer:
            writer.write_buffers(list(lines))

    def _replacing(self, path: Path) -> AtomicWriter:
        # Whatever has the name now, even a link or FIFO, has a second one: replaced, not followed.
        return AtomicWriter(
            path,
            "wb",
            buffering=0,
            permissions=0o640,
            open_directory=partial(Directory.open_itself, path.parent),
        )

    def _put_back(self, piece: Piece) -> None:
        header = piece.header
        path = self._directory / header.file_name
        with self._names.published_by(self._replacing(path), self._stream) as writer:
            writer.write_buffers(_render(self._directory, piece))
        self._tell(f"{path}: written with records {header.first} to {header.last}")

    def _record(self, gap: Header) -> None:
        path = self._directory / gap.file_name
        with self._names.published_by(self._replacing(path), self._stream) as writer:
            writer.write(encode_header(gap))
        assert gap.gap
        self._tell(f"{path}: records {gap.first} to {gap.gap.last} are recorded as gone")

    def _remove(self, name: str) -> None:
        """Removes a file's first name; its second one is durable."""
        with self._opened() as directory:
            self._names.remove(directory, name)  # a directory's name is already gone

    def _sync(self) -> None:
        with self._opened() as directory:
            self._names.sync(directory)

    def _opened(self) -> Directory:
        return Directory.open_itself(self._directory)

    def _opened_damaged(self) -> Directory:
        return Directory.open_itself(self._damaged)


def _first_of(written: Header | Piece) -> int:
    return written.header.first if isinstance(written, Piece) else written.first


def _examine(
    directory: Path, first: int, *, compressed: bool
) -> tuple[Examined, DamagedSegment | None]:
    """Returns what a file contains, and its damage as a file, if any."""
    found = _read_provable(directory, first, compressed=compressed)
    return _examined(first, found, str(directory), compressed=compressed), found.damage


def _examined(first: int, found: Provable, path: str, *, compressed: bool) -> Examined:
    header = found.header
    if header is None:
        return Examined(first, compressed, None, found.damage.reason if found.damage else None)
    damage = found.damage.reason if found.damage else None
    is_complete = sum(frame.records for frame in found.frames) == header.count
    is_true = False  # whether what the header says about its records is true
    if is_complete:
        body = b"".join(frame.body for frame in found.frames)
        findings = check_segment(header, body, path)
        fault = next((each.what for each in findings), None)
        is_true = fault is None and body_sha256(body) == header.sha256
        # Frames without an index cannot be checked one by one, and are compressed again.
        is_true &= header.frames is UNSET or header.index is not UNSET
        damage = damage or fault
    if damage is None:
        return Examined(first, compressed, header, None, found.line)
    spans = tuple(_spans(found.frames))
    return Examined(first, compressed, header, damage, found.line, spans, is_intact=is_true)


def _read_provable(directory: Path, first: int, *, compressed: bool) -> Provable:
    """Calls `read_provable`, twice if something is damaged: a disk may fail intermittently."""
    found = read_provable(directory, first, compressed=compressed)
    if found.damage is None:
        return found
    again = read_provable(directory, first, compressed=compressed)
    if again.damage is None:
        return again
    # If both or neither have a header, the one that the disk could read says what is damaged.
    better = min(
        (found, again),
        key=lambda each: (each.header is None, isinstance(each.damage, UnreadableSegment)),
    )
    if better.header is None:
        return better
    frames = {frame.first: frame for frame in [*found.frames, *again.frames]}
    return better._replace(frames=[frames[seq] for seq in sorted(frames)])


def _spans(frames: Iterable[ProvenFrame]) -> Iterator[Span]:
    """Yields the valid records in some frames as spans of consecutive ones."""
    span: Span | None = None
    for frame in frames:
        lines = frame.body.split(b"\n")
        if lines.pop() or len(lines) != frame.records:
            continue  # not as many lines as the header says: their numbers are unknown
        for seq, line in enumerate(lines, frame.first):
            if fault_of_line(line) is not None:
                continue
            time = timestamp_of(line)
            if span is not None and seq == span.last + 1:
                span = Span(span.first, seq, min(span.since, time), max(span.until, time))
                continue
            if span is not None:
                yield span
            span = Span(seq, seq, time, time)
    if span is not None:
        yield span


def _render(directory: Path, piece: Piece) -> list[bytes]:
    """Returns the bytes of a segment to be written, in pieces. Raises `OSError`."""
    source, header = piece.source, piece.header
    found = _read_provable(directory, source.first, compressed=source.is_compressed)
    frames = [
        frame for frame in found.frames if frame.first <= header.last and header.first <= frame.last
    ]
    blocks = [
        Block(header.stream, frame.first, frame.records, frame.body)
        .begin_at(header.first)
        .end_before(header.last + 1)
        for frame in frames
    ]
    if sum(block.count for block in blocks) != header.count:
        path = str(directory / source.name)
        raise AtomicWriteError.of(OSError(errno.EIO, os.strerror(errno.EIO)), path, "read again")
    body = b"".join(block.body for block in blocks)
    if piece.line is not None and header.frames is UNSET:
        return [piece.line, body]
    if piece.line is not None and all(frame.stored is not None for frame in frames):
        stored = [frame.stored for frame in frames if frame.stored is not None]
        return [encode_compressed_line(piece.line), *stored]
    header = msgspec.structs.replace(header, bytes=len(body), sha256=body_sha256(body))
    times = [timestamp_of(line) for line in body.split(b"\n")[:-1]]
    if times:
        header = msgspec.structs.replace(header, since=min(times), until=max(times))
    if header.frames is UNSET:
        return [encode_header(header), body]
    made: list[RecordFrame] = []
    for frame, block in zip(frames, blocks, strict=True):
        if frame.stored is not None and block.count == frame.records:
            stored_as = Frame(len(frame.stored), len(frame.body), frame.records)
            made.append(record_frame(frame.stored, stored_as, frame.body))
        else:
            made += compress_body([block.body], _LEVEL)
    return [
        encode_compressed_header(with_frames(header, made)),
        *(frame.content for frame in made),
    ]


def _read_what_can_be(directory: Directory, name: str) -> bytes:
    """Returns the bytes of a file, zeros where the disk fails to read. Raises other `OSError`s.

    Of a file that is larger than any segment, returns only the start.
    """
    content = bytearray()
    descriptor = directory.open_file(name, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        if size > SEGMENT_BYTES_MAX:
            size = _OF_TOO_LARGE_BYTES
        wanted = _READ_BYTES
        while len(content) < size:
            try:
                read = os.pread(descriptor, min(wanted, size - len(content)), len(content))
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                if wanted > _BLOCK_BYTES:
                    wanted = _BLOCK_BYTES
                    continue
                read = bytes(min(_BLOCK_BYTES, size - len(content)))
            if not read:
                break
            content += read
    finally:
        os.close(descriptor)
    return bytes(content)


def _compact(timestamp: str) -> str:
    """Returns a timestamp in a form that suits a file name."""
    return timestamp.replace("-", "").replace(":", "")
