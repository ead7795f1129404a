"""Finds the files of patterns on disk, and which of them are older generations of others."""

import contextlib
import fnmatch
import glob
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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


def survey(
    patterns: Sequence[str],
    followed: Sequence[tuple[str, int]],
    is_stored: Callable[[str], bool] = lambda _: False,
) -> Survey:
    """Returns the files of `patterns`, and of the paths that are `followed` with their pattern.

    A path has the first pattern that matches it. A path of which something `is_stored` has its
    generations also while it does not exist itself. Blocks.
    """
    wanted: dict[str, int] = {}
    directories: dict[str, tuple[int, int]] = {}
    for number, pattern in enumerate(patterns):
        for directory in _where_names_may_appear(pattern):
            _note_directory(directory, directories)
        for path in sorted(glob.glob(pattern, recursive=True)):
            wanted.setdefault(path, number)
            directory = os.path.dirname(path)
            if directory not in directories:
                _note_directory(directory, directories)
        for path in _only_rotated(pattern, is_stored):
            wanted.setdefault(path, number)
    for path, _ in followed:
        _note_directory(os.path.dirname(path), directories)
    changed = changed_ns(directories)  # before they are listed, so that no change is missed
    by_directory: dict[str, dict[str, int]] = {}
    for path, number in (dict(followed) | wanted).items():
        directory, name = os.path.split(path)
        by_directory.setdefault(directory, {})[name] = number
    families: list[Family] = []
    for directory, names in by_directory.items():
        if directory in directories:
            families += _families(directory, names, is_stored)
    return Survey(families, directories, changed)


def _where_names_may_appear(pattern: str) -> Iterator[str]:
    """Yields the directories in which a name may come that makes a path match.

    Of `/var/log/*/app.log` these are `/var/log` and the directories in it.
    """
    before = os.path.dirname(pattern)
    while glob.has_magic(before):
        yield from (each.rstrip("/") for each in glob.glob(f"{before}/", recursive=True))
        before = os.path.dirname(before)
    yield before


def _only_rotated(pattern: str, is_stored: Callable[[str], bool]) -> Iterator[str]:
    """Yields paths of which something is stored, and only older generations are there.

    A program may write to a renamed file for long, until it makes a new one.
    """
    before, wanted = os.path.split(pattern)
    places = glob.glob(f"{before}/", recursive=True) if glob.has_magic(before) else [before]
    for place in places:
        try:
            names = set(os.listdir(place))
        except OSError:
            continue
        for base in {base for name in names for base in rotated_from(name)} - names:
            path = os.path.join(place.rstrip("/"), base)
            if fnmatch.fnmatchcase(base, wanted) and is_stored(path):
                yield path


def _note_directory(path: str, directories: dict[str, tuple[int, int]]) -> None:
    with contextlib.suppress(OSError):
        found = os.stat(path)
        directories[path] = (found.st_dev, found.st_ino)


def _families(
    directory: str, matched: Mapping[str, int], is_stored: Callable[[str], bool]
) -> list[Family]:
    try:
        with os.scandir(directory) as entries:
            inodes = {each.name: each.inode() for each in entries if not _is_directory(each)}
    except OSError:
        return []
    older: dict[str, list[str]] = {}
    wanted = dict(matched)
    for name in inodes:
        for base in rotated_from(name):
            older.setdefault(base, []).append(name)
            # Its file may be between two names, and must not be taken for another one meanwhile.
            if name in matched and base not in wanted and is_stored(os.path.join(directory, base)):
                wanted[base] = matched[name]
    families = []
    for name, pattern in wanted.items():
        is_compressed = os.path.splitext(name)[1] in COMPRESSIONS
        if is_compressed or any(each in wanted for each in rotated_from(name)):
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


def _is_directory(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)
