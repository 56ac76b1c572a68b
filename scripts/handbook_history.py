"""The Fraud Detection Handbook's transactions as a training set of all rows, compared with DuckDB.

    python scripts/handbook_history.py PATH_TO/handbook_transactions.parquet

Features are the book's: number and mean amount of a customer's payments, number and share of fraud of a terminal's,
delayed by seven days, over 1, 7 and 30 days. Every transaction is a label row, strictly before its own time. The
file is not part of this project (see scripts/handbook.py). Exits with 1 on any mismatch.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from featurestore.clock import SystemClock
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
from featurestore.training import FileHistory, build_training_set

DAY_MS = 86_400_000
WINDOW_DAYS = (1, 7, 30)
DELAY_MS = 7 * DAY_MS
RELATIVE_TOLERANCE = 1e-9

SOURCE = SourceSpec(
    name="transactions",
    topic="handbook_transactions",
    columns=(
        Column("transaction_id", ValueType.INT64),
        Column("paid_at", ValueType.TIMESTAMP),
        Column("customer_id", ValueType.INT64),
        Column("terminal_id", ValueType.INT64),
        Column("amount", ValueType.INT64),
        Column("is_fraud", ValueType.BOOL),
    ),
    event_time_column="paid_at",
    event_id_column="transaction_id",
    dedup_horizon_ms=3_600_000,
)

_clock = SystemClock()


def main() -> int:
    """Run both; 0 when nothing differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    database = duckdb.connect()
    database.execute(
        """create table transactions as
        select TRANSACTION_ID::bigint as transaction_id, TX_DATETIME::timestamp_ms as paid_at,
            epoch_ms(TX_DATETIME)::bigint as at_ms, CUSTOMER_ID::bigint as customer_id,
            TERMINAL_ID::bigint as terminal_id, round(TX_AMOUNT * 100)::bigint as amount, TX_FRAUD = 1 as is_fraud
        from read_parquet(?)""",
        [str(parser.parse_args().file)],
    )
    names = ", ".join(column.name for column in SOURCE.columns)
    events = database.sql(f"select {names} from transactions").to_arrow_table()
    labels = events.select(["transaction_id", "customer_id", "terminal_id", "paid_at"])
    begun_ns = _clock.monotonic_ns()
    mine = build_training_set(repo(), "handbook", labels, history=FileHistory(events), timestamp_column="paid_at")
    mine_s = (_clock.monotonic_ns() - begun_ns) / 1e9
    begun_ns = _clock.monotonic_ns()
    theirs = expected(database)
    theirs_s = (_clock.monotonic_ns() - begun_ns) / 1e9
    return report(mine.sort_by("transaction_id"), theirs, mine_s, theirs_s)


def repo() -> RepoSpec:
    """The book's features."""
    customer, terminal = [], []
    for days in WINDOW_DAYS:
        now, delayed = Window(days * DAY_MS, 1), Window(days * DAY_MS, 1, DELAY_MS)
        customer.append(FeatureSpec(f"customer_count_{days}d", "count", None, now, ValueType.INT64))
        customer.append(FeatureSpec(f"customer_mean_{days}d", "mean", "amount", now, ValueType.FLOAT64))
        terminal.append(FeatureSpec(f"terminal_count_{days}d", "count", None, delayed, ValueType.INT64))
        terminal.append(FeatureSpec(f"terminal_risk_{days}d", "mean", "is_fraud", delayed, ValueType.FLOAT64))
    views = tuple(
        ViewSpec(key, (Column(f"{key}_id", ValueType.INT64),), SOURCE, tuple(features), 40 * DAY_MS)
        for key, features in (("customer", customer), ("terminal", terminal))
    )
    references = tuple(FeatureReference(view.name, one.name, one.name) for view in views for one in view.features)
    keys = tuple(key for view in views for key in view.join_keys)
    return RepoSpec("handbook", views, (), (ServiceSpec("handbook", references, keys),))


def expected(database: duckdb.DuckDBPyConnection) -> pa.Table:
    """The same by DuckDB's window functions, ordered by transaction."""
    selected, windows = [], []
    for key, value, name, delay_ms in (
        ("customer", "amount", "mean", 0),
        ("terminal", "is_fraud::int", "risk", DELAY_MS),
    ):
        for days in WINDOW_DAYS:
            frame = f"{key}_{days}"
            selected += [
                f"count(*) over {frame} as {key}_count_{days}d",
                f"avg({value}) over {frame} as {key}_{name}_{days}d",
            ]
            span = f"between {days * DAY_MS + delay_ms} preceding and {delay_ms + 1} preceding"
            windows.append(f"{frame} as (partition by {key}_id order by at_ms range {span})")
    query = f"select transaction_id, {', '.join(selected)} from transactions window {', '.join(windows)}"
    return database.sql(f"{query} order by transaction_id").to_arrow_table()


def report(mine: pa.Table, theirs: pa.Table, mine_s: float, theirs_s: float) -> int:
    """Compare every value and print; 1 when something differs."""
    mismatches = 0 if mine["transaction_id"].equals(theirs["transaction_id"]) else len(theirs)
    for name in theirs.column_names[1:]:
        answer, truth = (np.asarray(table[name].to_numpy(), dtype=np.float64) for table in (mine, theirs))
        is_equal = (np.isnan(answer) & np.isnan(truth)) | (np.abs(answer - truth) <= RELATIVE_TOLERANCE * abs(truth))
        for row in np.flatnonzero(~is_equal)[:3].tolist():
            print(f"MISMATCH {name} of row {row}: {answer[row]}, DuckDB says {truth[row]}")
        mismatches += int((~is_equal).sum())
    figures = {
        "rows": len(theirs),
        "values_compared": len(theirs) * (theirs.num_columns - 1),
        "mismatches": mismatches,
        "training_set_seconds": round(mine_s, 2),
        "duckdb_seconds": round(theirs_s, 2),
        "times_faster": round(theirs_s / mine_s, 1),
    }
    print(json.dumps(figures, indent=2))
    return 1 if mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
