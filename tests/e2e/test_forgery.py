"""What somebody can do to signed seals with write access and without the key.

Each test is a row of the table *Whoever can write, and has no key* in `docs/guarantees.md`.
"""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from msgspec import UNSET

from logengine.disk.segment_file import read_header, read_header_line, read_segment
from logengine.format.compression import compress_body, encode_compressed_line, with_frames
from logengine.format.segment import (
    Erased,
    Gap,
    Restored,
    encode_header,
    segment_name,
)
from tests.daemon import Daemon
from tests.seals import SEALING, hash_of, rewrite, sealed, sealed_stream

LAST = 260  # the last record of the stream
TIME = "2026-11-28T13:00:00.000001Z"


class Signed(NamedTuple):
    """A stopped daemon with a stream of four signed seals and a tail, and no private key."""

    daemon: Daemon
    public: Path
    newest: str  # the hash of the newest seal before anything was done to the stream

    @property
    def seals(self) -> list[Path]:
        return sealed(self.daemon)

    @property
    def stream(self) -> Path:
        return self.daemon.data / "app"

    def verify(self, *arguments: str, status: int) -> str:
        """What `verify` says, with the public key: findings, notes and the line on the stream."""
        proofs = ("--public-key", str(self.public), *arguments)
        done = self.daemon.cli("verify", *proofs, status=status)
        return (done.stdout + done.stderr).decode()

    def anchored(self, *arguments: str, status: int, stream: str = "app") -> str:
        """What `verify` says without the key, but with the newest seal known elsewhere."""
        proofs = (stream, "--since-seal", self.newest, *arguments)
        done = self.daemon.cli("verify", *proofs, status=status)
        return (done.stdout + done.stderr).decode()


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="le-") as name:
        root = Path(name)
        daemon = Daemon(root, SEALING + f'seal_key = "{root}/seal.key"\n')
        (root / "seal.pub").write_bytes(daemon.cli("keygen", f"{root}/seal.key").stdout)
        sealed_stream(daemon)
        (root / "seal.key").unlink()
        daemon = Daemon(root).start()  # with other limits, so that nothing more is sealed
        try:
            daemon.cli("send", "-s", "app", stdin=b"record 7 of the tail\n" * 10)
            assert daemon.stop() == 0
        finally:
            daemon.close()
        yield root


@pytest.fixture
def signed(root: Path, template: Path) -> Signed:
    shutil.copytree(template / "data", root / "data")
    shutil.copy(template / "seal.pub", root)
    daemon = Daemon(root, SEALING)
    return Signed(daemon, root / "seal.pub", hash_of(sealed(daemon)[-1]))


def first_of(path: Path) -> int:
    return int(path.name[:20])


def remove(path: Path) -> None:
    """Removes a segment."""
    path.unlink()


def forged(body: bytes) -> bytes:
    return body.replace(b"record 7 ", b"record 8 ")


def unseal(path: Path) -> None:
    """Makes a plain segment of a seal, with other records."""
    header, body = read_segment(path.parent, first_of(path))
    body = forged(body)
    path.unlink()
    header = msgspec.structs.replace(
        header,
        bytes=len(body),
        sha256=hashlib.sha256(body).hexdigest(),
        **dict.fromkeys(("frames", "index", "prev", "earlier", "signature"), UNSET),
    )
    path.with_suffix("").write_bytes(encode_header(header) + body)


def put_gap(path: Path) -> None:
    """Puts a recorded gap in place of a segment."""
    header = read_header(path.parent, first_of(path))
    path.unlink()
    header = msgspec.structs.replace(
        header,
        count=0,
        bytes=0,
        sha256=hashlib.sha256(b"").hexdigest(),
        gap=Gap(last=header.last, when=TIME, why="the disk was broken, believe me"),
        **dict.fromkeys(("frames", "index", "prev", "earlier", "signature"), UNSET),
    )
    (path.parent / segment_name(header.first)).write_bytes(encode_header(header))


def test_the_unchanged_stream_is_proven_and_its_tail_is_named(signed: Signed) -> None:
    last_sealed = read_header(signed.stream, first_of(signed.seals[-1])).last
    said = signed.verify(status=0)
    assert f"records {last_sealed + 1} to {LAST} are after the newest seal, and not signed" in said
    assert f"app: ok, sealed up to {last_sealed} by {signed.newest}" in said
    signed.anchored(status=0)


