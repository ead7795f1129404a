"""The store against a plain model, with failing system calls, crashes and three batches at once.

Whatever was reported as committed must be read back, once and in order; what was reported
as failed, or was under way when the process died, may be there or not, but only as the
next records in order, and never in part.
"""

import asyncio
import errno
import os
import random
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from logengine.format.producers import Producer
from logengine.reading.reader import StreamReader
from logengine.store.plan import Addition
from logengine.store.settings import CommitConfig, LimitsConfig
from logengine.store.store import Store
from logengine.upkeep.verify import verify_stream

if TYPE_CHECKING:
    from logengine.reading.problem import Problem

STREAMS = ("app", "audit", "web")
COMMIT = CommitConfig(rewrite_limit=300)
PRODUCER = Producer(1000, "p")
LIMITS = LimitsConfig(max_producers=2, active_cache=500)


class FailingCalls:
    """Makes the n-th of some system calls of the store fail, or end the world."""

    def __init__(self, name: str, countdown: int, error: int | None) -> None:
        self._name = name
        self._countdown = countdown
        self._error = error
        self._real: Callable[..., Any] = getattr(os, name)

    def __enter__(self) -> None:
        self._patch = patch.object(os, self._name, self._call)
        self._patch.start()

    def __exit__(self, *_: object) -> None:
        self._patch.stop()

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        self._countdown -= 1
        if self._countdown == 0 and self._error is not None:
            raise OSError(self._error, os.strerror(self._error))
        return self._real(*args, **kwargs)


