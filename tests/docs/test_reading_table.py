"""Each command in the table of `docs/reading.md` runs as it is written, and does what is said."""

import csv
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import PATIENCE_S, Daemon, eventually
from tests.reading.streams import damage, write_stream
from tests.terminal import Terminal

PAGE = (Path(__file__).parents[2] / "docs" / "reading.md").read_text()
TABLE = re.search(r"^\| to see \| command \|\n\|---\|---\|\n((?:\|.*\|\n)+)", PAGE, re.MULTILINE)
assert TABLE is not None
COMMANDS = [
    command.replace("\\|", "|")
    for row in TABLE[1].splitlines()
    for command in re.findall(r"`([^`]+)`", re.split(r"(?<!\\)\|", row)[2])
]
LOGENGINE = [sys.executable, "-m", "logengine"]
NEW: list[dict[str, Any]] = [
    {"level": "info", "event": "order 7 placed", "user": "ann", "took_ms": 12, "status": 200}
    | {"path": "/orders", "http": {"method": "POST"}, "tags": ["new"]},
    {"level": "debug", "event": "health", "path": "/health", "http": {"method": "GET"}},
    {"level": "WARN", "event": "Time-out of the bank", "user": "bob", "took_ms": 2600}
    | {"status": 503, "path": "/pay", "tags": ["slow", "bank"]},
    {"level": "error", "event": "order 8: card declined", "user": "bob", "took_ms": 300}
    | {"status": 500, "path": "/pay", "tags": ["bank"]},
    {"level": "info", "event": "order 9 placed", "user": "ann", "took_ms": 900, "status": 200}
    | {"path": "/orders"},
]


class Host:
    """A data directory that a daemon wrote, and a person at a shell in the directory above it.

    The shell's clock is `shift_h` behind UTC.
    """

    def __init__(self, root: Path, shift_h: int) -> None:
        self.root = root
        self.shift_h = shift_h
        self.daemon = Daemon(root)
        self.environ = {
            **{name: each for name, each in os.environ.items() if "COLOR" not in name},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LOGENGINE_DATA": str(self.daemon.data),
            "LOGENGINE_SOCKET": str(self.daemon.socket),
            "TZ": f"LOC{shift_h}",
            "LC_ALL": "C.UTF-8",
        }
        self._following: list[subprocess.Popen[bytes]] = []
        self._terminals: list[Terminal] = []

    def copy_to(self, root: Path) -> "Host":
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        return Host(root, self.shift_h)

    def send(self, stream: str, *records: Any) -> int:
        """Sends records, and gives the pid of the sender."""
        sender = subprocess.Popen(
            [*LOGENGINE, "send", "-s", stream], stdin=subprocess.PIPE, env=self.environ
        )
        sender.communicate("".join(f"{json.dumps(each)}\n" for each in records).encode())
        assert sender.returncode == 0
        return sender.pid

    def run(self, command: str, status: int = 0) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            env=self.environ,
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, (done.stdout, done.stderr)
        return done.stdout

    def records(self, command: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.run(command).splitlines()]

    def terminal(self, command: str, **environ: str) -> Terminal:
        argv = ["bash", "-c", command]
        self._terminals.append(Terminal(argv, self.environ | environ, self.root))
        return self._terminals[-1]

    def start(self, command: str) -> Callable[[], list[str]]:
        """Starts a command that does not end by itself; gives what returns its lines so far."""
        path = self.root / f"output-{len(self._following)}"
        with path.open("wb") as output:
            self._following.append(
                subprocess.Popen(
                    ["bash", "-c", f"exec {command}"],
                    stdout=output,
                    env=self.environ,
                    cwd=self.root,
                )
            )
        return lambda: path.read_text().splitlines()

    def close(self) -> None:
        for each in self._following:
            each.send_signal(signal.SIGINT)
            each.wait()
        for terminal in self._terminals:
            terminal.close()
        self.daemon.close()


def local(host: Host, days: int, clock: str) -> str:
    """A time of the day so many days ago, by the clock of the host, as a timestamp."""
    shift = timedelta(hours=host.shift_h)
    day = (datetime.now(UTC) - shift).replace(tzinfo=None) - timedelta(days=days)
    moment = datetime.fromisoformat(f"{day:%Y-%m-%d} {clock}") + shift
    return f"{moment:%Y-%m-%dT%H:%M:%S}.000000Z"


