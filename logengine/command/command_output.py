r"""Turns a command's output into records: bytes in, lines for the daemon out. No I/O.

A line that is a JSON object becomes that object with `fd` in front, unless it already has a key of
that name. Any other line becomes `{"fd":1,"message":"…"}`, with each byte that is not UTF-8 as
`\xff`. Blank lines are dropped. A line whose record would be too long for the daemon is treated as
text and split: each piece except the last has `"partial":true`, and their joined messages are the
line.
"""

from bisect import bisect_right
from collections.abc import Iterator

import msgspec

from logengine.format.json_object import object_fields
from logengine.format.record import BLANK, between_characters


class OutputLines:
    """The lines of one output of a command.

    The result does not depend on how the input was cut into pieces. Buffers at most one line of
    as many bytes as the daemon accepts in a record. O(bytes), and O(bytes * log bytes) for a line
    that must be split. `max_record` is at least 64 bytes, as in the daemon.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._begun = bytearray()  # the line that is not complete yet
        self._is_cut = False  # whether a piece of that line was already returned

    def receive(self, data: bytes, max_record: int) -> bytes:
        """Returns the records that `data` completes, as lines of at most `max_record` bytes."""
        *ends, begun = data.split(b"\n")
        records: list[bytes] = []
        for end in ends:
            records += self._complete(end, max_record)
        self._begun += begun
        while len(self._begun) > max_record:
            piece, size = self._piece(bytes(self._begun[: max_record + 1]), max_record)
            records.append(piece)
            del self._begun[:size]
            self._is_cut = True
        return b"".join(records)

    def end(self, max_record: int) -> bytes:
        """Returns the record of a last line without a newline, if there is one."""
        return b"".join(self._complete(b"", max_record))

    def _complete(self, end: bytes, max_record: int) -> Iterator[bytes]:
        line = bytes(self._begun) + end if self._begun else end
        is_cut = self._is_cut
        self._begun.clear()
        self._is_cut = False
        # A longer line is split before its end is known, so the result must not depend on its end.
        if not is_cut and len(line) <= max_record:
            if not line.strip(BLANK):
                return
            whole = self._of_object(line.strip(BLANK))
            if whole is not None and len(whole) <= max_record + 1:
                yield whole
                return
        line = line.removesuffix(b"\r")
        while len(record := self._of_text(line, {})) > max_record + 1:
            piece, size = self._piece(line[: max_record + 1], max_record)
            yield piece
            line = line[size:]
        yield record

    def _of_object(self, text: bytes) -> bytes | None:
        fields = object_fields(text)
        if fields is None:
            return None
        if "fd" in fields:
            return text + b"\n"
        return b'{"fd":%d%s%s\n' % (self._fd, b"," if fields else b"", text[1:])

    def _of_text(self, text: bytes, more: dict[str, bool]) -> bytes:
        message = text.decode("utf-8", "backslashreplace")
        return msgspec.json.encode({"fd": self._fd, "message": message} | more) + b"\n"

    def _piece(self, line: bytes, max_record: int) -> tuple[bytes, int]:
        """Returns the record of the longest prefix of `line` that fits, and the prefix's length."""
        mark = {"partial": True}

        def record_bytes(stop: int) -> int:
            return len(self._of_text(line[: between_characters(line, stop)], mark))

        longest = bisect_right(range(len(line)), max_record + 1, lo=1, key=record_bytes) - 1
        stop = between_characters(line, longest)
        return self._of_text(line[:stop], mark), stop
