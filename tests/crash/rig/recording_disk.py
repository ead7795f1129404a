"""A disk that records every write and every flush, and is as slow and unordered as it may be.

A loop device on a file that a FUSE server of our own serves. The server is a process of its own:
one that uses its own mount waits for itself. It speaks the kernel's protocol directly, and its
file system has one file, which is its root.

The disk has a volatile cache. It completes some writes at once and holds others for a moment, so
that they overtake each other. A flush covers only writes that were completed before it arrived,
as the block layer requires of a disk, and no more.

The log is a sequence of events, each `EVENT` and, for a write, its bytes:

    W  a write arrived: from now on it may be on the disk
    C  it is complete: the next flush that arrives covers it
    F  a flush is complete, as of when it arrived
    X  a flush has failed: what it was to cover may be lost, or not

Sources: include/uapi/linux/fuse.h and loop.h, Documentation/block/writeback_cache_control.rst.
"""

import contextlib
import ctypes
import errno
import fcntl
import heapq
import os
import random
import select
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

# Kind, identifier, offset in bytes, number of bytes.
EVENT = struct.Struct("<cQQI")
ARRIVED, COMPLETED, FLUSHED, FLUSH_FAILED = b"W", b"C", b"F", b"X"

_HELD = 0.3  # of all writes
_HOLD_MAX_S = 0.004
_MAX_WRITE_BYTES = 1024 * 1024
_PAGE_BYTES = 4096

_IN_HEADER = struct.Struct("<IIQQIIIHH")
_OUT_HEADER = struct.Struct("<IiQ")
_INIT_IN = struct.Struct("<IIII")
_INIT_OUT = struct.Struct("<IIIIHHIIHHII24x")
_ATTRIBUTES = struct.Struct("<QQQQQQIIIIIIIIII")
_ATTRIBUTES_OUT = struct.Struct("<QII")
_OPEN_OUT = struct.Struct("<QIi")
_READ_IN = struct.Struct("<QQIIQII")
_WRITE_OUT = struct.Struct("<II")

_FORGET, _GETATTR, _SETATTR, _OPEN, _READ, _WRITE = 2, 3, 4, 14, 15, 16
_RELEASE, _FSYNC, _FLUSH, _INIT, _INTERRUPT, _DESTROY, _BATCH_FORGET = 18, 20, 25, 26, 36, 38, 42
_WITHOUT_ANSWER = {_FORGET, _BATCH_FORGET, _INTERRUPT}

_ASYNC_READ, _BIG_WRITES, _ASYNC_DIRECT_IO, _MAX_PAGES = 1 << 0, 1 << 5, 1 << 15, 1 << 22
_ROOT = 1

_DETACH = 2  # MNT_DETACH

_LOOP_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A
_LOOP_AUTOCLEAR, _LOOP_DIRECT_IO = 4, 16
_LOOP_CONFIG_BYTES, _LOOP_FLAGS_AT = 304, 60

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: Path, kind: str, options: str) -> None:
    """mount(2). Raises `OSError`."""
    arguments = (source.encode(), bytes(target), kind.encode())
    if _libc.mount(*arguments, ctypes.c_ulong(0), options.encode()):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"{kind} at {target}")


def unmount(target: Path) -> None:
    """umount(2); waits a moment for whoever is still about to leave. Raises `OSError`."""
    for attempt in range(1000):
        if not _libc.umount2(bytes(target), 0):
            return
        number = ctypes.get_errno()
        if number != errno.EBUSY or attempt == 999:
            raise OSError(number, os.strerror(number), str(target))
        time.sleep(0.01)


@contextlib.contextmanager
def recording_disk(image: Path, log: Path, seed: int, failing_flush: int = 0) -> Iterator[str]:
    """The path of a loop device on `image`, whose writes and flushes go to `log` too.

    The flush of that number fails, if it is not 0; those after it succeed.
    """
    mounted = image.with_suffix(".recorded")
    mounted.touch()
    command = [sys.executable, "-m", __name__, str(image), str(mounted), str(log), str(seed)]
    command.append(str(failing_flush))
    server = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n", "the FUSE server does not start"
        try:
            with loop_device(mounted, direct=True) as device:
                yield device
        finally:
            _libc.umount2(bytes(mounted), _DETACH)
    finally:
        # Another process may hold the disk, in a copy of the mounts: what it still asks for fails.
        server.kill()
        server.communicate()


@contextlib.contextmanager
def loop_device(file: Path, *, direct: bool = False) -> Iterator[str]:
    """The path of a new loop device on a file; `direct` bypasses the page cache of the file.

    It goes with its last user, even if that is a killed process.
    """
    configuration = bytearray(_LOOP_CONFIG_BYTES)
    backing = os.open(file, os.O_RDWR)
    try:
        struct.pack_into("<I", configuration, 0, backing)
        flags = _LOOP_AUTOCLEAR | (_LOOP_DIRECT_IO if direct else 0)
        struct.pack_into("<I", configuration, _LOOP_FLAGS_AT, flags)
        path, device = _free_loop_device(bytes(configuration))
    finally:
        os.close(backing)
    try:
        yield path
    finally:
        os.close(device)


def _free_loop_device(configuration: bytes) -> tuple[str, int]:
    control = os.open("/dev/loop-control", os.O_RDWR)
    try:
        while True:
            path = f"/dev/loop{fcntl.ioctl(control, _LOOP_GET_FREE)}"
            device = os.open(path, os.O_RDWR)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, configuration)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # somebody else was quicker
                    raise
            else:
                return path, device
    finally:
        os.close(control)


