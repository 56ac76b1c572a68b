"""What a server logs of its answers: the very values, statuses, hashes and positions, off the request path."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import grpc
import pyarrow as pa
import pytest

from featurestore.errors import InvalidRequest
from featurestore.offline.parity.feature_log import LogLayout
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.client.result import LookupResult
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.sampling import sample as queue_limits
from featurestore.serving.sampling.sample import FeatureLog
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from featurestore.testing.oracle.tolerance import agrees
from featurestore.wire.codecs.view_json import definition_hash
from featurestore.wire.feast.protos import message_class
from tests.serving import habits
from tests.serving.payments import CARD_ACTIVITY, NOW_MS, PAYMENT, Payments, RegistryInMemory
from tests.serving.sampling.feature_logs import ENTITIES, Counts, Row, Table, logging_server, one_answer, wait_for


@pytest.fixture
def table() -> Table:
    """A table that lets writers write."""
    made = Table()
    made.may_write.set()
    return made


def expected_rows(result: LookupResult) -> list[Row]:
    """The rows that the log should have of an answer with metadata, without what only the log knows."""
    columns = result.to_dict()
    views = {view.view: view for view in result.views}
    rows: list[Row] = []
    for row in range(result.row_count):
        found: Row = {}
        for index, feature in enumerate(result.schema.features):
            view = result.schema.views[feature.view].name
            name = f"{view}__{feature.name.removeprefix(view + '__')}"
            found[name] = columns[feature.name][row]
            found[f"{name}__status"] = int(result.statuses[index, row])
            found[f"{name}__timestamp"] = int(views[view].event_time_ms[row]) or None
        for served in result.schema.views:
            positions = views[served.name].positions
            found[f"__definition__{served.name}"] = served.definition_hash
            found[f"__positions__{served.name}"] = [asdict(one) for one in positions[row]] if positions else None
        for source in result.schema.event_sources:
            found[f"__event__{source.name}"] = None
        rows.append(found)
    return rows


def as_answered(row: Row) -> Row:
    """A logged row without what only the log knows; moments as milliseconds."""
    own = {"__log_timestamp", "__log_date", "__request_id", "__request_row", "__as_of_ms", "card_id", "merchant_id"}
    return {
        name: round(value.timestamp() * 1_000) if isinstance(value, datetime) else value
        for name, value in row.items()
        if name not in own
    }


@pytest.mark.parametrize("io", ["sync", "aio"])
def test_the_log_has_what_was_answered_with_hashes_and_positions(
    io: str, payments: Payments, registry: RegistryInMemory, clock: ManualClock, table: Table
) -> None:
    """Every type, nulls, unknown entities and plain views; the same whether or not the caller asked for metadata."""
    with (
        logging_server(payments, registry, clock, table, io=io) as server,
        LookupClient(f"127.0.0.1:{server.port}", timeout_s=30) as client,
    ):
        result = client.lookup("fraud_detection", ENTITIES, with_metadata=True)
        bare = client.lookup("fraud_detection", ENTITIES, as_of_ms=NOW_MS - 5_000)

    first, second = table.rows[:3], table.rows[3:]
    assert expected_rows(result) == [as_answered(row) for row in first]
    assert bare.views == ()
    assert [row["__positions__card_activity"] for row in first] == [row["__positions__card_activity"] for row in second]
    assert {definition_hash(CARD_ACTIVITY)} == {row["__definition__card_activity"] for row in table.rows}
    assert ["c-1", "c-2", "nobody"] == [row["card_id"] for row in first]
    assert [7, 404, 7] == [row["merchant_id"] for row in first]
    assert [(0, NOW_MS), (1, NOW_MS), (2, NOW_MS)] == [(row["__request_row"], row["__as_of_ms"]) for row in first]
    assert {NOW_MS - 5_000} == {row["__as_of_ms"] for row in second}
    assert 2 == len({row["__request_id"] for row in table.rows})
    logged_at = datetime.fromtimestamp(NOW_MS / 1_000, UTC)
    assert {(logged_at, logged_at.date())} == {(row["__log_timestamp"], row["__log_date"]) for row in table.rows}


def test_lists_and_maps_are_logged_as_they_were_answered(payments: Payments, clock: ManualClock, table: Table) -> None:
    """Empty is not null."""
    habits.write_habits(payments)
    with (
        logging_server(payments, RegistryInMemory(habits.REPO), clock, table) as server,
        LookupClient(f"127.0.0.1:{server.port}", timeout_s=30) as client,
    ):
        result = client.lookup("card_review", {"card_id": habits.CARDS}, with_metadata=True)

    assert 4 == len(table.rows)
    assert agrees(expected_rows(result), [as_answered(row) for row in table.rows])


def test_a_payment_in_flight_is_logged_as_it_was_sent(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock, table: Table
) -> None:
    """Every column that is read, of every type, nulls among them; the keys are those of the row."""
    sent = {**PAYMENT, "amount": None, "price": 2}
    with (
        logging_server(payments, registry, clock, table) as server,
        LookupClient(f"127.0.0.1:{server.port}", timeout_s=30) as client,
    ):
        result = client.lookup("fraud_detection", {"card_id": "c-1", "merchant_id": 7}, events={"events": sent})

    [row] = table.rows
    moments = {name: _moment(sent[name]) for name in ("event_time", "opened_at")}
    assert {**sent, "price": 2.0, **moments} == row["__event__events"]
    assert row["merchant_activity__count_lifetime"] == result.rows()[0]["count_lifetime"] == 6


def _moment(moment_ms: int) -> datetime:
    """As Arrow gives it back."""
    return datetime.fromtimestamp(moment_ms / 1_000, UTC)


def test_answers_to_feasts_own_clients_are_logged(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock, table: Table
) -> None:
    """By service and by list; the latter under no service's name."""
    request_class: Any = message_class("feast.serving.GetOnlineFeaturesRequest")
    by_service, by_list = request_class(feature_service="merchant_monitoring"), request_class()
    by_list.features.val.append("merchant_activity:count_1h")
    for request in (by_service, by_list):
        request.entities["merchant_id"].val.add().int64_val = 7
    with (
        logging_server(payments, registry, clock, table) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        call: Any = channel.unary_unary(
            "/feast.serving.ServingService/GetOnlineFeatures", request_serializer=request_class.SerializeToString
        )
        for request in (by_service, by_list):
            call(request, timeout=30)

    counts = [row["merchant_activity__count_1h"] for row in table.rows]
    assert 2 == len(counts)
    assert counts[0] == counts[1] > 0
    assert {"merchant_activity__count_1h", "merchant_activity__count_lifetime"} <= set(table.rows[0])
    assert "merchant_activity__count_lifetime" not in table.rows[1]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.37, 1.0])
