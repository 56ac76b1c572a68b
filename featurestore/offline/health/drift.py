"""How far the values of a feature are from those of its baseline: PSI, Kolmogorov-Smirnov, Jensen-Shannon.

    PSI   sum((q - p) ln(q / p)) over bins: ten that each hold a tenth of the baseline's values, and the missing ones
    KS    the largest distance between the two cumulative distributions; of numbers only, missing ones left out
    JS    square root of the Jensen-Shannon divergence in bits, over the same bins as PSI: 0 alike, 1 nothing in common

Both sides are sketches, so values within 1 % of each other are one value. Texts and flags have a bin for each of the
ten most frequent values of the baseline, one for all others, and one for missing ones.

By 200 rows chance alone makes a PSI of 0.15, a KS of 0.14 and a JS of 0.16 once in a thousand times; fewer rows are not
judged.

Source: Siddiqi, "Credit Risk Scorecards", 2006 (PSI, and 0.1 and 0.25 as its steps); Massey, "The Kolmogorov-Smirnov
test for goodness of fit", 1951; Lin, "Divergence measures based on the Shannon entropy", 1991.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurestore.core.aggregations.keyed.approx_percentile import middles_of
from featurestore.core.events import Float64Array, Int64Array
from featurestore.core.spec import ValueType
from featurestore.offline.health.sketches import HOUR_MS, FeatureKey, Sketches, buckets_part, frequent_part

BINS = 10
SHARE_MIN = 1e-4
"""An empty bin counts as this for PSI, which is infinite otherwise."""

ROWS_MIN = 200
"""Of either side; see the module docstring."""

DISTANCE_MAX = 0.2

WINDOWS_MS: Mapping[str, int] = {"1h": HOUR_MS, "1d": 24 * HOUR_MS}
"""What is compared: hours that begin after so long before the hour that runs, and that hour itself."""

_NUMBERS = (ValueType.INT64, ValueType.FLOAT64)


@dataclass(frozen=True, slots=True)
class Limits:
    """From which distance on a feature has drifted.

    Attributes:
        psi, ks, js: see the module docstring.
    """

    psi: float = DISTANCE_MAX
    ks: float = DISTANCE_MAX
    js: float = DISTANCE_MAX


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """A feature against its baseline.

    Attributes:
        view, feature, type: which.
        window: of WINDOWS_MS.
        rows, baseline_rows: how many there are of each.
        missing_share, baseline_missing_share: of them without a value.
        psi, ks, js: distances; None where there are no rows, KS also of what is no number.
        is_judged: there are rows enough.
        is_drifted: it is judged, and a distance is at its limit or beyond.
    """

    view: str
    feature: str
    type: str
    window: str
    rows: int
    baseline_rows: int
    missing_share: float
    baseline_missing_share: float
    psi: float | None
    ks: float | None
    js: float | None
    is_judged: bool
    is_drifted: bool


@dataclass(frozen=True, slots=True)
class DriftReport:
    """All features of a service against their baseline.

    Attributes:
        service: its name.
        at_ms: up to when.
        baseline_digest: of its sketches.
        baseline_source: where they are from.
        baseline_taken_ms: when they were taken.
        features: in the baseline's order; for each a line a window.
        only_baseline: "view:feature" that was not answered, or in another type.
        only_served: that the baseline does not know.
    """

    service: str
    at_ms: int
    baseline_digest: str
    baseline_source: str
    baseline_taken_ms: int
    features: tuple[FeatureDrift, ...]
    only_baseline: tuple[str, ...] = ()
    only_served: tuple[str, ...] = ()

    @property
    def drifted(self) -> tuple[FeatureDrift, ...]:
        """Those that have."""
        return tuple(one for one in self.features if one.is_drifted)


@dataclass(frozen=True, slots=True)
class Bins:
    """Two distributions side by side.

    Attributes:
        names: (B,) of the bins, the missing values last.
        baseline, current: (B,) rows.
    """

    names: tuple[str, ...]
    baseline: Int64Array
    current: Int64Array


def drift_of(key: FeatureKey, baseline: Sketches, current: Sketches, window: str, limits: Limits) -> FeatureDrift:
    """One feature; both sides are a single tile, or none of the current one."""
    rows, missing = (int(current.rows.sum()), int(current.missing.sum()))
    base_rows, base_missing = int(baseline.rows[0]), int(baseline.missing[0])
    distances: dict[str, float | None] = {"psi": None, "ks": None, "js": None}
    if rows and base_rows:
        bins = bins_of(baseline, current)
        distances = {"psi": psi(bins), "js": jensen_shannon(bins), "ks": None}
        if key.kind in _NUMBERS:
            distances["ks"] = kolmogorov_smirnov(_buckets(baseline), _buckets(current))
    is_judged = min(rows, base_rows) >= ROWS_MIN
    is_far = any(found is not None and found >= getattr(limits, name) for name, found in distances.items())
    return FeatureDrift(
        view=key.view,
        feature=key.feature,
        type=str(key.type),
        window=window,
        rows=rows,
        baseline_rows=base_rows,
        missing_share=missing / rows if rows else 0.0,
        baseline_missing_share=base_missing / base_rows if base_rows else 0.0,
        is_judged=is_judged,
        is_drifted=is_judged and is_far,
        **distances,
    )


def bins_of(baseline: Sketches, current: Sketches) -> Bins:
    """The values of both sides, which have rows, in the bins of the baseline."""
    names, base, now = _numeric(baseline, current) if baseline.kind in _NUMBERS else _frequent(baseline, current)
    missing = [int(side.missing.sum()) for side in (baseline, current)]
    return Bins((*names, "missing"), np.append(base, missing[0]), np.append(now, missing[1]))


def psi(bins: Bins) -> float:
    """Population stability index."""
    base, now = (np.maximum(_shares(side), SHARE_MIN) for side in (bins.baseline, bins.current))
    return float(((now - base) * np.log(now / base)).sum())


def jensen_shannon(bins: Bins) -> float:
    """Jensen-Shannon distance, 0 to 1."""
    base, now = _shares(bins.baseline), _shares(bins.current)
    middle = (base + now) / 2
    divergence = (_relative_entropy(base, middle) + _relative_entropy(now, middle)) / 2
    return math.sqrt(min(max(divergence, 0.0), 1.0))


def kolmogorov_smirnov(one: Mapping[int, int], other: Mapping[int, int]) -> float | None:
    """Largest distance of two cumulative distributions, 0 to 1; None where one side has no value."""
    if not one or not other:
        return None
    places = sorted({*one, *other})
    cumulated = [np.cumsum([side.get(place, 0) for place in places]) for side in (one, other)]
    return float(np.abs(cumulated[0] / cumulated[0][-1] - cumulated[1] / cumulated[1][-1]).max())


def _shares(counts: Int64Array) -> Float64Array:
    shares: Float64Array = counts / counts.sum()
    return shares


def _relative_entropy(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Kullback-Leibler divergence in bits; what has no share adds nothing."""
    there = one > 0
    return float((one[there] * np.log2(one[there] / other[there])).sum())


