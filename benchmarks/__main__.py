"""`make bench`: this daemon and its peers on the same records, round by round.

Works in a temporary directory beside this checkout, so that the disk is the one that the
checkout is on. BENCH_RECORDS, BENCH_ROUNDS and BENCH_SINGLES make it shorter.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import report
from benchmarks.engine import Engine, Null, latencies
from benchmarks.flood import Contender, Flood, cpu_s, peak_mib
from benchmarks.peers import Nats, peers
from benchmarks.records import RECORD_BYTES, real_looking_blocks
from benchmarks.software import environ, unpacked

RECORDS = int(os.environ.get("BENCH_RECORDS", "2000000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SINGLES = int(os.environ.get("BENCH_SINGLES", "1000"))
CLIENTS = (1, 16)
HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
_EVERYBODY = {"logengine", "rsyslog", "syslog-ng", "Redis", "NATS", "SQLite"}


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty directory on the disk of this checkout, its path short enough for a socket."""
    root = Path(tempfile.mkdtemp(prefix="bench-", dir=HERE.parent))
    try:
        yield root
    finally:
        shutil.rmtree(root)


def take(contender: Contender, flood: Flood) -> tuple[float, float, float]:
    """Records/s, CPU seconds per million records, and peak MiB of one contender."""
    flood = flood.of(contender.records_max)
    with scratch() as root, contender.running(root) as running:
        before = cpu_s(running.pid)
        took_s = running.take(flood)
        used_s = cpu_s(running.pid) - before
        return flood.total / took_s, used_s / flood.total * 1e6, peak_mib(running.pid)


def syncs_of(contender: Contender, flood: Flood, software: Path) -> tuple[int, int]:
    """How often one that was given `flood` synced, and how many records that were."""
    flood = flood.of(min(contender.records_max, 100_000))
    with scratch() as root:
        counts = root / "syncs"
        wrapper = [
            *(str(software / "usr/bin/strace"), "-f", "-c", "-o", str(counts)),
            *("-e", "trace=fsync,fdatasync,sync_file_range,msync"),
            # The contender's own libraries are not strace's business.
            *("-E", f"LD_LIBRARY_PATH={environ(software)['LD_LIBRARY_PATH']}"),
        ]
        with contender.running(root, wrapper) as running:
            running.take(flood)
            pid = running.pid
            # strace passes no signal on: what it watches is told itself.
            subprocess.run(["pkill", "-TERM", "-P", str(pid)], check=False)
        found = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)", counts.read_text(), re.MULTILINE)
        total = int(found[-1]) if found else 0
        return total, flood.total


def measure_latencies(
    contenders: Sequence[Contender], record: bytes, into: dict[str, list[float]]
) -> None:
    """One round of single records, into ratios and microseconds."""
    with scratch() as root, Engine().running(root) as running:
        acks, commits = latencies(running.path, root, record, SINGLES)
    for percent in (50, 99):
        ack, bare = (report.percentile(of, percent) for of in (acks, commits))
        into[f"ack p{percent} / bare loop p{percent}, x"].append(ack / bare)
        into[f"ack p{percent}, us"].append(ack * 1e6)
        into[f"bare loop p{percent}, us"].append(bare * 1e6)
    for contender in contenders:
        if isinstance(contender, Nats):
            with scratch() as root, contender.running(root) as nats:
                found = nats.latencies(record.rstrip(), SINGLES)
            into["NATS JetStream's ack p50, us"].append(report.percentile(found, 50) * 1e6)


def main() -> None:
    """Runs all rounds and writes the report."""
    blocks = real_looking_blocks(16)
    software = unpacked(HERE.parent / "bench-software")
    engine = Engine()
    contenders: list[Contender] = [engine, *peers(software), Null()]
    rates: dict[int, dict[str, list[float]]] = {n: defaultdict(list) for n in CLIENTS}
    cpu: dict[int, dict[str, list[float]]] = {n: defaultdict(list) for n in CLIENTS}
    peaks: dict[str, list[float]] = defaultdict(list)
    single: dict[str, list[float]] = defaultdict(list)
    for number in range(ROUNDS):
        for clients in CLIENTS:
            for contender in contenders:
                if clients > contender.clients_max:
                    continue
                rate, used_s, peak = take(contender, Flood(clients, RECORDS, blocks))
                rates[clients][contender.name].append(rate)
                cpu[clients][contender.name].append(used_s)
                if contender.name == engine.name:
                    peaks[f"{clients} clients"].append(peak)
        measure_latencies(contenders, blocks[0][:RECORD_BYTES], single)
        print(f"round {number + 1} of {ROUNDS} done", file=sys.stderr)
    names = {contender.name for contender in contenders}
    missing = [who for who in sorted(_EVERYBODY) if not any(n.startswith(who) for n in names)]
    parts = [report.introduction(ROUNDS, RECORDS, SINGLES, missing)]
    for clients in CLIENTS:
        title = f"{clients} client{'s' if clients > 1 else ''}"
        parts.append(report.throughput(title, engine.name, rates[clients], cpu[clients]))
    parts.append(report.medians("One record at a time", "", single))
    parts.append(report.medians("Peak memory of the daemon", "MiB", peaks))
    if (software / "usr/bin/strace").exists():
        rows = []
        for contender in contenders:
            if contender.name == "null" or contender.name.startswith("SQLite"):
                continue
            syncs, records = syncs_of(contender, Flood(1, RECORDS, blocks), software)
            rows.append([contender.name, f"{syncs:,}", f"{records:,}"])
        parts.append(
            "## Syncs, counted by strace in a run of its own\n\n"
            + report.table(["", "fsync, fdatasync", "records"], rows)
        )
    text = "\n".join(parts)
    RESULTS.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
