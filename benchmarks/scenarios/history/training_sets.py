"""history: training sets beside DuckDB, Polars and Feast's stock join, and how time and memory grow."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.peers import duckdb_history, feast_history, polars_history
from benchmarks.scenario import Line, Result, Run, Size, digest, require
from benchmarks.scenarios.history.memory import peak_mib
from benchmarks.scenarios.history.shapes import DAY_MS, handbook_views, labels_of, train, wide_views
from benchmarks.workload import make_workload
from featurestore.core.spec import Column, PlainViewSpec, RepoSpec, ValueType, ViewSpec
from featurestore.offline.training_set.build import build_training_set
from featurestore.offline.training_set.histories import FileHistory
from featurestore.offline.training_set.plain_join import PlainHistory
from featurestore.testing.simulator.tables import transaction_table

SHARES = (8, 4, 2, 1)
"""Growth is measured at an eighth, a quarter, half and all of what grows."""

PLENTY_BYTES = 2 << 30
PROFILE_DAYS = 30
PROFILE = PlainViewSpec(
    "profile",
    (Column("merchant_id", ValueType.INT64),),
    (Column("credit_line", ValueType.INT64), Column("risk_class", ValueType.INT64)),
    ttl_ms=int(feast_history.TTL.total_seconds()) * 1_000,
)


def run(run: Run) -> Result:
    """Twelve features as in the Fraud Detection Handbook, sixty over three entities, a plain join, and growth."""
    count = run.choose(smoke=2_000, full=1_750_000)
    workload = make_workload(count, cards=max(count // 350, 20), merchants=max(count // 1_750, 40))
    events = transaction_table(workload.population, workload.rows)
    labels = labels_of(events)
    lines: list[Line] = []
    answers: list[bytes] = []
    for name, views in (("12 features, two entities", handbook_views()), ("60 features, three entities", wide_views())):
        mine, more = _beside_peers(run, name, views, events, labels)
        answers.append(_digest_bytes(mine))
        lines += more
    lines += _plain_join(run, labels)
    lines += _growth(run, events, labels)
    lines += _memory(run, events)
    return Result(
        scenario="history",
        question="How fast are training sets beside the best that others do for the same values, and how do they grow?",
        lines=tuple(lines),
        answer_hash=digest(answers),
        checked=f"every value of every of the {labels.num_rows:,} rows equals each peer's, floats to nine digits",
        notes=(
            "Every transaction is a label row; windows are exact to the millisecond, which is what the peers can do.",
            "Feast's stock join finds the newest row of a table and cannot aggregate: it is beside our join of that "
            "kind, on the labels that it can hold in memory.",
            "Growth lines are each beside half of what grows: 2 is linear.",
        ),
    )


def _beside_peers(
    run: Run, name: str, views: tuple[ViewSpec, ...], events: pa.Table, labels: pa.Table
) -> tuple[pa.Table, list[Line]]:
    """One set of views, by us and by both engines that can compute it."""
    mine, mine_s = _timed(partial(train, views, events, labels))
    run.say(f"{name}: {mine_s:.2f} s")
    threads = len(os.sched_getaffinity(0))
    lines = []
    for peer, work in (
        ("DuckDB, window functions", partial(duckdb_history.answer, views, events, threads)),
        ("Polars, rolling aggregations", partial(polars_history.answer, views, events)),
    ):
        theirs, theirs_s = _timed(work)
        run.say(f"{name}: {peer} {theirs_s:.2f} s")
        _require_equal(mine.sort_by("transaction_id"), theirs)
        lines += [
            Line(f"{name}: {peer}", theirs_s, "s"),
            Line(f"{name}: training set", mine_s, "s", theirs_s / mine_s, f"{peer.partition(',')[0]} (times faster)"),
        ]
    return mine, lines


def _plain_join(run: Run, labels: pa.Table) -> list[Line]:
    """Two features of a table with a row a merchant and day, joined by Feast and by us."""
    directory = run.directory / "feast_history"
    directory.mkdir()
    labels = labels.slice(0, run.choose(smoke=500, full=100_000))
    labels = labels.select(["transaction_id", "merchant_id", "event_time"])
    labels = labels.rename_columns(["transaction_id", "merchant_id", "event_timestamp"])
    pq.write_table(labels, directory / feast_history.LABELS)
    pq.write_table(_profiles(labels), directory / feast_history.PROFILES)
    theirs_s = feast_history.join(directory)
    repo = RepoSpec("benchmark", (), (PROFILE,), ())
    names = [f"profile:{feature.name}" for feature in PROFILE.features]
    plain = {"profile": PlainHistory(directory / feast_history.PROFILES, "since")}
    mine, mine_s = _timed(
        lambda: build_training_set(repo, names, labels, history=FileHistory(labels), plain=plain)  # no stream view
    )
    theirs = pq.read_table(directory / feast_history.JOINED).select(["transaction_id", *mine.column_names[-2:]])
    _require_equal(mine.sort_by("transaction_id"), theirs.sort_by("transaction_id"))
    what = "2 plain features, newest row"
    return [
        Line(f"{what}: Feast, stock offline store", theirs_s, "s"),
        Line(f"{what}: training set", mine_s, "s", theirs_s / mine_s, "Feast (times faster)"),
    ]


def _profiles(labels: pa.Table) -> pa.Table:
    """A row for every merchant and day, and a day on which there is none."""
    merchants = np.unique(labels["merchant_id"].to_numpy())
    last_ms = int(np.max(labels["event_timestamp"].cast(pa.int64()).to_numpy()))
    days = np.arange(PROFILE_DAYS)
    days = days[days != PROFILE_DAYS // 2]
    merchant, day = (each.ravel() for each in np.meshgrid(merchants, days, indexing="ij"))
    return pa.table(
        {
            "merchant_id": pa.array(merchant),
            "since": pa.array(last_ms - day * DAY_MS - merchant % 1_000, pa.timestamp("ms", tz="UTC")),
            "credit_line": pa.array(merchant * 1_000 + day),
            "risk_class": pa.array((merchant + day) % 7),
        }
    )


def _growth(run: Run, events: pa.Table, labels: pa.Table) -> Iterator[Line]:
    """Time against rows (events that are all labels), features and label rows."""
    view = wide_views()[0]

    def of_rows(share: int) -> Callable[[], pa.Table]:
        some = events.slice(0, len(events) // share)
        return partial(train, (view,), some, labels_of(some))

    def of_features(share: int) -> Callable[[], pa.Table]:
        some = replace(view, features=view.features[: len(view.features) // share])
        return partial(train, (some,), events, labels)

    def of_labels(share: int) -> Callable[[], pa.Table]:
        return partial(train, (view,), events, labels.slice(0, len(labels) // share))

    for what, work_of in (("rows", of_rows), ("features", of_features), ("label rows", of_labels)):
        before_s = 0.0
        for share in SHARES:
            found, seconds = _timed(work_of(share))
            count = len(view.features) // share if what == "features" else len(found)
            ratio = seconds / before_s if before_s else None
            yield Line(f"20 features of cards: {count:,} {what}", seconds, "s", ratio, f"half the {what}")
            before_s = seconds
        run.say(f"growth against {what}")


def _memory(run: Run, events: pa.Table) -> Iterator[Line]:
    """Peak memory of a process that does nothing else, with plenty of it and with little."""
    little_bytes = run.choose(smoke=1 << 16, full=64 << 20)
    before = 0.0
    for share in (1,) if run.size is Size.SMOKE else (4, 2, 1):
        some = run.directory / f"history-events-{share}.parquet"
        asked = run.directory / f"history-labels-{share}.parquet"
        pq.write_table(events.slice(0, len(events) // share), some)
        pq.write_table(labels_of(events.slice(0, len(events) // share)), asked)
        peak, answer = peak_mib(some, asked, PLENTY_BYTES)
        what = f"20 features of cards, {len(events) // share:,} rows: peak memory"
        yield Line(what, peak, "MiB", peak / before if before else None, "half the rows")
        before = peak
    peak, same = peak_mib(some, asked, little_bytes)
    require(same == answer, "with little memory the answers are others")
    yield Line(f"{what}, events through files", peak, "MiB", peak / before, "in memory")


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