def line_of(number: int) -> bytes:
    return b'{"_ts":"2026-11-23T20:00:00.000001Z","n":%d}\n' % number


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.data = Path(tempfile.mkdtemp(prefix="logengine-model-"))
        self.executor = ThreadPoolExecutor(3)
        self.durable: dict[str, list[int]] = {stream: [] for stream in STREAMS}
        self.producers: dict[str, int] = dict.fromkeys(STREAMS, 0)
        # What failed waits here, to be committed first, as the committer does it.
        self.waiting: dict[str, list[int]] = {stream: [] for stream in STREAMS}
        self.number = 0
        self.open()

    def open(self) -> None:
        self.store = Store(self.data, self.executor, COMMIT, LIMITS)
        self.store.open()
        for stream in STREAMS:
            asyncio.run(self.store.recover_stream(stream))
            found = self.stored(stream)
            # Nothing acknowledged is missing; what else is there came in order.
            assert found[: len(self.durable[stream])] == self.durable[stream]
            more = found[len(self.durable[stream]) :]
            assert more == self.waiting[stream][: len(more)]
            self.durable[stream] = found
            self.waiting[stream] = self.waiting[stream][len(more) :]
            known = self.store.last_durable(stream, PRODUCER)
            assert known == (found[-1] if found else 0)

    def stored(self, stream: str) -> list[int]:
        if not (self.data / stream).exists():
            return []
        problems: list[Problem] = []
        blocks = list(StreamReader(self.data, stream, problems.append).read())
        assert not problems
        next_seq = 1
        for block in blocks:
            assert block.first == next_seq
            next_seq += block.count
        return [int(line.split(b":")[-1][:-1]) for block in blocks for line in block.lines()]

    def additions(self, streams: list[str], count: int) -> dict[str, list[int]]:
        taken = {}
        for stream in streams:
            for _ in range(count):
                self.number += 1
                self.waiting[stream].append(self.number)
            taken[stream], self.waiting[stream] = self.waiting[stream], []
        return {stream: numbers for stream, numbers in taken.items() if numbers}

    def plans(self, taken: dict[str, list[int]]) -> dict[str, Any]:
        time = "2026-11-23T20:00:00.000001Z"
        return {
            stream: self.store.plan(
                stream,
                Addition(
                    [line_of(number) for number in numbers],
                    len(numbers),
                    time,
                    time,
                    {PRODUCER: numbers[-1]},
                ),
            )
            for stream, numbers in taken.items()
        }

    def settle(self, taken: dict[str, list[int]], failed: dict[str, Exception]) -> None:
        for stream, numbers in taken.items():
            if stream in failed:
                self.waiting[stream] = self.waiting[stream] + numbers
            else:
                self.durable[stream] = self.durable[stream] + numbers

    async def commits(self, plans: dict[str, Any], *, in_loop: bool) -> dict[str, Exception]:
        """As the committer does it."""
        failed = self.store.commit_alone(plans) if in_loop else None
        if failed is None:
            failed = await self.store.commit(plans, in_loop=in_loop)
        return failed

    def run(self, work: Awaitable[Any]) -> Any:
        async def main() -> Any:
            # Of several steps that died only one is heard of. The others would be told from
            # inside the collector, whose traceback makes CPython 3.11 lose count of its stack.
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)
            done = await work
            await asyncio.sleep(0)  # what the store does after an ack
            return done

        return asyncio.run(main())

    streams = st.lists(st.sampled_from(STREAMS), min_size=1, max_size=3, unique=True)
    faults = st.none() | st.tuples(
        st.sampled_from(["open", "writev", "fsync", "replace", "mkdir"]),
        st.integers(1, 6),
        st.sampled_from([errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.EROFS]),
    )

    @rule(streams=streams, count=st.integers(0, 4), fault=faults, in_loop=st.booleans())
    def commit(
        self, streams: list[str], count: int, fault: tuple[str, int, int] | None, *, in_loop: bool
    ) -> None:
        taken = self.additions(streams, count)
        plans = self.plans(taken)
        with FailingCalls(*(fault or ("fsync", 0, None))):
            failed = self.run(self.commits(plans, in_loop=in_loop))
        assert fault is not None or not failed
        self.settle(taken, failed)

    @rule(batches=st.lists(streams, min_size=2, max_size=3), count=st.integers(1, 4), fault=faults)
    def commit_several_at_once(
        self, batches: list[list[str]], count: int, fault: tuple[str, int, int] | None
    ) -> None:
        """Each waits for the last batch of its streams, however far back that is."""

        async def all_of_them() -> list[tuple[dict[str, list[int]], dict[str, Exception]]]:
            last: dict[str, asyncio.Future[dict[str, Exception]]] = {}
            under_way = []
            for streams in batches:
                taken = self.additions(streams, count)
                before = dict.fromkeys(last[stream] for stream in taken if stream in last)
                commit = asyncio.ensure_future(self.store.commit(self.plans(taken), list(before)))
                last |= dict.fromkeys(taken, commit)
                under_way.append((taken, commit))
                await asyncio.sleep(0)
            return [(taken, await commit) for taken, commit in under_way]

        with FailingCalls(*(fault or ("fsync", 0, None))):
            done = asyncio.run(all_of_them())
        broken: set[str] = set()
        for taken, failed in done:
            assert broken & set(taken) <= set(failed)
            broken |= set(failed)
            self.settle(taken, failed)

    @rule()
    def stop_and_start(self) -> None:
        self.store.close()
        self.open()

    @rule(
        stream=st.sampled_from(STREAMS),
        counts=st.lists(st.integers(1, 2), min_size=3, max_size=5),
        fault=faults,
    )
    def commit_one_after_the_other_in_the_loop(
        self, stream: str, counts: list[int], fault: tuple[str, int, int] | None
    ) -> None:
        """As of a sender that waits: from the third on, the writer is open already."""
        with FailingCalls(*(fault or ("fsync", 0, None))):
            for count in counts:
                taken = self.additions([stream], count)
                failed = self.run(self.commits(self.plans(taken), in_loop=True))
                assert fault is not None or not failed
                self.settle(taken, failed)

    @rule(streams=streams, count=st.integers(1, 3), call=st.integers(1, 12), in_loop=st.booleans())
    def die_in_a_commit_and_start(
        self, streams: list[str], count: int, call: int, *, in_loop: bool
    ) -> None:
        taken = self.additions(streams, count)
        plans = self.plans(taken)
        calls = 0

        class Died(BaseException):
            pass

        def dying(real: Callable[..., Any]) -> Callable[..., Any]:
            def run(*args: Any, **kwargs: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls >= call:
                    raise Died
                return real(*args, **kwargs)

            return run

        names = ("open", "writev", "fsync", "replace", "unlink", "mkdir")
        patches = [patch.object(os, name, dying(getattr(os, name))) for name in names]
        for each in patches:
            each.start()
        try:
            failed = self.run(self.commits(plans, in_loop=in_loop))
        except Died:
            failed = dict.fromkeys(taken, Exception())
        finally:
            for each in patches:
                each.stop()
        self.settle(taken, failed)
        self.store.close()
        self.open()

    @precondition(lambda self: self.number)
    @rule(seed=st.integers(0, 99))
    def leave_a_temp_of_a_killed_process(self, seed: int) -> None:
        stream = random.Random(seed).choice(STREAMS)
        if (self.data / stream).is_dir():
            (self.data / stream / f".00000000000000000001.ndjson.{seed}.tmp").write_bytes(b"{")
        self.store.close()
        self.open()
        # A killed process may leave one mark's temp file, too, which the next one replaces.
        assert not [temp for each in STREAMS for temp in (self.data / each).glob(".*.tmp")]

    @invariant()
    def what_is_durable_is_read_in_order(self) -> None:
        for stream in STREAMS:
            found = self.stored(stream)
            assert found[: len(self.durable[stream])] == self.durable[stream]
            more = found[len(self.durable[stream]) :]
            # Replaced, and its directory not synced: visible, not acknowledged.
            assert more == self.waiting[stream][: len(more)]
            if (self.data / stream).is_dir():
                assert not [f for f in verify_stream(self.data / stream) if not f.harmless]

    def teardown(self) -> None:
        self.store.close()
        self.executor.shutdown()
        shutil.rmtree(self.data)


StoreMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("MODEL_EXAMPLES", "60")), stateful_step_count=25, deadline=None
)
test_store_against_its_model = StoreMachine.TestCase
