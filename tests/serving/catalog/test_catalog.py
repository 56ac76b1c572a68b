"""Changes of registry and store are picked up by a running server; what is broken leaves the last good state."""

import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import featurestore.serving.catalog.catalog as catalog_source
from featurestore.clock import SystemClock
from featurestore.core.spec import FeatureReference, ServiceSpec, ValueType
from featurestore.errors import OnlineStoreDown, UnknownFeatureService
from featurestore.online.answer.schema import FeatureStatus
from featurestore.online.answer.service_plan import ServicePlan
from featurestore.online.redis.store import RedisStore, connect
from featurestore.serving.catalog.catalog import CatalogSource
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from featurestore.testing.servers import RedisServer, redis_server
from tests.serving.payments import (
    CARD_ACTIVITY,
    MERCHANT_ACTIVITY,
    MERCHANT_ID,
    NOW_MS,
    PAIR_ACTIVITY,
    REPO,
    WEEK,
    Payments,
    RegistryInMemory,
    event_of,
    windowed,
    with_feature,
)

WAIT_SECONDS = 10.0

POLL_SECONDS = 0.05


@pytest.fixture(autouse=True)
def _polls_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes are noticed at the next poll; how long that takes is no promise of these tests."""
    monkeypatch.setattr(catalog_source, "POLL_SECONDS", POLL_SECONDS)


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds; a test that waits in vain fails."""
    clock = SystemClock()
    give_up_ns = clock.monotonic_ns() + int(WAIT_SECONDS * 1e9)
    while not holds():
        assert clock.monotonic_ns() < give_up_ns, "it never happened"
        clock.sleep(0.02)


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A store of the test's own, to kill."""
    with redis_server() as server:
        yield server


@pytest.fixture
def own_store(own_redis: RedisServer) -> Iterator[RedisStore]:
    """Connected to it; the store object outlives the server."""
    connected = RedisStore(own_redis.url)
    yield connected
    connected.close()


def test_a_new_service_is_served_without_a_restart(client: LookupClient, registry: RegistryInMemory) -> None:
    """A team applies, and at the next poll its service answers."""
    added = ServiceSpec(
        "recommendations", (FeatureReference("merchant_activity", "count_1h", "count_1h"),), (MERCHANT_ID,)
    )
    registry.change(replace(REPO, services=(*REPO.services, added)))

    eventually(lambda: "recommendations" in client.services())
    assert client.lookup("recommendations", {"merchant_id": 7}).rows() == [{"count_1h": 2}]


def test_a_broken_registry_keeps_the_last_good_one(metered_server: FeatureServer, registry: RegistryInMemory) -> None:
    """A registry that does not compile changes nothing but what monitoring sees, until it is repaired."""

    def metric(line: str) -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{metered_server.metrics_port}/metrics", timeout=30) as page:
            return line in page.read().decode()

    registry.change(broken=True)
    eventually(lambda: metric("featurestore_registry_up 0.0"))

    with LookupClient(f"127.0.0.1:{metered_server.port}") as client:
        assert client.lookup("merchant_monitoring", {"merchant_id": 7}).row_count == 1
    registry.change(broken=False)
    eventually(lambda: metric("featurestore_registry_up 1.0"))


def test_a_registry_put_back_as_it_was_is_no_longer_broken(payments: Payments, registry: RegistryInMemory) -> None:
    """Restoring the very file that had been read clears the error, though nothing needs to be read."""
    catalog = CatalogSource(registry, payments.store)
    good = registry.stamp()
    registry.change(broken=True)
    catalog.poll()
    assert catalog.registry_error is not None

    registry.broken, registry.version = False, good
    catalog.poll()
    assert catalog.registry_error is None


