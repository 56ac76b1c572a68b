"""Labels as they were known at a moment: beside an oracle that looks at one row after another, and as typed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.cli.main import main
from featurestore.core.spec import LabelSourceSpec, OnConflict, RepoSpec, TableSpec
from featurestore.errors import InvalidRequest
from featurestore.offline.labels import LABELS_KEY, LabelCounts, labelled
from featurestore.wire.entity_key import encode_key, fingerprint

BASE_MS = 1_767_225_600_000
COLUMNS = ("card", "number", "at", "known", "is_fraud", "loss")
Row = tuple[str | None, int | None, int | None, int | None, bool | None, int | None]

few = st.integers(0, 3)
rows = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "b", None]),
        st.sampled_from([1, 2, 2, None]),
        st.none() | few,
        st.none() | st.integers(0, 12),  # halves of a millisecond
        st.none() | st.booleans(),
        st.none() | few,
    ),
    max_size=12,
)


def source_of(path: Path, rule: str = "last", matures_ms: int = 0) -> RepoSpec:
    """A repo of one source of labels."""
    table = TableSpec("frauds", "file", str(path), "parquet", "at", "known", ())
    spec = LabelSourceSpec("frauds", ("card", "number"), ("is_fraud", "loss"), matures_ms, OnConflict(rule), table)
    return RepoSpec("test", (), (), (), label_sources=(spec,))


def write(path: Path, drawn: Sequence[Row]) -> None:
    """The rows as a file; times in microseconds."""
    columns = [list(column) for column in zip(*drawn, strict=True)] or [[] for _ in COLUMNS]
    columns[2] = [None if at is None else (BASE_MS + at) * 1_000 for at in columns[2]]
    columns[3] = [None if at is None else BASE_MS * 1_000 + at * 500 for at in columns[3]]
    kinds = [pa.string(), pa.int64(), pa.timestamp("us", "UTC"), pa.timestamp("us", "UTC"), pa.bool_(), pa.int64()]
    arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    pq.write_table(pa.table(arrays, names=list(COLUMNS)), path)


def naive(drawn: Sequence[Row], now: int, matures: int, rule: str, immature: str) -> tuple[list[Any], dict[str, int]]:
    """Rows and counts, or the events that are refused as the only row."""
    named = [row for row in drawn if None not in row[:4]]
    known: list[Any] = [row for row in named if row[3] <= 2 * now and row[2] <= now]  # type: ignore[operator]  # no None
    events = sorted({(row[2], row[0], row[1]) for row in known})
    young = [event for event in events if event[0] + matures > now]
    kept = [event for event in events if immature == "mark" or event not in young]
    found, conflicting, refused = [], 0, False
    for event in kept:
        labels, differs = [], False
        for at, negative in ((4, False), (5, 0)):
            mine = [row for row in known if (row[2], row[0], row[1]) == event and row[at] is not None]
            said = sorted((row[3], row[at]) for row in mine)
            values = {value for _, value in said}
            differs |= len(values) > 1
            newest = {value for moment, value in said if moment == said[-1][0]}
            refused |= (len(values) > 1 and rule == "refuse") or (len(newest) > 1 and rule == "last")
            nothing = None if event in young else negative
            labels.append(nothing if not said else max(values) if rule == "any_positive" else said[-1][1])
        conflicting += differs
        found.append((event[1], event[2], event[0], *labels, event not in young))
    counts = {"read": len(drawn), "unnamed": len(drawn) - len(named), "unknown": len(named) - len(known)}
    counts |= {"immature": len(young), "conflicting": conflicting, "given": len(kept)}
    return (["refused"] if refused else found), counts


@settings(deadline=None, max_examples=150)
@given(
    drawn=rows,
    now=st.integers(0, 6),
    matures=few,
    rule=st.sampled_from(list(OnConflict)),
    immature=st.sampled_from(["drop", "mark"]),
)
def test_labels_are_those_that_a_look_at_each_row_finds(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[Row], now: int, matures: int, rule: str, immature: Any
) -> None:
    """What was known, what was mature, and what counts of several labels; the order of the file does not matter."""
    path = tmp_path_factory.getbasetemp() / "labels.parquet"
    write(path, drawn)
    repo = source_of(path, rule, matures)
    expected, counts = naive(drawn, now, matures, rule, immature)
    if expected == ["refused"]:
        with pytest.raises(InvalidRequest, match="contradict each other"):
            labelled(repo, "frauds", as_of_ms=BASE_MS + now, immature=immature)
        return
    found = labelled(repo, "frauds", as_of_ms=BASE_MS + now, immature=immature)
    times = [at // 1_000 - BASE_MS for at in found.table["at"].cast(pa.int64()).to_pylist()]
    columns = [found.table[name].to_pylist() for name in ("card", "number", "is_fraud", "loss", "label_is_mature")]
    assert list(zip(*columns[:2], times, *columns[2:], strict=True)) == expected
    assert found.counts == LabelCounts("frauds", BASE_MS + now, **counts)


def test_what_is_refused_names_entity_time_and_remedy(tmp_path: Path) -> None:
    """The entity by its fingerprint: messages go where keys must not."""
    path = tmp_path / "labels.parquet"
    write(path, [("c-17", 5, 0, 0, True, 1), ("c-17", 5, 0, 1, False, 1)])
    with pytest.raises(InvalidRequest) as raised:
        labelled(source_of(path, "refuse"), "frauds")
    text = f"{raised.value} {raised.value.hint}"
    assert f'"is_fraud" of entity {fingerprint(encode_key(["c-17", 5]))} at 2026-01-01T00:00:00.000Z' in text
    assert 'write on_conflict="last"' in text
    assert "c-17" not in text


REPO = """
from feast import Entity, FeatureService, ValueType

