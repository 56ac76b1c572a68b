"""Faults of the product that the simulator has found: what led to them leads to nothing wrong any more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from featurestore.testing.simulation import from_text, run_schedule
from tests.simulation.nightly import quietly
from tests.simulation.stream import DrivenStream

REPAIRED: Mapping[str, str] = {
    "a lost head is begun anew": "produce:419 pump:514 produce:438 pump:300 lose_key:577 produce:272",
    "the clock steps back": "watch:867 watch:821 watch:782 jump_clock:64 restore_idle:261",
    "a number means another definition": (
        "roll_back:2028826174 copy:3849389157 restore_in_outage:4181753887 read:2080867139 copy:636537650 "
        "roll_back:10906652 restore_node:664498875"
    ),
    "ids are begun anew": "produce:344 pump:614 watch:891 lose_key:246 produce:165 pump:881 stop:93 produce:771",
    "lanes are lost after the plan": "produce:867 pump:821 crash:782 restore:64 produce:261 pump:120",
    "the clock steps back, and a lost store fills anew": (
        "produce:2526223935 pump:1490745 watch:1778036311 watch:1569774604 lose_key:1798434925 jump_clock:3570493152 "
        "pump:2155284247"
    ),
    "a topic read in part is made anew": "produce:864 read:394 make_anew:776 commit:911 produce:430 crash:41",
    "the log is truncated beside a new generation": "produce:137 pump:582 produce:867 truncate:821 define:782",
    "what serves is read no further, and what replaces it waits": (
        "produce:3941304136 make_anew:141826217 read:2056735969 evict:3083960417 restore_in_outage:2783188369 "
        "define:977975128 truncate:3041894861 bootstrap:3254137899"
    ),
    "a checkpoint is lost, and the record goes back": ("produce:485 pump:275 watch:673 lose_key:541 lose_record:358"),
    "a topic is made anew behind its bootstrap": (
        "watch:869 watch:57 begin_bootstrap:86 fill_bootstrap:173 make_anew:753 produce:315 hand_over:620 watch:217"
    ),
    "a number is given again": "bootstrap:38 bootstrap:500 lose_record:4 make_anew:534 bootstrap:326",
    "a node comes back from before its topic was made anew": (
        "produce:1282220703 pump:159966685 make_anew:1228261869 copy:791464548 restore_in_outage:3588650794 "
        "restore:844615896 define:1913563552 copy:897790616 restore_node:872748383"
    ),
    "every lane is lost, and the plan knows an older record": (
        "produce:1100470653 pump:2112945741 watch:1637387353 restore_node:567500333 lose_key:3802012716 watch:625097339"
    ),
    "the store goes back before a successor opens, and nothing arrives": (
        "restore_in_outage:926461038 pump:2547367495 second_writer:2022821456 restore:3230470925"
    ),
    "what was parked comes back with an older store": (
        "produce:3449603169 pump:1432407896 make_anew:2017240479 copy:501863860 read:1795191447 read:3995037774 "
        "restore:2889090071"
    ),
    "a partition is begun by another writer after the plan, and truncated": (
        "restore:3930588353 produce:1262246502 commit:3245809367 begin_bootstrap:3109963873 commit:1045895009 "
        "read:4221571855 second_writer:70007605 commit:244205302 produce:3311171903 produce:3603686555 "
        "produce:660217216 truncate:2668182824 pass_long:2452489478"
    ),
}
"""What was a fault -> the smallest schedule that ran into it."""


@pytest.fixture(autouse=True)
def _quiet_streams() -> Iterator[None]:
    """No threads, and no log lines of streams that fail as they should."""
    with quietly():
        yield


@pytest.mark.parametrize("packs", [0, 1])
@pytest.mark.parametrize("schedule", REPAIRED.values(), ids=REPAIRED)
def test_a_fault_that_was_repaired_stays_so(schedule: str, packs: int) -> None:
    """The steps that led to it lead to nothing wrong any more, wherever entities are."""
    assert not run_schedule(from_text(schedule), DrivenStream, packs=packs).failure
