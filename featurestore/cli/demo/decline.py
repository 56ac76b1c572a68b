"""Why one payment was declined: the rules that spoke, and what their features were merged from.

The server explains while it still runs, by what `featurestore explain` asks; see docs/explain.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from featurestore.cli.demo.live import DECISION_SERVICE, ScoredPayment
from featurestore.cli.demo.payments import TOPIC
from featurestore.cli.demo.summary import Line
from featurestore.online.answer.explaining.explanation import ExplainedFeature, ExplainedTile, ExplainedValue
from featurestore.serving.client.clients import LookupClient
from featurestore.testing.simulator.rows import FraudPattern

FEATURES_EXPLAINED = 3
"""The most telling ones."""

NEWEST_SHOWN = 3
"""Of what a value was merged from."""

_MS_PER_SECOND = 1_000


def most_telling(answers: list[ScoredPayment]) -> ScoredPayment | None:
    """The newest flagged fraud for which most rules spoke; a false alarm where there was no other, None for none."""
    return max(
        answers,
        key=lambda answer: (answer.payment.pattern is not FraudPattern.NONE, len(answer.assessment.rules)),
        default=None,
    )


def explain_decline(client: LookupClient, answer: ScoredPayment) -> list[Line]:
    """The rules that applied to a payment, the features that they read, and how to ask the same.

    Raises:
        FeatureStoreError: as the server raised it.
    """
    payment = answer.payment
    names = list(dict.fromkeys(name for rule in answer.assessment.rules for name in rule.reads))[:FEATURES_EXPLAINED]
    explanation = client.explain(
        DECISION_SERVICE,
        payment.entities,
        features=names,
        request={"amount": payment.amount},
        events={TOPIC: payment.event},
    )
    truth = "fraud" if payment.pattern is not FraudPattern.NONE else "honest"
    shop = f"{payment.category} {payment.market}"
    lines = [
        ("payment", f"{payment.card_id}, {payment.amount_text} at {shop}; in truth {truth}"),
        ("score", f"{answer.assessment.points}: {', '.join(answer.assessment.reasons)}"),
    ]
    for feature in sorted(explanation.features, key=lambda feature: names.index(feature.name)):
        tiles = explanation.views[feature.view].tiles[feature.first_tile : feature.end_tile]
        lines.append((feature.name, "; ".join(_facts(answer, feature, tiles))))
    lines.append(("command", _command(answer, names)))
    return lines


def _facts(answer: ScoredPayment, feature: ExplainedFeature, tiles: tuple[ExplainedTile, ...]) -> Iterator[str]:
    """What the model got, what of it was there before the payment, and what that comes from."""
    answered = answer.features[feature.name]
    if feature.reads:
        read = ", ".join(f"{read.name} {_value_text(read.value)}" for read in feature.reads)
        yield f"{_value_text(answered)}, of amount {_value_text(answer.payment.amount)} and {read}"
        return
    now = "" if answered == feature.value else f" then, {_value_text(feature.value)} now that a late payment is there"
    yield _value_text(answered) + now
    before = [(tile, value) for tile, value in zip(tiles, feature.partials, strict=True) if not tile.is_in_flight]
    itself = " and this payment" if len(before) < len(tiles) else ""
    yield f"merged from {sum(tile.merged for tile, _ in before)} tiles and events{itself}"
    if before:
        newest = before[: -NEWEST_SHOWN - 1 : -1]
        yield "newest " + ", ".join(f"{_value_text(value)} at {_moment_text(tile.start_ms)}" for tile, value in newest)


def _command(answer: ScoredPayment, names: list[str]) -> str:
    """What one would type to see one of them tile by tile."""
    payment = answer.payment
    given = {**payment.entities, "amount": payment.amount}
    words = [f"{name}={_typed(value)}" for name, value in given.items()]
    options = [f"--feature {names[0]}", *(f"--event {name}={_typed(value)}" for name, value in payment.event.items())]
    return " ".join(["featurestore explain", DECISION_SERVICE, *words, *options])


def _typed(value: object) -> str:
    """A value on the command line; nothing is null."""
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _value_text(value: ExplainedValue) -> str:
    """A value for people."""
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < _MS_PER_SECOND else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _moment_text(moment_ms: int) -> str:
    """Time of day, UTC."""
    return datetime.fromtimestamp(moment_ms / _MS_PER_SECOND, tz=UTC).strftime("%H:%M:%S")
