"""Whatever is legal in Feast: served, or told by the plan, and never the end of what stands beside it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from featurestore.clock import SystemClock
from featurestore.definitions.registry import RegistryFile, read_compilation
from featurestore.definitions.repo import apply_repo, load_repo
from featurestore.errors import InvalidRequest
from featurestore.offline.training_set.build import build_training_set
from featurestore.offline.training_set.histories import EventLogHistory
from featurestore.online.redis.store import connect
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from tests.online.feast.stand import (
    HOUR,
    NOT_FOUND,
    NOW,
    NOW_MS,
    OUTSIDE_MAX_AGE,
    PRESENT,
    PROJECT,
    Stand,
    payments,
    profile,
    stand_on,
    write_profiles,
)

pytestmark = pytest.mark.filterwarnings("ignore")

TOLD = {
    "stream_function_sum": "transforms events by a function before aggregating",
    "pushed_sum": "reads a source of kind PUSH_SOURCE, not a stream of events",
    "avro_sum": 'reads messages of avro_format without the tag "columns"',
    "sum_of_all": "has no entity",
    "keyed_by_double": 'has entity "ratio" of type DOUBLE, and keys are STRING or INT64',
    "of_nine_keys": "has more than 8 entities",
    "n" * 201: "has a name of more than 200 characters",
}
"""View -> what the plan says of it."""

UNSERVED = {
    "types_service": 'has "a_decimal" of a type that is not served',
    "two_types_of_key": 'join key "merchant_id" is string in feature view "text_keyed" and int64 before',
    "sums_service": "reads a source of kind PUSH_SOURCE",
    "verdicts_service": 'feature view "verdicts" is a label view',
    "empty_service": "it has no features",
}
"""Service -> why the gRPC server does not serve it."""


@pytest.fixture(scope="module")
def legal_repo(applied_repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with one object of each kind beside it."""
    repo = tmp_path_factory.mktemp("legal") / "feature_repo"
    shutil.copytree(applied_repo, repo, ignore=shutil.ignore_patterns("data"))
    shutil.copy(Path(__file__).parent / "extras" / "legal.py", repo)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEATURESTORE_STORE_URL", "redis://127.0.0.1:1/0")
        loaded = load_repo(repo, PROJECT)
        assert () == loaded.compile().problems
        apply_repo(loaded)
    return repo


