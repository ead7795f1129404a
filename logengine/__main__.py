"""`python -m logengine` is `logengine`."""

import signal
import sys

_NEEDS_RICH = "top"


def main() -> None:
    """Runs the command line. ^C ends the process at once as long as its modules are imported."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.argv[1:2] != [_NEEDS_RICH]:
        # Structlog imports it if it is installed, for tracebacks that the daemon never prints. That
        # was a fifth of the time that the daemon took to start.
        sys.modules["rich"] = None  # type: ignore[assignment]
    from logengine.cli import main as run

    run()


if __name__ == "__main__":
    main()
