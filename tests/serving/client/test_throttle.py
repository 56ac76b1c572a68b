"""Holding back: what a client sends to a server that refuses, on a clock that is driven."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from featurestore.errors import Overloaded
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.client.throttle import Throttle
from featurestore.serving.request.admission import AdmissionSettings
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from tests.serving.crowds import crowd_of, metrics_of
from tests.serving.payments import NOW_MS, Payments, RegistryInMemory

STEP_MS = 1

QUEUE = 50
"""Calls that the server lets wait."""


class Crowd:
    """Calls at a steady rate to a server that answers so many a second, and refuses the others."""

    def __init__(self) -> None:
        self.clock = ManualClock(now_ms=NOW_MS)
        self.throttle = Throttle(self.clock, random.Random(7))
        self.sent = self.answered = self.held_back = 0

    def ask(self, seconds: int, *, per_ms: int, capacity_per_ms: float) -> None:
        """So many calls each millisecond; counts anew."""
        self.sent = self.answered = self.held_back = 0
        room = 0.0
        for _ in range(seconds * 1_000 // STEP_MS):
            self.clock.advance_ms(STEP_MS)
            room = min(room + capacity_per_ms, QUEUE)
            for _ in range(per_ms):
                try:
                    self.throttle.check()
                except Overloaded:
                    self.held_back += 1
                    continue
                self.sent += 1
                if room >= 1:
                    room -= 1
                    self.answered += 1
                    self.throttle.answered()
                else:
                    self.throttle.refused()


def test_nothing_is_held_back_while_everything_is_answered() -> None:
    """Not even the first call, nor at any rate."""
    crowd = Crowd()
    crowd.ask(5, per_ms=3, capacity_per_ms=3)

    assert crowd.held_back == 0


@pytest.mark.parametrize("times", [2, 3, 10])
def test_little_more_is_sent_than_is_answered(times: int) -> None:
    """Whatever is asked for; and the server has always enough to do."""
    crowd = Crowd()
    crowd.ask(10, per_ms=times, capacity_per_ms=1)
    crowd.ask(10, per_ms=times, capacity_per_ms=1)

    assert crowd.sent <= 1.4 * crowd.answered
    assert crowd.answered >= 0.9 * 10_000
    assert crowd.held_back > 0


def test_a_server_that_takes_everything_again_is_found_out() -> None:
    """Some seconds later nothing is held back any more."""
    crowd = Crowd()
    crowd.ask(10, per_ms=3, capacity_per_ms=0.5)
    assert crowd.held_back > 0
    crowd.ask(20, per_ms=3, capacity_per_ms=3)
    crowd.ask(5, per_ms=3, capacity_per_ms=3)

    assert crowd.held_back == 0


def test_a_server_that_refuses_everything_is_asked_now_and_then() -> None:
    """Else nobody would hear that it takes calls again."""
    crowd = Crowd()
    crowd.ask(10, per_ms=1, capacity_per_ms=0)

    assert 0 < crowd.sent < 100


@pytest.mark.parametrize("io", ["sync", "aio"])
def test_a_client_does_not_send_what_would_be_refused(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, io: str
) -> None:
    """A server that lets nobody else in hears of few of three hundred calls, and each is `Overloaded` all the same."""
    limits = AdmissionSettings(service_max={"merchant_monitoring": 1})
    server = FeatureServer(
        registry, payments.store, clock, ServerSettings(port=0, io=io, admission=limits), metrics_port=0
    )
    with crowd_of(server, monkeypatch, 1) as crowd, LookupClient(f"127.0.0.1:{server.port}", timeout_s=30) as client:
        crowd.ask()
        crowd.wait_until_in_store(1)
        messages = Counter(_refusal_of(client) for _ in range(300))
        crowd.go.set()
    refused = re.search(r'featurestore_refusals_total\{full="feature service"\} (\S+)', metrics_of(server))
    server.stop(drain_seconds=1.0)

    assert refused is not None
    assert messages["the call was not sent: the server refuses most of what it is asked"] == 300 - float(refused[1])
    assert 0 < float(refused[1]) < 100


def _refusal_of(client: LookupClient) -> str:
    """What a lookup is told."""
    with pytest.raises(Overloaded) as raised:
        client.lookup("merchant_monitoring", {"merchant_id": 7})
    return raised.value.message
