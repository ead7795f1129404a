"""The server in the test's own process, on both event loops, with the disk under control.

`test_protocol` asks a real daemon what it answers. Here the disk can be held or made to
fail at any moment, so that it shows what an answer waits for, and limits are small.
"""

import array
import asyncio
import contextlib
import errno
import gc
import json
import os
import resource
import socket
import stat
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import pytest
import uvloop
from msgspec import structs

from logengine.disk.segment_file import list_segments, read_segment
from logengine.errors import ConfigError
from logengine.intake import waiting_room
from logengine.intake.context import RECEIVE_BYTES
from logengine.intake.listeners import bind_listener
from logengine.intake.quota import Admitted, QuotaConfig, Quotas, QuotasConfig
from logengine.intake.server import Server
from logengine.protocols.ndjson import PROTOCOL as NDJSON
from logengine.protocols.wire import WireProtocol
from logengine.store.committer import Committer
from logengine.store.settings import CommitConfig, LimitsConfig
from logengine.store.store import Store
from logengine.units import Duration, RecordsPerSecond

PATIENCE_S = 60
# Long enough that what must not happen would have happened, short enough to wait for.
A_MOMENT_S = 0.05

ENVELOPE = ("_ts", "_pid", "_uid", "_gid", "_comm", "_unit", "_user_unit")


class Disk:
    """The fsyncs of the process: may be held, and may fail for some paths."""

    def __init__(self) -> None:
        self._real = os.fsync
        self._may_go_on = threading.Event()
        self._may_go_on.set()
        self._holds_directories_only = False
        self.held = threading.Event()
        self.failing = ""  # the part of a path whose fsync fails

    def hold(self, *, directories_only: bool = False) -> None:
        self._holds_directories_only = directories_only
        self.held.clear()
        self._may_go_on.clear()

    def go_on(self) -> None:
        self._may_go_on.set()

    def fsync(self, descriptor: int) -> None:
        if not self._holds_directories_only or stat.S_ISDIR(os.fstat(descriptor).st_mode):
            if not self._may_go_on.is_set():
                self.held.set()
            assert self._may_go_on.wait(PATIENCE_S)
        if self.failing and self.failing in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._real(descriptor)


class Client:
    """One connection, from the client's side."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._received = b""

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def send_what_fits(self, data: bytes) -> int:
        """Sends until nobody takes any more for a moment; how many bytes that was."""
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < len(data):
                async with asyncio.timeout(A_MOMENT_S * 4):
                    while True:
                        try:
                            sent += self.socket.send(data[sent : sent + 65536])
                            break
                        except BlockingIOError:
                            await asyncio.sleep(0.001)
        return sent

    async def line(self) -> bytes:
        loop = asyncio.get_running_loop()
        while b"\n" not in self._received:
            data = await loop.sock_recv(self.socket, 65536)
            if not data:
                break
            self._received += data
        line, newline, self._received = self._received.partition(b"\n")
        return line + newline

    async def answer(self) -> dict[str, Any]:
        """The next answer; `{}` at the end."""
        line = await self.line()
        return json.loads(line) if line else {}

    async def hello(self, **said: Any) -> dict[str, Any]:
        await self.send(json.dumps({"_hello": 1} | said).encode() + b"\n")
        return await self.answer()

    async def acked(self, number: int) -> None:
        last = 0
        while last < number:
            last = (await self.answer())["ack"]
        assert last == number

    async def says_nothing(self) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(A_MOMENT_S):
                assert not await self.line()
            return False  # the end is an answer too
        return True

    async def says_nothing_or(self, word: bytes) -> bool:
        """Whether it is silent; where it is not, it must say `word`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(A_MOMENT_S):
                line = await self.line()
            assert word in line
            return False
        return True

    async def rest(self) -> list[dict[str, Any]]:
        answers = []
        with contextlib.suppress(ConnectionResetError):
            while answer := await self.answer():
                answers.append(answer)
        return answers

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()


class Served:
    """A server, its store and its senders."""

    def __init__(self, root: Path, disk: Disk) -> None:
        self.data = root / "data"
        self.path = root / "socket"
        self.disk = disk
        self.server: Server
        self.committer: Committer
        self._clients: list[Client] = []

    def has_room(self) -> None:
        self.server.room()

    async def connect(self) -> Client:
        connection = socket.socket(socket.AF_UNIX)
        connection.setblocking(False)
        self._clients.append(Client(connection))
        await asyncio.get_running_loop().sock_connect(connection, os.fspath(self.path))
        return self._clients[-1]

    async def plain(self, data: bytes) -> None:
        """Sends `data` as a sender that only writes, and waits until it is on disk."""
        client = await self.connect()
        await client.send(data)
        client.half_close()
        assert await client.rest() == []

    def values(self, stream: str = "default") -> list[dict[str, Any]]:
        """The senders' own part of what is on disk, every segment checked to the bit."""
        if not (self.data / stream).exists():
            return []
        lines: list[bytes] = []
        for first in list_segments(self.data / stream):
            header, body = read_segment(self.data / stream, first)
            assert first == header.first == len(lines) + 1
            lines += body.splitlines()
            assert len(lines) == header.last
        return [
            {name: value for name, value in json.loads(line).items() if name not in ENVELOPE}
            for line in lines
        ]

    def numbers(self, stream: str = "default") -> list[int]:
        return [value["n"] for value in self.values(stream)]

    async def until(self, condition: Callable[[], Any]) -> None:
        while not condition():  # noqa: ASYNC110 - what it waits for tells no event
            await asyncio.sleep(0.001)

    def close(self) -> None:
        for client in self._clients:
            client.close()


@asynccontextmanager
async def serving(
    root: Path,
    limits: dict[str, Any],
    quotas: Quotas | None = None,
    protocol: WireProtocol = NDJSON,
) -> AsyncIterator[Served]:
    disk = Disk()
    limits = dict(limits)
    with ThreadPoolExecutor(4) as executor, patch.object(os, "fsync", disk.fsync):
        served = Served(root, disk)
        store = Store(served.data, executor)
        store.open()
        listener = bind_listener(served.path, 0o666)
        tasks_ended = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as tasks:
                # A disk that is held would hold the loop, and so the test.
                linger = limits.pop("linger", 0)
                commit_limits = CommitConfig(
                    in_loop_below=0, retry_min=0.005, retry_max=0.02, linger=linger
                )
                served.committer = Committer(store, commit_limits, tasks, on_room=served.has_room)
                report_s = limits.pop("report_dropped_every", QuotasConfig().report_every)
                served.server = Server(
                    store,
                    served.committer,
                    LimitsConfig(**limits),
                    tasks,
                    quotas=quotas,
                    report_dropped_every_s=report_s,
                )
                served.server.listen(listener, "default", protocol)
                try:
                    yield served
                finally:
                    disk.go_on()
                    disk.failing = ""
                    served.close()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(2):
                            await served.server.stop()
                    served.server.close()
                    await served.committer.close()
            tasks_ended.set()
        finally:
            listener.close()
            store.close()
        assert tasks_ended.is_set()


