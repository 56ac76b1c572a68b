"""What a source's contract leaves out: the same records online, in history and by the oracle, each of them a letter."""

from __future__ import annotations

import base64
import json
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from dataflows.plan.contracts import Contracts
from featurestore.core.spec import Column, RepoSpec, ValueType
from featurestore.definitions.registry import read_registry
from featurestore.online.read.store_status import look_over
from featurestore.online.redis.store import connect
from featurestore.testing.clock import ManualClock
from featurestore.testing.oracle.naive import NaiveEvent
from featurestore.wire.counts.contracts import decode_counts
from featurestore.wire.store_layout import contracts_key
from tests.dataflows.conftest import StartStream, applied_repo
from tests.dataflows.log_to_table.test_history import differences, differences_from_store, history, labels_of
from tests.dataflows.payments import (
    BEGIN_MS,
    PROJECT,
    REPO,
    TOPIC,
    Payments,
    assert_every_value_is_exact,
    iso,
    make_payments,
)

EXPECTED = """event_id="payment_id",
    expectations=[
        expect("amount >= 0", on_fail="dead_letter"),
        expect("amount < 1000000000", on_fail="dead_letter", name="no amount of millions"),
        expect("NOT is_declined", on_fail="count", name="accepted", at_most=0.2),
        one_of("merchant_id", [1, 2, 3], on_fail="count"),
        usual_volume(at_least=0.5, at_most=2),
    ],"""
CONTRACTED = REPO.replace('event_id="payment_id",', EXPECTED).replace(
    "count, kafka", "count, expect, one_of, usual_volume, kafka"
)


