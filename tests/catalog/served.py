"""A feature log of a service, with a drift that was found in it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from featurestore.core.spec import Column, ValueType
from featurestore.offline.health.baselines import compare, keep_baseline, keep_report
from featurestore.offline.health.drift import Limits
from featurestore.offline.health.gather import served_profile
from featurestore.offline.parity.feature_log import FeatureLogWriter, LoggedFeature, LoggedView, LogLayout
from featurestore.offline.parity.log_directory import LogDirectory

HOUR_MS = 3_600_000
ROWS = 250

SERVICE, VIEW, FEATURE = "card_check", "card_activity", "declines_1h"


def served_log(directory: Path, now_ms: int) -> Path:
    """Answers of an hour ago, which are the baseline, and of now, which are ten times as large."""
    log, writer = LogDirectory(directory), FeatureLogWriter(LogDirectory(directory), "token", roll_seconds=0)
    layout = LogLayout(
        SERVICE,
        (Column("card_id", ValueType.STRING),),
        (LoggedFeature(VIEW, FEATURE, ValueType.INT64),),
        (LoggedView(VIEW, "d" * 32),),
    )
    now_ms = now_ms // HOUR_MS * HOUR_MS
    for number, (at_ms, factor) in enumerate(((now_ms - 5 * HOUR_MS, 1), (now_ms, 10))):
        writer.write(layout, _rows(layout, at_ms, factor), 0)
        writer.advance(number)
    baseline = served_profile(log, service=SERVICE, since_ms=0, until_ms=now_ms)
    keep_baseline(log, SERVICE, baseline, "what was served", now_ms)
    keep_report(log, compare(log, SERVICE, now_ms, Limits()).report)
    return directory


def _rows(layout: LogLayout, at_ms: int, factor: int) -> pa.Table:
    """ROWS answers of one moment."""
    columns = {
        "card_id": [f"c-{number}" for number in range(ROWS)],
        f"{VIEW}__{FEATURE}": [factor * (number % 5) for number in range(ROWS)],
        f"{VIEW}__{FEATURE}__status": [1] * ROWS,
        "__log_timestamp": [at_ms * 1_000] * ROWS,
        "__log_date": [datetime.fromtimestamp(at_ms / 1_000, UTC).date()] * ROWS,
        "__as_of_ms": [at_ms] * ROWS,
    }
    schema = layout.schema
    arrays = [
        pa.array(columns[field.name]).cast(field.type) if field.name in columns else pa.nulls(ROWS, field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)
