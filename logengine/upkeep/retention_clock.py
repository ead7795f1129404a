"""The clock of retention: it doubts the wall clock as `clock_plan` says. Blocking calls.

DATA/.clock contains what is known, for the next start, as JSON on one line:

    {"believed":"2026-11-23T20:00:00.000000Z","wall":"2026-11-23T20:00:00.000000Z","doubted_s":0.0,
     "boot":"1f0c6f0e-…","boot_s":86400.0}

`boot` is the kernel's identifier of the boot, and `boot_s` its clock. If the file is missing or
broken, the time of the newest record counts in its place, so losing it costs a day of retention by
age at most, and it is not synced.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator

import msgspec

from logengine.disk.crash_mark import read_boot_id
from logengine.disk.directory import AnyDirectory, Directory, directory_at
from logengine.disk.segment_file import list_segments, list_streams, read_header
from logengine.errors import DamagedSegment, UnexpectedFile
from logengine.format.timestamp import format_timestamp, is_timestamp, parse_timestamp
from logengine.upkeep.clock_plan import KnownTime, first_known, known_after

CLOCK_NAME = ".clock"
# What a kill loses is at most this much of a day.
_NOTED_EVERY_S = 600.0
_FILE_BYTES_MAX = 4096


class _Noted(msgspec.Struct, frozen=True):
    """The content of the file."""

    believed: str
    wall: str
    doubted_s: float
    boot: str
    boot_s: float


class RetentionClock:
    """Says what time it is for the retention of `data`, and notes it there if `notes`.

    `look` is to be called every now and then: what happens between two calls is not seen.
    `on_change` is called whenever the wall clock begins or ceases to be doubted. `boot_id` is
    empty if unknown.
    """

    def __init__(
        self,
        data: AnyDirectory,
        *,
        notes: bool = True,
        boot_id: str | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        boot_clock_s: Callable[[], float] | None = None,
        on_change: Callable[[KnownTime], None] = lambda _: None,
    ) -> None:
        self._data = directory_at(data)
        self._notes = notes
        self._boot_id = read_boot_id() if boot_id is None else boot_id
        self._clock_ns = clock_ns
        self._boot_clock_s = boot_clock_s or _boot_clock_s
        self._on_change = on_change
        self._known: KnownTime | None = None
        self._looked_s = 0.0
        self._noted_s: float | None = None

    def now_ns(self) -> int:
        """Returns the time by which ages are judged. Raises `OSError` at the first call."""
        return self.look().now_ns

    def look(self) -> KnownTime:
        """Returns what is known now. Raises `OSError` at the first call."""
        boot_s, wall_ns = self._boot_clock_s(), self._clock_ns()
        before = self._known
        if before is None:
            known = self._at_start(boot_s, wall_ns)
        else:
            known = known_after(before, wall_ns, max(0.0, boot_s - self._looked_s), ran=True)
        self._known, self._looked_s = known, boot_s
        has_changed = before is None or before.is_doubted != known.is_doubted
        if known.is_doubted if before is None else has_changed:
            self._on_change(known)
        if has_changed or self._noted_s is None or boot_s - self._noted_s >= _NOTED_EVERY_S:
            self._note(known, boot_s)
        return known

    def believe(self) -> None:
        """Believes the wall clock from now on, because somebody who can see it says so."""
        wall_ns = self._clock_ns()
        self._known, self._looked_s = KnownTime(wall_ns, wall_ns), self._boot_clock_s()
        self._note(self._known, self._looked_s)

    def _at_start(self, boot_s: float, wall_ns: int) -> KnownTime:
        noted = self._read()
        if noted is None:
            return first_known(wall_ns, _newest_ns(self._data, wall_ns))
        is_same_boot = bool(self._boot_id) and noted.boot == self._boot_id
        passed_s = max(0.0, boot_s - noted.boot_s) if is_same_boot else 0.0
        before = KnownTime(
            parse_timestamp(noted.believed), parse_timestamp(noted.wall), max(0.0, noted.doubted_s)
        )
        return known_after(before, wall_ns, passed_s, ran=False)

    def _read(self) -> _Noted | None:
        with contextlib.suppress(FileNotFoundError, UnexpectedFile, msgspec.MsgspecError):
            descriptor = self._data.open_file(CLOCK_NAME, os.O_RDONLY)
            try:
                noted = msgspec.json.decode(
                    os.pread(descriptor, _FILE_BYTES_MAX, 0), type=_Noted, strict=True
                )
            finally:
                os.close(descriptor)
            if is_timestamp(noted.believed) and is_timestamp(noted.wall):
                return noted
        return None

    def _note(self, known: KnownTime, boot_s: float) -> None:
        if not self._notes:
            return
        self._noted_s = boot_s
        noted = _Noted(
            format_timestamp(max(0, known.believed_ns)),
            format_timestamp(max(0, known.wall_ns)),
            known.doubted_s,
            self._boot_id,
            boot_s,
        )
        line = msgspec.json.encode(noted) + b"\n"
        # On a full disk the next start believes an earlier time, which removes less.
        with contextlib.suppress(OSError):
            descriptor = self._data.open_file(CLOCK_NAME, os.O_WRONLY | os.O_CREAT)
            try:
                # Written in place: a new name would have to be synced, and a failed sync of this
                # directory can lose the name of a stream that a commit is making.
                if os.pwrite(descriptor, line, 0) == len(line):
                    os.ftruncate(descriptor, len(line))
            finally:
                os.close(descriptor)


def _boot_clock_s() -> float:
    # Not `monotonic`, which stands still while the machine is suspended.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _newest_ns(data: Directory, wall_ns: int) -> int | None:
    """Returns the time of the newest record that is not from the future; None if there is none."""
    wall = format_timestamp(max(0, wall_ns))
    times = [until for until in _last_times(data) if until <= wall]
    return parse_timestamp(max(times)) if times else None


def _last_times(data: Directory) -> Iterator[str]:
    for stream in list_streams(data):
        with data.subdirectory(stream) as directory:
            for first in reversed(list_segments(directory)):
                with contextlib.suppress(DamagedSegment, FileNotFoundError):
                    yield read_header(directory, first).until
                    break
