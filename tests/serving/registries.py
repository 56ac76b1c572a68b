"""A registry file as `feast apply` leaves it, written without Feast so that tests of processes stay quick."""

from pathlib import Path

from google.protobuf import json_format

from featurestore.wire.feast.protos import message_class

_AMOUNT_SUM = {"name": "amount_sum_1d", "valueType": "INT64"}

_COLUMNS = "transaction_id string, event_time timestamp, merchant_id bigint, amount bigint"

REGISTRY = {
    "projects": [{"spec": {"name": "payments"}}],
    "entities": [{"spec": {"name": "merchant", "joinKey": "merchant_id", "valueType": "INT64", "project": "payments"}}],
    "streamFeatureViews": [
        {
            "spec": {
                "name": "merchant_activity",
                "project": "payments",
                "entities": ["merchant"],
                "features": [_AMOUNT_SUM],
                "entityColumns": [{"name": "merchant_id", "valueType": "INT64"}],
                "online": True,
                "timestampField": "event_time",
                "aggregations": [
                    {
                        "column": "amount",
                        "function": "sum",
                        "timeWindow": "86400s",
                        "slideInterval": "86400s",
                        "name": "amount_sum_1d",
                    }
                ],
                "streamSource": {
                    "name": "transactions",
                    "type": "STREAM_KAFKA",
                    "timestampField": "event_time",
                    "tags": {"event_id": "transaction_id", "dedup_horizon": "1h"},
                    "kafkaOptions": {
                        "kafkaBootstrapServers": "127.0.0.1:9092",
                        "topic": "transactions",
                        "messageFormat": {"jsonFormat": {"schemaJson": _COLUMNS}},
                    },
                },
            }
        }
    ],
    "featureServices": [
        {
            "spec": {
                "name": "merchant_monitoring",
                "project": "payments",
                "features": [{"featureViewName": "merchant_activity", "featureColumns": [_AMOUNT_SUM]}],
            }
        }
    ],
}


def write_registry(path: Path) -> None:
    """One project "payments" with one view and one service."""
    message = json_format.ParseDict(REGISTRY, message_class("feast.core.Registry")())
    path.write_bytes(message.SerializeToString())
