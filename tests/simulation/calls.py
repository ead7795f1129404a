"""The system calls of the simulated processes: the duration and the outcome of each.

While a `SystemCalls` is entered, Python's `os`, `open`, `fcntl` and the clocks work on the
simulated disk and time, for paths below `disk.ROOT` and for descriptors that were opened
there, by path and by name in an open directory (`dir_fd`). Everything else goes to the
real ones.
"""

import builtins
import contextlib
import errno
import fcntl
import io
import os
import random
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self
from unittest.mock import patch

from asyncinotify import Mask
from greenlet import getcurrent

from logengine.disk import one_flush
from logengine.disk.crash_mark import CRASH_MARK_NAME
from logengine.format.segment import first_of_name
from tests.simulation.clock import Kernel, Process, ProcessGone, Thread
from tests.simulation.disk import ROOT, Directory, Disk, Inode

_OPEN_FILES = "/proc/self/fd/"
_BELOW_ROOT = f"{ROOT}/"
# The directory that contains the data directory.
_ABOVE = "/"
# The note about a failed sync, which no fault may prevent: if it is prevented,
# and the next process of the same boot cannot write either, nothing is guaranteed.
_NOTE = "note"
_FIRST_DESCRIPTOR = 1_000_000
_BLOCK_BYTES = 512
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_O_DIRECT = os.O_DIRECT


@dataclass
class Fault:
    """A fault of some calls, from `start_s` until `end_s`.

    `stream` is the name of the directory whose calls it affects, "" for the data directory, None
    for all; `calls` are their kinds. With an `errno` they fail, else they take `slow_s` longer.
    A fault with `once` is over after its first call.
    """

    number: int
    calls: frozenset[str]
    stream: str | None
    start_s: float
    end_s: float
    errno: int = 0
    slow_s: float = 0.0
    once: bool = False
    skips: int = 0
    then: str = ""
    then_s: float = 0.0
    passed: int = 0
    is_over: bool = False
    hits: int = 0

    def concerns(self, call: str, stream: str, now_s: float) -> bool:
        if (
            self.is_over
            or not self.start_s <= now_s < self.end_s
            or (self.stream is not None and self.stream != stream)
            or call not in self.calls
        ):
            return False
        self.passed += 1
        return self.passed > self.skips

    def hit(self) -> None:
        self.hits += 1
        if self.once:
            self.is_over = True

    def __str__(self) -> str:
        where = "all" if self.stream is None else self.stream or "data"
        what = errno.errorcode[self.errno] if self.errno else f"+{self.slow_s:.4f}s"
        often = "once" if self.once else f"until {self.end_s:.4f}"
        if self.skips:
            often += f", after {self.skips}"
        if self.then:
            often += f", and then {self.then}"
        return (
            f"{what} of {'/'.join(sorted(self.calls))} in {where} from {self.start_s:.4f} {often}"
        )


@dataclass
class Space:
    """A full disk, or a disk quota: limits what still fits from `start_s` until `end_s`."""

    start_s: float
    end_s: float
    left_bytes: int
    errno: int
    limit_bytes: int | None = None


@dataclass
class Latency:
    """How long calls take, in seconds: those that wait for the device, and the others."""

    sync_s: float = 0.001
    call_s: float = 2e-6
    spread: float = 3.0
    per_stream: dict[str, float] = field(default_factory=dict)


@dataclass(eq=False)
class _Open:
    inode: Inode
    directory: str  # the name of the directory that contains it, or its own
    process: Process | None
    parent: Directory | None = None
    name: str = ""
    offset: int = 0
    flags: int = 0
    has_lock: bool = False


