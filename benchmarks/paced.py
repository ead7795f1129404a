"""Many connections that send at a steady pace: `python -m benchmarks.paced TARGET LOAD`.

A separate process, with as little code as possible between the clock and the socket, to
measure only the server. TARGET is a `Target` and LOAD a `Load`, as JSON. Prints an empty line when
everything is warm, and a `Paced` as JSON in the end. Its own overhead shows against the null
server.
"""

import os
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import cycle
from pathlib import Path
from typing import Protocol

import msgspec

from benchmarks.flood import Contender, Running, allow_descriptors
from benchmarks.records import RECORD_BYTES, real_looking
from benchmarks.report import percentile

_PATIENCE_S = 10.0  # for the last acks
_BURST_MAX = 64  # records to send before acks are read
_EVENTS_MAX = 128  # acks to read before records are sent
_TURN_S = 0.001


class Target(msgspec.Struct, frozen=True):
    """Where records are sent to, and what each connection sends first.

    One that acknowledges answers the opening with a welcome, and records with acks. The hello is
    that of the library's clients, which ask for a commit where they wait. Without `flush`, the
    daemon would take each new connection for a sender that waits, and commit its first record at
    once.
    """

    socket: str
    opening: str = '{"_hello":1,"stream":"paced","flush":true}\n'
    acknowledges: bool = True


class Load(msgspec.Struct, frozen=True):
    """A number of connections, and their total rate in records a second.

    Each connection sends `records_each` at a time, from `blocks` of different records. What is
    sent in the first `warm_up_s` is not measured: all clients have just connected.
    """

    connections: int
    records_per_s: int
    duration_s: float
    records_each: int = 1
    blocks: int = 1
    record_bytes: int = RECORD_BYTES
    warm_up_s: float = 1.0

    @property
    def sends(self) -> int:
        """How often something is sent."""
        return int(self.records_per_s / self.records_each * self.duration_s)

    @property
    def records(self) -> int:
        """How many records are sent, if the sockets accept all."""
        return self.sends * self.records_each

    @property
    def measured_s(self) -> float:
        """For how long is sent after the warm-up."""
        return self.duration_s - self.warm_up_s


class Paced(msgspec.Struct, frozen=True):
    """The result. What a socket did not accept immediately is held back, and not included.

    Times are per send; `late_p99_ms` is the delay after the due time. Those of acks are 0 if the
    target sends none.
    """

    sent_per_s: float
    held_back: int
    unacked: int
    p50_ms: float
    p99_ms: float
    greatest_ms: float
    late_p99_ms: float
    cpu_share: float


def unheard() -> None:
    """Ignores that everything is warm."""


class PacedRunning(Running, Protocol):
    """A running contender that can be sent to at a steady pace."""

    def pace(self, load: Load, warm: Callable[[], None] = unheard) -> Paced:
        """Sends until every record is stored, as far as this one reports it."""
        ...


class PacedContender(Contender, Protocol):
    """One that can be sent to at a steady pace."""

    def running(
        self, root: Path, wrapper: Sequence[str] = ()
    ) -> AbstractContextManager[PacedRunning]:
        """Starts it on an empty directory, with `wrapper` before its command."""
        ...


