"""When a file was made, which `os.stat` does not say on Linux: statx(2)."""

import functools
import struct
from collections.abc import Callable

_AT_EMPTY_PATH = 0x1000
_STATX_BTIME = 0x800
_STATX_BYTES = 256
_MASK = struct.Struct("=I")
_BIRTH = struct.Struct("=qI")
_BIRTH_OFFSET = 80


def made_ns(descriptor: int) -> int | None:
    """Returns when a file was made, in ns since the epoch; None if its file system forgot it."""
    call = _statx()
    answer = bytearray(_STATX_BYTES)
    if call is None or not call(descriptor, answer):
        return None
    (mask,) = _MASK.unpack_from(answer)
    seconds, rest_ns = _BIRTH.unpack_from(answer, _BIRTH_OFFSET)
    return int(seconds) * 1_000_000_000 + int(rest_ns) if mask & _STATX_BTIME else None


@functools.cache
def _statx() -> Callable[[int, bytearray], bool] | None:
    """Returns a function that returns whether it could; None if the C library has no `statx`."""
    try:
        import ctypes  # loaded only if needed

        call = ctypes.CDLL(None).statx
    except (ImportError, OSError, AttributeError):
        return None
    buffer = ctypes.c_char * _STATX_BYTES
    call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]

    def statx(descriptor: int, answer: bytearray) -> bool:
        into = ctypes.byref(buffer.from_buffer(answer))
        return bool(call(descriptor, b"", _AT_EMPTY_PATH, _STATX_BTIME, into) == 0)

    return statx
