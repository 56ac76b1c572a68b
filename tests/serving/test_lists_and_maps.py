"""Lists and maps over real gRPC and real Redis: the packed API and Feast's own give the oracle's, null is not empty."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from featurestore.cli.lookup.command import command
from featurestore.core.spec import ValueType
from featurestore.errors import CorruptData, InvalidRequest, LimitExceeded
from featurestore.online.answer.assembly import ROWS_LOWERED_TOGETHER_MAX, AnswerLimits
from featurestore.online.answer.schema import COLLECTION_MATRICES, FeatureStatus, Matrix
from featurestore.online.redis.store import RedisStore
from featurestore.serving import lookup
from featurestore.serving._generated import lookup_pb2 as pb
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.client.messages import parse_schema
from featurestore.serving.packed_columns import pack_collections, unpack_collections
from featurestore.serving.request import steps
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from featurestore.testing.oracle.naive import NaiveEvent, naive_found, naive_value
from featurestore.testing.oracle.tolerance import agrees
from featurestore.wire.feast.protos import message_class
from tests.serving.habits import CARDS, HABITS, REPO, write_habits
from tests.serving.payments import NOW_MS, Payments, RegistryInMemory

Events = dict[str, Sequence[NaiveEvent]]

FeastRequest: Any = message_class("feast.serving.GetOnlineFeaturesRequest")
FeastResponse: Any = message_class("feast.serving.GetOnlineFeaturesResponse")


@pytest.fixture
def events(store: RedisStore, clock: ManualClock) -> Events:
    """What the cards did, written."""
    return write_habits(Payments(store, clock))


@pytest.fixture(params=["sync", "aio"])
def server(
    request: pytest.FixtureRequest, events: Events, store: RedisStore, clock: ManualClock
) -> Iterator[FeatureServer]:
    """A running server of either kind."""
    started = FeatureServer(RegistryInMemory(REPO), store, clock, ServerSettings(port=0, io=request.param))
    yield started
    started.stop(drain_seconds=1.0)


def feast_python(value: Any) -> Any:
    """A feast.types.Value as Feast's SDK gives it to Python."""
    kind = value.WhichOneof("val")
    if kind is None:
        return None
    held = getattr(value, kind)
    if kind == "map_val":
        return {key: feast_python(each) for key, each in held.val.items()}
    return list(held.val) if kind.endswith("_list_val") else held


def test_every_list_and_map_is_the_oracles(client: LookupClient, events: Events) -> None:
    """Of each type, cell by cell, with the status that tells null from empty."""
    result = client.lookup("card_review", {"card_id": CARDS})

    for row, card in zip(result.rows(), CARDS, strict=True):
        mine = events.get(card, [])
        for feature in HABITS.features:
            expected = naive_value(feature, mine, NOW_MS)
            status = FeatureStatus.NULL_VALUE if expected is None else FeatureStatus.PRESENT
            status = status if naive_found(HABITS, mine, NOW_MS) else FeatureStatus.NOT_FOUND
            assert agrees(expected, row[feature.name]), (card, feature.name, expected, row[feature.name])
            assert status is result.status(feature.name)[CARDS.index(card)], (card, feature.name)


def test_values_are_pythons_own(client: LookupClient) -> None:
    """Numbers that a reader can check: newest first, an hour without events is 0 or NaN, keys are texts."""
    row = client.lookup("card_review", {"card_id": "c-1"}).rows()[0]

    assert [130, 80, 30] == row["amounts"]
    assert agrees([1.0, 2 / 3], row["prices"])
    assert ["ÖL", "SE", "ÖL", "SE"] == row["markets"]
    assert [1, 0, 2] == row["counts_by_hour"]
    assert agrees([1 / 3, float("nan"), 5 / 6], row["prices_by_hour"])
    assert {"SE": 2, "ÖL": 2} == row["count_by_market"]
    assert agrees({"SE": 1 / 3, "ÖL": 2 / 3}, row["price_by_market"])


def test_lists_that_feast_materialized_are_served(client: LookupClient) -> None:
    """Narrow elements widen, an empty list is a value, a value of another type is null."""
    result = client.lookup("card_review", {"card_id": CARDS})
    columns = result.to_dict()

    assert [[3, -(2**63)], [], None, None] == columns["alert_codes"]
    assert [[0.5], [], [1.0], None] == columns["alert_scores"]
    assert [["velocity", "", "новое устройство"], [], None, None] == columns["alert_reasons"]
    present, null, missing = FeatureStatus.PRESENT, FeatureStatus.NULL_VALUE, FeatureStatus.NOT_FOUND
    assert [present, present, null, missing] == result.status("alert_codes")


