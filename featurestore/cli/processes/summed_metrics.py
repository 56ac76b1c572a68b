"""What several processes count, added up: their /metrics as one.

Counts of a process that has ended go on counting, as it was asked last: a sum that falls would look like a restart, and
everything be counted again.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

SCRAPE_SECONDS = 5.0

_COUNTS = frozenset({"counter", "histogram", "summary"})

_SMALLEST = ("_up", "_created")
"""Ends of names of which the smallest counts: what one process does not reach is not well; the oldest began first."""

_ADDED = frozenset({"featurestore_waiting_requests"})
"""Gauges of which each process has its own share; of all others each shows the same thing, and the largest counts."""

_Key = tuple[str, tuple[tuple[str, str], ...]]
"""Name and labels of a sample."""


@dataclass(slots=True)
class Counted:
    """What some processes count.

    Attributes:
        families: (name, documentation, type) of each metric, by name.
        samples: of each metric, by its name.
    """

    families: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    samples: dict[str, dict[_Key, float]] = field(default_factory=dict)

    def add(self, other: Counted) -> None:
        """Add what others count, each metric in its way."""
        self.families.update(other.families)
        for name, samples in other.samples.items():
            mine = self.samples.setdefault(name, {})
            for key, value in samples.items():
                mine[key] = self._together(name, mine[key], value) if key in mine else value

    def only_counts(self) -> Counted:
        """Without what is true only while a process lives."""
        names = [name for name, (_, _, kind) in self.families.items() if kind in _COUNTS]
        return Counted({name: self.families[name] for name in names}, {name: self.samples[name] for name in names})

    def metrics(self) -> Iterator[Metric]:
        """As prometheus_client wants them."""
        for name, family in self.families.items():
            metric = Metric(*family)
            for (sample, labels), value in self.samples[name].items():
                metric.add_sample(sample, dict(labels), value)
            yield metric

    def _together(self, name: str, one: float, other: float) -> float:
        """Two values of one sample as one."""
        if self.families[name][2] in _COUNTS or name in _ADDED:
            return one + other
        return min(one, other) if name.endswith(_SMALLEST) else max(one, other)


def parse_metrics(text: str) -> Counted:
    """What a process's /metrics says."""
    found = Counted()
    for family in text_string_to_metric_families(text):
        found.families[family.name] = (family.name, family.documentation, family.type)
        found.samples[family.name] = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in family.samples
        }
    return found


def read_metrics(port: int) -> Counted:
    """What a process on this machine counts.

    Raises:
        OSError: it does not answer.
    """
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=SCRAPE_SECONDS) as answer:
        return parse_metrics(answer.read().decode())


def added_up(parts: Iterable[Counted]) -> Counted:
    """All of them as one."""
    total = Counted()
    for part in parts:
        total.add(part)
    return total
