"""Sealed segments that somebody changed, and what `logengine verify` says of them."""

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from logengine.disk.segment_file import read_header, read_segment
from logengine.format.compression import compress_body, encode_compressed_header, with_frames
from logengine.format.segment import Header
from tests.daemon import Daemon, eventually
from tests.seals import SEALING, hash_of, rewrite, sealed, sealed_stream


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="le-") as name:
        yield sealed_stream(Daemon(Path(name), SEALING)).data


@pytest.fixture
def stopped(root: Path, template: Path) -> Daemon:
    """A stopped daemon with a copy of the same sealed stream."""
    daemon = Daemon(root, SEALING)
    shutil.copytree(template, daemon.data)
    return daemon


def edit(path: Path) -> None:
    rewrite(path, lambda body: body.replace(b"record 7 ", b"record 8 "))


def told(daemon: Daemon, *arguments: str, status: int = 1) -> str:
    return daemon.cli("verify", "app", *arguments, status=status).stdout.decode()


def test_verify_tells_the_newest_seal_and_finds_it_again(stopped: Daemon) -> None:
    newest = hash_of(sealed(stopped)[-1])
    last = read_header(stopped.data / "app", int(sealed(stopped)[-1].name[:20])).last
    assert told(stopped, status=0) == f"app: ok, sealed up to {last} by {newest}\n"
    for path in sealed(stopped):
        told(stopped, "--since-seal", hash_of(path), status=0)


def test_a_removed_seal_is_found(stopped: Daemon) -> None:
    sealed(stopped)[1].unlink()
    assert "it was changed, or a seal between them was removed" in told(stopped)


def test_an_edited_seal_is_found_though_its_hashes_are_right(stopped: Daemon) -> None:
    edit(sealed(stopped)[1])
    assert "it was changed, or a seal between them was removed" in told(stopped)


def test_a_seal_swapped_for_that_of_another_stream_or_place_is_found(stopped: Daemon) -> None:
    second, third = sealed(stopped)[1:3]
    header = read_segment(second.parent, int(second.name[:20]))[0]
    shutil.copy(third, second)
    assert f"its header says first {int(third.name[:20])}" in told(stopped)
    rewrite_as(third, second, header)
    assert "it was changed, or a seal between them was removed" in told(stopped)


def rewrite_as(source: Path, target: Path, header: Header) -> None:
    there, body = read_segment(source.parent, int(source.name[:20]))
    frames = list(compress_body([body], 1))
    header = msgspec.structs.replace(
        with_frames(header, frames),
        bytes=len(body),
        since=there.since,
        until=there.until,
        latest=there.latest,
        sha256=hashlib.sha256(body).hexdigest(),
    )
    target.write_bytes(
        b"".join([encode_compressed_header(header), *(frame.content for frame in frames)])
    )


def test_an_unsealed_segment_put_in_between_is_found(stopped: Daemon) -> None:
    second = sealed(stopped)[1]
    rewrite(second, prev=msgspec.UNSET, earlier=msgspec.UNSET)
    assert f"it is sealed, but segment {int(second.name[:20])} before it is not" in told(stopped)


