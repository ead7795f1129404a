"""Loads the configuration from a TOML file, the command line and the environment; renders it.

`config_sections` defines the keys. This module refuses settings that contradict each other.
"""

import difflib
import os
import re
import tomllib
import types
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
import tomli_w

from logengine.daemon.config_routes import problems
from logengine.daemon.config_sections import (
    Config,
    ListenConfig,
    Mode,
    RetentionConfig,
    StreamConfig,
    UidConfig,
)
from logengine.default_paths import default_data, default_socket
from logengine.errors import ConfigError
from logengine.format.segment import STREAM_NAME_RULE, is_stream_name
from logengine.intake.quota import QuotaConfig
from logengine.protocols.registry import protocols
from logengine.protocols.wire import Transport
from logengine.socket_address import is_abstract, network_address, tcp_address_of
from logengine.store.settings import COUNT_MAX
from logengine.units import (
    Duration,
    KiB,
    MiB,
    RecordsPerSecond,
    Size,
    format_duration,
    format_mode,
    format_size,
    parse_count,
    parse_duration,
    parse_free_space,
    parse_mode,
    parse_size,
)
from logengine.upkeep.compaction_plan import SMALL_TIMES_LONGER

SYSTEM_CONFIG = Path("/etc/logengine/logengine.toml")
_ABSOLUTE = "an absolute path without NUL"
_WHY_NOT: dict[Transport, str] = {
    "datagram": "needs a connection",
    "stream": "is sent in datagrams",
}
_NETWORK_ADDRESS = "an address and a port, such as '127.0.0.1:514' or '[::1]:514'"
_UID = re.compile(r"0|[1-9][0-9]{0,9}")
_LINE_BYTES_MIN = 64
_SOCKET_PATH_BYTES_MAX = 107  # the kernel's sockaddr_un has room for this and a NUL

_PARSERS: dict[type, Callable[[str], float]] = {
    Size: parse_size,
    Duration: parse_duration,
    RecordsPerSecond: parse_count,
    Mode: parse_mode,
}
_FORMATTERS: dict[type, Callable[[Any], str | int]] = {
    Size: format_size,
    Duration: format_duration,
    RecordsPerSecond: int,
    Mode: format_mode,
}
_EXPECTED: dict[type, str] = {
    Size: 'a size such as "64KiB", or a number of bytes',
    Duration: 'a duration such as "250ms", in quotes',
    RecordsPerSecond: "a whole number of records, 0 for no limit",
    Mode: 'permissions such as "0660", in quotes',
}
_EXPECTED_TYPES = {
    "int": f"a whole number from 1 to {COUNT_MAX}",
    "str": "text, in quotes",
    "object": "a table",
    "array": "an array of tables, [[{}]]",
}
_EXPECTED_KEYS = {
    "path": _ABSOLUTE,
    "address": _NETWORK_ADDRESS,
    "where": "an expression, such as 'level >= error'",
    "stream": "the name of a stream",
}


def load_config(
    path: Path | None,
    *,
    data: Path | None,
    socket: Path | None,
    environ: Mapping[str, str],
    uid: int,
) -> Config:
    """Returns the configuration in `path`, or the defaults, with the command line's options.

    `data` replaces the file's. `socket` adds a listener, unless the file already has it; if the
    file has none, it is the only one. Raises `ConfigError`, which names the file, the key and what
    is allowed.
    """
    said = read_config(path) if path is not None else Config()
    listen = list(said.listen)
    if socket is not None:
        added = str(socket if is_abstract(socket) else socket.absolute())
        if _normal(added) not in [_normal(one.path) for one in listen]:
            listen.append(ListenConfig(path=added))
    if not listen:
        listen.append(ListenConfig(path=str(default_socket(environ, uid))))
    where = str(data.absolute()) if data else said.data or str(default_data(environ, uid))
    config = msgspec.structs.replace(said, data=where, listen=tuple(listen))
    _check(config, str(path) if path is not None else "environment and command line")
    return config


