"""`send` and `import` with `--resume`, as cron runs them: with a real daemon, killed and not."""

import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import zstandard

from tests.daemon import Daemon, eventually
from tests.e2e.test_cli import LOGENGINE


def lines(first: int, last: int) -> bytes:
    return b"".join(b"line %d\n" % number for number in range(first, last + 1))


def entry(number: int, boot: str = "b0") -> bytes:
    return b"__CURSOR=s=aa;i=%x;b=%s;m=1;t=2;x=3\n__REALTIME_TIMESTAMP=%d\nMESSAGE=line %d\n\n" % (
        number,
        boot.encode(),
        1763928000000000 + number,
        number,
    )


def journal(first: int, last: int) -> bytes:
    return b"".join(map(entry, range(first, last + 1)))


def send(daemon: Daemon, *paths: Path, status: int = 0, anew: bool = False) -> str:
    options = ["--resume-anew"] if anew else []
    arguments = ["send", "--resume", "name", *options, *map(str, paths)]
    return daemon.cli(*arguments, status=status).stderr.decode()


def import_journal(daemon: Daemon, data: bytes, status: int = 0) -> str:
    arguments = ["import", "-", "-s", "default", "--resume", "name"]
    return daemon.cli(*arguments, stdin=data, status=status).stderr.decode()


def stored(daemon: Daemon) -> list[str]:
    return [value.get("message", "") for value in daemon.values()]


def texts(first: int, last: int) -> list[str]:
    return lines(first, last).decode().splitlines()


def test_a_journal_that_was_vacuumed_goes_on_after_the_last_entry(daemon: Daemon) -> None:
    import_journal(daemon, journal(1, 100))
    assert "skipped 50 lines" in import_journal(daemon, journal(51, 150))
    import_journal(daemon, journal(140, 150))
    import_journal(daemon, b"")
    import_journal(daemon, journal(180, 200))
    assert stored(daemon) == texts(1, 150) + texts(180, 200)


def test_after_a_boot_an_entry_with_an_old_number_is_another_one(daemon: Daemon) -> None:
    import_journal(daemon, journal(1, 10))
    import_journal(daemon, journal(1, 10) + entry(9, "b1") + entry(11, "b1"))
    import_journal(daemon, entry(9, "b1") + entry(11, "b1") + entry(12, "b1"))
    assert stored(daemon) == [*texts(1, 10), "line 9", "line 11", "line 12"]


def test_what_journalctl_prints_as_json_is_known_by_its_cursors_too(daemon: Daemon) -> None:
    def as_json(first: int, last: int) -> bytes:
        return b"".join(
            b'{"message":"line %d","__CURSOR":"s=aa;i=%x;b=b0"}\n' % (number, number)
            for number in range(first, last + 1)
        )

    arguments = ["send", "--resume", "name"]
    daemon.cli(*arguments, stdin=as_json(1, 10))
    daemon.cli(*arguments, stdin=as_json(6, 15))
    assert stored(daemon) == texts(1, 15)


def test_half_an_entry_is_not_taken_for_the_whole_one(daemon: Daemon) -> None:
    cut = journal(1, 3).removesuffix(b"MESSAGE=line 3\n\n")
    assert "ends within entry 3" in import_journal(daemon, cut, status=1)
    import_journal(daemon, journal(1, 3))
    assert stored(daemon) == texts(1, 3)


def test_an_entry_without_a_cursor_is_refused(daemon: Daemon) -> None:
    data = entry(1) + b"__REALTIME_TIMESTAMP=5\nMESSAGE=no\n\n"
    assert "entry 2 has no __CURSOR" in import_journal(daemon, data, status=1)
    assert stored(daemon) == ["line 1"]


@pytest.mark.parametrize(
    ("old", "compress"),
    [
        ("app.log.1", None),
        ("app.log-20261128", None),
        ("app-2026-11-28.log", None),
        ("app.log.moved by hand", None),
        ("app.log.1.gz", gzip.compress),
        ("app.log.1.zst", zstandard.compress),
    ],
)
def test_a_rotated_file_is_finished_first(
    daemon: Daemon, root: Path, old: str, compress: type | None
) -> None:
    path = root / "app.log"
    path.write_bytes(lines(1, 10))
    send(daemon, path)
    whole = lines(1, 15)
    path.write_bytes(whole)
    path.rename(root / old)
    if compress is not None:
        (root / old).unlink()
        (root / old).write_bytes(compress(whole))
    path.write_bytes(lines(16, 20))
    assert f"continuing in {root / old}" in send(daemon, path)
    assert stored(daemon) == texts(1, 20)
    assert "rotated" not in send(daemon, path)
    assert stored(daemon) == texts(1, 20)


