"""The records of a producer, from being taken to being durable; and the daemon's answers."""

import json

import pytest

from logengine.client.backoff import MAX_S, MIN_S, Backoff
from logengine.client.conversation import Conversation
from logengine.client.outbox import CHUNK_BYTES, Chunk, Numbering, Outbox
from logengine.errors import ProducerFenced, ProtocolError, TooManyStreams


def outbox(records: int = 0) -> Outbox:
    made = Outbox(1000, 1_000_000)
    for number in range(1, records + 1):
        made.try_take(b"%d\n" % number)
    return made


def sent(box: Outbox) -> bytes:
    lines = []
    while chunk := box.next_chunk():
        lines.append(chunk.lines)
    return b"".join(lines)


def welcomed(box: Outbox) -> Conversation:
    conversation = Conversation(box, "app", "web-1")
    conversation.receive(b'{"welcome":1,"next":1,"max_record":1000}\n')
    return conversation


def test_places_count_from_one() -> None:
    box = outbox()
    assert [box.try_take(b"x\n"), box.try_take(b"x\n")] == [1, 2]
    assert box.take_lines(b"a\n\n \nb\n") == 4
    assert box.take_lines(b"\n") == 4
    assert (box.taken, box.pending, box.held_bytes) == (4, 4, 11)


def test_the_first_welcome_says_which_number_is_first() -> None:
    box = outbox(2)
    assert box.hello_first() is None
    box.welcome(101)
    assert box.hello_first() == 101
    assert box.number_to_place(102) == 2


def test_what_is_not_acked_is_sent_again() -> None:
    box = outbox(5)
    box.welcome(1)
    assert sent(box) == b"1\n2\n3\n4\n5\n"
    box.acknowledge(2)
    box.welcome(4)
    assert (box.acked, box.in_flight) == (3, 0)
    assert sent(box) == b"4\n5\n"


def test_chunks_that_are_not_acked_are_sent_again_in_order() -> None:
    box = outbox()
    lines = [letter * CHUNK_BYTES + b"\n" for letter in (b"a", b"b", b"c")]
    for line in lines:
        box.try_take(line)
    box.welcome(1)
    assert sent(box) == b"".join(lines)
    box.welcome(1)
    assert sent(box) == b"".join(lines)


def test_an_ack_of_less_than_was_acknowledged_takes_nothing_back() -> None:
    box = outbox(5)
    box.welcome(1)
    sent(box)
    box.acknowledge(4)
    box.acknowledge(2)
    assert (box.acked, box.pending) == (4, 1)


def test_what_is_acknowledged_takes_no_room_and_is_in_no_spool() -> None:
    box = Outbox(2, 1_000_000)
    box.welcome(1)
    for number in (1, 3):
        assert box.try_take(b"x\n") == number
        assert box.try_take(b"x\n") == number + 1
        assert not box.try_take(b"x\n")
        assert sent(box) == b"x\nx\n"
        box.acknowledge(number + 1)
        assert (box.held_records, box.spooled) == (0, number + 1)
        assert not box.sends_from_spool


def test_memory_is_let_go_of_chunk_by_chunk() -> None:
    box = Outbox(10**6, 10**9)
    line = b"x" * 999 + b"\n"
    while box.held_bytes < 3 * CHUNK_BYTES:
        box.try_take(line)
    box.welcome(1)
    first = box.next_chunk()
    assert first is not None
    assert len(first.lines) < CHUNK_BYTES + len(line)
    held_bytes = box.held_bytes
    box.acknowledge(first.last)
    assert held_bytes - box.held_bytes == len(first.lines)


def test_few_records_wait_for_what_is_under_way() -> None:
    box = outbox(1)
    box.welcome(1)
    assert box.is_worth_sending
    box.next_chunk()
    box.try_take(b"2\n")
    assert not box.is_worth_sending
    box.acknowledge(1)
    assert box.is_worth_sending
    assert box.worth_sending_bytes <= box.held_bytes


