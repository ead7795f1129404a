"""The same records stored in four ways: their disk space, and the time to find one of them."""

import os
import shlex
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks import plot, report
from benchmarks.contest import CHECKOUT, scratch
from benchmarks.disk import use_of
from benchmarks.engine import LOGENGINE, Client, Engine, stopped, wait_until_sealed
from benchmarks.flood import send_and_wait
from benchmarks.host_year import YEAR_START_NS
from benchmarks.log_lines import a_day_of_requests
from benchmarks.peers.journald import Journald, has_container
from benchmarks.scenario import Aim, Bench, Scenario, Section, say

_RECORDS = 1_000_000
_ROTATED_FILES = 10
_STREAM = "web"
_NEEDLE = b"5eedc0ffee15f00d"  # in place of a random id with as many digits
_OURS, _JOURNALD = Engine.name, Journald.name
_ZIPPED, _PLAIN = "text, gzip", "text"
# To seal everything soon after the last record has arrived.
_SETTINGS = """
[compaction]
seal_after = "1s"
seal_small_after = "1s"
"""
_SEALED_IN_S = 600.0
_READ_BYTES = 1024 * 1024


class Found(msgspec.Struct):
    """For each store its disk space, and the seconds to find a record, round by round."""

    records: int
    text_bytes: int
    files: dict[str, int]
    disk_bytes: dict[str, int]
    took_s: dict[str, list[float]]
    left_out: list[str]


@dataclass(frozen=True)
class _Kept:
    """All records, stored in one way, and the shell command that finds one in `directory`."""

    directory: Path
    command: str


def measure(bench: Bench) -> Found:
    """Stores the records in all ways, and runs all commands in turn."""
    count = bench.scaled(_RECORDS)
    found = Found(count, 0, {}, {}, defaultdict(list), [])
    with scratch() as root:
        say(f"archive: making {count:,} records")
        kept = {_PLAIN: _as_text(root / "text", count)}
        say("archive: gzip")
        kept[_ZIPPED] = _as_gzip(root / "gzip", kept[_PLAIN].directory)
        say(f"archive: {_OURS}")
        kept[_OURS] = _as_stream(root / "engine", kept[_PLAIN].directory, count)
        if has_container():
            say(f"archive: {_JOURNALD}")
            kept[_JOURNALD] = _as_journal(root / "peer", kept[_PLAIN].directory, count)
        else:
            found.left_out.append(
                f"{_JOURNALD}; it needs root and what tests/systemd/prepare makes"
            )
        os.sync()  # unwritten data takes no space
        found.text_bytes = sum(file.stat().st_size for file in kept[_PLAIN].directory.iterdir())
        for name, how in kept.items():
            use = use_of(how.directory)
            found.files[name], found.disk_bytes[name] = use.files, use.disk_bytes
            _find_s(name, how)  # brings every file into the page cache
        for _ in bench.each_round("archive"):
            for name, how in kept.items():
                found.took_s[name].append(_find_s(name, how))
    return found


