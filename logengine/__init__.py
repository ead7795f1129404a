"""A resilient log-writing daemon: acknowledged records are never lost and never doubled."""

from typing import TYPE_CHECKING, Any

from logengine.errors import LogEngineError

if TYPE_CHECKING:
    from logengine.atomic import AsyncAtomicWriter, AtomicWriter

__version__ = "0.1.0"

__all__ = ["AsyncAtomicWriter", "AtomicWriter", "LogEngineError", "__version__"]


def __getattr__(name: str) -> Any:
    # Loaded when used: they bring asyncio, and a command that only reads takes half as long
    # to start without it.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from logengine import atomic

    return getattr(atomic, name)