def test_there_is_no_room_beyond_the_bounds() -> None:
    box = Outbox(3, 100)
    assert [bool(box.try_take(b"x\n")) for _ in range(4)] == [True, True, True, False]
    box = Outbox(100, 5)
    assert [bool(box.try_take(b"x\n")) for _ in range(3)] == [True, True, False]
    assert Outbox(1, 1).try_take(b"larger than the bound, and alone\n")


def test_drops_are_told_as_soon_as_there_is_room() -> None:
    box = Outbox(1, 1000)
    box.try_take(b"1\n")
    box.drop(3)
    box.tell_of_drops()
    assert box.taken == 1
    box.welcome(1)
    sent(box)
    box.acknowledge(1)
    box.tell_of_drops()
    box.tell_of_drops()
    assert json.loads(sent(box))["dropped"] == 3
    assert (box.taken, box.dropped) == (2, 3)


def test_a_daemon_that_knows_more_than_was_sent_has_it_from_another() -> None:
    box = outbox(3)
    box.welcome(1)
    box.next_chunk()
    box.acknowledge(1)
    with pytest.raises(ProducerFenced, match="records up to 7, this client sent up to 3"):
        box.welcome(8)


def test_numbers_begin_anew_behind_another_where_nothing_was_under_way() -> None:
    box = outbox(1)
    box.welcome(1)
    sent(box)
    box.acknowledge(1)
    box.try_take(b"2\n")
    box.welcome(10)
    assert (box.acked, box.number_to_place(10)) == (1, 2)
    assert sent(box) == b"2\n"


def test_a_daemon_does_not_ask_for_what_it_acknowledged() -> None:
    box = outbox(3)
    box.welcome(1)
    sent(box)
    box.acknowledge(3)
    with pytest.raises(ProtocolError, match="asks for record 2"):
        box.welcome(2)


def test_what_an_earlier_process_left_is_sent_first_and_by_its_numbers() -> None:
    box = Outbox(10, 1000, spooled_first=4, spooled_last=6, numbering=Numbering(100, 6))
    box.try_take(b"new\n")
    assert box.hello_first() == 104
    box.welcome(106)
    assert (box.acked, box.sends_from_spool) == (5, True)
    box.spool_sent(Chunk(6, 6, b"6\n"))
    assert not box.sends_from_spool
    assert sent(box) == b"new\n"
    assert box.number_to_place(107) == 7


def test_an_earlier_process_may_have_sent_more_than_it_left() -> None:
    box = Outbox(10, 1000, spooled_first=4, spooled_last=6, numbering=Numbering(100, 6))
    box.try_take(b"new\n")
    box.welcome(150)
    assert (box.acked, box.sent) == (6, 6)
    assert sent(box) == b"new\n"
    assert box.number_to_place(150) == 7


def test_what_is_spooled_is_no_longer_in_memory() -> None:
    box = outbox(4)
    box.welcome(1)
    box.next_chunk()
    box.acknowledge(1)
    chunks = box.to_spool()
    assert [(chunk.first, chunk.last, chunk.lines) for chunk in chunks] == [
        (2, 4, b"2\n3\n4\n"),
    ]
    box.try_take(b"5\n")
    box.is_spooled(4)
    assert (box.held_bytes, box.held_records) == (2, 1)
    assert (box.sent, box.sends_from_spool) == (4, False)
    box.welcome(3)
    assert box.sends_from_spool
    assert box.sent == 2


# The conversation.


def test_a_hello_says_who_and_from_where() -> None:
    box = outbox(1)
    hello = Conversation(box, "app", "web-1").hello()
    assert json.loads(hello) == {
        "_hello": 1,
        "stream": "app",
        "producer": "web-1",
        "flush": True,
    }
    assert hello.startswith(b'{"_hello":')
    box.welcome(5)
    assert json.loads(Conversation(box, "app", "web-1").hello())["first"] == 5


