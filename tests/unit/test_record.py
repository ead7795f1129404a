"""One documented outcome for every kind of line; `docs/protocol.md` lists the same."""

import json

import pytest

from logengine.format.record import (
    ENVELOPE_NAMES,
    Peer,
    Stamped,
    _stamp_fast,
    _stamp_one,
    count_lines,
    envelope,
    peer_fields,
    stamp,
    stamp_exactly,
)

OPENING = envelope("2026-11-23T20:00:00.000123Z", b"")
PREFIX = b'{"_ts":"2026-11-23T20:00:00.000123Z"'


@pytest.mark.parametrize(
    ("line", "stored"),
    [
        (b'{"a":1}', b',"a":1}'),
        (b'{"a":1}\r', b',"a":1}'),
        (b'  {"a":1}\t', b',"a":1}'),
        (b"{}", b"}"),
        (b"{ }", b"}"),
        (b"hello", b',"message":"hello"}'),
        (b"hello\r", b',"message":"hello"}'),
        (b"  indented", b',"message":"  indented"}'),
        (b"[1,2]", b',"message":"[1,2]"}'),
        (b"42", b',"message":"42"}'),
        (b'{"a":1', b',"message":"{\\"a\\":1"}'),
        (b'{"a":1}{"b":2}', b',"message":"{\\"a\\":1}{\\"b\\":2}"}'),
        (b'{"a":NaN}', b',"message":"{\\"a\\":NaN}"}'),
        (b'{"a":"\\ud800"}', b',"message":"{\\"a\\":\\"\\\\ud800\\"}"}'),
        (b"nul\x00byte", b',"message":"nul\\u0000byte"}'),
        (b"bad \xff utf-8", b',"message":"bad \\\\xff utf-8"}'),
        (b'{"a":"\xff"}', b',"message":"{\\"a\\":\\"\\\\xff\\"}"}'),
        (b'{"a":1,"a":2}', b',"a":1,"a":2}'),
        (b'{"_ts":1}', b',"__ts":1}'),
        (b'{"\\u005fpid":null,"b":2}', b',"__pid":null,"b":2}'),
        (b'{"_ts":1,"__ts":2}', b',"___ts":1,"__ts":2}'),
        (b'{"a": 1, "_ts" : 2, "a": 3}', b',"a": 1, "__ts" : 2, "a": 3}'),
        (b'{"a":{"_ts":1},"_ts":2}', b',"a":{"_ts":1},"__ts":2}'),
        (b'{"a":["_ts"], "_ts":2}', b',"a":["_ts"],"__ts":2}'),
        (b'{"a":"__ts","_ts":2}', b',"a":"__ts","__ts":2}'),
        (b'{"\\u005f_ts":1,"_ts":2}', b',"__ts":1,"___ts":2}'),
        (b'{"a":"\\u005fts","_pid":2}', b',"a":"\\u005fts","__pid":2}'),
        (b'{"_ts":1,"_pid":2', b',"message":"{\\"_ts\\":1,\\"_pid\\":2"}'),
        (b'{"_stream":"x","_seq":9}', b',"__stream":"x","__seq":9}'),
        (b'{"_other":1}', b',"_other":1}'),
        (b'{"_uid":1,"_uid":2}', b',"__uid":2}'),
        (b'{"n":123456789012345678901234,"f":1.0}', b',"n":123456789012345678901234,"f":1.0}'),
        (b'{"k":"}\\n{"}', b',"k":"}\\n{"}'),
    ],
)
def test_a_line_has_its_documented_outcome(line: bytes, stored: bytes) -> None:
    assert stamp(line + b"\n", OPENING) == Stamped(PREFIX + stored + b"\n", 1)


def test_blank_lines_vanish() -> None:
    assert stamp(b"\n \t\r\n\n", OPENING) == Stamped(b"", 0)


def test_a_deeply_nested_object_is_kept_as_text_where_it_cannot_be_checked() -> None:
    line = b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}\n"
    body, count = stamp(line, OPENING)
    assert count == 1
    assert json.loads(body)["message"] == line[:-1].decode()


def test_one_odd_line_does_not_change_its_neighbours() -> None:
    chunk = b'{"a":1}\nodd\n{"b":2}\n'
    assert stamp(chunk, OPENING) == stamp_exactly(chunk, OPENING)
    assert stamp(chunk, OPENING).records == 3


def test_the_envelope_holds_what_the_kernel_knows() -> None:
    peer = Peer(pid=1, uid=2, gid=3, comm='we"b', unit="web.service", user_unit="own.service")
    opening = envelope("2026-11-23T20:00:00.000123Z", peer_fields(peer))
    assert json.loads(stamp(b"{}\n", opening).body) == {
        "_ts": "2026-11-23T20:00:00.000123Z",
        "_pid": 1,
        "_uid": 2,
        "_gid": 3,
        "_comm": 'we"b',
        "_unit": "web.service",
        "_user_unit": "own.service",
    }


def test_the_envelope_of_a_followed_file_names_the_file() -> None:
    fields = peer_fields(Peer(uid=0, gid=0, file="/var/log/a\x9bb.log"))
    assert fields == b',"_uid":0,"_gid":0,"_file":"/var/log/a\\u009bb.log"'


def test_what_the_kernel_does_not_know_is_left_out() -> None:
    assert peer_fields(Peer(uid=0)) == b',"_uid":0'
    assert peer_fields(Peer()) == b""


PLAIN = b'{"a":1}\n'


