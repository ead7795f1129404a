"""Times a commit with two flushes and with one: `python -m tests.crash.time_commit_ways DIRECTORY`.

The ways take turns on the directory's file system, commit by commit; with `--engine`, two daemons
take turns, and each record waits for its ack. Whether one flush is safe there is for
`test_block_cuts` to say, and for the daemon to decide: it may take two nevertheless.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from pathlib import Path

from tests.crash.rig.commit_ways import one_flush, two_flushes
from tests.daemon import Daemon, Producer

_WAYS = (two_flushes, one_flush)
_SIZES_BYTES = (2048, 60_000)
_WARM_UP = 20
_BLOCK = 40  # records of one daemon, before it is the other's turn
_RECORD = b'{"event":"request served","path":"/api/v1/items","status":200,"took_ms":12}\n'


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="where to write, on the file system to time")
    parser.add_argument("--commits", type=int, default=1000, help="of each way and size")
    parser.add_argument("--engine", action="store_true", help="times acks of the daemon")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="commits-", dir=arguments.directory) as root:
        if arguments.engine:
            _time_acks(Path(root), arguments.commits)
        else:
            _time_commits(Path(root), arguments.commits)


def _time_commits(root: Path, commits: int) -> None:
    for size_bytes in _SIZES_BYTES:
        data = bytes(size_bytes)
        took_us: dict[str, list[float]] = {way.__name__: [] for way in _WAYS}
        for number in range(_WARM_UP + commits):
            for way in _WAYS:
                began = time.perf_counter()
                way(root / way.__name__, data)
                if number >= _WARM_UP:
                    took_us[way.__name__].append((time.perf_counter() - began) * 1e6)
        _report(f"{size_bytes:6} bytes", took_us)


def _time_acks(root: Path, records: int) -> None:
    took_us: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        senders = {}
        for setting in ("never", "auto"):
            (root / setting).mkdir()
            sockets = stack.enter_context(tempfile.TemporaryDirectory(prefix="acks-"))
            config = f'[commit]\none_flush = "{setting}"\n'
            daemon = Daemon(Path(sockets), config, data=root / setting / "data")
            stack.callback(daemon.close)
            daemon.start()
            status = json.loads(daemon.cli("status", "--json").stdout)
            print(setting, status["commit_flushes"], status["commit_flushes_reason"])
            sender = stack.enter_context(contextlib.closing(daemon.connect()))
            sender.hello(stream="app", producer="timed")
            senders[setting] = sender
            took_us[setting] = []
        acked = 0
        while acked < records:
            for setting, sender in senders.items():
                took_us[setting] += _acks(sender, acked)
            acked += _BLOCK
    _report("an ack", took_us)


def _acks(sender: Producer, acked: int) -> list[float]:
    took_us = []
    for number in range(acked + 1, acked + _BLOCK + 1):
        began = time.perf_counter()
        sender.send(_RECORD)
        sender.wait_for_ack(number)
        took_us.append((time.perf_counter() - began) * 1e6)
    return took_us[_BLOCK // 4 :]  # the first ones find cold caches


def _report(what: str, took_us: dict[str, list[float]]) -> None:
    for name, values in took_us.items():
        p50, p99 = statistics.median(values), statistics.quantiles(values, n=100)[98]
        print(f"{what}  {name:11}  p50 {p50:6.0f} us  p99 {p99:6.0f} us")
    first, second = map(statistics.median, took_us.values())
    print(f"{what}  ratio of p50 {second / first:.2f}")


if __name__ == "__main__":
    _main()
