"""Runs once more, one after the other, the tests that have just failed: `python -m tests.again`.

Thousands of tests run at once, and one that depends on how busy the machine is would hold up
everything. What passes alone is named as flaky and has to be mended: what the machine's load shows
may be a fault of the engine. Tests of the promises get no second chance, nor do many at once.
"""

import json
import subprocess
import sys
from pathlib import Path

FAILED = Path(".pytest_cache/v/cache/lastfailed")
AGAIN_MAX = 3
PROMISES = ("tests/bad_disk/", "tests/crash/", "tests/simulation/", "tests/store/")


def refusal(failed: list[str]) -> str | None:
    """Says why these tests, by their ids, are not run again; None if they are."""
    if not failed:
        return "no test has failed: the run did not come to its end"
    if len(failed) > AGAIN_MAX:
        return f"{len(failed)} tests have failed, more than {AGAIN_MAX}"
    for test in failed:
        if test.startswith(PROMISES):
            return f"{test} is about the promises"
    return None


def main() -> int:
    """Returns the exit status: 0 if all of them pass now."""
    failed = list(json.loads(FAILED.read_text())) if FAILED.exists() else []
    if (why := refusal(failed)) is not None:
        print(f"not run again: {why}")
        return 1
    status = subprocess.run([sys.executable, "-m", "pytest", *failed], check=False).returncode
    if status == 0:
        print("FLAKY, to be mended:", *failed, sep="\n  ")
    return status


if __name__ == "__main__":
    sys.exit(main())
