"""A risk model that everybody can read: some rules over features, each worth points.

It stands for the trained model that a team would have; what it shows is that the features carry the signal. Every rule
sees the features as they were the moment before the payment, and the payment's amount, as a real model would.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from featurestore.serving.client.result import FeatureValue

FLAG_POINTS = 5
"""From here on a payment is suspicious."""

Features: TypeAlias = "Mapping[str, FeatureValue]"
"""Feature name -> value, None where there is none."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """What the model says of one payment.

    Attributes:
        points: sum over the rules that apply.
        reasons: these rules' names, the heaviest first.
    """

    points: int
    reasons: tuple[str, ...]

    @property
    def is_suspicious(self) -> bool:
        """Whether somebody should look at it."""
        return self.points >= FLAG_POINTS


@dataclass(frozen=True, slots=True)
class Rule:
    """Points for something odd.

    Attributes:
        points: what it is worth.
        name: the reason, as shown.
        applies: features and amount (minor units, None while it is open) -> whether it does.
    """

    points: int
    name: str
    applies: Callable[[Features, int | None], bool]


def assess(features: Features, amount: int | None) -> Assessment:
    """Apply all rules.

    Args:
        features: of the feature service "fraud_detection".
        amount: of the payment, minor units; None while it is open.
    """
    found = sorted((rule for rule in RULES if rule.applies(features, amount)), key=lambda rule: -rule.points)
    return Assessment(sum(rule.points for rule in found), tuple(rule.name for rule in found))


def ratio(amount: int | None, mean: object) -> float:
    """An amount as a multiple of a mean; 0 where either is not known."""
    return amount / mean if amount is not None and isinstance(mean, float) and mean > 0 else 0.0


def number(features: Features, name: str) -> float:
    """A feature as a number, 0 where it has no value."""
    value = features[name]
    return float(value) if isinstance(value, int | float) else 0.0


def _many_declined(features: Features, window: str, *, more_than_share: float) -> bool:
    """Whether a terminal declines more than a share of its payments, and not just one or two."""
    declines = number(features, f"terminal_declines_{window}")
    return declines >= 4 and declines > more_than_share * number(features, f"terminal_count_{window}")


RULES: tuple[Rule, ...] = (
    Rule(5, "most declined at terminal in 5 min", lambda f, _: _many_declined(f, "5m", more_than_share=0.35)),
    Rule(2, "many declined at terminal in 1 h", lambda f, _: _many_declined(f, "1h", more_than_share=0.2)),
    Rule(3, "amount 4 x the shop's mean", lambda f, amount: ratio(amount, f["merchant_amount_mean_30d"]) >= 4),
    Rule(1, "amount 4 x the card's mean", lambda f, amount: ratio(amount, f["card_amount_mean_30d"]) >= 4),
    Rule(1, "card declined in 1 h", lambda f, _: number(f, "card_declines_1h") >= 1),
    Rule(1, "card used twice in 1 h", lambda f, _: number(f, "card_count_1h") >= 2),
)
