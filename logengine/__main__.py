"""`python -m logengine` is `logengine`."""

import signal


def main() -> None:
    """Runs the command line. ^C ends the process at once as long as its modules are imported."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from logengine.cli import main as run

    run()


if __name__ == "__main__":
    main()
