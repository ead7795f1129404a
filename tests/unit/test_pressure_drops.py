"""What is dropped for want of room: counted for each user, and reported where there is room."""

import asyncio
import json

from structlog.testing import capture_logs

from logengine.intake.pressure_drops import PressureDrops

NEVER_S = 3600.0


class Streams:
    """The streams that reports are written to; `full` ones have no room."""

    def __init__(self) -> None:
        self.full: set[str] = set()
        self.written: list[tuple[str, int | None, int, int]] = []

    def has_room(self, stream: str) -> bool:
        return stream not in self.full

    def write(self, stream: str, line: bytes) -> None:
        told = json.loads(line)
        self.written.append((stream, told["uid"], told["datagrams"], told["bytes"]))


def dropping(streams: Streams, report_every_s: float = NEVER_S) -> PressureDrops:
    return PressureDrops(report_every_s, streams.has_room, streams.write)


async def test_each_users_drops_are_reported_once() -> None:
    streams = Streams()
    drops = dropping(streams)
    for stream, uid, size_bytes in [("a", 1, 10), ("a", 1, 5), ("a", 2, 7), ("b", 1, 1)]:
        drops.add(stream, uid, size_bytes)
    with capture_logs() as lines:
        drops.report()
        drops.report()
    expected = [("a", 1, 2, 15), ("a", 2, 1, 7), ("b", 1, 1, 1)]
    assert streams.written == expected
    assert [(each["stream"], each["uid"], each["datagrams"]) for each in lines] == [
        each[:3] for each in expected
    ]
    assert drops.datagrams == 4


async def test_a_report_waits_until_its_stream_has_room_but_not_at_a_stop() -> None:
    streams = Streams()
    drops = dropping(streams)
    drops.add("full", 1, 10)
    drops.add("free", 1, 3)
    streams.full.add("full")
    drops.report()
    assert streams.written == [("free", 1, 1, 3)]
    drops.add("full", 1, 10)
    drops.report(is_last=True)
    assert streams.written[1:] == [("full", 1, 2, 20)]
    drops.close()


async def test_what_had_no_room_is_reported_by_itself_once_there_is() -> None:
    streams = Streams()
    drops = dropping(streams, report_every_s=0.001)
    streams.full.add("a")
    drops.add("a", 1, 10)
    drops.report()
    streams.full.clear()
    async with asyncio.timeout(60):
        while not streams.written:  # noqa: ASYNC110 - what it waits for tells no event
            await asyncio.sleep(0.001)
    assert streams.written == [("a", 1, 1, 10)]


async def test_drops_of_more_users_than_are_told_apart_are_reported_together() -> None:
    streams = Streams()
    drops = dropping(streams)
    for uid in range(1500):
        drops.add("a", uid, 2)
    drops.report()
    assert sum(datagrams for _, _, datagrams, _ in streams.written) == drops.datagrams == 1500
    (together,) = [each for each in streams.written if each[1] is None]
    assert together == ("a", None, 1500 - 1024, 2 * (1500 - 1024))
