"""Entities of a label table as numbers, and events by those numbers.

    labels    c-7  c-3  c-7  null          events   c-3  c-9  c-7
    number      0    1    0    -1                     1   -1    0      nobody asks for c-9: dropped at once

Only entities that somebody asks for are computed, so numbers are given by the labels; an event of another entity costs
one look-up in a hash table of Arrow's and nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.core.events import Int64Array
from featurestore.core.spec import Column
from featurestore.offline.training_set.arrow_columns import cast_column

NOBODY = -1
"""Number of an entity without a key, and of entities that nobody asks for."""


class EntityNumbers:
    """The distinct entity keys of a label table, numbered from 0.

    Args:
        join_keys: of a view.
        labels: the label table's join-key columns, by name; others may be there too.
        row_count: R; wanted only where there are no join keys, so that all rows are about one entity.

    Attributes:
        of_labels: (R,) number of each label row, NOBODY where a join key is null.
        count: number of entities.
    """

    def __init__(self, join_keys: Sequence[Column], labels: Mapping[str, pa.ChunkedArray], row_count: int = 0) -> None:
        self._join_keys = join_keys
        self._values: list[pa.Array] = []
        self._pairs: list[Int64Array] = []
        numbers = None
        for key in join_keys:
            column = cast_column(labels[key.name], key)
            values = pc.unique(column.drop_null())
            values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
            mine = _look_up(column, values)
            self._values.append(values)
            if numbers is not None:
                pairs = _paired(numbers, mine, len(values))
                distinct = np.unique(pairs[pairs >= 0])
                self._pairs.append(distinct)
                mine = _place_of(pairs, distinct)
            numbers = mine
        if numbers is None:
            self.of_labels, self.count = np.zeros(row_count, dtype=np.int64), 1
            return
        self.of_labels = numbers
        self.count = len(self._pairs[-1]) if self._pairs else len(self._values[0])

    def of_events(self, batch: pa.RecordBatch | pa.Table) -> Int64Array:
        """(N,) number of each event's entity, NOBODY for those that no label asks for."""
        numbers = None
        for index, (key, values) in enumerate(zip(self._join_keys, self._values, strict=True)):
            mine = _look_up(cast_column(batch.column(key.name), key), values)
            if numbers is not None:
                mine = _place_of(_paired(numbers, mine, len(values)), self._pairs[index - 1])
            numbers = mine
        return np.zeros(batch.num_rows, dtype=np.int64) if numbers is None else numbers


def _look_up(column: pa.Array | pa.ChunkedArray, values: pa.Array) -> Int64Array:
    """(N,) place of each value among distinct ones, NOBODY for nulls and others."""
    places = pc.index_in(column, value_set=values)
    return np.asarray(pc.fill_null(places, NOBODY).to_numpy(), dtype=np.int64)


def _paired(left: Int64Array, right: Int64Array, count: int) -> Int64Array:
    """One number for each pair of numbers; NOBODY where either is nobody."""
    paired: Int64Array = np.where((left >= 0) & (right >= 0), left * count + right, NOBODY)
    return paired


def _place_of(numbers: Int64Array, distinct: Int64Array) -> Int64Array:
    """(N,) place of each number among ascending distinct ones, NOBODY for others."""
    if not len(distinct):
        return np.full(len(numbers), NOBODY, dtype=np.int64)
    place = np.minimum(np.searchsorted(distinct, numbers), len(distinct) - 1)
    found: Int64Array = np.where(distinct[place] == numbers, place, NOBODY)
    return found
