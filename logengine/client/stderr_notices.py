"""The client's own reports: one line each on standard error.

Standard error belongs to the application and may be anything: closed, None, a pipe that nobody
reads, or an object that logs its input. So a report never raises, never waits, and is not repeated.
"""

import contextlib
import os
import select
import sys

from logengine.printable import escape

_poll = getattr(select, "poll", None)  # eventlet takes it away
_told: dict[tuple[str, str], bool] = {}


def tell(text: str) -> None:
    """Writes one line, escaped, if standard error accepts it now."""
    line = f"logengine: {escape(text)}\n"
    stream = sys.stderr
    if stream is None:
        return
    with contextlib.suppress(Exception):
        if not _is_ready(stream.fileno()):
            return
    try:
        stream.write(line)
        stream.flush()
    except RuntimeError:
        # A signal handler interrupted its thread in this stream: bypass the stream's buffer.
        with contextlib.suppress(Exception):
            os.write(stream.fileno(), line.encode("utf-8", "backslashreplace"))
    except Exception:  # noqa: BLE001, S110 - closed, or the application's code failed
        pass


def notice_once(about: str, which: str, text: str) -> None:
    """Like `tell`, but only once until `forget` is called with the same two arguments."""
    if (about, which) not in _told:
        _told[about, which] = True
        tell(text)


def forget(about: str, which: str) -> None:
    """Allows the notice again, because its cause is over."""
    _told.pop((about, which), None)


# A forked child is another process, which reports for itself.
os.register_at_fork(after_in_child=_told.clear)


def _is_ready(descriptor: int) -> bool:
    if _poll is None:
        return True
    poll = _poll()
    poll.register(descriptor, select.POLLOUT)
    # An error means that nobody reads: writing would raise SIGPIPE, which may kill.
    return any(
        events & select.POLLOUT and not events & select.POLLERR for _, events in poll.poll(0)
    )