def pace(
    load: Load, target: Target, warm: Callable[[], None] = unheard, wrapper: Sequence[str] = ()
) -> Paced:
    """Runs the load generator in a separate process, with `wrapper` before its command.

    Calls `warm` when its warm-up is over, if that comes before the end.
    """
    arguments = [msgspec.json.encode(one).decode() for one in (target, load)]
    command = [*wrapper, sys.executable, "-m", "benchmarks.paced", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as generator:
        assert generator.stdout is not None
        printed = generator.stdout.readline()
        if printed == b"\n":
            warm()
            printed = generator.stdout.read()
    if generator.returncode:
        raise subprocess.CalledProcessError(generator.returncode, command)
    return msgspec.json.decode(printed, type=Paced)


def send_paced(load: Load, target: Target, warm: Callable[[], None] = unheard) -> Paced:
    """Sends over all connections in turn, evenly spaced in time, and times each ack.

    Calls `warm` when the warm-up is over.
    """
    allow_descriptors()
    poll = select.epoll()
    connections = [_connected(target, poll) for _ in range(load.connections)]
    # For each connection: when its records without an ack were sent, and how many have one.
    # Without acks there is nothing to note.
    waiting_max = None if target.acknowledges else 0
    waiting: dict[int, deque[float]] = {
        one.fileno(): deque(maxlen=waiting_max) for one in connections
    }
    acked = dict.fromkeys(waiting, 0)
    in_turn = cycle(waiting.items())
    pieces = cycle(_pieces(load))
    latencies: list[float] = []
    late: list[float] = []
    clock, write, read = time.perf_counter, os.write, os.read
    held_back = due_count = 0
    per_s = load.records_per_s / load.records_each
    total = load.sends
    cpu_before = time.process_time()
    began = give_up = clock()
    measured_from = began + load.warm_up_s
    is_warm = False
    while due_count < total or (any(waiting.values()) and clock() < give_up):
        now = clock()
        if not is_warm and now >= measured_from:
            warm()
            is_warm = True
        owed = min(total, int((now - began) * per_s) + 1) - due_count
        if owed > 0:
            late.append(now - began - due_count / per_s)
            burst = min(owed, _BURST_MAX)
            for descriptor, times in (next(in_turn) for _ in range(burst)):
                piece = next(pieces)
                try:
                    written = write(descriptor, piece)
                except BlockingIOError:
                    held_back += 1
                else:
                    assert written == len(piece)  # one buffer of the socket's, whole or not at all
                    times.append(clock())
            due_count += burst
            owed -= burst
            give_up = clock() + _PATIENCE_S
        for descriptor, _ in poll.poll(0 if owed > 0 else _TURN_S, _EVENTS_MAX):
            answer = read(descriptor, 4096)
            now = clock()
            number = int(answer[answer.rindex(b":") + 1 : -2]) // load.records_each
            times = waiting[descriptor]
            for _ in range(number - acked[descriptor]):
                sent = times.popleft()
                if sent >= measured_from:
                    latencies.append(now - sent)
            acked[descriptor] = number
    took_s = clock() - began
    return Paced(
        sent_per_s=(total - held_back) * load.records_each / max(took_s, load.duration_s),
        held_back=held_back * load.records_each,
        unacked=sum(map(len, waiting.values())) * load.records_each,
        p50_ms=_percentile_ms(latencies, 50),
        p99_ms=_percentile_ms(latencies, 99),
        greatest_ms=max(latencies, default=0.0) * 1000,
        late_p99_ms=_percentile_ms(late, 99),
        cpu_share=(time.process_time() - cpu_before) / took_s,
    )


def _percentile_ms(values_s: Sequence[float], percent: float) -> float:
    return percentile(values_s, percent) * 1000 if values_s else 0.0


def _pieces(load: Load) -> list[bytes]:
    """All data, split into what is sent at a time."""
    sample = real_looking(load.record_bytes, load.blocks)
    step = sample.record_bytes * load.records_each
    return [
        block[start : start + step]
        for block in sample.blocks
        for start in range(0, len(block) - step + 1, step)
    ]


def _connected(target: Target, poll: select.epoll) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(target.socket)
    connection.sendall(target.opening.encode())
    if target.acknowledges and not connection.recv(4096).startswith(b'{"welcome"'):
        raise ConnectionError(f"{target.socket}: no welcome")
    connection.setblocking(False)
    # One that sends nothing may have closed its side, as journald does.
    poll.register(connection, select.EPOLLIN if target.acknowledges else 0)
    return connection


def _say_warm() -> None:
    print(flush=True)


if __name__ == "__main__":
    print(
        msgspec.json.encode(
            send_paced(
                msgspec.json.decode(sys.argv[2], type=Load),
                msgspec.json.decode(sys.argv[1], type=Target),
                _say_warm,
            )
        ).decode()
    )
