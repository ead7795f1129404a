"""Commands without the time to import them: each is forked from a process that has done it.

    python -m tests.command_server DESCRIPTOR < LIFE

A command is a process of its own, with its own pipes, environment and directory, which runs
`logengine.__main__` and ends as Python ends. What depends on how a process starts is not tested
with it: the time zone and the encoding are those of the server, see `serves`.
"""

import array
import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import resource
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from logengine.__main__ import main

# Python, and modules as they are imported, look at these once.
_LOOKED_AT_ONCE = ("TZ", "LANG", "LC_", "PYTHON", "COVERAGE")
_IMPORTED_LATER = (
    *("logengine.client.threads", "logengine.daemon.daemon", "logengine.daemon.daemon_log"),
    *("logengine.reading.follow_records", "logengine.reading.read_records"),
)
_DESCRIPTORS = 3


def import_commands() -> None:
    """Imports all commands, and most of what they import when they are called."""
    cli = importlib.import_module("logengine.cli")
    for module in pkgutil.iter_modules(cli.__path__, "logengine.cli."):
        importlib.import_module(module.name)
    for name in _IMPORTED_LATER:
        importlib.import_module(name)


class CommandServer:
    """Starts with the first command, and ends with the process that made it.

    `environ` is its environment, by default that in which it was made: a test may change its own
    before the first command.
    """

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self.environ = dict(os.environ)
        self._inherited: tuple[object, ...] = ()
        self._address: str | bytes = ""
        self._owner = 0

    def serves(self, environ: Mapping[str, str]) -> bool:
        """Whether a command of this process does in it what it does on its own."""
        self._start()
        return (
            _looked_at_once(environ) == _looked_at_once(self.environ)
            and _inherited() == self._inherited
        )

    def run(
        self, arguments: Sequence[str], stdin: bytes, environ: Mapping[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs a command to its end. Raises `subprocess.TimeoutExpired`, and kills it then."""
        self._start()
        said = json.dumps([list(arguments), dict(environ), os.getcwd()]).encode()
        ours, theirs = [], []
        with contextlib.ExitStack() as stack:
            for number in range(_DESCRIPTORS):
                reading, writing = os.pipe()
                their, our = (reading, writing) if number == 0 else (writing, reading)
                theirs.append(their)
                ours.append(stack.enter_context(open(our, "wb" if number == 0 else "rb", 0)))
            server = stack.enter_context(socket.socket(socket.AF_UNIX))
            server.connect(self._address)
            server.sendall(len(said).to_bytes(4, "big"))
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", theirs))
            server.sendmsg([b"\0"], [rights])
            for each in theirs:
                os.close(each)
            server.sendall(said)
            answers = stack.enter_context(server.makefile("rb"))
            pid = int(answers.readline())
            try:
                out, err = _communicate(ours[0], ours[1], ours[2], stdin, timeout_s)
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(arguments), timeout_s) from None
            status = int(answers.readline())
        return subprocess.CompletedProcess(list(arguments), status, out, err)

    def _start(self) -> None:
        with self._starting:
            if self._process is not None and self._owner == os.getpid():
                return
            self._owner = os.getpid()
            self._inherited = _inherited()
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind("")  # the kernel chooses a name, in no directory
                listener.listen(64)
                self._address = listener.getsockname()
                # Its end of standard input is that of this process.
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "tests.command_server", str(listener.fileno())],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    cwd=Path(__file__).parent.parent,
                    env=self.environ,
                    pass_fds=[listener.fileno()],
                )
            atexit.register(self._end)

    def _end(self) -> None:
        if self._process is not None and self._owner == os.getpid():
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()


def _looked_at_once(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: each for name, each in environ.items() if name.startswith(_LOOKED_AT_ONCE)}


def _inherited() -> tuple[object, ...]:
    return os.getresuid(), os.getresgid(), resource.getrlimit(resource.RLIMIT_NOFILE)


def _communicate(
    stdin: BinaryIO, stdout: BinaryIO, stderr: BinaryIO, data: bytes, timeout_s: float
) -> tuple[bytes, bytes]:
    """Returns what is written until both pipes are closed. Raises `TimeoutError`."""
    deadline = time.monotonic() + timeout_s
    read: dict[BinaryIO, bytearray] = {stdout: bytearray(), stderr: bytearray()}
    left = memoryview(data)
    with selectors.DefaultSelector() as selector:
        for each in read:
            selector.register(each, selectors.EVENT_READ)
        os.set_blocking(stdin.fileno(), False)
        selector.register(stdin, selectors.EVENT_WRITE)
        while selector.get_map():
            ready = selector.select(deadline - time.monotonic())
            if time.monotonic() > deadline:
                raise TimeoutError
            for key, _ in ready:
                if key.fileobj is stdin:
                    try:
                        left = left[os.write(stdin.fileno(), left) :] if left else left
                    except BrokenPipeError:
                        left = left[:0]
                    if not left:
                        selector.unregister(stdin)
                        stdin.close()
                    continue
                pipe = stdout if key.fileobj is stdout else stderr
                part = os.read(pipe.fileno(), 65536)
                read[pipe] += part
                if not part:
                    selector.unregister(pipe)
    return bytes(read[stdout]), bytes(read[stderr])


def _serve(listener: socket.socket) -> list[str]:
    """Serves until standard input ends. Returns in each process that is forked, with its command.

    Between the server and the command is a process that says how the command ended.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those between
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    while True:
        ready, _, _ = select.select([listener.fileno(), 0], [], [])
        if 0 in ready:
            os._exit(0)
        connection, _ = listener.accept()
        if os.fork():
            connection.close()
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        listener.close()
        size = int.from_bytes(_received(connection, 4), "big")
        _, [(_, _, rights)], _, _ = connection.recvmsg(1, socket.CMSG_SPACE(4 * _DESCRIPTORS))
        descriptors = array.array("i", rights)
        arguments, environ, directory = json.loads(_received(connection, size))
        if command := os.fork():
            for each in descriptors:
                os.close(each)
            connection.sendall(b"%d\n" % command)
            _, status = os.waitpid(command, 0)
            # It may have ended because nobody waits for it any more.
            with contextlib.suppress(BrokenPipeError):
                connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
            os._exit(0)
        connection.close()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, each in enumerate(descriptors):
            os.dup2(each, number)
            os.close(each)
        os.chdir(directory)
        os.environ.clear()
        os.environ.update(environ)
        return list(arguments)


def _received(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        received += connection.recv(size - len(received))
    return received


if __name__ == "__main__":
    # As `logengine.__main__` does it.
    sys.modules["rich"] = None  # type: ignore[assignment]
    import_commands()
    gc.collect()
    gc.freeze()
    sys.argv = ["logengine", *_serve(socket.socket(fileno=int(sys.argv[1])))]
    main()
