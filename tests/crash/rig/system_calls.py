"""The file-system calls of this process below one directory: recorded, cut short, or failed.

The calls are taken at Python's `os`, where the whole project makes them. What a recorded
call did is one event; the events in order are a trace, from which `power_cut` builds what
the disk may hold. A gate, asked before each call, may let it fail, write only part of what
was asked, or end the process there and then.

Whoever writes around `os` is found out: the size of a file that is synced must be the one
recorded, and calls that the model does not know are refused.
"""

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from logengine.disk import directory, one_flush, writes

ROOT = 0  # the directory beneath which calls are recorded, as an inode


class Made(NamedTuple):
    """A new inode under a name in directory `parent`."""

    parent: int
    name: str
    inode: int
    is_directory: bool


class Written(NamedTuple):
    """Bytes in a file, not synced."""

    inode: int
    offset: int
    data: bytes


class Emptied(NamedTuple):
    """A file cut to nothing, not synced."""

    inode: int


class Linked(NamedTuple):
    """One more name, in directory `parent`, of a file that is there."""

    parent: int
    name: str
    inode: int


class Renamed(NamedTuple):
    """A name in directory `parent` replaced by another one of the same directory."""

    parent: int
    source: str
    target: str


class Removed(NamedTuple):
    """A name that is gone from directory `parent`."""

    parent: int
    name: str


class Synced(NamedTuple):
    """All that was done to a file or a directory before is durable."""

    inode: int


class DataSynced(NamedTuple):
    """A file's data is durable, and what is needed to read it: fdatasync."""

    inode: int


class WrittenBack(NamedTuple):
    """The disk has a file's data, perhaps in its cache only: sync_file_range, waited for."""

    inode: int


class SyncFailed(NamedTuple):
    """A sync that said no: what it was to make durable may be lost, whatever a later one says."""

    inode: int


Event = (
    Made | Written | Emptied | Linked | Renamed | Removed
    | Synced | DataSynced | WrittenBack | SyncFailed
)  # fmt: skip


class Attempt(NamedTuple):
    """A call that is about to be made; `path` is relative, `number` counts from 1."""

    number: int
    call: str
    path: str
    inode: int | None


# Gives how many bytes a write may take, None for all. May raise OSError, or not return.
Gate = Callable[[Attempt], int | None]

CHANGING = frozenset(
    {"create", "write", "write back", "fsync", "link", "rename", "unlink", "mkdir", "rmdir"}
)
LOOKING = frozenset({"open", "read", "list"})

_NOT_MODELLED = (
    "symlink",
    "truncate",
    "ftruncate",
    "posix_fallocate",
    "sendfile",
)


def let_through(_attempt: Attempt) -> int | None:
    """The gate that does nothing."""
    return None


@dataclass
class _OpenFile:
    inode: int
    key: tuple[int, int]
    path: str
    offset: int = 0


