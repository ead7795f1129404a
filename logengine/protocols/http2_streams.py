"""Follows the streams of an HTTP/2 connection from outside, by the heads of its frames alone.

Whoever passes on the bytes of a connection sees so which requests are not complete, since when, and
how much of them has arrived. Source: RFC 9113, sections 3.4, 4.1 and 6.
"""

from collections.abc import Iterator
from typing import NamedTuple

PREFACE_BYTES = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
_HEAD_BYTES = 9
_DATA, _HEADERS, _RST_STREAM = 0, 1, 3
_END_STREAM = 0x1
_STREAM_BITS = 0x7FFFFFFF


class _Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    size_bytes: int

    @property
    def ends_stream(self) -> bool:
        """Whether its side sends nothing more in the stream."""
        ends = self.kind in (_DATA, _HEADERS) and self.flags & _END_STREAM
        return bool(ends) or self.kind == _RST_STREAM


class _Frames:
    """The frames in one direction, after `skip_bytes` that are none."""

    def __init__(self, skip_bytes: int) -> None:
        self.skip_bytes = skip_bytes
        self._head = b""

    def receive(self, data: bytes) -> Iterator[_Frame]:
        """Yields the frames whose heads `data` completes."""
        place = 0
        while place < len(data):
            if self.skip_bytes:
                skipped = min(self.skip_bytes, len(data) - place)
                self.skip_bytes -= skipped
                place += skipped
                continue
            missing = _HEAD_BYTES - len(self._head)
            self._head += data[place : place + missing]
            place += missing
            if len(self._head) == _HEAD_BYTES:
                head, self._head = self._head, b""
                self.skip_bytes = int.from_bytes(head[:3], "big")
                stream = int.from_bytes(head[5:], "big") & _STREAM_BITS
                yield _Frame(head[3], head[4], stream, self.skip_bytes)


class _Incomplete(NamedTuple):
    since_s: float
    size_bytes: int


class Http2Streams:
    """The streams of one connection. O(frames); memory for each open stream.

    `answering` are those whose request is complete, and whose answer is not.
    """

    def __init__(self) -> None:
        self._from_client = _Frames(PREFACE_BYTES)
        self._from_server = _Frames(0)
        self._has_begun = False
        self._incomplete: dict[int, _Incomplete] = {}  # the oldest first
        self.answering: set[int] = set()
        self.incomplete_bytes = 0

    @property
    def has_begun(self) -> bool:
        """Whether the client's preface, which comes before all frames, has arrived."""
        return self._has_begun

    @property
    def open(self) -> int:
        """How many streams are open."""
        return len(self._incomplete) + len(self.answering)

    @property
    def incomplete_since_s(self) -> float | None:
        """Since when the oldest incomplete request is; None if there is none."""
        return next((each.since_s for each in self._incomplete.values()), None)

    def sent_by_client(self, data: bytes, now_s: float) -> bool:
        """Notes what the client sent. Returns whether it completes a request."""
        completes = False
        for frame in self._from_client.receive(data):
            self._has_begun = True
            before = self._incomplete.get(frame.stream)
            if frame.kind == _HEADERS and frame.stream not in self.answering and before is None:
                before = self._incomplete[frame.stream] = _Incomplete(now_s, 0)
            if frame.kind == _RST_STREAM:
                self._end(frame.stream)
            elif before is not None and frame.ends_stream:
                self._end(frame.stream)
                self.answering.add(frame.stream)
                completes = True
            elif before is not None and frame.kind == _DATA:
                size_bytes = before.size_bytes + frame.size_bytes
                self._incomplete[frame.stream] = before._replace(size_bytes=size_bytes)
                self.incomplete_bytes += frame.size_bytes
        self._has_begun = self._has_begun or not self._from_client.skip_bytes
        return completes

    def sent_by_server(self, data: bytes) -> None:
        """Notes what the server sent. Its last frame of a stream ends it, complete or not."""
        for frame in self._from_server.receive(data):
            if frame.ends_stream:
                self._end(frame.stream)

    def _end(self, stream: int) -> None:
        self.answering.discard(stream)
        if ended := self._incomplete.pop(stream, None):
            self.incomplete_bytes -= ended.size_bytes
