"""A service's shadow: what it would have answered, from the same read, in the log and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from featurestore.serving.client.clients import LookupClient
from featurestore.serving.request.steps import SMALL_KEYS_MAX
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.sampling import sample as queue_limits
from featurestore.serving.sampling.sample import FeatureLog
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from featurestore.wire.codecs.view_json import definition_hash
from featurestore.wire.entity_key import lane_of
from tests.serving.payments import CARD_ACTIVITY, LANES, NOW_MS, PAYMENT, Payments, RegistryInMemory, event_of
from tests.serving.sampling.feature_logs import Counts, Row, Table, wait_for
from tests.serving.test_pins import NEWEST, PINNED

SHADOWED = replace(
    PINNED,
    services=tuple(
        replace(one, shadow={"pinning": "newest", "newest": "pinning"}.get(one.name, "")) for one in PINNED.services
    ),
)
"""Each of two services is the other one's shadow."""


@pytest.fixture
def two(payments: Payments, registry: RegistryInMemory) -> Payments:
    """Both definitions are stored, and answer."""
    events = payments.events["card_activity", b"c-1"] + payments.events["card_activity", b"c-2"]
    newest = payments.write(NEWEST, events)
    payments.write(replace(CARD_ACTIVITY, name=f"card_activity@{definition_hash(CARD_ACTIVITY)[:8]}"), events)
    payments.catalog.promote(newest)
    registry.change(SHADOWED)
    return payments


@contextmanager
def shadowing(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock, table: Table, counts: Counts
) -> Iterator[LookupClient]:
    """A server that logs everything, and its client."""
    log = FeatureLog(table, clock, share=1.0)
    server = FeatureServer(registry, payments.store, clock, ServerSettings(port=0), feature_log=log)
    log._counter = counts
    try:
        with LookupClient(f"127.0.0.1:{server.port}", timeout_s=30) as client:
            yield client
    finally:
        table.may_write.set()
        server.stop(drain_seconds=1.0)


def of_shadow(table: Table) -> tuple[list[Row], list[Row]]:
    """Rows that were answered, and those of shadows."""
    answered = [row for row in table.rows if "__shadow_of" not in row]
    return answered, [row for row in table.rows if "__shadow_of" in row]


def values_of(row: Row, view: str) -> dict[str, object]:
    """Its features of a view, by their names there."""
    found = {feature.name: row[f"{view}__{feature.name}"] for feature in CARD_ACTIVITY.features}
    return {
        name: round(value.timestamp() * 1_000) if isinstance(value, datetime) else value
        for name, value in found.items()
    }


@pytest.mark.parametrize("events", [None, {"events": PAYMENT}])
def test_a_shadow_answers_from_the_state_that_was_read_for_the_caller(
    two: Payments, registry: RegistryInMemory, clock: ManualClock, events: Any
) -> None:
    """Though the log is behind and the store has gone on; the caller gets what it would get without a shadow."""
    table, counts = Table(), Counts()
    keys: dict[str, list[str]] = {"card_id": ["c-1", "c-2", "nobody"]}
    if events is not None:
        events = {"events": {name: [value] * 3 for name, value in events["events"].items()}}
    with shadowing(two, registry, clock, table, counts) as client:
        plain = client.lookup("both", keys, events=events).rows()
        assert table.has_begun.wait(30), "the log's thread hangs from now on"
        answered = client.lookup("pinning", keys, events=events).rows()
        for view in (NEWEST, replace(CARD_ACTIVITY, name=f"card_activity@{definition_hash(CARD_ACTIVITY)[:8]}")):
            two.write(view, [event_of(b"c-1", NOW_MS - 1_000, amount=77_777)])
        table.may_write.set()
    live, shadows = of_shadow(table)
    mine = [row for row in live if "card_activity@v1__count_1h" in row and "card_activity__count_1h" not in row]

    assert 3 == len(shadows) == len(mine)
    assert {"pinning"} == {row["__shadow_of"] for row in shadows}
    for row, shadow, both, direct in zip(mine, shadows, plain, answered, strict=True):
        for name in ("__request_id", "__request_row", "__as_of_ms", "__log_timestamp", "card_id"):
            assert row[name] == shadow[name]
        version = {name: both[f"card_activity@v1__{name}"] for name in values_of(row, "card_activity@v1")}
        assert (
            version
            == values_of(row, "card_activity@v1")
            == {name: direct[f"card_activity@v1__{name}"] for name in version}
        )
        assert {name: both[f"card_activity__{name}"] for name in version} == values_of(shadow, "card_activity")
        assert definition_hash(NEWEST) == shadow["__definition__card_activity"]
        assert row["__positions__card_activity@v1"] is not None
        assert shadow["__positions__card_activity"] is not None


