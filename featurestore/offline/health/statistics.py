"""What is said of a feature's values, by the names that TFDV, Great Expectations and Feast have for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from featurestore.offline.health.sketches import (
    DISTINCT,
    FREQUENT,
    FUNCTIONS,
    QUANTILES,
    SHARES,
    FeatureKey,
    Sketches,
    buckets_part,
)


@dataclass(frozen=True, slots=True)
class FeatureStatistics:
    """A feature over some hours.

    Numbers are None where there is no value, or where the feature's type has none: of lists and maps they are about
    lengths, of moments about ages in ms at the row's time, of flags mean is the share of true.

    Attributes:
        view, feature, type: which.
        since_ms, until_ms: the hours, half open; 0 where there are none.
        num_rows: answers.
        num_missing: of them without a value: null, or no finite number.
        num_not_found: of them whose entity was not found; None where that is not known, as in a training set.
        num_zeros: values that are 0.
        mean, std_dev: of the values, exact but for rounding; std_dev of the population.
        min, max: exact.
        quantiles: share -> value, within 1 %.
        unique: number of distinct values, from a HyperLogLog sketch: 1.6 % standard error above a thousand.
        top_values: the most frequent values and how often they occur; exact up to 100 distinct ones, else too low by at
            most 1 % of the values.
    """

    view: str
    feature: str
    type: str
    since_ms: int
    until_ms: int
    num_rows: int
    num_missing: int
    num_not_found: int | None
    num_zeros: int | None = None
    mean: float | None = None
    std_dev: float | None = None
    min: float | None = None
    max: float | None = None
    quantiles: Mapping[str, float] = field(default_factory=dict)
    unique: int | None = None
    top_values: Mapping[str, int] = field(default_factory=dict)

    @property
    def missing_share(self) -> float:
        """Of the answers."""
        return self.num_missing / self.num_rows if self.num_rows else 0.0

    @property
    def not_found_share(self) -> float | None:
        """Of the answers; None where it is not known."""
        if self.num_not_found is None:
            return None
        return self.num_not_found / self.num_rows if self.num_rows else 0.0


def statistics_of_sketches(key: FeatureKey, sketches: Sketches) -> FeatureStatistics:
    """Of all the hours together."""
    whole = sketches.whole()
    if not len(whole.rows):
        return FeatureStatistics(key.view, key.feature, str(key.type), 0, 0, 0, 0, None)
    functions = FUNCTIONS[key.kind]
    found = {function: _answer(whole, function) for function in functions}
    quantiles = cast("Sequence[float]", found.get(QUANTILES) or ())
    return FeatureStatistics(
        view=key.view,
        feature=key.feature,
        type=str(key.type),
        since_ms=int(whole.table.start_ms[0]),
        until_ms=int(whole.table.end_ms[0]),
        num_rows=int(whole.rows[0]),
        num_missing=int(whole.missing[0]),
        num_not_found=None if whole.not_found[0] < 0 else int(whole.not_found[0]),
        num_zeros=_zeros(whole) if QUANTILES in functions else None,
        mean=_number(found.get("mean")),
        std_dev=_number(found.get("stddev_pop")),
        min=_number(found.get("min")),
        max=_number(found.get("max")),
        quantiles={str(share): _between(found, value) for share, value in zip(SHARES, quantiles, strict=False)},
        unique=cast(int, _number(found[DISTINCT])) if DISTINCT in functions else None,
        top_values=cast("Mapping[str, int]", found[FREQUENT] or {}),
    )


def _answer(whole: Sketches, function: str) -> object:
    """Of one hour; None for no answer."""
    lowered = whole.answers(function)
    if lowered.null is not None and lowered.null[0, 0]:
        return None
    value: object = lowered.values[0, 0]
    return value


def _zeros(whole: Sketches) -> int:
    """Values that are exactly 0: they have a bucket of their own."""
    entries = whole.entries(buckets_part(whole.kind))
    if entries is None:
        return 0
    return int(entries.ints[0][entries.numbers == 0].sum())


def _between(found: Mapping[str, object], value: float) -> float:
    """A quantile is no further out than the extremes, which are exact; a bucket's middle can be."""
    low, high = _number(found["min"]), _number(found["max"])
    return value if low is None or high is None else min(max(value, low), high)


def _number(answer: object) -> float | None:
    """A number as JSON has it; whole ones stay whole."""
    number: float | None = answer.item() if isinstance(answer, np.generic) else None
    return number
