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

import numpy as np
import pyarrow as pa

from featurestore.core.compiled import INT, INT_MATRIX, INTS, TRUTH_MATRIX, compiled_for_bulk
from featurestore.core.events import BoolArray, Int64Array, ObjectArray
from featurestore.core.lowering import INT_TYPES, LoweredFeatures
from featurestore.core.point_in_time_rows import Chunk
from featurestore.core.spec import Column, ValueType
from featurestore.offline.arrow_columns import ARROW_TYPES

_ROW = "row"

_WORD_BITS = 64

_TURNED_ROWS = 1 << 16
"""Rows that a thread turns into columns at once."""


class PartAnswers:
    """Room for the answers of R rows, filled by chunks in any order and from several threads.

    Chunks come by entity, rows are in the labels' order: each value has a random place. So all numbers of a row and a
    bit for each, set where it is null, lie side by side until the last one is there, and one visit to memory places
    them all; then they become columns.

    Args:
        columns: name and type of each feature.
        row_count: R.
    """

    def __init__(self, columns: Sequence[Column], row_count: int) -> None:
        self._columns = columns
        self._objects: dict[int, ObjectArray] = {
            index: np.empty(row_count, dtype=np.object_)
            for index, column in enumerate(columns)
            if column.type is not ValueType.FLOAT64 and column.type not in INT_TYPES
        }
        self._numeric = np.array([at for at in range(len(columns)) if at not in self._objects], dtype=np.int64)
        self._is_float = np.array([column.type is ValueType.FLOAT64 for column in columns], dtype=np.int64)
        null_words = -(-len(self._numeric) // _WORD_BITS)
        self._rows = np.empty((row_count, len(self._numeric) + null_words), dtype=np.int64)

    def put(self, chunk: Chunk, answers: LoweredFeatures) -> None:
        """Store the answers of a chunk."""
        ints, floats = np.ascontiguousarray(answers.ints), np.ascontiguousarray(answers.floats).view(np.int64)
        null = np.ascontiguousarray(answers.null)
        _place(ints, floats, null, self._numeric, self._is_float, chunk.moment_rows, self._rows)
        for index, values in self._objects.items():
            values[chunk.moment_rows] = _as_objects(answers.objects[index])

    def table(self, threads: Executor) -> pa.Table:
        """All rows in their order; to be called once, as it lets go of what was stored."""
        row_count, count = len(self._rows), len(self._numeric)
        numbers = np.empty((count, row_count), dtype=np.int64)
        null = np.empty((count, row_count), dtype=np.bool_)

        def turn(begin: int) -> None:
            _turn(self._rows, begin, min(begin + _TURNED_ROWS, row_count), numbers, null)

        for _ in threads.map(turn, range(0, row_count, _TURNED_ROWS)):
            pass
        del self._rows
        place = {index: at for at, index in enumerate(self._numeric.tolist())}

        def array(index: int) -> pa.Array:
            kind = self._columns[index].type
            if index in self._objects:
                return object_array(self._objects[index].tolist(), kind)
            return _number_array(numbers[place[index]], null[place[index]], kind)

        arrays = threads.map(array, range(len(self._columns)))
        return pa.table(list(arrays), names=[column.name for column in self._columns])


def _number_array(values: Int64Array, null: BoolArray, kind: ValueType) -> pa.Array:
    """A column of numbers; the bits of floats are given as integers. Takes the memory over."""
    valid = None
    if null.any():
        valid = pa.py_buffer(np.packbits(~null, bitorder="little"))
    stored = pa.float64() if kind is ValueType.FLOAT64 else pa.int64()
    array = pa.Array.from_buffers(stored, len(values), [valid, pa.py_buffer(values)])
    return array if array.type == ARROW_TYPES[kind] else array.cast(ARROW_TYPES[kind])


@compiled_for_bulk(INT, INT_MATRIX, INT_MATRIX, TRUTH_MATRIX, INTS, INTS, INTS, INT_MATRIX)
def _place(
    ints: Int64Array,
    floats: Int64Array,
    null: BoolArray,
    numeric: Int64Array,
    is_float: Int64Array,
    places: Int64Array,
    rows: Int64Array,
) -> int:
    """Answers (F, r) to their places among rows (R, numbers and words of null bits)."""
    count = len(numeric)
    for index in range(len(places)):
        place = places[index]
        for word in range(rows.shape[1] - count):
            null_bits = np.int64(0)
            first = word * _WORD_BITS
            for at in range(first, min(first + _WORD_BITS, count)):
                feature = numeric[at]
                rows[place, at] = floats[feature, index] if is_float[feature] else ints[feature, index]
                null_bits |= np.int64(null[feature, index]) << (at - first)
            rows[place, count + word] = null_bits
    return 0


@compiled_for_bulk(INT, INT_MATRIX, INT, INT, INT_MATRIX, TRUTH_MATRIX)
def _turn(rows: Int64Array, begin: int, end: int, columns: Int64Array, null: BoolArray) -> int:
    """Rows [begin, end) into columns, a few rows at a time so that what is read twice is still in the cache."""
    count = columns.shape[0]
    for low in range(begin, end, 64):
        high = min(low + 64, end)
        for at in range(count):
            for row in range(low, high):
                columns[at, row] = rows[row, at]
                null[at, row] = (rows[row, count + at // _WORD_BITS] >> (at % _WORD_BITS)) & 1
    return 0


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
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._path(part)
        unfinished = path.with_suffix(".unfinished")
        numbered = table.append_column(_ROW, pa.array(rows))
        with pa.ipc.new_file(str(unfinished), numbered.schema) as writer:
            writer.write_table(numbered)
        unfinished.replace(path)

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
