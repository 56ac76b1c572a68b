"""What a drift report tells Prometheus: a file for the textfile collector of its node exporter.

A comparison runs now and then, from cron say, so there is no process of it that could be scraped.
"""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from featurestore.offline.disk import FILE_MODE, complete_file, make_directory
from featurestore.offline.health.drift import DriftReport

DISTANCE, DRIFTED, CHECKED = (
    "featurestore_feature_drift_distance",
    "featurestore_feature_drifted",
    "featurestore_drift_checked_time_seconds",
)

READABLE_MODE = 0o644
"""Another user's program reads it; there is nothing of a person in it."""

_MS_PER_SECOND = 1_000


def write_metrics(path: Path, report: DriftReport) -> None:
    """Put a report's figures in the place of those before.

    Raises:
        OSError: the file cannot be written; the one before stays.
    """
    registry = CollectorRegistry()
    names = ("service", "view", "feature", "window")
    distance = Gauge(DISTANCE, "From the baseline: psi, ks, js.", (*names, "statistic"), registry=registry)
    drifted = Gauge(DRIFTED, "1 where a distance is beyond its limit.", names, registry=registry)
    checked = Gauge(CHECKED, "When the service was compared, seconds since 1970.", ("service",), registry=registry)
    for one in report.features:
        labels = (report.service, one.view, one.feature, one.window)
        for statistic in ("psi", "ks", "js"):
            if (found := getattr(one, statistic)) is not None:
                distance.labels(*labels, statistic).set(found)
        drifted.labels(*labels).set(one.is_drifted)
    checked.labels(report.service).set(report.at_ms / _MS_PER_SECOND)
    make_directory(path.parent)
    with complete_file(path, FILE_MODE) as unfinished:
        unfinished.write_bytes(generate_latest(registry))
        unfinished.chmod(READABLE_MODE)
