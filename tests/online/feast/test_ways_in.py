"""Every way into the online store (materialize, push, write_to_online_store): what is kept, and what is refused."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.core.spec import DEFAULT_MAX_FUTURE_MS
from featurestore.errors import InvalidRequest, LimitExceeded
from featurestore.online.redis.store import connect
from featurestore.wire.entity_key import fingerprint
from tests.online.feast.stand import HOUR, NOW, PRESENT, PROFILE, Cell, Stand, profile, stand_on

pytestmark = pytest.mark.filterwarnings("ignore")

BIG = 2**53 + 1
"""The first integer that a float cannot hold."""

TYPES = {"merchant_id": "Int64", "onboarded_days": "Int64"}

WriteRows = Callable[[Stand, pd.DataFrame], None]


@pytest.fixture
def stand(applied_repo: Path, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    """The SDK on an empty store, and a registry that no other test has materialized into."""
    monkeypatch.setenv("FEATURESTORE_STORE_URL", redis_url)
    repo = tmp_path / "feature_repo"
    shutil.copytree(applied_repo, repo)
    store = connect(redis_url)
    yield stand_on(repo, store)
    store.close()


def _keep(stand: Stand, frame: pd.DataFrame) -> None:
    """The table as other tools write it: without what pandas notes for itself."""
    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    pq.write_table(table, stand.repo / "data" / "merchants.parquet")


def _materialize(stand: Stand, frame: pd.DataFrame) -> None:
    _keep(stand, frame)
    stand.feast.materialize(NOW - timedelta(days=1), NOW, feature_views=["merchant_profile"])


def _materialize_incremental(stand: Stand, frame: pd.DataFrame) -> None:
    _keep(stand, frame)
    stand.feast.materialize(NOW - timedelta(days=2), NOW - timedelta(days=1), feature_views=["merchant_profile"])
    stand.feast.materialize_incremental(NOW, feature_views=["merchant_profile"])


def _write(stand: Stand, frame: pd.DataFrame) -> None:
    stand.feast.write_to_online_store("merchant_profile", frame)


def _write_async(stand: Stand, frame: pd.DataFrame) -> None:
    asyncio.run(stand.feast.write_to_online_store_async("merchant_profile", frame))


WAYS = [_materialize, _materialize_incremental, _write, _write_async]


def _frame(*rows: dict[str, object]) -> pd.DataFrame:
    names = ["merchant_id", *PROFILE, "updated_at"]
    return pd.DataFrame({name: pd.array([row[name] for row in rows], dtype=TYPES.get(name)) for name in names})


def _days(stand: Stand, *merchants: int) -> list[Cell]:
    rows = [{"merchant_id": merchant} for merchant in merchants]
    return stand.cells(["merchant_profile:onboarded_days"], rows)["onboarded_days"]


@pytest.mark.parametrize("write", WAYS)
def test_integers_beside_nulls_keep_their_digits(stand: Stand, write: WriteRows) -> None:
    """Values and join keys beyond 2**53, where a data frame would make floats of a column with nulls."""
    moment = NOW - HOUR
    write(
        stand,
        _frame(
            profile(1, moment, onboarded_days=BIG),
            profile(2, moment, onboarded_days=None),
            profile(BIG, moment, onboarded_days=-BIG),
            profile(3, moment, onboarded_days=2**63 - 1),
        ),
    )

    assert [BIG, None, -BIG, 2**63 - 1] == [value for value, _, _ in _days(stand, 1, 2, BIG, 3)]


def test_pushed_integers_beside_nulls_keep_their_digits(stand: Stand) -> None:
    """In columns of objects, as a frame of records has them, and in nullable ones."""
    alert = {"alert_level": -2, "alert_score": 0.5, "alert_reasons": ["a"], "alert_token": b"t", "alert_seen_at": NOW}
    alert |= {"alert_codes": [7], "alert_scores": [0.5], "raised_at": NOW}
    for counts in (
        pd.Series([BIG, None], dtype="object"),
        pd.Series([BIG, None], dtype="Int64"),
        pd.Series([BIG, None], dtype="int64[pyarrow]"),
    ):
        frame = pd.DataFrame([{"merchant_id": 5, **alert}, {"merchant_id": 6, **alert}]).assign(alert_count=counts)
        stand.feast.push("merchant_alerts_push", frame)
        found = stand.cells(["merchant_alerts:alert_count"], [{"merchant_id": 5}, {"merchant_id": 6}])

        assert [BIG, None] == [value for value, _, _ in found["alert_count"]]
        assert PRESENT == found["alert_count"][0][1]


def test_integers_that_came_as_floats_are_refused_where_digits_may_be_lost(stand: Stand) -> None:
    """A frame that has made floats of them cannot say which integer it was; below 2**53 it can."""
    moment = NOW - HOUR
    rows = [profile(1, moment, onboarded_days=BIG), profile(2, moment, onboarded_days=None)]
    lossy = pd.DataFrame({name: [row[name] for row in rows] for name in rows[0]})
    small = lossy.assign(onboarded_days=[2.0**53 - 1, None])
    stand.feast.write_to_online_store("merchant_profile", small)

    assert "float64" == str(lossy["onboarded_days"].dtype)
    assert [2**53 - 1, None] == [value for value, _, _ in _days(stand, 1, 2)]
    for ask in ({"df": lossy}, {"inputs": {name: list(lossy[name]) for name in lossy}}):
        with pytest.raises(InvalidRequest, match='column "onboarded_days" has integers as floats') as caught:
            stand.feast.write_to_online_store("merchant_profile", **ask)
        assert "Int64" in caught.value.hint
    with pytest.raises(InvalidRequest, match='column "merchant_id" has integers as floats'):
        stand.feast.write_to_online_store("merchant_profile", small.assign(merchant_id=[2.0**60, 1.0]))


def test_a_table_of_several_chunks_is_written_whole(stand: Stand) -> None:
    """Feast writes the first chunk alone; a frame of Arrow columns may have many."""
    frames = [_frame(profile(n, NOW - HOUR, onboarded_days=n)) for n in (1, 2)]
    chunked = pa.concat_tables([pa.Table.from_pandas(frame, preserve_index=False) for frame in frames])
    frame = chunked.to_pandas(types_mapper=pd.ArrowDtype)
    stand.feast.write_to_online_store("merchant_profile", frame)

    assert [1, 2] == [value for value, _, _ in _days(stand, 1, 2)]


@pytest.mark.parametrize("write", WAYS)
def test_rows_without_a_join_key_are_skipped_counted_and_told(
    stand: Stand, write: WriteRows, caplog: pytest.LogCaptureFixture
) -> None:
    """They are about nobody, as for history; the other rows of the frame or table are written."""
    moment = NOW - HOUR
    write(
        stand,
        _frame(
            profile(None, moment, onboarded_days=1),
            profile(1, moment, onboarded_days=2),
            profile(None, moment, onboarded_days=3),
        ),
    )

    assert [2, None] == [value for value, _, _ in _days(stand, 1, 2)]
    assert ['feature view "merchant_profile": 2 rows without join key "merchant_id" are skipped'] == [
        record.getMessage() for record in caplog.records if record.levelname == "WARNING"
    ]


def test_a_null_key_stops_no_other_view(stand: Stand) -> None:
    """Views are materialized one after the other; one row's mistake is its own."""
    pair = {"pair_limit": 9.5, "set_at": NOW - HOUR}
    pairs = [{"card_id": "c-1", "merchant_id": None, **pair}, {"card_id": "c-1", "merchant_id": 5, **pair}]
    pd.DataFrame(pairs).astype({"merchant_id": "Int64"}).to_parquet(stand.repo / "data" / "limits.parquet")
    _keep(stand, _frame(profile(None, NOW - HOUR), profile(1, NOW - HOUR, onboarded_days=2)))
    stand.feast.materialize(NOW - timedelta(days=1), NOW, feature_views=["merchant_profile", "pair_limits"])
    found = stand.cells(["pair_limits:pair_limit"], [{"card_id": "c-1", "merchant_id": 5}])

    assert [2] == [value for value, _, _ in _days(stand, 1)]
    assert [9.5] == [value for value, _, _ in found["pair_limit"]]


