"""`logengine repair`, beside the other commands."""

import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec import UNSET

from logengine.disk.segment_file import read_header, read_header_line, read_segment
from logengine.format.compression import compress_body, encode_compressed_header, with_frames
from logengine.format.segment import body_sha256, encode_header, header_sha256
from tests.daemon import Daemon, eventually
from tests.three_segments import stopped_daemon, store_three_segments

RECORDS = 9


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="le-") as name:
        lines = (b'{"n":%d,"x":"%s"}\n' % (number, b"x" * 30) for number in range(RECORDS))
        yield store_three_segments(Path(name), lines)


@pytest.fixture
def stopped(root: Path, template: Path) -> Daemon:
    """A stopped daemon with three segments of three records, the first compressed."""
    return stopped_daemon(root, template)


def segments(daemon: Daemon) -> list[Path]:
    return daemon.segments("app")


def flip(path: Path, place: int) -> bytes:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    return bytes(content)


def shown(daemon: Daemon, *command: str) -> list[int]:
    return [json.loads(line)["n"] for line in daemon.cli(*command).stdout.splitlines()]


def test_a_damaged_segment_is_kept_and_its_records_are_told_of(stopped: Daemon) -> None:
    path = segments(stopped)[1]
    rotten = flip(path, -40)
    assert path.name.encode() in stopped.cli("verify", status=1).stdout

    said = stopped.cli("repair", "app", "--dry-run").stdout.decode()
    assert f"would move {path}" in said
    assert "would record" in said
    assert path.read_bytes() == rotten
    assert not (stopped.data / ".damaged").exists()

    said = stopped.cli("repair", "app").stdout.decode()
    assert said.splitlines()[-1] == "app: ok"
    kept, report_path, salvaged_path = sorted((stopped.data / ".damaged").iterdir())
    assert kept.name.startswith("app-")
    assert kept.name.endswith(f"Z-{path.name}")
    assert kept.read_bytes() == rotten
    report = json.loads(report_path.read_text())
    assert (report["file"], report["first"], report["last"]) == (path.name, 4, 6)
    assert report["kept_as"] == kept.name
    assert "sha256" in report["why"]
    salvaged = [json.loads(line) for line in salvaged_path.read_bytes().splitlines()]
    assert [record["_seq"] for record in salvaged] == [4, 5, 6]
    assert report["sure"] == [{"first": 4, "last": 6}]

    verified = stopped.cli("verify")
    assert verified.stdout == b"app: ok\n"
    assert b"records 4 to 6 are gone" in verified.stderr
    read = stopped.cli("cat", "app")
    assert [json.loads(line)["n"] for line in read.stdout.splitlines()] == [0, 1, 2, 6, 7, 8]
    assert read.stderr.count(b"note: app: records 4 to 6 are gone") == 1
    assert len(read.stderr.splitlines()) == 1
    assert stopped.cli("tail", "app", "-n", "3").stderr == b""
    assert shown(stopped, "tail", "app", "-n", "4") == [2, 6, 7, 8]
    assert shown(stopped, "tail", "app", "-n", "4", "--grep", "x") == [2, 6, 7, 8]
    assert shown(stopped, "cat", "app", "--after", "app:4") == [6, 7, 8]
    assert shown(stopped, "cat", "app", "--since", "1h") == [0, 1, 2, 6, 7, 8]
    assert stopped.cli("cat", "app", "--since", "now").stderr == b""
    assert stopped.cli("repair", "app").stdout == b"app: ok\n"


