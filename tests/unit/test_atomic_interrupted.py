"""An exception at any instruction of a writer, and a fork, leave the target whole and no temp."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import logengine
from logengine import AsyncAtomicWriter, AtomicWriter, LogEngineError
from logengine.disk import exclusive_rename

SOURCES = os.path.dirname(logengine.__file__)


class Interrupt(BaseException):
    """What a signal handler may raise, between any two instructions."""


class Interruption:
    """Raises `Interrupt` at the `number`th event of a trace of our own code, once."""

    def __init__(self, number: int) -> None:
        self._left = number
        self.place = ""
        # Held, for the interpreter does not hold what it is calling when that raises.
        self._entering = self._enter
        self._stepping = self._step

    @contextlib.contextmanager
    def coming(self) -> Iterator[None]:
        before = sys.gettrace()
        sys.settrace(self._entering)
        try:
            yield
        finally:
            sys.settrace(before)

    def _enter(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(SOURCES):
            return None
        frame.f_trace_opcodes = True
        return self._step(frame, event, None)  # raises in the frame that is entered

    def _step(self, frame: FrameType, event: str, _argument: Any) -> Any:
        self._left -= 1
        if self._left == 0:
            self.place = f"{event} in {frame.f_code.co_qualname}, line {frame.f_lineno}"
            raise Interrupt
        return self._stepping


def with_statement(path: Path, mode: str) -> None:
    with AtomicWriter(path, mode) as writer:
        writer.write("new")


def without_buffer(path: Path, mode: str) -> None:
    with AtomicWriter(path, mode + "b", buffering=0) as writer:
        writer.write(b"new")


def step_by_step(path: Path, mode: str) -> None:
    writer = AtomicWriter(path, mode)
    try:
        writer.open()
        writer.write("new")
        writer.prepare()
        writer.publish()
        writer.sync_directory()
    finally:
        writer.abort()


def in_a_loop(path: Path, mode: str) -> None:
    async def write() -> None:
        async with AsyncAtomicWriter(path, mode) as writer:
            await writer.write("new")

    asyncio.run(write())


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# Each of the thousands of places costs a file: on a disk that is a minute, and shows no more.
@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    made = shared / f"logengine-{os.getpid()}-{tmp_path.name}"
    made.mkdir()
    yield made
    for name in os.listdir(made):
        (made / name).unlink()
    made.rmdir()


@pytest.mark.parametrize(
    ("write", "mode", "old"),
    [
        (with_statement, "w", "old"),
        (with_statement, "w", None),
        (with_statement, "x", None),
        (without_buffer, "w", "old"),
        (step_by_step, "w", "old"),
        (in_a_loop, "w", "old"),
        (in_a_loop, "x", None),
    ],
)
@pytest.mark.filterwarnings("ignore")  # of files and coroutines that the exception leaves behind
def test_an_exception_at_any_instruction_leaves_old_or_new_and_nothing_else(
    directory: Path,
    write: Callable[[Path, str], None],
    mode: str,
    old: str | None,
) -> None:
    # By a link, so that following one is tried too.
    path = directory / "link" if mode == "w" else directory / "file"
    exclusive_rename._renameat2()  # loads ctypes, which is not ours to try
    seen = set()
    number = 0
    while True:
        number += 1
        for name in os.listdir(directory):
            (directory / name).unlink()
        if old is not None:
            (directory / "file").write_text(old)
            (directory / "file").chmod(0o644)
        if mode == "w":
            (directory / "link").symlink_to("file")
        interruption = Interruption(number)
        before = descriptors()
        try:
            with interruption.coming():
                write(path, mode)
        except Interrupt:
            # While the exception, and with it each frame that it came through, is still there.
            left = set(os.listdir(directory)) - {"link", "file"}
            if write is not step_by_step:
                assert not left, interruption.place
        left = set(os.listdir(directory)) - {"link", "file"}
        assert not left, interruption.place
        file = directory / "file"
        found = file.read_text() if file.exists() else None
        assert found in (old, "new"), interruption.place
        seen.add(found)
        if descriptors() != before:
            gc.collect()
        assert descriptors() <= before, interruption.place
        if not interruption.place:
            break
    gc.collect()  # here, where a coroutine that was never awaited is no surprise
    assert number > 300
    assert seen == {old, "new"}


def test_a_signal_handler_that_raises_while_the_fsync_runs_leaves_no_temp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("old")
    real = os.fsync

    def fsync(descriptor: int) -> None:
        signal.raise_signal(signal.SIGUSR1)
        real(descriptor)

    def limit(_number: int, _frame: FrameType | None) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGUSR1, limit)
    monkeypatch.setattr(os, "fsync", fsync)
    try:
        with pytest.raises(Interrupt), AtomicWriter(tmp_path / "file") as writer:
            writer.write("new")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_a_writer_that_was_interrupted_behind_the_replace_knows_that_it_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace

    def replace(*arguments: Any, **options: Any) -> None:
        real(*arguments, **options)
        raise Interrupt

    for call, published in [("replace", True), ("fsync", False)]:
        writer = AtomicWriter(tmp_path / call)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            if call == "fsync":
                patch.setattr(os, "fsync", lambda _descriptor: (_ for _ in ()).throw(Interrupt))
            with pytest.raises(Interrupt), writer:
                writer.write("new")
        assert writer.published is published
        assert (tmp_path / call).exists() is published


def test_a_writer_that_is_dropped_removes_its_temp_and_warns(tmp_path: Path) -> None:
    writer = AtomicWriter(tmp_path / "file")
    writer.open()
    writer.write("new")
    with pytest.warns(ResourceWarning, match="without being published or aborted"):
        del writer
    assert os.listdir(tmp_path) == []


def test_looking_at_exit_does_not_leave_the_writer(tmp_path: Path) -> None:
    with AtomicWriter(tmp_path / "file") as writer:
        assert hasattr(writer, "__exit__")
        assert isinstance(writer, contextlib.AbstractContextManager)
        gc.collect()
        writer.write("new")
    assert (tmp_path / "file").read_text() == "new"


def test_a_writer_in_an_exit_stack_is_left_like_any_other(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(AtomicWriter(tmp_path / "file")).write("new")
    assert (tmp_path / "file").read_text() == "new"
    with pytest.raises(ZeroDivisionError), contextlib.ExitStack() as stack:
        stack.enter_context(AtomicWriter(tmp_path / "file")).write("newer")
        raise ZeroDivisionError
    assert (tmp_path / "file").read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]


async def test_an_async_writer_in_an_exit_stack_is_left_like_any_other(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        writer = await stack.enter_async_context(AsyncAtomicWriter(tmp_path / "file"))
        await writer.write("new")
    assert (tmp_path / "file").read_text() == "new"
    assert writer.published


class Subclass(AtomicWriter):
    """Somebody else's, with an `__exit__` of its own."""

    left = False

    def __exit__(self, *exception: Any) -> None:  # noqa: PYI036 - as they are passed on
        self.left = True
        super().__exit__(*exception)


