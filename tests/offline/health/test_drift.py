"""Distances from sketches, against plain loops over all values; what is kept of a baseline, and when it is judged."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from featurestore.core.spec import ValueType
from featurestore.errors import CorruptData, InvalidRequest
from featurestore.offline.health.baselines import keep_baseline, read_baseline
from featurestore.offline.health.drift import BINS, ROWS_MIN, SHARE_MIN, DriftReport, Limits, drift_of
from featurestore.offline.health.drift_metrics import CHECKED, DISTANCE, DRIFTED, write_metrics
from featurestore.offline.health.sketches import FeatureKey, Sketches, sketch
from featurestore.offline.parity.log_directory import LogDirectory

Value = float | str | None

APART = [sign * 1.05**power for power in range(0, 60, 2) for sign in (-1, 1)]
"""Numbers that no sketch takes for one another, and so what is said of them is exact."""


def whole(key: FeatureKey, values: Sequence[Value]) -> Sketches:
    """One tile of values."""
    kind = pa.float64() if key.type is ValueType.FLOAT64 else pa.string()
    return sketch(key, pa.array(values, type=kind), np.zeros(len(values), dtype=np.int64)).whole()


def naive_bins(baseline: Sequence[Value], current: Sequence[Value]) -> list[tuple[int, int]]:
    """Rows of both sides in each bin."""
    known = [value for value in baseline if value is not None]
    tests: list[Callable[[Value], bool]] = []
    if any(isinstance(value, str) for value in (*baseline, *current)):
        names = sorted(set(known), key=lambda name: (-known.count(name), str(name)))[:BINS]
        tests += [lambda value, name=name: value == name for name in names]  # type: ignore[misc]  # bound now
        tests.append(lambda value: value is not None and value not in names)
    else:
        ordered = sorted(known)
        ranks = [max(1, math.ceil(tenth * len(ordered) / BINS)) for tenth in range(1, BINS)]
        ends = [-math.inf, *sorted({ordered[rank - 1] for rank in ranks if ordered}), math.inf]
        for low, high in itertools.pairwise(ends):
            tests.append(lambda value, low=low, high=high: value is not None and low < value <= high)  # type: ignore[misc]  # bound now
    tests.append(lambda value: value is None)
    return [(sum(map(test, baseline)), sum(map(test, current))) for test in tests]


def naive_distances(baseline: Sequence[Value], current: Sequence[Value]) -> tuple[float, float]:
    """PSI and JS."""
    stability = divergence = 0.0
    for base, now in naive_bins(baseline, current):
        p, q = base / len(baseline), now / len(current)
        floored = max(p, SHARE_MIN), max(q, SHARE_MIN)
        stability += (floored[1] - floored[0]) * math.log(floored[1] / floored[0])
        for share in (p, q):
            divergence += share * math.log2(share / ((p + q) / 2)) / 2 if share else 0.0
    return stability, math.sqrt(max(0.0, divergence))


def naive_ks(baseline: Sequence[Value], current: Sequence[Value]) -> float | None:
    """Largest difference of the shares below or at any value."""
    sides = [[value for value in side if value is not None] for side in (baseline, current)]
    if not all(sides):
        return None
    return max(
        abs(
            sum(one <= at for one in sides[0]) / len(sides[0])  # type: ignore[operator]  # numbers
            - sum(one <= at for one in sides[1]) / len(sides[1])  # type: ignore[operator]  # numbers
        )
        for at in (*sides[0], *sides[1])
    )


@settings(deadline=None, max_examples=60)
@given(st.data(), st.booleans())
def test_distances_are_those_of_plain_loops(data: st.DataObject, is_text: bool) -> None:
    """Of numbers, negative ones and zero among them, and of texts; with missing values on either side."""
    value: st.SearchStrategy[Value] = st.none() | (
        st.sampled_from("abcdefghijklmno") if is_text else st.sampled_from([0.0, *APART])
    )
    baseline: list[Value]
    current: list[Value]
    baseline, current = (data.draw(st.lists(value, min_size=1, max_size=60)) for _ in range(2))
    key = FeatureKey("view", "feature", ValueType.STRING if is_text else ValueType.FLOAT64)

    found = drift_of(key, whole(key, baseline), whole(key, current), "1h", Limits())

    stability, distance = naive_distances(baseline, current)
    assert found.psi == pytest.approx(stability, abs=1e-9)
    assert found.js == pytest.approx(distance, abs=1e-6)
    assert found.ks == (None if is_text else pytest.approx(naive_ks(baseline, current), abs=1e-12))
    assert (found.rows, found.baseline_rows) == (len(current), len(baseline))


def test_chance_is_no_drift_and_a_shift_is(tmp_path: Path) -> None:
    """Samples of one distribution are alike; larger amounts, or a third missing, are not; few rows are not judged."""
    key, draw = FeatureKey("view", "amount", ValueType.FLOAT64), np.random.default_rng(5)
    baseline = whole(key, draw.lognormal(3, 1, 5_000).tolist())

    def drift(values: Sequence[Value]) -> bool:
        return drift_of(key, baseline, whole(key, values), "1h", Limits()).is_drifted

    alike = [drift(draw.lognormal(3, 1, ROWS_MIN).tolist()) for _ in range(100)]
    amounts = draw.lognormal(3, 1, ROWS_MIN).tolist()

    assert not any(alike)
    assert drift([2.5 * amount for amount in amounts])
    assert drift([amount if number % 3 else None for number, amount in enumerate(amounts)])
    assert not drift([100 * amount for amount in amounts[1:]])


def test_a_baseline_is_kept_with_its_digest(tmp_path: Path) -> None:
    """It is read as it was written, or refused; none has a remedy."""
    key, log = FeatureKey("view", "amount", ValueType.FLOAT64), LogDirectory(tmp_path)
    with pytest.raises(InvalidRequest, match="no baseline") as none:
        read_baseline(log, "shop")
    kept = keep_baseline(log, "shop", {key: whole(key, [1.0, 2.0])}, "a test", 17)
    read = read_baseline(log, "shop")
    other = keep_baseline(log, "shop", {key: whole(key, [1.0, 3.0])}, "a test", 17)

    assert "drift baseline shop" in none.value.hint
    assert (read.digest, read.source, read.taken_ms) == (kept.digest, "a test", 17)
    assert other.digest != kept.digest
    path = tmp_path / "baselines" / "service=shop.parquet"
    path.write_bytes(path.read_bytes().replace(other.digest.encode(), kept.digest.encode()))
    with pytest.raises(CorruptData, match="not what was written"):
        read_baseline(log, "shop")


def test_prometheus_reads_what_a_report_tells(tmp_path: Path) -> None:
    """Its own parser finds every distance and verdict, under names as they are."""
    key = FeatureKey('a "view"', "amount", ValueType.FLOAT64)
    found = drift_of(key, whole(key, [1.0] * ROWS_MIN), whole(key, [2.0] * ROWS_MIN), "1d", Limits())
    write_metrics(tmp_path / "new" / "drift.prom", DriftReport("shop", 1_500, "", "", 0, (found,)))

    parsed = text_string_to_metric_families((tmp_path / "new" / "drift.prom").read_text())
    samples = {
        (sample.name, sample.labels.get("view"), sample.labels.get("statistic")): sample.value
        for family in parsed
        for sample in family.samples
    }

    assert samples == {
        (CHECKED, None, None): 1.5,
        (DRIFTED, 'a "view"', None): 1.0,
        (DISTANCE, 'a "view"', "psi"): found.psi,
        (DISTANCE, 'a "view"', "ks"): 1.0,
        (DISTANCE, 'a "view"', "js"): found.js,
    }
