"""A file system in memory, which knows for every name and byte whether it survives a power cut.

The model is that of `tests.crash.rig.power_cut`. A change of names is durable once a sync of its
directory has started after it and succeeded; a file's content is durable once a sync of the file
has. Before that, any subset of the changes may survive a cut, in any combination. A failed sync
leaves what it was to make durable in that state permanently. With a journal, the model is that of
`tests.crash.rig.journal`. This module tracks the state call by
call instead of deriving it from a trace: `sure` has the names of a directory that every cut
leaves as they are.
"""

import errno
import os
import random
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.crash.rig.power_cut import contents_after_cut

ROOT = "/simulated"
_INODE_BYTES = 256  # the size of a file in addition to its content
_MIXED_BYTES_MAX = 64 * 1024


@dataclass(eq=False)
class Change:
    """Names of one directory that change together; None for a removed one."""

    number: int
    names: dict[str, "Inode | None"]
    is_lost: bool = False


@dataclass(eq=False)
class Inode:
    """A file: its content, and how much of that is durable."""

    number: int
    mode: int
    content: bytes = b""
    durable: bytes = b""
    is_lost: bool = False  # a sync failed: nothing of it can become durable any more
    links: int = 0
    mtime_ns: int = 0
    seen: object = None  # what the oracle has read from it
    is_final: bool = False  # has, or had, the name of a segment
    newest_change: int = 0  # of a directory, or of a file's names: the number of the last one
    # With a journal: what was written back, and after how many changes.
    written_back: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def is_directory(self) -> bool:
        return False

    @property
    def is_durable(self) -> bool:
        """Whether its whole current content survives a power cut."""
        return self.durable == self.content and not self.is_lost

    @property
    def survives_with_name(self) -> bool:
        """Whether its whole current content survives if the name that it was given last does."""
        is_written_back = self.written_back and self.written_back[-1][1] == self.content
        return self.is_durable or bool(is_written_back and not self.is_lost)


@dataclass(eq=False)
class Directory(Inode):
    """A directory: its current names, and which of them are durable."""

    name: str = ""
    entries: dict[str, Inode] = field(default_factory=dict)
    durable_entries: dict[str, Inode] = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)
    sure: dict[str, Inode] = field(default_factory=dict)
    version: int = 0  # counts the changes of `sure` and `pending`

    @property
    def is_directory(self) -> bool:
        return True

    def change(self, change: Change) -> None:
        """Applies a change of names, which is not durable yet."""
        for name, inode in change.names.items():
            before = self.entries.pop(name, None)
            if before is not None:
                before.links -= 1
            if inode is not None:
                inode.links += 1
                self.entries[name] = inode
            self.sure.pop(name, None)
            if inode is not None:
                inode.newest_change = change.number
        self.newest_change = change.number
        self.pending.append(change)
        self.version += 1

    def possible(self, name: str) -> list[Inode | None]:
        """What may be under `name` after a cut."""
        found: list[Inode | None] = [self.durable_entries.get(name)]
        found += [each.names[name] for each in self.pending if name in each.names]
        return found

    def sync(self, up_to: int) -> None:
        """Makes durable all changes up to the one with number `up_to`."""
        for position, change in enumerate(self.pending):
            if change.number > up_to or change.is_lost:
                continue
            for name, inode in change.names.items():
                # An earlier lost change of the name no longer matters.
                for before in self.pending[:position]:
                    before.names.pop(name, None)
                if inode is None:
                    self.durable_entries.pop(name, None)
                else:
                    self.durable_entries[name] = inode
            change.names = {}
        self.pending = [change for change in self.pending if change.names]
        self.version += 1
        self.sure = dict(self.durable_entries)
        for change in self.pending:
            for name in change.names:
                self.sure.pop(name, None)

    def fail_sync(self, up_to: int) -> None:
        """A sync of the changes up to that number failed: permanently, each may survive or not."""
        for change in self.pending:
            if change.number <= up_to:
                change.is_lost = True
        self.version += 1

    def lose(self, inode: Inode, up_to: int) -> None:
        """Permanently, each change up to that number that names the file may survive or not."""
        for change in self.pending:
            if change.number <= up_to and inode in change.names.values():
                change.is_lost = True
        self.version += 1


# Called for each name that is given or taken away: directory, name, the file that had it, the
# one that has it.
OnName = Callable[[Directory, str, Inode | None, Inode | None], None]


