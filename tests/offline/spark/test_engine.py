"""Training sets under Spark are those of the local engine: values, rows, order, columns, and what is refused."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from featurestore.cli.main import main
from featurestore.core.spec import (
    Column,
    ComputedColumn,
    OnDemandInput,
    OnDemandViewSpec,
    PlainViewSpec,
    RepoSpec,
    ValueType,
)
from featurestore.errors import InvalidRequest, Unavailable
from featurestore.offline.event_log.address import place_of
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.upkeep import CompactionPolicy, compact, retain
from featurestore.offline.spark.bucket import BUCKET, Bucket, LabelMoments, OnDemandColumn, OnDemandStage
from featurestore.offline.spark.engine import spark_training_set
from featurestore.offline.spark.events import SparkEventLog, SparkFiles
from featurestore.offline.spark.files import (
    SparkRequest,
    open_session,
    write_spark_directory,
    write_spark_file,
)
from featurestore.offline.training_set.arrow_columns import ARROW_TYPES
from featurestore.offline.training_set.build import build_training_set, write_training_set
from featurestore.offline.training_set.histories import EventLogHistory, FileHistory
from featurestore.offline.training_set.plain_join import PlainHistory
from featurestore.offline.training_set.plan import plan_training_set
from featurestore.offline.training_set.view_events import LabelReach, reach_of
from featurestore.testing.clock import ManualClock
from featurestore.testing.strategies import StreamCase, stream_cases
from featurestore.wire.moments import EVENT_TIME_MS_MAX
from tests.full_disk import files_of_at_most
from tests.offline.event_log.event_logs import BEGIN_MS, DAY_MS, PAYMENTS, offsets_of, write_commits
from tests.offline.spark.tables import Past, differing, make_past
from tests.offline.training_set.label_tables import CARD, NOON_MS, PAIR, history_table, payments, repo_of
from tests.offline.training_set.request_checks import checks_of, repo_with, requests, with_requests

SETTINGS = {
    "spark.driver.memory": "768m",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.codegen.wholeStage": "false",
    "spark.ui.showConsoleProgress": "false",
}
"""A small session: these jobs are over before a compiler pays."""


@pytest.fixture
def spark() -> SparkSession:
    """The session of this process; begun again where a command has ended it."""
    return open_session("local[2]", SETTINGS)


@pytest.fixture(scope="module", autouse=True)
def _ends() -> Iterator[None]:
    """No session is left behind."""
    yield
    session = SparkSession.getActiveSession()
    if session is not None:
        session.stop()


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Past:
    """Two days of the payments example."""
    return make_past(tmp_path_factory.mktemp("past"), days=2)


def test_the_file_is_that_of_the_local_engine(spark: SparkSession, past: Past, tmp_path: Path) -> None:
    """Three stream views and a table, from an event log: the same bits in the same order, types and columns."""
    entities = past.labels(every=3)
    plan = plan_training_set(past.spec, "fraud_detection", entities)
    write_training_set(plan, tmp_path / "local.parquet", history=EventLogHistory(past.event_log), repo_path=past.repo)
    request = SparkRequest(past.spec, "fraud_detection", SparkEventLog(past.event_log), {}, repo_path=past.repo)

    written = write_spark_file(spark, request, entities, tmp_path / "spark.parquet")

    expected, actual = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("local", "spark"))
    assert (entities.num_rows, len(plan.names)) == (written.rows, written.features)
    assert len(plan.names) > 60
    assert expected.schema.equals(actual.schema)
    assert {} == differing(expected, actual)
    assert expected["card_count_7d"].null_count == 2
    assert ["local.parquet", "spark.parquet"] == sorted(path.name for path in tmp_path.iterdir())


def test_a_log_is_read_as_it_was(spark: SparkSession, past: Past) -> None:
    """Events that had not been ingested by a moment are not there: the row's count is that of the local engine."""
    entities = past.labels(every=40).select(["card_id", "event_timestamp"])
    middle = past.events.num_rows // 2
    wanted = ["card_activity:card_count_7d"]
    local = EventLogHistory(past.event_log, ingested_before_ms=middle)
    expected = build_training_set(past.spec, wanted, entities, history=local)
    everything = build_training_set(past.spec, wanted, entities, history=EventLogHistory(past.event_log))
    numbered = entities.append_column("n", pa.array(range(entities.num_rows)))

    history = SparkEventLog(f"{past.event_log}/", ingested_before_ms=middle)
    found = spark_training_set(spark, past.spec, wanted, spark.createDataFrame(numbered), history=history)

    actual = found.toArrow().sort_by("n")
    assert expected["card_count_7d"].equals(actual["card_count_7d"])
    assert not everything["card_count_7d"].equals(actual["card_count_7d"])


