"""Entities as the publisher looks them up, on a real Redis: what is behind, damaged, or not worth a message."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from dataflows.log_to_features import vectors
from dataflows.log_to_features.publisher import Publisher
from dataflows.log_to_features.sink import BEHIND_SECONDS_MAX, PublishSink
from dataflows.log_to_features.vectors import VectorReader, Wanted
from dataflows.logs.sources import Heartbeat, Shared
from dataflows.progress import StreamProgress
from dataflows.run_outcome import Conductor
from featurestore.core.spec import ValueType
from featurestore.errors import CorruptTile, InvalidRequest
from featurestore.online.answer.assembly import AnswerLimits
from featurestore.online.redis.store import connect
from featurestore.serving.catalog.catalog import CatalogSource
from featurestore.testing.clock import ManualClock
from featurestore.wire.entity_key import fingerprint, lane_of
from tests.serving.payments import (
    CARD_ACTIVITY,
    CARD_ID,
    HOUR,
    LANES,
    NOW_MS,
    REPO,
    Payments,
    RegistryInMemory,
    event_of,
    references,
    windowed,
)

CARDS = replace(REPO.services[0], name="cards", features=references("card_activity"), join_keys=(CARD_ID,))
PLACE = (CARD_ACTIVITY.source.topic, 0)


@pytest.fixture
def payments(redis_url: str) -> Iterator[Payments]:
    """Ten cards with a payment each, two minutes ago."""
    store = connect(redis_url)
    written = Payments(store, ManualClock(now_ms=NOW_MS))
    written.write(CARD_ACTIVITY, [event_of(b"c-%d" % number, NOW_MS - 120_000) for number in range(10)])
    yield written
    store.close()


def reader_of(payments: Payments, **policy: Any) -> VectorReader:
    """Of the cards' service."""
    catalog = CatalogSource(RegistryInMemory(replace(REPO, services=(CARDS,))), payments.store)
    return VectorReader(
        catalog.snapshot(),
        "cards",
        payments.store,
        payments.clock,
        **{"where": "", "follows_windows": False, **policy},
    )


def wanted(*numbers: int, offset: int = 0) -> list[Wanted]:
    """Cards, with what must be in the store."""
    needs = {PLACE: offset} if offset else {}
    return [Wanted(b"c-%d" % number, needs) for number in numbers]


def test_what_the_store_does_not_have_yet_is_behind(payments: Payments) -> None:
    """By the checkpoint of the entity's lane, at the very moment of the read."""
    found = reader_of(payments).read([*wanted(1, offset=10), *wanted(2, offset=11), *wanted(3)])

    assert [b"c-1", b"c-3"] == [one.key for one in found.found]
    assert [b"c-2"] == [one.key for one in found.behind]
    assert {PLACE: 10} == found.found[0].positions
    payments.write(CARD_ACTIVITY, [event_of(b"c-2", NOW_MS - 5)])
    # Lanes take note of a read also where it has no event of theirs.
    assert [b"c-2"] == [one.key for one in reader_of(payments).read(wanted(2, offset=11)).found]


def test_an_entity_that_is_damaged_keeps_no_other_back(payments: Payments) -> None:
    """Whichever it stands among, each other one is found once."""
    generation = payments.catalog.serving("card_activity")
    assert generation is not None
    head = generation.keys.head_prefix(lane_of(b"c-4", LANES)) + b"c-4"
    [stored] = payments.store.read_groups([[head]])
    payments.store.compare_and_set(head, stored, b"\x01\x02\x03")

    found = reader_of(payments, follows_windows=True).read(wanted(*range(10)))

    assert [b"c-%d" % number for number in range(10) if number != 4] == [one.key for one in found.found]
    [(row, error)] = found.refused
    assert (row.key, type(error)) == (b"c-4", CorruptTile)
    assert f"entity {fingerprint(b'c-4')})" in error.message


def test_a_service_of_many_views_is_read_a_few_rows_at_a_time(
    payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within what one request may read; the same vectors."""
    whole = reader_of(payments).read(wanted(*range(10))).found
    monkeypatch.setattr(vectors, "ENTITY_READS_PER_REQUEST_MAX", 3)
    monkeypatch.setattr("featurestore.serving.lookup.LIMITS", AnswerLimits(reads_max=3))

    assert whole == reader_of(payments).read(wanted(*range(10))).found


def test_features_that_age_are_no_change(payments: Payments) -> None:
    """The digest of an hour later is the same while no window has moved; the value that ages is another one."""
    view = replace(
        CARD_ACTIVITY,
        name="card_ages",
        features=(
            windowed("count", None, replace(HOUR, length_ms=None, hop_ms=0), ValueType.INT64),
            windowed("time_since_last", None, replace(HOUR, length_ms=None, hop_ms=0), ValueType.INT64),
        ),
        derived=(),
        retention_ms=None,
    )
    payments.write(view, [event_of(b"c-1", NOW_MS - 120_000)])
    service = replace(CARDS, features=references("card_ages", views={"card_ages": view}))
    repo = replace(REPO, views=(view, *REPO.views), services=(service,))
    snapshot = CatalogSource(RegistryInMemory(repo), payments.store).snapshot()
    digests, ages = set(), set()
    for now_ms in (NOW_MS, NOW_MS + 3_600_000):
        reader = VectorReader(
            snapshot, "cards", payments.store, ManualClock(now_ms=now_ms), where="", follows_windows=False
        )
        [one] = reader.read(wanted(1)).found
        digests.add(one.digest)
        ages.add(next(value for name, value in one.features.items() if "time_since" in name))

    assert (1, 2) == (len(digests), len(ages))


@pytest.mark.parametrize(
    ("where", "fact"),
    [("COUNTED1 > 1", "is unknown"), ("COUNTED + 1", "is not true or false"), ("COUNTED >", "is not valid SQL")],
)
def test_a_condition_that_is_none_is_refused(payments: Payments, where: str, fact: str) -> None:
    """Before anything is published."""
    counted = CARDS.features[0].output_name
    with pytest.raises(InvalidRequest, match=fact):
        reader_of(payments, where=where.replace("COUNTED", counted))


class Behind:
    """A publisher that the store keeps waiting for a while."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock, self.looks = clock, 0
        self.positions: dict[tuple[str, int], int] = {}

    def publish(self) -> bool:
        """Whether it has come."""
        self.looks += 1
        return self.clock.monotonic_ns() > 60 * 10**9


def test_a_store_without_a_stream_is_asked_now_and_then() -> None:
    """Often at first, then twice a second: a minute of waiting is some hundred looks, not thousands."""
    clock = ManualClock()
    progress = StreamProgress(clock, interval_seconds=1_000, terminal=None)
    shared = Shared(Conductor(), progress, clock, until_end=False, patience_seconds=1.0)
    publisher: Any = Behind(clock)
    typed: Publisher = publisher
    PublishSink(typed, shared).build_part("publish", "publisher", None).write_batch([Heartbeat()])

    assert 60 / BEHIND_SECONDS_MAX <= publisher.looks <= 60 / BEHIND_SECONDS_MAX + 10