def old(moment: str, fields: dict[str, Any]) -> bytes:
    envelope = {"_ts": moment, "_pid": 812, "_uid": 123456, "_comm": "shop"}
    return json.dumps(envelope | fields, separators=(",", ":")).encode()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """What the daemon leaves that was killed and started again between two records."""
    # Noon, so that neither yesterday nor today changes while these tests run. All tests have the
    # zone in which the records were written: another hour may begin in between.
    host = Host(tmp_path_factory.mktemp("host"), datetime.now(UTC).hour - 12)
    placed = {"level": "info", "user": "ann"}
    write_stream(
        host.daemon.data,
        "shop",
        [
            old("2001-09-09T01:46:40.000000Z", {"level": "info", "event": "the first order"}),
            old(
                local(host, 1, "14:05"),
                {"_unit": "shop.service"} | placed | {"event": "order 5 placed"},
            ),
            old(local(host, 1, "16:00"), placed | {"event": "order 6 placed"}),
        ],
    )
    try:
        host.daemon.start()
        host.send("shop", *NEW[:3])
        host.send("web-1", {"event": "GET /"})
        host.daemon.kill()
        host.daemon.start()
        (host.root / "shop.pid").write_text(f"{host.send('shop', *NEW[3:])}\n")
        host.send("web-2", {"event": "GET /cart"})
        assert host.daemon.stop() == 0
        yield host
    finally:
        host.close()


@pytest.fixture
def host(written: Host, root: Path) -> Iterator[Host]:
    host = written.copy_to(root)
    try:
        yield host
    finally:
        host.close()


Check = Callable[[Host, str], None]


def selects(*seqs: int, stream: str = "shop") -> Check:
    """The command prints these records as JSON, in this order."""

    def check(host: Host, command: str) -> None:
        shown = [(each["_stream"], each["_seq"]) for each in host.records(command)]
        assert shown == [(stream, seq) for seq in seqs]

    return check


def prints(*patterns: str) -> Check:
    """The command prints as many lines as there are patterns, and each matches its own."""

    def check(host: Host, command: str) -> None:
        lines = host.run(command).splitlines()
        assert len(lines) == len(patterns), lines
        for pattern, line in zip(patterns, lines, strict=True):
            assert re.fullmatch(pattern, line), (pattern, line)

    return check


def follows(*old_seqs: int, new: dict[int, dict[str, Any]], shown: tuple[int, ...]) -> Check:
    """The command prints the old records, and of those that are sent then the shown ones."""

    def check(host: Host, command: str) -> None:
        host.daemon.start()
        lines = host.start(command)

        def seqs() -> list[int]:
            return [json.loads(line)["_seq"] for line in lines()]

        eventually(lambda: len(seqs()) == len(old_seqs), "the old records")
        for record in new.values():
            host.send("shop", record)
        expected = [*old_seqs, *shown]
        eventually(lambda: len(seqs()) >= len(expected), "the new records")
        assert seqs() == expected

    return check


def follows_over_kills(host: Host, command: str) -> None:
    host.daemon.start()
    lines = host.start(command)
    sent = 0
    # With -n 0, nothing shows that it has begun: so records are sent until one is shown.
    while not lines():
        host.send("shop", {"n": sent})
        sent += 1
    for _ in range(2):
        host.daemon.kill()
        host.daemon.start()
        host.send("shop", {"n": sent})
        sent += 1
    eventually(lambda: json.loads(lines()[-1])["n"] == sent - 1, "the last record")
    numbers = [json.loads(line)["n"] for line in lines()]
    assert numbers == list(range(numbers[0], sent))


def merges_by_time(host: Host, command: str) -> None:
    shown = [(each["_stream"], each["_seq"]) for each in host.records(command)]
    shop = [("shop", seq) for seq in range(1, 9)]
    assert shown == [*shop[:6], ("web-1", 1), *shop[6:]]


def matches_names(host: Host, command: str) -> None:
    shown = [(each["_stream"], each["event"]) for each in host.records(command)]
    assert shown == [("web-1", "GET /"), ("web-2", "GET /cart")]


def highlights(host: Host, command: str) -> None:
    shown = host.terminal(command, PAGER="cat").read_to_end()
    assert shown.count(b"card \x1b[7mdeclined\x1b[27m") == 1, shown
    assert b"placed" not in shown


def shows_times_of_the_clock(host: Host, command: str) -> None:
    (last,) = host.records("logengine tail shop -n 1")
    moment = datetime.fromisoformat(last["_ts"])
    if "--utc" in command:
        expected = f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}Z INFO"
    else:
        moment -= timedelta(hours=host.shift_h)
        expected = f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d} INFO"
    lines = host.run(command).splitlines()
    assert len(lines) == 8
    assert lines[-1].startswith(expected)


