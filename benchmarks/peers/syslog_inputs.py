"""rsyslog and syslog-ng on the work of protocols: they parse what they read, and fsync is on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.flood import started, until
from benchmarks.protocol_sender import DATAGRAMS, FILE, STREAM
from benchmarks.software import environ, modules

_PATIENCE_S = 120.0
_READ_BYTES = 1024 * 1024

# The file has time, host, tag, process and message of each record, so all of it is parsed.
_RSYSLOG = """
global(workDirectory="{root}" maxMessageSize="64k")
template(name="parsed" type="string"
         string="%timestamp:::date-rfc3339% %hostname% %programname% %procid% %msg%\\n")
ruleset(name="file" queue.type="LinkedList" queue.size="100000" queue.dequeueBatchSize="4096") {{
  # It syncs whenever its buffer is full: the default of 4 KiB would be 16 records a sync.
  action(type="omfile" file="{root}/log" template="parsed" sync="on" flushOnTXEnd="on"
         ioBufferSize="1m")
}}
{input}
"""
_RSYSLOG_INPUTS = {
    DATAGRAMS: """
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" socket="{root}/input" ruleset="file" usePidFromSystem="on"
      rateLimit.interval="0" flowControl="on")
""",
    STREAM: """
module(load="imptcp")
input(type="imptcp" path="{root}/input" ruleset="file")
""",
    FILE: """
module(load="imfile" mode="inotify")
input(type="imfile" file="{root}/input" tag="file" ruleset="file")
""",
}
_SYSLOG_NG = """@version: 3.38
options {{ stats_freq(0); log-fifo-size(200000); log-msg-size(65536); keep-hostname(yes); }};
source s {{ {input} }};
destination d {{
  file("{root}/log" fsync(yes) flush-lines(1000)
    template("${{ISODATE}} ${{HOST}} ${{PROGRAM}} ${{PID}} ${{MSG}}\\n"));
}};
log {{ source(s); destination(d); flags(flow-control); }};
"""
_SYSLOG_NG_INPUTS = {
    DATAGRAMS: 'unix-dgram("{root}/input" so-passcred(yes) log-iw-size(100000) '
    "log-fetch-limit(1000));",
    STREAM: 'unix-stream("{root}/input" log-iw-size(100000) log-fetch-limit(1000));',
    # It looks for changes once a second unless it is told otherwise.
    FILE: 'file("{root}/input" follow-freq(0.1) log-iw-size(100000) log-fetch-limit(1000) '
    "flags(no-parse));",
}


@dataclass
class Lines:
    """A file that grows: how many lines it has."""

    path: Path
    _count: int = 0
    _place: int = field(default=0, repr=False)

    def count(self) -> int:
        """Reads what is new, and returns the number of lines so far."""
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._place)
                while piece := file.read(_READ_BYTES):
                    self._count += piece.count(b"\n")
                    self._place += len(piece)
        return self._count


@dataclass
class Receiving:
    """A running server that takes records at `path`; `stored` counts those that it has stored.

    It is asked every `poll_s`.
    """

    pid: int
    path: Path
    stored: Callable[[], int]
    poll_s: float = 0.002

    def wait_for(self, records: int) -> None:
        """Returns when so many are stored. Raises `TimeoutError`, and `ValueError` if more are."""
        until(
            lambda: self.stored() >= records,
            f"{records} records",
            self.poll_s,
            patience_s=_PATIENCE_S,
        )
        if self.stored() > records:
            raise ValueError(f"{self.stored()} records are stored, and {records} were sent")


@dataclass(frozen=True)
class RsyslogInput:
    """imuxsock, imptcp or imfile, into omfile with `sync="on"`."""

    software: Path
    name: str = "rsyslog"
    ways = frozenset(_RSYSLOG_INPUTS)

    @contextmanager
    def receiving(self, root: Path, way: str) -> Iterator[Receiving]:
        """Starts it, in the foreground."""
        config = root / "rsyslog.conf"
        inputs = _RSYSLOG_INPUTS[way].format(root=root)
        config.write_text(_RSYSLOG.format(root=root, input=inputs))
        command = [
            *(str(self.software / "usr/sbin/rsyslogd"), "-n", "-f", str(config)),
            *("-i", str(root / "pid"), "-M", str(modules(self.software, "imptcp.so"))),
        ]
        with _started(command, root, way, self.software) as receiving:
            yield receiving


@dataclass(frozen=True)
class SyslogNgInput:
    """unix-dgram, unix-stream or file, into file with `fsync(yes)` and flow control."""

    software: Path
    name: str = "syslog-ng"
    ways = frozenset(_SYSLOG_NG_INPUTS)

    @contextmanager
    def receiving(self, root: Path, way: str) -> Iterator[Receiving]:
        """Starts it, in the foreground."""
        config = root / "syslog-ng.conf"
        inputs = _SYSLOG_NG_INPUTS[way].format(root=root)
        config.write_text(_SYSLOG_NG.format(root=root, input=inputs))
        command = [
            *(str(self.software / "usr/sbin/syslog-ng"), "-F", "--no-caps"),
            *("-f", str(config), "-R", str(root / "persist"), "-c", str(root / "control")),
            *("-p", str(root / "pid")),
            f"--module-path={modules(self.software, 'libaffile.so')}",
        ]
        with _started(command, root, way, self.software) as receiving:
            yield receiving


@contextmanager
def _started(command: list[str], root: Path, way: str, software: Path) -> Iterator[Receiving]:
    path = root / "input"
    ready = path.is_socket
    if way == FILE:
        path.touch()
        ready = (root / "pid").exists
    with started(command, ready, environ(software), root / "errors") as pid:
        yield Receiving(pid, path, Lines(root / "log").count)


def inputs(software: Path, way: str) -> list[RsyslogInput | SyslogNgInput]:
    """Those that are available here, and take records of this protocol."""
    wanted: dict[str, RsyslogInput | SyslogNgInput] = {
        "usr/sbin/rsyslogd": RsyslogInput(software),
        "usr/sbin/syslog-ng": SyslogNgInput(software),
    }
    return [
        peer
        for program, peer in wanted.items()
        if (software / program).exists() and way in peer.ways
    ]
