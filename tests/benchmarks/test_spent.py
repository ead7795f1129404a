"""What a process and its children spend is counted once, also after a child has ended."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.contest import CHECKOUT, scratch
from benchmarks.machine import this_machine
from benchmarks.spent import spent

MIB = 2**20
WRITE = "import os, sys; f = open(sys.argv[1], 'wb'); f.write(bytes(1 << 20)); os.fsync(f)"
# Starts a child that writes, and lives on; does the same itself when it is asked to.
PARENT = f"""
import subprocess, sys
CODE = {WRITE!r}
for line in sys.stdin:
    if line == "child\\n":
        subprocess.run([sys.executable, "-c", CODE, sys.argv[1] + "-child"], check=True)
    else:
        exec(CODE)
    print("done", flush=True)
"""


@pytest.mark.skipif(this_machine(CHECKOUT).file_system == "tmpfs", reason="memory has no disk")
@pytest.mark.parametrize("who", ["child", "parent"])
def test_what_a_process_and_its_ended_children_write_counts(who: str) -> None:
    with scratch() as root:
        command = [sys.executable, "-c", PARENT, str(root / "file")]
        with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as process:
            assert process.stdin
            assert process.stdout
            before = spent(process.pid, root)
            process.stdin.write(f"{who}\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"
            used = spent(process.pid, root).since(before)
            process.stdin.close()
    assert MIB <= used.written_bytes < 2 * MIB
    assert used.cpu_s > 0
    assert used.at_s > 0


def test_processor_time_is_that_of_the_process_and_in_less_than_ticks() -> None:
    before = spent(os.getpid(), Path("/"))
    readings = {spent(os.getpid(), Path("/")).cpu_s for _ in range(10)}
    assert min(readings) > before.cpu_s
    assert len(readings) > 1
