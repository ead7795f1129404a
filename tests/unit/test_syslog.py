"""What the protocol `syslog` makes of the bytes that real clients send, wherever they were cut."""

import json
import re
import tracemalloc
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logengine.daemon.config import parse_config
from logengine.exchange.importing import convert_lines
from logengine.format.record import stamp
from logengine.format.severity import FACILITIES, SEVERITIES
from logengine.protocols.syslog import PROTOCOL, SyslogReceiver
from logengine.protocols.syslog_headers import _REMEMBERED_MAX
from logengine.protocols.wire import Event, Lines, Transport

PAGE = Path(__file__).parents[2] / "docs" / "syslog.md"
MAX_RECORD = 2048
SMALL = 64
NOTICE = {"level": "notice", "facility": "user"}
TIME = {"time": "2026-11-23T19:41:32.000000Z"}  # of 20:41:32 in Berlin


def berlin() -> datetime:
    return datetime(2026, 11, 28, 20, 0, tzinfo=ZoneInfo("Europe/Berlin"))


def records(events: list[Event]) -> list[dict[str, Any]]:
    found = []
    for event in events:
        assert isinstance(event, Lines)
        assert event.chunk.endswith(b"\n")
        found += [json.loads(line) for line in event.chunk.splitlines()]
    return found


def received(
    data: bytes, cuts: list[int] | None = None, max_record: int = MAX_RECORD
) -> list[dict[str, Any]]:
    """The records of `data` over a stream, received in pieces that end at `cuts`."""
    receiver = SyslogReceiver(max_record, "stream", berlin)
    places = sorted({cut % (len(data) + 1) for cut in cuts or []} | {0, len(data)})
    events: list[Event] = []
    for start, stop in pairwise(places):
        events += receiver.receive(data[start:stop])
        assert receiver.unfinished_bytes <= max_record + 16
    events += receiver.end()
    assert receiver.unfinished_bytes == 0
    return records(events)


def datagram(data: bytes, max_record: int = MAX_RECORD) -> list[dict[str, Any]]:
    receiver = SyslogReceiver(max_record, "datagram", berlin)
    return records(receiver.receive(data) + receiver.end())


def messages(data: bytes, cuts: list[int] | None = None) -> list[str]:
    return [record["message"] for record in received(data, cuts)]


