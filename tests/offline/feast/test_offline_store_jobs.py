"""What becomes of a training set made by the stock Feast SDK, and what else an offline store does."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from featurestore.definitions.registry import read_registry
from featurestore.errors import InvalidRequest
from featurestore.offline.training_set.build import build_training_set
from featurestore.offline.training_set.histories import EventLogHistory
from featurestore.offline.training_set.plain_join import PlainHistory
from featurestore.testing.clock import ManualClock
from tests.offline.feast.history import (
    DAY,
    DAY_MS,
    NOON,
    NOON_MS,
    OTHER_TYPE,
    STORE_TYPE,
    Past,
    labels,
    make_past,
    plain,
    profile,
)
from tests.offline.training_set.foreign_tables import write_iceberg

from feast.dqm.errors import ValidationFailed  # isort: skip  # after featurestore, which makes its import fast
from feast.errors import SavedDatasetLocationAlreadyExists  # isort: skip
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage  # isort: skip

pytestmark = pytest.mark.filterwarnings("ignore")

FEATURES = ["card_activity:card_count_1d", "card_habits:habit_amounts_1d", "merchant_profile:onboarded_days"]


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Past:
    """The example with an event log."""
    return make_past(tmp_path_factory.mktemp("past"))


def test_it_is_the_training_set_of_the_history_command(past: Past) -> None:
    """The same values and types as `featurestore history` writes, whichever history it is read from."""
    spec = read_registry(past.repo / "data" / "registry.db")
    table = pa.Table.from_pandas(labels(), preserve_index=False)
    data = past.repo / "data"
    tables = {"merchant_profile": PlainHistory(str(data / "merchants.parquet"), "updated_at")}
    ours = build_training_set(spec, "fraud_detection", table, history=EventLogHistory(data / "event_log"), plain=tables)
    answers = []
    for settings in (
        {},
        {"history": "batch_source"},
        {"histories": {"transactions": "batch_source"}},
        {"histories": {"transactions": "data/transactions.parquet"}, "memory_bytes": 1 << 20},
    ):
        feast = past.feast(**settings)
        service = feast.get_feature_service("fraud_detection")
        answers.append(feast.get_historical_features(labels(), features=service).to_arrow())

    for answer in answers:
        assert set(ours.column_names) == set(answer.column_names)
        for name in ours.column_names:
            assert ours[name].type == answer[name].type or name in table.column_names, name
            assert ours[name].to_pylist() == answer[name].to_pylist(), name


def test_the_history_can_be_a_table_that_somebody_else_keeps(past: Past, tmp_path: Path) -> None:
    """Delta or Iceberg, of a training set and of SQL; a registered Parquet source is not a table's files."""
    rows = pq.read_table(past.repo / "data" / "transactions.parquet")
    write_deltalake(tmp_path / "delta", pa.concat_tables([rows, rows]), mode="append")
    write_deltalake(tmp_path / "delta", rows, mode="overwrite")
    asked = ["card_activity:card_count_1d", "card_activity:card_amount_max_90d"]
    sql = (
        "SELECT card_id, max(event_time) AS event_timestamp, count(*) AS n FROM transactions GROUP BY ALL ORDER BY ALL"
    )
    answers = [
        past.feast(**settings).get_historical_features(entities, features=asked).to_arrow()
        for entities in (labels(), sql)
        for settings in (
            {},
            {"histories": {"transactions": str(tmp_path / "delta")}},
            {"histories": {"transactions": write_iceberg(tmp_path / str(len(entities)), rows).metadata_location}},
        )
    ]

    assert answers[0].num_rows == len(labels())
    assert [answers[0]] * 3 + [answers[3]] * 3 == answers
    tiers = past.repo / "data" / "tiers"
    tiers.rename(tmp_path / "tiers")
    try:
        write_deltalake(tiers, pq.read_table(tmp_path / "tiers" / "part-0.parquet"))
        with pytest.raises(InvalidRequest, match='data source "tiers_table" is a Delta table, and no Parquet file'):
            past.feast().get_historical_features(labels(), features=["merchant_tiers:tier"]).to_df()
    finally:
        shutil.rmtree(tiers)
        (tmp_path / "tiers").rename(tiers)