@pytest.mark.parametrize("name", ENVELOPE_NAMES)
@pytest.mark.parametrize("value", [b"null", b"1", b'""', b"{}", b"[]", b"false"])
@pytest.mark.parametrize("escaped", [False, True])
def test_no_key_of_the_engines_passes_the_fast_path(
    name: str, value: bytes, *, escaped: bool
) -> None:
    key = f"\\u{ord(name[0]):04x}{name[1:]}" if escaped else name
    line = b'{"x":0,"%s":%s}\n' % (key.encode(), value)
    for chunk in (line, PLAIN + line, line + PLAIN, PLAIN + line + PLAIN):
        assert _stamp_fast(chunk, OPENING) is None
        stored = stamp(chunk, OPENING).body
        assert b'"_%s":%s' % (name.encode(), value) in stored
        assert stored.count(PREFIX) == count_lines(chunk)


@pytest.mark.parametrize(
    "chunk",
    [
        b"{}\n",
        b"{}\n{}\n",
        PLAIN + b"{}\n" + PLAIN,
        b"{}\n" + PLAIN + b"{}\n",
        b'{}\n{"a":{}}\n{"a":"{}"}\n',
        b'{}\n{"a":"\x7f\xc2\x9b"}\n{}\n',
    ],
)
def test_empty_objects_do_not_need_the_exact_path(chunk: bytes) -> None:
    assert _stamp_fast(chunk, OPENING) == stamp_exactly(chunk, OPENING)


@pytest.mark.parametrize(
    "chunk",
    [
        b'{"a":1}{"b":2}\n',
        b'{"a":1}\n{"b":\n2}\n',
        b'{"a":1,\n"b":{}\n}\n{"c":1}{"d":1}\n',
        b"{ }\n",
        b"{}\n{ }\n",
        b"{}{}\n",
        b"{}\n{}",
        b'{}\n{"\xff}\n',
        b"{}\n}\n",
        b"{\t}\n",
        b"{\r}\n",
        PLAIN + b"\n" + PLAIN,
        PLAIN + b" \n" + PLAIN,
        b'{"a":1}\r\n' + PLAIN,
        PLAIN + b'{"a":"\xff"}\n',
        PLAIN + b'{"\xff":1}\n',
        PLAIN + b'{"a":"\x00"}\n',
        PLAIN + b'{"a":NaN}\n',
        PLAIN + b'{"a":Infinity}\n',
        PLAIN + b'{"a":01}\n',
        PLAIN + b'{"a":1.}\n',
        PLAIN + b'{"a":.5}\n',
        PLAIN + b'{"a":+1}\n',
        PLAIN + b'{"a":1,}\n',
        PLAIN + b"{'a':1}\n",
        PLAIN + b"{a:1}\n",
        PLAIN + b'{"a":"\\x"}\n',
        PLAIN + b'{"a":"\\u12"}\n',
        PLAIN + b'{"a":"\\ud800"}\n',
        PLAIN + b'{"a":"\\udc00\\ud800"}\n',
        PLAIN + b'{"\\ud800":1}\n',
        b"\xef\xbb\xbf" + PLAIN,
        PLAIN + b"\xef\xbb\xbf" + PLAIN,
        PLAIN + b"\xc2\xa0" + PLAIN,
        PLAIN + b"\x0c\n" + PLAIN,
        b"",
        b"\n",
    ],
)
def test_what_is_not_plainly_ndjson_is_left_to_the_exact_path(chunk: bytes) -> None:
    assert _stamp_fast(chunk, OPENING) is None
    body, count = stamp(chunk, OPENING)
    assert count == count_lines(chunk) == body.count(b"\n")
    for line in body.splitlines():
        assert line.startswith(PREFIX)
        assert isinstance(json.loads(line.decode()), dict)


@pytest.mark.parametrize(
    "chunk",
    [
        PLAIN,
        PLAIN * 1000,
        b'{"a":"}\\n{"}\n{"b":[{},{ }]}\n',
        '{"grüße":"\u2028😀"}\n'.encode(),
        b'{"a":1,"a":2}\n',
        b'{"":0}\n',
        b'{"_":1,"__ts":2,"_TS":3}\n',
        b'{"a":1e999,"b":-0,"c":1E-5}\n',
        b'{"a":"\\ud83d\\ude00"}\n',
        b'{"a":{"_ts":1,"_pid":2}}\n',
    ],
)
def test_plain_ndjson_takes_the_fast_path(chunk: bytes) -> None:
    assert _stamp_fast(chunk, OPENING) == stamp_exactly(chunk, OPENING)


@pytest.mark.parametrize(
    "line",
    [
        PLAIN,
        b"{}\n",
        b'{"":{}}\n',
        '{"grüße":"\u2028😀"}\n'.encode(),
        b'{"a":\t1,"b":"\x7f\xc2\x9b"}\n',
        b'{"a":"' + b"x" * 1000 + b'"}\n',
        b'{"a":{"_ts":1}}\n',
    ],
)
def test_one_ordinary_line_is_stamped_at_once(line: bytes) -> None:
    assert _stamp_one(line, OPENING) == stamp_exactly(line, OPENING)


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"x\n",
        b"{ }\n",
        b"{}{}\n",
        b'{"a":1} \n',
        b'{"a":1}\r\n',
        b'{"a":1}{"b":2}\n',
        b'{"a":1,}\n',
        b'{"_ts":1}\n',
        b'{"a":"\xff"}\n',
        b'{"a":"\\ud800"}\n',
        b'{"a":' + b"[" * 255 + b"]" * 255 + b"}\n",
        b'{"a":' + b"1" * 4301 + b"}\n",
    ],
)
def test_one_odd_line_is_left_to_the_exact_path(line: bytes) -> None:
    assert _stamp_one(line, OPENING) is None
    assert stamp(line, OPENING) == stamp_exactly(line, OPENING)