Test = Callable[[Served], Awaitable[None]]


def serve(
    *, quotas: Any = None, protocol: WireProtocol = NDJSON, **limits: Any
) -> Callable[[Test], Any]:
    """Runs a test against a server of its own with `limits`, on either event loop."""

    def decorate(test: Test) -> Any:
        @pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
        def run(root: Path, loop: str) -> None:
            async def main() -> None:
                quotas_now = quotas() if quotas else None
                async with serving(root, limits, quotas_now, protocol) as served:
                    async with asyncio.timeout(PATIENCE_S):
                        await test(served)

            new_loop = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
            with asyncio.Runner(loop_factory=new_loop) as runner:
                try:
                    runner.run(main())
                except BaseExceptionGroup as group:
                    raise group.exceptions[0] from None  # what the test itself raised

        run.__name__ = test.__name__
        run.__qualname__ = run.__name__
        return run

    return decorate


def numbered(first: int, last: int) -> bytes:
    return b"".join(b'{"n":%d}\n' % number for number in range(first, last + 1))


# What an answer waits for.


@serve()
async def test_ack_waits_for_directory_sync(served: Served) -> None:
    client = await served.connect()
    await client.hello(stream="app")
    await client.send(numbered(1, 1))
    await client.acked(1)
    served.disk.hold(directories_only=True)
    await client.send(numbered(2, 2))
    await served.until(served.disk.held.is_set)
    # It is visible, since the replace is done, and yet not acknowledged.
    assert served.numbers("app") == [1, 2]
    assert await client.says_nothing()
    served.disk.go_on()
    await client.acked(2)


@serve()
async def test_a_costly_turn_of_several_users_asks_whether_a_small_commit_is_under_way(
    served: Served,
) -> None:
    commits_small = cast("property", Committer.__dict__["commits_small"])
    answers: list[bool] = []

    def asked(committer: Committer) -> bool:
        assert commits_small.fget is not None
        answers.append(commits_small.fget(committer))
        return answers[-1]

    poller = served.server.around.poller
    poller.enter("another user")  # with one alone, no turn is followed by a rest
    small, costly = await served.connect(), await served.connect()
    with patch.object(Committer, "commits_small", property(asked)):
        await costly.hello(stream="costly")
        await small.hello(stream="small")
        served.disk.hold()
        await small.send(numbered(1, 1))
        await served.until(served.disk.held.is_set)
        await costly.send(b"\xff" * 1_000_000 + b"\n")  # several milliseconds of work
        await served.until(lambda: True in answers)
        served.disk.go_on()
        await small.acked(1)
        await costly.acked(1)
    poller.leave("another user")


@serve()
async def test_end_of_file_waits_for_directory_sync(served: Served) -> None:
    await served.plain(numbered(1, 1))
    served.disk.hold(directories_only=True)
    client = await served.connect()
    await client.send(numbered(2, 2))
    client.half_close()
    await served.until(served.disk.held.is_set)
    assert await client.says_nothing()
    served.disk.go_on()
    assert await client.rest() == []
    assert served.numbers() == [1, 2]


@serve()
async def test_welcome_waits_for_what_an_earlier_connection_delivered(served: Served) -> None:
    first = await served.connect()
    await first.hello(producer="p")
    await first.send(numbered(1, 1))
    await first.acked(1)
    served.disk.hold()
    await first.send(numbered(2, 9))
    await served.until(served.disk.held.is_set)
    first.close()
    second = await served.connect()
    await second.send(b'{"_hello":1,"producer":"p"}\n')
    assert await second.says_nothing()
    served.disk.go_on()
    assert (await second.answer())["next"] == 10
    assert served.numbers() == list(range(1, 10))


@serve()
async def test_no_ack_is_ahead_of_the_disk(served: Served) -> None:
    client = await served.connect()
    await client.hello(producer="p")
    last = 0
    for first in range(1, 2000, 50):
        await client.send(numbered(first, first + 49))
        if first % 3 == 0:
            answer = await client.answer()
            assert answer["ack"] > last
            last = answer["ack"]
            assert len(served.numbers()) >= last
    while last < 2000:
        last = (await client.answer())["ack"]
    assert served.numbers() == list(range(1, 2001))


# Hellos and numbers.


@serve()
async def test_a_hello_that_comes_byte_by_byte_is_one(served: Served) -> None:
    client = await served.connect()
    for byte in b'\n{"_hello":1,"stream":"app"}\r\n':
        await client.send(bytes([byte]))
        await asyncio.sleep(0)
    assert await client.answer() == {"welcome": 1, "next": 1, "max_record": 1048576}


@serve()
async def test_next_is_the_greater_of_what_is_durable_and_what_is_still_held(
    served: Served,
) -> None:
    client = await served.connect()
    assert (await client.hello(producer="p", first=10))["next"] == 10
    await client.send(numbered(10, 12))
    await client.acked(12)
    for first, expected in [(1, 13), (13, 13), (20, 20), (None, 13)]:
        again = await served.connect()
        said = {} if first is None else {"first": first}
        assert (await again.hello(producer="p", **said))["next"] == expected
    assert served.numbers() == [10, 11, 12]


@serve()
async def test_producers_of_one_name_in_two_streams_are_two(served: Served) -> None:
    clients = [await served.connect() for _ in range(2)]
    for client, stream in zip(clients, ["a", "b"], strict=True):
        await client.hello(stream=stream, producer="p")
    for client in clients:  # neither was fenced
        await client.send(numbered(1, 1))
        await client.acked(1)


@serve()
async def test_the_fenced_one_is_told_and_what_it_delivered_is_counted_once(
    served: Served,
) -> None:
    producers = [await served.connect()]
    sent = 0
    await producers[-1].hello(producer="p")
    for _ in range(8):
        await producers[-1].send(numbered(sent + 1, sent + 50))
        newer = await served.connect()
        following = (await newer.hello(producer="p"))["next"]
        answers = await producers[-1].rest()
        assert answers[-1] == {"error": "fenced"}
        assert sent < following <= sent + 51
        acked = max([answer.get("ack", 0) for answer in answers])
        assert acked < following
        sent = following - 1
        assert served.numbers() == list(range(1, sent + 1))
        producers.append(newer)


