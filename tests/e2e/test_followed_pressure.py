"""A followed file whose stream has no room: it waits, and nobody else does."""

import contextlib
from pathlib import Path
from typing import Any

from tests.daemon import Daemon, eventually

LINES = 4000
QUOTA = "[stream.app.quota]\nmax_bytes = '64KiB'\n"
LITTLE_MEMORY = """
[limits]
max_record = "16KiB"
max_pending = "512KiB"
max_pending_stream = "128KiB"
[commit]
retry_max = "100ms"
"""


class Following:
    """A daemon that follows one file, and a program that appends numbered lines to it."""

    def __init__(self, root: Path, more: str) -> None:
        self.log = root / "app.log"
        self._follow = f"[[file]]\npath = '{self.log}'\nformat = 'lines'\n"
        self.daemon = Daemon(root, self._follow + more)
        self._lines = 0

    def append(self, count: int) -> None:
        with self.log.open("ab") as file:
            for _ in range(count):
                self._lines += 1
                file.write(b"%d %s\n" % (self._lines, b"x" * 400))

    def rotate(self) -> None:
        self.log.rename(self.log.with_name("app.log.1"))
        self.append(10)

    def set_config(self, more: str) -> None:
        self.daemon.config.write_text(self._follow + more)

    def status(self) -> dict[str, Any]:
        asking = self.daemon.connect()
        asking.send(b'{"_status":1}\n')
        answer = asking.answer()
        asking.close()
        return answer

    def failing_and_waiting(self) -> dict[str, Any] | None:
        status = self.status()
        return status if status["failing"] and status["waiting_senders"] else None

    def numbers(self) -> list[int]:
        return [int(value["message"].split()[0]) for value in self.daemon.values("app")]

    def is_complete(self) -> bool:
        return self.numbers() == list(range(1, self._lines + 1))


def others_are_served(daemon: Daemon) -> None:
    sender = daemon.connect()
    sender.hello(stream="other", ack=True)
    sender.send(b'{"n":1}\n')
    sender.wait_for_ack(1)
    sender.close()


def test_a_file_whose_stream_is_at_its_quota_waits_and_each_line_is_stored_once(
    root: Path,
) -> None:
    files = Following(root, QUOTA)
    files.append(LINES)
    with contextlib.closing(files.daemon) as daemon:
        daemon.start()
        eventually(lambda: files.status()["streams_at_max_bytes"] == ["app"], "the quota")
        others_are_served(daemon)
        files.rotate()
        (found,) = files.status()["files"][:1]
        assert found["position"] < found["size"]
        daemon.kill()
        files.set_config("")
        daemon.start()
        eventually(files.is_complete, "all lines")


def test_a_file_whose_stream_fails_takes_no_more_memory_and_each_line_is_stored_once(
    root: Path,
) -> None:
    files = Following(root, LITTLE_MEMORY)
    with contextlib.closing(files.daemon) as daemon:
        daemon.start()
        in_the_way = daemon.data / "app"
        in_the_way.write_text("not a directory")
        files.append(LINES)
        status = eventually(files.failing_and_waiting, "the file to wait")
        # One piece may be read while there is room for less.
        assert status["pending_bytes"] < 2 * 128 * 1024 + 128 * 1024
        assert [each["stream"] for each in status["failing"]] == ["app"]
        others_are_served(daemon)
        files.rotate()
        in_the_way.unlink()
        eventually(files.is_complete, "all lines")
        daemon.kill()
        files.append(10)
        daemon.start()
        eventually(files.is_complete, "the lines after the kill")
