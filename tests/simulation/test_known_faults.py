"""Faults of the product that are known and not repaired: the simulator runs into each when it does not go around it.

When one of these tests fails because nothing is found any more, the fault is repaired: delete its line in
`featurestore/testing/simulation/known.py`, and its schedule here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from featurestore.testing.simulation import KNOWN_FAULTS, from_text, run_schedule
from tests.simulation.__main__ import quietly
from tests.simulation.stream import DrivenStream

SCHEDULES: Mapping[str, str] = {}
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
