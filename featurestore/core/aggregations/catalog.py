"""The catalog: every aggregation by the name that `Aggregation.function` gives it.

Adding one: write its file, add its line here; plan, docs, law and oracle suites pick it up.

The phrase of a line says in words what the answer is: `{column}` is the column that is read, `{values}` what is counted
("events", or "values of amount"), `{event}` one of them, `{0}` the first argument.
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
from featurestore.core.aggregations.ordered.edge_or_null import EdgeOrNull
from featurestore.core.aggregations.ordered.event_lists import ENTRIES_MAX, EventValues
from featurestore.core.aggregations.ordered.first_last import Edge
from featurestore.core.aggregations.ordered.gaps import BOUND_DEFAULT, BOUND_MAX, ExtremeGap
from featurestore.core.aggregations.ordered.newest_events import over_newest
from featurestore.core.aggregations.ordered.times import EdgeTime, MeanGap, TimeSince
from featurestore.core.aggregations.parameters import (
    Arguments,
    Parameter,
    ParameterKind,
    argument_words,
    parse_by,
    parse_call,
    parse_over,
)
from featurestore.errors import InvalidRequest
from featurestore.errors.near_names import near_names, quoted


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One function of the catalog.

    Attributes:
        name: as written before the parameters.
        phrase: what its answer is, in words.
        make: the aggregation with its arguments.
        parameters: what may stand in brackets, in order.
        examples: texts that name it, for the law and oracle suites and for the docs.
    """

    name: str
    phrase: str
    make: Callable[[Arguments], Aggregation]
    parameters: tuple[Parameter, ...] = ()
    examples: tuple[str, ...] = ()


def _plain(aggregation: Aggregation, phrase: str) -> CatalogEntry:
    """An aggregation without parameters."""
    return CatalogEntry(aggregation.name, phrase, lambda _: aggregation, examples=(aggregation.name,))


_LIST_LENGTH = Parameter("n", ParameterKind.INTEGER, least=1, most=ENTRIES_MAX)
_GAP_BOUND = Parameter("bound", ParameterKind.INTEGER, least=2, most=BOUND_MAX, default=str(BOUND_DEFAULT))
_HALF_LIFE = Parameter("half_life", ParameterKind.DURATION, least=1)


def _event_list(name: str, phrase: str, *, is_newest: bool, is_distinct: bool) -> CatalogEntry:
    """A list of the values of n events."""
    return CatalogEntry(
        name,
        phrase,
        lambda given: EventValues(given.integer("n"), is_newest, is_distinct),
        (_LIST_LENGTH,),
        (f"{name}(3)",),
    )


def _gap(name: str, phrase: str, *, is_max: bool) -> CatalogEntry:
    """An extreme distance between events."""
    return CatalogEntry(
        name,
        phrase,
        lambda given: ExtremeGap(is_max, given.integer("bound")),
        (_GAP_BOUND,),
        (f"{name}(256)", f"{name}(5)"),
    )


def _decayed(name: str, phrase: str, make: Callable[[int], Aggregation]) -> CatalogEntry:
    """A decayed sum, by its half-life."""
    return CatalogEntry(name, phrase, lambda given: make(given.integer("half_life")), (_HALF_LIFE,), (f"{name}(15m)",))


_VALUES = Parameter("n", ParameterKind.INTEGER, least=1, most=LENGTH_MAX)
_RANKED_BY = Parameter("column", ParameterKind.COLUMN)
_LG_K = Parameter("lg_k", ParameterKind.INTEGER, least=LG_K_MIN, most=LG_K_MAX, default="12")
_SHARE = Parameter("p", ParameterKind.NUMBER, least=0, most=1, repeats=True)


def _bounded(name: str, phrase: str, make: Callable[[int], Aggregation], default: int) -> CatalogEntry:
    """A function of at most so many distinct values."""
    bound = Parameter("bound", ParameterKind.INTEGER, least=1, most=DISTINCT_MAX, default=str(default))
    return CatalogEntry(
        name, phrase, lambda given: make(given.integer("bound")), (bound,), (f"{name}({default})", f"{name}(2)")
    )


