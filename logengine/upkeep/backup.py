"""Copies a data directory while a daemon writes in it. Blocking calls.

    PARENT/.NAME.8f1c….tmp    the backup while it is made, locked with flock(2)
    PARENT/NAME               the finished backup, which gets its name last

Files are taken one after the other, and meanwhile a daemon commits, merges, seals and removes
segments. No file ever changes once it has its name, so each one taken is whole. But those taken
may not belong together: one may have been taken before it was merged, and its neighbours are gone
since. So all of a stream's files are looked at again, and those that are new or different are
taken, until they belong together (`backup_plan`). Nothing waits for the daemon, and it waits for
nothing: a few looks are enough, because only the newest files change.

A file is reflinked if the file system can, or gets a second name, or is copied.

Sources: ioctl_ficlone(2); link(2), for /proc/self/fd; rename(2), for an empty target.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from logengine.disk.directory import Directory, names_during_changes, sync_directory
from logengine.disk.registered_cursors import CURSORS_NAME
from logengine.disk.segment_file import read_header, segments_among
from logengine.disk.temp_file import TEMP_PREFIX, TEMP_SUFFIX, temp_name_for
from logengine.disk.writes import write_all
from logengine.errors import BackupRefused, DamagedSegment, InvalidCursor
from logengine.format.cursor import Cursor
from logengine.format.segment import Header, first_of_name
from logengine.reading.reader import StreamReader
from logengine.upkeep.backup_plan import Fault, fault_of

_FICLONE = 0x40049409
# The source and the target of a reflink or a link must be on one file system that supports it.
_NO_CLONES = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV, errno.ENOSYS, errno.EPERM}
_NO_LINKS = {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EACCES}
_COPIED_AT_ONCE_BYTES = 1024 * 1024
# A fault that so many looks find is one of the stream itself.
_SAME_FAULT_MAX = 20
_LOOKS_MAX = 1000
_PAUSE_S_MIN = 0.001
_PAUSE_S_MAX = 0.1

Identity = tuple[int, ...]


@dataclass
class TakenStream:
    """What a backup has of one stream: numbers `first` to `last`; problems are the stream's own."""

    stream: str
    first: int = 0
    last: int = 0
    files: int = 0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass
class Totals:
    """How many files were taken in which way, also those that were replaced meanwhile."""

    cloned: int = 0
    linked: int = 0
    copied: int = 0


