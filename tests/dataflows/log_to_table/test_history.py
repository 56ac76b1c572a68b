"""Training sets from an event log that the flow wrote, beside what the stream has put into the store and the oracle."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from featurestore.cli.main import main
from featurestore.core.spec import RepoSpec
from featurestore.definitions.registry import read_registry
from featurestore.offline.event_log.address import place_of
from featurestore.offline.event_log.upkeep import retain
from featurestore.offline.training_set.build import build_training_set
from featurestore.offline.training_set.histories import EventLogHistory
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.store import connect
from featurestore.testing.clock import ManualClock
from featurestore.testing.oracle.naive import NaiveEvent, naive_values
from featurestore.wire.entity_key import encode_key
from tests.dataflows.conftest import StartStream
from tests.dataflows.payments import PROJECT, TOPIC, Payments, make_payments, stored_values

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
LABELS = 400


@pytest.fixture
def payments(start_stream: StartStream, tmp_path: Path) -> Payments:
    """Six thousand records in an embedded log, and the event log that the flow has made of them in many commits."""
    made = make_payments(6_000, seed=61)
    made.append_to(tmp_path / "events")
    options = ["--log-dir", str(tmp_path / "events"), "--event-log", str(tmp_path / "event_log"), "--until-end"]
    small = ["--batch-records", "400", "--commit-rows", "900", "--commit-seconds", "0.2"]
    flow = start_stream(*options, *small, program=("-m", "dataflows.log_to_table"))
    assert flow.wait() == 0, flow.output
    return made


@pytest.fixture
def repo(registry: Path) -> RepoSpec:
    """The compiled definitions."""
    return read_registry(registry, project=PROJECT)


def test_history_lookups_and_the_oracle_agree(
    start_stream: StartStream, payments: Payments, repo: RepoSpec, registry: Path, redis_url: str, tmp_path: Path
) -> None:
    """Every feature: at any label time as the oracle says, at the newest moment also as the store answers."""
    stream = start_stream("--log-dir", str(tmp_path / "events"), "--until-end")
    assert stream.wait() == 0, stream.output
    labels, newest_ms = labels_of(payments), payments.newest_ms + 1
    asked = {"past": ["--memory", "2GB"], "spilled": ["--memory", "1"], "newest": ["--at", str(newest_ms)]}

    found = {name: history(labels, repo, registry, tmp_path, *options) for name, options in asked.items()}

    assert found["past"].equals(found["spilled"])
    assert labels.equals(found["past"].select(labels.column_names))
    moments = labels["event_timestamp"].cast(pa.int64()).to_pylist()
    assert [] == differences(repo, payments, found["past"], moments)
    assert [] == differences(repo, payments, found["newest"], [newest_ms] * LABELS)
    assert [] == differences_from_store(repo, found["newest"], redis_url, newest_ms)


def test_a_log_cut_by_retention_says_so(
    payments: Payments, repo: RepoSpec, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Labels whose windows lie in what is kept have their values; where something is missing there is a warning."""
    dropped = retain(place_of(str(tmp_path / "event_log" / TOPIC)), ManualClock(now_ms=payments.newest_ms), days=1)
    assert dropped
    labels = labels_of(payments)
    times_ms = labels["event_timestamp"].cast(pa.int64())
    kept_ms = payments.newest_ms // DAY_MS * DAY_MS - DAY_MS
    # An hour of window, its hop, and the hour within which a repeat may lie.
    recent = labels.filter(pc.greater_equal(times_ms, kept_ms + 3 * HOUR_MS))
    log, names = EventLogHistory(tmp_path / "event_log"), ["cards:amount_sum_1h"]

    found = build_training_set(repo, names, recent, history=log, full_names=True)
    assert not caplog.records
    build_training_set(repo, names, labels, history=log)

    assert 50 < recent.num_rows < labels.num_rows
    assert [] == differences(repo, payments, found, recent["event_timestamp"].cast(pa.int64()).to_pylist())
    assert "was cut by retention" in caplog.text