def _top(name: str, phrase: str, *, is_top: bool) -> CatalogEntry:
    """The most extreme values."""
    return CatalogEntry(name, phrase, lambda given: TopK(given.integer("n"), is_top), (_VALUES,), (f"{name}(3)",))


def _top_by(name: str, phrase: str, *, is_top: bool) -> CatalogEntry:
    """Values ranked by another column."""
    return CatalogEntry(
        name,
        phrase,
        lambda given: TopKBy(given.integer("n"), given.columns["column"], is_top),
        (_VALUES, _RANKED_BY),
        (f"{name}(3, amount)",),
    )


CATALOG: tuple[CatalogEntry, ...] = (
    _plain(Count(), "number of {values}"),
    _plain(Sum(), "sum of {column}"),
    _plain(Mean(), "mean of {column}"),
    _plain(Extreme(is_max=False), "smallest {column}"),
    _plain(Extreme(is_max=True), "largest {column}"),
    _plain(StandardDeviation(is_sample=False), "standard deviation of {column}"),
    _plain(StandardDeviation(is_sample=True), "standard deviation of {column} as of a sample"),
    _plain(Variance(is_sample=False), "variance of {column}"),
    _plain(Variance(is_sample=True), "variance of {column} as of a sample"),
    _plain(Shape(power=3), "skewness of {column}"),
    _plain(Shape(power=4), "excess kurtosis of {column}"),
    _plain(Edge(is_newest=False), "oldest {column}"),
    _plain(Edge(is_newest=True), "newest {column}"),
    _event_list("first_n", "{0} oldest values of {column}", is_newest=False, is_distinct=False),
    _event_list("last_n", "{0} newest values of {column}", is_newest=True, is_distinct=False),
    _event_list("first_distinct_n", "{0} oldest distinct values of {column}", is_newest=False, is_distinct=True),
    _event_list("last_distinct_n", "{0} newest distinct values of {column}", is_newest=True, is_distinct=True),
    _plain(EdgeTime(is_newest=False), "time of the oldest {event}"),
    _plain(EdgeTime(is_newest=True), "time of the newest {event}"),
    _plain(TimeSince(is_newest=False), "milliseconds since the oldest {event}"),
    _plain(TimeSince(is_newest=True), "milliseconds since the newest {event}"),
    _plain(MeanGap(), "mean milliseconds from one {event} to the next"),
    _gap("max_gap", "most milliseconds from one {event} to the next, of at most {0}", is_max=True),
    _gap("min_gap", "fewest milliseconds from one {event} to the next, of at most {0}", is_max=False),
    _decayed("ewma_sum", "sum of {column}, each half as much {0} later", DecayedValues),
    _decayed("ewma_count", "number of {values}, each half as much {0} later", DecayedCount),
    _decayed("ewma_mean", "mean of {column}, each weighing half as much {0} later", DecayedMean),
    _bounded("count_distinct", "number of distinct values of {column}, exact up to {0}", CountDistinct, 1_000),
    CatalogEntry(
        "approx_count_distinct",
        "number of distinct values of {column}, estimated from 2**{0} registers",
        lambda given: ApproximateCountDistinct(given.integer("lg_k")),
        (_LG_K,),
        ("approx_count_distinct(12)",),
    ),
    CatalogEntry(
        "approx_percentile",
        "quantile {0} of {column}, to within 1 %",
        lambda given: Percentile(given.numbers["p"]),
        (_SHARE,),
        ("approx_percentile(0.95)", "approx_percentile(0.1, 0.5, 1)"),
    ),
    _plain(Percentile((0.5,), is_median=True), "median of {column}, to within 1 %"),
    _top("top_k", "{0} largest values of {column}", is_top=True),
    _top("bottom_k", "{0} smallest values of {column}", is_top=False),
    _top_by("top_k_by", "{column} of the {0} events with the largest {1}", is_top=True),
    _top_by("bottom_k_by", "{column} of the {0} events with the smallest {1}", is_top=False),
    CatalogEntry(
        "approx_heavy_hitters",
        "{0} most frequent values of {column} and how often they occur",
        lambda given: HeavyHitters(given.integer("n")),
        (_VALUES,),
        ("approx_heavy_hitters(5)",),
    ),
    _bounded("histogram", "how often each value of {column} occurs, of at most {0} values", Histogram, 100),
    _bounded("mode", "most frequent {column}, of at most {0} values", Mode, 100),
    _bounded("entropy", "entropy of {column} in bits, of at most {0} values", Entropy, 100),
)

