"""All entities of a span of time: what `get_historical_features` without an `entity_df` is about.

Feast's store for files gives, for `start_date` and `end_date`, the features of every entity as of the end. Here
likewise: an entity is known when one of the views has an event of it, or a row, within [start, end); its features are
those at the end. All views must be about the same entities; Feast would pair each card with each merchant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.core.spec import ViewSpec
from featurestore.errors import InvalidRequest
from featurestore.offline.feast.answers import plain_history
from featurestore.offline.feast.histories import StreamHistories
from featurestore.offline.feast.request import AskedView, milliseconds
from featurestore.offline.feast.tables import Tables
from featurestore.offline.training_set.arrow_columns import ARROW_TYPES, cast_column
from featurestore.offline.training_set.histories import EVENT_TIME, open_dataset
from featurestore.offline.training_set.label_times import moments_ms
from featurestore.offline.training_set.plain_join import key_column


def known_entities(
    views: Sequence[AskedView], history: StreamHistories, tables: Tables, begin: datetime, end: datetime
) -> pa.Table:
    """Join keys of all entities of a span, sorted, each once; one row without columns where views have no entities.

    Args:
        views: whose entities.
        history: the streams' events.
        tables: reads the tables of plain views.
        begin: start of the span.
        end: its end, exclusive for events, inclusive for rows of plain tables (Feast's rule for them).

    Raises:
        InvalidRequest: the views have different join keys, or a history is not there.
        Unavailable: it cannot be read now.
    """
    keys = _common_keys(views)
    if not keys:
        return pa.table({"everybody": [True]}).select([])  # of views without entities: one row, which has no keys
    from_ms, to_ms = milliseconds(begin), milliseconds(end)
    types = {views[0].column_of(key.name): ARROW_TYPES[key.type] for key in views[0].spec.join_keys}
    pieces = [pa.schema([(name, types[name]) for name in keys]).empty_table()]
    for view in views:
        batches = (
            _of_stream(view, history, from_ms, to_ms)
            if isinstance(view.spec, ViewSpec)
            else _of_table(view, tables, from_ms, to_ms, end)
        )
        for batch in batches:
            named = {view.column_of(key.name): cast_column(batch.column(key.name), key) for key in view.spec.join_keys}
            piece = pa.table([named[name] for name in keys], names=keys)
            pieces.append(piece.group_by(keys).aggregate([]))
    found = pa.concat_tables(pieces).group_by(keys).aggregate([])
    for name in keys:
        found = found.filter(pc.is_valid(found.column(name)))
    return found.sort_by([(name, "ascending") for name in keys])


def _common_keys(views: Sequence[AskedView]) -> list[str]:
    """The columns of the entities that all views are about."""
    wanted = [[view.column_of(key.name) for key in view.spec.join_keys] for view in views]
    for names, view in zip(wanted, views, strict=True):
        if sorted(names) != sorted(wanted[0]):
            raise InvalidRequest(
                f'feature view "{view.spec.name}" is about {", ".join(names)},'
                f' feature view "{views[0].spec.name}" about {", ".join(wanted[0])}',
                hint="give an entity_df that says which go together, or ask for each alone",
            )
    return wanted[0]


def _of_stream(view: AskedView, history: StreamHistories, from_ms: int, to_ms: int) -> Iterator[pa.RecordBatch]:
    """Join keys of events within [from_ms, to_ms)."""
    assert isinstance(view.spec, ViewSpec), "plain views have tables"
    names = [key.name for key in view.spec.join_keys]
    for batch in history.scan(view.spec.source, names, from_ms=from_ms, to_ms=to_ms):
        times_ms = batch.column(EVENT_TIME)
        yield batch.filter(pc.and_(pc.greater_equal(times_ms, from_ms), pc.less(times_ms, to_ms)))


def _of_table(view: AskedView, tables: Tables, from_ms: int, to_ms: int, end: datetime) -> Iterator[pa.RecordBatch]:
    """Join keys of a plain view's rows within [from_ms, to_ms]."""
    history = plain_history(view, tables, end)
    stored = {name: column for column, name in history.field_mapping.items()}
    names = [key.name for key in view.spec.join_keys]
    columns = [
        *(stored.get(name, name) for name in names),
        stored.get(history.timestamp_column, history.timestamp_column),
    ]
    for batch in open_dataset(history.data, history.format).to_batches(columns=columns):
        times_ms, is_timed = moments_ms(batch.column(len(names)), history.timestamp_column)
        rows = np.flatnonzero(is_timed & (times_ms >= from_ms) & (times_ms <= to_ms))
        found = batch.select(list(range(len(names)))).rename_columns(names).take(pa.array(rows))
        keys = [key_column(found.column(key.name), key) for key in view.spec.join_keys]
        yield pa.RecordBatch.from_arrays(keys, names=names)