def test_a_flipped_bit_is_found(stopped: Daemon) -> None:
    content = bytearray(sealed(stopped)[2].read_bytes())
    content[len(content) // 2] ^= 16
    sealed(stopped)[2].write_bytes(content)
    assert str(sealed(stopped)[2]) in told(stopped)


def test_a_stream_cut_off_at_its_end_is_found_by_a_seal_written_down_elsewhere(
    stopped: Daemon,
) -> None:
    hashes = [hash_of(path) for path in sealed(stopped)]
    last = sealed(stopped)[-1]
    for path in last.parent.iterdir():
        if path.name >= last.name:
            path.unlink()
    # By itself nothing shows it, and what was written down before the cut is there.
    told(stopped, status=0)
    told(stopped, "--since-seal", hashes[-2], status=0)
    assert f"no seal has the hash {hashes[-1]}" in told(stopped, "--since-seal", hashes[-1])


def test_what_is_before_a_seal_that_is_not_the_last_is_proven_by_it(stopped: Daemon) -> None:
    newest = hash_of(sealed(stopped)[-1])
    prev = ""
    for path in sealed(stopped):  # all written anew, by one who knows how
        edit(path)
        rewrite(path, prev=prev)
        prev = hash_of(path)
    told(stopped, status=0)
    assert f"no seal has the hash {newest}" in told(stopped, "--since-seal", newest)


def test_a_chain_whose_first_seals_are_retained_no_longer_is_whole(stopped: Daemon) -> None:
    hashes = [hash_of(path) for path in sealed(stopped)]
    for path in sealed(stopped)[:2]:
        path.unlink()
    told(stopped, status=0)
    told(stopped, "--since-seal", hashes[1], status=0)
    assert "no seal has the hash" in told(stopped, "--since-seal", hashes[0])


def notes(daemon: Daemon, *arguments: str) -> str:
    return daemon.cli("verify", "app", *arguments).stderr.decode()


def lost_and_repaired(path: Path, daemon: Daemon) -> None:
    """Flips a bit of a segment, and has its records recorded as gone."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)
    assert daemon.cli("repair", "app").stdout.endswith(b"app: ok\n")


def test_a_chain_begins_anew_behind_a_recorded_gap(stopped: Daemon) -> None:
    first, second, third, last = sealed(stopped)[:4]
    hashes = [hash_of(path) for path in (first, second, third, last)]
    lost_and_repaired(second, stopped)
    gap = int(second.name[:20])
    told(stopped, status=0)
    assert f"{third}: the chain of seals begins again here, after the gap at {gap}" in notes(
        stopped
    )
    for seal in hashes:  # that of the gap is what the one after it names
        assert f"{gap:020d}.ndjson: no seal proves this gap" in told(stopped, "--since-seal", seal)
        told(stopped, "--since-seal", seal, "--allow-gaps", status=0)
    edit(third)
    assert "it was changed, or a seal between them was removed" in told(stopped)


def test_a_chain_holds_across_a_gap_in_which_no_seal_was(stopped: Daemon) -> None:
    last = sealed(stopped)[-1]
    send_beside_a_daemon(stopped, 1, seals=0)
    (unsealed,) = last.parent.glob("*.ndjson")
    lost_and_repaired(unsealed, stopped)
    send_beside_a_daemon(stopped, 100, seals=1)
    assert unsealed.exists()
    told(stopped, status=0)
    assert "begins again" not in notes(stopped)
    # That the seal before the gap is another one shows, but not whether the gap is why.
    edit(last)
    assert "the chain of seals begins again" in notes(stopped)


def send_beside_a_daemon(stopped: Daemon, count: int, *, seals: int) -> None:
    """Sends some records, twice, and stops the daemon once there are so many more seals."""
    wanted = len(sealed(stopped)) + seals
    stopped.start()
    try:
        lines = b"".join(b"record %d %s\n" % (n, b"x" * 99) for n in range(count))
        for _ in range(2):  # what was sent last is not sealed while more may be added to it
            stopped.cli("send", "-s", "app", stdin=lines)
        eventually(lambda: len(sealed(stopped)) >= wanted, "a seal")
        assert stopped.stop() == 0
    finally:
        stopped.close()


def test_a_seal_with_erased_records_is_told_and_stays_in_the_chain(stopped: Daemon) -> None:
    hashes = [hash_of(path) for path in sealed(stopped)]
    second = sealed(stopped)[1]
    seq = int(second.name[:20])
    stopped.cli("erase", "app", "--after", f"app:{seq}", "--up-to", f"app:{seq + 2}")
    before = "2 of its records were erased since it was sealed: nothing proves what is left"
    assert f"{second}: {before}" in notes(stopped)
    for seal in hashes:
        assert f"{second}: {before}" in told(stopped, "--since-seal", seal)
        assert f"{second}: {before}" in notes(stopped, "--since-seal", seal, "--allow-erased")
    sealed(stopped)[2].unlink()
    assert "it was changed, or a seal between them was removed" in told(stopped)


def test_a_seal_with_erased_records_does_not_pass_as_signed(root: Path) -> None:
    key, public = root / "seal.key", root / "seal.pub"
    daemon = Daemon(root, SEALING + f'seal_key = "{key}"\n')
    public.write_bytes(daemon.cli("keygen", str(key)).stdout)
    sealed_stream(daemon)
    assert "not signed" not in told(daemon, "--public-key", str(public), status=0)
    daemon.cli("erase", "app", "--up-to", "app:2")
    unsigned = "2 of its records were erased since it was sealed: it is no longer signed"
    assert unsigned in told(daemon, "--public-key", str(public))
    assert told(daemon, "--public-key", str(public), "--allow-erased", status=0).endswith(
        "; not signed: 1 with erased records\n"
    )
    assert unsigned in notes(daemon, "--public-key", str(public), "--allow-erased")
    before = sealed(daemon)[0].read_bytes()
    daemon.cli("erase", "app", "--up-to", "app:3", "--seal-key", str(key))
    assert "; not signed" not in told(daemon, "--public-key", str(public), status=0)
    said = notes(daemon, "--public-key", str(public))
    assert "3 of its records were erased since it was sealed: what is left was signed again" in said
    rewrite(sealed(daemon)[0], lambda body: body.replace(b"record 7 ", b"record 8 "))
    assert "was not signed with this key" in told(daemon, "--public-key", str(public))
    sealed(daemon)[0].write_bytes(before)
    rewrite(sealed(daemon)[1], signature=msgspec.UNSET)
    assert "its seal is not signed" in told(daemon, "--public-key", str(public))


def test_seals_are_signed_and_checked(root: Path) -> None:
    key, public, other = root / "seal.key", root / "seal.pub", root / "other.pub"
    daemon = Daemon(root, SEALING + f'seal_key = "{key}"\n')
    public.write_bytes(daemon.cli("keygen", str(key)).stdout)
    other.write_bytes(daemon.cli("keygen", str(root / "other.key")).stdout)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    sealed_stream(daemon)
    told(daemon, "--public-key", str(public), status=0)
    assert "was not signed with this key" in told(daemon, "--public-key", str(other))
    last = sealed(daemon)[-1]
    edit(last)
    told(daemon, status=0)
    assert "was not signed with this key" in told(daemon, "--public-key", str(public))
    rewrite(last, signature=msgspec.UNSET)
    assert "its seal is not signed" in told(daemon, "--public-key", str(public))


def test_a_key_is_never_overwritten(daemon: Daemon, root: Path) -> None:
    key = root / "seal.key"
    key.write_text("mine")
    failed = daemon.cli("keygen", str(key), status=1)
    assert (
        failed.stderr.decode() == f"logengine: {key} already exists; a key is never overwritten\n"
    )
    assert key.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--since-seal", "abc"], "expected 64 hexadecimal digits"),
        (["--public-key", "missing.pub"], "missing.pub: cannot be read"),
        (["--allow-gaps"], "are for --public-key, --since-seal"),
    ],
)
def test_what_cannot_be_a_seal_or_a_key_is_said_in_a_line(
    daemon: Daemon, arguments: list[str], said: str
) -> None:
    daemon.cli("send", "-s", "app", stdin=b"one\n")
    failed = daemon.cli("verify", "app", *arguments, status=1 if "missing.pub" in arguments else 2)
    assert said in failed.stderr.decode()
    assert b"Traceback" not in failed.stderr


def test_a_daemon_whose_key_is_none_says_so(root: Path) -> None:
    key = root / "seal.key"
    key.write_text("no key")
    daemon = Daemon(root, f'[compaction]\nseal_key = "{key}"\n')
    failed = daemon.cli("run", "--config", str(daemon.config), status=1, LOGENGINE_SOCKET="")
    assert re.search(f"logengine: {key}: expected an Ed25519 private key", failed.stderr.decode())
    assert not os.path.exists(daemon.socket)


def test_the_newest_seals_are_printed_and_checked_against_later(
    stopped: Daemon, root: Path
) -> None:
    newest = sealed(stopped)[-1]
    last = read_header(newest.parent, int(newest.name[:20])).last
    stopped.start()
    try:
        stopped.cli("send", "-s", "young", stdin=b"x\n")
        printed = stopped.cli("seals")
    finally:
        stopped.stop()
        stopped.close()
    assert printed.stdout.decode() == f"app {last} {hash_of(newest)}\n"
    assert printed.stderr == b"note: young has no seal yet\n"
    kept = root / "seals"
    kept.write_bytes(b"app 1 " + b"0" * 64 + b"\n" + printed.stdout)
    assert (
        b"note: young is not in the list of seals"
        in stopped.cli("verify", "--seals", str(kept)).stderr
    )
    stopped.cli("verify", "--seals", "-", stdin=printed.stdout)
    newest.unlink()
    for path in newest.parent.glob("*.ndjson"):
        path.unlink()
    stopped.cli("verify")
    failed = stopped.cli("verify", "--seals", str(kept), status=1).stdout.decode()
    assert "it was changed, or the stream was cut off" in failed
    shutil.rmtree(newest.parent)
    failed = stopped.cli("verify", "--seals", str(kept), status=1).stdout.decode()
    assert "it is in the list of seals, but there is no such stream" in failed


def test_the_printed_seal_is_the_one_the_next_seal_names(stopped: Daemon) -> None:
    newest = sealed(stopped)[-1]
    printed = stopped.cli("seals").stdout
    first = int(newest.name[:20])
    stopped.cli("erase", "app", "--after", f"app:{first}", "--up-to", f"app:{first + 1}")
    assert stopped.cli("seals", "app").stdout == printed
    newest.write_bytes(b"")
    failed = stopped.cli("seals", status=1)
    assert failed.stdout == b""
    assert b"run `logengine verify app`" in failed.stderr
