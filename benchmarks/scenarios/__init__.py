"""All scenarios, in the order of the report."""

from typing import Any

from benchmarks.scenario import Scenario
from benchmarks.scenarios import (
    archive,
    clients,
    connections,
    everyday,
    fairness,
    follow,
    growth,
    journald,
    large,
    latency,
    protocols,
    reading,
    streams,
    sustained,
    throughput,
    year,
)

SCENARIOS: list[Scenario[Any]] = [
    module.SCENARIO
    for module in (
        throughput,
        sustained,
        latency,
        connections,
        everyday,
        protocols,
        fairness,
        streams,
        follow,
        reading,
        growth,
        clients,
        large,
        year,
        archive,
        journald,
    )
]