@serve()
async def test_whoever_is_fenced_before_its_welcome_is_told_so(served: Served) -> None:
    await served.plain(numbered(1, 1))
    served.disk.hold()
    other = await served.connect()
    await other.send(numbered(2, 2))
    await served.until(served.disk.held.is_set)
    clients = [await served.connect() for _ in range(3)]
    for client in clients:
        await client.send(b'{"_hello":1,"producer":"p"}\n' + numbered(3, 3))
        await asyncio.sleep(A_MOMENT_S)
    served.disk.go_on()
    for client in clients[:-1]:
        assert await client.rest() == [{"error": "fenced"}]
    assert (await clients[-1].answer())["next"] == 1
    await clients[-1].acked(1)
    assert served.numbers() == [1, 2, 3]


@serve(max_record=100)
async def test_refused_records_have_used_their_numbers(served: Served) -> None:
    client = await served.connect()
    await client.hello(producer="p")
    large = b"x" * 101 + b"\n"
    await client.send(numbered(1, 1) + large + b"\n \r\n" + numbered(3, 3) + large + large)
    answers = []
    while {"ack": 5} not in answers:
        answers.append(await client.answer())
    refused = [answer["record"] for answer in answers if "error" in answer]
    assert refused == [2, 4, 5]
    assert served.numbers() == [1, 3]
    again = await served.connect()
    assert (await again.hello(producer="p"))["next"] == 6


@serve(max_record=100)
async def test_an_error_comes_before_the_ack_that_counts_its_record(served: Served) -> None:
    client = await served.connect()
    await client.hello()
    for number in range(1, 30):
        await client.send(b"x" * 200 + b"\n")
        assert (await client.answer()).get("record") == number
        assert await client.answer() == {"ack": number}
    assert served.values() == []


@serve(max_record=100)
async def test_the_longest_record_is_taken_also_with_a_carriage_return(served: Served) -> None:
    exact = b'{"n":1,"pad":"' + b"x" * 84 + b'"}'
    assert len(exact) == 100
    await served.plain(exact + b"\n" + exact + b"\r\n" + exact + b"y\n" + exact)
    assert served.numbers() == [1, 1, 1]


@serve()
async def test_a_refused_hello_says_what_would_be_right_and_makes_nothing(
    served: Served,
) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"_hello": 2}, "unsupported_version"),
        ({"_hello": 10**25}, "unsupported_version"),
        ({"_hello": "1"}, "bad_hello"),
        ({"stream": "../up"}, "invalid_stream"),
        ({"stream": ".lock"}, "invalid_stream"),
        ({"stream": "x" * 65}, "invalid_stream"),
        ({"producer": "p" * 129}, "invalid_producer"),
        ({"first": 0}, "invalid_first"),
    ]
    for said, error in wrong:
        client = await served.connect()
        await client.send(json.dumps({"_hello": 1} | said).encode() + b"\n" + numbered(1, 9))
        (answer,) = await client.rest()
        assert answer["error"] == error
        assert answer["expected"]
    assert sorted(os.listdir(served.data)) == [".lock", ".running"]
    assert sorted(os.listdir(served.data.parent)) == ["data", "socket"]


@serve()
async def test_every_odd_line_has_its_outcome_and_its_number(served: Served) -> None:
    client = await served.connect()
    await client.hello()
    odd = [b"{}", b"text\r", b"nul\x00", b"\xff", b'{"a":1,"a":2}', b'{"_pid":0}', b"[1]", b"{"]
    await client.send(b"\n".join(odd) + b"\n\n \t\n")
    await client.acked(len(odd))
    assert served.values() == [
        {},
        {"message": "text"},
        {"message": "nul\0"},
        {"message": "\\xff"},
        {"a": 2},
        {"__pid": 0},
        {"message": "[1]"},
        {"message": "{"},
    ]


@serve()
async def test_a_last_line_without_newline_counts_unless_a_producer_will_send_it_again(
    served: Served,
) -> None:
    await served.plain(b"half")
    asked, producer = await served.connect(), await served.connect()
    await asked.hello()
    await asked.send(b"asked")
    asked.half_close()
    assert await asked.rest() == [{"ack": 1}]
    await producer.hello(producer="p")
    await producer.send(b"producer")
    producer.half_close()
    assert await producer.rest() == []
    assert served.values() == [{"message": "half"}, {"message": "asked"}]


# Senders that are deaf, gone, or hostile.


@serve()
async def test_a_sender_that_never_reads_gets_only_the_latest_ack(served: Served) -> None:
    deaf, other = await served.connect(), await served.connect()
    await deaf.hello(stream="deaf")
    await other.hello(stream="other")
    total = 0
    # Far more batches than acks fit into the socket's buffer.
    for number in range(1, 1501):
        await deaf.send(b"x\n")
        await other.send(b"y\n")
        await other.acked(number)
        total = number
    (connection,) = [c for c in served.server._connections if c.stream == "deaf"]
    assert len(connection._answers._waiting) < 1000
    await deaf.acked(total)


@serve()
async def test_an_answer_that_the_kernel_takes_in_pieces_arrives_whole(served: Served) -> None:
    def send_a_piece(self: socket.socket, data: bytearray, *flags: int) -> int:
        return socket.SocketType.send(self, bytes(data[:3]), *flags)

    client = await served.connect()
    with patch.object(socket.socket, "send", send_a_piece):
        await client.hello(stream="app")
        for number in range(1, 4):
            await client.send(b"x\n")
            await client.acked(number)


@contextlib.contextmanager
def full(served: Served) -> Iterator[None]:
    """Inside the block, the kernel takes no answers to the only connection."""
    (connection,) = served.server._connections
    full = connection._socket.fileno()

    def send(self: socket.socket, data: bytes, *flags: int) -> int:
        if self.fileno() == full:
            raise BlockingIOError
        return socket.SocketType.send(self, data, *flags)

    with patch.object(socket.socket, "send", send):
        yield


@serve()
async def test_a_connection_whose_last_answer_is_written_late_is_closed_then(
    served: Served,
) -> None:
    client = await served.connect()
    await client.hello(stream="app")
    (connection,) = served.server._connections
    with full(served):
        await client.send(numbered(1, 1))
        client.half_close()
        await served.until(lambda: connection._durable == 1 and connection._state.is_ended)
        assert await client.says_nothing()
    await client.acked(1)
    assert await client.rest() == []


