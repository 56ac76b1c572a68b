"""From tiles to answers: the plan that merges and lowers all features of a request in a few calls.

    view 1, view 2 ...   tiles and window bounds
    gather               each view merges its ranges into the slots of its features   (compiled, per entity key)
    gathered             [ count | sum high | sum low | mean n | ... ] x rows of the request
                           └ each aggregation lowers its slices, features of all views and all rows at once
    answers              in the order of the features

Most features are lowered by a formula, all of them in one compiled loop (`core.formulas`). Of the others, those that
share aggregation, kinds of fields and output type form a group, which the aggregation lowers in one call.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from featurestore.core.aggregations.base import Aggregation
from featurestore.core.aggregations.formulas import (
    KIND_FLOAT,
    KIND_HALVES,
    KIND_INT,
    KIND_TEXT,
    PROGRAM_COLUMNS,
    Formula,
    lower_by_formula,
)
from featurestore.core.events import BoolArray, Float64Array, Int64Array
from featurestore.core.lowering.derived import Answers, CompiledDerivedFeature, evaluate
from featurestore.core.lowering.series import SeriesRows, float_lists, int_lists
from featurestore.core.lowering.view_input import FeatureFields, LoweredView
from featurestore.core.spec import ValueType
from featurestore.core.tiles.parts import Array, Storage
from featurestore.core.tiles.ranges import Ask, Gathered, range_merges
from featurestore.core.tiles.tiles import TileTable


@dataclass(frozen=True, slots=True)
class LoweredFeatures:
    """Answers of F features over R rows.

    Attributes:
        ints: (F, R) answers of INT64, BOOL and TIMESTAMP features, 0 elsewhere and where null.
        floats: (F, R) answers of FLOAT64 features, likewise.
        objects: feature -> R answers of the other types, None where null.
        null: (F, R) True where there is no answer.
    """

    ints: Int64Array
    floats: Float64Array
    objects: dict[int, list[object]]
    null: BoolArray


class _Target(enum.Enum):
    """Which array takes answers of a type."""

    INTS = 0
    FLOATS = 1
    OBJECTS = 2


@dataclass(frozen=True, slots=True)
class _Group:
    """Features that one call lowers.

    Attributes:
        aggregation: lowers them.
        inputs: for each field, its storage (index in _STORAGES) and its slice of what was gathered from there.
        features: indices of the features.
        target: where their answers go.
    """

    aggregation: Aggregation
    inputs: tuple[tuple[int, slice], ...]
    features: Int64Array
    target: _Target


_STORAGES = (Storage.INT, Storage.FLOAT, Storage.BLOB)
"""In the order of `Gathered`'s arrays."""

_TEXT_FORMULA = (Formula.WHERE_COUNTED, 0)
"""Of texts that are there where something was counted: the loop says where, and they are decoded behind it."""

INT_TYPES = frozenset({ValueType.INT64, ValueType.BOOL, ValueType.TIMESTAMP})
"""Types whose answers are in `ints`."""


