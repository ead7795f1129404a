"""The sections of the configuration, typed: what can be set, and what holds otherwise.

`config/logengine.toml` shows and explains every key.
"""

from typing import Annotated, Literal

import msgspec

from logengine.intake.quota import Over, Quota
from logengine.protocols.registry import DEFAULT_PROTOCOL
from logengine.protocols.wire import Transport
from logengine.upkeep.compaction import FANOUT_MAX

KiB = 1024
MiB = 1024 * KiB


class Size(int):
    """Bytes, written as `64KiB`."""


class Duration(float):
    """Seconds, written as `250ms`."""


class RecordsPerSecond(int):
    """A number, 0 for no limit."""


class Mode(int):
    """Permissions, written as `0666`."""


COUNT_MAX = 1_000_000
# For how much longer than others a small stream must be quiet to be sealed.
SMALL_TIMES_LONGER = 24

Count = Annotated[int, msgspec.Meta(ge=1, le=COUNT_MAX)]


class CommitConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[commit]`: how batches are made durable."""

    linger: Duration = Duration(0)
    rewrite_limit: Size = Size(64 * KiB)
    direct_above: Size = Size(256 * KiB)
    max_batch: Size = Size(8 * MiB)
    pipeline_bytes: Size = Size(2 * MiB)
    in_loop_below: Duration = Duration(0.005)
    threads: Count = 8
    retry_min: Duration = Duration(0.05)
    retry_max: Duration = Duration(5)


class LimitsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[limits]`: how much anything may take."""

    max_record: Size = Size(1 * MiB)
    max_pending: Size = Size(64 * MiB)
    max_pending_stream: Size = Size(32 * MiB)
    max_connections: Count = 4096
    max_streams: Count = 4096
    max_producers: Count = 1024
    max_users: Count = 1024
    active_cache: Size = Size(32 * MiB)
    stall_timeout: Duration = Duration(30)


class ListenConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[listen]]`: one socket."""

    path: str
    protocol: str = DEFAULT_PROTOCOL
    type: Transport = "stream"
    stream: str = "default"
    mode: Mode = Mode(0o666)


class CompactionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[compaction]`: how segments are merged and sealed."""

    enabled: bool = True
    fanout: Annotated[int, msgspec.Meta(ge=2, le=FANOUT_MAX)] = 16
    seal_bytes: Size = Size(16 * MiB)
    seal_after: Duration = Duration(3600)
    seal_small_after: Duration = Duration(SMALL_TIMES_LONGER * 3600)
    max_rate: Size = Size(96 * MiB)
    level: Annotated[int, msgspec.Meta(ge=1, le=19)] = 3
    seal_key: str = ""


class StreamRetentionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[stream.NAME.retention]`: what one stream keeps. 0 is no limit."""

    max_bytes: Size = Size(0)
    max_age: Duration = Duration(0)


class RetentionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[retention]`: what all streams together keep, and for how long each. 0 is no limit."""

    max_bytes: Size = Size(0)
    max_age: Duration = Duration(0)
    keep_free: str = "0B"


class LogConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[log]`: the daemon's own log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class QuotaConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[quota.stream]`, `[quota.uid]`, `[stream.NAME.quota]`, `[uid.NUMBER.quota]`."""

    records_per_s: RecordsPerSecond = RecordsPerSecond(0)
    bytes_per_s: Size = Size(0)
    burst: Duration = Duration(1)
    max_bytes: Size = Size(0)
    over: Over = "block"

    def quota(self) -> Quota:
        """What the core makes of it."""
        return Quota(
            self.records_per_s, self.bytes_per_s, self.burst, self.over, int(self.max_bytes)
        )


class QuotasConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[quota]`: how much each stream, and each user, may be sent or send, and have."""

    report_every: Duration = Duration(10)
    stream: QuotaConfig = QuotaConfig()
    uid: QuotaConfig = QuotaConfig()


OnFull = Literal["block", "drop_oldest"]


class StreamConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`[stream.NAME]`: what is otherwise in one stream; what it does not say is as for all."""

    on_full: OnFull | msgspec.UnsetType = msgspec.UNSET
    quota: QuotaConfig | msgspec.UnsetType = msgspec.UNSET
    retention: StreamRetentionConfig | msgspec.UnsetType = msgspec.UNSET


class UidConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`[uid.NUMBER]`: what is otherwise for one user."""

    quota: QuotaConfig | msgspec.UnsetType = msgspec.UNSET


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that can be set. Sizes are in bytes, durations in seconds."""

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
    compaction: CompactionConfig = CompactionConfig()
    retention: RetentionConfig = RetentionConfig()
    log: LogConfig = LogConfig()
