"""Times a commit with two flushes and with one: `python -m tests.crash.time_commit_ways DIRECTORY`.

The ways take turns on the directory's file system, commit by commit. Whether one flush is safe
there is for `test_block_cuts` to say.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from tests.crash.rig.commit_ways import one_flush, two_flushes

_WAYS = (two_flushes, one_flush)
_SIZES_BYTES = (2048, 60_000)
_WARM_UP = 20


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="where to write, on the file system to time")
    parser.add_argument("--commits", type=int, default=1000, help="of each way and size")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="commits-", dir=arguments.directory) as root:
        for size_bytes in _SIZES_BYTES:
            data = bytes(size_bytes)
            took_us: dict[str, list[float]] = {way.__name__: [] for way in _WAYS}
            for number in range(_WARM_UP + arguments.commits):
                for way in _WAYS:
                    began = time.perf_counter()
                    way(Path(root, way.__name__), data)
                    if number >= _WARM_UP:
                        took_us[way.__name__].append((time.perf_counter() - began) * 1e6)
            for name, values in took_us.items():
                p50, p99 = statistics.median(values), statistics.quantiles(values, n=100)[98]
                print(f"{size_bytes:6} bytes  {name:11}  p50 {p50:6.0f} us  p99 {p99:6.0f} us")


if __name__ == "__main__":
    _main()
