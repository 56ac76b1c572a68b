"""`python -m benchmarks [--smoke | --full] [SCENARIO ...]`: measure, check, print; --full of all writes RESULTS.md."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import machine, render
from benchmarks.scenario import Result, Run, Scenario, Size
from benchmarks.scenarios.calculator import algebra, core, growth, last_events, size
from benchmarks.scenarios.history import event_log, training_sets
from benchmarks.scenarios.serving import handler, kept_busy, lookup, overload, publish, shadow
from benchmarks.scenarios.stream import contracts, formats, freshness, ingest, many_views, small_entities

SCENARIOS: Mapping[str, Scenario] = {
    "core": core.run,
    "algebra": algebra.run,
    "size": size.run,
    "growth": growth.run,
    "last_events": last_events.run,
    "history": training_sets.run,
    "event_log": event_log.run,
    "lookup": lookup.run,
    "formats": formats.run,
    "contracts": contracts.run,
    "handler": handler.run,
    "shadow": shadow.run,
    "publish": publish.run,
    "overload": overload.run,
    "serving": kept_busy.run,
    "ingest": ingest.run,
    "freshness": freshness.run,
    "many_views": many_views.run,
    "small_entities": small_entities.run,
}
"""Permanent ids, in the order in which they run."""

RESULTS = Path(__file__).with_name("RESULTS.md")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run scenarios; 0 when every answer was right."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--smoke", dest="size", action="store_const", const=Size.SMOKE, help="seconds; checks answers")
    sizes.add_argument("--full", dest="size", action="store_const", const=Size.FULL, help="minutes; gives figures")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"default: all of {', '.join(SCENARIOS)}")
    options = parser.parse_args(arguments)
    unknown = set(options.scenarios) - set(SCENARIOS)
    if unknown:
        parser.error(f"unknown scenarios: {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    wanted = options.scenarios or list(SCENARIOS)
    results = measure(wanted, options.size or Size.SMOKE)
    text = render.markdown(results, machine.describe(), options.size or Size.SMOKE)
    print(text)
    if options.size is Size.FULL and not options.scenarios:
        RESULTS.write_text(text, encoding="utf-8")
    return 0


def measure(names: Sequence[str], size: Size) -> list[Result]:
    """Results of scenarios, in the given order.

    Raises:
        WrongAnswer: a scenario measured something that was not right.
    """
    results = []
    with tempfile.TemporaryDirectory(prefix="featurestore-bench-") as directory:
        run = Run(size, Path(directory))
        for name in names:
            run.say(f"{name}: {size}")
            results.append(SCENARIOS[name](run))
    return results


if __name__ == "__main__":
    sys.exit(main())
