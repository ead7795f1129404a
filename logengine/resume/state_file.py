"""The history of a NAME on disk: a file that is appended to, and rewritten from time to time.

    DIRECTORY/web.access-9f3c1b…         the history; NDJSON, first line the header
    DIRECTORY/web.access-9f3c1b….lock    flock(2): one process has it open

A note is durable when `append` returns. The file names its stream, producer and socket, because
the numbers of another daemon are different ones.
"""

import contextlib
import fcntl
import hashlib
import os
import re
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from logengine.disk.atomic import AtomicWriter
from logengine.disk.directory import Directory, StrPath, create_directory
from logengine.disk.writes import write_all
from logengine.errors import ResumeInUse
from logengine.format.record import readable_text
from logengine.resume.history import Header, History, Note, decode_history, encode_line
from logengine.socket_address import one_spelling

_NAME_CHARACTERS = 40
_BYTES_MAX = 256 * 1024 * 1024  # far above what one is rewritten at
_PERMISSIONS = 0o600  # it contains the first lines of logs


class StateFile:
    """The file for a producer of a stream of the daemon at a socket; use it in a `with`.

    Raises `ResumeInUse` if another process has it open, `UnexpectedFile` if something else has its
    name, and `OSError`.
    """

    def __init__(self, directory: Path, stream: str, producer: str, socket: StrPath) -> None:
        path = readable_text(os.fsencode(one_spelling(socket)))
        self.header = Header(stream=stream, producer=producer, socket=path)
        identity = f"{self.header.socket}\0{stream}\0{producer}".encode()
        digest = hashlib.blake2b(identity, digest_size=8).hexdigest()
        readable = re.sub(r"[^a-zA-Z0-9._-]", "_", producer)[:_NAME_CHARACTERS]
        self.path = directory / f"{stream}.{readable}-{digest}"
        self._stack = contextlib.ExitStack()
        self._descriptor: int | None = None
        self.bytes = 0

    def __enter__(self) -> Self:
        create_directory(self.path.parent, 0o700)
        with contextlib.ExitStack() as stack:
            lock = self._open(".lock", os.O_RDWR | os.O_CREAT)
            stack.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ResumeInUse(
                    f"another run with --resume {self.header.producer} is sending to stream "
                    f"{self.header.stream!r}; wait until it ends, or give this one its own name"
                ) from None
            self._stack = stack.pop_all()
        for left in self.path.parent.glob(f".{self.path.name}.*.tmp"):
            left.unlink()  # left by a run that was killed
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()
        self._stack.close()

    def read(self) -> History | None:
        """Returns what earlier runs noted; None if there were none.

        Raises `DamagedResumeState`, `UnexpectedFile` and `OSError`.
        """
        try:
            with Directory.open(self.path.parent) as directory:
                data = directory.read_file(self.path.name, _BYTES_MAX)
        except FileNotFoundError:
            return None
        return decode_history(data, os.fspath(self.path))

    def _open(self, suffix: str, flags: int) -> int:
        with Directory.open(self.path.parent) as directory:
            return directory.open_file(f"{self.path.name}{suffix}", flags, _PERMISSIONS)

    def write(self, history: History) -> None:
        """Writes all of `history`, atomically and durably."""
        self._close()
        data = history.encode()
        with AtomicWriter(
            self.path,
            "wb",
            permissions=_PERMISSIONS,
            open_directory=partial(Directory.open, self.path.parent),
        ) as writer:
            writer.write(data)
        self.bytes = len(data)

    def append(self, note: Note) -> None:
        """Appends a note to what this object has written; durable on return."""
        if self._descriptor is None:
            self._descriptor = self._open("", os.O_WRONLY | os.O_APPEND)
        data = encode_line(note)
        write_all(self._descriptor, [data])
        os.fdatasync(self._descriptor)
        self.bytes += len(data)

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
