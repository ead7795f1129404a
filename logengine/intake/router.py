"""Sends the records of one socket to the streams that `routes` names, as far as there may be more.

A record that names no stream, or one that would be one too many of its user's, goes to the fallback
stream, and so is never lost.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

import structlog

from logengine.errors import TooManyStreams
from logengine.format.record import envelope, stamp
from logengine.format.segment import stream_name_from
from logengine.format.timestamp import format_timestamp
from logengine.intake.routes import Routes
from logengine.intake.stream_names import StreamNames

log = structlog.get_logger()

# Texts of which is remembered what name they become, and names with the text that they came from.
_REMEMBERED_MAX = 4096
# A longer text is not remembered.
_TEXT_MAX = 256
_QUOTED_MAX = 80
_NO_TIME = format_timestamp(0)


class StreamTexts:
    """The texts that records name their streams by, and the names that these texts become.

    Reports once of each stream that two texts became that name. Memory: bounded.
    """

    def __init__(self) -> None:
        self._streams: OrderedDict[str, str] = OrderedDict()  # of a text
        self._texts: OrderedDict[str, str] = OrderedDict()  # that became this stream first
        self._shared: set[str] = set()  # streams of several texts, that are reported

    def stream_of(self, text: str) -> str | None:
        """Returns the name that `text` becomes, if it becomes one."""
        known = self._streams.get(text)
        if known is not None:
            return known
        stream = stream_name_from(text)
        if stream is None:
            return None
        if len(text) <= _TEXT_MAX:
            self._streams[text] = stream
            if len(self._streams) > _REMEMBERED_MAX:
                self._streams.popitem(last=False)
        self._compare(stream, text[:_TEXT_MAX])
        return stream

    def _compare(self, stream: str, text: str) -> None:
        earlier = self._texts.setdefault(stream, text)
        if len(self._texts) > _REMEMBERED_MAX:
            forgotten, _ = self._texts.popitem(last=False)
            self._shared.discard(forgotten)
        if earlier != text and stream not in self._shared:
            self._shared.add(stream)
            log.warning(
                "stream_of_several_names",
                stream=stream,
                names=[earlier[:_QUOTED_MAX], text[:_QUOTED_MAX]],
            )


class Router:
    """The streams of the records that one socket receives.

    `fallback` is a stream's name. `overflowed` counts the records that went there because their
    stream would have been one too many.
    """

    def __init__(
        self, routes: Routes, names: StreamNames, texts: "StreamTexts", fallback: str
    ) -> None:
        self._routes = routes
        self._names = names
        self.fallback = fallback
        self.overflowed = 0
        self._texts = texts

    @contextmanager
    def split(
        self, body: bytes, count: int, reader: object, uid: int
    ) -> Iterator[dict[str, bytes]]:
        """Returns the `count` stored lines in `body` by their streams, in order for each of them.

        Inside the block, they may be queued there, as records of `uid`. `reader` reads the socket.
        """
        places = _Places(self, reader, uid)
        try:
            if count > 1 and not self._routes.are_of_sender:
                parts: dict[str, list[bytes]] = {}
                for line in body.split(b"\n")[:-1]:
                    parts.setdefault(places.place(self._stream_of(line), 1), []).append(line)
                if len(parts) > 1:
                    yield {stream: b"\n".join([*lines, b""]) for stream, lines in parts.items()}
                else:
                    yield dict.fromkeys(parts, body)
            elif count:
                first = body[: body.index(b"\n")]
                yield {places.place(self._stream_of(first), count): body}
            else:
                yield {}
        finally:
            places.give_back()

    def streams_of(self, body: bytes, count: int, uid: int) -> set[str]:
        """Returns the streams that the `count` stored lines of a user in `body` would go to."""
        lines = body.split(b"\n", 1 if self._routes.are_of_sender else -1)[:-1]
        named = {self._stream_of(line) for line in lines} if count else set()
        return {each if self._names.may_take(each, uid) else self.fallback for each in named}

    def stream_of_chunk(self, lines: bytes, uid_fields: bytes) -> str:
        """Returns the stream that the first record of a chunk names, for the whole chunk.

        Depends on nothing but the chunk and its sender's user, so that a chunk that is sent again
        goes to the same stream. `uid_fields` are the peer fields of no more than the uid.
        """
        first = lines[: lines.find(b"\n") + 1]
        body, count = stamp(first, envelope(_NO_TIME, uid_fields))
        return self._stream_of(body.removesuffix(b"\n")) if count else self.fallback

    def take(self, user: Hashable, stream: str, uid: int, records: int) -> bool:
        """Takes the name of a stream for `user`. Returns False if it would be one too many."""
        try:
            self._names.take(user, stream, uid)
        except TooManyStreams as error:
            self.overflowed += records
            log.warning(
                "too_many_streams", stream=self.fallback, uid=uid, wanted=stream, error=str(error)
            )
            return False
        return True

    def give_back(self, user: Hashable) -> None:
        """Gives back the name that `user` took. It counts while records wait, then for good."""
        self._names.give_back(user)

    def _stream_of(self, line: bytes) -> str:
        text = self._routes.text_of(line)
        if text is None:
            return self.fallback
        return self._texts.stream_of(text) or self.fallback


class _Places:
    """The streams that records which were read together are queued for."""

    def __init__(self, router: Router, reader: object, uid: int) -> None:
        self._router = router
        self._reader = reader
        self._uid = uid
        self._has_taken: dict[str, bool] = {}

    def place(self, stream: str, records: int) -> str:
        """Returns the stream that `records` of `stream` are queued for."""
        has_taken = self._has_taken.get(stream)
        if has_taken is None:
            user = (self._reader, stream)
            has_taken = self._router.take(user, stream, self._uid, records)
            self._has_taken[stream] = has_taken
        elif not has_taken:
            self._router.overflowed += records
        return stream if has_taken else self._router.fallback

    def give_back(self) -> None:
        """Gives back the names; those that records wait for still count."""
        for stream, has_taken in self._has_taken.items():
            if has_taken:
                self._router.give_back((self._reader, stream))
