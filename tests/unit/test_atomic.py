"""A file is replaced as a whole or not at all."""

import asyncio
import errno
import os
import stat
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from logengine import AsyncAtomicWriter, AtomicWriter, LogEngineError
from logengine.disk.atomic import is_temp_name
from logengine.disk.directory import Directory
from logengine.disk.early_writer import EarlyWriter
from tests.whole_path import whole_path


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The system calls that matter, in the order they were made."""
    made: list[str] = []

    def record(name: str, describe: Callable[..., str]) -> None:
        real = getattr(os, name)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            made.append(describe(*args))
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, wrapper)

    def fsync_of(descriptor: int) -> str:
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        return "fsync directory" if is_directory else "fsync file"

    record("fsync", fsync_of)
    record("replace", lambda *_: "replace")
    record("writev", lambda *_: "write")
    return made


def failing(error: int) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(error, os.strerror(error))

    return fail


def temps(directory: Path) -> list[str]:
    return [name for name in os.listdir(directory) if is_temp_name(name)]


def test_the_steps_come_in_the_one_order_that_is_safe(tmp_path: Path, calls: list[str]) -> None:
    with AtomicWriter(tmp_path / "file", "wb", buffering=0) as writer:
        writer.write(b"new")
        assert calls == ["write"]
    assert calls == ["write", "fsync file", "replace", "fsync directory"]
    assert (tmp_path / "file").read_bytes() == b"new"


def test_text_and_bytes_are_written_like_open_writes_them(tmp_path: Path) -> None:
    with AtomicWriter(tmp_path / "text", encoding="latin-1", newline="\r\n") as text:
        assert text.write("gr\xfc\xdfe\n") == 6
    assert (tmp_path / "text").read_bytes() == b"gr\xfc\xdfe\r\n"
    with AtomicWriter(tmp_path / "bytes", "wb") as binary:
        binary.write(b"a")
        binary.write(b"b")
    assert (tmp_path / "bytes").read_bytes() == b"ab"


def test_pythons_buffer_is_flushed_before_the_fsync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        sizes.append(os.fstat(descriptor).st_size)
        real(descriptor)

    with AtomicWriter(tmp_path / "file", "wb") as writer:
        writer.write(b"12345")
        monkeypatch.setattr(os, "fsync", fsync)
    assert sizes[0] == 5


def test_the_temp_stands_beside_the_target_and_is_gone_after(tmp_path: Path) -> None:
    with AtomicWriter(tmp_path / "file") as writer:
        (temp,) = temps(tmp_path)
        assert writer.temp_path == str(tmp_path / temp)
        assert not (tmp_path / "file").exists()
    assert os.listdir(tmp_path) == ["file"]


def test_two_writers_of_one_file_have_temps_of_their_own(tmp_path: Path) -> None:
    with AtomicWriter(tmp_path / "file") as one, AtomicWriter(tmp_path / "file") as two:
        one.write("one")
        two.write("two")
        assert len(temps(tmp_path)) == 2
    assert (tmp_path / "file").read_text() == "one"


def test_a_new_file_is_0640_and_a_replaced_one_keeps_its_mode(tmp_path: Path) -> None:
    target = tmp_path / "file"
    before = os.umask(0o022)
    try:
        with AtomicWriter(target) as writer:
            writer.write("new")
        assert stat.S_IMODE(target.stat().st_mode) == 0o640
        target.chmod(0o606)
        with AtomicWriter(target) as writer:
            writer.write("newer")
        assert stat.S_IMODE(target.stat().st_mode) == 0o606
    finally:
        os.umask(before)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_exception_removes_the_temp_and_goes_on(
    tmp_path: Path, error: type[BaseException]
) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(error), AtomicWriter(tmp_path / "file") as writer:
        writer.write("new")
        raise error
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_a_failed_fsync_is_not_tried_again_on_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("old")
    synced = []

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="fsync") as caught, AtomicWriter(tmp_path / "file") as writer:
        writer.write("new")
    assert len(synced) == 1
    assert caught.value.errno == errno.EIO
    assert isinstance(caught.value, LogEngineError)
    assert str(tmp_path / "file") in str(caught.value)
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize("call", ["open", "writev", "replace", "fchmod"])
def test_any_failing_call_leaves_the_target_and_no_temp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    (tmp_path / "file").write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(errno.ENOSPC))
        with (
            pytest.raises(OSError, match="No space left") as caught,
            AtomicWriter(tmp_path / "file", "wb", buffering=0) as writer,
        ):
            writer.write(b"new")
    assert caught.value.errno == errno.ENOSPC
    assert str(tmp_path / "file") in str(caught.value)
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(descriptor: int, buffers: list[memoryview]) -> int:
        return os.write(descriptor, bytes(buffers[0])[:3])

    monkeypatch.setattr(os, "writev", short)
    with AtomicWriter(tmp_path / "file", "wb", buffering=0) as writer:
        assert writer.write_buffers([b"0123456789", b"", b"abcde"] * 3) == 45
    assert (tmp_path / "file").read_bytes() == b"0123456789abcde" * 3


def test_more_buffers_than_one_call_takes_are_all_written(tmp_path: Path) -> None:
    buffers = [b"%05d" % number for number in range(3000)]
    with AtomicWriter(tmp_path / "file", "wb", buffering=0) as writer:
        writer.write_buffers(buffers)
    assert (tmp_path / "file").read_bytes() == b"".join(buffers)


def test_many_writers_share_a_stack_step_by_step(tmp_path: Path, calls: list[str]) -> None:
    writers = [AtomicWriter(tmp_path / name, "wb", buffering=0) for name in "ab"]
    with ExitStack() as stack:
        for writer in writers:
            writer.open()
            stack.callback(writer.abort)
            writer.write(b"x")
        for writer in writers:
            writer.prepare()
        for writer in writers:
            writer.publish()
        writers[0].sync_directory()
    assert calls == ["write"] * 2 + ["fsync file"] * 2 + ["replace"] * 2 + ["fsync directory"]
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_publish_before_prepare_is_refused(tmp_path: Path) -> None:
    writer = AtomicWriter(tmp_path / "file")
    with pytest.raises(ValueError, match="prepare"):
        writer.publish()
    with pytest.raises(ValueError, match="mode 'a'"):
        AtomicWriter(tmp_path / "file", "a")


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing/file"), AtomicWriter(tmp_path / "missing" / "file"):
        pass


def test_a_long_name_leaves_room_for_the_temps(tmp_path: Path) -> None:
    with AtomicWriter(tmp_path / ("n" * 255)) as writer:
        writer.write("x")
    assert os.listdir(tmp_path) == ["n" * 255]


async def test_the_async_writer_takes_the_same_steps(tmp_path: Path, calls: list[str]) -> None:
    async with AsyncAtomicWriter(tmp_path / "file", "wb", buffering=0) as writer:
        await writer.write(b"ne")
        await writer.write(b"w")
    assert calls == ["write", "write", "fsync file", "replace", "fsync directory"]
    async with AsyncAtomicWriter(tmp_path / "text", encoding="utf-8") as text:
        assert await text.write("grüße") == 5
    assert (tmp_path / "text").read_text() == "grüße"
    assert (tmp_path / "file").read_bytes() == b"new"


async def test_an_exception_in_the_async_writer_removes_the_temp(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(ZeroDivisionError):
        async with AsyncAtomicWriter(tmp_path / "file") as writer:
            await writer.write("new")
            raise ZeroDivisionError
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


async def test_a_failing_step_of_the_async_writer_removes_the_temp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(errno.EIO))
        with pytest.raises(OSError, match="fsync"):
            async with AsyncAtomicWriter(tmp_path / "file") as writer:
                await writer.write("new")
    assert os.listdir(tmp_path) == []


async def test_cancellation_at_any_await_leaves_old_or_new_and_no_temp(tmp_path: Path) -> None:
    target = tmp_path / "file"
    seen = set()

    async def write() -> None:
        async with AsyncAtomicWriter(target) as writer:
            await writer.write("new")
            await writer.write(" and more")

    for turns in range(200):
        target.write_text("old")
        task = asyncio.create_task(write())
        for _ in range(turns):
            await asyncio.sleep(0)
        if turns > 100:  # by time as well: most turns of the loop pass in a thread's first step
            await asyncio.sleep((turns - 100) * 2e-5)
        was_done = task.done()
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            assert not was_done
        assert os.listdir(tmp_path) == ["file"], f"a temp stayed after {turns} turns"
        seen.add(target.read_text())
        if was_done:
            assert target.read_text() == "new and more"
    assert seen <= {"old", "new and more"}
    assert "old" in seen


def test_the_temp_is_made_exclusively(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, int]] = []
    real = os.open

    def noted(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        opened.append((whole_path(path, dir_fd), flags))
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", noted)
    with AtomicWriter(tmp_path / "file"):
        pass
    (path, flags) = next(each for each in opened if each[1] & os.O_CREAT)
    assert flags & (os.O_EXCL | os.O_CREAT | os.O_CLOEXEC) == os.O_EXCL | os.O_CREAT | os.O_CLOEXEC
    assert os.path.dirname(path) == str(tmp_path)


def test_the_umask_takes_from_the_default_mode_and_not_from_that_of_a_replaced_file(
    tmp_path: Path,
) -> None:
    before = os.umask(0o077)
    try:
        with AtomicWriter(tmp_path / "new"):
            pass
        (tmp_path / "old").touch()
        (tmp_path / "old").chmod(0o664)
        with AtomicWriter(tmp_path / "old"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o664


@pytest.mark.parametrize("call", ["writev", "fsync", "replace"])
def test_an_interrupt_inside_a_system_call_leaves_the_target_and_no_temp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    (tmp_path / "file").write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, interrupt)
        with (
            pytest.raises(KeyboardInterrupt),
            AtomicWriter(tmp_path / "file", "wb", buffering=0) as writer,
        ):
            writer.write(b"new")
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_a_directory_sync_that_fails_is_told_although_the_file_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("old")
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with (
        pytest.raises(OSError, match="sync the directory") as caught,
        AtomicWriter(tmp_path / "file") as writer,
    ):
        writer.write("new")
    assert caught.value.filename == str(tmp_path)
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "new"


def test_of_nested_writers_the_inner_one_is_through_before_the_outer_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outer").write_text("old")
    real = os.replace

    def replace(source: str, target: str, **directories: int) -> None:
        if target.endswith("outer"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target, **directories)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="outer"), ExitStack() as stack:
        for name in ("outer", "inner"):
            stack.enter_context(AtomicWriter(tmp_path / name)).write("new")
    assert sorted(os.listdir(tmp_path)) == ["inner", "outer"]
    assert (tmp_path / "outer").read_text() == "old"
    assert (tmp_path / "inner").read_text() == "new"


def test_of_nested_writers_none_is_published_when_the_inner_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(OSError, match="inner"), ExitStack() as stack:
        for name in ("outer", "inner"):
            stack.enter_context(AtomicWriter(tmp_path / name)).write("new")
    assert os.listdir(tmp_path) == []


class SteppedExecutor(Executor):
    """Runs a step only when it is told to, so that a test can cancel at every one of them."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []
        self.taken = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - as an executor does
                future.set_exception(error)

        future.set_running_or_notify_cancel()  # a thread has begun: it cannot be cancelled
        self._waiting.append(run)
        return future

    @property
    def waits(self) -> bool:
        return bool(self._waiting)

    def step(self) -> None:
        self.taken += 1
        self._waiting.pop(0)()


