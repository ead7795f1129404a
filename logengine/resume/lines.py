"""Cuts an input of lines into portions that can be found again. Bytes in, portions out."""

from hashlib import blake2b

from logengine.errors import AnotherInput
from logengine.format.record import BLANK, split_lines
from logengine.resume.history import FINGERPRINT_BYTES_MAX, Identity, Place, Portion

_BEGINS_CHARACTERS = 60
_DIGEST_BYTES = 16


def new_hash() -> blake2b:
    """Returns a new hash object for digests."""
    return blake2b(digest_size=_DIGEST_BYTES)


def digest_of(data: bytes) -> str:
    """Returns the digest of `data`."""
    digest = new_hash()
    digest.update(data)
    return digest.hexdigest()


def identify(path: str, inode: int, start: bytes) -> Identity:
    """Returns the identity of an input that begins with `start`."""
    start = start[:FINGERPRINT_BYTES_MAX]
    return Identity(path, inode, len(start), digest_of(start), first_line(start))


def place_at_start(input_number: int, identity: Identity) -> Place:
    """Returns the place in an input of which nothing is stored."""
    return Place(
        input=input_number,
        identity=identity,
        start=0,
        stop=0,
        digest=digest_of(b""),
        before=0,
        lines=0,
        done=0,
    )


def begins_as(start: bytes, place: Place) -> bool:
    """Returns whether an input that begins with `start` begins as the one of `place` did."""
    return digest_of(start[: place.identity.length]) == place.identity.fingerprint


def first_line(start: bytes) -> str:
    """Returns the start of an input's first line, for messages."""
    line = start.partition(b"\n")[0].decode("utf-8", "backslashreplace")
    printable = "".join(c if c.isprintable() else "?" for c in line)
    return printable[:_BEGINS_CHARACTERS]


def skip_lines(lines: bytes, count: int) -> bytes:
    """Returns `lines` without the first `count` that are not blank."""
    if not count:
        return lines
    return b"".join(line + b"\n" for line in list(split_lines(lines))[count:])


class LineReader:
    """Cuts an input at line ends, from `place` on or from its start; O(bytes).

    With a `place`, feed it from `resumed_offset(place)` on. A line longer than `line_bytes_max` is
    truncated to a length that the daemon still refuses. With `prefix`, the hash of all earlier
    bytes, digests cover all bytes up to a portion's end.
    """

    def __init__(
        self,
        input_number: int,
        identity: Identity,
        line_bytes_max: int,
        *,
        place: Place | None = None,
        open_line: bytes | None = None,
        prefix: "blake2b | None" = None,
    ) -> None:
        self._input = input_number
        self._identity = identity
        self._line_bytes_max = line_bytes_max
        self._start = self._offset = resumed_offset(place) if place else 0
        self._before = self._done = 0
        self._open_line: bytes | None = None
        self.stored_without_end = False  # whether a line stored unfinished is now passed on whole
        if place is not None:
            is_again = self._start == place.start
            self._before = place.before + (0 if is_again else place.lines)
            if place.is_open and place.done:
                self._open_line = open_line
            elif is_again:
                self._done = place.done
        self._is_prefix = prefix is not None
        self._hash = prefix if prefix is not None else new_hash()
        self._rest = bytearray()

    def receive(self, data: bytes) -> Portion | None:
        """Returns the lines that `data` completes; None if there are none to send."""
        cut = data.rfind(b"\n") + 1
        portion = None
        if cut:
            self._hash.update(data[:cut])
            lines = bytes(self._rest) + data[:cut]
            portion = self._portion(lines, self._offset + cut, is_open=False)
            self._rest.clear()
        rest = data[cut:]
        self._hash.update(rest)
        self._rest += rest[: max(0, self._line_bytes_max - len(self._rest))]
        self._offset += len(data)
        return portion

    def end(self) -> Portion | None:
        """Returns the last line, if it has no newline."""
        if not self._rest:
            return None
        lines = bytes(self._rest) + b"\n"
        self._rest.clear()
        return self._portion(lines, self._offset, is_open=True)

    def _portion(self, lines: bytes, stop: int, *, is_open: bool) -> Portion | None:
        there = list(split_lines(lines))
        done = self._done_among(there)
        place = Place(
            input=self._input,
            identity=self._identity,
            start=self._start,
            stop=stop,
            digest=self._hash.hexdigest(),
            before=self._before,
            lines=len(there),
            done=len(there),
            is_open=is_open,
        )
        self._before += len(there)
        self._start = stop
        if not self._is_prefix:
            self._hash = new_hash()
        if done == len(there):
            return None
        return Portion(place, skip_lines(lines, done), len(there) - done)

    def _done_among(self, lines: list[bytes]) -> int:
        if self._open_line is not None and lines:
            is_same = lines[0].strip(BLANK) == self._open_line.strip(BLANK)
            self.stored_without_end = not is_same
            self._open_line = None
            return int(is_same)
        done = min(self._done, len(lines))
        self._done -= done
        return done


