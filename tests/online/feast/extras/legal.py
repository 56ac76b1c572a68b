"""One object of each kind that is legal in Feast, whether this project computes and serves it or not."""

from datetime import timedelta
from typing import Any

import pandas as pd
from card_views import card_activity
from entities import card, merchant
from feast import (
    BatchFeatureView,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    KafkaSource,
    PushSource,
    StreamFeatureView,
    ValueType,
)
from feast.aggregation import Aggregation
from feast.data_format import AvroFormat
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination
from feast.infra.offline_stores.snowflake_source import SnowflakeSource
from feast.labeling import LabelView
from feast.on_demand_feature_view import on_demand_feature_view
from feast.permissions.action import AuthzedAction
from feast.permissions.permission import Permission
from feast.permissions.policy import RoleBasedPolicy
from feast.types import Array, Bytes, Decimal, Float32, Float64, Int64, Json, Map, Set, String, Struct, Uuid
from merchant_views import merchant_profile
from sources import transactions

DAY = timedelta(days=1)
SUM = [Aggregation(column="amount", function="sum", time_window=timedelta(hours=1))]
SUM_FIELD = [Field(name="sum_amount_3600s", dtype=Int64)]


def file(name: str) -> FileSource:
    """A table of its own."""
    return FileSource(name=f"{name}_table", path=f"data/{name}.parquet", timestamp_field="at")


def fields(*names: str) -> list[Field]:
    """Integers."""
    return [Field(name=name, dtype=Int64) for name in names]


def unchanged(frame: pd.DataFrame) -> pd.DataFrame:
    """A function of the author's."""
    return frame


market_mood = FeatureView(
    name="market_mood", entities=[], ttl=DAY, schema=fields("mood", "alarms"), source=file("market_mood")
)
mood_service = FeatureService(name="mood_service", features=[market_mood])
mood_and_card = FeatureService(name="mood_and_card", features=[market_mood, card_activity[["card_count_1d"]]])

renamed_times = FeatureView(
    name="renamed_times",
    entities=[merchant],
    schema=fields("grade"),
    source=FileSource(
        name="renamed_times_table",
        path="data/renamed_times.parquet",
        timestamp_field="changed",
        created_timestamp_column="noted",
        field_mapping={"changed": "changed_at", "noted": "noted_at", "level": "grade", "shop": "merchant_id"},
    ),
)

batch_table = BatchFeatureView(
    name="batch_table", entities=[merchant], schema=fields("stars"), source=file("batch_table"), online=True, ttl=DAY
)
batch_function = BatchFeatureView(
    name="batch_function",
    entities=[merchant],
    mode="pandas",
    udf=unchanged,
    udf_string="def unchanged(frame):\n    return frame\n",
    schema=fields("stars_of_function"),
    source=file("batch_function"),
    online=True,
    ttl=DAY,
)
batch_sum = BatchFeatureView(
    name="batch_sum",
    entities=[merchant],
    aggregations=[Aggregation(column="amount", function="sum")],
    schema=fields("sum_amount"),
    source=file("batch_sum"),
    online=True,
    ttl=DAY,
)
of_two_views = FeatureView(
    name="of_two_views",
    entities=[merchant],
    schema=fields("stars", "grade"),
    source=[batch_table, renamed_times],
    sink_source=file("of_two_views"),
)
without_source = FeatureView(name="without_source", entities=[merchant], schema=fields("nothing"))
offline_only = FeatureView(
    name="offline_only", entities=[merchant], schema=fields("archived"), source=file("offline_only"), online=False
)
switched_off = FeatureView(
    name="switched_off", entities=[merchant], schema=fields("paused"), source=file("switched_off"), enabled=False
)
elsewhere = FeatureView(
    name="elsewhere",
    entities=[merchant],
    schema=fields("rank_elsewhere"),
    source=SnowflakeSource(name="snow", database="d", schema="s", table="t", timestamp_field="at"),
)
of_a_stream = FeatureView(name="of_a_stream", entities=[card], schema=fields("amount"), source=transactions)
of_many_types = FeatureView(
    name="of_many_types",
    entities=[merchant],
    schema=[
        Field(name="a_map", dtype=Map),
        Field(name="a_json", dtype=Json),
        Field(name="a_struct", dtype=Struct({"part": Int64})),
        Field(name="a_set", dtype=Set(Int64)),
        Field(name="a_uuid", dtype=Uuid),
        Field(name="a_decimal", dtype=Decimal),
        Field(name="a_nested_list", dtype=Array(Array(Int64))),
        Field(name="some_bytes", dtype=Bytes),
        Field(name="a_vector", dtype=Array(Float32), vector_index=True, vector_length=3, vector_search_metric="cosine"),
    ],
    source=file("of_many_types"),
)
types_service = FeatureService(name="types_service", features=[of_many_types])

