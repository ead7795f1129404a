"""A process that may be killed at any time: sends records 1 to N of one producer, once each.

Run as `python -m tests.crash.rig.numbering_process SOCKET SPOOL PRODUCER N PAUSE_S`. Started again,
it goes on behind what is safe. It pauses behind every 100 records.
"""

import sys
import time
from collections.abc import Callable

import logengine


def main(
    socket: str,
    spool: str,
    producer: str,
    last: int,
    pause_s: float,
    before_each: Callable[[], object] = lambda: None,
) -> None:
    with logengine.Client(
        "fire", socket=socket, spool=spool, producer=producer, max_bytes=256 * 1024
    ) as client:
        for number in range(client.resumed_at() + 1, last + 1):
            before_each()
            client.send({"producer": producer, "n": number, "text": "x" * (number % 200)})
            if number % 100 == 0:
                time.sleep(pause_s)
        client.flush()


if __name__ == "__main__":
    socket_path, spool_path, name, records, pause = sys.argv[1:]
    main(socket_path, spool_path, name, int(records), float(pause))
