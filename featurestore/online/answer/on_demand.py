"""From what was read of the store, and the columns of the request, to an answer with on-demand features.

    stored answer    card.mean_30d  10.0  null  7.0       (answered, or only read)
    request          amount         12.5  80.0  null
    answer           mean_30d  10.0 null 7.0   amount_ratio  1.25 null null

A feature that reads one that is NOT_READY is NOT_READY; else it is null or not, as SQL says of its values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from featurestore.core.events import BoolArray, ColumnValues
from featurestore.core.expressions.vector import objects
from featurestore.core.lowering.request_time import valid_rows, values_of
from featurestore.core.spec import ValueType
from featurestore.online.answer.assembly import Answer
from featurestore.online.answer.schema import OBJECT_MATRICES, Cell, FeatureSlot, FeatureStatus, Matrix
from featurestore.online.answer.service_plan import ComputedSlot, OnDemandPlan, ServicePlan

TypedColumns = Mapping[str, ColumnValues]
"""Columns of a request by name, N rows each, of the types that the schema says."""


def with_on_demand(plan: ServicePlan, stored: Answer, request: TypedColumns) -> Answer:
    """The answer of a plan from that of its stored plan.

    Args:
        plan: the feature service.
        stored: what was read.
        request: at least the columns that the plan requires.
    """
    on_demand = plan.on_demand
    return stored if on_demand is None else _Answering(plan, on_demand, stored, request).answer()


def column_of(slot: FeatureSlot, at: int, answer: Answer) -> ColumnValues:
    """A feature of an answer as a column, for SQL.

    Args:
        slot: the feature's place; a number, a text, a flag or a moment.
        at: its index in the schema.
        answer: N rows.
    """
    valid = ~answer.null[at]
    if slot.matrix is Matrix.DOUBLES:
        return ColumnValues(answer.doubles[slot.slot], valid)
    if slot.matrix is Matrix.INTEGERS:
        return ColumnValues(answer.integers[slot.slot], valid)
    assert slot.matrix is Matrix.STRINGS, "expressions read plain values"
    texts = answer.strings[slot.slot * answer.row_count : (slot.slot + 1) * answer.row_count]
    return ColumnValues(objects([text.encode() for text in texts]), valid)


class _Answering:
    """One answer at work."""

    def __init__(self, plan: ServicePlan, on_demand: OnDemandPlan, stored: Answer, request: TypedColumns) -> None:
        self._plan, self._on_demand, self._stored, self._request = plan, on_demand, stored, request
        count = self._count = stored.row_count
        schema = plan.schema
        rows = {matrix: len(schema.features_of[matrix]) for matrix in Matrix}
        self._doubles = np.full((rows[Matrix.DOUBLES], count), np.nan)
        self._integers = np.zeros((rows[Matrix.INTEGERS], count), dtype=np.int64)
        self._strings = [""] * (rows[Matrix.STRINGS] * count)
        self._objects: dict[Matrix, list[Cell]] = {
            matrix: [None] * (rows[matrix] * count) for matrix in OBJECT_MATRICES if rows[matrix]
        }
        self._null = np.ones((len(schema.features), count), dtype=np.bool_)
        self._statuses = np.full(self._null.shape, FeatureStatus.NOT_READY, dtype=np.uint8)

    def answer(self) -> Answer:
        """All matrices."""
        stored = self._stored
        self._copy()
        functions = {
            name: self._run(name, [slot for slot in self._on_demand.computed if slot.view == name])
            for name in self._on_demand.functions
        }
        for computed in self._on_demand.computed:
            if computed.expression is not None:
                inputs = {name: self._column(at) for name, at in computed.reads.items()}
                found: ColumnValues | None = computed.expression.evaluate(
                    {**self._request, **inputs}, self._count
                ).storable()
            else:
                found = functions.get(computed.view, {}).get(computed.feature)
            if found is not None:
                self._put(computed, found)
        newest = [
            stored.event_time_ms[list(views)].max(axis=0) if views else np.zeros(self._count, dtype=np.int64)
            for views in self._on_demand.views_read
        ]
        return Answer(
            row_count=self._count,
            doubles=self._doubles,
            integers=self._integers,
            strings=self._strings,
            objects=self._objects,
            statuses=self._statuses,
            null=self._null,
            as_of_ms=stored.as_of_ms,
            event_time_ms=np.vstack([stored.event_time_ms, *newest]),
            checkpoints=[*stored.checkpoints, *([] for _ in newest)] if stored.checkpoints else [],
        )

    def _copy(self) -> None:
        """What is answered as it was read."""
        stored, count = self._stored, self._count
        for of, to in self._on_demand.copied:
            source, target = self._on_demand.stored.schema.features[of], self._plan.schema.features[to]
            self._null[to], self._statuses[to] = stored.null[of], stored.statuses[of]
            here, there = source.slot, target.slot
            if target.matrix is Matrix.DOUBLES:
                self._doubles[there] = stored.doubles[here]
            elif target.matrix is Matrix.INTEGERS:
                self._integers[there] = stored.integers[here]
            elif target.matrix is Matrix.STRINGS:
                self._strings[there * count : (there + 1) * count] = stored.strings[here * count : (here + 1) * count]
            else:
                cells = stored.objects[target.matrix]
                self._objects[target.matrix][there * count : (there + 1) * count] = cells[
                    here * count : (here + 1) * count
                ]

    def _column(self, at: int) -> ColumnValues:
        """A feature that was read, as a column."""
        return column_of(self._on_demand.stored.schema.features[at], at, self._stored)

    def _run(self, name: str, slots: list[ComputedSlot]) -> Mapping[str, ColumnValues]:
        """What an author's function makes of it."""
        [*_, slot] = slots
        inputs: dict[str, list[Any]] = {name: self._values(at) for name, at in slot.reads.items()}
        types = {column.name: column.type for column in self._plan.schema.request_columns}
        inputs |= {name: values_of(self._request[name], types[name]) for name in slot.request}
        return self._on_demand.functions[name].compute(inputs, self._count) or {}

    def _values(self, at: int) -> list[Any]:
        """A feature that was read, as Python's values."""
        slot, count = self._on_demand.stored.schema.features[at], self._count
        if slot.matrix in self._stored.objects:
            return list(self._stored.objects[slot.matrix][slot.slot * count : (slot.slot + 1) * count])
        return list(values_of(self._column(at), slot.type))

    def _put(self, computed: ComputedSlot, found: ColumnValues) -> None:
        """A computed feature into its place."""
        slot, at, count = computed.slot, computed.at, self._count
        ready = self._ready(computed)
        values: Any = found.values
        valid = valid_rows(found, count) & ready
        self._null[at] = ~valid
        present = np.where(valid, FeatureStatus.PRESENT, FeatureStatus.NULL_VALUE)
        self._statuses[at] = np.where(ready, present, FeatureStatus.NOT_READY).astype(np.uint8)
        if slot.matrix is Matrix.DOUBLES:
            self._doubles[slot.slot] = np.where(valid, values, np.nan)
        elif slot.matrix is Matrix.INTEGERS:
            self._integers[slot.slot] = np.where(valid, values, 0)
        else:
            texts = values_of(ColumnValues(found.values, valid), ValueType.STRING)
            self._strings[slot.slot * count : (slot.slot + 1) * count] = [
                "" if text is None else str(text) for text in texts
            ]

    def _ready(self, computed: ComputedSlot) -> BoolArray:
        """(N,) whether all that it reads is there."""
        ready = np.ones(self._count, dtype=np.bool_)
        for at in computed.reads.values():
            ready &= self._stored.statuses[at] != FeatureStatus.NOT_READY
        return ready
