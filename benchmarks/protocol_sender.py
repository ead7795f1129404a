"""Sends records as the programs of one protocol do: `python -m benchmarks.protocol_sender WORK`.

A separate process, so that only the server is measured. WORK is a `Work` as JSON. All that is sent
is made first; then it prints an empty line, and sends. Nothing is read but answers that a client of
the protocol waits for.
"""

import itertools
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec

import msgspec

NDJSON, DATAGRAMS, STREAM, FORWARD, OTLP, FILE, JOURNAL = (
    "NDJSON",
    "syslog datagrams",
    "syslog stream",
    "Forward with acks",
    "OTLP over HTTP",
    "followed file",
    "journald's datagrams",
)
RECORD_BYTES = 256
# What repeats after so many records.
_DIFFERENT = 16384
_BLOCK_BYTES = 64 * 1024
_TIME_S = 1795466382
_SYSLOG_HEAD = b"<14>Nov 23 20:41:32 app[4711]: "
# Clients of a protocol with acks wait for each; so many send at a time.
_CONNECTIONS = 4
_BATCH_RECORDS = 512  # what OpenTelemetry's SDKs send at most
_PACED_BATCHES_PER_S = 10
_READ_BYTES = 65536
_PAUSE_S = 0.001


class Work(msgspec.Struct, frozen=True):
    """So many records, by the protocol of `way`, to a socket or the end of a file at `path`.

    `per_s` is the pace; 0 is as fast as they are taken.
    """

    way: str
    path: str
    records: int
    per_s: int = 0


def is_available(way: str) -> bool:
    """Whether its packages are there."""
    return way != OTLP or find_spec("opentelemetry.proto") is not None


