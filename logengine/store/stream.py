"""One stream's directory: recovery, writing one segment, and removal of the oldest segments.

Blocking calls, made from the store's threads.
"""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from msgspec import UNSET

from logengine.disk.atomic import AtomicWriter, is_temp_name
from logengine.disk.directory import AnyDirectory, Directory, opened
from logengine.disk.durable_names import DurableNames
from logengine.disk.one_flush import OneFlush, OneFlushWriter
from logengine.disk.segment_file import (
    disk_bytes_of,
    list_segments,
    read_header,
    read_segment,
    segments_among,
)
from logengine.errors import DamagedSegment, UnreadableSegment
from logengine.format.cover import COVER_SEGMENTS_MAX
from logengine.format.segment import Header, segment_name
from logengine.store.drop_oldest import StoredSegment, oldest_to_drop
from logengine.store.plan import Found, RecoveryPlan, StreamState, plan_recovery, with_active

PERMISSIONS = 0o640  # of a segment's file, less the umask
_COPIED_AT_ONCE_BYTES = 1024 * 1024
_LACKS_ROOM = {errno.ENOSPC, errno.EDQUOT}


@dataclass
class Recovery:
    """The result of opening a stream. `records` counts sequence numbers."""

    state: StreamState
    segments: int = 0
    records: int = 0
    temps_removed: int = 0
    covered_removed: int = 0
    gaps: list[tuple[int, int]] = field(default_factory=list)
    damaged: list[DamagedSegment] = field(default_factory=list)
    # Segments whose header was read but whose records the disk could not read.
    unread: list[UnreadableSegment] = field(default_factory=list)


def recover(
    directory: AnyDirectory,
    *,
    rewrite_limit: int,
    active_bytes_max: int,
    names: DurableNames,
    writes_again: bool = False,
    known_durable: Callable[[], int | None] = lambda: None,
) -> Recovery:
    """Cleans up a stream's directory, and returns the state from which the stream continues.

    Everything in the returned state is durable: renames that a killed process did not sync are
    synced here, before they are reported to anyone. If a sync may have failed in that process,
    `writes_again` rewrites the segments whose names may be lost. Costs a listing, the headers of
    the newest `COVER_SEGMENTS_MAX` segments, or twice as many if records seem to be missing, and
    the body of the newest segment if it is smaller than `rewrite_limit` and `active_bytes_max`;
    with `writes_again`, a copy of that segment, whatever its size. Records up to `known_durable()`,
    which that process marked as durable, need no copy if the disk has no room for one. Damaged
    segments are reported and stay as they are. Recovery is idempotent.

    Raises `OSError`. A segment that the disk cannot read now is not damaged: it may be whole, and
    the stream must be recovered once it can be read.
    """
    with opened(directory) as within:
        return _recovered(
            within,
            min(rewrite_limit, active_bytes_max),
            writes_again=writes_again,
            known_durable=known_durable,
            names=names,
        )


def _recovered(
    directory: Directory,
    active_bytes_max: int,
    *,
    writes_again: bool,
    known_durable: Callable[[], int | None],
    names: DurableNames,
) -> Recovery:
    stream = directory.name
    listed = directory.names()
    temps = [name for name in listed if is_temp_name(name)]
    # This also syncs what a killed process renamed.
    names.remove_together(directory, temps)
    firsts = segments_among(listed)
    damaged: list[DamagedSegment] = []
    found, plan = _newest(directory, stream, firsts, damaged)
    if writes_again and not _write_again(directory, found, plan, names, known_durable):
        plan = replace(plan, covered=[])
    file_names = {each.first: each.header.file_name for each in found if each.header}
    for first in plan.covered:
        # One at a time: after a power cut, no older one may be gone while a newer one remains.
        names.remove(directory, file_names[first])
    state = plan.state
    unread: list[UnreadableSegment] = []
    newest = plan.newest
    # Never rewrite a compressed segment: under its plain name it would be a second file. Nor a
    # gap: records in its place would take the numbers of the lost ones.
    if (
        newest is not None
        and not newest.is_compressed
        and newest.gap is UNSET
        and newest.bytes < active_bytes_max
    ):
        try:
            header, body = read_segment(directory, newest.first)
        except UnreadableSegment as error:
            # The header says where the stream continues: in a new segment after this one.
            unread.append(error)
        except DamagedSegment as error:
            # The header is whole, so the numbers used are known; the body stays as evidence.
            damaged.append(error)
        else:
            state = with_active(state, header, body)
    return Recovery(
        state=state,
        segments=len(firsts) - len(plan.covered),
        records=state.next_seq - firsts[0] if firsts else 0,
        temps_removed=len(temps),
        covered_removed=len(plan.covered),
        gaps=plan.gaps,
        damaged=damaged,
        unread=unread,
    )


