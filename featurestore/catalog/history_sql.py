"""A windowed feature as plain SQL over the event log: what it means, in words that every database person checks.

It is for reading and for a second opinion. Training sets are not computed so: they take one scan for all features.
"""

from __future__ import annotations

from featurestore.core.spec import FeatureSpec, ValueType, ViewSpec

_AGGREGATES = {
    "count": "count({0})",
    "sum": "coalesce(sum({0}), 0)",
    "mean": "avg({0})",
    "min": "min({0})",
    "max": "max({0})",
    "stddev_pop": "stddev_pop({0})",
    "stddev_samp": "stddev_samp({0})",
    "var_pop": "var_pop({0})",
    "var_samp": "var_samp({0})",
}
"""Functions that DuckDB has, with the same answer over no rows."""


def history_sql(view: ViewSpec, feature: FeatureSpec, as_of_ms: int) -> str:
    """DuckDB's SQL of a feature at a moment, by entity; "" where SQL would not say the same in a few lines.

    Args:
        view: of the feature.
        feature: a windowed one.
        as_of_ms: the moment.
    """
    window, source = feature.window, view.source
    if feature.function not in _AGGREGATES or source.changes or view.undo or source.enrichments:
        return ""
    if window.series or window.gap_ms or window.calendar is not None:
        return ""
    keys = ", ".join(key.name for key in view.join_keys)
    value = _AGGREGATES[feature.function].format(_argument(view, feature))
    computed = "".join(f",\n         ({one.expression}) AS {one.name}" for one in source.computed)
    of_view = " AND ".join(f"({text})" for text in (view.required, view.where) if text)
    chosen = f"\n  WHERE {of_view}" if of_view else ""
    once = f'\n  QUALIFY row_number() OVER (PARTITION BY {source.event_id_column} ORDER BY "partition", "offset") = 1'
    once = once if source.event_id_column else ""
    lines = [
        f"WITH events AS (\n  SELECT *{computed}\n  FROM {source.name}{chosen}{once}\n)",
        f"SELECT {keys + ', ' if keys else ''}{value} AS {feature.name}",
        "FROM events",
        *_where(feature, as_of_ms),
        *([f"GROUP BY {keys}"] if keys else []),
    ]
    return "\n".join(lines)


def _argument(view: ViewSpec, feature: FeatureSpec) -> str:
    """What is aggregated; truths are counted as numbers."""
    if feature.column is None:
        return "*"
    column = view.source.column(feature.column)
    is_truth = column is not None and column.type is ValueType.BOOL and feature.function != "count"
    return f"{feature.column}::INT" if is_truth else feature.column


def _where(feature: FeatureSpec, as_of_ms: int) -> list[str]:
    """The window, half open, and the condition."""
    window = feature.window
    end = f"{as_of_ms}"
    if window.offset_ms:
        end = f"({as_of_ms} - {window.offset_ms}) // {window.hop_ms} * {window.hop_ms}"
    conditions = [f"event_time_ms < {end}"]
    if window.length_ms is not None:
        begin = f"({as_of_ms} - {window.span_ms}) // {window.hop_ms} * {window.hop_ms}"
        conditions.insert(0, f"event_time_ms >= {begin}")
    conditions += [f"({feature.where})"] if feature.where else []
    return [f"{'WHERE' if number == 0 else '  AND'} {text}" for number, text in enumerate(conditions)]
