"""`featurestore doctor`: each thing that is wrong or grows, with its remedy, on a real Redis."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from featurestore.cli.generations import doctor
from featurestore.cli.main import main
from featurestore.core.spec import FeatureSpec, ValueType, Window
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.store_sizes import MemoryOverview
from featurestore.online.read.store_status import GenerationOverview
from featurestore.online.redis.store import RedisStore, connect
from featurestore.testing.batches import keyed_batch
from tests.docs.test_event_log import write_log
from tests.online.write.writing import LANES, PROJECT, events_of, open_writer, view_of

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def options(redis_url: str, tmp_path: Path) -> list[str]:
    """Where everything is."""
    return ["--registry", str(tmp_path / "registry.db"), "--project", PROJECT, "--store-url", redis_url]


def findings(options: list[str], capsys: Capture, *more: str) -> dict[tuple[str, str], tuple[bool, str]]:
    """What is found, by what and fact: whether it is wrong, and the remedy."""
    assert main(["doctor", "--format", "json", *options, *more]) == 0
    return {(one["what"], one["fact"]): (one["is_wrong"], one["remedy"]) for one in json.loads(capsys.readouterr().out)}


def write(store: RedisStore, lookback_ms: int, *, is_lifetime: bool = False) -> None:
    """A generation with events."""
    view = replace(view_of(retention_ms=None if is_lifetime else 90 * 86_400_000), lookback_ms=lookback_ms)
    if is_lifetime:
        view = replace(view, features=(FeatureSpec("n", "count", None, Window(None), ValueType.INT64),))
    open_writer(store, view).write([keyed_batch(view, events_of(100, keys=3), lane_count=LANES)])


def test_nothing_is_wrong_with_a_store_that_is_well(redis_url: str, options: list[str], capsys: Capture) -> None:
    """A view with windows, served, is nothing to speak of."""
    store = connect(redis_url)
    write(store, 0)
    store.close()

    assert main(["doctor", "--exit-code", *options]) == 0
    assert "nothing is wrong, and nothing grows without bound" in capsys.readouterr().out


def test_what_is_wrong_comes_first_and_with_a_remedy(redis_url: str, options: list[str], capsys: Capture) -> None:
    """Eviction, a damaged entity, a generation that is parked; and what has retired, or is never forgotten."""
    store = connect(redis_url)
    catalog = GenerationCatalog(store, PROJECT)
    write(store, 0, is_lifetime=True)
    write(store, 1, is_lifetime=True)
    catalog.promote(catalog.generations("card_activity")[1])
    catalog.refill(catalog.generations("card_activity")[1], ["the body of the entity is gone (entity #5db212ce)"])
    catalog.park(catalog.generations("card_activity")[2])
    store._client().config_set("maxmemory", 100 << 20)
    store._client().config_set("maxmemory-policy", "allkeys-lru")
    try:
        found = findings(options, capsys)
        assert main(["doctor", "--exit-code", *options]) == 10
        lines = capsys.readouterr().out.splitlines()
    finally:
        store._client().config_set("maxmemory", 0)
        store._client().config_set("maxmemory-policy", "noeviction")
        store.close()

    wrong = {what for (what, _), (is_wrong, _) in found.items() if is_wrong}
    assert {"online store", "card_activity@2", "card_activity@3"} == wrong
    assert list(found)[: len(wrong)] == [one for one in found if found[one][0]]
    grows = {(what, remedy) for (what, _), (is_wrong, remedy) in found.items() if not is_wrong}
    assert ("card_activity@1", "`featurestore drop card_activity --generation 1`") in grows
    assert any(fact.endswith("a rollback returns to it") for what, fact in found if what == "card_activity@1")
    assert any("3 entities" in fact and "ever forgotten" in fact for what, fact in found if what == "card_activity@2")
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("wrong")


def test_files_that_nobody_deletes_are_told(
    redis_url: str, options: list[str], tmp_path: Path, capsys: Capture
) -> None:
    """An event log that keeps everything, dead letters, a feature log; a directory without a log is a mistake."""
    store = connect(redis_url)
    write(store, 0)
    store.close()
    write_log(tmp_path / "logs" / "transactions")
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.jsonl").write_text("{}\n")
    more = ["--event-log", str(tmp_path / "logs"), "--dead-letter-dir", str(tmp_path / "letters")]
    found = findings(options, capsys, *more)

    assert {"event log transactions", f"dead letters in {tmp_path / 'letters'}"} == {what for what, _ in found}
    assert not any(is_wrong for is_wrong, _ in found.values())
    assert main(["doctor", "--event-log", str(tmp_path / "letters"), *options]) == 1
    assert "there is no event log below" in capsys.readouterr().err


def test_what_has_retired_and_is_of_no_use_is_dropped(redis_url: str, options: list[str], capsys: Capture) -> None:
    """Of all views at once; what a rollback returns to stays."""
    store = connect(redis_url)
    catalog = GenerationCatalog(store, PROJECT)
    for lookback_ms in range(4):
        write(store, lookback_ms)
        catalog.promote(catalog.generations("card_activity")[-1])
    assert main(["drop", "--retired", *options]) == 0
    said = capsys.readouterr().out

    assert [3, 4] == [one.number for one in catalog.generations("card_activity")]
    assert [f"card_activity@{number} is dropped" in said for number in (1, 2, 3)] == [True, True, False]
    assert not list(store.scan(b"*card_activity@1*"))
    assert main(["drop", "card_activity", "--retired", *options]) == 0
    assert "nothing has retired but what a rollback returns to" in capsys.readouterr().out
    assert main(["drop", *options]) == 2
    assert main(["drop", "--retired", "--generation", "3", *options]) == 2
    store.close()


@pytest.mark.parametrize(("cards", "expected", "fact"), [(300, 1, "its packs are full"), (3, 1, ""), (300, 1_000, "")])
def test_packs_that_are_full_are_told_with_how_many_there_are(
    redis_url: str, options: list[str], capsys: Capture, cards: int, expected: int, fact: str
) -> None:
    """With the number to write instead; packs that fit are nothing to speak of."""
    store, view = connect(redis_url), replace(view_of(), expected_entities=expected)
    writer = open_writer(store, view)
    for offset in range(0, 1_200, 100):
        events = events_of(1_200, keys=cards)[offset : offset + 100]
        writer.write([keyed_batch(view, events, from_offset=offset, lane_count=LANES)])
    for _ in range(2):
        writer.write([])
    store.close()
    found = [(told, remedy) for (_, told), (_, remedy) in findings(options, capsys).items() if "packs" in told]

    assert bool(fact) == bool(found)
    for told, remedy in found:
        assert told.startswith(fact)
        assert "expected_entities=" in remedy


def test_small_entities_with_keys_of_their_own_are_told() -> None:
    """From a hundred thousand on, where they would be smaller together; and packs with hardly anybody in them."""
    alone = MemoryOverview(400_123, False, 620, 248_000_000)
    empty = MemoryOverview(5_000, True, 300, 1_500_000, packed_entities=5_000, packs=4_800, pack_fill=0.01)
    one = GenerationOverview("cards", ("cards",), 2, "serving", "", True, 16, 0, None, ())
    facts = [
        (finding.fact, finding.remedy)
        for memory, packs in ((alone, 0), (empty, 80_000), (replace(alone, entities=99_999), 0))
        for finding in doctor._of_generation(replace(one, memory=memory, packs=packs), is_rolled_back_to=False)
    ]

    assert 2 == len(facts)
    assert "400,123 entities of 620 bytes have keys of their own" == facts[0][0]
    assert "let them share keys: expected_entities=410_000" in facts[0][1]
    assert "its packs are nearly empty: nobody expects as many, and there are 5,000" == facts[1][0]
    assert "expected_entities=5_000" in facts[1][1]
