"""Descriptors that are passed along with datagrams: which are read, and that none is kept."""

import array
import contextlib
import errno
import fcntl
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from structlog.testing import capture_logs

from logengine.errors import MalformedInput
from logengine.intake.context import RECEIVE_BYTES
from logengine.intake.memory_files import CLOSING_MAX, MemoryFiles
from logengine.intake.quota import QuotaConfig, Quotas
from logengine.protocols.journal import PROTOCOL
from tests.server.test_datagrams import STREAM, Receiving, receiving, status_of

SEALS = {
    "F_SEAL_SEAL": fcntl.F_SEAL_SEAL,
    "F_SEAL_SHRINK": fcntl.F_SEAL_SHRINK,
    "F_SEAL_GROW": fcntl.F_SEAL_GROW,
    "F_SEAL_WRITE": fcntl.F_SEAL_WRITE,
}
ALL_SEALS = sum(SEALS.values())


def memory_file(content: bytes, seals: int = ALL_SEALS, *, size_bytes: int | None = None) -> int:
    descriptor = os.memfd_create("entry", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    os.write(descriptor, content)
    if size_bytes is not None:
        os.ftruncate(descriptor, size_bytes)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def pass_along(sender: socket.socket, descriptors: list[int], payload: bytes = b"") -> None:
    """Sends a datagram with these descriptors, and closes our own."""
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
    sender.sendmsg([payload], [rights])
    for descriptor in descriptors:
        os.close(descriptor)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def is_taken(there: Receiving) -> None:
    """Returns when all that was sent so far was taken, by the record that comes after it."""
    before = len(there.records())
    there.sender.send(b"MESSAGE=after it\n")
    await there.served.until(
        lambda: [r.get("message") for r in there.records()[before:]][-1:] == ["after it"]
    )


@pytest.mark.parametrize("size_bytes", [10, 300_000, 900_000])
async def test_a_sealed_memory_file_is_read_whatever_its_size(root: Path, size_bytes: int) -> None:
    async with receiving(root, protocol=PROTOCOL, max_record=1_000_000) as there:
        text = "é" + "x" * (size_bytes - 2)
        pass_along(there.sender, [memory_file(f"MESSAGE={text}\nPRIORITY=3\n".encode())])
        await there.stored(1)
        (record,) = there.records()
        assert (record["message"], record["level"]) == (text, "error")
        assert (record["_pid"], record["_uid"]) == (os.getpid(), os.getuid())
        assert there.served.server.totals.refused == 0


async def test_a_memory_file_that_there_is_no_room_for_is_dropped_with_its_size_and_not_read(
    root: Path,
) -> None:
    content = b"MESSAGE=" + b"x" * 500_000 + b"\n"
    async with receiving(root, protocol=PROTOCOL, drops=True, report_dropped_every=0.05) as there:
        await is_taken(there)
        there.served.disk.failing = STREAM
        there.sender.send(b"MESSAGE=waits\n")
        await there.served.until(there.served.committer.failing)
        before = open_descriptors()
        with patch.object(os, "preadv") as read:
            for _ in range(3):
                pass_along(there.sender, [memory_file(content)])
            await there.served.until(lambda: status_of(there).totals.dropped_datagrams == 3)
        read.assert_not_called()
        # A commit that is tried again has some open for a moment.
        await there.served.until(lambda: open_descriptors() <= before)
        there.served.disk.failing = ""
        await there.stored(3)
        assert there.records()[1]["message"] == "waits"
        assert (there.records()[2]["datagrams"], there.records()[2]["bytes"]) == (
            3,
            3 * len(content),
        )


async def test_more_seals_than_needed_are_no_fault(root: Path) -> None:
    async with receiving(root, protocol=PROTOCOL) as there:
        f_seal_future_write = 0x10
        pass_along(there.sender, [memory_file(b"MESSAGE=a\n", ALL_SEALS | f_seal_future_write)])
        await there.stored(1)


async def test_an_empty_datagram_and_an_empty_memory_file_are_no_record(root: Path) -> None:
    async with receiving(root, protocol=PROTOCOL) as there:
        there.sender.send(b"")
        pass_along(there.sender, [memory_file(b"")])
        await is_taken(there)
        assert len(there.records()) == 1
        assert there.served.server.totals.refused == 0


def opened(path: Path, flags: int) -> int:
    path.write_bytes(b"MESSAGE=from a file\n")
    return os.open(path, flags)


def pipe_end() -> int:
    reading, writing = os.pipe()
    os.close(writing)
    return reading


def socket_end() -> int:
    one, other = socket.socketpair()
    other.close()
    return one.detach()


def file_in(directory: str) -> int:
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        file.write(b"MESSAGE=a\n")
        file.flush()
        return os.dup(file.fileno())


def write_only() -> int:
    # Without the seals that forbid it, it can be opened for writing alone.
    descriptor = os.memfd_create("entry", os.MFD_ALLOW_SEALING)
    os.write(descriptor, b"MESSAGE=a\n")
    writing = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, ALL_SEALS)
    os.close(descriptor)
    return writing


