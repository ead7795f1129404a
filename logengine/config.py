"""Typed settings from a TOML file, the command line and the environment.

`config/logengine.toml` shows and explains every key. What a file does not say has the
default given here.
"""

import difflib
import tomllib
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import tomli_w

from logengine.errors import ConfigError
from logengine.segment import STREAM_NAME_RULE, is_stream_name
from logengine.units import (
    format_duration,
    format_mode,
    format_size,
    parse_duration,
    parse_mode,
    parse_size,
)

SYSTEM_CONFIG = Path("/etc/logengine/logengine.toml")

KiB = 1024
MiB = 1024 * KiB


class Size(int):
    """Bytes, written as `64KiB`."""


class Duration(float):
    """Seconds, written as `250ms`."""


class Mode(int):
    """Permissions, written as `0666`."""


Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]

_PARSERS: dict[type, Callable[[str], float]] = {
    Size: parse_size,
    Duration: parse_duration,
    Mode: parse_mode,
}
_FORMATTERS: dict[type, Callable[[Any], str]] = {
    Size: format_size,
    Duration: format_duration,
    Mode: format_mode,
}


class CommitConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[commit]`: how batches are made durable."""

    linger: Duration = Duration(0)
    rewrite_limit: Size = Size(64 * KiB)
    max_batch: Size = Size(8 * MiB)
    pipeline_bytes: Size = Size(2 * MiB)
    threads: Count = 8
    retry_min: Duration = Duration(0.05)
    retry_max: Duration = Duration(5)


class LimitsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[limits]`: how much anything may take."""

    max_record: Size = Size(1 * MiB)
    max_pending: Size = Size(64 * MiB)
    max_pending_stream: Size = Size(16 * MiB)
    max_connections: Count = 4096
    max_streams: Count = 4096
    max_producers: Count = 1024
    active_cache: Size = Size(32 * MiB)
    stall_timeout: Duration = Duration(30)


class ListenConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[listen]]`: one socket."""

    path: str
    protocol: Literal["ndjson"] = "ndjson"
    type: Literal["stream"] = "stream"
    stream: str = "default"
    mode: Mode = Mode(0o666)


class LogConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[log]`: the daemon's own log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that can be set. Sizes are in bytes, durations in seconds."""

    data: str = ""
    stop_timeout: Duration = Duration(10)
    commit: CommitConfig = CommitConfig()
    limits: LimitsConfig = LimitsConfig()
    listen: tuple[ListenConfig, ...] = ()
    log: LogConfig = LogConfig()


def load_config(
    path: Path | None,
    *,
    data: Path | None,
    socket: Path | None,
    environ: Mapping[str, str],
    uid: int,
) -> Config:
    """The configuration in `path`, or the defaults, with the command line's say on top.

    `data` replaces the file's; `socket` is one more listener, and the only one where the
    file names none. Raises `ConfigError` naming the file, the key and what is allowed.
    """
    said = read_config(path) if path is not None else Config()
    listen = list(said.listen)
    if socket is not None:
        listen.append(ListenConfig(path=str(socket.absolute())))
    if not listen:
        listen.append(ListenConfig(path=str(default_socket(environ, uid))))
    where = str(data.absolute()) if data else said.data or str(default_data(environ, uid))
    config = msgspec.structs.replace(said, data=where, listen=tuple(listen))
    _check(config, str(path) if path is not None else "command line")
    return config


def read_config(path: Path) -> Config:
    """What the file `path` says, and defaults for the rest. Raises `ConfigError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    return parse_config(text, str(path))