class Lowering:
    """Merges and lowers the features of some views; the outputs of all views count on, in the given order.

    Attributes:
        asks: for each view, what is merged into which slots; history merges all its rows at once and in its own way.
        merges: for each view, what `gather` runs.
        merges_in_flight: likewise, what `gather_in_flight` does.
    """

    def __init__(self, views: Sequence[LoweredView]) -> None:
        self._derived, self._outputs = _derived(views)
        members: dict[tuple[str, tuple[Storage, ...], ValueType], list[int]] = {}
        self._first_elements, self._series = _series([each for view in views for each in view.features])
        views = [replace(view, features=[one for each in view.features for one in each.elements]) for view in views]
        features = [each for view in views for each in view.features]
        for index, each in enumerate(features):
            members.setdefault((each.aggregation.name, each.storages, each.feature.type), []).append(index)
        slots: list[list[int]] = [[] for _ in features]
        sizes = dict.fromkeys(Storage, 0)
        groups, program, texts = [], [], list[tuple[int, int]]()
        for (_, storages, feature_type), indices in members.items():
            inputs = []
            for storage in storages:
                begin = sizes[storage]
                for slot, index in enumerate(indices, start=begin):
                    slots[index].append(slot)
                sizes[storage] = begin + len(indices)
                inputs.append((_STORAGES.index(storage), slice(begin, begin + len(indices))))
            aggregation = features[indices[0]].aggregation
            is_text = storages == (Storage.INT, Storage.BLOB) and aggregation.formula == _TEXT_FORMULA
            if is_text:
                texts += [(at, slots[at][1]) for at in indices]
            if aggregation.formula is not None and (Storage.BLOB not in storages or is_text):
                program += [_formula_step(aggregation.formula, storages, at, slots[at], feature_type) for at in indices]
            else:
                outputs = np.array(indices, dtype=np.int64)
                groups.append(_Group(aggregation, tuple(inputs), outputs, _target_of(feature_type)))
        self._sizes = [sizes[storage] for storage in _STORAGES]
        self._groups = tuple(groups)
        self._texts = tuple(texts)
        self._program = np.array(program, dtype=np.int64).reshape(-1, PROGRAM_COLUMNS)
        self._count = len(features)
        given = iter(slots)
        asks = [list(_asks(view.features, given)) for view in views]
        self.asks: tuple[Sequence[Ask], ...] = tuple(asks)
        self.merges = [range_merges(view.layout, mine) for view, mine in zip(views, asks, strict=True)]
        self.merges_in_flight = [
            range_merges(view.layout, [_in_flight(ask, view.window_count) for ask in mine])
            for view, mine in zip(views, asks, strict=True)
        ]
        self._nothing = [self._over_nothing(view, mine) for view, mine in zip(views, asks, strict=True)]

    def gathered(self, row_count: int) -> Gathered:
        """Room for the merged fields of R rows."""
        ints, floats, objects = self._sizes
        return Gathered(
            np.empty((ints, row_count), dtype=np.int64),
            np.empty((floats, row_count), dtype=np.float64),
            np.empty((objects, row_count), dtype=np.object_),
        )

    def gather(self, view: int, table: TileTable, bounds: Int64Array, out: Gathered, row: int) -> None:
        """Merge one view's windows for one row.

        Args:
            view: index of the view.
            table: the entity's tiles, ascending by start.
            bounds: (2W,) first row of each window, then the end of each.
            out: what `gathered` made.
            row: which of its rows.
        """
        for merge in self.merges[view]:
            merge(table, bounds, out, row)

    def gather_in_flight(self, view: int, table: TileTable, bounds: Int64Array, out: Gathered, row: int) -> None:
        """As `gather`, with an event in flight; table and bounds are those of `CompiledView.reach_in_flight`."""
        for merge in self.merges_in_flight[view]:
            merge(table, bounds, out, row)

    def gather_nothing(self, view: int, out: Gathered, row: int) -> None:
        """As `gather`, for an entity without tiles."""
        nothing = self._nothing[view]
        out.ints[nothing.int_slots, row] = nothing.ints
        out.floats[nothing.float_slots, row] = nothing.floats
        for slot, value in nothing.objects:
            out.objects[slot, row] = value

    def gather_same(self, view: int, out: Gathered, row: int, as_row: int) -> None:
        """As `gather`, for a row that has the entity key and read time of an earlier one."""
        slots = self._nothing[view]
        out.ints[slots.int_slots, row] = out.ints[slots.int_slots, as_row]
        out.floats[slots.float_slots, row] = out.floats[slots.float_slots, as_row]
        for slot, _ in slots.objects:
            out.objects[slot, row] = out.objects[slot, as_row]

    def lower(self, merged: Gathered, as_of_ms: Int64Array) -> LoweredFeatures:
        """Answers from merged windows; `as_of_ms` is (R,)."""
        shape = (self._count, len(as_of_ms))
        ints = np.zeros(shape, dtype=np.int64)
        floats = np.zeros(shape, dtype=np.float64)
        null = np.zeros(shape, dtype=np.bool_)
        objects: dict[int, list[object]] = {}
        lower_by_formula(self._program, merged.ints, merged.floats, ints, floats, null)
        for feature, slot in self._texts:
            objects[feature] = [
                None if gone else text.decode()
                for text, gone in zip(merged.objects[slot].tolist(), null[feature].tolist(), strict=True)
            ]
        sources = (merged.ints, merged.floats, merged.objects)
        for group in self._groups:
            lowered = group.aggregation.lower([sources[storage][span] for storage, span in group.inputs], as_of_ms)
            is_null = np.zeros((len(group.features), shape[1]), np.bool_) if lowered.null is None else lowered.null
            null[group.features] = is_null
            if group.target is _Target.OBJECTS:
                objects.update(zip(group.features.tolist(), _objects(lowered.values, is_null), strict=True))
            elif group.target is _Target.FLOATS:
                floats[group.features] = np.where(is_null, 0.0, lowered.values)
            else:
                ints[group.features] = np.where(is_null, 0, lowered.values)
        answers = LoweredFeatures(ints, floats, objects, null)
        if self._series:
            answers = self._with_lists(answers)
        return answers if self._outputs is None else self._with_derived(answers)

    def _with_derived(self, answers: LoweredFeatures) -> LoweredFeatures:
        """Compute derived features behind the windowed ones, then pick the outputs."""
        windowed = Answers(answers.ints, answers.floats, answers.objects, answers.null)
        columns = [evaluate(feature, windowed) for feature in self._derived]
        count, rows = answers.null.shape
        more = (len(columns), rows)
        ints = np.concatenate((answers.ints, np.zeros(more, dtype=np.int64)))
        floats = np.concatenate((answers.floats, np.zeros(more)))
        null = np.concatenate((answers.null, np.zeros(more, dtype=np.bool_)))
        objects = dict(answers.objects)
        for at, (feature, column) in enumerate(zip(self._derived, columns, strict=True), start=count):
            if column.valid is not None:
                null[at] = ~column.valid
            if feature.expression.type is ValueType.FLOAT64:
                floats[at] = np.asarray(column.values)
            elif feature.expression.type in INT_TYPES:
                ints[at] = np.asarray(column.values)
            else:
                objects[at] = _objects(np.asarray(column.values)[np.newaxis], null[at : at + 1])[0]
        outputs = self._outputs
        assert outputs is not None
        objects = {to: objects[of] for to, of in enumerate(outputs.tolist()) if of in objects}
        return LoweredFeatures(ints[outputs], floats[outputs], objects, null[outputs])

    def _with_lists(self, elements: LoweredFeatures) -> LoweredFeatures:
        """Put the lists of series together from their elements."""
        first = self._first_elements
        ints, floats = elements.ints.take(first, axis=0), elements.floats.take(first, axis=0)
        null = elements.null.take(first, axis=0)
        objects = {int(first.searchsorted(element)): values for element, values in elements.objects.items()}
        for series in self._series:
            rows, feature = series.elements, series.feature
            lists = (
                float_lists(elements.floats[rows], elements.null[rows])
                if series.is_float
                else int_lists(elements.ints[rows], elements.null[rows])
            )
            ints[feature], floats[feature] = 0, 0.0
            null[feature] = [one is None for one in lists]
            objects[feature] = lists
        return LoweredFeatures(ints, floats, objects, null)

    def _over_nothing(self, view: LoweredView, asks: Sequence[Ask]) -> _Nothing:
        """What merging no tiles gives; it also runs every compiled loop once before a payment waits for it."""
        out = self.gathered(1)
        bounds = np.zeros(2 * view.window_count, dtype=np.int64)
        for merge in range_merges(view.layout, asks):
            merge(view.layout.empty(), bounds, out, 0)
        slots: dict[Storage, list[int]] = {storage: [] for storage in Storage}
        for ask in asks:
            read = [at for field, at in zip(ask.part.part.fields, ask.part.fields, strict=True) if field.is_read]
            for at, slot in zip(read, ask.slots, strict=True):
                slots[at.storage].append(slot)
        int_slots, float_slots = (np.array(slots[storage], dtype=np.int64) for storage in (Storage.INT, Storage.FLOAT))
        return _Nothing(
            int_slots,
            out.ints[int_slots, 0],
            float_slots,
            out.floats[float_slots, 0],
            tuple((slot, out.objects[slot, 0]) for slot in slots[Storage.BLOB]),
        )


