"""Readers while the daemon writes: the engine's own reader, and its follower.

Each is a separate process, which survives kills of the daemon but no power cut.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from logengine.reading.follower import Follower
from logengine.reading.problem import Problem
from logengine.reading.reader import StreamReader
from tests.simulation.clock import Kernel, Process, Thread
from tests.simulation.loop import SimulatedLoop
from tests.simulation.oracle import Oracle, Violation
from tests.simulation.scenario import DATA

Violate = Callable[[Violation], None]


class Reader:
    """Reads a stream once, from its beginning."""

    def __init__(
        self,
        kernel: Kernel,
        stream: str,
        violate: Violate,
        on_end: Callable[["Reader"], None],
        *,
        may_report: bool,
    ) -> None:
        self.process = Process(kernel)
        self._kernel = kernel
        self._stream = stream
        self._violate = violate
        self._on_end = on_end
        self._may_report = may_report
        thread = Thread(self.process, self._read)
        thread.role = "reader"
        thread.start(0.0)

    def _read(self) -> None:
        problems: list[Problem] = []
        next_seq: int | None = None
        reader = StreamReader(Path(DATA), self._stream, problems.append)
        try:
            for block in reader.read():
                for record in block.records():
                    if next_seq is not None and not _are_told(problems, next_seq, record.seq):
                        what = f"{self._stream}: {record.seq} where {next_seq} is next"
                        self._violate(Violation("a reader sees a hole", what))
                        return
                    next_seq = record.seq + 1
        except OSError:
            pass  # the error is reported
        if problems and not self._may_report:
            what = f"{self._stream}: {problems[0]}"
            self._violate(Violation("a reader is told of a fault", what))
        self._kernel.after(0.0, lambda: self._on_end(self))

    def end(self) -> None:
        """Ends it."""
        self.process.end()


def _are_told(problems: Sequence[Problem], next_seq: int, seq: int) -> bool:
    """Whether the reader reported all records from `next_seq` up to `seq` as gone."""
    for gone in sorted((each.gone for each in problems if each.gone), key=lambda gone: gone.first):
        if gone.first <= next_seq:
            next_seq = max(next_seq, gone.last + 1)
    return seq == next_seq


class Follows:
    """Follows all streams, from its start on."""

    def __init__(
        self,
        kernel: Kernel,
        oracle: Oracle,
        violate: Violate,
        turn_s: float,
        *,
        may_report: bool,
        trims: Callable[[str], bool],
    ) -> None:
        self.process = Process(kernel)
        self._oracle = oracle
        self._violate = violate
        self.may_miss = may_report
        self._trims = trims
        self.next_seq: dict[str, int] = {}
        self.shown = 0
        self.has_ended = False
        self._loop = SimulatedLoop(self.process, turn_s, lambda _: None)
        thread = Thread(self.process, self._run)
        thread.role = "follower"
        thread.start(0.0)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._follow())
        except OSError:
            self.has_ended = True  # the error is reported

    async def _follow(self) -> None:
        follower = Follower(Path(DATA), None, {}, self._report)
        async for block in follower.blocks():
            for record in block.records():
                self._show(record.stream, record.seq, record.line)

    def _report(self, problem: object) -> None:
        if not self.may_miss:
            self._violate(Violation("a follower is told of a fault", str(problem)))

    def _show(self, stream: str, seq: int, line: bytes) -> None:
        expected = self.next_seq.get(stream)
        is_next = expected is None or seq == expected
        # Records that were reported as gone may be missing.
        may_be_missing = self.may_miss or self._trims(stream)
        if not is_next and not (may_be_missing and seq > (expected or 0)):
            what = f"{stream}: {seq} where {expected} is next"
            self._violate(Violation("a follower sees a hole", what))
        self.next_seq[stream] = seq + 1
        self.shown += 1
        try:
            self._oracle.show(stream, seq, line)
        except Violation as violation:
            self._violate(violation)

    def end(self) -> None:
        """Ends it."""
        self.process.end()
        for task in asyncio.all_tasks(self._loop._as_loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
