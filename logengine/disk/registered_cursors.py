"""The cursors of readers that must not miss a record. Blocking calls.

DATA/.cursors/NAME contains a cursor, `stream:seq` and a newline: how far NAME has read. Retention
keeps what NAME has not read.
"""

from collections import defaultdict

from logengine.disk.atomic import is_temp_name
from logengine.disk.directory import AnyDirectory, opened
from logengine.errors import InvalidCursor
from logengine.format.cursor import Cursor

CURSORS_NAME = ".cursors"
_BYTES_MAX = 4096


def cursors_behind(data: AnyDirectory, stream: str, seq: int) -> list[str]:
    """The names of the cursors registered for `stream` that have not reached `seq`.

    Raises what `read_cursors` does.
    """
    cursors = read_cursors(data).get(stream, {})
    return sorted(name for name, reached in cursors.items() if reached < seq)


def read_cursors(data: AnyDirectory) -> dict[str, dict[str, int]]:
    """The registered cursors, by stream and by their own name.

    Raises `UnexpectedFile` and `InvalidCursor` naming the file: it is then unknown what its reader
    would miss. Raises `OSError`.
    """
    cursors: dict[str, dict[str, int]] = defaultdict(dict)
    with opened(data) as within:
        try:
            directory = within.subdirectory(CURSORS_NAME)
        except FileNotFoundError:
            return cursors
    with directory:
        for name in directory.names():
            if is_temp_name(name):
                continue
            text = directory.read_file(name, _BYTES_MAX).decode(errors="replace").strip()
            try:
                cursor = Cursor.parse(text)
            except InvalidCursor:
                raise InvalidCursor(
                    f"{directory.path_of(name)}: {text[:80]!r} is no cursor; expected "
                    "STREAM:SEQ, such as app:5120; nothing is removed until it is corrected"
                ) from None
            cursors[cursor.stream][name] = cursor.seq
    return cursors
