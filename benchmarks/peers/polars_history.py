"""Windowed counts and means of every event by Polars' rolling aggregations."""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa

from featurestore.core.spec import ViewSpec


def answer(view: ViewSpec, events: pa.Table) -> pa.Table:
    """Features of every event at its own time, ordered by its id.

    Args:
        view: exact windows without offset; counts of events and means of a column.
        events: the source's columns; repeats of an id are dropped.
    """
    source, key = view.source, view.join_keys[0].name
    times, id_column = source.event_time_column, source.event_id_column
    assert id_column is not None
    frame: Any = pl.from_arrow(events)
    frame = frame.unique(subset=[id_column], keep="first").sort(key, times)
    windows = {feature.window.length_ms for feature in view.features}
    for length_ms in sorted(windows, key=lambda length: length or 0):
        mine = [feature for feature in view.features if feature.window.length_ms == length_ms]
        # closed="left" is [t - length, t): the event itself and its ties are not in its own past.
        rolled = frame.rolling(index_column=times, period=f"{length_ms}ms", closed="left", group_by=key).agg(
            *(
                (pl.len() if feature.function == "count" else pl.col(str(feature.column)).mean()).alias(feature.name)
                for feature in mine
            )
        )
        # Rolling keeps the rows' order within sorted groups.
        frame = frame.with_columns(rolled.select([feature.name for feature in mine]))
    return (
        frame.sort(id_column)
        .select([id_column, *(feature.name for feature in view.features)])
        .to_arrow(compat_level=pl.CompatLevel.oldest())
    )
