"""Durable acknowledged records per second, and the latency of one ack; `make bench`.

Starts a daemon of its own on a temporary directory beside this checkout, so that the disk
is the one that the checkout is on. Every record is counted at its ack. Latencies are
given as a ratio to a bare loop of *write temp, fsync, replace, fsync directory* that
takes turns with the daemon in the same run: this is what the disk itself takes.
"""

import json
import os
import platform
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

RECORD_BYTES = 256
RECORDS = int(os.environ.get("BENCH_RECORDS", "2000000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SINGLES = int(os.environ.get("BENCH_SINGLES", "1000"))
RECORDS_PER_BLOCK = 256
RESULTS = Path(__file__).parent / "RESULTS.md"


def real_looking_blocks(count: int) -> list[bytes]:
    """Blocks of NDJSON lines of 256 bytes each, newline included, with random ids and words."""
    source = random.Random(1)
    words = [source.randbytes(4).hex() for _ in range(500)]
    return [
        b"".join(_record(source, words) for _ in range(RECORDS_PER_BLOCK)) for _ in range(count)
    ]


def _record(source: random.Random, words: list[str]) -> bytes:
    record = {
        "level": source.choice(["debug", "info", "warning"]),
        "event": "request handled",
        "id": source.randbytes(12).hex(),
        "path": f"/api/{source.choice(words)}",
        "ms": round(source.random() * 100, 3),
        "text": "",
    }
    room = RECORD_BYTES - 1 - len(json.dumps(record, separators=(",", ":")))
    record["text"] = " ".join(source.choices(words, k=30))[:room]
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


class Client:
    """One producer that reads its acks."""

    def __init__(self, path: Path, stream: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self._answers = self.socket.makefile("rb")
        self.socket.sendall(b'{"_hello":1,"stream":"%s"}\n' % stream.encode())
        self._answers.readline()

    def wait_for_ack(self, number: int) -> None:
        while json.loads(self._answers.readline())["ack"] < number:
            pass

    def close(self) -> None:
        self._answers.close()
        self.socket.close()


@contextmanager
def daemon(root: Path) -> Iterator[tuple[Path, int]]:
    """A daemon on `root`; gives its socket and pid."""
    path = root / "socket"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "logengine", "run"),
            *("--data", str(root / "data"), "--socket", str(path)),
        ],
        stderr=subprocess.DEVNULL,
    )
    with socket.socket(socket.AF_UNIX) as probe:
        while probe.connect_ex(str(path)):
            time.sleep(0.01)
    try:
        yield path, process.pid
    finally:
        process.terminate()
        process.wait()


def throughput(path: Path, clients: int, blocks: list[bytes]) -> float:
    """Acknowledged durable records per second, over `clients` connections at once."""
    blocks_each = RECORDS // RECORDS_PER_BLOCK // clients

    def work() -> None:
        client = Client(path, "flood")

        def send() -> None:
            for number in range(blocks_each):
                client.socket.sendall(blocks[number % len(blocks)])

        sending = threading.Thread(target=send)
        sending.start()
        client.wait_for_ack(blocks_each * RECORDS_PER_BLOCK)
        sending.join()
        client.close()

    return clients * blocks_each * RECORDS_PER_BLOCK / _timed_threads(work, clients)


