"""rsyslog and syslog-ng, with fsync on. Neither tells a sender what is safe."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.flood import (
    Flood,
    Seen,
    is_listening,
    seconds_until_in_file,
    size_of,
    started,
    unseen,
    until,
)
from benchmarks.paced import Load, Paced, Target, pace, unheard
from benchmarks.software import environ, modules

_RSYSLOG = """
global(workDirectory="{root}" maxMessageSize="64k")
module(load="imptcp")
template(name="raw" type="string" string="%rawmsg%\\n")
ruleset(name="file" queue.type="LinkedList" queue.size="100000" queue.dequeueBatchSize="4096") {{
  # It syncs whenever its buffer is full: the default of 4 KiB would be 16 records a sync.
  action(type="omfile" file="{root}/log" template="raw" sync="on" flushOnTXEnd="on"
         ioBufferSize="1m")
}}
input(type="imptcp" path="{root}/socket" ruleset="file")
"""
_SYSLOG_NG = """@version: 3.38
options {{ stats_freq(0); log-fifo-size(200000); log-msg-size(65536); }};
source s {{
  unix-stream("{root}/socket" max-connections(256) log-iw-size(100000) log-fetch-limit(1000)
    flags(no-parse));
}};
destination d {{ file("{root}/log" fsync(yes) flush-lines(1000) template("${{MSG}}\\n")); }};
log {{ source(s); destination(d); flags(flow-control); }};
"""


@dataclass
class IntoFile:
    """A running one; its socket and its file are in `root`."""

    pid: int
    root: Path

    def take(self, flood: Flood, seen: Seen = unseen) -> float:
        """Seconds until every record is in the file."""
        return seconds_until_in_file(self.root / "socket", self.root / "log", flood, seen)

    def pace(self, load: Load, warm: Callable[[], None] = unheard) -> Paced:
        """Sends at a steady pace until every record is in the file."""
        target = Target(str(self.root / "socket"), opening="", acknowledges=False)
        paced = pace(load, target, warm)
        file_bytes = (load.records - paced.held_back) * load.record_bytes
        until(lambda: size_of(self.root / "log") >= file_bytes, f"{file_bytes} bytes in the file")
        return paced


@dataclass(frozen=True)
class Rsyslog:
    """imptcp into omfile with `sync="on"`. It does not report what is safe: its file is checked."""

    software: Path
    name: str = "rsyslog"
    records_max: int = 10**9
    clients_max: int = 10**9

    @contextmanager
    def running(self, root: Path, wrapper: Sequence[str] = ()) -> Iterator[IntoFile]:
        """Starts it, in the foreground."""
        config = root / "rsyslog.conf"
        config.write_text(_RSYSLOG.format(root=root))
        command = [
            *(*wrapper, str(self.software / "usr/sbin/rsyslogd"), "-n", "-f", str(config)),
            *("-i", str(root / "pid"), "-M", str(modules(self.software, "imptcp.so"))),
        ]
        listening = partial(is_listening, root / "socket")
        with started(command, listening, environ(self.software)) as pid:
            yield IntoFile(pid, root)


@dataclass(frozen=True)
class SyslogNg:
    """unix-stream into file with `fsync(yes)` and flow control. It does not report what is safe."""

    software: Path
    name: str = "syslog-ng"
    records_max: int = 10**9
    clients_max: int = 10**9

    @contextmanager
    def running(self, root: Path, wrapper: Sequence[str] = ()) -> Iterator[IntoFile]:
        """Starts it, in the foreground."""
        config = root / "syslog-ng.conf"
        config.write_text(_SYSLOG_NG.format(root=root))
        command = [
            *(*wrapper, str(self.software / "usr/sbin/syslog-ng"), "-F", "--no-caps"),
            *("-f", str(config), "-R", str(root / "persist"), "-c", str(root / "control")),
            *("-p", str(root / "pid")),
            f"--module-path={modules(self.software, 'libaffile.so')}",
        ]
        listening = partial(is_listening, root / "socket")
        with started(command, listening, environ(self.software)) as pid:
            yield IntoFile(pid, root)
