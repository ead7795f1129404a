"""The clock of all waits in the client.

An application's tests may stop time: freezegun and the like replace `time.monotonic` in every
module. A deadline would then never come, and a wait with a limit would never end.
"""

import time


def now_s() -> float:
    """Returns seconds of the system's monotonic clock, which no such test replaces."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)