def test_a_training_set_is_persisted_and_read_back(past: Past) -> None:
    """As a saved dataset, whole: labels, nulls, lists. What is there is not overwritten unless asked."""
    feast, given = past.feast(), labels()
    job = feast.get_historical_features(given, features=FEATURES)
    storage = SavedDatasetFileStorage(path="data/saved/train.parquet")
    saved = feast.create_saved_dataset(from_=job, name="train", storage=storage)
    again = feast.get_saved_dataset("train").to_df()
    expected = job.to_df()

    assert (expected["event_timestamp"].min(), expected["event_timestamp"].max()) == (
        pd.Timestamp(saved.min_event_timestamp).floor("ms"),
        pd.Timestamp(saved.max_event_timestamp).floor("ms"),
    )
    assert list(expected.columns) == list(again.columns)
    for name in expected.columns:
        assert list(map(plain, expected[name])) == list(map(plain, again[name])), name
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        job.persist(storage)
    job.persist(storage, allow_overwrite=True)
    assert len(given) == pq.ParquetFile(past.repo / "data/saved/train.parquet").metadata.num_rows
    directory = SavedDatasetFileStorage(path="data/saved/parts")
    for _ in range(2):
        job.persist(directory, allow_overwrite=True)
    assert len(given) == pads.dataset(past.repo / "data/saved/parts").count_rows()
    assert [] == [path for path in (past.repo / "data/saved").iterdir() if "unfinished" in path.name]


def test_a_failed_persist_leaves_nothing(past: Past) -> None:
    """Neither half a file nor a directory entry that blocks the next attempt."""
    feast = past.feast()
    job = feast.get_historical_features(labels(), features=FEATURES)
    with pytest.raises(Exception, match="not ready in time"):
        job.persist(SavedDatasetFileStorage(path="data/never/train.parquet"), timeout=0)

    assert [] == list((past.repo / "data/never").glob("*"))


def test_a_training_set_is_exported(past: Past, tmp_path: Path) -> None:
    """To remote storage, a new directory each time; in batches; refused without a place."""
    feast = past.feast(staging_location=str(tmp_path / "staging"))
    job: Any = feast.get_historical_features(labels(), features=FEATURES)
    first, second = job.to_remote_storage(), job.to_remote_storage()
    expected = job.to_arrow()
    without = past.feast().get_historical_features(labels(), features=FEATURES)

    assert job.supports_remote_storage_export()
    assert first != second
    assert expected.to_pylist() == pa.concat_tables(map(pq.read_table, first)).to_pylist()
    assert expected.to_pylist() == pa.Table.from_batches(job.to_arrow_batches()).to_pylist()
    assert not without.supports_remote_storage_export()
    with pytest.raises(InvalidRequest, match="no place to export"):
        without.to_remote_storage()


def test_a_training_set_is_validated(past: Past) -> None:
    """By a profile against a saved dataset, as Feast does it."""
    feast = past.feast()
    job = feast.get_historical_features(labels(), features=FEATURES)

    class Report:
        def __init__(self, *, is_success: bool) -> None:
            self.is_success = is_success

    class Profile:
        def validate(self, frame: pd.DataFrame) -> Report:
            return Report(is_success=bool((frame["card_count_1d"].fillna(0) < limit).all()))

    class Reference:
        profile = Profile()

    reference: Any = Reference()
    limit = 10_000
    assert 12 == len(job.to_df(validation_reference=reference))
    limit = 1
    with pytest.raises(ValidationFailed):
        job.to_df(validation_reference=reference)


