"""`make bench`: measures the daemon and its peers, and writes benchmarks/RESULTS.md.

Works in temporary directories in this checkout, to measure the disk that it is on.
"""

import argparse
from pathlib import Path

from benchmarks import results
from benchmarks.contest import CHECKOUT
from benchmarks.scenario import Bench, say
from benchmarks.scenarios import SCENARIOS
from benchmarks.software import unpacked

_HERE = Path(__file__).parent
_ROUNDS = 5
_EVERYDAY_ROUNDS = 3  # those with the most contenders and loads


def main() -> None:
    """Runs the named scenarios, or all, and writes the report of all kept results."""
    names = [scenario.name for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(names))
    parser.add_argument(
        "--rounds",
        type=int,
        help=f"how often each takes its turn: {_ROUNDS}, and {_EVERYDAY_ROUNDS} in `everyday` and "
        "`protocols`",
    )
    parser.add_argument(
        *("--sustained-rounds", "-S"),
        type=int,
        help="the same for `sustained`, the longest; as --rounds if not given",
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="counts times this; 0.05 for a quick look"
    )
    parser.add_argument(
        "--growth-max",
        type=int,
        default=10**7,
        help="the largest stream of `growth`; 100000000 takes 35 GB",
    )
    for option in ("--rates", "--connections"):
        parser.add_argument(
            option,
            type=int,
            nargs="+",
            default=(),
            help="measure only these of `everyday`, and no other load of it",
        )
    parser.add_argument(
        "--into",
        type=Path,
        default=_HERE,
        help="where RESULTS.md is written; the README is changed only without this",
    )
    parser.add_argument("--render", action="store_true", help="write the report, measure nothing")
    options = parser.parse_args()
    if unknown := set(options.scenarios) - set(names):
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    rounds = options.rounds or _ROUNDS
    readme = CHECKOUT / "README.md" if options.into == _HERE else None
    if not options.render:
        bench = Bench(
            software=unpacked(CHECKOUT / "bench-software"),
            rounds=rounds,
            scale=options.scale,
            sustained_rounds=options.sustained_rounds or rounds,
            growth_max=options.growth_max,
            everyday_rounds=options.rounds or _EVERYDAY_ROUNDS,
            rates=options.rates,
            connections=options.connections,
        )
        for scenario in SCENARIOS:
            if not options.scenarios or scenario.name in options.scenarios:
                results.measure(scenario, bench, options.into)
                results.render(SCENARIOS, options.into, readme)
    results.render(SCENARIOS, options.into, readme)
    say(f"wrote {options.into / 'RESULTS.md'}")


if __name__ == "__main__":
    main()
