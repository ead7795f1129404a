"""A command as a child process: its output, the signals passed on to it, its exit.

A thread waits for the signals instead of handlers, because only then is it known whether a signal
came from a terminal. Such a signal reaches the whole process group, including the command, which
would otherwise get it twice.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import os
import signal
import struct
import termios
import threading
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from logengine.errors import CommandNotStarted

_PASSED_ON = frozenset(
    {
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGWINCH,
        signal.SIGCONT,
        signal.SIGTSTP,
    }
)
_SI_KERNEL = 0x80  # asm-generic/siginfo.h; the code of a signal that a key on a terminal sends
_PR_SET_DUMPABLE = 4  # linux/prctl.h
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
_READ_BYTES = 64 * 1024
_STATUS_NOT_FOUND = 127
_STATUS_NOT_RUNNABLE = 126


class End(NamedTuple):
    """How a command ended: with an exit status or by a signal; the other one is None."""

    status: int | None
    signal: int | None


class OutputPipe:
    """The read end of a pipe to which a command writes one of its outputs."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._readable = asyncio.Event()
        self._owed_bytes = 0
        self._is_given_up = False

    async def read(self) -> bytes:
        """Returns the next bytes; none at the end, or after `give_up`."""
        while not self._is_given_up or self._owed_bytes > 0:
            try:
                data = os.read(self._descriptor, _READ_BYTES)
            except BlockingIOError:
                await self._wait()
            else:
                self._owed_bytes -= len(data)
                return data
        return b""

    def command_ended(self) -> None:
        """Notes what is in the pipe now: the command may have written it, so it is always read."""
        count = fcntl.ioctl(self._descriptor, termios.FIONREAD, bytes(4))
        (self._owed_bytes,) = struct.unpack("i", count)

    def give_up(self) -> None:
        """Makes `read` return although a process still has the write end open."""
        self._is_given_up = True
        self._readable.set()

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        self._readable.clear()
        loop.add_reader(self._descriptor, self._readable.set)
        try:
            await self._readable.wait()
        finally:
            loop.remove_reader(self._descriptor)


class ChildProcess:
    """A running command. `outputs` are its descriptors 1 and 2.

    `interrupted` is set by a Ctrl-C that arrives after the command has ended.
    """

    def __init__(self, pid: int, outputs: dict[int, OutputPipe]) -> None:
        self.pid = pid
        self.outputs = outputs
        self.interrupted = asyncio.Event()
        self._end: asyncio.Future[End] = asyncio.get_running_loop().create_future()

    async def ended(self) -> End:
        """Waits until the command has ended, whether or not its output has been read."""
        return await asyncio.shield(self._end)

    def take_signal(self, number: int, code: int) -> None:
        """Handles a signal to this process: passes it on, or reaps children."""
        if number == signal.SIGCHLD:
            self._reap()
        elif not self._end.done():
            self._pass_on(number, code)
        elif number == signal.SIGINT:
            self.interrupted.set()

    def _pass_on(self, number: int, code: int) -> None:
        # The command may have left the process group, like a shell with job control.
        if code != _SI_KERNEL or os.getpgid(self.pid) != os.getpgrp():
            os.kill(self.pid, number)
        if number == signal.SIGTSTP:
            # Otherwise a shell would not notice that its job was stopped.
            os.kill(os.getpid(), signal.SIGSTOP)

    def _reap(self) -> None:
        """Reaps all children that have ended: a container's first process also gets orphans."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                if pid == self.pid:
                    code = os.waitstatus_to_exitcode(status)
                    self._end.set_result(End(code, None) if code >= 0 else End(None, -code))


@asynccontextmanager
async def running(command: Sequence[str]) -> AsyncIterator[ChildProcess]:
    """Starts a command with this process's standard input, and passes signals on to it.

    Enter it in the main thread, before there are other threads, which would get the signals. The
    process must not wait for any other child. Raises `CommandNotStarted`.
    """
    # Signals ignored here, as under nohup, must be ignored by the command too.
    signals = {s for s in _PASSED_ON if signal.getsignal(s) != signal.SIG_IGN}
    signals.add(signal.SIGCHLD)
    # It may be ignored by inheritance, and children would then end without a status.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        with contextlib.ExitStack() as stack:
            child = ChildProcess(*_start(command, mask, stack))
            stack.enter_context(_signals_taken(child, signals))
            yield child
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def die_by(number: int) -> None:
    """Terminates this process by the signal; returns if it cannot, as a container's first process.

    Dumps no core.
    """
    # Only the command's core is of use. RLIMIT_CORE would not suffice: a kernel that pipes cores to
    # a program ignores it (core(5)).
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)


def _start(
    command: Sequence[str], mask: Collection[int], stack: contextlib.ExitStack
) -> tuple[int, dict[int, OutputPipe]]:
    outputs: dict[int, OutputPipe] = {}
    with contextlib.ExitStack() as writing_ends:
        duplicates = []
        for fd in (1, 2):
            reading, writing = os.pipe()
            stack.callback(os.close, reading)
            writing_ends.callback(os.close, writing)
            duplicates.append((os.POSIX_SPAWN_DUP2, writing, fd))
            outputs[fd] = OutputPipe(reading)
        try:
            pid = os.posix_spawnp(
                command[0],
                list(command),
                os.environ,
                file_actions=duplicates,
                setsigmask=mask,
                setsigdef=_IGNORED_BY_PYTHON,
            )
        except OSError as error:
            is_missing = isinstance(error, FileNotFoundError)
            raise CommandNotStarted(
                f"{command[0]}: {error.strerror}",
                _STATUS_NOT_FOUND if is_missing else _STATUS_NOT_RUNNABLE,
            ) from None
    return pid, outputs


@contextlib.contextmanager
def _signals_taken(child: ChildProcess, signals: Collection[int]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    is_over = threading.Event()

    def wait_for_signals() -> None:
        while not is_over.is_set():
            taken = signal.sigwaitinfo(signals)
            loop.call_soon_threadsafe(child.take_signal, taken.si_signo, taken.si_code)

    thread = threading.Thread(target=wait_for_signals, name="logengine-signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        assert thread.ident is not None
        signal.pthread_kill(thread.ident, signal.SIGCHLD)  # any of them ends the wait
        thread.join()
