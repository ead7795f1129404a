"""Where a client keeps on disk what it cannot hold or send: a small data directory.

    SPOOL/web-1-4f9d0c…/.lock                               one client at a time
    SPOOL/web-1-4f9d0c…/spool.json                          whose it is, and its numbering
    SPOOL/web-1-4f9d0c…/app/00000000000000000001.ndjson     segments, by place, as sent

The segments are written as the daemon writes its own, so `logengine cat --data` reads them,
and a kill or a power cut leaves whole ones. Records are removed, segment by segment, when the
daemon has them. Blocking calls.

What makes sending exact: before anything of the spool is sent, its numbering is durable. So a
process that finds records here knows the numbers under which another one may have sent them.

What is damaged is moved to `.damaged` beside the segments, said once, and what is whole in it
takes its place: the application is to start, and to log, whatever a disk did.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

import msgspec

from logengine.client.descriptors import Descriptor
from logengine.client.mending import whole_parts
from logengine.client.outbox import NEVER_SENT, Chunk, Numbering
from logengine.disk.atomic import AtomicWriter, is_temp_name
from logengine.disk.directory import create_directory, sync_directory
from logengine.disk.durable_names import DurableNames
from logengine.disk.segment_file import list_segments, read_header, read_provable, read_segment
from logengine.errors import DamagedSegment, SpoolInUse
from logengine.format.record import split_lines
from logengine.format.segment import segment_name
from logengine.format.timestamp import format_timestamp
from logengine.store.plan import BodyDigest, SegmentPlan
from logengine.store.stream import SegmentWriter

_LOCK_NAME = ".lock"
_DAMAGED_NAME = ".damaged"  # no stream's, which begin otherwise
_STATE_NAME = "spool.json"
_DIRECTORY_MODE = 0o700
_DIRECT_ABOVE_BYTES = 256 * 1024
_READABLE_CHARACTERS = 40


class _State(msgspec.Struct, frozen=True):
    stream: str
    producer: str
    adoptable: bool
    numbering: Numbering = NEVER_SENT


class _Segment(msgspec.Struct, frozen=True):
    first: int
    last: int
    bytes: int


class Spool:
    """The records of one producer of one stream that are on disk, by place.

    Opened by `open`, held by a lock until `close`. `bytes` is what their lines take.
    """

    def __init__(
        self, path: Path, lock: int, state: _State, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        self._tell = tell
        self.path = path
        self._lock = Descriptor(lock)
        self._directory = path / state.stream
        self._stored = state
        self._is_stored = False
        self._segments: list[_Segment] = []
        self.bytes = 0

    @classmethod
    def open(
        cls,
        spools: Path,
        stream: str,
        producer: str,
        *,
        adoptable: bool = False,
        tell_damage: Callable[[str], None] = lambda _: None,
    ) -> Self:
        """The spool of a producer below `spools`, made if there is none.

        An `adoptable` one is of a process whose name no other will have: what it leaves may be
        sent by anybody. What is damaged `tell_damage` hears of, now or when it is read. Raises
        `SpoolInUse` if another client has it, and `OSError`.
        """
        path = spools / _directory_name(stream, producer)
        spool = cls(path, _lock(path), _State(stream, producer, adoptable), tell_damage)
        try:
            spool._load()
        except BaseException:
            spool._lock.close()
            raise
        return spool

    @property
    def first(self) -> int:
        """The place of the first record; 1 if there is none."""
        return self._segments[0].first if self._segments else 1

    @property
    def last(self) -> int:
        """The place of the last record; 0 if there is none."""
        return self._segments[-1].last if self._segments else 0

    @property
    def numbering(self) -> Numbering:
        """What earlier processes knew of the numbers of what is here, for an `Outbox`."""
        known = self._stored.numbering
        if not self._segments or known.offset is None:
            return NEVER_SENT
        # Whoever wrote these may have sent them; what is yet to come was sent by nobody.
        return Numbering(known.offset, self.last if known.until is None else known.until)

    @property
    def numbering_kept(self) -> Numbering | None:
        """What is on disk of the numbering, if anything is."""
        return self._stored.numbering if self._is_stored else None

    def keep_numbering(self, numbering: Numbering) -> None:
        """Makes `numbering` durable, if it is not. Raises `AtomicWriteError`."""
        if self.numbering_kept == numbering:
            return
        self._hold()
        state = msgspec.structs.replace(self._stored, numbering=numbering)
        with AtomicWriter(self.path / _STATE_NAME, "wb", buffering=0, permissions=0o600) as writer:
            writer.write(msgspec.json.encode(state) + b"\n")
        self._stored = state
        self._is_stored = True

    def add(self, chunks: Sequence[Chunk], numbering: Numbering) -> None:
        """Keeps `chunks`, neighbours that begin behind `last` or, if all before is durable, later.

        Durable when it returns. Raises `AtomicWriteError`; nothing of them is here then.
        """
        self._hold()
        if self._segments and chunks[0].first > self.last + 1:
            self.release(self.last)  # it is durable, or what is between could not be
        self.keep_numbering(numbering)
        create_directory(self._directory, _DIRECTORY_MODE)
        self._segments.append(self._write(chunks))
        self.bytes += self._segments[-1].bytes

    def _write(self, chunks: Sequence[Chunk]) -> _Segment:
        segment = _Segment(
            chunks[0].first, chunks[-1].last, sum(len(chunk.lines) for chunk in chunks)
        )
        writer = SegmentWriter(
            self.path,
            _plan(self._stored.stream, segment, chunks),
            # No note: after a failed sync it is removed below, or written again by `_load`.
            names=DurableNames(note=lambda _: None),
            direct_above=_DIRECT_ABOVE_BYTES,
        )
        try:
            writer.publish()
        except BaseException:
            writer.abort()
            # Its name may be visible already, but is not known to be durable.
            with contextlib.suppress(OSError):
                os.unlink(self._directory / segment_name(segment.first))
            raise
        return segment

    def read(self, place: int) -> Chunk | None:
        """The records from `place` to the end of the segment that holds it; None if none does.

        Raises `OSError`.
        """
        self._hold()
        segment = self._holder(place)
        if segment is None:
            return None
        try:
            _, body = read_segment(self._directory, segment.first)
        except DamagedSegment as damage:
            self._segments.remove(segment)
            self.bytes -= segment.bytes
            self._mend(segment.first, segment.last, damage)
            return self.read(place)
        return Chunk(segment.first, segment.last, body).behind(place - 1)

    def gap_behind(self, place: int, until: int) -> int:
        """The last of the lost records behind `place`, at most `until`; `place` if none is."""
        if self._holder(place + 1) is not None:
            return place
        following = [segment.first for segment in self._segments if segment.first > place]
        return min([until, *(first - 1 for first in following)])

    def _holder(self, place: int) -> _Segment | None:
        for segment in reversed(self._segments):
            if segment.first <= place:
                return segment if place <= segment.last else None
        return None

    def releases(self, acked: int) -> bool:
        """Whether `release` would remove anything."""
        return bool(self._segments) and self._segments[0].last <= acked

    def release(self, acked: int) -> None:
        """Removes the segments of which all is durable, up to place `acked`. Raises `OSError`.

        One at a time: after a power cut no older one may be there without those behind it,
        nor any of them under a numbering that came later.
        """
        self._hold()
        while self.releases(acked):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._directory / segment_name(self._segments[0].first))
            sync_directory(self._directory)
            self.bytes -= self._segments.pop(0).bytes

    def close(self) -> None:
        """Lets go of the spool; an empty one is removed."""
        if not self._segments:
            with contextlib.suppress(OSError):
                self._remove()
        self._lock.close()

    def _remove(self) -> None:
        if _remove_if_empty(self._directory):
            # Else a segment whose removal was lost could come back without its numbering.
            sync_directory(self.path)
        for remove, path in (
            (os.unlink, self.path / _STATE_NAME),
            (os.unlink, self.path / _LOCK_NAME),
            (os.rmdir, self.path),
        ):
            with contextlib.suppress(OSError):
                remove(path)

    def forget(self) -> None:
        """Closes it in a process that was forked, where it still is the parent's."""
        self._lock.close()

    def _load(self) -> None:
        """Finds what is here.

        A sync may have failed in the process before this one, and that may have been killed before
        it could act on it. The next sync says ok and does not bring back what the first one lost.
        So what was the last to be written is written once more: the newest segment here, and the
        numbering before it is needed (`_is_stored` stays False). Where all segments were removed,
        a new directory cannot bring any of them back.
        """
        for directory in (self.path, self._directory):
            _remove_temps(directory)
        if _remove_if_empty(self._directory):
            sync_directory(self.path)
        try:
            self._stored = _read_state(self.path)
        except FileNotFoundError:
            pass
        except DamagedSegment as damage:
            self._put_aside(self.path / _STATE_NAME)
            os.unlink(self.path / _STATE_NAME)
            self._tell(f"{damage}; what it counted may be sent twice, it was moved aside")
        firsts: list[int] = []
        with contextlib.suppress(FileNotFoundError):
            firsts = list_segments(self._directory)
        for first in firsts:
            if first <= self.last:
                continue  # already there, out of a damaged one
            try:
                header = read_header(self._directory, first)
            except DamagedSegment as damage:
                last = min((other - 1 for other in firsts if other > first), default=None)
                self._mend(first, last, damage)
                continue
            self._segments.append(_Segment(first, header.last, header.bytes))
            self.bytes += header.bytes
        if firsts:
            # A process that was killed may have left names that are not durable.
            sync_directory(self._directory)
            sync_directory(self.path)
        if self._segments:
            self._write_newest_again()

    def _write_newest_again(self) -> None:
        path = self._directory / segment_name(self._segments[-1].first)
        try:
            content = path.read_bytes()
            with AtomicWriter(path, "wb", buffering=0) as writer:
                writer.write_buffers([content])
        except OSError as error:
            # As on a full disk. The application is to start all the same.
            self._tell(f"{error}; a power cut may lose what {path} holds, which is being sent")

    def _mend(self, first: int, last: int | None, damage: DamagedSegment) -> None:
        """Puts what is whole in a damaged segment in its place, and the file aside."""
        path = self._directory / segment_name(first)
        parts: list[Chunk] = []
        with contextlib.suppress(OSError):  # then nothing of it can be had
            header = read_provable(self._directory, first, compressed=False).header
            if header is not None and header.last >= first:
                last = header.last
            parts = whole_parts(path.read_bytes(), first, last, is_header_whole=header is not None)
        self._put_aside(path)
        # The last one first: the damaged one is replaced by the first, and found again till then.
        written = [self._write([part]) for part in reversed(parts)]
        if not parts or parts[0].first != first:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            sync_directory(self._directory)
        self._segments = sorted([*self._segments, *written], key=lambda segment: segment.first)
        self.bytes += sum(segment.bytes for segment in written)
        whole = sum(part.last + 1 - part.first for part in parts)
        lost = "" if last is None else f" of {last + 1 - first}"
        self._tell(
            f"{damage}; {whole}{lost} records in it are whole and are sent, "
            f"it is kept in {self.path / _DAMAGED_NAME}"
        )

    def _put_aside(self, path: Path) -> None:
        """Keeps a damaged file under another name, too."""
        kept = self.path / _DAMAGED_NAME
        create_directory(kept, _DIRECTORY_MODE)
        with contextlib.suppress(FileExistsError):
            os.link(path, kept / f"{path.name}.{os.stat(path).st_ino}")
        sync_directory(kept)

    def _hold(self) -> None:
        """The lock is still held: an application may have closed it with all it did not know."""
        if not self._lock.is_ours:
            self._lock = Descriptor(_lock(self.path))


