"""Rules for Prometheus: an alert for what needs somebody, and for each promise of freshness what burns its budget.

    target 99 % over 30 days: one event in a hundred may be late
    page     14.4 times that in an hour and in 5 minutes      a fiftieth of the month's budget is gone in an hour
             6 times in 6 hours and in 30 minutes             a twentieth in six hours
    ticket   once in 3 days and in 6 hours                    a tenth in three days

The short window of each pair ends the alert soon after the cause. Who owns a view, and whom to reach, are labels, so
that Alertmanager can route by them.

Source: Google, "The Site Reliability Workbook", chapter 5, "Alerting on SLOs": several windows and burn rates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import yaml

from featurestore.core.spec import FreshnessPromise, RepoSpec, ViewSpec
from featurestore.core.windows.durations import format_duration
from featurestore.definitions.governance.about import About, about_of
from featurestore.wire.feast.authors import Authored, authored_in

BURNS = (("1h", "5m", 14.4, "page"), ("6h", "30m", 6.0, "page"), ("3d", "6h", 1.0, "ticket"))
"""Long window, short window, how many times faster than over 30 days the budget goes, severity."""

WINDOWS = ("5m", "30m", "1h", "6h", "3d", "30d")

LATE_SHARE = "featurestore:freshness_late:share"
"""Recorded for each view and window: LATE_SHARE + window."""

STILL_FOR = "5m"


@dataclass(frozen=True, slots=True)
class Alert:
    """An alerting rule.

    Attributes:
        name: of the alert.
        expr: PromQL; fires while it has a result.
        for_: how long first.
        severity: "page", or "ticket" for what can wait for the morning.
        summary: what is the matter.
        remedy: what to do.
        labels: beside the severity.
    """

    name: str
    expr: str
    for_: str
    severity: str
    summary: str
    remedy: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def rule(self) -> dict[str, object]:
        """As Prometheus has it."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.for_,
            "labels": {"severity": self.severity, **self.labels},
            "annotations": {"summary": self.summary, "description": self.remedy},
        }


OF_ALL = (
    Alert(
        "FeatureServerRefuses",
        "sum by (full) (rate(featurestore_refusals_total[5m])) > 0",
        "1m",
        "page",
        "lookups are refused: {{ $labels.full }} is full",
        "add servers or processes; docs/operations.md, Too many requests",
    ),
    Alert(
        "FeatureLookupsFail",
        'sum by (status) (rate(featurestore_requests_total{status=~"INTERNAL|DATA_LOSS|UNAVAILABLE"}[5m])) > 0',
        "1m",
        "page",
        "lookups end with {{ $labels.status }}",
        "featurestore doctor says what is damaged; the server's log has the errors",
    ),
    Alert(
        "OnlineStoreDown",
        "min(featurestore_online_store_up) == 0",
        "30s",
        "page",
        "a server cannot reach the online store",
        "see whether the store runs, and whether its address and credentials are right",
    ),
    Alert(
        "OnlineStoreEvicts",
        "max(featurestore_online_store_evicts) == 1",
        "1m",
        "page",
        "the online store evicts keys when it is full, which makes values wrong",
        "CONFIG SET maxmemory-policy noeviction, and give it memory",
    ),
    Alert(
        "FeatureRegistryUnreadable",
        "min(featurestore_registry_up) == 0",
        "5m",
        "ticket",
        "a server cannot read the registry, and goes on with what it knows",
        "see whether the registry's file or database can be reached",
    ),
    Alert(
        "FeatureEntitiesDamaged",
        "sum by (view) (increase(featurestore_stream_entities_set_aside_total[15m])) > 0",
        "0s",
        "page",
        "stored bytes of entities of {{ $labels.view }} are damaged, and refused",
        "another generation fills; featurestore doctor says how far it is",
    ),
    Alert(
        "FeatureDeadLetters",
        "sum by (topic, reason) (increase(featurestore_stream_dead_letters_total[15m])) > 0",
        "5m",
        "ticket",
        "records of {{ $labels.topic }} cannot be used: {{ $labels.reason }}",
        "featurestore dead-letters list",
    ),
    Alert(
        "SourceHourUnusual",
        "sum by (source, measure) (increase(featurestore_contract_unusual_hours_total[15m])) > 0",
        "0s",
        "ticket",
        "an hour of {{ $labels.source }} is not like the same hour of other days: {{ $labels.measure }}",
        "featurestore status; ask the source's owner",
    ),
    Alert(
        "FeatureDrifts",
        'max by (service, view, feature) (featurestore_feature_drifted{window="1d"}) == 1',
        "0s",
        "ticket",
        "{{ $labels.view }}:{{ $labels.feature }} is not what {{ $labels.service }} was trained on",
        "featurestore drift check {{ $labels.service }} --html drift.html",
    ),
    Alert(
        "FeatureDriftUnchecked",
        "time() - max by (service) (featurestore_drift_checked_time_seconds) > 7200",
        "5m",
        "ticket",
        "nobody has compared {{ $labels.service }} with its baseline for two hours",
        "see whether featurestore drift check --metrics runs every hour",
    ),
    Alert(
        "FeatureLogFails",
        "increase(featurestore_feature_log_failures_total[15m]) > 0",
        "5m",
        "ticket",
        "answers cannot be logged",
        "see whether the feature log's disk or store has room and can be reached",
    ),
)
"""Alerts that know no view."""


