"""Faults of the product that are known and not repaired: the simulator runs into each when it does not go around it.

When one of these tests fails because nothing is found any more, the fault is repaired: delete its line in
`featurestore/testing/simulation/known.py`, and its schedule here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from featurestore.testing.simulation import KNOWN_FAULTS, from_text, known, run_schedule
from tests.simulation.nightly import quietly
from tests.simulation.stream import DrivenStream

SCHEDULES: Mapping[str, str] = {
    known.IDS_BEGUN_ANEW: "produce:344 pump:614 watch:891 lose_key:246 produce:165 pump:881 stop:93 produce:771",
    known.LANES_AFTER_PLAN: "produce:867 pump:821 crash:782 restore:64 produce:261 pump:120",
    known.CLOCK_STEPS_BACK: "produce:2526223935 pump:1490745 watch:1778036311 watch:1569774604 lose_key:1798434925 "
    "jump_clock:3570493152 pump:2155284247",
    known.TOPIC_READ_IN_PART: "produce:864 read:394 make_anew:776 commit:911 produce:430 crash:41",
    known.TRUNCATED_BESIDE_NEW: "produce:3941304136 make_anew:141826217 read:2056735969 evict:3083960417 "
    "restore_in_outage:2783188369 define:977975128 truncate:3041894861 bootstrap:3254137899",
    known.RECORD_AND_CHECKPOINT: "produce:485 pump:275 watch:673 lose_key:541 lose_record:358",
    known.BOOTSTRAP_OF_OLD_TOPIC: "watch:869 watch:57 begin_bootstrap:86 fill_bootstrap:173 make_anew:753 produce:315 "
    "hand_over:620 watch:217",
    known.NUMBER_GIVEN_AGAIN: "bootstrap:38 bootstrap:500 lose_record:4 make_anew:534 bootstrap:326",
}
"""Known fault -> the smallest schedule that runs into it."""

REPAIRED: Mapping[str, str] = {
    "a lost head is begun anew": "produce:419 pump:514 produce:438 pump:300 lose_key:577 produce:272",
    "the clock steps back": "watch:867 watch:821 watch:782 jump_clock:64 restore_idle:261",
    "a number means another definition": "roll_back:2028826174 copy:3849389157 restore_in_outage:4181753887 "
    "read:2080867139 copy:636537650 roll_back:10906652 restore_node:664498875",
}
"""What was a fault -> the smallest schedule that ran into it."""


@pytest.fixture(autouse=True)
def _quiet_streams() -> Iterator[None]:
    """No threads, and no log lines of streams that fail as they should."""
    with quietly():
        yield


@pytest.mark.parametrize("fault", sorted(KNOWN_FAULTS))
def test_a_known_fault_is_still_there(fault: str) -> None:
    """Its schedule fails when nothing avoids it, and does not when it is avoided."""
    schedule = from_text(SCHEDULES[fault])

    assert run_schedule(schedule, DrivenStream, KNOWN_FAULTS - {fault}).failure
    assert not run_schedule(schedule, DrivenStream).failure


@pytest.mark.parametrize("schedule", REPAIRED.values(), ids=REPAIRED)
def test_a_fault_that_was_repaired_stays_so(schedule: str) -> None:
    """The steps that led to it lead to nothing wrong any more."""
    assert not run_schedule(from_text(schedule), DrivenStream).failure
