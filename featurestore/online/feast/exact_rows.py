"""Feast's way from Arrow columns to the rows of an online store, made exact.

    push, write_to_online_store, materialize ──Arrow──> feast.utils._convert_arrow_to_proto ──rows──> online_write_batch

All ways in go through these functions of Feast, behind any engine and provider, and a store sees what they give: too
late for what was lost. What they lose, and what is put in their place while our store is used:

    integers beside nulls      become floats, as numpy has no null      -> stay Python's integers
    floats for integers        are cut to integers                      -> refused from 2**53 on, as digits may be gone
    a table of several chunks  only the first is written                -> all are
    timestamp_field's raw name is looked for after it was mapped away   -> found under either name

Everything else stays Feast's. Private to Feast, hence the exact pin of Feast's version.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import feast.utils
import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureView, ValueType
from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from feast.type_map import python_values_to_proto_values

from featurestore.errors import InvalidRequest

Columns: TypeAlias = Sequence[tuple[str, ValueType]]

FLOAT_INTEGER_MAX = 2**53
"""From here on not every integer is a float, so that one which is may once have been another."""

_INTEGERS = frozenset({ValueType.INT32, ValueType.INT64})
_feasts_rows = feast.utils._convert_arrow_fv_to_proto
_feasts_values = feast.utils._columns_to_proto_values


def make_exact() -> None:
    """Put the exact functions in the place of Feast's, for this process."""
    feast.utils._convert_arrow_fv_to_proto = _rows
    feast.utils._columns_to_proto_values = _values


def _rows(table: pa.Table | pa.RecordBatch, feature_view: FeatureView, join_keys: dict[str, ValueType]) -> Any:
    """All rows of a table; arguments and answer are those of Feast's `_convert_arrow_fv_to_proto`."""
    whole = pa.Table.from_batches([table]) if isinstance(table, pa.RecordBatch) else table
    if not whole.num_rows:
        return []
    source = feature_view.batch_source
    if source is not None:
        for raw in (source.timestamp_field, source.created_timestamp_column):
            mapped = source.field_mapping.get(raw, raw)
            if raw and raw not in whole.column_names and mapped in whole.column_names:
                whole = whole.append_column(raw, whole.column(mapped))
    return _feasts_rows(whole.combine_chunks(), feature_view, join_keys)


def _values(table: pa.RecordBatch, columns: Columns, allow_missing: bool = False) -> dict[str, list[ValueProto]]:
    """Values of columns; arguments and answer are those of Feast's `_columns_to_proto_values`."""
    found: dict[str, list[ValueProto]] = {}
    for name, value_type in columns:
        array = table.column(name) if name in table.schema.names else None
        if array is not None and pa.types.is_integer(array.type) and array.null_count:
            found[name] = python_values_to_proto_values(array.to_pylist(), value_type)
            continue
        if array is not None and value_type in _INTEGERS:
            _check_digits(name, array)
        found |= _feasts_values(table, [(name, value_type)], allow_missing)
    return found


def _check_digits(name: str, array: pa.Array) -> None:
    """Floats may stand for integers where they are integers beyond doubt; NaN is Feast's null."""
    if not pa.types.is_floating(array.type) or len(array) == array.null_count:
        return
    largest = pc.max(pc.abs(array.drop_null().filter(pc.is_finite(array.drop_null())))).as_py()
    if largest is not None and largest >= FLOAT_INTEGER_MAX:
        raise InvalidRequest(
            f'column "{name}" has integers as floats, up to {largest:.0f}, whose last digits may be lost',
            detail="pandas turns a column of integers with nulls into floats.",
            hint='give it as astype("Int64"), or from Arrow; to materialize, set `batch_engine` to `PlainViewEngine`',
        )
