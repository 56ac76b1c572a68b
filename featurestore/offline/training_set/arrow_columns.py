"""Arrow arrays and the calculator's columns, both ways, without a Python object a row where the type allows it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.core.events import BlobRow, BoolArray, ColumnValues
from featurestore.core.spec import Column, ValueType
from featurestore.errors import InvalidRequest
from featurestore.offline.training_set.label_times import moments_ms

if TYPE_CHECKING:
    from typing_extensions import Buffer

ARROW_TYPES: Mapping[ValueType, pa.DataType] = {
    ValueType.INT64: pa.int64(),
    ValueType.FLOAT64: pa.float64(),
    ValueType.STRING: pa.string(),
    ValueType.BOOL: pa.bool_(),
    ValueType.TIMESTAMP: pa.timestamp("ms", tz="UTC"),
    ValueType.INT64_LIST: pa.list_(pa.int64()),
    ValueType.FLOAT64_LIST: pa.list_(pa.float64()),
    ValueType.STRING_LIST: pa.list_(pa.string()),
    ValueType.INT64_MAP: pa.map_(pa.string(), pa.int64()),
    ValueType.FLOAT64_MAP: pa.map_(pa.string(), pa.float64()),
}
"""Types of features in a training set."""

_TEXTS = frozenset({pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary()})


def column_values(array: pa.Array, column: Column) -> ColumnValues:
    """N values of a column as the calculator takes them; what is no number of the column's kind is null.

    Args:
        array: of the column's Arrow type, or one that can be cast to it without loss.
        column: name and type.

    Raises:
        InvalidRequest: it cannot be cast.
    """
    if column.type is ValueType.TIMESTAMP:
        times_ms, is_time = moments_ms(array, column.name)
        return ColumnValues(times_ms, None if is_time.all() else is_time)
    array = cast_column(array, column)
    valid = None if not array.null_count else _valid(array)
    if column.type is ValueType.STRING:
        return ColumnValues(strings(array), valid)
    if column.type is ValueType.FLOAT64:
        values = np.asarray(pc.fill_null(array, 0.0).to_numpy(zero_copy_only=False))
        finite = np.isfinite(values)
        if finite.all():
            return ColumnValues(values, valid)
        return ColumnValues(np.where(finite, values, 0.0), finite if valid is None else finite & valid)
    if column.type is ValueType.BOOL:
        array = array.cast(pa.int64())
    return ColumnValues(np.asarray(pc.fill_null(array, 0).to_numpy(zero_copy_only=False)), valid)


def values_array(column: ColumnValues, value_type: ValueType) -> pa.Array:
    """N values of a column as an array of its Arrow type."""
    if isinstance(column.values, BlobRow):
        return strings_array(column.values, column.valid, pa.string())
    mask = None if column.valid is None else ~column.valid
    if value_type is ValueType.STRING:
        return pa.array(column.values.tolist(), type=pa.binary(), mask=mask).cast(pa.string())
    stored = pa.array(column.values, mask=mask)
    return stored if stored.type == ARROW_TYPES[value_type] else stored.cast(ARROW_TYPES[value_type])


def cast_column(array: pa.Array, column: Column) -> pa.Array:
    """The array as the column's Arrow type.

    Integers that pandas has made floats for the sake of their nulls become integers again.

    Raises:
        InvalidRequest: values would be lost or guessed at.
    """
    wanted = ARROW_TYPES[column.type]
    kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    if kind == wanted and array.type == wanted:
        return array
    is_text = kind in _TEXTS
    # A number of what since when? Arrow would take it as it is stored, in any unit.
    is_unclear = pa.types.is_temporal(kind) and column.type in (ValueType.INT64, ValueType.FLOAT64)
    if pa.types.is_null(kind) or ((column.type is ValueType.STRING) == is_text and not is_unclear):
        try:
            if pa.types.is_dictionary(array.type):
                array = array.cast(kind)
            if pa.types.is_floating(kind) and column.type is ValueType.INT64:
                array = pc.if_else(pc.is_nan(array), pa.scalar(None, kind), array)
            return array.cast(wanted)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InvalidRequest(
                f'column "{column.name}" of type {kind} cannot be read as {column.type}', detail=str(error)
            ) from error
    raise InvalidRequest(
        f'column "{column.name}" is of type {kind}, not {column.type}',
        hint="cast it before, so that nothing is guessed",
    )


def takeable(array: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The same texts as a type of which Arrow can take some rows, which it cannot of views."""
    return array.cast(pa.string()) if pa.types.is_string_view(array.type) else array


def strings(array: pa.Array) -> BlobRow:
    """Spans of a string (or binary) array's own buffer; nulls are empty."""
    offsets = np.frombuffer(array.buffers()[1], dtype=np.int32)[array.offset : array.offset + len(array) + 1]
    data = array.buffers()[2]
    first, last = (int(offsets[0]), int(offsets[-1])) if len(offsets) else (0, 0)
    content = b"" if data is None else data.slice(first, last - first).to_pybytes()
    ends = offsets.astype(np.int64) - first
    return BlobRow(content, ends[:-1].copy(), ends[1:].copy())


def strings_array(row: BlobRow, valid: BoolArray | None, kind: pa.DataType) -> pa.Array:
    """Spans as a string or binary array."""
    lengths = row.ends - row.begins
    is_packed = len(lengths) == 0 or (int(row.begins[0]) == 0 and bool((row.begins[1:] == row.ends[:-1]).all()))
    if not is_packed:
        values = row.values()
        return pa.array(values, type=pa.binary(), mask=None if valid is None else ~valid).cast(kind)
    offsets = np.zeros(len(lengths) + 1, dtype=np.int32)
    offsets[1:] = row.ends
    bitmap = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little").tobytes())
    return pa.Array.from_buffers(kind, len(lengths), [bitmap, pa.py_buffer(offsets), pa.py_buffer(row.buffer)])


def content_digest(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> str:
    """Text that changes with any name, type or value.

    It is that of the Arrow stream: a column's own buffers would hold more than a slice has, and not its dictionary.
    """
    sink = _DigestSink()
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.digest.hexdigest()


class _DigestSink(io.RawIOBase):
    """A file of which only the digest is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.digest = hashlib.blake2b(digest_size=16)

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, content: Buffer) -> int:
        """Take all of it."""
        self.digest.update(content)
        return memoryview(content).nbytes


def _valid(array: pa.Array) -> BoolArray:
    """(N,) True where not null."""
    return np.asarray(array.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)
