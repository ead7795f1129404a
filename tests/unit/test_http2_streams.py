"""HTTP/2 seen from outside: which requests are complete, and how much of them has arrived."""

from hypothesis import given
from hypothesis import strategies as st

from logengine.protocols.http2_streams import Http2Streams

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS = 0, 1, 3, 4
END = 1


def frame(kind: int, stream: int, content: bytes = b"", flags: int = 0) -> bytes:
    head = len(content).to_bytes(3, "big") + bytes([kind, flags])
    return head + stream.to_bytes(4, "big") + content


START = PREFACE + frame(SETTINGS, 0, b"123456")


def test_a_request_is_incomplete_until_its_client_has_ended_it() -> None:
    streams = Http2Streams()
    assert not streams.sent_by_client(PREFACE[:-1], 1.0)
    assert not streams.has_begun
    assert not streams.sent_by_client(START[len(PREFACE) - 1 :], 1.0)
    assert streams.has_begun
    assert not streams.sent_by_client(frame(HEADERS, 1, b"head"), 2.0)
    assert not streams.sent_by_client(frame(DATA, 1, b"x" * 100), 3.0)
    assert (streams.incomplete_bytes, streams.incomplete_since_s, streams.open) == (100, 2.0, 1)
    assert streams.sent_by_client(frame(DATA, 1, b"", END), 4.0)
    assert (streams.incomplete_bytes, streams.incomplete_since_s) == (0, None)
    assert streams.answering == {1}
    streams.sent_by_server(frame(HEADERS, 1) + frame(DATA, 1, b"yes") + frame(HEADERS, 1, b"", END))
    assert streams.open == 0


def test_a_stream_that_either_side_resets_is_over() -> None:
    streams = Http2Streams()
    streams.sent_by_client(START, 0)
    for ends in (
        lambda: streams.sent_by_client(frame(RST_STREAM, 1, b"1234"), 0),
        lambda: streams.sent_by_server(frame(RST_STREAM, 1, b"1234")),
        lambda: streams.sent_by_server(frame(HEADERS, 1, b"refused", END)),
    ):
        streams.sent_by_client(frame(HEADERS, 1) + frame(DATA, 1, b"abc"), 0)
        assert (streams.open, streams.incomplete_bytes) == (1, 3)
        ends()
        assert (streams.open, streams.incomplete_bytes) == (0, 0)


@given(st.lists(st.integers(1, 30)), st.integers(0, 50))
def test_how_the_bytes_are_cut_does_not_matter(cuts: list[int], size: int) -> None:
    sent = START + frame(HEADERS, 1, b"h" * size) + frame(DATA, 1, b"d" * size)
    sent += frame(HEADERS, 3, b"", END) + frame(DATA, 1, b"d")
    whole, cut = Http2Streams(), Http2Streams()
    whole.sent_by_client(sent, 0)
    place = 0
    for each in [*cuts, len(sent)]:
        cut.sent_by_client(sent[place : place + each], 0)
        place += each
    assert cut.incomplete_bytes == whole.incomplete_bytes == size + 1
    assert cut.answering == whole.answering == {3}


@given(st.lists(st.binary(max_size=60)), st.lists(st.binary(max_size=60)))
def test_arbitrary_bytes_do_no_harm(client: list[bytes], server: list[bytes]) -> None:
    streams = Http2Streams()
    for data in client:
        streams.sent_by_client(data, 0)
    for data in server:
        streams.sent_by_server(data)
    assert streams.incomplete_bytes >= 0