def null_throughput(root: Path, clients: int, blocks: list[bytes]) -> float:
    """What the load generator reaches against a server that only reads."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(root / f"null-{clients}-{time.monotonic_ns()}"))
    listener.listen(64)
    child = os.fork()
    if not child:
        taking = [threading.Thread(target=_swallow, args=listener.accept()) for _ in range(clients)]
        for thread in taking:
            thread.start()
        for thread in taking:
            thread.join()
        os._exit(0)
    blocks_each = RECORDS // RECORDS_PER_BLOCK // clients

    def work() -> None:
        with socket.socket(socket.AF_UNIX) as sender:
            sender.connect(listener.getsockname())
            for number in range(blocks_each):
                sender.sendall(blocks[number % len(blocks)])
            sender.shutdown(socket.SHUT_WR)
            sender.recv(1)

    took_s = _timed_threads(work, clients)
    os.waitpid(child, 0)
    listener.close()
    return clients * blocks_each * RECORDS_PER_BLOCK / took_s


def _swallow(connection: socket.socket, _address: object) -> None:
    buffer = bytearray(262144)
    while connection.recv_into(buffer):
        pass
    connection.close()


def _timed_threads(work: Callable[[], None], count: int) -> float:
    threads = [threading.Thread(target=work) for _ in range(count)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def latencies(path: Path, root: Path, record: bytes) -> tuple[list[float], list[float]]:
    """Seconds for one ack and for the bare loop, in turns, `SINGLES` times each."""
    client = Client(path, "single")
    bare = root / "bare"
    bare.mkdir(exist_ok=True)
    directory = os.open(bare, os.O_RDONLY)
    acks, commits = [], []
    line = record + b" " * 80  # about what the envelope adds
    per_file = 64 * 1024 // len(line)
    for number in range(SINGLES):
        began = time.perf_counter()
        _bare_commit(bare, directory, line * (number % per_file + 1))
        between = time.perf_counter()
        client.socket.sendall(record)
        client.wait_for_ack(number + 1)
        acks.append(time.perf_counter() - between)
        commits.append(between - began)
    os.close(directory)
    client.close()
    return acks, commits


def _bare_commit(directory_path: Path, directory: int, content: bytes) -> None:
    temp = directory_path / ".temp"
    descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    os.write(descriptor, content)
    os.fsync(descriptor)
    os.close(descriptor)
    os.replace(temp, directory_path / "file")
    os.fsync(directory)


def percentile(values: list[float], percent: int) -> float:
    """The value that `percent` of `values` do not pass."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def peak_mib(pid: int) -> float:
    """The most resident memory that a process has had, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    """Runs all rounds and writes the table."""
    blocks = real_looking_blocks(16)
    record = blocks[0][:RECORD_BYTES]
    rates: dict[str, list[float]] = {"1 client": [], "16 clients": [], "null, 16 clients": []}
    ratios: dict[int, list[float]] = {50: [], 99: []}
    micros: dict[str, list[float]] = {"ack": [], "bare": []}
    peaks = []
    for number in range(ROUNDS):
        root = Path(tempfile.mkdtemp(prefix="bench-", dir=Path(__file__).parents[1]))
        try:
            rates["null, 16 clients"].append(null_throughput(root, 16, blocks))
            with daemon(root) as (path, pid):
                rates["1 client"].append(throughput(path, 1, blocks))
                rates["16 clients"].append(throughput(path, 16, blocks))
                acks, commits = latencies(path, root, record)
                peaks.append(peak_mib(pid))
        finally:
            shutil.rmtree(root)
        for percent, found in ratios.items():
            found.append(percentile(acks, percent) / percentile(commits, percent))
        micros["ack"].append(percentile(acks, 50) * 1e6)
        micros["bare"].append(percentile(commits, 50) * 1e6)
        print(f"round {number + 1} of {ROUNDS} done", file=sys.stderr)
    report = render(rates, ratios, micros, peaks)
    RESULTS.write_text(report)
    print(report)


def render(
    rates: dict[str, list[float]],
    ratios: dict[int, list[float]],
    micros: dict[str, list[float]],
    peaks: list[float],
) -> str:
    """The table, in Markdown: median, least and greatest of the rounds."""
    rows = [
        (f"records/s, {name}", [rate / 1e6 for rate in found], "million")
        for name, found in rates.items()
    ]
    rows += [
        (f"ack latency p{percent} / bare loop p{percent}", found, "x")
        for percent, found in ratios.items()
    ]
    rows += [(f"{name} p50", found, "us") for name, found in micros.items()]
    rows.append(("daemon's peak memory", peaks, "MiB"))
    table = "\n".join(
        f"| {name} | {statistics.median(found):.2f} {unit} | {min(found):.2f} | {max(found):.2f} |"
        for name, found, unit in rows
    )
    return (
        "# Results\n\n"
        f"`make bench`: {ROUNDS} rounds of {RECORDS:,} records of {RECORD_BYTES} bytes and of "
        f"{SINGLES:,} single records, each in turn with a bare loop of *write temp, fsync, "
        "replace, fsync directory*. A record counts at its ack; the null server only reads. "
        f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}. Absolute numbers differ between machines; "
        "the ratios are what to compare.\n\n"
        "| measured | median | least | greatest |\n|---|---|---|---|\n"
        f"{table}\n"
    )


if __name__ == "__main__":
    main()
