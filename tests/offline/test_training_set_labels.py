"""Label times of all types, and plain views joined as Feast does."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.core.spec import Column, FeatureReference, PlainViewSpec, RepoSpec, ServiceSpec, TableSpec, ValueType
from featurestore.errors import InvalidRequest
from featurestore.offline.histories import FileHistory
from featurestore.offline.label_times import moments_ms
from featurestore.offline.plain_join import PlainHistory
from featurestore.offline.training_set import build_training_set
from tests.offline.label_tables import CARD, NOON_MS, payments

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
MIDNIGHT_MS = NOON_MS - 43_200_000


@pytest.mark.parametrize(
    "column",
    [
        pa.array([MIDNIGHT, None], pa.timestamp("us", tz="Europe/Berlin")),
        pa.array([MIDNIGHT.replace(tzinfo=None), None], pa.timestamp("ns")),
        pa.array(["2026-01-01T01:00:00+01:00", None]),
        pa.array(["2026-01-01", None]),
        pa.array([date(2026, 1, 1), None]),
        pa.array([MIDNIGHT_MS, None]),
        pa.array(["2026-01-01T00:00:00Z", None]).dictionary_encode(),
    ],
    ids=str,
)
def test_times_are_understood_whatever_their_type(column: pa.Array) -> None:
    """Zones are followed, what has none is UTC, null stays null."""
    times_ms, is_time = moments_ms(column, "at")

    assert [MIDNIGHT_MS, 0] == times_ms.tolist()
    assert [True, False] == is_time.tolist()


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([MIDNIGHT_MS // 1_000]), "look like seconds"),
        (pa.array([MIDNIGHT_MS * 1_000]), "micro- or nanoseconds"),
        (pa.array([1.5]), "holds no times"),
        (pa.array(["2026-01-01", "soon"]), 'row 1 of column "at" is "soon"'),
        (pa.array([True]), "holds no times"),
    ],
    ids=["seconds", "microseconds", "floats", "text", "flags"],
)
def test_times_that_would_be_guessed_at_are_refused(column: pa.Array, message: str) -> None:
    """The message says what it looks like, and where."""
    with pytest.raises(InvalidRequest, match=message):
        moments_ms(column, "at")


def test_finer_times_are_cut_off_towards_the_past() -> None:
    """A row never sees more than was known: also before 1970."""
    column = pa.array([1_999_999, -1], pa.timestamp("ns"))

    assert [1, -1] == moments_ms(column, "at")[0].tolist()


PROFILE = PlainViewSpec(
    "profile",
    (Column("card", ValueType.STRING),),
    (Column("limit", ValueType.INT64), Column("tier", ValueType.STRING)),
    ttl_ms=10_000,
)


def test_plain_views_are_joined_as_feast_does() -> None:
    """At or before the label time, no older than the ttl, the last created of a tie; in one call with windowed views.

    c-1     0: 100 gold   5000: 200 silver, then 300 bronze (created later)
    asked   -1        0         5000        15000       15001
    """
    table = pa.table(
        {
            "card": ["c-1", "c-1", "c-1", "c-2"],
            "limit": [100, 300, 200, 7],
            "level": ["gold", "bronze", "silver", "none"],
            "since": pa.array([NOON_MS, NOON_MS + 5_000, NOON_MS + 5_000, NOON_MS], pa.timestamp("ms", tz="UTC")),
            "written": pa.array([0, 2, 1, 0], pa.timestamp("s")),
        }
    )
    labels = pa.table(
        {
            "card": ["c-1"] * 5 + [None, "c-9"],
            "event_timestamp": [NOON_MS + at for at in (-1, 0, 5_000, 15_000, 15_001, 0, 0)],
        }
    )
    references = (
        FeatureReference("profile", "tier", "tier"),
        FeatureReference("card", "count_1h", "count_1h"),
        FeatureReference("profile", "limit", "limit"),
    )
    repo = RepoSpec("tests", (CARD,), (PROFILE,), (ServiceSpec("all", references, CARD.join_keys),))
    history = FileHistory(payments(("p1", 0, "c-1", 1, 50, "DE")))
    plain = {"profile": PlainHistory(table, "since", "written", {"level": "tier"})}

    found = build_training_set(repo, "all", labels, history=history, plain=plain)

    assert ["card", "event_timestamp", "tier", "count_1h", "limit"] == found.column_names
    assert [None, 100, 300, 300, None, None, None] == found["limit"].to_pylist()
    assert [None, "gold", "bronze", "bronze", None, None, None] == found["tier"].to_pylist()
    assert [0, 0, 1, 1, 1, None, 0] == found["count_1h"].to_pylist()
    with pytest.raises(InvalidRequest, match='"profile" is materialized, and its table is not known'):
        build_training_set(repo, "all", labels, history=history)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, "its table is not known"),
        (TableSpec("sales", "bigquery", "", "", "since"), 'materialized from bigquery source "sales", not from files'),
        (TableSpec("sales", "file", "sales", "delta", "since"), "has format delta, not parquet"),
        (TableSpec("sales", "file", "sales", "parquet", ""), "does not say since when its rows hold"),
        (TableSpec("sales", "file", "nowhere.parquet", "parquet", "since"), "cannot be read as parquet"),
    ],
)
def test_tables_that_cannot_be_found_are_refused_with_the_remedy(table: TableSpec | None, message: str) -> None:
    """The message names view or source, the hint the option that gives a table."""
    repo = RepoSpec("tests", (), (replace(PROFILE, table=table),), ())
    labels = pa.table({"card": ["c-1"], "event_timestamp": [NOON_MS]})

    with pytest.raises(InvalidRequest, match=message) as refused:
        build_training_set(repo, ["profile:tier"], labels, history=FileHistory(labels))
    assert "--table" in refused.value.hint or message == "cannot be read as parquet"


def test_finer_times_of_plain_tables_decide() -> None:
    """A row half a millisecond after the label is not seen, although both are in one millisecond."""
    moments = pa.array([NOON_MS * 1_000 + 400, NOON_MS * 1_000 + 900], pa.timestamp("us", tz="UTC"))
    table = pa.table({"card": ["c-1", "c-1"], "limit": [1, 2], "tier": ["a", "b"], "since": moments})
    labels = pa.table(
        {"card": ["c-1"] * 2, "event_timestamp": pa.array([NOON_MS * 1_000 + at for at in (500, 900)], moments.type)}
    )
    repo = RepoSpec("tests", (), (PROFILE,), ())
    plain = {"profile": PlainHistory(table, "since")}
    found = build_training_set(repo, ["profile:limit"], labels, history=FileHistory(table), plain=plain)

    assert [1, 2] == found["limit"].to_pylist()


def test_many_files_of_a_directory_are_one_history(tmp_path: Path) -> None:
    """Parquet files below a directory, partitioned or not, are read together."""
    for number in range(3):
        directory = tmp_path / f"event_date=2026-01-0{number + 1}"
        directory.mkdir()
        pq.write_table(payments((f"p{number}", number, "c-1", 1, 10, "DE")), directory / "part.parquet")
    repo = RepoSpec("tests", (CARD,), (), ())
    labels = pa.table({"card": ["c-1"], "event_timestamp": [NOON_MS + 10]})
    found = build_training_set(repo, ["card:amount_1h"], labels, history=FileHistory(tmp_path))

    assert [30] == found["amount_1h"].to_pylist()
