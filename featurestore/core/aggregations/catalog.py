"""The catalog: every aggregation by the name that `Aggregation.function` gives it.

Adding one: write its file, add its line here; plan, docs, law and oracle suites pick it up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from featurestore.core.aggregations.base import Aggregation
from featurestore.core.aggregations.keyed.approx_count_distinct import LG_K_MAX, LG_K_MIN, ApproximateCountDistinct
from featurestore.core.aggregations.keyed.approx_percentile import Percentile
from featurestore.core.aggregations.keyed.by_key import KEYS_DEFAULT, by_key
from featurestore.core.aggregations.keyed.count_distinct import CountDistinct
from featurestore.core.aggregations.keyed.heavy_hitters import HeavyHitters
from featurestore.core.aggregations.keyed.histogram import Entropy, Histogram, Mode
from featurestore.core.aggregations.keyed.multiset import DISTINCT_MAX
from featurestore.core.aggregations.keyed.top_k import LENGTH_MAX, TopK
from featurestore.core.aggregations.keyed.top_k_by import TopKBy
from featurestore.core.aggregations.numbers.count import Count
from featurestore.core.aggregations.numbers.min_max import Extreme
from featurestore.core.aggregations.numbers.skew_kurtosis import Shape
from featurestore.core.aggregations.numbers.sums import Mean, Sum
from featurestore.core.aggregations.numbers.variance import StandardDeviation, Variance
from featurestore.core.aggregations.ordered.decay import DecayedCount, DecayedMean, DecayedValues
from featurestore.core.aggregations.ordered.event_lists import ENTRIES_MAX, EventValues
from featurestore.core.aggregations.ordered.first_last import Edge
from featurestore.core.aggregations.ordered.gaps import BOUND_DEFAULT, BOUND_MAX, ExtremeGap
from featurestore.core.aggregations.ordered.times import EdgeTime, MeanGap, TimeSince
from featurestore.core.aggregations.parameters import Arguments, Parameter, ParameterKind, parse_by, parse_call
from featurestore.errors import InvalidRequest
from featurestore.near_names import near_names, quoted


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One function of the catalog.

    Attributes:
        name: as written before the parameters.
        make: the aggregation with its arguments.
        parameters: what may stand in brackets, in order.
        examples: texts that name it, for the law and oracle suites and for the docs.
    """

    name: str
    make: Callable[[Arguments], Aggregation]
    parameters: tuple[Parameter, ...] = ()
    examples: tuple[str, ...] = ()


def _plain(aggregation: Aggregation) -> CatalogEntry:
    """An aggregation without parameters."""
    return CatalogEntry(aggregation.name, lambda _: aggregation, examples=(aggregation.name,))


_LIST_LENGTH = Parameter("n", ParameterKind.INTEGER, least=1, most=ENTRIES_MAX)
_GAP_BOUND = Parameter("bound", ParameterKind.INTEGER, least=2, most=BOUND_MAX, default=str(BOUND_DEFAULT))
_HALF_LIFE = Parameter("half_life", ParameterKind.DURATION, least=1)


def _event_list(name: str, *, is_newest: bool, is_distinct: bool) -> CatalogEntry:
    """A list of the values of n events."""
    return CatalogEntry(
        name,
        lambda given: EventValues(given.integer("n"), is_newest, is_distinct),
        (_LIST_LENGTH,),
        (f"{name}(3)",),
    )


def _gap(name: str, *, is_max: bool) -> CatalogEntry:
    """An extreme distance between events."""
    return CatalogEntry(
        name, lambda given: ExtremeGap(is_max, given.integer("bound")), (_GAP_BOUND,), (f"{name}(256)", f"{name}(5)")
    )


def _decayed(name: str, make: Callable[[int], Aggregation]) -> CatalogEntry:
    """A decayed sum, by its half-life."""
    return CatalogEntry(name, lambda given: make(given.integer("half_life")), (_HALF_LIFE,), (f"{name}(15m)",))


_VALUES = Parameter("n", ParameterKind.INTEGER, least=1, most=LENGTH_MAX)
_RANKED_BY = Parameter("column", ParameterKind.COLUMN)
_LG_K = Parameter("lg_k", ParameterKind.INTEGER, least=LG_K_MIN, most=LG_K_MAX, default="12")
_SHARE = Parameter("p", ParameterKind.NUMBER, least=0, most=1, repeats=True)


def _bounded(name: str, make: Callable[[int], Aggregation], default: int) -> CatalogEntry:
    """A function of at most so many distinct values."""
    bound = Parameter("bound", ParameterKind.INTEGER, least=1, most=DISTINCT_MAX, default=str(default))
    return CatalogEntry(
        name, lambda given: make(given.integer("bound")), (bound,), (f"{name}({default})", f"{name}(2)")
    )