class Backup:
    """Makes a backup of `streams` in `data` at `target`, which must not exist or be empty.

    With `independent`, no file shares its inode with the original. Use it as a context manager:
    `take` each stream, then `finish`. Without that, nothing is left at `target`. Methods raise
    `BackupRefused` and `OSError`.
    """

    def __init__(self, data: Path, target: Path, *, independent: bool = False) -> None:
        self._data = data
        self._target = Path(os.path.abspath(target))
        self._clones = True
        self._links = not independent
        self._temp: Path | None = None
        self._lock: int | None = None
        self.totals = Totals()

    def __enter__(self) -> Self:
        self._check_target()
        _remove_abandoned(self._target)
        temp = self._target.parent / temp_name_for(self._target.name)
        os.mkdir(temp, 0o700)
        self._temp = temp
        try:
            self._lock = os.open(temp, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._temp is not None:
            shutil.rmtree(self._temp, ignore_errors=True)
            self._temp = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _check_target(self) -> None:
        target = self._target
        if not target.parent.is_dir():
            raise BackupRefused(f"{target.parent} is not a directory; make it first")
        if any(_is_same(parent, self._data) for parent in (target, *target.parents)):
            raise BackupRefused(
                f"{target} is in the data directory {self._data}; name a place outside of it"
            )
        if not os.path.lexists(target):
            return
        if target.is_symlink() or not target.is_dir() or os.listdir(target):
            raise BackupRefused(
                f"{target} exists and is not an empty directory; name one that does not exist"
            )
        if os.path.ismount(target):
            raise BackupRefused(f"{target} is a mount point; name a directory in it")

    def take_cursors(self, streams: Collection[str]) -> None:
        """Copies the registered cursors of `streams`. To be called first: they then keep more."""
        temp = self._in_progress()
        try:
            source = Directory.open(self._data / CURSORS_NAME)
        except FileNotFoundError:
            return
        with source, _made(temp, CURSORS_NAME, source) as into:
            for name in source.names():
                if name.startswith(TEMP_PREFIX):
                    continue
                with contextlib.suppress(FileNotFoundError), _opened(source, name) as descriptor:
                    try:
                        text = os.pread(descriptor, 4096, 0).decode(errors="replace").strip()
                        is_wanted = Cursor.parse(text).stream in streams
                    except InvalidCursor:
                        is_wanted = True
                    if is_wanted:
                        _copy(descriptor, into, name)

    def take(self, stream: str) -> TakenStream:
        """Takes all that was durable in a stream when this was called, and maybe more."""
        temp = self._in_progress()
        with Directory.open(self._data) as data, data.subdirectory(stream) as source:
            end = StreamReader(self._data, stream, lambda _: None).end() - 1
            with _made(temp, stream, source) as into:
                return _StreamBackup(source, into, self._take_file).take(end)

    def finish(self) -> None:
        """Gives the backup its name. Everything in it is durable when this returns."""
        temp = self._in_progress()
        with Directory.open(self._data) as data:
            _become_like(temp, os.fstat(data.descriptor))
        sync_directory(temp)
        try:
            os.rename(temp, self._target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EBUSY):
                raise
            raise BackupRefused(
                f"{self._target} was made meanwhile; name one that does not exist"
            ) from None
        self._temp = None
        sync_directory(self._target.parent)

    def _in_progress(self) -> Path:
        if self._temp is None:
            raise ValueError("the backup is not in progress")
        return self._temp

    def _take_file(self, descriptor: int, into: Directory, name: str) -> None:
        """Puts an open file into the backup. Raises `FileNotFoundError` if it has no name left."""
        if self._clones:
            try:
                _clone(descriptor, into, name)
            except OSError as error:
                if error.errno not in _NO_CLONES:
                    raise
                self._clones = False
            else:
                self.totals.cloned += 1
                return
        if self._links and self._link(descriptor, into, name):
            self.totals.linked += 1
            return
        _copy(descriptor, into, name)
        self.totals.copied += 1

    def _link(self, descriptor: int, into: Directory, name: str) -> bool:
        try:
            # The file that was opened, whatever has its name by now.
            source = f"/proc/self/fd/{descriptor}"
            os.link(source, name, dst_dir_fd=into.descriptor, follow_symlinks=True)
        except FileNotFoundError:
            if not os.fstat(descriptor).st_nlink:
                raise
            self._links = False  # there is no /proc
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._links = error.errno != errno.EXDEV
        else:
            return True
        return False


class _StreamBackup:
    """The files of one stream, from `source` to `into`."""

    def __init__(
        self,
        source: Directory,
        into: Directory,
        take_file: Callable[[int, Directory, str], None],
    ) -> None:
        self._source = source
        self._into = into
        self._take_file = take_file
        self._taken: dict[str, Identity] = {}
        self._headers: dict[int, Header] = {}
        self._damaged: dict[int, str] = {}
        self._strange: dict[str, str] = {}
        self._changed: set[int] = set()  # segments whose files were taken or dropped

    def take(self, end: int) -> TakenStream:
        """Takes the stream with all numbers up to `end`, as far as they exist."""
        fault: Fault | None = None
        same = 0
        for _ in range(_LOOKS_MAX):
            self._look()
            before, fault = fault, fault_of(self._sound(), end) or self._missing_oldest()
            if fault is None:
                break
            same = same + 1 if fault == before else 0
            if same >= _SAME_FAULT_MAX:
                break
            time.sleep(min(_PAUSE_S_MAX, _PAUSE_S_MIN * 2**same))
        return self._result(fault)

    def _missing_oldest(self) -> Fault | None:
        """Returns what the stream has before everything that was taken."""
        there = segments_among(names_during_changes(self._source) - self._strange.keys())
        taken = segments_among(self._taken)
        if not there or (taken and taken[0] <= there[0]):
            return None
        return Fault(there[0], (taken[0] if taken else there[-1]) - 1, "are missing")

    def _look(self) -> None:
        """Takes what is new or different, and drops what is gone."""
        names = {name for name in names_during_changes(self._source) if first_of_name(name)}
        for name in self._taken.keys() - names:
            self._drop(name)
        for name in sorted(names):
            try:
                self._take(name)
            except FileNotFoundError:
                self._drop(name)
        there = set(segments_among(self._taken))
        for first in sorted(self._changed):
            self._read_header(first, is_there=first in there)
        self._changed.clear()

    def _take(self, name: str) -> None:
        """Takes a file, unless it is the one that was taken before."""
        found = self._source.stat(name, follow_links=False)
        if self._taken.get(name) == _identity(found):
            return
        if stat.S_ISREG(found.st_mode):
            with _opened(self._source, name) as descriptor:
                found = os.fstat(descriptor)
                if stat.S_ISREG(found.st_mode):
                    self._drop(name)
                    self._take_file(descriptor, self._into, name)
                    self._taken[name] = _identity(found)
                    self._changed.add(first_of_name(name) or 0)
                    return
        self._strange[name] = "not a regular file"

    def _drop(self, name: str) -> None:
        if self._taken.pop(name, None) is not None:
            self._into.unlink(name)
            self._changed.add(first_of_name(name) or 0)

    def _read_header(self, first: int, *, is_there: bool) -> None:
        self._headers.pop(first, None)
        self._damaged.pop(first, None)
        if not is_there:
            return
        try:
            self._headers[first] = read_header(self._into, first)
        except DamagedSegment as damage:
            self._damaged[first] = damage.reason

    def _sound(self) -> list[Header]:
        return [header for _, header in sorted(self._headers.items())]

    def _result(self, fault: Fault | None) -> TakenStream:
        stream = self._source.name
        headers = self._sound()
        taken = TakenStream(stream)
        if headers:
            taken.first, taken.last = headers[0].first, max(header.last for header in headers)
        taken.files = len(self._taken)
        taken.bytes = sum(self._into.stat(name).st_size for name in self._taken)
        taken.problems += [
            f"{self._source.path_of(name)} is {what}, and was left out"
            for name, what in sorted(self._strange.items())
        ]
        taken.problems += [
            f"segment {first} is damaged ({reason}); it was copied as it is"
            for first, reason in sorted(self._damaged.items())
        ]
        if fault is not None:
            taken.problems.append(str(fault))
        return taken


@contextlib.contextmanager
def _opened(source: Directory, name: str) -> Iterator[int]:
    descriptor = source.open_file(name, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _made(parent: Path, name: str, like: Directory) -> Iterator[Directory]:
    """Makes a directory in the backup, durable with what the block puts into it."""
    os.mkdir(parent / name, 0o700)
    with Directory.open(parent / name) as made:
        yield made
        _become_like(parent / name, os.fstat(like.descriptor))
        made.sync()


def _clone(descriptor: int, into: Directory, name: str) -> None:
    """Makes a reflink of an open file. Raises `OSError`, and leaves nothing then."""
    with _new_file(into, name) as copy:
        fcntl.ioctl(copy, _FICLONE, descriptor)
        _become_like(copy, os.fstat(descriptor))
        os.fsync(copy)


def _copy(descriptor: int, into: Directory, name: str) -> None:
    """Copies an open file, durably. Raises `OSError`, and leaves nothing then."""
    with _new_file(into, name) as copy:
        at = 0
        while piece := os.pread(descriptor, _COPIED_AT_ONCE_BYTES, at):
            at += write_all(copy, [piece])
        _become_like(copy, os.fstat(descriptor))
        os.fsync(copy)


@contextlib.contextmanager
def _new_file(into: Directory, name: str) -> Iterator[int]:
    descriptor = into.open_file(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        yield descriptor
    except BaseException:
        with contextlib.suppress(OSError):
            into.unlink(name)
        raise
    finally:
        os.close(descriptor)


def _become_like(copy: int | Path, original: os.stat_result) -> None:
    """Gives a copy the owner, the group, the mode and the time of its original."""
    now = os.stat(copy)
    if (now.st_uid, now.st_gid) != (original.st_uid, original.st_gid):
        # Who may not give files away owns the backup, as with `cp -p`.
        with contextlib.suppress(PermissionError):
            os.chown(copy, original.st_uid, original.st_gid)
    os.chmod(copy, stat.S_IMODE(original.st_mode))
    os.utime(copy, ns=(original.st_atime_ns, original.st_mtime_ns))


def _identity(found: os.stat_result) -> Identity:
    # Not the time of the inode, which a second name changes.
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _is_same(one: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samefile(one, other)
    return False


def _remove_abandoned(target: Path) -> None:
    """Removes what backups to `target` left that were killed."""
    prefix = f"{TEMP_PREFIX}{target.name}."
    for name in os.listdir(target.parent):
        if not (name.startswith(prefix) and name.endswith(TEMP_SUFFIX)):
            continue
        with contextlib.suppress(OSError):
            lock = os.open(
                target.parent / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            )
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(target.parent / name, ignore_errors=True)
            finally:
                os.close(lock)