def of_yesterday(*numbers: int) -> Check:
    """The command prints these of some records of yesterday and today that arrive now."""

    def check(host: Host, command: str) -> None:
        times = [(1, "13:59"), (1, "14:00"), (1, "15:29"), (1, "15:30"), (0, "14:30")]
        host.daemon.start()
        host.send("nginx", *[{"time": local(host, *each)} for each in times])
        assert [each["_seq"] for each in host.records(command)] == list(numbers)

    return check


def pages(host: Host, command: str) -> None:
    shown = host.terminal(command, PAGER="sed s/^/paged:/").read_to_end()
    lines = shown.splitlines()
    assert len(lines) >= 8
    assert [line.startswith(b"paged:") for line in lines] == ["--no-pager" not in command] * len(
        lines
    )
    assert b"order 9 placed" in shown


def colours(host: Host, command: str) -> None:
    shown = host.run(command)
    assert "\x1b[" in shown
    assert re.search("\x1b\\[[0-9;]*31m[^\n]*ERROR", shown)


def shows_two_fields(host: Host, command: str) -> None:
    shown = host.records(command)
    assert shown[0] == {"_stream": "shop", "_seq": 1}
    assert shown[3] == {"_stream": "shop", "_seq": 4, "user": "ann", "http.method": "POST"}
    assert len(shown) == 8


def shows_whole_records(host: Host, command: str) -> None:
    shown = host.records(command)
    assert [each["_seq"] for each in shown] == list(range(1, 9))
    assert {name: shown[3].get(name) for name in NEW[0]} == NEW[0]


def shows_csv(host: Host, command: str) -> None:
    rows = list(csv.reader(host.run(command).splitlines()))
    assert rows[0] == ["_seq", "level", "user"]
    assert rows[4:7] == [["4", "info", "ann"], ["5", "debug", ""], ["6", "WARN", "bob"]]
    assert len(rows) == 9


def continues(host: Host, command: str) -> None:
    assert [each["_seq"] for each in host.records(command)] == list(range(1, 9))
    assert host.records(command) == []
    host.daemon.start()
    host.send("shop", {"event": "order 10 placed"})
    assert [each["_seq"] for each in host.records(command)] == [9]


def draws_a_histogram(host: Host, command: str) -> None:
    header, *rows = host.run(command).splitlines()
    assert header.split()[:2] == ["TIME", "COUNT"]
    assert "error █" in header
    counts = {row.split()[0]: row.split()[2] for row in rows if "-" in row.split()[0]}
    today, yesterday = (local(host, days, "12:00")[:10] for days in (0, 1))
    assert counts[today] == "5"
    assert counts[yesterday] == "2"
    assert sum(map(int, counts.values())) == 8
    assert re.search("█.*▓", rows[-1])


def lists_fields(host: Host, command: str) -> None:
    rows = {line.split()[0]: line.split()[1:] for line in host.run(command).splitlines()}
    assert rows["user"][:3] == ["6", "75.0%", "string"]
    assert rows["http.method"][0] == "2"
    assert rows["tags[*]"][2] == "string"


def shows_a_screen(host: Host, command: str) -> None:
    host.daemon.start()
    terminal = host.terminal(command, TERM="xterm-256color")
    terminal.wait_for(b"shop")
    terminal.type("q")
    terminal.read_to_end()
    assert terminal.process.returncode == 0


def serves_a_page(host: Host, command: str) -> None:
    lines = host.start(command)
    eventually(lambda: any("http://" in line for line in lines()), "the address of the page")
    (url,) = (found[0] for line in lines() if (found := re.search(r"http://\S+", line)))
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with opener.open(url, timeout=PATIENCE_S) as answer:
        assert b"<html" in answer.read()


def shows_a_rate(host: Host, command: str) -> None:
    host.daemon.start()
    lines = host.start(command)
    eventually(lambda: len(lines()) >= 2, "the first row")
    assert lines()[0].split() == ["TIME", "RECORDS/S", "BYTES/S"]
    assert lines()[1].split()[1:] == ["0", "0B"]
    host.send("web-1", *[{"level": "info"}] * 10)
    host.send("shop", *[{"level": "warn"}] * 100, *[{"level": "error"}] * 20)

    def counted() -> dict[str, int]:
        found: dict[str, int] = {}
        for line in lines()[1:]:
            values = line.split()[3:]
            for level, count in zip(values[::2], values[1::2], strict=True):
                found[level] = found.get(level, 0) + int(count)
        return found

    eventually(lambda: counted() == {"warning": 100, "error": 20}, "what was sent")


