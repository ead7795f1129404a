"""When this machine was started."""

from datetime import UTC, datetime
from pathlib import Path

_STAT = Path("/proc/stat")
_BOOTED_AT = "btime "


def booted_at() -> datetime:
    """Returns when the kernel was started, to the second, by the clock as it is set now.

    The kernel computes it as the time now minus the time since the start (`btime` in proc(5)), so
    a clock that was set after records arrived moves it. Raises `ValueError` if it is unknown.
    """
    try:
        lines = _STAT.read_text().splitlines()
    except OSError as error:
        raise ValueError(f"when this machine was started is unknown: {error}") from None
    for line in lines:
        if line.startswith(_BOOTED_AT):
            return datetime.fromtimestamp(int(line.removeprefix(_BOOTED_AT)), UTC)
    raise ValueError(f"when this machine was started is unknown: {_STAT} has no btime")
