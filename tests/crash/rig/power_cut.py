"""What a disk may hold after a power cut, by model.

The model, from the calls that were made up to the cut (`system_calls`):

- Written and not synced bytes of a file may be there, be missing, or be zeros, sector by
  sector, and its size may be any that it had or the end of any sector. A sync that
  succeeded makes all that was written before it durable.
- A change of names in a directory (create, rename, remove) that no sync of that directory
  followed may be there or not, in any combination with the others, also of other
  directories: POSIX orders none of them. A rename is one change: its old name goes as its
  new one comes, or neither does.
- Syncing a file says nothing of its name, syncing a directory nothing of what its files
  hold, nor of its own name.
- A sync that failed makes nothing durable, and what it was to make durable stays so: a
  later sync that says ok does not bring it back (seen on ext4, xfs and btrfs: Rebello et
  al., "Can Applications Recover from fsync Failures?", ATC 2020).

So the ordered modes of ext4, xfs and btrfs, which keep more order, leave a subset of these
states. `journal` has a
model of ext4 with a journal and of xfs, in which more is durable. Of a file that only ever
had a temp's name the content is left out: nobody opens it. So is all of what a process leaves
for those of the same boot: after a cut it is another boot.

References: Pillai et al., "All File Systems Are Not Created Equal" (ALICE), OSDI 2014;
Mohan et al., "Finding Crash-Consistency Bugs with Bounded Black-Box Crash Testing"
(CrashMonkey), OSDI 2018.
"""

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from logengine.disk.crash_mark import CRASH_MARK_NAME
from logengine.disk.durable_mark import MARKS_NAME
from tests.crash.rig.system_calls import (
    ROOT,
    DataSynced,
    Emptied,
    Linked,
    Made,
    Removed,
    Renamed,
    Synced,
    SyncFailed,
    Written,
    WrittenBack,
)

SECTOR_BYTES = 512
_OF_ONE_BOOT = frozenset({CRASH_MARK_NAME, MARKS_NAME})
# Where more combinations are legal, this many are drawn.
STATES_PER_CUT_MAX = 4096
_SECTORS_COMBINED_MAX = 4

# A tree on a disk: relative path -> content of a file, or None for a directory.
Tree = Mapping[str, bytes | None]


@dataclass
class Change:
    """Names of one directory that change together; None for a name that goes."""

    parent: int
    names: dict[str, int | None]
    number: int = 0  # of all changes, from 1 on
    lost: bool = False  # no later sync makes it durable


@dataclass
class File:
    durable: bytes = b""
    current: bytes = b""
    lost: bool = False  # a sync failed: `durable` does not grow any more

    def write(self, offset: int, data: bytes) -> None:
        self.current = (
            self.current[:offset].ljust(offset, b"\0") + data + self.current[offset + len(data) :]
        )

    @property
    def is_durable(self) -> bool:
        return self.durable == self.current and not self.lost