def test_a_subclass_may_have_an_exit_of_its_own(tmp_path: Path) -> None:
    with Subclass(tmp_path / "file") as writer:
        writer.write("new")
    assert writer.left
    assert (tmp_path / "file").read_text() == "new"
    with pytest.raises(ZeroDivisionError), Subclass(tmp_path / "file"):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == ["file"]


# Forked processes.


def in_child(body: Callable[[], None]) -> int:
    """The exit status of a forked child that does `body`, and ends as Python ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, from 3.12 on
        child = os.fork()
    if child == 0:
        status = 1
        try:
            body()
            status = 0
        finally:
            gc.collect()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def leave(writer: AtomicWriter) -> None:
    with pytest.raises(LogEngineError, match="forked"):
        writer.__exit__(None, None, None)


def leave_by_exception(writer: AtomicWriter) -> None:
    writer.__exit__(SystemExit, SystemExit(), None)


def abort(writer: AtomicWriter) -> None:
    writer.abort()


def close_the_file(writer: AtomicWriter) -> None:
    writer.file.close()


def write_on(writer: AtomicWriter) -> None:
    for _ in range(2):
        with pytest.raises(OSError, match="forked"):
            writer.write(writer.file.mode and b"child" * 10_000)


def take_each_step(writer: AtomicWriter) -> None:
    for step in (writer.prepare, writer.publish):
        with pytest.raises((LogEngineError, ValueError)):
            step()


@pytest.mark.parametrize("buffering", [0, -1])
@pytest.mark.parametrize(
    "child", [leave, leave_by_exception, abort, close_the_file, write_on, take_each_step]
)
def test_a_forked_child_neither_publishes_nor_removes_nor_writes(
    tmp_path: Path, child: Callable[[AtomicWriter], None], buffering: int
) -> None:
    (tmp_path / "file").write_text("old")
    with AtomicWriter(tmp_path / "file", "wb", buffering=buffering) as writer:
        writer.write(b"from the parent, ")
        assert in_child(lambda: child(writer)) == 0
        assert (tmp_path / "file").read_text() == "old"
        assert writer.temp_path is not None
        assert os.path.exists(writer.temp_path)
        writer.write(b"once")
    assert (tmp_path / "file").read_text() == "from the parent, once"
    assert os.listdir(tmp_path) == ["file"]


def test_a_forked_child_that_ends_after_prepare_does_not_publish(tmp_path: Path) -> None:
    with AtomicWriter(tmp_path / "file") as writer:
        writer.write("new")
        writer.prepare()

        def publish() -> None:
            with pytest.raises(LogEngineError, match="forked"):
                writer.publish()

        assert in_child(publish) == 0
        assert not (tmp_path / "file").exists()
    assert (tmp_path / "file").read_text() == "new"


def test_a_child_that_ends_as_programs_end_does_not_write_the_buffer_again(
    tmp_path: Path,
) -> None:
    script = (
        "import os, sys, logengine\n"
        "with logengine.AtomicWriter(sys.argv[1]) as writer:\n"
        "    writer.write('once')\n"
        "    child = os.fork()\n"
        "    if child == 0: sys.exit(3)\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3\n"
    )
    path = tmp_path / "file"
    child = os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", script, str(path)])
    assert child == 0
    assert path.read_text() == "once"
    assert os.listdir(tmp_path) == ["file"]


def test_a_writer_made_before_a_fork_and_opened_after_it_is_the_childs(tmp_path: Path) -> None:
    writer = AtomicWriter(tmp_path / "file")

    def write() -> None:
        with writer:
            writer.write("the child's")

    assert in_child(write) == 0
    assert (tmp_path / "file").read_text() == "the child's"


async def test_an_async_writer_in_a_forked_child_neither_publishes_nor_removes(
    tmp_path: Path,
) -> None:
    async with AsyncAtomicWriter(tmp_path / "file") as writer:
        await writer.write("new")

        def drop() -> None:
            writer._writer.abort()

        assert in_child(drop) == 0
    assert (tmp_path / "file").read_text() == "new"


async def test_a_step_under_way_in_its_thread_removes_the_temp_that_nobody_waits_for_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncing, go_on = threading.Event(), threading.Event()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        syncing.set()
        assert go_on.wait(60)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    writer = AsyncAtomicWriter(tmp_path / "file")
    await writer.__aenter__()
    await writer.write("new")
    preparing = asyncio.create_task(writer.prepare())
    assert await asyncio.to_thread(syncing.wait, 60)
    writer._abandon(None)
    # Closed beneath the thread, its descriptor could be another file's by now.
    assert len(os.listdir(tmp_path)) == 1
    assert not writer._writer.file.closed
    go_on.set()
    await preparing
    assert os.listdir(tmp_path) == []
    with pytest.raises(ValueError, match="call publish once, after prepare"):
        await writer.publish()


async def test_abort_waits_for_the_step_that_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncing, go_on = threading.Event(), threading.Event()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        syncing.set()
        assert go_on.wait(60)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    writer = AsyncAtomicWriter(tmp_path / "file")
    await writer.__aenter__()
    await writer.write("new")
    preparing = asyncio.create_task(writer.prepare())
    assert await asyncio.to_thread(syncing.wait, 60)
    aborting = asyncio.create_task(writer.abort())
    await asyncio.sleep(0)
    assert len(os.listdir(tmp_path)) == 1
    go_on.set()
    await asyncio.gather(preparing, aborting)
    assert os.listdir(tmp_path) == []
