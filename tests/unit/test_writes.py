import errno
import fcntl
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from logengine.disk import writes
from logengine.disk.writes import write_all, write_all_directly

MiB = 1024 * 1024


@pytest.fixture
def descriptor(disk_root: Path) -> Iterator[int]:
    # Files in memory take direct writes of any size, from any place.
    opened = os.open(disk_root / "file", os.O_RDWR | os.O_CREAT)
    yield opened
    os.close(opened)


def content(descriptor: int) -> bytes:
    return os.pread(descriptor, 100 * MiB, 0)


def drawn(*sizes: int) -> list[bytes]:
    source = random.Random(str(sizes))
    return [source.randbytes(size) for size in sizes]


@pytest.mark.parametrize("write", [write_all, write_all_directly])
@pytest.mark.parametrize(
    "sizes",
    [
        (),
        (0,),
        (1,),
        (4095,),
        (4096,),
        (4097, 0, 1),
        (MiB,),
        (MiB - 1, 2),
        (100, MiB, 3 * MiB + 5, 4096, 7),
        (300_000,) * 12,
    ],
)
def test_all_of_the_buffers_is_written_in_order(write, sizes, descriptor: int) -> None:
    buffers = drawn(*sizes)
    assert write(descriptor, buffers) == sum(sizes)
    assert content(descriptor) == b"".join(buffers)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Of each write how many bytes it was given, and whether it went past the cache."""
    noted = []
    real = os.write

    def write(descriptor: int, data: memoryview) -> int:
        noted.append((len(data), bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT)))
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    return noted


def test_what_fills_whole_blocks_goes_past_the_cache(
    descriptor: int, seen: list[tuple[int, bool]]
) -> None:
    write_all_directly(descriptor, drawn(MiB, MiB + 5000))
    assert seen == [(MiB, True), (MiB, True), (4096, True)]
    assert not fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT


def test_whoever_may_rest_between_writes_has_them_in_smaller_pieces(
    descriptor: int, seen: list[tuple[int, bool]]
) -> None:
    rests: list[tuple[int, int]] = []
    buffers = drawn(MiB, 4096)
    write_all_directly(descriptor, buffers, lambda count: rests.append((len(seen), count)))
    assert seen == [(MiB // 8, True)] * 8 + [(4096, True)]
    assert rests == [(number, count) for number, (count, _) in enumerate(seen, 1)]
    assert content(descriptor) == b"".join(buffers)


def test_a_file_system_without_direct_writes_gets_others(
    descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int, command: int, _flags: int = 0) -> int:
        if command == fcntl.F_SETFL:
            raise OSError(errno.EINVAL, "no O_DIRECT")
        return 0

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    buffers = drawn(MiB, 5)
    assert write_all_directly(descriptor, buffers) == MiB + 5
    assert content(descriptor) == b"".join(buffers)


@pytest.mark.parametrize("taken", [0, 4096, 5000, MiB - 1])
def test_what_a_direct_write_does_not_take_goes_through_the_cache(
    taken: int, descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(descriptor: int, data: memoryview) -> int:
        if not taken:
            raise OSError(errno.EINVAL, "not at this border")
        monkeypatch.undo()
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        return os.write(descriptor, data[:taken])

    monkeypatch.setattr(os, "write", write)
    buffers = drawn(3 * MiB + 77)
    assert write_all_directly(descriptor, buffers) == 3 * MiB + 77
    assert content(descriptor) == b"".join(buffers)


def test_an_error_of_the_disk_is_raised(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int, _data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(OSError, match="full"):
        write_all_directly(descriptor, drawn(MiB))


def test_threads_do_not_share_what_they_stage(tmp_path: Path) -> None:
    def write(number: int) -> bool:
        buffers = drawn(700_000 + number, 2 * MiB)
        opened = os.open(tmp_path / str(number), os.O_RDWR | os.O_CREAT)
        try:
            write_all_directly(opened, buffers)
            return content(opened) == b"".join(buffers)
        finally:
            os.close(opened)

    with ThreadPoolExecutor(4) as executor:
        assert all(executor.map(write, range(24)))


def test_staging_areas_are_used_again(descriptor: int) -> None:
    write_all_directly(descriptor, drawn(1))
    before = len(writes._staging_areas)
    for _ in range(5):
        write_all_directly(descriptor, drawn(1))
    assert len(writes._staging_areas) == before
