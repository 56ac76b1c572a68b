"""The set of event ids seen lately."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from featurestore.online.write.seen_ids import BUCKETS_KEPT, IDLE_AFTER_ROWS, HorizonClock, IdHorizon


@given(batches=st.lists(st.lists(st.integers(0, 60) | st.integers(2**64 - 40, 2**64 - 1), max_size=40), max_size=12))
def test_membership_is_that_of_a_plain_set(batches: list[list[int]]) -> None:
    """Small and huge hashes, 0 included, collide in the same slots and still are told apart."""
    horizon, known = IdHorizon(), set[int]()
    for batch in batches:
        hashes = np.array(batch, dtype=np.uint64)
        admitted = horizon.admit(hashes)
        expected = []
        for value in (max(value, 1) for value in batch):
            expected.append(value not in known)
            known.add(value)
        horizon.remember(0, np.unique(hashes[admitted]))

        assert expected == admitted.tolist()


def test_it_grows_past_its_first_table() -> None:
    """A hundred thousand ids are all remembered, and none that was not given."""
    horizon, rng = IdHorizon(), np.random.default_rng(5)
    hashes = np.unique(rng.integers(1, 2**63, 100_000).astype(np.uint64))
    for chunk in np.array_split(hashes, 50):
        assert horizon.admit(chunk).all()
        horizon.remember(7, chunk)

    assert not horizon.admit(hashes).any()
    assert horizon.admit(hashes + np.uint64(2**63)).all()


def test_the_current_bucket_and_the_one_before_are_kept() -> None:
    """Two buckets on, an id is forgotten."""
    horizon, one = IdHorizon(), np.array([42], dtype=np.uint64)
    horizon.remember(7, one)
    horizon.forget_before(8)
    is_known = not horizon.admit(one)[0]
    horizon.forget_before(9)

    assert is_known
    assert horizon.admit(one)[0]


@given(
    steps=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1_500)), max_size=60),
    partition_count=st.integers(1, 4),
)
def test_an_id_is_remembered_for_a_horizon_of_its_own_partition(
    steps: list[tuple[int, int]], partition_count: int
) -> None:
    """However far the other partitions run ahead: two buckets on, its partition has moved on by a horizon."""
    clock = HorizonClock(1_000)
    newest = [0] * partition_count
    put: list[tuple[int, int, int]] = []
    for number, step_ms in steps:
        partition = number % partition_count
        newest[partition] += step_ms
        bucket = clock.advance({("topic", partition): newest[partition]}, 1)
        put.append((partition, bucket, newest[partition]))

        assert all(newest[at] - then >= 1_000 for at, into, then in put if bucket >= into + BUCKETS_KEPT)


def test_a_silent_partition_does_not_hold_the_clock_for_ever() -> None:
    """After a million rows of the others it no longer counts; when it speaks again it does."""
    clock, silent, busy = HorizonClock(1_000), ("topic", 0), ("topic", 1)
    clock.advance({silent: 0, busy: 0}, 2)
    held = clock.advance({busy: 5_000}, IDLE_AFTER_ROWS)
    released = clock.advance({busy: 6_000}, 1)
    clock.advance({silent: 10}, 1)
    held_again = clock.advance({busy: 9_000}, 1)

    assert (0, 1, 1) == (held, released, held_again)