def test_feasts_own_service_gives_the_same(client: LookupClient, server: FeatureServer) -> None:
    """Lists in the list field of their type, maps in map_val, empty ones set, null ones not."""
    request = FeastRequest(feature_service="card_review")
    for card in CARDS:
        request.entities["card_id"].val.add().string_val = card
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = channel.unary_unary(
            "/feast.serving.ServingService/GetOnlineFeatures",
            request_serializer=FeastRequest.SerializeToString,
            response_deserializer=FeastResponse.FromString,
        )
        response = call(request, timeout=30)
    vectors = dict(zip(response.metadata.feature_names.val, response.results, strict=True))

    for name, values in client.lookup("card_review", {"card_id": CARDS}).to_dict().items():
        found = [feast_python(value) for value in vectors[name].values]
        assert all(agrees(one, other) for one, other in zip(values, found, strict=True)), (name, values, found)
        assert len(CARDS) == len(vectors[name].statuses) == len(vectors[name].event_timestamps)
    kinds = {name: vector.values[0].WhichOneof("val") for name, vector in vectors.items()}
    assert ("int64_list_val", "double_list_val") == (kinds["amounts"], kinds["prices_by_hour"])
    assert ("string_list_val", "map_val") == (kinds["markets"], kinds["count_by_market"])
    assert "string_list_val" == vectors["alert_reasons"].values[1].WhichOneof("val")


def test_describe_tells_types_and_what_an_unknown_card_has(client: LookupClient) -> None:
    """Each type of list and map counts its slots by itself; a series of counts has an answer over no events."""
    features = {feature.name: feature for feature in client.describe("card_review").features}

    assert [ValueType.INT64_LIST, ValueType.FLOAT64_MAP] == [
        features[name].type for name in ("counts_by_hour", "price_by_market")
    ]
    assert [0, 1, 2] == [features[name].slot for name in ("amounts", "counts_by_hour", "alert_codes")]
    assert [0, 0] == [features[name].slot for name in ("count_by_market", "price_by_market")]
    assert features["counts_by_hour"].zero_when_not_found
    assert not features["amounts"].zero_when_not_found
    assert [[0, 0, 0]] == client.lookup("card_review", {"card_id": "nobody"}).to_dict()["counts_by_hour"]


def test_a_matrix_of_numbers_refuses_lists(client: LookupClient) -> None:
    """Neither flattened nor left out: a model takes its features by position."""
    with pytest.raises(InvalidRequest, match=r'"amounts" of type list<int64> fits no matrix'):
        client.lookup("card_review", {"card_id": "c-1"}).to_numpy()


def test_a_pandas_frame_has_python_lists(client: LookupClient) -> None:
    """In columns of objects, None where null."""
    frame = client.lookup("card_review", {"card_id": CARDS}).to_pandas()

    assert [[3, -(2**63)], [], None, None] == frame["alert_codes"].tolist()
    assert {"SE": 2, "ÖL": 2} == frame["count_by_market"][0]
    assert "Int64" == str(frame["count_7d"].dtype)


def test_a_callers_list_is_his_own(client: LookupClient) -> None:
    """What is done to it is not done to the result."""
    result = client.lookup("card_review", {"card_id": "c-1"})
    mine = result.rows()[0]["amounts"]
    assert isinstance(mine, list)
    mine.clear()

    assert [[130, 80, 30]] == result.to_dict()["amounts"]


def test_many_rows_are_answered_as_each_of_them(client: LookupClient) -> None:
    """Lists are made for some rows at a time; which rows share such a step changes nothing."""
    cards = [CARDS[(row * row) % 4] for row in range(2 * ROWS_LOWERED_TOGETHER_MAX + 3)]
    moments = [NOW_MS - (row % 3) * 1_000 for row in range(len(cards))]
    together = client.lookup("card_review", {"card_id": cards}, as_of_ms=moments, timeout_s=30).rows()

    alone = {
        (card, moment): client.lookup("card_review", {"card_id": card}, as_of_ms=moment).rows()[0]
        for card, moment in {*zip(cards, moments, strict=True)}
    }
    for row, card, moment in zip(together, cards, moments, strict=True):
        assert str(alone[card, moment]) == str(row)