@pytest.fixture
def stand(legal_repo: Path, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    """The SDK on it, with an empty store."""
    monkeypatch.setenv("FEATURESTORE_STORE_URL", redis_url)
    repo = tmp_path / "feature_repo"
    shutil.copytree(legal_repo, repo)
    store = connect(redis_url)
    yield stand_on(repo, store)
    store.close()


@contextmanager
def serving(stand: Stand) -> Iterator[LookupClient]:
    """A client of a gRPC server on the same registry and store."""
    registry = RegistryFile(stand.repo / "data" / "registry.db", PROJECT)
    server = FeatureServer(registry, stand.store, stand.clock, ServerSettings(port=0))
    with LookupClient(f"127.0.0.1:{server.port}", timeout_s=30) as connected:
        yield connected
    server.stop(drain_seconds=1.0)


def test_legal_kinds_leave_the_rest_of_a_project_as_it_was(applied_repo: Path, legal_repo: Path) -> None:
    """What stream, server and history read of the registry is sound, and of the example nothing is missing."""
    before = read_compilation(applied_repo / "data" / "registry.db").require_sound()
    after = read_compilation(legal_repo / "data" / "registry.db").require_sound()

    assert before.views == after.views
    assert set(before.plain_views) <= set(after.plain_views)
    assert set(before.services) <= set(after.services)
    assert {"market_mood", "batch_table", "of_two_views", "renamed_times", "text_keyed", "elsewhere"} <= {
        view.name for view in after.plain_views
    }
    assert {"mood_service", "mood_and_card", "logged", "precomputed"} <= {service.name for service in after.services}


@pytest.mark.parametrize("name", TOLD)
def test_a_view_that_is_not_computed_is_told(legal_repo: Path, name: str) -> None:
    """By a note of the plan, with the reason."""
    notes = read_compilation(legal_repo / "data" / "registry.db").notes

    assert 1 == sum(note.startswith(f'feature view "{name}" is') and TOLD[name] in note for note in notes)


@pytest.mark.parametrize("name", UNSERVED)
def test_a_service_that_is_not_served_is_told(legal_repo: Path, name: str) -> None:
    """By a note of the plan, and by the server when it is asked."""
    compilation = read_compilation(legal_repo / "data" / "registry.db")

    assert UNSERVED[name] in compilation.unserved[name]
    assert any(f'feature service "{name}"' in note and UNSERVED[name] in note for note in compilation.notes)


def test_stream_server_and_history_work_beside_every_kind(stand: Stand) -> None:
    """The stream's writer, a lookup by gRPC, the SDK online and in history, and a nightly materialize."""
    stand.stream("card_activity", payments(3, key=b"c-1"))
    write_profiles(stand.repo, [profile(1, NOW - HOUR)])
    stand.feast.materialize(NOW - timedelta(days=1), NOW, feature_views=["merchant_profile"])
    keys: Mapping[str, Sequence[str] | Sequence[int]] = {"card_id": ["c-1"], "merchant_id": [1], "terminal_id": [1]}
    with serving(stand) as client:
        found = client.lookup("fraud_detection", keys).rows()[0]
    online = stand.cells(
        ["card_activity:card_count_1d", "merchant_profile:home_market"], [{"card_id": "c-1", "merchant_id": 1}]
    )
    labels = pd.DataFrame({"merchant_id": [1, 2], "event_timestamp": [NOW, NOW]})
    history = stand.feast.get_historical_features(labels, ["merchant_profile:home_market"]).to_df()

    assert (3, "SE") == (found["card_count_1d"], found["home_market"])
    assert [3, "SE"] == [online[name][0][0] for name in ("card_count_1d", "home_market")]
    assert ["SE", None] == list(history["home_market"])


def test_a_view_without_entities_is_one_row_for_all(stand: Stand) -> None:
    """Materialized and written; read by the SDK and by gRPC, alone and beside others; its ttl holds."""
    asked = ["market_mood:mood", "market_mood:alarms", "card_activity:card_count_1d"]
    rows = [{"card_id": "c-1"}, {"card_id": "c-2"}]
    stand.stream("card_activity", payments(3, key=b"c-1"))
    table = pa.table({"mood": [3, 2**53 + 1], "alarms": [1, None], "at": [NOW - 2 * HOUR, NOW - HOUR]})
    pa.parquet.write_table(table, stand.repo / "data" / "market_mood.parquet")
    stand.feast.materialize(NOW - timedelta(days=1), NOW, feature_views=["market_mood"])
    materialized = stand.cells(asked, rows)
    with serving(stand) as client:
        both = client.lookup("mood_and_card", {"card_id": ["c-1", "c-2"]}).rows()
        stand.feast.write_to_online_store("market_mood", pd.DataFrame({"mood": [7], "alarms": [8], "at": [NOW]}))
        alone = client.lookup("mood_service", {}).rows()
    stamp = NOW_MS - 3_600_000

    assert [(2**53 + 1, PRESENT, stamp)] * 2 == materialized["mood"]
    assert [None, None] == [value for value, _, _ in materialized["alarms"]]
    assert [2**53 + 1] * 2 == [row["mood"] for row in both]
    assert [3, 0] == [row["card_count_1d"] or 0 for row in both]
    assert [{"mood": 7, "alarms": 8}] == alone
    assert 1 == len(list(stand.store.scan(b"*market_mood/p/*")))
    stand.clock.set_now_ms(NOW_MS + 86_400_001)
    assert [OUTSIDE_MAX_AGE] * 2 == [status for _, status, _ in stand.cells(asked, rows)["mood"]]


def test_a_view_without_entities_has_a_history(stand: Stand) -> None:
    """By the SDK and by the calculator of `featurestore history`: the newest row at or before each label, for all."""
    times = [NOW - 2 * HOUR, NOW - HOUR]
    table = pa.table({"mood": [3, 4], "alarms": [1, None], "at": pa.array(times, pa.timestamp("us", tz="UTC"))})
    pa.parquet.write_table(table, stand.repo / "data" / "market_mood.parquet")
    moments = [NOW - 3 * HOUR, NOW - 2 * HOUR, NOW, NOW + timedelta(days=2)]
    labels = pd.DataFrame({"note": list("abcd"), "event_timestamp": moments})
    asked = ["market_mood:mood", "market_mood:alarms"]
    sdk = stand.feast.get_historical_features(labels, asked).to_arrow()
    everything = stand.feast.get_historical_features(
        None, asked, start_date=NOW - timedelta(days=1), end_date=NOW
    ).to_arrow()
    ours = build_training_set(
        stand.spec,
        asked,
        pa.Table.from_pandas(labels),
        history=EventLogHistory(stand.repo / "data" / "event_log"),
        repo_path=stand.repo,
    )

    assert [None, 3, 4, None] == sdk["mood"].to_pylist() == ours["mood"].to_pylist()
    assert [None, 1, None, None] == sdk["alarms"].to_pylist() == ours["alarms"].to_pylist()
    assert [{"mood": 4, "alarms": None}] == everything.select(["mood", "alarms"]).to_pylist()


def test_the_raw_name_of_a_time_column_is_enough(stand: Stand) -> None:
    """`timestamp_field` and `created_timestamp_column` before their mapping: materialize, push and history agree."""
    raw = pd.DataFrame(
        {
            "shop": [1, 1, 2],
            "level": [5, 6, 7],
            "changed": [NOW - HOUR, NOW - HOUR, NOW - 2 * HOUR],
            "noted": [NOW, NOW - HOUR, NOW],
        }
    )
    raw.to_parquet(stand.repo / "data" / "renamed_times.parquet")
    stand.feast.materialize(NOW - timedelta(days=1), NOW, feature_views=["renamed_times"])
    rows = [{"merchant_id": 1}, {"merchant_id": 2}]
    labels = pd.DataFrame({"merchant_id": [1, 2], "event_timestamp": [NOW, NOW]})
    history = stand.feast.get_historical_features(labels, ["renamed_times:grade"]).to_df()

    assert [5, 7] == [value for value, _, _ in stand.cells(["renamed_times:grade"], rows)["grade"]]
    assert [5, 7] == list(history["grade"])
    names = {"shop": "merchant_id", "level": "grade"}
    stand.feast.write_to_online_store(
        "renamed_times", raw.assign(level=[1, 2, 3], changed=[NOW] * 3).rename(columns=names)
    )
    assert [1, 3] == [value for value, _, _ in stand.cells(["renamed_times:grade"], rows)["grade"]]


def test_on_demand_views_of_every_mode_work_in_the_sdk(stand: Stand) -> None:
    """Computed by Feast on what our stores answer, online and in history; one that is written is read back."""
    write_profiles(stand.repo, [profile(1, NOW - HOUR)])
    stand.feast.materialize(NOW - timedelta(days=1), NOW, feature_views=["merchant_profile"])
    online = stand.feast.get_online_features(
        ["twice_by_pandas:twice_pandas", "twice_by_row:twice_singleton"], [{"merchant_id": 1}]
    ).to_dict()
    stand.clock.set_now_ms(SystemClock().now_ms())  # Feast dates these rows itself
    stand.feast.write_to_online_store(
        "twice_when_written", pd.DataFrame([{"merchant_id": 1, "chargeback_share": 0.25, "event_timestamp": NOW}])
    )
    written = stand.feast.get_online_features(["twice_when_written:twice_written"], [{"merchant_id": 1}]).to_dict()

    assert ([0.5], [0.5]) == (online["twice_pandas"], online["twice_singleton"])
    assert [0.5] == written["twice_written"]


def test_history_of_what_is_not_computed_is_refused_by_name(stand: Stand) -> None:
    """With the reason of the plan's note; other views are answered."""
    labels = pd.DataFrame({"merchant_id": [1], "ratio": [0.5], "event_timestamp": [NOW]})
    for feature, reason in {
        "pushed_sum:sum_amount_3600s": TOLD["pushed_sum"],
        "keyed_by_double:by_double": TOLD["keyed_by_double"],
        "verdicts:verdict": "is a LabelView",
    }.items():
        with pytest.raises(InvalidRequest, match=reason):
            stand.feast.get_historical_features(labels, [feature])


def test_labels_are_pushed_and_read(stand: Stand) -> None:
    """A label view is a plain one to the online store."""
    frame = pd.DataFrame([{"merchant_id": 1, "verdict": "fraud", "labeler": "ann", "at": NOW}])
    stand.feast.push("verdicts_push", frame)
    found = stand.cells(["verdicts:verdict"], [{"merchant_id": 1}, {"merchant_id": 2}])

    assert [("fraud", PRESENT, NOW_MS), (None, NOT_FOUND, 0)] == found["verdict"]


def test_a_text_key_over_integers_is_cast_as_feast_casts_it(stand: Stand) -> None:
    """Declared String, kept as integers, with nulls or without: the digits alone, online and in history."""
    for shops in ([1, 2**53 + 1], [1, None, 2**53 + 1]):
        table = pa.table({"merchant_id": shops, "by_text": range(len(shops)), "at": [NOW - HOUR] * len(shops)})
        pa.parquet.write_table(table, stand.repo / "data" / "text_keyed.parquet")
        stand.feast.materialize(NOW - timedelta(days=1), NOW, feature_views=["text_keyed"])
        for keys in (["1", str(2**53 + 1)], [1, 2**53 + 1]):
            online = stand.cells(["text_keyed:by_text"], [{"merchant_id": key} for key in keys])
            labels = pd.DataFrame({"merchant_id": keys, "event_timestamp": [NOW, NOW]})
            history = stand.feast.get_historical_features(labels, ["text_keyed:by_text"]).to_df()

            assert [0, len(shops) - 1] == [value for value, _, _ in online["by_text"]] == list(history["by_text"])
    everything = stand.feast.get_historical_features(
        None, ["text_keyed:by_text"], start_date=NOW - timedelta(days=1), end_date=NOW
    ).to_df()
    assert ["1", str(2**53 + 1)] == list(everything["merchant_id"])


def test_a_function_of_the_authors_computes_on_feasts_frames(stand: Stand) -> None:
    """A batch view is a table as any other; with a function it is materialized as Feast does it, nulls included."""
    data, moment = stand.repo / "data", NOW - HOUR
    for name, feature, values in (
        ("batch_table", "stars", [4, 5]),
        ("batch_function", "stars_of_function", [3, None]),
    ):
        table = pa.table({"merchant_id": [1, 2], feature: values, "at": [moment, moment]})
        pa.parquet.write_table(table, data / f"{name}.parquet")
    stand.feast.materialize(NOW - timedelta(days=1), NOW, feature_views=["batch_table", "batch_function"])
    asked = ["batch_table:stars", "batch_function:stars_of_function"]
    found = stand.cells(asked, [{"merchant_id": 1}, {"merchant_id": 2}])

    assert [4, 5] == [value for value, _, _ in found["stars"]]
    assert [3, None] == [value for value, _, _ in found["stars_of_function"]]
