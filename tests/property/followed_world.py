"""The followed files of a daemon, with a store in memory and time that stands still.

The engine's own code looks at a real directory. Before each of its system calls others may act: a
program appends lines and rotates its file. What was read is queued; what was queued becomes durable
in batches, whose producers are those that a segment's header would have; a kill leaves these alone.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Self, cast
from unittest import mock

from logengine.followed_files.following import FollowedFiles
from logengine.followed_files.settings import FileConfig
from logengine.format.producers import Numbers, Room, advance, is_followed_file
from logengine.store.pending import Entry, addition_of

STREAM = "app"
_ROOM = Room(1024, 32 * 1024)
# The calls before which others may act.
_CALLS = ("open", "scandir", "stat", "fstat", "pread", "listdir")


class World:
    """A daemon that follows `pattern`, and what is on its disk. Use it as a context manager."""

    def __init__(self, pattern: str, interrupt: Callable[[], None] = lambda: None) -> None:
        self.numbers: Numbers = {}
        self.lines: list[str] = []  # durable
        self.has_room = True
        self.is_open = True  # the store
        self.now_s = 1000.0
        self._rules = [FileConfig(path=pattern, format="lines", stream=STREAM)]
        self._interrupt = interrupt
        self._queued: list[Entry] = []
        self._waiting: dict[Any, None] = {}
        self._is_looking = False  # and may be interrupted
        self._loop = asyncio.new_event_loop()
        self._loop.time = lambda: self.now_s  # type: ignore[method-assign]
        self._loop.run_in_executor = self._run_here  # type: ignore[method-assign,assignment]
        self._stack = contextlib.ExitStack()
        self._files: FollowedFiles | None = None

    def __enter__(self) -> Self:
        for name in _CALLS:
            patch = mock.patch.object(os, name, self._interrupted(getattr(os, name)))
            self._stack.enter_context(patch)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._stack.close()
        self._loop.close()

    def start(self) -> None:
        """Starts a daemon that knows what is durable."""
        store = SimpleNamespace(
            generation=0,
            is_open=self.is_open,
            latest_found="",
            not_recovered=dict,
            is_known=lambda _: True,
            knows_producers=lambda _: True,
            followed_files=self._followed_files,
        )
        admission = SimpleNamespace(
            room_for=lambda _: True if self.has_room else None,
            pause=self._waiting.setdefault,
            forget=lambda source: self._waiting.pop(source, None),
        )
        arrivals = SimpleNamespace(
            renew_time=lambda: None,
            now=lambda: datetime(2026, 11, 29, tzinfo=UTC),
            timestamp=lambda: "",
            stamp=lambda _, __, lines: SimpleNamespace(
                body=lines, records=lines.count(b"\n"), timestamp=""
            ),
            add=lambda _, entry, **__: self._queued.append(entry),
        )
        names = SimpleNamespace(take=lambda *_: None, give_back=lambda _: None)
        around = SimpleNamespace(
            admission=admission, arrivals=arrivals, stream_names=names, max_record=1 << 20
        )
        self._store = store
        self._files = self._loop.run_until_complete(self._following(store, around))

    async def _following(self, store: object, around: object) -> FollowedFiles:
        return FollowedFiles(
            self._rules,
            cast("Any", store),
            cast("Any", None),
            cast("Any", around),
            data="/nonexistent/data",
            open_max=100,
        )

    def open_store(self, latest_found: str) -> None:
        """The store, whose disk failed at the start, is open now."""
        self._store.is_open, self._store.latest_found = True, latest_found

    def kill(self) -> None:
        """Ends the daemon. What is not durable is gone."""
        assert self._files is not None
        self._files._close_all()
        self._files._changes.close()
        self._files._thread.shutdown()
        self._files = None
        self._queued.clear()
        self._waiting.clear()

    def step(self) -> None:
        """Has the daemon look around and read a piece."""
        assert self._files is not None
        self._files._has_changed = True
        self._is_looking = True
        try:
            self._loop.run_until_complete(self._files._step())
        finally:
            self._is_looking = False

    def commit(self, entries: int) -> None:
        """Makes the oldest entries that are queued durable, in one batch."""
        batch, self._queued = self._queued[:entries], self._queued[entries:]
        addition = addition_of(batch, counts_users=False)
        self.numbers = advance(self.numbers, addition.producers, _ROOM)
        for chunk in addition.chunks:
            self.lines += (json.loads(line)["message"] for line in chunk.splitlines())
        for entry in batch:
            entry.sender.durable(entry.number)

    @property
    def has_planned(self) -> bool:
        """Whether the daemon has opened a file."""
        return self._files is not None and any(each.sources for each in self._files._paths.values())

    @property
    def queued(self) -> int:
        """How many entries are not durable."""
        return len(self._queued)

    def give_room(self) -> None:
        """Lets those that wait for room read on."""
        self.has_room = True
        for source in list(self._waiting):
            del self._waiting[source]
            source.resume()

    def settle(self) -> None:
        """Has the daemon read and store all there is."""
        self.give_room()
        for pause_s in (1.0, 1.0, 5.0, 1.0, 6.0, 1.0):
            self.now_s += pause_s
            for _ in range(1000):
                before = len(self.lines)
                self.step()
                self.commit(self.queued)
                self.now_s += 0.06
                if len(self.lines) == before and not self.is_busy:
                    break

    @property
    def is_busy(self) -> bool:
        """Whether the daemon has something to do at once."""
        assert self._files is not None
        return self._files._has_work or bool(self._files._active or self._files._again)

    def _followed_files(self) -> dict[str, dict[str, int]]:
        files = {each.name: count for each, count in self.numbers.items() if is_followed_file(each)}
        return {STREAM: files}

    def _run_here(self, _: object, call: Callable[..., Any], *arguments: Any) -> Any:
        result = self._loop.create_future()
        try:
            result.set_result(call(*arguments))
        except OSError as error:
            result.set_exception(error)
        return result

    def _interrupted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def interrupted(*arguments: Any, **keywords: Any) -> Any:
            if self._is_looking:
                self._is_looking = False
                try:
                    self._interrupt()
                finally:
                    self._is_looking = True
            return call(*arguments, **keywords)

        return interrupted