from featurestore.features import count, kafka_source, label_source, stream_view

card = Entity(name="card", join_keys=["card"], value_type=ValueType.STRING)
payments = kafka_source(
    name="payments",
    topic="payments",
    columns={"payment_id": "string", "paid_at": "timestamp", "card": "string"},
    event_time="paid_at",
    event_id="payment_id",
)
activity = stream_view(name="activity", entities=[card], source=payments, features=[*count(over="1d")])
scoring = FeatureService(name="scoring", features=[activity])
frauds = label_source(
    name="frauds",
    path="data/frauds.parquet",
    join_keys=["payment_id", "card"],
    labels="is_fraud",
    timestamp_field="paid_at",
    known_at="reported_at",
    matures_after="60d",
    owner="risk@example.com",
)
"""
YAML = """
project: payments
provider: local
registry: data/registry.db
offline_store: {type: file}
online_store: {type: sqlite, path: data/online.db}
entity_key_serialization_version: 3
"""


def test_a_training_set_has_the_labels_that_were_known_and_mature(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From `plan` with a mistake, over `apply` and `describe`, to the file and its metadata."""
    monkeypatch.chdir(tmp_path)
    repo = tmp_path / "repo"
    (repo / "data").mkdir(parents=True)
    (repo / "feature_store.yaml").write_text(YAML)
    wrong = REPO.replace('"60d"', '"soon"').replace('labels="is_fraud"', 'labels="card"')
    (repo / "definitions.py").write_text(wrong)
    assert main(["plan", "--repo", "repo"]) == 1
    said = " ".join("".join(capsys.readouterr()).split())
    assert 'source "frauds": tag "label_matures_after": "soon" is not a duration' in said
    assert 'source "frauds": column "card" is named 2 times' in said
    (repo / "definitions.py").write_text(REPO)
    assert main(["apply", "--repo", "repo"]) == 0

    january = datetime(2026, 1, 1, tzinfo=UTC)
    days = [timedelta(days=day) for day in (0, 0, 1, 40)]
    known = [timedelta(days=day) for day in (0, 30, 1, 41)]
    rows = {
        "payment_id": ["p-0", "p-0", "p-1", "p-2"],
        "card": ["a", "a", "a", "a"],
        "paid_at": [january + day for day in days],
        "reported_at": [january + day for day in known],
        "is_fraud": [None, True, None, True],
    }
    pq.write_table(pa.table(rows), repo / "data" / "frauds.parquet")
    pq.write_table(pa.table({name: rows[name] for name in ("payment_id", "card", "paid_at")}), "events.parquet")
    asked = ["history", "--repo", "repo", "--service", "scoring", "--labels", "frauds", "--event-log", "events.parquet"]
    asked += ["--labels-as-of", "2026-03-10T00:00:00Z", "--out"]
    capsys.readouterr()
    assert main([*asked, "train.parquet"]) == 0
    said = capsys.readouterr().err
    assert "2 events of 4 rows; 1 events not mature (60d) left out, 0 rows not known yet" in said
    table = pq.read_table("train.parquet")
    assert table.drop_columns(["paid_at"]).to_pydict() == {
        "payment_id": ["p-0", "p-1"],
        "card": ["a", "a"],
        "is_fraud": [True, False],
        "label_is_mature": [True, True],
        "count_1d": [0, 1],
    }
    kept = json.loads(table.schema.metadata[LABELS_KEY])
    assert (kept["source"], kept["immature"], kept["given"]) == ("frauds", 1, 2)
    assert main([*asked, "marked.parquet", "--immature", "mark"]) == 0
    assert pq.read_table("marked.parquet")["label_is_mature"].to_pylist() == [True, True, False]
    capsys.readouterr()
    assert main(["describe", "frauds", "--repo", "repo"]) == 0
    assert "60 days" in capsys.readouterr().out
    assert main([*asked, "repo/data/frauds.parquet"]) != 0
    assert "would be written over" in capsys.readouterr().err
    assert main([*asked, "x.parquet", "--entities", "events.parquet"]) != 0
    assert "give --entities, or --labels" in capsys.readouterr().err