@serve(max_record=100)
async def test_a_sender_is_read_on_once_its_answers_are_written(served: Served) -> None:
    client = await served.connect()
    await client.hello(stream="app")
    with patch("logengine.intake.answer_writer.ANSWERS_BYTES_MAX", 100):
        with full(served):
            await client.send((b"x" * 200 + b"\n") * 5)
            (connection,) = served.server._connections
            await served.until(lambda: connection._durable == 5)
            await client.send(numbered(6, 6))
            await served.until(lambda: served.server.admission.paused)
        for _ in range(5):
            assert (await client.answer())["error"] == "record_too_large"
        await client.acked(6)


@serve()
async def test_a_broken_pipe_on_an_ack_does_not_lose_what_was_sent(served: Served) -> None:
    client = await served.connect()
    await client.hello(stream="app")
    client.socket.shutdown(socket.SHUT_RD)
    for first in range(1, 500, 10):
        await client.send(numbered(first, first + 9))
        await asyncio.sleep(0)
    await client.send(b'{"n":501}')
    client.close()
    await served.until(lambda: served.server.connections == 0)
    await served.committer.drained()
    assert served.numbers("app") == list(range(1, 502))


@serve()
async def test_closing_with_answers_unread_loses_nothing(served: Served) -> None:
    for number in range(1, 40):
        client = await served.connect()
        await client.send(b'{"_hello":1,"stream":"app"}\n' + numbered(number, number))
        client.close()  # a reset, as seen from the daemon
    await served.until(lambda: served.server.totals.connections == 39)
    await served.until(lambda: served.server.connections == 0)
    await served.committer.drained()
    assert sorted(served.numbers("app")) == list(range(1, 40))


@serve()
async def test_an_error_inside_one_connection_ends_only_that_one(served: Served) -> None:
    other = await served.connect()
    await other.hello(stream="other")
    hostile = await served.connect()
    await hostile.hello(stream="hostile")
    with patch.object(served.server.arrivals, "timestamp", side_effect=ZeroDivisionError):
        await hostile.send(b"x\n")
        assert await hostile.rest() == []
    await other.send(b"y\n")
    await other.acked(1)


