"""Real servers on loopback for tests, demos and benchmarks: free ports, temporary data, stopped by process id."""

from featurestore.online.probe import free_port
from featurestore.testing.servers.kafka import KafkaBroker, kafka_broker, kafka_missing
from featurestore.testing.servers.process import ServerDidNotStart, ServerProcess
from featurestore.testing.servers.redis import RedisCluster, RedisServer, redis_cluster, redis_server
from featurestore.testing.servers.schema_registry import SchemaRegistry, schema_registry

__all__ = [
    "KafkaBroker",
    "RedisCluster",
    "RedisServer",
    "SchemaRegistry",
    "ServerDidNotStart",
    "ServerProcess",
    "free_port",
    "kafka_broker",
    "kafka_missing",
    "redis_cluster",
    "redis_server",
    "schema_registry",
]