def test_too_many_elements_are_refused_while_they_are_made(
    client: LookupClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer is bounded however long the lists are that its rows add up to."""
    monkeypatch.setattr(lookup, "LIMITS", AnswerLimits(elements_max=40))
    with pytest.raises(LimitExceeded, match="more than 40 elements") as raised:
        client.lookup("card_review", {"card_id": CARDS * 40})

    assert "fewer rows" in raised.value.hint


def test_an_answer_too_large_to_send_is_refused_with_a_hint(
    client: LookupClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few long texts are large too; gRPC alone would not say what to do."""
    client.lookup("card_review", {"card_id": "c-1"})
    monkeypatch.setattr(steps, "RESPONSE_BYTES_MAX", 100)
    with pytest.raises(LimitExceeded, match="the limit is 100") as raised:
        client.lookup("card_review", {"card_id": CARDS})

    assert "fewer rows" in raised.value.hint


def test_the_command_prints_them(server: FeatureServer) -> None:
    """An element a line for people; JSON, in which NaN is a text, for programs."""
    arguments = ["card_review", "card_id=c-1", "--address", f"127.0.0.1:{server.port}"]
    table = CliRunner().invoke(command, arguments, env={"COLUMNS": "120"})
    answer = CliRunner().invoke(command, [*arguments, "--format", "json"])
    empty = CliRunner().invoke(command, ["card_review", "card_id=c-2", *arguments[2:]], env={"COLUMNS": "120"})

    assert 0 == table.exit_code, table.output
    lines = [line.split("│")[1:3] for line in table.output.splitlines() if line.startswith("│")]
    cells = [(name.strip(), value.strip()) for name, value in lines]
    at = cells.index(("amounts", "130"))
    assert [("amounts", "130"), ("", "80"), ("", "30")] == cells[at : at + 3]
    assert ("", "ÖL: 2") in cells or ("count_by_market", "ÖL: 2") in cells
    features = json.loads(answer.output, parse_constant=pytest.fail)["features"]
    assert {"value": [130, 80, 30], "status": "PRESENT"} == features["amounts"]
    assert {"SE": 2, "ÖL": 2} == features["count_by_market"]["value"]
    assert "NaN" == features["prices_by_hour"]["value"][1]
    assert "(empty)" in empty.output


def test_a_type_that_this_client_does_not_know_is_named() -> None:
    """A server of a later release may have more types."""
    described = pb.DescribeFeatureServiceResponse(feature_service="s")
    described.features.add(name="odd", type=99)
    with pytest.raises(InvalidRequest, match='type of feature "odd"'):
        parse_schema(described)


KEYS = st.text(st.characters(codec="utf-8"), max_size=3)
INTEGERS, FLOATS = st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)
CELLS: dict[Matrix, st.SearchStrategy[Any]] = {
    Matrix.INTEGER_LISTS: st.lists(INTEGERS),
    Matrix.DOUBLE_LISTS: st.lists(FLOATS),
    Matrix.STRING_LISTS: st.lists(KEYS),
    Matrix.INTEGER_MAPS: st.dictionaries(KEYS, INTEGERS),
    Matrix.DOUBLE_MAPS: st.dictionaries(KEYS, FLOATS),
}


@pytest.mark.parametrize("matrix", COLLECTION_MATRICES)
@given(data=st.data())
def test_packed_cells_come_back(matrix: Matrix, data: st.DataObject) -> None:
    """Through the bytes of a message; null comes back empty, the statuses know better."""
    cells = data.draw(st.lists(st.none() | CELLS[matrix], max_size=5))
    response = pb.LookupResponse()
    pack_collections(response, matrix, cells)
    received = pb.LookupResponse.FromString(response.SerializeToString())

    nothing: Any = {} if matrix in (Matrix.INTEGER_MAPS, Matrix.DOUBLE_MAPS) else []
    assert [nothing if cell is None else cell for cell in cells] == list(
        unpack_collections(received, matrix, len(cells))
    )


@pytest.mark.parametrize(
    "damage",
    [
        pb.IntegerMaps(lengths=[1, 1], keys=["a"], values=[1]),
        pb.IntegerMaps(lengths=[1, 1], keys=["a", "b"], values=[1]),
        pb.IntegerMaps(lengths=[2], keys=["a", "b"], values=[1, 2]),
    ],
)
def test_columns_that_do_not_fit_together_are_refused(damage: pb.IntegerMaps) -> None:
    """A wrong element in a wrong cell would be a wrong feature."""
    with pytest.raises(CorruptData, match="integer_maps"):
        unpack_collections(pb.LookupResponse(integer_maps=damage), Matrix.INTEGER_MAPS, 2)
