"""Answers of one view: computed part by part, kept in memory or in files, and given back in the order of the labels.

    part 0    label rows 0 3 4 8        in memory, or answers-00000.arrow
    part 1    label rows 1 2 7          row 5 and 6 have no key: they are in no part and null
    block     rows [0, 4)  =  part 0: 0 3   part 1: 1 2   put in order

A file appears under its name when it is complete, so what a killed process has finished is found again.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from featurestore.core.events import Int64Array, ObjectArray
from featurestore.core.lowering.lowering import INT_TYPES, LoweredFeatures
from featurestore.core.point_in_time.rows import Chunk
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.parts import Array
from featurestore.offline.disk import complete_file, make_directory
from featurestore.offline.training_set.arrow_columns import ARROW_TYPES

_ROW = "row"


class PartAnswers:
    """Room for the answers of R rows, filled by chunks in any order and from several threads.

    Chunks come by entity, rows are in the labels' order: each value has a random place. So answers are stored as they
    come, and when the last one is there column after column is put in order: one column fits in the cache, all do not.

    Args:
        columns: name and type of each feature.
        row_count: R.
    """

    def __init__(self, columns: Sequence[Column], row_count: int) -> None:
        self._columns = columns
        self._is_object = [column.type is not ValueType.FLOAT64 and column.type not in INT_TYPES for column in columns]
        self._values: list[Array] = [np.empty(row_count, dtype=_stored_type(column.type)) for column in columns]
        self._null = [np.empty(0 if is_object else row_count, dtype=np.bool_) for is_object in self._is_object]
        self._places = np.empty(row_count, dtype=np.int64)

    def put(self, chunk: Chunk, answers: LoweredFeatures) -> None:
        """Store the answers of a chunk."""
        begin, end = chunk.moments_before, chunk.moments_before + chunk.moments.count
        self._places[chunk.moment_rows] = np.arange(begin, end)
        for index, column in enumerate(self._columns):
            values = self._values[index]
            if self._is_object[index]:
                values[begin:end] = _as_objects(answers.objects[index])
                continue
            values[begin:end] = (answers.floats if column.type is ValueType.FLOAT64 else answers.ints)[index]
            self._null[index][begin:end] = answers.null[index]

    def table(self, threads: Executor) -> pa.Table:
        """All rows in their order; to be called once, as it lets go of what was stored."""
        arrays = threads.map(self._array, range(len(self._columns)))
        return pa.table(list(arrays), names=[column.name for column in self._columns])

    def _array(self, index: int) -> pa.Array:
        """A column in order."""
        kind = self._columns[index].type
        # Clipping never happens; numpy copies once more where it has to look for places that do not exist.
        values = self._values[index].take(self._places, mode="clip")
        self._values[index] = values[:0].copy()
        if self._is_object[index]:
            return object_array(values.tolist(), kind)
        valid = None
        if self._null[index].any():
            valid = pa.py_buffer(np.packbits(~self._null[index].take(self._places, mode="clip"), bitorder="little"))
        stored = pa.float64() if kind is ValueType.FLOAT64 else pa.int64()
        array = pa.Array.from_buffers(stored, len(values), [valid, pa.py_buffer(values)])
        return array if array.type == ARROW_TYPES[kind] else array.cast(ARROW_TYPES[kind])


def _stored_type(kind: ValueType) -> np.dtype[Any]:
    """How answers of a type are stored before they are in order."""
    if kind is ValueType.FLOAT64:
        return np.dtype(np.float64)
    return np.dtype(np.int64) if kind in INT_TYPES else np.dtype(np.object_)


def _as_objects(values: Sequence[object]) -> ObjectArray:
    """A list as an array of its elements, whatever they are."""
    array = np.empty(len(values), dtype=np.object_)
    array[:] = values
    return array


@dataclass(frozen=True, slots=True)
class _Part:
    """Some label rows, ascending, and their answers."""

    rows: Int64Array
    table: pa.Table


class AnswerParts:
    """All answers of one view.

    Args:
        columns: name and type of each feature.
        directory: where files go; None keeps the answers in memory.
    """

    def __init__(self, columns: Sequence[Column], directory: Path | None) -> None:
        self._schema = pa.schema([(column.name, ARROW_TYPES[column.type]) for column in columns])
        self._directory = directory
        self._parts: dict[int, _Part] = {}

    def has(self, part: int) -> bool:
        """Whether a part is complete, from this process or an earlier one."""
        return part in self._parts or (self._directory is not None and self._path(part).exists())

    def put(self, part: int, rows: Int64Array, table: pa.Table) -> None:
        """Keep a complete part.

        Args:
            part: its number.
            rows: its label rows, ascending.
            table: their answers.
        """
        if self._directory is None:
            self._parts[part] = _Part(rows, table)
            return
        make_directory(self._directory)
        numbered = table.append_column(_ROW, pa.array(rows))
        with (
            complete_file(self._path(part)) as unfinished,
            pa.ipc.new_file(str(unfinished), numbered.schema) as writer,
        ):
            writer.write_table(numbered)

    def open(self, part_count: int) -> None:
        """Map all parts' files, to read blocks from them."""
        if self._directory is None:
            return
        for part in range(part_count):
            if self._path(part).exists():
                with pa.memory_map(str(self._path(part))) as source:
                    table = pa.ipc.open_file(source).read_all()
                rows = table.column(_ROW).to_numpy()
                self._parts[part] = _Part(rows, table.drop_columns([_ROW]))

    def block(self, begin: int, end: int) -> pa.Table:
        """Answers of label rows [begin, end); null where there is none."""
        pieces, places = [], []
        for part in self._parts.values():
            low, high = np.searchsorted(part.rows, (begin, end)).tolist()
            if low < high:
                pieces.append(part.table.slice(low, high - low))
                places.append(part.rows[low:high] - begin)
        if len(pieces) == 1 and len(places[0]) == end - begin:
            return pieces[0]
        found = pa.concat_tables([*pieces, self._schema.empty_table()])
        place = np.full(end - begin, -1, dtype=np.int64)
        if places:
            joined = np.concatenate(places)
            place[joined] = np.arange(len(joined))
        return found.take(pa.array(place, mask=place < 0))

    def _path(self, part: int) -> Path:
        assert self._directory is not None, "parts in memory have no path"
        return self._directory / f"answers-{part:05d}.arrow"


def object_array(values: list[object], value_type: ValueType) -> pa.Array:
    """Texts, lists or maps (Python values, None for null) as an Arrow array."""
    if value_type in (ValueType.INT64_MAP, ValueType.FLOAT64_MAP):
        values = [list(one.items()) if isinstance(one, dict) else None for one in values]
    return pa.array(values, type=ARROW_TYPES[value_type])
