"""What the protocol `journal` makes of datagrams, from real clients and from enemies."""

import json
import re
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logengine.daemon.config import parse_config
from logengine.format.json_object import object_fields
from logengine.format.record import ENVELOPE_NAMES, Peer, envelope, peer_fields, stamp
from logengine.format.severity import FACILITIES, SEVERITIES
from logengine.intake.memory_files import CLOSING_MAX
from logengine.protocols.journal import FIELDS_MAX, PROTOCOL, JournalReceiver
from logengine.protocols.wire import Lines, Opening, TooLarge

PAGE = Path(__file__).parents[2] / "docs" / "journal.md"
MAX_RECORD = 64 * 1024


def binary(name: bytes, value: bytes) -> bytes:
    return name + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"


def received(datagram: bytes, max_record: int = MAX_RECORD) -> list[dict[str, Any] | None]:
    """The records of a datagram; None for one that is too large."""
    receiver = JournalReceiver(max_record)
    events = receiver.receive(datagram) + receiver.end()
    assert receiver.unfinished_bytes == 0
    found: list[dict[str, Any] | None] = []
    for event in events:
        if isinstance(event, TooLarge):
            found.append(None)
            continue
        assert isinstance(event, Lines)
        assert event.chunk.endswith(b"\n")
        for line in event.chunk.split(b"\n")[:-1]:
            assert len(line) <= max_record
            assert object_fields(line) is not None  # never stored as text
            found.append(json.loads(line))
    return found


def record(datagram: bytes) -> dict[str, Any]:
    (found,) = received(datagram)
    assert found is not None
    return found


# What each client was seen to send.
CLIENTS = {
    "logger --journald": (
        (b"MESSAGE=from logger journald\nPRIORITY=5\nMY_FIELD=x\nSYSLOG_IDENTIFIER=logger\n"),
        {"level": "notice", "app": "logger", "message": "from logger journald", "MY_FIELD": "x"},
    ),
    "sd_journal_send": (
        (
            b"CODE_FILE=CODE_FILE=a.c\nCODE_LINE\n\x07\0\0\0\0\0\0\0LINE=12\n"
            b"MESSAGE=hi\nPRIORITY=3\nSYSLOG_IDENTIFIER=prog\n"
        ),
        {
            "level": "error",
            "app": "prog",
            "message": "hi",
            "CODE_FILE": "CODE_FILE=a.c",
            "CODE_LINE": "LINE=12",
        },
    ),
    "logging-journald": (
        (
            binary(b"MESSAGE", b"two\nlines")
            + b"PRIORITY=4\nSYSLOG_FACILITY=23\nCODE=a.f:1\nCODE_FUNC=f\nPID=7\n"
            + binary(b"TRACEBACK", b"Traceback:\n  File \xc3\xa9")
        ),
        {
            "level": "warning",
            "facility": "local7",
            "message": "two\nlines",
            "CODE": "a.f:1",
            "CODE_FUNC": "f",
            "PID": "7",
            "TRACEBACK": "Traceback:\n  File é",
        },
    ),
    "the example of systemd's page": (
        (
            b"PRIORITY=3\nSYSLOG_FACILITY=3\nCODE_FILE=src/foobar.c\nCODE_LINE=77\n"
            b"BINARY_BLOB\n\x04\0\0\0\0\0\0\0xx\nx\nCODE_FUNC=some_func\n"
            b"SYSLOG_IDENTIFIER=footool\nMESSAGE=Something happened.\n"
        ),
        {
            "level": "error",
            "facility": "daemon",
            "app": "footool",
            "message": "Something happened.",
            "CODE_FILE": "src/foobar.c",
            "CODE_LINE": "77",
            "BINARY_BLOB": "xx\nx",
            "CODE_FUNC": "some_func",
        },
    ),
}


@pytest.mark.parametrize(("datagram", "expected"), CLIENTS.values(), ids=CLIENTS)
def test_what_clients_send_becomes_fields(datagram: bytes, expected: dict[str, Any]) -> None:
    assert record(datagram) == expected