def test_generations_between_are_read_in_order(daemon: Daemon, root: Path) -> None:
    path = root / "app.log"
    path.write_bytes(lines(1, 10))
    send(daemon, path)
    path.rename(root / "app.log.3")
    (root / "app.log.12").write_bytes(b"long before\n")
    (root / "app.log.2.gz").write_bytes(gzip.compress(lines(11, 20)))
    (root / "app.log.1").write_bytes(lines(21, 30))
    path.write_bytes(b"")
    send(daemon, path)
    path.write_bytes(lines(31, 40))
    send(daemon, path)
    assert stored(daemon) == texts(1, 40)


def test_a_compressed_generation_that_is_not_whole_is_named(daemon: Daemon, root: Path) -> None:
    path = root / "app.log"
    path.write_bytes(lines(1, 10))
    send(daemon, path)
    path.rename(root / "app.log.2")
    path.write_bytes(lines(31, 40))
    for broken in (gzip.compress(lines(11, 30))[:-9], b"\x1f", b"no gzip at all"):
        (root / "app.log.1.gz").write_bytes(broken)
        assert f"{root}/app.log.1.gz: is not a whole gzip file" in send(daemon, path, status=1)
    (root / "app.log.1.gz").write_bytes(gzip.compress(lines(11, 30)))
    send(daemon, path)
    assert stored(daemon) == texts(1, 40)


def test_a_file_that_was_copied_and_truncated_is_finished_in_the_copy(
    daemon: Daemon, root: Path
) -> None:
    path = root / "app.log"
    path.write_bytes(lines(1, 10))
    send(daemon, path)
    with path.open("ab") as file:
        file.write(lines(11, 15))
    shutil.copy(path, root / "app.log.1")
    os.truncate(path, 0)
    with path.open("ab") as file:
        file.write(lines(16, 40))
    send(daemon, path)
    assert stored(daemon) == texts(1, 40)


def test_a_file_that_was_empty_is_known_by_its_inode(daemon: Daemon, root: Path) -> None:
    path = root / "app.log"
    path.touch()
    send(daemon, path)
    path.write_bytes(lines(1, 5))
    path.rename(root / "app.log.1")
    path.write_bytes(lines(6, 9))
    send(daemon, path)
    assert stored(daemon) == texts(1, 9)


def test_a_file_that_was_copied_back_goes_on(daemon: Daemon, root: Path) -> None:
    path = root / "app.log"
    path.write_bytes(lines(1, 10))
    send(daemon, path)
    path.unlink()
    (root / "keeps its inode").touch()
    path.write_bytes(lines(1, 12))
    send(daemon, path)
    assert stored(daemon) == texts(1, 12)


@pytest.mark.parametrize(
    "content",
    [
        b"".join(b"other %d\n" % number for number in range(30)),
        b"HEADER\n" * 200 + b"".join(b"other %d\n" % number for number in range(30)),
        b"HEADER\n" * 10,
        b"",
    ],
)
def test_another_file_is_refused_and_named_or_stored_from_its_start(
    daemon: Daemon, root: Path, content: bytes
) -> None:
    path = root / "app.log"
    before = b"HEADER\n" * 200 + lines(1, 10)
    path.write_bytes(before)
    send(daemon, path)
    count = len(stored(daemon))
    path.write_bytes(content)
    said = send(daemon, path, status=1)
    assert f"{path} is not the file that was read before" in said
    assert f"210 lines ({len(before):,} bytes)" in said
    assert "'HEADER'" in said
    assert "--resume-anew" in said
    assert len(said.splitlines()) == 1
    assert len(stored(daemon)) == count
    send(daemon, path, anew=True)
    assert stored(daemon)[count:] == content.decode().splitlines()
    send(daemon, path)
    send(daemon, path, anew=True)
    assert stored(daemon)[count:] == content.decode().splitlines()


def test_several_files_go_on_each_for_itself(daemon: Daemon, root: Path) -> None:
    one, two, three = root / "one.log", root / "two.log", root / "three.log"
    one.write_bytes(b"1\n")
    two.write_bytes(b"2\n")
    send(daemon, one, two)
    one.write_bytes(b"1\n1 more\n")
    two.write_bytes(b"2\n2 more\n")
    three.write_bytes(b"3\n")
    send(daemon, three, one, two)
    send(daemon, one)
    assert stored(daemon) == ["1", "2", "3", "1 more", "2 more"]