def _as_text(directory: Path, count: int) -> _Kept:
    """One line per record, in files as logrotate leaves them."""
    directory.mkdir()
    share = count // _ROTATED_FILES or 1
    files = [directory / f"web.log-{number:02}" for number in range(_ROTATED_FILES)]
    written = 0
    for block in a_day_of_requests(count, YEAR_START_NS, _NEEDLE):
        with files[min(written // share, _ROTATED_FILES - 1)].open("ab") as file:
            file.write(block)
        written += block.count(b"\n")
    return _Kept(directory, f"exec grep -hF {_NEEDLE.decode()} *")


def _as_gzip(directory: Path, text: Path) -> _Kept:
    shutil.copytree(text, directory)
    subprocess.run(["gzip", *directory.iterdir()], check=True)
    return _Kept(directory, f"exec zgrep -hF {_NEEDLE.decode()} *")


def _as_stream(root: Path, text: Path, count: int) -> _Kept:
    root.mkdir()
    with (
        Engine(settings=_SETTINGS).running(root) as running,
        closing(Client(running.path, _STREAM)) as client,
    ):
        send_and_wait(client.socket.sendall, _pieces(text), lambda: client.wait_for_ack(count))
        wait_until_sealed(running.data, _SEALED_IN_S)
    if (records := stopped(root).records) != count:
        raise ValueError(f"{records} of {count} records were stored")
    search = ["cat", _STREAM, "--grep", _NEEDLE.decode(), "-F", "--data", str(running.data)]
    # Use the package of this checkout.
    command = f"cd {shlex.quote(str(CHECKOUT))} && exec {shlex.join([*LOGENGINE, *search])}"
    return _Kept(running.data / _STREAM, command)


def _as_journal(root: Path, text: Path, count: int) -> _Kept:
    archive = root / "archive"
    archive.mkdir(parents=True)
    with Journald().running(root) as running:
        for file in running.archive(_pieces(text), count):
            file.rename(archive / file.name)
    search = ["journalctl", "-q", "-D", str(archive), "--grep", _NEEDLE.decode()]
    # It would ignore the case of a pattern without capitals.
    return _Kept(archive, f"exec {shlex.join([*search, '--case-sensitive'])}")


def _pieces(text: Path) -> Iterator[bytes]:
    for path in sorted(text.iterdir()):
        with path.open("rb") as file:
            while piece := file.read(_READ_BYTES):
                yield piece


def _find_s(name: str, how: _Kept) -> float:
    """Seconds from start to end of a search, which has to print one line."""
    environment = {**os.environ, "LC_ALL": "C"}
    command = ["sh", "-c", how.command]
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=how.directory, env=environment, stdout=subprocess.PIPE, check=True
    )
    took_s = time.perf_counter() - began
    if done.stdout.count(b"\n") != 1 or _NEEDLE not in done.stdout:
        raise ValueError(f"{name}: {how.command} printed {done.stdout[:1000]!r}")
    return took_s


def render(found: Found, plots: Path) -> Section:
    """A table of sizes and times, and a plot of each."""
    per_record = {name: taken / found.records for name, taken in found.disk_bytes.items()}
    journald = per_record.get(_JOURNALD)
    ours_s = found.took_s[_OURS]
    rows = []
    for name, took_s in found.took_s.items():
        rows.append(
            [
                name,
                f"{found.files[name]:,}",
                report.number(found.disk_bytes[name] / 1e6),
                report.number(per_record[name]),
                f"{per_record[name] / journald:.3f}x" if journald else "",
                report.median([of * 1000 for of in took_s], "ms"),
                report.spread([of * 1000 for of in took_s]),
                "" if name == _OURS else f"{report.median(report.ratios(ours_s, took_s))}x",
            ]
        )
    head = [
        *("", "files", "MB on disk", "bytes a record", "by journald's"),
        *("to find one", "spread", f"{_OURS} takes"),
    ]
    left_out = f" Left out here: {'; '.join(found.left_out)}." if found.left_out else ""
    text = (
        f"{found.records:,} requests of a web service over a day, JSON of "
        f"{found.text_bytes / found.records:.0f} bytes a line with its newline, made from a seed: "
        "the keys, a few methods, resources, states and agents come again and again, 20,000 "
        "clients unequally often, and each line has a time, numbers and a random id of 16 digits "
        "of its own, so that no line comes twice. The same lines go into each.\n\n"
        f"- *{_OURS}*: its daemon with its defaults, all of it sealed. It adds time and sender to "
        "each record.\n"
        f"- *{_JOURNALD}*: its stdout socket, its defaults but for the rate limit; the files after "
        "`journalctl --rotate`, which are closed and cut to length. It adds time and sender, too, "
        "and compresses only fields of 512 bytes and more.\n"
        f"- *{_ZIPPED}*: {_ROTATED_FILES} files, each by `gzip` as logrotate has it, without an "
        "option.\n"
        f"- *{_PLAIN}*: the same before gzip. Nothing is added to these two, not even a time "
        "beside the record's own.\n\n"
        "Sizes are blocks on the disk. One record in the middle has an id that is looked for by "
        "`logengine cat --grep ID -F`, `journalctl -D --grep ID --case-sensitive`, "
        "`zgrep -F ID` and `grep -F ID`, with `LC_ALL=C`, as whole processes from start to end. "
        f"All files are in the page cache, for each of them was searched before.{left_out}\n\n"
    )
    return Section(
        text + report.table(head, rows) + "\n" + _plots(found, per_record, plots),
        _aims(found, per_record),
    )


def _plots(found: Found, per_record: Mapping[str, float], plots: Path) -> str:
    sizes, times = plots / "archive-size.svg", plots / "archive-search.svg"
    size_title, time_title = "Bytes on disk a record", "Time to find one record (median)"
    plot.bars(sizes, size_title, "bytes", {name: {"bytes": of} for name, of in per_record.items()})
    medians = {
        name: {"seconds": sorted(took_s)[len(took_s) // 2]} for name, took_s in found.took_s.items()
    }
    plot.bars(times, time_title, "seconds", medians)
    return report.image(sizes, size_title) + "\n" + report.image(times, time_title)


def _aims(found: Found, per_record: Mapping[str, float]) -> list[Aim]:
    aims = []
    if _JOURNALD in per_record:
        ratio = per_record[_OURS] / per_record[_JOURNALD]
        aims.append(Aim.at_most("sealed: bytes on disk by journald's", 0.15, [ratio]))
    commands = {_JOURNALD: "journalctl --grep", _ZIPPED: "zgrep"}
    for name, command in commands.items():
        if name in found.took_s:
            times = report.ratios(found.took_s[_OURS], found.took_s[name])
            aims.append(Aim.at_most(f"finding one record: time by `{command}`'s", 1, times))
    return aims


SCENARIO = Scenario("archive", "An archive: size and search", Found, measure, render)
