"""Datagram sockets in the test's own process: who is recorded, what waits, what is refused.

The protocol here exists in this test only: the lines of each datagram, as NDJSON has them.
"""

import array
import asyncio
import contextlib
import errno
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from logengine.disk.segment_file import list_segments, read_header, read_segment
from logengine.errors import ConfigError
from logengine.format.producers import numbers_in
from logengine.format.record import Peer
from logengine.intake import datagrams
from logengine.intake.context import RECEIVE_BYTES
from logengine.intake.credentials import sender_of
from logengine.intake.datagrams import DatagramSocket
from logengine.intake.listeners import bind_listener
from logengine.intake.quota import QuotaConfig, Quotas
from logengine.protocols.ndjson import NdjsonReceiver
from logengine.protocols.status import Status
from logengine.protocols.wire import NoAnswers, WireProtocol
from logengine.units import Duration, RecordsPerSecond
from tests.server.test_server import A_MOMENT_S, PATIENCE_S, Served, numbered, serving

BARE = WireProtocol("bare", ("datagram",), NdjsonReceiver, NoAnswers())
STREAM = "datagrams"


class Receiving:
    """A server that has a datagram socket, too, and a sender to it."""

    def __init__(
        self,
        served: Served,
        path: Path,
        protocol: WireProtocol,
        *,
        inherited: bool,
        drops: bool,
    ) -> None:
        self.served = served
        self.path = path
        self.listener = bind_listener(path, 0o666, "datagram")
        served.server.listen(
            self.listener, STREAM, protocol, "datagram", inherited=inherited, drops=drops
        )
        self.sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sender.setblocking(False)
        self.sender.connect(os.fspath(path))

    def records(self) -> list[dict[str, Any]]:
        data = self.served.data / STREAM
        if not data.exists():
            return []
        bodies = [read_segment(data, first)[1] for first in list_segments(data)]
        return [json.loads(line) for body in bodies for line in body.splitlines()]

    def numbers(self) -> list[int]:
        return [record["n"] for record in self.records() if "n" in record]

    async def stored(self, count: int) -> None:
        await self.served.until(lambda: len(self.records()) >= count)

    async def send_until_held_up(self, first: int) -> int:
        """Sends numbers from `first` on until the kernel takes no more for a moment; the last."""
        number = first
        tries = 0
        while tries < A_MOMENT_S / 0.001:
            try:
                self.sender.send(numbered(number, number))
                number, tries = number + 1, 0
            except BlockingIOError:
                tries += 1
                await asyncio.sleep(0.001)
        return number - 1


def status_of(there: Receiving) -> Status:
    status = there.served.server._status(Peer(uid=os.geteuid()))
    assert status is not None
    return status


@asynccontextmanager
async def receiving(
    root: Path,
    *,
    quotas: Quotas | None = None,
    inherited: bool = False,
    protocol: WireProtocol = BARE,
    drops: bool = False,
    **limits: Any,
) -> AsyncIterator[Receiving]:
    async with serving(root, limits, quotas) as served, asyncio.timeout(PATIENCE_S):
        there = Receiving(served, root / "datagrams", protocol, inherited=inherited, drops=drops)
        with contextlib.closing(there.sender):
            yield there


async def test_each_datagram_is_stored_with_the_process_that_sent_it(root: Path) -> None:
    async with receiving(root) as there:
        there.sender.send(b'{"n":1}\n{"n":2}')
        there.sender.send(b"")
        there.sender.send(b'\n \n{"n":3}\n')
        await there.stored(3)
        script = (
            "import os, socket, sys\n"
            "sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
            "sender.connect(sys.argv[1])\n"
            "os.getuid() or os.setresuid(1234, 1234, 1234)\n"
            "sender.send(b'{\"n\":4}')\n"
            "print(os.getpid(), flush=True)\n"
            "sys.stdin.read()\n"
        )
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", script, os.fspath(there.path)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        assert child.stdin is not None
        pid = int(await child.stdout.readline())
        await there.stored(4)
        child.stdin.close()
        assert await child.wait() == 0
        *own, other = there.records()
        assert [record["n"] for record in own] == [1, 2, 3]
        assert {(record["_pid"], record["_uid"]) for record in own} == {(os.getpid(), os.getuid())}
        assert own[0]["_comm"]
        assert (other["_pid"], other["_uid"]) == (pid, os.getuid() or 1234)
        data = there.served.data / STREAM
        headers = [read_header(data, first) for first in list_segments(data)]
        assert all(numbers_in(header) == {} for header in headers)  # a datagram has no producer


