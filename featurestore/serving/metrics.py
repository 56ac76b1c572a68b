"""The server's Prometheus metrics, each declared once, units in the names."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

LATENCY_BUCKETS_S = (0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)
"""From a lookup that hits everything to one that waited for its deadline."""

_NS_PER_SECOND = 1_000_000_000


class ServerMetrics:
    """What the lookup server counts. One instance a server; instances do not share a registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "featurestore_requests",
            "Requests by method and gRPC status.",
            ("method", "status"),
            registry=self.registry,
        )
        self._latency_seconds = Histogram(
            "featurestore_request_latency_seconds",
            "From the handler's start to its answer, waiting for the store included.",
            ("method",),
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self._rows = Counter("featurestore_rows", "Entity rows answered.", registry=self.registry)
        self._store_up = Gauge(
            "featurestore_online_store_up", "1 when the online store answered the last poll.", registry=self.registry
        )
        self._registry_up = Gauge(
            "featurestore_registry_up", "1 when the registry was readable at the last poll.", registry=self.registry
        )
        self._services = Gauge(
            "featurestore_feature_services", "Feature services that are served.", registry=self.registry
        )

    def observer(self, method: str) -> Callable[[str, int], None]:
        """A function that counts one request of a method: takes its gRPC status name and its latency in ns.

        Children are looked up once, since `labels()` costs more than counting.
        """
        latency = self._latency_seconds.labels(method)
        by_status = {"OK": self._requests.labels(method, "OK")}

        def observe(status: str, latency_ns: int) -> None:
            counter = by_status.get(status)
            if counter is None:
                counter = by_status[status] = self._requests.labels(method, status)
            counter.inc()
            latency.observe(latency_ns / _NS_PER_SECOND)

        return observe

    def count_rows(self, row_count: int) -> None:
        """Count the rows of an answer."""
        self._rows.inc(row_count)

    def show_state(self, *, store_up: bool, registry_up: bool, service_count: int) -> None:
        """What the last poll found."""
        self._store_up.set(store_up)
        self._registry_up.set(registry_up)
        self._services.set(service_count)

    def listen(self, host: str, port: int) -> tuple[int, Callable[[], None]]:
        """Serve /metrics over HTTP.

        Returns:
            The bound port (port 0 takes a free one) and a function that ends the listener.
        """
        server, thread = start_http_server(port, addr=host, registry=self.registry)

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return int(server.server_port), stop
