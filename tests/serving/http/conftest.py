"""Servers that speak HTTP beside gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from tests.serving.http.caller import Caller
from tests.serving.payments import Payments, RegistryInMemory


class Start(Protocol):
    """Starts a server with the given settings."""

    def __call__(self, **settings: Any) -> FeatureServer:
        """One more."""
        ...


@pytest.fixture
def start(payments: Payments, registry: RegistryInMemory, clock: ManualClock) -> Iterator[Start]:
    """Starts servers with metrics, and stops them in the end."""
    started: list[FeatureServer] = []

    def begin(**settings: Any) -> FeatureServer:
        own = ServerSettings(port=0, **settings)
        server = FeatureServer(registry, payments.store, clock, own, metrics_port=0, http_port=0)
        started.append(server)
        return server

    yield begin
    for server in started:
        server.stop(drain_seconds=1.0)


@pytest.fixture
def server(start: Start) -> FeatureServer:
    """A running server."""
    return start()


@pytest.fixture
def caller(server: FeatureServer) -> Iterator[Caller]:
    """A connection to it."""
    with Caller(server) as connected:
        yield connected
