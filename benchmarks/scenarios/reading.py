"""Reads a gigabyte back: all of it, and the few lines that match, against `cat` and `grep`."""

import os
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks import plot, report
from benchmarks.contest import CHECKOUT, scratch
from benchmarks.engine import LOGENGINE, Client, Engine
from benchmarks.flood import Flood
from benchmarks.records import real_looking
from benchmarks.scenario import Aim, Bench, Scenario, Section, say
from benchmarks.software import environ
from logengine.disk.segment_file import list_segments, read_segment
from logengine.format.compression import compress_body, encode_compressed_header, with_frames
from logengine.reading import streams
from logengine.upkeep.search_filter_builder import SearchFilterBuilder

_RECORDS = 3_200_000  # with their envelope, slightly more than a gigabyte
_PARTS = 10  # each is followed by a matching line
_STREAM = "app"
_LITERAL = "needle-7f3a"
_NEEDLE = b'{"level":"error","event":"needle-7f3a"}\n'
# Shorter than what search filters know.
_SHORT_LITERAL = "e-7f"
_PATTERN = "needle-[0-9a-f]{4}"
_SKIPPING = "sealed: a rare literal"
_NOT_SKIPPING = "sealed: a rare literal, too short for search filters"
_OURS = Engine.name
_LEVEL = 3  # zstd's own default
_FORMS_FOR_PEOPLE = ("pretty", "short")
_ROWS_PER_S_MIN = 200_000


class Found(msgspec.Struct):
    """Seconds of each command for each task, round by round; start-up times; what was skipped."""

    plain_bytes: int
    sealed_bytes: int
    took_s: dict[str, dict[str, list[float]]]
    start_s: dict[str, list[float]]
    left_out: list[str]
    # Records in a second of CPU time of `cat` in each form for people, round by round.
    rows_per_s: dict[str, list[float]] = msgspec.field(default_factory=dict)


@dataclass(frozen=True)
class _Task:
    """A task for several shell commands, which have to print the same."""

    name: str
    directory: Path
    commands: Mapping[str, str]
    into_pipe: bool = True
    is_same: bool = True


def measure(bench: Bench) -> Found:
    """Writes the stream, and runs all commands in turn on each task."""
    found = Found(0, 0, defaultdict(lambda: defaultdict(list)), defaultdict(list), [])
    environment = {**os.environ, "PATH": environ(bench.software)["PATH"]}
    with ExitStack() as stack:
        tasks = []
        plain = stack.enter_context(_stream(bench))
        found.plain_bytes = _bytes(plain)
        tasks += _plain_tasks(plain, found.left_out)
        if (bench.software / "usr/bin/zstdgrep").exists():
            sealed = stack.enter_context(_stream(bench))
            _compress(sealed)
            found.sealed_bytes = _bytes(sealed)
            tasks += _sealed_tasks(sealed)
        else:
            found.left_out.append("compressed segments, for there is no zstdgrep")
        for task in tasks:  # brings every file into the page cache
            _check(task, {name: _run(task, name, environment)[1] for name in task.commands})
        for _ in bench.each_round("reading"):
            for task in tasks:
                for name in task.commands:
                    found.took_s[task.name][name].append(_run(task, name, environment)[0])
            for form in _FORMS_FOR_PEOPLE:
                task = _Task(form, plain, {_OURS: _ours(plain, "--no-pager", form=form)})
                before_s = _cpu_s_of_children()
                _run(task, _OURS, environment)
                cpu_s = _cpu_s_of_children() - before_s
                (summary,) = streams(_STREAM, data=plain.parent)
                found.rows_per_s.setdefault(form, []).append(summary.records / cpu_s)
            found.start_s["python -c pass"].append(_start_s([sys.executable, "-c", "pass"]))
            found.start_s["logengine cat --help"].append(_start_s([*LOGENGINE, "cat", "--help"]))
    return found


