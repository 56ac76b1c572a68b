"""One seeded workload for all scenarios: simulated payments, and what the naive oracle must see in them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np

from benchmarks.scenario import digest, require
from featurestore.core.events import Int64Array
from featurestore.core.spec import RepoSpec, ViewSpec
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.reader import Reader
from featurestore.online.redis.store import RedisStore
from featurestore.testing.answers import AnswerValues, stored_answers
from featurestore.testing.oracle.naive import NaiveEvent, NaiveValue, naive_values
from featurestore.testing.oracle.tolerance import agrees, magnitude
from featurestore.testing.simulator import PayloadEncoder, Population, PopulationSize, Scenario, Simulation
from featurestore.testing.simulator.avro_payload import SCHEMA, AvroPayloadEncoder
from featurestore.testing.simulator.payload import card_id
from featurestore.testing.simulator.population import FIRST_MERCHANT_ID, FIRST_TERMINAL_ID
from featurestore.testing.simulator.rows import Rows
from featurestore.wire.formats.columns import NoSchemas, SchemaId

SEED = 20_260_101
BEGIN_MS = 1_767_571_200_000
"""2026-01-05, a Monday: a fixed moment, so that equal sizes give equal answers."""

DAY_MS = 86_400_000

_ENTITY_COLUMNS = {"card_activity": "card", "merchant_activity": "merchant", "terminal_activity": "terminal"}


SCHEMA_ID = 1


class PaymentSchemas(NoSchemas):
    """The registry of the workload's payloads."""

    def text(self, schema_id: SchemaId) -> str | None:
        """See Schemas."""
        return SCHEMA if schema_id == SCHEMA_ID else None


@dataclass(frozen=True)
class Workload:
    """Transactions in arrival order.

    Attributes:
        rows: (N,) of the simulator.
        population: whose they are.
    """

    rows: Rows
    population: Population

    @cached_property
    def payloads(self) -> list[bytes]:
        """N records of Avro, as the example's topic has them; `PaymentSchemas` knows their schema."""
        return AvroPayloadEncoder(self.population, SCHEMA_ID).encode(self.rows)

    @cached_property
    def json_payloads(self) -> list[bytes]:
        """The same as JSON objects."""
        return PayloadEncoder(self.population).encode(self.rows)

    @cached_property
    def as_of_ms(self) -> int:
        """Just after the newest event."""
        return int(self.rows["event_time_ms"].max()) + 1

    def entity(self, view: str) -> Int64Array:
        """(N,) index of the view's entity in each row."""
        terminal: Int64Array = self.rows["terminal"]
        kind = _ENTITY_COLUMNS[view]
        if kind == "merchant":
            return np.asarray(self.population.terminal_merchant[terminal])
        return terminal if kind == "terminal" else np.asarray(self.rows["card"])

    def key(self, view: str, entity: int) -> str | int:
        """Join-key value of an entity's index."""
        first = {"merchant": FIRST_MERCHANT_ID, "terminal": FIRST_TERMINAL_ID}
        kind = _ENTITY_COLUMNS[view]
        return card_id(entity) if kind == "card" else first[kind] + entity

    def index(self, view: str, key: str | int) -> int:
        """Index of the entity of a join-key value: what `key` is of."""
        return next(int(entity) for entity in np.unique(self.entity(view)) if self.key(view, int(entity)) == key)

    def sample(self, view: str, count: int) -> list[int]:
        """Entities with events: the busiest one, the median one, and others evenly by activity."""
        entities, activity = np.unique(self.entity(view), return_counts=True)
        ranked = entities[np.argsort(-activity, kind="stable")]
        places = np.unique(np.linspace(0, len(ranked) - 1, min(count, len(ranked))).astype(np.int64))
        return [int(entity) for entity in ranked[places]]

    def newest_events(self, count: int) -> list[NaiveEvent]:
        """The last events that arrived, whosever they are, without key."""
        return [_naive_event(b"", payload) for payload in PayloadEncoder(self.population).encode(self.rows[-count:])]

    def naive_events(self, view: str, entity: int) -> list[NaiveEvent]:
        """An entity's events, from its payloads by the standard library's JSON parser, not by ours."""
        rows = self.rows[self.entity(view) == entity]
        key = str(self.key(view, entity)).encode()
        return [_naive_event(key, payload) for payload in PayloadEncoder(self.population).encode(rows)]


def make_workload(count: int, *, cards: int, merchants: int, days: float | None = None) -> Workload:
    """About `count` transactions (retries, refunds, late ones included), or what the cards do in `days` by themselves.

    Args:
        count: how many; the last ones are cut off. 0 keeps all of `days`.
        cards: how many.
        merchants: how many.
        days: event time to cover; None lets it follow from the count.
    """
    size = PopulationSize(cards=cards, merchants=merchants)
    population = Population(size, SEED)
    end_ms = None if days is None else BEGIN_MS + round(days * DAY_MS)
    simulation = Simulation(Scenario(BEGIN_MS, end_ms, seed=SEED, size=size), population)
    batches, made = [], 0
    for rows in simulation.batches():
        batches.append(rows)
        made += len(rows)
        if count and made >= count:
            break
    everything = np.concatenate(batches)
    return Workload(everything[:count] if count else everything, population)


def check_against_oracle(store: RedisStore, repo: RepoSpec, workload: Workload, *, sample: int) -> tuple[str, int]:
    """Compare what the store answers with the naive oracle; hash of the answers, and how many values were compared.

    Raises:
        WrongAnswer: a value differs.
    """
    catalog = GenerationCatalog(store, repo.project)
    reader = Reader(store, catalog.lane_count())
    texts, compared = [], 0
    for view in repo.views:
        generation = catalog.serving(view.name)
        require(generation is not None, f'feature view "{view.name}" has no generation')
        assert generation is not None
        for entity in workload.sample(view.name, sample):
            events = workload.naive_events(view.name, entity)
            expected = naive_values(view, events, workload.as_of_ms)
            key = str(workload.key(view.name, entity)).encode()
            [actual] = stored_answers(reader, generation, [key], workload.as_of_ms)
            for feature in view.features:
                pair = expected[feature.name], actual[feature.name]
                is_right = agrees(*pair, scale=magnitude(feature, events))
                require(is_right, f"{feature.name} of entity {entity}: expected and found are {pair}")
            compared += len(expected)
            texts.append(answer_text(view, actual))
    return digest(texts), compared


def answer_text(view: ViewSpec, values: AnswerValues) -> str:
    """Canonical text of answers; floats to nine digits, since the order of merging decides about the last ones."""
    found = [values[feature.name] for feature in view.features]
    return "|".join(f"{value:.9g}" if isinstance(value, float) else str(value) for value in found)


def _naive_event(key: bytes, payload: bytes) -> NaiveEvent:
    record = json.loads(payload)
    moment = datetime.fromisoformat(record["event_time"])
    # Not round(moment.timestamp() * 1000): doubles would be exact here, but integers are so on principle.
    event_time_ms = int(moment.replace(microsecond=0).timestamp()) * 1_000 + moment.microsecond // 1_000
    columns: dict[str, NaiveValue | None] = {
        name: int(value) if isinstance(value, bool) else value for name, value in record.items()
    }
    return NaiveEvent(key, event_time_ms, record["transaction_id"].encode(), {**columns, "event_time": event_time_ms})