class Disk:
    """What is durable, and what may or may not be, as calls go on."""

    def __init__(self, tree: Tree | None = None) -> None:
        self._durable_names: dict[tuple[int, str], int] = {}
        self._pending: list[Change] = []
        self._changes = 0
        self._files: dict[int, File] = {}
        self._directories: set[int] = {ROOT}
        self._of_one_boot: set[int] = set()
        self._marks: set[int] = set()  # of those, what is in the directory of marks, and that
        self.next_inode = 1
        for path, content in sorted((tree or {}).items()):
            self._adopt(path, content)

    def _adopt(self, path: str, content: bytes | None) -> None:
        directory, _, name = path.rpartition("/")
        parent = self.names()[directory] if directory else ROOT
        inode, self.next_inode = self.next_inode, self.next_inode + 1
        self._note_of_one_boot(parent, name, inode)
        self._durable_names[parent, name] = inode
        if content is None:
            self._directories.add(inode)
        else:
            self._files[inode] = File(content, content)

    def _note_of_one_boot(self, parent: int, name: str, inode: int) -> None:
        if name in _OF_ONE_BOOT or parent in self._of_one_boot:
            self._of_one_boot.add(inode)
        if name == MARKS_NAME or parent in self._marks:
            self._marks.add(inode)

    def apply(self, event: object) -> bool:  # noqa: PLR0912 - one case for each kind of event
        """Takes one event; whether it was one of the disk's that may matter to a cut or a kill."""
        match event:
            case Made(parent, name, inode, is_directory):
                if is_directory:
                    self._directories.add(inode)
                else:
                    self._files[inode] = File()
                self._note_of_one_boot(parent, name, inode)
                self._change(parent, {name: inode})
                self.next_inode = inode + 1
            case Linked(parent, name, inode):
                self._change(parent, {name: inode})
            case Renamed(parent, source, target):
                self._change(parent, {source: None, target: self._current(parent, source)})
            case Removed(parent, name):
                self._change(parent, {name: None})
            case Written(inode, offset, data):
                self._files[inode].write(offset, data)
            case Emptied(inode):
                self._files[inode].current = b""
            case Synced(inode):
                self._sync(inode)
            case DataSynced(inode):
                self._sync_data(inode)
            case WrittenBack(inode):
                self._write_back(inode)
            case SyncFailed(inode):
                self._fail_sync(inode)
            case _:
                return False
        return not self._is_of_marks(event)

    def _is_of_marks(self, event: object) -> bool:
        """Whether it is of what tells followers, which no daemon goes on from after a cut."""
        match event:
            case Written(inode) | Emptied(inode):
                return inode in self._marks
            case Made(parent, name) | Linked(parent, name) | Removed(parent, name):
                return parent in self._marks or name == MARKS_NAME
            case Renamed(parent):
                return parent in self._marks
        return False

    def _change(self, parent: int, names: dict[str, int | None]) -> None:
        if parent not in self._of_one_boot and not names.keys() & _OF_ONE_BOOT:
            self._changes += 1
            self._pending.append(Change(parent, names, self._changes))
            return
        # No cut leaves any of it, so nothing is to be tried about when it would be durable.
        for name, inode in names.items():
            if inode is None:
                self._durable_names.pop((parent, name), None)
            else:
                self._durable_names[parent, name] = inode

    def names(self) -> dict[str, int]:
        """The inodes as the running system sees them, by relative path."""
        return dict(self._walk(len(self._pending)))

    def now(self) -> Tree:
        """The tree as the running system sees it: what a kill leaves."""
        return {
            path: None if inode in self._directories else self._files[inode].current
            for path, inode in self._walk(len(self._pending))
        }

    def states(self, source: random.Random) -> Iterator[Tree]:
        """The trees that a cut may leave now; all of them, or `STATES_PER_CUT_MAX` drawn."""
        seen = set()
        for chosen in self._choices(source):
            walked = self._walk(chosen, is_mask=True)
            reached = tuple(sorted(each for each in walked if each[1] not in self._of_one_boot))
            files = {
                inode: self._file_after(inode, chosen)
                for _, inode in reached
                if inode not in self._directories
            }
            key = (reached, tuple(each.durable for each in files.values()))
            if key not in seen:
                seen.add(key)
                yield from self._with_contents(reached, files)

    def _choices(self, source: random.Random) -> Iterator[int]:
        """The pending changes that a cut may leave, as masks."""
        count = len(self._pending)
        if 1 << count <= STATES_PER_CUT_MAX:
            return iter(range(1 << count))
        drawn = {0, (1 << count) - 1}
        drawn |= {(1 << length) - 1 for length in range(count)}  # what an ordered journal does
        while len(drawn) < STATES_PER_CUT_MAX:
            drawn.add(source.getrandbits(count))
        return iter(sorted(drawn))

    def _file_after(self, inode: int, _chosen: int) -> File:
        """A file as a cut finds it that leaves the chosen changes."""
        return self._files[inode]

    def _with_contents(
        self, reached: tuple[tuple[str, int], ...], files: Mapping[int, File]
    ) -> Iterator[Tree]:
        tree: dict[str, bytes | None] = {}
        uncertain: list[tuple[str, list[bytes]]] = []
        for path, inode in reached:
            if inode in self._directories:
                tree[path] = None
                continue
            file = files[inode]
            if file.is_durable:
                tree[path] = file.durable
            elif path.endswith(".tmp"):
                tree[path] = b""
            else:
                uncertain.append((path, contents_after_cut(file.durable, file.current)))
        for contents in itertools.islice(
            itertools.product(*(each for _, each in uncertain)), STATES_PER_CUT_MAX
        ):
            yield tree | {
                path: content for (path, _), content in zip(uncertain, contents, strict=True)
            }

    def _sync(self, inode: int) -> None:
        if inode not in self._directories:
            self._sync_data(inode)
            return
        self._commit([change for change in self._pending if change.parent == inode])

    def _sync_data(self, inode: int) -> None:
        file = self._files[inode]
        if not file.lost:
            file.durable = file.current

    def _write_back(self, inode: int) -> None:
        """Here, this makes nothing durable."""

    def _fail_sync(self, inode: int) -> None:
        if inode in self._directories:
            for change in self._pending:
                change.lost = change.lost or change.parent == inode
        elif self._files[inode].durable != self._files[inode].current:
            self._files[inode].lost = True

    def _commit(self, changes: Iterable[Change]) -> None:
        """Makes pending changes durable, but for those that were lost."""
        for change in changes:
            if change.lost:
                continue
            for name, now in change.names.items():
                # What a lost change before it said of the name is of no matter any more.
                for before in self._pending:
                    if before is change:
                        break
                    if before.parent == change.parent:
                        before.names.pop(name, None)
                if now is None:
                    self._durable_names.pop((change.parent, name), None)
                else:
                    self._durable_names[change.parent, name] = now
            change.names = {}
        self._pending = [change for change in self._pending if change.names]

    def _current(self, parent: int, name: str) -> int:
        for change in reversed(self._pending):
            if change.parent == parent and name in change.names:
                inode = change.names[name]
                assert inode is not None
                return inode
        return self._durable_names[parent, name]

    def _walk(self, chosen: int, *, is_mask: bool = False) -> Iterator[tuple[str, int]]:
        """Path and inode of all that can be reached, with the first, or the chosen, changes."""
        names = dict(self._durable_names)
        for position, change in enumerate(self._pending):
            if not (chosen >> position & 1 if is_mask else position < chosen):
                continue
            for name, inode in change.names.items():
                if inode is None:
                    names.pop((change.parent, name), None)
                else:
                    names[change.parent, name] = inode
        children: dict[int, list[tuple[str, int]]] = {}
        for (parent, name), inode in names.items():
            children.setdefault(parent, []).append((name, inode))
        paths = [("", ROOT)]
        while paths:
            path, inode = paths.pop()
            if path:
                yield path, inode
            paths += [
                (f"{path}/{name}" if path else name, child)
                for name, child in children.get(inode, ())
            ]


def contents_after_cut(durable: bytes, current: bytes) -> list[bytes]:
    """What a file may hold that was `durable` once and is `current` now, not synced.

    All subsets of up to four sectors; of more sectors the telling ones: cut short, and old
    or zero from some sector on, or up to some sector.
    """
    starts = range(0, len(current), SECTOR_BYTES)
    new = [current[start : start + SECTOR_BYTES] for start in starts]
    old = [
        durable[start : start + len(sector)].ljust(len(sector), b"\0")
        for start, sector in zip(starts, new, strict=True)
    ]
    if len(new) <= _SECTORS_COMBINED_MAX:
        mixed = [b"".join(sectors) for sectors in itertools.product(*zip(old, new, strict=True))]
    else:
        mixed = [b"".join(new[:index] + old[index:]) for index in range(len(new))]
        mixed += [b"".join(old[:index] + new[index:]) for index in range(len(new))]
    short = [current[: start + SECTOR_BYTES] for start in starts]
    short += [current[:-1], current[: len(current) // 2]]
    found = {durable, current, *mixed, *(each for each in short if len(each) >= len(durable))}
    return sorted(found, key=lambda content: (len(content), content))
