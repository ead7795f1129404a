"""A small data directory, in which a client keeps records that it cannot keep in memory or send.

    SPOOL/web-1-4f9d0c…/.lock                               one client at a time
    SPOOL/web-1-4f9d0c…/spool.json                          its owner and numbering
    SPOOL/web-1-4f9d0c…/app/00000000000000000001.ndjson     segments, by place, as sent

The segments have the daemon's format, so `logengine cat --data` reads them, and a kill or a power
cut leaves them intact. Segments are removed one by one when the daemon has their records. Blocking
calls.

Sending is exact because the numbering of the spool is durable before any of its records is sent. A
process that finds records here knows the numbers under which another process may have sent them.

Damaged files are moved to `.damaged` next to the segments and reported once, and their intact
records take their place: the application must start and log whatever a disk did. A read error of
the disk is not damage: the file stays, and the reader retries. Missing segments are reported once,
with their numbers; for this, `spool.json` also records how far the segments reached.
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
from functools import partial
from pathlib import Path
from typing import Self

import msgspec

from logengine.client.descriptors import Descriptor
from logengine.client.gaps import Range, as_text, gaps_between, joined, without
from logengine.client.outbox import NEVER_SENT, Chunk, Numbering
from logengine.client.spool_safety import LOCK_NAME, check_spool, check_spools, is_own
from logengine.client.spool_salvage import whole_parts
from logengine.disk.atomic import AtomicWriter, is_temp_name
from logengine.disk.directory import Directory, create_directory, sync_directory
from logengine.disk.durable_names import DurableNames
from logengine.disk.segment_file import (
    SEGMENT_BYTES_MAX,
    list_segments,
    read_header,
    read_provable,
    read_segment,
)
from logengine.errors import DamagedSegment, SpoolInUse, UnreadableSegment
from logengine.format.record import split_lines
from logengine.format.segment import segment_name
from logengine.format.timestamp import format_timestamp
from logengine.store.plan import BodyDigest, SegmentPlan
from logengine.store.stream import SegmentWriter

_DAMAGED_NAME = ".damaged"  # not a valid stream name
_STATE_NAME = "spool.json"
_DIRECTORY_MODE = 0o700
_STATE_BYTES_MAX = 16 * 1024 * 1024
_DAMAGED_BYTES_MAX = 256 * 1024 * 1024
_DIRECT_ABOVE_BYTES = 256 * 1024
_READABLE_CHARACTERS = 40
# The pauses between attempts to open a spool that the disk cannot read.
_PAUSES_S = (0.02, 0.1, 0.4)


class _State(msgspec.Struct, frozen=True):
    stream: str
    producer: str
    adoptable: bool
    numbering: Numbering = NEVER_SENT
    # The last place written to a segment, as far as noted; 0 once everything is sent.
    last: int = 0
    missing: tuple[Range, ...] = ()  # reported as missing


class _Segment(msgspec.Struct, frozen=True):
    first: int
    last: int
    bytes: int


class Spool:
    """The records of one producer of one stream that are on disk, by place.

    `open` takes a lock, `close` releases it. `bytes` is the total size of the lines.
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
        self._missing: list[Range] = []  # known to be lost between the segments, and reported
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
        """Opens the spool of a producer below `spools`; creates it if there is none.

        An `adoptable` spool belongs to a process whose name no other process will have: any client
        may send what it leaves. `tell_damage` receives reports of damaged or missing files, now or
        when they are read. Raises `SpoolInUse` if another client has it open, `UnsafeSpool` if
        another user may write to it or has, and `OSError`. Retries read errors of the disk for
        half a second.
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
        """The first place not known to be durable, whether its record is here or lost."""
        if self._is_state_known and self._stored.numbering.offset is None:
            return 1  # nothing was ever sent, so nothing was released
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
        """What earlier processes knew about the numbers of these records, for an `Outbox`."""
        known = self._stored.numbering
        if not self._segments or known.offset is None:
            return NEVER_SENT
        # The process that wrote these may have sent them; later records were never sent.
        return Numbering(known.offset, self.last if known.until is None else known.until)

    @property
    def numbering_kept(self) -> Numbering | None:
        """The numbering on disk, if any."""
        return self._stored.numbering if self._is_stored else None

    def keep_numbering(self, numbering: Numbering) -> None:
        """Makes `numbering` durable if it is not yet. Raises `AtomicWriteError`."""
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
        """Notes how far the segments reach. Ignores errors: no record depends on the note."""
        with contextlib.suppress(OSError):
            self._store_last(last)

    def _store_last(self, last: int) -> None:
        if not last:
            self._missing = []
        state = msgspec.structs.replace(self._stored, last=last, missing=tuple(self._missing))
        if state != self._stored:
            self._store(state)

    def add(self, chunks: Sequence[Chunk], numbering: Numbering) -> None:
        """Writes adjacent `chunks`, right after `last`, or later if everything before is durable.

        They are durable when it returns. Raises `AtomicWriteError`; then none of them is here.
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
            # No note: after a failed sync the segment is removed below, or rewritten by `_load`.
            names=DurableNames(note=lambda _: None),
            direct_above=_DIRECT_ABOVE_BYTES,
        )
        try:
            writer.publish()
        except BaseException:
            writer.abort()
            # Its name may already be visible, but is not known to be durable.
            with contextlib.suppress(OSError):
                os.unlink(self._directory / segment_name(segment.first))
            raise
        return segment

    def read(self, place: int) -> Chunk | None:
        """Returns the records from `place` to the end of its segment; None if no segment has it.

        Raises `OSError`, also for a read error of the disk: nothing was changed then, and the
        caller retries.
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
        if header.last != segment.last:  # a guess, made while its header could not be read
            read = _Segment(segment.first, header.last, header.bytes)
            self._segments[self._segments.index(segment)] = read
            self.bytes += read.bytes - segment.bytes
            return self.read(place)
        return Chunk(segment.first, segment.last, body).behind(place - 1)

    def _forget_removed(self) -> None:
        """Forgets segments whose files were removed: their places are a gap from now on."""
        for segment in list(self._segments):
            if not (self._directory / segment_name(segment.first)).exists():
                self._segments.remove(segment)
                self.bytes -= segment.bytes

    def pass_gap(self, first: int, last: int, offset: int) -> None:
        """Reports once that these places cannot be sent, as numbers (place + `offset`). Blocks."""
        self._tell_missing(without([(first, last)], self._missing), offset)
        self._note(self.last)

    def _tell_missing(
        self, gaps: Sequence[Range], offset: int, *, were_some_sent: bool = False
    ) -> None:
        if not gaps:
            return
        which = f"records {as_text(joined(gaps), offset)}"
        if were_some_sent:
            which = f"unsent records among those up to {gaps[-1][1] + offset}"
        self._tell(
            f"{self.path}: {which} of producer {self._stored.producer!r} cannot be sent, "
            f"their files were removed from {self._directory}; the rest is sent"
        )
        self._missing += gaps

    def gap_behind(self, place: int, until: int) -> int:
        """Returns the last place of the gap right after `place`, at most `until`, or `place`."""
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
        """Removes the segments that are durable up to place `acked`. Raises `OSError`.

        Removes and syncs one at a time: after a power cut, no segment may exist without its
        successors, or under a later numbering.
        """
        self._hold()
        while self.releases(acked):
            if len(self._segments) == 1:
                self._store_last(0)  # before it goes: nobody is to miss it
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._directory / segment_name(self._segments[0].first))
            if self._directory.exists():  # otherwise it was removed with its content
                sync_directory(self._directory)
            self.bytes -= self._segments.pop(0).bytes

    def close(self) -> None:
        """Closes the spool, and removes an empty one."""
        if not self._segments:
            with contextlib.suppress(OSError):
                self._remove()
        self._lock.close()

    def _remove(self) -> None:
        if _remove_if_empty(self._directory):
            # Otherwise a segment whose removal was lost could return without its numbering.
            sync_directory(self.path)
        for remove, path in (
            (os.unlink, self.path / _STATE_NAME),
            (os.unlink, self.path / LOCK_NAME),
            (os.rmdir, self.path),
        ):
            with contextlib.suppress(OSError):
                remove(path)

    def forget(self) -> None:
        """Closes the spool in a forked process; it still belongs to the parent."""
        self._lock.close()

    def _load(self) -> None:
        """Loads the state and the segments.

        A sync may have failed in the previous process, which may have been killed before it could
        react. The next sync succeeds but does not restore what the first one lost. So the last
        writes are repeated: the newest segment here, and the numbering before it is needed
        (`_is_stored` stays False). If all segments were removed, the directory is replaced by a
        new one, which cannot bring any of them back.
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
            self._tell(f"{damage}; it was moved aside, records may be sent twice")
        self._missing = list(self._stored.missing)
        firsts: list[int] = []
        with contextlib.suppress(FileNotFoundError):
            firsts = list_segments(self._directory)
        for first in firsts:
            if first > self.last:  # otherwise salvaged from a damaged segment and already loaded
                self._load_segment(
                    first, min((other for other in firsts if other > first), default=None)
                )
        if firsts:
            # A process that was killed may have left names that are not durable.
            sync_directory(self._directory)
            sync_directory(self.path)
        self._find_missing()
        if not self._segments or self._write_newest_again():
            self._note(self.last)  # not earlier: what a power cut lost must not count as missing

    def _load_segment(self, first: int, following: int | None) -> None:
        last = None if following is None else following - 1
        try:
            header = read_header(self._directory, first)
        except FileNotFoundError:
            return  # removed since it was listed
        except UnreadableSegment as error:
            if last is None and self._stored.last >= first:
                last = self._stored.last
            if last is None:
                # Later records need places after this segment's, and those are unknown.
                raise _of_disk(error) from error
            size = os.lstat(self._directory / segment_name(first)).st_size
            segment = _Segment(first, last, size)
        except DamagedSegment as damage:
            self._mend(first, last, damage)
            return
        else:
            segment = _Segment(first, header.last, header.bytes)
        self._segments.append(segment)
        self.bytes += segment.bytes

    def _find_missing(self) -> None:
        """Reports records that are missing before the first one or after the last one.

        A gap between segments is reported when it is passed: its records may have been sent, if a
        power cut restored older segments.
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
            with Directory.open_itself(self._directory) as directory:
                content = directory.read_file(path.name, SEGMENT_BYTES_MAX)
            with AtomicWriter(
                path,
                "wb",
                buffering=0,
                open_directory=partial(Directory.open_itself, self._directory),
            ) as writer:
                writer.write_buffers([content])
        except OSError as error:
            # For example, the disk is full. The application must start anyway.
            self._tell(f"{error}; a power cut may lose the records of {path}, which are being sent")
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
        """Replaces a damaged segment with its intact records and moves the file aside.

        Raises `OSError`, also for a read error of the disk. The file then still has its name, and
        the repair must be tried again.
        """
        path = self._directory / segment_name(first)
        parts: list[Chunk] = []
        if stat.S_ISREG(os.lstat(path).st_mode):  # otherwise it never contained records
            provable = read_provable(self._directory, first, compressed=False)
            if isinstance(provable.damage, UnreadableSegment):
                raise _of_disk(provable.damage)
            header = provable.header
            if header is not None and header.last >= first:
                last = header.last
            parts = whole_parts(
                _read_start(self._directory, path.name),
                first,
                last,
                is_header_whole=header is not None,
            )
        self._put_aside(path)
        # The last one first: the first one replaces the damaged file, which is found until then.
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
            f"{damage}; {whole}{lost} records in it are intact and are sent, "
            f"the file is kept in {self.path / _DAMAGED_NAME}"
        )
        end = max(first, last or self._stored.last)
        held = [(part.first, part.last) for part in parts]
        self._missing += gaps_between(held, first, end)

    def _put_aside(self, path: Path) -> None:
        """Links a damaged file to a second name; renames what is not a regular file."""
        kept = self.path / _DAMAGED_NAME
        create_directory(kept, _DIRECTORY_MODE)
        found = os.lstat(path)
        aside = kept / f"{path.name}.{found.st_ino}"
        if stat.S_ISREG(found.st_mode):
            with contextlib.suppress(FileExistsError):
                os.link(path, aside)
        else:
            os.rename(path, aside)
            sync_directory(path.parent)
        sync_directory(kept)

    def _hold(self) -> None:
        """Ensures that the lock is still held, and in the directory that exists now.

        The application may have closed it with all unknown descriptors, and the spool may have been
        removed.
        """
        if self._lock.is_ours and self._lock.is_at(self.path / LOCK_NAME):
            return
        self._lock.close()
        self._lock = Descriptor(_lock(self.path))
        self._is_stored = self._is_stored and (self.path / _STATE_NAME).exists()


def orphans(spools: Path) -> Iterator[tuple[str, str]]:
    """Yields stream and producer of each spool below `spools` that is adoptable and has records.

    Some may be in use, which shows when they are opened.
    """
    with contextlib.suppress(OSError):
        check_spools(spools)
        for path in sorted(spools.iterdir()):
            with contextlib.suppress(OSError, DamagedSegment):
                check_spool(path)
                state = _read_state(path)
                if state.adoptable and list_segments(path / state.stream):
                    yield state.stream, state.producer


def may_have_own_spool(spools: Path, stream: str, producer: str) -> bool:
    """Whether there is a spool of this user for the producer below `spools`, safe or not."""
    return is_own(spools / _directory_name(stream, producer))


def _of_disk(error: UnreadableSegment) -> OSError:
    """Returns the disk's error, so that the caller retries and does not treat it as damage."""
    return OSError(errno.EIO, os.strerror(errno.EIO), error.path)


