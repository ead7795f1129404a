"""What tests of a protocol share: daemons that receive what the module's `Receiver` says."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def make_receiver(request: pytest.FixtureRequest, root: Path) -> Iterator[Callable[..., Any]]:
    """Starts the daemon of a `Receiver`, with a configuration of its own."""
    with contextlib.ExitStack() as stack:

        def make(config: str = "") -> Any:
            made = request.module.Receiver(root, config)
            stack.callback(made.daemon.close)
            made.daemon.start()
            return made

        yield make


@pytest.fixture
def receiver(make_receiver: Callable[..., Any]) -> Any:
    return make_receiver()