def test_a_log_is_read_at_one_version(spark: SparkSession, tmp_path: Path) -> None:
    """What is merged and dropped after it was first asked for changes nothing, and what is committed is not there."""
    write_commits(tmp_path / PAYMENTS.name, [30, 40, 80])
    history, reach = SparkEventLog(tmp_path), LabelReach(0, EVENT_TIME_MS_MAX)
    history.rows(spark, PAYMENTS, ["card"], reach)
    log = EventLog(tmp_path / PAYMENTS.name)
    place = place_of(tmp_path / PAYMENTS.name)
    write_commits(tmp_path / PAYMENTS.name, [100])
    assert list(compact(place, CompactionPolicy(is_full=True)))
    assert retain(place, ManualClock(now_ms=BEGIN_MS + 2 * DAY_MS), days=1)

    read = history.rows(spark, PAYMENTS, ["card"], reach)

    rows = [(row["partition"], row["offset"]) for row in read.frame.collect()]
    assert offsets_of(log.scan(["partition", "offset"])) == sorted(rows)
    assert 80 == len(rows)


ROWS = payments(
    ("p1", 0, "c-1", 1, 50, "DE"),
    ("p2", 1_000, "c-1", 2, 150, "SE"),
    ("p3", 1_000, "c-2", 1, 70, None),
    ("p2", 1_000, "c-1", 2, 150, "SE"),
    ("p4", 2_000, "c-1", 1, None, "FI"),
    ("p5", 500, "c-1", 1, 7, "NO"),
    ("p6", 700, None, 1, 7, "NO"),
    ("p4", 2_000, "c-1", 1, 9, "DK"),
)
"""p2 comes twice, p5 is late, p6 is nobody's; p4 comes again with other values, which do not count."""


def test_frames_of_every_kind_of_label_time(spark: SparkSession, tmp_path: Path) -> None:
    """Session zones do not matter; integers stand for texts' shops; each row comes back; files are in their order.

    c-1      0: 50 DE   500: 7 NO   1000: 150 SE   2000: - FI (9 DK)
    """
    (tmp_path / "a b%").mkdir()
    for number, begin in enumerate(range(0, ROWS.num_rows, 3)):
        pq.write_table(ROWS.slice(begin, 3), tmp_path / "a b%" / f"{number}.parquet")
    moments = ["2026-01-01T12:00:02.001Z", "2026-01-01T13:00:01.001+01:00", None, "2026-01-01", "2026-01-01T12:00:05"]
    labels = pa.table(
        {
            "note": ["x", "y", "z", "x", "null key"],
            "paid": moments,
            "card": ["c-1", "c-1", "c-1", "c-9", None],
            "shop": pa.array([1.0, 2.0, 1.0, None, 1.0]),
        }
    )
    repo = repo_of(CARD, PAIR)
    expected = build_training_set(repo, "all", labels, history=FileHistory(ROWS), timestamp_column="paid")
    spark.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    try:
        found = spark_training_set(
            spark,
            repo,
            "all",
            spark.createDataFrame(labels.to_pylist(), "note string, paid string, card string, shop double"),
            history=SparkFiles({"payments": tmp_path / "a b%"}),
            timestamp_column="paid",
        ).toArrow()
    finally:
        spark.conf.set("spark.sql.session.timeZone", "UTC")

    assert expected.column_names == found.column_names
    assert sorted(map(repr, expected.to_pylist())) == sorted(map(repr, found.to_pylist()))
    assert [4, 3, None, 0, None] == expected["count_1h"].to_pylist()
    assert "FI" == expected["market_last"][0].as_py()