class Disk:
    """The file system below `ROOT`, without latency and device errors, which `calls` adds."""

    def __init__(self, *, has_journal: bool = False) -> None:
        self.has_journal = has_journal
        self._written_back: list[Inode] = []
        self.inodes = 0
        self.changes = 0
        self.used_bytes = 0
        self.root = self._new_directory("")
        self.root.links = 1
        # Called for each name of a segment that is given or taken away: directory, name, the
        # file that had it, the one that has it.
        self.on_name: Callable[[Directory, str, Inode | None, Inode | None], None] = lambda *_: None

    def _new_directory(self, name: str) -> Directory:
        self.inodes += 1
        return Directory(self.inodes, stat.S_IFDIR | 0o755, name=name)

    def lookup(self, start: Directory, parts: list[str]) -> Inode:
        """The inode at a path. Raises `OSError`."""
        found: Inode = start
        for part in parts:
            if not isinstance(found, Directory):
                raise _error(errno.ENOTDIR, part)
            inode = found.entries.get(part)
            if inode is None:
                raise _error(errno.ENOENT, part)
            found = inode
        return found

    def parent(self, start: Directory, parts: list[str]) -> tuple[Directory, str]:
        """The directory that contains, or would contain, the last name of a path."""
        found = self.lookup(start, parts[:-1])
        if not isinstance(found, Directory):
            raise _error(errno.ENOTDIR, parts[-1])
        return found, parts[-1]

    def _changed(self, directory: Directory, names: dict[str, Inode | None]) -> None:
        self.changes += 1
        befores = {name: directory.entries.get(name) for name in names}
        directory.change(Change(self.changes, names))
        for name, inode in names.items():
            before = befores[name]
            if before is not None and before.links == 0 and not before.is_directory:
                self.used_bytes -= len(before.content) + _INODE_BYTES
            self.on_name(directory, name, before, inode)

    def create(self, directory: Directory, name: str, mode: int) -> Inode:
        """Creates an empty file."""
        self.inodes += 1
        inode = Inode(self.inodes, stat.S_IFREG | mode)
        self.used_bytes += _INODE_BYTES
        self._changed(directory, {name: inode})
        return inode

    def mkdir(self, directory: Directory, name: str) -> None:
        """Creates a directory. Raises `OSError`."""
        if name in directory.entries:
            raise _error(errno.EEXIST, name)
        self._changed(directory, {name: self._new_directory(name)})

    def write(self, inode: Inode, offset: int, data: bytes) -> None:
        """Writes bytes to a file."""
        content = inode.content
        before = len(content)
        if offset == before:
            inode.content = content + data
        else:
            head = content[:offset].ljust(offset, b"\0")
            inode.content = head + data + content[offset + len(data) :]
        if inode.links:
            self.used_bytes += len(inode.content) - before

    def truncate(self, inode: Inode, size: int) -> None:
        """Sets the length of a file."""
        before = len(inode.content)
        inode.content = inode.content[:size].ljust(size, b"\0")
        if inode.links:
            self.used_bytes += size - before

    def replace(self, source: Directory, old: str, target: Directory, new: str) -> None:
        """rename(2) within a directory. Raises `OSError`."""
        inode = source.entries.get(old)
        if inode is None:
            raise _error(errno.ENOENT, old)
        if source is not target:
            raise _error(errno.EXDEV, new)
        if old != new:
            self._changed(source, {old: None, new: inode})

    def link(self, inode: Inode, directory: Directory, name: str) -> None:
        """Gives a file one more name. Raises `OSError`."""
        if name in directory.entries:
            raise _error(errno.EEXIST, name)
        self._changed(directory, {name: inode})

    def unlink(self, directory: Directory, name: str) -> None:
        """Removes a name. Raises `OSError`."""
        inode = directory.entries.get(name)
        if inode is None:
            raise _error(errno.ENOENT, name)
        if inode.is_directory:
            raise _error(errno.EISDIR, name)
        self._changed(directory, {name: None})

    def rmdir(self, directory: Directory, name: str) -> None:
        """Removes an empty directory. Raises `OSError`."""
        inode = directory.entries.get(name)
        if inode is None:
            raise _error(errno.ENOENT, name)
        if not isinstance(inode, Directory):
            raise _error(errno.ENOTDIR, name)
        if inode.entries:
            raise _error(errno.ENOTEMPTY, name)
        self._changed(directory, {name: None})

    def write_back(self, inode: Inode) -> None:
        """The disk has the data of a file, perhaps in its cache: sync_file_range, waited for."""
        if self.has_journal and not inode.is_lost:
            inode.written_back.append((self.changes, inode.content))
            self._written_back.append(inode)

    def sync(self, inode: Inode, content: bytes, up_to: int) -> None:
        """A sync succeeded, which began when a file had this content, or a directory this change.

        `up_to` is the file's or the directory's newest change then.
        """
        if isinstance(inode, Directory):
            if not self.has_journal:
                inode.sync(up_to)
        elif not inode.is_lost:
            inode.durable = content
            inode.written_back.clear()
        if self.has_journal:
            self._commit(up_to)

    def sync_data(self, inode: Inode, content: bytes) -> None:
        """fdatasync succeeded: of the names, what the data needs is durable, and no more."""
        back = inode.written_back[-1][0] if inode.written_back else 0
        self.sync(inode, content, back)

    def _commit(self, up_to: int) -> None:
        """The journal commits all changes up to that one, after the disk's cache was flushed."""
        for directory in self._directories(self.root):
            directory.sync(up_to)
        for inode in self._written_back:
            if inode.written_back and not inode.is_lost:
                inode.durable = inode.written_back[-1][1]
            inode.written_back.clear()
        self._written_back.clear()

    def _directories(self, top: Directory) -> Iterator[Directory]:
        yield top
        for inode in {*top.entries.values(), *top.durable_entries.values()}:
            if isinstance(inode, Directory):
                yield from self._directories(inode)

    def fail_sync(self, inode: Inode, content: bytes, up_to: int) -> None:
        """A sync failed: permanently, what it was to make durable may survive or not."""
        if isinstance(inode, Directory):
            inode.fail_sync(up_to)
            return
        back = inode.written_back[-1][1] if inode.written_back else None
        if content not in (inode.durable, back):
            inode.is_lost = True
        if self.has_journal:
            for directory in self._directories(self.root):
                directory.lose(inode, up_to)

    def after_cut(self, source: random.Random) -> "Disk":
        """A disk as a power cut may leave this one; which of those is drawn."""
        disk = Disk(has_journal=self.has_journal)
        disk.on_name = self.on_name
        disk.inodes, disk.changes = self.inodes, self.changes
        chosen = None
        if self.has_journal:
            pending = [each for d in self._directories(self.root) for each in d.pending]
            pending.sort(key=lambda each: each.number)
            kept = [each for each in pending if not each.is_lost]
            chosen = kept[: source.choice([0, len(kept), source.randint(0, len(kept))])]
            chosen += [each for each in pending if each.is_lost and source.random() < 0.5]
        disk.root = disk._survivor(self.root, source, chosen)
        disk.root.links = 1
        return disk

    def _survivor(
        self, directory: Directory, source: random.Random, chosen: list[Change] | None
    ) -> Directory:
        """What is left of a directory. With a journal, exactly the `chosen` changes survive."""
        names = dict(directory.durable_entries)
        newest = max((each.number for each in chosen or ()), default=0)
        if chosen is None:
            drawn = _drawn_changes(directory.pending, source)
        else:
            drawn = [each for each in directory.pending if each in chosen]
        for change in drawn:
            for name, inode in change.names.items():
                if inode is None:
                    names.pop(name, None)
                else:
                    names[name] = inode
        left = Directory(directory.number, directory.mode, name=directory.name)
        for name, inode in names.items():
            if isinstance(inode, Directory):
                survivor: Inode = self._survivor(inode, source, chosen)
            else:
                content = _drawn_content(inode, name, source, newest)
                survivor = Inode(inode.number, inode.mode, content, content)
                survivor.is_final = inode.is_final
                survivor.seen = inode.seen if content == inode.content else None
                self.used_bytes += len(content) + _INODE_BYTES
            survivor.links = 1
            left.entries[name] = left.durable_entries[name] = left.sure[name] = survivor
        return left


def _drawn_changes(pending: list[Change], source: random.Random) -> list[Change]:
    how = source.randrange(4)
    if how == 0:
        return []
    if how == 1:
        return pending
    if how == 2:  # as an ordered journal preserves them
        return pending[: source.randint(0, len(pending))]
    return [change for change in pending if source.random() < 0.5]


def _drawn_content(inode: Inode, name: str, source: random.Random, newest: int) -> bytes:
    """What is left of a file if the change with number `newest` is the last one to survive."""
    durable = inode.durable
    for changes, content in inode.written_back:
        if changes < newest:
            durable = content
    if durable == inode.content and not inode.is_lost:
        return inode.content
    if name.endswith(".tmp"):
        return b""
    if len(inode.content) > _MIXED_BYTES_MAX:
        return source.choice([durable, inode.content, inode.content[: len(inode.content) // 2]])
    return source.choice(contents_after_cut(durable, inode.content))


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
