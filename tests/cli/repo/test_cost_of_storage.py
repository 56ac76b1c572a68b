"""What `plan --cost` computes before anything is stored is what a real bootstrap of the same history then stores."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from featurestore.cli.repo.cost import sample as sampling
from featurestore.cli.repo.cost.features import ALL_FEATURES, feature_costs
from featurestore.cli.repo.cost.sample import HASHES, Sample, take_sample
from featurestore.cli.repo.cost.storage import entity_bytes, fold, generation_of, storage_cost
from featurestore.clock import SystemClock
from featurestore.core.spec import FeatureSpec, ValueType, ViewSpec, Window
from featurestore.definitions.compile.storage_groups import storage_group
from featurestore.offline import position_order
from featurestore.offline.bootstrap_events import LogEvents, PositionedEvents
from featurestore.offline.event_log import reader
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.file_log import FileLog
from featurestore.online.generation import Generation
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.allocation import BUCKET_BYTES, ENTRY_BYTES
from featurestore.online.redis.store import RedisStore, connect
from featurestore.online.write.bootstrap import fill_lanes
from featurestore.testing.clock import ManualClock
from featurestore.wire.codecs.body import decode_entity
from featurestore.wire.entity_key import lane_of
from featurestore.wire.store_layout import ENTITIES_OF_PACK
from tests.online.write.test_bootstrap_log import DAY_MS, NOW_MS, SOURCE, VIEW, expected_rows, write_log
from tests.online.write.test_bootstrap_table import records

PROJECT, LANES = "tests", 4
TOLERANCE = 0.03
COUNTS = {0: 2_200, 2: 600}
"""About fifty events of each entity: of some more than a head takes, of others fewer."""

ENTRY_BYTES_SAID = 24
"""MEMORY USAGE counts an entry as it is declared."""


def feature(name: str, function: str, column: str | None, window: Window, kind: ValueType) -> FeatureSpec:
    """One feature."""
    return FeatureSpec(name, function, column, window, kind)


HOUR, DAY, LIFETIME = Window(3_600_000, 60_000), Window(DAY_MS, 3_600_000), Window(None)
AMOUNTS = replace(
    VIEW,
    name="amounts",
    features=(
        feature("count_1h", "count", None, HOUR, ValueType.INT64),
        feature("spent_1h", "sum", "amount", HOUR, ValueType.INT64),
        feature("spent_1d", "sum", "amount", DAY, ValueType.INT64),
        feature("mean_1d", "mean", "amount", DAY, ValueType.FLOAT64),
    ),
    retention_ms=DAY_MS,
    where="",
)
MARKETS = replace(
    VIEW,
    name="markets",
    features=(
        feature("spent_1d", "sum", "amount", DAY, ValueType.INT64),
        feature("market", "last", "market", LIFETIME, ValueType.STRING),
        feature("markets", "count_distinct", "market", DAY, ValueType.INT64),
    ),
    where="amount >= 100",
)
GROUP = storage_group("payments:card+branch", [AMOUNTS, MARKETS])


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> EventLog:
    """A history."""
    return write_log(tmp_path_factory.mktemp("logs") / "log", COUNTS)


@pytest.fixture
def store(redis_url: str) -> RedisStore:
    """An empty Redis."""
    return connect(redis_url)


def bootstrapped(store: RedisStore, log: EventLog, view: ViewSpec, directory: Path) -> Generation:
    """A generation that was filled from the log, on a real Redis."""
    catalog = GenerationCatalog(store, PROJECT)
    catalog.lane_count(LANES)
    generation = catalog.begin_bootstrap(view)
    events = LogEvents(log, view, lane_count=LANES, now_ms=NOW_MS, directory=directory)
    events.collect(range(LANES))
    fill_lanes(store, generation, events, range(LANES), ManualClock(now_ms=NOW_MS))
    return generation


def keys_of(generation: Generation, key: bytes) -> list[bytes]:
    """Head and body key of an entity."""
    lane = lane_of(key, LANES)
    return [generation.keys.head_prefix(lane) + key, generation.keys.body_prefix(lane) + key]


@pytest.mark.parametrize("view", [VIEW, AMOUNTS, MARKETS, GROUP], ids=lambda view: view.name)
def test_the_bytes_are_those_that_a_bootstrap_stores(
    view: ViewSpec, log: EventLog, store: RedisStore, tmp_path: Path
) -> None:
    """Head and body of every entity, byte for byte; and what Redis says that its keys take."""
    generation = bootstrapped(store, log, view, tmp_path)
    sample = take_sample(log, view, NOW_MS)
    assert sample.part is not None
    stored = fold(generation_of(view, PROJECT), sample.part, NOW_MS)
    sizes = entity_bytes(generation_of(view, PROJECT), stored).total
    entries = (1 if view.retention_ms is None else 2) * (ENTRY_BYTES + BUCKET_BYTES) - ENTRY_BYTES_SAID
    is_like_redis_7 = str(store._client().info("server")["redis_version"]).startswith("7.0")

    assert len(stored) == sample.entities > 40
    assert view is not VIEW or {bool(one.head) for one in stored} == {True, False}
    for one, size in zip(stored, sizes.tolist(), strict=True):
        names = keys_of(generation, one.key)
        head, body = store.read_groups([names])
        assert (head or b"", body or b"") == (one.head, one.body)
        if is_like_redis_7:
            said = sum(store.memory_bytes(name) + entries for name in names if store.memory_bytes(name))
            assert size == pytest.approx(said, rel=TOLERANCE)


def test_entities_that_share_keys_cost_what_a_bootstrap_stores(store: RedisStore, tmp_path: Path) -> None:
    """Bodies of packs, and their names, as Redis says; a fraction of what the same take by themselves."""
    log = write_log(tmp_path / "log", {0: 500, 2: 150})
    view = replace(MARKETS, expected_entities=ENTITIES_OF_PACK * LANES)
    generation = bootstrapped(store, log, view, tmp_path)
    sample = take_sample(log, view, NOW_MS)
    assert sample.part is not None
    planned = replace(generation_of(view, PROJECT), packs=generation.packs)
    stored = fold(planned, sample.part, NOW_MS)
    sizes = entity_bytes(planned, stored)
    alone = entity_bytes(generation_of(MARKETS, PROJECT), stored)
    kinds = [key for key in store.scan(generation.keys.pattern()) if b"/B/" in key]
    own = {key.rpartition(b"/")[2] for key in store.scan(generation.keys.pattern()) if b"/h/" in key or b"/b/" in key}
    packed = sizes.sharing > 0

    assert 1 == generation.packs
    assert [one.key not in own for one in stored] == packed.tolist()
    assert packed.any()
    assert sizes.total[~packed].tolist() == alone.total[~packed].tolist()
    assert 2 * sizes.total[packed].sum() < alone.total[packed].sum()
    assert sizes.total[packed].sum() == pytest.approx(sum(map(store.memory_bytes, kinds)), rel=0.25)


def test_files_and_tables_cost_what_an_event_log_costs(log: EventLog, tmp_path: Path) -> None:
    """The same events, whoever keeps them; a table without positions will do, as no stream goes on behind it."""
    rows = records(COUNTS).sort_by([("partition", "ascending"), ("offset", "ascending")])
    pq.write_table(rows.drop_columns(["topic", "partition", "offset"]), tmp_path / "events.parquet")
    write_deltalake(tmp_path / "table", rows.drop_columns(["topic", "partition", "offset"]))
    view = replace(AMOUNTS, where="amount >= 10")

    def folded(history: PositionedEvents) -> tuple[int, int, list[tuple[bytes, int, int]]]:
        sample = take_sample(history, view, NOW_MS)
        assert sample.part is not None
        stored = fold(generation_of(view, PROJECT), sample.part, NOW_MS)
        return sample.entities, sample.events, sorted((one.key, len(one.head), len(one.body)) for one in stored)

    expected = folded(log)
    for name in ("events.parquet", "table"):
        assert folded(FileLog(str(tmp_path / name), SOURCE, now_ms=NOW_MS)) == expected


@pytest.mark.parametrize("batch_rows", [100, 1_000_000])
@pytest.mark.parametrize(("entities_max", "rows_max"), [(10, 1_000_000), (40, 300), (5, 1)])
def test_a_sample_has_all_events_of_the_entities_with_the_smallest_hashes(
    entities_max: int, rows_max: int, batch_rows: int, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the log is cut, in every run; and counts what it does not keep."""
    for module in (reader, position_order):
        monkeypatch.setattr(module, "BATCH_ROWS", batch_rows)
    monkeypatch.setattr(sampling, "SAMPLE_ROWS", rows_max)
    counts = Counter(row[0] for row in expected_rows(COUNTS))
    by_hash = sorted(counts, key=lambda key: lane_of(key, HASHES))
    fitting = int(np.searchsorted(np.cumsum([counts[key] for key in by_hash]), rows_max, side="right"))
    wanted = by_hash[: min(entities_max, max(1, fitting))]
    sample = take_sample(log, VIEW, NOW_MS, entities_max)
    assert sample.part is not None
    found = Counter(sample.part.keys[entity] for entity in sample.part.events.entity.tolist())

    assert found == {key: counts[key] for key in wanted}
    assert (sample.entities, sample.is_counted, sample.events) == (len(counts), True, counts.total())
    assert sample.newest_ms == max(row[1] for row in expected_rows(COUNTS))