def read_config(path: Path) -> Config:
    """Returns the settings in the file `path`, and defaults for the rest. Raises `ConfigError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    return parse_config(text, str(path))


def parse_config(text: str, origin: str) -> Config:
    """Returns the configuration in TOML `text`, which came from `origin`. Raises `ConfigError`."""
    try:
        said = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # Not only TOMLDecodeError: a number with 5,000 digits raises a plain ValueError.
        raise ConfigError(f"{origin}: not TOML: {error}") from None
    _check_keys(said, Config, origin, "")
    # Convert these one by one first: msgspec's error for a table of named tables lacks the name.
    for table, kind in (("stream", StreamConfig), ("uid", UidConfig)):
        named = said.get(table)
        for name, of_name in named.items() if isinstance(named, dict) else ():
            _converted(of_name, kind, origin, f"{table}.{name}")
    config = _with_what_follows(_converted(said, Config, origin), said)
    if said.get("data") == "":
        raise ConfigError(f"{origin}: data: ''; expected an absolute path, or omit the key")
    _check(config, origin)
    return config


def _with_what_follows(config: Config, said: Mapping[str, Any]) -> Config:
    """Returns the configuration with the defaults that depend on other keys, as set in `said`."""
    limits, compaction = config.limits, config.compaction
    if "max_pending_stream" not in said.get("limits", {}):
        share = min(limits.max_pending_stream, limits.max_pending // 2)
        limits = msgspec.structs.replace(limits, max_pending_stream=Size(share))
    if "max_request" not in said.get("limits", {}):
        share = min(limits.max_request, limits.max_pending // 8)
        limits = msgspec.structs.replace(limits, max_request=Size(share))
    if "seal_small_after" not in said.get("compaction", {}):
        longer = Duration(SMALL_TIMES_LONGER * compaction.seal_after)
        compaction = msgspec.structs.replace(compaction, seal_small_after=longer)
    return msgspec.structs.replace(config, limits=limits, compaction=compaction)


Table = TypeVar("Table")


def _converted(said: Any, kind: type[Table], origin: str, where: str = "") -> Table:
    try:
        return msgspec.convert(said, kind, dec_hook=_decode)
    except msgspec.ValidationError as error:
        problem = f"{where}.{_readable(str(error), said)}".lstrip(".").replace(".:", ":")
        raise ConfigError(f"{origin}: {problem}") from None


def render_config(config: Config) -> str:
    """Returns `config` as TOML, every key included."""
    return tomli_w.dumps(msgspec.to_builtins(config, enc_hook=_encode))


def _decode(kind: type, value: object) -> object:
    if kind in (Size, RecordsPerSecond) and type(value) is int:
        value = str(value)
    if not isinstance(value, str):
        # ValueError, not TypeError: msgspec adds the path of the key to a ValueError.
        raise ValueError(f"{value!r}; expected {_EXPECTED[kind]}")  # noqa: TRY004
    return kind(_PARSERS[kind](value))


def _encode(value: Any) -> object:
    return _FORMATTERS[type(value)](value)


def _readable(message: str, said: Any) -> str:
    """Rewrites msgspec's `Expected … - at `$.commit.threads``: the key and its value come first."""
    what, _, where = message.partition(" - at `$")
    where = where.rstrip("`").lstrip(".")
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", what):
        return f"{where}.{missing[1]}: missing; expected {_EXPECTED_KEYS[missing[1]]}"
    if wrong := re.match(r"Expected `(\w+)`", what):
        for name, index in re.findall(r"(\w+)(?:\[(\d+)\])?", where):
            said = said[name]
            said = said[int(index)] if index else said
        found = repr(said)
        if isinstance(said, dict | list):
            found = "a table" if isinstance(said, dict) else "an array"
        return f"{where}: {found}; expected {_EXPECTED_TYPES[wrong[1]].format(where)}"
    return f"{where}: {what}"


