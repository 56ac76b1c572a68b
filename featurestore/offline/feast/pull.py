"""Rows of Parquet tables for Feast: what materialize reads, and what logged features are read by.

    pull_latest   of each entity the newest row in a span; of rows of one time the one created last, else the later one;
                  and every row that lacks a join key
    pull_all      every row in a span, in the table's order

Feast's own store for files is not used for this. It sorts by one column after the other with a sort that is not stable,
so that the creation time decides nothing, and its data frames make floats of integers that have nulls. A training set
(`plain_join`) would then know other values than the online store.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import reduce

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from feast.errors import FeastJoinKeysDuringMaterialization
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.saved_dataset import ValidationReference

from featurestore.core.events import Int64Array
from featurestore.definitions.problems import suggest
from featurestore.errors import InvalidRequest, Unavailable
from featurestore.offline.feast.tables import Span, WantedColumns
from featurestore.offline.training_set.plain_join import moments_us

Seconds = int
"""Feast's unit of a timeout."""

_NULLABLE = {
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
}
"""Integers that may be null, as pandas calls them."""

_EPOCH_US = np.datetime64(0, "us")


class TableJob(RetrievalJob):
    """A retrieval job whose answer is one table.

    Args:
        read: gives the table.
    """

    def __init__(self, read: Callable[[], pa.Table]) -> None:
        self._read = read

    @property
    def full_feature_names(self) -> bool:
        """The names are the table's."""
        return False

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """Nothing is computed."""
        return []

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """There is none of a table."""
        return None

    def _to_arrow_internal(self, timeout: Seconds | None = None) -> pa.Table:
        """The table.

        Raises:
            Unavailable: it cannot be read now.
        """
        try:
            return self._read()
        except OSError as error:
            raise Unavailable("the table cannot be read", detail=str(error)) from error

    def _to_df_internal(self, timeout: Seconds | None = None) -> pd.DataFrame:
        """The table."""
        return data_frame(self._to_arrow_internal(timeout))

    def to_df(
        self, validation_reference: ValidationReference | None = None, timeout: Seconds | None = None
    ) -> pd.DataFrame:
        """The table, integers beside nulls as nullable ones."""
        return data_frame(self.to_arrow(validation_reference, timeout))


def data_frame(table: pa.Table) -> pd.DataFrame:
    """A table for pandas, exact: integers beside nulls are nullable ones ("Int64"), where pandas would give floats.

    Lists that have nulls among their integers become arrays of objects.
    """
    frame = table.to_pandas()
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_integer(column.type) and column.null_count:
            frame[name] = pd.Series(column.to_pandas(types_mapper=_NULLABLE.get).array, index=frame.index)
        elif _is_integer_list(column.type) and pc.list_flatten(column).null_count:
            lists = [None if row is None else np.array(row, dtype=object) for row in column.to_pylist()]
            frame[name] = pd.Series(lists, index=frame.index, dtype=object)
    return frame


def _is_integer_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) and pa.types.is_integer(kind.value_type))


def pull_latest(dataset: pads.Dataset, wanted: WantedColumns, span: Span) -> pa.Table:
    """The newest row of each entity, and every row without a join key.

    Args:
        dataset: a table with its past.
        wanted: columns; of no join keys the whole table is about one entity.
        span: times, both ends included.

    Raises:
        FeastJoinKeysDuringMaterialization: a join key is missing.
        InvalidRequest: another column is missing, or the times are none.
    """
    table, times_us = _rows(dataset, wanted, span)
    created_us = np.zeros(table.num_rows, dtype=np.int64)
    if wanted.created is not None:
        created_us, _ = moments_us(table.column(wanted.created), wanted.created, is_label=False)
    ascending = table.take(pa.array(np.lexsort((created_us, times_us))))
    keys = list(wanted.join_keys) or [DUMMY_ENTITY_ID]
    numbered = ascending.select(keys).append_column("row", pa.array(np.arange(table.num_rows)))
    # Rows without a key are of no entity, so none is newer than another: whoever reads on skips and counts them all.
    is_anybody = reduce(pc.and_, (pc.is_valid(numbered.column(key)) for key in keys))
    newest = numbered.filter(is_anybody).group_by(keys).aggregate([("row", "max")]).column("row_max")
    chosen = pa.concat_arrays([*newest.chunks, *numbered.filter(pc.invert(is_anybody)).column("row").chunks])
    return ascending.take(chosen.take(pc.sort_indices(chosen)))


def pull_all(dataset: pads.Dataset, wanted: WantedColumns, span: Span) -> pa.Table:
    """Every row; arguments and errors are those of `pull_latest`."""
    return _rows(dataset, wanted, span)[0]


def _rows(dataset: pads.Dataset, wanted: WantedColumns, span: Span) -> tuple[pa.Table, Int64Array]:
    """Rows of a span, and their times in microseconds."""
    known = dataset.schema.names
    if not set(wanted.join_keys) <= set(known):
        raise FeastJoinKeysDuringMaterialization("the table", set(wanted.join_keys), set(known))
    extra = [wanted.timestamp, *([wanted.created] if wanted.created is not None else [])]
    names = list(dict.fromkeys([*wanted.join_keys, *wanted.values, *extra] if wanted.values else known))
    for name in names:
        if name not in known:
            raise InvalidRequest(f'the table has no column "{name}"', hint=suggest(name, known))
    kind = dataset.schema.field(wanted.timestamp).type
    table = dataset.to_table(columns=names, filter=_condition(wanted.timestamp, kind, span))
    times_us, is_timed = moments_us(table.column(wanted.timestamp), wanted.timestamp, is_label=False)
    if span.since is not None:
        is_timed &= times_us >= _microseconds(span.since)
    if span.until is not None:
        is_timed &= times_us <= _microseconds(span.until)
    if not is_timed.all():
        table, times_us = table.filter(pa.array(is_timed)), times_us[is_timed]
    if not wanted.join_keys:
        table = table.append_column(DUMMY_ENTITY_ID, pa.repeat(DUMMY_ENTITY_VAL, table.num_rows))
    return table, times_us


def _condition(name: str, kind: pa.DataType, span: Span) -> pc.Expression | None:
    """What files and row groups may be passed over by; None where times are no timestamps."""
    if not pa.types.is_timestamp(kind):
        return None
    wanted = None
    if span.since is not None:
        wanted = pc.field(name) >= _scalar(span.since, kind)
    if span.until is not None:
        before = pc.field(name) <= _scalar(span.until, kind)
        wanted = before if wanted is None else wanted & before
    return wanted


def _scalar(when: datetime, kind: pa.DataType) -> pa.Scalar:
    """A moment in the unit of a column, cut towards the past; rows are looked at again, to the microsecond."""
    return pa.scalar(_microseconds(when), pa.int64()).cast(pa.timestamp("us")).cast(kind, safe=False)


def _microseconds(when: datetime) -> int:
    """Microseconds UTC; a time without a zone is UTC."""
    naive = when.astimezone(UTC).replace(tzinfo=None) if when.tzinfo is not None else when
    return int((np.datetime64(naive, "us") - _EPOCH_US).astype(np.int64))
