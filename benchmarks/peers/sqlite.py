"""SQLite, as a log."""

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from benchmarks.flood import Flood, Running, Seen, unseen

SQLITE_BLOCKS = 4  # of 256 records, in each transaction


@dataclass
class _Transactions:
    path: Path
    pid: int

    def take(self, flood: Flood, seen: Seen = unseen) -> float:
        rows = [[(line.decode(),) for line in block.splitlines()] for block in flood.sample.blocks]
        with closing(sqlite3.connect(self.path)) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            database.execute("CREATE TABLE IF NOT EXISTS log (record TEXT)")
            began = time.perf_counter()
            blocks = flood.in_turn(rows)
            while transaction := list(islice(blocks, SQLITE_BLOCKS)):
                with database:
                    for block in transaction:
                        database.executemany("INSERT INTO log VALUES (?)", block)
            return time.perf_counter() - began


@dataclass(frozen=True)
class Sqlite:
    """WAL, `synchronous=FULL`, 1,024 records a transaction; a library, without a socket."""

    name: str = "SQLite, 1,024 a transaction"
    records_max: int = 500_000
    clients_max: int = 1

    @contextmanager
    def running(self, root: Path, wrapper: Sequence[str] = ()) -> Iterator[Running]:
        """Nothing has to be started."""
        yield _Transactions(root / "log.db", os.getpid())
