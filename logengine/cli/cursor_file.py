"""`--cursor-file`: a command continues after what it, or an earlier run, printed last.

The file has one cursor on each line. It is replaced as a whole, and only after what was printed has
been flushed, so a run that was killed may print some records again, and never leaves one out.
"""

import contextlib
import functools
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import click

from logengine.cli.messages import note
from logengine.cli.options import resolve_data
from logengine.cli.output import Output
from logengine.disk.atomic import AtomicWriter
from logengine.errors import InvalidCursor, LogEngineError
from logengine.format.cursor import Cursor
from logengine.reading import Batch, newest_seq, stream_names

_FILE_BYTES_MAX = 16 * 1024 * 1024
_SAVE_EVERY_S = 1.0

cursor_file_option = click.option(
    "--cursor-file",
    "cursor_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Print only what comes after the records that an earlier run with this FILE printed, and "
    "note there what is printed now.",
)


def continuing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--cursor-file` to a command with `selection_options`; it gets `cursor_file`."""

    @functools.wraps(command)
    def continued(
        *arguments: Any,
        cursor_path: Path | None,
        streams: tuple[str, ...],
        cursors: tuple[Cursor, ...],
        data: Path | None,
        **others: Any,
    ) -> Any:
        cursor_file = CursorFile.open(cursor_path)
        if cursor_file is not None:
            if cursors:
                raise click.UsageError("--after and --cursor-file both say where to start")
            directory = resolve_data(data)
            streams = tuple(stream_names(*streams, data=directory))
            known = cursor_file.after(streams, directory)
            cursors = tuple(Cursor(*each) for each in known.items())
        return command(
            *arguments,
            cursor_file=cursor_file,
            streams=streams,
            cursors=cursors,
            data=data,
            **others,
        )

    return cursor_file_option(continued)


class CursorFile:
    """What was printed last of each stream, in a file. `start` before `note`."""

    def __init__(self, path: Path, positions: Mapping[str, int]) -> None:
        self._path = path
        self._positions = dict(positions)
        self._saved = dict(positions)
        self._saved_at = time.monotonic()

    @classmethod
    def open(cls, path: Path | None) -> Self | None:
        """Reads the file; None without a path. One that is absent or empty has no cursors.

        Raises `InvalidCursor`, `LogEngineError` if the file could not be replaced, and `OSError`.
        """
        if path is None:
            return None
        if path.exists() and not path.is_file():
            raise LogEngineError(f"{path} is not a regular file; a cursor file is replaced")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise LogEngineError(f"{path}: no file can be made in {path.parent}")
        content = b""
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            content = file.read(_FILE_BYTES_MAX)
        try:
            lines = content.decode("ascii").split("\n")
            cursors = [Cursor.parse(line) for line in lines if line]
        except (UnicodeDecodeError, InvalidCursor) as error:
            raise InvalidCursor(f"{path} is not a cursor file: {error}") from None
        return cls(path, {cursor.stream: cursor.seq for cursor in cursors})

    def after(self, streams: Sequence[str], data: Path) -> dict[str, int]:
        """Returns where those of `streams` continue of which something was printed before.

        A position that is not in the data any more is dropped, with a note.
        """
        known: dict[str, int] = {}
        for stream in streams:
            seq = self._positions.get(stream)
            if seq is None:
                continue
            newest = newest_seq(stream, data=data, on_problem=lambda _: None)
            if seq <= newest:
                known[stream] = seq
            else:
                note(
                    f"{stream} ends at record {newest}, but according to {self._path} record {seq} "
                    "was printed: its data is not the same; it is read from its start"
                )
                del self._positions[stream]
        return known

    def start(self, positions: Mapping[str, int]) -> None:
        """Notes that records up to `positions` are not wanted, as those before `tail -n`."""
        for stream, seq in positions.items():
            self._positions[stream] = max(seq, self._positions.get(stream, 0))

    def note(self, batch: Batch) -> None:
        """Notes that a batch was printed and flushed."""
        self.start(batch.last_seqs())

    def save_if_due(self) -> None:
        """Saves, unless it did so a moment ago. Raises like `save`."""
        if time.monotonic() - self._saved_at >= _SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Replaces the file if there is something new to note. Raises `AtomicWriteError`."""
        if self._positions == self._saved:
            return
        # A power cut must not keep the file, and lose what was printed to another.
        with contextlib.suppress(OSError):
            if stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode):
                os.fsync(sys.stdout.fileno())
        positions = dict(self._positions)
        with AtomicWriter(self._path, "w") as writer:
            writer.write("".join(f"{Cursor(*each)}\n" for each in sorted(positions.items())))
        self._saved, self._saved_at = positions, time.monotonic()


def write_all(batches: Iterable[Batch], output: Output, cursors: CursorFile | None = None) -> None:
    """Writes and flushes all batches, and notes in `cursors` what was printed."""
    try:
        for batch in batches:
            output.write(batch)
            if cursors is not None:
                output.flush()
                cursors.note(batch)
                cursors.save_if_due()
        output.flush()
    finally:
        if cursors is not None:
            cursors.save()