def test_the_sample_has_its_share_evenly_and_without_a_period(share: float, clock: ManualClock, table: Table) -> None:
    """Of any run of requests; the gaps between samples take at most three lengths (Steinhaus)."""
    log = FeatureLog(table, clock, share=share)
    taken = [index for index in range(100_000) if log.takes()]

    assert share * 100_000 == pytest.approx(len(taken), abs=2)
    for period in (7, 10, 100, 128):
        of_phase = Counter(index % period for index in taken)
        assert all(abs(of_phase[phase] - len(taken) / period) <= 12 for phase in range(period))
    assert len({right - left for left, right in pairwise(taken)}) <= 3


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_that_is_none_is_refused(share: float, clock: ManualClock, table: Table) -> None:
    """Before anything is served."""
    with pytest.raises(InvalidRequest, match="not between 0 and 1"):
        FeatureLog(table, clock, share=share)


def test_a_full_queue_drops_and_counts_and_answers_all_the_same(
    payments: Payments,
    registry: RegistryInMemory,
    clock: ManualClock,
    table: Table,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While the writer hangs, requests are answered; what found no room is in the metrics, the rest in the log."""
    monkeypatch.setattr(queue_limits, "QUEUE_ROWS_MAX", 10)
    table.may_write.clear()
    counts = Counts()
    log = FeatureLog(table, clock, share=1.0)
    log.start(counts)
    answered = one_answer(payments, registry, clock)

    for _ in range(40):
        log.add(answered)
    table.may_write.set()
    log.stop()

    assert {"written": len(table.rows), "dropped": 40 - len(table.rows)} == dict(counts.rows)
    # Ten may have been with the writer already, and ten more in the queue.
    assert 10 <= len(table.rows) <= 20


def test_a_writer_that_fails_is_counted_and_the_next_rows_are_written(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock, table: Table
) -> None:
    """A full disk is the operator's business, never the caller's."""
    counts = Counts()
    log = FeatureLog(table, clock, share=1.0)
    log.start(counts)
    answered = one_answer(payments, registry, clock)
    table.fails = True
    log.add(answered)
    wait_for(lambda: counts.failures > 0)
    table.fails = False
    log.add(answered)
    log.stop()

    assert (1, {"written": 1}) == (counts.failures, dict(counts.rows))


def test_the_metrics_say_what_became_of_sampled_rows(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock, table: Table
) -> None:
    """By the names that operators alert on."""
    log = FeatureLog(table, clock, share=1.0)
    server = FeatureServer(registry, payments.store, clock, ServerSettings(port=0), feature_log=log)
    with LookupClient(f"127.0.0.1:{server.port}", timeout_s=30) as client:
        client.lookup("fraud_detection", ENTITIES)
    server.stop(drain_seconds=1.0)
    registry_of_metrics = server._metrics.registry

    sample = registry_of_metrics.get_sample_value("featurestore_feature_log_rows_total", {"outcome": "written"})
    assert 3 == sample


def test_answers_that_come_while_rows_are_written_wait_for_the_next_time(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock
) -> None:
    """A row or two at a time cost as much as hundreds: the thread rests between them, and loses none."""
    answered, done, calls = one_answer(payments, registry, clock), threading.Event(), list[str]()

    class Writer(Table):
        """Has another answer come with each of the first rows."""

        def write(self, layout: LogLayout, table: pa.Table, now_ms: int) -> int:
            calls.append("write")
            if calls.count("write") < 3:
                log.add(answered)
            return int(table.num_rows)

        def advance(self, now_ms: int) -> int:
            calls.append("advance")
            if calls.count("write") == 3:
                done.set()
            return 0

    log = FeatureLog(Writer(), clock, share=1.0)
    log.add(answered)
    log.start(Counts())
    assert done.wait(30)
    log.stop()

    written = calls[calls.index("write") : calls.index("write") + 6]
    assert ["write", "advance"] * 3 == written
