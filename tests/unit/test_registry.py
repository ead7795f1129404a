"""The registry of wire protocols, and what the configuration asks of it."""

import importlib
import pkgutil
from datetime import UTC, datetime
from unittest.mock import patch

import pytest

from logengine import protocols as package
from logengine.daemon import config
from logengine.daemon.config import parse_config
from logengine.errors import ConfigError
from logengine.protocols.ndjson import PROTOCOL as NDJSON
from logengine.protocols.ndjson import NdjsonReceiver
from logengine.protocols.registry import DEFAULT_PROTOCOL, protocols
from logengine.protocols.wire import NoAnswers, Receiver, WireProtocol

BEACON = WireProtocol("beacon", ("datagram",), NdjsonReceiver, NoAnswers())


def test_each_module_of_the_package_that_has_a_protocol_is_found_under_its_name() -> None:
    modules = [
        importlib.import_module(f"{package.__name__}.{each.name}")
        for each in pkgutil.iter_modules(package.__path__)
    ]
    found = [module.PROTOCOL for module in modules if hasattr(module, "PROTOCOL")]
    assert sorted(protocol.name for protocol in found) == sorted(protocols())
    assert protocols()[DEFAULT_PROTOCOL] is NDJSON
    assert next(iter(protocols())) == DEFAULT_PROTOCOL


def test_each_protocol_says_over_what_it_is_spoken() -> None:
    for protocol in protocols().values():
        assert protocol.transports
        assert set(protocol.transports) <= {"stream", "datagram"}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ('protocol = "morse"', "listen[0].protocol: 'morse'; expected 'ndjson' or 'beacon'"),
        (
            'protocol = "beacon"',
            "listen[0].type: 'stream'; expected 'datagram' (beacon is sent in datagrams: stream is",
        ),
        (
            'type = "datagram"',
            "listen[0].type: 'datagram'; expected 'stream' (ndjson needs a connection: datagram is",
        ),
        ('type = "seqpacket"', "listen[0].type: 'seqpacket'; expected 'stream' or 'datagram'"),
        ("protocol = 1", "listen[0].protocol: 1; expected text"),
    ],
)
def test_a_listener_is_refused_whose_protocol_is_not_spoken_so(said: str, expected: str) -> None:
    known = {"ndjson": NDJSON, "beacon": BEACON}
    with (
        patch.object(config, "protocols", lambda: known),
        pytest.raises(ConfigError) as error,
    ):
        parse_config(f'[[listen]]\npath = "/run/a"\n{said}', "file")
    assert expected in str(error.value)


def test_a_protocol_that_answers_nothing_has_no_byte_for_anything() -> None:
    answers = NoAnswers()
    assert answers.welcome(1, 100, 0) == answers.ack(1) == answers.too_large(1, 100) == b""
    assert answers.over_quota(1, 2, "uid") == answers.error("fenced") == b""
    assert answers.goodbye("stopping") == b""


@pytest.mark.parametrize(
    "protocol", [each for each in protocols().values() if "datagram" in each.transports]
)
def test_nothing_of_a_datagram_is_left_for_the_next(protocol: WireProtocol) -> None:
    def receiver() -> Receiver:
        return protocol.new_receiver(16, "datagram", lambda: datetime(2026, 11, 28, tzinfo=UTC))

    used = receiver()
    for data in (
        b"9 <13>half",
        b"x" * 15,
        b"x" * 16,
        b"x" * 17,
        b"x" * 33 + b"\n",
        b"a\0",
        b"\n",
        b"",
    ):
        fresh = receiver()
        expected = [*fresh.receive(data), *fresh.end()]
        assert [*used.receive(data), *used.end()] == expected
        assert used.unfinished_bytes == 0
