"""Opens standard input, output and error if the caller closed them, as `>&-` does.

Otherwise the next file that is opened gets that number: a lock, a segment or a socket would be
standard output, and whatever is printed would go into it.
"""

import os
import select
import sys

from logengine.errors import LogEngineError

_INPUT, _OUTPUT, _ERROR = range(3)
# Reading input or writing output fails, as it does with a closed descriptor: a command must not
# take nothing for its input, or lose what it prints. Messages that nobody can see are dropped.
_OPENED = {
    _INPUT: ("standard input", os.O_WRONLY),
    _OUTPUT: ("standard output", os.O_RDONLY),
    _ERROR: ("standard error", os.O_WRONLY),
}


class StandardDescriptorClosed(LogEngineError):
    """The command needs a standard descriptor that is closed."""


def open_closed() -> dict[int, str]:
    """Opens the closed ones of descriptors 0 to 2. Returns their numbers and names."""
    closed = {}
    for descriptor, (name, flags) in _OPENED.items():
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, flags)  # the lowest number that is free: this one
            assert opened == descriptor
            os.set_inheritable(descriptor, True)
            closed[descriptor] = name
    # They belong to the process, as those that Python opens.
    if _INPUT in closed:
        sys.stdin = open(_INPUT, encoding="utf-8", closefd=False)  # noqa: SIM115
    if _OUTPUT in closed:
        sys.stdout = open(_OUTPUT, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if _ERROR in closed:
        sys.stderr = open(_ERROR, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    return closed


def check_output(closed: dict[int, str]) -> None:
    """Raises `StandardDescriptorClosed` if standard output was closed."""
    if _OUTPUT in closed:
        raise closed_error([closed[_OUTPUT]])


def closed_error(names: list[str]) -> StandardDescriptorClosed:
    """Returns the error for one of these descriptors that was needed."""
    return StandardDescriptorClosed(
        f"{' or '.join(names)} is closed, and this command needs it; redirect it, to /dev/null if "
        "nothing else"
    )


def reader_has_left() -> bool:
    """Returns whether standard output is a pipe or socket that nobody reads any more."""
    poll = select.poll()
    poll.register(_OUTPUT, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def drop_output() -> None:
    """Drops what could not be written. Flushing it at the exit would fail again."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), _OUTPUT)
