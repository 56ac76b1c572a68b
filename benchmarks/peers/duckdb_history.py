"""Windowed features of every event by DuckDB's window functions: one frame a window, over whole milliseconds."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from featurestore.core.spec import FeatureSpec, ViewSpec

_SQL = {
    "count": "count({column}) over {frame}",
    "sum": "coalesce(sum({column}) over {frame}, 0)",
    "mean": "avg({column}) over {frame}",
    "min": "min({column}) over {frame}",
    "max": "max({column}) over {frame}",
    "stddev_pop": "stddev_pop({column}) over {frame}",
}


def answer(views: Sequence[ViewSpec], events: pa.Table, threads: int) -> pa.Table:
    """Features of every event at its own time, ordered by its id.

    Args:
        views: exact windows (hops of 1 ms) over columns that are numbers; of one source.
        events: the source's columns; repeats of an id are dropped.
        threads: that DuckDB may use.
    """
    source = views[0].source
    database = duckdb.connect(config={"threads": threads})
    database.register("events", events)
    times = f"epoch_ms({source.event_time_column})"
    numbers = [
        f"{column.name}::bigint as {column.name}" for column in source.columns if column.type in ("int64", "bool")
    ]
    keys = [key.name for view in views for key in view.join_keys]
    texts = [column.name for column in source.columns if column.name in keys and column.type == "string"]
    id_column = source.event_id_column
    database.execute(
        f"""create table distinct_events as
        select distinct on ({id_column}) {id_column}, {times} as at_ms, {", ".join([*numbers, *texts])} from events"""
    )
    selected, windows = [], []
    for view in views:
        for feature in view.features:
            frame = f"{view.name}_{feature.window.length_ms}_{feature.window.offset_ms}"
            sql = _SQL[feature.function].format(column=feature.column or "*", frame=frame)
            selected.append(f"{sql} as {feature.name}")
            windows.append(f"{frame} as (partition by {view.join_keys[0].name} order by at_ms {_frame(feature)})")
    query = f"""select {id_column}, {", ".join(selected)} from distinct_events
        window {", ".join(dict.fromkeys(windows))} order by {id_column}"""
    return database.sql(query).to_arrow_table()


def _frame(feature: FeatureSpec) -> str:
    """[t - length - offset, t - offset) in milliseconds."""
    assert feature.window.length_ms is not None, "windows have a length here"
    begin_ms = feature.window.length_ms + feature.window.offset_ms
    return f"range between {begin_ms} preceding and {feature.window.offset_ms + 1} preceding"
