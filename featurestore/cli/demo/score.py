"""A risk model that everybody can read: some rules over features, each worth points.

It stands for the trained model that a team would have; what it shows is that the features carry the signal. There are
three, of one kind and with one threshold, and all of them score the same payments:

    STORED      features of the payments before this one, and nothing else
    COMPARED    these, and the amount, which the model compares with means by itself
    IN_FLIGHT   features that count this payment too, and its amount as the server compares it

The points of the last were chosen on simulated payments of other seeds than the demo's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from featurestore.serving.client.result import FeatureValue

FLAG_POINTS = 5
"""From here on a payment is suspicious."""

Features: TypeAlias = "Mapping[str, FeatureValue]"
"""Feature name -> value, None where there is none."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Points for something odd.

    Attributes:
        points: what it is worth.
        name: the reason, as shown.
        applies: features and amount (minor units, None while it is open) -> whether it does.
        reads: the features that it looks at, the most telling first.
    """

    points: int
    name: str
    applies: Callable[[Features, int | None], bool]
    reads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Assessment:
    """What the model says of one payment.

    Attributes:
        rules: those that apply, the heaviest first.
    """

    rules: tuple[Rule, ...]

    @property
    def points(self) -> int:
        """Sum over the rules."""
        return sum(rule.points for rule in self.rules)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Names of the rules."""
        return tuple(rule.name for rule in self.rules)

    @property
    def is_suspicious(self) -> bool:
        """Whether somebody should look at it."""
        return self.points >= FLAG_POINTS


def assess(rules: Sequence[Rule], features: Features, amount: int | None) -> Assessment:
    """Apply rules.

    Args:
        rules: STORED, COMPARED or IN_FLIGHT.
        features: of the feature service "fraud_detection", or of "payment_decision", asked with the payment.
        amount: of the payment, minor units; None while it is open.
    """
    found = (rule for rule in rules if rule.applies(features, amount))
    return Assessment(tuple(sorted(found, key=lambda rule: -rule.points)))


def ratio(amount: int | None, mean: object) -> float:
    """An amount as a multiple of a mean; 0 where either is not known."""
    return amount / mean if amount is not None and isinstance(mean, float) and mean > 0 else 0.0


def number(features: Features, name: str) -> float:
    """A feature as a number, 0 where it has no value."""
    value = features[name]
    return float(value) if isinstance(value, int | float) else 0.0


def _declined(features: Features, window: str, *, at_least: int, more_than_share: float) -> bool:
    """Whether a terminal declines more than a share of its payments, and not just one or two."""
    declines = number(features, f"terminal_declines_{window}")
    return declines >= at_least and declines > more_than_share * number(features, f"terminal_count_{window}")


def _is_below(features: Features, name: str, bound: float) -> bool:
    """Whether a ratio is known, and small."""
    return features[name] is not None and number(features, name) < bound


STORED: tuple[Rule, ...] = (
    Rule(
        5,
        "most declined at terminal in 5 min",
        lambda f, _: _declined(f, "5m", at_least=4, more_than_share=0.35),
    ),
    Rule(2, "many declined at terminal in 1 h", lambda f, _: _declined(f, "1h", at_least=4, more_than_share=0.2)),
    Rule(1, "card declined in 1 h", lambda f, _: number(f, "card_declines_1h") >= 1),
    Rule(1, "card used twice in 1 h", lambda f, _: number(f, "card_count_1h") >= 2),
)

COMPARED: tuple[Rule, ...] = (
    *STORED,
    Rule(3, "amount 4 x the shop's mean", lambda f, amount: ratio(amount, f["merchant_amount_mean_30d"]) >= 4),
    Rule(1, "amount 4 x the card's mean", lambda f, amount: ratio(amount, f["card_amount_mean_30d"]) >= 4),
)

_SHOP, _CARD = "amount_to_shop_mean", "amount_to_card_mean"
_HOUR, _MINUTES = ("terminal_declines_1h", "terminal_count_1h"), ("terminal_declines_5m", "terminal_count_5m")

IN_FLIGHT: tuple[Rule, ...] = (
    Rule(
        2,
        "many declined at terminal in 1 h",
        lambda f, _: _declined(f, "1h", at_least=2, more_than_share=0.2),
        _HOUR,
    ),
    Rule(
        1,
        "most declined at terminal in 5 min",
        lambda f, _: _declined(f, "5m", at_least=4, more_than_share=0.35),
        _MINUTES,
    ),
    Rule(2, "amount below 0.3 x the shop's mean", lambda f, _: _is_below(f, _SHOP, 0.3), (_SHOP,)),
    Rule(1, "amount below 0.1 x the shop's mean", lambda f, _: _is_below(f, _SHOP, 0.1), (_SHOP,)),
    Rule(2, "amount 3 x the shop's mean", lambda f, _: number(f, _SHOP) >= 3, (_SHOP,)),
    Rule(1, "amount 4 x the shop's mean", lambda f, _: number(f, _SHOP) >= 4, (_SHOP,)),
    Rule(1, "amount 4 x the card's mean", lambda f, _: number(f, _CARD) >= 4, (_CARD,)),
    Rule(2, "card's 8th payment in 6 h", lambda f, _: number(f, "card_count_6h") >= 8, ("card_count_6h",)),
)
