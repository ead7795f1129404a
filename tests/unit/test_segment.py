"""Names, headers and bodies of segments."""

import hashlib
import subprocess
from pathlib import Path

import msgspec
import pytest
from msgspec import UNSET

from logengine.disk.segment_file import list_segments, list_streams, read_header, read_segment
from logengine.errors import DamagedSegment
from logengine.format.producers import Producer
from logengine.format.segment import (
    Earlier,
    Erased,
    Frame,
    Gap,
    Header,
    IndexEntry,
    Restored,
    UserBytes,
    check_body,
    decode_header,
    encode_header,
    first_of_name,
    is_stream_name,
    segment_name,
)
from logengine.store.plan import Addition, StreamState, append

TIME = "2026-11-23T20:00:00.000001Z"
BODY = b'{"_ts":"%s","a":1}\n{"_ts":"%s","a":2}\n' % (TIME.encode(), TIME.encode())


def segment_file(directory: Path, body: bytes = BODY, count: int = 2) -> Path:
    directory.mkdir(exist_ok=True)
    plan, _ = append(
        StreamState(directory.name),
        Addition([body], count, TIME, TIME, {Producer(0, "web-1"): 5}),
        rewrite_limit=0,
        max_producers=9,
    )
    path = directory / segment_name(1)
    path.write_bytes(b"".join(plan.render()))
    return path


def test_the_name_is_the_first_number_and_sorts() -> None:
    assert segment_name(81921) == "00000000000000081921.ndjson"
    assert first_of_name("00000000000000081921.ndjson") == 81921
    for stranger in ("1.ndjson", "0" * 20 + ".ndjson", ".tmp", "x" * 20 + ".ndjson"):
        assert first_of_name(stranger) is None


@pytest.mark.parametrize("name", ["app", "a", "0", "a.b_c-d", "a" * 64])
def test_stream_names_that_are_fine(name: str) -> None:
    assert is_stream_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", ".hidden", "-a", "A", "a" * 65, "ä", "a\n", "a b", "_x"]
)
def test_no_stream_name_leaves_the_data_directory(name: str) -> None:
    assert not is_stream_name(name)


def test_header_and_body_come_back(tmp_path: Path) -> None:
    segment_file(tmp_path / "app")
    header, body = read_segment(tmp_path / "app", 1)
    assert body == BODY
    assert (header.first, header.last, header.count, header.bytes) == (1, 2, 2, len(BODY))
    assert header.producers_of == {0: {"web-1": 5}}
    assert read_header(tmp_path / "app", 1) == header


def test_a_large_body_is_read_in_pieces_by_whoever_may_rest_between_them(tmp_path: Path) -> None:
    body = BODY * 5000
    segment_file(tmp_path / "app", body, 10_000)
    spent: list[int] = []
    assert read_segment(tmp_path / "app", 1, spent.append) == read_segment(tmp_path / "app", 1)
    assert sum(spent) == len(body)
    assert len(spent) > 2
    assert max(spent) == 128 * 1024


def test_anybody_can_check_the_hash(tmp_path: Path) -> None:
    path = segment_file(tmp_path / "app")
    told = subprocess.run(
        f"tail -n +2 {path} | sha256sum", shell=True, check=True, capture_output=True, text=True
    ).stdout.split()[0]
    assert told == read_header(tmp_path / "app", 1).sha256 == hashlib.sha256(BODY).hexdigest()


def test_unknown_keys_of_a_newer_writer_are_ignored(tmp_path: Path) -> None:
    path = segment_file(tmp_path / "app")
    line = path.read_bytes().split(b"\n")[0]
    newer = line.partition(b',"header_sha256"')[0] + b',"key_to_come":"abc"'
    digest = hashlib.sha256(newer).hexdigest().encode()
    newer += b',"header_sha256":"%s"}' % digest
    assert decode_header(newer, "f") == decode_header(line, "f")


def closed(checked: bytes) -> bytes:
    """The header line that begins so, with the hash that anybody can compute."""
    return b'%s,"header_sha256":"%s"}' % (checked, hashlib.sha256(checked).hexdigest().encode())


def beginning(line: bytes) -> bytes:
    """The part of a header line that its hash covers."""
    return line.rpartition(b',"header_sha256"')[0]


SEAL = Header(
    version=1,
    stream="app",
    first=1,
    count=2,
    bytes=len(BODY),
    since=TIME,
    until=TIME,
    latest=TIME,
    sha256=hashlib.sha256(BODY).hexdigest(),
    producers={"web-1": 5, 'ä\n"\\\x7f😀': 7},
    frames=(Frame(90, len(BODY), 2),),
    prev="",
    signature="5" * 128,
)


