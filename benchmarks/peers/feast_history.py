"""Feast's stock point-in-time join: the newest row of a table at or before each label, no older than a ttl.

    python -m benchmarks.peers.feast_history DIRECTORY

It runs in a process of its own (see feast_peer) on the stock file offline store, reads `labels.parquet` and
`profiles.parquet` of the directory and writes `joined.parquet`. Its last line is the time of the faster of two joins.
"""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.machine import environment
from featurestore.definitions.fast_import import skip_typeguard

TTL = timedelta(days=7)
LABELS, PROFILES, JOINED = "labels.parquet", "profiles.parquet", "joined.parquet"

_CONFIG = """
project: joined
provider: local
registry: registry.db
offline_store:
  type: file
online_store:
  type: sqlite
  path: online.db
entity_key_serialization_version: 3
"""


def join(directory: Path) -> float:
    """Seconds of Feast's join of the directory's tables; its answer is in JOINED."""
    words = [sys.executable, "-m", "benchmarks.peers.feast_history", str(directory)]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"stock Feast could not join\n{done.stdout}{done.stderr}")
    return float(done.stdout.splitlines()[-1])


def _main(directory: Path) -> None:
    (directory / "feature_store.yaml").write_text(_CONFIG)
    store, features = _store(directory)
    labels = pq.read_table(directory / LABELS).to_pandas()
    times_s = []
    for _ in range(2):
        begun_s = time.perf_counter()
        joined = store.get_historical_features(entity_df=labels, features=features).to_arrow()
        times_s.append(time.perf_counter() - begun_s)
    pq.write_table(joined, directory / JOINED)
    print(min(times_s))


def _store(directory: Path) -> tuple[Any, list[str]]:
    """A repo with one plain view."""
    with skip_typeguard():
        from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
        from feast.types import Int64

    merchant = Entity(name="merchant", join_keys=["merchant_id"], value_type=ValueType.INT64)
    source = FileSource(name="profiles", path=str(directory / PROFILES), timestamp_field="since")
    names = ["credit_line", "risk_class"]
    view = FeatureView(
        name="profile",
        entities=[merchant],
        ttl=TTL,
        schema=[Field(name=name, dtype=Int64) for name in names],
        source=source,
    )
    store = FeatureStore(repo_path=str(directory))
    store.apply([merchant, source, view])
    return store, [f"profile:{name}" for name in names]


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
