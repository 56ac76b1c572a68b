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
    known.HEAD_BEGUN_ANEW: "produce:419 pump:514 produce:438 pump:300 lose_key:577 produce:272",
    known.IDS_BEGUN_ANEW: "produce:344 pump:614 watch:891 lose_key:246 produce:165 pump:881 stop:93 produce:771",
    known.LANES_AFTER_PLAN: "produce:867 pump:821 crash:782 restore:64 produce:261 pump:120",
    known.CLOCK_STEPS_BACK: "watch:867 watch:821 watch:782 jump_clock:64 restore_idle:261",
    known.TOPIC_READ_IN_PART: "produce:864 read:394 make_anew:776 commit:911 produce:430 crash:41",
    known.TRUNCATED_BESIDE_NEW: "produce:137 pump:582 produce:867 truncate:821 define:782",
    known.RECORD_AND_CHECKPOINT: "produce:485 pump:275 watch:673 lose_key:541 lose_record:358",
    known.BOOTSTRAP_OF_OLD_TOPIC: "watch:869 watch:57 begin_bootstrap:86 fill_bootstrap:173 make_anew:753 produce:315 "
    "hand_over:620 watch:217",
    known.NUMBER_GIVEN_AGAIN: "bootstrap:38 bootstrap:500 lose_record:4 make_anew:534 bootstrap:326",
    known.OTHER_DEFINITION: "roll_back:2028826174 copy:3849389157 restore_in_outage:4181753887 read:2080867139 "
    "copy:636537650 roll_back:10906652 restore_node:664498875",
}
"""Known fault -> the smallest schedule that runs into it."""


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
