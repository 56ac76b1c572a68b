"""The packed API over real gRPC and real Redis, against the naive oracle."""

import math
from collections.abc import Sequence

import pytest

from featurestore.core.spec import PlainViewSpec, ValueType
from featurestore.errors import (
    AsOfTooOld,
    CorruptTile,
    InvalidRequest,
    LimitExceeded,
    UnknownFeatureService,
    UnknownJoinKey,
)
from featurestore.online.answer.schema import FeatureStatus
from featurestore.online.read.reader import EntityRead
from featurestore.online.redis.store import connect
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.request.limits import ROWS_PER_REQUEST_MAX
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from featurestore.testing.oracle.naive import NaiveAnswer, NaiveValue, naive_found, naive_value
from featurestore.testing.oracle.tolerance import agrees
from featurestore.testing.strategies import DAY_MS
from featurestore.wire.entity_key import encode_key, fingerprint, lane_of
from tests.serving.payments import (
    CARD_ACTIVITY,
    FRAUD_DETECTION,
    LANES,
    NOW_MS,
    VIEWS,
    Payments,
    RegistryInMemory,
    event_of,
)
from tests.serving.store_reads import before_lookup_reads

Entities = dict[str, str | int | Sequence[str] | Sequence[int]]

PROFILE: dict[str, NaiveValue] = {
    "risk_tier": "high",
    "chargeback_rate": 0.25,
    "onboarding_days": 400,
    "is_online": True,
    "opened_at": 5_000,
}


def expected_row(
    payments: Payments, card_id: str, merchant_id: int, as_of_ms: int
) -> dict[str, tuple[NaiveAnswer | None, FeatureStatus]]:
    """What the oracle says about one row of fraud_detection."""
    values: dict[str, str | int] = {"card_id": card_id, "merchant_id": merchant_id}
    row: dict[str, tuple[NaiveAnswer | None, FeatureStatus]] = {}
    value: NaiveAnswer | None
    for reference in FRAUD_DETECTION.features:
        view = VIEWS[reference.view]
        if isinstance(view, PlainViewSpec):
            value = PROFILE[reference.feature] if merchant_id == 7 else None
            status = FeatureStatus.PRESENT if merchant_id == 7 else FeatureStatus.NOT_FOUND
            row[reference.output_name] = (value, status)
            continue
        key = encode_key([values[column.name] for column in view.join_keys])
        events = payments.events.get((view.name, key), [])
        feature = next(each for each in view.features if each.name == reference.feature)
        value = naive_value(feature, events, as_of_ms)
        found = FeatureStatus.NULL_VALUE if value is None else FeatureStatus.PRESENT
        status = found if naive_found(view, events, as_of_ms) else FeatureStatus.NOT_FOUND
        row[reference.output_name] = (value, status)
    return row


def test_every_value_and_status_is_the_oracles(client: LookupClient, payments: Payments) -> None:
    """A batch of known, half-known and unknown entities gives, cell by cell, what two plain loops give."""
    pairs = [("c-1", 7), ("c-2", 7), ("c-1", 8), ("nobody", 404), ("c-1", 7)]
    entities: Entities = {"card_id": [card for card, _ in pairs], "merchant_id": [merchant for _, merchant in pairs]}

    result = client.lookup("fraud_detection", entities)

    assert result.names == [reference.output_name for reference in FRAUD_DETECTION.features]
    assert result.as_of_ms == (NOW_MS,)
    for row, (card, merchant) in zip(result.rows(), pairs, strict=True):
        for name, (value, _) in expected_row(payments, card, merchant, NOW_MS).items():
            assert agrees(value, row[name]), f"{name} of {card}, {merchant}"
    for index, (card, merchant) in enumerate(pairs):
        for name, (_, status) in expected_row(payments, card, merchant, NOW_MS).items():
            assert result.status(name)[index] is status, f"{name} of {card}, {merchant}"