@contextmanager
def sending(work: Work) -> Iterator[float]:
    """Sends in a separate process until the block ends. The time at which it began, in seconds.

    Raises `CalledProcessError` if something could not be sent.
    """
    command = [
        *(sys.executable, "-m", "benchmarks.protocol_sender"),
        msgspec.json.encode(work).decode(),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as sender:
        assert sender.stdout is not None
        sender.stdout.readline()
        yield time.perf_counter()
    if sender.returncode:
        raise subprocess.CalledProcessError(sender.returncode, command)


def texts() -> list[bytes]:
    """Messages without a newline, so long that a syslog datagram is `RECORD_BYTES`."""
    source = random.Random(1)
    words = [source.randbytes(4).hex() for _ in range(500)]
    size = RECORD_BYTES - len(_SYSLOG_HEAD) - 1

    def text() -> str:
        start = f"request handled id={source.randbytes(12).hex()} ms={source.random() * 100:.3f} "
        return (start + " ".join(source.choices(words, k=32)))[:size]

    return [text().encode() for _ in range(_DIFFERENT)]


def _messages(count: int) -> list[bytes]:
    different = texts()
    return [different[number % _DIFFERENT] for number in range(count)]


def send(work: Work, begin: Callable[[], None]) -> None:
    """Sends all of it; calls `begin` when it starts to."""
    _WAYS[work.way](work, begin)


def _datagrams(work: Work, begin: Callable[[], None]) -> None:
    _send_each([_SYSLOG_HEAD + text for text in _messages(work.records)], work, begin)


def _journal(work: Work, begin: Callable[[], None]) -> None:
    head = b"PRIORITY=6\nSYSLOG_IDENTIFIER=app\nCODE_FILE=app.py\nCODE_LINE=1\nMESSAGE="
    _send_each([head + text + b"\n" for text in _messages(work.records)], work, begin)


def _send_each(datagrams: Sequence[bytes], work: Work, begin: Callable[[], None]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(work.path)
        begin()
        for datagram in _at_pace(datagrams, work.per_s):
            sender.send(datagram)  # blocks while the queue is full


def _stream(work: Work, begin: Callable[[], None]) -> None:
    _send_lines([_SYSLOG_HEAD + text + b"\n" for text in _messages(work.records)], work, begin)


def _ndjson(work: Work, begin: Callable[[], None]) -> None:
    head = b'{"level":"info","message":"'
    _send_lines([head + text + b'"}\n' for text in _messages(work.records)], work, begin)


def _send_lines(lines: Sequence[bytes], work: Work, begin: Callable[[], None]) -> None:
    with socket.socket(socket.AF_UNIX) as sender:
        sender.connect(work.path)
        begin()
        for piece in _pieces(lines, work.per_s):
            sender.sendall(piece)


def _file(work: Work, begin: Callable[[], None]) -> None:
    lines = [_SYSLOG_HEAD + text + b"\n" for text in _messages(work.records)]
    with open(work.path, "ab", buffering=0) as file:
        begin()
        file.writelines(_pieces(lines, work.per_s))


def _pieces(lines: Sequence[bytes], per_s: int) -> Iterator[bytes]:
    """Line by line at a pace; else as many at a time as a program's buffer has."""
    if per_s:
        return _at_pace(lines, per_s)
    return map(b"".join, _batched(lines, _BLOCK_BYTES // RECORD_BYTES))


def _forward(work: Work, begin: Callable[[], None]) -> None:
    pack = msgspec.msgpack.encode
    records = [pack([_TIME_S, {"message": text.decode()}]) for text in _messages(work.records)]
    chunks = []
    for number, batch in enumerate(_batches(records, work.per_s)):
        chunk_id = f"{work.per_s}-{number}"
        chunks.append(pack(["app", b"".join(batch), {"size": len(batch), "chunk": chunk_id}]))
    _exchange(chunks, work, begin)


def _otlp(work: Work, begin: Callable[[], None]) -> None:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
        ExportLogsServiceRequest,
    )

    requests = []
    for batch in _batches(_messages(work.records), work.per_s):
        request = ExportLogsServiceRequest()
        records = request.resource_logs.add().scope_logs.add().log_records
        for text in batch:
            record = records.add(time_unix_nano=_TIME_S * 10**9, severity_number=9)
            record.body.string_value = text.decode()
        body = request.SerializeToString()
        head = (
            b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body)
        )
        requests.append(head + body)
    _exchange(requests, work, begin)


def _batches(records: Sequence[bytes], per_s: int) -> Iterator[Sequence[bytes]]:
    return _batched(records, per_s // _PACED_BATCHES_PER_S or _BATCH_RECORDS)


def _batched(pieces: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(pieces), size):
        yield pieces[start : start + size]


def _exchange(messages: Sequence[bytes], work: Work, begin: Callable[[], None]) -> None:
    """Sends over some connections, each of which waits for its answer before it goes on."""
    with ExitStack() as stack:
        connections = [
            stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(_CONNECTIONS)
        ]
        for each in connections:
            each.connect(work.path)
        waiting: set[socket.socket] = set()
        begin()
        pieces = _at_pace(messages, _PACED_BATCHES_PER_S if work.per_s else 0)
        for each, message in zip(itertools.cycle(connections), pieces, strict=False):
            if each in waiting:
                _read_answer(each)
            each.sendall(message)
            waiting.add(each)
        for each in waiting:
            _read_answer(each)


def _read_answer(connection: socket.socket) -> None:
    """An ack is short; an answer of HTTP has no body, or a short one. Raises `ConnectionError`."""
    answer = connection.recv(_READ_BYTES)
    if not answer or (answer.startswith(b"HTTP") and b" 200 " not in answer[:16]):
        raise ConnectionError(f"not accepted: {answer!r}")


def _at_pace(pieces: Sequence[bytes], per_s: int) -> Iterator[bytes]:
    if not per_s:
        yield from pieces
        return
    began = time.perf_counter()
    for number, piece in enumerate(pieces):
        while (early_s := began + number / per_s - time.perf_counter()) > 0:
            time.sleep(max(_PAUSE_S, early_s))
        yield piece


_WAYS = {
    NDJSON: _ndjson,
    DATAGRAMS: _datagrams,
    STREAM: _stream,
    FORWARD: _forward,
    OTLP: _otlp,
    FILE: _file,
    JOURNAL: _journal,
}
WAYS = tuple(_WAYS)


def _say_begun() -> None:
    print(flush=True)


if __name__ == "__main__":
    send(msgspec.json.decode(sys.argv[1], type=Work), _say_begun)
