"""Finds the files of patterns on disk, and which of them are older generations of others."""

import contextlib
import glob
import os
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from logengine.resume.rotation import COMPRESSIONS, rotated_from, rotated_names

# Of a path's older generations, only the newest are looked at.
_GENERATIONS_MAX = 64


class Family(NamedTuple):
    """A path, and the older generations next to it, the newest first.

    `inodes` are those of the names, to notice a change. `pattern` is the index of the pattern.
    """

    path: str
    pattern: int
    is_there: bool
    rotated: Sequence[str]
    inodes: Sequence[tuple[str, int]]


class Survey(NamedTuple):
    """The families of all patterns, and the directories that were listed.

    `directories` has their inodes, `changed_ns` when a name in them changed last.
    """

    families: list[Family]
    directories: dict[str, tuple[int, int]]
    changed_ns: dict[str, int]


def changed_ns(directories: Iterable[str]) -> dict[str, int]:
    """Returns when a name in each of the directories changed last; 0 for one that is gone."""
    found = {}
    for each in directories:
        try:
            found[each] = os.stat(each).st_mtime_ns
        except OSError:
            found[each] = 0
    return found


def survey(patterns: Sequence[str], followed: Sequence[tuple[str, int]]) -> Survey:
    """Returns the files of `patterns`, and of the paths that are `followed` with their pattern.

    A path has the first pattern that matches it. Blocks.
    """
    wanted: dict[str, int] = {}
    directories: dict[str, tuple[int, int]] = {}
    for number, pattern in enumerate(patterns):
        _note_directory(os.path.dirname(pattern), directories)
        for path in sorted(glob.glob(pattern, recursive=True)):
            wanted.setdefault(path, number)
            directory = os.path.dirname(path)
            if directory not in directories:
                _note_directory(directory, directories)
    for path, _ in followed:
        _note_directory(os.path.dirname(path), directories)
    changed = changed_ns(directories)  # before they are listed, so that no change is missed
    by_directory: dict[str, dict[str, int]] = {}
    for path, number in (dict(followed) | wanted).items():
        directory, name = os.path.split(path)
        by_directory.setdefault(directory, {})[name] = number
    known: dict[str, set[str]] = {}
    for path, _ in followed:
        directory, name = os.path.split(path)
        known.setdefault(directory, set()).add(name)
    families: list[Family] = []
    for directory, names in by_directory.items():
        if directory in directories:
            families += _families(directory, names, known.get(directory, ()))
    return Survey(families, directories, changed)


def _note_directory(path: str, directories: dict[str, tuple[int, int]]) -> None:
    with contextlib.suppress(OSError):
        found = os.stat(path)
        directories[path] = (found.st_dev, found.st_ino)


def _families(directory: str, wanted: dict[str, int], known: Collection[str]) -> list[Family]:
    try:
        with os.scandir(directory) as entries:
            inodes = {entry.name: entry.inode() for entry in entries}
    except OSError:
        return []
    older: dict[str, list[str]] = {}
    for name in inodes:
        for base in rotated_from(name):
            older.setdefault(base, []).append(name)
    families = []
    for name, pattern in wanted.items():
        is_compressed = os.path.splitext(name)[1] in COMPRESSIONS
        if is_compressed or any(each in inodes or each in known for each in rotated_from(name)):
            continue
        rotated = [each.name for each in rotated_names(name, older.get(name, ()))]
        rotated = rotated[:_GENERATIONS_MAX]
        there = [each for each in (name, *rotated) if each in inodes]
        families.append(
            Family(
                os.path.join(directory, name),
                pattern,
                name in inodes,
                rotated,
                [(each, inodes[each]) for each in there],
            )
        )
    return families
