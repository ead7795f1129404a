"""Which files are those of an earlier run, under whatever names, and in what order to read them.

A file is recognised by its content: its first bytes and the portion where the earlier run
stopped. Where more than one file has that, the inode decides: a rename keeps it.

No I/O: what a file holds is asked of a `Files`.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from logengine.errors import AnotherInput
from logengine.resume.history import Place
from logengine.resume.rotation import Rotated, newer_than


class Files(Protocol):
    """The files that there are."""

    def inode(self, path: str) -> int:
        """The file's inode."""

    def holds(self, path: str, place: Place) -> bool:
        """Whether the file begins as `place` says, and has its portion where it says."""

    def rotated(self, path: str) -> Sequence[Rotated]:
        """The older generations of `path`, by their paths, the newest first."""

    def moved(self, path: str, inode: int) -> Sequence[str]:
        """The files beside `path` that have this inode, whatever their name."""

    def describe(self, path: str) -> str:
        """What the file is, for people: `begins with '…'`, or `is empty`."""


class Step(NamedTuple):
    """A file to be read from `place` on, or from its start.

    `belongs_to` is the path that it had before a rotation; `is_anew` says that it is another one
    than was read under its path, and that nobody minds.
    """

    path: str
    place: Place | None
    belongs_to: str
    is_anew: bool = False


def plan_reading(
    given: Sequence[str], known: Sequence[Place], files: Files, *, anew: bool
) -> list[Step]:
    """The files to read, in order: the rest of rotated ones comes before those that followed.

    `given` are absolute paths, `known` the places of earlier runs, the latest last. Raises
    `AnotherInput` for a file that is not what was read under its path, unless `anew`.
    """
    recognised = _recognise(given, known, files)
    paths = {place.input: path for path, place in recognised.items()}
    steps: dict[str, Step] = {}

    def read(path: str, belongs_to: str) -> None:
        steps.setdefault(path, Step(path, recognised.get(path), belongs_to))

    for path in dict.fromkeys(given):
        latest = _latest(path, known)
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


def _recognise(given: Sequence[str], known: Sequence[Place], files: Files) -> dict[str, Place]:
    """The places of those files that are recognised, by their paths."""
    recognised: dict[str, Place] = {}
    latest_first = list(reversed(known))
    for candidates in (_by_inode, _by_name):
        for place in latest_first:
            if place not in recognised.values():
                for path in candidates(place, given, files):
                    is_current = path != place.identity.path or _latest(path, known) is place
                    if path not in recognised and is_current and files.holds(path, place):
                        recognised[path] = place
                        break
    return recognised


def _by_inode(place: Place, given: Sequence[str], files: Files) -> list[str]:
    """Where a file is that was renamed, or was not."""
    own, inode = place.identity.path, place.identity.inode
    moved = files.moved(own, inode) if own in given else []
    return [*(path for path in given if files.inode(path) == inode), *moved]


def _by_name(place: Place, given: Sequence[str], files: Files) -> list[str]:
    """Where a file is that was copied, or compressed, or written again under its own name."""
    own = place.identity.path
    if own not in given:
        return []
    if not place.stop:
        return [own]  # nothing is known of its content
    return [*(each.name for each in files.rotated(own)), own]


def _latest(path: str, known: Sequence[Place]) -> Place | None:
    """What was read last under `path`."""
    return next((each for each in reversed(known) if each.identity.path == path), None)


def _generations(found: str, path: str, files: Files) -> list[str]:
    """The files from `found` on up to `path`, which is left out."""
    rotated = files.rotated(path)
    if all(each.name != found for each in rotated):
        return [found]  # moved to a name that no rotation gives
    return [found, *newer_than(found, rotated)]


def _another_file(path: str, place: Place, files: Files) -> AnotherInput:
    older = ", ".join(each.name for each in files.rotated(path)) or "no rotated file"
    return AnotherInput(
        f"{path} is not the file that was read before: {place.lines_stored:,} lines "
        f"({place.stop:,} bytes) were stored of one that begins with {place.identity.begins!r}, "
        f"and this one {files.describe(path)}. The earlier one is not beside it either "
        f"(looked at: {older}). If it is gone for good, --resume-anew stores this one from its "
        "start"
    )