def test_rows_without_a_time_are_skipped_counted_and_told(stand: Stand, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody can say what they are newer than."""
    frame = _frame(profile(1, NOW - HOUR, onboarded_days=2), profile(2, NOW, onboarded_days=3))
    frame["updated_at"] = [NOW - HOUR, None]
    stand.feast.write_to_online_store("merchant_profile", frame)

    assert [2, None] == [value for value, _, _ in _days(stand, 1, 2)]
    assert ['feature view "merchant_profile": 1 row without "updated_at" is skipped'] == [
        record.getMessage() for record in caplog.records if record.levelname == "WARNING"
    ]


@pytest.mark.parametrize("write", WAYS[2:])
def test_a_row_from_the_future_is_refused_and_the_others_are_written(stand: Stand, write: WriteRows) -> None:
    """Further ahead of the clock than a stream's events may be, it would beat every later row until its time comes."""
    ahead = timedelta(milliseconds=DEFAULT_MAX_FUTURE_MS)
    with pytest.raises(InvalidRequest) as caught:
        write(
            stand,
            _frame(
                profile(1, NOW + ahead + timedelta(milliseconds=1), onboarded_days=1),
                profile(2, NOW + ahead, onboarded_days=2),
                profile(3, NOW, onboarded_days=3),
            ),
        )
    with pytest.raises(InvalidRequest, match="ahead of the clock"):
        write(stand, _frame(profile(1, NOW + 2 * ahead, onboarded_days=5)))
    stand.feast.write_to_online_store("merchant_profile", _frame(profile(1, NOW, onboarded_days=4)))

    assert [4, 2, 3] == [value for value, _, _ in _days(stand, 1, 2, 3)]
    when = (NOW + ahead).isoformat(timespec="milliseconds").replace(".000+00:00", ".001+00:00")
    named = f"entity {fingerprint(b'1')}"
    expected = f'feature view "merchant_profile" has a row of {when} for {named}, 300001 ms ahead of the clock'
    assert caught.value.message.startswith(expected)
    assert "1 row was refused, the others are written" in caught.value.detail


def test_a_key_that_is_too_long_keeps_no_other_row_out(stand: Stand) -> None:
    """The row is refused, the others of the frame are written."""
    frame = pd.DataFrame(
        {"card_id": ["c" * 1_100, "c-1"], "merchant_id": [5, 5], "pair_limit": [1.5, 2.5], "set_at": [NOW, NOW]}
    )
    with pytest.raises(LimitExceeded, match="1108 bytes long, the limit is 1024"):
        stand.feast.write_to_online_store("pair_limits", frame)
    found = stand.cells(["pair_limits:pair_limit"], [{"card_id": "c-1", "merchant_id": 5}])

    assert [2.5] == [value for value, _, _ in found["pair_limit"]]