async def turn_until(condition: Callable[[], bool]) -> None:
    for _ in range(100):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("nothing happens any more")


@pytest.mark.parametrize("cancels", [1, 2, 3])
@pytest.mark.parametrize("fails", ["", "fsync", "replace"])
@pytest.mark.parametrize("raw", [False, True])
async def test_cancellation_in_every_step_leaves_old_or_new_whole_and_no_temp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cancels: int, fails: str, *, raw: bool
) -> None:
    target = tmp_path / "file"
    outcomes = []

    async def write(executor: SteppedExecutor) -> None:
        async with AsyncAtomicWriter(
            target, "wb", buffering=0 if raw else -1, executor=executor
        ) as writer:
            await writer.write(b"new")
            await writer.write(b" and more")

    if fails:
        monkeypatch.setattr(os, fails, failing(errno.EIO))
    for cancelled_step in range(20):
        target.write_text("old")
        executor = SteppedExecutor()
        task = asyncio.create_task(write(executor))
        cancelled = False
        while not task.done():
            await turn_until(lambda: executor.waits or task.done())  # noqa: B023 - called at once
            if task.done():
                break
            if executor.taken == cancelled_step:
                cancelled = True
                for _ in range(cancels):
                    task.cancel()
                    await asyncio.sleep(0)
                assert not task.done(), "the step is under way in its thread"
            executor.step()
        assert not executor.waits
        if cancelled:
            assert task.cancelled()
        elif fails:
            assert isinstance(task.exception(), OSError)
        assert os.listdir(tmp_path) == ["file"], cancelled_step
        outcomes.append(target.read_text())
        if not cancelled:
            break
    assert not cancelled, "all steps were tried"
    assert set(outcomes) == ({"old"} if fails else {"old", "new and more"})
    # Old up to the replace, new from it on.
    assert outcomes == sorted(outcomes, reverse=True)


