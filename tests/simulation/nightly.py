"""`make simulate`: thousands of schedules, or the one of a seed, or one that is written out.

python -m tests.simulation                        10,000 schedules from seed 0 on
python -m tests.simulation --seed 7 --count 1     one
python -m tests.simulation --schedule "produce:1 pump:2"
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from featurestore.testing.simulation import Finding, find, from_text, never_met, run_schedule
from featurestore.testing.simulation.audit.required import as_table
from featurestore.testing.simulation.definitions import APART, TOGETHER
from tests.simulation.stream import DrivenStream, without_threads

COUNT = 10_000
PORTION = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 1 when something was found, or something was never met."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seed", type=int, default=0, help="of the first schedule")
    parser.add_argument("--count", type=int, default=COUNT, help="schedules")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--schedule", default="", help="a schedule that was printed")
    parser.add_argument("--together", action="store_true", help="its views are a storage group, as those of odd seeds")
    parser.add_argument("--packs", type=int, default=0, help="packs a lane: 1 for every second pair of seeds")
    given = parser.parse_args(arguments)
    if given.schedule:
        with quietly():
            definitions = TOGETHER if given.together else APART
            failure = run_schedule(from_text(given.schedule), DrivenStream, definitions, given.packs).failure
        print(failure or "nothing is wrong")
        return bool(failure)
    counts, findings = Counter[str](), list[Finding]()
    begins = range(given.seed, given.seed + given.count, PORTION)
    portions = [range(begin, min(begin + PORTION, given.seed + given.count)) for begin in begins]
    with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
        for done, (portion_counts, found) in enumerate(pool.imap_unordered(run_portion, portions), 1):
            counts += portion_counts
            findings += found
            for finding in found:
                print(finding, flush=True)
            print(f"{done} of {len(portions)} portions, {len(findings)} findings", file=sys.stderr, flush=True)
    print(as_table(counts))
    missing = never_met(counts) if given.count >= COUNT else []
    for name in missing:
        print(f"never met: {name}")
    print(f"{given.count:,} schedules from seed {given.seed}: {len(findings)} findings")
    return bool(findings or missing)


def run_portion(seeds: range) -> tuple[Counter[str], list[Finding]]:
    """Some schedules, in a process of their own."""
    counts, findings = Counter[str](), list[Finding]()
    with quietly():
        for seed in seeds:
            of_seed, finding = find(seed, DrivenStream)
            counts += of_seed
            if finding is not None:
                findings.append(finding)
    return counts, findings


@contextmanager
def quietly() -> Iterator[None]:
    """Without the log lines of streams that fail as they should, and without threads."""
    logging.disable(logging.CRITICAL)
    with without_threads():
        yield
    logging.disable(logging.NOTSET)
