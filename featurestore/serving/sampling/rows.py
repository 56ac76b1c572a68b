"""Sampled answers as rows of the feature log: a batch of requests becomes columns, nothing is done for each value.

Runs in the log's own thread, a few hundred rows at a time, so that it never keeps requests waiting for long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from featurestore.core.events import BoolArray, Int64Array
from featurestore.core.spec import ValueType
from featurestore.offline.parity.feature_log import (
    POSITIONS_TYPE,
    STAMP_TYPE,
    LoggedFeature,
    LoggedView,
    LogLayout,
    date_of_ms,
)
from featurestore.offline.training_set.answer_parts import object_array
from featurestore.offline.training_set.arrow_columns import ARROW_TYPES
from featurestore.online.answer.assembly import Answer, KeyColumns
from featurestore.online.answer.schema import FeatureSlot, Matrix, ServedView, ServiceSchema
from featurestore.online.answer.service_plan import ServicePlan
from featurestore.wire.store_layout import decode_checkpoint

CHECKPOINTS_KNOWN_MAX = 1_024
"""Decoded checkpoints kept: entities of a lane share one until the lane's next commit."""

_US_PER_MS = 1_000


@dataclass(frozen=True, slots=True)
class SampledAnswer:
    """What a request was answered.

    Attributes:
        request_id: unique to the request.
        plan: the feature service.
        columns: values of its join keys.
        answer: with checkpoints.
        logged_at_ms: processing time.
    """

    request_id: str
    plan: ServicePlan
    columns: KeyColumns
    answer: Answer
    logged_at_ms: int


def grouped(answers: Sequence[SampledAnswer]) -> list[list[SampledAnswer]]:
    """Answers of one plan and one log date together, in order."""
    groups: dict[tuple[int, object], list[SampledAnswer]] = {}
    for sampled in answers:
        groups.setdefault((id(sampled.plan), date_of_ms(sampled.logged_at_ms)), []).append(sampled)
    return list(groups.values())


def layout_of(plan: ServicePlan) -> LogLayout:
    """What rows of a plan hold."""
    schema = plan.schema
    return LogLayout(
        schema.service,
        schema.join_keys,
        tuple(
            LoggedFeature(reference.view, reference.feature, slot.type)
            for reference, slot in zip(plan.references, schema.features, strict=True)
        ),
        tuple(LoggedView(view.name, view.definition_hash) for _, view in _answered_views(schema)),
    )


def _answered_views(schema: ServiceSchema) -> list[tuple[int, ServedView]]:
    """Index and view; those that are only read for others have no features in the log."""
    answered = {feature.view for feature in schema.features}
    return [(index, view) for index, view in enumerate(schema.views) if index in answered]


def encode_rows(answers: Sequence[SampledAnswer], layout: LogLayout) -> pa.Table:
    """N rows of the log.

    Args:
        answers: of one plan and one date.
        layout: of that plan.
    """
    schema, found = answers[0].plan.schema, [sampled.answer for sampled in answers]
    counts = [answer.row_count for answer in found]
    rows = _Rows(found, sum(counts))
    arrays: list[pa.Array] = []
    for index, key in enumerate(schema.join_keys):
        values = list(chain.from_iterable(sampled.columns[index] for sampled in answers))
        arrays.append(pa.array(values, type=ARROW_TYPES[key.type]))
    stamps = [_stamps(event_time_ms) for event_time_ms in rows.event_time_ms]
    for index, slot in enumerate(schema.features):
        arrays += [rows.values(slot, index), stamps[slot.view], pa.array(rows.statuses[index].astype(np.int32))]
    logged_us = np.repeat([sampled.logged_at_ms * _US_PER_MS for sampled in answers], counts)
    log_date = date_of_ms(answers[0].logged_at_ms)
    arrays.append(pa.array(logged_us).cast(STAMP_TYPE))
    arrays.append(pa.repeat(pa.scalar(log_date, pa.date32()), rows.count))
    ids = [sampled.request_id for sampled in answers]
    arrays.append(pa.array(ids).take(pa.array(np.repeat(np.arange(len(ids)), counts))))
    arrays.append(pa.array(np.concatenate([np.arange(count, dtype=np.int32) for count in counts])))
    arrays.append(pa.array(np.concatenate([_read_times(answer) for answer in found])))
    views = _answered_views(schema)
    arrays += [pa.repeat(view.definition_hash, rows.count) for _, view in views]
    arrays += [_positions(found, index) for index, _ in views]
    return pa.Table.from_arrays(arrays, names=layout.schema.names)


