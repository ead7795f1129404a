"""A producer's side of one connection, without the socket: bytes in, outbox state out.

`docs/protocol.md` is the specification. One conversation is one connection: send `hello` first,
pass all received bytes to `receive`, and send the outbox's records once `is_welcomed` is true.
"""

from collections.abc import Callable

import msgspec

from logengine.client.outbox import Outbox
from logengine.errors import ProducerFenced, ProtocolError, TooManyStreams
from logengine.protocols.ndjson import PROTOCOL_VERSION

_ANSWER_BYTES_MAX = 1024 * 1024
# Errors that end only this connection; the next one may succeed.
_PASSING_ERRORS = {"hello_timeout", "stalled"}


class _Answer(msgspec.Struct, frozen=True):
    """Any answer from the daemon; unknown keys are ignored."""

    welcome: int | None = None
    next: int = 1
    max_record: int = 0
    known: int | None = None  # absent from older daemons
    ack: int | None = None
    error: str | None = None
    record: int | None = None
    first: int | None = None
    last: int | None = None


_answers = msgspec.json.Decoder(_Answer)


class Conversation:
    """Applies the daemon's answers on one connection to `outbox`.

    `on_forgotten` is called with a message for users before anything is sent, if the daemon does
    not know the producer although it has numbers. What it raises ends the client.
    """

    def __init__(
        self,
        outbox: Outbox,
        stream: str,
        producer: str,
        on_forgotten: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._outbox = outbox
        self._stream = stream
        self._producer = producer
        self._on_forgotten = on_forgotten
        self._first = 1  # in the hello
        self._unfinished = b""
        self.max_record = 0

    @property
    def is_welcomed(self) -> bool:
        """Whether records may be sent."""
        return self.max_record > 0

    def hello(self) -> bytes:
        """Returns the first line of the connection."""
        said: dict[str, object] = {
            "_hello": PROTOCOL_VERSION,
            "stream": self._stream,
            "producer": self._producer,
            "flush": True,
        }
        first = self._outbox.hello_first()
        if first is not None:
            said["first"] = self._first = first
        return msgspec.json.encode(said) + b"\n"

    def receive(self, data: bytes) -> None:
        """Handles bytes from the daemon, split anywhere.

        Raises the errors that end the client: `ProducerFenced`, `TooManyStreams`, and
        `ProtocolError` for a refused hello and for anything that is not a daemon's answer.
        """
        *lines, self._unfinished = (self._unfinished + data).split(b"\n")
        if len(self._unfinished) > _ANSWER_BYTES_MAX:
            raise ProtocolError("not a logengine daemon at the socket: no line end in its answer")
        for line in lines:
            if line.strip(b" \t\r"):
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            answer = _answers.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ProtocolError(f"not an answer from logengine: {_shown(line)}: {error}") from None
        if answer.error is not None:
            self._take_error(answer.error, answer, line)
        elif answer.welcome is not None:
            if answer.known == 0 and self._first > 1:
                self._on_forgotten(self._forgotten())
            self._outbox.welcome(answer.next)
            self.max_record = max(1, answer.max_record)
        elif answer.ack is not None:
            self._outbox.acknowledge(self._place(answer.ack, "acknowledged"))

    def _take_error(self, error: str, answer: _Answer, line: bytes) -> None:
        if answer.record is not None:
            place = self._place(answer.record, "refused")
            self._outbox.refuse(place, place, error)
        elif answer.first is not None and answer.last is not None:
            last = self._place(answer.last, "refused")
            self._outbox.refuse(self._outbox.number_to_place(answer.first), last, error)
        elif error == "fenced":
            raise ProducerFenced(
                f"another sender to stream {self._stream!r} took over the name "
                f"{self._producer!r}; give each sender a name of its own"
            )
        elif error == "too_many_streams":
            raise TooManyStreams(f"the daemon accepts no more streams: {_shown(line)}")
        elif error not in _PASSING_ERRORS:
            raise ProtocolError(f"the daemon reports {_shown(line)}")

    def _forgotten(self) -> str:
        text = (
            f"the daemon knows no records of producer {self._producer!r} in stream "
            f"{self._stream!r}: it forgot the name, or its data is new; this client continues at "
            f"number {self._first}"
        )
        if count := self._outbox.sent_unacked:
            text += f", and sends again {count} records that may be stored already"
        return text

    def _place(self, number: int, what: str) -> int:
        if not self.is_welcomed:
            raise ProtocolError(f"the daemon {what} record {number} before its welcome")
        place = self._outbox.number_to_place(number)
        if place > self._outbox.sent:
            raise ProtocolError(f"the daemon {what} record {number}, which was not yet sent")
        return place


def _shown(line: bytes) -> str:
    return line[:500].decode("utf-8", "backslashreplace").strip()
