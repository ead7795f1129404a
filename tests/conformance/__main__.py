"""Holds a server to `docs/protocol.md`: `python -m tests.conformance SOCKET [--restart COMMAND]`.

Written from that page alone, and sees nothing but the socket. One line for each check, and a
summary; the status is 0 if all are ok. Records go to the streams `conformance` and
`conformance-other`; `--restart` is a command of the shell that stops or kills the server and
starts it again, for the checks that need that.
"""

import argparse
import sys

from tests.conformance.checks import CHECKS
from tests.conformance.connection import Failed, Server


def main() -> int:
    """Runs all checks; 0 if all are ok."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("socket", help="the server's Unix socket")
    parser.add_argument("--restart", metavar="COMMAND", help="stops the server and starts it again")
    parser.add_argument(
        "--patience", type=float, default=10.0, metavar="SECONDS", help="default 10"
    )
    options = parser.parse_args()
    server = Server(options.socket, options.patience, options.restart)
    failed = left_out = 0
    for each in CHECKS:
        if each.needs_restart and not options.restart:
            left_out += 1
            continue
        try:
            each.run(server)
        except (Failed, OSError) as error:
            failed += 1
            print(f"FAILED {each.name}: found {error}", flush=True)
        else:
            print(f"ok     {each.name}", flush=True)
    ran = len(CHECKS) - left_out
    needs = f"; {left_out} left out, which need --restart" if left_out else ""
    print(f"{ran - failed} of {ran} checks ok{needs}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
