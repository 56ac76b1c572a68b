"""Moments and values as pages write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from featurestore.core.spec import ValueType


def moment_text(moment_ms: int) -> str:
    """A moment in UTC, to the millisecond."""
    moment = datetime.fromtimestamp(0, tz=UTC) + timedelta(milliseconds=moment_ms)
    return moment.strftime("%Y-%m-%d %H:%M:%S.") + f"{moment_ms % 1_000:03}"


def value_text(value: object, value_type: ValueType | None = None) -> str:
    """A value for people."""
    if value is None:
        return "null"
    if value_type is ValueType.TIMESTAMP and isinstance(value, int):
        return moment_text(value)
    if isinstance(value, float):
        return f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.2f}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {value_text(one)}" for key, one in value.items()) or "(empty)"
    if isinstance(value, list):
        return ", ".join(map(value_text, value)) or "(empty)"
    return str(value)
