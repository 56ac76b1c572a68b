"""The simulation: spans of event time in, batches of records in arrival order out.

    span [t, t + 10 s)   payments + what earlier spans left for now (refunds, campaigns)   -> ids, delays, retries
    arrival              |a a  b  c d d'   ...            e (late) ...                       sorted by arrival_ms
    batch out            everything that arrives before t + 10 s

Each span draws from its own generator, seeded by (seed, span's start): equal scenarios give equal bytes, however fast
they are read. Order of a batch: arrival. Space: what is still to come (refunds of about ten days, late records).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from featurestore.core.events import Int64Array
from featurestore.testing.simulator.fraud import campaigns
from featurestore.testing.simulator.payments import HOUR_MS, payments, refunds
from featurestore.testing.simulator.population import Population, PopulationSize
from featurestore.testing.simulator.rows import Rows, empty_rows

ROWS_PER_BATCH = 20_000
"""Batches are about this large, unless that would be more than an hour of event time."""

SPAN_MS_MIN = 1_000

RETRY_DELAY_MAX_MS = 20 * 60_000
"""A producer gives up after this: well inside a dedup horizon of an hour."""

LATE_MAX_MS = 6 * HOUR_MS

_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Scenario:
    """What to simulate; equal scenarios give equal records.

    Attributes:
        start_ms: event time of the beginning.
        end_ms: event time of the end, exclusive; None never ends.
        seed: of population and behaviour.
        size: of the population.
        per_second: payments a second of event time, constant; None is what the cards spend by themselves, in rhythm.
        campaigns_per_day: fraud campaigns; None is in proportion to the number of cards.
        duplicate_share: records that the producer sends twice.
        minutes_late_share: records that arrive minutes after their event time.
        hours_late_share: records that arrive up to LATE_MAX_MS after it.
        typical_delay_ms: mean delay of all others; 0 is none.
    """

    start_ms: int
    end_ms: int | None
    seed: int = 1
    size: PopulationSize = field(default_factory=PopulationSize)
    per_second: float | None = None
    campaigns_per_day: float | None = None
    duplicate_share: float = 0.005
    minutes_late_share: float = 0.02
    hours_late_share: float = 0.002
    typical_delay_ms: float = 150.0

    def __post_init__(self) -> None:
        assert self.end_ms is None or self.end_ms >= self.start_ms, "a scenario ends after it starts"
        assert self.per_second is None or self.per_second > 0, "payments a second are positive"


class Simulation:
    """Runs one scenario.

    Args:
        scenario: what to simulate.
        population: of an earlier simulation with the same seed and size, to save drawing it again.
    """

    def __init__(self, scenario: Scenario, population: Population | None = None) -> None:
        self.scenario = scenario
        self.population = population or Population(scenario.size, scenario.seed)
        self._ids_given = 0
        self._future = empty_rows()  # by event time: refunds and rest of campaigns
        self._in_flight = empty_rows()  # by arrival: late records and retries

    @property
    def span_ms(self) -> int:
        """Event time that one batch covers."""
        per_second = self.scenario.per_second or float(self.population.market_rate.sum()) / _DAY_S
        span_ms = int(ROWS_PER_BATCH / per_second) * 1_000
        return min(max(span_ms, SPAN_MS_MIN), HOUR_MS)

    def batches(self) -> Iterator[Rows]:
        """Records in arrival order, a span of event time at a time; the last batch holds all that is still in flight.

        Yields:
            (N,) rows sorted by arrival_ms; all of one batch arrive before all of the next. N may be 0.
        """
        start_ms, end_ms = self.scenario.start_ms, self.scenario.end_ms
        while end_ms is None or start_ms < end_ms:
            span_end_ms = start_ms + self.span_ms if end_ms is None else min(start_ms + self.span_ms, end_ms)
            yield self._arrived(self._span(start_ms, span_end_ms), before_ms=span_end_ms)
            start_ms = span_end_ms
        if len(self._in_flight):
            yield self._arrived(empty_rows(), before_ms=int(self._in_flight["arrival_ms"].max()) + 1)

    def _span(self, start_ms: int, end_ms: int) -> Rows:
        """All records with an event time in the span, retries included, unordered."""
        scenario = self.scenario
        random = np.random.default_rng([scenario.seed, 2, start_ms])
        honest = payments(self.population, random, start_ms=start_ms, end_ms=end_ms, per_second=scenario.per_second)
        fraud = campaigns(self.population, random, start_ms=start_ms, end_ms=end_ms, per_day=scenario.campaigns_per_day)
        planned = np.concatenate((self._future, refunds(random, honest), fraud))
        is_due = planned["event_time_ms"] < end_ms
        self._future = planned[~is_due]
        rows = np.concatenate((honest, planned[is_due]))
        rows["id"] = self._next_ids(len(rows))
        rows["arrival_ms"] = rows["event_time_ms"] + self._delays_ms(random, len(rows))
        retries = rows[random.random(len(rows)) < scenario.duplicate_share]
        retry_delay_ms = np.minimum(random.exponential(8_000.0, len(retries)), RETRY_DELAY_MAX_MS)
        retries["arrival_ms"] += retry_delay_ms.astype(np.int64)
        return np.concatenate((rows, retries))

    def _delays_ms(self, random: np.random.Generator, count: int) -> Int64Array:
        scenario = self.scenario
        delay_ms = random.exponential(1.0, count) * scenario.typical_delay_ms
        draw = random.random(count)
        is_minutes = draw < scenario.minutes_late_share
        is_hours = draw >= 1.0 - scenario.hours_late_share
        delay_ms[is_minutes] = random.exponential(180_000.0, int(is_minutes.sum()))
        delay_ms[is_hours] = random.uniform(0.0, LATE_MAX_MS, int(is_hours.sum()))
        return np.minimum(delay_ms, LATE_MAX_MS).astype(np.int64)

    def _arrived(self, rows: Rows, *, before_ms: int) -> Rows:
        """What arrives before a moment, in arrival order; the rest stays in flight."""
        waiting = np.concatenate((self._in_flight, rows))
        is_here = waiting["arrival_ms"] < before_ms
        self._in_flight = waiting[~is_here]
        here = waiting[is_here]
        return here[np.argsort(here["arrival_ms"], kind="stable")]

    def _next_ids(self, count: int) -> NDArray[np.uint64]:
        """(count,) unused ids: a counter from the scenario's start and seed, scrambled one-to-one (SplitMix64)."""
        # 2^22 ids a millisecond of event time: a later scenario of the same world does not give them again.
        first = (self.scenario.start_ms << 22) + self._ids_given
        self._ids_given += count
        value = np.arange(count, dtype=np.uint64) + np.uint64(first % 2**64)
        value ^= np.uint64((self.scenario.seed * 0x9E3779B97F4A7C15) % 2**64)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))