@contextmanager
def _stream(bench: Bench) -> Iterator[Path]:
    """A stream's directory, written by the daemon, with a rare line in it."""
    sample = real_looking()
    with scratch() as root:
        say("reading: writing a stream")
        with (
            Engine().running(root) as running,
            closing(Client(running.path, _STREAM)) as client,
        ):
            for number in range(1, _PARTS + 1):
                running.take(Flood(1, bench.scaled(_RECORDS) // _PARTS, sample), stream=_STREAM)
                client.socket.sendall(_NEEDLE)
                client.wait_for_ack(number)
        yield root / "data" / _STREAM


def _compress(directory: Path) -> None:
    """Compresses each segment of a directory as the compactor does, and makes search filters."""
    for first in list_segments(directory):
        header, body = read_segment(directory, first)
        frames = list(compress_body([body], _LEVEL))
        compressed = with_frames(header, frames)
        content = b"".join(each.content for each in frames)
        plain = directory / header.file_name
        (directory / compressed.file_name).write_bytes(
            encode_compressed_header(compressed) + content
        )
        plain.unlink()
    builder = SearchFilterBuilder(directory.parent)
    while builder.has_work:
        builder.step(lambda _: None)


def _ours(directory: Path, *options: str, form: str = "raw") -> str:
    data = str(directory.parent)
    command = [*LOGENGINE, "cat", _STREAM, "--format", form, "--data", data, *options]
    # Use the package of this checkout.
    return f"cd {shlex.quote(str(CHECKOUT))} && exec {shlex.join(command)}"


def _plain_tasks(plain: Path, left_out: list[str]) -> list[_Task]:
    cats = {_OURS: _ours(plain), "cat": "exec cat *.ndjson"}
    tasks = [
        # The output of cat also has the headers.
        _Task("all, into a pipe", plain, cats, is_same=False),
        _Task("all, to /dev/null", plain, cats, into_pipe=False),
    ]
    if not _can_filter():
        left_out.append("filtering, for `logengine cat` has no --grep")
        return tasks
    literal = {
        _OURS: _ours(plain, "--grep", _LITERAL, "--fixed-strings"),
        "grep -F": f"exec grep -hF {_LITERAL} *.ndjson",
        "LC_ALL=C grep -F": f"LC_ALL=C exec grep -hF {_LITERAL} *.ndjson",
    }
    pattern = {
        _OURS: _ours(plain, "--grep", _PATTERN),
        "grep -E": f"exec grep -hE '{_PATTERN}' *.ndjson",
        "LC_ALL=C grep -E": f"LC_ALL=C exec grep -hE '{_PATTERN}' *.ndjson",
    }
    return [
        *tasks,
        _Task("a rare literal", plain, literal),
        _Task("a rare pattern", plain, pattern),
    ]


def _sealed_tasks(sealed: Path) -> list[_Task]:
    cats = {_OURS: _ours(sealed), "zstdcat": "exec zstdcat *.ndjson*"}
    tasks = [_Task("sealed: all, into a pipe", sealed, cats, is_same=False)]
    if _can_filter():
        for name, literal in ((_SKIPPING, _LITERAL), (_NOT_SKIPPING, _SHORT_LITERAL)):
            commands = {
                _OURS: _ours(sealed, "--grep", literal, "--fixed-strings"),
                # It fails if a file has no match; the output is checked for completeness anyway.
                "zstdgrep -F": f"zstdgrep -hF {literal} *.ndjson* || true",
                "zstdcat, LC_ALL=C grep -F": f"zstdcat *.ndjson* | LC_ALL=C grep -F {literal}",
            }
            tasks.append(_Task(name, sealed, commands))
    return tasks


def _can_filter() -> bool:
    shown = subprocess.run([*LOGENGINE, "cat", "--help"], capture_output=True, check=True)
    return b"--fixed-strings" in shown.stdout


def _run(task: _Task, name: str, environment: Mapping[str, str]) -> tuple[float, int]:
    """Seconds from start to end of a command, and the number of bytes that it printed."""
    command = ["sh", "-c", task.commands[name]]
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=task.directory,
        env=environment,
        stdout=subprocess.PIPE if task.into_pipe else subprocess.DEVNULL,
    )
    count = 0
    if process.stdout is not None:
        buffer = bytearray(1024 * 1024)
        while received := os.readv(process.stdout.fileno(), [buffer]):
            count += received
        process.stdout.close()
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - began, count


def _cpu_s_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _check(task: _Task, counts: Mapping[str, int]) -> None:
    if task.is_same and len(set(counts.values())) > 1:
        raise ValueError(f"{task.name}: not the same bytes: {counts}")


def _start_s(command: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def _bytes(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.iterdir())


def render(found: Found, plots: Path) -> Section:
    """A table of all tasks, and a plot of the times."""
    rows = []
    for task, commands in found.took_s.items():
        for name, took_s in commands.items():
            times = report.ratios(commands[_OURS], took_s)
            of_theirs = "" if name == _OURS else f"{report.median(times)}x"
            rows.append([task, name, report.median(took_s, "s"), report.spread(took_s), of_theirs])
    path = plots / "reading.svg"
    title = f"Time to read {found.plain_bytes / 1e9:.2f} GB of records (median)"
    medians = {
        f"{task}: {name}": {"seconds": statistics.median(took_s)}
        for task, commands in reversed(found.took_s.items())
        for name, took_s in reversed(commands.items())
    }
    plot.bars(path, title, "seconds", medians)
    starts = ", ".join(f"`{name}` {report.median(of)} s" for name, of in found.start_s.items())
    left_out = f" Left out here: {'; '.join(found.left_out)}." if found.left_out else ""
    sealed = f"; sealed, {found.sealed_bytes / 1e9:.2f} GB" if found.sealed_bytes else ""
    text = (
        f"`logengine cat --format raw` of one stream of {found.plain_bytes / 1e9:.2f} GB{sealed}, "
        f"in the page cache, against the usual programs on the same files; {_PARTS} lines match. "
        "Whole processes, from start to end, printing into a pipe whose reader only counts bytes. "
        f"Nothing is subtracted; of it is the start: {starts}.{left_out}\n\n"
        f"{report.table(['', '', 'median', 'spread', 'logengine takes'], rows)}\n"
        f"{report.image(path, title)}{_rows_text(found.rows_per_s)}"
    )
    return Section(text, [*_aims(found.took_s), *_aims_of_rows(found.rows_per_s)])


def _rows_text(rows_per_s: Mapping[str, Sequence[float]]) -> str:
    if not rows_per_s:
        return ""
    shown = [[f"`-o {form}`", report.median(of, "/s")] for form, of in rows_per_s.items()]
    return (
        f"\n\nThe same stream as rows for people:\n\n{report.table(['', 'per CPU second'], shown)}"
    )


def _aims_of_rows(rows_per_s: Mapping[str, Sequence[float]]) -> list[Aim]:
    name = "pretty: records a second, on one core"
    return [
        Aim.at_least(name, _ROWS_PER_S_MIN, of, "/s")
        for form, of in rows_per_s.items()
        if form == "pretty"
    ]


def _aims(took_s: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Aim]:
    aims = []
    for task, commands in took_s.items():
        ours = commands[_OURS]
        rivals = [values for name, values in commands.items() if name != _OURS]
        best = [min(of) for of in zip(*rivals, strict=True)]
        if "cat" in commands:
            speeds = report.ratios(best, ours)
            aims.append(Aim.at_least(f"reading {task}: speed by `cat`'s", 0.5, speeds))
        elif "zstdgrep -F" in commands:
            times = report.ratios(ours, commands["zstdgrep -F"])
            # Of a gigabyte, most of the time is Python's start; of 10, it is 0.03.
            most = 0.15 if task == _SKIPPING else 1
            aims.append(Aim.at_most(f"filtering, {task}: time by `zstdgrep`'s", most, times))
        elif "grep" in " ".join(commands):
            times = report.ratios(ours, best)
            aims.append(Aim.at_most(f"filtering, {task}: time by `grep`'s", 2, times))
    return aims


SCENARIO = Scenario("reading", "Reading", Found, measure, render)
