"""`featurestore explain` on real parts: a server over what the stream wrote, its feature log, the event log."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from featurestore.cli.explain.command import command
from featurestore.cli.main import main
from featurestore.clock import SystemClock
from featurestore.definitions.registry import open_registry
from featurestore.offline.parity.feature_log import find_logged_files
from featurestore.offline.parity.feature_log_json import LoggedMessage, decode_messages, encode_messages
from featurestore.offline.parity.log_directory import LogDirectory
from featurestore.offline.parity.recount import recount
from featurestore.online.redis.store import connect
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.servers import redis_server
from tests.dataflows.payments import PROJECT, make_payments
from tests.offline.parity.stand import CARDS, MERCHANTS, Stand, make_stand, questions, split

READS = 12
COLUMNS = 80

Entity = dict[str, str | int | Sequence[str] | Sequence[int]]
Capture = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class Story:
    """Some reads were logged, then late events arrived; all of them are in the event log, and a server runs.

    Attributes:
        stand: the parts.
        address: of the server.
        log: feature log of the reads before the late events.
        in_flight: that of requests with columns, and payments in flight.
        messages: what is in it.
        newest_ms: newest event time.
    """

    stand: Stand
    address: str
    log: Path
    in_flight: Path
    messages: list[LoggedMessage]
    newest_ms: int

    @property
    def event_log(self) -> list[str]:
        """Options for a recount."""
        directory = self.stand.directory
        return ["--event-log", str(directory / "event_log"), "--repo", str(directory)]

    def ask(self, *arguments: str, service: str = "scoring") -> Result:
        """The command, on a terminal of 80 columns."""
        environment = {"COLUMNS": str(COLUMNS)}
        done = CliRunner().invoke(
            command, [service, *arguments, "--address", self.address, "--timeout", "60"], env=environment
        )
        assert done.exception is None, done.output
        return done

    def ask_json(self, *arguments: str, service: str = "scoring") -> dict[str, Any]:
        """Its JSON."""
        found: dict[str, Any] = json.loads(self.ask(*arguments, "--format", "json", service=service).output)
        return found


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Played once: the questions only read."""
    directory = tmp_path_factory.mktemp("explain")
    with redis_server() as redis:
        stand = make_stand(directory, redis.url)
        payments = make_payments(2_000, seed=91, partitions=2, entities=CARDS)
        on_time, late = split(payments, late=0.2, seed=92)
        stand.append(on_time)
        stand.run_stream()
        log = directory / "served"
        stand.ask(log, questions(READS, seed=93, newest_ms=payments.newest_ms))
        in_flight = directory / "in_flight"
        stand.ask_in_flight(in_flight, questions(6, seed=94, newest_ms=payments.newest_ms), seed=97)
        stand.append(late)
        stand.run_stream()
        stand.run_event_log()
        store = connect(redis.url)
        registry = open_registry(str(stand.registry), PROJECT)
        server = FeatureServer(registry, store, SystemClock(), ServerSettings(port=0))
        yield Story(stand, f"127.0.0.1:{server.port}", log, in_flight, logged(log), payments.newest_ms)
        server.stop(drain_seconds=1.0)
        store.close()


def logged(log: Path) -> list[LoggedMessage]:
    """All rows of a feature log."""
    files = find_logged_files(LogDirectory(log))
    lines = [one for file in files for _, one in encode_messages(file.layout, file.read(file.layout.schema.names))]
    return [message for rows in decode_messages(lines) for message in rows.messages]


def entity(message: LoggedMessage) -> list[str]:
    """Its KEY=VALUE arguments, and its read time."""
    return [*(f"{name}={value}" for name, value in message.entities.items()), "--as-of", str(message.as_of_ms)]


def row(story: Story, message: LoggedMessage) -> list[str]:
    """Options that ask about a logged row."""
    return ["--feature-log", str(story.log), "--request-id", message.request_id]


@pytest.fixture(scope="module")
def busy(story: Story) -> LoggedMessage:
    """A logged row of a card that had payments, some of which came late."""
    for message in story.messages:
        found = story.ask_json(*row(story, message), *story.event_log, "--feature", "habits:declines_6h")
        events = found["recount"]["events"]["habits"]
        if len(events) > 10 and any(not event["is_applied"] for event in events):
            return message
    raise AssertionError("no logged card is busy enough")