ratio = Entity(name="ratio", join_keys=["ratio"], value_type=ValueType.DOUBLE)
keyed_by_double = FeatureView(
    name="keyed_by_double", entities=[ratio], schema=fields("by_double"), source=file("keyed_by_double")
)
merchant_text = Entity(name="merchant_text", join_keys=["merchant_id"], value_type=ValueType.STRING)
text_keyed = FeatureView(
    name="text_keyed", entities=[merchant_text], schema=fields("by_text"), source=file("text_keyed")
)
two_types_of_key = FeatureService(name="two_types_of_key", features=[merchant_profile[["home_market"]], text_keyed])
parts = [Entity(name=f"part_{n}", join_keys=[f"part_{n}"], value_type=ValueType.STRING) for n in range(9)]
part_0, part_1, part_2, part_3, part_4, part_5, part_6, part_7, part_8 = parts
of_nine_keys = FeatureView(name="of_nine_keys", entities=parts, schema=fields("nine"), source=file("of_nine_keys"))
long_name = FeatureView(name="n" * 201, entities=[merchant], schema=fields("long"), source=file("long_name"))

stream_function = StreamFeatureView(
    name="stream_function",
    entities=[card],
    mode="spark",
    udf=unchanged,  # type: ignore[arg-type]  # Feast wants a FunctionType
    udf_string="def unchanged(frame):\n    return frame\n",
    timestamp_field="event_time",
    schema=fields("amount"),
    source=transactions,
    ttl=DAY,
)
stream_function_sum = StreamFeatureView(
    name="stream_function_sum",
    entities=[card],
    mode="spark",
    udf=unchanged,  # type: ignore[arg-type]  # Feast wants a FunctionType
    udf_string="def unchanged(frame):\n    return frame\n",
    timestamp_field="event_time",
    schema=SUM_FIELD,
    aggregations=SUM,
    source=transactions,
    ttl=DAY,
)
pushed_sum = StreamFeatureView(
    name="pushed_sum",
    entities=[merchant],
    timestamp_field="at",
    schema=SUM_FIELD,
    aggregations=SUM,
    source=PushSource(name="pushed_sum_push", batch_source=file("pushed_sum")),
    ttl=DAY,
)
avro_sum = StreamFeatureView(
    name="avro_sum",
    entities=[merchant],
    timestamp_field="at",
    schema=SUM_FIELD,
    aggregations=SUM,
    source=KafkaSource(
        name="avro_topic",
        kafka_bootstrap_servers="127.0.0.1:9092",
        topic="avro",
        message_format=AvroFormat("{}"),
        timestamp_field="at",
        batch_source=file("avro_sum"),
    ),
    ttl=DAY,
)
sum_of_all = StreamFeatureView(
    name="sum_of_all",
    entities=[],
    timestamp_field="event_time",
    schema=SUM_FIELD,
    aggregations=SUM,
    source=transactions,
    ttl=DAY,
)
sums_service = FeatureService(name="sums_service", features=[pushed_sum])

verdicts = LabelView(
    name="verdicts",
    entities=[merchant],
    schema=[
        Field(name="merchant_id", dtype=Int64),
        Field(name="verdict", dtype=String),
        Field(name="labeler", dtype=String),
    ],
    source=PushSource(name="verdicts_push", batch_source=file("verdicts")),
)
verdicts_service = FeatureService(name="verdicts_service", features=[verdicts, merchant_profile])


@on_demand_feature_view(  # type: ignore[untyped-decorator]  # Feast declares no types here
    sources=[merchant_profile], schema=[Field(name="twice_pandas", dtype=Float64)], mode="pandas"
)
def twice_by_pandas(frame: pd.DataFrame) -> pd.DataFrame:
    """One frame for all rows."""
    import pandas as pd

    return pd.DataFrame({"twice_pandas": frame["chargeback_share"] * 2})


@on_demand_feature_view(  # type: ignore[untyped-decorator]  # Feast declares no types here
    sources=[merchant_profile], schema=[Field(name="twice_singleton", dtype=Float64)], mode="python", singleton=True
)
def twice_by_row(inputs: dict[str, Any]) -> dict[str, Any]:
    """One row at a time."""
    return {"twice_singleton": (inputs["chargeback_share"] or 0.0) * 2}


@on_demand_feature_view(  # type: ignore[untyped-decorator]  # Feast declares no types here
    entities=[merchant],
    sources=[merchant_profile],
    schema=[Field(name="twice_written", dtype=Float64)],
    mode="python",
    write_to_online_store=True,
)
def twice_when_written(inputs: dict[str, Any]) -> dict[str, Any]:
    """Computed when it is written."""
    return {"twice_written": [(share or 0.0) * 2 for share in inputs["chargeback_share"]]}


twice = FeatureService(name="twice", features=[merchant_profile, twice_by_pandas, twice_by_row])
logged = FeatureService(
    name="logged",
    features=[merchant_profile],
    logging_config=LoggingConfig(destination=FileLoggingDestination(path="data/logs"), sample_rate=1.0),
)
precomputed = FeatureService(name="precomputed", features=[merchant_profile], precompute_online=True)
empty_service = FeatureService(name="empty_service", features=[])
readers = Permission(
    name="readers",
    types=[FeatureView],  # type: ignore[list-item]  # Feast wants classes, and says instances
    policy=RoleBasedPolicy(roles=["reader"]),
    actions=[AuthzedAction.READ_ONLINE],
)
