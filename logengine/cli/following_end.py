"""What ends a command that follows, and the exit status of `tail --until-match` for each."""

import asyncio
import contextlib
import os
import stat
import sys
from collections.abc import Callable, Collection, Iterator
from enum import Enum

from logengine.cli.messages import tell
from logengine.units import format_duration

_LOOK_S = 0.2
# A directory that is replaced, or moved away for a moment, comes back sooner.
_LOOKS_FOR_GONE = 6


class Ending(Enum):
    """What ended the following. The value is the exit status with `--until-match`."""

    FOUND = 0
    TIMED_OUT = 3
    STREAM_GONE = 4
    OUTPUT_CLOSED = 128 + 13  # as for a command that SIGPIPE ends


def tell_ending(ending: Ending, timeout_s: float | None) -> None:
    """Prints why nothing was found, if somebody can still read it."""
    if ending is Ending.TIMED_OUT and timeout_s is not None:
        tell(f"no record matched within {format_duration(timeout_s)}")
    elif ending is Ending.STREAM_GONE:
        tell("the stream was removed, and no record had matched")


async def until_gone(there: Callable[[], Collection[str]]) -> None:
    """Returns when nothing is `there` for a moment, after something was."""
    was_there = False
    looks = 0
    while looks < _LOOKS_FOR_GONE:
        if there():
            was_there, looks = True, 0
        elif was_there:
            looks += 1
        await asyncio.sleep(_LOOK_S)


@contextlib.contextmanager
def when_output_closes(call: Callable[[], None]) -> Iterator[None]:
    """Calls `call` when the reader of our output closes it, if the output is a pipe."""
    loop = asyncio.get_running_loop()
    descriptor = sys.stdout.fileno()
    is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    if is_pipe:
        # The writing end of a pipe becomes readable only when its reading end is closed.
        loop.add_reader(descriptor, call)
    try:
        yield
    finally:
        if is_pipe:
            loop.remove_reader(descriptor)