# What each client sent in one datagram, or in one message over a stream.
CLIENTS = {
    "logger": (
        b"<13>Nov 23 20:41:32 tag1: plain msg",
        TIME | NOTICE | {"app": "tag1", "message": "plain msg"},
    ),
    "logger -i": (
        b"<13>Nov 23 20:41:32 tag2[1136]: with a pid",
        TIME | NOTICE | {"app": "tag2", "procid": "1136", "message": "with a pid"},
    ),
    "logger --rfc3164": (
        b"<13>Nov 23 20:41:32 vm tag3: x",
        TIME | NOTICE | {"host": "vm", "app": "tag3", "message": "x"},
    ),
    "logger --rfc5424": (
        (
            b"<13>1 2026-11-23T20:42:10.805180+00:00 vm tag4 77 MID "
            b'[timeQuality tzKnown="1" isSynced="0"][ex@32473 k="v"] rfc5424 msg'
        ),
        {"time": "2026-11-23T20:42:10.805180Z"}
        | NOTICE
        | {"host": "vm", "app": "tag4", "procid": "77", "msgid": "MID", "message": "rfc5424 msg"}
        | {
            "structured": {
                "timeQuality": {"tzKnown": "1", "isSynced": "0"},
                "ex@32473": {"k": "v"},
            }
        },
    ),
    "logger --rfc5424=notime,notq,nohost": (
        b"<13>1 - - tag4b - - - msg",
        NOTICE | {"app": "tag4b", "message": "msg"},
    ),
    "SysLogHandler": (
        b"<140>ident msg\0",
        {"level": "warning", "facility": "local1", "message": "ident msg"},
    ),
    "SysLogHandler, with an ident": (
        b'<11>app: failed\nTraceback (most recent call last):\n  File "x", line 1\0',
        {"level": "error", "facility": "user", "app": "app"}
        | {"message": 'failed\nTraceback (most recent call last):\n  File "x", line 1'},
    ),
    "glibc": (
        b"<148>Nov 23 20:41:32 capp[2108]: hello Success\nsecond",
        TIME
        | {"level": "warning", "facility": "local2", "app": "capp", "procid": "2108"}
        | {"message": "hello Success\nsecond"},
    ),
    "rsyslog": (
        b"<13>Nov 23 20:41:32 vm viars[3018]: hello rsyslog",
        TIME
        | NOTICE
        | {"host": "vm", "app": "viars", "procid": "3018"}
        | {"message": "hello rsyslog"},
    ),
    "syslog-ng": (
        b"<13>Nov 23 20:41:32 vm viasn[3891]: hello syslog-ng\n",
        TIME
        | NOTICE
        | {"host": "vm", "app": "viasn", "procid": "3891"}
        | {"message": "hello syslog-ng"},
    ),
    "syslog-ng, $(format-json)": (b'{"MESSAGE":"x","n":1}\n', {"MESSAGE": "x", "n": 1}),
    "nginx": (
        b'<174>Nov 23 20:41:32 vm ngx: 127.0.0.1 - - [x] "GET /a?b=1 HTTP/1.1" 200 2 "-" "curl"',
        TIME
        | {"level": "info", "facility": "local5", "host": "vm", "app": "ngx"}
        | {"message": '127.0.0.1 - - [x] "GET /a?b=1 HTTP/1.1" 200 2 "-" "curl"'},
    ),
    "nginx, escape=json": (
        b'<190>Nov 23 20:41:32 js: {"uri":"/f","status":200}',
        TIME | {"level": "info", "facility": "local7", "app": "js", "uri": "/f", "status": 200},
    ),
    "haproxy": (
        b"<134>Nov 23 20:41:32 haproxy[3192]: up: yes\n",
        TIME
        | {"level": "info", "facility": "local0", "app": "haproxy", "procid": "3192"}
        | {"message": "up: yes"},
    ),
    "haproxy, format rfc5424": (
        b"<142>1 2026-11-23T20:45:09.837264+00:00 - haproxy 3192 - - up\n",
        {"time": "2026-11-23T20:45:09.837264Z", "level": "info", "facility": "local1"}
        | {"app": "haproxy", "procid": "3192", "message": "up"},
    ),
    "Go": (
        b"<30>Nov 23 20:41:32 gotag[3391]: msg\n",
        TIME
        | {"level": "info", "facility": "daemon", "app": "gotag", "procid": "3391"}
        | {"message": "msg"},
    ),
    "Docker, rfc3164": (
        b"<30> 2026-11-23T20:45:16Z vm srtag[3391]: msg",
        {"time": "2026-11-23T20:45:16.000000Z", "level": "info", "facility": "daemon"}
        | {"host": "vm", "app": "srtag", "procid": "3391", "message": "msg"},
    ),
    "Docker, rfc5424": (
        b"<30>1 2026-11-23T20:45:16Z vm app 3391 srtag - msg\n",
        {"time": "2026-11-23T20:45:16.000000Z", "level": "info", "facility": "daemon"}
        | {"host": "vm", "app": "app", "procid": "3391", "msgid": "srtag", "message": "msg"},
    ),
}