@pytest.mark.parametrize(("kept_s", "looks"), [(3600, 1), (0, 10)])
async def test_a_process_is_looked_up_again_after_a_while_and_not_for_each_datagram(
    root: Path, kept_s: float, looks: int
) -> None:
    with (
        patch.object(datagrams, "_SENDERS_KEPT_S", kept_s),
        patch.object(datagrams, "sender_of", wraps=sender_of) as looking,
    ):
        async with receiving(root) as there:
            for number in range(1, 11):
                there.sender.send(numbered(number, number))
                await there.stored(number)
            assert looking.call_count == looks


async def test_of_datagrams_that_waited_together_each_is_its_own_senders(root: Path) -> None:
    async with receiving(root) as there:
        send = (
            "import socket, sys\n"
            "sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
            "sender.sendto(sys.argv[2].encode(), sys.argv[1])\n"
        )
        for number in range(1, 5):
            # The server has no turn of the loop in between, so that it finds them all.
            if number % 2:
                there.sender.send(numbered(number, number))
            else:
                subprocess.run(  # noqa: ASYNC221
                    [sys.executable, "-c", send, os.fspath(there.path), f'{{"n":{number}}}'],
                    check=True,
                )
        await there.stored(4)
        assert there.numbers() == [1, 2, 3, 4]
        is_own = [record["_pid"] == os.getpid() for record in there.records()]
        assert is_own == [True, False, True, False]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may send the credentials of others")
async def test_what_root_says_of_a_sender_is_believed(root: Path) -> None:
    async with receiving(root) as there:
        credentials = struct.pack("3i", os.getppid(), 77, 88)
        there.sender.sendmsg(
            [b'{"n":1}'], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, credentials)]
        )
        await there.stored(1)
        (record,) = there.records()
        assert (record["_pid"], record["_uid"], record["_gid"]) == (os.getppid(), 77, 88)


async def test_descriptors_that_are_sent_along_are_not_kept(root: Path) -> None:
    async with receiving(root) as there:
        there.sender.send(numbered(1, 1))
        await there.stored(1)
        await there.served.committer.drained()
        before = len(os.listdir("/proc/self/fd"))
        for number in range(2, 20):
            there.sender.sendmsg(
                [numbered(number, number)],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))],
            )
            await there.stored(number)
        # What commits open is closed again after them.
        await there.served.until(lambda: len(os.listdir("/proc/self/fd")) <= before)


async def test_while_a_stream_fails_its_senders_are_held_up_and_nothing_is_lost(
    root: Path,
) -> None:
    async with receiving(root, max_record=64, max_pending=2000, max_pending_stream=1000) as there:
        there.sender.send(numbered(1, 1))
        await there.stored(1)
        there.served.disk.failing = f"/{STREAM}"
        last = await there.send_until_held_up(2)
        assert there.served.server.admission.paused == 1
        # Others are served meanwhile.
        client = await there.served.connect()
        await client.hello(stream="app")
        await client.send(numbered(1, 1))
        await client.acked(1)
        there.served.disk.failing = ""
        await there.stored(last)
        assert there.numbers() == list(range(1, last + 1))


async def test_while_the_memory_is_full_senders_are_held_up_and_nothing_is_lost(
    root: Path,
) -> None:
    async with receiving(root, max_record=64, max_pending=2000, max_pending_stream=2000) as there:
        there.served.disk.hold()
        last = await there.send_until_held_up(1)
        # By no more than what lies in the kernel's queue is more taken than the limit allows.
        assert there.served.server.admission.pending_bytes < 2000 + 64 * 200
        there.served.disk.go_on()
        await there.stored(last)
        assert there.numbers() == list(range(1, last + 1))