def test_one_row_needs_no_lists(client: LookupClient, payments: Payments) -> None:
    """A payment's features can be asked for with bare values, and come back as one row."""
    result = client.lookup("fraud_detection", {"card_id": "c-1", "merchant_id": 7})

    assert result.row_count == 1
    assert result.rows()[0]["card_activity__count_1h"] == 2


def test_each_row_can_have_its_own_read_time(client: LookupClient, payments: Payments) -> None:
    """Rows of one entity at several moments are answered as of each, so a replay can be looked up in one call."""
    # The newest event is read exactly down to the view's look-back before it.
    moments = [NOW_MS, NOW_MS - 7, NOW_MS - 6, NOW_MS - 60_000]
    entities: Entities = {"card_id": ["c-1"] * 4, "merchant_id": [7] * 4}

    result = client.lookup("fraud_detection", entities, as_of_ms=moments)

    assert result.as_of_ms == tuple(moments)
    for row, moment in zip(result.rows(), moments, strict=True):
        for name, (value, _) in expected_row(payments, "c-1", 7, moment).items():
            assert agrees(value, row[name]), f"{name} as of {moment}"


def test_numpy_row_has_nan_where_null(client: LookupClient, payments: Payments) -> None:
    """A model's input row is float64 in feature order; counts of an unknown entity are 0, means are NaN."""
    result = client.lookup("merchant_monitoring", {"merchant_id": [7, 404]})

    matrix = result.to_numpy()
    assert matrix.shape == (2, 3)
    assert matrix[0].tolist()[:2] == [2.0, 5.0]
    assert matrix[1].tolist()[:2] == [0.0, 0.0]
    assert math.isnan(matrix[1, 2])


def test_a_matrix_of_numbers_refuses_strings(client: LookupClient, payments: Payments) -> None:
    """A string feature cannot silently become NaN in a model's input."""
    result = client.lookup("fraud_detection", {"card_id": "c-1", "merchant_id": 7})

    with pytest.raises(InvalidRequest, match="market_last_7d"):
        result.to_numpy()


def test_pandas_frame_keeps_types_and_nulls(client: LookupClient, payments: Payments) -> None:
    """Integers stay integers beside nulls."""
    frame = client.lookup("fraud_detection", {"card_id": ["c-1", "nobody"], "merchant_id": [7, 404]}).to_pandas()

    assert str(frame["opened_at"].dtype) == "Int64"
    assert frame["market_last_7d"].isna().tolist() == [False, True]
    assert frame["card_activity__count_1h"].tolist() == [2, 0]


def test_metadata_tells_event_time_freshness_and_positions(client: LookupClient, payments: Payments) -> None:
    """On request an answer says how current it is and up to which source offsets it goes."""
    entities: Entities = {"card_id": ["c-1", "nobody"], "merchant_id": [7, 404]}

    result = client.lookup("fraud_detection", entities, with_metadata=True)

    views = {view.view: view for view in result.views}
    assert views["card_activity"].event_time_ms.tolist() == [NOW_MS - 7, 0]
    assert views["card_activity"].freshness_ms.tolist() == [7, -1]
    assert views["merchant_profile"].event_time_ms.tolist() == [NOW_MS - DAY_MS, 0]
    assert views["merchant_profile"].positions == ()
    [position] = views["card_activity"].positions[0]
    assert (position.topic, position.partition, position.next_offset) == ("events", 0, 6)
    assert client.lookup("fraud_detection", entities).views == ()


def test_a_profile_older_than_its_ttl_is_not_served(client: LookupClient, payments: Payments) -> None:
    """A materialized value beyond its view's time to live reads as null with a status that says why."""
    moment = NOW_MS + 30 * DAY_MS

    result = client.lookup("fraud_detection", {"card_id": "c-1", "merchant_id": 7}, as_of_ms=moment)

    assert result.rows()[0]["risk_tier"] is None
    assert result.status("risk_tier") == [FeatureStatus.OUTSIDE_MAX_AGE]


