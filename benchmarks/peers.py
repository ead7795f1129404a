"""The daemons that people would take instead, each with its fsync on."""

import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from benchmarks.flood import (
    Contender,
    Flood,
    Running,
    is_listening,
    seconds_until_in_file,
    send_and_wait,
    started,
    timed,
)
from benchmarks.records import RECORDS_PER_BLOCK
from benchmarks.software import environ, modules

_RSYSLOG = """
global(workDirectory="{root}")
module(load="imptcp")
template(name="raw" type="string" string="%rawmsg%\\n")
ruleset(name="file" queue.type="LinkedList" queue.size="100000" queue.dequeueBatchSize="4096") {{
  # It syncs whenever its buffer is full: the default of 4 KiB would be 16 records a sync.
  action(type="omfile" file="{root}/log" template="raw" sync="on" flushOnTXEnd="on"
         ioBufferSize="1m")
}}
input(type="imptcp" path="{root}/socket" ruleset="file")
"""
_SYSLOG_NG = """@version: 3.38
options {{ stats_freq(0); log-fifo-size(200000); }};
source s {{
  unix-stream("{root}/socket" max-connections(256) log-iw-size(100000) log-fetch-limit(1000)
    flags(no-parse));
}};
destination d {{ file("{root}/log" fsync(yes) flush-lines(1000) template("${{MSG}}\\n")); }};
log {{ source(s); destination(d); flags(flow-control); }};
"""


@dataclass
class _IntoFile:
    pid: int
    root: Path

    def take(self, flood: Flood) -> float:
        return seconds_until_in_file(self.root / "socket", self.root / "log", flood)


@dataclass(frozen=True)
class Rsyslog:
    """imptcp into omfile with `sync="on"`. Tells nobody what is safe: its file is looked at."""

    software: Path
    name: str = "rsyslog"
    records_max: int = 10**9
    clients_max: int = 10**9

    @contextmanager
    def running(self, root: Path, wrapper: Sequence[str] = ()) -> Iterator[Running]:
        """Starts it, in the foreground."""
        config = root / "rsyslog.conf"
        config.write_text(_RSYSLOG.format(root=root))
        command = [
            *(*wrapper, str(self.software / "usr/sbin/rsyslogd"), "-n", "-f", str(config)),
            *("-i", str(root / "pid"), "-M", str(modules(self.software, "imptcp.so"))),
        ]
        listening = partial(is_listening, root / "socket")
        with started(command, listening, environ(self.software)) as pid:
            yield _IntoFile(pid, root)


@dataclass(frozen=True)
class SyslogNg:
    """unix-stream into file with `fsync(yes)` and flow control. Tells nobody what is safe."""

    software: Path
    name: str = "syslog-ng"
    records_max: int = 10**9
    clients_max: int = 10**9

    @contextmanager
    def running(self, root: Path, wrapper: Sequence[str] = ()) -> Iterator[Running]:
        """Starts it, in the foreground."""
        config = root / "syslog-ng.conf"
        config.write_text(_SYSLOG_NG.format(root=root))
        command = [
            *(*wrapper, str(self.software / "usr/sbin/syslog-ng"), "-F", "--no-caps"),
            *("-f", str(config), "-R", str(root / "persist"), "-c", str(root / "control")),
            *("-p", str(root / "pid")),
            f"--module-path={modules(self.software, 'libaffile.so')}",
        ]
        listening = partial(is_listening, root / "socket")
        with started(command, listening, environ(self.software)) as pid:
            yield _IntoFile(pid, root)


@dataclass
class _IntoRedis:
    pid: int
    path: Path

    def take(self, flood: Flood) -> float:
        commands = [b"".join(map(_xadd, block.splitlines())) for block in flood.blocks]

        def work() -> None:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(self.path))

                def wait() -> None:
                    # Each reply is a bulk string: its length on a line, and the id on another.
                    missing = 2 * flood.blocks_each * RECORDS_PER_BLOCK
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
    """XADD to a stream, pipelined without end, `appendfsync always`. A reply is an ack."""

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


