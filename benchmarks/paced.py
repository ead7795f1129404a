"""Many connections that send at a steady pace: `python -m benchmarks.paced LOAD`.

A separate process, with as little code as possible between the clock and the socket, to
measure only the server. LOAD is a `Load` as JSON; prints a `Paced` as JSON. Its own overhead
shows against the null server.
"""

import os
import select
import socket
import subprocess
import sys
import time
from collections import deque
from itertools import cycle

import msgspec

from benchmarks.flood import allow_descriptors
from benchmarks.records import real_looking
from benchmarks.report import percentile

_WARM_UP_S = 1.0  # not measured: all clients have just connected
_PATIENCE_S = 10.0  # for the last acks
_BURST_MAX = 64  # records to send before acks are read
_EVENTS_MAX = 128  # acks to read before records are sent
_TURN_S = 0.001


class Load(msgspec.Struct, frozen=True):
    """A number of connections to one socket, and their total rate in records a second.

    Each connection sends `records_each` at a time, from `blocks` of different records.
    """

    socket: str
    connections: int
    records_per_s: int
    duration_s: float
    records_each: int = 1
    blocks: int = 1


class Paced(msgspec.Struct, frozen=True):
    """The result. What a socket did not accept immediately is held back, and not included.

    Times are per send; `late_p99_ms` is the delay after the due time.
    """

    sent_per_s: float
    held_back: int
    unacked: int
    p50_ms: float
    p99_ms: float
    greatest_ms: float
    late_p99_ms: float
    cpu_share: float


def pace(load: Load) -> Paced:
    """Runs the load generator in a separate process."""
    command = [sys.executable, "-m", "benchmarks.paced", msgspec.json.encode(load).decode()]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return msgspec.json.decode(done.stdout, type=Paced)


def send_paced(load: Load) -> Paced:
    """Sends over all connections in turn, evenly spaced in time, and times each ack."""
    allow_descriptors()
    connections = [_connected(load.socket) for _ in range(load.connections)]
    poll = select.epoll()
    for connection in connections:
        poll.register(connection, select.EPOLLIN)
    # For each connection: when its records without an ack were sent, and how many have one.
    waiting: dict[int, deque[float]] = {one.fileno(): deque() for one in connections}
    acked = dict.fromkeys(waiting, 0)
    in_turn = cycle(waiting.items())
    pieces = cycle(_pieces(load))
    latencies: list[float] = []
    late: list[float] = []
    clock, write, read = time.perf_counter, os.write, os.read
    held_back = due_count = 0
    per_s = load.records_per_s / load.records_each
    total = int(per_s * load.duration_s)
    cpu_before = time.process_time()
    began = give_up = clock()
    measured_from = began + _WARM_UP_S
    while due_count < total or (any(waiting.values()) and clock() < give_up):
        now = clock()
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
        p50_ms=percentile(latencies, 50) * 1000,
        p99_ms=percentile(latencies, 99) * 1000,
        greatest_ms=max(latencies) * 1000,
        late_p99_ms=percentile(late, 99) * 1000,
        cpu_share=(time.process_time() - cpu_before) / took_s,
    )


def _pieces(load: Load) -> list[bytes]:
    """All data, split into what is sent at a time."""
    sample = real_looking(blocks=load.blocks)
    step = sample.record_bytes * load.records_each
    return [
        block[start : start + step]
        for block in sample.blocks
        for start in range(0, len(block) - step + 1, step)
    ]


def _connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    connection.sendall(b'{"_hello":1,"stream":"paced"}\n')
    if not connection.recv(4096).startswith(b'{"welcome"'):
        raise ConnectionError(f"{path}: no welcome")
    connection.setblocking(False)
    return connection


if __name__ == "__main__":
    sys.stdout.buffer.write(
        msgspec.json.encode(send_paced(msgspec.json.decode(sys.argv[1], type=Load)))
    )
