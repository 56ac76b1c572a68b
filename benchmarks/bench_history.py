"""history: training sets beside the window functions of DuckDB and the rolling aggregations of Polars."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa

from benchmarks.peers import duckdb_history, polars_history
from benchmarks.scenario import Line, Result, Run, digest, require
from benchmarks.workload import make_workload
from featurestore.core.spec import (
    Column,
    FeatureReference,
    FeatureSpec,
    RepoSpec,
    ServiceSpec,
    SourceSpec,
    ValueType,
    ViewSpec,
    Window,
)
from featurestore.offline.histories import FileHistory
from featurestore.offline.training_set import build_training_set
from featurestore.testing.simulator.tables import transaction_table

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
EXACT_HOP_MS = 1

SOURCE = SourceSpec(
    name="transactions",
    topic="transactions",
    columns=(
        Column("transaction_id", ValueType.STRING),
        Column("event_time", ValueType.TIMESTAMP),
        Column("card_id", ValueType.STRING),
        Column("merchant_id", ValueType.INT64),
        Column("terminal_id", ValueType.INT64),
        Column("amount", ValueType.INT64),
        Column("is_declined", ValueType.BOOL),
    ),
    event_time_column="event_time",
    event_id_column="transaction_id",
    dedup_horizon_ms=HOUR_MS,
)

FUNCTIONS = {
    "count": ValueType.INT64,
    "sum": ValueType.INT64,
    "mean": ValueType.FLOAT64,
    "max": ValueType.INT64,
    "stddev_pop": ValueType.FLOAT64,
}
WINDOWS_MS = (HOUR_MS, DAY_MS, 7 * DAY_MS, 30 * DAY_MS)


def run(run: Run) -> Result:
    """Twelve features as in the Fraud Detection Handbook, sixty over three entities, and how time grows."""
    count = run.choose(smoke=2_000, full=1_750_000)
    workload = make_workload(count, cards=max(count // 350, 20), merchants=max(count // 1_750, 40))
    events = transaction_table(workload.population, workload.rows)
    labels = _labels(events)
    threads = len(os.sched_getaffinity(0))
    lines: list[Line] = []
    answers: list[bytes] = []
    for name, views in (("12 features, two entities", handbook_views()), ("60 features, three entities", wide_views())):
        mine, mine_s = _timed(partial(_train, views, events, labels))
        run.say(f"{name}: {mine_s:.2f} s")
        peer, peer_s = _timed(partial(duckdb_history.answer, views, events, threads))
        run.say(f"{name}: DuckDB {peer_s:.2f} s")
        _require_equal(mine.sort_by("transaction_id"), peer)
        lines += [
            Line(f"{name}: DuckDB, window functions", peer_s, "s"),
            Line(f"{name}: training set", mine_s, "s", peer_s / mine_s, "DuckDB (times faster)"),
        ]
        answers.append(_digest_bytes(mine))
    simple = (replace(handbook_views()[0], name="simple"),)
    mine, mine_s = _timed(lambda: _train(simple, events, labels))
    polars, polars_s = _timed(lambda: polars_history.answer(simple[0], events))
    _require_equal(mine.sort_by("transaction_id"), polars)
    lines += [
        Line("6 features, one entity: Polars, rolling", polars_s, "s"),
        Line("6 features, one entity: training set", mine_s, "s", polars_s / mine_s, "Polars (times faster)"),
    ]
    lines += _growth(events, labels)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lines.append(Line("peak memory of this process, peers included", peak_mib, "MiB"))
    return Result(
        scenario="history",
        question="How fast are training sets, beside the best that DuckDB and Polars can do for the same values?",
        lines=tuple(lines),
        answer_hash=digest(answers),
        checked=f"every value of every of the {labels.num_rows:,} rows equals the peer's, floats to nine digits",
        notes=(
            "Every transaction is a label row; windows are exact to the millisecond, which is what the peers can do.",
            "Feast's stock join finds the newest row of a table and cannot aggregate: it has no part in this.",
        ),
    )


def handbook_views() -> tuple[ViewSpec, ...]:
    """Count and mean of amount of cards; count and share of declined ones of terminals, delayed by seven days."""
    card, terminal = Column("card_id", ValueType.STRING), Column("terminal_id", ValueType.INT64)
    features = []
    for days in (1, 7, 30):
        window = Window(days * DAY_MS, EXACT_HOP_MS)
        features.append(FeatureSpec(f"card_count_{days}d", "count", None, window, ValueType.INT64))
        features.append(FeatureSpec(f"card_mean_{days}d", "mean", "amount", window, ValueType.FLOAT64))
    delayed = []
    for days in (1, 7, 30):
        window = Window(days * DAY_MS, EXACT_HOP_MS, 7 * DAY_MS)
        delayed.append(FeatureSpec(f"terminal_count_{days}d", "count", None, window, ValueType.INT64))
        delayed.append(FeatureSpec(f"terminal_share_{days}d", "mean", "is_declined", window, ValueType.FLOAT64))
    return _view("card", card, features), _view("terminal", terminal, delayed)


def wide_views() -> tuple[ViewSpec, ...]:
    """Five functions over four windows for each of three entities."""
    keys = (
        Column("card_id", ValueType.STRING),
        Column("merchant_id", ValueType.INT64),
        Column("terminal_id", ValueType.INT64),
    )
    return tuple(
        _view(
            key.name.removesuffix("_id"),
            key,
            [
                FeatureSpec(
                    f"{key.name.removesuffix('_id')}_{function}_{length_ms // HOUR_MS}h",
                    function,
                    None if function == "count" else "amount",
                    Window(length_ms, EXACT_HOP_MS),
                    value_type,
                )
                for length_ms in WINDOWS_MS
                for function, value_type in FUNCTIONS.items()
            ],
        )
        for key in keys
    )


def _view(name: str, key: Column, features: list[FeatureSpec]) -> ViewSpec:
    return ViewSpec(name, (key,), SOURCE, tuple(features), 60 * DAY_MS)


def _labels(events: pa.Table) -> pa.Table:
    """One label row for each distinct transaction, at its own time."""
    _, first = np.unique(events["transaction_id"].to_numpy(), return_index=True)
    keys = ["transaction_id", "card_id", "merchant_id", "terminal_id", "event_time"]
    return events.select(keys).take(pa.array(np.sort(first)))


def _train(views: tuple[ViewSpec, ...], events: pa.Table, labels: pa.Table) -> pa.Table:
    """Our answer."""
    references = tuple(FeatureReference(view.name, one.name, one.name) for view in views for one in view.features)
    repo = RepoSpec("benchmark", views, (), (ServiceSpec("all", references, ()),))
    return build_training_set(repo, "all", labels, history=FileHistory(events), timestamp_column="event_time")


def _growth(events: pa.Table, labels: pa.Table) -> list[Line]:
    """Time against events, features and label rows, each beside a quarter of it."""
    views = wide_views()
    quarter = len(events) // 4
    lines = []
    for what, small, large in (
        (
            "events",
            lambda: _train(views[:1], events.slice(0, quarter), labels.slice(0, quarter)),
            lambda: _train(views[:1], events, labels.slice(0, quarter)),
        ),
        (
            "features",
            lambda: _train((replace(views[0], features=views[0].features[:5]),), events, labels),
            lambda: _train(views[:1], events, labels),
        ),
        (
            "label rows",
            lambda: _train(views[:1], events, labels.slice(0, quarter)),
            lambda: _train(views[:1], events, labels),
        ),
    ):
        small_s, large_s = _timed(small)[1], _timed(large)[1]
        lines.append(Line(f"four times the {what}", large_s, "s", large_s / small_s, f"a quarter of the {what}"))
    return lines


def _timed(work: Callable[[], pa.Table]) -> tuple[pa.Table, float]:
    """A table, and the faster of two runs, seconds: noise only ever adds."""
    times_s = []
    for _ in range(2):
        begun_s = time.perf_counter()
        found = work()
        times_s.append(time.perf_counter() - begun_s)
    return found, min(times_s)


def _require_equal(mine: pa.Table, peer: pa.Table) -> None:
    """Every value, to nine digits of what was added."""
    require(mine["transaction_id"].equals(peer["transaction_id"].cast(pa.string())), "ours and the peer's rows differ")
    for name in peer.column_names[1:]:
        expected, actual = (np.asarray(one[name].to_numpy(), dtype=np.float64) for one in (peer, mine))
        scale = np.maximum(np.abs(expected), np.nanmax(np.abs(expected), initial=0.0) if "stddev" in name else 0.0)
        is_equal = (np.isnan(expected) & np.isnan(actual)) | (np.abs(expected - actual) <= 1e-9 * scale)
        require(bool(is_equal.all()), f"{name}: {int((~is_equal).sum())} values differ from the peer's")


def _digest_bytes(table: pa.Table) -> bytes:
    """Numbers of a table, floats to nine digits."""
    parts = []
    for name in table.column_names:
        if name.endswith("_id") or name == "event_time":
            continue
        numbers = np.asarray(table[name].to_numpy(), dtype=np.float64)
        parts.append(b"%.9g" % float(np.nansum(numbers)))
    return b"|".join(parts)
