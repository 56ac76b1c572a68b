"""Honest payments of one span of time, and the refunds that follow some of them."""

from __future__ import annotations

import numpy as np

from featurestore.core.events import Float64Array, Int64Array
from featurestore.testing.simulator.markets import CATEGORIES, HOUR_RHYTHM, MARKETS, WEEKDAY_RHYTHM
from featurestore.testing.simulator.population import FAVOURITES, Population
from featurestore.testing.simulator.rows import Rows, empty_rows

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

FAVOURITE_SHARE = 0.55
"""Payments at one of the card's usual merchants."""

ABROAD_SHARE = 0.05
"""Payments in a market that is not the card's."""

DECLINE_SHARE = 0.03
REFUND_SHARE = 0.015
REFUND_DELAY_DAYS_MEAN = 3.0

_MEDIAN_EURO = np.array([category.median_euro for category in CATEGORIES])
_SPREAD = np.array([category.spread for category in CATEGORIES])
_OPEN_SHARE = np.array([category.open_amount_share for category in CATEGORIES])
_MINOR_UNITS_PER_EURO = np.array([market.units_per_euro * 10**market.minor_digits for market in MARKETS])
_HOUR_RHYTHM = np.array(HOUR_RHYTHM) / np.mean(HOUR_RHYTHM)
_WEEKDAY_RHYTHM = np.array(WEEKDAY_RHYTHM) / np.mean(WEEKDAY_RHYTHM)
_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday, Monday is 0


def payments(
    population: Population,
    random: np.random.Generator,
    *,
    start_ms: int,
    end_ms: int,
    per_second: float | None = None,
) -> Rows:
    """Payments with start_ms <= event time < end_ms, unordered; ids and arrival are not set.

    Args:
        population: who pays and where.
        random: source of all randomness.
        start_ms: span's start; the rhythm is that of its middle, so spans should be an hour at most.
        end_ms: span's end, exclusive.
        per_second: expected payments a second over all markets; None is what the cards spend by themselves. Set or
            not, the rhythm decides which markets they come from.
    """
    rate = population.market_rate * market_rhythm((start_ms + end_ms) // 2)[: len(population.market_rate)]
    expected = rate * ((end_ms - start_ms) / DAY_MS)
    if per_second is not None and expected.sum() > 0:
        expected *= per_second * (end_ms - start_ms) / 1000 / expected.sum()
    home = np.repeat(np.arange(len(expected)), random.poisson(expected))
    rows = empty_rows(len(home))
    card = population.pick_cards(home, random.random(len(home)))
    merchant = _merchants(population, random, card)
    rows["card"] = card
    rows["terminal"] = population.pick_terminals(merchant, random.random(len(home)))
    rows["event_time_ms"] = random.integers(start_ms, end_ms, len(home))
    rows["amount"] = amounts(population, random, merchant, population.card_spend[card])
    rows["is_amount_known"] = random.random(len(home)) >= _OPEN_SHARE[population.merchant_category[merchant]]
    rows["is_declined"] = random.random(len(home)) < DECLINE_SHARE
    rows["is_card_present"] = ~population.merchant_is_online[merchant] & (random.random(len(home)) < 0.97)
    return rows


def refunds(random: np.random.Generator, originals: Rows) -> Rows:
    """Refunds, days later, of a few of the approved payments; same card, terminal and amount."""
    is_refunded = (random.random(len(originals)) < REFUND_SHARE) & ~originals["is_declined"]
    rows: Rows = originals[is_refunded]  # a copy: the mask gathers
    rows["is_refund"] = True
    rows["event_time_ms"] += 60_000 + (random.exponential(REFUND_DELAY_DAYS_MEAN, len(rows)) * DAY_MS).astype(np.int64)
    return rows


def amounts(
    population: Population, random: np.random.Generator, merchant: Int64Array, factor: Float64Array
) -> Int64Array:
    """(N,) amounts in minor units of each merchant's currency, at least one; `factor` scales its usual prices."""
    category = population.merchant_category[merchant]
    euro = _MEDIAN_EURO[category] * np.exp(random.normal(0.0, 1.0, len(merchant)) * _SPREAD[category]) * factor
    minor = euro * _MINOR_UNITS_PER_EURO[population.merchant_market[merchant]]
    return np.asarray(np.maximum(np.rint(minor), 1), dtype=np.int64)


def market_rhythm(moment_ms: int) -> Float64Array:
    """(markets,) how busy each market is at a moment, mean 1 over a week: its local hour times its local weekday."""
    offset_ms = np.array([market.utc_offset_minutes for market in MARKETS]) * 60_000
    local_ms = moment_ms + offset_ms
    hour = local_ms // HOUR_MS % 24
    weekday = (local_ms // DAY_MS + _EPOCH_WEEKDAY) % 7
    return np.asarray(_HOUR_RHYTHM[hour] * _WEEKDAY_RHYTHM[weekday])


def _merchants(population: Population, random: np.random.Generator, card: Int64Array) -> Int64Array:
    """(N,) where each card pays: a favourite, somewhere at home, or abroad."""
    draw = random.random(len(card))
    market = population.card_market[card].copy()
    is_abroad = draw < ABROAD_SHARE
    market[is_abroad] = random.integers(0, population.size.markets, int(is_abroad.sum()))
    merchant = population.pick_merchants(market, random.random(len(card)))
    is_usual = draw >= 1.0 - FAVOURITE_SHARE
    which = random.integers(0, FAVOURITES, int(is_usual.sum()))
    merchant[is_usual] = population.favourite_merchants(card[is_usual], which)
    return merchant
