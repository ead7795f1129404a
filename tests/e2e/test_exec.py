"""`logengine exec`: a real command, its real parent, a real daemon."""

import asyncio
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from logengine.command.child_process import OutputPipe
from tests.daemon import PATIENCE_S, Daemon, eventually

EXEC = [sys.executable, "-m", "logengine", "exec"]

# Says which signals come, and ends by TERM, with status 7.
SIGNAL_TELLER = """
import signal, sys
def tell(number, frame):
    print(signal.Signals(number).name, flush=True)
    if number == signal.SIGTERM:
        sys.exit(7)
for name in "TERM INT HUP QUIT USR1 USR2 WINCH".split():
    signal.signal(signal.Signals["SIG" + name], tell)
signal.alarm(120)  # nobody ends it where a test has failed
print("ready", flush=True)
while True:
    signal.pause()
"""


@contextmanager
def running(daemon: Daemon, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [*EXEC, "--socket", str(daemon.socket), *arguments],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def messages(daemon: Daemon, fd: int = 1) -> list[str]:
    if not (daemon.data / "default").exists():
        return []
    return [
        value["message"]
        for value in daemon.values()
        if value.get("fd") == fd and "message" in value
    ]


def exits(daemon: Daemon) -> list[dict[str, Any]]:
    return [value for value in daemon.values() if value.get("event") == "exited"]


def test_lines_of_both_outputs_come_in_order_with_their_descriptor(daemon: Daemon) -> None:
    script = "for i in 1 2 3; do echo out $i; echo err $i >&2; done; printf last"
    daemon.cli("exec", "--", "sh", "-c", script)
    assert messages(daemon) == ["out 1", "out 2", "out 3", "last"]
    assert messages(daemon, 2) == ["err 1", "err 2", "err 3"]


def test_the_end_of_the_command_is_the_last_record(daemon: Daemon) -> None:
    daemon.cli("exec", "-s", "app", "sh", "-c", "echo $$")
    first, last = daemon.values("app")
    assert last.pop("duration_s") >= 0
    assert last == {
        "level": "info",
        "event": "exited",
        "command": ["sh", "-c", "echo $$"],
        "pid": int(first["message"]),
        "status": 0,
        "signal": None,
    }


def test_json_lines_are_objects_and_junk_is_kept_readable(daemon: Daemon) -> None:
    script = r"""printf '{"event":"hi"}\n\n{"fd":9}\nb\377d\n{"half":'"""
    daemon.cli("exec", "--", "sh", "-c", script)
    assert daemon.values()[:-1] == [
        {"fd": 1, "event": "hi"},
        {"fd": 9},
        {"fd": 1, "message": r"b\xffd"},
        {"fd": 1, "message": '{"half":'},
    ]


def test_a_line_longer_than_the_daemon_takes_comes_in_pieces(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = make_daemon('[limits]\nmax_record = "1KiB"\n')
    command = [sys.executable, "-c", "print('é' * 5000); print('next')"]
    done = daemon.cli("exec", "--", *command)
    *pieces, last, following, _ = daemon.values()
    assert all(piece["partial"] for piece in pieces)
    assert "partial" not in last
    assert "".join(piece["message"] for piece in [*pieces, last]) == "é" * 5000
    assert following["message"] == "next"
    assert done.stderr == b""


def test_an_end_record_too_long_for_the_daemon_is_cut(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = make_daemon('[limits]\nmax_record = "1KiB"\n')
    done = daemon.cli("exec", "--", "sh", "-c", "exit 3", "x" * 5000, status=3)
    (end,) = exits(daemon)
    assert (end["status"], end["cut"]) == (3, True)
    assert done.stderr == b""


def test_standard_input_is_the_commands(daemon: Daemon) -> None:
    daemon.cli("exec", "--", "sort", stdin=b"b\na\n")
    assert messages(daemon) == ["a", "b"]


def test_the_exit_status_is_the_commands(daemon: Daemon) -> None:
    daemon.cli("exec", "--", "sh", "-c", "exit 3", status=3)
    (end,) = exits(daemon)
    assert (end["level"], end["status"], end["signal"]) == ("error", 3, None)


@pytest.mark.parametrize("name", ["KILL", "TERM", "INT", "SEGV"])
def test_exec_dies_by_the_signal_that_the_command_dies_by(daemon: Daemon, name: str) -> None:
    number = signal.Signals[f"SIG{name}"]
    daemon.cli("exec", "--", "sh", "-c", f"ulimit -c 0; kill -{name} $$", status=-number)
    (end,) = exits(daemon)
    assert (end["level"], end["status"], end["signal"]) == ("error", None, f"SIG{name}")


def test_no_core_of_exec_itself_is_dumped(root: Path) -> None:
    def dumps_core(end: str) -> bool:
        program = f"""
import os, resource, signal
from logengine.command.child_process import die_by
os.chdir({str(root)!r})
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
{end}
"""
        pid = os.posix_spawn(sys.executable, [sys.executable, "-c", program], os.environ)
        status = os.waitpid(pid, 0)[1]
        assert os.WTERMSIG(status) == signal.SIGSEGV
        return os.WCOREDUMP(status)

    if not dumps_core("os.kill(os.getpid(), signal.SIGSEGV)"):
        pytest.skip("this machine dumps no cores at all")
    assert not dumps_core("die_by(signal.SIGSEGV)")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a pid namespace")
def test_as_the_first_process_of_a_container_it_exits_with_128_and_the_signal(
    daemon: Daemon,
) -> None:
    probe = subprocess.run(["unshare", "-pf", "true"], check=False, capture_output=True)
    if probe.returncode:
        pytest.skip(f"no pid namespace here: {probe.stderr.decode()}")
    command = ["sh", "-c", "(sleep 0 &); kill -TERM $$"]
    done = subprocess.run(
        ["unshare", "-pf", *EXEC, "--socket", str(daemon.socket), *command],
        check=False,
        timeout=60,
    )
    assert done.returncode == 128 + signal.SIGTERM


def test_signals_are_passed_on(daemon: Daemon) -> None:
    with running(daemon, sys.executable, "-c", SIGNAL_TELLER) as process:
        eventually(lambda: messages(daemon) == ["ready"])
        expected = ["ready"]
        for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGINT", "SIGQUIT"):
            process.send_signal(signal.Signals[name])
            expected.append(name)
            eventually(lambda: messages(daemon) == expected, name)
        process.terminate()
        assert process.wait(PATIENCE_S) == 7
    assert messages(daemon) == [*expected, "SIGTERM"]


def test_a_ctrl_c_of_the_terminal_comes_to_the_command_once(daemon: Daemon) -> None:
    master, slave = pty.openpty()
    # The first terminal that the leader of a new session opens is its own.
    with subprocess.Popen(
        [
            *("sh", "-c", f'exec "$@" <{os.ttyname(slave)}', "sh", *EXEC),
            *("--socket", str(daemon.socket), sys.executable, "-c", SIGNAL_TELLER),
        ],
        start_new_session=True,
    ) as process:
        try:
            eventually(lambda: messages(daemon) == ["ready"])
            os.write(master, b"\x03")
            eventually(lambda: messages(daemon) == ["ready", "SIGINT"])
            process.terminate()
            assert process.wait(PATIENCE_S) == 7
        finally:
            process.kill()
            os.close(master)
            os.close(slave)
    assert messages(daemon) == ["ready", "SIGINT", "SIGTERM"]


def test_it_stops_and_goes_on_with_the_command(daemon: Daemon) -> None:
    def state(pid: int) -> str:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

    # In a group of its own: nothing is stopped in an orphaned one (setpgid(2)), as that of the
    # tests may be when they run in the background.
    script = "echo $$; read line; echo on"
    with running(daemon, "sh", "-c", script, process_group=0) as process:
        (pid,) = eventually(lambda: messages(daemon))
        process.send_signal(signal.SIGTSTP)
        eventually(lambda: state(process.pid) == state(int(pid)) == "T", "both to stop")
        process.send_signal(signal.SIGCONT)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 0
    assert messages(daemon) == [pid, "on"]


def test_the_command_finds_signals_as_exec_found_them(daemon: Daemon) -> None:
    script = """
import signal
print([int(s) for s in signal.pthread_sigmask(signal.SIG_BLOCK, [])])
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["SigIgn"], 16) >> signal.SIGHUP - 1 & 1)
"""
    look = [*EXEC, "--socket", str(daemon.socket), sys.executable, "-c", script]
    subprocess.run(["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *look], check=True, timeout=60)
    assert messages(daemon) == ["[]", "1"]
    daemon.cli("exec", "sh", "-c", "yes | head -n 1; exit 5", status=5)  # `yes` ends by SIGPIPE
    assert messages(daemon)[2:] == ["y"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["./no-such-command"], 127, "./no-such-command: No such file"),
        (["/etc/passwd"], 126, "/etc/passwd: Permission denied"),
        (["-s", "Bad!", "true"], 125, "'Bad!' is not a valid stream name"),
        (["--producer", "", "true"], 125, "expected 1 to 128 characters"),
        ([], 2, "Missing argument 'COMMAND...'"),
    ],
)
def test_what_cannot_be_started_is_said_in_a_line(
    daemon: Daemon, arguments: list[str], status: int, said: str
) -> None:
    done = daemon.cli("exec", *arguments, status=status)
    assert said in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert not (daemon.data / "default").exists()


def test_a_daemon_killed_in_the_middle_gets_each_line_once(daemon: Daemon) -> None:
    script = "seq 1 30000; read line; seq 30001 60000; read line; seq 60001 90000"
    with running(daemon, "sh", "-c", script) as process:
        assert process.stdin is not None
        for _ in range(2):
            before = len(messages(daemon))
            process.stdin.write(b"\n")
            process.stdin.flush()
            eventually(lambda before=before: len(messages(daemon)) > before)  # type: ignore[misc]
            daemon.kill()
            daemon.start()
        assert process.wait(60) == 0
    assert messages(daemon) == [str(number) for number in range(1, 90001)]
    assert len(exits(daemon)) == 1


def test_without_a_daemon_the_command_waits_and_nothing_is_lost(root: Path) -> None:
    daemon = Daemon(root)
    with running(daemon, "sh", "-c", f"touch {root}/begun; seq 1 250000") as process:
        eventually((root / "begun").exists)
        try:
            daemon.start()
            assert process.wait(60) == 0
        finally:
            daemon.close()
    assert messages(daemon) == [str(number) for number in range(1, 250001)]


def test_with_a_spool_the_command_ends_without_a_daemon_and_all_arrives_later(root: Path) -> None:
    daemon = Daemon(root)
    spooling = ["exec", "--spool", str(root / "spool"), "--producer", "job"]
    done = daemon.cli(*spooling, "--timeout", "0s", "--", "seq", "1", "250000")
    assert done.stderr == b""
    daemon.start()
    try:
        daemon.cli(*spooling, "echo", "later")
    finally:
        daemon.close()
    assert messages(daemon) == [*(str(number) for number in range(1, 250001)), "later"]
    assert [end["command"][0] for end in exits(daemon)] == ["seq", "echo"]


def test_what_is_not_durable_in_the_end_is_said_in_one_line(root: Path) -> None:
    done = Daemon(root).cli("exec", "--timeout", "0s", "sh", "-c", "seq 5; exit 3", status=3)
    assert done.stderr.startswith(b"logengine: 6 records of stream 'default' are not durable")
    assert done.stderr.count(b"\n") == 1


def test_a_ctrl_c_ends_the_waiting_for_a_daemon_that_is_away(root: Path) -> None:
    with running(Daemon(root), "--timeout", "1h", "sh", "-c", f"touch {root}/begun") as process:
        eventually((root / "begun").exists)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        eventually(lambda: not children.read_text(), "the command to end")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
    assert b"1 records of stream 'default' are not durable" in said


def test_with_drop_the_command_does_not_wait_and_the_drops_are_counted(root: Path) -> None:
    done = Daemon(root).cli("exec", "--on-full", "drop", "--timeout", "0s", "--", "seq", "250000")
    assert b"records were dropped for lack of space" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_command_that_closes_its_output_is_waited_for(daemon: Daemon) -> None:
    script = "exec >&- 2>&-; read line; exit 4"
    with running(daemon, "sh", "-c", script) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 4
    assert exits(daemon)[0]["status"] == 4


def test_what_the_command_leaves_running_does_not_hold_up_the_end(daemon: Daemon) -> None:
    daemon.cli("exec", "sh", "-c", "sleep 100 & echo $!")
    (pid,) = messages(daemon)
    os.kill(int(pid), signal.SIGKILL)  # it was still there
    assert len(exits(daemon)) == 1


def test_a_sender_that_lost_its_name_says_so_and_the_command_goes_on(daemon: Daemon) -> None:
    with running(daemon, "--producer", "p", "sh", "-c", "echo 1; read line; echo 2; exit 3") as one:
        eventually(lambda: messages(daemon) == ["1"])
        daemon.cli("exec", "--producer", "p", "echo", "other")
        _, said = one.communicate(b"\n", timeout=PATIENCE_S)
        assert one.returncode == 3
    assert b"took over the name 'p'" in said
    assert b"Traceback" not in said
    assert messages(daemon) == ["1", "other"]


async def test_a_pipe_given_up_is_read_as_far_as_the_command_wrote() -> None:
    reading, writing = os.pipe()
    try:
        pipe = OutputPipe(reading)
        os.write(writing, b"the command's")
        pipe.command_ended()
        pipe.give_up()
        assert await pipe.read() == b"the command's"
        os.write(writing, b"somebody else's")
        assert await pipe.read() == b""
    finally:
        os.close(reading)
        os.close(writing)


async def test_giving_a_pipe_up_ends_a_read_that_waits() -> None:
    reading, writing = os.pipe()
    try:
        pipe = OutputPipe(reading)
        waiting = asyncio.create_task(pipe.read())
        await asyncio.sleep(0)
        pipe.give_up()
        assert await waiting == b""
    finally:
        os.close(reading)
        os.close(writing)
