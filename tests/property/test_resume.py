"""Whatever becomes of log files between runs with `--resume`, each line is stored once.

The runs are the real ones, on real files; the daemon is a list. A run may be killed at each
step that leaves something behind: a note, half a note, records that became durable.
"""

import asyncio
import contextlib
import gzip
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logengine.errors import AnotherInput, InvalidOption
from logengine.format.record import split_lines
from logengine.resume import log_file
from logengine.resume.history import History, Note, encode_line
from logengine.resume.sending import ResumedSending
from logengine.resume.state_file import StateFile

HEADER = b"#Fields: a b c"


class Killed(BaseException):
    """The process is gone."""


class Steps:
    """Counts down to the kill."""

    def __init__(self, left: int | None) -> None:
        self._left = left

    def take(self) -> bool:
        """Whether the kill is now."""
        if self._left is None:
            return False
        self._left -= 1
        return self._left < 0


class Sender:
    """A daemon's `records`, and a client that is killed with some of what it sent durable."""

    max_record = 1000
    pending_bytes = 0

    def __init__(self, records: list[bytes], steps: Steps, durable_part: float) -> None:
        self._records = records
        self._pending: list[bytes] = []
        self._steps = steps
        self._part = durable_part
        self.acked = 0

    async def resumed_at(self) -> int:
        return len(self._records)

    async def send_lines(self, lines: bytes) -> int:
        self._pending += split_lines(lines)
        if self._steps.take():
            self._commit(int(len(self._pending) * self._part))
            raise Killed
        if self._part > 0.5:
            self._commit(len(self._pending))
        return 0

    async def flush(self) -> None:
        self._commit(len(self._pending))
        if self._steps.take():
            raise Killed

    def _commit(self, count: int) -> None:
        self._records += self._pending[:count]
        self.acked += count
        del self._pending[:count]


