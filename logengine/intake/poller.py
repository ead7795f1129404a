"""Polls many sockets and calls back for some of them per turn, as long as its time lasts.

The event loop by itself handles all readable sockets in one turn. With a thousand senders such a
turn takes ten milliseconds, and a commit takes several turns. Here each turn has a budget of time,
and the users whose sockets are readable share it by deficit round robin (`turns`).

Each flow, which is a user or a datagram socket, has an epoll(7) of its own, and the loop watches
one epoll for all of them. So one call finds out which users have something to read, however many
connections each of them has, and the kernel takes turns among the connections of one user.

libuv permanently stops polling a socket that has an error. This poller continues until it is told
to stop, so that what a sender wrote before it was gone is read.
"""

import asyncio
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Protocol

from logengine.intake.turns import READ_BYTES_FIRST, READ_BYTES_MIN, DeficitRoundRobin, ReadSize

# Twice as long as a bare commit, which needs several turns of the loop.
TURN_S = 0.001
_QUANTUM_S = TURN_S / 4
_FULL_TURN_S = TURN_S / 2
_COSTLY_READ_S = 2 * TURN_S
# The reads that complete a long record are few among those that only receive more of it.
_READ_COST_KEPT = 0.95
_POSTPONED_S_MAX = 0.01
# To commit what a read took costs about as much again as the read.
_COMMIT_BYTES_PER_S = 500e6
# As many as fit into a turn, if each read has one short record.
READS_PER_POLL = 64
# The longest rest after a costly turn. The turns of the loop that an ack needs fit into it.
_REST_S_MAX = 0.01


class Readable(Protocol):
    """An object that reads a socket when the poller calls it."""

    @property
    def flow(self) -> Hashable:
        """With whom it shares its turns."""

    @property
    def read_size(self) -> ReadSize:
        """How much it reads at a time; the poller adapts it."""

    def on_readable(self) -> int:
        """Reads once. Returns how many bytes it worked on."""


