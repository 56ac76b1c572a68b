"""Windowed features of every event by Polars' rolling aggregations: one pass a view and window."""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa

from featurestore.core.spec import FeatureSpec, ViewSpec, Window


def answer(views: tuple[ViewSpec, ...], events: pa.Table) -> pa.Table:
    """Features of every event at its own time, ordered by its id.

    Args:
        views: exact windows (hops of 1 ms) over columns that are numbers; of one source.
        events: the source's columns; repeats of an id are dropped.
    """
    source = views[0].source
    times, id_column = source.event_time_column, source.event_id_column
    assert id_column is not None
    frame: Any = pl.from_arrow(events)
    frame = frame.unique(subset=[id_column], keep="first")
    names = []
    for view in views:
        key = view.join_keys[0].name
        frame = frame.sort(key, times)
        for window in dict.fromkeys(feature.window for feature in view.features):
            mine = [feature for feature in view.features if feature.window == window]
            # Rolling keeps the rows' order within sorted groups.
            frame = frame.with_columns(_rolled(frame, key, times, window, mine))
        names += [feature.name for feature in view.features]
    return frame.sort(id_column).select([id_column, *names]).to_arrow(compat_level=pl.CompatLevel.oldest())


def _rolled(frame: Any, key: str, times: str, window: Window, features: list[FeatureSpec]) -> Any:
    """Features of one window for all rows."""
    assert window.length_ms is not None, "windows have a length here"
    # closed="left" is [t - offset - length, t - offset): the event itself and its ties are not in its own past.
    begin_ms = window.length_ms + window.offset_ms
    rolling = frame.rolling(
        index_column=times,
        period=f"{window.length_ms}ms",
        offset=f"-{begin_ms}ms",
        closed="left",
        group_by=key,
    )
    return rolling.agg(*(_expression(one).alias(one.name) for one in features)).select([one.name for one in features])


def _expression(feature: FeatureSpec) -> Any:
    """A feature over the rows of its window."""
    if feature.function == "count":
        return pl.len().cast(pl.Int64)
    column = pl.col(str(feature.column))
    if feature.function == "stddev_pop":
        return column.std(ddof=0)
    return getattr(column, feature.function)()
