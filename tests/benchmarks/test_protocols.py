"""The scenario *protocols*: its report from measurements made up, and a short run of each way."""

import contextlib
import socket
import threading
from pathlib import Path

import msgspec
import pytest

from benchmarks.protocol_sender import DATAGRAMS, FILE, FORWARD, OTLP, Work, send
from benchmarks.protocols import OURS, EngineInput, Found, Turn, Way, take_turn
from benchmarks.scenarios.protocols import SCENARIO


def found(ours: float, theirs: float, name: str = DATAGRAMS) -> Found:
    turns = {OURS: [Turn(0.1, ours, 4.0)] * 3, "rsyslog": [Turn(0.2, theirs, 2.0)] * 3}
    return Found([Way("NDJSON", 5, {OURS: [Turn(0.1, 1.0, 2.0)] * 3}), Way(name, 5, turns)], ["x"])


def test_a_row_shows_each_and_the_ratio_of_the_same_round(root: Path) -> None:
    text = SCENARIO.render(found(60_000, 100_000), root).text
    assert "| NDJSON | logengine | 1 |  | 2 us |  | 1x |" in text
    assert "| syslog datagrams | logengine | 60,000 |  | 4 us |  | 2x |" in text
    assert "|  | rsyslog | 100,000 | **0.60x** (0.60 to 0.60) | 2 us | **2x** (2 to 2) |  |" in text
    assert "|  | rsyslog | 20 % | **0.50x** (0.50 to 0.50) |" in text
    assert "Could not be had here: x." in text


@pytest.mark.parametrize(("name", "is_met"), [(DATAGRAMS, True), (FILE, False)])
def test_datagrams_need_half_of_theirs_and_files_more_than_theirs(
    root: Path, name: str, *, is_met: bool
) -> None:
    rate, everyday = SCENARIO.render(found(60_000, 100_000, name), root).aims
    assert rate.is_met == is_met
    assert everyday.is_met


def test_what_is_kept_is_read_again() -> None:
    before = found(1, 2)
    assert msgspec.json.decode(msgspec.json.encode(before), type=Found) == before


@pytest.mark.parametrize("way", [DATAGRAMS, FORWARD, OTLP, FILE])
def test_all_records_of_a_way_are_stored(way: str) -> None:
    """`take_turn` returns when as many are stored as were sent, and raises if there are more."""
    turn = take_turn(EngineInput(), Way(way, 1500), 0.1)
    assert turn.records_per_s > 0
    assert turn.cpu_us_per_record > 0


def test_a_refused_request_ends_the_sender(root: Path) -> None:
    path = root / "refusing"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def refuse() -> None:
            connections = [listener.accept()[0] for _ in range(4)]
            for each in connections:
                with contextlib.suppress(OSError):  # the sender may be gone after the first
                    each.recv(65536)
                    each.sendall(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
            for each in connections:
                each.close()

        server = threading.Thread(target=refuse)
        server.start()
        with pytest.raises(ConnectionError, match="503"):
            send(Work(OTLP, str(path), 4 * 512), lambda: None)
        server.join()
