"""The server's Prometheus metrics, each declared once, units in the names."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from featurestore.online.eviction import StoreMemory
from featurestore.serving.answer_counts import AGE_BOUNDS_MS, LATENCY_BOUNDS_NS, AnswerCounts
from featurestore.serving.request.usage.counts import Used

LATENCY_BUCKETS_S = (0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)
"""From a lookup that hits everything to one that waited for its deadline."""

_NS_PER_SECOND = 1_000_000_000
_MS_PER_SECOND = 1_000


class ServerMetrics:
    """What the lookup server counts. One instance a server; instances do not share a registry.

    Attributes:
        registry: prometheus_client's.
        answers: counts what is answered.
    """

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
            "From a request's arrival to its answer, waiting for its turn and for the store included; not of refusals.",
            ("method",),
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self._refusals = Counter(
            "featurestore_refusals",
            "Requests refused before any work, by what was full: the queue of small or of large ones, or a client's or "
            "feature service's share.",
            ("full",),
            registry=self.registry,
        )
        self._refusals_of: dict[str, Counter] = {}
        self._waiting = Gauge(
            "featurestore_waiting_requests", "Requests that wait for their turn.", ("size",), registry=self.registry
        )
        self.answers = AnswerCounts()
        self.registry.register(_Answered(self.answers))
        self._logged_rows = Counter(
            "featurestore_feature_log_rows",
            "Sampled rows, by what became of them: written, or dropped because the queue was full; of shadows, "
            "shadow_dropped likewise, or shadow_failed.",
            ("outcome",),
            registry=self.registry,
        )
        self._log_failures = Counter(
            "featurestore_feature_log_failures", "Writes of the feature log that failed.", registry=self.registry
        )
        self._count_functions()
        self._count_usage()
        self._store_up = Gauge(
            "featurestore_online_store_up", "1 when the online store answered the last poll.", registry=self.registry
        )
        self._registry_up = Gauge(
            "featurestore_registry_up", "1 when the registry was readable at the last poll.", registry=self.registry
        )
        self._newest_event_seconds = Gauge(
            "featurestore_newest_event_time_seconds",
            "Event time of the newest event that a view's serving generation has applied, seconds since 1970.",
            ("view",),
            registry=self.registry,
        )
        self._evicted_keys = Gauge(
            "featurestore_online_store_evicted_keys",
            "Keys that the store's servers have evicted since they began. Any of ours makes values wrong.",
            registry=self.registry,
        )
        self._evicts = Gauge(
            "featurestore_online_store_evicts", "1 when the store evicts keys once it is full.", registry=self.registry
        )
        self._services = Gauge(
            "featurestore_feature_services", "Feature services that are served.", registry=self.registry
        )

    def observer(self, method: str) -> Callable[[str, int | None], None]:
        """A function that counts one request of a method: takes its gRPC status name and its latency in ns, if any.

        Children are looked up once, since `labels()` costs more than counting.
        """
        latency = self._latency_seconds.labels(method)
        by_status = {"OK": self._requests.labels(method, "OK")}

        def observe(status: str, latency_ns: int | None) -> None:
            counter = by_status.get(status)
            if counter is None:
                counter = by_status[status] = self._requests.labels(method, status)
            counter.inc()
            if latency_ns is not None:
                latency.observe(latency_ns / _NS_PER_SECOND)

        return observe

    def count_refusal(self, full: str) -> None:
        """Count a request that was refused before any work."""
        # Looked up once: see `observer`. A server refuses more often than it answers.
        counter = self._refusals_of.get(full)
        if counter is None:
            counter = self._refusals_of[full] = self._refusals.labels(full)
        counter.inc()

    def watch_waiting(self, size: str, count: Callable[[], int]) -> None:
        """Show what a function counts whenever somebody looks."""
        self._waiting.labels(size).set_function(count)

    def count_logged_rows(self, outcome: str, row_count: int) -> None:
        """Count rows of the feature log."""
        self._logged_rows.labels(outcome).inc(row_count)

    def count_log_failure(self) -> None:
        """Count a write of the feature log that failed."""
        self._log_failures.inc()

    def _count_functions(self) -> None:
        """Python functions of on-demand views."""
        self._function_seconds = Histogram(
            "featurestore_on_demand_function_seconds",
            "What the Python function of an on-demand view took for a request.",
            ("view",),
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self._function_failures = Counter(
            "featurestore_on_demand_function_failures",
            "Requests for which the Python function of an on-demand view failed.",
            ("view",),
            registry=self.registry,
        )

    def count_function(self, view: str, latency_ns: int, *, has_failed: bool) -> None:
        """Count a run of an on-demand view's function."""
        self._function_seconds.labels(view).observe(latency_ns / _NS_PER_SECOND)
        if has_failed:
            self._function_failures.labels(view).inc()

    def _count_usage(self) -> None:
        """What services take, by the team that answers for them, and how the log of it fares."""
        labels = ("owner", "service")
        self._used = [
            Counter(f"featurestore_usage_{name}", text, labels, registry=self.registry)
            for name, text in (
                ("requests", "Lookups, by the team that owns the feature service; counted once a minute."),
                ("rows", "Entity rows answered, likewise."),
                ("bytes", "Bytes of answers, likewise."),
                ("cpu_seconds", "Time of the processor that lookups took, likewise; the protocol's is not in it."),
            )
        ]
        self._audit_waiting = Gauge(
            "featurestore_audit_waiting_lines", "Lines that wait for the audit log.", registry=self.registry
        )
        self._audit_lost = Gauge(
            "featurestore_audit_lost_lines",
            "Lines that were given up, because too many waited for an audit log that could not be written.",
            registry=self.registry,
        )
        self._audit_failures = Counter(
            "featurestore_audit_failures", "Writes of the audit log that failed.", registry=self.registry
        )

    def count_used(self, owner: str, service: str, used: Used) -> None:
        """Count what was used of a service."""
        amounts = (used.requests, used.rows, used.answer_bytes, used.worked_ns / _NS_PER_SECOND)
        for counter, amount in zip(self._used, amounts, strict=True):
            counter.labels(owner, service).inc(amount)

    def show_audit(self, waiting: int, lost: int, *, has_failed: bool) -> None:
        """How the audit log fares."""
        self._audit_waiting.set(waiting)
        self._audit_lost.set(lost)
        if has_failed:
            self._audit_failures.inc()

    def show_state(self, *, store_up: bool, registry_up: bool, service_count: int) -> None:
        """What the last poll found."""
        self._store_up.set(store_up)
        self._registry_up.set(registry_up)
        self._services.set(service_count)

    def show_store(self, newest_event_ms: Mapping[str, int], memory: StoreMemory | None) -> None:
        """What the last poll found in the store."""
        self._newest_event_seconds.clear()
        for view, time_ms in newest_event_ms.items():
            self._newest_event_seconds.labels(view).set(time_ms / 1_000)
        if memory is not None:
            self._evicted_keys.set(memory.evicted_keys)
            self._evicts.set(memory.evicts)


