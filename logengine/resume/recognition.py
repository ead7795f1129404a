"""Which files are those of an earlier run, under any name, and in what order to read them.

A file is recognised by its content: its first bytes and the portion where the earlier run stopped.
If more than one file matches, the inode decides, because a rename keeps it.

No I/O: a `Files` object answers questions about files.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from logengine.errors import AnotherInput
from logengine.resume.history import Place
from logengine.resume.rotation import Rotated, newer_than


class Files(Protocol):
    """The existing files."""

    def inode(self, path: str) -> int:
        """Returns the file's inode."""

    def holds(self, path: str, place: Place) -> bool:
        """Returns whether the file begins as `place` says, and has its portion where it says."""

    def rotated(self, path: str) -> Sequence[Rotated]:
        """Returns the older generations of `path`, as paths, the newest first."""

    def moved(self, path: str, inode: int) -> Sequence[str]:
        """Returns the files next to `path` that have this inode, under any name."""

    def describe(self, path: str) -> str:
        """Describes the file for messages: `begins with '…'`, or `is empty`."""


class Step(NamedTuple):
    """A file to read from `place` on, or from its start.

    `belongs_to` is the path that it had before a rotation. `is_anew`: it is not the file that was
    read under its path, and `anew` allows that.
    """

    path: str
    place: Place | None
    belongs_to: str
    is_anew: bool = False


def plan_reading(
    given: Sequence[str], known: Sequence[Place], files: Files, *, anew: bool
) -> list[Step]:
    """Returns the files to read, in order: the rest of rotated files before their successors.

    `given` are absolute paths, `known` the places of earlier runs. Raises `AnotherInput` for a
    file that is not the one that was read under its path, unless `anew`.
    """
    known = sorted(known, key=lambda place: place.input)
    latest_of = {place.identity.path: place for place in known}
    recognised = _recognise(given, known, latest_of, files)
    paths = {place.input: path for path, place in recognised.items()}
    steps: dict[str, Step] = {}

    def read(path: str, belongs_to: str) -> None:
        steps.setdefault(path, Step(path, recognised.get(path), belongs_to))

    for path in dict.fromkeys(given):
        latest = latest_of.get(path)
        if path not in recognised and latest is not None:
            found = paths.get(latest.input)
            if found is not None:
                for each in _generations(found, path, files):
                    read(each, path)
            elif anew:
                steps.setdefault(path, Step(path, None, path, is_anew=True))
            else:
                raise _another_file(path, latest, files)
        read(path, path)
    return list(steps.values())


def _recognise(
    given: Sequence[str], known: Sequence[Place], latest_of: Mapping[str, Place], files: Files
) -> dict[str, Place]:
    """Returns the places of the files that are recognised, by path."""
    recognised: dict[str, Place] = {}
    found: set[int] = set()
    by_inode: dict[int, list[str]] = {}
    for path in given:
        by_inode.setdefault(files.inode(path), []).append(path)

    def candidates_by_inode(place: Place) -> list[str]:
        """Returns where a file may be that was renamed, or kept its name."""
        own, inode = place.identity.path, place.identity.inode
        moved = files.moved(own, inode) if own in wanted else []
        return [*by_inode.get(inode, []), *moved]

    def candidates_by_name(place: Place) -> list[str]:
        """Returns where a file may be that was copied, compressed, or rewritten under its name."""
        own = place.identity.path
        if own not in wanted:
            return []
        # A file that was empty has no content by which a copy could be recognised.
        return [*(each.name for each in files.rotated(own) if place.stop), own]

    def is_it(path: str, place: Place) -> bool:
        is_current = path != place.identity.path or latest_of[path] is place
        return path not in recognised and is_current and files.holds(path, place)

    wanted = set(given)
    for candidates in (candidates_by_inode, candidates_by_name):
        for place in reversed(known):
            if place.input not in found:
                its = next((each for each in candidates(place) if is_it(each, place)), None)
                if its is not None:
                    recognised[its] = place
                    found.add(place.input)
    return recognised


def _generations(found: str, path: str, files: Files) -> list[str]:
    """Returns the files from `found` up to `path`, exclusive, oldest first."""
    rotated = files.rotated(path)
    if all(each.name != found for each in rotated):
        return [found]  # renamed to a name that no rotation gives
    return [found, *newer_than(found, rotated)]


def _another_file(path: str, place: Place, files: Files) -> AnotherInput:
    older = ", ".join(each.name for each in files.rotated(path)) or "no rotated file"
    return AnotherInput(
        f"{path} is not the file that was read before: {place.lines_stored:,} lines "
        f"({place.stop:,} bytes) were stored of one that begins with {place.identity.begins!r}, "
        f"but this one {files.describe(path)}. The earlier file is not next to it either "
        f"(checked: {older}). If it is gone permanently, --resume-anew stores this one from its "
        "start"
    )