class SystemCalls:
    """Takes all calls below `root` while it is entered; `trace` is what they did.

    `names` are the inodes that are there already, by relative path, and `inode` the next
    one that is free. `pause` is called before each call, outside of the lock that makes
    them one after the other.
    """

    def __init__(
        self,
        root: Path,
        *,
        names: Mapping[str, int] | None = None,
        inode: int = ROOT + 1,
        gate: Gate = let_through,
        pause: Callable[[], None] = lambda: None,
        on_event: Callable[[Any], None] | None = None,
    ) -> None:
        self.root = os.path.abspath(root)
        self.data = Path(root, "data")
        self.trace: list[Any] = []
        self.attempts: list[Attempt] = []
        self.gate = gate
        self._pause = pause
        self._on_event = on_event or self.trace.append
        self._names: dict[str, int] = {"": ROOT, **(names or {})}
        self._next_inode = inode
        self._files: dict[int, _OpenFile] = {}
        self._sizes: dict[int, int] = {}
        self._lock = threading.RLock()
        self._real = {name: getattr(os, name) for name in dir(os)}

    @contextlib.contextmanager
    def taken(self) -> Iterator["SystemCalls"]:
        """Takes the calls of this process until the block ends.

        A directory that changed a moment ago is listed once: otherwise the number of calls would
        depend on how fast the machine is.
        """
        ours = {
            "open": self._open,
            "writev": self._writev,
            "write": self._write,
            "pread": self._pread,
            "pwrite": self._pwrite,
            "fsync": self._fsync,
            "fdatasync": self._fdatasync,
            "link": self._link,
            "replace": self._rename,
            "rename": self._rename,
            "unlink": self._unlink,
            "remove": self._unlink,
            "mkdir": self._mkdir,
            "rmdir": self._rmdir,
            "listdir": self._listdir,
            **{name: self._refusing(name) for name in _NOT_MODELLED},
        }
        with contextlib.ExitStack() as stack:
            for name, call in ours.items():
                stack.enter_context(patch.object(os, name, call))
            stack.enter_context(patch.object(directory, "_LISTINGS_MAX", 1))
            self._real["write back"] = one_flush.write_back
            stack.enter_context(patch.object(one_flush, "write_back", self._write_back))
            yield self

    def note(self, event: Any) -> None:
        """Puts something else that happened in its place among the calls."""
        with self._lock:
            self._on_event(event)

    def _below(self, path: Any, dir_fd: int | None = None) -> str | None:
        """The relative path, or None if it is not ours."""
        if isinstance(path, int):
            file = self._of_descriptor(path)
            return None if file is None else file.path
        name = os.fsdecode(os.fspath(path))
        if dir_fd is not None and not os.path.isabs(name):
            directory = self._of_descriptor(dir_fd)
            if directory is None:
                return None
            return _normal(os.path.join(directory.path, name))
        absolute = os.path.abspath(name)
        if absolute == self.root:
            return ""
        return absolute[len(self.root) + 1 :] if absolute.startswith(self.root + "/") else None

    @contextlib.contextmanager
    def _attempt(self, call: str, path: str, inode: int | None) -> Iterator[int | None]:
        self._pause()
        with self._lock:
            attempt = Attempt(len(self.attempts) + 1, call, path, inode)
            self.attempts.append(attempt)
            yield self.gate(attempt)

    def _of_descriptor(self, descriptor: int) -> _OpenFile | None:
        file = self._files.get(descriptor)
        if file is None:
            return None
        found = os.fstat(descriptor)
        # A number may have been closed, and used again, where nobody told us.
        return file if (found.st_dev, found.st_ino) == file.key else None

    def _parent(self, path: str) -> tuple[int, str]:
        directory, name = os.path.split(path)
        return self._names[directory], name

    def _open(self, path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        below = self._below(path, kwargs.get("dir_fd"))
        if below is None:
            return int(self._real["open"](path, flags, *args, **kwargs))
        creates = bool(flags & os.O_CREAT) and below not in self._names
        with self._attempt("create" if creates else "open", below, self._names.get(below)):
            descriptor = int(self._real["open"](path, flags, *args, **kwargs))
            if creates:
                self._names[below] = self._make(below, is_directory=False)
            inode = self._names[below]
            found = os.fstat(descriptor)
            offset = self._sizes.get(inode, 0) if flags & os.O_APPEND else 0
            self._files[descriptor] = _OpenFile(inode, (found.st_dev, found.st_ino), below, offset)
            if flags & os.O_TRUNC and not creates:
                self._sizes[inode] = 0
                self._on_event(Emptied(inode))
            return descriptor

    def _make(self, path: str, *, is_directory: bool) -> int:
        inode, self._next_inode = self._next_inode, self._next_inode + 1
        parent, name = self._parent(path)
        self._sizes[inode] = 0
        self._on_event(Made(parent, name, inode, is_directory))
        return inode

    def _writev(self, descriptor: int, buffers: Sequence[Any]) -> int:
        file = self._of_descriptor(descriptor)
        if file is None:
            return int(self._real["writev"](descriptor, buffers))
        with self._attempt("write", file.path, file.inode) as only:
            data = b"".join(bytes(buffer) for buffer in buffers)
            if only is not None:
                # A direct write ends at the border of a block, also where it is cut short.
                is_direct = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT
                past_border = only % writes._ALIGNMENT if is_direct else 0
                buffers = [memoryview(data)[: only - past_border]]
            written = int(self._real["writev"](descriptor, buffers))
            self._on_event(Written(file.inode, file.offset, data[:written]))
            file.offset += written
            self._sizes[file.inode] = max(self._sizes.get(file.inode, 0), file.offset)
            return written

    def _write(self, descriptor: int, data: Any) -> int:
        return self._writev(descriptor, [data])

    def _pwrite(self, descriptor: int, data: Any, offset: int) -> int:
        file = self._of_descriptor(descriptor)
        if file is None:
            return int(self._real["pwrite"](descriptor, data, offset))
        with self._attempt("write", file.path, file.inode) as only:
            written = int(self._real["pwrite"](descriptor, bytes(data)[:only], offset))
            self._on_event(Written(file.inode, offset, bytes(data)[:written]))
            self._sizes[file.inode] = max(self._sizes.get(file.inode, 0), offset + written)
            return written

    def _pread(self, descriptor: int, count: int, offset: int) -> bytes:
        file = self._of_descriptor(descriptor)
        if file is None:
            return bytes(self._real["pread"](descriptor, count, offset))
        with self._attempt("read", file.path, file.inode):
            return bytes(self._real["pread"](descriptor, count, offset))

    def _fsync(self, descriptor: int) -> None:
        self._sync(descriptor, "fsync", Synced)

    def _fdatasync(self, descriptor: int) -> None:
        self._sync(descriptor, "fdatasync", DataSynced)

    def _write_back(self, descriptor: int) -> None:
        self._sync(descriptor, "write back", WrittenBack)

    def _sync(self, descriptor: int, call: str, event: Callable[[int], Any]) -> None:
        file = self._of_descriptor(descriptor)
        if file is None:
            self._real[call](descriptor)
            return
        size = self._sizes.get(file.inode)
        is_file = not os.path.isdir(os.path.join(self.root, file.path))
        if is_file and size is not None and os.fstat(descriptor).st_size != size:
            raise AssertionError(f"{file.path}: something was written around the recorder")
        try:
            name = "write back" if event is WrittenBack else "fsync"
            with self._attempt(name, file.path, file.inode):
                self._real[call](descriptor)
                self._on_event(event(file.inode))
        except OSError:
            self.note(SyncFailed(file.inode))
            raise

    def _both_below(
        self, source: Any, target: Any, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> tuple[str | None, str | None]:
        return self._below(source, src_dir_fd), self._below(target, dst_dir_fd)

    def _link(
        self, source: Any, target: Any, *, follow_symlinks: bool = True, **kwargs: Any
    ) -> None:
        def link() -> None:
            self._real["link"](source, target, follow_symlinks=follow_symlinks, **kwargs)

        before, after = self._both_below(source, target, **kwargs)
        if before is None or after is None:
            assert before is after, "a link into or out of the recorded directory"
            link()
            return
        inode = self._names[before]
        with self._attempt("link", after, inode):
            link()
            self._on_event(Linked(*self._parent(after), inode))
            self._names[after] = inode

    def _rename(self, source: Any, target: Any, **kwargs: Any) -> None:
        before, after = self._both_below(source, target, **kwargs)
        if before is None or after is None:
            assert before is after, "a rename into or out of the recorded directory"
            self._real["replace"](source, target, **kwargs)
            return
        with self._attempt("rename", after, self._names.get(before)):
            self._real["replace"](source, target, **kwargs)
            parent, source_name = self._parent(before)
            target_parent, target_name = self._parent(after)
            assert parent == target_parent, "a rename across directories is not modelled"
            self._on_event(Renamed(parent, source_name, target_name))
            self._names[after] = self._names.pop(before)

    def _unlink(self, path: Any, **kwargs: Any) -> None:
        self._take_away("unlink", path, **kwargs)

    def _rmdir(self, path: Any, **kwargs: Any) -> None:
        self._take_away("rmdir", path, **kwargs)

    def _take_away(self, call: str, path: Any, **kwargs: Any) -> None:
        below = self._below(path, kwargs.get("dir_fd"))
        if below is None:
            self._real[call](path, **kwargs)
            return
        with self._attempt(call, below, self._names.get(below)):
            self._real[call](path, **kwargs)
            self._on_event(Removed(*self._parent(below)))
            del self._names[below]

    def _mkdir(self, path: Any, *args: Any, **kwargs: Any) -> None:
        below = self._below(path, kwargs.get("dir_fd"))
        if below is None:
            self._real["mkdir"](path, *args, **kwargs)
            return
        with self._attempt("mkdir", below, None):
            self._real["mkdir"](path, *args, **kwargs)
            self._names[below] = self._make(below, is_directory=True)

    def _listdir(self, path: Any = ".") -> list[Any]:
        below = self._below(path)
        if below is None:
            return list(self._real["listdir"](path))
        with self._attempt("list", below, self._names.get(below)):
            return list(self._real["listdir"](path))

    def _refusing(self, name: str) -> Callable[..., Any]:
        def refuse(target: Any, *args: Any, **kwargs: Any) -> Any:
            ours = (
                self._of_descriptor(target)
                if isinstance(target, int)
                else self._below(target) is not None
            )
            assert not ours, f"os.{name} is not modelled"
            return self._real[name](target, *args, **kwargs)

        return refuse


def _normal(relative: str) -> str:
    """A relative path as it is kept: without dots, and empty for the root."""
    normal = os.path.normpath(relative)
    return "" if normal == "." else normal
