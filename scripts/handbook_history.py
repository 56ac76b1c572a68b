"""The Fraud Detection Handbook's transactions as a training set of all rows, compared with DuckDB.

    python scripts/handbook_history.py PATH_TO/handbook_transactions.parquet

Features are the book's (scripts/handbook_repo): number and mean amount of a customer's payments, number and share of
frauds of a terminal's, delayed by seven days, over 1, 7 and 30 days. Every transaction is a label row, strictly before
its own time. The file is not part of this project (see scripts/handbook.py). Exits with 1 on any mismatch.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from featurestore.training import FileHistory, build_training_set, read_registry

SERVICE = "handbook_model"
"""As in handbook_repo."""

DAY_MS = 86_400_000
WINDOW_DAYS = (1, 7, 30)
DELAY_DAYS = 7
RELATIVE_TOLERANCE = 1e-9


def main() -> int:
    """Run both; 0 when nothing differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    database = duckdb.connect()
    read_transactions(database, parser.parse_args().file)
    events = database.table("transactions").to_arrow_table()
    labels = events.select(["transaction_id", "customer_id", "terminal_id", "paid_at"])
    with tempfile.TemporaryDirectory(prefix="handbook-") as directory:
        repo = read_registry(apply_repo(Path(directory)))
    begun_s = time.perf_counter()
    mine = build_training_set(repo, SERVICE, labels, history=FileHistory(events), timestamp_column="paid_at")
    mine_s = time.perf_counter() - begun_s
    begun_s = time.perf_counter()
    theirs = expected(database)
    theirs_s = time.perf_counter() - begun_s
    return report(mine.sort_by("transaction_id"), theirs, mine_s, theirs_s)


def read_transactions(database: duckdb.DuckDBPyConnection, file: Path) -> None:
    """Load the file into the table `transactions`, with the columns of handbook_repo."""
    database.execute(
        """create table transactions as
        select TRANSACTION_ID::bigint as transaction_id, TX_DATETIME::timestamp_ms as paid_at,
            CUSTOMER_ID::bigint as customer_id, TERMINAL_ID::bigint as terminal_id,
            round(TX_AMOUNT * 100)::bigint as amount, TX_FRAUD = 1 as is_fraud
        from read_parquet(?)""",
        [str(file)],
    )


def apply_repo(directory: Path) -> Path:
    """Apply a copy of the feature repo in an empty directory; the registry's path."""
    repo = directory / "feature_repo"
    shutil.copytree(Path(__file__).parent / "handbook_repo", repo, ignore=shutil.ignore_patterns("data", "__pycache__"))
    (repo / "data").mkdir()
    subprocess.run(
        [sys.executable, "-m", "featurestore", "apply", "--repo", repo], stdout=subprocess.DEVNULL, check=True
    )
    return repo / "data" / "registry.db"


def expected(database: duckdb.DuckDBPyConnection) -> pa.Table:
    """The same by DuckDB's window functions, ordered by transaction."""
    selected, windows = [], []
    for days in WINDOW_DAYS:
        of_customer, of_terminal = f"customer_{days}d", f"terminal_{days}d"
        selected += [
            f"count(*) over {of_customer} as customer_count_{days}d",
            f"avg(amount) over {of_customer} as customer_amount_mean_{days}d",
            f"count(*) over {of_terminal} as terminal_known_{days}d_offset_{DELAY_DAYS}d",
            f"avg(is_fraud::int) over {of_terminal} as terminal_risk_{days}d",
        ]
        for name, key, delay_days in ((of_customer, "customer_id", 0), (of_terminal, "terminal_id", DELAY_DAYS)):
            oldest_ms, newest_ms = (days + delay_days) * DAY_MS, delay_days * DAY_MS + 1
            frame = f"range between {oldest_ms} preceding and {newest_ms} preceding"
            windows.append(f"{name} as (partition by {key} order by paid_at_ms {frame})")
    query = f"""select transaction_id, {", ".join(selected)}
        from (select *, epoch_ms(paid_at) as paid_at_ms from transactions)
        window {", ".join(windows)} order by transaction_id"""
    return database.sql(query).to_arrow_table()


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
