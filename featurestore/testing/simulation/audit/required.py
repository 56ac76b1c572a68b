"""What a run of many schedules must have come upon: a simulation that never met a fault has said nothing about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from featurestore.testing.simulation.schedule import STEPS
from featurestore.testing.simulation.stand_ins.client import FAULTS

FAULTS_MET = (
    *(f"write {fault}" for fault in FAULTS),
    *(f"lost {kind}" for kind in ("half", "checkpoint", "ids", "only key", "generations", "layout")),
    *(f"spoilt {kind}" for kind in ("value", "half", "checkpoint")),
    "crash",
    "second writer",
    "delayed commit refused",
    "store went back",
    "evicted",
    "clock jumped",
    "disk of the letters full",
    "partition added",
    "log truncated",
    "topic made anew",
    "offset gap",
    "late event",
    "very late event",
    "event ahead of time",
    "retry",
    "retry elsewhere",
    "unusable record",
)
"""What befell the product."""

PATHS_TAKEN = (
    "event applied",
    "duplicate dropped",
    "replay skipped",
    "entity compacted",
    "generation damaged",
    "entity set aside",
    "generation promoted",
    "storage group promoted",
    "storage group merged",
    "generation rolled back",
    "generation dropped",
    "generation handed over",
    "bootstrap filled",
    "rollback noticed while idle",
    "planned again: went back in time",
    "planned again: is damaged",
    "stream failed: WriterFenced",
    "stream failed: EventsLost",
    "stream failed: StoreMismatch",
    "read refused: damaged",
    "read refused: too old",
    "dead letter undecodable",
    "dead letter missing_join_key",
    "dead letter beyond_retention",
    "dead letters checked",
    "operator bootstrapped",
    "answer compared: found",
    "answer compared: not found",
    "answer compared: with a body",
    "answer compared: in a pack",
    "answer compared: of an entity that left its pack",
    "answer compared: by itself",
    "answer compared: in a storage group",
    "answer of several possible ones",
)
"""What the product did about it."""

REQUIRED = (*(f"step {name}" for name in STEPS), *FAULTS_MET, *PATHS_TAKEN)
"""All of it."""


def never_met(counts: Mapping[str, int]) -> list[str]:
    """What of all that did not happen."""
    return [name for name in REQUIRED if not counts.get(name)]


def as_table(counts: Counter[str]) -> str:
    """How often what happened, for people."""
    return "\n".join(f"{counts[name]:12,}  {name}" for name in sorted(counts) if counts[name])
