"""What one would keep in Redis without tiles, written for one entity and measured by MEMORY USAGE."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from benchmarks.scenario import require
from benchmarks.workload import Workload
from featurestore.core.spec import FeatureSpec, ViewSpec
from featurestore.online.probe import ask
from featurestore.testing.oracle.naive import NaiveEvent, naive_values, window_edges
from featurestore.testing.simulator import PayloadEncoder

_KEY = "measured"
_WORDS_PER_COMMAND = 2_000


def value_hash_bytes(port: int, view: ViewSpec, events: Sequence[NaiveEvent], as_of_ms: int) -> int:
    """A hash with one field for each finished window value."""
    values = naive_values(view, events, as_of_ms)
    return _measure(port, "HSET", ((name, str(value)) for name, value in values.items()))


def hop_hash_bytes(port: int, view: ViewSpec, events: Sequence[NaiveEvent], as_of_ms: int) -> int:
    """A hash with one field for each (feature, hop with events): its total of that hop."""
    fields: dict[str, float] = {}
    for feature in view.features:
        for event in _inside(feature, events, as_of_ms):
            hop = event.event_time_ms // feature.window.hop_ms if feature.window.length_ms else 0
            value = 1 if feature.column is None else event.columns.get(feature.column)
            name = f"{feature.name}/{hop}"
            fields[name] = fields.get(name, 0) + (value if isinstance(value, int | float) else 0)
    return _measure(port, "HSET", ((name, str(total)) for name, total in fields.items()))


def event_set_bytes(port: int, workload: Workload, view: str, entity: int) -> int:
    """A sorted set of the entity's events by event time, each as the JSON record that it was."""
    rows = workload.rows[workload.entity(view) == entity]
    texts = PayloadEncoder(workload.population).texts(rows)
    return _measure(port, "ZADD", zip(map(str, rows["event_time_ms"].tolist()), texts, strict=True))


def _inside(feature: FeatureSpec, events: Sequence[NaiveEvent], as_of_ms: int) -> list[NaiveEvent]:
    start_ms, end_ms = window_edges(feature.window, as_of_ms)
    return [event for event in events if start_ms <= event.event_time_ms < end_ms]


def _measure(port: int, command: str, pairs: Iterable[tuple[str, str]]) -> int:
    """Write a key, ask for its size, delete it."""
    words = list(itertools.chain.from_iterable(pairs))
    for begin in range(0, len(words), _WORDS_PER_COMMAND):
        reply = ask(port, command, _KEY, *words[begin : begin + _WORDS_PER_COMMAND])
        require(reply.startswith(b":"), f"{command} answered {reply!r}")
    used = int(ask(port, "MEMORY", "USAGE", _KEY, "SAMPLES", "0")[1:])
    ask(port, "DEL", _KEY)
    return used
