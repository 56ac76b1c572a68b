"""What a parity check found: an outcome for each logged value, added up by feature, by time and by freshness."""

from __future__ import annotations

import enum
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from featurestore.core.events import BoolArray, Int64Array

EXAMPLES_PER_FEATURE_MAX = 10
"""Unexplained values that are shown with all that is known; one bug shows in as many values as there are."""

FRESHNESS_EDGES_MS = (0, 100, 1_000, 10_000, 60_000, 600_000, 3_600_000, 21_600_000, 86_400_000, 604_800_000)
"""Classes of freshness: from each edge to the next."""

MINUTE_MS = 60_000


class ValueOutcome(enum.IntEnum):
    """What came of one logged value."""

    EQUAL = 0
    ARRIVED_LATER = 1
    MATERIALIZED_LATER = 2
    LOG_BEHIND = 3
    DEFINITION_CHANGED = 4
    HISTORY_BEGINS_LATER = 5
    STREAM_BEGAN_LATER = 6
    UNEXPLAINED = 7
    NOT_READY = 8
    NO_TABLE = 9
    NOT_DEFINED = 10
    ON_DEMAND = 11
    EVENT_NOT_LOGGED = 12

    @property
    def text(self) -> str:
        """For people."""
        return _TEXTS[self]

    @property
    def agrees(self) -> bool:
        """The answer was right for what the store had seen."""
        return self <= ValueOutcome.MATERIALIZED_LATER

    @property
    def is_explained(self) -> bool:
        """It differs, and it is known why."""
        return ValueOutcome.EQUAL < self < ValueOutcome.UNEXPLAINED


_TEXTS: Mapping[ValueOutcome, str] = {
    ValueOutcome.EQUAL: "equal",
    ValueOutcome.ARRIVED_LATER: "an event arrived after the read: from the events below the logged positions comes the "
    "logged value",
    ValueOutcome.MATERIALIZED_LATER: "the table's row was materialized after the read: from the row that was stored "
    "comes the logged value",
    ValueOutcome.LOG_BEHIND: "the event log ends before the read's positions",
    ValueOutcome.DEFINITION_CHANGED: "another definition answered than is registered now",
    ValueOutcome.HISTORY_BEGINS_LATER: "the window reaches back to before the event log begins",
    ValueOutcome.STREAM_BEGAN_LATER: "the window reaches back to before the stream began to fill the store",
    ValueOutcome.UNEXPLAINED: "unexplained",
    ValueOutcome.NOT_READY: "not compared: the view was still being filled",
    ValueOutcome.NO_TABLE: "not compared: the table of the plain view was not given",
    ValueOutcome.NOT_DEFINED: "not compared: no such feature is registered now",
    ValueOutcome.ON_DEMAND: "not compared: computed by a function, or from what is not in the log",
    ValueOutcome.EVENT_NOT_LOGGED: "not compared: the definition that is registered now reads other columns of the "
    "payment in flight than were logged",
}

COMPARED_KINDS = ("equal", "explained", "unexplained")


@dataclass(frozen=True, slots=True)
class FeatureName:
    """A feature of a service's log."""

    service: str
    view: str
    feature: str


@dataclass(frozen=True, slots=True)
class Example:
    """A value that nothing explains.

    Attributes:
        name: the feature.
        request_id, request_row: which answer.
        as_of_ms: its read time.
        entity: join keys.
        logged: what was answered.
        recomputed: from the whole event log.
        at_positions: from the events below the positions.
        positions: (topic, partition, next offset) when it was read.
    """

    name: FeatureName
    request_id: str
    request_row: int
    as_of_ms: int
    entity: Mapping[str, object]
    logged: object
    recomputed: object
    at_positions: object
    positions: tuple[tuple[str, int, int], ...]

    @property
    def entity_text(self) -> str:
        """Such as card_id=c-1."""
        return ", ".join(f"{key}={value}" for key, value in self.entity.items())

    @property
    def positions_text(self) -> str:
        """Such as payments/0:17."""
        return " ".join(f"{topic}/{partition}:{next_offset}" for topic, partition, next_offset in self.positions)


@dataclass(slots=True)
class ParityReport:
    """Everything that was found.

    Attributes:
        row_count: logged rows that were looked at.
        first_ms, last_ms: read times of the first and the last of them.
        outcomes: of each feature, how often.
        by_minute: minute of the read time -> values that were equal, explained, unexplained.
        freshness: by view, rows in each class of FRESHNESS_EDGES_MS; the last one has none.
        examples: of unexplained values.
        event_logs: address and version of the event logs that they were recomputed from.
    """

    row_count: int = 0
    first_ms: int = 0
    last_ms: int = 0
    outcomes: dict[FeatureName, Counter[ValueOutcome]] = field(default_factory=lambda: defaultdict(Counter))
    by_minute: dict[int, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0]))
    freshness: dict[str, Int64Array] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)
    event_logs: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> Counter[ValueOutcome]:
        """Of all features."""
        return sum(self.outcomes.values(), Counter())

    @property
    def has_unexplained(self) -> bool:
        """There is a bug, in the store, in the log, or here."""
        return self.total[ValueOutcome.UNEXPLAINED] > 0

    def add_rows(self, as_of_ms: Int64Array) -> None:
        """Count rows, which have these read times."""
        if not len(as_of_ms):
            return
        first, last = int(as_of_ms.min()), int(as_of_ms.max())
        self.first_ms = min(self.first_ms, first) if self.row_count else first
        self.last_ms = max(self.last_ms, last) if self.row_count else last
        self.row_count += len(as_of_ms)

    def add_outcomes(self, name: FeatureName, outcomes: Int64Array, as_of_ms: Int64Array) -> None:
        """Count the outcomes of one feature's rows."""
        counts = np.bincount(outcomes, minlength=len(ValueOutcome))
        self.outcomes[name].update({outcome: int(counts[outcome]) for outcome in ValueOutcome if counts[outcome]})
        kinds = (outcomes == ValueOutcome.EQUAL, _is_explained(outcomes), outcomes == ValueOutcome.UNEXPLAINED)
        for kind, is_it in enumerate(kinds):
            minutes, found = np.unique(as_of_ms[is_it] // MINUTE_MS, return_counts=True)
            for minute, count in zip(minutes.tolist(), found.tolist(), strict=True):
                self.by_minute[minute][kind] += count

    def add_freshness(self, view: str, freshness_ms: Int64Array, is_known: BoolArray) -> None:
        """Count how old the newest event behind the rows of a view was."""
        known = np.clip(freshness_ms[is_known], 0, None)
        classes = np.searchsorted(FRESHNESS_EDGES_MS, known, side="right") - 1
        counts = np.bincount(classes, minlength=len(FRESHNESS_EDGES_MS) + 1)
        counts[-1] += len(freshness_ms) - len(known)
        self.freshness[view] = self.freshness.get(view, np.zeros_like(counts)) + counts


def kinds_of(outcomes: Counter[ValueOutcome]) -> tuple[int, int, int]:
    """How many are equal, explained, unexplained."""
    explained = sum(count for outcome, count in outcomes.items() if outcome.is_explained)
    return outcomes[ValueOutcome.EQUAL], explained, outcomes[ValueOutcome.UNEXPLAINED]


def _is_explained(outcomes: Int64Array) -> BoolArray:
    """See `ValueOutcome.is_explained`."""
    explained: BoolArray = (outcomes > ValueOutcome.EQUAL) & (outcomes < ValueOutcome.UNEXPLAINED)
    return explained