BASE64 = b64encode(b"\xff\0\n").decode()
ODD = {
    b"": [],
    b"\n\n\n": [],
    b"MESSAGE=without an end": [{"message": "without an end"}],
    b"MESSAGE=": [{"message": ""}],
    b"=": [{"": ""}],
    b"A==b\n": [{"A": "=b"}],
    # Several entries in a datagram.
    b"MESSAGE=a\n\nMESSAGE=b\nX=1\n\n\n": [{"message": "a"}, {"message": "b", "X": "1"}],
    # A field that occurs several times.
    b"X=1\nX=2\nX=1\n": [{"X": ["1", "2", "1"]}],
    b"MESSAGE=a\nMESSAGE=b\n": [{"message": ["a", "b"]}],
    b"PRIORITY=3\nPRIORITY=4\n": [{"PRIORITY": ["3", "4"]}],
    # Values that the field of other protocols cannot have.
    b"PRIORITY=8\nSYSLOG_FACILITY=24\n": [{"PRIORITY": "8", "SYSLOG_FACILITY": "24"}],
    b"PRIORITY=\xb2\n": [{"PRIORITY_base64": "sg=="}],
    "PRIORITY=²\nSYSLOG_FACILITY=²\n".encode(): [{"PRIORITY": "²", "SYSLOG_FACILITY": "²"}],
    b"SYSLOG_IDENTIFIER=\nSYSLOG_PID=77\n": [{"procid": "77", "SYSLOG_IDENTIFIER": ""}],
    # Names that a field of other protocols has already.
    b"level=x\nMESSAGE=a\nPRIORITY=1\nmessage=b\n": [
        {"level": "alert", "message": "a", "_level": "x", "_message": "b"}
    ],
    b"level=x\n": [{"level": "x"}],
    b"unparsed=x\nMESSAGE=a\njunk": [{"message": "a", "unparsed": "junk", "_unparsed": "x"}],
    # Not text.
    b"MESSAGE=\xff\n": [{"message_base64": "/w=="}],
    binary(b"D", b"\xff\0\n"): [{"D_base64": BASE64}],
    binary(b"D", b"\xff\0\n") + b"D=x\n": [{"D_base64": [BASE64, b64encode(b"x").decode()]}],
    binary(b"D", b"\xff\0\n") + b"D_base64=x\n": [{"D_base64": BASE64, "_D_base64": "x"}],
    binary(b"MESSAGE", b"a\0b\nc\x1b[2J\x7f"): [{"message": "a\0b\nc\x1b[2J\x7f"}],
    # Names that journald does not accept.
    b"my-field=x\nMESSAGE=a\n": [{"message": "a", "my-field": "x"}],
    b"\xff\x1b=x\n": [{"\\xff\x1b": "x"}],
    # What is no field is kept, with what comes after it.
    b"hello": [{"unparsed": "hello"}],
    b"MESSAGE=a\nhello\nX=1\n": [{"message": "a", "unparsed": "hello\nX=1\n"}],
    b"MESSAGE=a\nD\n\xff\xff\xff\xff\xff\xff\xff\xffx\n": [
        {
            "message": "a",
            "unparsed_base64": b64encode(b"D\n\xff\xff\xff\xff\xff\xff\xff\xffx\n").decode(),
        }
    ],
    b"D\n\x01\0\0\0\0\0\0\0xy\n": [{"unparsed": "D\n\x01\0\0\0\0\0\0\0xy\n"}],
    b"D\n\x01\0\0": [{"unparsed": "D\n\x01\0\0"}],
    b"D\n\x01\0\0\0\0\0\0\0x": [{"D": "x"}],
}


@pytest.mark.parametrize(("datagram", "expected"), ODD.items())
def test_an_odd_datagram_has_a_documented_outcome(
    datagram: bytes, expected: list[dict[str, Any]]
) -> None:
    assert received(datagram) == expected


def test_each_severity_and_facility_has_its_name() -> None:
    for number, name in enumerate(SEVERITIES):
        assert record(b"PRIORITY=%d" % number) == {"level": name}
    for number, name in enumerate(FACILITIES):
        assert record(b"SYSLOG_FACILITY=%d" % number) == {"facility": name}


def test_a_sender_forges_neither_the_envelope_nor_what_only_journald_sets() -> None:
    forged = {"_SYSTEMD_UNIT": "sshd.service", "_PID": "1", "_UID": "0", "__CURSOR": "s=1"}
    forged |= dict.fromkeys(ENVELOPE_NAMES, "x")
    datagram = b"".join(b"%s=%s\n" % (k.encode(), v.encode()) for k, v in forged.items())
    found = record(b"MESSAGE=a\n" + datagram)
    assert found == {"message": "a", "untrusted": forged}
    receiver = JournalReceiver(MAX_RECORD)
    (event,) = receiver.receive(datagram) + receiver.end()
    assert isinstance(event, Lines)
    time_text = "2026-11-28T20:00:00.000000Z"
    body, count = stamp(event.chunk, envelope(time_text, peer_fields(Peer(77, 88, 99))))
    assert count == 1
    stored = json.loads(body)
    assert (stored["_ts"], stored["_pid"], stored["_uid"], stored["_gid"]) == (
        *(time_text, 77, 88),
        99,
    )
    assert "_unit" not in stored


