"""The simulator's teeth: with a guard of the product taken out it must find something, each time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from featurestore.testing.simulation import run_schedule, schedule_of
from featurestore.testing.simulation.definitions import APART, TOGETHER
from tests.simulation.mutants import GROUP_MUTANTS, MUTANTS, PACK_MUTANTS
from tests.simulation.nightly import quietly
from tests.simulation.stream import DrivenStream

SCHEDULES_MAX = 1_200
"""Bodies are small and refuse most of what is not as written by themselves: without checksums it takes 700 or so."""


@pytest.fixture(autouse=True)
def _quiet_streams() -> Iterator[None]:
    """No threads, and no log lines of streams that fail as they should."""
    with quietly():
        yield


@pytest.mark.slow
@pytest.mark.parametrize("guard", [*MUTANTS, *GROUP_MUTANTS, *PACK_MUTANTS])
def test_a_product_without_one_of_its_guards_is_found_out(guard: str) -> None:
    """Within so many schedules some value is wrong, or something that was promised does not happen."""
    definitions, packs = TOGETHER if guard in GROUP_MUTANTS else APART, int(guard in PACK_MUTANTS)
    with {**MUTANTS, **GROUP_MUTANTS, **PACK_MUTANTS}[guard]():
        failures = (
            run_schedule(schedule_of(seed), DrivenStream, definitions, packs).failure for seed in range(SCHEDULES_MAX)
        )

        assert next(filter(None, failures), "")