def parse_config(text: str, origin: str) -> Config:
    """The configuration in TOML `text`, which came from `origin`. Raises `ConfigError`."""
    try:
        said = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{origin}: not TOML: {error}") from None
    _check_keys(said, Config, origin, "")
    try:
        config = msgspec.convert(said, Config, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{origin}: {_readable(str(error))}") from None
    _check(config, origin)
    return config


def render_config(config: Config) -> str:
    """TOML that says exactly `config`."""
    return tomli_w.dumps(msgspec.to_builtins(config, enc_hook=_encode))


def default_data(environ: Mapping[str, str], uid: int) -> Path:
    """Where records are kept if nobody says otherwise."""
    if given := environ.get("LOGS_DIRECTORY"):
        return Path(given.split(":")[0])
    if uid == 0:
        return Path("/var/log/logengine")
    state = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME", "/"), ".local", "state")
    return Path(state, "logengine")


def default_socket(environ: Mapping[str, str], uid: int) -> Path:
    """Where the daemon listens if nobody says otherwise."""
    if given := environ.get("RUNTIME_DIRECTORY"):
        return Path(given.split(":")[0], "socket")
    if uid == 0:
        return Path("/run/logengine/socket")
    return Path(environ.get("XDG_RUNTIME_DIR") or f"/tmp/logengine-{uid}", "logengine", "socket")  # noqa: S108


def _decode(kind: type, value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(f"expected {kind.__doc__}, with quotes")  # noqa: TRY004 - msgspec wants it
    return kind(_PARSERS[kind](value))


def _encode(value: Any) -> object:
    return _FORMATTERS[type(value)](value)


def _readable(message: str) -> str:
    """Msgspec's `Expected … - at `$.commit.linger`` with the key in front."""
    what, separator, where = message.rpartition(" - at `$")
    return f"{where.rstrip('`').lstrip('.')}: {what}" if separator else message


def _check_keys(said: Any, kind: Any, origin: str, where: str) -> None:
    """Refuses keys that `kind` does not have, naming those that it has."""
    if get_args(kind) and isinstance(said, list):
        for number, item in enumerate(said):
            _check_keys(item, get_args(kind)[0], origin, f"{where}[{number}]")
    if get_origin(kind) is Literal and said not in get_args(kind):
        expected = " or ".join(repr(choice) for choice in get_args(kind))
        raise ConfigError(f"{origin}: {where}: {said!r}; expected {expected}")
    if not isinstance(said, dict) or not _is_table(kind):
        return
    allowed = get_type_hints(kind, include_extras=True)
    for key, value in said.items():
        path = f"{where}.{key}".lstrip(".")
        if key not in allowed:
            close = difflib.get_close_matches(key, allowed, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(
                f"{origin}: unknown key {path!r}{meant} (allowed here: {', '.join(allowed)})"
            )
        _check_keys(value, allowed[key], origin, path)


def _is_table(kind: Any) -> bool:
    return (
        isinstance(kind, type)
        and not isinstance(kind, types.GenericAlias)
        and issubclass(kind, msgspec.Struct)
    )


def _check(config: Config, origin: str) -> None:
    """Refuses settings that do not go together."""
    limits, commit = config.limits, config.commit
    at_least = {
        "commit.max_batch": (commit.max_batch, 4 * KiB),
        "commit.pipeline_bytes": (commit.pipeline_bytes, 1),
        "limits.max_record": (limits.max_record, 64),
        "limits.max_pending": (limits.max_pending, 4 * limits.max_record),
        "limits.max_pending_stream": (limits.max_pending_stream, limits.max_record),
    }
    for key, (found, least) in at_least.items():
        if found < least:
            raise ConfigError(
                f"{origin}: {key}: {format_size(found)}; expected at least {format_size(least)}"
            )
    if limits.max_pending_stream > limits.max_pending:
        raise ConfigError(
            f"{origin}: limits.max_pending_stream: {format_size(limits.max_pending_stream)}; "
            f"expected at most limits.max_pending, {format_size(limits.max_pending)}"
        )
    if not 0 < commit.retry_min <= commit.retry_max:
        raise ConfigError(
            f"{origin}: commit.retry_min: expected more than 0ms and at most commit.retry_max"
        )
    if config.data and not config.data.startswith("/"):
        raise ConfigError(f"{origin}: data: {config.data!r}; expected an absolute path")
    seen: set[str] = set()
    for number, listen in enumerate(config.listen):
        where = f"{origin}: listen[{number}]"
        if not listen.path.startswith("/"):
            raise ConfigError(f"{where}.path: {listen.path!r}; expected an absolute path")
        if listen.path in seen:
            raise ConfigError(f"{where}.path: {listen.path} is listened at twice")
        seen.add(listen.path)
        if not is_stream_name(listen.stream):
            raise ConfigError(f"{where}.stream: {listen.stream!r}; expected {STREAM_NAME_RULE}")
