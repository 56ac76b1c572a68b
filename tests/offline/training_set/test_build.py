"""Training sets: values, keys, order, and that neither memory nor a killed process shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.core.spec import FeatureReference, PinnedView, ServiceSpec, SourceSpec, Window
from featurestore.errors import InvalidRequest, Unavailable, UnknownFeatureService, UnknownJoinKey
from featurestore.offline.training_set.build import TrainingSetProgress, build_training_set, write_training_set
from featurestore.offline.training_set.histories import FileHistory
from featurestore.offline.training_set.plan import plan_training_set
from featurestore.testing.oracle.naive import NaiveEvent, naive_value
from featurestore.testing.oracle.tolerance import agrees, magnitude
from featurestore.testing.strategies import ANCHOR_MS, DAY_MS, StreamCase, stream_cases
from featurestore.wire.entity_key import decode_key, encode_key
from tests.core.test_tiles_against_naive import distinct
from tests.offline.training_set.label_tables import CARD, HOUR_MS, NOON_MS, PAIR, history_table, payments, repo_of

FUNCTIONS = ("count", "sum", "mean", "min", "max", "stddev_pop", "first", "last", "count_distinct", "top_k(3)")


def labels_of(*rows: tuple[str | None, int | None, int | None]) -> pa.Table:
    """Card, shop, milliseconds after noon."""
    cards, shops, times = zip(*rows, strict=True)
    moments = [None if at is None else NOON_MS + at for at in times]
    return pa.table(
        {
            "note": pa.array([f"row {index}" for index in range(len(rows))]),
            "event_timestamp": pa.array(moments, pa.timestamp("ms", tz="UTC")),
            "shop": pa.array(shops, pa.int64()),
            "card": pa.array(cards, pa.string()),
        }
    )


HISTORY = payments(
    ("p1", 0, "c-1", 1, 50, "DE"),
    ("p2", 1_000, "c-1", 2, 150, "SE"),
    ("p3", 1_000, "c-2", 1, 70, None),
    ("p2", 1_000, "c-1", 2, 150, "SE"),
    ("p4", 2_000, "c-1", 1, None, "FI"),
    ("p5", 500, "c-1", 1, 7, "NO"),
    ("p6", 700, None, 1, 7, "NO"),
)
"""p2 comes twice, p5 is late, p6 is nobody's."""

CARD_EVENTS = [
    NaiveEvent(b"c-1", NOON_MS + at, name.encode(), {})
    for name, at in (("p1", 0), ("p2", 1_000), ("p4", 2_000), ("p5", 500))
]
"""Those of card c-1."""


def test_each_row_sees_what_was_before_it() -> None:
    """Half-open, late events and repeats counted once; the input's rows, order and columns stay.

    c-1      0: 50 DE   500: 7 NO   1000: 150 SE   2000: - FI
    asked       1           1000|1001        2001
    """
    labels = labels_of(("c-1", 1, 2_001), ("c-1", 1, 1_000), ("c-1", 1, 1_001), ("c-2", 1, 2_000), ("c-1", 1, 0))
    found = build_training_set(repo_of(CARD), "all", labels, history=FileHistory(HISTORY))

    assert [*labels.column_names, "count_1h", "amount_1h", "market_last", "large_1h"] == found.column_names
    assert labels.equals(found.select(labels.column_names))
    assert [4, 2, 3, 1, 0] == found["count_1h"].to_pylist()
    assert [207, 57, 207, 70, 0] == found["amount_1h"].to_pylist()
    assert ["FI", "NO", "SE", None, None] == found["market_last"].to_pylist()
    assert [1, 0, 1, 0, 0] == found["large_1h"].to_pylist()


