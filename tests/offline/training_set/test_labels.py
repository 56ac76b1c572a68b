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
from featurestore.offline.training_set.build import build_training_set
from featurestore.offline.training_set.histories import FileHistory
from featurestore.offline.training_set.label_times import label_moments_ms, moments_ms
from featurestore.offline.training_set.plain_join import PlainHistory
from featurestore.offline.training_set.plan import plan_training_set
from tests.offline.training_set.label_tables import CARD, NOON_MS, payments, repo_of

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
        pa.array(["2026-01-01T00:00:00Z", None], pa.string_view()),
        pa.array([MIDNIGHT_MS, None], pa.uint64()),
        pa.array([MIDNIGHT_MS + 5, None]).view(pa.date64()),
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
        (pa.array([(1 << 63) + 5], pa.uint64()), "micro- or nanoseconds"),
        (pa.array([-(1 << 63)]), "micro- or nanoseconds"),
        (pa.array([(1 << 62) + MIDNIGHT_MS // 1_000], pa.timestamp("s")), "not a moment of the years 1 to 9999"),
    ],
    ids=["seconds", "microseconds", "floats", "text", "flags", "unsigned", "smallest", "round the corner"],
)
def test_times_that_would_be_guessed_at_are_refused(column: pa.Array, message: str) -> None:
    """The message says what it looks like, and where."""
    with pytest.raises(InvalidRequest, match=message):
        moments_ms(column, "at")


@pytest.mark.parametrize("odd", [MIDNIGHT_MS // 1_000, 0, -1])
def test_one_row_of_seconds_among_label_times_is_refused(odd: int) -> None:
    """It would have the features of 1970, which are those of nobody; of events one odd time is left alone."""
    column = pa.chunked_array([[MIDNIGHT_MS, None], [odd]])

    with pytest.raises(InvalidRequest, match=f'row 2 of column "at" is {odd}, which looks like seconds') as refused:
        label_moments_ms(column, "at")
    assert "null" in refused.value.hint
    assert [MIDNIGHT_MS, 0, odd] == moments_ms(column, "at")[0].tolist()
    assert [MIDNIGHT_MS, 0] == label_moments_ms(column.slice(0, 2), "at")[0].tolist()


@pytest.mark.parametrize(
    ("at_ms", "unit"),
    [(MIDNIGHT_MS // 1_000, "seconds"), (0, "seconds"), (MIDNIGHT_MS * 1_000, "micro- or nanoseconds")],
)
def test_one_moment_in_another_unit_is_refused(at_ms: int, unit: str) -> None:
    """As a column of it is."""
    labels = pa.table({"card": ["c-1"]})

    with pytest.raises(InvalidRequest, match=f"the moment {at_ms} looks like {unit}"):
        plan_training_set(repo_of(CARD), "all", labels, at_ms=at_ms)


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


def test_events_that_arrived_later_are_left_out_of_files_too() -> None:
    """Files of an event log say when each row arrived; others are refused, as nobody would see what was ignored."""
    rows = payments(*((f"p{number}", number, "c-1", 1, 10, "DE") for number in range(3)))
    logged = rows.append_column("ingest_time_ms", [[NOON_MS + 5, NOON_MS + 6, None]])
    labels = pa.table({"card": ["c-1"], "event_timestamp": [NOON_MS + 10]})
    repo = RepoSpec("tests", (CARD,), (), ())
    known = FileHistory(logged, ingested_before_ms=NOON_MS + 6)

    assert [10] == build_training_set(repo, ["card:amount_1h"], labels, history=known)["amount_1h"].to_pylist()
    assert known.version(CARD.source) != FileHistory(logged).version(CARD.source)
    with pytest.raises(InvalidRequest, match="does not tell when its events arrived") as refused:
        build_training_set(repo, ["card:amount_1h"], labels, history=FileHistory(rows, ingested_before_ms=NOON_MS + 6))
    assert 'no column "ingest_time_ms"' in refused.value.detail


def test_an_original_just_before_the_window_still_hides_its_repeat() -> None:
    """Events are read from a horizon before the oldest window on, not from the window on.

    original 12:00    repeat 12:45    label 13:30, whose hour begins at 12:30
    """
    history = payments(("p1", 0, "c-1", 1, 50, "DE"), ("p1", 45 * 60_000, "c-1", 1, 50, "DE"))
    labels = pa.table({"card": ["c-1"], "event_timestamp": [NOON_MS + 90 * 60_000]})
    repo = RepoSpec("tests", (CARD,), (), ())

    found = build_training_set(repo, ["card:count_1h"], labels, history=FileHistory(history))

    assert [0] == found["count_1h"].to_pylist()


def test_a_table_that_cannot_be_read_is_found_out_before_events_are(tmp_path: Path) -> None:
    """An hour later would be late."""
    references = (FeatureReference("card", "count_1h", "count_1h"), FeatureReference("profile", "tier", "tier"))
    repo = RepoSpec("tests", (CARD,), (PROFILE,), (ServiceSpec("all", references, CARD.join_keys),))
    labels = pa.table({"card": ["c-1"], "event_timestamp": [NOON_MS]})
    history = FileHistory(payments(("p1", 0, "c-1", 1, 50, "DE")))
    steps: list[object] = []

    for table in (tmp_path / "missing.parquet", pa.table({"card": ["c-1"], "tier": ["a"], "since": [0.5]})):
        plain = {"profile": PlainHistory(table, "since")}
        with pytest.raises(InvalidRequest, match=r"missing\.parquet|holds no times"):
            build_training_set(repo, "all", labels, history=history, plain=plain, progress=steps.append)
    assert not steps


def test_a_column_that_one_of_several_sources_lacks_is_found_out_before_another_is_read(tmp_path: Path) -> None:
    """Whichever comes first, and of what kind they are."""
    other = replace(CARD, name="other", source=replace(CARD.source, name="others"))
    references = tuple(FeatureReference(name, "amount_1h", f"{name}_amount") for name in ("card", "other"))
    repo = RepoSpec("tests", (CARD, other), (), (ServiceSpec("all", references, CARD.join_keys),))
    rows = payments(("p1", 0, "c-1", 1, 50, "DE"))
    labels = pa.table({"card": ["c-1"], "event_timestamp": [NOON_MS]})
    history = FileHistory({"payments": rows, "others": rows.drop_columns(["amount"])})
    steps: list[object] = []

    with pytest.raises(InvalidRequest, match='the history of source "others" has no column "amount"'):
        build_training_set(repo, "all", labels, history=history, progress=steps.append)
    assert not steps