@dataclass(frozen=True, slots=True)
class _Nothing:
    """Merged fields over no tiles, and their slots."""

    int_slots: Int64Array
    ints: Int64Array
    float_slots: Int64Array
    floats: Float64Array
    objects: tuple[tuple[int, object], ...]


def _derived(views: Sequence[LoweredView]) -> tuple[list[CompiledDerivedFeature], Int64Array | None]:
    """The derived features of all views, reading the windowed ones of all views, and where the outputs are.

    The outputs are None when they are just the windowed features.
    """
    count = sum(len(view.features) for view in views)
    derived: list[CompiledDerivedFeature] = []
    outputs: list[int] = []
    begin = 0
    for view in views:
        own = len(view.features)
        behind = count + len(derived)
        for feature in view.derived:
            reads = {name: (begin + at, kind) for name, (at, kind) in feature.reads.items()}
            derived.append(replace(feature, reads=reads))
        outputs += [begin + at if at < own else behind + at - own for at in view.outputs]
        begin += own
    return derived, None if outputs == list(range(count)) else np.array(outputs, dtype=np.int64)


def _series(features: Sequence[FeatureFields]) -> tuple[Int64Array, tuple[SeriesRows, ...]]:
    """The first element of each feature among all elements, and the features that are series."""
    first, series = [], []
    begin = 0
    for index, each in enumerate(features):
        size = len(each.elements)
        first.append(begin)
        if each.feature.window.series:
            is_float = each.feature.type is ValueType.FLOAT64_LIST
            series.append(SeriesRows(index, slice(begin, begin + size), is_float))
        begin += size
    return np.array(first, dtype=np.int64), tuple(series)


