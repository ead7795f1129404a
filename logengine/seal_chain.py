"""The chain of a stream's sealed segments, held to what its links say of each other.

`docs/format.md` says what can be seen by it and what cannot. Headers in, findings out.
"""

from collections.abc import Callable, Iterator

from msgspec import UNSET

from logengine.segment import Header, header_sha256, signed_part

# Whether a signature, in hexadecimal, is that of some bytes.
IsSigned = Callable[[bytes, str], bool]


class SealChain:
    """Takes a stream's segments in order, and says what of the chain does not hold.

    `anchor` is a hash that has to be in it; with `is_signed` every seal has to be signed.
    """

    def __init__(self, anchor: str | None = None, is_signed: IsSigned | None = None) -> None:
        self._anchor = anchor
        self._is_signed = is_signed
        self._is_anchored = False
        self._is_unbroken = False  # whether the segment before this one is known
        # The first of the unsealed segments behind the last sealed one.
        self.unsealed: int | None = None
        self.newest_hash: str | None = None
        self.sealed_to = 0

    def take(self, header: Header, line: bytes) -> Iterator[str]:
        """What is wrong with the next segment, whose header stands in `line`."""
        if header.prev is UNSET:
            if header.count and self.unsealed is None:
                self.unsealed = header.first
            return
        if self.unsealed is not None:
            yield f"it is sealed, and segment {self.unsealed} before it is not"
            self.unsealed = None
        if header.first == 1 and header.prev:
            yield f"it names a seal before it, {header.prev}, and is the first of its stream"
        if self._is_unbroken and header.prev != self.newest_hash:
            yield (
                f"it names the seal {header.prev or 'none'} before it, and there is "
                f"{self.newest_hash}: that was changed, or one between them removed"
            )
        self.newest_hash = header_sha256(line)
        self.sealed_to = header.last
        self._is_unbroken = True
        if self._anchor in (header.prev, self.newest_hash):
            self._is_anchored = True
        if self._is_signed is not None:
            if header.signature is UNSET:
                yield "its seal is not signed"
            elif not self._is_signed(signed_part(line), header.signature):
                yield "its seal was not signed with this key"

    def look_again(self) -> None:
        """What was taken last is not what is before the next one: it is damaged, or outdated."""
        self._is_unbroken = False
        self.unsealed = None

    def end(self) -> Iterator[str]:
        """What is wrong with the whole, once all segments were taken."""
        if self._anchor is not None and not self._is_anchored:
            yield f"no seal is {self._anchor}: it was changed, or the stream is cut off before it"
