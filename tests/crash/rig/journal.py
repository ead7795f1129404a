"""What a disk may hold after a power cut, by a model of ext4 with a journal, and of xfs.

As in `power_cut`, but changes are ordered, and a commit of the journal orders data too:

- Changes of names, in all directories, become durable in the order in which they were made. The
  journal may commit at any time: a cut leaves any number of the pending changes, the first ones.
- The journal flushes the disk's cache before it commits. So if a change is durable, all data is
  that was written back before the change was made, by sync_file_range that was waited for, and the
  file's size with it.
- Data that was not written back may be missing where the name is durable: of the data at the cut,
  or at the last sync, any sectors may be zeros, or the file may be short.
- fsync of a file commits all changes up to the last one that concerns the file, and that of a
  directory up to the last one in it. Both flush the cache, after the file's data was written.
- fdatasync of a file makes its data durable, and the changes before that was written back. A
  rename after that is none of what it needs.
- A sync that failed makes nothing durable. What it was to make durable may be there after a cut or
  not, in any combination, whatever a later sync says. But where a name is there, the data that was
  written back before is there, too: a journal whose flush failed commits nothing any more.

Sources: fs/jbd2/commit.c, fs/ext4/fsync.c, fs/xfs/xfs_log_cil.c; tried by `test_block_cuts`.
"""

import random
from collections.abc import Iterator

from tests.crash.rig import power_cut
from tests.crash.rig.power_cut import STATES_PER_CUT_MAX, File, Tree


class Disk(power_cut.Disk):
    """What is durable on a file system with a journal, and what may or may not be."""

    def __init__(self, tree: Tree | None = None) -> None:
        # For each file: what was written back, and after how many changes.
        self._written_back: dict[int, list[tuple[int, bytes]]] = {}
        super().__init__(tree)

    def _write_back(self, inode: int) -> None:
        file = self._files[inode]
        if not file.lost:
            self._written_back.setdefault(inode, []).append((self._changes, file.current))

    def _sync(self, inode: int) -> None:
        if inode in self._directories:
            mine = [each.number for each in self._pending if each.parent == inode]
        else:
            mine = [each.number for each in self._pending if inode in each.names.values()]
            self._written_back.pop(inode, None)
            super()._sync_data(inode)
        self._commit_up_to(max(mine, default=0))

    def _sync_data(self, inode: int) -> None:
        super()._sync_data(inode)
        backs = self._written_back.pop(inode, None)
        self._commit_up_to(backs[-1][0] if backs else 0)

    def _commit_up_to(self, number: int) -> None:
        self._commit([each for each in self._pending if each.number <= number])
        # The flush of the disk's cache covers what was written back by then.
        for inode, backs in self._written_back.items():
            if not self._files[inode].lost:
                self._files[inode].durable = backs[-1][1]
        self._written_back.clear()

    def _fail_sync(self, inode: int) -> None:
        if inode in self._directories:
            super()._fail_sync(inode)
            return
        file, backs = self._files[inode], self._written_back.get(inode)
        if file.current not in (file.durable, backs[-1][1] if backs else None):
            file.lost = True
        for change in self._pending:
            change.lost = change.lost or inode in change.names.values()

    def _choices(self, source: random.Random) -> Iterator[int]:
        lost = [at for at, each in enumerate(self._pending) if each.lost]
        kept = [at for at, each in enumerate(self._pending) if not each.lost]
        prefixes = [sum(1 << at for at in kept[:count]) for count in range(len(kept) + 1)]
        per_prefix = max(2, STATES_PER_CUT_MAX // len(prefixes))
        for prefix in prefixes:
            if 1 << len(lost) <= per_prefix:
                subsets = list(range(1 << len(lost)))
            else:
                subsets = [source.getrandbits(len(lost)) for _ in range(per_prefix)]
            for subset in subsets:
                yield prefix | sum(1 << at for bit, at in enumerate(lost) if subset >> bit & 1)

    def _file_after(self, inode: int, chosen: int) -> File:
        file = self._files[inode]
        left = [each.number for at, each in enumerate(self._pending) if chosen >> at & 1]
        newest = max(left, default=0)
        durable = file.durable
        for changes, content in self._written_back.get(inode, []):
            if changes < newest:
                durable = content
        return File(durable, file.current, file.lost)