@pytest.fixture(scope="module")
def contracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The registry of the repo with a contract."""
    return applied_repo(tmp_path_factory.mktemp("contracted") / "repo", repo=CONTRACTED)


def test_history_lookups_and_the_oracle_leave_out_the_same_records(
    start_stream: StartStream, contracted: Path, redis_url: str, tmp_path: Path
) -> None:
    """What breaks the contract is in no value; each such record is one letter that says what it breaks."""
    made = make_payments(4_000, seed=14)
    made.append_to(tmp_path / "events")
    log, letters = ["--log-dir", str(tmp_path / "events"), "--until-end"], tmp_path / "letters"
    stream = start_stream(*log, "--dead-letter-dir", str(letters), use_registry=contracted)
    assert stream.wait() == 0, stream.output
    log += ["--event-log", str(tmp_path / "event_log")]
    table = start_stream(*log, use_registry=contracted, program=("-m", "dataflows.log_to_table"))
    assert table.wait() == 0, table.output
    repo, kept = read_registry(contracted, project=PROJECT), kept_of(made)
    labels, newest_ms = labels_of(made), made.newest_ms + 1

    assert_every_value_is_exact(redis_url, kept)
    past = history(labels, repo, contracted, tmp_path)
    assert [] == differences(repo, kept, past, labels["event_timestamp"].cast(pa.int64()).to_pylist())
    newest = history(labels, repo, contracted, tmp_path, "--at", str(newest_ms))
    assert [] == differences_from_store(repo, newest, redis_url, newest_ms)
    assert broken_of(made) == letters_in(letters)
    assert_figures(repo, made, redis_url, letters)


def test_an_hour_unlike_the_same_hour_of_other_days_is_told(
    start_stream: StartStream, contracted: Path, redis_url: str, tmp_path: Path
) -> None:
    """By status, which marks the views, and on the topic of contracts, once."""
    days, log = 5, tmp_path / "log"
    times = [BEGIN_MS + day * 86_400_000 + second * 1_000 for day in range(days) for second in range(20)]
    times += [BEGIN_MS + days * 86_400_000, BEGIN_MS + days * 86_400_000 + 3_600_000]  # one, and an hour later another
    (log / TOPIC).mkdir(parents=True)
    lines = [
        json.dumps({"payment_id": f"p-{at}", "paid_at": iso(at), "card_id": "c", "merchant_id": 1, "amount": 1})
        for at in times
    ]
    (log / TOPIC / "0.jsonl").write_text("\n".join(lines) + "\n")
    stream = start_stream("--log-dir", str(log), "--until-end", "--batch-records", "7", use_registry=contracted)
    assert stream.wait() == 0, stream.output

    repo, store = read_registry(contracted, project=PROJECT), connect(redis_url)
    found = look_over(store, PROJECT, ManualClock(now_ms=times[-1]), usual_hours=repo.usual_hours)
    store.close()
    [state] = found.usual_hours
    assert (state.value, state.usual, state.is_broken) == (1, 20, True)
    assert [("usual volume",)] * 2 == [one.broken for one in found.generations]
    reports = [json.loads(line) for line in (log / f"{TOPIC}.contracts" / "0.jsonl").read_text().splitlines()]
    told = [one for one in reports if one["expectation"] == "usual volume"]
    hour = {"hour_ms": state.hour_ms, "value": 1, "usual": 20}
    assert [{"source": "payments", "expectation": "usual volume", "topic": TOPIC, "partition": 0, **hour}] == told


def test_a_generation_of_an_older_source_is_read_by_todays_where_that_means_the_same(
    contracted: Path,
) -> None:
    """A column that no view reads, the format and the address come from the registry; what changes a value does not."""
    repo = read_registry(contracted, project=PROJECT)
    current = repo.views[0]
    more = Column("unread", ValueType.STRING)

    contracts = Contracts(with_column(repo, more))

    registered = contracts.source_of(current)
    assert more in registered.columns
    assert contracts.check_of(registered) is not None
    assert contracts.check_of(current.source) is None
    moved = Contracts(with_renamed(repo, "card_id"))
    assert moved.source_of(current) == current.source


def with_column(repo: RepoSpec, column: Column) -> RepoSpec:
    """The repo after its source got one more column."""
    views = [replace(one, source=replace(one.source, columns=(*one.source.columns, column))) for one in repo.views]
    return replace(repo, views=tuple(views))


def with_renamed(repo: RepoSpec, name: str) -> RepoSpec:
    """The repo after a field of the payload, which views read, got another name."""
    views = [replace(one, source=replace(one.source, renamed=((name, "other"),))) for one in repo.views]
    return replace(repo, views=tuple(views))


def kept_of(made: Payments) -> Payments:
    """The events that keep the contract."""
    parts: list[dict[bytes, list[NaiveEvent]]] = []

    def keeps(event: NaiveEvent) -> bool:
        amount = event.columns["amount"]
        return amount is not None and float(amount) >= 0

    for of_view in (made.cards, made.merchants):
        parts.append(defaultdict(list))
        for key, events in of_view.items():
            parts[-1][key] = [one for one in events if keeps(one)]
    return Payments(made.records, parts[0], parts[1], made.newest_ms, made.bad)


def assert_figures(repo: RepoSpec, made: Payments, url: str, letters: Path) -> None:
    """What is kept in the store is what the records say, every view is marked, and reports name the newest failure."""
    store = connect(url)
    found = look_over(store, PROJECT, ManualClock(now_ms=made.newest_ms), expectations=repo.expectations)
    store.close()
    decoded = [json.loads(line) for partition in made.records for line in partition if line.endswith(b"}")]
    amounts = [one["amount"] for one in decoded]
    failed = {
        "amount >= 0": sum(one is None or one < 0 for one in amounts),
        "no amount of millions": sum(one is None or one >= 10**9 for one in amounts),
        "accepted": sum(one["is_declined"] for one in decoded),
        "merchant_id is known": sum(one["merchant_id"] not in (1, 2, 3) for one in decoded),
    }
    store = connect(url)
    counts = [decode_counts(data) for data in store.hash_fields(contracts_key(PROJECT)).values()]
    store.close()
    hours = [hour for one in counts for hour in one.hours.values()]
    assert len(decoded) == sum(hour.records for hour in hours)
    assert failed == {name: sum(hour.failed.get(name, 0) for hour in hours) for name in failed}
    states = {one.name: one for one in found.contracts}
    assert failed.keys() == states.keys()
    assert states["amount >= 0"].is_broken
    broken = {name for name, one in states.items() if one.is_broken}
    assert [broken] * len(found.generations) == [set(one.broken) for one in found.generations]
    reports = [json.loads(line) for path in letters.rglob("*.contracts/*.jsonl") for line in path.open()]
    assert {(one["expectation"], one["partition"]) for one in reports} == {
        (name, partition) for name in failed for partition in range(len(made.records))
    }


def broken_of(made: Payments) -> Counter[tuple[str, bytes]]:
    """Detail and payload of each record that must be a letter."""
    found: Counter[tuple[str, bytes]] = Counter()
    for line in (line for partition in made.records for line in partition):
        try:
            amount = json.loads(line)["amount"]
        except json.JSONDecodeError:
            continue
        broken = ['"amount >= 0"'] if amount is None or amount < 0 else []
        broken += ['"no amount of millions"'] if amount is None or amount >= 10**9 else []
        if broken:
            found["it does not meet " + ", ".join(broken), line] += 1
    return found


def letters_in(directory: Path) -> Counter[tuple[str, bytes]]:
    """Detail and payload of each letter about a contract."""
    letters = [
        json.loads(line)
        for path in directory.rglob("*.dead-letters/*.jsonl")
        for line in path.read_bytes().splitlines()
    ]
    return Counter(
        (one["detail"], base64.b64decode(one["payload"])) for one in letters if one["reason"] == "expectation_failed"
    )