async def test_a_socket_that_holds_nothing_is_never_elected(root: Path) -> None:
    async with receiving(
        root, max_record=60_000, max_pending=200_000, max_pending_stream=100_000, stall_timeout=30
    ) as there:
        halves = [await there.served.connect() for _ in range(8)]
        for client in halves:
            await client.hello()
            await client.send(b"h" * 30_000)
        admission = there.served.server.admission
        await there.served.until(lambda: bool(admission.elected))
        # Whole records may be read where parts of others fill the memory.
        there.sender.send(numbered(1, 1))
        await there.stored(1)
        assert not isinstance(admission.elected, DatagramSocket)
        for client in halves:
            await client.send(b"\n")
            await client.acked(1)


async def test_a_quota_that_blocks_holds_up_the_socket_until_there_are_tokens(
    root: Path,
) -> None:
    quotas = Quotas(QuotaConfig(), QuotaConfig(records_per_s=5), {}, {})
    async with receiving(root, quotas=quotas) as there:
        last = await there.send_until_held_up(1)
        assert last < 50
        await there.stored(last)
        assert there.numbers() == list(range(1, last + 1))


async def test_what_is_over_a_quota_that_drops_is_dropped_and_reported(root: Path) -> None:
    quotas = Quotas(QuotaConfig(records_per_s=1, burst=5, over="drop"), QuotaConfig(), {}, {})
    async with receiving(root, quotas=quotas, report_dropped_every=0.01) as there:
        there.sender.send(numbered(1, 9))
        await there.stored(6)
        assert there.numbers() == [1, 2, 3, 4, 5]
        assert there.records()[-1]["records"] == 4
        assert there.records()[-1]["uid"] == os.getuid()


