"""Entity rows of a file, a thousand at a time: however large the file is, little of it is in memory.

    Parquet   a row group is read at a time
    CSV       a block; join keys are read as what they are, so "007" stays a text, and 39.0 is 39

All columns of the file are kept beside the join keys.
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
from featurestore.offline.training_set.arrow_columns import cast_column
from featurestore.serving.request.limits import ROWS_PER_REQUEST_MAX

_FRACTION_OF_NONE = r"\.0*$"


class EntityFile:
    """Rows to look up.

    Args:
        path: of a CSV file, if its name ends so, else of a Parquet file.
        join_keys: that its rows must have.

    Attributes:
        row_count: how many rows there are; None for CSV, which does not say.
        schema: of all columns.

    Raises:
        InvalidRequest: it cannot be read, or has not all join keys.
    """

    def __init__(self, path: Path, join_keys: Sequence[Column]) -> None:
        self._path = path
        self._keys = join_keys
        self.row_count: int | None = None
        try:
            if path.suffix.lower() == ".csv":
                options = pa.csv.ConvertOptions(column_types={key.name: pa.string() for key in join_keys})
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
        if not join_keys:
            raise InvalidRequest("the feature service has no join keys, so there are no rows to look up")
        keys = ", ".join(f"{key.name} ({key.type.value})" for key in join_keys)
        for key in join_keys:
            count = found.names.count(key.name)
            if count != 1:
                raise InvalidRequest(
                    f'"{path}" has {count or "no"} column{"s" * (count > 1)} "{key.name}"',
                    hint=f"it must have the join keys {keys}",
                )
        self.schema: pa.Schema = found if self._null_texts is None else self._with_integer_keys(found)

    def parts(self) -> Iterator[tuple[pa.RecordBatch, dict[str, list[Any]]]]:
        """Some rows, and their join keys as a lookup takes them; up to 1,000 rows at a time, until there are no more.

        Raises:
            InvalidRequest: a row has no key, or one of another type; the message says which row, counted from 0.
        """
        first = 0
        blocks = iter(self._blocks)
        while (block := self._next(blocks)) is not None:
            for begin in range(0, block.num_rows, ROWS_PER_REQUEST_MAX):
                rows = self._typed(block.slice(begin, ROWS_PER_REQUEST_MAX), first)
                keys = {key.name: self._values(rows.column(key.name), key, first) for key in self._keys}
                first += rows.num_rows
                yield rows, keys

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

    def _values(self, column: pa.Array, key: Column, first: int) -> list[Any]:
        """Values of a key, none of them null."""
        values: list[Any] = cast_column(column, key).to_pylist()
        if None in values:
            raise InvalidRequest(
                f'row {first + values.index(None)} of column "{key.name}" has no value',
                hint="leave the row out: there is nothing to look up",
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