def _asks(features: Iterable[FeatureFields], slots: Iterable[Sequence[int]]) -> Iterable[Ask]:
    """Each part of each feature over the feature's window; `slots` are those of its fields that are read."""
    for each, mine in zip(features, slots, strict=False):
        at = 0
        for placed in each.parts:
            size = sum(field.is_read for field in placed.part.fields)
            (window,) = each.windows
            yield Ask(placed, window, tuple(mine[at : at + size]), each.feature.in_flight)
            at += size


def _in_flight(ask: Ask, window_count: int) -> Ask:
    """The same of windows that are there twice: as they are, then with the event in flight."""
    return replace(ask, window=ask.window + window_count) if ask.in_flight else ask


def _formula_step(
    formula: tuple[Formula, int], storages: Sequence[Storage], feature: int, slots: Sequence[int], kind: ValueType
) -> tuple[int, ...]:
    """One feature's row of the program; see `core.formulas`."""
    which, degrees = formula
    if len(storages) == 1:
        which = Formula.AS_IS
    has_count = which not in (Formula.AS_IS, Formula.TOTAL)
    values, value_slots = storages[has_count:], slots[has_count:]
    of_value = KIND_INT if len(values) == 1 else KIND_HALVES
    if values[0] is not Storage.INT:
        of_value = KIND_FLOAT if values[0] is Storage.FLOAT else KIND_TEXT
    is_float = kind is ValueType.FLOAT64
    return (int(which), feature, of_value, slots[0], value_slots[0], value_slots[-1], degrees, is_float)


def _target_of(value_type: ValueType) -> _Target:
    """Where answers of a type go."""
    if value_type is ValueType.FLOAT64:
        return _Target.FLOATS
    return _Target.INTS if value_type in INT_TYPES else _Target.OBJECTS


def _objects(values: Array, null: BoolArray) -> list[list[object]]:
    """For each feature R Python values; bytes are text."""
    return [
        [
            None if gone else value.decode() if isinstance(value, bytes) else value
            for value, gone in zip(row, row_null, strict=True)
        ]
        for row, row_null in zip(values.tolist(), null.tolist(), strict=True)
    ]
