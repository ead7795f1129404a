"""What the campaign's streams are to keep, drawn from a seed, and who reads them meanwhile."""

import contextlib
import itertools
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from logengine.disk.atomic import AtomicWriter
from logengine.disk.directory import AnyDirectory, create_directory
from logengine.disk.durable_names import DurableNames
from logengine.disk.registered_cursors import CURSORS_NAME
from logengine.upkeep.retention import Retainer
from logengine.upkeep.retention_plan import RetentionRule, RetentionRules
from tests.crash.rig.oracle import Reads

# All that the campaign stores is older than a second by then.
_NOW_NS = 1_900_000_000_000_000_000
_NEEDED = 1  # bytes
_LOOKS = 12  # so many a disk has room, and then has none
EVERYTHING = RetentionRules(default=RetentionRule(max_age=1.0))


def drawn_rules(source: random.Random) -> RetentionRules:
    """Rules under which most of what is sealed goes, for one reason or another."""
    return source.choice(
        [
            EVERYTHING,
            RetentionRules(default=RetentionRule(max_bytes=source.choice([1, 2000, 4000]))),
            RetentionRules(max_bytes=source.choice([1, 5000])),
            RetentionRules(keep_free=_NEEDED),
            RetentionRules(keep_free=_NEEDED),
        ]
    )


def retainer(data: AnyDirectory, rules: RetentionRules, names: DurableNames) -> Retainer:
    """What removes by `rules`, long after all was stored, on a disk that is full now and then."""
    looks = itertools.count()

    def free_bytes() -> int:
        # Not always, so that more than one segment is there to go.
        return _NEEDED if next(looks) // _LOOKS % 2 else 0

    return Retainer(data, rules, free_bytes=free_bytes, clock_ns=lambda: _NOW_NS, names=names)


class Cursors:
    """Registered cursors, of which `note` hears: that they hold something, or let go of it."""

    def __init__(self, data: Path, note: Callable[[Any], None]) -> None:
        self._data = data
        self._note = note

    def register(self, name: str, streams: Iterable[str], seq: int) -> None:
        """Registers a cursor in each stream; where that fails, nobody relies on it."""
        for stream in streams:
            with contextlib.suppress(OSError):
                create_directory(self._data / CURSORS_NAME)
                self._write(name, stream, seq)
                self._note(Reads(stream, name, seq))

    def move(self, name: str, stream: str, seq: int) -> None:
        """What is not behind `seq` may go from here on."""
        self._note(Reads(stream, name, seq))
        # Where that fails, it holds more than it has to.
        with contextlib.suppress(OSError):
            self._write(name, stream, seq)

    def _write(self, name: str, stream: str, seq: int) -> None:
        path = self._data / CURSORS_NAME / f"{name}-{stream}"
        with AtomicWriter(path, "wb", buffering=0) as writer:
            writer.write(b"%s:%d\n" % (stream.encode(), seq))
