"""An input of lines, cut into portions that can be found again. Bytes in, portions out."""

from hashlib import blake2b

from logengine.errors import AnotherInput
from logengine.format.record import BLANK, split_lines
from logengine.resume.history import FINGERPRINT_BYTES_MAX, Identity, Place, Portion

_BEGINS_CHARACTERS = 60
_DIGEST_BYTES = 16


def new_hash() -> blake2b:
    """What digests are made with."""
    return blake2b(digest_size=_DIGEST_BYTES)


def digest_of(data: bytes) -> str:
    """The digest of `data`."""
    digest = new_hash()
    digest.update(data)
    return digest.hexdigest()


def identify(path: str, inode: int, start: bytes) -> Identity:
    """The identity of an input that begins with `start`."""
    start = start[:FINGERPRINT_BYTES_MAX]
    return Identity(path, inode, len(start), digest_of(start), first_line(start))


def place_at_start(input_number: int, identity: Identity) -> Place:
    """The place in an input of which nothing is stored."""
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
    """Whether an input that begins with `start` begins as that of `place` did."""
    return digest_of(start[: place.identity.length]) == place.identity.fingerprint


def first_line(start: bytes) -> str:
    """How an input begins, for people."""
    line = start.partition(b"\n")[0].decode("utf-8", "backslashreplace")
    printable = "".join(c if c.isprintable() else "?" for c in line)
    return printable[:_BEGINS_CHARACTERS]


def skip_lines(lines: bytes, count: int) -> bytes:
    """`lines` without the first `count` that are not blank."""
    if not count:
        return lines
    return b"".join(line + b"\n" for line in list(split_lines(lines))[count:])


class LineReader:
    """Cuts an input at line ends, from `place` on or from its start; O(bytes).

    With a `place` it is to be fed from `resumed_offset(place)` on. Of a line longer than
    `line_bytes_max` only so much is kept that the daemon refuses it. With `prefix`, the hash of
    all bytes before, digests are of all bytes up to a portion's end.
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
        self.stored_without_end = False  # a line was, and is passed on whole now
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
        """The lines that are complete with `data`; None if there are none to be sent."""
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
        """The last line, if it has no newline."""
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
    """From which byte on an input is to be read again.

    A portion of which some lines are to be sent, or a line that may have gone on, begins again.
    """
    return place.start if place.is_open or place.done < place.lines else place.stop


class StreamReader:
    """A `LineReader` of an input that can only be read from its start, such as a pipe.

    What is before `place` is held against it, and not passed on. Raises `AnotherInput`.
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
        """As `LineReader` has it."""
        return self._lines is not None and self._lines.stored_without_end

    @property
    def has_passed(self) -> bool:
        """Whether the place was found, or there is none."""
        return self._lines is not None

    def receive(self, data: bytes) -> list[Portion]:
        """The lines behind the place that are complete with `data`."""
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
        """The last line. An input of no byte at all is taken for one that has nothing new."""
        if self._lines is None:
            if self._place is not None and self._offset:
                raise AnotherInput(
                    f"{input_name(self._path)} ended after {self._offset:,} bytes, and "
                    f"{self._place.lines_stored:,} lines of {self._place.stop:,} bytes were "
                    "stored before; was it cut short? Another input needs another --resume NAME"
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
    """What an input is called."""
    return "standard input" if path == "-" else path


def another_stream(place: Place, head: bytes) -> AnotherInput:
    """The error for a pipe that has not what an earlier run read."""
    found = first_line(head)
    if begins_as(head, place):
        what = (
            f"differs from it within its first {place.stop:,} bytes. Give it another --resume NAME"
        )
    else:
        what = f"begins with {found!r}. --resume-anew stores it from its start"
    return AnotherInput(
        f"{input_name(place.identity.path)} is not what was read before: "
        f"{place.lines_stored:,} lines were stored of one that begins with "
        f"{place.identity.begins!r}, and this one {what}"
    )