def completes(host: Host, command: str) -> None:
    terminal = Terminal(
        ["bash", "--norc", "-i"], host.environ | {"PS1": "> ", "PAGER": "cat"}, host.root
    )
    try:
        terminal.wait_for(b"> ")
        terminal.type(f"{command}; echo read''y\n")
        terminal.wait_for(b"ready")
        terminal.type("logengine cat sho\t--whe\t'us\t\t\t")
        terminal.wait_for(b"user in (")
        terminal.type("== b\t-o short\n")
        terminal.wait_for(b"card declined")
        terminal.wait_for(b"Time-out")
        assert b"placed" not in terminal.shown
    finally:
        terminal.close()


def shows_the_manual(host: Host, command: str) -> None:
    if shutil.which("man") is None:
        pytest.skip("there is no man here")
    subprocess.run(
        [sys.executable, "-m", "logengine.cli.man_pages", "man"], cwd=host.root, check=True
    )
    host.environ |= {"MANPATH": str(host.root / "man"), "MANPAGER": "cat"}
    shown = host.run(command)
    assert "LOGENGINE-TAIL(1)" in shown
    assert "--until-match" in shown


def of_a_process(host: Host, command: str) -> None:
    shown = host.records(command)
    assert [(each["_stream"], each["_seq"]) for each in shown] == [("shop", 7), ("shop", 8)]
    pid = (host.root / "shop.pid").read_text()
    (host.root / "shop.pid").write_text("812\n")
    assert host.records(command) == []  # of that process, but of another user
    (host.root / "shop.pid").write_text(pid)


def since_the_start_of_the_machine(host: Host, command: str) -> None:
    up_s = float(Path("/proc/uptime").read_text().split()[0])
    booted = datetime.fromtimestamp(time.time() - up_s, UTC)
    everything = host.records("logengine cat shop")
    expected = [
        each["_seq"] for each in everything if datetime.fromisoformat(each["_ts"]) >= booted
    ]
    assert [each["_seq"] for each in host.records(command)] == expected
    assert 1 not in expected


def imports(host: Host, command: str) -> None:
    lines = [
        f'10.0.0.{n} - - [10/Oct/2026:13:55:36 +0000] "GET /{n} HTTP/1.1" 404 9 "-" "curl/8"\n'
        for n in range(3)
    ]
    (host.root / "access.log.2.gz").write_bytes(gzip.compress("".join(lines).encode()))
    host.daemon.start()
    host.run(command)
    shown = host.records("logengine cat nginx --where 'status == 404 and method == GET'")
    assert [each["path"] for each in shown] == ["/0", "/1", "/2"]


def finds_damage(host: Host, command: str) -> None:
    assert "shop: ok" in host.run(command)
    damage(host.daemon.data, "shop", 1)
    assert "shop: ok" not in host.run(command, status=1)


