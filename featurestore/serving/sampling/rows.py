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
    LoggedSource,
    LoggedView,
    LogLayout,
    date_of_ms,
)
from featurestore.offline.training_set.answer_parts import object_array
from featurestore.offline.training_set.arrow_columns import ARROW_TYPES, values_array
from featurestore.online.answer.assembly import Answer
from featurestore.online.answer.schema import FeatureSlot, Matrix
from featurestore.online.answer.service_plan import ServicePlan
from featurestore.serving.sampling.answered import AnsweredRequest
from featurestore.wire.store_layout import decode_checkpoint

CHECKPOINTS_KNOWN_MAX = 1_024
"""Decoded checkpoints kept: entities of a lane share one until the lane's next commit."""

_US_PER_MS = 1_000


@dataclass(frozen=True, slots=True)
class SampledAnswer:
    """What a request was answered.

    Attributes:
        request_id: unique to the request.
        answered: the request.
        logged_at_ms: processing time.
    """

    request_id: str
    answered: AnsweredRequest
    logged_at_ms: int


def grouped(answers: Sequence[SampledAnswer]) -> list[list[SampledAnswer]]:
    """Answers of one plan and one log date together, in order."""
    groups: dict[tuple[object, ...], list[SampledAnswer]] = {}
    for sampled in answers:
        answered = sampled.answered
        place = (id(answered.plan), answered.shadow_of, date_of_ms(sampled.logged_at_ms))
        groups.setdefault(place, []).append(sampled)
    return list(groups.values())


def layout_of(plan: ServicePlan, shadow_of: str = "") -> LogLayout:
    """What rows of a plan hold; where a shadow answered, of that of which service."""
    schema = plan.schema
    features = [*zip(plan.references, schema.features, strict=True)]
    features += [(plan.stored.references[at], plan.stored.schema.features[at]) for at in _only_read(plan)]
    required = frozenset[str]() if plan.on_demand is None else plan.on_demand.required
    return LogLayout(
        schema.service,
        schema.join_keys,
        tuple(LoggedFeature(reference.view, reference.feature, slot.type) for reference, slot in features),
        tuple(LoggedView(view.name, view.definition_hash) for view in schema.views),
        tuple(column for column in schema.request_columns if column.name in required),
        tuple(LoggedSource(source.name, source.columns) for source in schema.event_sources),
        shadow_of,
    )


def _only_read(plan: ServicePlan) -> list[int]:
    """Features that others are computed from and that are not answered, by their index in the stored plan.

    With them every value in a row can be computed anew from the row and the events.
    """
    if plan.on_demand is None:
        return []
    answered = {of for of, _ in plan.on_demand.copied}
    return [at for at in range(len(plan.stored.references)) if at not in answered]


def encode_rows(answers: Sequence[SampledAnswer], layout: LogLayout) -> pa.Table:
    """N rows of the log.

    Args:
        answers: of one plan and one date.
        layout: of that plan.
    """
    requests = [sampled.answered for sampled in answers]
    plan, found = requests[0].plan, [request.answer for request in requests]
    counts = [answer.row_count for answer in found]
    rows, stored = _Rows(found), _Rows([request.stored for request in requests])
    arrays: list[pa.Array] = []
    for index, key in enumerate(plan.schema.join_keys):
        values = list(chain.from_iterable(request.columns[index] for request in requests))
        arrays.append(pa.array(values, type=ARROW_TYPES[key.type]))
    for index, slot in enumerate(plan.schema.features):
        arrays += rows.feature(slot, index)
    for index in _only_read(plan):
        arrays += stored.feature(plan.stored.schema.features[index], index)
    logged_us = np.repeat([sampled.logged_at_ms * _US_PER_MS for sampled in answers], counts)
    arrays.append(pa.array(logged_us).cast(STAMP_TYPE))
    arrays.append(pa.repeat(pa.scalar(date_of_ms(answers[0].logged_at_ms), pa.date32()), rows.count))
    ids = [sampled.request_id for sampled in answers]
    arrays.append(pa.array(ids).take(pa.array(np.repeat(np.arange(len(ids)), counts))))
    arrays.append(pa.array(np.concatenate([np.arange(count, dtype=np.int32) for count in counts])))
    arrays.append(pa.array(np.concatenate([_read_times(answer) for answer in found])))
    arrays += [pa.repeat(view.definition_hash, rows.count) for view in layout.views]
    arrays += [_positions(found, index) for index in range(len(layout.views))]
    for column in layout.request:
        arrays.append(pa.concat_arrays([values_array(one.request[column.name], column.type) for one in requests]))
    arrays += [_events(requests, source) for source in layout.events]
    arrays += [pa.repeat(layout.shadow_of, rows.count)] if layout.shadow_of else []
    return pa.Table.from_arrays(arrays, names=layout.schema.names)


def _events(requests: Sequence[AnsweredRequest], source: LoggedSource) -> pa.Array:
    """(N,) the payments in flight of a source; null where a request brought none."""
    kind, pieces = source.type, []
    for request in requests:
        given = request.events.get(source.name)
        if given is None:
            pieces.append(pa.nulls(request.answer.row_count, kind))
            continue
        values = [values_array(given[column.name], column.type) for column in source.columns]
        pieces.append(pa.StructArray.from_arrays(values, fields=list(kind)))
    return pa.concat_arrays(pieces)


class _Rows:
    """The matrices of some answers, side by side.

    Args:
        answers: of one plan.

    Attributes:
        count: N, their rows.
    """

    def __init__(self, answers: Sequence[Answer]) -> None:
        self.count = sum(answer.row_count for answer in answers)
        self._answers = answers
        self._null: BoolArray = _joined([answer.null for answer in answers])
        self._doubles = _joined([answer.doubles for answer in answers])
        self._integers = _joined([answer.integers for answer in answers])
        self._statuses = _joined([answer.statuses for answer in answers])
        self._stamps = list(map(_stamps, _joined([answer.event_time_ms for answer in answers])))

    def feature(self, slot: FeatureSlot, index: int) -> tuple[pa.Array, pa.Array, pa.Array]:
        """(N,) one feature: values, event times, statuses."""
        return self._values(slot, index), self._stamps[slot.view], pa.array(self._statuses[index].astype(np.int32))

    def _values(self, slot: FeatureSlot, index: int) -> pa.Array:
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