def test_a_pinned_version_is_computed_beside_the_newest() -> None:
    """Out of the same events, each by its own definition."""
    shorter = replace(CARD.features[0], window=Window(400, 1))
    version = replace(CARD, name="card@v0", features=(shorter, *CARD.features[1:]))
    names = ("card@v0", CARD.name)
    references = tuple(FeatureReference(name, "count_1h", f"{name}__count_1h") for name in names)
    repo = replace(
        repo_of(CARD),
        services=(ServiceSpec("both", references, CARD.join_keys),),
        pinned=(PinnedView(version, ("both",)),),
    )
    found = build_training_set(repo, "both", labels_of(("c-1", 1, 1_001)), history=FileHistory(HISTORY))

    expected = [naive_value(each, CARD_EVENTS, NOON_MS + 1_001) for each in (shorter, CARD.features[0])]
    assert [[value] for value in expected] == [found[f"{name}__count_1h"].to_pylist() for name in names]
    assert expected[0] != expected[1]


def test_rows_without_key_or_time_are_null_and_unknown_entities_are_as_online() -> None:
    """Nothing vanishes: null keys and times have nulls, an entity without events counts 0."""
    labels = labels_of((None, 1, 5_000), ("c-9", 1, 5_000), ("c-1", 1, None), ("c-2", None, 5_000))
    found = build_training_set(repo_of(CARD, PAIR), "all", labels, history=FileHistory(HISTORY))

    assert [None, 0, None, 1] == found["count_1h"].to_pylist()
    assert [None, 0, None, None] == found["pair_count"].to_pylist()
    assert [None, None, None, None] == found["market_last"].to_pylist()


def test_several_join_keys_are_one_entity() -> None:
    """(c-1, 1) and (c-1, 2) are different entities, and (c-2, 2) has no events."""
    labels = labels_of(("c-1", 1, 5_000), ("c-1", 2, 5_000), ("c-2", 2, 5_000), ("c-2", 1, 5_000))
    found = build_training_set(repo_of(PAIR), ["pair:pair_count"], labels, history=FileHistory(HISTORY))

    assert [3, 1, 0, 1] == found["pair_count"].to_pylist()


def test_one_moment_for_all_rows_needs_no_label_times() -> None:
    """Entities given without times are all asked at the given moment."""
    entities = pa.table({"card": ["c-1", "c-2"]})
    found = build_training_set(
        repo_of(CARD), ["card:count_1h"], entities, history=FileHistory(HISTORY), at_ms=NOON_MS + 1_000
    )

    assert [2, 0] == found["count_1h"].to_pylist()


def test_a_repeat_counts_again_only_beyond_the_horizon_of_the_one_before() -> None:
    """The horizon is an hour: at 0, 50 and 100 minutes it is one payment, at 200 it is another."""
    minutes = (0, 50, 100, 200)
    history = payments(*(("same", minute * 60_000, "c-1", 1, 5, "DE") for minute in minutes))
    labels = labels_of(*(("c-1", 1, minute * 60_000 + 1) for minute in minutes))
    found = build_training_set(repo_of(PAIR), "all", labels, history=FileHistory(history))

    assert [1, 1, 1, 2] == found["pair_count"].to_pylist()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_training_sets_have_the_oracles_values_whatever_the_memory(data: st.DataObject, tmp_path: Path) -> None:
    """Ties, late events, repeats, nulls; with the events in memory and with all of them in files."""
    case: StreamCase = data.draw(stream_cases(functions=FUNCTIONS))
    times = {event.event_time_ms + beside for event in case.events for beside in (0, 1)} | {ANCHOR_MS}
    keys = sorted({event.key for event in case.events} | {encode_key(["nobody"])})
    asks = data.draw(st.lists(st.tuples(st.sampled_from(keys), st.sampled_from(sorted(times))), max_size=12))
    entities = pa.table(
        {
            "card_id": pa.array([decode_key(key, case.view.join_keys)[0] for key, _ in asks], pa.string()),
            "event_timestamp": pa.array([time_ms for _, time_ms in asks], pa.int64()),
        }
    )
    history = FileHistory(history_table(case.view, case.events))
    answers = [
        build_training_set(repo_of(case.view), "all", entities, history=history, memory_bytes=memory_bytes)
        for memory_bytes in (1 << 30, 1)
    ]

    assert answers[0].equals(answers[1]) or repr(answers[0].to_pylist()) == repr(answers[1].to_pylist())
    for feature in case.view.features:
        for (key, as_of_ms), actual in zip(asks, answers[0][feature.name].to_pylist(), strict=True):
            mine = distinct([event for event in case.events if event.key == key])
            expected = naive_value(feature, mine, as_of_ms)
            actual = plain(actual)
            assert agrees(expected, actual, scale=magnitude(feature, mine, as_of_ms)), (feature, expected, actual)


