"""What a hostile sender may write, drawn from a source: valid, mutated and binary input.

`expected_of` in `test_kill` says what becomes of a line; `is_plain` says of which lines
that is known without asking the engine's own parser.
"""

import random
import re
from collections.abc import Iterator

MAX_RECORD = 4096
_LINES = (
    b'{"level":"info","event":"started"}',
    b'{"a":{"b":[1,2.5,null,true,"x"]},"c":""}',
    b"{}",
    b'{"_ts":"1999","_pid":1,"a":2}',
    b'{"_hello":1,"stream":"other"}',
    b'{"a":1}{"b":2}',
    b'{"a":1,"a":2}',
    b'{"a":',
    b"1}",
    b'  {"spaced":1}\r',
    b"plain text, as printf makes it",
    b"",
    b"\r",
    b" \t",
    b"[1,2]",
    b"null",
    b'"text"',
    b'{"n":NaN}',
    b'{"n":1e999}',
    b'{"n":123456789012345678901234567890}',
    b'{"s":"\\ud800"}',
    b'{"s":"\\u0000"}',
    b'{"s":"\xc3\xa4\xf0\x9f\x98\x80"}',
    b"\xff\xfe\x00\x80",
    b'{"s":"\x00"}',
    b"[" * 3000,
    b'{"a":' * 1500 + b"1" + b"}" * 1500,
    b"x" * MAX_RECORD,
    b"x" * (MAX_RECORD + 1),
    b'{"x":"' + b"y" * (2 * MAX_RECORD) + b'"}',
)
_HELLOS = (
    b'{"_hello":1}',
    b'{"_hello":1,"stream":"fuzzed","producer":"p"}',
    b'{"_hello":1,"stream":"../../etc"}',
    b'{"_hello":2}',
    b'{"_hello":"1"}',
    b'{"_hello":1,"first":-1,"producer":"p"}',
    b'{"_hello":1,"first":9007199254740993,"producer":"p"}',
    b'{"_hello":1,"producer":""}',
    b'{"_hello":1,"producer":"' + b"p" * 200 + b'"}',
    b'{"_hello":1,"stream":null}',
    b'{"_hello":1,"_hello":2}',
    b'{"_hello":1' + b"," * 10 + b"}",
)
_PLAIN = re.compile(rb"[ -~]*\r?")
# What Python's parser and a strict one may see differently.
_DISPUTED = re.compile(rb'\\|NaN|Infinity|"_|\d{15}|\d[eE]|[\[{].{0,5}[\[{]')


def lines(source: random.Random) -> bytes:
    """Some lines, mostly from the list, some of them mutated; the last may have no LF."""
    count = source.choice([1, 3, 20, 200])
    data = b"\n".join(source.choice(_LINES) for _ in range(count))
    if source.random() < 0.9:
        data += b"\n"
    for _ in range(source.choice([0, 0, 1, 5, 50])):
        data = _mutated(data, source)
    return data


def first_line(source: random.Random) -> bytes:
    """Something like a hello, or not."""
    line = source.choice(_HELLOS)
    for _ in range(source.choice([0, 0, 1, 3])):
        line = _mutated(line, source)
    return line + b"\n"


def chunks(data: bytes, source: random.Random) -> Iterator[bytes]:
    """`data` in pieces, few or many."""
    size_max = source.choice([1, 7, 100, 5000, len(data)])
    # A byte at a time is for short input: what counts is where a cut may fall.
    size_max = max(size_max, len(data) // 300, 1)
    while data:
        size = source.randint(1, size_max)
        yield data[:size]
        data = data[size:]


def records_of(data: bytes) -> list[bytes]:
    """The lines that have a number, by the protocol's documentation."""
    return [line for line in data.split(b"\n") if line.strip(b" \t\r")]


def is_refused(line: bytes) -> bool:
    """Whether a line is too long."""
    return len(line.removesuffix(b"\r")) > MAX_RECORD


def is_plain(line: bytes) -> bool:
    """Whether everybody agrees on what is in a line."""
    return bool(_PLAIN.fullmatch(line)) and not _DISPUTED.search(line)


def _mutated(data: bytes, source: random.Random) -> bytes:
    place = source.randint(0, len(data))
    match source.randrange(5):
        case 0 if data:
            place %= len(data)
            return (
                data[:place] + bytes([data[place] ^ 1 << source.randrange(8)]) + data[place + 1 :]
            )
        case 1:
            return data[:place] + source.randbytes(source.randint(1, 20)) + data[place:]
        case 2:
            return data[:place] + data[place + source.randint(1, 50) :]
        case 3:
            return data[:place] + b"\n" + data[place:]
        case _:
            piece = data[place : place + source.randint(1, 100)]
            return data[:place] + piece + data[place:]
