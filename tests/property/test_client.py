"""Processes of a producer that come and go: nothing safe is lost, nothing is stored twice."""

import random
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client_life import Life, World, last_life


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32), numbered=st.booleans(), deaths=st.integers(0, 5))
def test_records_are_stored_once_and_in_order(seed: int, numbered: bool, deaths: int) -> None:
    source = random.Random(seed)
    world = World()
    with tempfile.TemporaryDirectory(prefix="le-") as name:
        root = Path(name)
        for _ in range(deaths):
            life = Life(root, world, source, numbered=numbered)
            life.live(source.randint(0, 80))
            if source.random() < 0.5:
                life.leave()
            else:
                life.delivery.forget()  # killed: nothing more is written
                world.daemon.disconnect(source)
        assert last_life(root, world, source, numbered=numbered) == []
        assert list((root / "spool").iterdir()) == []