def _check_keys(said: Any, kind: Any, origin: str, where: str) -> None:
    """Refuses keys that `kind` does not have, and lists the allowed ones."""
    if get_origin(kind) in (Union, types.UnionType):  # with UnsetType: an optional key
        kind = get_args(kind)[0]
    if get_args(kind) and isinstance(said, list):
        for number, item in enumerate(said):
            _check_keys(item, get_args(kind)[0], origin, f"{where}[{number}]")
    if get_origin(kind) is Literal and said not in get_args(kind):
        expected = " or ".join(repr(choice) for choice in get_args(kind))
        raise ConfigError(f"{origin}: {where}: {said!r}; expected {expected}")
    if get_origin(kind) is dict and isinstance(said, dict):
        _check_named(said, get_args(kind)[1], origin, where)
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


def _check_named(said: dict[str, Any], kind: Any, origin: str, where: str) -> None:
    """Checks a table of named tables: refuses entries that are not tables, and wrong keys."""
    for name, item in said.items():
        if not isinstance(item, dict):
            raise ConfigError(f"{origin}: {where}.{name}: {item!r}; expected a table")
        _check_keys(item, kind, origin, f"{where}.{name}")


def _is_table(kind: Any) -> bool:
    return (
        isinstance(kind, type)
        and not isinstance(kind, types.GenericAlias)
        and issubclass(kind, msgspec.Struct)
    )


def _check(config: Config, origin: str) -> None:
    """Refuses settings that are out of bounds or contradict each other."""
    for key, found, expected, right in (*_size_rules(config), *_rules(config)):
        if not right:
            raise ConfigError(f"{origin}: {key}: {found}; expected {expected}")


_Rule = tuple[str, str, str, bool]


def _size_rules(config: Config) -> Iterator[_Rule]:
    """Yields the rules about sizes: the key, what was found, what is expected, whether it holds."""
    commit, limits = config.commit, config.limits
    record, pending = limits.max_record, limits.max_pending
    for key, size, least, why in (
        ("commit.max_batch", commit.max_batch, 4 * KiB, ""),
        ("commit.pipeline_bytes", commit.pipeline_bytes, 1, ""),
        ("compaction.seal_bytes", config.compaction.seal_bytes, 4 * KiB, ""),
        ("compaction.max_rate", config.compaction.max_rate, 4 * KiB, ""),
        ("log.max_waiting", config.log.max_waiting, 4 * KiB, ""),
        ("limits.max_record", record, 64, ""),
        ("limits.max_pending", pending, 4 * record, " (4 times limits.max_record)"),
        ("limits.max_pending_stream", limits.max_pending_stream, record, " (limits.max_record)"),
    ):
        yield key, format_size(size), f"at least {format_size(least)}{why}", size >= least
    # So no segment and no frame is larger than a reader accepts: see `BODY_BYTES_MAX`.
    for key, size, most in (
        ("limits.max_record", record, 32 * MiB),
        ("commit.max_batch", commit.max_batch, 256 * MiB),
        ("commit.rewrite_limit", commit.rewrite_limit, 256 * MiB),
        ("compaction.seal_bytes", config.compaction.seal_bytes, 256 * MiB),
    ):
        yield key, format_size(size), f"at most {format_size(most)}", size <= most
    yield (
        "limits.max_request",
        format_size(limits.max_request),
        f"at most {format_size(pending // 4)} (a quarter of limits.max_pending)",
        limits.max_request <= pending // 4,
    )
    yield (
        "limits.max_pending_stream",
        format_size(limits.max_pending_stream),
        f"at most {format_size(pending)} (limits.max_pending)",
        limits.max_pending_stream <= pending,
    )


