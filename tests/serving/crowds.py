"""Requests that stand still in the store until a test lets them go, and waiting for what comes about."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from featurestore.clock import SystemClock
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.client.result import LookupResult
from featurestore.serving.server import FeatureServer
from tests.serving.store_reads import Groups, before_lookup_reads

PATIENCE_S = 30.0


class Crowd:
    """Lookups of one row, all under way at once."""

    def __init__(self, client: LookupClient, threads: ThreadPoolExecutor) -> None:
        self._client = client
        self._threads = threads
        self.in_store = threading.Semaphore(0)
        self.go = threading.Event()

    def wait(self, _groups: Groups, _timeout_ms: float) -> None:
        """In the store."""
        self.in_store.release()
        assert self.go.wait(PATIENCE_S)

    def ask(self, rows: int = 1) -> Future[LookupResult]:
        """One more."""
        merchants = {"merchant_id": list(range(rows))}
        return self._threads.submit(self._client.lookup, "merchant_monitoring", merchants, timeout_s=PATIENCE_S)

    def wait_until_in_store(self, count: int) -> None:
        """So many have come as far as the store."""
        for _ in range(count):
            assert self.in_store.acquire(timeout=PATIENCE_S)


@contextmanager
def crowd_of(server: FeatureServer, patch: pytest.MonkeyPatch, size: int) -> Iterator[Crowd]:
    """A crowd that may have so many members; let go at the end, whatever happens."""
    address = f"127.0.0.1:{server.port}"
    with ThreadPoolExecutor(size) as threads, LookupClient(address, timeout_s=PATIENCE_S) as client:
        client.lookup("merchant_monitoring", {"merchant_id": 7})
        crowd = Crowd(client, threads)
        before_lookup_reads(patch, crowd.wait)
        try:
            yield crowd
        finally:
            crowd.go.set()


def metrics_of(server: FeatureServer) -> str:
    """What Prometheus sees."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=30) as page:
        text: str = page.read().decode()
    return text


def eventually(holds: Callable[[], bool], what: str) -> None:
    """Wait until something is true."""
    clock = SystemClock()
    give_up_ns = clock.monotonic_ns() + int(PATIENCE_S * 1e9)
    while not holds():
        assert clock.monotonic_ns() < give_up_ns, what
        clock.sleep(0.02)


def stood_still(state: Callable[[], object]) -> None:
    """Wait until something has not changed for a second."""
    clock = SystemClock()
    give_up_ns = clock.monotonic_ns() + int(PATIENCE_S * 1e9)
    last, since_ns = state(), clock.monotonic_ns()
    while clock.monotonic_ns() - since_ns < 1e9:
        assert clock.monotonic_ns() < give_up_ns, f"it goes on and on: {last}"
        clock.sleep(0.02)
        if state() != last:
            last, since_ns = state(), clock.monotonic_ns()
