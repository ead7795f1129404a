"""The position of a reader in a stream: `stream:seq`."""

from dataclasses import dataclass
from typing import Self

from logengine.errors import InvalidCursor
from logengine.format.segment import is_stream_name

# As many digits as a segment's name has.
_SEQ_CHARACTERS_MAX = 20


@dataclass(frozen=True)
class Cursor:
    """The position of a reader that has seen record `seq` of `stream` and all earlier ones."""

    stream: str
    seq: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Returns the cursor written as `stream:seq`. Raises `InvalidCursor`."""
        stream, _, seq = text.rpartition(":")
        is_seq = seq.isascii() and seq.isdigit() and len(seq) <= _SEQ_CHARACTERS_MAX
        if not is_stream_name(stream) or not is_seq:
            raise InvalidCursor(f"{text!r} is no cursor; expected STREAM:SEQ, such as app:5120")
        return cls(stream, int(seq))

    def __str__(self) -> str:
        return f"{self.stream}:{self.seq}"
