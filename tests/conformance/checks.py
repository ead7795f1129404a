"""What `docs/protocol.md` says, sentence by sentence, as it shows at a socket."""

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.conformance.connection import OTHER_STREAM, STREAM, Failed, Server, hello_line, shown

NUMBER_MAX = 2**53


@dataclass(frozen=True)
class Check:
    """One sentence of the specification, and what shows whether it holds."""

    name: str
    run: Callable[[Server], None]
    needs_restart: bool


CHECKS: list[Check] = []


def check(
    name: str, *, needs_restart: bool = False
) -> Callable[[Callable[[Server], None]], Callable[[Server], None]]:
    """Adds a check under its sentence."""

    def add(run: Callable[[Server], None]) -> Callable[[Server], None]:
        CHECKS.append(Check(name, run, needs_restart))
        return run

    return add


def new_producer() -> str:
    """A name that the server does not know yet."""
    return f"conformance-{secrets.token_hex(8)}"


def lines(first: int, last: int) -> bytes:
    return b"".join(b'{"n":%d}\n' % number for number in range(first, last + 1))


def expect_next(found: int, expected: int) -> None:
    if found != expected:
        raise Failed(f"next {found}", str(expected))


def producer_with_three_acked(server: Server) -> str:
    """A new producer whose first three records were acknowledged."""
    producer = new_producer()
    with server.connected() as sender:
        sender.hello(producer=producer)
        sender.send(lines(1, 3))
        sender.wait_for_ack(3)
    return producer


@check("a hello is welcomed, with next 1 if it names no producer")
def _(server: Server) -> None:
    with server.connected() as sender:
        expect_next(sender.hello(), 1)


@check("records may come right behind a hello without a producer")
def _(server: Server) -> None:
    with server.connected() as sender:
        sender.send(hello_line() + lines(1, 3))
        expect_next(sender.welcome()["next"], 1)
        sender.wait_for_ack(3)


@check("acks never go back and never pass what was sent")
def _(server: Server) -> None:
    with server.connected() as sender:
        sender.hello()
        for last in range(1, 20):
            sender.send(lines(last, last))
            sender.wait_for_ack(last)


@check("blank lines have no number")
def _(server: Server) -> None:
    with server.connected() as sender:
        sender.send(b"\n \t\r\n" + hello_line())
        sender.welcome()
        sender.send(b"one\n\n \n\t\r\n\r\r\ntwo\n")
        if sender.last_acked() != 2:
            raise Failed(f"ack {sender.acked} for two records among blank lines", "ack 2")


@check("every line that is not blank is one record, whatever it holds")
def _(server: Server) -> None:
    odd = (b"{}", b"[1]", b"{}{}", b'{"a":', b"\xff", b"a\0b", b'{"a":NaN}', b"\x0c", b"\xc2\xa0")
    with server.connected() as sender:
        sender.hello()
        sender.send(b"\n".join(odd) + b"\n")
        sender.wait_for_ack(len(odd))


@check("a CR before the LF is no part of a line")
def _(server: Server) -> None:
    with server.connected() as sender:
        sender.send(hello_line()[:-1] + b"\r\n")
        max_record = sender.welcome()["max_record"]
        sender.send(b"x" * max_record + b"\r\n")
        sender.wait_for_ack(1)
        if sender.refused:
            raise Failed("an error about a record", "max_record bytes and a CR to be taken")


@check("a sender without a hello is told nothing, and end of file ends it")
def _(server: Server) -> None:
    for first_line in (
        b'{"event":"x"}',
        b'{"stream":"a","_hello":1}',
        b'{"\\u005fhello":1}',
        b'["_hello"]',
    ):
        with server.connected() as sender:
            sender.send(first_line + b"\n" + hello_line())
            sender.end()
            sender.expect_end()


@check("a second hello is a record")
def _(server: Server) -> None:
    with server.connected() as sender:
        sender.hello()
        sender.send(hello_line())
        sender.wait_for_ack(1)


@check("end of file comes when all is acknowledged")
def _(server: Server) -> None:
    with server.connected() as sender:
        sender.hello()
        sender.send(lines(1, 1000))
        if sender.last_acked() != 1000:
            raise Failed(f"ack {sender.acked} and end of file", "ack 1000 before it")


@check("a hello may have white space, nulls and unknown keys")
def _(server: Server) -> None:
    for hello in (
        b' \t{ "_hello" : 1 , "stream":"%s"}\r\n' % STREAM.encode(),
        b'{"_hello":1,"stream":null,"producer":null,"first":null,"flush":null}\n',
        hello_line(later={"a": [1]}),
    ):
        with server.connected() as sender:
            sender.send(hello)
            sender.welcome()