@pytest.mark.parametrize("place", [20, -40])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_the_daemon_goes_on_after_a_repair(stopped: Daemon, which: int, place: int) -> None:
    path = segments(stopped)[which]
    flip(path, place)
    left = [n for n in range(RECORDS) if n // 3 != which]
    stopped.cli("repair", "app")
    assert shown(stopped, "cat", "app") == left
    try:
        stopped.start()
        stopped.cli("send", "-s", "app", stdin=b'{"n":100}\n')
        stopped.cli("send", "-s", "app", stdin=b'{"n":101}\n')
        assert shown(stopped, "cat", "app") == [*left, 100, 101]
        assert shown(stopped, "tail", "app", "-n", "1") == [101]
        stopped.cli("verify")
        assert "segment_damaged" not in stopped.events()
        seqs = [json.loads(line)["_seq"] for line in stopped.cli("cat", "app").stdout.splitlines()]
        assert seqs[-2] == (10 + 99_999_997 if (which, place) == (2, 20) else 10)
        (told,) = map(json.loads, stopped.cli("ls", "--json").stdout.splitlines())
        assert (told["damaged"], told["records"]) == (0, len(left) + 2)
    finally:
        stopped.close()


def test_what_writers_left_is_moved_too(stopped: Daemon) -> None:
    temp = stopped.data / "app" / ".00000000000000000004.ndjson.00ff.tmp"
    temp.write_bytes(b"half")
    first = segments(stopped)[0]
    leftover = first.with_suffix("")
    leftover.write_bytes(b"damaged, and not read")
    stopped.cli("repair", "app")
    assert not temp.exists()
    assert not leftover.exists()
    kept = {path.read_bytes() for path in (stopped.data / ".damaged").iterdir()}
    assert {b"half", b"damaged, and not read"} <= kept
    assert stopped.cli("verify").stderr == b""


def test_a_running_daemon_is_left_alone(daemon: Daemon) -> None:
    daemon.cli("send", "-s", "app", stdin=b"x\n")
    done = daemon.cli("repair", "app", status=1)
    assert b"in use by a running daemon; stop it" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert b"name the streams" in daemon.cli("repair", status=2).stderr


def large_seals(root: Path, public: Path) -> Daemon:
    """A stopped daemon with signed seals of some frames each."""
    key = root / "seal.key"
    daemon = Daemon(
        root,
        f'[compaction]\nseal_bytes = "3MiB"\nfanout = 2\nseal_key = "{key}"\n'
        '[commit]\nrewrite_limit = "1KiB"\n',
    )
    public.write_bytes(daemon.cli("keygen", str(key)).stdout)
    daemon.start()
    try:
        for part in range(8):
            lines = b"".join(
                b'{"n":%d,"x":"%s"}\n' % (part * 1000 + n, b"x" * 900) for n in range(1000)
            )
            daemon.cli("send", "-s", "app", stdin=lines)
        eventually(lambda: len(list((daemon.data / "app").glob("*.zst"))) >= 2, "seals")
        daemon.stop()
    finally:
        daemon.close()
    return daemon


def break_frame(path: Path, at: int) -> range:
    """Flips a byte of a frame; the numbers of the records in it."""
    header = read_header(path.parent, int(path.name[:20]))
    assert header.frames is not UNSET
    place = path.stat().st_size - header.stored_bytes
    place += sum(frame.stored_bytes for frame in header.frames[:at])
    flip(path, place + header.frames[at].stored_bytes // 2)
    first = header.first + sum(frame.count for frame in header.frames[:at])
    return range(first, first + header.frames[at].count)


def without_gaps(output: bytes) -> list[bytes]:
    return [re.sub(rb'"_gaps":\[[^]]*\],', b"", line) for line in output.splitlines()]


def test_of_a_damaged_seal_only_the_broken_frame_is_lost(root: Path) -> None:
    public = root / "seal.pub"
    daemon = large_seals(root, public)
    whole = daemon.cli("cat", "app", "--format", "json").stdout.splitlines()
    assert [json.loads(line)["_seq"] for line in whole] == list(range(1, 8001))
    path = min((daemon.data / "app").glob("*.zst"))
    anchor = header_sha256(read_header_line(path.parent, 1)[1])
    lost = break_frame(path, 1)
    rest = [line for seq, line in enumerate(whole, 1) if seq not in lost]
    which = f"{lost[0]} to {lost[-1]}".encode()

    read = daemon.cli("cat", "app", "--format", "json", status=1)
    assert without_gaps(read.stdout) == rest
    assert read.stdout.count(b'"reason":"damaged"') == 1
    assert b"records " + which + b" are not served" in read.stderr
    assert len(read.stderr.splitlines()) == 1
    for command in (["cat", "app", "--grep", "xx"], ["tail", "app", "-n", "8000"]):
        assert without_gaps(daemon.cli(*command, "--format", "json", status=1).stdout) == rest
    assert b"records " + which + b" are lost" in daemon.cli("verify", status=1).stdout

    daemon.cli("repair", "app")
    read = daemon.cli("cat", "app", "--format", "json")
    assert without_gaps(read.stdout) == rest
    assert read.stdout.count(b'"reason":"recorded"') == 1
    assert b"note: app: records " + which + b" are gone" in read.stderr
    proofs = ["--public-key", str(public), "--since-seal", anchor]
    failed = daemon.cli("verify", *proofs, status=1)
    assert failed.stdout.count(b"\n") == failed.stdout.count(b"no seal proves this gap") == 1
    said = daemon.cli("verify", *proofs, "--allow-gaps")
    assert said.stderr.count(b"its records are those of a seal") == 2
    assert b"begins again" not in said.stderr
    assert daemon.cli("repair", "app").stdout == b"app: ok\n"

    # What stands in a part, and is not what was sealed, is not proven by anything.
    daemon.cli("erase", "app", "--up-to", "app:1")
    assert b"1 of its records" in daemon.cli("verify", *proofs, "--allow-gaps", status=1).stdout
    said = daemon.cli("verify", *proofs, "--allow-gaps", "--allow-erased")
    assert b"1 of its records were erased" in said.stderr
    (forged,) = (daemon.data / "app").glob(f"*{lost[-1] + 1}.ndjson.zst")
    header, body = read_segment(forged.parent, lost[-1] + 1)
    frames = list(compress_body([body.replace(b'"n":', b'"m":')], 1))
    header = msgspec.structs.replace(
        with_frames(header, frames), sha256=body_sha256(body.replace(b'"n":', b'"m":'))
    )
    content = [encode_compressed_header(header), *(frame.content for frame in frames)]
    forged.write_bytes(b"".join(content))
    assert b"no seal proves its records" in daemon.cli("verify").stderr
    said = daemon.cli("verify", *proofs, "--allow-gaps", "--allow-erased", status=1)
    assert b"no signature proves its records" in said.stdout


def test_what_an_older_repair_moved_away_can_be_put_back(stopped: Daemon) -> None:
    path = segments(stopped)[0]
    content = path.read_bytes()
    header = read_header(path.parent, 1)
    path.unlink()
    stopped.cli("repair", "app")
    path.write_bytes(content + b"more")
    stopped.cli("repair", "app")
    assert path.read_bytes() == content
    assert shown(stopped, "cat", "app") == list(range(RECORDS))
    assert header.last == 3
    assert stopped.cli("verify").stderr == b""


@pytest.mark.parametrize("kind", ["directory", "fifo", "link", "large"])
def test_what_is_no_segment_and_has_the_name_of_one_is_moved_away(
    stopped: Daemon, kind: str
) -> None:
    path = segments(stopped)[1]
    path.unlink()
    match kind:
        case "directory":
            path.mkdir()
            (path / "inside").write_bytes(b"kept")
        case "fifo":
            os.mkfifo(path)
        case "link":
            path.symlink_to("nothing")
        case _:
            path.with_name("9" * 20 + ".ndjson").write_bytes(b"kept")
    stopped.cli("verify", status=1)
    assert shown_all(stopped) == [0, 1, 2, 6, 7, 8]
    stopped.cli("repair", "app")
    stopped.cli("verify")
    assert shown(stopped, "cat", "app") == [0, 1, 2, 6, 7, 8]
    assert stopped.cli("repair", "app").stdout == b"app: ok\n"


def shown_all(daemon: Daemon) -> list[int]:
    done = daemon.cli("cat", "app", status=1)
    return [json.loads(line)["n"] for line in done.stdout.splitlines()]


def test_what_only_earlier_versions_stored_stays_where_it_is(stopped: Daemon) -> None:
    """What they admitted and this version would keep as text is neither damage nor unreadable."""
    values = [b"9" * 4301, b'{"k":' * 5000 + b"1" + b"}" * 5000, b'\r["\x7f\xc2\x9b2K",1e999]\t']
    old, rotten = segments(stopped)[1:]
    header, body = read_segment(stopped.data / "app", 4)
    for value in values:
        body = body.replace(b'"%s"' % (b"x" * 30), value, 1)
    header = msgspec.structs.replace(header, bytes=len(body), sha256=body_sha256(body))
    content = encode_header(header) + body
    old.write_bytes(content)
    assert stopped.cli("verify").stdout == b"app: ok\n"
    assert stopped.cli("repair", "app").stdout == b"app: ok\n"
    flip(rotten, -40)
    assert stopped.cli("repair", "app").stdout.endswith(b"app: ok\n")
    assert old.read_bytes() == content
    assert body in stopped.cli("cat", "app", "--format", "raw").stdout
    found = stopped.cli("cat", "app", "--format", "pretty", "--where", "n=4").stdout
    assert found.count(b"\n") == 1
    assert b"n=4" in found


def test_a_proven_frame_of_a_damaged_segment_keeps_what_only_earlier_versions_stored(
    stopped: Daemon,
) -> None:
    path = segments(stopped)[1]
    header, body = read_segment(stopped.data / "app", 4)
    lines = body.splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"x":"', b'"deep":%s,"x":"' % (b"[" * 2000 + b"]" * 2000))
    body = b"".join(lines)
    header = msgspec.structs.replace(header, bytes=len(body), sha256=body_sha256(body))
    frames = [frame for line in lines for frame in compress_body([line], 3)]
    header = with_frames(header, frames)
    content = encode_compressed_header(header) + b"".join(frame.content for frame in frames)
    path.unlink()
    path = path.with_name(path.name + ".zst")
    path.write_bytes(content)
    flip(path, -10)  # in the last frame
    stopped.cli("repair", "app")
    found = stopped.cli("cat", "app", "--format", "raw").stdout
    assert lines[0] + lines[1] in found
    assert lines[2] not in found
