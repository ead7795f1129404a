"""NATS JetStream, `sync_interval: always`."""

import json
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.flood import Flood, Seen, send_and_wait, started, unseen
from benchmarks.software import environ


@dataclass(frozen=True)
class Nats:
    """JetStream with `sync_interval: always`, one publisher that waits only for acks."""

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
    """As much of the NATS protocol as publishing to a stream needs."""

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
        """Sends raw protocol bytes."""
        self._socket.sendall(data)

    def reply(self) -> bytes:
        """The next message that arrives."""
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
    """A running server, and a connected client."""

    pid: int
    client: NatsClient

    def take(self, flood: Flood, seen: Seen = unseen) -> float:
        commands = [b"".join(map(_publish, block.splitlines())) for block in flood.sample.blocks]

        def wait() -> None:
            for _ in range(flood.total):
                self.client.reply()

        began = time.perf_counter()
        send_and_wait(self.client.send, flood.in_turn(commands), wait)
        return time.perf_counter() - began

    def turn_s(self, record: bytes) -> float:
        """Seconds from a record to its ack."""
        began = time.perf_counter()
        self.client.send(_publish(record))
        self.client.reply()
        return time.perf_counter() - began
