"""Who pays and where: cards, merchants and terminals as columns, drawn once from a seed.

Merchants lie sorted by market, and popular first within a market (Zipf), so that a market is a slice and choosing a
merchant is one binary search in a running sum, whatever their number. A terminal belongs to one merchant, and a
merchant's terminals are neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from featurestore.core.events import BoolArray, Float64Array, Int64Array
from featurestore.testing.simulator.markets import CATEGORIES, MARKETS

FIRST_MERCHANT_ID = 1_000_000
FIRST_TERMINAL_ID = 50_000_000

PAYMENTS_PER_CARD_DAY = 1.6
"""Mean over cards; single cards differ widely."""

FAVOURITES = 6
"""Merchants that a card returns to."""

Number = TypeVar("Number", np.int64, np.float64)

_ZIPF_EXPONENT = 1.05
_CARD_SPREAD = 0.45


@dataclass(frozen=True, slots=True)
class PopulationSize:
    """How many of each.

    Attributes:
        cards: payment cards, >= 1.
        merchants: shops, at least one a market; each has one terminal or more.
        markets: how many of MARKETS, the largest first.
    """

    cards: int = 20_000
    merchants: int = 2_000
    markets: int = len(MARKETS)

    def __post_init__(self) -> None:
        assert self.cards >= 1, "a simulation needs a card"
        assert 1 <= self.markets <= len(MARKETS), f"there are {len(MARKETS)} markets"
        assert self.merchants >= self.markets, "every market needs a merchant"


class Population:
    """C cards, M merchants and T terminals over K markets.

    Attributes:
        card_market: (C,) ascending market of each card.
        card_rate: (C,) payments a day, mean.
        card_spend: (C,) factor on a category's amounts.
        merchant_market: (M,) ascending.
        merchant_category: (M,) index into CATEGORIES.
        merchant_is_online: (M,) sells online only.
        merchant_weight: (M + 1,) running sum of popularity.
        merchant_terminals: (M + 1,) running count of terminals: merchant m has [m], [m] + 1 ... [m + 1] - 1.
        terminal_merchant: (T,) ascending.
    """

    def __init__(self, size: PopulationSize, seed: int) -> None:
        random = np.random.default_rng([seed, 1])
        market_weight = np.array([market.weight for market in MARKETS[: size.markets]])
        self.size = size
        self.card_market = _shares(market_weight, size.cards)
        self.card_rate = random.gamma(1.5, PAYMENTS_PER_CARD_DAY / 1.5, size.cards) + 0.02
        self.card_spend = np.exp(random.normal(0.0, _CARD_SPREAD, size.cards))
        self.card_favourite_seed = random.random((size.cards, FAVOURITES))

        self.merchant_market = _shares(market_weight, size.merchants, at_least=1)
        category_weight = np.array([category.weight for category in CATEGORIES])
        self.merchant_category: Int64Array = random.choice(
            len(CATEGORIES), size.merchants, p=category_weight / category_weight.sum()
        )
        online_share = np.array([category.online_share for category in CATEGORIES])
        self.merchant_is_online: BoolArray = random.random(size.merchants) < online_share[self.merchant_category]
        rank = np.arange(size.merchants) - np.searchsorted(self.merchant_market, self.merchant_market) + 1
        popularity: Float64Array = np.power(rank, -_ZIPF_EXPONENT, dtype=np.float64)
        self.merchant_weight = _running_sum(popularity)
        extra_terminals = random.poisson(12.0 / rank**0.5)
        counts = np.where(self.merchant_is_online, 1, 1 + extra_terminals)
        self.merchant_terminals = _running_sum(counts)
        self.terminal_merchant = np.repeat(np.arange(size.merchants), counts)

        bounds = np.arange(size.markets + 1)
        self.card_bounds = np.searchsorted(self.card_market, bounds)
        self.merchant_bounds = np.searchsorted(self.merchant_market, bounds)
        self.card_rate_sum = _running_sum(self.card_rate)
        self.market_rate = np.diff(self.card_rate_sum[self.card_bounds])

    def pick_cards(self, market: Int64Array, draw: Float64Array) -> Int64Array:
        """(N,) cards of the given home markets, active ones more often; `draw` is uniform in [0, 1)."""
        return _pick(self.card_rate_sum, self.card_bounds, market, draw)

    def pick_merchants(self, market: Int64Array, draw: Float64Array) -> Int64Array:
        """(N,) merchants of the given markets by popularity; `draw` is uniform in [0, 1)."""
        return _pick(self.merchant_weight, self.merchant_bounds, market, draw)

    def favourite_merchants(self, card: Int64Array, which: Int64Array) -> Int64Array:
        """(N,) the `which`-th favourite of each card: always the same, in its home market."""
        return self.pick_merchants(self.card_market[card], self.card_favourite_seed[card, which])

    def pick_terminals(self, merchant: Int64Array, draw: Float64Array) -> Int64Array:
        """(N,) a terminal of each merchant."""
        first = self.merchant_terminals[merchant]
        count = self.merchant_terminals[merchant + 1] - first
        return np.asarray(first + (draw * count).astype(np.int64))


def _shares(weight: Float64Array, count: int, *, at_least: int = 0) -> Int64Array:
    """(count,) ascending group numbers, each group in proportion to its weight."""
    counts = np.maximum(np.floor(weight / weight.sum() * count).astype(np.int64), at_least)
    counts[0] += count - counts.sum()
    while counts[0] < at_least:  # many small groups with a minimum: take from the largest
        largest = int(np.argmax(counts))
        counts[largest] -= 1
        counts[0] += 1
    return np.repeat(np.arange(len(weight)), counts)


def _running_sum(values: NDArray[Number]) -> NDArray[Number]:
    return np.concatenate((np.zeros(1, dtype=values.dtype), np.cumsum(values)))


def _pick(running: Float64Array, bounds: Int64Array, group: Int64Array, draw: Float64Array) -> Int64Array:
    """One member of each group by weight: `draw` scaled into the group's span of the running sum."""
    low, high = bounds[group], bounds[group + 1]
    target = running[low] + draw * (running[high] - running[low])
    found = np.searchsorted(running, target, side="right") - 1
    return np.clip(found, low, high - 1)  # rounding may step over the last member
