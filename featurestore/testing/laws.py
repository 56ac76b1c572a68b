"""The four verbs of an aggregation, put together from its parts: identity, lift, merge, lower.

In the core the verbs work on columns and are spread over shared parts. Here an accumulator is one value again, so that
the laws can be written down as they are in textbooks. Nothing is implemented twice: every verb calls the core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.aggregations.catalog import resolve
from featurestore.core.aggregations.keyed.kernels import ADD
from featurestore.core.aggregations.keyed.states import KeyedPart
from featurestore.core.events import BlobRow
from featurestore.core.lowering.lowering import INT_TYPES
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.parts import EventRows, Storage
from featurestore.core.tiles.tiles import TileLayout, TileTable, concatenate
from featurestore.testing.batches import event_columns
from featurestore.testing.oracle.naive import NaiveAnswer, NaiveEvent


@dataclass(frozen=True, slots=True)
class Accumulator:
    """What a tile keeps for one aggregation; compares by its bytes.

    Attributes:
        table: a single tile.
    """

    table: TileTable

    def content(self) -> tuple[bytes, bytes, tuple[bytes, ...]]:
        """Integers, floats and strings, for exact comparison."""
        compact = self.table.normalize()
        blobs = tuple(compact.blobs.row(row).values()[0] for row in range(len(compact.layout.blob_fields)))
        return compact.ints.tobytes(), (compact.floats + 0.0).tobytes(), blobs


class Algebra:
    """One aggregation over one column type.

    Args:
        function: name in the catalog.
        column: what it reads; None counts rows.
        further: the columns that it reads beside.
    """

    def __init__(self, function: str, column: Column | None, further: Sequence[Column] = ()) -> None:
        self.aggregation = resolve(function)
        self.column = column
        self.further = further
        self._parts = self.aggregation.parts(column, further)
        self.layout = TileLayout(self._parts)

    @property
    def is_exact(self) -> bool:
        """Whether equal events give equal accumulators to the bit: no float is added up, nothing is dropped."""
        keyed = [part.layout for part in self._parts if isinstance(part, KeyedPart)]
        adds_floats = self.layout.float_fields or any(ADD in layout.float_merges for layout in keyed)
        return self.aggregation.is_exactly_mergeable and not adds_floats

    def identity(self) -> Accumulator:
        """The accumulator over no events: every field's identity."""
        layout = self.layout
        ints = np.array([[field.identity] for field in layout.int_fields], dtype=np.int64).reshape(-1, 1)
        floats = np.array([[field.identity] for field in layout.float_fields], dtype=np.float64).reshape(-1, 1)
        blobs = {row: BlobRow.of([b""]) for row in range(len(layout.blob_fields))}
        zero = np.zeros(1, dtype=np.int64)
        return Accumulator(TileTable(layout, zero, zero + 1, ints, floats, layout.blobs_of(blobs, 1)))

    def lift(self, event: NaiveEvent) -> Accumulator:
        """The accumulator of one event."""
        columns = event_columns([*([self.column] if self.column else []), *self.further], [event])
        ids = np.empty(1, dtype=np.object_)
        ids[0] = event.event_id or b""
        return Accumulator(self.layout.lift(EventRows(np.array([event.event_time_ms]), ids, columns)))

    def merge(self, left: Accumulator, right: Accumulator) -> Accumulator:
        """Both together."""
        both = concatenate([left.table, right.table])
        first = np.zeros(1, dtype=np.int64)
        return Accumulator(both.merge_groups(first, both.start_ms[:1], both.end_ms[:1]))

    def lower(self, accumulator: Accumulator, as_of_ms: int = 0) -> NaiveAnswer | None:
        """The answer at a read time."""
        table = accumulator.table
        fields = []
        for part in self._parts:
            for field, at in zip(part.fields, self.layout.position_of(part).fields, strict=True):
                if not field.is_read:
                    continue
                if at.storage is Storage.BLOB:
                    values = np.empty((1, 1), dtype=np.object_)
                    values[0, 0] = table.blobs.row(at.row).values()[0]
                    fields.append(values)
                else:
                    fields.append((table.ints if at.storage is Storage.INT else table.floats)[at.row][:, np.newaxis])
        lowered = self.aggregation.lower(fields, np.array([as_of_ms], dtype=np.int64))
        if lowered.null is not None and lowered.null[0, 0]:
            return None
        value = lowered.values[0, 0]
        output_type = self.aggregation.output_type(self.column.type if self.column else None)
        if output_type is ValueType.FLOAT64:
            return float(value)
        if output_type in INT_TYPES:
            return int(value)
        answer: NaiveAnswer = value.decode() if isinstance(value, bytes) else value
        return answer