class _Answered(Collector):
    """What was answered, by feature service and by view, as prometheus_client wants it.

    Args:
        answers: the counts.
    """

    def __init__(self, answers: AnswerCounts) -> None:
        self._answers = answers

    def collect(self) -> Iterator[Metric]:
        """All of it, as it is now."""
        rows = CounterMetricFamily("featurestore_rows", "Entity rows answered.", labels=("service",))
        latency = HistogramMetricFamily(
            "featurestore_feature_service_latency_seconds",
            "From the beginning of a lookup's work to its answer, the store's included; not the wait for a turn.",
            labels=("service",),
        )
        for service in self._answers.services():
            rows.add_metric((service.name,), service.rows)
            bounds_s = [bound / _NS_PER_SECOND for bound in LATENCY_BOUNDS_NS]
            sum_s = service.latency_sum_ns / _NS_PER_SECOND
            latency.add_metric((service.name,), _cumulative(bounds_s, service.latencies), sum_s)
        values = CounterMetricFamily(
            "featurestore_view_values", "Values answered, by their status.", labels=("view", "status")
        )
        ages = HistogramMetricFamily(
            "featurestore_view_age_seconds",
            "Age of the newest event behind the values of an entity row, when they were read.",
            labels=("view",),
        )
        for view in self._answers.views():
            for status, count in view.values.items():
                values.add_metric((view.name, status.name), count)
            bounds_s = [bound / _MS_PER_SECOND for bound in AGE_BOUNDS_MS]
            ages.add_metric((view.name,), _cumulative(bounds_s, view.ages), view.age_sum_ms / _MS_PER_SECOND)
        yield from (rows, latency, values, ages)


def _cumulative(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Counts of buckets as Prometheus has them: each with all that is below it."""
    names = [*map(str, bounds), "+Inf"]
    return list(zip(names, itertools.accumulate(counts), strict=True))
