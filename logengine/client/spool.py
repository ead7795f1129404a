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
takes its place: the application is to start, and to log, whatever a disk did. What the disk
does not give just now is no damage: it stays, and whoever reads it tries again. Segments that
are gone are said once, with their numbers; so `spool.json` also tells how far they went.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

import msgspec

from logengine.client.descriptors import Descriptor
from logengine.client.gaps import Range, as_text, gaps_between, joined, without
from logengine.client.outbox import NEVER_SENT, Chunk, Numbering
from logengine.client.spool_salvage import whole_parts
from logengine.disk.atomic import AtomicWriter, is_temp_name
from logengine.disk.directory import create_directory, sync_directory
from logengine.disk.durable_names import DurableNames
from logengine.disk.segment_file import list_segments, read_header, read_provable, read_segment
from logengine.errors import DamagedSegment, SpoolInUse, UnreadableSegment
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
# How long to wait before each further try to open a spool that the disk does not give.
_PAUSES_S = (0.02, 0.1, 0.4)


class _State(msgspec.Struct, frozen=True):
    stream: str
    producer: str
    adoptable: bool
    numbering: Numbering = NEVER_SENT
    # The last place that a segment was written for, as far as that was noted; 0 if all is sent.
    last: int = 0
    missing: tuple[Range, ...] = ()  # of which it was said that they are gone


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
        self._is_state_known = False  # whether it was read
        self._segments: list[_Segment] = []
        self._missing: list[Range] = []  # what is known to be lost between them, and was said
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
        sent by anybody. What is damaged or gone `tell_damage` hears of, now or when it is read.
        Raises `SpoolInUse` if another client has it, and `OSError`. What the disk does not give
        is tried again for half a second.
        """
        path = spools / _directory_name(stream, producer)
        spool = cls(path, _lock(path), _State(stream, producer, adoptable), tell_damage)
        try:
            for pause_s in _PAUSES_S:
                try:
                    spool._load()
                except OSError as error:
                    if error.errno != errno.EIO:
                        raise
                else:
                    return spool
                time.sleep(pause_s)
            spool._load()
        except BaseException:
            spool._lock.close()
            raise
        return spool

    @property
    def begin(self) -> int:
        """The first place that is not known to be durable, of a record that is here or lost."""
        if self._is_state_known and self._stored.numbering.offset is None:
            return 1  # where nothing was ever sent, nothing was released
        return self.first

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
        self._store(msgspec.structs.replace(self._stored, numbering=numbering))

    def _store(self, state: _State) -> None:
        with AtomicWriter(self.path / _STATE_NAME, "wb", buffering=0, permissions=0o600) as writer:
            writer.write(msgspec.json.encode(state) + b"\n")
        self._stored = state
        self._is_stored = True

    def _note(self, last: int) -> None:
        """Notes how far the segments go, if that is possible: no record depends on it."""
        with contextlib.suppress(OSError):
            self._store_last(last)

    def _store_last(self, last: int) -> None:
        if not last:
            self._missing = []
        state = msgspec.structs.replace(self._stored, last=last, missing=tuple(self._missing))
        if state != self._stored:
            self._store(state)

    def add(self, chunks: Sequence[Chunk], numbering: Numbering) -> None:
        """Keeps `chunks`, neighbours that begin behind `last` or, if all before is durable, later.

        Durable when it returns. Raises `AtomicWriteError`; nothing of them is here then.
        """
        self._hold()
        if self._segments and without([(self.last + 1, chunks[0].first - 1)], self._missing):
            self.release(self.last)  # it is durable, or what is between could not be
        self.keep_numbering(numbering)
        create_directory(self._directory, _DIRECTORY_MODE)
        self._segments.append(self._write(chunks))
        self.bytes += self._segments[-1].bytes
        self._note(self.last)

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

        Raises `OSError`, also where the disk does not give them just now: nothing was changed
        then, and they are to be read again.
        """
        self._hold()
        segment = self._holder(place)
        if segment is None:
            return None
        try:
            header, body = read_segment(self._directory, segment.first)
        except FileNotFoundError:
            self._forget_removed()
            return self.read(place)
        except UnreadableSegment as error:
            raise _of_disk(error) from error
        except DamagedSegment as damage:
            self._mend(segment.first, segment.last, damage, instead_of=segment)
            self._note(self.last)
            return self.read(place)
        if header.last != segment.last:  # when its header could not be read it was guessed
            read = _Segment(segment.first, header.last, header.bytes)
            self._segments[self._segments.index(segment)] = read
            self.bytes += read.bytes - segment.bytes
            return self.read(place)
        return Chunk(segment.first, segment.last, body).behind(place - 1)

    def _forget_removed(self) -> None:
        """Forgets the segments whose files somebody removed: their places are a gap from now on."""
        for segment in list(self._segments):
            if not (self._directory / segment_name(segment.first)).exists():
                self._segments.remove(segment)
                self.bytes -= segment.bytes

    def pass_gap(self, first: int, last: int, offset: int) -> None:
        """Says once that these places cannot be sent; `offset` makes them numbers. Blocks."""
        self._tell_missing(without([(first, last)], self._missing), offset)
        self._note(self.last)

    def _tell_missing(
        self, gaps: Sequence[Range], offset: int, *, were_some_sent: bool = False
    ) -> None:
        if not gaps:
            return
        which = f"records {as_text(joined(gaps), offset)}"
        if were_some_sent:
            which = f"what was not sent yet of the records up to {gaps[-1][1] + offset}"
        self._tell(
            f"{self.path}: {which} of producer {self._stored.producer!r} cannot be sent, "
            f"somebody removed the files from {self._directory}; the rest is sent"
        )
        self._missing += gaps

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
            if len(self._segments) == 1:
                self._store_last(0)  # before it goes: nobody is to miss it
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._directory / segment_name(self._segments[0].first))
            if self._directory.exists():  # else somebody removed it, with all that was in it
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
        self._segments, self.bytes = [], 0
        for directory in (self.path, self._directory):
            _remove_temps(directory)
        if _remove_if_empty(self._directory):
            sync_directory(self.path)
        try:
            self._stored = _read_state(self.path)
            self._is_state_known = True
        except FileNotFoundError:
            pass
        except DamagedSegment as damage:
            self._put_aside(self.path / _STATE_NAME)
            os.unlink(self.path / _STATE_NAME)
            self._tell(f"{damage}; what it counted may be sent twice, it was moved aside")
        self._missing = list(self._stored.missing)
        firsts: list[int] = []
        with contextlib.suppress(FileNotFoundError):
            firsts = list_segments(self._directory)
        for first in firsts:
            if first > self.last:  # else it is already there, out of a damaged one
                self._load_segment(
                    first, min((other for other in firsts if other > first), default=None)
                )
        if firsts:
            # A process that was killed may have left names that are not durable.
            sync_directory(self._directory)
            sync_directory(self.path)
        self._find_missing()
        if not self._segments or self._write_newest_again():
            self._note(self.last)  # not before: nobody is to miss what a power cut took

    def _load_segment(self, first: int, following: int | None) -> None:
        last = None if following is None else following - 1
        try:
            header = read_header(self._directory, first)
        except FileNotFoundError:
            return  # a link to nothing
        except UnreadableSegment as error:
            if last is None and self._stored.last >= first:
                last = self._stored.last
            if last is None:
                # What comes next has to have places after its records, and those are not known.
                raise _of_disk(error) from error
            size = os.stat(self._directory / segment_name(first)).st_size
            segment = _Segment(first, last, size)
        except DamagedSegment as damage:
            self._mend(first, last, damage)
            return
        else:
            segment = _Segment(first, header.last, header.bytes)
        self._segments.append(segment)
        self.bytes += segment.bytes

    def _find_missing(self) -> None:
        """Says what is gone before the first record or after the last one.

        A gap between others is said when it is passed: what is in it may have been sent, where
        what is before it came back by a power cut.
        """
        offset = self._stored.numbering.offset
        gaps = [(self.last + 1, self._stored.last)] if self._stored.last > self.last else []
        if self.begin < self.first:
            gaps.insert(0, (self.begin, self.first - 1))
        self._tell_missing(
            without(gaps, self._missing),
            offset or 0,
            were_some_sent=offset is not None and not self._segments,
        )

    def _write_newest_again(self) -> bool:
        path = self._directory / segment_name(self._segments[-1].first)
        try:
            content = path.read_bytes()
            with AtomicWriter(path, "wb", buffering=0) as writer:
                writer.write_buffers([content])
        except OSError as error:
            # As on a full disk. The application is to start all the same.
            self._tell(f"{error}; a power cut may lose what {path} holds, which is being sent")
            return False
        return True

    def _mend(
        self,
        first: int,
        last: int | None,
        damage: DamagedSegment,
        *,
        instead_of: _Segment | None = None,
    ) -> None:
        """Puts what is whole in a damaged segment in its place, and the file aside.

        Raises `OSError`, also where the disk does not give it just now. The file is there then,
        under its name, and is to be mended again.
        """
        path = self._directory / segment_name(first)
        parts: list[Chunk] = []
        if stat.S_ISREG(os.stat(path).st_mode):  # else nobody wrote records into it
            provable = read_provable(self._directory, first, compressed=False)
            if isinstance(provable.damage, UnreadableSegment):
                raise _of_disk(provable.damage)
            header = provable.header
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
        if instead_of is not None:
            self._segments.remove(instead_of)
            self.bytes -= instead_of.bytes
        self._segments = sorted([*self._segments, *written], key=lambda segment: segment.first)
        self.bytes += sum(segment.bytes for segment in written)
        whole = sum(part.last + 1 - part.first for part in parts)
        lost = "" if last is None else f" of {last + 1 - first}"
        self._tell(
            f"{damage}; {whole}{lost} records in it are whole and are sent, "
            f"it is kept in {self.path / _DAMAGED_NAME}"
        )
        end = max(first, last or self._stored.last)
        held = [(part.first, part.last) for part in parts]
        self._missing += gaps_between(held, first, end)

    def _put_aside(self, path: Path) -> None:
        """Keeps a damaged file under another name, too; what is no file, under that alone."""
        kept = self.path / _DAMAGED_NAME
        create_directory(kept, _DIRECTORY_MODE)
        found = os.stat(path)
        aside = kept / f"{path.name}.{found.st_ino}"
        if stat.S_ISREG(found.st_mode):
            with contextlib.suppress(FileExistsError):
                os.link(path, aside)
        else:
            os.rename(path, aside)
            sync_directory(path.parent)
        sync_directory(kept)

    def _hold(self) -> None:
        """The lock is still held, and in the directory that is there.

        An application may have closed it with all it did not know, and somebody may have removed
        the spool.
        """
        if self._lock.is_ours and self._lock.is_at(self.path / _LOCK_NAME):
            return
        self._lock.close()
        self._lock = Descriptor(_lock(self.path))
        self._is_stored = self._is_stored and (self.path / _STATE_NAME).exists()


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


def _of_disk(error: UnreadableSegment) -> OSError:
    """What the disk said, for whoever is to try again and not to take it for damage."""
    return OSError(errno.EIO, os.strerror(errno.EIO), error.path)


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