def _newest(
    directory: Directory, stream: str, firsts: list[int], damaged: list[DamagedSegment]
) -> tuple[list[Found], RecoveryPlan]:
    """The newest segments, and what to do with them.

    These include the covered segments that an interrupted merge left at the end of a stream. Older
    leftovers harm no reader.
    """
    found = [_found(directory, first, damaged) for first in firsts[-COVER_SEGMENTS_MAX:]]
    plan = plan_recovery(stream, found)
    if plan.gaps:
        # The oldest of these may be leftovers. The segment that covers them, and the records that
        # seem to be missing, is then among as many segments before them.
        older = firsts[-2 * COVER_SEGMENTS_MAX : -COVER_SEGMENTS_MAX]
        since = found[0].first
        found = [_found(directory, first, damaged) for first in older] + found
        plan = plan_recovery(stream, found)
        plan = replace(plan, gaps=[gap for gap in plan.gaps if gap[0] > since])
    return found, plan


def _found(directory: Directory, first: int, damaged: list[DamagedSegment]) -> Found:
    try:
        return Found(first, read_header(directory, first))
    except UnreadableSegment as error:
        # If it were treated as damaged, its producers would be forgotten and records duplicated.
        raise _of_disk(error) from error
    except DamagedSegment as error:
        damaged.append(error)
        return Found(first, None)


def _of_disk(error: UnreadableSegment) -> OSError:
    """The disk's error, so that callers retry and do not treat the segment as damaged."""
    return OSError(errno.EIO, os.strerror(errno.EIO), error.path)


def _write_again(
    directory: Directory,
    found: list[Found],
    plan: RecoveryPlan,
    names: DurableNames,
    known_durable: Callable[[], int | None],
) -> bool:
    """Rewrites the segments whose names a failed sync may have lost, with the same bytes.

    Returns False if the disk is full, no failed sync is noted, and all records are known to be
    durable, or nothing is known: a segment was then not rewritten, and nothing may be removed.
    Raises `OSError`.
    """
    may_remove = True
    for header in _perhaps_lost(found, plan):
        try:
            _copy_in_place(directory, header.file_name, names)
        except OSError as error:
            # Waiting for room could last forever if only this stream's oldest segments can free
            # some. A failed sync is noted, if its process was not killed before it could; then the
            # mark of what is durable was not moved either.
            is_noted = not names.may_remove_from(directory.name)
            if error.errno not in _LACKS_ROOM or is_noted or not _is_marked(plan, known_durable()):
                raise
            may_remove = False
    return may_remove


def _is_marked(plan: RecoveryPlan, known_durable: int | None) -> bool:
    """True if all records are known to be durable, or nothing is known."""
    return known_durable is None or plan.state.next_seq - 1 <= known_durable


def _perhaps_lost(found: list[Found], plan: RecoveryPlan) -> list[Header]:
    """The segments whose names a failed sync may have lost.

    These are the newest, which a commit retries until it is durable, and those that cover others:
    a compaction removes the covered ones only after the covering one is durable.
    """
    covered = set(plan.covered)
    lost: dict[int, Header] = {}
    last_kept: Header | None = None
    for each in found:
        if each.first not in covered:
            last_kept = each.header or last_kept
        elif last_kept is not None:
            lost[last_kept.first] = last_kept
    if plan.newest is not None:
        lost[plan.newest.first] = plan.newest
    return list(lost.values())


def _copy_in_place(directory: Directory, name: str, names: DurableNames) -> None:
    """Replaces a file with a copy of itself; durable when it returns. Raises `OSError`."""
    path = directory.path_of(name)
    writer = AtomicWriter(path, "wb", buffering=0, open_directory=directory.opened_again)
    descriptor = directory.open_file(name, os.O_RDONLY)
    try:
        writer.open()
        at = 0
        while piece := _piece_of(descriptor, at, path):
            writer.write_buffers([piece])
            at += len(piece)
        writer.prepare()
        names.publish(writer, directory.name)
    finally:
        writer.abort()
        os.close(descriptor)


def _piece_of(descriptor: int, at: int, path: str) -> bytes:
    try:
        return os.pread(descriptor, _COPIED_AT_ONCE_BYTES, at)
    except OSError as error:
        error.filename = path
        raise


def drop_oldest(
    directory: AnyDirectory,
    wanted_bytes: int,
    next_seq: int,
    names: DurableNames,
    on_chosen: Callable[[Sequence[StoredSegment]], None] = lambda _: None,
) -> list[StoredSegment]:
    """Removes the oldest segments to free `wanted_bytes`; returns those removed.

    Segments from `next_seq` on may not be durable and never justify a removal. Reads one header
    more than it removes segments. `on_chosen` is called with what will be removed before any of it
    is. Raises `OSError` if none was removed; stops at a segment that cannot be removed or that the
    disk cannot read now, and after one whose removal could not be synced: that one is gone, too.
    """
    with opened(directory) as within:
        return _drop_oldest(within, wanted_bytes, next_seq, names, on_chosen)


