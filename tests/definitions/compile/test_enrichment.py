"""Tables that a source's events are enriched from: what authors write, what plans refuse, what is part of a view."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from feast import Entity, FileSource, KafkaSource, PushSource, ValueType

from featurestore.core.spec import Column, ViewSpec
from featurestore.core.spec import ValueType as Type
from featurestore.definitions.compile.repo import Compilation, compile_repo
from featurestore.definitions.fast_import import skip_typeguard
from featurestore.errors import InvalidRequest
from featurestore.features import TableColumns, aggregate, count, kafka_source, stream_view, table
from featurestore.wire.codecs.view_json import decode_view, definition_hash, encode_view
from featurestore.wire.feast.registry import decode_registry

with skip_typeguard():
    from feast.protos.feast.core.Registry_pb2 import Registry

card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.STRING)
FILES = FileSource(name="classes", path="data/classes.parquet", timestamp_field="since")


def rates(name: str = "rates", **more: Any) -> KafkaSource:
    """A topic of exchange rates."""
    columns = {"currency": "string", "since": "timestamp", "rate": "double", "digits": "bigint"}
    return kafka_source(**{"name": name, "topic": "rates", "columns": columns, "event_time": "since", **more})


def compiled(enrich: Mapping[str, TableColumns], *, reads: str = "", view: Any = None, **more: Any) -> Compilation:
    """A repo of one view of payments, that were applied to a registry."""
    payments = kafka_source(
        name="payments",
        topic="payments",
        columns={"id": "string", "at": "timestamp", "card_id": "string", "amount": "double", "currency": "string"},
        event_time="at",
        event_id="id",
        enrich=enrich,
        **more,
    )
    features = [*count(over="1h"), *(aggregate(reads, "sum", over="1h") if reads else [])]
    activity = stream_view(name="activity", entities=[card], source=payments, features=features, **(view or {}))
    registry = Registry()
    registry.entities.add().ParseFromString(card.to_proto().SerializeToString())
    message = activity.to_proto()  # type: ignore[no-untyped-call]  # Feast's
    registry.stream_feature_views.add().ParseFromString(message.SerializeToString())
    return compile_repo(decode_registry(registry.SerializeToString(), ""))


def the_view(*arguments: Any, **more: Any) -> ViewSpec:
    """The compiled view."""
    [view] = compiled(*arguments, **more).require_sound().views
    return view


def fx(source: Any = None, **more: Any) -> dict[str, TableColumns]:
    """The rates, or another source, as "fx"."""
    return {"fx": table(source or rates(), **{"on": "currency", "columns": ["rate"], **more})}


MISTAKES: Mapping[str, tuple[dict[str, Any], str]] = {
    "an unknown column": ({"enrich": fx(columns=["rte"])}, 'enrichment "fx": its table has no column "rte"'),
    "no type": ({"enrich": fx(FILES, columns=["risk"])}, 'nobody says of what type column "risk" is'),
    "a type that is none": ({"enrich": fx(columns={"rate": "money"})}, 'column "rate" is of unknown type money'),
    "another type": ({"enrich": fx(columns={"rate": "bigint"})}, 'column "rate" is float64 in its table, not int64'),
    "an unknown event column": ({"enrich": fx(on="curency")}, 'column "curency" is not in the payload'),
    "an unnamable row": ({"enrich": fx(on="amount")}, 'column "amount" is of type float64'),
    "an unknown key": ({"enrich": fx(key="code")}, 'its table has no column "code", the key'),
    "another key": (
        {"enrich": fx(key="digits")},
        'column "currency" is string, and "digits" of table',
    ),
    "no columns": ({"enrich": fx(columns=[])}, "no columns are named"),
    "a name for nothing": ({"enrich": fx(names={"rte": "r"})}, 'it renames a column "rte" that it does not ask for'),
    "a name that is taken": ({"enrich": fx(names={"rate": "amount"})}, 'it has a column "amount" already'),
    "no time": (
        {"enrich": fx(FileSource(name="f", path="f.parquet"), columns={"rate": "double"})},
        'its table "f" does not say from when its rows hold',
    ),
    "a time that is none": ({"enrich": fx(rates(event_time="rate"))}, 'event-time column "rate" is of type float64'),
    "changes as a table": (
        {"enrich": fx(rates(changes="debezium", event_id="currency"))},
        'its table "rates" is a topic of changes (debezium)',
    ),
    "a table that is enriched": (
        {"enrich": fx(rates(enrich=fx(FILES, columns={"risk": "bigint"})))},
        'its table "rates" is enriched itself',
    ),
    "changes that are enriched": (
        {"enrich": fx(), "changes": "debezium"},
        "its payloads are changes of rows, and it is enriched",
    ),
    "undoing": (
        {"enrich": fx(), "view": {"undo": "amount < 0"}, "reads": "fx_rate"},
        'it has "undo", and reads column "fx_rate", which events get from a table',
    ),
    "no plain name": ({"enrich": {"f x": fx()["fx"]}}, 'enrichment "f x": its name is no plain name'),
}


@pytest.mark.parametrize(("arguments", "fact"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_in_an_enrichment_is_reported_by_name(arguments: dict[str, Any], fact: str) -> None:
    """Once, with a remedy."""
    texts = [str(one) for one in compiled(**arguments).problems]

    assert 1 == len([one for one in texts if fact in one]), texts


def test_events_have_the_tables_columns_and_expressions_read_them() -> None:
    """Of a topic with its types, of files with those that are written; under a name of the author's if need be."""
    enrich = {
        **fx(columns=["rate", "digits"]),
        "merchant": table(FILES, on="card_id", columns={"risk": "bigint"}, names={"risk": "risk_class"}),
    }

    view = the_view(enrich, reads="euros", computed={"euros": "amount * fx_rate"}, view={"where": "risk_class > 2"})

    enriched = [column for column in view.source.columns if column.name in view.source.enriched]
    expected = {Column("fx_rate", Type.FLOAT64), Column("fx_digits", Type.INT64), Column("risk_class", Type.INT64)}
    assert expected == set(enriched)
    assert view == decode_view(encode_view(view))
    assert [Type.INT64, Type.FLOAT64] == [feature.type for feature in view.features]
    stored = view.source.stored(["fx_rate", "risk_class"])
    assert ("currency", "card_id") == tuple(sorted(stored, reverse=True))


def test_an_enrichment_is_part_of_what_views_mean_that_read_it() -> None:
    """Another topic, key or column is another definition; where Kafka is, and what nobody reads, is not."""
    plain, reads = definition_hash(the_view({})), {"reads": "fx_rate"}
    mine = definition_hash(the_view(fx(), **reads))

    assert plain == definition_hash(the_view(fx()))
    same = (fx(rates(bootstrap_servers="kafka:9")), fx(columns=["rate", "digits"]), fx(columns={"rate": "double"}))
    assert {mine} == {definition_hash(the_view(one, **reads)) for one in same}
    others = (fx(rates(topic="other")), fx(on="card_id", key="currency"), fx(FILES, columns={"rate": "double"}))
    assert len({mine, plain, *(definition_hash(the_view(one, **reads)) for one in others)}) == 5


def test_a_table_of_another_kind_is_refused_where_it_is_written() -> None:
    """With what can be written."""
    with pytest.raises(InvalidRequest, match=r"table\(\) is given PushSource"):
        table(PushSource(name="pushed", batch_source=FILES), on="card_id", columns=["risk"])
