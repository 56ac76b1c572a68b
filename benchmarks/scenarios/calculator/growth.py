"""growth: does a lookup slow down with an entity's history, or ingest with the number of windows?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from benchmarks.parts import applied_repo
from benchmarks.scenario import Line, Result, Run, digest, require
from benchmarks.workload import BEGIN_MS, DAY_MS, answer_text
from featurestore.clock import SystemClock
from featurestore.core.events import BlobRow, ColumnValues, Int64Array, KeyedBatch
from featurestore.core.spec import FeatureSpec, ValueType, ViewSpec, Window, default_hop_ms
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.reader import EntityBytes, EntityRead, Reader
from featurestore.online.redis.store import RedisStore, connect
from featurestore.online.write.writer import ViewWriter
from featurestore.testing.answers import stored_answers
from featurestore.testing.servers import RedisServer, redis_server
from featurestore.testing.writers import open_writer
from featurestore.wire.entity_key import lanes_of

VIEW = "card_activity"
KEY = b"card-00000001"
SPAN_MS = 90 * DAY_MS
BATCH_ROWS = 8_192
LANES = 16
CARDS = 5_000

_MINUTE_MS = 60_000
_HOUR_MS = 60 * _MINUTE_MS

WINDOWS_MS = (
    *(minutes * _MINUTE_MS for minutes in (5, 10, 15, 30)),
    *(hours * _HOUR_MS for hours in (1, 2, 3, 4, 6, 8, 12)),
    *(days * DAY_MS for days in (1, 2, 3, 5, 7, 14, 30, 60, 90)),
)
"""Twenty windows from 5 minutes to 90 days; three features each."""


def run(run: Run) -> Result:
    """Grow one entity from ten events to a million, then one view from three features to sixty."""
    view = next(view for view in applied_repo(run.directory).spec.views if view.name == VIEW)
    with redis_server() as redis:
        lookup_lines, texts = _grow_history(run, redis, view)
        ingest_lines, applied = _grow_windows(run, redis, view)
    return Result(
        scenario="growth",
        question="Do lookups stay flat over an entity's history, and ingest over the number of windows?",
        lines=(*lookup_lines, *ingest_lines),
        answer_hash=digest([*texts, *map(str, applied)]),
        checked="counts and sums of every history equal the written ones; every view applied every event",
        notes=(
            f"History: events of one card spread evenly over {SPAN_MS // DAY_MS} days, in batches of "
            f"{BATCH_ROWS:,}; a lookup here is read, decode and answer of {len(view.features)} features in this "
            "process. The hops bound the number of tiles, whatever the number of events.",
            f"Windows: count, sum and mean of amount over each, {CARDS:,} cards; processor time of the writer alone.",
        ),
    )


def _grow_history(run: Run, redis: RedisServer, view: ViewSpec) -> tuple[list[Line], list[str]]:
    """Lookup time and size by number of events."""
    lines: list[Line] = []
    texts: list[str] = []
    first_us = 0.0
    for count in [10**power for power in range(1, run.choose(smoke=4, full=6) + 1)]:
        redis.flush()
        store = connect(redis.url)
        times_ms = BEGIN_MS + np.arange(count) * SPAN_MS // count
        amounts = np.arange(count) % 1_000
        writer = _open_writer(store, view)
        for begin in range(0, count, BATCH_ROWS):
            writer.write([_batch(view, (KEY,), times_ms, amounts, begin, min(begin + BATCH_ROWS, count))])
        writer.close()
        as_of_ms = int(times_ms[-1]) + 1
        reader = Reader(store, LANES)
        [found] = stored_answers(reader, writer.generation, [KEY], as_of_ms)
        expected = (count, int(amounts.sum()))
        require(
            (found["card_count_lifetime"], found["card_amount_sum_lifetime"]) == expected, f"{count} events: {found}"
        )
        texts.append(answer_text(view, found))
        lookup_us = _lookup_us(run, reader, writer, as_of_ms)
        first_us = first_us or lookup_us
        [stored] = reader.read([EntityRead(writer.generation, KEY)])
        assert isinstance(stored, EntityBytes)
        size = len(stored.body or b"") + len(stored.head or b"")
        lines.append(
            Line(f"lookup after {count:,} events ({size:,} bytes)", lookup_us, "us", lookup_us / first_us, "10 events")
        )
        store.close()
        run.say(f"{count:,} events: {lookup_us:.0f} us")
    return lines, texts


def _lookup_us(run: Run, reader: Reader, writer: ViewWriter, as_of_ms: int) -> float:
    """Median time of a lookup."""
    taken_s = []
    for _ in range(run.choose(smoke=20, full=1_000)):
        begun_s = time.perf_counter()
        stored_answers(reader, writer.generation, [KEY], as_of_ms)
        taken_s.append(time.perf_counter() - begun_s)
    return float(np.median(taken_s)) * 1e6


def _grow_windows(run: Run, redis: RedisServer, view: ViewSpec) -> tuple[list[Line], list[int]]:
    """Ingest rate of one view by its number of windows."""
    count = run.choose(smoke=16_384, full=32 * BATCH_ROWS)
    times_ms = BEGIN_MS + np.arange(count) * (DAY_MS // count)
    amounts = np.arange(count) % 1_000
    keys = tuple(b"card-%08d" % card for card in range(CARDS))
    lines: list[Line] = []
    applied = []
    first_per_s = 0.0
    for window_count in (1, 5, 20) if run.choose(smoke=1, full=0) else (1, 2, 5, 10, 20):
        redis.flush()
        store = connect(redis.url)
        # All views keep the longest window, so that the same tiles are rolled up alike.
        chosen = sorted({WINDOWS_MS[-1 - index * len(WINDOWS_MS) // window_count] for index in range(window_count)})
        writer = _open_writer(store, _with_windows(view, chosen))
        batches = [
            _batch(writer.generation.view, keys, times_ms, amounts, begin, min(begin + BATCH_ROWS, count))
            for begin in range(0, count, BATCH_ROWS)
        ]
        begun_s = time.process_time()
        done = sum(writer.write([batch]).events_applied for batch in batches)
        per_s = count / (time.process_time() - begun_s)
        require(done == count, f"{done} of {count} events were applied")
        applied.append(done)
        first_per_s = first_per_s or per_s
        lines.append(
            Line(
                f"ingest with {3 * window_count} features",
                per_s,
                "events per CPU second",
                per_s / first_per_s,
                "3 features",
            )
        )
        store.close()
        run.say(f"{3 * window_count} features: {per_s:,.0f} events per CPU second")
    return lines, applied


def _with_windows(view: ViewSpec, lengths_ms: Sequence[int]) -> ViewSpec:
    """Count, sum and mean over each window."""
    features = []
    for length_ms in lengths_ms:
        window = Window(length_ms, default_hop_ms(length_ms))
        for function, column, value_type in (
            ("count", None, ValueType.INT64),
            ("sum", "amount", ValueType.INT64),
            ("mean", "amount", ValueType.FLOAT64),
        ):
            features.append(FeatureSpec(f"{function}_{length_ms}", function, column, window, value_type))
    return replace(view, name=f"card_{len(features)}", features=tuple(features), retention_ms=max(lengths_ms))


def _open_writer(store: RedisStore, view: ViewSpec) -> ViewWriter:
    catalog = GenerationCatalog(store, "payments")
    return open_writer(store, catalog.register(view), catalog.lane_count(LANES), SystemClock())


def _batch(
    view: ViewSpec, keys: tuple[bytes, ...], times_ms: Int64Array, amounts: Int64Array, begin: int, end: int
) -> KeyedBatch:
    """Rows [begin, end), dealt out to the keys in turn; what else the view reads is the same in every row."""
    count = end - begin
    offsets = np.arange(begin, end)
    ids = np.empty(count, dtype=np.object_)
    ids[:] = [b"%016x" % number for number in range(begin, end)]
    columns: dict[str, ColumnValues] = {}
    for name in {feature.column for feature in view.features if feature.column is not None}:
        column = view.source.column(name)
        assert column is not None
        if name == "amount":
            columns[name] = ColumnValues(amounts[begin:end])
        elif column.type is ValueType.STRING:
            columns[name] = ColumnValues(BlobRow.of([b"SE"] * count))
        elif column.type is ValueType.TIMESTAMP:
            columns[name] = ColumnValues(times_ms[begin:end])
        else:
            columns[name] = ColumnValues(np.zeros(count, dtype=np.int64))
    return KeyedBatch(
        view=view.name,
        topic=view.source.topic,
        partition=0,
        from_offset=begin,
        next_offset=end,
        offsets=offsets,
        event_time_ms=times_ms[begin:end],
        event_ids=ids,
        keys=keys,
        key_index=offsets % len(keys),
        key_lanes=lanes_of(keys, LANES),
        columns=columns,
    )
