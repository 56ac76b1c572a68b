"""Statistics from sketches, against plain Python over all values; kept files, and a log that is erased from."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.core.spec import Column, ValueType
from featurestore.offline.health.kept import digest_of, merged, read_profile, write_profile
from featurestore.offline.health.readers import statistics_of
from featurestore.offline.health.sketches import HOUR_MS, SHARES, FeatureKey, sketch
from featurestore.offline.health.statistics import FeatureStatistics, statistics_of_sketches
from featurestore.offline.parity.feature_log import (
    FeatureLogWriter,
    LoggedFeature,
    LoggedView,
    LogLayout,
    erase_logged,
)
from featurestore.offline.parity.log_directory import LogDirectory

KINDS = {
    ValueType.INT64: (st.integers(-(2**40), 2**40) | st.integers(-3, 3), pa.int64()),
    ValueType.FLOAT64: (st.floats(-1e9, 1e9) | st.sampled_from([0.0, 1.5, math.nan, math.inf]), pa.float64()),
    ValueType.STRING: (st.text(max_size=4), pa.string()),
    ValueType.BOOL: (st.booleans(), pa.bool_()),
    ValueType.INT64_LIST: (st.lists(st.integers(0, 9), max_size=3), pa.list_(pa.int64())),
    ValueType.TIMESTAMP: (st.integers(0, 10**9), pa.timestamp("ms", tz="UTC")),
}


@st.composite
def served(draw: st.DrawFn) -> tuple[ValueType, list[tuple[object, int, bool]], int]:
    """Values of some type with the time and the fate of each, and where the rows are cut into two files."""
    kind = draw(st.sampled_from(list(KINDS)))
    row = st.tuples(st.none() | KINDS[kind][0], st.integers(0, 5 * HOUR_MS), st.booleans())
    rows = draw(st.lists(row, min_size=1, max_size=40))
    return kind, rows, draw(st.integers(0, len(rows)))


def number_of(kind: ValueType, value: object, time_ms: int) -> object:
    """What is counted of a value."""
    if kind is ValueType.TIMESTAMP:
        return time_ms - value  # type: ignore[operator]  # milliseconds
    return len(value) if isinstance(value, list) else value


def naive(kind: ValueType, rows: list[tuple[object, int, bool]]) -> FeatureStatistics:
    """The same, from all values."""
    values = [
        number_of(kind, value, time_ms)
        for value, time_ms, _ in rows
        if value is not None and not (isinstance(value, float) and not math.isfinite(value))
    ]
    hours = [time_ms // HOUR_MS for _, time_ms, _ in rows]
    is_number = kind not in (ValueType.STRING, ValueType.BOOL)
    numbers = sorted(float(one) for one in values) if kind is not ValueType.STRING else []  # type: ignore[arg-type]  # numbers
    ordered = sorted(values)  # type: ignore[type-var]  # alike
    texts = Counter(str(one).lower() if kind is ValueType.BOOL else str(one) for one in ordered)
    return FeatureStatistics(
        "view",
        "feature",
        str(kind),
        min(hours) * HOUR_MS,
        max(hours) * HOUR_MS + HOUR_MS,
        len(rows),
        len(rows) - len(values),
        sum(is_absent for _, _, is_absent in rows),
        numbers.count(0.0) if is_number else None,
        statistics.fmean(numbers) if numbers else None,
        statistics.pstdev(numbers) if numbers and is_number else None,
        min(numbers) if numbers and is_number else None,
        max(numbers) if numbers and is_number else None,
        {str(share): numbers[max(1, math.ceil(share * len(numbers))) - 1] for share in SHARES}
        if numbers and is_number
        else {},
        len(set(values)) if kind is not ValueType.BOOL else None,
        dict(texts.most_common(10)),
    )


@settings(deadline=None, max_examples=40)
@given(served())
def test_statistics_of_merged_files_are_those_of_all_values(
    given_rows: tuple[ValueType, list[tuple[object, int, bool]], int],
) -> None:
    """Counts and extremes exactly, moments but for rounding, quantiles within 1 %; rows by hour."""
    kind, rows, cut = given_rows
    key = FeatureKey("view", "feature", kind)
    parts = [part for part in (rows[:cut], rows[cut:]) if part]

    profiles = []
    for part in parts:
        values = pa.array([value for value, _, _ in part], type=KINDS[kind][1], from_pandas=False)
        times = np.array([time_ms for _, time_ms, _ in part], dtype=np.int64)
        absent = np.array([is_absent for _, _, is_absent in part])
        profiles.append({key: sketch(key, values, times, not_found=absent)})
    together = merged(profiles)
    found, expected = statistics_of_sketches(key, together[key]), naive(kind, rows)

    for name in (
        "since_ms",
        "until_ms",
        "num_rows",
        "num_missing",
        "num_not_found",
        "num_zeros",
        "min",
        "max",
        "unique",
    ):
        assert getattr(expected, name) == getattr(found, name), name
    assert expected.top_values == found.top_values
    for name in ("mean", "std_dev"):
        one, other = getattr(expected, name), getattr(found, name)
        assert (one is None) == (other is None)
        scale = max(abs(expected.min or 0), abs(expected.max or 0), 1.0)
        assert one is None or abs(one - other) <= 1e-6 * scale, name
    assert expected.quantiles.keys() == found.quantiles.keys()
    for share, value in expected.quantiles.items():
        assert abs(found.quantiles[share] - value) <= 0.01 * abs(value) + 1e-12
    for hour in {time_ms // HOUR_MS for _, time_ms, _ in rows}:
        of_hour = together[key].within(hour * HOUR_MS, (hour + 1) * HOUR_MS)
        assert of_hour.rows.tolist() == [sum(time_ms // HOUR_MS == hour for _, time_ms, _ in rows)]


def test_what_is_kept_is_what_was_sketched(tmp_path: Path) -> None:
    """Through Parquet and back; equal sketches have an equal digest, others another one."""
    times = np.arange(500, dtype=np.int64) * 60_000
    keys = {
        FeatureKey("view", "amount", ValueType.FLOAT64): pa.array([n / 7 for n in range(500)]),
        FeatureKey("view", "country", ValueType.STRING): pa.array([f"c-{n % 150}" for n in range(500)]),
        FeatureKey("view", "is_new", ValueType.BOOL): pa.array([n % 3 == 0 for n in range(500)]),
    }
    profile = {key: sketch(key, values, times) for key, values in keys.items()}
    log = LogDirectory(tmp_path)

    write_profile(log, "some/profile.parquet", profile, {"of": "a test"})
    read = read_profile(log, "some/profile.parquet")

    assert read is not None
    assert read[1]["of"] == "a test"
    assert digest_of(profile) == digest_of(read[0])
    assert {key: statistics_of_sketches(key, one) for key, one in profile.items()} == {
        key: statistics_of_sketches(key, one) for key, one in read[0].items()
    }
    assert digest_of({key: one.whole() for key, one in profile.items()}) != digest_of(profile)
    assert (tmp_path / "some" / "profile.parquet").stat().st_size < 40_000


def test_statistics_lie_beside_the_log_and_forget_what_is_erased(tmp_path: Path) -> None:
    """A second look finds what is kept; whoever is erased is in no statistic any more, nor a frequent value."""
    layout = LogLayout(
        "shop",
        (Column("card_id", ValueType.STRING),),
        (LoggedFeature("cards@v2", "country", ValueType.STRING),),
        (LoggedView("cards@v2", "d" * 32),),
    )
    log, writer = LogDirectory(tmp_path), FeatureLogWriter(LogDirectory(tmp_path), "token", roll_seconds=0)
    for number in range(2):
        writer.write(layout, logged_rows(layout, number * HOUR_MS, ["c-1", "c-2"], ["DE", "SECRET"]), 0)
        writer.advance(number)

    first = statistics_of(tmp_path, "cards")
    kept = {path: path.read_bytes() for path in tmp_path.rglob("statistics/**/*.parquet")}
    again = statistics_of(tmp_path, "cards", until_ms=HOUR_MS)
    unchanged = all(path.read_bytes() == content for path, content in kept.items())
    erased = erase_logged(log, "card_id", "c-2", 1 << 60)
    left = list(tmp_path.rglob("statistics/**/*.parquet"))
    after = statistics_of(tmp_path, "cards")

    assert (len(kept), unchanged) == (2, True)
    assert first[0].top_values == {"DE": 2, "SECRET": 2}
    assert (first[0].num_rows, again[0].num_rows, erased) == (4, 2, 2)
    assert after[0].top_values == {"DE": 2}
    assert left == []


def logged_rows(layout: LogLayout, at_ms: int, cards: list[str], countries: list[str]) -> pa.Table:
    """Rows of a log."""
    count = len(cards)
    columns = {
        "card_id": cards,
        "cards@v2__country": countries,
        "cards@v2__country__status": [1] * count,
        "__log_timestamp": [at_ms * 1_000] * count,
        "__log_date": [date(1970, 1, 1)] * count,
        "__as_of_ms": [at_ms] * count,
    }
    schema = layout.schema
    arrays = [
        pa.array(columns[field.name]).cast(field.type) if field.name in columns else pa.nulls(count, field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)