class KilledStateFile(StateFile):
    steps = Steps(None)

    def write(self, history: History) -> None:
        if self.steps.take():
            raise Killed
        super().write(history)
        if self.steps.take():
            raise Killed

    def append(self, note: Note) -> None:
        if self.steps.take():
            line = encode_line(note)
            with self.path.open("ab") as file:
                file.write(line[: len(line) // 2])
            raise Killed
        super().append(note)


def run(
    root: Path,
    records: list[bytes],
    names: Sequence[str],
    *,
    stdin: bytes = b"",
    form: str = "lines",
    kill_after: int | None = None,
    durable_part: float = 1.0,
    anew: bool = False,
    piece_bytes: int = 40,
    records_of_stream: Callable[[], int | None] = lambda: None,
) -> None:
    """One run, to its end or to where it is killed."""
    steps = Steps(kill_after)

    async def read_pipe(name: str) -> AsyncIterator[bytes]:
        for start in range(0, len(stdin), piece_bytes):
            yield stdin[start : start + piece_bytes]

    async def sending() -> None:
        with KilledStateFile(root / "state", "app", "name", root / "socket") as state:
            state.steps = steps
            await ResumedSending(
                Sender(records, steps, durable_part),
                state,
                form=form,
                convert=lambda _, lines: lines,
                anew=anew,
                read_pipe=read_pipe,
                records_of_stream=records_of_stream,
                progress=lambda _: None,
                report=lambda _: None,
            ).run(names)

    with patch.object(log_file, "_READ_BYTES", piece_bytes):
        asyncio.run(sending())


class Logs:
    """A program's log file, as it is written and rotated."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / "app.log"
        self.path.touch()
        self.written: Counter[bytes] = Counter()
        self.line = b""  # the last one, as far as it is written
        self._count = 0

    def append(self, count: int) -> None:
        for _ in range(count):
            self.append_part()
            self.append_rest()

    def append_part(self) -> None:
        if self.line:
            return
        self._count += 1
        self.line = b"line %d which goes " % self._count
        start = b"" if self.path.stat().st_size else HEADER + b"\n"
        self.written[HEADER] += bool(start)
        self._write(start + self.line)

    def append_rest(self) -> None:
        if self.line:
            self._write(b"on\n")
            self.written[self.line + b"on"] += 1
            self.line = b""

    def _write(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)

    def rotate(self, *, copies: bool, compresses: bool) -> None:
        self.append_rest()
        numbers = [int(path.name.split(".")[2]) for path in self.root.glob("app.log.*")]
        for number in sorted(numbers, reverse=True):
            (path,) = self.root.glob(f"app.log.{number}*")
            path.rename(str(path).replace(f"log.{number}", f"log.{number + 1}"))
        rotated = self.root / "app.log.1"
        if copies:
            shutil.copy(self.path, rotated)
            os.truncate(self.path, 0)
        else:
            self.path.rename(rotated)
            self.path.touch()
        if compresses:
            (self.root / "app.log.1.gz").write_bytes(gzip.compress(rotated.read_bytes()))
            rotated.unlink()


operations = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 6)),
    st.tuples(st.just("append"), st.integers(1, 6)),
    st.sampled_from([("part",), ("rest",)]),
    st.tuples(st.just("rotate"), st.booleans()),
    st.tuples(st.just("run"), st.none()),
    st.tuples(st.just("run"), st.integers(0, 12), st.floats(0, 1)),
    st.tuples(st.just("run"), st.integers(0, 12), st.floats(0, 1)),
)


@settings(max_examples=150)
@given(
    st.lists(operations, max_size=25),
    st.sampled_from(["renamed", "renamed while empty", "compressed", "copied"]),
    st.integers(5, 90),
)
def test_each_line_of_a_rotated_file_is_stored_once(
    history: list[tuple[Any, ...]], how: str, piece_bytes: int
) -> None:
    """A file that was empty in each run is known by its inode alone."""
    with tempfile.TemporaryDirectory(prefix="le-", dir="/dev/shm") as name:
        logs = Logs(Path(name))
        records: list[bytes] = []
        if how != "renamed while empty":
            logs.append(1)
        run(logs.root, records, [str(logs.path)], piece_bytes=piece_bytes)
        for what, *given_with in history:
            match what:
                case "append":
                    logs.append_rest()
                    logs.append(given_with[0])
                case "part":
                    logs.append_part()
                case "rest":
                    logs.append_rest()
                case "rotate":
                    logs.rotate(
                        copies=how == "copied",
                        compresses=how in {"compressed", "copied"} and given_with[0],
                    )
                case "run":
                    kill_after, *part = given_with
                    with contextlib.suppress(Killed):
                        run(
                            logs.root,
                            records,
                            [str(logs.path)],
                            kill_after=kill_after,
                            durable_part=part[0] if part else 1.0,
                            piece_bytes=piece_bytes,
                        )
        logs.append_rest()
        run(logs.root, records, [str(logs.path)], piece_bytes=piece_bytes)
        stored = Counter(records)
        halves = {line for line in stored if line.endswith(b"goes ")}
        assert Counter({k: v for k, v in stored.items() if k not in halves}) == logs.written
        whole = [line for line in records if line not in halves and line != HEADER]
        assert whole == sorted(whole, key=lambda line: int(line.split()[1]))


class Journal:
    """Entries with cursors, of which the oldest vanish; a boot begins new numbers."""

    def __init__(self, *, is_newest_first: bool) -> None:
        self._step = -1 if is_newest_first else 1
        self.entries: list[tuple[str, bytes]] = []
        self.there_from = 0
        self._boot = 0
        self._number = 0

    def append(self, count: int) -> None:
        for _ in range(count):
            self._number += 1
            cursor = f"s=aa;i={self._number:x};b={self._boot:x};m=1;t=2;x=3"
            self.entries.append((cursor, b"entry %d" % len(self.entries)))

    def boot(self, numbers_lost: int) -> None:
        """After a crash journald gives numbers again that it had not brought to the disk."""
        self._boot += 1
        self._number = max(0, self._number - numbers_lost)

    def vacuum(self, count: int) -> None:
        self.there_from = min(len(self.entries), self.there_from + count)

    def exported(self) -> bytes:
        return b"".join(
            b"__CURSOR=%s\nMESSAGE=%s\n\n" % (cursor.encode(), text)
            for cursor, text in self.entries[self.there_from :][:: self._step]
        )

    def as_json(self) -> bytes:
        return b"".join(
            b'{"MESSAGE":"%s","__CURSOR":"%s"}\n' % (text, cursor.encode())
            for cursor, text in self.entries[self.there_from :][:: self._step]
        )


journal_operations = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 8)),
    st.tuples(st.just("append"), st.integers(1, 8)),
    st.tuples(st.just("boot"), st.integers(0, 5)),
    st.tuples(st.just("vacuum"), st.integers(1, 8)),
    st.tuples(st.just("run"), st.integers(0, 12), st.floats(0, 1)),
    st.tuples(st.just("run"), st.none()),
)


@settings(max_examples=150)
@given(
    st.lists(journal_operations, max_size=25), st.booleans(), st.booleans(), st.integers(20, 300)
)
def test_each_entry_of_a_vacuumed_journal_is_stored_once(
    history: list[tuple[Any, ...]], as_json: bool, is_newest_first: bool, piece_bytes: int
) -> None:
    """Those are missing alone that were vacuumed before a run had stored them."""
    journal = Journal(is_newest_first=is_newest_first)
    records: list[bytes] = []
    form = "lines" if as_json else "auto"
    gone: set[bytes] = set()

    def stored() -> Counter[bytes]:
        found = [text for _, text in journal.entries for line in records if b'"%s"' % text in line]
        return Counter(found)

    with tempfile.TemporaryDirectory(prefix="le-", dir="/dev/shm") as name:

        def import_journal(kill_after: int | None = None, durable_part: float = 1.0) -> None:
            run(
                Path(name),
                records,
                ["-"],
                stdin=journal.as_json() if as_json else journal.exported(),
                form=form,
                kill_after=kill_after,
                durable_part=durable_part,
                piece_bytes=piece_bytes,
            )

        for what, *given_with in history:
            match what:
                case "append":
                    journal.append(given_with[0])
                case "boot":
                    journal.boot(given_with[0])
                case "vacuum":
                    journal.vacuum(given_with[0])
                    there = stored()
                    gone |= {
                        text
                        for _, text in journal.entries[: journal.there_from]
                        if text not in there
                    }
                case "run":
                    with contextlib.suppress(Killed):
                        import_journal(*given_with)
        import_journal()
    assert stored() == Counter(text for _, text in journal.entries if text not in gone)


@given(
    st.lists(st.sampled_from([b"a", b"b", b"", b"  ", b"longer line"]), max_size=30),
    st.integers(0, 12),
    st.floats(0, 1),
    st.integers(1, 60),
    st.integers(0, 100),
)
def test_standard_input_goes_on_where_it_stopped(
    lines: list[bytes], kill_after: int, durable_part: float, piece_bytes: int, cut: int
) -> None:
    whole = b"".join(line + b"\n" for line in lines)
    first = whole[: whole.rfind(b"\n", 0, cut) + 1]
    records: list[bytes] = []
    with tempfile.TemporaryDirectory(prefix="le-", dir="/dev/shm") as name:
        for stdin, kill in ((first, kill_after), (whole, kill_after), (whole, None)):
            with contextlib.suppress(Killed):
                run(
                    Path(name),
                    records,
                    ["-"],
                    stdin=stdin,
                    kill_after=kill,
                    durable_part=durable_part,
                    piece_bytes=piece_bytes,
                )
    assert records == list(split_lines(whole))


@given(st.binary(min_size=1, max_size=60), st.binary(min_size=1, max_size=60))
def test_another_standard_input_is_never_taken_for_the_first(first: bytes, second: bytes) -> None:
    first, second = first + b"x\n", second + b"y\n"
    records: list[bytes] = []
    with tempfile.TemporaryDirectory(prefix="le-", dir="/dev/shm") as name:
        run(Path(name), records, ["-"], stdin=first)
        stored = list(records)
        if second.startswith(first):
            run(Path(name), records, ["-"], stdin=second)
            assert records == list(split_lines(second))
        else:
            with pytest.raises(AnotherInput, match="standard input"):
                run(Path(name), records, ["-"], stdin=second)
            assert records == stored


def test_a_thousand_files_are_remembered_and_no_more_taken_than_can_be() -> None:
    records: list[bytes] = []
    with tempfile.TemporaryDirectory(prefix="le-", dir="/dev/shm") as name:
        root = Path(name)
        paths = [root / f"{number}.log" for number in range(1000)]
        for _ in range(2):
            for path in paths:
                with path.open("ab") as file:
                    file.write(b"%s\n" % path.name.encode())
            run(root, records, [str(path) for path in paths])
        assert Counter(records) == Counter({path.name.encode(): 2 for path in paths})
        with pytest.raises(InvalidOption, match="at most 4,096"):
            run(root, records, [str(path) for path in paths * 5])
