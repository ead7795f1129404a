"""One stream's directory: what is in it after a crash, and writing one segment into it.

Blocking calls, made from the store's threads.
"""

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from msgspec import UNSET

from logengine.disk.atomic import AtomicWriter, is_temp_name
from logengine.disk.directory import AnyDirectory, Directory, opened
from logengine.disk.durable_names import DurableNames
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

_COPIED_AT_ONCE_BYTES = 1024 * 1024
_LACKS_ROOM = {errno.ENOSPC, errno.EDQUOT}


@dataclass
class Recovery:
    """What was found and done when a stream was opened. `records` counts sequence numbers."""

    state: StreamState
    segments: int = 0
    records: int = 0
    temps_removed: int = 0
    covered_removed: int = 0
    gaps: list[tuple[int, int]] = field(default_factory=list)
    damaged: list[DamagedSegment] = field(default_factory=list)
    # Segments of which the header was read and the records were not: the disk did not give them.
    unread: list[UnreadableSegment] = field(default_factory=list)


def recover(
    directory: AnyDirectory,
    *,
    rewrite_limit: int,
    active_bytes_max: int,
    names: DurableNames,
    writes_again: bool = False,
) -> Recovery:
    """Makes a stream's directory clean, and tells where the stream goes on.

    When it returns, everything that the returned state says is durable: what a killed
    process renamed and did not sync is synced here, before anybody is told of it. Where that
    process may have been told that a sync failed, `writes_again` has what may have lost its
    name by that written once more. Costs a listing and the headers of the newest
    `COVER_SEGMENTS_MAX` segments, or twice as many if records seem to be missing, and the body of
    the newest segment if that is smaller than `rewrite_limit` and `active_bytes_max`; with
    `writes_again` a copy of it, whatever its size. Damaged segments
    are reported and stay as they are. Running it twice does no harm.

    Raises `OSError`. A segment that the disk does not give just now is no damaged one: it may be
    whole, and the stream is to be recovered when it can be read.
    """
    with opened(directory) as within:
        return _recovered(
            within,
            min(rewrite_limit, active_bytes_max),
            writes_again=writes_again,
            names=names,
        )


def _recovered(
    directory: Directory, active_bytes_max: int, *, writes_again: bool, names: DurableNames
) -> Recovery:
    stream = directory.name
    listed = directory.names()
    temps = [name for name in listed if is_temp_name(name)]
    # The sync is also for what a killed process renamed.
    names.remove_together(directory, temps)
    firsts = segments_among(listed)
    damaged: list[DamagedSegment] = []
    found, plan = _newest(directory, stream, firsts, damaged)
    if writes_again and not _write_again(directory, found, plan, names):
        plan = replace(plan, covered=[])
    file_names = {each.first: each.header.file_name for each in found if each.header}
    for first in plan.covered:
        # One at a time: after a power cut no older one may be gone before a newer one.
        names.remove(directory, file_names[first])
    state = plan.state
    unread: list[UnreadableSegment] = []
    newest = plan.newest
    # A compressed one is never written again: under a plain name it would be a second file.
    # Nor is a gap: records in its place would take the numbers of those that are gone.
    if (
        newest is not None
        and not newest.is_compressed
        and newest.gap is UNSET
        and newest.bytes < active_bytes_max
    ):
        try:
            header, body = read_segment(directory, newest.first)
        except UnreadableSegment as error:
            # By its header it is known where the stream goes on: in a segment after this one.
            unread.append(error)
        except DamagedSegment as error:
            # Its header is whole, so the numbers it used are known; its body stays as evidence.
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

    Among these is what an interrupted merge left covered at the end of a stream. Older leftovers
    harm no reader.
    """
    found = [_found(directory, first, damaged) for first in firsts[-COVER_SEGMENTS_MAX:]]
    plan = plan_recovery(stream, found)
    if plan.gaps:
        # The first of these may be leftovers. What covers them, and the records that seem to be
        # missing, is then among as many segments before them.
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
        # Taken for damaged, its producers would be forgotten, and their records come twice.
        raise _of_disk(error) from error
    except DamagedSegment as error:
        damaged.append(error)
        return Found(first, None)


def _of_disk(error: UnreadableSegment) -> OSError:
    """What the disk said, for whoever is to try again and not to take it for damage."""
    return OSError(errno.EIO, os.strerror(errno.EIO), error.path)


def _write_again(
    directory: Directory, found: list[Found], plan: RecoveryPlan, names: DurableNames
) -> bool:
    """Gives the names that a failed sync may have lost once more to the same bytes.

    False where the disk is full and it is not noted that a sync failed: it is done without then,
    and nothing may be removed. Raises `OSError`.
    """
    may_remove = True
    for header in _perhaps_lost(found, plan):
        try:
            _copy_in_place(directory, header.file_name, names)
        except OSError as error:
            # A full disk has room for the note of a failed sync, and there is none. To wait
            # for room would be for ever, where only this stream's oldest can give some.
            is_noted = not names.may_remove_from(directory.name)
            if error.errno not in _LACKS_ROOM or is_noted:
                raise
            may_remove = False
    return may_remove


def _perhaps_lost(found: list[Found], plan: RecoveryPlan) -> list[Header]:
    """The segments whose name may be lost by a sync that failed.

    The newest, which a commit goes on with until it is durable, and those that cover others,
    which a compaction removes only then.
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
    """Writes a file's bytes once more under its name, as they are; durable when it returns.

    Raises `OSError`.
    """
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
    directory: AnyDirectory, wanted_bytes: int, next_seq: int, names: DurableNames
) -> list[StoredSegment]:
    """Removes the oldest segments, for `wanted_bytes` of room; gives those that are gone.

    What is behind `next_seq` is not known to be durable, and never the reason to remove what
    is. Costs as many headers as segments go, and one. Raises `OSError` if none could be removed;
    what comes after one that cannot be, or that the disk does not read just now, is left.
    """
    with opened(directory) as within:
        return _drop_oldest(within, wanted_bytes, next_seq, names)