def test_all_generations_may_be_given(daemon: Daemon, root: Path) -> None:
    path = root / "app.log"
    (root / "app.log.1").write_bytes(lines(1, 5))
    path.write_bytes(lines(6, 10))
    send(daemon, *sorted(root.glob("app.log*"), reverse=True))
    (root / "app.log.1").rename(root / "app.log.2")
    with path.open("ab") as file:
        file.write(lines(11, 12))
    path.rename(root / "app.log.1")
    path.write_bytes(lines(13, 15))
    send(daemon, *sorted(root.glob("app.log*"), reverse=True))
    assert stored(daemon) == texts(1, 15)


def test_a_last_line_without_a_newline_is_stored_and_again_when_it_has_gone_on(
    daemon: Daemon, root: Path
) -> None:
    path = root / "app.log"
    path.write_bytes(b"one\ntwo")
    send(daemon, path)
    send(daemon, path)
    assert stored(daemon) == ["one", "two"]
    path.write_bytes(b"one\ntwo\nthr")
    send(daemon, path)
    path.write_bytes(b"one\ntwo\nthree\nfour\n")
    assert "stored again, whole" in send(daemon, path)
    assert stored(daemon) == ["one", "two", "thr", "three", "four"]


def test_a_symbolic_link_is_followed_to_the_rotated_files(daemon: Daemon, root: Path) -> None:
    (root / "pod").mkdir()
    target, link = root / "pod" / "0.log", root / "app.log"
    target.write_bytes(lines(1, 5))
    link.symlink_to(target)
    send(daemon, link)
    target.write_bytes(lines(1, 8))
    target.rename(root / "pod" / "0.log.20261128-101010")
    target.write_bytes(lines(9, 10))
    send(daemon, link)
    target.write_bytes(lines(9, 12))
    link.unlink()
    link.symlink_to(root / "pod" / "1.log")
    (root / "pod" / "1.log").write_bytes(lines(13, 15))
    target.rename(root / "0.log")
    send(daemon, link)
    assert stored(daemon) == texts(1, 15)


def test_a_named_pipe_is_read_once(daemon: Daemon, root: Path) -> None:
    pipe = root / "pipe"
    os.mkfifo(pipe)
    for last in (10, 15):
        with subprocess.Popen(["sh", "-c", f"seq -f 'line %g' {last} > {pipe}"]):
            send(daemon, pipe)
    assert stored(daemon) == texts(1, 15)


def test_another_standard_input_is_refused(daemon: Daemon) -> None:
    def pipe(data: bytes, *options: str, status: int = 0) -> str:
        arguments = ["send", "--resume", "name", *options]
        return daemon.cli(*arguments, stdin=data, status=status).stderr.decode()

    pipe(lines(1, 10))
    pipe(lines(1, 12))
    assert "begins with 'other'. --resume-anew" in pipe(b"other\n" * 50, status=1)
    assert "ended after 7 bytes" in pipe(lines(1, 1), status=1)
    assert "differs from it" in pipe(lines(1, 11) + b"other\n" * 50, status=1)
    pipe(b"")
    assert stored(daemon) == texts(1, 12)
    pipe(b"other\n" * 50, "--resume-anew")
    assert stored(daemon) == texts(1, 12) + ["other"] * 50


def no_state(root: Path) -> str:
    return str(root / "no state")


def test_without_a_place_it_goes_on_by_count_and_says_so(daemon: Daemon, root: Path) -> None:
    path = root / "app.log"
    path.write_bytes(lines(1, 10))
    send(daemon, path)
    path.write_bytes(lines(1, 15))
    arguments = ["send", "--resume", "name", str(path)]
    done = daemon.cli(*arguments, LOGENGINE_STATE=no_state(root))
    assert b"continuing by count, after 10 records" in done.stderr
    path.rename(root / "app.log.1")
    path.write_bytes(lines(16, 20))
    assert b"by count" not in daemon.cli(*arguments, LOGENGINE_STATE=no_state(root)).stderr
    assert stored(daemon) == texts(1, 20)


def test_without_a_place_an_input_that_is_too_short_is_refused(daemon: Daemon, root: Path) -> None:
    path = root / "app.log"
    path.write_bytes(lines(1, 10))
    send(daemon, path)
    path.write_bytes(lines(11, 15))
    arguments = ["send", "--resume", "name", str(path)]
    done = daemon.cli(*arguments, status=1, LOGENGINE_STATE=no_state(root))
    assert b"has 5 lines, but the daemon has 10" in done.stderr
    daemon.cli(*arguments, "--resume-anew", LOGENGINE_STATE=no_state(root))
    assert stored(daemon) == texts(1, 15)


