"""What a demo has shown, as figures and text, and whether all of it worked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.cli.demo.live import Catch, LiveFigures
from featurestore.cli.demo.payments import BROKEN_RECORDS
from featurestore.cli.demo.score import COMPARED, FLAG_POINTS, IN_FLIGHT, STORED

Line = tuple[str, str]
"""Name of a figure, and what is to be said."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything measured.

    Attributes:
        history_records: records written before the stream started.
        days: of history.
        catch_up_s: from the stream's start until it had read them all.
        features: of the feature service that was looked up.
        views: stream views that the stream keeps.
        live: figures of the live payments.
        live_s: their duration.
        dead_letters: records refused, by reason.
        cards_checked: cards whose features were compared with a recount.
        cards_wrong: those that differed.
    """

    history_records: int
    days: float
    catch_up_s: float
    features: int
    views: int
    live: LiveFigures
    live_s: float
    dead_letters: Mapping[str, int]
    cards_checked: int
    cards_wrong: int

    def lines(self) -> list[Line]:
        """The figures in words."""
        live, amounts = self.live, len(COMPARED) - len(STORED)
        return [
            ("catch-up", self._catch_up_text()),
            ("lookups", self._lookups_text()),
            ("freshness", self._freshness_text()),
            ("frauds", self._frauds_text()),
            ("  stored", self._caught_text(live.stored, f"{len(STORED)} rules over the payments before")),
            ("  compared", self._caught_text(live.compared, f"these and {amounts} of the amount, in the model")),
            ("  in flight", self._caught_text(live.decided, f"{len(IN_FLIGHT)} rules with the payment in flight")),
            ("dead letters", self._dead_letters_text()),
            ("recount", self._recount_text()),
        ]

    def problems(self) -> list[str]:
        """What did not work; empty for a demo that did."""
        live = self.live
        checks = {
            "no lookup was answered": not live.lookup_ms,
            "no payment became visible": not live.freshness_ms,
            f"{live.unseen} payments did not become visible in time": live.unseen > 0,
            f"{self.cards_wrong} cards have features that differ from a recount": self.cards_wrong > 0,
            "no card was compared with a recount": self.cards_checked == 0,
            f"{sum(self.dead_letters.values())} dead letters instead of {len(BROKEN_RECORDS)}": (
                sum(self.dead_letters.values()) != len(BROKEN_RECORDS)
            ),
        }
        return [text for text, is_so in checks.items() if is_so]

    def _catch_up_text(self) -> str:
        rate = self.history_records / self.catch_up_s
        return (
            f"{self.history_records:,} payments of {self.days:g} days into {self.views} views in "
            f"{self.catch_up_s:.1f} s: {rate:,.0f} events/s"
        )

    def _lookups_text(self) -> str:
        live = self.live
        skipped = f", {live.skipped:,} left out (this machine was too slow)" if live.skipped else ""
        return (
            f"{len(live.lookup_ms):,} of {self.features} features each while the payment waited: "
            f"{percentiles_text(live.lookup_ms)}{skipped}"
        )

    def _freshness_text(self) -> str:
        return (
            f"{percentiles_text(self.live.freshness_ms)} from a payment in the log until the features show it "
            f"({len(self.live.freshness_ms):,} probes)"
        )

    def _frauds_text(self) -> str:
        asked = f"{self.live.frauds_asked} of {self.live.asked.total():,} payments"
        return f"{asked}, scored three ways, flagged from {FLAG_POINTS} points"

    def _caught_text(self, catch: Catch, how: str) -> str:
        frauds = self.live.frauds_asked
        return (
            f"{catch.frauds} caught{_share_text(catch.frauds, frauds)}, {catch.flagged} flagged"
            f"{_share_text(catch.frauds, catch.flagged, ' right')}: {how}"
        )

    def _dead_letters_text(self) -> str:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(self.dead_letters.items()))
        return (
            f"{sum(self.dead_letters.values())} for {len(BROKEN_RECORDS)} records broken on purpose: {reasons or '-'}"
        )

    def _recount_text(self) -> str:
        equal = self.cards_checked - self.cards_wrong
        compared = f"{equal} of {self.cards_checked} cards: count, amount and euros of their whole life"
        return f"{compared} equal a recount of the log"


def _share_text(part: int, whole: int, word: str = "") -> str:
    return f" ({part / whole:.0%}{word})" if whole else ""


def percentiles_text(values_ms: Sequence[float]) -> str:
    """Median and 99th percentile of latencies."""
    if not values_ms:
        return "p50 -, p99 -"
    p50, p99 = np.percentile(np.array(values_ms), (50, 99))
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"
