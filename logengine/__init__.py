"""A resilient log-writing daemon: acknowledged records are never lost and never duplicated."""

from importlib import import_module

# As in `typing`, whose import would take a third of the time until a command handles a ^C.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from logengine.aio_atomic import AsyncAtomicWriter
    from logengine.client.aio import AsyncClient
    from logengine.client.logging_handler import LogEngineHandler
    from logengine.client.structlog_logger import StructlogFactory, structlog_processors
    from logengine.client.threads import Client
    from logengine.disk.atomic import AtomicWriter, is_temp_name
    from logengine.errors import (
        ClientClosed,
        ClientFull,
        LogEngineError,
        NotDurable,
        ProducerFenced,
        ProducerForgotten,
        RecordTooLarge,
    )
    from logengine.format.block import Record
    from logengine.format.cursor import Cursor
    from logengine.reading import (
        Gone,
        IncompleteRead,
        Problem,
        RecordsGone,
        follow,
        read,
        streams,
    )

__version__ = "0.1.0"

__all__ = [
    "AsyncAtomicWriter",
    "AsyncClient",
    "AtomicWriter",
    "Client",
    "ClientClosed",
    "ClientFull",
    "Cursor",
    "Gone",
    "IncompleteRead",
    "LogEngineError",
    "LogEngineHandler",
    "NotDurable",
    "Problem",
    "ProducerFenced",
    "ProducerForgotten",
    "Record",
    "RecordTooLarge",
    "RecordsGone",
    "StructlogFactory",
    "__version__",
    "follow",
    "is_temp_name",
    "read",
    "streams",
    "structlog_processors",
]

# Imported on first use, because some of them import asyncio or structlog. Without asyncio a command
# that only reads starts in half the time, and an application that only logs needs neither. Nor does
# the package import anything else that takes long: until it is there, a ^C prints a traceback.
_MODULES = {
    "AsyncAtomicWriter": "logengine.aio_atomic",
    "AsyncClient": "logengine.client.aio",
    "AtomicWriter": "logengine.disk.atomic",
    "Client": "logengine.client.threads",
    "ClientClosed": "logengine.errors",
    "ClientFull": "logengine.errors",
    "Cursor": "logengine.format.cursor",
    "Gone": "logengine.reading",
    "IncompleteRead": "logengine.reading",
    "LogEngineError": "logengine.errors",
    "LogEngineHandler": "logengine.client.logging_handler",
    "NotDurable": "logengine.errors",
    "Problem": "logengine.reading",
    "ProducerFenced": "logengine.errors",
    "ProducerForgotten": "logengine.errors",
    "Record": "logengine.format.block",
    "RecordTooLarge": "logengine.errors",
    "RecordsGone": "logengine.reading",
    "StructlogFactory": "logengine.client.structlog_logger",
    "follow": "logengine.reading",
    "is_temp_name": "logengine.disk.atomic",
    "read": "logengine.reading",
    "streams": "logengine.reading",
    "structlog_processors": "logengine.client.structlog_logger",
}


def __getattr__(name: str) -> "Any":
    if name == "errors":  # a module that programs use without importing it
        return import_module("logengine.errors")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