def test_materialized_values_never_go_back_in_time(client: LookupClient, payments: Payments) -> None:
    """An older profile that is written late does not replace a newer one."""
    payments.materialize(7, NOW_MS - 2 * DAY_MS, {"risk_tier": "low"})

    assert client.lookup("fraud_detection", {"card_id": "c-1", "merchant_id": 7}).rows()[0]["risk_tier"] == "high"


def test_an_answer_is_one_round_trip_to_the_store(
    client: LookupClient, payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many views and rows, the store is asked once, and for each entity key once."""
    asked: list[int] = []
    before_lookup_reads(monkeypatch, lambda groups, _timeout_ms: asked.append(len(groups)))
    client.lookup("fraud_detection", {"card_id": ["c-1", "c-2", "c-1"], "merchant_id": [7, 7, 7]})

    # Cards c-1 and c-2, merchant 7, two pairs, one profile.
    assert asked == [2 + 1 + 2 + 1]


@pytest.mark.parametrize(
    ("service", "entities", "as_of_ms", "kind", "said"),
    [
        ("fraud_detectoin", {}, None, UnknownFeatureService, 'did you mean "fraud_detection"'),
        ("fraud_detection", {"card_id": "c-1"}, None, UnknownJoinKey, '"merchant_id" .* is missing'),
        ("merchant_monitoring", {"merchant_id": 7, "card": "c"}, None, UnknownJoinKey, '"card" is not a join key'),
        ("merchant_monitoring", {"merchant_id": "7"}, None, InvalidRequest, '"merchant_id" must be int64'),
        ("fraud_detection", {"card_id": [1], "merchant_id": [7]}, None, InvalidRequest, '"card_id" must be string'),
        ("fraud_detection", {"card_id": ["a", "b"], "merchant_id": [7]}, None, InvalidRequest, "1 values"),
        ("merchant_monitoring", {"merchant_id": []}, None, InvalidRequest, "no rows"),
        ("merchant_monitoring", {"merchant_id": [7] * 3}, [1, 2], InvalidRequest, "2 values for 3 rows"),
        ("merchant_monitoring", {"merchant_id": 7}, 1 << 60, InvalidRequest, "out of range"),
        ("merchant_monitoring", {"merchant_id": [1] * (ROWS_PER_REQUEST_MAX + 1)}, None, LimitExceeded, "limit is"),
        ("fraud_detection", {"card_id": "c" * 1025, "merchant_id": 7}, None, LimitExceeded, '"card_id" is 1025 bytes'),
    ],
)
def test_a_wrong_call_is_told_what_is_wrong(
    client: LookupClient,
    payments: Payments,
    service: str,
    entities: Entities,
    as_of_ms: int | list[int] | None,
    kind: type[InvalidRequest],
    said: str,
) -> None:
    """Each mistake arrives as its own kind of error, naming what to change."""
    with pytest.raises(InvalidRequest, match="(?s)" + said) as raised:
        client.lookup(service, entities, as_of_ms=as_of_ms)

    assert isinstance(raised.value, kind)


def test_a_read_time_that_tiles_cannot_answer_is_refused(client: LookupClient, payments: Payments) -> None:
    """An as_of inside rolled-up tiles is refused with the reason and the entity, never answered approximately."""
    times = [NOW_MS - 6 * DAY_MS + step * 60_000 for step in range(8_000)]
    payments.write(CARD_ACTIVITY, [event_of(b"c-9", moment) for moment in times])
    payments.write(CARD_ACTIVITY, [event_of(b"c-9", NOW_MS - 5)])

    with pytest.raises(AsOfTooOld, match=fingerprint(b"c-9")):
        client.lookup("fraud_detection", {"card_id": "c-9", "merchant_id": 7}, as_of_ms=NOW_MS - 4 * DAY_MS - 12_345)


def test_corrupt_bytes_are_data_loss_with_the_key_named(client: LookupClient, payments: Payments) -> None:
    """Bytes that are no tiles stop the request, and whoever is paged knows which key to look at."""
    generation = payments.catalog.serving("card_activity")
    assert generation is not None
    key = EntityRead(generation, b"c-66").key
    head = generation.keys.head_prefix(lane_of(key, LANES)) + key
    payments.store.compare_and_set(head, None, b"\x01\x02\x03")

    with pytest.raises(CorruptTile, match=f'feature view "card_activity", entity {fingerprint(b"c-66")}'):
        client.lookup("fraud_detection", {"card_id": "c-66", "merchant_id": 7})


def test_text_that_is_not_utf8_is_data_loss_with_the_key_named(client: LookupClient, payments: Payments) -> None:
    """A head has no checksum: damaged text is found where it is answered, and no other key is blamed."""
    generation = payments.catalog.serving("card_activity")
    assert generation is not None
    head = generation.keys.head_prefix(lane_of(b"c-1", LANES)) + b"c-1"
    [stored] = payments.store.read_groups([[head]])
    assert stored is not None
    at = stored.rfind(b"DE")
    assert at >= 0
    payments.store.compare_and_set(head, stored, stored[:at] + b"\xff\xfe" + stored[at + 2 :])

    with pytest.raises(CorruptTile, match=f'feature view "card_activity", entity {fingerprint(b"c-1")}'):
        client.lookup("fraud_detection", {"card_id": ["c-9", "c-1"], "merchant_id": [7, 7]})


def test_a_profile_from_behind_the_read_time_is_not_found(client: LookupClient, payments: Payments) -> None:
    """Only the newest value is stored: at an earlier time nobody can know it, and telling it would be a leak."""
    payments.materialize(7, NOW_MS - DAY_MS, {"risk_tier": "high"})
    entities: dict[str, str | int] = {"card_id": "c-1", "merchant_id": 7}
    [before] = client.lookup("fraud_detection", entities, as_of_ms=NOW_MS - DAY_MS - 1).rows()
    [since] = client.lookup("fraud_detection", entities, as_of_ms=NOW_MS - DAY_MS).rows()

    assert [None, "high"] == [before["risk_tier"], since["risk_tier"]]


def test_describe_lists_names_types_and_places(client: LookupClient, payments: Payments) -> None:
    """Names come once, with everything that a client in any language needs to address the matrices."""
    schema = client.describe("fraud_detection")

    assert [key.name for key in schema.join_keys] == ["card_id", "merchant_id"]
    assert [view.name for view in schema.views] == [
        "card_activity",
        "merchant_activity",
        "merchant_profile",
        "pair_activity",
    ]
    by_name = {feature.name: feature for feature in schema.features}
    assert by_name["amount_mean_7d"].type is ValueType.FLOAT64
    assert by_name["amount_sum_1h"].zero_when_not_found
    assert not by_name["amount_mean_7d"].zero_when_not_found
    assert sorted(client.services()) == ["fraud_detection", "merchant_monitoring"]


def test_a_cluster_answers_as_a_single_server_does(redis_cluster_url: str, clock: ManualClock) -> None:
    """Entities of one request live on several nodes, and values, metadata and profiles come from each."""
    store = connect(redis_cluster_url, cluster=True)
    written = Payments(store, clock)
    cards = [f"c-{number}" for number in range(20)]
    written.write(CARD_ACTIVITY, [event_of(card.encode(), NOW_MS - 9) for card in cards])
    written.materialize(7, NOW_MS - DAY_MS, {"risk_tier": "low"})
    server = FeatureServer(RegistryInMemory(), store, clock, ServerSettings(port=0))
    with LookupClient(f"127.0.0.1:{server.port}", timeout_s=30) as client:
        result = client.lookup("fraud_detection", {"card_id": cards, "merchant_id": [7] * 20}, with_metadata=True)
    server.stop(drain_seconds=1.0)
    store.close()

    assert [row["card_activity__count_1h"] for row in result.rows()] == [1] * 20
    assert {row["risk_tier"] for row in result.rows()} == {"low"}
    assert set(result.status("merchant_activity__count_1h")) == {FeatureStatus.NOT_READY}
    assert {positions[0].next_offset for positions in result.views[0].positions} == {20}