def _drop_oldest(
    directory: Directory,
    wanted_bytes: int,
    next_seq: int,
    names: DurableNames,
    on_chosen: Callable[[Sequence[StoredSegment]], None],
) -> list[StoredSegment]:
    dropped: list[StoredSegment] = []
    unread: list[OSError] = []
    going = oldest_to_drop(_stored(directory, unread), wanted_bytes, next_seq)
    if unread and not going:
        raise unread[0]
    if going:
        on_chosen(going)
    for segment in going:
        try:
            if not dropped:
                # A compaction does not sync its removals. Sync them first: after a power cut,
                # some would come back without the segment that covers them.
                names.sync(directory)
            _remove(directory, segment.first, names, partial(dropped.append, segment))
        except OSError:
            if not dropped:
                raise
            break
    return dropped


def _remove(
    directory: Directory, first: int, names: DurableNames, on_removed: Callable[[], None]
) -> None:
    """Removes a segment durably. A compaction may remove covered segments concurrently.

    `on_removed` is called once no file has the records any more, even if that cannot be synced.
    """
    plain, compressed = segment_name(first), segment_name(first, compressed=True)
    if not directory.has(compressed):
        names.remove(directory, plain, on_removed)
        return
    # The compressed file last: it may contain more than the plain one, and takes precedence.
    names.remove(directory, plain)
    names.remove(directory, compressed, on_removed)


def _stored(directory: Directory, unread: list[OSError]) -> Iterator[StoredSegment]:
    """Yields the segments, oldest first; skips damaged ones, which are therefore kept.

    Stops at a segment that cannot be read now, and adds the error to `unread`: that segment may
    be whole, and removing its successors would leave a hole.
    """
    for first in list_segments(directory):
        try:
            header = read_header(directory, first)
            disk_bytes = disk_bytes_of(directory, first)
        except FileNotFoundError:
            continue
        except UnreadableSegment as error:
            unread.append(_of_disk(error))
            return
        except DamagedSegment:
            continue
        except OSError as error:
            unread.append(error)
            return
        yield StoredSegment(first, header.count, disk_bytes)


class Writable(Protocol):
    """A segment to write, from a commit or a compaction."""

    @property
    def stream(self) -> str:
        """The stream that the segment belongs to."""

    @property
    def file_name(self) -> str:
        """The name of the file to write."""

    def render(self) -> list[bytes]:
        """Returns the bytes of the file, in pieces."""


def _open_stream(data: AnyDirectory, stream: str) -> Directory:
    if isinstance(data, Directory):
        return data.subdirectory(stream)
    return Directory.open_itself(data / stream)


class SegmentWriter:
    """Writes one planned segment below `data`, in the steps of an `AtomicWriter`.

    The stream's directory must exist, durably, before the first step. Each step runs the steps
    before it if needed, and none runs twice. A file of more than `direct_above` bytes is written
    past the page cache; `pace` is called after each piece with its size in bytes, and may sleep.
    `on_durable` is called once the segment is durable, and must not raise. `ahead` is a writer that
    is open already, for the plan's file. `one_flush` is set if one flush of the disk is enough; a
    file that is written past the page cache takes two nevertheless. Raises `AtomicWriteError`, and
    what `pace` raises; after that, only `abort` may be called.
    """

    def __init__(
        self,
        data: AnyDirectory,
        plan: Writable,
        *,
        names: DurableNames,
        direct_above: int,
        pace: Callable[[int], None] | None = None,
        on_durable: Callable[[], None] = lambda: None,
        ahead: OneFlushWriter | None = None,
        one_flush: OneFlush | None = None,
    ) -> None:
        self.plan = plan
        self._on_durable = on_durable
        self._pace = pace
        self._names = names
        self._direct_above = direct_above
        self._one_flush = one_flush
        self._writer = ahead or OneFlushWriter(
            os.path.join(str(data), plan.stream, plan.file_name),
            "wb",
            buffering=0,
            permissions=PERMISSIONS,
            open_directory=partial(_open_stream, data, plan.stream),
        )
        self._is_open = ahead is not None
        self._is_written = False

    def prepare(self) -> None:
        """Hashes, writes and fsyncs the temp file. Nothing is visible.

        No descriptor stays open, except for the file's own if one flush is enough: then the data
        may be in the disk's cache only.
        """
        self._write()
        self._writer.close_directory()

    def _write(self) -> None:
        if self._is_written:
            return
        try:
            if not self._is_open:
                self._writer.open()
            pieces = self.plan.render()
            directly = sum(map(len, pieces)) > self._direct_above
            self._writer.write_buffers(pieces, directly=directly, pace=self._pace)
            # Writes past the cache were not tried with one flush.
            self._writer.one_flush = None if directly else self._one_flush
            self._writer.prepare()
        except BaseException:
            self.abort()
            raise
        self._is_written = True

    def publish(self) -> None:
        """Makes the segment visible and durable under its name."""
        self._write()
        self._names.publish(self._writer, self.plan.stream)
        self._on_durable()

    def abort(self) -> None:
        """Removes the temp file, if any. Never raises."""
        self._writer.abort()