@serve()
async def test_descriptors_that_are_passed_are_not_kept(served: Served) -> None:
    client = await served.connect()
    await client.hello()
    await client.send(numbered(1, 1))
    await client.acked(1)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(2, 20):
        client.socket.sendmsg(
            [b"x\n"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
        )
        await client.acked(number)
    assert len(os.listdir("/proc/self/fd")) <= before


@serve()
async def test_a_connection_that_has_ended_is_freed_without_the_collector(served: Served) -> None:
    gc.disable()
    try:
        client = await served.connect()
        await client.hello(stream="app", producer="p")
        await client.send(numbered(1, 9))
        await client.acked(9)
        (ended,) = [weakref.ref(each) for each in served.server._connections]
        client.close()
        await served.until(lambda: ended() is None)
    finally:
        gc.enable()


@contextlib.contextmanager
def descriptors(count: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"the limit of open files is {hard}, and this needs {count}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@serve()
async def test_a_thousand_idle_senders_hold_up_nobody_and_are_all_told_to_go(
    served: Served,
) -> None:
    with descriptors(4096):
        idle = [await served.connect() for _ in range(1000)]
        for client in idle[::10]:
            await client.hello()
        busy = await served.connect()
        await busy.hello()
        for number in range(1, 20):
            await busy.send(b"x\n")
            await busy.acked(number)
        assert served.server.connections == 1001
        await served.server.stop()
        for position, client in enumerate(idle):
            goodbye = [] if position % 10 else [{"goodbye": "stopping"}]
            assert await client.rest() == goodbye
        served.close()


@serve(max_connections=3)
async def test_one_more_than_max_connections_waits_until_somebody_goes(served: Served) -> None:
    inside = [await served.connect() for _ in range(3)]
    for client in inside:
        await client.hello()
    waiting = await served.connect()
    await waiting.send(b'{"_hello":1}\n')
    assert await waiting.says_nothing()
    inside[0].close()
    assert (await waiting.answer())["welcome"] == 1


@serve(max_connections=3)
async def test_whoever_was_not_accepted_is_when_somebody_goes(served: Served) -> None:
    served.server._waiting_room._guests_max = 1
    with patch.object(waiting_room, "_FULL_PAUSE_S", 10 * PATIENCE_S):
        inside = [await served.connect() for _ in range(3)]
        for client in inside:
            await client.hello()
        later = [await served.connect() for _ in range(2)]
        await served.until(lambda: not served.server._listeners._accepting)
        for client, goes in zip(later, inside, strict=False):
            goes.close()
            assert (await client.hello())["welcome"] == 1


# Pressure.

SMALL: dict[str, Any] = {"max_record": 4096, "max_pending": 400_000, "max_pending_stream": 300_000}


@serve(**SMALL)
async def test_past_max_pending_nobody_is_read_and_then_all_go_on(served: Served) -> None:
    clients = [await served.connect() for _ in range(4)]
    for number, client in enumerate(clients):
        await client.hello(stream=f"s{number}")
        await client.send(b"begin\n")
        await client.acked(1)
    served.disk.hold()
    line = b"x" * 999 + b"\n"
    data = line * 2000
    sent = await asyncio.gather(*(client.send_what_fits(data) for client in clients))
    assert max(sent) < len(data), "nobody was held up"
    # One receive of each may be under way when the limit is reached; the envelope comes on top.
    assert served.committer.pending_bytes < SMALL["max_pending"] + 4 * RECEIVE_BYTES * 1.5
    served.disk.go_on()
    for client, done in zip(clients, sent, strict=True):
        await client.send(data[done:])
        await client.acked(2001)
    assert served.committer.pending_bytes == 0


@serve(**SMALL)
async def test_a_stream_that_fails_holds_up_its_own_senders_only(served: Served) -> None:
    bad, good = await served.connect(), await served.connect()
    for client, stream in [(bad, "bad"), (good, "good")]:
        await client.hello(stream=stream)
        await client.send(numbered(1, 1))
        await client.acked(1)
    served.disk.failing = "/bad"
    await bad.send(numbered(2, 2))
    await served.until(lambda: not served.committer.has_room("bad", 10**9))
    sent = await bad.send_what_fits(numbered(3, 90_002))
    assert sent < len(numbered(3, 90_002))
    for number in range(2, 50):
        await good.send(numbered(number, number))
        await good.acked(number)
    served.disk.failing = ""
    await bad.send(numbered(3, 90_002)[sent:])
    await bad.acked(90_002)
    assert served.numbers("bad") == list(range(1, 90_003))
    assert served.numbers("good") == list(range(1, 50))


async def has_a_failing_default_stream(served: Served) -> Client:
    """Makes the stream fail that is a sender's until it says another; returns who waits for it."""
    client = await served.connect()
    await client.hello()
    await client.send(numbered(1, 1))
    await client.acked(1)
    served.disk.failing = "/default"
    await client.send(numbered(2, 2))
    await served.until(lambda: not served.committer.has_room("default", 10**9))
    return client


@serve()
async def test_a_hello_is_read_where_only_the_stream_of_those_without_one_fails(
    served: Served,
) -> None:
    bad = await has_a_failing_default_stream(served)
    good = await served.connect()
    assert (await good.hello(stream="good"))["next"] == 1
    await good.send(numbered(1, 1))
    await good.acked(1)
    served.disk.failing = ""
    await bad.acked(2)


@serve()
async def test_who_hangs_up_before_its_hello_is_gone_where_its_stream_has_no_room(
    served: Served,
) -> None:
    bad = await has_a_failing_default_stream(served)
    before = served.server.totals.connections
    client = await served.connect()
    await served.until(lambda: served.server.totals.connections == before + 1)
    client.close()
    await served.until(lambda: served.server.connections == 1)
    served.disk.failing = ""
    await bad.acked(2)


@serve()
async def test_what_waits_for_a_welcome_uses_memory(served: Served) -> None:
    first = await served.connect()
    await first.hello(producer="p")
    await first.send(numbered(1, 1))
    await first.acked(1)
    served.disk.hold()
    await first.send(numbered(2, 2))
    await served.until(served.disk.held.is_set)
    first.close()
    second = await served.connect()
    after_hello = numbered(3, 99)
    await second.send(b'{"_hello":1,"producer":"p"}\n' + after_hello)
    held = served.server.admission
    await served.until(lambda: held.held_bytes == len(after_hello))
    served.disk.go_on()
    assert (await second.answer())["next"] == 3
    await second.acked(99)
    assert held.held_bytes == 0
    assert served.numbers() == list(range(1, 100))


@serve()
async def test_who_comes_back_to_a_failing_stream_again_and_again_leaves_nothing_behind(
    served: Served,
) -> None:
    client = await served.connect()
    await client.hello(stream="bad", producer="p")
    await client.send(numbered(1, 1))
    await client.acked(1)
    served.disk.failing = "/bad"
    await client.send(numbered(2, 2))
    await served.until(lambda: not served.committer.has_room("bad", 10**9))
    for number in range(2, 52):
        client = await served.connect()
        await client.send(b'{"_hello":1,"stream":"bad","producer":"p"}\n')
        await served.until(
            lambda number=number: (  # type: ignore[misc]
                served.server.totals.connections == number
                and served.server.producers.greeted == served.server.connections == 1
            )
        )
    # What waits is the record, and the place at which whoever came last is welcomed; perhaps
    # one more at which nobody waits, until the next attempt.
    assert len(served.committer._pending["bad"].entries) <= 3
    served.disk.failing = ""
    assert (await client.answer())["next"] == 3


@serve(max_record=60_000, max_pending=500_000, max_pending_stream=300_000, stall_timeout=30)
async def test_unfinished_records_that_fill_the_memory_are_finished_one_at_a_time(
    served: Served,
) -> None:
    halves = [await served.connect() for _ in range(20)]
    for client in halves:
        await client.hello()
        await client.send(b'{"pad":"' + b"h" * 40_000)
    await served.until(lambda: served.server.admission.held_bytes >= 480_000)
    for client in halves:
        await client.send(b'"}\n')
        await client.acked(1)
    assert len(served.values()) == 20
    assert served.server.admission.held_bytes == 0
    assert not served.server.admission.elected


@serve(max_record=60_000, max_pending=200_000, max_pending_stream=100_000, stall_timeout=0.05)
async def test_whoever_does_not_finish_is_told_and_the_others_go_on(served: Served) -> None:
    stalled = [await served.connect() for _ in range(8)]
    for client in stalled:
        await client.hello()
        await client.send(b"h" * 50_000)
    late = await served.connect()
    await late.send(b'{"_hello":1,"stream":"late"}\nlate\n')
    assert (await late.answer())["welcome"] == 1
    await late.acked(1)
    # Until those that are left, besides the late one, have room for all that they sent.
    admission = served.server.admission
    await served.until(
        lambda: (
            admission.elected is None
            and admission.held_bytes == 50_000 * (served.server.connections - 1)
        )
    )
    gone = [client for client in stalled if not await client.says_nothing_or(b"stalled")]
    assert gone
    # Those that are left are heard again.
    for client in stalled:
        if client not in gone:
            await client.send(b"\n")
            await client.acked(1)


@serve(max_record=60_000, max_pending=200_000, max_pending_stream=100_000, stall_timeout=0.05)
async def test_nobody_is_stalled_whose_stream_is_not_read(served: Served) -> None:
    halves = [await served.connect() for _ in range(8)]
    for number, client in enumerate(halves):
        await client.hello(stream=f"s{number}")
        await client.send(b"h" * 30_000)
    await served.until(lambda: bool(served.server.admission.elected))
    reader = served.server.admission.elected
    assert reader is not None
    elected = halves[int(reader.stream[1:])]
    served.disk.hold()
    # A task, because what is not read may be more than the kernel takes.
    sending = asyncio.create_task(elected.send(b"\n" + (b"h" * 50_000 + b"\n") * 3 + b"h" * 50_000))
    stream = f"s{halves.index(elected)}"
    await served.until(lambda: served.committer.bytes_waiting(stream) > 100_000)
    for _ in range(4):
        assert await elected.says_nothing()
    served.disk.go_on()
    await sending
    await elected.send(b"h\n")
    last = 0
    while last < 5:
        last = (await elected.answer())["ack"]


@serve(max_record=60_000, max_pending=400_000, max_pending_stream=4_000_000, stall_timeout=30)
async def test_memory_is_bounded_where_unfinished_records_fill_it(served: Served) -> None:
    clients = [await served.connect() for _ in range(16)]
    for client in clients:
        await client.hello()
        await client.send(b"h" * 30_000)
    await served.until(lambda: bool(served.server.admission.elected))
    served.disk.hold()
    lines = b"\n" + (b"w" * 990 + b"\n") * 100
    for client in clients:
        # All that was sent may lie in the kernel; the daemon takes no more of it than it may.
        await client.send_what_fits(lines)
    await served.until(lambda: served.committer.pending_bytes)
    assert await clients[0].says_nothing()
    assert served.committer.pending_bytes < 400_000 / 2 + RECEIVE_BYTES
    served.disk.go_on()
    for client in clients:
        await client.send_what_fits(b"end\n")
    await served.until(lambda: served.committer.totals.records == 16 * 102)
    await served.until(lambda: not served.server.admission.held_bytes)
    assert len(served.values()) == 16 * 102


# Stopping.


@serve()
async def test_stopping_commits_acks_and_says_goodbye(served: Served) -> None:
    client, silent = await served.connect(), await served.connect()
    await client.hello(stream="app", producer="p")
    # Connected and sent, and the server has had no turn of the loop to see it.
    late = socket.socket(socket.AF_UNIX)
    late.connect(os.fspath(served.path))
    late.send(numbered(1, 100))
    client.socket.send(numbered(1, 1000))
    silent.socket.send(numbered(101, 200))
    await served.server.stop()
    answers = await client.rest()
    assert answers[-2:] == [{"ack": 1000}, {"goodbye": "stopping"}]
    assert served.numbers("app") == list(range(1, 1001))
    assert sorted(served.numbers()) == list(range(1, 201))
    assert late.recv(1) == b""
    late.close()
    with pytest.raises(OSError, match="refused"):
        await served.connect()


@serve()
async def test_stopping_waits_for_a_failing_stream_and_tells_in_the_end(served: Served) -> None:
    client = await served.connect()
    await client.hello(stream="bad")
    await client.send(numbered(1, 1))
    await client.acked(1)
    served.disk.failing = "/bad"
    await client.send(numbered(2, 9))
    await served.until(lambda: not served.committer.has_room("bad", 10**9))
    stop = asyncio.ensure_future(served.server.stop())
    await asyncio.sleep(A_MOMENT_S)
    assert not stop.done()
    served.disk.failing = ""
    await stop
    assert await client.rest() == [{"ack": 9}, {"goodbye": "stopping"}]
    assert served.numbers("bad") == list(range(1, 10))


@serve()
async def test_stopping_answers_a_hello_that_still_waits(served: Served) -> None:
    await served.plain(numbered(1, 1))
    served.disk.hold()
    other = await served.connect()
    await other.send(numbered(2, 2))
    await served.until(served.disk.held.is_set)
    client = await served.connect()
    await client.send(b'{"_hello":1,"producer":"p"}\n' + numbered(3, 5))
    await asyncio.sleep(A_MOMENT_S)
    stop = asyncio.ensure_future(served.server.stop())
    await asyncio.sleep(A_MOMENT_S)
    served.disk.go_on()
    await stop
    answers = await client.rest()
    assert answers[0]["next"] == 1
    assert answers[-2:] == [{"ack": 3}, {"goodbye": "stopping"}]
    assert served.numbers() == [1, 2, 3, 4, 5]


@serve()
async def test_closing_at_once_acks_nothing_that_is_not_durable(served: Served) -> None:
    client = await served.connect()
    await client.hello()
    await client.send(numbered(1, 1))
    await client.acked(1)
    served.disk.hold()
    await client.send(numbered(2, 9))
    await served.until(served.disk.held.is_set)
    served.server.close()
    served.disk.go_on()
    assert await client.rest() == []
    await served.committer.drained()
    assert served.numbers() == list(range(1, 10))


@serve()
async def test_closing_at_once_tells_a_sender_without_a_hello_that_half_a_record_is_not_durable(
    served: Served,
) -> None:
    client = await served.connect()
    await client.send(b'{"half":')
    await served.until(lambda: served.server.admission.held_bytes > 0)
    client.half_close()
    served.server.close()  # before it has heard of the end
    assert [answer["error"] for answer in await client.rest()] == ["not_durable"]


# Listening.


def test_a_socket_that_a_dead_daemon_left_is_replaced(root: Path) -> None:
    path = root / "run" / "socket"
    bind_listener(path, 0o600).close()
    with contextlib.closing(bind_listener(path, 0o620)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o620
        with pytest.raises(ConfigError, match="listens there already"):
            bind_listener(path, 0o600)


def test_what_is_no_socket_is_left_alone(root: Path) -> None:
    path = root / "socket"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="not a socket"):
        bind_listener(path, 0o600)
    assert path.read_text() == "precious"


# Bugs that are known.


class StopHangs(Exception):
    """`Server.stop` does not come back."""


@serve(max_streams=1)
async def test_a_stream_that_was_welcomed_can_be_written(served: Served) -> None:
    one, two = await served.connect(), await served.connect()
    welcomes = [await one.hello(stream="one"), await two.hello(stream="two")]
    for client, answer in zip([one, two], welcomes, strict=True):
        if "welcome" in answer:
            await client.send(b"x\n")
            await client.acked(1)


@serve(max_record=20)
async def test_stopping_does_not_wait_for_a_sender_that_never_reads(served: Served) -> None:
    client = await served.connect()
    await client.hello()
    sent = await client.send_what_fits((b"x" * 21 + b"\n") * 40_000)
    assert sent < 40_000 * 22
    try:
        async with asyncio.timeout(PATIENCE_S / 2):
            await served.server.stop()
    except TimeoutError:
        raise StopHangs from None


@serve(max_record=60_000, max_pending=200_000, max_pending_stream=100_000, stall_timeout=3)
async def test_whoever_finishes_records_is_not_stalled(served: Served) -> None:
    halves = [await served.connect() for _ in range(8)]
    for number, client in enumerate(halves):
        await client.hello(stream=f"s{number}")
        await client.send(b"h" * 30_000)
    await served.until(lambda: bool(served.server.admission.elected))
    reader = served.server.admission.elected
    assert reader is not None
    elected = halves[int(reader.stream[1:])]
    for number in range(1, 15):  # for longer than `stall_timeout` in all
        await elected.send(b"h" * 100 + b"\n" + b"h" * (30_000 + 500 * number))
        await elected.acked(number)
        await asyncio.sleep(0.25)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_no_socket_is_made_in_another_users_directory(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(ConfigError, match="belongs to user 65534"):
        bind_listener(tmp_path / "socket", 0o666)
    assert not (tmp_path / "socket").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link away")
def test_no_socket_is_made_through_another_users_link(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    os.chown(tmp_path / "link", 65534, 65534, follow_symlinks=False)
    with pytest.raises(ConfigError, match="belongs to user 65534"):
        bind_listener(tmp_path / "link" / "socket", 0o666)
    assert not list((tmp_path / "mine").iterdir())


def test_nobody_else_may_write_to_the_directory_that_a_socket_gets(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        bind_listener(tmp_path / "made" / "socket", 0o666).close()
    finally:
        os.umask(before)
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o755


# Quotas. `test_quotas` has what they do; here is when nobody but a timer could go on.


class TokensComeAtOnce(Quotas):
    """Has no tokens after each chunk, and some when it is asked once more."""

    def __init__(self) -> None:
        super().__init__(QuotaConfig(records_per_s=1), QuotaConfig(), {}, {})
        self._has_tokens = False

    def wait_s(self, stream: str, uid: int, now_s: float) -> float:
        had_tokens, self._has_tokens = self._has_tokens, True
        return 0.0 if had_tokens else 0.0001

    def admit(self, stream: str, uid: int, body: bytes, records: int, now_s: float) -> Admitted:
        self._has_tokens = False
        return Admitted(body, records, None)


@serve(quotas=TokensComeAtOnce)
async def test_a_sender_whose_tokens_come_as_it_pauses_goes_on(served: Served) -> None:
    client = await served.connect()
    await client.hello(stream="app")
    for number in range(1, 21):
        await client.send(numbered(number, number))
        await client.acked(number)
    assert served.numbers("app") == list(range(1, 21))


@serve(
    quotas=lambda: Quotas(QuotaConfig(records_per_s=1000, burst=0.001), QuotaConfig(), {}, {}),
    max_pending=100,
    max_record=60,
)
async def test_a_sender_over_its_quota_with_half_a_record_is_not_closed(served: Served) -> None:
    clients = [await served.connect() for _ in range(4)]
    for client in clients:
        await client.hello(stream="app")
        await client.send(numbered(1, 20) + b'{"n":')
    for client in clients:
        await client.send(b"21}\n")
    for client in clients:
        await client.acked(21)
    assert sorted(served.numbers("app")) == sorted([*range(1, 22)] * 4)


@serve(
    quotas=lambda: Quotas(
        QuotaConfig(), QuotaConfig(records_per_s=20, burst=Duration(1), over="drop"), {}, {}
    )
)
async def test_asking_for_a_commit_of_each_record_takes_no_tokens(served: Served) -> None:
    together, apart = await served.connect(), await served.connect()
    await together.hello(stream="app", flush=True)
    await together.send(b'{"n":1}\n\n' * 8)
    await together.acked(8)
    await apart.hello(stream="app", flush=True)
    for number in range(1, 9):
        await apart.send(numbered(number, number))
        await apart.send(b"\n")
        await apart.acked(number)


class ClockThatStands:
    """An event loop whose clock stands, so that no tokens come."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._now_s = loop.time()

    def time(self) -> float:
        return self._now_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


@serve(
    quotas=lambda: Quotas(
        QuotaConfig(), QuotaConfig(records_per_s=RecordsPerSecond(100), burst=Duration(1)), {}, {}
    )
)
async def test_empty_lines_that_ask_for_no_commit_take_tokens(served: Served) -> None:
    gate = served.server._quotas
    gate._loop = ClockThatStands(gate._loop)  # type: ignore[assignment]
    client = await served.connect()
    await client.hello(stream="app", flush=True)
    tokens = 100.0

    async def takes(sent: bytes, amount: int) -> None:
        nonlocal tokens
        await client.send(sent)
        tokens -= amount
        quotas = gate._quotas
        assert quotas is not None

        def left() -> float:
            return quotas.room("app", os.getuid(), gate._loop.time())[0]

        await served.until(lambda: left() <= tokens)
        assert left() == tokens

    async def takes_none(sent: bytes) -> None:
        (connection,) = served.server._connections
        free_lines = connection._free_lines
        await client.send(sent)
        await served.until(lambda: connection._free_lines < free_lines)
        await takes(b"", 0)

    await takes(numbered(1, 1), 1)
    await takes_none(b"\n")
    await takes(b"\n", 1)
    await takes(b"\n", 1)
    await takes(numbered(2, 2) + b"\n", 1)
    await takes(b"\n", 1)
    await takes(numbered(3, 3) + b"\n" * 5, 1 + 4)
    await takes(b"\n", 1)
    await takes(numbered(4, 6), 3)
    await takes_none(b"\n")
    await client.acked(6)


# Pauses between commits: here they last an hour, unless something ends them.


def serve_with_pauses(**limits: Any) -> Callable[[Test], Any]:
    def decorate(test: Test) -> Any:
        async def run(served: Served) -> None:
            with (
                patch("logengine.store.committer._PAUSE_PER_COMMIT", 1e12),
                patch("logengine.intake.patience._SOON_S", PATIENCE_S),
            ):
                await test(served)

        run.__name__ = test.__name__
        return serve(**{"linger": 3600} | limits)(run)

    return decorate


async def in_a_pause(served: Served, **said: Any) -> Client:
    """A sender whose record 2 waits for the end of the pause after record 1."""
    client = await served.connect()
    await client.hello(stream="app", **{"flush": True} | said)
    await client.send(numbered(1, 1))
    await client.acked(1)
    await client.send(numbered(2, 2))
    await served.until(lambda: served.committer.bytes_waiting("app"))
    assert await client.says_nothing()
    return client


@serve_with_pauses()
async def test_an_empty_line_ends_the_pause(served: Served) -> None:
    client = await in_a_pause(served, flush=True, producer="p")
    await client.send(b"\n")
    await client.acked(2)


@serve_with_pauses()
async def test_an_empty_line_in_the_same_write_ends_the_pause(served: Served) -> None:
    client = await in_a_pause(served, flush=True)
    await client.send(numbered(3, 3) + b"\n")
    await client.acked(3)


@serve_with_pauses()
async def test_an_empty_line_of_a_sender_without_waiting_records_ends_no_pause(
    served: Served,
) -> None:
    client = await in_a_pause(served)
    other = await served.connect()
    await other.hello(stream="app")
    await other.send(b"\n")
    assert await client.says_nothing()
    assert await other.says_nothing()
    await client.send(b"\n")
    await client.acked(2)


@serve_with_pauses()
async def test_a_blank_line_that_is_not_empty_ends_no_pause(served: Served) -> None:
    client = await in_a_pause(served, flush=True)
    await client.send(b" \n\t\n\r\n")
    assert await client.says_nothing()
    client.half_close()
    await client.acked(2)


@serve_with_pauses()
async def test_an_empty_line_of_a_sender_without_a_hello_ends_no_pause(served: Served) -> None:
    client = await in_a_pause(served)
    other = await served.connect()
    await other.send(numbered(1, 1) + b"\n\n")
    await served.until(lambda: served.committer.bytes_waiting("default"))
    assert await client.says_nothing()
    await client.send(b"\n")
    await client.acked(2)


@serve_with_pauses()
async def test_end_of_file_ends_the_pause(served: Served) -> None:
    client = await in_a_pause(served)
    await served.plain(numbered(1, 1))
    await client.acked(2)


@serve_with_pauses()
async def test_a_welcome_ends_the_pause(served: Served) -> None:
    client = await in_a_pause(served, producer="p")
    other = await served.connect()
    assert (await other.hello(stream="app", producer="p"))["next"] == 3
    assert (await client.rest())[-1] == {"error": "fenced"}


@serve_with_pauses(max_pending=100_000, max_record=5000)
async def test_a_full_memory_ends_the_pause(served: Served) -> None:
    client = await in_a_pause(served)
    await client.send(numbered(3, 20_000))
    client.half_close()
    await client.acked(20_000)


@serve_with_pauses()
async def test_a_stop_ends_the_pause(served: Served) -> None:
    client = await in_a_pause(served)
    await client.send(numbered(3, 3))
    await served.server.stop()
    assert (await client.rest())[-2:] == [{"ack": 3}, {"goodbye": "stopping"}]


@serve_with_pauses(
    quotas=lambda: Quotas(
        QuotaConfig(records_per_s=RecordsPerSecond(1), over="drop"), QuotaConfig(), {}, {}
    )
)
async def test_a_stop_ends_the_pause_for_what_it_writes_itself(served: Served) -> None:
    client = await served.connect()
    await client.hello(stream="app", flush=True)
    await client.send(numbered(1, 5) + b"\n")
    assert (await client.answer())["error"] == "over_quota"
    await client.acked(5)
    await served.server.stop()
    assert [value.get("event") for value in served.values("app")] == [None, "records_dropped"]


@serve_with_pauses(linger=0.01)
async def test_a_sender_that_waits_for_each_ack_has_no_pause_unless_it_says_when_it_waits(
    served: Served,
) -> None:
    client, asking = await served.connect(), await served.connect()
    await client.hello(stream="app")
    await asking.hello(stream="app", flush=True)
    for number in range(1, 13):
        for each in (client, asking):
            await each.send(numbered(number, number))
            await each.acked(number)
    served.committer._config = structs.replace(served.committer._config, linger=3600)
    for number in range(13, 16):
        await client.send(numbered(number, number))
        await client.acked(number)
    await asking.send(numbered(13, 13))
    assert await asking.says_nothing(), "it says when it waits"
    await asking.send(b"\n")
    await asking.acked(13)


@serve_with_pauses(linger=0.001)
async def test_a_sender_that_waits_again_has_no_pause_again(served: Served) -> None:
    client = await served.connect()
    await client.hello(stream="app")
    served.disk.hold()
    await client.send(numbered(1, 1))
    await served.until(served.disk.held.is_set)
    await client.send(numbered(2, 2))  # it goes on before its answer
    await served.until(lambda: len(served.committer._pending["app"].entries) == 1)
    served.disk.go_on()
    await client.acked(2)
    for number in range(3, 15):
        await client.send(numbered(number, number))
        await client.acked(number)
    served.committer._config = structs.replace(served.committer._config, linger=3600)
    for number in range(15, 18):
        await client.send(numbered(number, number))
        await client.acked(number)


# Places, and who waits for one.


@serve(max_connections=1, hello_timeout=0.001)
async def test_a_sender_that_is_heard_of_does_not_give_way_as_if_it_were_silent(
    served: Served,
) -> None:
    with patch("logengine.intake.server._GUESTS_AGAIN_S", 0.001):
        inside = await served.connect()
        await inside.hello(stream="app")
        waiting = await served.connect()
        await waiting.send(b'{"_hello":1}\n')
        assert await waiting.says_nothing()
        await inside.send(numbered(1, 1))
        await inside.acked(1)


@serve(max_connections=1, hello_timeout=0.2)
async def test_one_that_waits_gets_the_place_of_one_that_becomes_silent(served: Served) -> None:
    with patch("logengine.intake.server._GUESTS_AGAIN_S", 0.01):
        silent = await served.connect()
        await served.until(lambda: served.server.connections == 1)
        waiting = await served.connect()
        assert "welcome" in await waiting.hello(stream="app")
        assert await silent.rest() == [{"goodbye": "too_many_connections"}]


@serve(max_connections=1)
async def test_a_stop_reads_what_those_sent_who_wait_for_their_turn(served: Served) -> None:
    inside = await served.connect()
    await inside.hello(stream="app")
    waiting = await served.connect()
    await waiting.send(numbered(1, 1))
    waiting.half_close()
    await served.until(lambda: len(served.server._waiting_room) == 1)
    await served.server.stop()
    assert await waiting.rest() == []
    assert served.numbers() == [1]


@serve()
async def test_a_sender_whose_first_record_is_not_read_and_that_gives_way_is_told(
    served: Served,
) -> None:
    client = await served.connect()
    await served.until(lambda: served.server.connections == 1)
    (connection,) = served.server._connections
    connection.pause()
    await client.send(numbered(1, 1))
    connection.give_way()
    assert (await client.answer())["error"] == "too_many_connections"


@serve(hello_timeout=3)
async def test_a_sender_whose_hello_came_in_pieces_is_not_ended_later(served: Served) -> None:
    client, slow = await served.connect(), await served.connect()
    await client.send(b'{"_hello":1,')
    await served.until(lambda: served.server._hello_timeout._began_s)
    await client.send(b'"stream":"app"}\n')
    assert "welcome" in await client.answer()
    await slow.send(b'{"_hello":1,')
    assert (await slow.answer())["error"] == "hello_timeout"
    await client.send(numbered(1, 1))
    await client.acked(1)


@serve()
async def test_all_connections_of_a_user_share_one_turn(served: Served) -> None:
    for number in range(1, 4):
        client = await served.connect()
        await client.hello(stream="app")
        assert served.server.connections == number
        assert served.server._poller.flows == 1


def gives_way(sent: bytes) -> Callable[..., None]:
    @serve()
    async def run(served: Served) -> None:
        await served.plain(numbered(1, 1))
        served.disk.hold()
        client = await served.connect()
        await client.send(sent)
        client.half_close()
        await served.until(served.disk.held.is_set)
        (connection,) = served.server._connections
        connection.give_way()
        (answer,) = await client.rest()
        assert answer["error"] == "too_many_connections"

    return cast("Callable[..., None]", run)


@pytest.mark.parametrize("sent", [b"record\n", b"no newline, and then the end"])
def test_a_sender_without_a_hello_that_gives_way_is_told_that_not_all_is_durable(
    sent: bytes, root: Path
) -> None:
    gives_way(sent)(root, "uvloop")
