"""Threads that commit whole files, and what must be there after the power is cut."""

import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from logengine.disk.atomic import is_temp_name
from logengine.disk.temp_file import TEMP_SUFFIX
from tests.crash.rig.commit_ways import Way

_SIZES_BYTES = (200, 2_000, 8_000, 60_000, 150_000)
_THREADS = (1, 2, 3, 6)
_DIRECTORIES = 2
_NEW_NAME = 0.3
_NAMES_MAX = 6  # of one thread
_PAUSE = 0.2
_PAUSE_MAX_S = 0.003


@dataclass
class Commit:
    """One commit, and the position at which it was acknowledged, if it was."""

    name: str
    digest: bytes
    acked: int | None = None


class Work:
    """Some threads commit files, each to names of its own; names are replaced and new ones added.

    `position` is asked at each ack: what it gives is that ack's position. `commits` are those
    that were begun; the ones of one name are in order, and each waits for the one before.
    """

    def __init__(
        self, root: Path, way: Way, seed: int, commits: int, position: Callable[[], int]
    ) -> None:
        self.commits: list[Commit] = []
        self.failures: list[OSError] = []
        self._root = root
        self._way = way
        self._position = position
        count = random.Random(seed).choice(_THREADS)
        self._threads = [
            threading.Thread(target=self._run, args=(number, seed, commits // count))
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Waits for all threads; each ends after its share of the commits, or one that fails."""
        for thread in self._threads:
            thread.join()

    def _run(self, number: int, seed: int, commits: int) -> None:
        source = random.Random(f"{seed} {number}")
        names: list[str] = []
        try:
            for _ in range(commits):
                if not names or (len(names) < _NAMES_MAX and source.random() < _NEW_NAME):
                    names.append(f"{source.randrange(_DIRECTORIES)}/{number}-{len(names)}")
                name = source.choice(names)
                size = source.choice(_SIZES_BYTES) * source.uniform(0.5, 1.5)
                data = source.randbytes(int(size))
                commit = Commit(name, _digest_of(data))
                self.commits.append(commit)
                self._way(self._root / name, data)
                commit.acked = self._position()
                if source.random() < _PAUSE:
                    time.sleep(source.uniform(0, _PAUSE_MAX_S))
        except OSError as error:
            self.failures.append(error)


def make_directories(root: Path) -> None:
    """What the work needs, on a disk that is unmounted in order afterwards."""
    for number in range(_DIRECTORIES):
        (root / str(number)).mkdir()


def violations(root: Path, commits: list[Commit], position: int) -> Iterator[str]:
    """What is wrong with the files after a cut at a position."""
    of_name: dict[str, list[Commit]] = {}
    for commit in commits:
        of_name.setdefault(commit.name, []).append(commit)
    found = _files_in(root)
    for name in found.keys() - of_name.keys():
        yield f"{name}: nobody has committed it"
    for name, of_this in of_name.items():
        acked = sum(each.acked is not None and each.acked <= position for each in of_this)
        if name not in found:
            if acked:
                yield f"{name}: its {acked} acknowledged commits are gone"
            continue
        versions = [each.digest for each in of_this]
        if found[name] not in versions:
            yield f"{name}: its content was never committed"
        elif (version := versions.index(found[name]) + 1) < acked:
            yield f"{name}: has commit {version}, though {acked} were acknowledged"


def _files_in(root: Path) -> dict[str, bytes]:
    """The digest of what is under each final name."""
    return {
        f"{path.parent.name}/{path.name}": _digest_of(path.read_bytes())
        for number in range(_DIRECTORIES)
        for path in (root / str(number)).iterdir()
        if not is_temp_name(path.name) and path.suffix != TEMP_SUFFIX
    }


def _digest_of(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
