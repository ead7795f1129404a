"""What a client says where nobody else would: one line on standard error.

Standard error is the application's, and may be anything: closed, nothing at all, a pipe that
nobody reads, or an object that logs what is written to it. So nothing is raised, nothing is
waited for, and nothing is said twice.
"""

import contextlib
import os
import select
import sys

_poll = getattr(select, "poll", None)  # eventlet takes it away
_told: dict[tuple[str, str], bool] = {}


def tell(text: str) -> None:
    """Writes a line about the client, if it can be written just now."""
    line = f"logengine: {text}\n"
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
        # A signal handler came while its thread was in there: past the stream's own buffer.
        with contextlib.suppress(Exception):
            os.write(stream.fileno(), line.encode("utf-8", "backslashreplace"))
    except Exception:  # noqa: BLE001, S110 - closed, or it is code of the application's
        pass


def notice_once(about: str, which: str, text: str) -> None:
    """As `tell`, but only once until `forget` is called with the same two words."""
    if (about, which) not in _told:
        _told[about, which] = True
        tell(text)


def forget(about: str, which: str) -> None:
    """It is over: the next time is another one."""
    _told.pop((about, which), None)


def _is_ready(descriptor: int) -> bool:
    if _poll is None:
        return True
    poll = _poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))