@check("a hello that is not as specified is refused as bad_hello, and the connection closed")
def _(server: Server) -> None:
    for hello in (
        b'{"_hello":"1"}',
        b'{"_hello":1.0}',
        b'{"_hello":null}',
        b'{"_hello":1',
        b'{"_hello":1}x',
        b'{"_hello":1,"stream":5}',
        b'{"_hello":1,"first":1.5}',
        b'{"_hello":1,"producer":"\xff"}',
    ):
        with server.connected() as sender:
            sender.send(hello + b"\n")
            sender.expect_refusal("bad_hello", of=repr(hello))


@check("another version is refused as unsupported_version, which says the one that is spoken")
def _(server: Server) -> None:
    with server.connected() as sender:
        sender.send(hello_line(_hello=1_000_000))
        answer = sender.expect("error")
        if (answer["error"], answer.get("expected")) != ("unsupported_version", 1):
            raise Failed(shown(answer), 'the error "unsupported_version" with "expected":1')
        sender.expect_end()


@check("names and numbers of a hello are held to their bounds")
def _(server: Server) -> None:
    unique = secrets.token_hex(8)
    for said in (
        {"producer": unique + "p" * 112},
        {"producer": unique + "ü€ 😀"},
        {"producer": unique, "first": NUMBER_MAX},
    ):
        with server.connected() as sender:
            sender.hello(**said)
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("invalid_stream", {"stream": "s" * 65}),
        ("invalid_stream", {"stream": "../x"}),
        ("invalid_stream", {"stream": ".x"}),
        ("invalid_stream", {"stream": "A"}),
        ("invalid_stream", {"stream": ""}),
        ("invalid_producer", {"producer": "p" * 129}),
        ("invalid_producer", {"producer": ""}),
        ("invalid_producer", {"producer": "a\x85b"}),
        ("invalid_producer", {"producer": "a\nb"}),
        ("invalid_first", {"producer": unique, "first": 0}),
        ("invalid_first", {"producer": unique, "first": NUMBER_MAX + 1}),
    ]
    for error, said in wrong:
        with server.connected() as sender:
            sender.send(hello_line(**said))
            sender.expect_refusal(error, of=str(said))


@check("a last line without LF is a record, but not of a producer")
def _(server: Server) -> None:
    for said, expected in (({}, 2), ({"producer": new_producer()}, 1)):
        with server.connected() as sender:
            sender.hello(**said)
            sender.send(b"one\ntwo")
            if sender.last_acked() != expected:
                raise Failed(f"ack {sender.acked} after {said}", f"ack {expected}")


@check("a producer resumes behind what was acknowledged")
def _(server: Server) -> None:
    producer = new_producer()
    with server.connected() as sender:
        expect_next(sender.hello(producer=producer), 1)
        sender.send(lines(1, 3))
        sender.wait_for_ack(3)
    with server.connected() as sender:
        expect_next(sender.hello(producer=producer), 4)
        sender.send(lines(4, 4))
        sender.wait_for_ack(4)


@check("numbers belong to a producer of a stream")
def _(server: Server) -> None:
    producer = producer_with_three_acked(server)
    with server.connected() as sender:
        expect_next(sender.hello(producer=producer, stream=OTHER_STREAM), 1)


@check("a connection that was lost with records under way is resumed exactly")
def _(server: Server) -> None:
    producer, last = new_producer(), 5000
    with server.connected() as sender:
        sender.hello(producer=producer)
        sender.send(lines(1, last))
    with server.connected() as sender:
        next_number = sender.hello(producer=producer, first=1)
        if not 1 <= next_number <= last + 1:
            raise Failed(f"next {next_number} after {last} records", f"1 to {last + 1}")
        sender.send(lines(next_number, last + 1))
        sender.wait_for_ack(last + 1)
    with server.connected() as sender:
        expect_next(sender.hello(producer=producer), last + 2)


@check("a producer that the server does not know goes on from its first")
def _(server: Server) -> None:
    producer = new_producer()
    with server.connected() as sender:
        expect_next(sender.hello(producer=producer, first=41), 41)
        sender.send(lines(41, 42))
        sender.wait_for_ack(42)
    with server.connected() as sender:
        expect_next(sender.hello(producer=producer), 43)


@check("next is what is known or first, whichever is more")
def _(server: Server) -> None:
    producer = producer_with_three_acked(server)
    for first, expected in ((1, 4), (4, 4), (10, 10)):
        with server.connected() as sender:
            expect_next(sender.hello(producer=producer, first=first), expected)
    with server.connected() as sender:  # a hello alone moves nothing
        expect_next(sender.hello(producer=producer), 4)


@check("a welcome says what is known of a producer")
def _(server: Server) -> None:
    producer = producer_with_three_acked(server)
    for name, first, expected in ((producer, 1, 3), (producer, 10, 3), (new_producer(), 10, 0)):
        with server.connected() as sender:
            sender.send(hello_line(producer=name, first=first))
            known = sender.welcome().get("known", expected)  # older servers do not say it
            if known != expected:
                raise Failed(f"known {known} with first {first}", f"known {expected}")


