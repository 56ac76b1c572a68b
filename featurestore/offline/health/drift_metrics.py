"""What a drift report tells Prometheus: a file for the textfile collector of its node exporter.

A comparison runs now and then, from cron say, so there is no process of it that could be scraped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from featurestore.offline.disk import SHARED_FILE_MODE, complete_file, make_directory
from featurestore.offline.health.drift import DriftReport

DISTANCE, DRIFTED, CHECKED = (
    "featurestore_feature_drift_distance",
    "featurestore_feature_drifted",
    "featurestore_drift_checked_time_seconds",
)

_HELP = {
    DISTANCE: "From the baseline: psi, ks, js.",
    DRIFTED: "1 where a distance is beyond its limit.",
    CHECKED: "When the service was compared, seconds since 1970.",
}

_MS_PER_SECOND = 1_000


def write_metrics(path: Path, report: DriftReport) -> None:
    """Put a report's figures in the place of those before.

    Raises:
        OSError: the file cannot be written; the one before stays.
    """
    lines = [line for name in _HELP for line in _lines(name, report)]
    make_directory(path.absolute().parent)
    # Another user's program reads it; there is nothing of a person in it.
    with complete_file(path, SHARED_FILE_MODE) as unfinished:
        unfinished.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _lines(name: str, report: DriftReport) -> Iterator[str]:
    """A metric in Prometheus's text format."""
    yield f"# HELP {name} {_HELP[name]}"
    yield f"# TYPE {name} gauge"
    for labels, value in _samples(name, report):
        # Of what JSON escapes in a text, Prometheus knows what names can have: quotes, backslashes and line ends.
        texts = ",".join(f"{label}={json.dumps(text, ensure_ascii=False)}" for label, text in labels.items())
        yield f"{name}{{{texts}}} {value!r}"


def _samples(name: str, report: DriftReport) -> Iterator[tuple[Mapping[str, str], float]]:
    """Labels and value of each."""
    service = {"service": report.service}
    if name == CHECKED:
        yield service, report.at_ms / _MS_PER_SECOND
        return
    for one in report.features:
        labels = service | {"view": one.view, "feature": one.feature, "window": one.window}
        if name == DRIFTED:
            yield labels, float(one.is_drifted)
            continue
        for statistic in ("psi", "ks", "js"):
            if (distance := getattr(one, statistic)) is not None:
                yield labels | {"statistic": statistic}, float(distance)
