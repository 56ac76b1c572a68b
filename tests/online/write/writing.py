"""A small view, its events, its writer, and the comparison with the oracle."""

from __future__ import annotations

from collections.abc import Sequence

from featurestore.core.spec import FeatureSpec, ValueType, ViewSpec, Window
from featurestore.online.generation import Generation
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.reader import Reader
from featurestore.online.redis.store import RedisStore
from featurestore.online.write.writer import ViewWriter
from featurestore.testing import writers
from featurestore.testing.answers import stored_answers
from featurestore.testing.clock import ManualClock
from featurestore.testing.oracle.naive import NaiveEvent, naive_found, naive_value
from featurestore.testing.oracle.tolerance import agrees, magnitude
from featurestore.testing.strategies import ANCHOR_MS, DAY_MS, SOURCE

PROJECT = "tests"
LANES = 4


def view_of(*windows_ms: int, retention_ms: int | None = 90 * DAY_MS, functions: Sequence[str] = ("sum",)) -> ViewSpec:
    """Counts and functions of amount over some windows, by card."""
    features = []
    for length in windows_ms or (DAY_MS,):
        window = Window(length, min(length, 60_000))
        features.append(FeatureSpec(f"count_{length}", "count", None, window, ValueType.INT64))
        features += [
            FeatureSpec(f"amount_{function}_{length}", function, "amount", window, ValueType.INT64)
            for function in functions
        ]
    return ViewSpec("card_activity", (), SOURCE, tuple(features), retention_ms)


def open_writer(
    store: RedisStore, view: ViewSpec, clock: ManualClock | None = None, *, compaction_pause_ms: int = 0
) -> ViewWriter:
    """A writer of all lanes of the view's generation."""
    catalog = GenerationCatalog(store, PROJECT)
    catalog.lane_count(LANES)
    return writers.open_writer(
        store,
        catalog.register(view),
        LANES,
        clock or ManualClock(now_ms=ANCHOR_MS + 1_000 * DAY_MS),
        compaction_pause_ms=compaction_pause_ms,
    )


def events_of(count: int, *, keys: int = 5, step_ms: int = 1_000, first: int = 0) -> list[NaiveEvent]:
    """Events of a few cards at a steady pace, amounts 0, 1, 2, ..."""
    return [
        NaiveEvent(b"card-%d" % (n % keys), ANCHOR_MS + n * step_ms, b"id-%d" % n, {"amount": n})
        for n in range(first, first + count)
    ]


def answers(store: RedisStore, generation: Generation, key: bytes, as_of_ms: int) -> list[object]:
    """What a lookup would say, feature by feature."""
    [found] = stored_answers(Reader(store, LANES), generation, [key], as_of_ms)
    return list(found.values())


def assert_equals_oracle(store: RedisStore, writer: ViewWriter, events: Sequence[NaiveEvent], as_of_ms: int) -> None:
    """Every entity's every feature."""
    view = writer.generation.view
    for key in {event.key for event in events}:
        mine = [event for event in events if event.key == key]
        seen = mine if naive_found(view, mine, as_of_ms) else []
        for feature, actual in zip(view.features, answers(store, writer.generation, key, as_of_ms), strict=True):
            expected = naive_value(feature, seen, as_of_ms)
            assert agrees(expected, actual, scale=magnitude(feature, mine, as_of_ms)), (key, feature, expected, actual)


def copy_of(store: RedisStore) -> dict[bytes, bytes]:
    """All lanes' strings, as a backup would have them."""
    values = {}
    for key in store.scan(b"*/[0-9]*}*"):
        values[key] = store.read_groups([[key]])[0] or b""
    return values


def restore(store: RedisStore, copy: dict[bytes, bytes]) -> None:
    """Bring the lanes back to a copy."""
    store.delete(list(store.scan(b"*/[0-9]*}*")))
    for key, value in copy.items():
        store._client().set(key, value)