@pytest.mark.parametrize(("data", "expected"), CLIENTS.values(), ids=CLIENTS)
def test_a_client_is_understood_over_either_transport(
    data: bytes, expected: dict[str, Any]
) -> None:
    assert datagram(data) == [expected]
    ended = data if data.endswith((b"\n", b"\0")) else data + b"\0"
    assert received(ended + ended) == [expected, expected]
    bare = data.rstrip(b"\n\0")
    counted = b"%d %s" % (len(bare), bare)
    if data.startswith(b"<"):
        assert received(counted + counted) == [expected, expected]
        assert datagram(counted) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text", {"message": "plain text"}),
        ("<13>", NOTICE | {"message": ""}),
        ("<192>x", {"message": "<192>x"}),
        ("<1234>x", {"message": "<1234>x"}),
        ("<>x", {"message": "<>x"}),
        ("<13x", {"message": "<13x"}),
        ("<13> x", NOTICE | {"message": " x"}),
        ("<13>error: x", NOTICE | {"message": "error: x"}),
        ("<13>a:b c", NOTICE | {"message": "a:b c"}),
        ("<13>http://a b", NOTICE | {"message": "http://a b"}),
        ("<13>app[7]:x", NOTICE | {"app": "app", "procid": "7", "message": "x"}),
        ("<13>Feb 31 20:00:00 a: b", NOTICE | {"message": "Feb 31 20:00:00 a: b"}),
        ("<13>Nov 23 25:00:00 a: b", NOTICE | {"message": "Nov 23 25:00:00 a: b"}),
        ("<13>Nov 23 20:41:32 no tag here", TIME | NOTICE | {"message": "no tag here"}),
        ("<13>Nov 23 20:41:32", TIME | NOTICE | {"message": ""}),
        ("<13>Nov 23 20:41:32 a: b: c", TIME | NOTICE | {"app": "a", "message": "b: c"}),
        (
            "<13>Nov 23 20:41:32 fe80::1 a: b",
            TIME | NOTICE | {"host": "fe80::1", "app": "a", "message": "b"},
        ),
        ("Nov 23 20:41:32 a: b", TIME | {"app": "a", "message": "b"}),
        ("<13>2026-11-23T20:41:32 a: b", TIME | NOTICE | {"app": "a", "message": "b"}),
        (
            "<13>1 2026-11-23T20:41:32+0100 - a - - - b",
            TIME | NOTICE | {"app": "a", "message": "b"},
        ),
        ("<13>1 - - a - - [x", NOTICE | {"message": "1 - - a - - [x"}),
        ("<13>1 - - a - - [x y]", NOTICE | {"message": "1 - - a - - [x y]"}),
        ('<13>1 - - a - - [x y="z] m', NOTICE | {"message": '1 - - a - - [x y="z] m'}),
        ("<13>1 then - a - - - m", NOTICE | {"message": "1 then - a - - - m"}),
        (
            "<13>1 2026-11-23T20:00:00Zx - a - - - m",
            NOTICE | {"message": "1 2026-11-23T20:00:00Zx - a - - - m"},
        ),
        ("<13>2 - - a - - - m", NOTICE | {"message": "2 - - a - - - m"}),
        ("<13>1 - - a - - -", NOTICE | {"app": "a", "message": ""}),
        ("<13>1 - - a - - - \ufeffm", NOTICE | {"app": "a", "message": "m"}),
        (
            r'<13>1 - - a - - [x q="\"\]\\\n"  p="="][y][x q="2" q="3"] m',
            NOTICE
            | {"app": "a", "structured": {"x": {"q": ['"]\\\\n', "2", "3"], "p": "="}, "y": {}}}
            | {"message": "m"},
        ),
        ("<13>{}", NOTICE),
        ("<13> { } ", NOTICE),
        ("<13>[1]", NOTICE | {"message": "[1]"}),
        ('<13>{"a":1', NOTICE | {"message": '{"a":1'}),
        ('<13>{"a":1} x', NOTICE | {"message": '{"a":1} x'}),
        ('<13>{"level":"warn"}', {"syslog_level": "notice", "facility": "user", "level": "warn"}),
        (
            '<13>{"level":1,"syslog_level":2}',
            {"syslog_syslog_level": "notice", "facility": "user", "level": 1, "syslog_level": 2},
        ),
    ],
)
def test_what_cannot_be_parsed_stays_in_the_message(text: str, expected: dict[str, Any]) -> None:
    assert datagram(text.encode()) == [expected]


