"""All wire protocols by name: one for each module of this package that has a `PROTOCOL`."""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from logengine import protocols as package
from logengine.protocols.wire import WireProtocol

# The protocol of a `[[listen]]` section that names none.
DEFAULT_PROTOCOL = "ndjson"


@cache
def protocols() -> Mapping[str, WireProtocol]:
    """Returns the protocols by name: the default one first, the others sorted."""
    found = [
        protocol
        for each in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
        if (protocol := getattr(importlib.import_module(each.name), "PROTOCOL", None))
    ]
    found.sort(key=lambda protocol: (protocol.name != DEFAULT_PROTOCOL, protocol.name))
    return {protocol.name: protocol for protocol in found}
