"""Which producers a stream remembers, and how a header names them."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logengine.client.settings import process_producer
from logengine.errors import DamagedSegment
from logengine.format.producers import (
    CHUNKS_MAX,
    Numbers,
    Producer,
    Room,
    advance,
    chunk_name,
    header_keys,
    is_made_up,
    number_of,
    numbers_in,
    with_numbers,
)
from logengine.format.segment import FORMAT_VERSION, Header, decode_header, encode_header

ANN, BOB, EVE = 1000, 1001, 1002
WIDE = 1_000_000
TIME = "2026-11-23T20:00:00.000001Z"
HEADER = Header(
    version=FORMAT_VERSION,
    stream="app",
    first=1,
    count=0,
    bytes=0,
    since=TIME,
    until=TIME,
    latest=TIME,
    sha256="",
)


def after(
    names: list[tuple[int | None, str]],
    count: int = 8,
    size_bytes: int = WIDE,
    in_use: set[Producer] | None = None,
    known: Numbers | None = None,
) -> list[Producer]:
    """The producers that a stream remembers after `names` sent a record each, one at a time."""
    numbers: Numbers = known or {}
    for uid, name in names:
        numbers = advance(
            numbers,
            {Producer(uid, name): 1},
            Room(count, size_bytes),
            lambda each: each in (in_use or set()),
        )
    return list(numbers)


def many(uid: int, count: int, name: str = "n") -> list[tuple[int | None, str]]:
    return [(uid, f"{name}{number}") for number in range(count)]


def test_the_names_that_clients_make_up_are_recognised() -> None:
    assert is_made_up(process_producer())
    assert is_made_up(process_producer("send"))
    assert not any(
        map(is_made_up, ["nightly", "web-1", "db-20261128", "a-1-ABCDEF01", "x-1-12345"])
    )


def test_a_user_that_floods_a_stream_loses_its_own_names_only() -> None:
    kept = after([(ANN, "nightly"), (ANN, "daily"), *many(EVE, 100)])
    assert kept[:2] == [Producer(ANN, "nightly"), Producer(ANN, "daily")]
    assert kept[2:] == [Producer(EVE, f"n{number}") for number in range(94, 100)]


def test_a_user_gets_its_share_of_a_stream_that_another_one_has_filled() -> None:
    kept = after([*many(EVE, 8), (ANN, "a"), (ANN, "b")])
    assert kept[-2:] == [Producer(ANN, "a"), Producer(ANN, "b")]
    # Beyond its share, which is a quarter, it loses its own, unless all of them are in use.
    kept = after([*many(EVE, 8), *many(ANN, 5)])
    assert [each.uid for each in kept] == [EVE] * 6 + [ANN] * 2
    assert kept[-2:] == [Producer(ANN, "n3"), Producer(ANN, "n4")]
    in_use = {Producer(ANN, f"n{number}") for number in range(5)}
    kept = after([*many(EVE, 8), *many(ANN, 5)], in_use=in_use)
    assert [each.uid for each in kept] == [EVE] * 4 + [ANN] * 4


def test_made_up_names_go_before_given_ones() -> None:
    made_up = [(ANN, f"cron-host-{pid}-0123abcd") for pid in range(50)]
    kept = after([(ANN, "nightly"), *made_up])
    assert kept[0] == Producer(ANN, "nightly")
    assert len(kept) == 8


def test_of_given_names_those_go_that_were_used_least_recently() -> None:
    kept = after([*many(ANN, 8), (ANN, "n0"), (ANN, "new")])
    assert [each.name for each in kept] == ["n2", "n3", "n4", "n5", "n6", "n7", "n0", "new"]


def test_a_producer_in_use_stays_and_a_new_one_is_forgotten_at_once() -> None:
    names = many(ANN, 8)
    in_use = {Producer(ANN, f"n{number}") for number in range(8)}
    assert Producer(ANN, "n0") in after([*names, *many(ANN, 50, "x")], in_use=in_use)
    assert after([*names, (ANN, "new")], in_use=in_use) == [Producer(*name) for name in names]


def test_another_user_takes_its_share_even_of_producers_in_use() -> None:
    in_use = {Producer(EVE, f"n{number}") for number in range(8)}
    kept = after([*many(EVE, 8), *many(ANN, 2)], in_use=in_use)
    assert [each.uid for each in kept] == [EVE] * 6 + [ANN] * 2


def test_a_user_within_its_share_keeps_what_it_uses() -> None:
    users = [*many(ANN, 2), *many(BOB, 2), *many(EVE, 2), *many(1003, 2)]
    in_use = {Producer(uid, name) for uid, name in users}
    assert after([*users, (1004, "late")], in_use=in_use) == [Producer(*each) for each in users]
    kept = after([*users, (1004, "late")])
    assert kept == [Producer(*each) for each in [*users[1:], (1004, "late")]]


def test_the_bytes_of_names_are_limited_whatever_they_are() -> None:
    wide = [(EVE, f"{number}" + "\U0001f600" * 120) for number in range(50)]
    kept = after([(ANN, "nightly"), *wide], count=1000, size_bytes=4096)
    assert kept[0] == Producer(ANN, "nightly")
    assert len(kept) == 1 + 4096 // (2 + 4 * 120 + 2 + 20)


def test_the_uids_of_producers_take_room_too() -> None:
    numbers: Numbers = {}
    for uid in range(2**32 - 100, 2**32):
        numbers = advance(numbers, {Producer(uid, "p"): 9 * 10**17}, Room(1000, 2000))
    line = encode_header(with_numbers(HEADER, numbers))
    assert len(line) - len(encode_header(HEADER)) <= 2000
    assert len(numbers) > 50


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)
PRODUCERS = st.builds(Producer, st.sampled_from([None, 0, ANN, 2**32 - 1]), NAMES)
NUMBERS = st.integers(1, 2**53)


@given(
    st.lists(st.dictionaries(PRODUCERS, NUMBERS, max_size=5), max_size=20),
    st.integers(1, 9),
    st.integers(100, 600),
    st.sets(PRODUCERS),
)
def test_no_header_has_more_than_its_room(
    batches: list[dict[Producer, int]], count: int, size_bytes: int, in_use: set[Producer]
) -> None:
    numbers: Numbers = {}
    for batch in batches:
        before = numbers
        numbers = advance(before, batch, Room(count, size_bytes), in_use.__contains__)
        assert len(numbers) <= count
        line = encode_header(with_numbers(HEADER, numbers))
        assert len(line) - len(encode_header(HEADER)) <= size_bytes + len(',"producers_of":{}')
        assert all({**before, **batch}[each] == number for each, number in numbers.items())
        kept_before = [each for each in before if each in numbers and each not in batch]
        assert [each for each in numbers if each in kept_before] == kept_before


@given(st.dictionaries(PRODUCERS, NUMBERS, max_size=9))
def test_a_header_gives_back_the_numbers_of_each_user(numbers: dict[Producer, int]) -> None:
    header = decode_header(encode_header(with_numbers(HEADER, numbers)), "f")
    assert numbers_in(header) == numbers
    assert header_keys(numbers_in(header)) == header_keys(numbers)
    for uid in (None, 0, ANN):
        of_uid = [each for each in numbers if each.uid == uid]
        assert [each for each in numbers_in(header) if each.uid == uid] == of_uid


def test_a_producer_of_an_old_file_goes_on_for_any_user_until_it_has_its_own_number() -> None:
    old = numbers_in(msgspec.structs.replace(HEADER, producers={"web": 7}))
    assert number_of(old, Producer(ANN, "web")) == number_of(old, Producer(BOB, "web")) == 7
    assert number_of(old, Producer(ANN, "other")) == 0
    numbers = advance(old, {Producer(ANN, "web"): 9}, Room(8, WIDE))
    assert number_of(numbers, Producer(ANN, "web")) == 9
    assert number_of(numbers, Producer(BOB, "web")) == 7


def test_an_older_number_does_not_come_back_when_a_producer_is_forgotten() -> None:
    old = {Producer(None, "web"): 7, Producer(ANN, "web"): 9}
    in_use = {Producer(None, "web")}
    numbers = old
    for number in range(8):
        advanced = {Producer(ANN, f"n{number}"): 1}
        numbers = {**advance(numbers, advanced, Room(4, WIDE), in_use.__contains__)}
    assert number_of(numbers, Producer(ANN, "web")) == 0


def test_old_entries_go_before_those_of_users() -> None:
    old = {Producer(None, f"old{number}"): 1 for number in range(8)}
    kept = after(many(ANN, 2), known=old)
    assert kept == [Producer(None, f"old{number}") for number in range(2, 8)] + [
        Producer(ANN, "n0"),
        Producer(ANN, "n1"),
    ]


@pytest.mark.parametrize(
    "producers_of",
    [
        {-1: {"p": 1}},
        {2**32: {"p": 1}},
        {ANN: {}},
        {ANN: {"p": 0}},
        {ANN: {"p": -1}},
    ],
)
def test_impossible_producers_are_damage(producers_of: dict[int, dict[str, int]]) -> None:
    line = encode_header(msgspec.structs.replace(HEADER, producers_of=producers_of))
    with pytest.raises(DamagedSegment, match="impossible entry for a producer"):
        decode_header(line, "f")


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        (b'{"1000":{"p":1}}', b'{"01000":{"p":1}}'),
        (b'{"1000":{"p":1}}', b'{"1000":{"p":1,"p":1}}'),
        (b'{"1000":{"p":1}}', b'{"1000":{"p":1},"1000":{"p":1}}'),
        (b'{"1000":{"p":1}}', b'{"1000":{"\\u0070":1}}'),
        (b',"producers_of":{"1000":{"p":1}}', b',"producers_of":{}'),
    ],
)
def test_producers_are_written_in_one_way_only(said: bytes, instead: bytes) -> None:
    header = msgspec.structs.replace(HEADER, producers_of={ANN: {"p": 1}})
    line = msgspec.json.encode(header)
    assert decode_header(line, "f").producers_of == header.producers_of
    assert said in line
    with pytest.raises(DamagedSegment):
        decode_header(line.replace(said, instead), "f")


def test_a_stream_remembers_the_last_chunks_of_each_user() -> None:
    names = [chunk_name(1, bytes([number])) for number in range(200)]
    sent: list[tuple[int | None, str]] = [(BOB, names[0]), (ANN, "app")]
    sent += [(ANN, name) for name in names]
    expected = [(BOB, names[0]), (ANN, "app")]
    expected += [(ANN, name) for name in names[-CHUNKS_MAX:]]
    assert after(sent, count=1024) == [Producer(*each) for each in expected]


def test_chunks_are_forgotten_before_names_that_were_given() -> None:
    names = [chunk_name(1, bytes([number])) for number in range(20)]
    remembered = after([(ANN, "app"), *((ANN, name) for name in names)], count=8)
    assert remembered == [Producer(ANN, "app"), *(Producer(ANN, name) for name in names[-7:])]


def test_a_chunks_name_is_short_and_its_own() -> None:
    names = {chunk_name(pid, digest) for pid in (1, 2) for digest in (b"", b"1", b":1", bytes(16))}
    assert len(names) == 8
    assert {len(name) for name in names} == {28}
    assert all(map(is_made_up, names))
