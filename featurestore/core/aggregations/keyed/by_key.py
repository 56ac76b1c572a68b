"""A secondary key: "<function> by <column>" answers a map from each value of the column to the function's answer.

    "sum by merchant_category" of amount      {"5411": 2310, "5812": 450}
    "count by country(50)"                    {"DE": 3, "SE": 1}, null when there are more than 50 countries

It wraps a function whose parts merge by ADD, MIN and MAX alone; the fields of all its parts become the numbers of a
keyed state. A tile that held more keys than the bound has forgotten them, so an answer depends on the set of keys in
the window and on nothing else. Events whose key, or whose value of the function's own column, is null are skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.aggregations.base import Aggregation, Lowered
from featurestore.core.aggregations.formulas import Formula
from featurestore.core.aggregations.keyed.kernels import ADD, MAX, MIN
from featurestore.core.aggregations.keyed.states import (
    KEY_TAGS,
    TAG_OF_TYPE,
    KeyedPart,
    StateLayout,
    is_too_many,
    keys_of,
    no_answers,
    read_state,
)
from featurestore.core.events import Int64Array
from featurestore.core.spec import SCALAR_TYPES, Column, ValueType
from featurestore.core.tiles.lifting import lift_field
from featurestore.core.tiles.parts import Array, EventRows, Field, FieldValues, Merge, Part, PartBase, Storage
from featurestore.errors import InvalidRequest

KEYS_DEFAULT = 100
"""Keys of an answer unless the definition says otherwise."""

KEYS_MAX = 10_000

_COLUMN_TYPES = (None, *SCALAR_TYPES)
"""The type of the function's own column is in the first byte of a state, because its parts depend on it."""

_MERGES = {Merge.ADD: ADD, Merge.MIN: MIN, Merge.MAX: MAX}
_MAP_OF_TYPE = {
    ValueType.INT64: ValueType.INT64_MAP,
    ValueType.TIMESTAMP: ValueType.INT64_MAP,
    ValueType.FLOAT64: ValueType.FLOAT64_MAP,
}


class FieldsByKey(KeyedPart):
    """The fields of some parts for each value of a key column.

    Args:
        function: whose parts; blocks only.
        column: must have a value; None counts events.
        by: the key column.
        bound: number of keys of which an answer is wanted.
    """

    def __init__(self, function: Aggregation, column: Column | None, by: Column, bound: int) -> None:
        parts = function.parts(column)
        column_code = _COLUMN_TYPES.index(None if column is None else column.type)
        layout = StateLayout(
            TAG_OF_TYPE[by.type] + KEY_TAGS * column_code,
            tuple(_MERGES[field.merge] for field in _numbers_of(parts, Storage.INT)),
            tuple(_MERGES[field.merge] for field in _numbers_of(parts, Storage.FLOAT)),
            limit=bound,
        )
        name = "" if column is None else column.name
        super().__init__(f"by({by.name},{bound},{name},{','.join(part.key for part in parts)})", layout)
        self.column, self.by, self.parts = column, by, parts

    def lift(self, rows: EventRows) -> Mapping[str, FieldValues]:
        """One key an event, with what the event is worth in each field."""
        keys = rows.columns[self.by.name]
        valid = keys.valid
        mine = None if self.column is None else rows.columns[self.column.name].valid
        if mine is not None:
            valid = mine if valid is None else valid & mine
        fields = [*_numbers_of(self.parts, Storage.INT), *_numbers_of(self.parts, Storage.FLOAT)]
        numbers = [np.asarray(lift_field(field, rows, None)) for field in fields]
        return {"state": self.lift_entries(keys_of(keys, self.by.type), valid, numbers)}


