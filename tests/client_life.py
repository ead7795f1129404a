"""The life of a producer's processes, one after the other, against a daemon that is a model.

Everything that happens is drawn from a seed: what is taken, sent, committed, acknowledged,
spilled, when a connection is lost and when a process ends. What is asked of it: records are
stored in order, none twice, and none is missing that a process was told to be safe.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from logengine.client.delivery import Delivery
from logengine.client.settings import Settings
from logengine.client.spool import Spool

STREAM = "s"
PRODUCER = "p"
_PROCESS_IDS = 100_000


@dataclass
class ModelDaemon:
    """What `docs/protocol.md` says of the daemon, for one producer."""

    stored: list[int] = field(default_factory=list)  # the records' ids
    known: int = 0  # the number of the last durable one
    delivered: list[int] = field(default_factory=list)  # of this connection, not committed
    connected: bool = False

    def hello(self, line: bytes, source: random.Random) -> bytes:
        """Answers a hello; what an older connection had delivered is committed or dropped."""
        self.disconnect(source)
        self.connected = True
        self.known = max(self.known, json.loads(line).get("first", 1) - 1)
        return b'{"welcome":1,"next":%d,"max_record":1000}\n' % (self.known + 1)

    def deliver(self, lines: bytes) -> None:
        """Takes lines from the connection."""
        assert self.connected
        self.delivered += [json.loads(line)["id"] for line in lines.splitlines()]

    def commit(self, count: int) -> bytes:
        """Makes the first `count` of what was delivered durable; gives the ack for it."""
        done, self.delivered = self.delivered[:count], self.delivered[count:]
        self.stored += done
        self.known += len(done)
        return b'{"ack":%d}\n' % self.known

    def disconnect(self, source: random.Random) -> None:
        """The connection is gone: of what it delivered, the first part may be durable."""
        self.commit(source.randint(0, len(self.delivered)))
        self.delivered = []
        self.connected = False


@dataclass
class World:
    """What outlives a process: the daemon, and what was promised to the application."""

    daemon: ModelDaemon = field(default_factory=ModelDaemon)
    safe: set[int] = field(default_factory=set)  # ids that may not be missing
    processes: int = 0
    told: list[str] = field(default_factory=list)  # by the spool: nobody takes anything from it

    def violations(self, *, numbered: bool) -> list[str]:
        """What is wrong once everything was sent."""
        stored = self.daemon.stored
        found = [f"told: {line}" for line in self.told if "were removed from" in line]
        if stored != sorted(set(stored)):
            found.append(f"not in order, or twice: {stored}")
        if missing := sorted(self.safe - set(stored)):
            found.append(f"missing: {missing} of {stored}")
        if numbered and stored != list(range(1, len(stored) + 1)):
            found.append(f"not 1, 2, …: {stored}")
        return found


class Life:
    """One process. `note` is told of the world whenever it changed for good.

    A `numbered` application numbers its records 1, 2, … and begins behind `resumed_at`;
    any other takes records at once, whether a daemon was there or not.
    """

    def __init__(
        self,
        root: Path,
        world: World,
        source: random.Random,
        *,
        numbered: bool,
        note: Callable[[World], None] = lambda _: None,
    ) -> None:
        self._world = world
        self._daemon = world.daemon
        self._source = source
        self._numbered = numbered
        self._note = note
        world.processes += 1
        self._next_id = world.processes * _PROCESS_IDS
        settings = Settings(
            stream=STREAM,
            socket=root / "socket",
            producer=PRODUCER,
            on_full="block",
            spool=root / "spool",
            max_records=20,
            max_bytes=400,
            max_spool_bytes=10_000_000,
        )
        self._spool = Spool.open(root / "spool", STREAM, PRODUCER, tell_damage=world.told.append)
        self.delivery = Delivery(settings, PRODUCER, self._spool)
        self._ids: dict[int, int] = {}  # by place
        self._is_resumed = False

    def live(self, actions: int) -> None:
        """So many things happen."""
        for _ in range(actions):
            action = self._source.choices(
                [self._take, self._connect, self._pump, self._commit, self._lose, self._press],
                [40, 5, 20, 15, 3, 3],
            )[0]
            action()

    def finish(self) -> None:
        """The daemon is there, everything goes through, and the process ends well."""
        self._connect()
        while self.delivery.outbox.pending:
            self._pump()
            self._commit()
        self._steps()
        self._end()

    def leave(self) -> None:
        """The process ends in good order, whether the daemon is there or not."""
        if self._daemon.connected:
            self._lose()
        self.delivery.is_closing = True
        self._steps()
        self._end()

    def _end(self) -> None:
        self.delivery.end()
        self._daemon.disconnect(self._source)
        self._note(self._world)

    def _take(self) -> None:
        if self._numbered and not self._is_resumed:
            return
        place = self.delivery.outbox.try_take(b'{"id":%d}\n' % self._next_id)
        if place:
            self._ids[place] = self._next_id
            self._next_id += 1

    def _connect(self) -> None:
        if self.delivery.is_welcomed:
            return
        welcome = self._daemon.hello(self.delivery.connected(), self._source)
        self._note(self._world)
        self.delivery.received(welcome)
        self._told()
        if self._numbered and not self._is_resumed:
            self._is_resumed = True
            self._next_id = self.delivery.resumed_at + 1

    def _pump(self) -> None:
        self._steps()
        while output := self.delivery.next_output():
            self._daemon.deliver(output)
            self._note(self._world)
            self._steps()

    def _commit(self) -> None:
        if not self._daemon.connected:
            return
        ack = self._daemon.commit(self._source.randint(0, len(self._daemon.delivered)))
        self._note(self._world)
        if self._source.random() < 0.8:  # else it is still on its way, and the next tells
            self.delivery.received(ack)
            self._told()

    def _lose(self) -> None:
        if self._daemon.connected:
            self._daemon.disconnect(self._source)
            self._note(self._world)
            self.delivery.lost("it went")

    def _press(self) -> None:
        self.delivery.is_pressed = True
        self._steps()

    def _steps(self) -> None:
        while (step := self.delivery.next_step()) is not None:
            try:
                done = step.run()
            except OSError as error:
                self.delivery.spool_failed(step, error)
            else:
                self.delivery.spool_done(step, done)
            self._told()
        if self._source.random() < 0.5:
            self.delivery.try_spool_again()

    def _told(self) -> None:
        """What the application may rely on now: what is acked, and what is in the spool."""
        safe = {id_ for place, id_ in self._ids.items() if place <= self.delivery.outbox.spooled}
        if not safe <= self._world.safe:
            self._world.safe |= safe
            self._note(self._world)


def last_life(root: Path, world: World, source: random.Random, *, numbered: bool) -> Any:
    """Whatever happened before, one more process brings everything to the daemon."""
    Life(root, world, source, numbered=numbered).finish()
    return world.violations(numbered=numbered)