def test_a_client_that_was_forgotten_hears_so_before_it_sends_anything() -> None:
    box = outbox(3)
    heard: list[str] = []
    first = Conversation(box, "app", "web-1", heard.append)
    first.receive(b'{"welcome":1,"next":1,"max_record":1000,"known":0}\n')
    sent(box)
    first.receive(b'{"ack":1}\n')
    assert heard == []
    again = Conversation(box, "app", "web-1", heard.append)
    again.hello()
    again.receive(b'{"welcome":1,"next":2,"max_record":1000,"known":0}\n')
    assert "continues at number 2, and sends again 2 records" in heard.pop()
    for answer in (b'"next":2,"known":1', b'"next":2'):  # known; an older daemon
        known = Conversation(box, "app", "web-1", heard.append)
        known.hello()
        known.receive(b'{"welcome":1,"max_record":1000,%s}\n' % answer)
        assert heard == []


def test_answers_may_come_in_any_pieces_and_with_unknown_keys() -> None:
    box = outbox(2)
    conversation = Conversation(box, "app", "web-1")
    answers = (
        b'{"welcome":1,"next":1,"max_record":77,"motd":[1,{"x":2}]}\r\n\n{"news":true}\n{"ack":2}\n'
    )
    for number in range(len(answers)):
        conversation.receive(answers[number : number + 1])
        sent(box)
    assert conversation.max_record == 77
    assert box.pending == 0


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b'{"error":"fenced"}', ProducerFenced),
        (b'{"error":"too_many_streams","found":"x"}', TooManyStreams),
        (b'{"error":"something new"}', ProtocolError),
        (b'{"ack":1}', ProtocolError),
        (b'{"error":"record_too_large","record":3}', ProtocolError),
        (b'{"ack":"one"}', ProtocolError),
        (b"\xff", ProtocolError),
        (b"x" * 2_000_000, ProtocolError),
    ],
)
def test_an_answer_may_end_the_client(answer: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        welcomed(outbox(3)).receive(answer + (b"\n" if len(answer) < 10_000 else b""))


def test_no_answer_is_taken_before_the_welcome() -> None:
    with pytest.raises(ProtocolError, match="before its welcome"):
        Conversation(outbox(1), "app", "web-1").receive(b'{"ack":1}\n')


@pytest.mark.parametrize("answer", [b'{"error":"stalled"}', b'{"goodbye":"stopping"}'])
def test_other_answers_only_end_the_connection(answer: bytes) -> None:
    welcomed(outbox(1)).receive(answer + b"\n")


def test_a_refused_record_is_counted_once() -> None:
    box = outbox(3)
    conversation = welcomed(box)
    sent(box)
    conversation.receive(b'{"error":"record_too_large","record":2,"limit":1}\n')
    conversation = welcomed(box)
    sent(box)
    conversation.receive(b'{"error":"record_too_large","record":2,"limit":1}\n{"ack":3}\n')
    assert (box.refused, list(box.refusals)) == (1, [(2, 2, "record_too_large")])
    assert box.pending == 0


def test_records_may_be_refused_together() -> None:
    box = outbox(5)
    conversation = welcomed(box)
    sent(box)
    conversation.receive(b'{"error":"record_too_large","record":1,"limit":1}\n')
    conversation.receive(b'{"error":"over_quota","first":1,"last":3,"quota":"uid"}\n{"ack":3}\n')
    assert list(box.refusals) == [(1, 1, "record_too_large"), (2, 3, "over_quota")]
    assert (box.refused, box.pending) == (3, 2)


# The pause.


def test_a_pause_doubles_up_to_a_limit_and_differs() -> None:
    pause = Backoff(lambda: 1.0)
    taken = [pause.take() for _ in range(12)]
    assert taken[:3] == [MIN_S, 2 * MIN_S, 4 * MIN_S]
    assert taken[-1] == MAX_S
    pause.reset()
    assert pause.take() == MIN_S
    assert Backoff(lambda: 0.0).take() == MIN_S / 2


def test_all_that_is_not_durable_goes_to_the_spool() -> None:
    box = outbox(2)
    welcomed(box)
    assert sent(box) == b"1\n2\n"
    box.try_take(b"3\n")
    box.acknowledge(1)
    assert [(chunk.first, chunk.last, chunk.lines) for chunk in box.to_spool()] == [
        (2, 2, b"2\n"),
        (3, 3, b"3\n"),
    ]
