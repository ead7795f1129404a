"""Runs commands one after the other, each in a process forked from one that imported them all.

    python forked_commands.py MEMORY_BYTES_MAX < commands.json > results.json

A command is a list of arguments. A result has its status, negative for a signal, and what it
printed. A command that takes longer than `PATIENCE_S` ends with SIGALRM; MEMORY_BYTES_MAX limits
its address space, 0 sets no limit.
"""

import importlib
import json
import os
import resource
import signal
import sys
import tempfile
from typing import Any

from logengine.cli import main

PATIENCE_S = 60
_MODULES = ("cat", "erase", "export", "ls", "repair", "retain", "seals", "tail", "verify", "send")


def run(arguments: list[str], memory_bytes_max: int) -> dict[str, Any]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            if memory_bytes_max:
                resource.setrlimit(resource.RLIMIT_AS, (memory_bytes_max, memory_bytes_max))
            signal.alarm(PATIENCE_S)
            status = 70
            try:
                main(arguments)
            except SystemExit as exit_:
                status = int(exit_.code or 0)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        _, status = os.waitpid(child, 0)
        out.seek(0)
        err.seek(0)
        return {
            "status": os.waitstatus_to_exitcode(status),
            "stdout": out.read().decode(errors="replace"),
            "stderr": err.read().decode(errors="replace"),
        }


if __name__ == "__main__":
    for module in _MODULES:
        importlib.import_module(f"logengine.cli.{module}")
    limit = int(sys.argv[1])
    json.dump([run(arguments, limit) for arguments in json.load(sys.stdin)], sys.stdout)
