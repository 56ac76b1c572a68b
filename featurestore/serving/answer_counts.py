"""What was answered, by feature service and by view: counted with every answer, added up when somebody asks.

    answer ─ one compiled loop ─> values by (view, status)        seconds by (service, bucket)
                                  ages   by (view, bucket)        rows by service

Only names that are registered are counted by themselves, so that there are no more of them than definitions; and of
those as many as there is room for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.core.compiled import INT, INT_MATRIX, INTS, compiled
from featurestore.core.events import Int64Array
from featurestore.online.answer.assembly import Answer
from featurestore.online.answer.schema import FeatureStatus
from featurestore.online.answer.service_plan import ServicePlan

AGE_BOUNDS_MS = (100, 1_000, 5_000, 15_000, 60_000, 300_000, 3_600_000, 21_600_000, 86_400_000, 604_800_000)
"""From a value that is as fresh as the stream can make it to an entity that has done nothing for a week."""

LATENCY_BOUNDS_NS = tuple(
    round(1e9 * seconds) for seconds in (0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
)

NAMES_MAX = 1_024
"""Views, and services, that are counted by themselves; what comes later is counted together."""

OTHERS = "(others)"
FEATURE_LIST = "(feature list)"
"""What Feast's clients ask for without a feature service."""

_STATUSES = tuple(FeatureStatus)
_FLAG_MATRIX = "uint8[:, ::1]"


@dataclass(frozen=True, slots=True)
class ViewCounts:
    """Of one view.

    Attributes:
        name: of the view.
        values: values by status.
        ages: rows by age of their newest event, one more than AGE_BOUNDS_MS; rows without an event are not among them.
        age_sum_ms: of those rows.
    """

    name: str
    values: dict[FeatureStatus, int]
    ages: list[int]
    age_sum_ms: int


@dataclass(frozen=True, slots=True)
class ServiceCounts:
    """Of one feature service.

    Attributes:
        name: of the service.
        rows: entity rows.
        latencies: answers by time, one more than LATENCY_BOUNDS_NS.
        latency_sum_ns: of them.
    """

    name: str
    rows: int
    latencies: list[int]
    latency_sum_ns: int


class AnswerCounts:
    """Counts of one server. Threads may add at once: the loops keep the interpreter to themselves."""

    def __init__(self) -> None:
        self._views: dict[str, int] = {}
        self._services: dict[str, int] = {}
        self._plans: dict[int, tuple[int, Int64Array]] = {}
        self._values = np.zeros((NAMES_MAX + 1, max(_STATUSES) + 1), dtype=np.int64)
        self._ages = np.zeros((NAMES_MAX + 1, len(AGE_BOUNDS_MS) + 2), dtype=np.int64)
        self._latencies = np.zeros((NAMES_MAX + 1, len(LATENCY_BOUNDS_NS) + 3), dtype=np.int64)

    def add(self, plan: ServicePlan, answer: Answer, latency_ns: int) -> None:
        """Count an answer."""
        schema_id = plan.schema.schema_id
        rows = self._plans.get(schema_id)
        if rows is None:
            rows = self._rows_of(plan)
        service, views = rows
        count_answer(
            plan.view_of_feature,
            answer.statuses,
            answer.event_time_ms,
            np.array(answer.as_of_ms, dtype=np.int64),
            _AGE_BOUNDS,
            views,
            self._values,
            self._ages,
        )
        count_latency(latency_ns, answer.row_count, _LATENCY_BOUNDS, self._latencies, service)

    def views(self) -> Iterator[ViewCounts]:
        """What was counted of each view."""
        for name, row in _with_others(self._views):
            values, ages = self._values[row].tolist(), self._ages[row].tolist()
            if any(values):
                yield ViewCounts(name, {status: values[status] for status in _STATUSES}, ages[:-1], ages[-1])

    def services(self) -> Iterator[ServiceCounts]:
        """What was counted of each feature service."""
        for name, row in _with_others(self._services):
            *latencies, latency_sum_ns, rows = self._latencies[row].tolist()
            if any(latencies):
                yield ServiceCounts(name, rows, latencies, latency_sum_ns)

    def _rows_of(self, plan: ServicePlan) -> tuple[int, Int64Array]:
        """Where a plan's service and its views are counted."""
        if len(self._plans) >= NAMES_MAX:
            self._plans.clear()  # definitions come and go; their counts stay
        schema = plan.schema
        service = _row_of(self._services, schema.service or FEATURE_LIST)
        views = np.array([_row_of(self._views, view.name) for view in schema.views], dtype=np.int64)
        self._plans[schema.schema_id] = service, views
        return service, views


def _row_of(rows: dict[str, int], name: str) -> int:
    """The row of a name; the last one for those that come when there is no room any more."""
    # `setdefault` is one step of the interpreter: two threads get one row, and at worst leave a hole.
    return rows.setdefault(name, len(rows)) if name in rows or len(rows) < NAMES_MAX else NAMES_MAX


def _with_others(rows: dict[str, int]) -> list[tuple[str, int]]:
    """Names and rows, and the row of all others."""
    return [*rows.items(), (OTHERS, NAMES_MAX)]


@compiled(INT, INTS, _FLAG_MATRIX, INT_MATRIX, INTS, INTS, INTS, INT_MATRIX, INT_MATRIX)
def count_answer(
    view_of_feature: Int64Array,
    statuses: NDArray[np.uint8],
    event_time_ms: Int64Array,
    as_of_ms: Int64Array,
    bounds: Int64Array,
    rows: Int64Array,
    values: Int64Array,
    ages: Int64Array,
) -> int:
    """Add an answer.

    Args:
        view_of_feature: (F,) index of the view.
        statuses: (F, N) of FeatureStatus.
        event_time_ms: (V, N) newest event of each view and row; 0 for none.
        as_of_ms: one read time, or N.
        bounds: (B,) ascending.
        rows: (V,) where each view is counted.
        values: (R, statuses) receives values by status.
        ages: (R, B + 2) receives rows by age, and the sum of ages.
    """
    for feature in range(len(view_of_feature)):
        row = rows[view_of_feature[feature]]
        for at in range(statuses.shape[1]):
            values[row, statuses[feature, at]] += 1
    for view in range(len(rows)):
        for at in range(event_time_ms.shape[1]):
            if event_time_ms[view, at] != 0:
                age = as_of_ms[at if len(as_of_ms) > 1 else 0] - event_time_ms[view, at]
                bucket = 0
                while bucket < len(bounds) and age > bounds[bucket]:
                    bucket += 1
                ages[rows[view], bucket] += 1
                ages[rows[view], len(bounds) + 1] += age
    return 0


@compiled(INT, INT, INT, INTS, INT_MATRIX, INT)
def count_latency(latency_ns: int, row_count: int, bounds: Int64Array, latencies: Int64Array, service: int) -> int:
    """Add what an answer took: (S, B + 3), its bucket, the sum of times, and the number of rows."""
    bucket = 0
    while bucket < len(bounds) and latency_ns > bounds[bucket]:
        bucket += 1
    latencies[service, bucket] += 1
    latencies[service, len(bounds) + 1] += latency_ns
    latencies[service, len(bounds) + 2] += row_count
    return 0


_AGE_BOUNDS: Any = np.array(AGE_BOUNDS_MS, dtype=np.int64)
_LATENCY_BOUNDS: Any = np.array(LATENCY_BOUNDS_NS, dtype=np.int64)