def _rules(config: Config) -> Iterator[_Rule]:
    """Yields all other rules, in the same form."""
    commit = config.commit
    for key, duration in (
        ("stop_timeout", config.stop_timeout),
        ("quota.report_every", config.quota.report_every),
        ("log.report_every", config.log.report_every),
        *((f"{where}.burst", quota.burst) for where, quota in _quotas(config)),
        ("commit.retry_min", commit.retry_min),
        ("limits.stall_timeout", config.limits.stall_timeout),
        ("limits.hello_timeout", config.limits.hello_timeout),
        ("compaction.seal_after", config.compaction.seal_after),
        ("compaction.seal_small_after", config.compaction.seal_small_after),
    ):
        yield key, format_duration(duration), "more than 0ms", duration > 0
    yield (
        "commit.retry_min",
        format_duration(commit.retry_min),
        f"at most {format_duration(commit.retry_max)} (commit.retry_max)",
        commit.retry_min <= commit.retry_max,
    )
    for name in config.stream:
        yield f"stream.{name}", "not a stream's name", STREAM_NAME_RULE, is_stream_name(name)
    for name in config.uid:
        is_uid = _UID.fullmatch(name) is not None and int(name) < 2**32
        yield f"uid.{name}", "not a user's number", "a number, as in [uid.1000.quota]", is_uid
    if config.data:
        yield "data", repr(config.data), _ABSOLUTE, _is_absolute(config.data)
    for key, keep_free in (
        ("quota.keep_free", config.quota.keep_free),
        ("retention.keep_free", config.retention.keep_free),
    ):
        expected = 'a size such as "2GiB", or a share of the file system such as "5%"'
        yield key, repr(keep_free), expected, _is_free_space(keep_free)
    keeps_all = config.retention == RetentionConfig() and not any(
        said.retention for said in config.stream.values()
    )
    yield (
        "compaction.enabled",
        "false",
        "true if there is a [retention]: retention removes only sealed segments",
        config.compaction.enabled or keeps_all,
    )
    if key_path := config.compaction.seal_key:
        yield "compaction.seal_key", repr(key_path), _ABSOLUTE, _is_absolute(key_path)
    yield from _file_rules(config)
    yield from _network_rules(config)
    for key, found, expected in problems(config):
        yield key, found, expected, False
    seen: set[str] = set()
    for number, listen in enumerate(config.listen):
        where = f"listen[{number}]"
        yield from _address_rules(where, listen) if listen.address else _path_rules(where, listen)
        kind, expected = ("address", "an address") if listen.address else ("path", "a path")
        expected += " that no other listener has"
        right = _normal(listen.where) not in seen
        yield f"{where}.{kind}", repr(listen.where), expected, right
        seen.add(_normal(listen.where))
        yield from _protocol_rules(f"listen[{number}]", listen)


def _path_rules(where: str, listen: ListenConfig) -> Iterator[_Rule]:
    key = f"{where}.path"
    yield key, "missing", f"{_ABSOLUTE}; or an address", listen.path != ""
    right = _is_absolute(listen.path) or _is_abstract_name(listen.path)
    yield key, repr(listen.path), f"{_ABSOLUTE}, or @NAME of a socket of systemd", right
    yield (
        key,
        repr(listen.path),
        f"at most {_SOCKET_PATH_BYTES_MAX} bytes, the kernel's limit",
        len(os.fsencode(listen.path)) <= _SOCKET_PATH_BYTES_MAX,
    )


def _address_rules(where: str, listen: ListenConfig) -> Iterator[_Rule]:
    key = f"{where}.address"
    yield key, repr(listen.address), "none besides a path", not listen.path
    expected = 'an IP address and a port, such as "127.0.0.1:4318"'
    yield key, repr(listen.address), expected, tcp_address_of(listen.address) is not None
    over_tcp = [name for name, protocol in protocols().items() if protocol.is_over_tcp]
    expected = f"a path: only {' and '.join(over_tcp)} may have an address"
    yield key, repr(listen.address), expected, listen.protocol in over_tcp


def _file_rules(config: Config) -> Iterator[_Rule]:
    """Yields the rules about followed files."""
    for number, each in enumerate(config.file):
        where = f"file[{number}]"
        right = _is_absolute(each.path) and not each.path.endswith("/")
        yield f"{where}.path", repr(each.path), f"{_ABSOLUTE}, or a pattern of such paths", right
        data = f"{_normal(config.data)}/" if config.data else ""
        right = not data or not f"{_normal(each.path)}/".startswith(data)
        yield f"{where}.path", repr(each.path), "a path outside of the data directory", right
        right = not each.stream or is_stream_name(each.stream)
        yield f"{where}.stream", repr(each.stream), STREAM_NAME_RULE, right
        right = _is_pattern(each.start)
        yield f"{where}.start", repr(each.start), "a regular expression of Python", right
        yield f"{where}.wait", format_duration(each.wait), "more than 0ms", each.wait > 0
        right = _LINE_BYTES_MIN <= each.max_line <= 32 * MiB
        yield f"{where}.max_line", format_size(each.max_line), "64B to 32MiB", right


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text.encode())
    except (re.error, OverflowError, RecursionError):
        return False
    return True


