"""What the owner of a stream promises of its records, and that of a view of its freshness; what becomes of the rest."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class OnFail(enum.StrEnum):
    """What becomes of a record that does not meet an expectation."""

    DEAD_LETTER = "dead_letter"
    """No view counts it, online and in history."""
    COUNT = "count"
    """It is used as any other, and counted."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What is expected of every record of a source.

    Attributes:
        source: name of the source.
        name: unique among the source's expectations.
        condition: canonical SQL over the source's columns; a record meets it where it is true, not where it is null.
        on_fail: what becomes of a record that does not meet it.
        at_most: share of an hour's records that may fail before the contract counts as broken, 0 to 1.
    """

    source: str
    name: str
    condition: str
    on_fail: OnFail
    at_most: float = 0.0


@dataclass(frozen=True, slots=True)
class FreshnessPromise:
    """How soon an event is promised to be servable. No part of what the view means.

    Attributes:
        view: name of the stream view.
        freshness_ms: from when it happened to the commit after which lookups see it.
        target: share of the events of which that must be true, 0 to 1, both excluded.
    """

    view: str
    freshness_ms: int
    target: float


class Measure(enum.StrEnum):
    """What of an hour is compared with the same hour of other days."""

    VOLUME = "volume"
    """How many records it has."""
    LATENESS = "lateness"
    """How far its records lie behind the newest event time of their partition, on average, when they are read."""


@dataclass(frozen=True, slots=True)
class UsualHours:
    """What is expected of every hour of a source: between so many times and so many times what is usual.

    Attributes:
        source: name of the source.
        measure: what is compared; a source has one of each at most.
        at_least, at_most: times the median of the same hour of the days before.
    """

    source: str
    measure: Measure
    at_least: float
    at_most: float
