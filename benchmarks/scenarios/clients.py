"""The cost of sending in an application: a call of a logging handler, and a client's rate."""

import asyncio
import logging
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from logging.handlers import SocketHandler, SysLogHandler
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import plot, report
from benchmarks.contest import scratch
from benchmarks.engine import Engine
from benchmarks.flood import is_listening, started
from benchmarks.records import real_looking
from benchmarks.scenario import Aim, Bench, Scenario, Section
from logengine import AsyncClient, Client, LogEngineHandler

_CALLS = 20_000  # of each handler in each round
_CALLS_IN_TURN = 500
_RECORDS = 300_000
_OURS, _FILE, _SYSLOG, _SOCKET = "LogEngineHandler", "FileHandler", "SysLogHandler", "SocketHandler"
_CLIENT, _ASYNC_CLIENT = "Client", "AsyncClient"

Fields = dict[str, Any]


class Found(msgspec.Struct):
    """Microseconds of a call of each handler, and the acknowledged records/s of each client."""

    calls: int
    records: int
    p50_us: dict[str, list[float]]
    p99_us: dict[str, list[float]]
    curves_us: dict[str, list[tuple[float, float]]]  # microseconds, percent
    records_per_s: dict[str, list[float]]


def measure(bench: Bench) -> Found:
    """All handlers in turns of several hundred calls, then one client after the other."""
    sample = [
        msgspec.json.decode(line, type=Fields)
        for block in real_looking().blocks
        for line in block.splitlines()
    ]
    calls, records = bench.scaled(_CALLS), bench.scaled(_RECORDS)
    p50, p99, rates = defaultdict(list), defaultdict(list), defaultdict(list)
    everything: dict[str, list[float]] = defaultdict(list)
    for _ in bench.each_round("clients"):
        with scratch() as root, _handlers(root) as handlers:
            for name, values_s in _calls_s(handlers, calls).items():
                p50[name].append(report.percentile(values_s, 50) * 1e6)
                p99[name].append(report.percentile(values_s, 99) * 1e6)
                everything[name] += values_s
        with scratch() as root, Engine().running(root) as running:
            rates[_CLIENT].append(records / _client_s(running.path, sample, records))
            took_s = asyncio.run(_async_client_s(running.path, sample, records))
            rates[_ASYNC_CLIENT].append(records / took_s)
    curves = {name: report.distribution(of, 1e6) for name, of in everything.items()}
    return Found(calls, records, p50, p99, curves, rates)


@contextmanager
def _handlers(root: Path) -> Iterator[dict[str, logging.Handler]]:
    """One of each, with a peer that accepts what it sends."""
    datagrams, stream = root / "datagrams", root / "stream"
    sink = (sys.executable, "-m", "benchmarks.sink")
    with ExitStack() as stack:
        engine = stack.enter_context(Engine().running(root))
        stack.enter_context(started([*sink, "datagram", str(datagrams)], datagrams.exists))
        stack.enter_context(started([*sink, "stream", str(stream)], lambda: is_listening(stream)))
        made: dict[str, logging.Handler] = {
            _OURS: LogEngineHandler(socket=engine.path),
            _FILE: logging.FileHandler(root / "log"),
            _SYSLOG: SysLogHandler(str(datagrams)),
            _SOCKET: SocketHandler(str(stream), None),
        }
        yield {name: stack.enter_context(closing(handler)) for name, handler in made.items()}


def _calls_s(handlers: dict[str, logging.Handler], calls: int) -> dict[str, list[float]]:
    """Seconds of each call of `emit`."""
    found_s: dict[str, list[float]] = {name: [] for name in handlers}
    for handler in handlers.values():
        _turn_s(handler, 1)  # connects
    for begin in range(0, calls, _CALLS_IN_TURN):
        for name, handler in handlers.items():
            found_s[name] += _turn_s(handler, min(_CALLS_IN_TURN, calls - begin))
    return found_s


def _turn_s(handler: logging.Handler, calls: int) -> list[float]:
    emit, clock = handler.emit, time.perf_counter
    found_s = []
    for number in range(calls):
        # A new one each time, as a logger makes it: handlers leave notes in their records.
        record = _log_record(number)
        began = clock()
        emit(record)
        found_s.append(clock() - began)
    if isinstance(handler, LogEngineHandler):
        # Unsent records of its thread would cost the next one's turn. Raises if any are lost.
        handler.client.flush()
    return found_s


def _log_record(number: int) -> logging.LogRecord:
    return logging.LogRecord(
        *("shop.requests", logging.INFO, __file__, 120),
        *("request %d of %s handled in %.3f ms", (number, "/api/orders", 12.345), None),
        func="handle",
    )


def _client_s(path: Path, sample: Sequence[Fields], records: int) -> float:
    """Seconds until all records sent by one `Client` are durable."""
    began = time.perf_counter()
    with Client(socket=path) as client:
        for number in range(records):
            client.send(sample[number % len(sample)].copy())
        client.flush()
        return time.perf_counter() - began


async def _async_client_s(path: Path, sample: Sequence[Fields], records: int) -> float:
    """The same for one `AsyncClient`, on Python's own event loop."""
    began = time.perf_counter()
    async with AsyncClient(socket=path) as client:
        for number in range(records):
            await client.send(sample[number % len(sample)].copy())
        await client.flush()
        return time.perf_counter() - began


def render(found: Found, plots: Path) -> Section:
    """A table of the handlers' calls with their distribution, and one of the clients' rates."""
    shown: dict[str, list[float]] = {}
    for name in found.p50_us:
        shown[f"{name} p50, us"] = found.p50_us[name]
        shown[f"{name} p99, us"] = found.p99_us[name]
    p50 = report.ratios(found.p50_us[_OURS], found.p50_us[_FILE])
    shown[f"{_OURS} p50 / {_FILE} p50"] = p50
    shown[f"{_OURS} p99 / {_FILE} p99"] = report.ratios(found.p99_us[_OURS], found.p99_us[_FILE])
    aims = [Aim.at_most(f"a call of {_OURS}, p50 by {_FILE}'s", 1, p50)]
    aims += [
        Aim.at_least(f"durable records/s of one {name}, from dicts", 150_000, rates, "/s")
        for name, rates in found.records_per_s.items()
    ]
    path = plots / "clients.svg"
    title = "A call of a logging handler: how many take no longer"
    plot.lines(
        path,
        title,
        "microseconds",
        "percent of calls",
        found.curves_us,
        dots=False,
    )
    rates = {f"{name}, records/s": of for name, of in found.records_per_s.items()}
    text = (
        f"{found.calls:,} calls of `emit` of each handler in each round, in turns of "
        f"{_CALLS_IN_TURN} in one thread, with equal log records. {_OURS} sends all fields of "
        f"one; the others are as they come, so {_FILE} writes the message alone, and syncs "
        f"nothing. {_SYSLOG} and {_SOCKET} send over Unix sockets to a process that only reads. "
        f"What is left to send at the end of a turn of {_OURS} is waited for and not counted: "
        "what it costs shows in the rates below.\n\n"
        f"{report.medians(shown)}\n{report.image(path, title)}\n"
        f"{found.records:,} records of 256 bytes in each round, each a dict of its own, from the "
        "making of the client to the last ack; client and daemon on the same cores.\n\n"
        f"{report.medians(rates)}"
    )
    return Section(text, aims)


SCENARIO = Scenario("clients", "What sending costs an application", Found, measure, render)