BY_EXAMPLES = ("count by market(100)", "sum by amount(2)", "mean by is_declined(100)", "max by market(3)")
"""Texts that name a function by a secondary key, for the law and oracle suites and for the docs."""

OVER_EXAMPLES = ("sum over last_events(3)", "count over last_events(2)")
"""The same of functions over the newest events."""

NULL_EXAMPLES = ("last respect nulls",)
"""The same of functions for which an event without a value is one."""

_OR_NULL = {one.name: one for one in (EdgeOrNull(is_newest=False), EdgeOrNull(is_newest=True))}
_BY_NAME = {entry.name: entry for entry in CATALOG}


def names() -> tuple[str, ...]:
    """Texts that name every aggregation at least once, in the catalog's order."""
    examples = (example for entry in CATALOG for example in entry.examples)
    return (*examples, *BY_EXAMPLES, *OVER_EXAMPLES, *NULL_EXAMPLES)


def resolve(text: str) -> Aggregation:
    """The aggregation that a function text names: "sum", "approx_percentile(0.95)", "sum by merchant_category(50)".

    Or "sum over last_events(10)", or "last respect nulls". Letter case of functions and blanks do not matter.

    Raises:
        InvalidRequest: the catalog has no such function (the hint gives near names), or its parameters are wrong.
    """
    inner, count = parse_over(text)
    if count:
        return over_newest(resolve(inner), count)
    inner, by, bound = parse_by(text)
    if by is not None:
        return by_key(resolve(inner), by, KEYS_DEFAULT if bound is None else bound)
    if (or_null := _OR_NULL.get(" ".join(text.lower().split()))) is not None:
        return or_null
    name, given = parse_call(text)
    entry = _BY_NAME.get(name)
    if entry is None:
        near = quoted(near_names(name, _BY_NAME))
        known = f"did you mean {' or '.join(near)}?" if near else f"known functions are {', '.join(_BY_NAME)}"
        raise InvalidRequest(f'unknown aggregation function "{text}"', hint=known)
    return entry.make(Arguments.parse(name, entry.parameters, given))


def phrase_of(text: str, column: str | None) -> str:
    """What the function of a text answers, in words.

    Args:
        text: names a function, as for `resolve`.
        column: the column that it reads; None counts events.

    Raises:
        InvalidRequest: as `resolve`.

    >>> phrase_of("count", None), phrase_of("sum by market(50)", "amount")
    ('number of events', 'sum of amount for each market, of at most 50')
    >>> phrase_of("sum over last_events(10)", "amount"), phrase_of("last respect nulls", "amount")
    ('sum of amount, of the 10 newest values,', 'newest amount, null where that event has none,')
    """
    inner, count = parse_over(text)
    if count:
        return f"{phrase_of(inner, column)}, of the {count} newest {'events' if column is None else 'values'},"
    inner, by, bound = parse_by(text)
    if by is not None:
        return f"{phrase_of(inner, column)} for each {by}, of at most {KEYS_DEFAULT if bound is None else bound}"
    if resolve(text).keeps_nulls:
        return f"{phrase_of(text.split()[0], column)}, null where that event has none,"
    name, given = parse_call(text)
    entry = _BY_NAME[name]
    words = argument_words(entry.parameters, given)
    values = "events" if column is None else f"values of {column}"
    event = "event" if column is None else f"event with a value of {column}"
    return entry.phrase.format(*words, column=column, values=values, event=event)