def test_a_feature_is_explained_on_one_screen_of_80_columns(story: Story, busy: LoggedMessage) -> None:
    """What it is, its window, where it is stored, what was merged, and the events: nothing is cut off."""
    done = story.ask(*entity(busy), "--feature", "cards:count_1d", *story.event_log)
    lines = done.output.splitlines()
    told = " ".join(done.output.split())

    assert max(map(len, lines)) <= COLUMNS
    assert len(lines) <= 50
    assert not [line for line in lines if "…" in line]
    assert "number of events in the payments of a card_id over 1 day, exact to 15 min at the old end" in told
    assert re.search(r"window +from \d{4}-\d\d-\d\d \d\d:\d\d:00 until just before", told)
    assert re.search(r"of +cards, stored in payments:card_id, generation 1, definition [0-9a-f]{8} ", told)
    assert re.search(r"read up to +payments/0:\d+, payments/1:\d+", told)
    assert re.search(r"recount +\d+: agrees", told)
    assert "merged from (UTC)" in told
    assert "events in the event log; the newest:" in told


def test_all_features_have_a_line_each(story: Story, busy: LoggedMessage) -> None:
    """View by view, with the values that a lookup answers, and how many tiles and events these are made of."""
    done = story.ask(*entity(busy))
    with LookupClient(story.address, timeout_s=60) as client:
        values = client.lookup("scoring", dict(busy.entities), as_of_ms=busy.as_of_ms).rows()[0]
    lines = {line.split()[0]: line.split() for line in done.output.splitlines() if line}

    assert max(map(len, done.output.splitlines())) <= COLUMNS
    for name in ("count_1d", "count_lifetime", "declines_6h"):
        assert f"{values[name]:,}" == lines[name][1]
    assert lines["count_lifetime"][1] == lines["count_lifetime"][3]
    assert ["-", "-"] == lines["decline_share"][2:]


def test_json_has_all_of_it(story: Story, busy: LoggedMessage) -> None:
    """The shares add up to the value; a feature that was asked for by its view is the only one."""
    found = story.ask_json(*entity(busy), "--feature", "cards:count_1d")["explanation"]
    (feature,), (view,) = found["features"], found["views"]
    (window,) = feature["windows"]

    assert (feature["name"], feature["type"], feature["status"]) == ("count_1d", "int64", "PRESENT")
    assert sum(feature["partials"]) == feature["value"] > 0
    assert len(view["tiles"]) == window["end_tile"] == len(feature["partials"])
    assert sum(tile["event_count"] for tile in view["tiles"]) == feature["value"]
    assert {"card_id": busy.entities["card_id"]} == view["entity"]


def test_a_recount_finds_the_very_events(story: Story, busy: LoggedMessage) -> None:
    """All stream features agree, and the events that count in a day's window are as many as the feature says."""
    found = story.ask_json(*entity(busy), *story.event_log)
    recounted = found["recount"]["features"]
    features = {feature["name"]: feature for feature in found["explanation"]["features"]}
    (window,) = features["count_1d"]["windows"]
    events = [
        event
        for event in found["recount"]["events"]["cards"]
        if window["begin_ms"] <= event["event_time_ms"] < window["end_ms"] and not event["is_repeat"]
    ]

    assert {"equal"} == {one["verdict"] for one in recounted.values() if one is not None}
    assert {"tier", "risk"} == {name for name, one in recounted.items() if one is None}
    assert {True} == {event["is_applied"] for event in events}
    assert len(events) == features["count_1d"]["value"]
    amounts = [event["columns"]["amount"] for event in events if event["columns"]["amount"] is not None]
    assert sum(amounts) == features["cards__amount_sum_1d"]["value"]
    assert max(amounts) == features["amount_max_1d"]["value"]


def test_a_logged_answer_stands_beside_what_the_store_and_the_event_log_say_now(
    story: Story, busy: LoggedMessage
) -> None:
    """Events came after it: it was right for what had been read, which the recount at its positions shows."""
    found = story.ask_json(*row(story, busy), *story.event_log)
    logged, recounted = found["logged"], found["recount"]["features"]
    now = {feature["name"]: feature["value"] for feature in found["explanation"]["features"]}
    seen = [event for event in found["recount"]["events"]["cards"] if event["is_applied"]]

    assert found["explanation"]["as_of_ms"] == busy.as_of_ms
    assert (logged["request_id"], logged["request_row"]) == (busy.request_id, 0)
    assert logged["values"]["count_1d"] == busy.views["cards"].features["count_1d"].value
    assert logged["values"]["count_1d"] == recounted["count_1d"]["at_positions"]
    assert now["count_1d"] == recounted["count_1d"]["recomputed"] > logged["values"]["count_1d"]
    assert recounted["count_1d"]["verdict"].startswith("an event arrived after the read")
    assert recounted["count_1d"]["agrees"]
    assert len({event["event_id"] for event in seen}) == logged["values"]["count_lifetime"]


