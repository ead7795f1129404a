"""One connection to a server that is held to `docs/protocol.md`, and the server itself."""

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

STREAM = "conformance"
OTHER_STREAM = "conformance-other"
_RECONNECT_PAUSE_S = 0.02

Answer = dict[str, Any]


class Failed(Exception):
    """The server did something else than the specification says."""

    def __init__(self, found: object, expected: str) -> None:
        super().__init__(f"{found}, expected {expected}")


class Connection:
    """One connection. Whatever is read is held to the rules that hold for all answers."""

    def __init__(self, path: str, patience_s: float) -> None:
        self._patience_s = patience_s
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(patience_s)
        self._socket.connect(path)
        self._unfinished = b""
        self._answers: list[Answer] = []
        self.acked = 0
        self.refused: set[int] = set()

    def send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except TimeoutError:
            raise Failed(f"not read within {self._patience_s:g} s", "to be read") from None

    def try_to_send(self, data: bytes) -> None:
        """Sends to a server that may have hung up, which its answers will tell."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send(data)

    def end(self) -> None:
        """Closes the writing side."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()

    def answer(self) -> Answer | None:
        """The next answer; None at end of file."""
        while not self._answers:
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                raise Failed(
                    f"nothing within {self._patience_s:g} s", "an answer or end of file"
                ) from None
            except ConnectionResetError:
                data = b""
            if not data:
                if self._unfinished:
                    raise Failed(f"{self._unfinished[:100]!r} at the end", "answers that end in LF")
                return None
            *lines, self._unfinished = (self._unfinished + data).split(b"\n")
            self._answers += [_decoded(line) for line in lines]
        answer = self._answers.pop(0)
        if "ack" in answer:
            self._take_ack(answer["ack"])
        if "error" in answer and _is_about_records(answer):
            first = answer["record"] if "record" in answer else answer["first"]
            last = answer["record"] if "record" in answer else answer["last"]
            self.refused.update(range(first, last + 1))
        return answer

    def _take_ack(self, number: Any) -> None:
        if type(number) is not int or number < self.acked:
            raise Failed(f"ack {number!r} after ack {self.acked}", "acks that never go back")
        self.acked = number

    def expect(self, key: str) -> Answer:
        """The next answer, which is to have `key`."""
        answer = self.answer()
        if answer is None or key not in answer:
            raise Failed(shown(answer), f"an answer with {key!r}")
        return answer

    def expect_end(self) -> None:
        answer = self.answer()
        if answer is not None:
            raise Failed(shown(answer), "end of file")

    def hello(self, **said: Any) -> int:
        """Says hello and is welcomed; gives `next`."""
        self.send(hello_line(**said))
        return int(self.welcome()["next"])

    def welcome(self) -> Answer:
        answer = self.expect("welcome")
        for key, least in (("welcome", 1), ("next", 1), ("max_record", 1)):
            if type(answer.get(key)) is not int or answer[key] < least:
                raise Failed(shown(answer), f"a whole number {key!r}, from {least}")
        if answer["welcome"] != 1:
            raise Failed(shown(answer), "version 1")
        known = answer.get("known", 0)
        if type(known) is not int or not 0 <= known < answer["next"]:
            raise Failed(shown(answer), "a whole number 'known', from 0 and below 'next'")
        self.acked = answer["next"] - 1
        return answer

    def wait_for_ack(self, number: int) -> None:
        """Reads until all up to `number` is acknowledged, and no more than that."""
        while self.acked < number:
            answer = self.answer()
            if answer is None or ("error" in answer and not _is_about_records(answer)):
                raise Failed(shown(answer), f"ack {number}")
        if self.acked > number:
            raise Failed(f"ack {self.acked}", f"none above {number}, the last that was sent")

    def expect_refusal(self, key_value: str, *, of: str) -> None:
        """An error that ends the connection, and its end."""
        answer = self.answer()
        if answer is None or answer.get("error") != key_value or _is_about_records(answer):
            raise Failed(f"{shown(answer)} to {of}", f"the error {key_value!r}")
        self.expect_end()

    def last_acked(self) -> int:
        """Closes the writing side and reads to the end; the last number acknowledged."""
        self.end()
        while self.answer() is not None:
            pass
        return self.acked


@dataclass
class Server:
    """The one that is held to the specification."""

    path: str
    patience_s: float
    restart_command: str | None

    @contextlib.contextmanager
    def connected(self) -> Iterator[Connection]:
        connection = Connection(self.path, self.patience_s)
        try:
            yield connection
        finally:
            connection.close()

    def restart(self) -> None:
        """Runs the command, and waits until the server welcomes again."""
        assert self.restart_command is not None
        subprocess.run(self.restart_command, shell=True, check=True)
        deadline = time.monotonic() + self.patience_s
        while True:
            try:
                with self.connected() as sender:
                    sender.hello()
                return
            except (Failed, OSError) as error:
                if time.monotonic() > deadline:
                    raise Failed(f"{error} after the restart", "a server that is back") from None
            time.sleep(_RECONNECT_PAUSE_S)


def hello_line(**said: Any) -> bytes:
    return json.dumps({"_hello": 1, "stream": STREAM} | said, ensure_ascii=False).encode() + b"\n"


def _is_about_records(answer: dict[str, Any]) -> bool:
    """Whether an error is about some records, and the connection goes on."""
    return "record" in answer or ("first" in answer and "last" in answer)


def _decoded(line: bytes) -> Answer:
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise Failed(repr(line[:100]), "a JSON object on each line")
    return answer


def shown(answer: Answer | None) -> str:
    return "end of file" if answer is None else json.dumps(answer)[:200]