class _Stat:
    """The result of stat(2)."""

    __slots__ = (
        "st_blocks",
        "st_ctime_ns",
        "st_dev",
        "st_gid",
        "st_ino",
        "st_mode",
        "st_mtime",
        "st_mtime_ns",
        "st_nlink",
        "st_size",
        "st_uid",
    )

    def __init__(self, inode: Inode) -> None:
        self.st_mode = inode.mode
        self.st_ino = inode.number
        self.st_dev = 1
        self.st_nlink = inode.links
        self.st_uid = self.st_gid = os.geteuid()
        self.st_size = len(inode.content)
        self.st_blocks = -(-self.st_size // _BLOCK_BYTES)
        self.st_mtime_ns = self.st_ctime_ns = inode.mtime_ns
        self.st_mtime = inode.mtime_ns / 1e9


class _Entry:
    """The result of scandir(3) for one name."""

    def __init__(self, calls: "SystemCalls", path: str, name: str, inode: Inode) -> None:
        self._calls = calls
        self._inode = inode
        self.name = name
        self.path = f"{path}/{name}"

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return self._inode.is_directory

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return not self._inode.is_directory

    def is_symlink(self) -> bool:
        return False

    def inode(self) -> int:
        return self._inode.number

    def stat(self, *, follow_symlinks: bool = True) -> _Stat:
        if not self._inode.links and not self._inode.is_directory:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.path)
        return _Stat(self._inode)


class _Entries(list[_Entry]):
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass


