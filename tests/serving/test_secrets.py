"""What callers are not told: where the store is, and how one gets into it."""

from typing import Any

import grpc
import pytest

from featurestore.clock import SystemClock
from featurestore.errors import InvalidRequest, redacted
from featurestore.online.redis.store import RedisStore
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from featurestore.testing.servers import redis_server
from tests.serving.payments import MERCHANT_ACTIVITY, NOW_MS, Payments, RegistryInMemory, event_of

SECRET = "topsecret"

both_servers = pytest.mark.parametrize("io", ["sync", "aio"])


@pytest.mark.parametrize(
    "address",
    [
        f"redis://user:{SECRET}@10.0.0.7:6379/0",
        f"rediss://:a@{SECRET}@10.0.0.7:6379/0",
        f"redis://10.0.0.7:6379/0?password={SECRET}",
        f"redis://10.0.0.7:6379/0?db=1&PASSWORD=a@{SECRET}&ssl=1",
        f"10.0.0.7:6379,password={SECRET},ssl=true",
        f"postgresql+psycopg://user:{SECRET}@10.0.0.7/registry",
    ],
)
def test_an_address_is_shown_without_its_password(address: str) -> None:
    """In the authority, in the query, and in Feast's own form; the rest is what an operator looks for."""
    shown = redacted(address)

    assert SECRET not in shown
    assert "10.0.0.7" in shown


@pytest.mark.parametrize("address", [f"10.0.0.7:6379,password={SECRET}", f"redis://:{SECRET}/x@10.0.0.7:6379/0"])
def test_an_address_that_cannot_be_used_is_refused_without_its_password(address: str) -> None:
    """The library quotes the part that it stumbled over."""
    with pytest.raises(InvalidRequest) as raised:
        RedisStore(address)

    assert SECRET not in str(raised.value)


@both_servers
def test_callers_are_told_that_the_store_is_down_and_not_where_it_is(registry: RegistryInMemory, io: str) -> None:
    """Neither before the store has ever answered, nor when it stops to; the log names it."""
    texts = []
    with redis_server() as redis:
        store = RedisStore(f"redis://127.0.0.1:{redis.port}/0?password=")
        payments = Payments(store, ManualClock(now_ms=NOW_MS))
        payments.write(MERCHANT_ACTIVITY, [event_of(b"7", NOW_MS - 5)])
        server = FeatureServer(registry, store, SystemClock(), ServerSettings(port=0, io=io))
        redis.process.kill()
        texts.append(_refusal(server))
        server.stop(drain_seconds=1.0)
        port = redis.port
    down = RedisStore(f"redis://user:{SECRET}@127.0.0.1:{port}/0")
    server = FeatureServer(registry, down, SystemClock(), ServerSettings(port=0, io=io))
    texts.append(_refusal(server))
    server.stop(drain_seconds=1.0)

    for text in texts:
        assert "the online store" in text
        assert not any(part in text for part in ("127.0.0.1", str(port), SECRET, "redis"))


def _refusal(server: FeatureServer) -> str:
    """What a caller reads."""
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call: Any = channel.unary_unary("/featurestore.v1.FeatureLookup/Lookup")
        with pytest.raises(grpc.RpcError) as raised:
            # Field 1, the feature service; field 2, a column of merchant ids.
            call(b"\x0a\x13merchant_monitoring" + b"\x12\x10\x0a\x0bmerchant_id\x1a\x01\x07", timeout=30)
        failure: Any = raised.value
        assert failure.code() is grpc.StatusCode.UNAVAILABLE
        return str(failure.details())