@pytest.mark.parametrize("key", ["count", "sha256", "erased", "gap", "restored", "key_to_come"])
def test_keys_after_the_signature_do_not_count(signed: Signed, key: str) -> None:
    path = signed.seals[1]
    header, body = read_segment(path.parent, first_of(path))
    body = forged(body)
    frames = list(compress_body([body], 1))
    told = with_frames(header, frames)
    values = {
        "sha256": hashlib.sha256(body).hexdigest(),
        "frames": told.frames,
        "index": told.index,
        "erased": Erased(original=hash_of(path), count=1),
        "gap": Gap(last=header.last, when=TIME, why="none"),
        "restored": Restored(when=TIME, why="none"),
    }
    line = read_header_line(path.parent, first_of(path))[1]
    more = {"sha256": values["sha256"], key: values.get(key, 1)}
    more |= {"frames": values["frames"], "index": values["index"]}
    checked = line.rpartition(b',"header_sha256"')[0] + b"," + msgspec.json.encode(more)[1:-1]
    digest = hashlib.sha256(checked).hexdigest().encode()
    line = b'%s,"header_sha256":"%s"}\n' % (checked, digest)
    path.write_bytes(encode_compressed_line(line) + b"".join(each.content for each in frames))
    assert f"{path}: its header has a key twice, out of place" in signed.verify(status=1)
    signed.anchored(status=1)


def test_an_edited_seal_is_not_signed(signed: Signed) -> None:
    prev = ""
    for path in signed.seals:  # the whole chain again, with hashes that are right
        rewrite(path, forged, prev=prev)
        prev = hash_of(path)
    signed.daemon.cli("verify")
    assert signed.verify(status=1).count("was not signed with this key") == len(signed.seals)
    signed.anchored(status=1)


def test_a_false_erasure_fails_unless_it_is_allowed(signed: Signed) -> None:
    path = signed.seals[1]
    erased = Erased(original=hash_of(path), count=1)
    rewrite(path, forged, erased=erased, signature=UNSET)
    signed.daemon.cli("verify")
    said = signed.verify(status=1)
    assert f"{path}: 1 of its records were erased since it was sealed: it is no longer" in said
    assert "no longer signed" in signed.verify("--allow-gaps", status=1)
    assert "not signed: 1 with erased records" in signed.verify("--allow-erased", status=0)


def test_a_false_erasure_fails_for_a_seal_known_elsewhere(signed: Signed) -> None:
    path = signed.seals[1]
    rewrite(path, forged, erased=Erased(original=hash_of(path), count=1))
    assert "nothing proves what is left of it" in signed.anchored(status=1)
    signed.anchored("--allow-erased", status=0)


def test_a_stream_whose_seals_were_all_made_plain_fails(signed: Signed) -> None:
    for path in signed.seals:
        unseal(path)
    signed.daemon.cli("verify")
    assert "it has no seal, so no signature proves any of its records" in signed.verify(status=1)
    signed.anchored(status=1)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_seal_that_was_made_plain_before_another_one_fails(signed: Signed, place: int) -> None:
    first = first_of(signed.seals[place])
    unseal(signed.seals[place])
    assert f"it is sealed, but segment {first} before it is not" in signed.verify(status=1)
    signed.anchored(status=1)


def test_the_newest_seals_made_plain_are_named_as_the_tail(signed: Signed) -> None:
    first = first_of(signed.seals[-1])
    unseal(signed.seals[-1])
    said = signed.verify(status=0)
    assert f"records {first} to {LAST} are after the newest seal, and not signed" in said
    assert f"no seal has the hash {signed.newest}" in signed.anchored(status=1)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_gap_in_place_of_a_seal_fails_unless_it_is_allowed(signed: Signed, place: int) -> None:
    put_gap(signed.seals[place])
    signed.daemon.cli("verify")
    assert "no seal proves this gap" in signed.verify(status=1)
    assert "no seal proves this gap" in signed.anchored(status=1)
    signed.anchored("--allow-gaps", status=0)
    assert "no seal proves this gap" in signed.verify("--allow-erased", status=1)
    assert "are gone, as recorded at" in signed.verify("--allow-gaps", status=0)


def test_a_gap_in_place_of_the_newest_seal_fails_though_it_is_allowed_if_the_seal_is_known(
    signed: Signed,
) -> None:
    put_gap(signed.seals[-1])
    assert "no seal proves this gap" in signed.verify(status=1)
    signed.verify("--allow-gaps", status=0)
    assert f"no seal has the hash {signed.newest}" in signed.anchored("--allow-gaps", status=1)


