"""Parity over a table that changes: answers are equal, or a change arrived after them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from featurestore.offline.parity.report import ValueOutcome
from tests.dataflows.log_to_tiles.test_changes import CARDS, REPO, write_changes
from tests.offline.parity.stand import Stand, make_stand, outcomes_of
from tests.wire.changed_table import BEGIN_MS, HOUR_MS, ChangedTable


def ask(stand: Stand, log: Path) -> None:
    """Look all cards up, some of them with a payment in flight, which need not say that it takes nothing back."""
    with stand.server(log) as client:
        for number, card in enumerate(CARDS * 3):
            as_of_ms = BEGIN_MS + 2 * HOUR_MS + number * 1_000
            payment = {"paid_at": as_of_ms, "cents": 12_000, "declined": True} if number % 2 else None
            client.lookup(
                "scoring", {"card_id": card}, as_of_ms=as_of_ms, events={"payment": payment} if payment else None
            )


@pytest.mark.slow
def test_answers_are_equal_or_a_change_arrived_after_them(tmp_path: Path, redis_url: str) -> None:
    """What was taken back after an answer explains it, by the positions at which it was read."""
    stand = make_stand(tmp_path / "repo", redis_url, REPO % "2h")
    tables = [ChangedTable(random.Random(seed), _next_id=1 + 1_000 * seed) for seed in range(2)]
    for table in tables:
        table.change(120)
    write_changes(stand.directory / "events", tables, [0, 0])
    stand.run_stream()
    ask(stand, tmp_path / "early")
    begun = [len(table.sent) for table in tables]
    for table in tables:
        table.change(80)
    write_changes(stand.directory / "events", tables, begun)
    stand.run_stream()
    ask(stand, tmp_path / "late")
    stand.run_event_log()
    early, late = (outcomes_of(stand.check(tmp_path / name)) for name in ("early", "late"))

    assert {ValueOutcome.EQUAL, ValueOutcome.ARRIVED_LATER} == set(early)
    assert early[ValueOutcome.ARRIVED_LATER] > 20
    assert {ValueOutcome.EQUAL} == set(late)