def resumed_offset(place: Place) -> int:
    """Returns the byte offset from which to read an input again.

    It is the portion's start if some of its lines are not stored, or its line may have grown.
    """
    return place.start if place.is_open or place.done < place.lines else place.stop


class StreamReader:
    """A `LineReader` for an input that can only be read from its start, such as a pipe.

    Everything before `place` is compared with it and not passed on. Raises `AnotherInput`.
    """

    def __init__(
        self, input_number: int, path: str, line_bytes_max: int, place: Place | None
    ) -> None:
        self._input = input_number
        self._path = path
        self._line_bytes_max = line_bytes_max
        self._place = place
        self._head = b""
        self._offset = 0
        self._hash = new_hash()
        self._at_start = self._hash.copy()
        self._held = bytearray()  # from the place's start on
        self._lines: LineReader | None = None

    @property
    def stored_without_end(self) -> bool:
        """As in `LineReader`."""
        return self._lines is not None and self._lines.stored_without_end

    @property
    def has_passed(self) -> bool:
        """Whether the place was found, or there is none."""
        return self._lines is not None

    def receive(self, data: bytes) -> list[Portion]:
        """Returns the lines after the place that `data` completes."""
        if self._lines is None:
            if self._place is None:
                identity = identify(self._path, 0, data)
                self._lines = LineReader(
                    self._input, identity, self._line_bytes_max, prefix=new_hash()
                )
            else:
                return self._compare(data, self._place)
        return [each for each in [self._lines.receive(data)] if each is not None]

    def end(self) -> list[Portion]:
        """Returns the last line. An empty input counts as one with nothing new."""
        if self._lines is None:
            if self._place is not None and self._offset:
                raise AnotherInput(
                    f"{input_name(self._path)} ended after {self._offset:,} bytes, but "
                    f"{self._place.lines_stored:,} lines of {self._place.stop:,} bytes were stored "
                    "earlier; was it cut short? A different input needs a different --resume NAME"
                )
            return []
        return [each for each in [self._lines.end()] if each is not None]

    def _compare(self, data: bytes, place: Place) -> list[Portion]:
        wanted = place.identity.length
        if len(self._head) < wanted:
            self._head += data[: wanted - len(self._head)]
            if len(self._head) == wanted and not begins_as(self._head, place):
                raise another_stream(place, self._head)
        for border in (place.start, place.stop):
            part = data[: max(0, border - self._offset)]
            data = data[len(part) :]
            self._hash.update(part)
            self._offset += len(part)
            if border == place.start:
                if self._offset == border and not self._held:
                    self._at_start = self._hash.copy()
            else:
                self._held += part
        if self._offset < place.stop:
            return []
        if self._hash.hexdigest() != place.digest:
            raise another_stream(place, self._head)
        return self._pass(place, data)

    def _pass(self, place: Place, data: bytes) -> list[Portion]:
        again = resumed_offset(place) == place.start
        self._lines = LineReader(
            self._input,
            place.identity,
            self._line_bytes_max,
            place=place,
            open_line=bytes(self._held),
            prefix=self._at_start if again else self._hash,
        )
        pieces = [bytes(self._held), data] if again else [data]
        self._held.clear()
        return [each for piece in pieces if (each := self._lines.receive(piece)) is not None]


def input_name(path: str) -> str:
    """Returns the name of an input for messages."""
    return "standard input" if path == "-" else path


def another_stream(place: Place, head: bytes) -> AnotherInput:
    """Returns the error for a pipe whose content is not what an earlier run read."""
    found = first_line(head)
    if begins_as(head, place):
        what = (
            f"differs from it within the first {place.stop:,} bytes. Give it another --resume NAME"
        )
    else:
        what = f"begins with {found!r}. --resume-anew stores it from its start"
    return AnotherInput(
        f"{input_name(place.identity.path)} is not the input that was read before: "
        f"{place.lines_stored:,} lines were stored of an input that begins with "
        f"{place.identity.begins!r}, but this one {what}"
    )