def test_each_priority_has_its_level_and_facility() -> None:
    for priority in range(192):
        (found,) = datagram(b"<%d>x" % priority)
        assert found["facility"] == FACILITIES[priority // 8]
        assert found["level"] == SEVERITIES[priority % 8]


def test_a_time_without_year_and_zone_is_the_latest_possible_one_here() -> None:
    (last_year,) = datagram(b"<13>Dec 31 23:00:00 a: b")
    (summer,) = datagram(b"<13>Jul  1 12:00:00 a: b")
    assert last_year["time"] == "2025-12-31T22:00:00.000000Z"
    assert summer["time"] == "2026-07-01T10:00:00.000000Z"


def test_a_body_of_json_may_be_spread_over_lines_and_have_keys_of_the_engine() -> None:
    receiver = SyslogReceiver(MAX_RECORD, "datagram", berlin)
    (event,) = receiver.receive(b'<13>{\n "_pid": 1,\n "a": "\\n"\n}\n') + receiver.end()
    assert isinstance(event, Lines)
    body, count = stamp(event.chunk, b'{"_ts":"t","_pid":7')
    assert count == 1
    assert json.loads(body) == {"_ts": "t", "_pid": 7, "__pid": 1, "a": "\n"} | NOTICE


@pytest.mark.parametrize("data", [b"", b"\n", b"\0", b" \r\n", b"\0\n\0"])
def test_nothing_becomes_of_what_is_blank(data: bytes) -> None:
    assert datagram(data) == received(data) == []


def test_bytes_that_are_no_text_are_kept_readable() -> None:
    assert datagram(b"<13>a: \xff \x1b[2J \0 x\0") == [
        NOTICE | {"app": "a", "message": "\\xff \x1b[2J \0 x"}
    ]
    assert datagram(b'<13>{"a":"\xff"}')[0]["message"] == '{"a":"\\xff"}'


# Each is independent of the cuts.
STREAMS = [
    (b"<13>a\n<13>b\r\n\n<13>c", ["a", "b", "c"]),
    (b"<13>a\0<13>b\nc\0<13>d\n<13>e\0", ["a", "b\nc", "d\n<13>e"]),
    (b"7 <13>a\nb5 <13>c6 <13>d\n", ["a\nb", "c", "d"]),
    (b"5 <13>a\n<13>b\n7 <13>c\0d<13>e\n", ["a", "b", "c\0d", "e"]),
    (b"<13>a\n6 <13>b\n<13>c\0<13>d\ne\0007 <13>f\ng", ["a", "b", "c", "d\ne", "f\ng"]),
    (b"12 monkeys\n<13>a\n12", ["12 monkeys", "a", "12"]),
    (b"0 <13>a\n1234567890 <13>a\n", ["0 <13>a", "1234567890 <13>a"]),
    (b"99 <13>ends\nearly", ["ends\nearly"]),
    (b"<13>a\n\0<13>b\nc\n\0", ["a", "b\nc"]),
]


@pytest.mark.parametrize(("data", "expected"), STREAMS)
def test_a_message_ends_as_its_sender_ends_it(data: bytes, expected: list[str]) -> None:
    assert messages(data) == expected


@given(stream=st.sampled_from(STREAMS), cuts=st.lists(st.integers(0, 100), max_size=20))
def test_messages_do_not_depend_on_the_cuts(
    stream: tuple[bytes, list[str]], cuts: list[int]
) -> None:
    assert messages(stream[0], cuts) == stream[1]


def test_lf_in_the_first_message_is_part_of_it_if_its_nul_came_with_it() -> None:
    assert messages(b"<13>a\nb\0<13>c\0") == ["a\nb", "c"]
    assert messages(b"<13>a\nb\0<13>c\0", [6]) == ["a", "b", "c"]
    assert messages(b"<13>a\n<13>b\n7 <13>c\nd<13>e\nf\0") == ["a", "b", "c\nd", "e\nf"]


def test_a_message_that_ends_with_lf_does_not_wait_for_the_next() -> None:
    receiver = SyslogReceiver(MAX_RECORD, "stream", berlin)
    assert records(receiver.receive(b"<13>a\n")) == [NOTICE | {"message": "a"}]
    assert records(receiver.receive(b"5 <13>b")) == [NOTICE | {"message": "b"}]
    assert receiver.unfinished_bytes == 0


MESSAGES = st.binary(max_size=200).map(lambda text: b"<13>" + text)


@given(
    sent=st.lists(MESSAGES, max_size=5),
    cuts=st.lists(st.integers(0, 2000), max_size=30),
    max_record=st.sampled_from([16, SMALL, MAX_RECORD]),
)
def test_any_counted_messages_become_the_same_records_wherever_they_were_cut(
    sent: list[bytes], cuts: list[int], max_record: int
) -> None:
    data = b"".join(b"%d %s" % (len(each), each) for each in sent)
    expected = [record for each in sent for record in datagram(each, max_record)]
    assert received(data, cuts, max_record) == expected


@given(
    sent=st.lists(MESSAGES.map(lambda text: text.replace(b"\0", b"0")), max_size=5),
    cuts=st.lists(st.integers(0, 2000), max_size=30),
    max_record=st.sampled_from([16, SMALL, MAX_RECORD]),
)
def test_any_messages_that_end_with_nul_become_the_same_records_wherever_they_were_cut(
    sent: list[bytes], cuts: list[int], max_record: int
) -> None:
    sent = [b"<13>first", *sent]
    data = b"".join(each + b"\0" for each in sent)
    expected = [record for each in sent for record in datagram(each, max_record)]
    assert received(data, cuts, max_record) == expected


@given(
    data=st.lists(
        st.sampled_from(
            [b"<13>", b"5 ", b"12 <1>", b"\n", b"text ", b"\xc3\xa4", b"9", b"\r", b"{}"]
        )
    ).map(b"".join),
    cuts=st.lists(st.integers(0, 1000), max_size=20),
)
def test_any_bytes_without_nul_become_the_same_records_wherever_they_were_cut(
    data: bytes, cuts: list[int]
) -> None:
    assert received(data, cuts, SMALL) == received(data, None, SMALL)


# What headers and texts may be made of, so that one form of message may look like another.
_PIECES = st.sampled_from(
    [
        *("<13>", "<191>", "<999>", "<>", "1 ", "- ", "-", " ", "  ", ": ", ":", "[7]", "[", "]"),
        *("Nov 23 20:41:32", "Nov 23 20:41:32.5", "Feb 30 25:00:00", "2026-11-23T20:00:00Z"),
        *("2026-11-23T20:00:00", "app", "host", "ERROR", "info", "a.b:c", "2001:db8::1", "ä"),
        *(
            '{"a":1}',
            '{"message":"x"',
            "{",
            "\r",
            "\ufeff",
            '[ex@1 k="v"]',
            "1",
            "x: y",
            "\t",
            "\\",
        ),
    ]
)


@given(
    headers=st.lists(st.lists(_PIECES, max_size=7).map("".join), min_size=1, max_size=3),
    texts=st.lists(st.lists(_PIECES, max_size=5).map("".join), min_size=1, max_size=8),
    order=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 7)), min_size=2, max_size=12),
    transport=st.sampled_from(["stream", "datagram"]),
)
@example(
    headers=["<13>Nov 23 20:41:32 app[7]: "],
    texts=["one", "{}", "x: y"],
    order=[(0, 0), (0, 1), (0, 2), (0, 0)],
    transport="datagram",
)
@example(
    headers=["<13>Nov 23 20:41:32 ERROR: "],
    texts=["one", "app: y"],
    order=[(0, 1), (0, 0), (0, 1)],
    transport="stream",
)
@example(
    headers=["<13>1 2026-11-23T20:00:00Z host: "],
    texts=["app 7 - - x", "one", ""],
    order=[(0, 0), (0, 1), (0, 2), (0, 0)],
    transport="datagram",
)
def test_a_message_means_the_same_whatever_came_before_it(
    headers: list[str], texts: list[str], order: list[tuple[int, int]], transport: Transport
) -> None:
    """What is remembered of headers changes nothing."""
    now = berlin()
    sent = [
        b"<" + (headers[header % len(headers)] + texts[text % len(texts)]).encode().lstrip(b"<")
        for header, text in order
    ]
    together = SyslogReceiver(MAX_RECORD, transport, lambda: now)
    found: list[dict[str, Any]] = []
    alone: list[dict[str, Any]] = []
    for message in sent:
        found += records([*together.receive(message + b"\n")])
        if transport == "datagram":
            found += records(together.end())
        fresh = SyslogReceiver(MAX_RECORD, transport, lambda: now)
        alone += records([*fresh.receive(message + b"\n"), *fresh.end()])
    assert found == alone