def orphans(spools: Path) -> Iterator[tuple[str, str]]:
    """Stream and producer of each spool below `spools` that has records and may be adopted.

    Some may be in use: opening one tells.
    """
    with contextlib.suppress(OSError):
        for path in sorted(spools.iterdir()):
            with contextlib.suppress(OSError, DamagedSegment):
                state = _read_state(path)
                if state.adoptable and list_segments(path / state.stream):
                    yield state.stream, state.producer


def _read_state(path: Path) -> _State:
    text = (path / _STATE_NAME).read_bytes()
    try:
        return msgspec.json.decode(text, type=_State)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DamagedSegment(
            str(path / _STATE_NAME), f"not the state of a spool: {error}"
        ) from None


def _directory_name(stream: str, producer: str) -> str:
    """A name that tells people whose it is, and is no other's, whatever a producer is called."""
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", f"{stream}-{producer}")[:_READABLE_CHARACTERS]
    digest = hashlib.sha256(f"{stream}\0{producer}".encode("utf-8", "surrogatepass"))
    return f"{readable}-{digest.hexdigest()[:16]}"


def _remove_temps(directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        for name in filter(is_temp_name, os.listdir(directory)):
            os.unlink(directory / name)


def _remove_if_empty(path: Path) -> bool:
    """Takes away a directory, to be made anew when it is needed; whether it did."""
    try:
        os.rmdir(path)
    except OSError:
        return False
    return True


def _lock(path: Path) -> int:
    while True:
        _remove_if_empty(path)  # the sync of its name may have failed
        create_directory(path, _DIRECTORY_MODE)
        try:
            descriptor = os.open(path / _LOCK_NAME, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # removed by a client that ended just now
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            there = os.stat(path / _LOCK_NAME)
            if os.path.samestat(os.fstat(descriptor), there):
                return descriptor
            os.close(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            raise SpoolInUse(
                f"{path} is in use by another client of the same producer; "
                "give each producer a name of its own"
            ) from None
        except FileNotFoundError:
            os.close(descriptor)


def _plan(stream: str, segment: _Segment, chunks: Sequence[Chunk]) -> SegmentPlan:
    now = format_timestamp(time.time_ns())
    # Blank lines are no records, and a stored segment has none.
    lines = [b"".join(line + b"\n" for line in split_lines(chunk.lines)) for chunk in chunks]
    return SegmentPlan(
        stream=stream,
        begins_stream=False,
        first=segment.first,
        count=segment.last + 1 - segment.first,
        chunks=lines,
        since=now,
        until=now,
        latest=now,
        producers={},
        body_bytes=sum(map(len, lines)),
        digest=BodyDigest(lines),
    )
