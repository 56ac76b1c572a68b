"""Point-in-time join of plain views: the newest row of a table at or before each label time, no older than the ttl.

Feast's rule, kept as it is: a row at exactly the label time counts (windowed features never see their own moment), of
rows of one time the one that was created last counts, and a row older than the view's ttl counts for nothing. A row
without a join key is about nobody: it is skipped, as materialize skips it, and a warning counts them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.fs as pafs

from featurestore.core.events import BoolArray, Int64Array
from featurestore.core.spec import Column, PlainViewSpec, TableSpec, ValueType
from featurestore.definitions.problems import suggest
from featurestore.errors import InvalidRequest, Unavailable
from featurestore.offline.foreign_tables.opening import check_is_files
from featurestore.offline.training_set.arrow_columns import ARROW_TYPES, cast_column, takeable
from featurestore.offline.training_set.entity_numbers import EntityNumbers
from featurestore.offline.training_set.histories import open_dataset
from featurestore.offline.training_set.label_times import moments_ms
from featurestore.offline.training_set.plan import Labels, ViewOutputs

_US_PER_MS = 1_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PlainHistory:
    """The table behind a plain view, with its past.

    Attributes:
        data: path of a file or directory, dataset or table.
        timestamp_column: when a row began to hold.
        created_column: when it was written; decides between rows of one time. None: the later in the table.
        field_mapping: column of the table -> name in the view, where they differ.
        format: of files.
    """

    data: object
    timestamp_column: str
    created_column: str | None = None
    field_mapping: Mapping[str, str] = field(default_factory=dict)
    format: str = "parquet"


def registered_table(view: PlainViewSpec, repo_path: Path | None) -> PlainHistory:
    """The table of a plain view, found in the registry.

    Args:
        view: the view.
        repo_path: where relative paths start; None is the current directory, as for Feast.

    Raises:
        InvalidRequest: the registry does not say enough, or names something that is no file that Arrow reads.
    """
    table = view.table
    remedy = "give the table with its past yourself: --table VIEW=PATH:TIMESTAMP[:CREATED], in Python plain={VIEW: ...}"
    if table is None:
        raise InvalidRequest(f'feature view "{view.name}" is materialized, and its table is not known', hint=remedy)
    if table.kind != "file":
        raise InvalidRequest(
            f'feature view "{view.name}" is materialized from {table.kind} source "{table.source}", not from files',
            detail="History reads files; tables of other systems are read by Feast's own offline stores.",
            hint=f"export it to Parquet and {remedy}",
        )
    if table.format != "parquet":
        raise InvalidRequest(
            f'source "{table.source}" of feature view "{view.name}" has format {table.format}, not parquet', hint=remedy
        )
    if not table.timestamp_column:
        raise InvalidRequest(
            f'source "{table.source}" of feature view "{view.name}" does not say since when its rows hold',
            hint=f"set its timestamp_field and apply, or {remedy}",
        )
    return PlainHistory(
        located(table, repo_path), table.timestamp_column, table.created_column or None, dict(table.renamed)
    )


def join_plain_view(outputs: ViewOutputs, labels: Labels, history: PlainHistory) -> pa.Table:
    """Features of a plain view for all label rows.

    Args:
        outputs: the view and its features.
        labels: R rows.
        history: the view's table.

    Returns:
        R rows, one column a feature; null where nothing was known.

    Raises:
        InvalidRequest: the table lacks a column.
        Unavailable: it cannot be read.
    """
    view = outputs.view
    assert isinstance(view, PlainViewSpec), "windowed views are computed"
    chosen = newest_rows(view, [view.features[at].name for at in outputs.features], labels, history)
    arrays = []
    for at, column in zip(outputs.features, outputs.columns, strict=True):
        array = chosen.column(view.features[at].name)
        arrays.append(cast_column(array, view.features[at]) if array.type != ARROW_TYPES[column.type] else array)
    return pa.table(arrays, names=[column.name for column in outputs.columns])


def newest_rows(view: PlainViewSpec, features: list[str], labels: Labels, history: PlainHistory) -> pa.Table:
    """The row that each label may see, in the table's own types.

    Args:
        view: its join keys and ttl; features need not be among its own.
        features: names of the wanted columns.
        labels: R rows.
        history: the view's table.

    Returns:
        R rows with the features among their columns; nulls where nothing was known.

    Raises:
        InvalidRequest, Unavailable: as `join_plain_view`.
    """
    keys = {key.name: key_column(labels.table.column(key.name), key) for key in view.join_keys}
    numbers = EntityNumbers(view.join_keys, keys, labels.count)
    table = _read(view, features, history)
    for key in view.join_keys:
        place = table.schema.get_field_index(key.name)
        table = table.set_column(place, key.name, key_column(table.column(key.name), key))
    entity = numbers.of_events(table)
    for key in view.join_keys:
        count = table.column(key.name).null_count
        if count:
            verb = "row without join key %s is" if count == 1 else "rows without join key %s are"
            _log.warning(f'feature view "%s": %d {verb} skipped', view.name, count, f'"{key.name}"')
    times_us, is_timed = moments_us(table.column(history.timestamp_column), history.timestamp_column, is_label=False)
    created_us = np.zeros(table.num_rows, dtype=np.int64)
    if history.created_column is not None:
        created_us, _ = moments_us(table.column(history.created_column), history.created_column, is_label=False)
    rows = np.flatnonzero((entity >= 0) & is_timed)
    rows = rows[np.lexsort((created_us[rows], times_us[rows], entity[rows]))]
    found = _newest(entity[rows], times_us[rows], labels, numbers.of_labels, view.ttl_ms)
    return table.take(pa.array(np.where(found >= 0, rows[found] if len(rows) else -1, -1), mask=found < 0))


def key_column(column: pa.ChunkedArray, key: Column) -> pa.ChunkedArray:
    """A join key's column; integers under a key of type STRING are their digits, as Feast writes them online."""
    is_text = key.type is ValueType.STRING and pa.types.is_integer(column.type)
    return column.cast(pa.string()) if is_text else column


