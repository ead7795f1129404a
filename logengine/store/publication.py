"""The writers of one commit, as members of its exit stack, and the step that publishes them."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from types import TracebackType
from typing import Self

from logengine.errors import OutdatedPlan
from logengine.store.plan import PlannedSegment
from logengine.store.stream import SegmentWriter


class Publication:
    """What the writers of one commit share: threads, and the last step.

    It is entered before the writers and left after them; by then each writer was handed over or
    aborted. Leaving normally publishes every writer that was handed over: its file is replaced
    and its directory synced in one thread hop. An exception on the way out of the stack publishes
    none. Without an `executor`, the event loop's own thread runs each step immediately.
    """

    def __init__(self, executor: Executor | None, threads: int) -> None:
        self._executor = executor
        self._threads = threads
        self._handed_over: list[StreamCommit] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Release them now: a cycle would keep the batch in memory until the collector runs.
        commits, self._handed_over = self._handed_over, []
        if exc_type is None:
            await self.step([(commit, commit.writer.publish) for commit in commits])

    def hand_over(self, commit: "StreamCommit") -> None:
        """Accepts a writer whose part of the stack exited without failure."""
        self._handed_over.append(commit)

    async def step(self, steps: Sequence[tuple["StreamCommit", Callable[[], None]]]) -> None:
        """Runs one step of each writer, in parallel. A failure affects only its own writer."""
        left = deque(steps)

        def take_what_is_left() -> None:
            with contextlib.suppress(IndexError):
                while True:
                    commit, step = left.popleft()
                    commit.take(step)

        if self._executor is None:
            take_what_is_left()
            return
        # One job per thread, not per stream: submitting one costs 30 us.
        loop = asyncio.get_running_loop()
        jobs = [
            loop.run_in_executor(self._executor, take_what_is_left)
            for _ in range(min(len(steps), self._threads))
        ]
        for job in jobs:
            await job


class StreamCommit:
    """One stream's part of a commit: an atomic writer in the stack, and its failure, if any.

    `why_outdated` is called last, just before the writer is handed over for publication.
    """

    def __init__(
        self,
        writer: SegmentWriter,
        publication: Publication,
        planned: PlannedSegment,
        why_outdated: Callable[[PlannedSegment], OutdatedPlan | None],
    ) -> None:
        self.writer = writer
        self.planned = planned
        self.stream = planned.before.stream
        self.failure: Exception | None = None
        self._publication = publication
        self._why_outdated = why_outdated

    @property
    def begins_stream(self) -> bool:
        """Whether nothing of the stream is durable yet, not even its directory."""
        return self.planned.plan is not None and self.planned.plan.begins_stream

    def take(self, step: Callable[[], None]) -> None:
        """Runs a step of the writer; an error there fails this stream only."""
        try:
            step()
        except Exception as error:  # noqa: BLE001 - whatever it is, only this stream failed
            self.failure = error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None and self.failure is None:
            self.failure = self._why_outdated(self.planned)
        if exc_type is None and self.failure is None:
            self._publication.hand_over(self)
        else:
            await self._publication.step([(self, self.writer.abort)])