def labels_of(payments: Payments) -> pa.Table:
    """Rows at, beside and between events; keys are missing, unknown, narrower and encoded as a dictionary."""
    draw = random.Random(7)
    cards, merchants = sorted(payments.cards), sorted(payments.merchants)
    rows: list[tuple[str | None, int | None, int]] = []
    for number in range(LABELS):
        card, merchant = draw.choice(cards), draw.choice(merchants)
        near = draw.choice(payments.cards[card] + payments.merchants[merchant]).event_time_ms
        card_id = None if number % 17 == 0 else "nobody" if number % 19 == 0 else card.decode()
        merchant_id = None if number % 13 == 0 else int(merchant)
        rows.append((card_id, merchant_id, near + draw.choice((0, 1, -1, draw.randrange(DAY_MS)))))
    card_ids, merchant_ids, times_ms = zip(*rows, strict=True)
    return pa.table(
        {
            "note": pa.array([f"row {number}" for number in range(LABELS)]),
            "merchant_id": pa.array(merchant_ids, pa.int32()),
            "event_timestamp": pa.array(times_ms, pa.timestamp("ms", tz="Europe/Berlin")),
            "card_id": pa.array(card_ids, pa.string()).dictionary_encode(),
        }
    )


def history(labels: pa.Table, repo: RepoSpec, registry: Path, directory: Path, *options: str) -> pa.Table:
    """What `featurestore history` writes: all features of all views."""
    pq.write_table(labels, directory / "labels.parquet", row_group_size=LABELS // 3)
    words = ["history", "--registry", str(registry), "--project", PROJECT, "--full-names"]
    words += ["--entities", str(directory / "labels.parquet"), "--out", str(directory / "train.parquet")]
    words += ["--events", str(directory / "event_log"), *options]
    for view in repo.views:
        words += [word for answer in view.answers for word in ("--feature", f"{view.name}:{answer.name}")]
    assert main(words) == 0
    return pq.read_table(directory / "train.parquet")


def differences(repo: RepoSpec, payments: Payments, found: pa.Table, moments: list[int]) -> list[object]:
    """Answers of what was asked that are not the oracle's; null keys have nulls."""
    wrong: list[object] = []
    for view in repo.views:
        events: dict[bytes, list[NaiveEvent]] = getattr(payments, view.name)
        keys = found[view.join_keys[0].name].to_pylist()
        names = [one.name for one in view.features if f"{view.name}__{one.name}" in found.column_names]
        columns = {name: found[f"{view.name}__{name}"].to_pylist() for name in names}
        for row, (key, as_of_ms) in enumerate(zip(keys, moments, strict=True)):
            expected = {} if key is None else naive_values(view, events.get(encode_key([key]), []), as_of_ms)
            wrong += [
                (view.name, key, as_of_ms, name, expected.get(name), column[row])
                for name, column in columns.items()
                if expected.get(name) != column[row]
            ]
    return wrong


def differences_from_store(repo: RepoSpec, found: pa.Table, url: str, as_of_ms: int) -> list[object]:
    """Answers that a lookup does not give."""
    store = connect(url)
    serving = {view.name: GenerationCatalog(store, PROJECT).serving(view.name) for view in repo.views}
    store.close()
    wrong: list[object] = []
    for view in repo.views:
        generation = serving[view.name]
        assert generation is not None
        rows = [row for row, key in enumerate(found[view.join_keys[0].name].to_pylist()) if key is not None]
        keys = [encode_key([found[view.join_keys[0].name][row].as_py()]) for row in rows]
        stored = stored_values(url, generation, keys, as_of_ms)
        wrong += [
            (view.name, key, name, value, found[f"{view.name}__{name}"][row].as_py())
            for row, key, values in zip(rows, keys, stored, strict=True)
            for name, value in values.items()
            if value != found[f"{view.name}__{name}"][row].as_py()
        ]
    return wrong
