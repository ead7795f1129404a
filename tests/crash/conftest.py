"""What the tests of the crash rig share."""

import os
import socket
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

_ENGINE = "logengine"
# What the rig patches besides the engine.
_TAKEN = (os, socket.socket)

Owner = ModuleType | type


@pytest.fixture(autouse=True)
def _engine_is_left_as_it_was() -> Iterator[None]:
    """A test that leaves a patch behind fails, not one of those that run after it.

    They would be run on a mutant, and any of them may fail, or pass, for that.
    """
    before = [(owner, _behaviour_of(owner)) for owner in (*_TAKEN, *_engine())]
    yield
    left = []
    for owner, found in before:
        now = _behaviour_of(owner)
        for name in found.keys() | now.keys():
            if found.get(name) is now.get(name):
                continue
            left.append(f"{owner.__name__}.{name}")
            if name in found:
                setattr(owner, name, found[name])
            else:
                delattr(owner, name)
    assert not left, f"left patched: {', '.join(sorted(left))}"


def _engine() -> Iterator[Owner]:
    """The engine's modules that are loaded, and their classes."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == _ENGINE:
            yield module
            for found in vars(module).values():
                if isinstance(found, type) and found.__module__ == name:
                    yield found


def _behaviour_of(owner: Owner) -> dict[str, Any]:
    """What can be called of it, and its properties, by name."""
    return {
        name: found
        for name, found in vars(owner).items()
        if callable(found) or isinstance(found, property | staticmethod | classmethod)
    }