def _network_rules(config: Config) -> Iterator[_Rule]:
    """Yields the rules for sockets of the network."""
    expected = " or ".join(repr(each.name) for each in protocols().values() if each.over_network)
    seen: set[tuple[str, int, Transport]] = set()
    for number, each in enumerate(config.network):
        where = f"network[{number}]"
        key = f"{where}.address"
        try:
            place = (*network_address(each.address), each.type)
        except ValueError:
            yield key, repr(each.address), _NETWORK_ADDRESS, False
            continue
        yield key, repr(each.address), "an address that no other [[network]] has", place not in seen
        seen.add(place)
        protocol = protocols().get(each.protocol)
        right = protocol is not None and protocol.over_network
        yield f"{where}.protocol", repr(each.protocol), expected, right
        for name in ("certificate", "key", "client_ca"):
            path = getattr(each, name)
            yield f"{where}.{name}", repr(path), _ABSOLUTE, not path or _is_absolute(path)
        right = bool(each.certificate) == bool(each.key) and (
            bool(each.certificate) or not each.client_ca
        )
        found = repr(each.certificate)
        yield f"{where}.certificate", found, "both a certificate and a key, or neither", right
        right = not each.certificate or each.type == "stream"
        yield f"{where}.certificate", found, "none for datagrams: TLS needs a connection", right
        for name in ("idle_timeout", "handshake_timeout"):
            duration = getattr(each, name)
            yield f"{where}.{name}", format_duration(duration), "more than 0ms", duration > 0


def _protocol_rules(where: str, listen: ListenConfig) -> Iterator[_Rule]:
    """Yields the rules that the protocol exists and works over this type of socket."""
    protocol = protocols().get(listen.protocol)
    expected = " or ".join(map(repr, protocols()))
    yield f"{where}.protocol", repr(listen.protocol), expected, protocol is not None
    right = listen.on_pressure == "block" or listen.type == "datagram"
    why = "'block' for a stream: its sender waits, and loses nothing"
    yield f"{where}.on_pressure", repr(listen.on_pressure), why, right
    if protocol is not None:
        expected = " or ".join(map(repr, protocol.transports))
        why = f"{protocol.name} {_WHY_NOT[listen.type]}: {listen.type} is not for it"
        right = listen.type in protocol.transports
        yield f"{where}.type", repr(listen.type), f"{expected} ({why})", right
        expected = f"another one, or its packages: pip install 'logengine[{protocol.extra}]'"
        right = all(map(_is_installed, protocol.packages))
        yield f"{where}.protocol", repr(listen.protocol), expected, right


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # not even the package around it
        return False


def _quotas(config: Config) -> Iterator[tuple[str, QuotaConfig]]:
    """Yields all quotas, each with its key."""
    yield "quota.stream", config.quota.stream
    yield "quota.uid", config.quota.uid
    for table, named in (("stream", config.stream), ("uid", config.uid)):
        for name, of_name in named.items():
            if of_name.quota is not msgspec.UNSET:
                yield f"{table}.{name}.quota", of_name.quota


def _is_free_space(text: str) -> bool:
    try:
        parse_free_space(text, 0)
    except ValueError:
        return False
    return True


def _is_absolute(path: str) -> bool:
    return path.startswith("/") and "\0" not in path


def _is_abstract_name(path: str) -> bool:
    return is_abstract(path) and path != "@" and "\0" not in path


def _normal(path: str) -> str:
    """Returns one spelling for each path; `normpath` alone keeps two leading slashes."""
    if is_abstract(path):
        return path
    return os.path.normpath(f"/{path.lstrip('/')}")
