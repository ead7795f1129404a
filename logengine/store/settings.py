"""The settings of the store and of its callers: the sections `[commit]` and `[limits]`.

`config/logengine.toml` explains each key. The parts that serve use these structs directly.
"""

from typing import Annotated, Literal

import msgspec

from logengine.units import Duration, KiB, MiB, Size

COUNT_MAX = 1_000_000

Count = Annotated[int, msgspec.Meta(ge=1, le=COUNT_MAX)]


class CommitConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[commit]`: how batches are made durable."""

    linger: Duration = Duration(0.02)
    rewrite_limit: Size = Size(64 * KiB)
    direct_above: Size = Size(256 * KiB)
    max_batch: Size = Size(8 * MiB)
    pipeline_bytes: Size = Size(2 * MiB)
    in_loop_below: Duration = Duration(0.005)
    threads: Count = 8
    one_flush: Literal["auto", "never"] = "never"
    retry_min: Duration = Duration(0.05)
    retry_max: Duration = Duration(5)


class LimitsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[limits]`: maximum sizes and counts."""

    max_record: Size = Size(1 * MiB)
    max_request: Size = Size(8 * MiB)
    max_pending: Size = Size(64 * MiB)
    max_pending_stream: Size = Size(32 * MiB)
    max_connections: Count = 4096
    hello_timeout: Duration = Duration(10)
    max_streams: Count = 4096
    max_producers: Count = 1024
    max_producer_names: Size = Size(32 * KiB)
    max_users: Count = 1024
    uid_percent: Annotated[int, msgspec.Meta(ge=1, le=100)] = 90
    reserved_percent: Annotated[int, msgspec.Meta(ge=0, le=50)] = 6
    active_cache: Size = Size(32 * MiB)
    stall_timeout: Duration = Duration(30)