@dataclass(frozen=True, slots=True)
class ByKey:
    """Answers of a function for each value of a further column; null over no events and when there are more keys.

    Keys are texts, ascending by value. A key whose own answer is null (a sum that does not fit) is left out.
    """

    function: Aggregation
    by: str
    bound: int
    is_commutative = True
    is_invertible = False
    is_exactly_mergeable = True
    keeps_nulls = False

    @property
    def name(self) -> str:
        """Canonical text."""
        return f"{self.function.name} by {self.by}({self.bound})"

    @property
    def requires_column(self) -> bool:
        """As the function."""
        return self.function.requires_column

    @property
    def input_types(self) -> frozenset[ValueType]:
        """Those of the function over which it answers a number."""
        return frozenset(one for one in _taken_by(self.function) if one is not None)

    @property
    def further_columns(self) -> tuple[str, ...]:
        """The key column."""
        return (self.by,)

    @property
    def counts_in_flight(self) -> bool:
        """As the function."""
        return self.function.counts_in_flight

    @property
    def ages(self) -> bool:
        """As the function."""
        return self.function.ages

    @property
    def formula(self) -> tuple[Formula, int] | None:
        """None."""
        return None

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """A map from text to the function's kind of number; moments are milliseconds."""
        inner = self.function.output_type(column_type)
        return None if inner is None else _MAP_OF_TYPE.get(inner)

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """The function's fields by key."""
        return (FieldsByKey(self.function, column, further[0], self.bound),)

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """The function lowers all keys of a state at once."""
        (states,) = fields
        maps, null = no_answers(states.shape), np.ones(states.shape, dtype=np.bool_)
        for place, state in np.ndenumerate(states):
            if state and not is_too_many(state):
                maps[place], null[place] = self._map(state, int(as_of_ms[place[1]])), False
        return Lowered(maps, null)

    def _map(self, state: bytes, as_of_ms: int) -> dict[str, int] | dict[str, float]:
        """The answers of one state."""
        column_type = _COLUMN_TYPES[state[0] // KEY_TAGS]
        parts = self.function.parts(None if column_type is None else Column("", column_type))
        ints, floats = _numbers_of(parts, Storage.INT), _numbers_of(parts, Storage.FLOAT)
        entries = read_state(state, len(ints), len(floats))
        numbers = {Storage.INT: iter(entries.ints), Storage.FLOAT: iter(entries.floats)}
        fields = [next(numbers[field.storage])[np.newaxis] for part in parts for field in part.fields]
        lowered = self.function.lower(fields, np.full(len(entries), as_of_ms))
        null = np.zeros(len(entries), np.bool_) if lowered.null is None else lowered.null[0]
        answers = zip(entries.texts(), lowered.values[0].tolist(), null.tolist(), strict=True)
        return {text: value for text, value, gone in answers if not gone}


def by_key(function: Aggregation, by: str, bound: int) -> Aggregation:
    """A function for each value of a column.

    Raises:
        InvalidRequest: the function keeps more than sums, minima and maxima, or the bound is out of range.
    """
    if not 1 <= bound <= KEYS_MAX:
        raise InvalidRequest(
            f'function "{function.name} by {by}({bound})" has an invalid number of keys',
            hint=f"give an integer from 1 to {KEYS_MAX}",
        )
    parts = _parts_of(function)
    if function.further_columns or not parts or not all(map(_is_block, parts)):
        raise InvalidRequest(
            f'function "{function.name}" cannot be taken by a secondary key: its state is more than sums, minima '
            "and maxima",
            hint='functions such as count, sum, mean, min and max can be taken "by" a column',
        )
    return ByKey(function, by, bound)


def _parts_of(function: Aggregation) -> list[Part]:
    """The parts of a function over any column of which it makes a number."""
    taken = _taken_by(function)
    return [part for one in taken for part in function.parts(None if one is None else Column("", one))]


def _taken_by(function: Aggregation) -> list[ValueType | None]:
    """The types of columns of which a function makes a number; None is no column."""
    return [one for one in _COLUMN_TYPES if function.output_type(one) in _MAP_OF_TYPE]


def _is_block(part: Part) -> bool:
    """Whether all fields are numbers that merge by ADD, MIN or MAX and are given to `lower`."""
    return isinstance(part, PartBase) and all(
        field.storage is not Storage.BLOB and field.merge in _MERGES and field.is_read for field in part.fields
    )


def _numbers_of(parts: Sequence[Part], storage: Storage) -> list[Field]:
    """The fields of that storage, in their order."""
    return [field for part in parts for field in part.fields if field.storage is storage]
