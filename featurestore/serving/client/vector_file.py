"""Feature vectors of all rows of a file, into another one: what a job that scores a million rows wants.

    rows -> lookup_stream -> results -> the rows' columns, features, on request statuses and read times -> Parquet

Rows, their order and their columns stay. The file gets its name when it is complete.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from featurestore.core.spec import ValueType
from featurestore.errors import InvalidRequest
from featurestore.offline.training_set.answer_parts import object_array
from featurestore.offline.training_set.arrow_columns import ARROW_TYPES
from featurestore.offline.training_set.build import parquet_file
from featurestore.online.answer.schema import FeatureSlot, FeatureStatus, Matrix, ServiceSchema
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.client.entity_file import EntityFile
from featurestore.serving.client.messages import LookupBatch
from featurestore.serving.client.result import LookupResult

ROW_GROUP_ROWS = 50_000
"""Rows that are written at once, which is what is in memory."""

STATUS_SUFFIX = "__status"

_STATUS_TYPE = pa.dictionary(pa.int8(), pa.string())
_STATUS_NAMES = pa.array([status.name for status in sorted(FeatureStatus, key=int)])
_STATUS_PLACES = np.zeros(256, dtype=np.int8)
_STATUS_PLACES[sorted(FeatureStatus, key=int)] = np.arange(len(FeatureStatus))


@dataclass(frozen=True, slots=True)
class VectorColumns:
    """What is added to the rows.

    Attributes:
        features: by name.
        with_statuses: whether each feature has a column NAME__status beside it.
        as_of: name of a column with the read time of each row; empty for none.
        full_names: whether features are called VIEW__FEATURE.
    """

    features: Sequence[str]
    with_statuses: bool = False
    as_of: str = ""
    full_names: bool = False


def write_vectors(
    client: LookupClient,
    schema: ServiceSchema,
    entities: EntityFile,
    out: Path,
    *,
    columns: VectorColumns,
    as_of_ms: int | None,
    timeout_s: float,
    progress: Callable[[int], None],
) -> int:
    """Look up all rows of a file.

    Args:
        client: of the server.
        schema: of the feature service.
        entities: the rows.
        out: Parquet file to write.
        columns: what is added.
        as_of_ms: read time of all rows; None for the server's clock, for each thousand rows as they are answered.
        timeout_s: of each thousand rows.
        progress: called with the number of rows that are answered so far.

    Returns:
        The number of rows.

    Raises:
        InvalidRequest: a column of the file is called like one that is added, or a row is wrong.
        FeatureStoreError: as `LookupClient.lookup_stream`; there is no file then.
    """
    wanted = _output_schema(schema, entities.schema, columns)
    asked: deque[pa.RecordBatch] = deque()

    def batches() -> Iterator[LookupBatch]:
        for rows, batch in entities.parts():
            asked.append(rows)
            yield batch

    count = 0
    unwritten: list[pa.RecordBatch] = []
    with parquet_file(out) as write:
        for result in client.lookup_stream(schema.service, batches(), as_of_ms=as_of_ms, timeout_s=timeout_s):
            _require_same(schema, result.schema)
            unwritten.append(_with_vectors(asked.popleft(), result, columns, wanted))
            count += result.row_count
            progress(count)
            if sum(part.num_rows for part in unwritten) >= ROW_GROUP_ROWS:
                write(pa.Table.from_batches(unwritten, wanted).combine_chunks())
                unwritten.clear()
        if unwritten or not count:
            write(pa.Table.from_batches(unwritten, wanted).combine_chunks())
    return count


def _output_schema(schema: ServiceSchema, rows: pa.Schema, columns: VectorColumns) -> pa.Schema:
    """The rows' columns, then what is added.

    Raises:
        InvalidRequest: two have one name.
    """
    added: list[pa.Field] = [pa.field(columns.as_of, ARROW_TYPES[ValueType.TIMESTAMP])] if columns.as_of else []
    for feature in schema.features:
        if feature.name in columns.features:
            name, of_view = feature.name, f"{schema.views[feature.view].name}__"
            if columns.full_names and not name.startswith(of_view):  # as one is whose name another view has too
                name = of_view + name
            added.append(pa.field(name, ARROW_TYPES[feature.type]))
            if columns.with_statuses:
                added.append(pa.field(name + STATUS_SUFFIX, _STATUS_TYPE))
    names = [*rows.names, *(field.name for field in added)]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequest(
                f'there would be {names.count(name)} columns "{name}"',
                hint="rename that of the entities, or ask for full names",
            )
    return pa.schema([*rows, *added])


def _require_same(schema: ServiceSchema, other: ServiceSchema) -> None:
    """A generation may be promoted meanwhile; features must stay what they are.

    Raises:
        InvalidRequest: they do not.
    """
    if [(each.name, each.type) for each in schema.features] != [(each.name, each.type) for each in other.features]:
        raise InvalidRequest(
            f'feature service "{schema.service}" was changed while it was read',
            detail="One file would hold the features of both.",
            hint="run it again",
        )


def _with_vectors(
    rows: pa.RecordBatch, result: LookupResult, columns: VectorColumns, schema: pa.Schema
) -> pa.RecordBatch:
    """Rows and what is known of them."""
    arrays = list(rows.columns)
    if columns.as_of:
        times = np.empty(result.row_count, dtype=np.int64)
        times[:] = result.as_of_ms
        arrays.append(pa.array(times).cast(ARROW_TYPES[ValueType.TIMESTAMP]))
    for index, feature in enumerate(result.schema.features):
        if feature.name in columns.features:
            arrays.append(_values(result, index, feature))
            if columns.with_statuses:
                places = pa.array(_STATUS_PLACES[result.statuses[index]])
                arrays.append(pa.DictionaryArray.from_arrays(places, _STATUS_NAMES))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _values(result: LookupResult, index: int, feature: FeatureSlot) -> pa.Array:
    """(N,) one feature, null where there is no value."""
    null = result.null[index]
    if feature.matrix is Matrix.DOUBLES:
        return pa.array(result.doubles[feature.slot], mask=null)
    if feature.matrix is Matrix.INTEGERS:
        integers = pa.array(result.integers[feature.slot], mask=null)
        return integers if feature.type is ValueType.INT64 else integers.cast(ARROW_TYPES[feature.type])
    span = slice(feature.slot * result.row_count, (feature.slot + 1) * result.row_count)
    cells: Sequence[Any] = (
        result.strings[span] if feature.matrix is Matrix.STRINGS else result.collections[feature.matrix][span]
    )
    return object_array([None if gone else cell for cell, gone in zip(cells, null.tolist(), strict=True)], feature.type)
