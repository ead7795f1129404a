"""structlog: events become records, with the bound context."""

import structlog

import logengine

structlog.configure(
    processors=logengine.structlog_processors(),
    logger_factory=logengine.StructlogFactory("worker"),
)

log = structlog.get_logger()


def work(job: int) -> None:
    """Does a job; every event logged meanwhile names it."""
    with structlog.contextvars.bound_contextvars(job=job):
        log.info("begun")
        try:
            log.info("done", result=100 // job)
        except ZeroDivisionError:
            log.exception("failed")


if __name__ == "__main__":
    for number in (1, 0):
        work(number)
    # At exit the process waits until everything is on disk, at most `close_timeout` seconds.
