"""A store with payments in it and a server over it, for every kind of server."""

from collections.abc import Iterator

import grpc
import pytest

from featurestore.online.redis.store import RedisStore, connect
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from featurestore.testing.strategies import DAY_MS
from tests.serving.payments import (
    CARD_ACTIVITY,
    HOUR_MS,
    MERCHANT_ACTIVITY,
    NOW_MS,
    PAIR_ACTIVITY,
    Payments,
    RegistryInMemory,
    event_of,
    timestamp_value,
)


@pytest.fixture
def clock() -> ManualClock:
    """Standing still at NOW_MS, so that deadlines never pass unless a test says so."""
    return ManualClock(now_ms=NOW_MS)


@pytest.fixture
def store(redis_url: str) -> Iterator[RedisStore]:
    """An empty online store."""
    connected = connect(redis_url)
    yield connected
    connected.close()


@pytest.fixture
def payments(store: RedisStore, clock: ManualClock) -> Payments:
    """Two cards and two merchants with a week of events, one profile."""
    written = Payments(store, clock)
    times = [NOW_MS - 9 * DAY_MS, NOW_MS - 3 * DAY_MS, NOW_MS - 2 * HOUR_MS, NOW_MS - 1_801_000, NOW_MS - 7]
    written.write(
        CARD_ACTIVITY,
        [event_of(b"c-1", moment, amount=index * 37 - 20) for index, moment in enumerate(times)]
        + [event_of(b"c-2", times[1], amount=None, market="FR")],
    )
    written.write(MERCHANT_ACTIVITY, [event_of(b"7", moment, price=index / 3) for index, moment in enumerate(times)])
    written.write(PAIR_ACTIVITY, [event_of(b"3:c-11:7", moment) for moment in times])
    written.materialize(
        7,
        NOW_MS - DAY_MS,
        {
            "risk_tier": "high",
            "chargeback_rate": 0.25,
            "onboarding_days": 400,
            "is_online": True,
            "opened_at": timestamp_value(5),
        },
    )
    return written


@pytest.fixture
def registry() -> RegistryInMemory:
    """The payments repo, which a test may change."""
    return RegistryInMemory()


@pytest.fixture(params=["sync", "aio"])
def server(
    request: pytest.FixtureRequest, payments: Payments, registry: RegistryInMemory, clock: ManualClock
) -> Iterator[FeatureServer]:
    """A running server of either kind."""
    started = FeatureServer(registry, payments.store, clock, ServerSettings(port=0, io=request.param))
    yield started
    started.stop(drain_seconds=1.0)


@pytest.fixture
def metered_server(payments: Payments, registry: RegistryInMemory, clock: ManualClock) -> Iterator[FeatureServer]:
    """A running server with a metrics port."""
    started = FeatureServer(registry, payments.store, clock, ServerSettings(port=0), metrics_port=0)
    yield started
    started.stop(drain_seconds=1.0)


@pytest.fixture
def client(server: FeatureServer) -> Iterator[LookupClient]:
    """A client of the server."""
    with LookupClient(f"127.0.0.1:{server.port}", timeout_s=30) as connected:
        yield connected


@pytest.fixture
def channel(server: FeatureServer) -> Iterator[grpc.Channel]:
    """A bare channel to the server."""
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as connected:
        yield connected