def rules_text(spec: RepoSpec, registry: bytes) -> str:
    """A file for `rule_files` of Prometheus.

    Args:
        spec: a project, compiled.
        registry: the serialized feast.core.Registry that it was compiled from.
    """
    said = {one.name: one for one in authored_in(registry, spec.project) if one.kind == "feature view"}
    groups: list[dict[str, object]] = [{"name": "featurestore", "rules": [one.rule() for one in OF_ALL]}]
    if spec.promises:
        alerts = [one for promise in spec.promises for one in _alerts(promise, spec, said)]
        # In one group, which Prometheus evaluates from the top to the bottom: alerts see what was recorded just now.
        groups.append({"name": "featurestore-freshness", "rules": [*_records(), *(one.rule() for one in alerts)]})
    head = f"# Of project {spec.project}, by `featurestore monitoring`: run it again after an apply.\n"
    return head + yaml.safe_dump({"groups": groups}, sort_keys=False, width=1_000)


def _records() -> Iterator[dict[str, object]]:
    """Share of late events of each view, over each window."""
    for window in WINDOWS:
        late, events = (
            f"sum by (view) (increase(featurestore_freshness_{name}_total[{window}]))"
            for name in ("late_events", "events")
        )
        yield {"record": f"{LATE_SHARE}{window}", "expr": f"{late} / ({events} > 0)"}


def _alerts(promise: FreshnessPromise, spec: RepoSpec, said: Mapping[str, Authored]) -> Iterator[Alert]:
    """Of a promise: the budget burns, nothing is committed while there is something to read, no stream runs."""
    view = spec.view(promise.view)
    assert view is not None, "promises are of stream views"
    about = about_of(said.get(promise.view, Authored("feature view", promise.view)))
    labels = {"view": promise.view, **_contact(about)}
    name, fresh = json.dumps(promise.view), format_duration(promise.freshness_ms)
    urgent = "ticket" if about.tier in ("3", "4") else "page"
    for long, short, burn, severity in BURNS:
        bound = f"{min(1.0, burn * (1 - promise.target)):.6g}"
        shares = [f"{LATE_SHARE}{window}{{view={name}}} >= {bound}" for window in (long, short)]
        yield Alert(
            "FreshnessBudgetBurns",
            " and ".join(shares),
            "1m",
            urgent if severity == "page" else severity,
            f"events of {promise.view} take longer than {fresh}: "
            f"{{{{ $value | humanizePercentage }}}} in {long}, {burn:g} times what {promise.target:.6g} leaves",
            "featurestore status; lag and commit time of the stream say where it waits",
            {**labels, "window": long},
        )
    topics = "|".join(re.escape(topic) for topic in _topics(view))
    yield Alert(
        "FreshnessStandsStill",
        f"sum(featurestore_stream_lag_records{{topic=~{json.dumps(topics)}}}) > 0 and on() "
        f"sum(increase(featurestore_freshness_events_total{{view={name}}}[{STILL_FOR}])) == 0",
        "1m",
        urgent,
        f"{promise.view} has events to read, and commits none",
        "the stream's log says what it waits for: the source, the store, or a schema",
        labels,
    )
    yield Alert(
        "FreshnessUnmeasured",
        f"absent(featurestore_freshness_promise_seconds{{view={name}}})",
        STILL_FOR,
        urgent,
        f"no stream says how fresh {promise.view} is",
        "start the stream with --metrics-port, and let Prometheus scrape it",
        labels,
    )


def _contact(about: About) -> dict[str, str]:
    """Labels that say whose it is."""
    found = {"owner": about.owner, "on_call": about.on_call, "tier": about.tier}
    return {name: text for name, text in found.items() if text}


def _topics(view: ViewSpec) -> Sequence[str]:
    """What it reads."""
    return view.source.topics