class _File(io.RawIOBase):
    """The result of `open` without a buffer."""

    def __init__(self, calls: "SystemCalls", descriptor: int, *, closes: bool) -> None:
        self._calls = calls
        self._descriptor = descriptor
        self._closes = closes

    def fileno(self) -> int:
        return self._descriptor

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._calls.lseek(self._descriptor, offset, whence)

    def read(self, size: int = -1) -> bytes:
        return self._calls.read(self._descriptor, size if size >= 0 else 1 << 40)

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def write(self, data: Any) -> int:
        return self._calls.write(self._descriptor, data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        if not self.closed:
            super().close()
            if self._closes:
                self._calls.close(self._descriptor)


class SystemCalls:
    """The calls on one disk, in a kernel's time. `on_fault` gets each that fails or is slow."""

    def __init__(
        self, kernel: Kernel, source: random.Random, latency: Latency, *, has_journal: bool = False
    ) -> None:
        self.kernel = kernel
        self.disk = Disk(has_journal=has_journal)
        self.latency = latency
        self.faults: list[Fault] = []
        self._by_call: dict[str, list[Fault]] = {}
        self.space: list[Space] = []
        self.short_writes = 0.0
        self.boot_id = "boot-1"
        self.wall_ns: Callable[[], int] = lambda: 0
        self.on_fault: Callable[[str, str, Fault | Space | None, int], None] = lambda *_: None
        self.on_change: Callable[[Directory, Mask, str], None] = lambda *_: None
        self.count = 0
        self._source = source
        self._random = source.random
        self._spread = latency.spread
        self._open_files: dict[int, _Open] = {}
        self._next = _FIRST_DESCRIPTOR
        self._tokens = 0
        self._real: dict[str, Any] = {}

    # Faults and latency -------------------------------------------------------------------

    def _begin(self, call: str, stream: str, base_s: float) -> Process | None:
        """Starts a call: time passes, and then it may fail. Raises `OSError`."""
        thread = getcurrent()
        if not isinstance(thread, Thread):
            return None  # an observer outside the simulation: no time, and no faults
        if not thread.process.is_alive:
            raise ProcessGone
        self.count += 1
        duration_s = base_s * (0.3 + self._random() * self._spread) if base_s else 0.0
        kernel = self.kernel
        faults = self._by_call.get(call)
        if faults is None:
            kernel.sleep(duration_s)
            return thread.process
        for fault in faults:
            if fault.slow_s and fault.concerns(call, stream, kernel.now):
                fault.hit()
                self.on_fault(call, stream, fault, 0)
                duration_s += fault.slow_s
        kernel.sleep(duration_s)
        for fault in faults:
            if not fault.errno or not fault.concerns(call, stream, kernel.now):
                continue
            if not _is_spared(thread.role, call):
                fault.hit()
                self.on_fault(call, stream, fault, fault.errno)
                raise OSError(fault.errno, os.strerror(fault.errno), stream)
        return thread.process

    def set_faults(self, faults: list[Fault]) -> None:
        """Replaces the faults from now on."""
        self.faults = faults
        self._by_call = {}
        for fault in faults:
            for call in fault.calls:
                self._by_call.setdefault(call, []).append(fault)

    def _of_device(self, stream: str) -> float:
        return self.latency.per_stream.get(stream, self.latency.sync_s)

    def _needs_space(self, call: str, stream: str, size: int) -> None:
        for space in self.space:
            if not space.start_s <= self.kernel.now < space.end_s:
                continue
            if space.limit_bytes is None:
                space.limit_bytes = self.disk.used_bytes + space.left_bytes
            if self.disk.used_bytes + size > space.limit_bytes:
                self.on_fault(call, stream, space, space.errno)
                raise OSError(space.errno, os.strerror(space.errno), stream)

    # Paths ---------------------------------------------------------------------------------

    def _start(self, path: Any, dir_fd: int | None) -> tuple[Directory, list[str]] | None:
        """The start directory and the parts of a path, if it is on the simulated disk."""
        if type(path) is not str:
            if isinstance(path, int):
                return None
            path = os.fspath(path)
            if type(path) is not str:
                return None
        if path.startswith(_BELOW_ROOT):
            return self.disk.root, path[len(_BELOW_ROOT) :].split("/")
        if path == ROOT:
            return self.disk.root, []
        if dir_fd is not None and dir_fd >= _FIRST_DESCRIPTOR:
            directory = self._of(dir_fd).inode
            if not isinstance(directory, Directory):
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            return directory, [p for p in path.split("/") if p and p != "."]
        return None

    @staticmethod
    def _stream(start: Directory, parts: list[str]) -> str:
        """The name of the stream's directory that contains a name; "" for others."""
        if len(parts) > 1:
            return parts[-2] if parts[-2] != "data" else ""
        return start.name if start.name != "data" else ""

    def look_up(self, path: str) -> Inode:
        """The inode at a path, for the simulation itself. Raises `OSError`."""
        where = self._start(path, None)
        assert where is not None
        return self.disk.lookup(*where)

    def _of(self, descriptor: int) -> _Open:
        opened = self._open_files.get(descriptor)
        if opened is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return opened

    # The calls -----------------------------------------------------------------------------

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        where = self._start(path, dir_fd)
        if where is None:
            return int(self._real["open"](path, flags, mode, dir_fd=dir_fd))
        start, parts = where
        stream = self._stream(start, parts)
        creates = flags & os.O_CREAT
        call = "create" if creates else "open"
        if flags & os.O_APPEND and parts[-1] == CRASH_MARK_NAME:
            call = _NOTE
        process = self._begin(call, stream, self.latency.call_s)
        disk = self.disk
        try:
            inode = disk.lookup(start, parts)
        except FileNotFoundError:
            if not creates:
                raise
            directory, name = disk.parent(start, parts)
            self._needs_space("create", stream, 0)
            inode = disk.create(directory, name, mode)
            self.on_change(directory, Mask.CREATE, name)
        else:
            if creates and flags & os.O_EXCL:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
            if flags & os.O_DIRECTORY and not inode.is_directory:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
            if inode.is_directory and flags & (os.O_WRONLY | os.O_RDWR):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            if flags & os.O_TRUNC:
                disk.truncate(inode, 0)
        if isinstance(inode, Directory):
            stream = "" if inode.name == "data" else inode.name or _ABOVE
        self._next += 1
        parent = None if inode.is_directory else disk.parent(start, parts)[0]
        self._open_files[self._next] = _Open(
            inode, stream, process, parent, parts[-1] if parts else "", flags=flags
        )
        return self._next

    def close(self, descriptor: int) -> None:
        if descriptor < _FIRST_DESCRIPTOR:
            self._real["close"](descriptor)
        elif self._open_files.pop(descriptor, None) is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def release(self, process: Process) -> None:
        """Closes everything that a process which is gone had open."""
        self._open_files = {
            number: each for number, each in self._open_files.items() if each.process is not process
        }

    def descriptors(self, process: Process) -> int:
        """How many files a process has open; directories are closed with their last reference."""
        return sum(
            each.process is process and not each.inode.is_directory
            for each in self._open_files.values()
        )

    def read(self, descriptor: int, size: int) -> bytes:
        if descriptor < _FIRST_DESCRIPTOR:
            return bytes(self._real["read"](descriptor, size))
        opened = self._of(descriptor)
        self._begin("read", opened.directory, self.latency.call_s)
        data = opened.inode.content[opened.offset : opened.offset + size]
        opened.offset += len(data)
        return data

    def pread(self, descriptor: int, size: int, offset: int) -> bytes:
        if descriptor < _FIRST_DESCRIPTOR:
            return bytes(self._real["pread"](descriptor, size, offset))
        opened = self._of(descriptor)
        self._begin("read", opened.directory, self.latency.call_s)
        return opened.inode.content[offset : offset + size]

    def lseek(self, descriptor: int, offset: int, whence: int = 0) -> int:
        if descriptor < _FIRST_DESCRIPTOR:
            return int(self._real["lseek"](descriptor, offset, whence))
        opened = self._of(descriptor)
        before = (0, opened.offset, len(opened.inode.content))[whence]
        opened.offset = before + offset
        return opened.offset

    def write(self, descriptor: int, data: Any) -> int:
        if descriptor < _FIRST_DESCRIPTOR:
            return int(self._real["write"](descriptor, data))
        return self._write(descriptor, bytes(data))

    def pwrite(self, descriptor: int, data: Any, offset: int) -> int:
        if descriptor < _FIRST_DESCRIPTOR:
            return int(self._real["pwrite"](descriptor, data, offset))
        return self._write(descriptor, bytes(data), offset)

    def writev(self, descriptor: int, buffers: Any) -> int:
        if descriptor < _FIRST_DESCRIPTOR:
            return int(self._real["writev"](descriptor, buffers))
        return self._write(descriptor, b"".join(buffers))

    def _write(self, descriptor: int, data: bytes, at: int | None = None) -> int:
        opened = self._of(descriptor)
        call = _NOTE if opened.name == CRASH_MARK_NAME else "write"
        self._begin(call, opened.directory, self.latency.call_s)
        if len(data) > 1 and self.short_writes and self._source.random() < self.short_writes:
            data = data[: self._source.randint(1, len(data) - 1)]
            self.on_fault("write", opened.directory, None, 0)
        inode = opened.inode
        offset = len(inode.content) if opened.flags & os.O_APPEND else opened.offset
        offset = offset if at is None else at
        if call != _NOTE:
            self._needs_space(call, opened.directory, len(data))
        self.disk.write(inode, offset, data)
        inode.mtime_ns = self.wall_ns()
        if at is None:
            opened.offset = offset + len(data)
        if opened.parent is not None:
            self.on_change(opened.parent, Mask.MODIFY, opened.name)
        return len(data)

    def fsync(self, descriptor: int) -> None:
        if descriptor < _FIRST_DESCRIPTOR:
            self._real["fsync"](descriptor)
            return
        inode, content, up_to = self._synced(descriptor)
        self.disk.sync(inode, content, up_to)

    def fdatasync(self, descriptor: int) -> None:
        if descriptor < _FIRST_DESCRIPTOR:
            self._real["fdatasync"](descriptor)
            return
        inode, content, _ = self._synced(descriptor)
        self.disk.sync_data(inode, content)

    def write_back(self, descriptor: int) -> None:
        """sync_file_range of a whole file, waited for."""
        inode, _, _ = self._synced(descriptor)
        self.disk.write_back(inode)

    def _synced(self, descriptor: int) -> tuple[Inode, bytes, int]:
        """Waits for the disk; what is synced, and its content and newest change at the start."""
        opened = self._of(descriptor)
        inode, disk = opened.inode, self.disk
        is_directory = isinstance(inode, Directory)
        content, up_to = inode.content, disk.changes
        if disk.has_journal:
            up_to = inode.newest_change
        call = "sync directory" if is_directory else "fsync"
        try:
            self._begin(call, opened.directory, self._of_device(opened.directory))
        except OSError:
            disk.fail_sync(inode, content, up_to)
            raise
        return inode, content, up_to

    def fstat(self, descriptor: int) -> Any:
        if descriptor < _FIRST_DESCRIPTOR:
            return self._real["fstat"](descriptor)
        opened = self._of(descriptor)
        self._begin("stat", opened.directory, 0.0)
        return _Stat(opened.inode)

    def stat(self, path: Any, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> Any:
        if isinstance(path, int) and path >= _FIRST_DESCRIPTOR:
            return self.fstat(path)
        where = self._start(path, dir_fd)
        if where is None:
            return self._real["stat"](path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
        self._begin("stat", self._stream(*where), self.latency.call_s)
        return _Stat(self.disk.lookup(*where))

    def lstat(self, path: Any, *, dir_fd: int | None = None) -> Any:
        return self.stat(path, dir_fd=dir_fd, follow_symlinks=False)

    def replace(
        self,
        source: Any,
        target: Any,
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
    ) -> None:
        before, after = self._start(source, src_dir_fd), self._start(target, dst_dir_fd)
        if before is None or after is None:
            self._real["replace"](source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            return
        self._begin("replace", self._stream(*after), self.latency.call_s)
        source_directory, source_name = self.disk.parent(*before)
        directory, name = self.disk.parent(*after)
        self.disk.replace(source_directory, source_name, directory, name)
        self.on_change(source_directory, Mask.MOVED_FROM, source_name)
        self.on_change(directory, Mask.MOVED_TO, name)

    def link(
        self,
        source: Any,
        target: Any,
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        before, after = self._start(source, src_dir_fd), self._start(target, dst_dir_fd)
        if before is None or after is None:
            self._real["link"](source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            return
        self._begin("link", self._stream(*after), self.latency.call_s)
        directory, name = self.disk.parent(*after)
        self.disk.link(self.disk.lookup(*before), directory, name)
        self.on_change(directory, Mask.CREATE, name)

    def unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        where = self._start(path, dir_fd)
        if where is None:
            self._real["unlink"](path, dir_fd=dir_fd)
            return
        self._begin("unlink", self._stream(*where), self.latency.call_s)
        directory, name = self.disk.parent(*where)
        self.disk.unlink(directory, name)
        self.on_change(directory, Mask.DELETE, name)

    def mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        where = self._start(path, dir_fd)
        if where is None:
            self._real["mkdir"](path, mode, dir_fd=dir_fd)
            return
        self._begin("mkdir", self._stream(*where), self.latency.call_s)
        if not where[1]:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        directory, name = self.disk.parent(*where)
        if name not in directory.entries:
            self._needs_space("mkdir", "", 0)
        self.disk.mkdir(directory, name)
        self.on_change(directory, Mask.CREATE | Mask.ISDIR, name)

    def rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        where = self._start(path, dir_fd)
        if where is None:
            self._real["rmdir"](path, dir_fd=dir_fd)
            return
        self._begin("rmdir", self._stream(*where), self.latency.call_s)
        directory, name = self.disk.parent(*where)
        self.disk.rmdir(directory, name)
        self.on_change(directory, Mask.DELETE | Mask.ISDIR, name)

    def _directory(self, path: Any) -> tuple[Directory, str] | None:
        if isinstance(path, int):
            if path < _FIRST_DESCRIPTOR:
                return None
            found = self._of(path).inode
        else:
            where = self._start(path, None)
            if where is None:
                return None
            found = self.disk.lookup(*where)
        if not isinstance(found, Directory):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        return found, found.name if found.name != "data" else ""

    def listdir(self, path: Any = ".") -> list[str]:
        found = self._directory(path)
        if found is None:
            return list(self._real["listdir"](path))
        self._begin("list", found[1], self.latency.call_s)
        again = self._directory(path)
        assert again is not None
        return list(again[0].entries)

    def scandir(self, path: Any = ".") -> Any:
        found = self._directory(path)
        if found is None:
            return self._real["scandir"](path)
        self._begin("list", found[1], self.latency.call_s)
        again = self._directory(path)
        assert again is not None
        shown = "." if isinstance(path, int) else os.fspath(path)
        return _Entries(_Entry(self, shown, n, inode) for n, inode in again[0].entries.items())

    def statvfs(self, path: Any) -> Any:
        is_ours = path >= _FIRST_DESCRIPTOR if isinstance(path, int) else self._start(path, None)
        if not is_ours:
            return self._real["statvfs"](path)
        self._begin("statvfs", "", self.latency.call_s)
        free = min(
            (
                max(0, space.limit_bytes - self.disk.used_bytes)
                for space in self.space
                if space.start_s <= self.kernel.now < space.end_s and space.limit_bytes is not None
            ),
            default=1 << 30,
        )
        size = 1 << 31
        return os.statvfs_result((1, 1, size, free, free, 1 << 20, 1 << 20, 1 << 20, 0, 255))

    def posix_fallocate(self, descriptor: int, offset: int, size: int) -> None:
        if descriptor < _FIRST_DESCRIPTOR:
            self._real["posix_fallocate"](descriptor, offset, size)
            return
        opened = self._of(descriptor)
        self._begin("write", opened.directory, self.latency.call_s)
        more = max(0, offset + size - len(opened.inode.content))
        self._needs_space("write", opened.directory, more)
        self.disk.truncate(opened.inode, len(opened.inode.content) + more)

    def ftruncate(self, descriptor: int, size: int) -> None:
        if descriptor < _FIRST_DESCRIPTOR:
            self._real["ftruncate"](descriptor, size)
            return
        opened = self._of(descriptor)
        self._begin("write", opened.directory, self.latency.call_s)
        self.disk.truncate(opened.inode, size)

    def raw_file(self, name: str, _mode: str, *, opener: Any) -> io.RawIOBase:
        """Replaces `io.FileIO` for a new temp file."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return _File(self, opener(name, flags), closes=True)

    def fchmod(self, descriptor: int, mode: int) -> None:
        if descriptor < _FIRST_DESCRIPTOR:
            self._real["fchmod"](descriptor, mode)
            return
        inode = self._of(descriptor).inode
        inode.mode = stat.S_IFMT(inode.mode) | mode

    def fchown(self, descriptor: int, uid: int, gid: int) -> None:
        if descriptor < _FIRST_DESCRIPTOR:
            self._real["fchown"](descriptor, uid, gid)

    def listxattr(self, path: Any = None, *, follow_symlinks: bool = True) -> list[str]:
        if self._is_ours(path):
            return []  # this file system has none
        return list(self._real["listxattr"](path, follow_symlinks=follow_symlinks))

    def removexattr(self, path: Any, attribute: str, *, follow_symlinks: bool = True) -> None:
        if self._is_ours(path):
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA), str(path))
        self._real["removexattr"](path, attribute, follow_symlinks=follow_symlinks)

    def _is_ours(self, path: Any) -> bool:
        if isinstance(path, int):
            return path >= _FIRST_DESCRIPTOR
        text = str(path)
        if text.startswith(_OPEN_FILES):
            number = text[len(_OPEN_FILES) :].partition("/")[0]
            return number.isdigit() and int(number) >= _FIRST_DESCRIPTOR
        return self._start(text, None) is not None

    def dup(self, descriptor: int) -> int:
        if descriptor < _FIRST_DESCRIPTOR:
            return int(self._real["dup"](descriptor))
        self._next += 1
        self._open_files[self._next] = self._of(descriptor)
        return self._next

    def _flock(self, descriptor: Any, operation: int) -> None:
        if not isinstance(descriptor, int) or descriptor < _FIRST_DESCRIPTOR:
            self._real["flock"](descriptor, operation)
            return
        opened = self._of(descriptor)
        self._begin("stat", opened.directory, 0.0)
        if operation & fcntl.LOCK_UN:
            opened.has_lock = False
            return
        for other in self._open_files.values():
            if other.inode is opened.inode and other.has_lock and other is not opened:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        opened.has_lock = True

    def _fcntl(self, descriptor: Any, command: int, argument: Any = 0) -> Any:
        if not isinstance(descriptor, int) or descriptor < _FIRST_DESCRIPTOR:
            return self._real["fcntl"](descriptor, command, argument)
        opened = self._of(descriptor)
        if command == fcntl.F_GETFL:
            return opened.flags
        if command == fcntl.F_SETFL:
            opened.flags = argument
        return 0

    def _open_file(
        self,
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,  # noqa: FBT002 - as `open` has it
        opener: Any = None,
    ) -> Any:
        if file == _BOOT_ID or (not isinstance(file, (int, str)) and str(file) == _BOOT_ID):
            return io.StringIO(self.boot_id)
        if isinstance(file, int):
            if file < _FIRST_DESCRIPTOR:
                return self._real["open file"](
                    file, mode, buffering, encoding, errors, newline, closefd, opener
                )
            descriptor = file
        else:
            if opener is None and self._start(file, None) is None:
                return self._real["open file"](
                    file, mode, buffering, encoding, errors, newline, closefd, opener
                )
            flags = (
                os.O_CLOEXEC
                | {
                    "r": os.O_RDONLY,
                    "w": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
                    "a": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
                }[mode[0]]
            )
            descriptor = self.open(file, flags, 0o666) if opener is None else opener(file, flags)
            if descriptor < _FIRST_DESCRIPTOR:
                return self._real["open file"](
                    descriptor, mode, buffering, encoding, errors, newline, closefd
                )
        raw = _File(self, descriptor, closes=closefd)
        if buffering == 0:
            return raw
        reads = mode[0] == "r"
        buffered: Any = io.BufferedReader(raw) if reads else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

    def token_hex(self, count: int = 16) -> str:
        """Random characters for names, never the same twice."""
        self._tokens += 1
        return f"{self._tokens:0{2 * count}x}"

    # Patching ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Redirects the engine's calls to this object until it exits."""
        names = [
            "open", "close", "read", "pread", "lseek", "write", "writev", "pwrite", "fsync",
            "fstat", "stat", "lstat", "replace", "link", "unlink", "mkdir", "rmdir", "listdir",
            "scandir", "statvfs", "posix_fallocate", "ftruncate", "fchmod", "fchown", "listxattr",
            "removexattr", "dup", "fdatasync",
        ]  # fmt: skip
        self._real = {name: getattr(os, name) for name in names}
        self._real["open file"] = builtins.open
        self._real["flock"], self._real["fcntl"] = fcntl.flock, fcntl.fcntl
        with contextlib.ExitStack() as stack:
            for name in names:
                stack.enter_context(patch.object(os, name, getattr(self, name)))
            for alias, name in {
                "fstatvfs": "statvfs",
                "rename": "replace",
                "remove": "unlink",
            }.items():
                stack.enter_context(patch.object(os, alias, getattr(self, name)))
            stack.enter_context(patch.object(one_flush, "write_back", self.write_back))
            stack.enter_context(patch.object(fcntl, "flock", self._flock))
            stack.enter_context(patch.object(fcntl, "fcntl", self._fcntl))
            stack.enter_context(patch.object(builtins, "open", self._open_file))
            stack.enter_context(patch.object(io, "open", self._open_file))
            yield


def _is_spared(role: str, call: str) -> bool:
    """Whether a call must not fail: the result is known, and no promise covers it."""
    # A failure would lose what the daemon's own sync makes durable.
    return role == "follower" and call == "sync directory"


def is_segment(name: str) -> bool:
    """Whether a name is a segment's."""
    return first_of_name(name) is not None
