"""Producers that send to a real daemon without end, and keep what it promised them."""

import contextlib
import random
import threading
from pathlib import Path

from logengine.upkeep.verify import verify_stream
from tests.crash.rig.oracle import Durable, Promises, Sent, look_at, record_line
from tests.crash.rig.oracle import Producer as ProducerName
from tests.daemon import Producer

_BURSTS = (1, 1, 2, 10, 40)
_SIZES = (0, 50, 400, 3000)


class Load:
    """One thread for each producer, from `start` until the daemon is gone, and again.

    `promises` holds over all that was started; `broken` is what the daemon itself said
    wrong, such as a welcome that takes back an ack.
    """

    def __init__(self, names: list[ProducerName], source: random.Random) -> None:
        self.promises = Promises()
        self.broken: list[str] = []
        self._names = names
        self._source = source
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    @property
    def acked(self) -> int:
        """How many records are promised to be durable."""
        return sum(self.promises.durable.values())

    def violations(self, data: Path) -> list[str]:
        """What is in `data` that is not as promised, or damaged; and what the daemon said wrong."""
        found = [
            str(finding)
            for directory in data.glob("*/")
            for finding in verify_stream(directory)
            if not finding.harmless
        ]
        return self.broken + self.promises.broken_by(look_at(data)) + found

    def start(self, socket: Path) -> None:
        """Connects all producers and lets them send."""
        for name in self._names:
            source = random.Random(self._source.random())
            thread = threading.Thread(target=self._send, args=(socket, name, source), daemon=True)
            self._threads.append(thread)
            thread.start()

    def join(self) -> None:
        """Waits until all of them have seen that the daemon is gone."""
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
        self._threads.clear()

    def _send(self, socket: Path, name: ProducerName, source: random.Random) -> None:
        with contextlib.suppress(OSError), contextlib.closing(Producer(socket)) as connection:
            self._send_on(connection, name, source)

    def _send_on(self, connection: Producer, name: ProducerName, source: random.Random) -> None:
        welcome = connection.hello(stream=name[0], producer=name[1])
        if "next" not in welcome:
            return
        sent = acked = welcome["next"] - 1
        promised = self.promises.durable.get(name, 0)
        if acked < promised:
            self.broken.append(f"{name}: welcomed at {acked + 1} after an ack of {promised}")
        self._note(Durable(name, acked))
        while True:
            numbers = range(sent + 1, sent + 1 + source.choice(_BURSTS))
            sent = numbers[-1]
            for number in numbers:
                self._note(Sent(name, number))
            size = source.choice(_SIZES)
            connection.send(b"".join(record_line(name[1], n, size) + b"\n" for n in numbers))
            while acked < sent and (acked == 0 or source.random() < 0.8):
                answer = connection.answer()
                if "ack" not in answer:
                    return
                acked = answer["ack"]
                self._note(Durable(name, acked))

    def _note(self, event: object) -> None:
        with self._lock:
            self.promises.take(event)