@given(
    header=st.lists(_PIECES, max_size=7).map("".join),
    texts=st.lists(st.lists(_PIECES, max_size=5).map("".join), min_size=2, max_size=6),
)
@example(header="Nov 23 20:41:32 host app[7]: ", texts=["one", "{}", "x: y", ""])
@example(header="<13>Nov 23 20:41:32 app: ", texts=["one", '{"a":1}', "x\r"])
@example(header="Nov 23 20:41:32 host: ", texts=["app: y", "one", "app: z"])
def test_a_line_of_a_file_means_the_same_whatever_came_before_it(
    header: str, texts: list[str]
) -> None:
    lines = [(header + text).encode() for text in texts]
    alone = [convert_lines("auto", [line], berlin()) for line in lines]
    assert convert_lines("auto", lines, berlin()) == b"".join(alone)


def test_a_remembered_header_has_the_time_of_now() -> None:
    """The same text means another year in the next one."""
    moment = [datetime(2026, 12, 30, tzinfo=UTC)]
    receiver = SyslogReceiver(MAX_RECORD, "datagram", lambda: moment[0])
    years = []
    for _ in range(2):
        receiver.receive(b"<13>Nov 23 20:41:32 app: text")
        years.append(records(receiver.end())[0]["time"][:4])
        moment[0] = datetime(2027, 12, 30, tzinfo=UTC)
    assert years == ["2026", "2027"]


