"""Redis Streams, `appendfsync always`."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.flood import (
    Flood,
    Running,
    Seen,
    is_listening,
    send_and_wait,
    started,
    timed,
    unseen,
)
from benchmarks.software import environ


@dataclass
class _IntoRedis:
    pid: int
    path: Path

    def take(self, flood: Flood, seen: Seen = unseen) -> float:
        commands = [b"".join(map(_xadd, block.splitlines())) for block in flood.sample.blocks]

        def work() -> None:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(self.path))

                def wait() -> None:
                    # Each reply is a bulk string: its length on a line, and the id on another.
                    missing = 2 * flood.records_each
                    while missing:
                        received = connection.recv(262144)
                        if not received or received[:1] == b"-":
                            raise ConnectionError(received[:100])
                        missing -= received.count(b"\n")

                send_and_wait(connection.sendall, flood.in_turn(commands), wait)

        return timed(work, flood.clients)


def _xadd(record: bytes) -> bytes:
    return b"*5\r\n$4\r\nXADD\r\n$1\r\ns\r\n$1\r\n*\r\n$1\r\nr\r\n$%d\r\n%s\r\n" % (
        len(record),
        record,
    )


@dataclass(frozen=True)
class Redis:
    """XADD to a stream, pipelined without limit, `appendfsync always`. A reply is an ack."""

    software: Path
    name: str = "Redis Streams, pipelined"
    records_max: int = 500_000
    clients_max: int = 10**9

    @contextmanager
    def running(self, root: Path, wrapper: Sequence[str] = ()) -> Iterator[Running]:
        """Starts it without snapshots."""
        path = root / "socket"
        command = [
            *(*wrapper, str(self.software / "usr/bin/redis-server"), "--port", "0"),
            *("--unixsocket", str(path), "--dir", str(root), "--save", ""),
            *("--appendonly", "yes", "--appendfsync", "always", "--daemonize", "no"),
            *("--auto-aof-rewrite-percentage", "0"),
        ]
        with started(command, partial(is_listening, path), environ(self.software)) as pid:
            yield _IntoRedis(pid, path)