def test_an_event_at_a_position_had_not_been_read(story: Story, busy: LoggedMessage) -> None:
    """A position is the next offset: which events are marked as read, and the value at the positions, go together."""
    root = str(story.stand.directory / "event_log")
    events = recount(story.stand.repo, busy, root).events["cards"]
    for event in (events[len(events) // 2], events[-1]):
        positions = [(event.topic, partition, event.offset) for partition in range(2)]
        part = msgspec.structs.replace(busy.views["cards"], positions=positions)
        found = recount(story.stand.repo, msgspec.structs.replace(busy, views={"cards": part}), root)
        seen = {one.event_id for one in found.events["cards"] if one.is_applied}

        assert event.event_id not in seen or any(one.is_repeat for one in events)
        assert found.features["cards", "count_lifetime"].at_positions == len(seen)


def test_a_logged_answer_on_the_screen(story: Story, busy: LoggedMessage) -> None:
    """Which request it was, what was answered then, and what came after the read."""
    detail = story.ask(*row(story, busy), *story.event_log, "--feature", "count_lifetime").output
    table = story.ask(*row(story, busy), *story.event_log).output
    then = busy.views["cards"].features["count_lifetime"].value

    assert f"asked by request {busy.request_id} row 0" in detail
    assert re.search(rf"logged +{then} was answered then", detail)
    assert re.search(rf"recount +{then} from what had been read, \d+ from all events", detail)
    assert re.search(rf"count_lifetime +{then} +\d+ +agrees", table)


def test_a_logged_payment_in_flight_is_explained_and_recounted(story: Story) -> None:
    """With the request's columns: nothing but the request's id is given. What was answered then was right."""
    messages = logged(story.in_flight)
    assert 0 < sum(bool(message.events) for message in messages) < len(messages)
    for message in messages:
        asked = ["--feature-log", str(story.in_flight), "--request-id", message.request_id, *story.event_log]
        found = story.ask_json(*asked, service="deciding")
        features = {feature["name"]: feature for feature in found["explanation"]["features"]}
        recounted = {name: one for name, one in found["recount"]["features"].items() if name != "tier_abroad"}

        assert {name: one.value for name, one in message.request.items()} == found["explanation"]["request"]
        sent = {source: {name: one.value for name, one in row.items()} for source, row in message.events.items()}
        assert sent == found["explanation"]["events"]
        assert {True} == {one["agrees"] for one in recounted.values()}
        counts = True if message.events else None
        assert counts is features["amount_ratio"]["counts_event"] is features["amount_sum_1d"]["counts_event"]


def test_a_payment_in_flight_is_explained_as_it_is_looked_up(story: Story) -> None:
    """`--event`: the values of a lookup, the payment as the newest row, and a recount that has it too."""
    at = story.newest_ms + 5
    asked = ["card_id=card-3", "merchant_id=2", "amount=9", "country=SE", *story.event_log]
    payment = ["--event", f"paid_at={at}", "--event", "amount=70000", "--event", "is_declined=true"]
    found = story.ask_json(*asked, *payment, service="deciding")
    screen = story.ask(*asked, *payment, "--feature", "declines_6h", service="deciding").output
    event = {"payments": {"paid_at": at, "amount": 70_000, "is_declined": 1}}
    with LookupClient(story.address, timeout_s=60) as client:
        keys: Entity = {"card_id": "card-3", "merchant_id": 2}
        [values] = client.lookup("deciding", keys, request={"amount": 9, "country": "SE"}, events=event).rows()

    assert values == {feature["name"]: feature["value"] for feature in found["explanation"]["features"]}
    assert {"equal"} == {
        one["verdict"] for name, one in found["recount"]["features"].items() if name not in ("tier_abroad",)
    }
    assert "payment in flight of payments: paid_at=" in screen
    assert re.search(r"in flight +the payment counts", screen)
    assert re.search(r"in flight +1 +1\n", screen)


def test_messages_of_a_topic_are_a_feature_log_too(story: Story, busy: LoggedMessage, tmp_path: Path) -> None:
    """A file of them, a line each."""
    path = tmp_path / "served.jsonl"
    files = find_logged_files(LogDirectory(story.log))
    lines = [one for file in files for _, one in encode_messages(file.layout, file.read(file.layout.schema.names))]
    path.write_bytes(b"\n".join(lines))

    from_file = story.ask_json("--feature-log", str(path), "--request-id", busy.request_id, "--feature", "count_1d")

    assert from_file == story.ask_json(*row(story, busy), "--feature", "count_1d")


def test_a_refused_moment_is_recounted_all_the_same(story: Story, busy: LoggedMessage) -> None:
    """The store can no longer tell, the event log can; nothing is claimed to agree."""
    moment = str(story.newest_ms - 5_000_000)
    feature = ["--feature", "merchants:count_2d"]
    found = next(
        one
        for merchant in range(MERCHANTS)
        if (
            one := story.ask_json("card_id=c", f"merchant_id={merchant}", "--as-of", moment, *feature, *story.event_log)
        )
        and one["explanation"]["refusal"]
    )
    merchant = found["explanation"]["entity"]["merchant_id"]
    screen = story.ask("card_id=c", f"merchant_id={merchant}", "--as-of", moment, *feature, *story.event_log).output
    recounted = found["recount"]["features"]["count_2d"]
    (explained,) = found["explanation"]["features"]
    (window,) = explained["windows"]

    assert "is older than the tiles" in found["explanation"]["refusal"]
    assert (explained["value"], explained["status"]) == (None, None)
    assert window["cut"]["kind"] in {"edge", "dropped"}
    assert recounted["recomputed"] > 0
    assert (recounted["verdict"], recounted["agrees"]) == ("", False)
    assert "count_2d = refused" in screen
    assert re.search(r"refused: (it begins before|the tile) ", screen)
    assert re.search(rf"recount +{recounted['recomputed']}: nothing was answered", screen)


def test_a_store_that_counts_twice_does_not_agree(story: Story) -> None:
    """A bug, or damage: the events below its positions come to another value, and the verdict says unexplained."""
    card = next(
        message.entities["card_id"]
        for message in reversed(story.messages)
        if message.views["cards"].features["count_1d"].value
    )
    asked = [
        f"card_id={card}",
        "merchant_id=1",
        "--as-of",
        str(story.newest_ms + 60_000),
        "--feature",
        "count_lifetime",
    ]
    before = story.ask_json(*asked, *story.event_log)
    story.stand.double_events("cards", str(card))

    after = story.ask_json(*asked, *story.event_log)

    assert before["recount"]["features"]["count_lifetime"]["verdict"] == "equal"
    wrong = after["recount"]["features"]["count_lifetime"]
    assert (wrong["verdict"], wrong["agrees"]) == ("unexplained", False)
    assert after["explanation"]["features"][0]["value"] > wrong["at_positions"] == wrong["recomputed"]
    assert re.search(r"recount +\d+: unexplained", story.ask(*asked, *story.event_log).output)


def test_without_an_event_log_only_the_server_is_asked(
    story: Story, busy: LoggedMessage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No repo need be near."""
    monkeypatch.chdir(tmp_path)

    assert "recount" not in story.ask_json(*entity(busy))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--request-id", "r-1"], "give --feature-log and --request-id together"),
        (["--feature-log", "{log}"], "give --feature-log and --request-id together"),
        (["--as-of", "2026-01-01", "--feature-log", "{log}", "--request-id", "r-1"], "leave --as-of out"),
        (["card_id=c", "--feature-log", "{log}", "--request-id", "{request}"], "leave the join keys out"),
        (["card_id=a", "card_id=b", "merchant_id=1"], "one row is explained at a time"),
        (["--event", "amount=1", "--feature-log", "{log}", "--request-id", "{request}"], "leave --event out"),
    ],
)
def test_wrong_usage_is_told_apart(story: Story, arguments: list[str], said: str) -> None:
    """Is told with exit code 2."""
    request_id = story.messages[0].request_id
    given = [one.replace("{log}", str(story.log)).replace("{request}", request_id) for one in arguments]
    done = CliRunner().invoke(command, ["scoring", *given, "--address", story.address])

    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def test_what_is_not_there_is_named(story: Story, capsys: Capture) -> None:
    """A request that was not logged, a feature that the service does not have, a log that is none."""
    address = ["--address", story.address]
    for arguments, said in (
        (["--feature-log", str(story.log), "--request-id", "nobody"], 'has no row 0 of request "nobody"'),
        (["--feature-log", "no.jsonl", "--request-id", "nobody"], 'feature log "no.jsonl" cannot be read'),
        (["card_id=c", "merchant_id=1", "--feature", "count_2m"], 'has no feature "count_2m"'),
    ):
        assert main(["explain", "scoring", *arguments, *address]) == 1
        assert said in capsys.readouterr().err