class _Flow:
    """The sockets of one flow."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.readers: dict[int, Readable] = {}
        self.ready: deque[int] = deque()  # polled, and not read yet
        self.read_s = 0.0  # what a read took, of the costly ones among its last
        self.postponed_since_s: float | None = None


class Poller:
    """Calls back for sockets that have data, an error, or a sender that is gone.

    `clock_s` is any clock that never goes back. It is read after each callback. `cpu_s` is the CPU
    time of this thread. Uses a descriptor for each flow; flows for which there is none share one.

    Unless there is one flow only, a turn whose last read took far longer than the turn should is
    followed by a rest: otherwise each of the several turns of the loop that another user's ack
    needs would wait for such a read. While `others_commit` is true, every full turn is followed by
    a rest as long as the turn. A thread gets the interpreter at once then; from a loop that is
    never idle it gets it only after the switch interval, and a commit needs it ten times.

    One read cannot be interrupted, and a single record may take 50 ms. So a flow with such reads
    is read first in a turn or not at all, and for a while not while `others_commit` is true.
    Otherwise one ack would wait for several such reads.
    """

    def __init__(
        self,
        clock_s: Callable[[], float] | None = None,
        cpu_s: Callable[[], float] | None = None,
        *,
        others_commit: Callable[[], bool] = lambda: False,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock_s = clock_s or time.perf_counter
        self._cpu_s = cpu_s or time.thread_time
        self._others_commit = others_commit
        self._busy_s = 0.0  # in all turns and rests that have ended
        self._busy_since_s: float | None = None
        self._rest: asyncio.TimerHandle | None = None
        self._epoll = select.epoll()
        self._schedule: DeficitRoundRobin[_Flow] = DeficitRoundRobin(_QUANTUM_S)
        self._members: dict[Hashable, int] = {}
        self._flows: dict[Hashable, _Flow] = {}
        self._polled: dict[int, _Flow] = {}  # by the descriptor of its epoll
        self._watched: dict[int, _Flow] = {}  # by the descriptor of the socket
        self._shared = self._new_flow()
        self.turns = 0  # started so far
        self._loop.add_reader(self._epoll.fileno(), self._turn)

    @property
    def flows(self) -> int:
        """How many flows have members."""
        return len(self._flows)

    @property
    def is_resting(self) -> bool:
        """Whether nothing is read for a moment, after a costly turn."""
        return self._rest is not None

    def free_s(self) -> float:
        """Returns the time by a clock that stands still in each turn and each rest.

        By this clock, nobody's record comes late because others were read, or nobody was.
        """
        since_s = self._busy_since_s
        return (self._clock_s() if since_s is None else since_s) - self._busy_s

    def enter(self, flow: Hashable) -> None:
        """Notes one more member of `flow`, which may add sockets until it leaves."""
        if flow not in self._flows:
            try:
                self._flows[flow] = self._new_flow()
            except OSError:  # no descriptor is left
                self._flows[flow] = self._shared
        self._members[flow] = self._members.get(flow, 0) + 1

    def leave(self, flow: Hashable) -> None:
        """Notes that a member has left. Nothing is kept of a flow without members."""
        self._members[flow] -= 1
        if self._members[flow]:
            return
        del self._members[flow]
        left = self._flows.pop(flow)
        if left is self._shared or self._epoll.closed:
            return
        self._schedule.forget(left)
        self._epoll.unregister(left.epoll.fileno())
        del self._polled[left.epoll.fileno()]
        left.epoll.close()

    def add(self, watched: socket.socket, reader: Readable) -> None:
        """Calls `reader` whenever there is something to read from `watched`."""
        descriptor = watched.fileno()
        flow = self._flows[reader.flow]
        flow.epoll.register(descriptor, select.EPOLLIN)
        flow.readers[descriptor] = reader
        self._watched[descriptor] = flow

    def remove(self, watched: socket.socket) -> None:
        """Stops watching `watched`. Call it before closing the socket."""
        descriptor = watched.fileno()
        flow = self._watched.pop(descriptor)
        del flow.readers[descriptor]
        flow.epoll.unregister(descriptor)

    def watches(self, watched: socket.socket) -> bool:
        """Whether `watched` is watched."""
        return watched.fileno() in self._watched

    def close(self) -> None:
        """Stops watching all sockets."""
        if not self._epoll.closed:
            if self._rest is None:
                self._loop.remove_reader(self._epoll.fileno())
            else:
                self._rest.cancel()
            for flow in self._polled.values():
                flow.epoll.close()
            self._epoll.close()

    def _new_flow(self) -> _Flow:
        flow = _Flow()
        self._epoll.register(flow.epoll.fileno(), select.EPOLLIN)
        self._polled[flow.epoll.fileno()] = flow
        return flow

    def _turn(self) -> None:
        self.turns += 1
        began_s = self._busy_since_s = self._clock_s()
        began_cpu_s = self._cpu_s()
        ended_s, all_wait = self._share_turn(began_s)
        rest_s = TURN_S if all_wait else self._rest_s(self._cpu_s() - began_cpu_s)
        if rest_s:
            self._loop.remove_reader(self._epoll.fileno())
            self._rest = self._loop.call_later(rest_s, self._end_rest)
        else:
            self._no_longer_busy(ended_s)

    def _rest_s(self, cost_s: float) -> float:
        """Returns how long a rest follows a turn that cost so much; 0 for none."""
        if len(self._flows) == 1 or cost_s < _FULL_TURN_S:
            return 0.0
        over_s = cost_s - TURN_S
        if self._others_commit():
            over_s = max(over_s, TURN_S)
        elif over_s <= TURN_S:
            return 0.0
        return min(over_s, _REST_S_MAX)

    def _end_rest(self) -> None:
        self._rest = None
        self._no_longer_busy(self._clock_s())
        self._loop.add_reader(self._epoll.fileno(), self._turn)

    def _no_longer_busy(self, now_s: float) -> None:
        assert self._busy_since_s is not None
        self._busy_s += now_s - self._busy_since_s
        self._busy_since_s = None

    def _share_turn(self, now_s: float) -> tuple[float, bool]:
        """Reads for the time of a turn from `now_s` on.

        Returns the time at its end, and whether all that was there to be read was postponed.
        """
        schedule = self._schedule
        for descriptor, _ in self._epoll.poll(0, len(self._polled)):
            schedule.wait(self._polled[descriptor])
        end_s = now_s + TURN_S
        last: _Flow | None = None  # that was read
        postponed = 0
        while now_s < end_s and (flow := schedule.next()) is not None:
            if not (flow.ready or self._poll(flow)):
                schedule.leave(flow)
                continue
            if flow.read_s > _COSTLY_READ_S and len(self._flows) > 1:
                if self._must_wait(flow, now_s):
                    schedule.postpone(flow)
                    postponed += 1
                    if postponed >= schedule.waiting:
                        break
                    continue
                if last not in (None, flow):
                    break  # it begins the next turn
            postponed = 0
            last = flow
            flow.postponed_since_s = None
            is_alone = schedule.waiting == 1
            began_s = now_s
            until_s = end_s if is_alone else min(end_s, now_s + schedule.credit_s(flow))
            now_s, worked_bytes = self._read(flow, now_s, until_s)
            schedule.charge(flow, now_s - began_s + worked_bytes / _COMMIT_BYTES_PER_S)
            if is_alone and worked_bytes < READ_BYTES_FIRST:
                break  # to ask whether more is there would cost a system call
        return now_s, postponed > 0 and last is None

    def _must_wait(self, flow: _Flow, now_s: float) -> bool:
        """Whether a flow with costly reads waits for a commit of another one."""
        if not self._others_commit():
            return False
        if flow.postponed_since_s is None:
            flow.postponed_since_s = now_s
        return now_s - flow.postponed_since_s < _POSTPONED_S_MAX

    def _poll(self, flow: _Flow) -> bool:
        """Asks which sockets of `flow` are readable. Returns whether any is."""
        flow.ready.extend(descriptor for descriptor, _ in flow.epoll.poll(0, READS_PER_POLL))
        return bool(flow.ready)

    def _read(self, flow: _Flow, now_s: float, until_s: float) -> tuple[float, int]:
        """Reads sockets of `flow` that are ready, one at least.

        Returns the time, and how many bytes were worked on.
        """
        worked_bytes = 0
        while flow.ready and now_s <= until_s:
            # An earlier read may have closed the socket, and others may be waiting since.
            reader = flow.readers.get(flow.ready.popleft())
            if reader is None:
                continue
            read_bytes = reader.on_readable()
            before_s, now_s = now_s, self._clock_s()
            if read_bytes >= READ_BYTES_MIN:  # a smaller one is cheap, whatever it is
                reader.read_size.adapt(read_bytes, now_s - before_s)
            flow.read_s = max(now_s - before_s, flow.read_s * _READ_COST_KEPT)
            worked_bytes += read_bytes
        return now_s, worked_bytes