REFUSED = {
    **{
        f"no {name}": (
            lambda seal=seal: memory_file(b"MESSAGE=a\n", ALL_SEALS & ~seal),  # type: ignore[misc]
            f"has no {name}; expected F_SEAL_SEAL",
        )
        for name, seal in SEALS.items()
    },
    "no seals at all": (lambda: memory_file(b"MESSAGE=a\n", 0), "has no F_SEAL_SEAL, F_SEAL_S"),
    "not open for reading": (write_only, "cannot be read: Bad file descriptor"),
    "a pipe": (pipe_end, "not one of a memory file"),
    "a socket": (socket_end, "not one of a memory file"),
    "a directory": (lambda: os.open("/", os.O_RDONLY), "not one of a memory file"),
    "only a path": (lambda: os.open("/", os.O_PATH), "not one of a memory file"),
    "a device": (lambda: os.open("/dev/zero", os.O_RDONLY), "not one of a memory file"),
    # journald reads these.
    "a file in /dev/shm": (lambda: file_in("/dev/shm"), "the "),
    "a file in /tmp": (lambda: file_in("/tmp"), "the "),
}


@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED)
async def test_another_descriptor_is_refused_counted_and_closed(
    root: Path, make: object, reason: str
) -> None:
    assert callable(make)
    async with receiving(root, protocol=PROTOCOL) as there:
        await is_taken(there)
        await there.served.committer.drained()
        before = open_descriptors()
        with capture_logs() as logged:
            pass_along(there.sender, [make()])
            await is_taken(there)
        (line,) = [line for line in logged if line["event"] == "memory_file_refused"]
        assert reason in line["reason"]
        assert line["pid"] == os.getpid()
        assert there.served.server.totals.refused == 1
        assert there.served.server.arrivals.datagrams == 3
        assert len(there.records()) == 2
        await there.served.until(lambda: open_descriptors() <= before)


async def test_a_memory_file_that_is_too_large_is_refused_unread(root: Path) -> None:
    async with receiving(root, protocol=PROTOCOL, max_record=1000) as there:
        content = b"MESSAGE=a\n\n" + b"MESSAGE=" + b"x" * 2000 + b"\n\n"
        exact = content + b"\n" * (RECEIVE_BYTES - len(content))
        pass_along(there.sender, [memory_file(exact)])  # it has a record that is too large
        pass_along(there.sender, [memory_file(exact + b"\n")])
        pass_along(there.sender, [memory_file(b"MESSAGE=a\n", size_bytes=8 * 1024 * 1024)])
        pass_along(there.sender, [memory_file(b"MESSAGE=a\n", size_bytes=1 << 50)])
        await is_taken(there)
        assert [record["message"] for record in there.records()] == ["a", "after it"]
        assert there.served.server.totals.refused == 4


@pytest.mark.parametrize("count", [2, 3, 253])
async def test_of_several_descriptors_none_is_read_and_none_is_kept(root: Path, count: int) -> None:
    async with receiving(root, protocol=PROTOCOL) as there:
        await is_taken(there)
        await there.served.committer.drained()
        before = open_descriptors()
        for _ in range(20):
            pass_along(there.sender, [memory_file(b"MESSAGE=a\n") for _ in range(count)])
            await is_taken(there)
        assert there.served.server.totals.refused == 20
        assert {record["message"] for record in there.records()} == {"after it"}
        await there.served.until(lambda: open_descriptors() <= before)


async def test_the_content_of_a_datagram_counts_and_what_is_passed_along_is_closed(
    root: Path,
) -> None:
    async with receiving(root, protocol=PROTOCOL) as there:
        await is_taken(there)
        await there.served.committer.drained()
        before = open_descriptors()
        for count in (1, 2, 5):
            files = [memory_file(b"MESSAGE=of the file\n") for _ in range(count)]
            pass_along(there.sender, [*files, pipe_end()], b"MESSAGE=of the datagram\n")
        await is_taken(there)
        messages = [record["message"] for record in there.records()]
        assert messages == ["after it", *["of the datagram"] * 3, "after it"]
        assert there.served.server.totals.refused == 0
        await there.served.until(lambda: open_descriptors() <= before)


