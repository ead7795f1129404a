"""Looks at all streams again and again, and reads what is new in them, up to a limit.

Streams whose directory has not changed are not looked at again: a thousand idle ones take a
thousand calls of stat.
"""

import os
import pwd
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from logengine.disk.segment_file import list_streams
from logengine.errors import LogEngineError
from logengine.format.timestamp import format_time, parse_timestamp
from logengine.reading import (
    Batch,
    ChosenStreams,
    Problem,
    Report,
    StreamSummary,
    blocks_after,
    summary_of,
)
from logengine.top.figures import (
    WINDOW_S,
    DaemonFigures,
    Look,
    StreamState,
    Tally,
    tally,
    weighted,
)

# What is read at a look, over all streams. Of more, the newest are read and the rest is estimated.
RECORDS_PER_LOOK_MAX = 20_000
BYTES_PER_LOOK_MAX = 32 * 1024 * 1024
# A change so shortly before a look may have been followed by another one with the same time.
_SETTLED_NS = 100_000_000
_ASK_AGAIN_S = 30.0  # a daemon that does not answer this user

AskDaemon = Callable[[], DaemonFigures]


class Survey:
    """Looks at the streams of a data directory that are in `asked`, or at all of them."""

    def __init__(
        self, data: Path, asked: Sequence[str], ask_daemon: AskDaemon, report: Report
    ) -> None:
        self._data = data
        self._chosen = ChosenStreams(asked) if asked else None
        self._ask_daemon = ask_daemon
        self._report = report
        self._states: dict[str, StreamState] = {}
        self._changed_ns: dict[str, int] = {}
        self._denied_until_s = 0.0
        self._daemon = DaemonFigures("absent")
        self._users: dict[int, str] = {}
        self._room_bytes = 0

    def look(self) -> Look:
        """Returns what there is now. Raises `OSError` if the data directory cannot be read."""
        # A data directory that does not exist yet has no streams.
        names = list_streams(self._data) if self._data.exists() else []
        before, self._states = self._states, {}
        found: Tally = {}
        grown: dict[str, int] = {}
        now_s = time.time()
        for name in names:
            if self._chosen is None or name in self._chosen:
                with suppress(FileNotFoundError):  # it was removed
                    self._states[name] = self._state(name, before.get(name))
        for name, state in self._states.items():
            last = state.summary.last_seq or 0
            earlier = before[name].summary.last_seq or 0 if name in before else None
            if earlier is None:  # is it active at all?
                until = state.summary.until
                if until is not None and until >= format_time(now_s - WINDOW_S):
                    grown[name] = 0
            elif last != earlier:
                # A stream that has fewer records than before is another one.
                grown[name] = earlier if earlier < last else 0
        share = RECORDS_PER_LOOK_MAX // max(1, len(grown))
        self._room_bytes = BYTES_PER_LOOK_MAX
        for name, earlier in grown.items():
            self._count_new(name, earlier, max(1, share), int(now_s) - WINDOW_S, found)
        self._name_users(found)
        return Look(
            now_s, self._states, found, self._asked_daemon(now_s), self._free_bytes(), self._users
        )

    def _state(self, name: str, before: StreamState | None) -> StreamState:
        now_ns = time.time_ns()
        changed_ns = os.stat(self._data / name).st_mtime_ns
        is_settled = changed_ns < now_ns - _SETTLED_NS
        if before is not None and self._changed_ns.get(name) == changed_ns:
            return replace(before, delay_s=None, is_sampled=False)
        # Noted as unknown if it may change again within the same tick of the clock of files.
        self._changed_ns[name] = changed_ns if is_settled else -1
        try:
            summary = summary_of(name, data=self._data)
        except (OSError, LogEngineError) as error:
            self._changed_ns[name] = -1
            self._report(_problem(name, error))
            if before is not None:
                return replace(before, delay_s=None, is_sampled=False)
            return StreamState(StreamSummary(name, 0, 0, 0, None, None, None, None, 0))
        delay_s = None
        if before is not None and summary.last_seq != before.summary.last_seq:
            delay_s = self._delay_s(name, summary.until)
        return StreamState(summary, delay_s)

    def _delay_s(self, name: str, until: str | None) -> float | None:
        """How long the newest record took from its arrival until its file had its name.

        A rename changes a file's ctime, and nothing else does so in a new segment.
        """
        if until is None:
            return None
        with suppress(OSError), os.scandir(self._data / name) as entries:
            newest = max((each.name for each in entries if each.name[:1].isdigit()), default="")
            if newest:
                changed = os.stat(self._data / name / newest, follow_symlinks=False)
                if stat.S_ISREG(changed.st_mode):
                    return max(0.0, (changed.st_ctime_ns - parse_timestamp(until)) / 1e9)
        return None

    def _count_new(self, name: str, earlier: int, share: int, since_s: int, found: Tally) -> None:
        state = self._states[name]
        last = state.summary.last_seq or 0
        oldest = (state.summary.first_seq or 1) - 1
        after = max(earlier, last - share, oldest)
        of_stream: Tally = {}
        read = 0
        try:
            for block in blocks_after(self._data, name, after, self._report):
                for rows in Batch(block, {}).rows():
                    tally(rows, of_stream, since_s)
                read += block.count
                self._room_bytes -= len(block.body)
                if self._room_bytes < 0 or read > share:
                    break
        except FileNotFoundError:
            return  # it was removed
        except (OSError, LogEngineError) as error:
            self._report(_problem(name, error))
        # Of a stream seen for the first time, nobody knows how much is of the last minute.
        new = last - max(earlier, oldest) if earlier else read
        if 0 < read < new:
            self._states[name] = replace(state, is_sampled=True)
        weight = new / read if 0 < read < new else 1.0
        found.update(weighted(of_stream, weight))

    def _asked_daemon(self, now_s: float) -> DaemonFigures:
        if now_s >= self._denied_until_s or now_s < self._denied_until_s - _ASK_AGAIN_S:
            self._daemon = self._ask_daemon()
            if self._daemon.state == "denied":
                self._denied_until_s = now_s + _ASK_AGAIN_S
        return self._daemon

    def _free_bytes(self) -> int | None:
        try:
            found = os.statvfs(self._data)
        except OSError:
            return None
        return found.f_bavail * found.f_frsize

    def _name_users(self, found: Tally) -> None:
        for uid in {each.sender.uid for each in found} - self._users.keys():
            if uid is None:
                continue
            try:
                self._users[uid] = pwd.getpwuid(uid).pw_name
            except (KeyError, OverflowError):
                self._users[uid] = str(uid)


def _problem(stream: str, error: Exception) -> Problem:
    what = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    return Problem(stream, what)