def test_what_is_remembered_of_headers_is_bounded() -> None:
    now = berlin()
    receiver = SyslogReceiver(MAX_RECORD, "datagram", lambda: now)
    for number in range(10_000):
        receiver.receive(b"<13>Nov 23 20:41:32 app[%d]: text" % number)
        receiver.end()
    assert len(receiver._headers) <= _REMEMBERED_MAX


@given(
    data=st.one_of(
        st.binary(max_size=500),
        st.lists(
            st.sampled_from(
                [b"<13>", b"1 - - a ", b"[a b=", b'"', b"\\", b"]", b"{", b"7 ", b"\0", b"\n"]
            )
        ).map(b"".join),
    ),
    transport=st.sampled_from(["stream", "datagram"]),
)
def test_any_bytes_become_lines_of_json(data: bytes, transport: Transport) -> None:
    receiver = SyslogReceiver(SMALL, transport, berlin)
    events = receiver.receive(data) + receiver.end()
    chunk = b"".join(event.chunk for event in events if isinstance(event, Lines))
    stamped, count = stamp(chunk, b'{"_ts":"t"')
    assert count == len(records(events)) == len(stamped.splitlines())


@pytest.mark.parametrize("ending", [b"\n", b"\0", b""])
def test_a_message_that_is_too_long_becomes_pieces_with_its_header(ending: bytes) -> None:
    body = "ä" * 100 + "."
    message = f'<13>1 - - app 7 - [x@1 a="b"] {body}'.encode()
    data = message + ending if ending else b"%d %s" % (len(message), message)
    pieces = received(data + b"<13>next\n", None, SMALL)
    assert pieces == received(data + b"<13>next\n", list(range(500)), SMALL)
    assert pieces == [*datagram(message, SMALL), NOTICE | {"message": "next"}]
    *parts, last, _ = pieces
    header = NOTICE | {"app": "app", "procid": "7"}
    assert parts[0] == header | {
        "structured": {"x@1": {"a": "b"}},
        "message": parts[0]["message"],
        "partial": True,
    }
    for part in parts[1:]:
        assert part == header | {"message": part["message"], "partial": True}
    assert last == header | {"message": last["message"]}
    assert "".join(part["message"] for part in (*parts, last)) == body
    assert all(len(part["message"].encode()) <= SMALL for part in pieces)