def test_what_only_a_shadow_needs_is_damaged_and_the_caller_does_not_notice(
    two: Payments, registry: RegistryInMemory, clock: ManualClock
) -> None:
    """Counted, and the answer is there."""
    generation = two.catalog.serving("card_activity")
    assert generation is not None
    head = generation.keys.head_prefix(lane_of(b"c-1", LANES)) + b"c-1"
    [stored] = two.store.read_groups([[head]])
    two.store.compare_and_set(head, stored, b"\x01\x02\x03")
    table, counts = Table(), Counts()
    table.may_write.set()
    with shadowing(two, registry, clock, table, counts) as client:
        [row] = client.lookup("pinning", {"card_id": "c-1"}).rows()
        wait_for(lambda: counts.rows["shadow_failed"] == 1)
    live, shadows = of_shadow(table)

    assert row["card_activity@v1__count_1h"]
    assert (1, 0) == (len(live), len(shadows))


def test_a_log_that_is_behind_drops_shadows_and_counts_them(
    two: Payments, registry: RegistryInMemory, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers themselves are still logged."""
    monkeypatch.setattr(queue_limits, "SHADOW_BYTES_MAX", 0)
    table, counts = Table(), Counts()
    table.may_write.set()
    with shadowing(two, registry, clock, table, counts) as client:
        client.lookup("pinning", {"card_id": ["c-1", "c-2"]})
    live, shadows = of_shadow(table)

    assert (2, 0) == (len(live), len(shadows))
    assert counts.rows["shadow_dropped"] == 2


def test_a_request_that_would_become_a_large_one_is_read_for_the_shadow_later(
    two: Payments, registry: RegistryInMemory, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the caller waits for stays what it was; the shadow's rows are there all the same."""
    count = SMALL_KEYS_MAX // 4
    asked: list[int] = []
    read_groups = two.store.read_groups

    def counting(groups: Sequence[Sequence[bytes]], *, timeout_ms: float | None = None) -> list[bytes | None]:
        asked.append(sum(map(len, groups)))
        return read_groups(groups, timeout_ms=timeout_ms)

    monkeypatch.setattr(two.store, "read_groups", counting)
    table, counts = Table(), Counts()
    table.may_write.set()
    with shadowing(two, registry, clock, table, counts) as client:
        asked.clear()
        client.lookup("pinning", {"card_id": [f"c-{number}" for number in range(count)]})
        wait_for(lambda: counts.rows["written"] == 2 * count)
    _, shadows = of_shadow(table)

    assert [3 * count, 3 * count] == [size for size in asked if size >= count]
    assert count == len(shadows)


def test_a_shadow_is_taken_up_and_let_go_without_a_restart(
    two: Payments, registry: RegistryInMemory, clock: ManualClock
) -> None:
    """By an apply that changes nothing but the tag."""
    table = Table()
    table.may_write.set()
    log = FeatureLog(table, clock, share=1.0)
    server = FeatureServer(registry, two.store, clock, ServerSettings(port=0), feature_log=log)
    with LookupClient(f"127.0.0.1:{server.port}", timeout_s=30) as client:
        for repo in (SHADOWED, PINNED, SHADOWED):
            registry.change(repo)
            server._catalog.poll()
            client.lookup("pinning", {"card_id": "c-1"})
    server.stop(drain_seconds=1.0)

    assert ["pinning"] * 2 == [row["__shadow_of"] for row in of_shadow(table)[1]]