def test_a_false_restoration_fails(signed: Signed) -> None:
    path = signed.seals[1]
    line = read_header_line(path.parent, first_of(path))[1].decode().removesuffix("\n")
    rewrite(path, forged, restored=Restored(when=TIME, why="a disk", header=line), signature=UNSET)
    signed.daemon.cli("verify")
    assert f"{path}: no signature proves its records" in signed.verify(status=1)
    assert "no seal proves its records" in signed.anchored(status=1)


def test_a_chain_that_a_false_restoration_begins_again_fails(signed: Signed) -> None:
    rewrite(signed.seals[1], forged)
    restored = Restored(when=TIME, why="a disk")
    rewrite(signed.seals[2], restored=restored, prev="a" * 64, signature=UNSET)
    signed.verify(status=1)
    assert "begins again here" in signed.anchored(status=1)


def test_swapped_seals_fail(signed: Signed) -> None:
    second, third = signed.seals[1:3]
    content = second.read_bytes()
    shutil.copy(third, second)
    third.write_bytes(content)
    said = signed.verify(status=1)
    assert f"its header says first {first_of(third)}" in said
    signed.anchored(status=1)


def test_a_removed_seal_in_the_middle_fails(signed: Signed) -> None:
    remove(signed.seals[1])
    assert "a seal between them was removed" in signed.verify(status=1)
    signed.anchored(status=1)


def test_the_oldest_seals_can_be_removed_as_retention_does_and_a_note_says_so(
    signed: Signed,
) -> None:
    remove(signed.seals[0])
    kept = first_of(signed.seals[0])
    for said in (signed.verify(status=0), signed.anchored(status=0)):
        assert f"records 1 to {kept - 1} are not kept; nothing proves who removed them" in said


def test_the_newest_seals_can_be_cut_off_unless_one_is_known_elsewhere(signed: Signed) -> None:
    cut = signed.seals[-1]
    for path in sorted(signed.stream.iterdir()):
        if path.name >= cut.name:
            remove(path)
    signed.verify(status=0)
    assert f"no seal has the hash {signed.newest}" in signed.anchored(status=1)


def test_a_seal_of_another_stream_fails(signed: Signed) -> None:
    signed.stream.rename(signed.daemon.data / "web")
    assert "its header says stream 'app', not 'web'" in signed.verify(status=1)
    signed.anchored(status=1, stream="web")


def test_a_stream_can_be_rolled_back_unless_a_later_seal_is_known_elsewhere(
    signed: Signed,
) -> None:
    backup = signed.daemon.data.parent / "backup"
    backup.mkdir()
    for path in signed.seals[:-1]:
        shutil.copy(path, backup)
    signed.anchored(status=0)
    shutil.rmtree(signed.stream)
    shutil.copytree(backup, signed.stream)
    signed.verify(status=0)
    assert f"no seal has the hash {signed.newest}" in signed.anchored(status=1)


def test_the_tail_can_be_edited_and_a_note_gives_its_numbers(signed: Signed) -> None:
    last_sealed = read_header(signed.stream, first_of(signed.seals[-1])).last
    tail = max(signed.stream.glob("*.ndjson"))
    header, body = read_segment(tail.parent, first_of(tail))
    body = forged(body)
    header = msgspec.structs.replace(header, sha256=hashlib.sha256(body).hexdigest())
    tail.write_bytes(encode_header(header) + body)
    said = signed.verify(status=0)
    assert f"records {last_sealed + 1} to {LAST} are after the newest seal, and not signed" in said
    after = first_of(signed.seals[2])
    anchored = ("verify", "app", "--since-seal", hash_of(signed.seals[1]))
    said = signed.daemon.cli(*anchored).stderr.decode()
    assert re.search(f"records {after} to {LAST} are after the seal [0-9a-f]{{64}}, which", said)


def test_a_signature_can_be_written_in_one_way_only(signed: Signed) -> None:
    path = signed.seals[-1]
    header, line = read_header_line(path.parent, first_of(path))
    frames = path.read_bytes()[-header.stored_bytes :]
    path.write_bytes(encode_compressed_line(line) + frames)
    signed.verify(status=0)
    assert header.signature is not UNSET
    header = msgspec.structs.replace(header, signature=header.signature.upper())
    path.write_bytes(encode_compressed_line(encode_header(header)) + frames)
    assert "its seal was not signed with this key" in signed.verify(status=1)
