"""When a client asks the daemon for a commit: where a caller waits, and nowhere else."""

from logengine.client.delivery import Delivery
from logengine.client.settings import Settings

WELCOME = b'{"welcome":1,"next":1,"max_record":1000}\n'
LINE = b'{"n":1}\n'


def welcomed() -> Delivery:
    settings = Settings(
        stream="app",
        socket="/nowhere",
        producer="p",
        on_full="block",
        spool=None,
        max_records=100,
        max_bytes=100_000,
        max_spool_bytes=1,
    )
    delivery = Delivery(settings, "p", None)
    delivery.connected()
    delivery.received(WELCOME)
    return delivery


def test_records_that_wait_for_an_ack_do_not_say_that_there_is_no_daemon() -> None:
    assert welcomed().trouble == "the daemon at /nowhere has not stored them"


def test_records_that_nobody_waits_for_are_sent_as_they_are() -> None:
    delivery = welcomed()
    delivery.outbox.try_take(LINE)
    assert delivery.next_output() == LINE
    assert delivery.next_output() == b""


def test_an_empty_line_follows_the_records_that_a_caller_waits_for() -> None:
    delivery = welcomed()
    delivery.wait_for(delivery.outbox.try_take(LINE))
    assert delivery.next_output() == LINE + b"\n"
    assert delivery.next_output() == b""


def test_for_records_that_were_sent_before_an_empty_line_is_sent_alone_and_once() -> None:
    delivery = welcomed()
    place = delivery.outbox.try_take(LINE)
    assert delivery.next_output() == LINE
    delivery.wait_for(place)
    assert delivery.next_output() == b"\n"
    delivery.wait_for(place)
    assert delivery.next_output() == b""


def test_nothing_is_asked_for_what_is_durable_already() -> None:
    delivery = welcomed()
    place = delivery.outbox.try_take(LINE)
    delivery.next_output()
    delivery.received(b'{"ack":1}\n')
    delivery.wait_for(place)
    assert delivery.next_output() == b""


def test_records_that_a_caller_waits_for_do_not_wait_for_the_ack_of_earlier_ones() -> None:
    delivery = welcomed()
    delivery.outbox.try_take(LINE)
    assert delivery.next_output() == LINE
    delivery.outbox.try_take(LINE)
    assert delivery.next_output() == b"", "nobody waits"
    delivery.wait_for(2)
    assert delivery.next_output() == LINE + b"\n"


def test_a_new_connection_is_asked_again() -> None:
    delivery = welcomed()
    delivery.wait_for(delivery.outbox.try_take(LINE))
    assert delivery.next_output() == LINE + b"\n"
    delivery.lost("killed")
    assert b'"flush":true' in delivery.connected()
    delivery.received(WELCOME)
    assert delivery.next_output() == LINE + b"\n"