def plain(value: object) -> object:
    """An Arrow value as the oracle gives it: flags and moments are integers."""
    if isinstance(value, bool):
        return int(value)
    timestamp = getattr(value, "timestamp", None)
    return value if timestamp is None else round(timestamp() * 1_000)


def many_payments(count: int, seed: int) -> pa.Table:
    """Random payments of 40 cards within two days, in no order."""
    draw = np.random.default_rng(seed)
    cards = draw.integers(0, 40, count)
    return pa.table(
        {
            "payment_id": pa.array([f"p{number}" for number in range(count)]),
            "paid_at": pa.array(NOON_MS + draw.integers(0, 2 * DAY_MS, count), pa.timestamp("ms", tz="UTC")),
            "card": pa.array([f"c-{card}" for card in cards]),
            "shop": pa.array(cards % 7),
            "amount": pa.array(draw.integers(1, 300, count)),
            "market": pa.array(draw.choice(["DE", "SE", "FI"], count)),
        }
    )


def labels_like(history: pa.Table) -> pa.Table:
    """Every payment is a label."""
    return history.select(["card", "shop"]).append_column("event_timestamp", history["paid_at"])


def test_nothing_at_or_after_a_moment_changes_its_row() -> None:
    """Events at the label time and later are added in great number: not one value differs."""
    history = many_payments(2_000, seed=1)
    labels = labels_like(history).slice(0, 1)
    moment_ms = history["paid_at"].cast(pa.int64())[0].as_py()
    later = many_payments(2_000, seed=2)
    times = pa.array([moment_ms + number // 2 for number in range(2_000)], pa.timestamp("ms", tz="UTC"))
    leak = later.set_column(0, "payment_id", pa.array([f"q{n}" for n in range(2_000)])).set_column(1, "paid_at", times)
    repo = repo_of(CARD, PAIR)

    before = build_training_set(repo, "all", labels, history=FileHistory(history))
    after = build_training_set(repo, "all", labels, history=FileHistory(pa.concat_tables([leak, history])))

    assert before["count_1h"][0].as_py() > 0 or before["pair_count"][0].as_py() > 0
    assert before.equals(after)


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    """Finished parts are found again: the second run reads nothing and computes only what was missing."""
    history = many_payments(3_000, seed=3)
    labels, repo, work_dir = labels_like(history), repo_of(CARD), tmp_path / "work"
    pq.write_table(history, tmp_path / "history.parquet")
    steps: list[TrainingSetProgress] = []

    class Killed(BaseException):
        """As a signal would."""

    def die_midway(step: TrainingSetProgress) -> None:
        if step.step == "computing" and step.done > step.total // 2:
            raise Killed

    def run(report: Callable[[TrainingSetProgress], None]) -> pa.Table:
        return build_training_set(
            repo,
            "all",
            labels,
            history=FileHistory(tmp_path / "history.parquet"),
            work_dir=work_dir,
            progress=report,
        )

    with pytest.raises(Killed):
        run(die_midway)
    finished = sorted(path.name for path in work_dir.glob("*/*/card/answers-*.arrow"))
    ages = {path.name: path.stat().st_mtime_ns for path in work_dir.glob("*/*/card/answers-*.arrow")}
    resumed = run(steps.append)

    assert finished
    assert ages.keys() == set(finished)
    assert not [step for step in steps if step.step == "reading"]
    assert build_training_set(repo, "all", labels, history=FileHistory(history)).equals(resumed)
    assert not list(work_dir.iterdir())


def test_a_changed_history_is_not_mixed_with_finished_work(tmp_path: Path) -> None:
    """Parts of a run over other events are of no use, and are not used."""
    path, repo, work_dir = tmp_path / "history.parquet", repo_of(PAIR), tmp_path / "work"
    labels = labels_of(("c-1", 1, 5_000))
    found = []
    for rows in (HISTORY.slice(0, 1), HISTORY):
        pq.write_table(rows, path)
        plan = plan_training_set(repo, "all", labels)
        with pytest.raises(Unavailable):
            write_training_set(plan, tmp_path / "out.parquet", history=Broken(path), work_dir=work_dir)
        write_training_set(plan, tmp_path / "out.parquet", history=FileHistory(path), work_dir=work_dir)
        found.append(pq.read_table(tmp_path / "out.parquet")["pair_count"].to_pylist())

    assert [[1], [3]] == found


class Broken(FileHistory):
    """A history that fails when it is read."""

    def scan(self, source: SourceSpec, columns: Sequence[str], *, from_ms: int, to_ms: int) -> Iterator[pa.RecordBatch]:
        """Fail."""
        raise Unavailable("the disk is gone")


def test_the_file_holds_the_table(tmp_path: Path) -> None:
    """What is written is what is built, and nothing unfinished stays."""
    history = many_payments(500, seed=4)
    labels, repo = labels_like(history), repo_of(CARD, PAIR)
    plan = plan_training_set(repo, "all", labels, full_names=True)

    rows = write_training_set(plan, tmp_path / "train.parquet", history=FileHistory(history))

    built = build_training_set(repo, "all", labels, history=FileHistory(history), full_names=True)
    assert 500 == rows
    assert built.equals(pq.read_table(tmp_path / "train.parquet"))
    assert "card__count_1h" in built.column_names
    assert ["train.parquet"] == [path.name for path in tmp_path.iterdir()]


def test_wrong_requests_are_refused_by_name() -> None:
    """Each message names what is missing and what is near it."""
    labels, history, repo = labels_of(("c-1", 1, 0)), FileHistory(HISTORY), repo_of(CARD)
    with pytest.raises(UnknownFeatureService, match='"al" is not registered'):
        build_training_set(repo, "al", labels, history=history)
    with pytest.raises(InvalidRequest, match='no feature "count_2h"'):
        build_training_set(repo, ["card:count_2h"], labels, history=history)
    with pytest.raises(UnknownJoinKey, match='no column "card"'):
        build_training_set(repo, "all", labels.drop_columns(["card"]), history=history)
    with pytest.raises(InvalidRequest, match='no column "event_timestamp"'):
        build_training_set(repo, "all", labels.drop_columns(["event_timestamp"]), history=history)
    with pytest.raises(InvalidRequest, match="name of a column of the entities"):
        build_training_set(repo, "all", labels.append_column("count_1h", labels["shop"]), history=history)
    with pytest.raises(InvalidRequest, match='"card" is of type int64, not string'):
        build_training_set(repo, "all", labels.set_column(3, "card", labels["shop"]), history=history)
    with pytest.raises(InvalidRequest, match='no column "amount"'):
        build_training_set(repo, "all", labels, history=FileHistory(HISTORY.drop_columns(["amount"])))


def test_hours_are_hours() -> None:
    """The windows of these tests are an hour long, on minutes."""
    labels = labels_of(("c-1", 1, HOUR_MS), ("c-1", 1, HOUR_MS + 59_999), ("c-1", 1, HOUR_MS + 60_000))
    found = build_training_set(repo_of(CARD), ["card:count_1h"], labels, history=FileHistory(HISTORY))

    assert [4, 4, 0] == found["count_1h"].to_pylist()
