"""The payments example with a past for Spark: simulated transactions as an event log, and labels of every kind."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from featurestore.core.spec import RepoSpec, SourceSpec
from featurestore.definitions.registry import read_registry
from featurestore.definitions.repo import apply_repo, load_repo
from featurestore.offline.event_log.address import place_of
from featurestore.offline.event_log.schema import log_schema
from featurestore.offline.event_log.writer import LogWriter, PartitionRows, prepare_log
from featurestore.testing.simulator.population import Population, PopulationSize
from featurestore.testing.simulator.simulation import Scenario, Simulation
from featurestore.testing.simulator.tables import transaction_table, write_merchant_table

PROJECT_ROOT = Path(__file__).resolve().parents[3]
BEGIN_MS = 1_790_035_200_000
DAY_MS = 86_400_000
PARTITIONS = 2
COMMIT_ROWS = 700
PER_SECOND = 0.03


@dataclass(frozen=True)
class Past:
    """An applied repo whose data directory holds an event log and the merchant table.

    Attributes:
        repo: its directory.
        spec: its definitions.
        events: the transactions, in order of arrival.
    """

    repo: Path
    spec: RepoSpec
    events: pa.Table

    @property
    def event_log(self) -> Path:
        """Root of the event log."""
        return self.repo / "data" / "event_log"

    def labels(self, every: int) -> pa.Table:
        """Every so-and-so-manyth transaction as a label, then rows with a null key, an unknown one, a null time."""
        rows = self.events.take(pa.array(np.arange(0, self.events.num_rows, every)))
        count = rows.num_rows
        cards = rows["card_id"].to_pylist()
        merchants = rows["merchant_id"].to_pylist()
        times = rows["event_time"].cast(pa.int64()).to_pylist()
        cards[0], cards[1], merchants[2], times[3] = None, "nobody", None, None
        return pa.table(
            {
                "row number": pa.array(range(count), pa.uint16()),
                "event_timestamp": pa.array(times, pa.timestamp("ms", tz="UTC")),
                "card_id": cards,
                "merchant_id": merchants,
                "terminal_id": rows["terminal_id"],
                "fine": pa.array([f"é{number % 3}" for number in range(count)]).dictionary_encode(),
                "at_ns": pa.array(np.arange(count), pa.timestamp("ns")),
            }
        ).take(pa.array(np.random.default_rng(1).permutation(count)))


def make_past(directory: Path, *, days: float) -> Past:
    """Transactions of some days, retries and late ones among them."""
    repo = directory / "feature repo"
    shutil.copytree(PROJECT_ROOT / "feature_repo", repo, ignore=shutil.ignore_patterns("data", "__pycache__"))
    (repo / "data").mkdir()
    size = PopulationSize(cards=40, merchants=40)
    population = Population(size, 3)
    end_ms = BEGIN_MS + round(days * DAY_MS)
    scenario = Scenario(BEGIN_MS, end_ms, seed=3, size=size, per_second=PER_SECOND, duplicate_share=0.05)
    simulation = Simulation(scenario, population)
    events = transaction_table(population, np.concatenate(list(simulation.batches())))
    write_merchant_table(population, repo / "data" / "merchants.parquet", updated_at_ms=BEGIN_MS + DAY_MS)
    apply_repo(load_repo(repo, "payments"))
    spec = read_registry(str(repo / "data" / "registry.db"), project="payments")
    write_log(repo / "data" / "event_log", spec.views[0].source, events)
    return Past(repo, spec, events)


def write_log(root: Path, source: SourceSpec, events: pa.Table) -> None:
    """A source's event log, in several partitions and commits; row i was ingested at i."""
    schema = log_schema(source)
    log = place_of(root / source.name)
    prepare_log(log, schema, {(source.topic, partition): "" for partition in range(PARTITIONS)})
    assert source.event_time_column is not None, "sources name their event time"
    for partition in range(PARTITIONS):
        places = np.arange(partition, events.num_rows, PARTITIONS)
        rows = events.take(pa.array(places))
        count = rows.num_rows
        columns = {
            "topic": pa.array([source.topic] * count),
            "partition": pa.array(np.full(count, partition), pa.int32()),
            "offset": pa.array(np.arange(count)),
            "ingest_time_ms": pa.array(places),
            "event_time_ms": rows[source.event_time_column].cast(pa.int64()),
        }
        columns |= {name: rows[name] for name in schema.names if name not in columns}
        table = pa.table(
            [columns[name].cast(kind) for name, kind in zip(schema.names, schema.types, strict=True)], schema=schema
        )
        place = (source.topic, partition)
        writer = LogWriter(log, schema)
        writer.claim([place])
        for begin in range(0, count, COMMIT_ROWS):
            end = min(begin + COMMIT_ROWS, count)
            (batch,) = table.slice(begin, end - begin).combine_chunks().to_batches()
            writer.commit({place: [PartitionRows(begin, end, batch)]})


def differing(left: pa.Table, right: pa.Table) -> dict[str, int]:
    """Columns that differ, and in how many rows; NaN and null are themselves."""
    found = {}
    for name in left.column_names:
        one, other = left[name].to_pylist(), right[name].to_pylist()
        rows = sum(repr(mine) != repr(theirs) for mine, theirs in zip(one, other, strict=True))
        if rows:
            found[name] = rows
    return found
