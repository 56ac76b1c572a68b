"""Request-time features over whatever a view has: SQL for the engine, and the same in Python for the oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from featurestore.clock import Deadline
from featurestore.core.spec import (
    Column,
    ComputedColumn,
    FeatureReference,
    FeatureSpec,
    OnDemandInput,
    OnDemandViewSpec,
    RepoSpec,
    ServiceSpec,
    ValueType,
    ViewSpec,
)
from featurestore.offline.training_set.arrow_columns import ARROW_TYPES
from featurestore.online.answer.assembly import Answer, Assembly, DistinctReads
from featurestore.online.answer.in_flight.columns import GivenColumn
from featurestore.online.answer.on_demand import with_on_demand
from featurestore.online.answer.schema import Matrix
from featurestore.online.generation import Generation
from featurestore.online.read.reader import EntityBytes
from featurestore.online.serving_view import ServingView, views_of
from featurestore.serving.catalog.catalog import CatalogSnapshot
from featurestore.serving.request.columns import typed_columns
from featurestore.testing.clock import ManualClock
from featurestore.testing.oracle.naive import NaiveEvent
from featurestore.testing.strategies import ANCHOR_MS
from featurestore.wire.codecs.view_json import definition_hash
from featurestore.wire.entity_key import decode_key
from tests.offline.training_set.label_tables import repo_of
from tests.online.test_storage_groups import stored

Row = dict[str, Any]
"""Columns of a request by name; None is null."""

CHECKS = "checks"

REQUEST: dict[Column, st.SearchStrategy[Any]] = {
    Column("asked", ValueType.INT64): st.sampled_from((None, 0, 1, 2, -7)),
    Column("rate", ValueType.FLOAT64): st.sampled_from((None, 0.0, 1.0, -2.0, 1e6)),  # dividing by it overflows nothing
    Column("word", ValueType.STRING): st.sampled_from((None, "", "SE", "кард")),
    Column("flag", ValueType.BOOL): st.sampled_from((None, 0, 1)),
    Column("moment", ValueType.TIMESTAMP): st.sampled_from((None, ANCHOR_MS)),
}

requests: st.SearchStrategy[Row] = st.fixed_dictionaries({column.name: one for column, one in REQUEST.items()})


def _quotient(value: float | None, row: Row) -> float | None:
    return None if value is None or not row["rate"] else value / row["rate"]


def _both(value: int | None, row: Row) -> int | None:
    if 0 in (value, row["flag"]):
        return 0
    return None if None in (value, row["flag"]) else 1


def _otherwise(name: str) -> Callable[[Any, Row], Any]:
    return lambda value, row: row[name] if value is None else value


_TEMPLATES: dict[ValueType, tuple[tuple[str, ValueType, Callable[[Any, Row], Any]], ...]] = {
    ValueType.INT64: (
        ("{0} is distinct from asked", ValueType.BOOL, lambda value, row: int(value != row["asked"])),
        ("coalesce({0}, asked)", ValueType.INT64, _otherwise("asked")),
    ),
    ValueType.FLOAT64: (("{0} / nullif(rate, 0)", ValueType.FLOAT64, _quotient),),
    ValueType.STRING: (("coalesce({0}, word)", ValueType.STRING, _otherwise("word")),),
    ValueType.BOOL: (("{0} and flag", ValueType.BOOL, _both),),
    ValueType.TIMESTAMP: (("coalesce({0}, moment)", ValueType.TIMESTAMP, _otherwise("moment")),),
}
"""SQL over a feature of a type, what it gives, and the same in Python; nothing that jumps where floats differ a bit."""


@dataclass(frozen=True, slots=True)
class Check:
    """A request-time feature.

    Attributes:
        name: of the feature.
        read: the feature that it reads.
        sql: what it is.
        type: of its values.
        expected: the value of `read` and the request -> its own.
    """

    name: str
    read: FeatureSpec
    sql: str
    type: ValueType
    expected: Callable[[Any, Row], Any]


def checks_of(view: ViewSpec) -> list[Check]:
    """One for each feature that SQL reads; lists and maps have none."""
    found = []
    for at, feature in enumerate(view.features):
        templates = _TEMPLATES.get(feature.type, ())
        if templates:
            sql, value_type, expected = templates[at % len(templates)]
            found.append(Check(f"check_{at}", feature, sql.format(feature.name), value_type, expected))
    return found


def repo_with(view: ViewSpec, checks: Sequence[Check], *, in_flight: bool | None = None) -> RepoSpec:
    """A repo whose service "all" has the view's features, then the checks; and "checks" the latter alone."""
    repo = repo_of(view)
    on_demand = OnDemandViewSpec(
        CHECKS,
        view.join_keys,
        tuple(OnDemandInput(one.read.name, view.name, one.read.name, one.read.type) for one in checks),
        tuple(sorted(REQUEST, key=lambda column: column.name)),
        tuple(ComputedColumn(one.name, one.type, one.sql) for one in checks),
    )
    references = tuple(FeatureReference(CHECKS, one.name, one.name) for one in checks)
    [every] = repo.services
    both = replace(every, features=(*every.features, *references), in_flight=in_flight)
    return replace(
        repo,
        on_demand_views=(on_demand,),
        services=(both, ServiceSpec(CHECKS, references, every.join_keys, in_flight=in_flight)),
    )