def _drop_oldest(
    directory: Directory, wanted_bytes: int, next_seq: int, names: DurableNames
) -> list[StoredSegment]:
    dropped: list[StoredSegment] = []
    unread: list[OSError] = []
    going = oldest_to_drop(_stored(directory, unread), wanted_bytes, next_seq)
    if unread and not going:
        raise unread[0]
    for segment in going:
        try:
            if not dropped:
                # A compaction does not sync what it removed: without what covers it, a part
                # of that would come back after a power cut.
                names.sync(directory)
            _remove(directory, segment.first, names)
        except OSError:
            if not dropped:
                raise
            break
        dropped.append(segment)
    return dropped


def _remove(directory: Directory, first: int, names: DurableNames) -> None:
    """Removes a segment; when it returns, that is durable.

    A compaction may remove covered ones at the same time.
    """
    # The compressed one last: it may hold more than the plain one, and is the one that counts.
    names.remove(directory, segment_name(first))
    compressed = segment_name(first, compressed=True)
    if directory.has(compressed):
        names.remove(directory, compressed)


def _stored(directory: Directory, unread: list[OSError]) -> Iterator[StoredSegment]:
    """The segments from the oldest on; damaged ones are left out, and so left alone.

    It ends where one cannot be looked at, and why is in `unread` then: that one may be whole,
    and without those behind it there would be a hole.
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
    """A segment that is to be written: one of a commit's, or of a compaction's."""

    @property
    def stream(self) -> str:
        """Whose segment it is."""

    @property
    def file_name(self) -> str:
        """The name of the file it is to be."""

    def render(self) -> list[bytes]:
        """The bytes of the file, in pieces."""


class SegmentWriter:
    """Writes one planned segment below `data`, through the steps of an `AtomicWriter`.

    The stream's directory must be there, and durable, before the first of them.
    A step that was done is not done again, so that a caller may ask for any step and
    gets those before it too. A file of more than `direct_above` bytes is written past the
    page cache; `pace` is called behind every piece of it, with its bytes, and may rest.
    `on_durable` is called once the segment is, and does not raise. Raises
    `AtomicWriteError`, and what `pace` raises; after that only `abort` is left.
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
    ) -> None:
        self.plan = plan
        self._on_durable = on_durable
        self._pace = pace
        self._names = names
        self._direct_above = direct_above
        self._writer = AtomicWriter(
            os.path.join(str(data), plan.stream, plan.file_name),
            "wb",
            buffering=0,
            permissions=0o640,
            open_directory=(
                partial(data.subdirectory, plan.stream) if isinstance(data, Directory) else None
            ),
        )
        self._is_written = False

    def prepare(self) -> None:
        """Everything hashed, written and fsynced; nothing visible, and no descriptor kept."""
        self._write()
        self._writer.close_directory()

    def _write(self) -> None:
        if self._is_written:
            return
        try:
            self._writer.open()
            pieces = self.plan.render()
            directly = sum(map(len, pieces)) > self._direct_above
            self._writer.write_buffers(pieces, directly=directly, pace=self._pace)
            self._writer.prepare()
        except BaseException:
            self.abort()
            raise
        self._is_written = True

    def publish(self) -> None:
        """The segment is visible and durable under its name."""
        self._write()
        self._names.publish(self._writer, self.plan.stream)
        self._on_durable()

    def abort(self) -> None:
        """Removes the temp, if there is one. Never raises."""
        self._writer.abort()