def test_a_bug_while_polling_does_not_end_the_polling(
    client: LookupClient, registry: RegistryInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong in one poll, the next one looks again."""
    failed: list[int] = []

    def bug() -> int:
        failed.append(1)
        raise TypeError("a bug")

    with monkeypatch.context() as broken:
        broken.setattr(registry, "stamp", bug)
        eventually(lambda: len(failed) > 0)
    registry.change(replace(REPO, services=REPO.services[1:]))

    eventually(lambda: client.services() == ["merchant_monitoring"])


def test_a_feature_that_is_still_being_filled_is_not_ready(
    payments: Payments, registry: RegistryInMemory, client: LookupClient
) -> None:
    """After a definition changed, the old generation answers what it has, until the new one is promoted."""
    added = windowed("count", None, WEEK, ValueType.INT64)
    changed = with_feature(MERCHANT_ACTIVITY, added)
    reference = FeatureReference("merchant_activity", added.name, added.name)
    monitoring = replace(REPO.services[1], features=(*REPO.services[1].features, reference))
    before = client.describe("merchant_monitoring").schema_id
    filling = payments.write(changed, [event_of(b"7", NOW_MS - 5)])
    registry.change(
        replace(REPO, views=(REPO.views[0], changed, REPO.views[2]), services=(REPO.services[0], monitoring))
    )

    eventually(lambda: added.name in client.lookup("merchant_monitoring", {"merchant_id": 7}).names)
    during = client.lookup("merchant_monitoring", {"merchant_id": 7})
    assert during.status(added.name) == [FeatureStatus.NOT_READY]
    assert during.rows()[0] == {**during.rows()[0], "count_lifetime": 5, added.name: None}

    payments.catalog.promote(filling)
    eventually(
        lambda: client.lookup("merchant_monitoring", {"merchant_id": 7}).status(added.name) == [FeatureStatus.PRESENT]
    )
    after = client.lookup("merchant_monitoring", {"merchant_id": 7})
    assert after.rows()[0][added.name] == 1
    assert len({before, during.schema.schema_id, after.schema.schema_id}) == 3


def test_views_without_a_stream_yet_are_not_ready(store: RedisStore, registry: RegistryInMemory) -> None:
    """A server may start before the first stream: everything is NOT_READY, and nothing is written to the store."""
    catalog = CatalogSource(registry, store)

    plan = catalog.snapshot().plan_of_service("merchant_monitoring")

    assert plan.not_ready.tolist() == [0, 1, 2]
    assert list(store.scan(b"*")) == []


def test_a_server_that_starts_before_its_store_waits_for_it(
    own_redis: RedisServer, own_store: RedisStore, registry: RegistryInMemory
) -> None:
    """The store being down at start is an error of requests, not of the process, and mends itself."""
    own_redis.process.kill()
    catalog = CatalogSource(registry, own_store)

    with pytest.raises(OnlineStoreDown, match="has not answered"):
        catalog.snapshot()
    own_redis.restart()
    catalog.poll()
    assert catalog.store_error is None
    with pytest.raises(UnknownFeatureService):
        catalog.snapshot().plan_of_service("nothing")


def test_polling_without_a_change_keeps_the_snapshot(payments: Payments, registry: RegistryInMemory) -> None:
    """Plans are not worked out again every second."""
    catalog = CatalogSource(registry, payments.store)
    before = catalog.snapshot()
    catalog.poll()

    assert catalog.snapshot() is before


def test_ad_hoc_plans_are_kept_but_bounded(
    payments: Payments, registry: RegistryInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that asks for ever new lists of features cannot fill the server's memory."""
    monkeypatch.setattr("featurestore.serving.catalog.catalog.CACHED_PLANS_MAX", 2)
    snapshot = CatalogSource(registry, payments.store).snapshot()
    lists = [[f"merchant_activity:{name}"] for name in ("count_1h", "count_lifetime", "price_mean_7d")]
    plans = [snapshot.plan_of_references(texts, full_names=False) for texts in lists]

    assert snapshot.plan_of_references(lists[2], full_names=False) is plans[2]
    assert snapshot.plan_of_references(lists[0], full_names=False) is not plans[0]


def test_ad_hoc_lists_do_not_drive_out_the_plans_of_services(
    payments: Payments, registry: RegistryInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was compiled for payments beforehand stays, whatever others ask for."""
    monkeypatch.setattr("featurestore.serving.catalog.catalog.CACHED_PLANS_MAX", 1)
    snapshot = CatalogSource(registry, payments.store).snapshot()
    before = snapshot.plan_of_service("fraud_detection")
    for name in ("count_1h", "count_lifetime", "price_mean_7d"):
        snapshot.plan_of_references([f"merchant_activity:{name}"], full_names=False)

    assert snapshot.plan_of_service("fraud_detection") is before


def test_a_change_costs_only_the_plans_that_it_touches(payments: Payments, registry: RegistryInMemory) -> None:
    """Lists and services over other views keep their plans; those of the changed view, or of its new generation, go."""
    catalog = CatalogSource(registry, payments.store)
    merchants, profile = ["merchant_activity:count_1h"], ["merchant_profile:risk_tier"]

    def plans() -> list[ServicePlan]:
        snapshot = catalog.snapshot()
        return [
            *(snapshot.plan_of_references(texts, full_names=True) for texts in (merchants, profile)),
            *(snapshot.plan_of_service(service.name) for service in REPO.services),
        ]

    def kept(before: list[ServicePlan]) -> list[bool]:
        catalog.poll()
        return [new is old for new, old in zip(plans(), before, strict=True)]

    first = plans()
    fewer = replace(REPO.services[0], features=REPO.services[0].features[:-1])
    registry.change(replace(REPO, services=(fewer, REPO.services[1])))
    assert kept(first) == [True, True, False, True]

    second = plans()
    changed = with_feature(MERCHANT_ACTIVITY, windowed("count", None, WEEK, ValueType.INT64))
    payments.catalog.promote(payments.catalog.register(changed))
    assert kept(second) == [False, True, False, False]

    third = plans()
    profile_view = replace(REPO.plain_views[0], ttl_ms=None)
    registry.change(replace(registry.repo, plain_views=(profile_view,)))
    assert kept(third) == [True, False, False, True]

    fourth = plans()
    registry.change(replace(registry.repo, project="another"))
    assert kept(fourth) == [False] * 4


def test_requests_fail_and_recover_with_the_store(
    own_redis: RedisServer, own_store: RedisStore, registry: RegistryInMemory
) -> None:
    """Store down: UNAVAILABLE and NOT_SERVING. Store back: both mend themselves, a client's retry bridges the gap."""
    clock = ManualClock(now_ms=NOW_MS)
    Payments(own_store, clock).write(MERCHANT_ACTIVITY, [event_of(b"7", NOW_MS - 5)])
    server = FeatureServer(registry, own_store, SystemClock(), ServerSettings(port=0))
    with (
        LookupClient(f"127.0.0.1:{server.port}") as client,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        health: Any = health_pb2_grpc.HealthStub(channel)

        def is_serving() -> bool:
            answer = health.Check(health_pb2.HealthCheckRequest(service="featurestore.v1.FeatureLookup"), timeout=30)
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

        assert is_serving()
        own_redis.process.kill()
        with pytest.raises(OnlineStoreDown):
            client.lookup("merchant_monitoring", {"merchant_id": 7}, timeout_s=3)
        eventually(lambda: not is_serving())
        own_redis.restart()
        Payments(connect(own_redis.url), clock).write(MERCHANT_ACTIVITY, [event_of(b"7", NOW_MS - 5)])
        assert client.lookup("merchant_monitoring", {"merchant_id": 7}, timeout_s=WAIT_SECONDS).row_count == 1
        eventually(is_serving)
    server.stop(drain_seconds=1.0)


def test_a_store_that_lost_everything_is_told_from_an_empty_one(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock
) -> None:
    """Not zeros under SERVING: the views are not answered, health and metrics say so, and a refilled store heals it."""
    server = FeatureServer(registry, payments.store, clock, ServerSettings(port=0), metrics_port=0)
    try:
        with (
            grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
            LookupClient(f"127.0.0.1:{server.port}", timeout_s=30) as client,
        ):
            health: Any = health_pb2_grpc.HealthStub(channel)

            def is_serving() -> bool:
                answer = health.Check(health_pb2.HealthCheckRequest(), timeout=30)
                return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

            eventually(is_serving)
            assert "featurestore_newest_event_time_seconds{" in _metrics(server)
            payments.store._client().flushdb()
            eventually(lambda: not is_serving())
            lost = client.lookup("merchant_monitoring", {"merchant_id": 7})
            assert "featurestore_online_store_up 0.0" in _metrics(server)
            anew = Payments(payments.store, clock)
            for view, key in ((MERCHANT_ACTIVITY, b"7"), (CARD_ACTIVITY, b"c-1"), (PAIR_ACTIVITY, b"3:c-11:7")):
                anew.write(view, [event_of(key, NOW_MS - 7)])
            eventually(is_serving)
    finally:
        server.stop(drain_seconds=0)

    statuses = {lost.status(name)[0] for name in lost.names}
    assert {FeatureStatus.NOT_READY} == statuses


def test_a_store_that_evicts_shows_in_the_metrics(payments: Payments, registry: RegistryInMemory) -> None:
    """Whoever is on duty sees it before a value is wrong."""
    admin = payments.store._client()
    admin.config_set("maxmemory-policy", "allkeys-lru")
    admin.config_set("maxmemory", 1 << 30)
    try:
        server = FeatureServer(registry, payments.store, SystemClock(), ServerSettings(port=0), metrics_port=0)
        shown = _metrics(server)
        server.stop(drain_seconds=0)
    finally:
        admin.config_set("maxmemory", 0)
        admin.config_set("maxmemory-policy", "noeviction")

    assert "featurestore_online_store_evicts 1.0" in shown
    assert "featurestore_online_store_evicted_keys 0.0" in shown


def _metrics(server: FeatureServer) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=30) as page:
        return str(page.read().decode())