@dataclass(frozen=True)
class Nats:
    """JetStream with `sync_interval: always`, one publisher that waits for nothing but acks."""

    software: Path
    name: str = "NATS JetStream"
    records_max: int = 10_000
    clients_max: int = 1

    @contextmanager
    def running(self, root: Path, wrapper: Sequence[str] = ()) -> Iterator["IntoNats"]:
        """Starts it on a free port of the loopback."""
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        config = root / "nats.conf"
        config.write_text(
            f'listen: "127.0.0.1:{port}"\n'
            f'jetstream {{ store_dir: "{root}/store", sync_interval: always }}\n'
        )
        command = [*wrapper, str(self.software / "usr/sbin/nats-server"), "-c", str(config)]

        def answers() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        with (
            started(command, answers, environ(self.software)) as pid,
            closing(NatsClient(port)) as client,
        ):
            yield IntoNats(pid, client)


class NatsClient:
    """As much of the NATS protocol as publishing to a stream takes."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")
        self._file.readline()  # INFO
        self.send(b'CONNECT {"verbose":false}\r\nSUB _INBOX.b 1\r\n')
        stream = json.dumps({"name": "bench", "subjects": ["bench"], "storage": "file"}).encode()
        self.send(b"PUB $JS.API.STREAM.CREATE.bench _INBOX.b %d\r\n%s\r\n" % (len(stream), stream))
        answer = self.reply()
        if b'"error"' in answer:
            raise ConnectionError(answer)

    def send(self, data: bytes) -> None:
        """Sends protocol as it is."""
        self._socket.sendall(data)

    def reply(self) -> bytes:
        """The next message that comes."""
        while True:
            line = self._file.readline()
            if line.startswith(b"MSG"):
                return self._file.read(int(line.split()[-1]) + 2)
            if line.startswith(b"PING"):
                self.send(b"PONG\r\n")
            elif not line or line.startswith(b"-ERR"):
                raise ConnectionError(line)

    def close(self) -> None:
        """Ends the connection."""
        self._file.close()
        self._socket.close()


def _publish(record: bytes) -> bytes:
    return b"PUB bench _INBOX.b %d\r\n%s\r\n" % (len(record), record)


@dataclass
class IntoNats:
    """A running server, and a client that is connected to it."""

    pid: int
    client: NatsClient

    def take(self, flood: Flood) -> float:
        commands = [b"".join(map(_publish, block.splitlines())) for block in flood.blocks]

        def wait() -> None:
            for _ in range(flood.total):
                self.client.reply()

        began = time.perf_counter()
        send_and_wait(self.client.send, flood.in_turn(commands), wait)
        return time.perf_counter() - began

    def latencies(self, record: bytes, count: int) -> list[float]:
        """Seconds from a record to its ack, one at a time."""
        command = _publish(record)
        found = []
        for _ in range(count):
            began = time.perf_counter()
            self.client.send(command)
            self.client.reply()
            found.append(time.perf_counter() - began)
        return found


SQLITE_BLOCKS = 4  # of 256 records, in each transaction


@dataclass
class _Transactions:
    path: Path
    pid: int

    def take(self, flood: Flood) -> float:
        rows = [[(line.decode(),) for line in block.splitlines()] for block in flood.blocks]
        with closing(sqlite3.connect(self.path)) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            database.execute("CREATE TABLE IF NOT EXISTS log (record TEXT)")
            began = time.perf_counter()
            blocks = flood.in_turn(rows)
            while transaction := list(islice(blocks, SQLITE_BLOCKS)):
                with database:
                    for block in transaction:
                        database.executemany("INSERT INTO log VALUES (?)", block)
            return time.perf_counter() - began


@dataclass(frozen=True)
class Sqlite:
    """WAL, `synchronous=FULL`, 1,024 records a transaction; a library, with no socket between."""

    name: str = "SQLite, 1,024 a transaction"
    records_max: int = 500_000
    clients_max: int = 1

    @contextmanager
    def running(self, root: Path, wrapper: Sequence[str] = ()) -> Iterator[Running]:
        """Nothing is to be started."""
        yield _Transactions(root / "log.db", os.getpid())


def peers(software: Path) -> list[Contender]:
    """All that can be had here."""
    found: list[Contender] = [Sqlite()]
    wanted: list[tuple[str, Contender]] = [
        ("usr/sbin/rsyslogd", Rsyslog(software)),
        ("usr/sbin/syslog-ng", SyslogNg(software)),
        ("usr/bin/redis-server", Redis(software)),
        ("usr/sbin/nats-server", Nats(software)),
    ]
    found += [peer for program, peer in wanted if (software / program).exists()]
    return found