def _top(name: str, *, is_top: bool) -> CatalogEntry:
    """The most extreme values."""
    return CatalogEntry(name, lambda given: TopK(given.integer("n"), is_top), (_VALUES,), (f"{name}(3)",))


def _top_by(name: str, *, is_top: bool) -> CatalogEntry:
    """Values ranked by another column."""
    return CatalogEntry(
        name,
        lambda given: TopKBy(given.integer("n"), given.columns["column"], is_top),
        (_VALUES, _RANKED_BY),
        (f"{name}(3, amount)",),
    )


CATALOG: tuple[CatalogEntry, ...] = (
    _plain(Count()),
    _plain(Sum()),
    _plain(Mean()),
    _plain(Extreme(is_max=False)),
    _plain(Extreme(is_max=True)),
    _plain(StandardDeviation(is_sample=False)),
    _plain(StandardDeviation(is_sample=True)),
    _plain(Variance(is_sample=False)),
    _plain(Variance(is_sample=True)),
    _plain(Shape(power=3)),
    _plain(Shape(power=4)),
    _plain(Edge(is_newest=False)),
    _plain(Edge(is_newest=True)),
    _event_list("first_n", is_newest=False, is_distinct=False),
    _event_list("last_n", is_newest=True, is_distinct=False),
    _event_list("first_distinct_n", is_newest=False, is_distinct=True),
    _event_list("last_distinct_n", is_newest=True, is_distinct=True),
    _plain(EdgeTime(is_newest=False)),
    _plain(EdgeTime(is_newest=True)),
    _plain(TimeSince(is_newest=False)),
    _plain(TimeSince(is_newest=True)),
    _plain(MeanGap()),
    _gap("max_gap", is_max=True),
    _gap("min_gap", is_max=False),
    _decayed("ewma_sum", DecayedValues),
    _decayed("ewma_count", DecayedCount),
    _decayed("ewma_mean", DecayedMean),
    _bounded("count_distinct", CountDistinct, 1_000),
    CatalogEntry(
        "approx_count_distinct",
        lambda given: ApproximateCountDistinct(given.integer("lg_k")),
        (_LG_K,),
        ("approx_count_distinct(12)",),
    ),
    CatalogEntry(
        "approx_percentile",
        lambda given: Percentile(given.numbers["p"]),
        (_SHARE,),
        ("approx_percentile(0.95)", "approx_percentile(0.1, 0.5, 1)"),
    ),
    _plain(Percentile((0.5,), is_median=True)),
    _top("top_k", is_top=True),
    _top("bottom_k", is_top=False),
    _top_by("top_k_by", is_top=True),
    _top_by("bottom_k_by", is_top=False),
    CatalogEntry(
        "approx_heavy_hitters",
        lambda given: HeavyHitters(given.integer("n")),
        (_VALUES,),
        ("approx_heavy_hitters(5)",),
    ),
    _bounded("histogram", Histogram, 100),
    _bounded("mode", Mode, 100),
    _bounded("entropy", Entropy, 100),
)

BY_EXAMPLES = ("count by market(100)", "sum by amount(2)", "mean by is_declined(100)", "max by market(3)")
"""Texts that name a function by a secondary key, for the law and oracle suites and for the docs."""

_BY_NAME = {entry.name: entry for entry in CATALOG}


def names() -> tuple[str, ...]:
    """Texts that name every aggregation at least once, in the catalog's order."""
    return (*(example for entry in CATALOG for example in entry.examples), *BY_EXAMPLES)


def resolve(text: str) -> Aggregation:
    """The aggregation that a function text names: "sum", "approx_percentile(0.95)", "sum by merchant_category(50)".

    Letter case of functions and blanks do not matter.

    Raises:
        InvalidRequest: the catalog has no such function (the hint gives near names), or its parameters are wrong.
    """
    inner, by, bound = parse_by(text)
    if by is not None:
        return by_key(resolve(inner), by, KEYS_DEFAULT if bound is None else bound)
    name, given = parse_call(text)
    entry = _BY_NAME.get(name)
    if entry is None:
        near = quoted(near_names(name, _BY_NAME))
        known = f"did you mean {' or '.join(near)}?" if near else f"known functions are {', '.join(_BY_NAME)}"
        raise InvalidRequest(f'unknown aggregation function "{text}"', hint=known)
    return entry.make(Arguments.parse(name, entry.parameters, given))
