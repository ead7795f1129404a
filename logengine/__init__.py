"""A resilient log-writing daemon: acknowledged records are never lost and never doubled."""

from logengine.atomic import AsyncAtomicWriter, AtomicWriter
from logengine.errors import LogEngineError

__version__ = "0.1.0"

__all__ = ["AsyncAtomicWriter", "AtomicWriter", "LogEngineError", "__version__"]
