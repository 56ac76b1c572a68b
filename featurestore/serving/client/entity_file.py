"""Entity rows of a file, a thousand at a time: however large the file is, little of it is in memory.

    Parquet   a row group is read at a time
    CSV       a block; join keys are read as what they are, so "007" stays a text, and 39.0 is 39

All columns of the file are kept beside the join keys. Those that features read of the request are sent under their
names, and so are, where the rows are events of a source, the source's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from featurestore.core.spec import Column, ValueType
from featurestore.errors import InvalidRequest
from featurestore.errors.near_names import suggest
from featurestore.offline.training_set.arrow_columns import cast_column
from featurestore.offline.training_set.label_times import moments_ms
from featurestore.online.answer.schema import EventSource, ServiceSchema
from featurestore.serving.client.messages import LookupBatch
from featurestore.serving.request.limits import REQUEST_BYTES_MAX, ROWS_PER_REQUEST_MAX

_FRACTION_OF_NONE = r"\.0*$"

_BATCH_BYTES_MAX = REQUEST_BYTES_MAX // 2
"""Of what is sent, as Arrow holds it, which a message exceeds by little."""


class EntityFile:
    """Rows to look up.

    Args:
        path: of a CSV file, if its name ends so, else of a Parquet file.
        schema: of the feature service: its rows must have the join keys.
        event_sources: names of sources of which each row is an event, the payment in flight.

    Attributes:
        row_count: how many rows there are; None for CSV, which does not say.
        schema: of all columns.

    Raises:
        InvalidRequest: it cannot be read, or has not all join keys and columns of events.
    """

    def __init__(self, path: Path, schema: ServiceSchema, *, event_sources: Sequence[str] = ()) -> None:
        self._path = path
        self._keys = schema.join_keys
        self._events = _sources(schema, event_sources)
        names = {key.name for key in self._keys}
        of_request = [column for column in schema.request_columns if column.name not in names]
        of_events = [column for source in self._events for column in source.columns]
        texts = [column.name for column in (*of_request, *of_events) if column.type is ValueType.STRING]
        self.row_count: int | None = None
        try:
            if path.suffix.lower() == ".csv":
                options = pa.csv.ConvertOptions(column_types=dict.fromkeys([*names, *texts], pa.string()))
                self._null_texts: list[str] | None = options.null_values
                reader = pa.csv.open_csv(path, convert_options=options)
                self._blocks: Iterator[pa.RecordBatch] = iter(reader)
                found = reader.schema
            else:
                self._null_texts = None
                file = pa.parquet.ParquetFile(path)
                self.row_count = file.metadata.num_rows
                self._blocks = file.iter_batches(ROWS_PER_REQUEST_MAX)
                found = file.schema_arrow
        except (OSError, ValueError, pa.ArrowException) as error:
            raise self._unreadable(error) from error
        if not self._keys:
            raise InvalidRequest("the feature service has no join keys, so there are no rows to look up")
        # What a server reads of the request it says itself: a column may be of a view that it does not compute.
        self._request = [column for column in of_request if column.name in found.names]
        self._check_columns(found.names)
        self.schema: pa.Schema = found if self._null_texts is None else self._with_integer_keys(found)

    def parts(self) -> Iterator[tuple[pa.RecordBatch, LookupBatch]]:
        """Some rows, and what a lookup takes of them; as many at a time as a request may have, until there are no more.

        Raises:
            InvalidRequest: a row has no key or event time, or a value of another type; the message says which row,
                counted from 0.
        """
        first = 0
        blocks = iter(self._blocks)
        while (block := self._next(blocks)) is not None:
            for begin in range(0, block.num_rows, ROWS_PER_REQUEST_MAX):
                rows = self._typed(block.slice(begin, ROWS_PER_REQUEST_MAX), first)
                for part in self._sendable(rows):
                    yield part, self._batch(part, first)
                    first += part.num_rows

    def _check_columns(self, names: Sequence[str]) -> None:
        """Every column that is sent is there once."""
        keys = ", ".join(f"{key.name} ({key.type.value})" for key in self._keys)
        needed = [(key, f"it must have the join keys {keys}") for key in self._keys]
        needed += [(column, "features read it of the request: rename the other one") for column in self._request]
        for source in self._events:
            needed += [(column, f'events of source "{source.name}" have it') for column in source.columns]
        for column, hint in needed:
            count = names.count(column.name)
            if count != 1:
                raise InvalidRequest(
                    f'"{self._path}" has {count or "no"} column{"s" * (count > 1)} "{column.name}"', hint=hint
                )

    def _sendable(self, rows: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """The rows cut into parts that fit into a message."""
        sent = {column.name for column in self._sent()}
        size = sum(rows.column(name).nbytes for name in sent)
        if size <= _BATCH_BYTES_MAX or rows.num_rows == 1:
            yield rows
            return
        half = rows.num_rows // 2
        yield from self._sendable(rows.slice(0, half))
        yield from self._sendable(rows.slice(half))

    def _sent(self) -> Iterator[Column]:
        """The columns of which a request has values."""
        yield from self._keys
        yield from self._request
        for source in self._events:
            yield from source.columns

    def _batch(self, rows: pa.RecordBatch, first: int) -> LookupBatch:
        """What is asked of some rows."""
        keys = {key.name: self._values(rows, key, first, is_required=True) for key in self._keys}
        request = {column.name: self._values(rows, column, first) for column in self._request}
        events = {
            source.name: {
                column.name: self._values(rows, column, first, is_required=column.name == source.event_time_column)
                for column in source.columns
            }
            for source in self._events
        }
        return LookupBatch(keys, request, events)

    def _next(self, blocks: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
        try:
            return next(blocks, None)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise self._unreadable(error) from error

    def _typed(self, rows: pa.RecordBatch, first: int) -> pa.RecordBatch:
        """Keys of a CSV that are integers, which were read as texts."""
        if self._null_texts is None:
            return rows
        columns = [
            integers(rows.column(name), name, self._null_texts, first_row=first)
            if self._is_integer_key(name)
            else rows.column(name)
            for name in rows.schema.names
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _values(self, rows: pa.RecordBatch, column: Column, first: int, *, is_required: bool = False) -> list[Any]:
        """Values of a column, as a request has them: moments are milliseconds."""
        array = rows.column(column.name)
        if column.type is ValueType.TIMESTAMP:
            times_ms, is_time = moments_ms(array, column.name)
            array = pa.array(times_ms, mask=~is_time)
        else:
            array = cast_column(array, column)
        values: list[Any] = array.to_pylist()
        if is_required and None in values:
            is_key = column in self._keys
            raise InvalidRequest(
                f'row {first + values.index(None)} of column "{column.name}" has no value',
                hint="leave the row out: there is nothing to look up"
                if is_key
                else "leave the row out, or give its time",
            )
        return values

    def _with_integer_keys(self, schema: pa.Schema) -> pa.Schema:
        return pa.schema(
            [field.with_type(pa.int64()) if self._is_integer_key(field.name) else field for field in schema]
        )

    def _is_integer_key(self, name: str) -> bool:
        return any(key.name == name and key.type is ValueType.INT64 for key in self._keys)

    def _unreadable(self, error: Exception) -> InvalidRequest:
        return InvalidRequest(
            f'the entities in "{self._path}" cannot be read',
            detail=" ".join(str(error).split()),
            hint="write them as Parquet, or as CSV under a name that ends in .csv",
        )


def _sources(schema: ServiceSchema, names: Sequence[str]) -> list[EventSource]:
    """The sources of these names.

    Raises:
        InvalidRequest: the feature service has no features of one.
    """
    known = {source.name: source for source in schema.event_sources}
    for name in names:
        if name not in known:
            raise InvalidRequest(
                f'feature service "{schema.service}" has no features of source "{name}"',
                hint=suggest(name, list(known)),
            )
    return [known[name] for name in dict.fromkeys(names)]


def integers(column: Any, name: str, null_texts: list[str], *, first_row: int = 0) -> Any:
    """Texts of a CSV as integers, 39.0 as 39.

    Args:
        column: an Arrow array of texts, chunked or not.
        name: of the column.
        null_texts: that stand for no value.
        first_row: number of the first value's row.

    Raises:
        InvalidRequest: one is none; the message says in which row.
    """
    is_null = pc.is_in(column, value_set=pa.array(null_texts))
    texts = pc.replace_substring_regex(pc.utf8_trim_whitespace(column), _FRACTION_OF_NONE, "")
    try:
        return pc.if_else(is_null, None, texts).cast(pa.int64())
    except pa.ArrowInvalid:
        row = next(
            row for row, text in enumerate(pc.if_else(is_null, None, texts).to_pylist()) if not _is_integer(text)
        )
        raise InvalidRequest(
            f'row {first_row + row} of column "{name}" is "{column[row].as_py()}", which is no integer of 64 bits',
            hint="correct the row, or leave it empty where there is no key",
        ) from None


def _is_integer(text: str | None) -> bool:
    """Whether Arrow takes a text for one."""
    try:
        pa.array([text]).cast(pa.int64())
    except pa.ArrowInvalid:
        return False
    return True