def test_a_field_called_untrusted_does_not_replace_what_is_not_to_be_trusted() -> None:
    found = record(b"untrusted=nothing\n_PID=1\n")
    assert found == {"untrusted": {"_PID": "1"}, "_untrusted": "nothing"}


def test_a_record_that_is_too_large_is_refused_and_the_others_are_taken() -> None:
    datagram = b"MESSAGE=a\n\nMESSAGE=" + b"x" * 100 + b"\n\nMESSAGE=b\n"
    assert received(datagram, 100) == [{"message": "a"}, None, {"message": "b"}]
    # What counts is the record, in which an escaped character takes six bytes.
    assert received(b"MESSAGE=" + b"\x01" * 20, 100) == [None]
    exact = b"MESSAGE=" + b"x" * (100 - len('{"message":""}'))
    assert received(exact, 100) != [None]
    assert received(exact + b"x", 100) == [None]


def test_fields_beyond_the_limit_are_kept_unparsed() -> None:
    fields = [b"F%d=x\n" % number for number in range(FIELDS_MAX + 2)]
    found = record(b"".join(fields))
    assert len(found) == FIELDS_MAX + 1
    assert found["unparsed"] == b"".join(fields[-2:]).decode()


def test_what_a_datagram_can_cost_is_bounded() -> None:
    chained = b"".join(
        binary(b"-" * n + b"X", b"\xff") + b"-" * n + b"X_base64=y\n" for n in range(512)
    )
    for datagram in (
        b"\n" * 1024 * 1024,
        b"=\n" * 512 * 1024,
        b"A=\n\n" * 256 * 1024,
        b"X\n" * 512 * 1024,
        b"a" * 1024 * 1024,
        b"_" * 1024 * 1024 + b"=\n",
        chained,
        b"".join(binary(b"%d" % n, b"\xff") for n in range(50_000)),
    ):
        found = received(datagram, 16 * 1024 * 1024)
        assert len(found) <= FIELDS_MAX + 1
        assert sum(len(record) for record in found if record) <= FIELDS_MAX + 1


names = st.text(st.characters(codec="ascii", exclude_characters="=\n"), min_size=1, max_size=20)
fields = st.lists(st.tuples(names, st.binary(max_size=40)), min_size=1, max_size=30)


def encoded(name: str, value: bytes, *, is_binary: bool) -> bytes:
    if is_binary or b"\n" in value:
        return binary(name.encode(), value)
    return name.encode() + b"=" + value + b"\n"


@given(fields, st.booleans())
def test_every_value_of_every_field_is_in_the_record(
    sent: list[tuple[str, bytes]], is_binary: bool
) -> None:
    found = record(b"".join(encoded(name, value, is_binary=is_binary) for name, value in sent))
    told: list[bytes] = []
    for holder in (found, found.get("untrusted", {})):
        for name, value in holder.items():
            if name == "untrusted":
                continue
            texts = value if isinstance(value, list) else [value]
            is_base64 = name.endswith("_base64")
            told += [b64decode(text) if is_base64 else text.encode() for text in texts]
    assert sorted(told) == sorted(value for _, value in sent)


@given(st.binary(max_size=300), st.integers(1, 400))
def test_arbitrary_bytes_never_raise_and_become_records(data: bytes, max_record: int) -> None:
    received(data, max_record)


@given(
    st.lists(
        st.sampled_from(
            [b"A=", b"\n", b"MESSAGE", b"x", b"\x02\0\0\0\0\0\0\0", b"\0", b"=", b"_", b"\xff"]
        ),
        max_size=30,
    ).map(b"".join)
)
def test_a_mix_of_parts_of_fields_never_raises(data: bytes) -> None:
    received(data)


def test_a_datagram_is_never_cut_apart() -> None:
    receiver = PROTOCOL.receiver(100)
    assert receiver.opening(b"A=1\n") is Opening.RECORD
    assert receiver.whole_bytes(b"A=1\n\nB=2") == receiver.bytes_of(b"A=1\n\nB=2", 1) == 8
    receiver.receive(b"A=")
    assert receiver.unfinished_bytes == receiver.drop_unfinished() == 2
    assert receiver.end() == []


def test_the_page_says_the_limits() -> None:
    page = PAGE.read_text()
    assert f"{FIELDS_MAX} fields" in page
    assert f"at most {CLOSING_MAX} at a time" in page


def test_the_configurations_of_the_page_are_accepted() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        listen = parse_config(block, "page").listen
        assert {"journal", "journal-stdout"} <= {each.protocol for each in listen}
