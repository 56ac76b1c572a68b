"""A view joins others while the stream goes on: answered by itself, then with them, exact all the while."""

from __future__ import annotations

from pathlib import Path

from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.reader import Reader
from featurestore.online.redis.store import connect
from featurestore.online.serving_view import serving_views
from featurestore.testing.answers import stored_answers
from featurestore.testing.oracle.naive import NaiveEvent, naive_values
from tests.dataflows.conftest import StartStream, applied_repo
from tests.dataflows.payments import PROJECT, Payments, make_payments

GROUP = "payments:card_id"
DECLINES = """
declines = stream_view(
    name="declines",
    entities=[card],
    source=payments,
    where="is_declined",
    features=[*count(over=["1h", "lifetime"]), *aggregate("amount", "max", over=["1d"])],
)
"""


def require_exact(url: str, *parts: Payments) -> dict[str, str]:
    """Every view of cards answers as the oracle does; what each of them is read from."""
    store = connect(url)
    catalog = GenerationCatalog(store, PROJECT)
    served = serving_views(catalog.all())
    reader = Reader(store, catalog.lane_count())
    as_of_ms = max(part.newest_ms for part in parts) + 1
    events: dict[bytes, list[NaiveEvent]] = {}
    for part in parts:
        for key, some in part.cards.items():
            events.setdefault(key, []).extend(some)
    for serving in served.values():
        if serving.view.name == "merchants":
            continue
        for key, actual in zip(events, stored_answers(reader, serving, list(events), as_of_ms), strict=True):
            mine = [one for one in events[key] if not serving.view.where or one.columns["is_declined"]]
            assert actual == naive_values(serving.view, mine, as_of_ms), (serving.view.name, key)
    store.close()
    return {name: one.generation.view.name for name, one in served.items()}


def test_a_view_is_merged_into_a_storage_group(
    start_stream: StartStream, tmp_path: Path, redis_url: str, registry: Path
) -> None:
    """By itself first, then with the cards' other view; payments come before, between and after."""
    more = applied_repo(tmp_path / "more", more=DECLINES)
    parts = [make_payments(1_500, seed=40 + part, first=1_500 * part, entities=40) for part in range(4)]

    def run(*options: str, use_registry: Path = more) -> dict[str, str]:
        stream = start_stream("--log-dir", str(tmp_path / "log"), "--until-end", *options, use_registry=use_registry)
        assert stream.wait() == 0, stream.output
        return require_exact(redis_url, *parts[:sent])

    sent = 1
    parts[0].append_to(tmp_path / "log")
    assert {"cards": "cards", "merchants": "merchants"} == run(use_registry=registry)
    sent = 2
    parts[1].append_to(tmp_path / "log")
    apart = {name: name for name in ("cards", "declines", "merchants")}
    assert apart == run()
    assert apart == run(), "not before it has been there for an hour"
    sent = 3
    parts[2].append_to(tmp_path / "log")
    # The group has caught up at the end, and what its views had of their own retires with the next plan.
    run("--merge-after-seconds", "0")
    sent = 4
    parts[3].append_to(tmp_path / "log")
    assert {"cards": GROUP, "declines": GROUP, "merchants": "merchants"} == run("--merge-after-seconds", "0")


def test_views_of_a_new_store_are_stored_together_at_once(
    start_stream: StartStream, tmp_path: Path, redis_url: str
) -> None:
    """They need no merge."""
    more = applied_repo(tmp_path / "more", more=DECLINES)
    payments = make_payments(2_000, seed=44, entities=40)
    payments.append_to(tmp_path / "log")
    stream = start_stream("--log-dir", str(tmp_path / "log"), "--until-end", use_registry=more)
    assert stream.wait() == 0, stream.output

    served = require_exact(redis_url, payments)
    assert {"cards": GROUP, "declines": GROUP, "merchants": "merchants"} == served
