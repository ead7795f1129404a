"""Records of one socket that go to several streams, in the test's own process."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from logengine.format.record import Peer
from logengine.intake.chunks import QUEUED_MAX
from logengine.intake.listeners import bind_listener
from logengine.intake.quota import QuotaConfig, Quotas
from logengine.intake.routes import Routes, route
from logengine.protocols.forward import PROTOCOL as FORWARD
from logengine.protocols.status import TotalsStatus
from logengine.protocols.syslog import PROTOCOL as SYSLOG
from logengine.protocols.wire import Transport, WireProtocol
from logengine.units import Duration, RecordsPerSecond
from tests.server.test_chunks import Acks
from tests.server.test_server import PATIENCE_S, Client, Served, serving

BY_APP = Routes([route("level = error", "errors", UTC), route(None, "{app}", UTC)], UTC)
BY_TAG = Routes([route(None, "{tag}", UTC)], UTC)


def message(app: str, number: int, severity: int = 6) -> bytes:
    return b'<%d>%s: {"n":%d}\n' % (8 + severity, app.encode(), number)


def chunk(name: str, tag: str, *numbers: int) -> bytes:
    return msgspec.json.encode([tag, [[1, {"n": number}] for number in numbers], {"chunk": name}])


class Routing:
    """A server with one more socket, whose records are routed."""

    def __init__(
        self,
        served: Served,
        path: Path,
        routes: Routes,
        protocol: WireProtocol,
        kind: Transport,
        *,
        drops: bool,
    ) -> None:
        self.served = served
        self.path = path
        self.listener = bind_listener(path, 0o666, kind)
        served.server.listen(self.listener, "rest", protocol, kind, routes=routes, drops=drops)
        self._senders: list[socket.socket] = []

    async def connect(self) -> Client:
        connection = socket.socket(socket.AF_UNIX)
        connection.setblocking(False)
        self._senders.append(connection)
        await asyncio.get_running_loop().sock_connect(connection, os.fspath(self.path))
        return Client(connection)

    def datagrams(self) -> socket.socket:
        sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sender.setblocking(False)
        self._senders.append(sender)
        sender.connect(os.fspath(self.path))
        return sender

    def close(self) -> None:
        for each in self._senders:
            each.close()

    async def has(self, **numbers: list[int]) -> None:
        await self.served.until(
            lambda: {name: self.served.numbers(name) for name in numbers} == numbers
        )

    @property
    def streams(self) -> list[str]:
        return sorted(each.name for each in self.served.data.iterdir() if each.name[0] != ".")

    def fallback_records(self) -> int:
        return self.totals().fallback_records

    def totals(self) -> TotalsStatus:
        status = self.served.server._status(Peer(uid=os.geteuid()))
        assert status is not None
        return status.totals


@asynccontextmanager
async def routing(
    root: Path,
    routes: Routes = BY_APP,
    protocol: WireProtocol = SYSLOG,
    kind: Transport = "stream",
    quotas: Quotas | None = None,
    *,
    drops: bool = False,
    **limits: Any,
) -> AsyncIterator[Routing]:
    async with serving(root, limits, quotas) as served, asyncio.timeout(PATIENCE_S):
        there = Routing(served, root / "routed", routes, protocol, kind, drops=drops)
        try:
            yield there
        finally:
            there.close()


async def test_each_record_goes_to_the_stream_that_it_names_in_order(root: Path) -> None:
    async with routing(root) as there:
        client = await there.connect()
        await client.send(message("Web", 1) + message("db", 2) + message("web", 3))
        await client.send(b'<14>{"n":4}\n' + message("db", 5, severity=3) + message("web", 6))
        await there.has(web=[1, 3, 6], db=[2], errors=[5], rest=[4])


async def test_each_datagram_goes_to_the_stream_that_it_names(root: Path) -> None:
    async with routing(root, kind="datagram") as there:
        sender = there.datagrams()
        for number, app in enumerate(("a", "b", "a", "../b", "/"), 1):
            sender.send(message(app, number))
        await there.has(a=[1, 3], b=[2, 4], rest=[5])
        assert set(there.streams) == {"a", "b", "rest"}


async def test_a_connection_ends_when_the_records_of_all_its_streams_are_on_disk(
    root: Path,
) -> None:
    async with routing(root, linger=0) as there:
        first = await there.connect()
        await first.send(message("bad", 1) + message("good", 1))
        await there.has(bad=[1], good=[1])
        there.served.disk.failing = "bad"
        await first.send(message("bad", 2) + message("good", 2) + message("good", 3))
        await there.has(good=[1, 2, 3])
        first.half_close()
        assert await first.says_nothing()  # the other one is not on disk
        there.served.disk.failing = ""
        assert await first.rest() == []
        await there.has(bad=[1, 2])


async def test_a_failing_stream_stops_others_of_its_socket_only_once_it_is_full(
    root: Path,
) -> None:
    sizes: dict[str, Any] = {"max_record": 1024, "max_pending_stream": 4096, "max_pending": 65536}
    async with routing(root, kind="datagram", **sizes) as there:
        sender = there.datagrams()
        sender.send(message("bad", 0))
        await there.has(bad=[0])
        there.served.disk.failing = "bad"
        sender.send(message("bad", 1))
        await there.served.until(there.served.committer.failing)
        sender.send(message("good", 1))
        await there.has(good=[1])
        padding = b"x" * 500
        number = 1
        while there.served.committer.bytes_waiting("bad") < 4096:
            number += 1
            sender.send(b'<14>bad: {"n":%d,"p":"%s"}' % (number, padding))
            await there.served.until(
                lambda: there.served.server.arrivals.datagrams == number + 2  # noqa: B023
            )
        sender.send(message("good", 2))
        await there.served.until(lambda: there.served.server.admission.paused)
        assert there.served.numbers("good") == [1]
        there.served.disk.failing = ""
        await there.has(good=[1, 2], bad=list(range(number + 1)))


async def test_of_a_socket_that_drops_only_what_is_for_a_full_stream_is_dropped(
    root: Path,
) -> None:
    small: dict[str, Any] = {"max_record": 1024, "max_pending_stream": 4096}
    async with routing(root, kind="datagram", drops=True, **small) as there:
        sender = there.datagrams()

        async def send(app: str, number: int) -> None:
            await asyncio.get_running_loop().sock_sendall(sender, message(app, number))

        await send("bad", 0)
        await there.has(bad=[0])
        there.served.disk.failing = "/bad"
        sent = 1
        while not there.totals().dropped_datagrams:
            await send("bad", sent)
            sent += 1
        for number in range(20):  # one by one: no stream has room for many
            await send("good", number)
            await there.has(good=list(range(number + 1)))
        there.served.disk.failing = ""
        dropped = there.totals().dropped_datagrams
        await there.served.until(lambda: len(there.served.numbers("bad")) == sent - dropped)
        assert there.totals().datagrams == 20 + sent - dropped
        await there.served.until(lambda: not there.served.server.admission.pending_bytes)
        await send("bad", sent)
        await there.served.until(lambda: there.served.numbers("bad")[-1] == sent)


async def test_a_socket_that_drops_does_so_if_the_fallback_is_full_of_names_beyond_max_streams(
    root: Path,
) -> None:
    small: dict[str, Any] = {"max_record": 1024, "max_pending_stream": 4096, "max_streams": 1}
    small |= {"reserved_percent": 0, "uid_percent": 100}
    async with routing(root, kind="datagram", drops=True, **small) as there:
        sender = there.datagrams()
        sender.send(message("app", 0))
        sender.send(message("other", 0))
        await there.has(app=[0], rest=[0])
        there.served.disk.failing = "/rest"
        for number in range(1, 101):
            sender.send(message("other", number))
            await there.served.until(
                lambda: there.totals().datagrams + there.totals().dropped_datagrams == number + 2  # noqa: B023
            )
        assert there.served.committer.bytes_waiting("rest") < 4096 + 1024
        for number in range(1, 21):
            sender.send(message("app", number))
            await there.has(app=list(range(number + 1)))
        there.served.disk.failing = ""
        kept = 101 - there.totals().dropped_datagrams
        await there.has(rest=list(range(kept)))


async def test_names_beyond_max_streams_share_the_fallback_and_are_counted(root: Path) -> None:
    with capture_logs() as logs:
        async with routing(root, max_streams=3, reserved_percent=0, uid_percent=100) as there:
            client = await there.connect()
            for number in range(1, 11):
                await client.send(message(f"app{number}", number))
            await there.has(app1=[1], app2=[2], app3=[3], rest=list(range(4, 11)))
            assert there.fallback_records() == 7
            await client.send(
                message("app4", 11)
                + message("app1", 12)
                + message("app5", 13)
                + message("app4", 14)
            )
            await there.has(app1=[1, 12], rest=[*range(4, 11), 11, 13, 14])
            assert there.fallback_records() == 10
            assert set(there.streams) == {"app1", "app2", "app3", "rest"}
    told = [each for each in logs if each["event"] == "too_many_streams"]
    assert told[0]["wanted"] == "app4"
    assert {each["stream"] for each in told} == {"rest"}


async def test_a_name_whose_records_are_all_dropped_is_free_again(root: Path) -> None:
    one = QuotaConfig(records_per_s=RecordsPerSecond(1), burst=Duration(1), over="drop")
    async with routing(root, quotas=Quotas(QuotaConfig(), one, {}, {})) as there:
        client = await there.connect()
        await client.send(message("kept", 1) + message("dropped", 2))
        await there.has(kept=[1])
        there.served.server.room()
        names = there.served.server._stream_names
        assert set(names._owners) == {"kept"}
        assert set(there.streams) == {"kept"}


async def test_names_that_become_one_are_reported_once(root: Path) -> None:
    with capture_logs() as logs:
        async with routing(root) as there:
            client = await there.connect()
            for number, app in enumerate(("cron", "CRON", "Cron", "cron", "other"), 1):
                await client.send(message(app, number))
            await there.has(cron=[1, 2, 3, 4], other=[5])
    told = [each for each in logs if each["event"] == "stream_of_several_names"]
    assert [(each["stream"], each["names"]) for each in told] == [("cron", ["cron", "CRON"])]


async def test_stopping_commits_what_was_sent_to_all_streams(root: Path) -> None:
    async with routing(root, linger=10) as there:
        client = await there.connect()
        await client.send(b"".join(message(f"app{n % 3}", n) for n in range(300)))
        await there.served.server.stop()
        for app in range(3):
            assert there.served.numbers(f"app{app}") == list(range(app, 300, 3))


async def test_a_record_that_is_too_large_ends_nothing(root: Path) -> None:
    async with routing(root, routes=BY_TAG, protocol=FORWARD, max_record=200) as there:
        client = await there.connect()
        large = ["a", [[1, {"n": 0, "p": "x" * 500}], [1, {"n": 1}]]]
        await client.send(msgspec.json.encode(large))
        await client.send(chunk("c", "b", 2))
        assert await Acks(client).next() == ["c"]
        await there.has(a=[1], b=[2])
        client.half_close()
        assert await client.rest() == []


# Chunks


async def test_a_chunk_goes_whole_to_the_stream_of_its_tag_and_is_stored_there_once(
    root: Path,
) -> None:
    async with routing(root, BY_TAG, FORWARD) as there:
        client = await there.connect()
        acks = Acks(client)
        await client.send(chunk("one", "App.Web", 1, 2) + chunk("two", "db", 3))
        assert sorted(await acks.next(2)) == ["one", "two"]
        await client.send(chunk("one", "App.Web", 1, 2) + chunk("three", "db", 4))
        assert sorted(await acks.next(2)) == ["one", "three"]
        other = await there.connect()
        await other.send(chunk("two", "db", 3) + msgspec.json.encode(["", [], {"chunk": "none"}]))
        assert sorted(await Acks(other).next(2)) == ["none", "two"]
        assert there.served.numbers("app.web") == [1, 2]
        assert there.served.numbers("db") == [3, 4]


async def test_a_chunk_is_acknowledged_once_its_own_stream_is_on_disk(root: Path) -> None:
    async with routing(root, BY_TAG, FORWARD) as there:
        client = await there.connect()
        acks = Acks(client)
        await client.send(chunk("a", "bad", 0) + chunk("b", "good", 0))
        await acks.next(2)
        there.served.disk.failing = "bad"
        await client.send(chunk("one", "bad", 1) + chunk("two", "good", 1))
        assert await acks.next() == ["two"]
        await client.send(chunk("one", "bad", 1) + chunk("two", "good", 1))
        assert await acks.next() == ["two"]
        client.half_close()
        assert await client.says_nothing()
        there.served.disk.failing = ""
        assert await acks.next(2) == ["one", "one"]
        assert await client.rest() == []
        assert there.served.numbers("bad") == there.served.numbers("good") == [0, 1]


async def test_a_fallback_that_fails_holds_up_no_chunk_of_another_stream(root: Path) -> None:
    async with routing(root, BY_TAG, FORWARD) as there:
        client = await there.connect()
        await client.send(chunk("a", "...", 0) + chunk("b", "good", 0))
        await Acks(client).next(2)
        there.served.disk.failing = "rest"
        # As many of the fallback's as are queued at a time, and more.
        await client.send(b"".join(chunk(f"f{n}", "...", n) for n in range(1, QUEUED_MAX + 9)))
        await there.served.until(lambda: there.served.server.admission.pending_bytes > 0)
        other = await there.connect()
        await other.send(chunk("c", "good", 1) + chunk("c", "good", 1))
        assert await Acks(other).next(2) == ["c", "c"]
        assert there.served.numbers("good") == [0, 1]
        there.served.disk.failing = ""
        await Acks(client).next(QUEUED_MAX + 8)
        assert there.served.numbers("rest") == list(range(QUEUED_MAX + 9))


async def test_a_chunk_of_the_fallback_is_known_there_once_there_is_room_for_its_stream(
    root: Path,
) -> None:
    few: dict[str, Any] = {"reserved_percent": 0, "uid_percent": 100}
    async with routing(root, BY_TAG, FORWARD, max_streams=1, **few) as there:
        client = await there.connect()
        acks = Acks(client)
        await client.send(chunk("one", "a", 1) + chunk("two", "b", 2))
        assert sorted(await acks.next(2)) == ["one", "two"]
        assert there.served.numbers("rest") == [2]
    async with routing(root, BY_TAG, FORWARD, max_streams=9, **few) as there:
        client = await there.connect()
        await client.send(chunk("two", "b", 2) + chunk("three", "b", 3))
        assert sorted(await Acks(client).next(2)) == ["three", "two"]
        assert there.served.numbers("rest") == [2]
        assert there.served.numbers("b") == [3]


async def test_many_new_streams_of_chunks_take_turns_within_max_streams(root: Path) -> None:
    few: dict[str, Any] = {"reserved_percent": 0, "uid_percent": 100, "max_streams": 5}
    async with routing(root, BY_TAG, FORWARD, **few) as there:
        client = await there.connect()
        names = [f"c{number}" for number in range(40)]
        await client.send(b"".join(chunk(name, f"tag-{n}", n) for n, name in enumerate(names)))
        assert sorted(await Acks(client).next(40)) == sorted(names)
        stored = [n for stream in there.streams for n in there.served.numbers(stream)]
        assert sorted(stored) == list(range(40))
        assert there.fallback_records() == 35


@pytest.mark.parametrize("kind", ["stream", "datagram"])
async def test_records_without_a_name_do_not_make_a_stream(root: Path, kind: Transport) -> None:
    routes = Routes([route(None, "x-{missing}", UTC)], UTC)
    async with routing(root, routes, kind=kind) as there:
        if kind == "stream":
            await (await there.connect()).send(message("a", 1))
        else:
            there.datagrams().send(message("a", 1))
        await there.has(rest=[1])
        assert there.streams == ["rest"]
        assert json.loads(json.dumps(there.served.values("rest")))[0]["app"] == "a"