def located(table: TableSpec, repo_path: Path | None) -> object:
    """Where Arrow finds a file source."""
    if table.endpoint:
        store, path = pafs.S3FileSystem(endpoint_override=table.endpoint), table.path.removeprefix("s3://")
        check_is_files(store, path, f'the table at "{table.path}"')
        return pads.dataset(path, format="parquet", partitioning="hive", filesystem=store)
    return table.path if "://" in table.path else (repo_path or Path()) / table.path


def _newest(
    entity: Int64Array, times_us: Int64Array, labels: Labels, of_labels: Int64Array, ttl_ms: int | None
) -> Int64Array:
    """(R,) the last row, among rows ascending by (entity, time), that each label may see; -1 for none."""
    label_us = _label_times_us(labels)
    # Labels sort behind rows of their own time, so the last row before a label is the one that it sees.
    both_entity = np.concatenate([entity, of_labels])
    both_us = np.concatenate([times_us, label_us])
    is_label = np.concatenate([np.zeros(len(entity), np.int8), np.ones(len(of_labels), np.int8)])
    order = np.lexsort((is_label, both_us, both_entity))
    is_row = order < len(entity)
    newest = np.maximum.accumulate(np.where(is_row, order, -1))
    found = np.full(len(of_labels), -1, dtype=np.int64)
    found[order[~is_row] - len(entity)] = newest[~is_row]
    is_its = (found >= 0) & (of_labels >= 0) & labels.is_timed
    is_its[is_its] = entity[found[is_its]] == of_labels[is_its]
    if ttl_ms:
        is_its[is_its] = times_us[found[is_its]] >= label_us[is_its] - ttl_ms * _US_PER_MS
    found[~is_its] = -1
    return found


def _label_times_us(labels: Labels) -> Int64Array:
    """(R,) label times in microseconds: plain tables have finer times than the stream."""
    if labels.timestamp_column is None:
        return labels.as_of_ms * _US_PER_MS
    return moments_us(labels.table.column(labels.timestamp_column), labels.timestamp_column, is_label=True)[0]


def moments_us(column: pa.ChunkedArray, name: str, *, is_label: bool) -> tuple[Int64Array, BoolArray]:
    """(N,) microseconds UTC and whether there is a time; nanoseconds never bring a row before its label."""
    if pa.types.is_timestamp(column.type) and column.type.unit in ("us", "ns"):
        values = np.asarray(pc.fill_null(column.cast(pa.int64()), 0).to_numpy(), dtype=np.int64)
        if column.type.unit == "ns":
            values = values // 1_000 if is_label else -(-values // 1_000)
        return values, np.asarray(column.is_valid().to_numpy(), dtype=np.bool_)
    times_ms, is_time = moments_ms(column, name)
    return times_ms * _US_PER_MS, is_time


def _read(view: PlainViewSpec, features: list[str], history: PlainHistory) -> pa.Table:
    """The wanted columns under the view's names."""
    dataset = open_dataset(history.data, history.format)
    names = {name: name for name in [*(key.name for key in view.join_keys), *features, history.timestamp_column]}
    if history.created_column is not None:
        names[history.created_column] = history.created_column
    for stored, name in history.field_mapping.items():
        if name in names:
            names[name] = stored
    for name, stored in names.items():
        if stored not in dataset.schema.names:
            raise InvalidRequest(
                f'the table of feature view "{view.name}" has no column "{name}"',
                hint=suggest(stored, dataset.schema.names),
            )
    try:
        table = dataset.to_table(columns=list(names.values()))
    except (OSError, pa.ArrowInvalid) as error:
        raise Unavailable(f'the table of feature view "{view.name}" cannot be read', detail=str(error)) from error
    return pa.table([takeable(column) for column in table.columns], names=list(names))