class _Rows:
    """The matrices of some answers, side by side.

    Args:
        answers: of one plan.
        count: N, their rows.
    """

    def __init__(self, answers: Sequence[Answer], count: int) -> None:
        self.count = count
        self._answers = answers
        self._null: BoolArray = _joined([answer.null for answer in answers])
        self._doubles = _joined([answer.doubles for answer in answers])
        self._integers = _joined([answer.integers for answer in answers])
        self.statuses = _joined([answer.statuses for answer in answers])
        self.event_time_ms = _joined([answer.event_time_ms for answer in answers])

    def values(self, slot: FeatureSlot, index: int) -> pa.Array:
        """(N,) one feature."""
        mask = self._null[index] if self._null[index].any() else None
        if slot.matrix is Matrix.DOUBLES:
            return pa.array(self._doubles[slot.slot], mask=mask)
        if slot.matrix is Matrix.INTEGERS:
            integers = pa.array(self._integers[slot.slot], mask=mask)
            return integers if slot.type is ValueType.INT64 else integers.cast(ARROW_TYPES[slot.type])
        cells: list[Any] = []
        for answer in self._answers:
            matrix = answer.strings if slot.matrix is Matrix.STRINGS else answer.objects[slot.matrix]
            cells += matrix[slot.slot * answer.row_count : (slot.slot + 1) * answer.row_count]
        if slot.matrix is Matrix.STRINGS:
            return pa.array(cells, type=pa.string(), mask=mask)
        return object_array(cells, slot.type)


def _joined(matrices: Sequence[Any]) -> Any:
    """(K, N_i) matrices as one of (K, N)."""
    return matrices[0] if len(matrices) == 1 else np.concatenate(matrices, axis=1)


def _stamps(event_time_ms: Int64Array) -> pa.Array:
    """Event times; null where there is none."""
    return pa.array(event_time_ms * _US_PER_MS, mask=event_time_ms == 0).cast(STAMP_TYPE)


def _read_times(answer: Answer) -> Int64Array:
    """The read time of each row."""
    times: Int64Array = np.empty(answer.row_count, dtype=np.int64)
    times[:] = answer.as_of_ms
    return times


def _positions(answers: Sequence[Answer], view: int) -> pa.Array:
    """(N,) source positions of the rows' lanes for one view; null for plain views."""
    distinct: dict[bytes | None, int] = {}
    values: list[list[dict[str, object]] | None] = []
    places: list[int] = []
    for answer in answers:
        checkpoints = answer.checkpoints[view]
        if not checkpoints:
            return pa.nulls(sum(each.row_count for each in answers), POSITIONS_TYPE)
        for raw in checkpoints:
            place = distinct.get(raw)
            if place is None:
                place = distinct[raw] = len(values)
                values.append(_decoded(raw))
            places.append(place)
    return pa.array(values, type=POSITIONS_TYPE).take(pa.array(places))


@lru_cache(maxsize=CHECKPOINTS_KNOWN_MAX)
def _decoded(raw: bytes | None) -> list[dict[str, object]]:
    """The positions of a checkpoint."""
    return [
        {"topic": topic, "partition": partition, "next_offset": next_offset}
        for topic, partition, next_offset in decode_checkpoint(raw).positions
    ]
