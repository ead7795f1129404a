"""The routes in a configuration: which are for which socket, and what is wrong with them."""

from collections.abc import Iterator, Mapping
from datetime import UTC, tzinfo

from logengine.daemon.config_sections import Config, ListenConfig, NetworkConfig
from logengine.errors import InvalidFilter
from logengine.format.segment import STREAM_NAME_RULE, is_stream_name
from logengine.intake.routes import Route, Routes, Template, names_of_kernel, route
from logengine.protocols.registry import protocols

_STREAM = f"{STREAM_NAME_RULE}, or fields in braces, such as 'web-{{app}}'"


def all_routes(
    config: Config, zone: tzinfo
) -> Mapping[ListenConfig | NetworkConfig, Routes | None]:
    """Returns the routes for the records of each socket; None if all go to the same stream.

    Times without an offset in a condition are in `zone`.
    """
    return {each: _routes_of(each, config, zone) for _, each in _sockets(config)}


def _routes_of(listen: ListenConfig | NetworkConfig, config: Config, zone: tzinfo) -> Routes | None:
    if protocols()[listen.protocol].names_streams:
        return None
    routes = [
        route(each.where, each.stream, zone)
        for each in config.route
        if each.path in ("", _path(listen))
    ]
    own = Route(None, Template(listen.stream))
    if own.stream.is_fixed and not routes:
        return None
    return Routes([*routes, own], zone)


def _path(listen: ListenConfig | NetworkConfig) -> str:
    return listen.address if isinstance(listen, NetworkConfig) else listen.path


def _sockets(config: Config) -> Iterator[tuple[str, ListenConfig | NetworkConfig]]:
    for number, listen in enumerate(config.listen):
        yield f"listen[{number}]", listen
    for number, network in enumerate(config.network):
        yield f"network[{number}]", network


def stream_for_others(listen: ListenConfig | NetworkConfig) -> str:
    """Returns the stream for what no other one is named for: `fallback`, or the socket's."""
    return listen.fallback if "{" in listen.stream else listen.stream


def problems(config: Config) -> Iterator[tuple[str, str, str]]:
    """Yields what is wrong with the routes: the key, what was found, and what is expected."""
    paths = {_path(listen) for _, listen in _sockets(config)}
    for number, each in enumerate(config.route):
        where = f"route[{number}]"
        try:
            route(each.where, "default", UTC)
        except InvalidFilter as error:
            yield f"{where}.where", repr(each.where), f"an expression ({error.lines()[0]})"
        yield from _problems_of_stream(f"{where}.stream", each.stream)
        if each.path and each.path not in paths:
            yield (
                f"{where}.path",
                repr(each.path),
                "the path of a [[listen]], or the address of a [[network]]",
            )
    for where, listen in _sockets(config):
        yield from _problems_of_stream(f"{where}.stream", listen.stream)
        if not is_stream_name(listen.fallback):
            yield f"{where}.fallback", repr(listen.fallback), STREAM_NAME_RULE
        yield from _problems_of_protocol(f"{where}.stream", listen)


def _problems_of_stream(key: str, stream: str) -> Iterator[tuple[str, str, str]]:
    try:
        is_right = is_stream_name(stream) or not Template(stream).is_fixed
    except InvalidFilter as error:
        yield key, repr(stream), f"{_STREAM} ({error.lines()[0]})"
    else:
        if not is_right:
            yield key, repr(stream), _STREAM


def _problems_of_protocol(
    key: str, listen: ListenConfig | NetworkConfig
) -> Iterator[tuple[str, str, str]]:
    protocol = protocols().get(listen.protocol)
    if protocol is None or is_stream_name(listen.stream):
        return
    if protocol.names_streams:
        why = f"a sender of {protocol.name} names another one itself"
        yield key, repr(listen.stream), f"{STREAM_NAME_RULE} ({why})"
    elif protocol.has_chunks and (names := names_of_kernel(Template(listen.stream).paths)):
        why = f"a chunk that is sent again must go to the same stream, so not {', '.join(names)}"
        yield key, repr(listen.stream), f"fields that are in the record itself, or {{uid}} ({why})"
