"""How messages are folded into patterns, and what the limits do."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logengine.aggregation import message_patterns as module
from logengine.aggregation.message_patterns import VARIABLE, MessagePatterns
from logengine.errors import InvalidFilter
from logengine.format.block import Block

TIME = "2026-11-23T20:00:00.000000Z"


def folded(*messages: str) -> list[tuple[str, int]]:
    found = MessagePatterns()
    for message in messages:
        found.add_message(message, TIME)
    return [(each.text, each.count) for each in found.patterns()]


@pytest.mark.parametrize(
    ("message", "masked"),
    [
        ("order 7 took 12.5ms", "order <*> took <*>ms"),
        ("from 10.0.0.1:8080 to [fe80::1:2]", "from <*> to [<*>]"),
        ("id 123e4567-e89b-12d3-a456-426614174000 done", "id <*> done"),
        ("at 2026-11-23T20:00:00.123Z user=42", "at <*> user=<*>"),
        ("commit 5d3f2a1b9c0e at 0xdeadBEEF", "commit <*> at <*>"),
        ("sha256 of utf8 in worker3 is deadbeef", "sha256 of utf8 in worker3 is deadbeef"),
        ("temperature -3.5 is low", "temperature <*> is low"),
    ],
)
def test_what_looks_variable_is_masked(message: str, masked: str) -> None:
    assert folded(message) == [(masked, 1)]


def test_messages_that_differ_in_a_few_words_are_one_pattern() -> None:
    messages = [f"user {name} logged in from host {name}.example" for name in ("ann", "bob", "eve")]
    # The paper's tree divides messages by their first words, so a name may not be among these.
    assert folded(*[f"login of {each}" for each in messages]) == [
        ("login of user <*> logged in from host <*>", 3)
    ]


def test_messages_of_other_words_or_another_length_are_patterns_of_their_own() -> None:
    found = folded("connection opened", "connection closed", "connection closed by peer")
    assert sorted(found) == [
        ("connection closed", 1),
        ("connection closed by peer", 1),
        ("connection opened", 1),
    ]


def test_an_empty_message_is_a_pattern_and_a_long_one_is_cut() -> None:
    assert folded("", " ") == [("", 2)]
    ((text, count),) = folded("word " * 500, "word " * 500)
    assert count == 2
    assert text.endswith(" …")
    assert len(text.split()) == module.WORDS_MAX


def test_messages_that_match_no_pattern_after_the_limit_are_counted_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PATTERNS_MAX", 2)
    found = MessagePatterns()
    for message in ("disk full", "order 7 placed", "shutting down", "disk full", "order 8 placed"):
        found.add_message(message, TIME)
    assert {each.text: each.count for each in found.patterns()} == {
        "disk full": 2,
        "order <*> placed": 2,
    }
    assert (found.messages, found.others) == (5, 1)


def test_a_pattern_has_its_first_message_and_the_times_of_its_records() -> None:
    found = MessagePatterns()
    for second in (5, 3, 9):
        found.add_message(f"order {second} placed", f"2026-11-23T20:00:0{second}.000000Z")
    (pattern,) = found.patterns()
    assert pattern.example == "order 5 placed"
    assert (pattern.first[17:19], pattern.last[17:19]) == ("03", "09")


def test_the_message_is_the_first_text_of_the_known_fields_or_the_field_that_is_named() -> None:
    lines = [
        b'{"_ts":"%s","event":7,"message":"a","e":{"type":"x"}}\n' % TIME.encode(),
        b'{"_ts":"%s","msg":"b"}\n' % TIME.encode(),
        b'{"_ts":"%s","text":"c"}\n' % TIME.encode(),
    ]
    block = Block("app", 1, len(lines), b"".join(lines))
    found = MessagePatterns()
    found.add(block)
    assert [(each.text, each.count) for each in found.patterns()] == [("a", 1), ("b", 1)]
    found = MessagePatterns("e.type")
    found.add(block)
    assert [(each.text, each.count) for each in found.patterns()] == [("x", 1)]
    with pytest.raises(InvalidFilter):
        MessagePatterns("a b")


words = st.sampled_from(["a", "b", "c", "d1", "7", "8", "x=1", "x=2", "10.0.0.1"])
messages = st.lists(st.lists(words, max_size=5).map(" ".join), max_size=40)


@given(messages)
def test_each_message_is_counted_once_in_a_pattern_that_it_matches(given_: list[str]) -> None:
    found = MessagePatterns()
    for message in given_:
        found.add_message(message, TIME)
    patterns = found.patterns()
    assert sum(each.count for each in patterns) == len(given_)
    assert len({each.text for each in patterns}) == len(patterns)
    for message in given_:
        assert any(matches(each.text, message) for each in patterns), message


def matches(pattern: str, message: str) -> bool:
    if not pattern:
        return not message.strip()
    regex = " ".join(
        r"\S+".join(map(re.escape, word.split(VARIABLE))) for word in pattern.split(" ")
    )
    return re.fullmatch(regex, " ".join(message.split())) is not None
