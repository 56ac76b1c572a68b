"""The testing kit: what every value must be, a clock that stands still, real servers, streams of events.

    from featurestore.testing import ManualClock, NaiveEvent, naive_values

    featurestore.testing.servers       a real Kafka, Redis, Valkey or Redis Cluster on loopback
    featurestore.testing.simulation    the real code in a world of faults that is drawn from a seed
    featurestore.testing.simulator     card transactions of several markets, with fraud and its labels
    featurestore.testing.strategies    Hypothesis strategies: views and events that go where windows break

A door: what stands in `__all__` keeps its name and its meaning from release to release.
"""

from featurestore.testing.clock import ManualClock
from featurestore.testing.oracle.naive import NaiveEvent, NaiveValue, naive_value, naive_values

__all__ = ["ManualClock", "NaiveEvent", "NaiveValue", "naive_value", "naive_values"]
