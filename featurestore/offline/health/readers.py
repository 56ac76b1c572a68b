"""What catalogs and notebooks show: statistics of a view's values as they were served, and drift of a service."""

from __future__ import annotations

from pathlib import Path

from featurestore.offline.health.baselines import read_report
from featurestore.offline.health.drift import DriftReport
from featurestore.offline.health.gather import served_profile
from featurestore.offline.health.statistics import FeatureStatistics, statistics_of_sketches
from featurestore.offline.parity.log_directory import LogDirectory


def statistics_of(
    log: str | Path,
    view: str,
    *,
    service: str | None = None,
    since_ms: int | None = None,
    until_ms: int | None = None,
) -> list[FeatureStatistics]:
    """Of each feature of a view, by name.

    Files of the log that nobody has asked about are read, and their statistics kept beside them: the first time takes
    about a second a million values, the next ones a few milliseconds a file.

    Args:
        log: the feature log.
        view: any kind of view, without a version.
        service: only what this one was answered; None for all.
        since_ms: only from the hour on that this is in.
        until_ms: only before; None for no bound.

    Raises:
        CorruptData, Unavailable, InvalidRequest: the log cannot be read.
    """
    profile = served_profile(LogDirectory(log), service=service, since_ms=since_ms, until_ms=until_ms)
    found = [statistics_of_sketches(key, one) for key, one in profile.items() if key.view == view]
    return sorted(found, key=lambda one: (one.feature, one.type))


def last_drift(log: str | Path, service: str) -> DriftReport | None:
    """What the last `featurestore drift check` of a service found; None before the first.

    Args:
        log: the feature log.
        service: of which there is a baseline.

    Raises:
        CorruptData, Unavailable, InvalidRequest: it cannot be read.
    """
    return read_report(LogDirectory(log), service)