def test_a_header_that_an_earlier_version_wrote_is_read() -> None:
    # The keys of each version, in its order, as the history of the format has them.
    plain = SEAL.__struct_encode_fields__[:10]
    seal = (*plain, "frames", "prev", "signature")
    values = msgspec.json.decode(
        encode_header(
            msgspec.structs.replace(
                SEAL,
                first=2,
                erased=Erased(original="a" * 64, count=1),
                users={1000: UserBytes(0, 9)},
                index=(IndexEntry(TIME, TIME, "a" * 64),),
                earlier=Earlier(first=1, since=TIME, seals=1),
            )
        )
    )
    for keys in (
        plain,
        (*plain, "users"),
        (*plain, "frames"),
        seal[:-1],
        seal,
        (*plain, "erased", "frames", "prev", "signature"),
        (*plain, "users", "erased", "frames", "prev", "signature"),
        (*plain, "erased", "frames", "index", "prev", "earlier", "signature"),
        (*plain, "users", "erased", "frames", "index", "prev", "earlier", "signature"),
    ):
        line = closed(msgspec.json.encode({key: values[key] for key in keys})[:-1])
        assert decode_header(line, "f").producers == SEAL.producers
    first = msgspec.json.encode({key: values[key] for key in plain}) + b"\n"
    assert decode_header(first, "f").count == 2


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"signature": UNSET},
        {"restored": Restored(when=TIME, why="a test")},
        {"prev": UNSET, "signature": UNSET, "frames": UNSET, "count": 0, "bytes": 0}
        | {"gap": Gap(last=9, when=TIME, why="a test", guessed=True)},
    ],
)
def test_a_header_is_read_as_it_was_written(change: dict[str, object]) -> None:
    header = msgspec.structs.replace(SEAL, **change)
    assert decode_header(encode_header(header), "f") == header


@pytest.mark.parametrize("key", sorted(SEAL.__struct_encode_fields__))
def test_no_key_is_accepted_after_the_signature(key: str) -> None:
    line = encode_header(SEAL)
    values = msgspec.json.decode(line)
    values.setdefault("erased", {"original": "a" * 64, "count": 1})
    values.setdefault("restored", {"when": TIME, "why": "a test"})
    value = msgspec.json.encode(values.get(key, {}))
    with pytest.raises(DamagedSegment):
        decode_header(closed(b'%s,"%s":%s' % (beginning(line), key.encode(), value)), "f")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"count":2', b'"count":2,"count":2'),
        (b'"count":2', b'"count":2,"c\\u006funt":2'),
        (b'"count":2', b'"c\\u006funt":2'),
        (b'"count":2', b'"count": 2'),
        (b'"count":2,', b'"count":2, '),
        (b'"count":2,"bytes":88', b'"bytes":88,"count":2'),
        (b'{"_segment":1', b'{"to_come":1,"_segment":1'),
        (b'{"_segment":1', b' {"_segment":1'),
        (b'"web-1":5', b'"web-1":4,"web-1":5'),
        (b'"frames":[[90,88,2]]', b'"frames":[[90,88,2]],"gap":null'),
        (b'"frames":', b'"erased":{"original":"","count":1,"to_come":1},"frames":'),
        (b'"frames":', b'"erased":{"original":"","count":0,"count":1},"frames":'),
        (b'"frames":', b'"header_sha256":"","frames":'),
        (b'"frames":', b'"to_come":1,"to_come":1,"frames":'),
        (b'"prev":', b'"signature":"55","prev":'),
        (b'5"', b'5","to_come":1'),
        (b'5"', b'5","header_sha256":"55"'),
    ],
)
def test_a_header_that_is_written_in_another_way_is_damage(old: bytes, new: bytes) -> None:
    before, found, after = beginning(encode_header(SEAL)).rpartition(old)
    assert found
    with pytest.raises(DamagedSegment):
        decode_header(closed(before + new + after), "f")


def test_a_newer_writer_puts_its_keys_before_the_signature() -> None:
    before, _, after = beginning(encode_header(SEAL)).partition(b',"frames":')
    newer = closed(b'%s,"to_come":{"a":[1, 2]},"frames":%s' % (before, after))
    assert decode_header(newer, "f") == SEAL


def test_a_seal_without_the_hash_of_its_header_is_damage() -> None:
    with pytest.raises(DamagedSegment, match="header_sha256"):
        decode_header(beginning(encode_header(SEAL)) + b"}", "f")