def test_more_entities_than_are_remembered_are_estimated(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """By those of a known share of all hashes; and it is said."""
    monkeypatch.setattr(sampling, "DISTINCT_MAX", 30)
    sample = take_sample(log, VIEW, NOW_MS)

    assert not sample.is_counted
    assert sample.entities == pytest.approx(len({row[0] for row in expected_rows(COUNTS)}), rel=0.4)


def test_events_are_counted_by_the_minute(log: EventLog) -> None:
    """The busiest minute, and the busiest span of several, late events included."""
    minutes = Counter(row[1] // 60_000 for row in expected_rows(COUNTS))
    sample = take_sample(log, VIEW, NOW_MS)

    assert sample.busiest(1) == max(minutes.values())
    assert sample.busiest(5) == max(sum(minutes[first + more] for more in range(5)) for first in minutes)
    assert sample.span_minutes == max(minutes) - min(minutes) + 1


def cost_of(view: ViewSpec, sample: Sample, *, entities: int | None = None) -> float:
    """Bytes of an entity."""
    generation = generation_of(view, PROJECT)
    return storage_cost(generation, ("log", 1), sample, SystemClock(), entities=entities).entity_bytes.mean


def test_figures_of_a_storage_are_those_of_its_entities(log: EventLog) -> None:
    """Of sizes, tiles and rates; more entities take as much as those that were seen, each."""
    sample = take_sample(log, GROUP, NOW_MS)
    assert sample.part is not None
    generation = generation_of(GROUP, PROJECT)
    cost = storage_cost(generation, ("log", 1), sample, SystemClock(), entities=1_000_000)
    stored = fold(generation, sample.part, SystemClock().now_ms())
    tiles = [decode_entity(generation.compiled, one.body or None, one.head or None).count for one in stored]

    assert cost.views == ("amounts", "markets")
    assert cost.entities == cost.entities_sampled == len(stored)
    assert cost.memory_error == 0.0
    parts = (cost.head_bytes, cost.body_bytes, cost.name_bytes)
    assert cost.entity_bytes.mean == pytest.approx(sum(one.mean for one in parts))
    assert cost.memory_bytes == pytest.approx(cost.entity_bytes.mean * cost.entities + cost.event_id_bytes)
    assert cost.event_id_bytes > 2 * 8 * sample.busiest(2) / 2
    assert cost.streaming_bytes > 0
    assert cost.appended_per_second == pytest.approx(sample.events / sample.span_minutes / 60)
    assert cost.lookup is not None
    assert cost.lookup.tiles.mean == pytest.approx(np.mean(tiles))
    assert cost.lookup.decode_us > 0
    assert cost.lookup.merge_us > 0
    assert cost.extrapolation is not None
    assert cost.extrapolation.memory_bytes == pytest.approx(cost.memory_bytes * 1_000_000 / cost.entities)
    assert cost.extrapolation.appended_per_second == pytest.approx(cost.appended_per_second * 1_000_000 / cost.entities)


def test_a_part_of_the_entities_tells_what_all_take(log: EventLog) -> None:
    """Within some standard errors, which are told."""
    sample = take_sample(log, VIEW, NOW_MS, 20)
    cost = storage_cost(generation_of(VIEW, PROJECT), ("log", 1), sample, SystemClock(), entities=None)
    whole = cost_of(VIEW, take_sample(log, VIEW, NOW_MS))

    assert (cost.entities_sampled, cost.entities) == (20, sample.entities)
    assert 0 < cost.memory_error < 0.2
    assert cost.entity_bytes.mean == pytest.approx(whole, rel=4 * cost.memory_error)


def test_a_view_without_events_costs_nothing(log: EventLog) -> None:
    """Its condition was never true."""
    view = replace(VIEW, where="amount < 0")
    sample = take_sample(log, view, NOW_MS)
    cost = storage_cost(generation_of(view, PROJECT), ("log", 1), sample, SystemClock(), entities=5)

    assert (sample.part, cost.entities, cost.memory_bytes, cost.lookup, cost.extrapolation) == (
        None,
        0,
        0.0,
        None,
        None,
    )


def test_a_feature_costs_what_a_view_without_it_saves(log: EventLog) -> None:
    """By itself, as one would write it; what others need too costs nothing, and the last one costs everything."""
    sample = take_sample(log, AMOUNTS, NOW_MS)
    assert sample.part is not None
    found = {one.feature: one.entity_bytes for one in feature_costs(AMOUNTS, PROJECT, sample.part, NOW_MS)}
    whole = mean_of(AMOUNTS, sample)

    for one in AMOUNTS.features:
        rest = replace(AMOUNTS, features=tuple(other for other in AMOUNTS.features if other != one))
        assert found[one.name] == pytest.approx(whole - mean_of(rest, sample))
    assert found["spent_1d"] == 0.0, "the mean needs sum and window"
    assert found["count_1h"] > 0
    alone = replace(AMOUNTS, features=AMOUNTS.features[:1])
    [only] = feature_costs(alone, PROJECT, sample.part, NOW_MS)
    assert only.entity_bytes == pytest.approx(mean_of(alone, sample))


def mean_of(view: ViewSpec, sample: Sample) -> float:
    """Bytes of an entity on average."""
    assert sample.part is not None
    generation = generation_of(view, PROJECT)
    return float(np.mean(entity_bytes(generation, fold(generation, sample.part, NOW_MS)).total))


def test_in_a_group_it_is_what_the_other_views_do_not_need(log: EventLog) -> None:
    """A view costs what its features do not share, and a text is dearer than a sum that is there anyway."""
    sample = take_sample(log, GROUP, NOW_MS)
    assert sample.part is not None
    found = {(one.view, one.feature): one.entity_bytes for one in feature_costs(GROUP, PROJECT, sample.part, NOW_MS)}

    assert found["markets", ALL_FEATURES] >= max(found["markets", one.name] for one in MARKETS.features)
    assert found["markets", "market"] > 0
    assert found["amounts", "spent_1d"] == 0.0
    assert 0 < found["amounts", ALL_FEATURES] < mean_of(GROUP, sample)