async def test_the_directory_is_synced_before_a_cancellation_behind_the_replace_goes_on(
    tmp_path: Path, calls: list[str]
) -> None:
    executor = SteppedExecutor()

    async def write() -> None:
        async with AsyncAtomicWriter(tmp_path / "file", "wb", executor=executor) as writer:
            await writer.write(b"new")

    task = asyncio.create_task(write())
    while not task.done():
        await turn_until(lambda: executor.waits or task.done())
        if executor.waits:
            if calls[-1:] == ["fsync file"]:
                task.cancel()
                await asyncio.sleep(0)
            executor.step()
    assert task.cancelled()
    assert calls == ["fsync file", "replace", "fsync directory"]


@pytest.mark.parametrize("wrong", [{"encoding": "none-such"}, {"newline": "x"}, {"buffering": 0}])
def test_wrong_arguments_of_open_are_told_and_leave_no_temp(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    with pytest.raises((LookupError, ValueError)), AtomicWriter(tmp_path / "file", **wrong):
        pass
    assert os.listdir(tmp_path) == []


def test_a_writer_used_again_writes_all_or_refuses(tmp_path: Path) -> None:
    writer = AtomicWriter(tmp_path / "file")
    with writer:
        writer.write("one")
    refused = False
    try:
        with writer:
            writer.write("two")
    except ValueError:
        refused = True
    found = (tmp_path / "file").read_text()
    writer.file.close()
    assert found == ("one" if refused else "two")


def test_a_full_disk_is_told_as_a_write_that_failed(tmp_path: Path) -> None:
    writer = AtomicWriter(tmp_path / "file", "wb")
    writer.open()
    writer.write(b"new")
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, writer.file.fileno())
    os.close(full)
    with pytest.raises(OSError, match="No space left") as caught:
        writer.prepare()
    assert os.listdir(tmp_path) == []
    assert "cannot write" in str(caught.value)


def test_a_writer_that_was_opened_early_takes_another_name_and_leaves_its_directory_open(
    tmp_path: Path,
) -> None:
    (tmp_path / "b").write_bytes(b"old")
    with Directory.open(tmp_path) as directory:
        writer = EarlyWriter(directory, "a", permissions=0o640)
        writer.open()
        writer.aim_at("b")
        writer.write(b"new")
        writer.prepare()
        writer.publish()
        writer.sync_directory()
        assert directory.names() == ["b"]
        assert writer.path == str(tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"new"