def test_numbers_of_somebody_else_are_noticed(daemon: Daemon, root: Path) -> None:
    path = root / "app.log"
    path.write_bytes(lines(1, 10))
    send(daemon, path)
    daemon.cli(
        "send", "--resume", "name", "--resume-anew", stdin=b"x\n", LOGENGINE_STATE=no_state(root)
    )
    assert "another sender has used the name" in send(daemon, path, status=1)


def test_a_daemon_whose_data_is_new_gets_all_again(daemon: Daemon, root: Path) -> None:
    path = root / "app.log"
    path.write_bytes(lines(1, 10))
    send(daemon, path)
    daemon.stop()
    shutil.rmtree(daemon.data)
    daemon.start()
    assert "its data is new" in send(daemon, path)
    assert stored(daemon) == texts(1, 10)


def test_a_producer_that_was_forgotten_goes_on(daemon: Daemon, root: Path) -> None:
    daemon.stop()
    daemon.config.write_text("[limits]\nmax_producers = 1\n")
    daemon.start()
    path = root / "app.log"
    path.write_bytes(lines(1, 10))
    send(daemon, path)
    daemon.cli("send", stdin=b"somebody else\n")
    path.write_bytes(lines(1, 12))
    assert "no longer knows name, but has its stream" in send(daemon, path)
    assert stored(daemon) == [*texts(1, 10), "somebody else", *texts(11, 12)]


def test_two_runs_of_one_name_do_not_meet(daemon: Daemon) -> None:
    arguments = [*LOGENGINE, "send", "--resume", "name", "--socket", str(daemon.socket)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE) as first:
        assert first.stdin is not None
        first.stdin.write(b"one\n")
        first.stdin.flush()
        eventually(lambda: (daemon.data / "default").exists() and stored(daemon) == ["one"])
        done = daemon.cli("send", "--resume", "name", stdin=b"two\n", status=1)
        assert b"another run with --resume name" in done.stderr
        first.stdin.close()
        assert first.wait() == 0
    assert stored(daemon) == ["one"]


def test_a_damaged_file_of_notes_is_named(daemon: Daemon, root: Path) -> None:
    state = str(root / "state")
    arguments = ["send", "--resume", "name"]
    daemon.cli(*arguments, stdin=b"one\n", LOGENGINE_STATE=state)
    (path,) = (each for each in (root / "state" / "resume").iterdir() if each.suffix != ".lock")
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"no header\n")
    done = daemon.cli(*arguments, stdin=b"one\n", status=1, LOGENGINE_STATE=state)
    assert f"{path} is damaged".encode() in done.stderr


@pytest.mark.parametrize("kind", ["file", "journal"])
def test_killed_again_and_again_while_it_is_rotated_or_vacuumed(
    daemon: Daemon, root: Path, kind: str
) -> None:
    """Each input is 4 MB more; what is gone from it was stored before the kill, or is kept."""
    count = 40_000
    path = root / "app.log"
    text = {"file": lines, "journal": journal}[kind]
    path.write_bytes(text(1, count))
    arguments = (
        ["send", "--resume", "name", str(path)]
        if kind == "file"
        else ["import", "-s", "default", "--resume", "name", str(path)]
    )
    last = count
    for turn in range(1, 4):
        before = number_stored(daemon)
        running = subprocess.Popen([*LOGENGINE, *arguments, "--socket", str(daemon.socket)])
        eventually(
            lambda running=running, before=before: (  # type: ignore[misc]
                running.poll() is not None or number_stored(daemon) > before
            )
        )
        running.kill()
        running.wait()
        new = text(last + 1, last + count)
        if kind == "file":
            path.rename(root / f"app.log-2026112{turn}")
            path.write_bytes(new)
        else:
            there = number_stored(daemon)
            path.write_bytes(text(max(1, there - 500), last) + new)
        last += count
        if turn == 2:
            daemon.kill()
            daemon.start()
    daemon.cli(*arguments)
    printed = daemon.cli("cat", "default").stdout.splitlines()
    assert [json.loads(line)["message"] for line in printed] == texts(1, last)


def number_stored(daemon: Daemon) -> int:
    there = (daemon.data / "default").exists()
    return daemon.cli("cat", "default").stdout.count(b"\n") if there else 0
