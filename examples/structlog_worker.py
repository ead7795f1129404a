"""structlog: events go out as records, with the context that was bound."""

import structlog

import logengine

structlog.configure(
    processors=logengine.structlog_processors(),
    logger_factory=logengine.StructlogFactory("worker"),
)

log = structlog.get_logger()


def work(job: int) -> None:
    """Does a job; all that is logged meanwhile says which one."""
    with structlog.contextvars.bound_contextvars(job=job):
        log.info("begun")
        try:
            log.info("done", result=100 // job)
        except ZeroDivisionError:
            log.exception("failed")


if __name__ == "__main__":
    for number in (1, 0):
        work(number)
    # At exit the process waits until all is on disk, for at most `close_timeout` seconds.
