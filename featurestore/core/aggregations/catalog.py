"""The catalog: every aggregation by the name that `Aggregation.function` gives it.

Adding one: write its file, add its line here; the law and oracle suites pick it up from `names()`.
"""

from __future__ import annotations

import difflib

from featurestore.core.aggregations.base import Aggregation
from featurestore.core.aggregations.count import Count
from featurestore.core.aggregations.edges import Edge
from featurestore.core.aggregations.extremes import Extreme
from featurestore.core.aggregations.stddev import StandardDeviation
from featurestore.core.aggregations.sums import Mean, Sum
from featurestore.errors import InvalidRequest

_AGGREGATIONS: tuple[Aggregation, ...] = (
    Count(),
    Sum(),
    Mean(),
    Extreme(is_max=False),
    Extreme(is_max=True),
    StandardDeviation(is_sample=False),
    StandardDeviation(is_sample=True),
    Edge(is_newest=False),
    Edge(is_newest=True),
)

_BY_NAME = {aggregation.name: aggregation for aggregation in _AGGREGATIONS}


def names() -> tuple[str, ...]:
    """Names of all aggregations, in the catalog's order."""
    return tuple(_BY_NAME)


def resolve(text: str) -> Aggregation:
    """The aggregation that a function text names; letter case and outer blanks do not matter.

    Raises:
        InvalidRequest: the catalog has no such function; the hint gives near names.
    """
    aggregation = _BY_NAME.get(text.strip().lower())
    if aggregation is not None:
        return aggregation
    near = difflib.get_close_matches(text.strip().lower(), _BY_NAME, n=3)
    known = f"did you mean {' or '.join(near)}" if near else f"known functions are {', '.join(_BY_NAME)}"
    raise InvalidRequest(f'unknown aggregation function "{text}"', hint=known)