SENT: dict[int, dict[str, Any]] = {9: {"level": "info", "n": 9}, 10: {"level": "error", "n": 10}}
MARKED: dict[int, dict[str, Any]] = {
    9: {"n": 9},
    10: {"n": 10},
    11: {"event": "card declined"},
    12: {"n": 12},
    13: {"n": 13},
}
CLOCK = r"\d\d:\d\d:\d\d\.\d{3}"
CHECKS: dict[str, Check] = {
    "logengine tail shop -n 3": selects(6, 7, 8),
    "logengine tail -f shop": follows(*range(1, 9), new=SENT, shown=(9, 10)),
    "logengine tail -f shop --where 'level >= warning'": follows(6, 7, new=SENT, shown=(10,)),
    "logengine tail -f shop -n 0": follows_over_kills,
    "logengine cat shop web-1": merges_by_time,
    "logengine cat 'web-*'": matches_names,
    "logengine cat shop --where 'level >= warning'": selects(6, 7),
    "logengine cat shop --where user=ann": selects(2, 3, 4, 8),
    "logengine cat shop --where 'took_ms > 250ms and status in (500, 503)'": selects(6, 7),
    "logengine cat shop --where 'http.method == GET'": selects(5),
    "logengine cat shop --where 'tags[*] == bank'": selects(6, 7),
    "logengine cat shop --where 'level == error or not path ~ \"^/(pay|health)\"'": selects(
        *(1, 2, 3, 4, 7, 8)
    ),
    "logengine cat shop --grep 'time.?out' -i": selects(6),
    "logengine cat shop --grep placed -v": selects(1, 5, 6, 7),
    "logengine cat shop --grep order --grep placed": selects(2, 3, 4, 8),
    "logengine cat shop --grep declined -C 1": selects(6, 7, 8),
    "logengine tail -f shop -n 1 --grep declined -C 1": follows(
        *(6, 7, 8), new=MARKED, shown=(10, 11, 12)
    ),
    "logengine cat shop --grep declined": highlights,
    "logengine tail shop -o pretty": shows_times_of_the_clock,
    "logengine tail shop -o pretty --utc": shows_times_of_the_clock,
    "logengine tail shop -o pretty --relative": prints(
        *[rf" *\S+ ago {level} .*" for level in (*["INFO"] * 4, "DEBUG", "WARN", "ERROR", "INFO")]
    ),
    "logengine cat shop --since 'yesterday 14:00' --until 'yesterday 15:30'": selects(2),
    "logengine cat nginx --since 'yesterday 14:00' --until 'yesterday 15:30'": of_yesterday(2, 3),
    "logengine cat nginx --since 'yesterday 14:00' --until 'yesterday 15:30' --by arrival": (
        of_yesterday()
    ),
    "logengine tail shop --since 10m": selects(4, 5, 6, 7, 8),
    "logengine tail -f shop --since 10m": follows(*range(4, 9), new=SENT, shown=(9, 10)),
    "logengine cat shop": pages,
    "logengine cat shop --no-pager": pages,
    "logengine tail shop -o pretty --color always": colours,
    "FORCE_COLOR=1 logengine tail shop -o pretty": colours,
    "logengine cat shop --fields user,http.method": shows_two_fields,
    "logengine tail shop -o short": prints(
        rf"{CLOCK} INFO  the first order",
        *[rf"{CLOCK} INFO  order {n} placed" for n in (5, 6, 7)],
        rf"{CLOCK} DEBUG health",
        rf"{CLOCK} WARN  Time-out of the bank",
        rf"{CLOCK} ERROR order 8: card declined",
        rf"{CLOCK} INFO  order 9 placed",
    ),
    "logengine tail shop -o json": shows_whole_records,
    "logengine tail shop -o logfmt": prints(
        *[r"_stream=shop _seq=\d _ts=.*"] * 3,
        r"_stream=shop _seq=4 .* http\.method=POST .*",
        *[r"_stream=shop _seq=\d _ts=.*"] * 2,
        r'_stream=shop _seq=7 .* event="order 8: card declined" .*',
        r"_stream=shop _seq=8 .*",
    ),
    "logengine cat shop -o csv --fields _seq,level,user": shows_csv,
    "logengine cat shop --template '{level:<5} {user:>4} {message}'": prints(
        "INFO       the first order",
        *[f"INFO   ann order {n} placed" for n in (5, 6, 7)],
        "DEBUG      health",
        "WARN   bob Time-out of the bank",
        "ERROR  bob order 8: card declined",
        "INFO   ann order 9 placed",
    ),
    "logengine cat shop --after shop:6": selects(7, 8),
    "logengine tail shop --cursor-file shop.cursor": continues,
    "logengine cat shop --reverse": selects(*range(8, 0, -1)),
    "logengine cat shop -n 2": selects(1, 2),
    "logengine count shop --every 1d --by level": draws_a_histogram,
    "logengine count shop": prints("8"),
    "logengine count shop --by user --top 1": prints(
        r"user +COUNT +SHARE", r"ann +4 +50\.0%", r"\(other\) +4 +50\.0%"
    ),
    "logengine fields shop": lists_fields,
    "logengine query 'SELECT level, count(*) AS n FROM shop GROUP BY ALL ORDER BY n DESC, level'": (
        prints(r"level +n", r"info +5", r"debug +1", r"error +1", r"warning +1")
    ),
    "logengine rate shop --by level": shows_a_rate,
    "logengine top shop": shows_a_screen,
    "logengine web --port 0": serves_a_page,
    'eval "$(logengine completion bash)"': completes,
    "man logengine-tail": shows_the_manual,
    'logengine cat --where "_pid == $(cat shop.pid) and _uid == $(id -u)"': of_a_process,
    "logengine cat --where '_unit == shop.service'": selects(2),
    "logengine cat shop --since boot": since_the_start_of_the_machine,
    "logengine import access.log.2.gz -s nginx": imports,
    "logengine verify shop": finds_damage,
}


def test_each_command_of_the_table_has_a_check_of_its_own() -> None:
    assert len(COMMANDS) == len(set(COMMANDS)) >= 43
    assert set(CHECKS) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_table_does_what_the_table_says(host: Host, command: str) -> None:
    CHECKS[command](host, command)