async def test_a_datagram_that_is_too_long_is_refused_and_the_next_one_taken(root: Path) -> None:
    async with receiving(root, max_record=1000) as there:
        there.sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * RECEIVE_BYTES)
        line = b"x" * 99 + b"\n"
        longest = line * (RECEIVE_BYTES // 100)
        for data, outcome in [
            (longest + b"y" * (RECEIVE_BYTES - len(longest)), len(longest) // 100 + 1),
            (line * (RECEIVE_BYTES // 100 + 1), 0),
            (b"z" * 1001 + b"\n" + b"z" * 1000, 1),
        ]:
            before = len(there.records())
            try:
                there.sender.send(data)
            except OSError as error:
                assert error.errno == errno.EMSGSIZE  # noqa: PT017
                pytest.skip("the kernel lets nobody send such a datagram here")
            there.sender.send(b"next")
            await there.stored(before + outcome + 1)
            assert len(there.records()) == before + outcome + 1
            assert there.records()[-1]["message"] == "next"
        assert there.served.server.totals.refused == 2
        assert there.served.server.arrivals.datagrams == 6


async def test_a_fault_in_one_datagram_loses_that_one_only(root: Path) -> None:
    async with receiving(root) as there:
        with patch.object(there.served.server.arrivals, "timestamp", side_effect=ZeroDivisionError):
            there.sender.send(numbered(1, 1))
            await there.served.until(lambda: there.served.server.arrivals.datagrams == 1)
        there.sender.send(numbered(2, 2))
        await there.stored(1)
        assert there.numbers() == [2]


async def test_reading_goes_on_after_the_kernel_was_out_of_memory(root: Path) -> None:
    failed = asyncio.Event()

    def fail(*_: Any) -> Any:
        failed.set()
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    async with receiving(root) as there:
        with patch.object(socket.socket, "recvmsg_into", fail, create=True):
            there.sender.send(numbered(1, 1))
            await failed.wait()
        await there.stored(1)
        assert there.numbers() == [1]


async def test_a_stop_takes_what_is_in_the_kernels_queue_and_nobody_sends_more(
    root: Path,
) -> None:
    async with receiving(root) as there:
        there.sender.send(numbered(1, 1))
        await there.stored(1)
        # Sent, and the server has had no turn of the loop to see it.
        for number in range(2, 8):
            there.sender.send(numbered(number, number))
        await there.served.server.stop()
        assert there.numbers() == list(range(1, 8))
        with pytest.raises(OSError, match=r"Broken pipe|refused"):
            there.sender.send(numbered(8, 8))


async def test_a_stop_waits_for_what_is_in_the_queue_of_a_failing_stream(root: Path) -> None:
    async with receiving(root, max_record=64, max_pending=2000, max_pending_stream=1000) as there:
        there.served.disk.failing = f"/{STREAM}"
        last = await there.send_until_held_up(1)
        stop = asyncio.ensure_future(there.served.server.stop())
        await asyncio.sleep(A_MOMENT_S)
        assert not stop.done()
        there.served.disk.failing = ""
        await stop
        assert there.numbers() == list(range(1, last + 1))


async def test_a_stop_leaves_the_queue_of_an_inherited_socket_to_the_next_daemon(
    root: Path,
) -> None:
    async with receiving(root, inherited=True) as there:
        with contextlib.closing(there.listener.dup()) as kept:
            there.sender.send(numbered(1, 1))
            await there.stored(1)
            there.sender.send(numbered(2, 2))
            await there.served.server.stop()
            assert there.numbers() == [1]
            assert kept.recv(100) == numbered(2, 2)


def test_a_datagram_socket_is_replaced_where_nobody_reads_it_and_else_left_alone(
    root: Path,
) -> None:
    path = root / "socket"
    bind_listener(path, 0o600, "datagram").close()
    with contextlib.closing(bind_listener(path, 0o600, "datagram")):
        for transport in ("datagram", "stream"):
            with pytest.raises(ConfigError, match="listens there already"):
                bind_listener(path, 0o600, transport)
    bind_listener(path, 0o600).close()
    with (
        contextlib.closing(bind_listener(path, 0o600)),
        pytest.raises(ConfigError, match="listens there already"),
    ):
        bind_listener(path, 0o600, "datagram")


async def test_a_socket_that_drops_holds_up_nobody_and_reports_what_is_missing(root: Path) -> None:
    async with receiving(root, drops=True, report_dropped_every=0.05) as there:
        there.sender.send(b'{"n":1}')
        await there.stored(1)
        disk, totals = there.served.disk, there.served.server
        disk.failing = STREAM
        there.sender.send(b'{"n":2}')
        await there.served.until(there.served.committer.failing)
        sent = 0
        while sent < 200:
            with contextlib.suppress(BlockingIOError):
                there.sender.send(b'{"n":3}')
                sent += 1
            await asyncio.sleep(0)
        await there.served.until(lambda: status_of(there).totals.dropped_datagrams == 200)
        assert totals.admission.paused == 0
        disk.failing = ""
        await there.stored(3)
        assert there.numbers() == [1, 2]
        report = there.records()[-1]
        assert {key: report[key] for key in ("event", "reason", "uid", "datagrams", "bytes")} == {
            "event": "datagrams_dropped",
            "reason": "no_room",
            "uid": os.getuid(),
            "datagrams": 200,
            "bytes": 1400,
        }
        there.sender.send(b'{"n":4}')
        await there.stored(4)


async def test_a_socket_that_drops_drops_nothing_at_a_stop(root: Path) -> None:
    async with receiving(root, drops=True) as there:
        there.sender.send(b'{"n":1}')
        await there.stored(1)
        there.served.disk.failing = STREAM
        there.sender.send(b'{"n":2}')
        await there.served.until(there.served.committer.failing)
        there.sender.send(b'{"n":3}')
        stopping = asyncio.create_task(there.served.server.stop())
        await asyncio.sleep(0)
        there.served.disk.failing = ""
        await stopping
        assert there.numbers() == [1, 2, 3]


async def test_a_socket_that_drops_drops_only_what_its_user_may_not_send(root: Path) -> None:
    blocks = QuotaConfig(records_per_s=RecordsPerSecond(1), burst=Duration(2))
    quotas = Quotas(QuotaConfig(), blocks, {}, {})
    async with receiving(root, quotas=quotas, drops=True) as there:
        for number in range(1, 6):
            there.sender.send(numbered(number, number))
        await there.served.until(lambda: there.served.server.arrivals.datagrams >= 2)
        await there.served.until(lambda: status_of(there).totals.dropped_datagrams)
        await there.served.server.stop()
        stored = there.numbers()
        assert stored[:2] == [1, 2]
        assert len(stored) + status_of(there).totals.dropped_datagrams == 5
