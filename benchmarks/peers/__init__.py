"""The alternatives to logengine, each with its fsync on."""

from pathlib import Path

from benchmarks.flood import Contender
from benchmarks.peers.nats import Nats
from benchmarks.peers.redis import Redis
from benchmarks.peers.sqlite import Sqlite
from benchmarks.peers.syslogs import Rsyslog, SyslogNg

_EVERYBODY = ("rsyslog", "syslog-ng", "Redis", "NATS", "SQLite")


def peers(software: Path) -> list[Contender]:
    """All peers that are available here."""
    found: list[Contender] = [Sqlite()]
    wanted: list[tuple[str, Contender]] = [
        ("usr/sbin/rsyslogd", Rsyslog(software)),
        ("usr/sbin/syslog-ng", SyslogNg(software)),
        ("usr/bin/redis-server", Redis(software)),
        ("usr/sbin/nats-server", Nats(software)),
    ]
    found += [peer for program, peer in wanted if (software / program).exists()]
    return found


def syslogs(software: Path) -> list[Rsyslog | SyslogNg]:
    """Those that are measured wherever the engine has to be ahead."""
    return [peer for peer in peers(software) if isinstance(peer, Rsyslog | SyslogNg)]


def missing(software: Path) -> list[str]:
    """The names of those that are not available here."""
    names = [peer.name for peer in peers(software)]
    return [who for who in _EVERYBODY if not any(name.startswith(who) for name in names)]