def _numeric(baseline: Sketches, current: Sketches) -> tuple[Sequence[str], Int64Array, Int64Array]:
    """Bins that end where each tenth of the baseline's values ends; equal ends are one."""
    sides = [_buckets(side) for side in (baseline, current)]
    places = sorted(sides[0])
    if not places:
        return ("any value",), np.zeros(1, dtype=np.int64), np.array([sum(sides[1].values())])
    reached = np.cumsum([sides[0][place] for place in places])
    ranks = [max(1, -(-int(reached[-1]) * tenth // BINS)) for tenth in range(1, BINS)]
    ends = np.unique(np.array(places)[np.searchsorted(reached, ranks)])
    counted = []
    for side in sides:
        found = np.searchsorted(ends, np.array(list(side), dtype=np.int64), side="left")
        weights = np.array(list(side.values()), dtype=np.float64)
        counted.append(np.bincount(found, weights, minlength=len(ends) + 1).astype(np.int64))
    values = [f"{float(f'{value:.2g}'):g}" for value in middles_of(ends).tolist()]
    names = [*(f"≤{value}" for value in values), f">{values[-1]}"]
    return names, counted[0], counted[1]


def _frequent(baseline: Sketches, current: Sketches) -> tuple[Sequence[str], Int64Array, Int64Array]:
    """The baseline's most frequent values, and all others."""
    base, now = (_counters(side) for side in (baseline, current))
    names = sorted(base, key=lambda name: (-base[name], name))[:BINS]
    counted = []
    for side, counters in ((baseline, base), (current, now)):
        mine = [counters.get(name, 0) for name in names]
        others = int((side.rows - side.missing).sum()) - sum(mine)
        counted.append(np.array([*mine, others], dtype=np.int64))
    return [*names, "others"], counted[0], counted[1]


def _buckets(side: Sketches) -> dict[int, int]:
    """Bucket of a number -> how many values are in it, of one tile."""
    entries = side.entries(buckets_part(side.kind))
    return {} if entries is None else dict(zip(entries.numbers.tolist(), entries.ints[0].tolist(), strict=True))


def _counters(side: Sketches) -> dict[str, int]:
    """Frequent value -> how often it occurs, of one tile."""
    entries = side.entries(frequent_part(side.kind))
    return {} if entries is None else dict(zip(entries.texts(), entries.ints[0].tolist(), strict=True))
