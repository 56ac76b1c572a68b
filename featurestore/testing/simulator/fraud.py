"""Fraud campaigns: a few a day, each a handful to a few dozen payments that share a pattern and its label.

card testing           one online shop, tens of stolen numbers, tiny amounts seconds apart, most declined
stolen card            one card, a dozen expensive purchases within hours, away from its usual merchants
compromised terminal   one terminal, cloned cards of many markets, high amounts, a burst of an hour or two
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from featurestore.testing.simulator.payments import DAY_MS, HOUR_MS, amounts
from featurestore.testing.simulator.population import Population
from featurestore.testing.simulator.rows import FraudPattern, Rows, empty_rows

CAMPAIGNS_PER_1000_CARD_DAYS = 0.12
"""All patterns together; with some fifteen payments each about 0.1 % of all payments."""

_PATTERN_SHARES = {
    FraudPattern.CARD_TESTING: 0.3,
    FraudPattern.STOLEN_CARD: 0.5,
    FraudPattern.COMPROMISED_TERMINAL: 0.2,
}


def campaigns(
    population: Population, random: np.random.Generator, *, start_ms: int, end_ms: int, per_day: float | None = None
) -> Rows:
    """Payments of the campaigns that begin in [start_ms, end_ms); they may go on for hours after it.

    Args:
        population: victims.
        random: source of all randomness.
        start_ms: span's start.
        end_ms: span's end, exclusive.
        per_day: expected campaigns a day; None is in proportion to the number of cards.
    """
    daily = population.size.cards * CAMPAIGNS_PER_1000_CARD_DAYS / 1000 if per_day is None else per_day
    count = int(random.poisson(daily * (end_ms - start_ms) / DAY_MS))
    if count == 0:
        return empty_rows()
    patterns = random.choice([int(p) for p in _PATTERN_SHARES], count, p=list(_PATTERN_SHARES.values()))
    begins_ms = random.integers(start_ms, end_ms, count)
    drawn = []
    for pattern, begin_ms in zip(patterns.tolist(), begins_ms.tolist(), strict=True):
        rows = _CAMPAIGNS[FraudPattern(pattern)](population, random, begin_ms)
        rows["pattern"] = pattern
        drawn.append(rows)
    return np.concatenate(drawn)


def card_testing(population: Population, random: np.random.Generator, begin_ms: int) -> Rows:
    """Are these numbers still good? One to three tiny payments each, in a row, at one shop."""
    tried = random.integers(0, population.size.cards, int(random.integers(15, 60)))
    card = np.repeat(tried, random.integers(1, 4, len(tried)))
    rows = empty_rows(len(card))
    merchant = _online_merchant(population, random)
    gaps_ms = random.exponential(4_000.0, len(card))
    rows["card"] = card
    rows["terminal"] = population.merchant_terminals[merchant]
    rows["event_time_ms"] = begin_ms + np.cumsum(gaps_ms).astype(np.int64)
    # A fixed small price, not a share of the shop's: what a tester picks is the cheapest thing that will go through.
    rows["amount"] = random.integers(50, 300, len(card))
    rows["is_declined"] = random.random(len(card)) < 0.65
    return rows


def stolen_card(population: Population, random: np.random.Generator, begin_ms: int) -> Rows:
    """Spend as much as possible before the holder notices."""
    count = int(random.integers(6, 18))
    card = int(random.integers(0, population.size.cards))
    market = np.full(count, random.integers(0, population.size.markets))
    merchant = population.pick_merchants(market, random.random(count))
    rows = empty_rows(count)
    rows["card"] = card
    rows["terminal"] = population.pick_terminals(merchant, random.random(count))
    rows["event_time_ms"] = begin_ms + np.sort(random.integers(0, 3 * HOUR_MS, count))
    rows["amount"] = amounts(population, random, merchant, np.full(count, random.uniform(4.0, 9.0)))
    # The bank's limits bite later and later into the spree.
    rows["is_declined"] = random.random(count) < np.linspace(0.05, 0.7, count)
    rows["is_card_present"] = ~population.merchant_is_online[merchant]
    return rows


def compromised_terminal(population: Population, random: np.random.Generator, begin_ms: int) -> Rows:
    """Cloned cards are cashed in at a terminal whose merchant looks away."""
    count = int(random.integers(20, 70))
    terminal = int(random.integers(0, len(population.terminal_merchant)))
    merchant = np.full(count, population.terminal_merchant[terminal])
    rows = empty_rows(count)
    rows["card"] = random.integers(0, population.size.cards, count)
    rows["terminal"] = terminal
    rows["event_time_ms"] = begin_ms + np.sort(random.integers(0, 2 * HOUR_MS, count))
    rows["amount"] = amounts(population, random, merchant, np.full(count, 3.0))
    rows["is_declined"] = random.random(count) < 0.35
    rows["is_card_present"] = ~population.merchant_is_online[merchant]
    return rows


_CAMPAIGNS: dict[FraudPattern, Callable[[Population, np.random.Generator, int], Rows]] = {
    FraudPattern.CARD_TESTING: card_testing,
    FraudPattern.STOLEN_CARD: stolen_card,
    FraudPattern.COMPROMISED_TERMINAL: compromised_terminal,
}


def _online_merchant(population: Population, random: np.random.Generator) -> int:
    """Any shop that sells online only; any shop where there is none."""
    online = np.flatnonzero(population.merchant_is_online)
    candidates = online if len(online) else np.arange(population.size.merchants)
    return int(random.choice(candidates))
