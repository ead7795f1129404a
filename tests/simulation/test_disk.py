"""Compares the simulated disk with the crash campaign's models of power cuts."""

import random
import stat

import pytest

from tests.crash.rig import journal, power_cut, system_calls
from tests.simulation.disk import Directory, Disk

_NAMES = ("a", "b", "c.tmp")
_CHANGES = 16
_CUTS = 20


class Pair:
    """Makes the same calls on both."""

    def __init__(self, source: random.Random, *, has_journal: bool) -> None:
        self.source = source
        self.disk = Disk(has_journal=has_journal)
        self.model = journal.Disk() if has_journal else power_cut.Disk()
        self.inodes = {id(self.disk.root): system_calls.ROOT}
        self.next = 1
        self.directory = self._mkdir()
        self._sync(self.disk.root, fails=False)

    def _new(self, inode: object) -> int:
        self.inodes[id(inode)] = self.next
        self.next += 1
        return self.next - 1

    def _mkdir(self) -> Directory:
        self.disk.mkdir(self.disk.root, "d")
        made = self.disk.root.entries["d"]
        assert isinstance(made, Directory)
        self.model.apply(system_calls.Made(system_calls.ROOT, "d", self._new(made), True))
        return made

    def _sync(self, inode, *, fails: bool) -> None:
        number = self.inodes[id(inode)]
        up_to = inode.newest_change if self.disk.has_journal else self.disk.changes
        (self.disk.fail_sync if fails else self.disk.sync)(inode, inode.content, up_to)
        event = system_calls.SyncFailed if fails else system_calls.Synced
        self.model.apply(event(number))

    def step(self) -> None:
        """Makes one call that is possible."""
        source, directory = self.source, self.directory
        parent = self.inodes[id(directory)]
        name, other = source.sample(_NAMES, 2)
        match source.randrange(8):
            case 0 if name not in directory.entries:
                inode = self.disk.create(directory, name, stat.S_IRUSR)
                self.model.apply(system_calls.Made(parent, name, self._new(inode), False))
            case 1 if name in directory.entries:
                inode = directory.entries[name]
                at = len(inode.content)
                self.disk.write(inode, at, b"%d" % at)
                self.model.apply(system_calls.Written(self.inodes[id(inode)], at, b"%d" % at))
            case 2 if name in directory.entries:
                self.disk.replace(directory, name, directory, other)
                self.model.apply(system_calls.Renamed(parent, name, other))
            case 3 if name in directory.entries:
                self.disk.unlink(directory, name)
                self.model.apply(system_calls.Removed(parent, name))
            case 4 if name in directory.entries:
                self._sync(directory.entries[name], fails=source.random() < 0.3)
            case 5 if name in directory.entries:
                inode = directory.entries[name]
                self.disk.write_back(inode)
                self.model.apply(system_calls.WrittenBack(self.inodes[id(inode)]))
            case 6 if name in directory.entries:
                inode = directory.entries[name]
                self.disk.sync_data(inode, inode.content)
                self.model.apply(system_calls.DataSynced(self.inodes[id(inode)]))
            case 7:
                self._sync(directory, fails=source.random() < 0.3)


def tree_of(directory: Directory, path: str = "") -> dict[str, bytes | None]:
    tree: dict[str, bytes | None] = {}
    for name, inode in directory.entries.items():
        below = f"{path}{name}"
        if isinstance(inode, Directory):
            tree |= {below: None} | tree_of(inode, f"{below}/")
        else:
            tree[below] = inode.content
    return tree


@pytest.mark.parametrize("has_journal", [False, True])
def test_whatever_a_cut_leaves_is_a_state_of_the_model(has_journal):
    for seed in range(150):
        source = random.Random(seed)
        pair = Pair(source, has_journal=has_journal)
        for _ in range(_CHANGES):
            pair.step()
        states = [dict(state) for state in pair.model.states(random.Random(seed))]
        assert tree_of(pair.disk.root) == dict(pair.model.now())
        for _ in range(_CUTS):
            assert tree_of(pair.disk.after_cut(source).root) in states


@pytest.mark.parametrize("has_journal", [False, True])
def test_what_is_sure_is_in_every_state_of_the_model(has_journal):
    for seed in range(150):
        pair = Pair(random.Random(seed), has_journal=has_journal)
        for _ in range(_CHANGES):
            pair.step()
        states = list(pair.model.states(random.Random(seed)))
        sure = {
            f"d/{name}": inode.content
            for name, inode in pair.directory.sure.items()
            if inode.is_durable
        }
        for state in states:
            assert sure.items() <= state.items()
        in_all = set.intersection(*(set(state) for state in states)) - {"d"}
        assert in_all >= {f"d/{name}" for name in pair.directory.sure}