def test_materialize_fills_the_online_store(past: Past, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest rows of plain views; windowed views are left to their stream."""
    monkeypatch.setenv("FEATURESTORE_STORE_URL", redis_url)
    feast = past.feast()
    provider: Any = feast._get_provider()
    provider.online_store.clock = ManualClock(now_ms=NOON_MS + DAY_MS)
    feast.materialize(NOON - 30 * DAY, NOON + DAY / 2, ["merchant_profile", "card_activity"])
    rows = [{"merchant_id": 0}, {"merchant_id": 2}]
    names = ["home_market", "onboarded_days", "chargeback_share"]
    answer = feast.get_online_features([f"merchant_profile:{name}" for name in names], rows).to_dict()

    assert ["noon", None] == answer["home_market"]
    assert [None, 300] == answer["onboarded_days"]
    feast.materialize_incremental(NOON + 2 * DAY, feature_views=["merchant_profile"])
    assert ["future", None] == feast.get_online_features(["merchant_profile:home_market"], rows).to_dict()[
        "home_market"
    ]


def test_rows_are_appended_to_the_table_behind_a_view(past: Past, tmp_path: Path) -> None:
    """A file in one step, a directory by one more file; renamed columns and types are the table's own."""
    feast = make_past(tmp_path).feast()
    merchants = tmp_path / "feature_repo" / "data" / "merchants.parquet"
    before = pq.read_table(merchants)
    feast.write_to_offline_store("merchant_profile", pd.DataFrame([profile(9, NOON, onboarded_days=4)]))
    given = pd.DataFrame({"merchant_id": [9], "event_timestamp": [NOON]})
    found = feast.get_historical_features(given, features=["merchant_profile:onboarded_days"]).to_df()

    assert [4] == list(found["onboarded_days"])
    after = pq.read_table(merchants)
    assert (before.schema.types, before.num_rows + 1) == (after.schema.types, after.num_rows)
    for level in (2, 3):
        since = NOON + (level - 2) * DAY
        feast.write_to_offline_store(
            "merchant_tiers", pd.DataFrame([{"merchant_id": 0, "level": level, "since": since}])
        )
    given = pd.DataFrame({"merchant_id": [0] * 3, "event_timestamp": [NOON - DAY, NOON, NOON + DAY]})
    assert [1, 2, 3] == list(feast.get_historical_features(given, features=["merchant_tiers:tier"]).to_df()["tier"])
    with pytest.raises(ValueError, match="missing_expected_columns"):
        feast.write_to_offline_store("merchant_profile", pd.DataFrame([{"merchant_id": 9}]))


def test_appended_integers_keep_their_digits(tmp_path: Path) -> None:
    """Beside nulls too; as floats they are refused where digits may be lost already, and the table stays."""
    feast, big = make_past(tmp_path).feast(), 2**53 + 1
    merchants = tmp_path / "feature_repo" / "data" / "merchants.parquet"
    before = pq.read_table(merchants)
    lossy = pd.DataFrame([profile(8, NOON, onboarded_days=big), profile(9, NOON, onboarded_days=None)])
    with pytest.raises(InvalidRequest, match='column "onboarded_days" for data source "merchant_table" has'):
        feast.write_to_offline_store("merchant_profile", lossy)
    assert before == pq.read_table(merchants)
    feast.write_to_offline_store(
        "merchant_profile", lossy.assign(onboarded_days=pd.Series([big, None], dtype="object"))
    )

    assert [big, None] == pq.read_table(merchants)["onboarded_days"].to_pylist()[-2:]


def test_logged_features_are_written_and_read_back(past: Past, tmp_path: Path) -> None:
    """A service's answers, appended to its destination."""
    from feast.feature_logging import FeatureServiceLoggingSource, LoggingConfig
    from feast.infra.offline_stores.file_source import FileLoggingDestination

    feast = past.feast()
    service = feast.get_feature_service("merchant_monitoring")
    service.logging_config = LoggingConfig(destination=FileLoggingDestination(path=str(tmp_path / "logs")))
    schema = FeatureServiceLoggingSource(service, feast.project).get_schema(feast.registry)
    columns = {field.name: pa.nulls(2, field.type) for field in schema}
    columns["__log_timestamp"] = pa.array([NOON, NOON + DAY], schema.field("__log_timestamp").type)
    columns["merchant_id"] = pa.array([1, 2], schema.field("merchant_id").type)
    for _ in range(2):
        feast.write_logged_features(pa.table(columns, schema=schema), service)

    logs = feast._get_provider().retrieve_feature_service_logs(service, NOON, NOON, feast.config, feast.registry)
    assert 4 == pads.dataset(tmp_path / "logs").count_rows()
    assert [1, 1] == logs.to_arrow()["merchant_id"].to_pylist()


def test_a_missing_history_says_what_to_do(past: Past, tmp_path: Path) -> None:
    """No event log, no batch source, no arrival times."""
    ask = {"entity_df": labels(), "features": ["card_activity:card_count_1d"]}

    with pytest.raises(InvalidRequest, match="there is no event log") as caught:
        past.feast(event_log=str(tmp_path)).get_historical_features(**ask).to_df()
    assert "history: batch_source" in caught.value.hint
    with pytest.raises(InvalidRequest, match="does not tell when its events arrived"):
        past.feast(history="batch_source", ingested_before=NOON).get_historical_features(**ask).to_df()
    with pytest.raises(InvalidRequest, match="cannot be read as parquet"):
        past.feast(histories={"transactions": "data/nothing.parquet"}).get_historical_features(**ask).to_df()


def test_an_event_log_is_read_as_it_was_known(past: Past) -> None:
    """`ingested_before` leaves out what arrived later: here everything."""
    asks = {"entity_df": labels(), "features": ["card_activity:card_count_1d"]}
    then = datetime.fromtimestamp(0, UTC)
    found = past.feast(ingested_before=then).get_historical_features(**asks).to_df()

    assert [0] * 10 == list(found["card_count_1d"].dropna().iloc[:10])
    assert 12 == past.check("card_activity", past.feast().get_historical_features(**asks).to_df())


def test_settings_that_make_no_sense_are_refused(past: Past) -> None:
    """By Feast, when feature_store.yaml is read."""
    from featurestore.offline.feast.offline_store import PointInTimeOfflineStoreConfig

    refused: list[dict[str, Any]] = [
        {"history": "nowhere"},
        {"tables": {"type": STORE_TYPE}},
        {"tables": {}},
        {"event_logs": "x"},
        {"memory_bytes": 0},
    ]
    for settings in refused:
        with pytest.raises(ValueError, match="1 validation error"):
            PointInTimeOfflineStoreConfig(**settings)
    with pytest.raises(InvalidRequest, match='"transaction", which is no data source') as caught:
        past.feast(histories={"transaction": "batch_source"}).get_historical_features(labels(), features=FEATURES)
    assert '"transactions"' in caught.value.hint


def test_tables_of_another_system_are_the_past_of_both_kinds_of_views(past: Past) -> None:
    """Read by the Feast store that knows them, under their own names; with the default store they are refused."""
    features = ["card_totals:count_1d", "card_totals:amount_sum_1d", "merchant_ranks:rank"]
    feast = past.feast(tables={"type": OTHER_TYPE}, history="batch_source")
    found = feast.get_historical_features(labels(), features=features).to_df()
    with pytest.raises(InvalidRequest, match="which is no Parquet file"):
        past.feast(history="batch_source").get_historical_features(labels(), features=features).to_df()

    assert 24 == past.check("card_totals", found)
    assert [plain(rank) for rank in found["rank"]] == [
        None if when < NOON - DAY or merchant != 0 else 2 if when >= NOON else 1
        for when, merchant in zip(found["event_timestamp"], found["merchant_id"], strict=True)
    ]
