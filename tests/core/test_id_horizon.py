"""The set of event ids seen lately."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from featurestore.core.id_horizon import IdHorizon


@given(batches=st.lists(st.lists(st.integers(0, 60) | st.integers(2**64 - 40, 2**64 - 1), max_size=40), max_size=12))
def test_membership_is_that_of_a_plain_set(batches: list[list[int]]) -> None:
    """Small and huge hashes, 0 included, collide in the same slots and still are told apart."""
    horizon, known = IdHorizon(1_000), set[int]()
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
    horizon, rng = IdHorizon(1_000), np.random.default_rng(5)
    hashes = np.unique(rng.integers(1, 2**63, 100_000).astype(np.uint64))
    for chunk in np.array_split(hashes, 50):
        assert horizon.admit(chunk).all()
        horizon.remember(7, chunk)

    assert not horizon.admit(hashes).any()
    assert horizon.admit(hashes + np.uint64(2**63)).all()


def test_an_id_is_remembered_for_at_least_one_horizon_and_at_most_two() -> None:
    """Buckets are one horizon long; the current one and the one before are kept."""
    horizon, one = IdHorizon(1_000), np.array([42], dtype=np.uint64)
    horizon.remember(horizon.bucket_of(999), one)
    horizon.forget_before(horizon.bucket_of(1_999))
    known_within = not horizon.admit(one)[0]
    horizon.forget_before(horizon.bucket_of(2_000))

    assert known_within
    assert horizon.admit(one)[0]
