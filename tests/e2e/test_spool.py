"""A client's spool that the disk does not give just now, or from which somebody took something."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from logengine import AsyncClient, Client, LogEngineHandler, NotDurable
from tests.bad_disk import bad_sector
from tests.daemon import Daemon, eventually

PATIENCE_S = 30.0
EACH = 10


def numbers(daemon: Daemon) -> list[int]:
    return [value["n"] for value in daemon.values("app") if "n" in value]


def options(root: Path, **others: Any) -> dict[str, Any]:
    return {"spool": root / "spool", "producer": "w", "close_timeout": 0} | others


def left_by(root: Path, *starts: int) -> list[Path]:
    """The spool of processes that found no daemon: a segment of ten records for each of them."""
    for start in starts:
        with Client("app", socket=root / "socket", **options(root)) as client:
            for n in range(start, start + EACH):
                client.send({"n": n, "text": f"text-{n}"})
    return segments(root)


def segments(root: Path) -> list[Path]:
    return sorted((root / "spool").glob("*/app/*.ndjson"))


def state_of(root: Path) -> Path:
    (path,) = (root / "spool").glob("*/spool.json")
    return path


@pytest.fixture
def later(root: Path) -> Iterator[Daemon]:
    """A daemon that a test starts when it is to come back."""
    daemon = Daemon(root)
    with contextlib.closing(daemon):
        yield daemon


class Said:
    """What was written to standard error so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def __call__(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    return Said(capsys)


@pytest.mark.parametrize("bad", [0, 1, 2], ids=["oldest", "middle", "newest"])
def test_a_segment_that_cannot_be_read_is_waited_for_and_sent_in_its_place(
    root: Path, later: Daemon, said: Said, bad: int
) -> None:
    segment = left_by(root, 1, 11, 21)[bad]
    later.start()
    with contextlib.ExitStack() as disk:
        disk.enter_context(bad_sector(segment))
        with Client("app", socket=later.socket, **options(root)) as client:
            client.send({"n": 31})
            eventually(lambda: "cannot be read" in said(), "the error to be said")
            eventually(lambda: len(numbers(later)) == EACH * bad, "those before it")
            with pytest.raises(NotDurable, match="Input/output error"):
                client.flush(2.5)  # two more tries
            assert numbers(later) == list(range(1, EACH * bad + 1))
            client.send({"n": 32})
            disk.close()
            client.flush(PATIENCE_S)
    assert numbers(later) == list(range(1, 33))
    assert said().count("cannot be read") == 1
    assert "damaged" not in said()
    assert not list((root / "spool").rglob(".damaged"))


async def test_an_asyncio_client_waits_for_what_cannot_be_read(
    root: Path, later: Daemon, said: Said
) -> None:
    _, middle, _ = left_by(root, 1, 11, 21)
    later.start()
    with contextlib.ExitStack() as disk:
        disk.enter_context(bad_sector(middle))
        async with AsyncClient("app", socket=later.socket, **options(root)) as client:
            await client.send({"n": 31})
            with pytest.raises(NotDurable, match="Input/output error"):
                await client.flush(2.5)
            assert numbers(later) == list(range(1, 11))
            disk.close()
            await client.flush(PATIENCE_S)
    assert numbers(later) == list(range(1, 32))
    assert said().count("cannot be read") == 1


def test_what_cannot_be_read_until_the_end_is_left_to_the_next_process(
    root: Path, later: Daemon, said: Said
) -> None:
    oldest, _ = left_by(root, 1, 11)
    later.start()
    with bad_sector(oldest), Client("app", socket=later.socket, **options(root)) as client:
        client.send({"n": 21})
        eventually(lambda: "cannot be read" in said(), "the error to be said")
    assert numbers(later) == []
    with Client("app", socket=later.socket, **options(root)) as client:
        client.flush(PATIENCE_S)
    assert numbers(later) == list(range(1, 22))


def test_a_full_memory_goes_to_the_spool_after_what_cannot_be_read(
    root: Path, later: Daemon, said: Said
) -> None:
    (segment,) = left_by(root, 1)
    later.start()
    some = options(root, max_records=20)
    with contextlib.ExitStack() as disk:
        disk.enter_context(bad_sector(segment))
        with Client("app", socket=later.socket, **some) as client:
            for n in range(11, 101):
                client.send({"n": n})
            assert numbers(later) == []
            disk.close()
            client.flush(PATIENCE_S)
            assert client.dropped == 0
    assert numbers(later) == list(range(1, 101))


def test_a_spool_whose_state_cannot_be_read_is_left_for_another_time(
    root: Path, later: Daemon, said: Said
) -> None:
    left_by(root, 1)
    later.start()
    with bad_sector(state_of(root)):
        with pytest.raises(OSError, match="Input/output error"):
            Client("app", socket=later.socket, **options(root))
        handler = LogEngineHandler("app", socket=later.socket, **options(root))
        handler.client.send({"n": 0})
        handler.client.flush(PATIENCE_S)
        handler.close()
    assert numbers(later) == [0]
    with Client("app", socket=later.socket, **options(root)) as client:
        client.flush(PATIENCE_S)
    assert numbers(later) == [0, *range(1, 11)]


def test_a_segment_that_is_gone_from_the_middle_is_said_once_and_the_rest_sent(
    root: Path, later: Daemon, said: Said
) -> None:
    _, middle, _ = left_by(root, 1, 11, 21)
    middle.unlink()
    left_by(root, 31)
    later.start()
    with Client("app", socket=later.socket, **options(root)) as client:
        client.send({"n": 41})
        client.flush(PATIENCE_S)
    assert numbers(later) == [*range(1, 11), *range(21, 42)]
    assert said().count("records 11 to 20 of producer 'w' cannot be sent") == 1
    assert said().count("cannot be sent") == 1


def test_a_newest_segment_that_is_gone_is_said_once(root: Path, later: Daemon, said: Said) -> None:
    left_by(root, 1, 11)[1].unlink()
    left_by(root, 21)
    assert said().count("records 11 to 20 of producer 'w' cannot be sent") == 1
    later.start()
    with Client("app", socket=later.socket, **options(root)) as client:
        client.flush(PATIENCE_S)
    assert numbers(later) == [*range(1, 11), *range(21, 31)]
    assert said().count("cannot be sent") == 1


def test_a_removed_stream_directory_is_said_once(root: Path, later: Daemon, said: Said) -> None:
    shutil.rmtree(left_by(root, 1, 11)[0].parent)
    left_by(root, 21)
    assert said().count("records 1 to 20 of producer 'w' cannot be sent") == 1
    later.start()
    with Client("app", socket=later.socket, **options(root)) as client:
        client.flush(PATIENCE_S)
    assert numbers(later) == list(range(21, 31))
    assert said().count("cannot be sent") == 1


def unlink(path: Path) -> None:
    path.unlink()


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("take", [unlink, replace_by_directory])
@pytest.mark.parametrize("durable_before", [0, 5])
@pytest.mark.parametrize(
    "removed",
    [{0}, {1}, {3}, {0, 1}, {0, 2}, {0, 3}, {0, 1, 2, 3}],
    ids=["first", "middle", "last", "first-two", "first-and-middle", "ends", "all"],
)
def test_an_application_with_numbers_goes_on_exactly_whatever_was_removed(
    root: Path,
    later: Daemon,
    removed: set[int],
    durable_before: int,
    take: Callable[[Path], None],
) -> None:
    if durable_before:
        later.start()
        with Client("app", socket=later.socket, **options(root)) as client:
            for n in range(1, durable_before + 1):
                client.send({"n": n})
            client.flush(PATIENCE_S)
        later.stop()
    starts = [durable_before + 1 + EACH * index for index in range(4)]
    files = left_by(root, *starts)
    for index in removed:
        take(files[index])
    kept = [
        n
        for index, start in enumerate(starts)
        if index not in removed
        for n in range(start, start + EACH)
    ]
    saved = kept[-1] if kept else durable_before
    later.start()
    stop = saved + 1
    for _ in range(2):  # the second process finds no spool, and the daemon's number alone
        with Client("app", socket=later.socket, **options(root)) as client:
            assert client.resumed_at(PATIENCE_S) == stop - 1
            for n in range(stop, stop + EACH):
                client.send({"n": n})
            client.flush(PATIENCE_S)
            assert client.resumed_at(PATIENCE_S) == stop - 1
        stop += EACH
    assert numbers(later) == [*range(1, durable_before + 1), *kept, *range(saved + 1, stop)]


async def test_an_asyncio_application_with_numbers_goes_on_exactly_after_gaps(
    root: Path, later: Daemon
) -> None:
    first, _, third, _ = left_by(root, 1, 11, 21, 31)
    first.unlink()
    third.unlink()
    later.start()
    for last in (40, 50):
        async with AsyncClient("app", socket=later.socket, **options(root)) as client:
            assert await client.resumed_at(PATIENCE_S) == last
            for n in range(last + 1, last + 11):
                await client.send({"n": n})
            await client.flush(PATIENCE_S)
    assert numbers(later) == [*range(11, 21), *range(31, 61)]


def test_a_spool_without_its_state_begins_with_the_first_record_that_is_there(
    root: Path, later: Daemon
) -> None:
    later.start()
    with Client("app", socket=later.socket, **options(root)) as client:
        for n in range(1, 6):
            client.send({"n": n})
        client.flush(PATIENCE_S)
        later.kill()
        for n in range(6, 11):
            client.send({"n": n})
    state_of(root).unlink()
    later.start()
    with Client("app", socket=later.socket, **options(root)) as client:
        assert client.resumed_at(PATIENCE_S) == 10
        client.flush(PATIENCE_S)
    assert numbers(later) == list(range(1, 11))


def test_numbers_that_the_daemon_gave_are_those_that_are_said(
    root: Path, later: Daemon, said: Said
) -> None:
    later.start()
    with Client("app", socket=later.socket, **options(root, close_timeout=PATIENCE_S)) as client:
        for n in range(1, 101):
            client.send({"n": n})
        client.flush(PATIENCE_S)
        later.kill()
        for n in range(101, 111):
            client.send({"n": n})
        with pytest.raises(NotDurable):
            client.flush(0)
        with contextlib.suppress(NotDurable):
            client.close(0)
    _, middle, _ = left_by(root, 111, 121)
    middle.unlink()
    later.start()
    with Client("app", socket=later.socket, **options(root)) as client:
        for n in range(131, 141):
            client.send({"n": n})
        client.flush(PATIENCE_S)
    assert said().count("records 111 to 120 of producer 'w' cannot be sent") == 1
    assert numbers(later) == [*range(1, 111), *range(121, 141)]


def remove_middle(root: Path) -> None:
    segments(root)[1].unlink()


def remove_stream(root: Path) -> None:
    shutil.rmtree(segments(root)[0].parent)


def remove_spool(root: Path) -> None:
    shutil.rmtree(root / "spool")


@pytest.mark.parametrize(
    ("remove", "gone"),
    [
        (remove_middle, range(11, 21)),
        (remove_stream, range(1, 31)),
        (remove_spool, range(1, 31)),
    ],
)
def test_what_is_removed_beneath_a_client_is_said_once_and_it_goes_on(
    root: Path, later: Daemon, said: Said, remove: Callable[[Path], None], gone: range
) -> None:
    left_by(root, 1, 11, 21)
    with Client("app", socket=later.socket, **options(root)) as client:
        remove(root)
        client.send({"n": 31})
        later.start()
        client.flush(PATIENCE_S)
        assert client.acked == 1
    assert numbers(later) == [n for n in range(1, 32) if n not in gone]
    assert said().count(f"records {gone[0]} to {gone[-1]} of producer 'w' cannot be sent") == 1
    assert said().count("cannot be sent") == 1


def test_a_spool_that_was_removed_is_made_again_for_what_comes(root: Path, later: Daemon) -> None:
    left_by(root, 1)
    with Client("app", socket=later.socket, **options(root)) as client:
        shutil.rmtree(root / "spool")
        for n in range(11, 21):
            client.send({"n": n})
    assert len(segments(root)) == 1
    later.start()
    with Client("app", socket=later.socket, **options(root)) as client:
        client.flush(PATIENCE_S)
    assert numbers(later) == list(range(11, 21))


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_under_a_name_of_a_segment_holds_nobody_up(
    root: Path, later: Daemon, said: Said, make: Callable[[Path], None]
) -> None:
    _, middle, _ = left_by(root, 1, 11, 21)
    middle.unlink()
    make(middle)
    later.start()
    with Client("app", socket=later.socket, **options(root)) as client:
        client.flush(PATIENCE_S)
    assert numbers(later) == [*range(1, 11), *range(21, 31)]
    assert said().count("expected a regular file; 0 of 10 records") == 1
    assert said().count("cannot be sent") == 0


def test_a_spool_that_was_sent_says_nothing(root: Path, later: Daemon, said: Said) -> None:
    left_by(root, 1, 11)
    later.start()
    with Client("app", socket=later.socket, **options(root)) as client:
        client.flush(PATIENCE_S)
    assert not (root / "spool").is_dir() or list((root / "spool").iterdir()) == []
    left_by(root, 21)
    with Client("app", socket=later.socket, **options(root)) as client:
        client.flush(PATIENCE_S)
    assert numbers(later) == list(range(1, 31))
    assert said() == ""
