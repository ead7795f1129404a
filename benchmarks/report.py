"""Measurements in Markdown: numbers, medians with their spread, tables."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

Rounds = Mapping[str, Sequence[float]]  # of each thing measured, one value a round
_PERCENTS = (*range(100), 99.5)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of `values` do not pass."""
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))]


def distribution(values_s: Sequence[float], units_per_s: float) -> list[tuple[float, float]]:
    """Seconds in another unit, each with the percentage of all that do not pass it."""
    return [(percentile(values_s, percent) * units_per_s, percent) for percent in _PERCENTS]


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours in theirs, round by round."""
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def number(value: float) -> str:
    """Three digits that count, never in powers of ten."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def median(values: Sequence[float], unit: str = "") -> str:
    """The median of some rounds."""
    return number(statistics.median(values)) + (f" {unit}" if unit else "")


def spread(values: Sequence[float]) -> str:
    """The least and the greatest of some rounds."""
    return f"{number(min(values))} to {number(max(values))}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first row names the columns."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def medians(found: Rounds) -> str:
    """Median, least and greatest of some measurements; each one's unit is in its name."""
    rows = [[name, median(of), number(min(of)), number(max(of))] for name, of in found.items()]
    return table(["", "median", "least", "greatest"], rows)


def rates(ours: str, found: Rounds, cpu_s_per_million: Rounds) -> str:
    """Records/s of each contender, ours as a multiple of it in the same round, its CPU."""
    rows = []
    for name, values in found.items():
        times = ratios(found[ours], values)
        rows.append(
            [
                name,
                f"{statistics.median(values) / 1e6:.3f} million",
                f"{min(values) / 1e6:.3f} to {max(values) / 1e6:.3f}",
                "" if name == ours else f"**{median(times)}x**",
                "" if name == ours else spread(times),
                median(cpu_s_per_million[name], "s"),
            ]
        )
    return table(
        ["", "records/s", "spread", f"{ours} is", "spread", "CPU per million records"], rows
    )


def image(plot: Path, title: str) -> str:
    """A plot, as RESULTS.md shows it."""
    return f"![{title}](plots/{plot.name})\n"
