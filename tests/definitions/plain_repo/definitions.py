"""A repo by somebody who knows Feast and has never seen this project's helpers."""

from datetime import timedelta

from feast import Entity, FeatureService, Field, FileSource, KafkaSource, StreamFeatureView, ValueType
from feast.aggregation import Aggregation
from feast.data_format import JsonFormat
from feast.types import Float64, Int64

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)

rides = KafkaSource(
    name="rides",
    kafka_bootstrap_servers="localhost:9092",
    topic="rides",
    timestamp_field="event_timestamp",
    batch_source=FileSource(name="rides_history", path="data/rides.parquet", timestamp_field="event_timestamp"),
    message_format=JsonFormat(
        schema_json="ride_id string, driver_id integer, fare double, rating integer, event_timestamp timestamp"
    ),
    watermark_delay_threshold=timedelta(minutes=5),
)

driver_rides = StreamFeatureView(
    name="driver_rides",
    entities=[driver],
    source=rides,
    timestamp_field="event_timestamp",
    ttl=timedelta(days=30),
    schema=[
        Field(name="driver_id", dtype=Int64),
        Field(name="sum_fare_3600s", dtype=Float64),
        Field(name="rides_1d", dtype=Int64),
        Field(name="mean_rating_604800s", dtype=Float64),
    ],
    aggregations=[
        Aggregation(column="fare", function="sum", time_window=timedelta(hours=1)),
        Aggregation(
            column="ride_id",
            function="count",
            time_window=timedelta(days=1),
            slide_interval=timedelta(minutes=5),
            name="rides_1d",
        ),
        Aggregation(column="rating", function="mean", time_window=timedelta(days=7)),
    ],
)

driver_ranking = FeatureService(name="driver_ranking", features=[driver_rides])