async def test_where_there_are_quotas_a_memory_file_is_of_its_sender_too(root: Path) -> None:
    quotas = Quotas(QuotaConfig(), QuotaConfig(records_per_s=1000), {}, {})
    async with receiving(root, protocol=PROTOCOL, quotas=quotas) as there:
        await is_taken(there)
        await there.served.committer.drained()
        before = open_descriptors()
        for _ in range(5):
            pass_along(there.sender, [memory_file(b"MESSAGE=a\n")])
            pass_along(there.sender, [pipe_end()])
        await is_taken(there)
        assert len(there.records()) == 7
        assert there.served.server.totals.refused == 5
        await there.served.committer.drained()
        await there.served.until(lambda: open_descriptors() <= before)


async def test_a_stop_reads_the_memory_files_that_wait(root: Path) -> None:
    async with receiving(root, protocol=PROTOCOL) as there:
        for _ in range(5):
            pass_along(there.sender, [memory_file(b"MESSAGE=a\n")])
        await there.served.server.stop()
        assert [record["message"] for record in there.records()] == ["a"] * 5


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        yield one, other


def receive(receiving: socket.socket, files: MemoryFiles) -> int:
    buffer = memoryview(bytearray(1000))
    size_bytes, ancillary, flags, _ = receiving.recvmsg_into([buffer], files.ancillary_bytes)
    return files.take(ancillary, flags, size_bytes, buffer)


def test_closing_that_blocks_blocks_nobody_and_is_bounded(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    sender, receiver = pair
    files = MemoryFiles(receiver)
    may_close = threading.Event()
    close, closed = os.close, []

    def slow_close(descriptor: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            may_close.wait()
            closed.append(descriptor)
        close(descriptor)

    with patch.object(os, "close", slow_close):
        # As a file of a file system that never answers.
        refused = CLOSING_MAX - 1  # two may come with a datagram
        for _ in range(refused):
            assert files.ancillary_bytes
            pass_along(sender, [pipe_end()])
            with pytest.raises(MalformedInput, match="not one of a memory file"):
                receive(receiver, files)
        assert not files.ancillary_bytes
        # From here on no descriptor is received, and so none is kept.
        pass_along(sender, [memory_file(b"MESSAGE=a\n")])
        with pytest.raises(MalformedInput, match="not every descriptor"):
            receive(receiver, files)
        sender.send(b"MESSAGE=a\n")
        assert receive(receiver, files) == len(b"MESSAGE=a\n")
        assert closed == []
        may_close.set()
        for thread in threading.enumerate():
            if thread.name == "close-passed":
                thread.join()
        assert len(closed) == refused
        pass_along(sender, [memory_file(b"MESSAGE=a\n")])
        assert receive(receiver, files) == len(b"MESSAGE=a\n")


def test_without_a_thread_a_descriptor_is_closed_all_the_same(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    sender, receiver = pair
    files = MemoryFiles(receiver)
    before = open_descriptors()
    pass_along(sender, [pipe_end()])
    with (
        patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start")),
        pytest.raises(MalformedInput),
    ):
        receive(receiver, files)
    assert open_descriptors() == before


def test_a_memory_file_that_ends_too_soon_is_refused(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    sender, receiver = pair
    files = MemoryFiles(receiver)
    before = open_descriptors()
    for fault, reason in (
        ({"return_value": 0}, "ends after 0 of 10 bytes"),
        ({"side_effect": OSError(errno.EIO, os.strerror(errno.EIO))}, "cannot be read: Input/"),
    ):
        pass_along(sender, [memory_file(b"MESSAGE=a\n")])
        with (
            patch.object(os, "preadv", **fault),
            pytest.raises(MalformedInput, match=reason),
        ):
            receive(receiver, files)
    assert open_descriptors() == before


def test_what_systemd_lets_the_kernel_add_takes_no_room_and_is_not_kept(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    sender, receiver = pair
    so_passsec, so_passpidfd = 34, 76
    for option in (so_passsec, so_passpidfd):
        with contextlib.suppress(OSError):
            receiver.setsockopt(socket.SOL_SOCKET, option, 1)
    files = MemoryFiles(receiver)
    before = open_descriptors()
    for _ in range(5):
        pass_along(sender, [memory_file(b"MESSAGE=a\n")])
        assert receive(receiver, files) == len(b"MESSAGE=a\n")
        sender.send(b"MESSAGE=a\n")
        assert receive(receiver, files) == len(b"MESSAGE=a\n")
    assert open_descriptors() == before
