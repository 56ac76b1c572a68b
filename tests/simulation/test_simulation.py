"""The simulator on the product as it is: some hundred schedules of a fixed seed, the same in every run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from featurestore.testing.simulation import find, never_met, run_schedule, schedule_of
from featurestore.testing.simulation.audit.required import FAULTS_MET, REQUIRED
from tests.simulation.nightly import quietly
from tests.simulation.stream import DrivenStream

FIRST_SEED = 20_000
SCHEDULES = 300


@pytest.fixture(autouse=True)
def _quiet_streams() -> Iterator[None]:
    """No threads, and no log lines of streams that fail as they should."""
    with quietly():
        yield


@pytest.mark.slow
def test_no_schedule_makes_a_value_wrong_without_a_refusal() -> None:
    """Every answer equals the oracle, is refused or is not served; and the run has met every fault and path."""
    counts = Counter[str]()
    for seed in range(FIRST_SEED, FIRST_SEED + SCHEDULES):
        of_seed, finding = find(seed, DrivenStream)
        counts += of_seed

        assert finding is None, f"\n{finding}"
    assert [] == never_met(counts)


def test_the_same_seed_leaves_the_same_bytes() -> None:
    """Whatever is drawn is drawn from the seed: a failure can be run again."""
    for seed in range(FIRST_SEED, FIRST_SEED + 5):
        first, second = (run_schedule(schedule_of(seed), DrivenStream, packs=seed % 2) for _ in range(2))

        assert first.contents is not None
        assert first.contents == second.contents
        assert first.counts == second.counts


def test_a_run_that_meets_nothing_does_not_pass() -> None:
    """What was never met is named."""
    assert list(REQUIRED) == never_met({})
    assert ["crash"] == never_met({name: 1 for name in REQUIRED if name != "crash"})
    assert len(FAULTS_MET) > 20