class _Server:
    """Answers the kernel's requests for one file."""

    def __init__(
        self, connection: int, image: int, log: int, seed: int, failing_flush: int
    ) -> None:
        self._connection = connection
        self._image = image
        self._log = log
        self._source = random.Random(seed)
        self._size_bytes = os.fstat(image).st_size
        # When each held write is due, its number and the kernel's number of the request.
        self._held: list[tuple[float, int, int, int]] = []
        self._writes = 0
        self._flushes_left = failing_flush
        self._goes_on = True

    def serve(self) -> None:
        """Serves until the file system is unmounted."""
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        while self._goes_on:
            timeout_ms = None
            if self._held:
                timeout_ms = max(0.0, self._held[0][0] - time.monotonic()) * 1000
            poll.poll(timeout_ms)
            self._take()
            while self._held and self._held[0][0] <= time.monotonic():
                _, number, unique, size = heapq.heappop(self._held)
                self._complete(number, unique, size)

    def _take(self) -> None:
        """Takes all requests that are there: they are under way at the same time."""
        flushes = []
        while True:
            try:
                request = os.read(self._connection, _MAX_WRITE_BYTES + _PAGE_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINTR):
                    continue  # the request was withdrawn
                if error.errno == errno.ENODEV:
                    self._goes_on = False
                    break
                raise
            _, operation, unique, *_ = _IN_HEADER.unpack_from(request)
            if operation == _FSYNC:
                flushes.append(unique)
            else:
                self._handle(operation, unique, memoryview(request)[_IN_HEADER.size :])
        if flushes:
            self._flushes_left -= 1
            has_failed = self._flushes_left == 0
            self._note(EVENT.pack(FLUSH_FAILED if has_failed else FLUSHED, 0, 0, 0))
            for unique in flushes:
                self._answer(unique, error=errno.EIO if has_failed else 0)

    def _handle(self, operation: int, unique: int, body: memoryview) -> None:
        if operation == _WRITE:
            self._write(unique, body)
        elif operation == _READ:
            _, offset, size, *_ = _READ_IN.unpack_from(body)
            self._answer(unique, os.pread(self._image, size, offset))
        elif operation in (_GETATTR, _SETATTR):
            self._answer(unique, _ATTRIBUTES_OUT.pack(3600, 0, 0) + self._attributes())
        elif operation == _OPEN:
            self._answer(unique, _OPEN_OUT.pack(0, 0, 0))
        elif operation == _INIT:
            self._answer(unique, self._welcome(body))
        elif operation in (_RELEASE, _FLUSH, _DESTROY):
            self._answer(unique)
        elif operation not in _WITHOUT_ANSWER:
            self._answer(unique, error=errno.ENOSYS)

    def _write(self, unique: int, body: memoryview) -> None:
        _, offset, size, *_ = _READ_IN.unpack_from(body)
        data = body[_READ_IN.size : _READ_IN.size + size]
        number = self._writes
        self._writes += 1
        self._note(EVENT.pack(ARRIVED, number, offset, size) + data)
        os.pwrite(self._image, data, offset)
        held_s = self._source.uniform(0, _HOLD_MAX_S) if self._source.random() < _HELD else 0
        # What is not held still waits until the requests that came with it have been taken.
        heapq.heappush(self._held, (time.monotonic() + held_s, number, unique, size))

    def _complete(self, number: int, unique: int, size: int) -> None:
        self._note(EVENT.pack(COMPLETED, number, 0, 0))
        self._answer(unique, _WRITE_OUT.pack(size, 0))

    def _note(self, event: bytes) -> None:
        assert os.write(self._log, event) == len(event)

    def _answer(self, unique: int, data: bytes = b"", error: int = 0) -> None:
        header = _OUT_HEADER.pack(_OUT_HEADER.size + len(data), -error, unique)
        with contextlib.suppress(FileNotFoundError):  # the request was withdrawn
            os.write(self._connection, header + data)

    def _welcome(self, body: memoryview) -> bytes:
        major, _, readahead_bytes, offered = _INIT_IN.unpack_from(body)
        flags = offered & (_ASYNC_READ | _BIG_WRITES | _ASYNC_DIRECT_IO | _MAX_PAGES)
        pages = _MAX_WRITE_BYTES // _PAGE_BYTES
        limits = (64, 48, _MAX_WRITE_BYTES, 1, pages, 0, 0, 0)
        return _INIT_OUT.pack(major, 31, readahead_bytes, flags, *limits)

    def _attributes(self) -> bytes:
        blocks = self._size_bytes // 512
        mode = stat.S_IFREG | 0o600
        return _ATTRIBUTES.pack(
            _ROOT, self._size_bytes, blocks, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, _PAGE_BYTES, 0
        )


def _main(image: str, mounted: str, log: str, seed: str, failing_flush: str) -> None:
    connection = os.open("/dev/fuse", os.O_RDWR | os.O_NONBLOCK)
    options = f"fd={connection},rootmode={stat.S_IFREG | 0o600:o},user_id=0,group_id=0"
    mount("recording-disk", Path(mounted), "fuse", options)
    print("ready", flush=True)
    log_descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    image_descriptor = os.open(image, os.O_RDWR)
    _Server(connection, image_descriptor, log_descriptor, int(seed), int(failing_flush)).serve()


if __name__ == "__main__":
    _main(*sys.argv[1:])