@check("first counts only with a producer")
def _(server: Server) -> None:
    with server.connected() as sender:
        expect_next(sender.hello(first=7), 1)


@check("a second connection of a producer fences the first")
def _(server: Server) -> None:
    producer = new_producer()
    with server.connected() as older, server.connected() as newer:
        older.hello(producer=producer)
        older.send(lines(1, 2))
        older.wait_for_ack(2)
        expect_next(newer.hello(producer=producer), 3)
        older.expect_refusal("fenced", of="the older connection")
        newer.send(lines(3, 3))
        newer.wait_for_ack(3)


@check("what a fenced connection had delivered is counted in the new welcome")
def _(server: Server) -> None:
    producer = new_producer()
    with server.connected() as older, server.connected() as newer:
        older.hello(producer=producer)
        older.send(lines(1, 2000))
        next_number = newer.hello(producer=producer, first=1)
        older.try_to_send(lines(2001, 3000))  # comes too late for this name
        last = None
        while (answer := older.answer()) is not None:
            last = answer
        if last != {"error": "fenced"}:
            raise Failed(shown(last), 'the error "fenced" as the last answer')
        if not older.acked < next_number <= 2001:
            raise Failed(f"next {next_number}", f"{older.acked + 1}, which was acked, to 2001")
        newer.send(lines(next_number, 3001))
        newer.wait_for_ack(3001)


@check("the same name in another stream fences nobody")
def _(server: Server) -> None:
    producer = new_producer()
    with server.connected() as one, server.connected() as other:
        one.hello(producer=producer)
        other.hello(producer=producer, stream=OTHER_STREAM)
        one.send(lines(1, 1))
        one.wait_for_ack(1)


@check("a record that is too large is refused by its number, and the rest is taken")
def _(server: Server) -> None:
    producer = new_producer()
    with server.connected() as sender:
        sender.send(hello_line(producer=producer))
        limit = sender.welcome()["max_record"]
        sender.send(b"one\n" + b"x" * (limit + 1) + b"\n" + b"x" * limit + b"\nfour\n")
        sender.send(b" " * (limit + 1) + b"\n")  # not even if it is blank
        errors = []
        while sender.acked < 5:
            answer = sender.answer()
            if answer is None:
                raise Failed("end of file", "ack 5")
            if "error" in answer:
                errors.append(answer)
            for number in (2, 5):
                if sender.acked >= number and number not in sender.refused:
                    raise Failed(f"ack {sender.acked}", f"the error about record {number} first")
        for answer, number in zip(errors, (2, 5), strict=True):
            expected = {"error": "record_too_large", "record": number, "limit": limit}
            if not expected.items() <= answer.items():
                raise Failed(shown(answer), json.dumps(expected))
    with server.connected() as sender:
        expect_next(sender.hello(producer=producer), 6)


@check("a first line that is too large is a record, whatever it begins with")
def _(server: Server) -> None:
    with server.connected() as sender:
        sender.send(hello_line())
        limit = sender.welcome()["max_record"]
    with server.connected() as sender:
        sender.send(hello_line(filler="x" * limit))
        sender.end()
        sender.expect_end()


@check("a client that does not read its answers holds up nobody")
def _(server: Server) -> None:
    with server.connected() as deaf, server.connected() as other:
        deaf.hello()
        for _ in range(300):
            deaf.send(b"x\n" * 300)
        other.hello(stream=OTHER_STREAM)
        other.send(lines(1, 1))
        other.wait_for_ack(1)
        deaf.wait_for_ack(90_000)


@check("what was acknowledged is below next after a restart", needs_restart=True)
def _(server: Server) -> None:
    producer = new_producer()
    with server.connected() as sender:
        sender.hello(producer=producer)
        sender.send(lines(1, 100))
        sender.wait_for_ack(100)
        server.restart()
    with server.connected() as sender:
        expect_next(sender.hello(producer=producer), 101)


@check("what was under way in a restart is resumed exactly", needs_restart=True)
def _(server: Server) -> None:
    producer, last = new_producer(), 5000
    with server.connected() as sender:
        sender.hello(producer=producer)
        sender.send(lines(1, last))
        server.restart()
        while (answer := sender.answer()) is not None:
            if answer.get("error") is not None:
                raise Failed(shown(answer), "acks, perhaps a goodbye, and end of file")
        acked = sender.acked
    with server.connected() as sender:
        next_number = sender.hello(producer=producer, first=acked + 1)
        if not acked < next_number <= last + 1:
            raise Failed(f"next {next_number}", f"{acked + 1} to {last + 1}")
        sender.send(lines(next_number, last + 1))
        sender.wait_for_ack(last + 1)