def test_a_bucket_puts_its_events_in_order_of_arrival() -> None:
    """A shuffle may turn them round: of two records of one id and one moment, the one that arrived first counts."""
    labels = pa.table({"card": ["c-1"], "event_timestamp": [NOON_MS + 2_001]})
    plan = plan_training_set(repo_of(CARD), "all", labels)
    expected = build_training_set(repo_of(CARD), "all", labels, history=FileHistory(ROWS))
    reach = reach_of(CARD, NOON_MS + 2_001, NOON_MS + 2_001)
    bucket = Bucket(plan.views[0], LabelMoments("event_timestamp", None), reach, None, ("file", "row"), expected.schema)
    count = ROWS.num_rows
    rows = ROWS.append_column("file", pa.array([number // 3 for number in range(count)]))
    rows = rows.append_column("row", pa.array([number % 3 for number in range(count)]))
    rows, labels = (table.append_column(BUCKET, pa.array([0] * table.num_rows)) for table in (rows, labels))

    answers = bucket.answer(labels, rows.take(pa.array(range(count - 1, -1, -1))))

    assert expected.equals(answers)
    assert ["FI"] == answers["market_last"].to_pylist()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_buckets_have_the_local_engines_values(data: st.DataObject) -> None:
    """Random definitions and streams; events in the order in which a shuffle may leave them; to the last bit."""
    case: StreamCase = data.draw(stream_cases(functions=("count", "sum", "mean", "max", "stddev_pop", "first", "last")))
    events = history_table(case.view, case.events)
    times = sorted({event.event_time_ms + beside for event in case.events for beside in (0, 1)}) or [NOON_MS]
    cards = sorted({card for card in events["card_id"].to_pylist() if card is not None} | {"nobody"})
    asks = data.draw(st.lists(st.tuples(st.sampled_from(cards), st.sampled_from(times)), min_size=1, max_size=12))
    labels = pa.table({"card_id": [card for card, _ in asks], "event_timestamp": [time for _, time in asks]})
    expected = build_training_set(repo_of(case.view), "all", labels, history=FileHistory(events))
    (outputs,) = plan_training_set(repo_of(case.view), "all", labels).views
    bucket = Bucket(
        outputs,
        LabelMoments("event_timestamp", None),
        reach_of(case.view, min(time for _, time in asks), max(time for _, time in asks)),
        None,
        ("arrival",),
        expected.schema,
    )
    shuffled = events.append_column("arrival", pa.array(range(events.num_rows)))
    shuffled = shuffled.take(pa.array(data.draw(st.permutations(range(events.num_rows))), pa.int64()))

    for number in range(2):
        mine = [row for row, (card, _) in enumerate(asks) if cards.index(card) % 2 == number]
        theirs = [row for row, card in enumerate(shuffled["card_id"].to_pylist()) if card in cards[number::2]]
        answers = bucket.answer(
            *(
                table.take(pa.array(rows, pa.int64())).append_column(BUCKET, pa.array([number] * len(rows), pa.int64()))
                for table, rows in ((labels, mine), (shuffled, theirs))
            )
        )
        assert {} == differing(expected.take(pa.array(mine, pa.int64())), answers)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_buckets_count_events_in_flight_and_rows_are_computed_behind_them(data: st.DataObject) -> None:
    """Label rows that are events, and SQL over features and the request: the local engine's values, to the last bit."""
    case: StreamCase = data.draw(stream_cases(functions=("count", "sum", "mean", "max", "last")))
    if not case.events:
        return
    rows = data.draw(st.lists(st.sampled_from(case.events), min_size=1, max_size=8))
    repo = repo_with(case.view, checks_of(case.view))
    labels = with_requests(history_table(case.view, rows), [data.draw(requests) for _ in rows])
    history, time_column = history_table(case.view, case.events), case.view.source.event_time_column
    expected = build_training_set(
        *(repo, "all", labels),
        history=FileHistory(history),
        timestamp_column=time_column,
        event_sources=[case.view.source.name],
    )
    plan = plan_training_set(repo, "all", labels, timestamp_column=time_column, event_sources=[case.view.source.name])
    (outputs,) = plan.views
    stored = [(column.name, ARROW_TYPES[column.type]) for column in outputs.columns]
    schema = pa.schema([*labels.schema, *stored])
    moments = LabelMoments(time_column, None, plan.labels.event_sources, tuple(labels.column_names))
    times = [event.event_time_ms for event in rows]
    bucket = Bucket(outputs, moments, reach_of(case.view, min(times), max(times)), None, (), schema)
    answers = bucket.answer(
        *(table.append_column(BUCKET, pa.array([0] * table.num_rows, pa.int64())) for table in (labels, history))
    )
    computed = [(one.column.name, ARROW_TYPES[one.column.type]) for one in plan.on_demand]
    stage = OnDemandStage(tuple(map(OnDemandColumn.of, plan.on_demand)), pa.schema([*schema, *computed]))
    stage = pickle.loads(pickle.dumps(stage))
    found = pa.Table.from_batches(stage.answer(answers.combine_chunks().to_batches()), stage.schema)

    assert {} == differing(expected, found.select(expected.column_names))


def test_events_in_flight_and_request_time_features_are_those_of_the_local_engine(
    spark: SparkSession, past: Past, tmp_path: Path
) -> None:
    """Spark itself: the labels are transactions, with an amount that the request says otherwise."""
    rows = past.events.take(pa.array(range(0, past.events.num_rows, 60)))
    view = past.spec.view("card_activity")
    assert view is not None
    count = next(one for one in view.answers if one.name == "card_count_7d")
    read = OnDemandInput(count.name, view.name, count.name, count.type)
    share = ComputedColumn("share", ValueType.FLOAT64, "asked / card_count_7d")
    asked = Column("asked", ValueType.FLOAT64)
    checks = OnDemandViewSpec("checks", view.join_keys, (read,), (asked,), (share,))
    repo = replace(past.spec, on_demand_views=(*past.spec.on_demand_views, checks))
    labels = rows.append_column("asked", pa.array([float(number) for number in range(rows.num_rows)]))
    wanted = ["checks:share", "card_activity:card_count_1d"]
    time_column, sources = view.source.event_time_column, (view.source.name,)
    plan = plan_training_set(repo, wanted, labels, timestamp_column=time_column, event_sources=sources)
    write_training_set(plan, tmp_path / "local.parquet", history=EventLogHistory(past.event_log))
    request = SparkRequest(repo, wanted, SparkEventLog(past.event_log), {}, time_column, event_sources=sources)

    write_spark_file(spark, request, labels, tmp_path / "spark.parquet")

    expected, actual = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("local", "spark"))
    assert expected.schema.equals(actual.schema)
    assert {} == differing(expected, actual)
    assert min(expected["card_count_1d"].to_pylist()) == 1, "each counts its own"


def test_the_command_writes_what_it_writes_without_spark(
    past: Past, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A CSV of labels becomes the same file; a directory of labels becomes a directory with the same rows."""
    labels = tmp_path / "labels.csv"
    labels.write_text("card_id,event_timestamp,is_fraud\n007,2026-09-23T12:00:00Z,0\n,2026-09-23T12:00:00Z,1\n")
    (tmp_path / "labels").mkdir()
    pq.write_table(past.labels(every=50).drop_columns(["at_ns"]), tmp_path / "labels" / "0.parquet")
    words = ["history", "--repo", str(past.repo), "--feature", "card_activity:card_count_1d"]
    engine = ["--engine", "spark", "--spark-master", "local[2]"]
    engine += [f"--spark-conf={name}={value}" for name, value in SETTINGS.items()]

    assert 0 == main([*words, "--entities", str(labels), "--out", str(tmp_path / "local.parquet")])
    assert 0 == main([*words, "--entities", str(labels), "--out", str(tmp_path / "spark.parquet"), *engine])
    assert "spark.parquet: 2 rows, 1 features" in capsys.readouterr().out
    assert pq.read_table(tmp_path / "local.parquet").equals(pq.read_table(tmp_path / "spark.parquet"))

    assert 0 == main([*words, "--entities", str(tmp_path / "labels"), "--out", f"{tmp_path}/written/", *engine])
    assert 0 == main([*words, "--entities", str(tmp_path / "labels"), "--out", str(tmp_path / "all.parquet")])
    expected, actual = pq.read_table(tmp_path / "all.parquet"), pq.read_table(tmp_path / "written")
    assert expected.column_names == actual.column_names
    assert expected.sort_by("row number")["card_count_1d"].equals(actual.sort_by("row number")["card_count_1d"])


def test_a_session_that_a_definition_file_began_is_ended(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Feast begins one where it meets a view of mode="spark": its workers run another interpreter, without us."""
    spark.stop()
    monkeypatch.delenv("PYSPARK_PYTHON")
    theirs = SparkSession.Builder().master("local[1]").appName("of a definition file").getOrCreate()
    assert sys.executable != theirs.sparkContext.pythonExec

    ours = open_session("local[2]", SETTINGS)

    assert ("local[2]", sys.executable) == (ours.sparkContext.master, ours.sparkContext.pythonExec)
    assert ours is open_session("local[2]", SETTINGS)


def test_what_cannot_be_is_said(
    spark: SparkSession, past: Past, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Errors of executors are ours again, with their hints; what Spark cannot read names its remedy."""
    labels = pa.table({"card": ["c-1"], "event_timestamp": ["yesterday"]})
    pq.write_table(ROWS, tmp_path / "events.parquet")
    pq.write_table(ROWS.set_column(1, "paid_at", ROWS["paid_at"].cast(pa.timestamp("ns"))), tmp_path / "finer.parquet")
    finer = spark_request(tmp_path / "finer.parquet")

    with pytest.raises(InvalidRequest, match='is "yesterday", which is no time') as caught:
        write_spark_file(spark, spark_request(tmp_path / "events.parquet"), labels, tmp_path / "out.parquet")
    assert "write ISO 8601" in caught.value.hint
    labels = pa.table({"card": ["c-1"], "event_timestamp": ["2026-01-01"]})
    with pytest.raises(InvalidRequest, match="nanoseconds"):
        write_spark_file(spark, finer, labels, tmp_path / "out.parquet")
    with pytest.raises(InvalidRequest, match="Spark cannot do this"):
        write_spark_directory(spark, spark_request(tmp_path / "nothing"), labels, str(tmp_path / "out"))
    frame = spark.createDataFrame([(1, 0)], "card bigint, event_timestamp bigint")
    with pytest.raises(InvalidRequest, match='"card" is of type int64, not string'):
        spark_training_set(spark, repo_of(CARD), "all", frame, history=SparkFiles(tmp_path / "events.parquet"))
    everybody = PlainViewSpec("mood", (), (Column("mood", ValueType.INT64),), None, None)
    with pytest.raises(InvalidRequest, match='feature view "mood" has no entities'):
        spark_training_set(
            spark,
            RepoSpec("test", (), (everybody,), ()),
            ["mood:mood"],
            frame,
            history=SparkFiles(tmp_path / "events.parquet"),
            plain={"mood": PlainHistory(str(tmp_path / "events.parquet"), "paid_at")},
        )
    words = ["history", "--repo", str(past.repo), "--feature", "card_activity:card_count_1d", "--engine", "spark"]
    (tmp_path / "labels").mkdir()
    words += ["--entities", str(tmp_path / "labels"), "--out", str(tmp_path / "out.parquet")]
    assert 2 == main(words)
    assert "have no order" in capsys.readouterr().err
    assert [] == list(tmp_path.glob("out*"))


def test_a_place_that_takes_no_file_is_named_and_left_as_it_was(spark: SparkSession, tmp_path: Path) -> None:
    """A directory before Spark has computed anything, which may take hours; a full disk when it is full."""
    pq.write_table(ROWS, tmp_path / "events.parquet")
    labels = pa.table({"card": ["c-1"], "event_timestamp": ["2026-01-01"], "note": [os.urandom(100_000)]})
    (tmp_path / "taken").mkdir()

    with pytest.raises(InvalidRequest, match='taken" cannot be written: Is a directory'):
        write_spark_file(spark, spark_request(tmp_path / "nothing"), labels, tmp_path / "taken")
    with files_of_at_most(64 * 1024), pytest.raises(Unavailable, match=r'out\.parquet" cannot be written'):
        write_spark_file(spark, spark_request(tmp_path / "events.parquet"), labels, tmp_path / "out.parquet")
    assert ["events.parquet", "taken"] == sorted(path.name for path in tmp_path.iterdir())


def spark_request(path: Path) -> SparkRequest:
    """All of CARD over some files."""
    return SparkRequest(repo_of(CARD), "all", SparkFiles(path), {})