def test_a_connection_keeps_no_more_than_a_message_and_takes_time_in_proportion() -> None:
    receiver = SyslogReceiver(1 << 20, "stream", berlin)
    tracemalloc.start()
    try:
        for _ in range(3000):
            receiver.receive(b"\n" * 1000 + b"\0")
        assert receiver.unfinished_bytes == 0
        receiver.receive(b"999999999 <13>")
        for _ in range(64):
            receiver.receive(b"x" * 65536)
        assert receiver.unfinished_bytes <= (1 << 20) + 3
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_what_is_dropped_leaves_nothing_behind() -> None:
    receiver = SyslogReceiver(MAX_RECORD, "stream", berlin)
    receiver.receive(b"100 <13>half")
    assert receiver.drop_unfinished() == 8
    assert records(receiver.receive(b"<13>a\n")) == [NOTICE | {"message": "a"}]
    assert receiver.end() == []


@pytest.mark.parametrize(
    ("before", "waiting", "first", "whole"),
    [
        (b"", b"<13>a\n<13>b\n<1", 6, 12),
        (b"", b"<1", 2, 0),
        (b"", b"5 <13>a7 <13>b\nc5 <1", 7, 16),
        (b"5 <1", b"3>a<13>b\n", 3, 9),
        (b"5", b" <13>a<13>b\n", 6, 12),
        (b"<13>x\0<13>a\n", b"b\0<13>c\0d", 2, 8),
        (b"<13>a", b"b\n<13>c\n", 2, 8),
        (b"", b"\n\n<13>a\n", 8, 8),
    ],
)
def test_it_says_how_many_bytes_are_so_many_messages(
    before: bytes, waiting: bytes, first: int, whole: int
) -> None:
    receiver = SyslogReceiver(MAX_RECORD, "stream", berlin)
    receiver.receive(before)
    unfinished_bytes = receiver.unfinished_bytes
    assert receiver.bytes_of(waiting, 1) == first
    assert receiver.bytes_of(waiting, 100) == len(waiting)
    assert receiver.whole_bytes(waiting) == whole
    assert receiver.unfinished_bytes == unfinished_bytes
    assert len(records(receiver.receive(waiting[:whole]))) == (
        0 if not whole else 1 + (whole > first)
    )


def test_the_daemon_makes_it_for_a_transport_and_a_clock() -> None:
    receiver = PROTOCOL.new_receiver(MAX_RECORD, "datagram", berlin)
    events = receiver.receive(b"<13>Nov 23 20:41:32 a: b\nc") + receiver.end()
    assert records(events) == [TIME | NOTICE | {"app": "a", "message": "b\nc"}]


def test_the_listeners_of_its_page_are_accepted() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        config = parse_config(block, "file")
        assert config.listen or config.network
