"""The sections of the configuration, typed, with the default of each key.

A section that a single part uses unchanged is defined with that part. `config/logengine.toml` shows
and explains every key.
"""

from typing import Literal

import msgspec

from logengine.followed_files.settings import FileConfig
from logengine.intake.quota import QuotaConfig, QuotasConfig
from logengine.protocols.registry import DEFAULT_PROTOCOL
from logengine.protocols.wire import Transport
from logengine.store.settings import CommitConfig, Count, LimitsConfig
from logengine.units import Duration, MiB, Size
from logengine.upkeep.compaction_plan import CompactionConfig
from logengine.upkeep.retention_plan import RetentionRule


class Mode(int):
    """Permissions, written as `0666`."""


class ListenConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[listen]]`: one socket: a Unix socket at `path`, or one of TCP at `address`."""

    path: str = ""
    address: str = ""
    protocol: str = DEFAULT_PROTOCOL
    type: Transport = "stream"
    stream: str = "default"
    fallback: str = "default"
    on_pressure: Literal["block", "drop"] = "block"
    mode: Mode = Mode(0o666)

    @property
    def where(self) -> str:
        """The path or the address, whichever it has."""
        return self.path or self.address


class NetworkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[network]]`: one socket that other hosts may reach. With a `certificate`, it has TLS."""

    address: str
    protocol: str = "syslog"
    type: Transport = "stream"
    stream: str = "network"
    fallback: str = "default"
    certificate: str = ""
    key: str = ""
    client_ca: str = ""
    max_connections: Count = 256
    max_per_address: Count = 32
    idle_timeout: Duration = Duration(3600)
    handshake_timeout: Duration = Duration(10)


class RouteConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[route]]`: records for which `where` holds go to `stream`; empty `path`: from anywhere."""

    where: str
    stream: str
    path: str = ""


class RetentionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[retention]`: how much all streams together keep, and how long each. 0 is no limit."""

    max_bytes: Size = Size(0)
    max_age: Duration = Duration(0)
    keep_free: str = "0B"


class LogConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[log]`: the daemon's own log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"
    max_lines: Count = 20
    report_every: Duration = Duration(10)
    max_waiting: Size = Size(1 * MiB)


OnFull = Literal["block", "drop_oldest"]


class StreamConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`[stream.NAME]`: settings of one stream. Unset keys are as for all streams."""

    on_full: OnFull | msgspec.UnsetType = msgspec.UNSET
    quota: QuotaConfig | msgspec.UnsetType = msgspec.UNSET
    retention: RetentionRule | msgspec.UnsetType = msgspec.UNSET


class UidConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`[uid.NUMBER]`: settings of one user."""

    quota: QuotaConfig | msgspec.UnsetType = msgspec.UNSET


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole configuration. Sizes are in bytes, durations in seconds."""

    data: str = ""
    stop_timeout: Duration = Duration(10)
    reserve: Size = Size(8 * MiB)
    on_full: OnFull = "block"
    commit: CommitConfig = CommitConfig()
    limits: LimitsConfig = LimitsConfig()
    quota: QuotasConfig = QuotasConfig()
    stream: dict[str, StreamConfig] = {}
    uid: dict[str, UidConfig] = {}
    listen: tuple[ListenConfig, ...] = ()
    file: tuple[FileConfig, ...] = ()
    network: tuple[NetworkConfig, ...] = ()
    route: tuple[RouteConfig, ...] = ()
    compaction: CompactionConfig = CompactionConfig()
    retention: RetentionConfig = RetentionConfig()
    log: LogConfig = LogConfig()
