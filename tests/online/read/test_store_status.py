"""What people and tools are told about the store, on a standalone server and on a cluster."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from featurestore.cli.main import main
from featurestore.core.spec import FeatureSpec, ValueType, ViewSpec, Window
from featurestore.definitions.schemas.directory import log_ends
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.store_status import look_over
from featurestore.online.redis.store import RedisStore, connect
from featurestore.testing.batches import keyed_batch
from featurestore.testing.clock import ManualClock
from featurestore.testing.oracle.naive import NaiveEvent
from featurestore.testing.strategies import ANCHOR_MS, DAY_MS, SOURCE
from featurestore.testing.writers import open_writer

PROJECT = "tests"
LANES = 4
EVENTS = 20
CARDS = 5
VIEW = ViewSpec(
    "card_activity",
    (),
    SOURCE,
    (FeatureSpec("count_1d", "count", None, Window(DAY_MS, 60_000), ValueType.INT64),),
    90 * DAY_MS,
)
CLOCK = ManualClock(now_ms=ANCHOR_MS + EVENTS * 1_000 + 5_000)


def fill(store: RedisStore) -> None:
    """Write some payments of a few cards, a second apart."""
    catalog = GenerationCatalog(store, PROJECT)
    catalog.lane_count(LANES)
    writer = open_writer(store, catalog.register(VIEW), LANES, CLOCK)
    events = [NaiveEvent(b"card-%d" % (n % CARDS), ANCHOR_MS + n * 1_000, b"id-%d" % n, {}) for n in range(EVENTS)]
    writer.write([keyed_batch(VIEW, events, lane_count=LANES)])
    writer.close()


def test_an_empty_store_is_looked_at_without_laying_it_out(store: RedisStore) -> None:
    """Looking changes nothing: the number of lanes stays the first writer's choice."""
    found = look_over(store, PROJECT, CLOCK, registered=[VIEW], measures_memory=True)

    assert found.lane_count is None
    assert found.generations == ()
    assert found.unstreamed == ("card_activity",)
    assert list(store.scan(b"*")) == []


def test_what_was_written_is_told(store: RedisStore) -> None:
    """State, lanes, watermark, freshness, positions, lag and size are those of the writer's commits."""
    fill(store)
    topic = VIEW.source.topic

    [one] = look_over(
        store, PROJECT, CLOCK, registered=[VIEW], ends={(topic, 0): EVENTS + 7}, measures_memory=True
    ).generations

    assert (one.view, one.number, one.state, one.lanes) == ("card_activity", 1, "serving", LANES)
    assert one.is_registered_definition
    assert one.watermark_ms == ANCHOR_MS + (EVENTS - 1) * 1_000
    assert one.freshness_ms == 6_000
    assert [(each.next_offset, each.end_offset, each.lag_records) for each in one.partitions] == [
        (EVENTS, EVENTS + 7, 7)
    ]
    assert one.lag_records == 7
    assert one.memory is not None
    assert one.memory.is_complete
    assert one.memory.entities == CARDS
    assert one.memory.bytes_total > CARDS * one.memory.entity_bytes_mean > 0


def test_entities_that_share_keys_are_counted(store: RedisStore) -> None:
    """In heads and bodies of packs, and by themselves; and what is registered says how many are expected."""
    catalog, view = GenerationCatalog(store, PROJECT), replace(VIEW, expected_entities=200)
    catalog.lane_count(LANES)
    writer = open_writer(store, catalog.register(view), LANES, CLOCK)
    for offset in (0, 400, 800):
        events = [
            NaiveEvent(b"card-%d" % (n % 40 if n % 20 else 7), ANCHOR_MS + n, b"id-%d" % (offset + n), {})
            for n in range(400)
        ]
        writer.write([keyed_batch(view, events, from_offset=offset, lane_count=LANES)])
    writer.close()

    [one] = look_over(store, PROJECT, CLOCK, registered=[view], measures_memory=True).generations

    assert one.memory is not None
    assert (8, 200) == (one.packs, one.expected_entities)
    assert 1 <= one.memory.packs <= 8
    assert 38 == one.memory.entities
    assert 0 < one.memory.packed_entities < 38
    assert 0 < one.memory.pack_fill <= 1
    assert one.memory.bytes_total > 38 * one.memory.entity_bytes_mean > 0


def test_a_definition_that_moved_on_is_told(store: RedisStore) -> None:
    """The stored generation is not what is registered now; it has no lag where the source's end is not known."""
    fill(store)
    changed = replace(VIEW, retention_ms=30 * DAY_MS)

    found = look_over(store, PROJECT, CLOCK, registered=[changed])

    [one] = found.generations
    assert not one.is_registered_definition
    assert one.lag_records is None
    assert one.memory is None
    assert found.unstreamed == ()


def test_the_ends_of_a_log_are_its_complete_lines(tmp_path: Path) -> None:
    """A line that is still being written has no offset yet; dead letters are not of the log."""
    (tmp_path / "payments").mkdir()
    (tmp_path / "payments" / "0.jsonl").write_text('{"a":1}\n{"a":2}\n{"a"')
    (tmp_path / "payments" / "1.jsonl").write_text("")

    assert log_ends(tmp_path) == {("payments", 0): 2, ("payments", 1): 0}


def test_status_is_text_for_people_and_json_for_tools(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The command shows the same figures in both forms, without a repo when registry and project are given."""
    store = connect(redis_url)
    fill(store)
    store.close()
    options = ["status", "--registry", "nowhere.db", "--project", PROJECT, "--store-url", redis_url]

    assert main([*options, "--format", "json"]) == 0
    [one] = json.loads(capsys.readouterr().out)["generations"]
    assert main(options) == 0
    text = capsys.readouterr().out

    assert one["view"] == "card_activity"
    assert one["partitions"] == [
        {
            "topic": VIEW.source.topic,
            "partition": 0,
            "next_offset": EVENTS,
            "end_offset": None,
            "lag_records": None,
        }
    ]
    assert "card_activity@1" in text
    assert one["definition_hash"][:8] in text


def test_status_starts_no_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the embedded store does not run, status says so and leaves it at that."""
    monkeypatch.setenv("FEATURESTORE_DATA_DIR", str(tmp_path / "store"))

    assert main(["status", "--registry", "nowhere.db", "--project", PROJECT]) == 1
    assert "no embedded store runs" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()
