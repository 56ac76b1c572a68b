"""The transaction simulator: the same seed gives the same world, and the world has what fraud models meet."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Consumer

from featurestore.testing.servers import KafkaBroker
from featurestore.testing.simulator import (
    LabelsWriter,
    LogDirectorySink,
    PayloadEncoder,
    Population,
    PopulationSize,
    Scenario,
    Simulation,
    open_sink,
    write_merchant_table,
)
from featurestore.testing.simulator.markets import MARKETS
from featurestore.testing.simulator.payload import transaction_ids
from featurestore.testing.simulator.rows import FraudPattern, Rows

START_MS = 1_767_225_600_000  # Thursday 2026-01-01
DAY_MS = 86_400_000
SIZE = PopulationSize(cards=400, merchants=80)

COLUMNS = {
    "transaction_id",
    "event_time",
    "card_id",
    "merchant_id",
    "terminal_id",
    "market",
    "currency",
    "amount",
    "is_declined",
    "is_refund",
    "is_card_present",
    "merchant_category",
}


@pytest.fixture(scope="module")
def population() -> Population:
    """A small world."""
    return Population(SIZE, seed=7)


@pytest.fixture(scope="module")
def rows(population: Population) -> Rows:
    """Ten days of it with a lot of fraud, in arrival order."""
    scenario = Scenario(START_MS, START_MS + 10 * DAY_MS, seed=7, size=SIZE, campaigns_per_day=6)
    return np.concatenate(list(Simulation(scenario, population).batches()))


def _records(population: Population, rows: Rows) -> list[dict[str, object]]:
    return [json.loads(payload) for payload in PayloadEncoder(population).encode(rows)]


def test_equal_scenarios_give_equal_bytes(population: Population) -> None:
    """Determinism, down to the payload and its order; another seed differs."""

    def payloads(seed: int) -> list[bytes]:
        simulation = Simulation(Scenario(START_MS, START_MS + DAY_MS, seed=seed, size=SIZE))
        return PayloadEncoder(simulation.population).encode(np.concatenate(list(simulation.batches())))

    assert payloads(7) == payloads(7)
    assert payloads(7) != payloads(8)


def test_records_come_in_arrival_order_and_some_are_late(rows: Rows) -> None:
    """Arrival never goes back; event time does."""
    assert (np.diff(rows["arrival_ms"]) >= 0).all()
    assert (rows["arrival_ms"] >= rows["event_time_ms"]).all()
    lateness_ms = np.maximum.accumulate(rows["event_time_ms"]) - rows["event_time_ms"]
    assert (lateness_ms > 60_000).sum() > 20
    assert (lateness_ms > 3_600_000).sum() > 2


def test_event_times_stay_inside_the_scenario(rows: Rows) -> None:
    """Refunds and campaigns that would come after the end do not come."""
    assert rows["event_time_ms"].min() >= START_MS
    assert rows["event_time_ms"].max() < START_MS + 10 * DAY_MS


def test_only_a_producers_retries_repeat_an_id(rows: Rows) -> None:
    """Records of one id are equal in all but their arrival."""
    ids, first, counts = np.unique(rows["id"], return_index=True, return_counts=True)
    repeated = ids[counts > 1]
    content = [name for name in rows.dtype.names or () if name != "arrival_ms"]

    assert 0 < len(repeated) < 0.02 * len(ids)
    for row_id in repeated[:50]:
        copies = rows[rows["id"] == row_id][content]
        assert (copies == copies[0]).all()
    assert len(first) == len(ids)


def test_a_later_run_of_the_same_world_gives_new_ids(population: Population, rows: Rows) -> None:
    """History first, then live payments: no id is given twice."""
    later = Scenario(START_MS + 10 * DAY_MS, START_MS + 11 * DAY_MS, seed=7, size=SIZE)
    live = np.concatenate(list(Simulation(later, population).batches()))

    assert not np.isin(live["id"], rows["id"]).any()


def test_a_payload_has_the_sources_columns_and_its_markets_currency(population: Population, rows: Rows) -> None:
    """Exactly the declared columns; currency belongs to market; an open amount is null, never zero."""
    currencies = {market.country: market.currency for market in MARKETS}
    records = _records(population, rows[:5_000])

    assert all(record.keys() == COLUMNS for record in records)
    assert all(currencies[str(record["market"])] == record["currency"] for record in records)
    assert {type(record["amount"]) for record in records} == {int, type(None)}
    assert all(amount > 0 for record in records if isinstance(amount := record["amount"], int))
    assert records[0]["event_time"] == f"{np.datetime64(int(rows[0]['event_time_ms']), 'ms')}Z"


def test_honest_life_has_its_declines_refunds_and_open_amounts(rows: Rows) -> None:
    """Shares are of the expected size."""
    honest = rows[rows["pattern"] == FraudPattern.NONE]

    assert 0.01 < honest["is_declined"].mean() < 0.06
    assert 0.003 < honest["is_refund"].mean() < 0.03
    assert 0.003 < (~honest["is_amount_known"]).mean() < 0.06


def test_refunds_return_an_earlier_payments_amount(rows: Rows) -> None:
    """Same card, terminal and amount as a payment before it."""
    refunds = rows[rows["is_refund"]]
    paid = {
        (row["card"], row["terminal"], row["amount"]): row["event_time_ms"] for row in rows[~rows["is_refund"]][::-1]
    }

    assert all(paid[r["card"], r["terminal"], r["amount"]] < r["event_time_ms"] for r in refunds)


def test_people_sleep_at_night(population: Population, rows: Rows) -> None:
    """In the largest market, the small hours of local time are quiet."""
    market = 1  # Germany, UTC+1
    is_local = (population.card_market[rows["card"]] == market) & (rows["pattern"] == FraudPattern.NONE)
    hour = (rows["event_time_ms"][is_local] + 3_600_000) // 3_600_000 % 24
    counts = np.bincount(hour, minlength=24)

    assert counts[1:5].mean() * 5 < counts[11:19].mean()


def test_every_fraud_pattern_looks_like_itself(rows: Rows) -> None:
    """Testing is tiny and declined, a stolen card is one card at many shops, a bad terminal sees many cards."""
    honest = rows[rows["pattern"] == FraudPattern.NONE]
    testing = rows[rows["pattern"] == FraudPattern.CARD_TESTING]
    stolen = rows[rows["pattern"] == FraudPattern.STOLEN_CARD]
    terminal = rows[rows["pattern"] == FraudPattern.COMPROMISED_TERMINAL]

    assert min(len(testing), len(stolen), len(terminal)) > 20
    assert testing["amount"].max() <= 300
    assert testing["is_declined"].mean() > 0.5 > 0.1 > honest["is_declined"].mean()
    assert len(np.unique(stolen["terminal"])) > len(np.unique(stolen["card"]))
    assert len(np.unique(terminal["card"])) > 10 * len(np.unique(terminal["terminal"]))


def test_labels_are_in_the_side_file_and_not_in_the_payload(population: Population, rows: Rows, tmp_path: Path) -> None:
    """One label a record, by transaction id."""
    writer = LabelsWriter(tmp_path / "labels.parquet")
    writer.write(rows)
    writer.close()
    labels = pq.read_table(tmp_path / "labels.parquet")

    assert labels["transaction_id"].to_pylist() == transaction_ids(rows)
    assert labels["is_fraud"].to_numpy().sum() == (rows["pattern"] != 0).sum()
    assert set(labels["fraud_pattern"].to_pylist()) == {pattern.label for pattern in FraudPattern}


def test_a_log_directory_is_continued_after_its_last_complete_line(population: Population, tmp_path: Path) -> None:
    """A half-written line goes, complete ones stay, a card keeps its partition."""
    simulation = Simulation(Scenario(START_MS, START_MS + 2 * DAY_MS, seed=7, size=SIZE), population)
    first, second = itertools.islice(simulation.batches(), 20, 22)
    sink = LogDirectorySink(tmp_path, population, topic="transactions", partitions=3, is_json=True)
    sink.write(first)
    sink.close()
    with open(tmp_path / "transactions" / "1.jsonl", "ab") as file:
        file.write(b'{"transaction_id":"torn')
    sink = LogDirectorySink(tmp_path, population, topic="transactions", partitions=8, is_json=True)
    sink.write(second)
    sink.close()

    files = sorted((tmp_path / "transactions").iterdir())
    partitions = [[json.loads(line) for line in file.read_bytes().splitlines()] for file in files]
    cards = [{record["card_id"] for record in partition} for partition in partitions]
    assert [file.name for file in files] == ["0.jsonl", "1.jsonl", "2.jsonl"]
    assert sum(map(len, partitions)) == len(first) + len(second)
    assert not any(a & b for a, b in itertools.combinations(cards, 2))


def test_parquet_holds_the_same_records_as_json(population: Population, rows: Rows, tmp_path: Path) -> None:
    """Column by column."""
    sample = rows[:500]
    sink = open_sink(f"parquet:{tmp_path}/transactions.parquet", population)
    sink.write(sample)
    sink.close()
    table = pq.read_table(tmp_path / "transactions.parquet")
    records = _records(population, sample)

    assert set(table.column_names) == COLUMNS
    for name in COLUMNS - {"event_time"}:
        assert table[name].to_pylist() == [record[name] for record in records]
    assert table["event_time"].cast("int64").to_pylist() == sample["event_time_ms"].tolist()


def test_the_merchant_table_has_one_row_a_merchant(population: Population, tmp_path: Path) -> None:
    """Ids are those of the payload."""
    write_merchant_table(population, tmp_path / "merchants.parquet", updated_at_ms=START_MS)
    table = pq.read_table(tmp_path / "merchants.parquet")

    assert table.num_rows == SIZE.merchants
    assert table["merchant_id"].to_pylist()[:2] == [1_000_000, 1_000_001]
    assert set(table["home_market"].to_pylist()) == {market.country for market in MARKETS}


@pytest.mark.kafka
def test_kafka_gets_every_record_once_in_order_of_its_card(population: Population, kafka: KafkaBroker) -> None:
    """The sink makes the topic; a card's records keep their order."""
    simulation = Simulation(Scenario(START_MS, START_MS + DAY_MS, seed=7, size=SIZE), population)
    rows = np.concatenate(list(simulation.batches()))
    sink = open_sink(f"kafka://{kafka.bootstrap_servers}/simulated", population, partitions=3, is_json=True)
    sink.write(rows)
    sink.close()
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap_servers, "group.id": "simulated", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe(["simulated"])
    received: list[dict[str, object]] = []
    while len(received) < len(rows):
        messages = consumer.consume(len(rows) - len(received), timeout=20)
        assert messages, f"only {len(received)} of {len(rows)} records arrived"
        received += [json.loads(message.value() or b"") for message in messages]
    consumer.close()

    def by_card(records: list[dict[str, object]]) -> dict[str, list[object]]:
        grouped: dict[str, list[object]] = {}
        for record in records:
            grouped.setdefault(str(record["card_id"]), []).append(record["transaction_id"])
        return grouped

    assert by_card(received) == by_card(_records(population, rows))
