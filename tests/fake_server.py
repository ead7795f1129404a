"""A server of the protocol that keeps nothing on disk, and does one thing wrong if asked to."""

import json
import re
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

FAULTS = (
    "acks beyond what was sent",
    "acks go back",
    "answers before a hello",
    "numbers blank lines",
    "loses the last ack",
    "takes any name and number",
    "does not fence",
    "forgets producers",
    "says next as if nothing was lost",
    "ignores first",
    "knows what it was told",
    "takes first for all",
    "mixes streams",
    "takes half a record of a producer",
    "refuses without a number",
    "acks before it refuses",
    "keeps a refused connection open",
    "welcomes without max_record",
    "speaks no JSON",
)
MAX_RECORD = 4096
_BLANK = b" \t\r"
_STREAM = re.compile("[a-z0-9][a-z0-9._-]{0,63}")
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f]")


class Refusal(Exception):
    """A hello that cannot be honoured."""


class FakeServer:
    """Serves at `path` until it is closed; a thread for each connection."""

    def __init__(self, path: Path, fault: str = "") -> None:
        self.fault = fault
        self.lock = threading.Lock()
        self.known: dict[tuple[str, str], int] = {}
        self.speaking: dict[tuple[str, str], _Connection] = {}
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(100)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=_Connection(self, connection).serve))
                self._threads[-1].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()


class _Connection:
    def __init__(self, server: FakeServer, connection: socket.socket) -> None:
        self._server = server
        self._socket = connection
        self._key = ("default", "")
        self._producer = ""
        self._number = 0
        self._is_first_line = True
        self._is_told = False
        self._is_fenced = False

    def _has(self, fault: str) -> bool:
        assert fault in FAULTS
        return self._server.fault == fault

    def _say(self, **answer: Any) -> None:
        line = json.dumps(answer).encode() + b"\n"
        with suppress(OSError):
            self._socket.sendall(b"ERR\n" if self._has("speaks no JSON") else line)

    def serve(self) -> None:
        with self._socket, suppress(ConnectionResetError):
            try:
                self._read()
            except Refusal as refusal:
                self._say(**refusal.args[0])
                if self._has("keeps a refused connection open"):
                    self._socket.recv(1)

    def _read(self) -> None:
        unfinished = b""
        while data := self._socket.recv(65536):
            *lines, unfinished = (unfinished + data).split(b"\n")
            if not self._take(lines):
                return
        is_producers = bool(self._producer) and not self._has("takes half a record of a producer")
        if unfinished and not is_producers:
            self._take([unfinished])

    def _take(self, lines: list[bytes]) -> bool:
        """Whether the connection goes on."""
        with self._server.lock:
            if self._is_fenced:
                return False
            before = self._number
            for line in lines:
                if self._take_line(line.removesuffix(b"\r")):
                    before = self._number
            if self._number > before:
                self._server.known[self._key] = self._number
                if self._is_told:
                    self._acknowledge()
        return True

    def _acknowledge(self) -> None:
        if self._has("loses the last ack") and self._number == 1000:
            return
        self._say(ack=self._number + self._has("acks beyond what was sent"))
        if self._has("acks go back") and self._number > 1:
            self._say(ack=self._number - 1)

    def _take_line(self, line: bytes) -> bool:
        """Whether it was a hello, after which numbers begin anew."""
        if not line.strip(_BLANK) and len(line) <= MAX_RECORD:
            self._number += self._has("numbers blank lines") and self._is_told
            return False
        is_first, self._is_first_line = self._is_first_line, False
        is_too_large = len(line) > MAX_RECORD
        if is_first and not is_too_large and re.match(rb'[ \t\r]*{[ \t\r]*"_hello"', line):
            self._greet(line)
            return True
        self._number += 1
        if self._has("answers before a hello"):
            self._is_told = True
        if is_too_large and self._is_told:
            if self._has("acks before it refuses"):
                self._say(ack=self._number)
            number = {} if self._has("refuses without a number") else {"record": self._number}
            self._say(error="record_too_large", limit=MAX_RECORD, **number)
        return False

    def _greet(self, line: bytes) -> None:
        hello = _decoded(line)
        if not self._has("takes any name and number"):
            _check_bounds(hello)
        stream = "x" if self._has("mixes streams") else hello.get("stream") or "default"
        self._producer = producer = hello.get("producer") or ""
        self._key = (stream, producer)
        if producer and not self._has("does not fence"):
            self._fence(self._server.speaking.get(self._key))
            self._server.speaking[self._key] = self
        is_known = producer and not self._has("forgets producers")
        known = self._server.known.get(self._key, 0) if is_known else 0
        if self._has("says next as if nothing was lost") and known:
            known += 1
        first = hello.get("first") or 1
        if self._has("ignores first") or not (producer or self._has("takes first for all")):
            first = 1
        self._number = max(known, first - 1)
        self._is_told = True
        limit = {} if self._has("welcomes without max_record") else {"max_record": MAX_RECORD}
        said = {"known": self._number if self._has("knows what it was told") else known}
        said = said if producer and self._number >= known else {}
        self._say(welcome=1, next=self._number + 1, **limit, **said)

    def _fence(self, older: "_Connection | None") -> None:
        if older is not None:
            older._is_fenced = True
            older._say(error="fenced")
            with suppress(OSError):
                older._socket.shutdown(socket.SHUT_RDWR)


def _decoded(line: bytes) -> dict[str, Any]:
    """The hello in `line`. Raises `Refusal`."""
    try:
        hello: dict[str, Any] = json.loads(line.decode())
    except ValueError:
        raise Refusal({"error": "bad_hello"}) from None
    types = {"_hello": int, "stream": str | None, "producer": str | None, "first": int | None}
    for name, kind in types.items():
        if not isinstance(hello.get(name), kind):
            raise Refusal({"error": "bad_hello"})
    if hello["_hello"] != 1:
        raise Refusal({"error": "unsupported_version", "expected": 1})
    return hello


def _check_bounds(hello: dict[str, Any]) -> None:
    """Raises `Refusal` for names and numbers that cannot be."""
    stream, producer, first = hello.get("stream"), hello.get("producer"), hello.get("first")
    if stream is not None and not _STREAM.fullmatch(stream):
        raise Refusal({"error": "invalid_stream"})
    if producer is not None and (not 1 <= len(producer) <= 128 or _CONTROL.search(producer)):
        raise Refusal({"error": "invalid_producer"})
    if first is not None and not 1 <= first <= 2**53:
        raise Refusal({"error": "invalid_first"})