def with_requests(labels: pa.Table, rows: Sequence[Row]) -> pa.Table:
    """Label rows with the columns of their requests."""
    for column in REQUEST:
        values = [row[column.name] for row in rows]
        if column.type is ValueType.BOOL:
            values = [None if value is None else bool(value) for value in values]
        labels = labels.append_column(column.name, pa.array(values, ARROW_TYPES[column.type]))
    return labels


def checks_looked_up(repo: RepoSpec, events: Sequence[NaiveEvent], event: NaiveEvent, row: Row) -> dict[str, Any]:
    """What a lookup of the checks says with an event in flight, when all events are stored."""
    [view], service = repo.views, repo.services[1]
    serving = views_of(Generation("test", view, 1, definition_hash(view)))[0]
    plan = _snapshot(repo, serving).plan_of_service(service.name)
    keys = [[part] for part in decode_key(event.key, view.join_keys)]
    given: dict[str, GivenColumn] = {}
    for column in plan.schema.event_sources[0].columns:
        is_time = column.name == view.source.event_time_column
        value: Any = event.event_time_ms if is_time else event.columns.get(column.name)
        is_null = value is None or value != value
        given[column.name] = ([], b"\1") if is_null else ([value], b"")
    in_flight = plan.stored.in_flight.take({view.source.name: given}, keys, 1)
    assembly = Assembly(
        plan.stored,
        DistinctReads(plan, keys, 1),
        [EntityBytes(*stored(view, [], list(events)), None)],
        in_flight.event_time_ms,
        Deadline.after(ManualClock(), 60_000.0),
        is_as_of_given=True,
        in_flight=in_flight,
    )
    sent = typed_columns(plan, {name: [value] for name, value in row.items() if name in _required(plan)}, 1)
    answer = with_on_demand(plan, assembly.answer(with_checkpoint=False), sent)
    return {
        slot.name: None if answer.null[at, 0] else _value(answer, slot.matrix, slot.slot)
        for at, slot in enumerate(plan.schema.features)
    }


def _snapshot(repo: RepoSpec, serving: ServingView) -> CatalogSnapshot:
    """What a server serves; nothing is read of a store here."""
    no_reader: Any = None
    return CatalogSnapshot(repo, {serving.view.name: serving}, 1, no_reader)


def _required(plan: Any) -> frozenset[str]:
    return frozenset(plan.on_demand.required)


def _value(answer: Answer, matrix: Matrix, slot: int) -> Any:
    """A value of an answer's only row."""
    if matrix is Matrix.DOUBLES:
        return float(answer.doubles[slot, 0])
    if matrix is Matrix.INTEGERS:
        return int(answer.integers[slot, 0])
    return answer.strings[slot]