def _read_state(path: Path) -> _State:
    with Directory.open_itself(path) as directory:
        text = directory.read_file(_STATE_NAME, _STATE_BYTES_MAX)
    try:
        return msgspec.json.decode(text, type=_State)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DamagedSegment(
            str(path / _STATE_NAME), f"not the state of a spool: {error}"
        ) from None


def _read_start(path: Path, name: str) -> bytes:
    """Returns the bytes of a damaged file, as far as a client may have written it."""
    with Directory.open_itself(path) as directory:
        descriptor = directory.open_file(name, os.O_RDONLY)
    with open(descriptor, "rb", buffering=0) as file:
        return file.read(_DAMAGED_BYTES_MAX)


def _directory_name(stream: str, producer: str) -> str:
    """Returns a readable name that is unique for any stream and producer."""
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", f"{stream}-{producer}")[:_READABLE_CHARACTERS]
    digest = hashlib.sha256(f"{stream}\0{producer}".encode("utf-8", "surrogatepass"))
    return f"{readable}-{digest.hexdigest()[:16]}"


def _remove_temps(directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        for name in filter(is_temp_name, os.listdir(directory)):
            os.unlink(directory / name)


def _remove_if_empty(path: Path) -> bool:
    """Removes a directory if it is empty; it is created again when needed. True if it did."""
    try:
        os.rmdir(path)
    except OSError:
        return False
    return True


def _lock(path: Path) -> int:
    while True:
        check_spools(path.parent)
        _remove_if_empty(path)  # the sync of its name may have failed
        create_directory(path, _DIRECTORY_MODE)
        check_spools(path.parent)  # it may have been made only now, by whomever
        check_spool(path)
        try:
            with Directory.open_itself(path) as directory:
                descriptor = directory.open_file(LOCK_NAME, os.O_RDONLY | os.O_CREAT, 0o600)
        except FileNotFoundError:
            continue  # a client that just closed removed it
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            there = os.stat(path / LOCK_NAME)
            if os.path.samestat(os.fstat(descriptor), there):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise SpoolInUse(
                f"{path} is in use by another client of the same producer; "
                "give each producer a name of its own"
            ) from None
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _plan(stream: str, segment: _Segment, chunks: Sequence[Chunk]) -> SegmentPlan:
    now = format_timestamp(time.time_ns())
    # Blank lines are not records, and a stored segment contains none.
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