def test_anybody_can_check_the_hash_of_the_header(tmp_path: Path) -> None:
    path = segment_file(tmp_path / "app")
    told = subprocess.run(
        f"""head -n 1 {path} | sed 's/,"header_sha256.*//' | tr -d '\\n' | sha256sum""",
        shell=True,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()[0]
    line = path.read_bytes().split(b"\n")[0]
    assert msgspec.json.decode(line)["header_sha256"] == told


def test_a_header_without_a_hash_is_read_if_it_has_no_other_unknown_key(tmp_path: Path) -> None:
    path = segment_file(tmp_path / "app")
    line = path.read_bytes().split(b"\n")[0]
    bare = line.partition(b',"header_sha256"')[0] + b"}"
    assert msgspec.structs.asdict(decode_header(bare, "f")) == msgspec.structs.asdict(
        decode_header(line, "f")
    )
    with pytest.raises(DamagedSegment, match="header_sha257"):
        decode_header(line.replace(b"header_sha256", b"header_sha257"), "f")


def test_any_flipped_bit_of_a_header_is_damage(tmp_path: Path) -> None:
    path = segment_file(tmp_path / "app")
    line = path.read_bytes().partition(b"\n")[0]
    for bit in range(8 * len(line)):
        flipped = bytearray(line)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedSegment):
            decode_header(bytes(flipped), "f")


@pytest.mark.parametrize(
    "change",
    [
        {"_segment": 2},
        {"stream": "other"},
        {"first": 2},
        {"count": -1},
        {"bytes": 3},
        {"since": "2026"},
        {"since": "2027-11-23T20:00:00.000001Z"},
        {"latest": "2025-11-23T20:00:00.000001Z"},
        {"sha256": 1},
        {"producers": {"a": "b"}},
        {"users": {"ann": [0, 1]}},
        {"users": {"1000": [0, -1]}},
        {"users": {"1000": [0]}},
    ],
)
def test_a_header_that_cannot_be_true_is_damage(tmp_path: Path, change: dict[str, object]) -> None:
    path = segment_file(tmp_path / "app")
    line, body = path.read_bytes().split(b"\n", 1)
    bare = msgspec.json.decode(line)
    del bare["header_sha256"]
    path.write_bytes(msgspec.json.encode(bare) + b"\n" + body)
    read_header(tmp_path / "app", 1)
    path.write_bytes(msgspec.json.encode(bare | change) + b"\n" + body)
    with pytest.raises(DamagedSegment, match=str(path)):
        read_header(tmp_path / "app", 1)


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 4096, b"{", b'{"_segment":1}\n', b"\n", b"\xff\n"]
)
def test_what_a_broken_promise_leaves_is_damage(tmp_path: Path, content: bytes) -> None:
    path = segment_file(tmp_path / "app")
    path.write_bytes(content)
    for read in (read_header, read_segment):
        with pytest.raises(DamagedSegment, match=str(path)):
            read(tmp_path / "app", 1)


def test_a_changed_body_is_damage(tmp_path: Path) -> None:
    segment_file(tmp_path / "app")
    header, body = read_segment(tmp_path / "app", 1)
    with pytest.raises(DamagedSegment, match="sha256"):
        check_body(header, body.replace(b"1}", b"2}"), "f")
    with pytest.raises(DamagedSegment, match="bytes"):
        check_body(header, body[:-1], "f")


def test_a_header_longer_than_one_read_is_read_whole(tmp_path: Path) -> None:
    directory = tmp_path / "app"
    directory.mkdir()
    numbers = {f"producer-{number:04d}": number for number in range(1, 1025)}
    producers = {Producer(1000, name): number for name, number in numbers.items()}
    plan, _ = append(
        StreamState("app"),
        Addition([BODY], 2, TIME, TIME, producers),
        rewrite_limit=0,
        max_producers=1024,
        max_producer_names=64 * 1024,
    )
    (directory / segment_name(1)).write_bytes(b"".join(plan.render()))
    assert read_header(directory, 1).producers_of == {1000: numbers}


def test_only_streams_and_segments_are_listed(tmp_path: Path) -> None:
    segment_file(tmp_path / "app")
    (tmp_path / ".lock").touch()
    (tmp_path / "UPPER").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "app" / ".x.tmp").touch()
    (tmp_path / "app" / "notes").touch()
    assert list_streams(tmp_path) == ["app"]
    assert list_segments(tmp_path / "app") == [1]


def test_a_header_of_no_stream_is_damaged(tmp_path: Path) -> None:
    path = segment_file(tmp_path / "_app")
    line = path.read_bytes().partition(b"\n")[0]
    with pytest.raises(DamagedSegment, match="invalid stream '_app'"):
        decode_header(line, str(path))
