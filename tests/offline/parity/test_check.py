"""Parity on real parts: what a server logged against the event log, and each difference with its cause."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.cli.main import main
from featurestore.core.spec import RepoSpec, ViewSpec
from featurestore.offline.event_log.address import place_of
from featurestore.offline.event_log.upkeep import retain
from featurestore.offline.parity.check import check_parity
from featurestore.offline.parity.checking.batch import ParityOptions
from featurestore.offline.parity.feature_log import find_logged_files
from featurestore.offline.parity.feature_log_json import decode_messages, encode_messages
from featurestore.offline.parity.log_directory import LogDirectory
from featurestore.offline.parity.reads import PinnedEventLogs
from featurestore.offline.parity.report import FeatureName, ValueOutcome
from featurestore.offline.parity.shadows import compare_shadow
from featurestore.offline.training_set.plain_join import PlainHistory
from featurestore.testing.clock import ManualClock
from featurestore.testing.servers import redis_server
from featurestore.testing.strategies import DAY_MS
from tests.dataflows.payments import TOPIC, make_payments
from tests.offline.parity.stand import CARDS, Stand, make_stand, outcomes_of, questions, split

READS = 60


@dataclass(frozen=True)
class Story:
    """What happened: reads beside a live stream, early reads, late events, late reads; then all is in the event log.

    Attributes:
        stand: the parts.
        live: feature log of reads while events came in.
        early, late: of the reads before and after the late events arrived.
        in_flight: likewise, of requests that have columns, and payments in flight.
        on_time: offsets of each partition before the late events.
        newest_ms: newest event time.
    """

    stand: Stand
    live: Path
    early: Path
    late: Path
    in_flight: tuple[Path, Path]
    on_time: list[int]
    newest_ms: int

    def with_view(self, view: ViewSpec) -> RepoSpec:
        """The definitions with another version of a view."""
        repo = self.stand.repo
        return replace(repo, views=tuple(view if one.name == view.name else one for one in repo.views))


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Played once: the checks only read."""
    directory = tmp_path_factory.mktemp("parity")
    with redis_server() as redis:
        stand = make_stand(directory, redis.url)
        payments = make_payments(4_000, seed=71, partitions=2, entities=CARDS)
        on_time, late = split(payments, late=0.1, seed=72)
        with stand.live_stream(on_time):
            stand.ask(directory / "live", questions(READS, seed=74, newest_ms=payments.newest_ms))
        stand.ask(directory / "early", questions(READS, seed=73, newest_ms=payments.newest_ms))
        in_flight = directory / "early_in_flight", directory / "late_in_flight"
        asked = questions(READS, seed=75, newest_ms=payments.newest_ms)
        stand.ask_in_flight(in_flight[0], asked, seed=76)
        stand.append(late)
        stand.run_stream()
        stand.ask_in_flight(in_flight[1], asked, seed=76)
        stand.ask(directory / "late", questions(READS, seed=73, newest_ms=payments.newest_ms))
        stand.run_event_log()
        ends = [len(records) for records in on_time.records]
        live, early, after = (directory / name for name in ("live", "early", "late"))
        yield Story(stand, live, early, after, in_flight, ends, payments.newest_ms)


def test_answers_are_equal_or_an_event_arrived_after_them(story: Story) -> None:
    """Reads from before the late events differ and are explained by positions; those from after are all equal."""
    early, late = (outcomes_of(story.stand.check(log)) for log in (story.early, story.late))
    plain_values = 2 * READS

    assert {ValueOutcome.EQUAL, ValueOutcome.ARRIVED_LATER, ValueOutcome.NO_TABLE} == set(early)
    assert early[ValueOutcome.ARRIVED_LATER] > READS
    assert early[ValueOutcome.EQUAL] > READS
    assert {ValueOutcome.EQUAL, ValueOutcome.NO_TABLE} == set(late)
    assert plain_values == early[ValueOutcome.NO_TABLE] == late[ValueOutcome.NO_TABLE]


def test_answers_beside_a_live_stream_are_explained_by_the_positions_at_which_they_were_read(story: Story) -> None:
    """Values and positions were read in one step: not one value was of another moment than its positions."""
    live = outcomes_of(story.stand.check(story.live))

    assert {ValueOutcome.EQUAL, ValueOutcome.ARRIVED_LATER, ValueOutcome.NO_TABLE} == set(live)
    assert live[ValueOutcome.ARRIVED_LATER] > READS


def test_payments_in_flight_and_columns_of_the_request_are_recomputed_too(story: Story) -> None:
    """Rows with a payment and rows without; features of SQL as what comes of what they read; all of it a cause."""
    early, late = (story.stand.check(log) for log in story.in_flight)
    table = pa.concat_tables(
        file.read(["__event__payments", "__request__amount"])
        for file in find_logged_files(LogDirectory(story.in_flight[0]))
    )
    with_payment = READS - table.column("__event__payments").null_count

    assert READS / 3 < with_payment < READS
    assert 0 < table.column("__request__amount").null_count < READS
    assert {ValueOutcome.EQUAL, ValueOutcome.ARRIVED_LATER, ValueOutcome.NO_TABLE} == set(early.total)
    assert {ValueOutcome.EQUAL, ValueOutcome.NO_TABLE} == set(late.total)
    late_by_feature = {(name.view, name.feature): outcomes for name, outcomes in late.outcomes.items()}
    read = {("habits", "amount_mean_1d"), ("cards", "amount_max_1d"), ("cards", "count_1d")}
    compared = {
        ("checks", "amount_ratio"),
        ("checks", "is_largest"),
        ("checks", "label"),
        ("habits", "declines_6h"),
        *read,
    }
    assert {ValueOutcome.EQUAL} == set().union(*(late_by_feature[name] for name in compared))
    assert {ValueOutcome.NO_TABLE: READS} == late_by_feature["checks", "tier_abroad"]
    by_feature = {(name.view, name.feature): outcomes for name, outcomes in early.outcomes.items()}
    assert by_feature["checks", "label"][ValueOutcome.ARRIVED_LATER] > 0
    assert by_feature["habits", "declines_6h"][ValueOutcome.ARRIVED_LATER] > 0


@pytest.mark.parametrize(
    ("column", "wrong"),
    [("__event__payments", {"habits", "cards", "merchants", "checks"}), ("__request__amount", {"checks"})],
)
def test_a_log_that_says_something_else_of_the_request_is_found(
    story: Story, tmp_path: Path, column: str, wrong: set[str]
) -> None:
    """The amount of a payment, or of the request, was another one: what was computed of it is unexplained."""
    shutil.copytree(story.in_flight[1], tmp_path / "served")
    [path] = (tmp_path / "served").rglob("*.parquet")
    table = pq.read_table(path, partitioning=None)
    values = table.column(column).to_pylist()
    if column == "__request__amount":
        values = [None if value is None else value + 1 for value in values]
    else:
        values = [value and {**value, "amount": 7_777_777, "is_declined": not value["is_declined"]} for value in values]
    at = table.schema.get_field_index(column)
    pq.write_table(table.set_column(at, column, pa.array(values, table.schema.field(column).type)), path)
    report = story.stand.check(tmp_path / "served")

    found = {name.view for name, outcomes in report.outcomes.items() if outcomes[ValueOutcome.UNEXPLAINED]}
    assert found == wrong
    assert {example.name.view for example in report.examples} <= wrong


def test_sql_that_was_changed_since_is_the_cause(story: Story) -> None:
    """Another expression under the same name; features that are not computed by it are equal."""
    repo = story.stand.repo
    [checks] = repo.on_demand_views
    changed = [replace(one, expression="amount / 2") if one.name == "amount_ratio" else one for one in checks.features]
    report = story.stand.check(
        story.in_flight[1], repo=replace(repo, on_demand_views=(replace(checks, features=tuple(changed)),))
    )

    by_feature = {(name.view, name.feature): outcomes for name, outcomes in report.outcomes.items()}
    assert by_feature["checks", "amount_ratio"][ValueOutcome.DEFINITION_CHANGED] > READS / 3
    assert ValueOutcome.UNEXPLAINED not in report.total
    assert {ValueOutcome.EQUAL: READS} == by_feature["checks", "is_largest"]


def test_a_definition_that_reads_more_of_the_payment_than_was_logged_is_not_compared(story: Story) -> None:
    """Not an error, and not a guess."""
    habits = story.stand.repo.view("habits")
    assert habits is not None
    other = [replace(one, column="payment_id") if one.function == "count" else one for one in habits.features]
    report = story.stand.check(story.in_flight[1], repo=story.with_view(replace(habits, features=tuple(other))))

    by_feature = {(name.view, name.feature): outcomes for name, outcomes in report.outcomes.items()}
    assert by_feature["habits", "declines_6h"][ValueOutcome.EVENT_NOT_LOGGED] > READS / 3
    assert {ValueOutcome.EQUAL: READS} == by_feature["merchants", "amount_sum_1d"]


def test_payments_are_counted_again_as_the_service_counts_them(story: Story, tmp_path: Path) -> None:
    """Its word is read of the registry; by the word of the features themselves these answers would be wrong."""
    stand, log = story.stand, tmp_path / "served"
    stand.ask_in_flight(log, questions(20, seed=79, newest_ms=story.newest_ms), seed=80, service="unaware")

    report = stand.check(log)
    otherwise = tuple(replace(one, in_flight=None) for one in stand.repo.services)

    assert {ValueOutcome.EQUAL, ValueOutcome.NO_TABLE} == set(report.total)
    assert ValueOutcome.UNEXPLAINED in stand.check(log, repo=replace(stand.repo, services=otherwise)).total


def test_a_shadow_is_logged_compared_and_checked_like_any_answer(
    story: Story, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Answered from what was read for the caller; with the columns of the request and the payment in flight."""
    stand, log = story.stand, tmp_path / "served"
    stand.ask_in_flight(log, questions(20, seed=77, newest_ms=story.newest_ms), seed=78, service="watched")
    files = list(find_logged_files(LogDirectory(log)))
    report = stand.check(log)
    compared = compare_shadow(files, "watched")
    messages = [one for file in files for _, one in encode_messages(file.layout, file.read(file.layout.schema.names))]
    main(["parity", "--log", str(log), "--repo", str(stand.directory), "--service", "watched", "--shadow"])
    shown = capsys.readouterr().out

    assert {("watched", ""), ("deciding", "watched")} == {
        (file.layout.service, file.layout.shadow_of) for file in files
    }
    assert report.row_count == 40
    assert {ValueOutcome.EQUAL, ValueOutcome.NO_TABLE} == set(report.total)
    assert (20, 20, ["deciding"]) == (compared.rows, compared.both, compared.shadows)
    assert {"amount_ratio", "is_largest", "label", "tier_abroad"} <= {name for _, name in compared.features}
    assert {(20, 0)} == {(one.rows, one.differing) for one in compared.features.values()}
    assert {"habits:declines_6h", "habits:decline_share", "merchants:amount_sum_1d"} == compared.only_shadow
    assert compared == compare_shadow(decode_messages(messages), "watched")
    assert "watched and its shadow deciding: 20 of 20 rows" in shown
    assert "only the shadow has: habits:decline_share, habits:declines_6h, merchants:amount_sum_1d" in " ".join(
        shown.split()
    )


def test_an_event_log_that_is_behind_is_the_cause_and_no_bug(story: Story) -> None:
    """While the late events are in the store and not yet in the log; answers from before them are equal."""
    early, late = (outcomes_of(story.stand.check(log, ends=story.on_time)) for log in (story.early, story.late))

    assert {ValueOutcome.EQUAL, ValueOutcome.NO_TABLE} == set(early)
    assert {ValueOutcome.EQUAL, ValueOutcome.LOG_BEHIND, ValueOutcome.NO_TABLE} == set(late)
    assert late[ValueOutcome.LOG_BEHIND] > READS


def test_another_definition_is_the_cause_where_values_differ(story: Story) -> None:
    """A longer window, registered since: features that it does not touch are equal, and so is the other view."""
    cards = story.stand.repo.view("cards")
    assert cards is not None
    longer = [
        replace(feature, window=replace(feature.window, length_ms=2 * DAY_MS))
        if feature.name == "amount_sum_1d"
        else feature
        for feature in cards.features
        if feature.name != "count_10m"
    ]
    report = story.stand.check(story.late, repo=story.with_view(replace(cards, features=tuple(longer))))

    by_feature = {(name.view, name.feature): outcomes for name, outcomes in report.outcomes.items()}
    changed = by_feature["cards", "amount_sum_1d"]
    assert {ValueOutcome.EQUAL, ValueOutcome.DEFINITION_CHANGED} == set(changed)
    assert changed[ValueOutcome.DEFINITION_CHANGED] > READS / 2
    assert {ValueOutcome.NOT_DEFINED: READS} == by_feature["cards", "count_10m"]
    assert {ValueOutcome.EQUAL: READS} == by_feature["cards", "amount_sum_1h"]
    assert {ValueOutcome.EQUAL: READS} == by_feature["merchants", "amount_sum_1d"]


def test_a_log_that_retention_has_cut_explains_windows_that_reach_back_further(story: Story, tmp_path: Path) -> None:
    """Windows of hours are equal still; those of days and for ever have a cause, and nothing is unexplained."""
    shutil.copytree(story.stand.directory / "event_log", tmp_path / "event_log")
    clock = ManualClock(now_ms=story.newest_ms)
    retain(place_of(tmp_path / "event_log" / TOPIC), clock, days=1)
    report = story.stand.check(story.late, event_log=tmp_path / "event_log")

    by_feature = {(name.view, name.feature): outcomes for name, outcomes in report.outcomes.items()}
    assert {ValueOutcome.EQUAL, ValueOutcome.HISTORY_BEGINS_LATER, ValueOutcome.NO_TABLE} == set(report.total)
    assert by_feature["cards", "count_lifetime"][ValueOutcome.HISTORY_BEGINS_LATER] > READS / 2
    assert by_feature["merchants", "count_2d"][ValueOutcome.HISTORY_BEGINS_LATER] > READS / 2
    assert {ValueOutcome.EQUAL: READS} == by_feature["cards", "count_10m"]
    assert {ValueOutcome.EQUAL: READS} == by_feature["habits", "declines_6h"]


def test_plain_views_are_compared_when_their_table_is_given(story: Story, tmp_path: Path) -> None:
    """Equal, or the row was materialized after the read; a value that never was in the table is unexplained."""
    stand, at_ms = story.stand, story.newest_ms - 3 * 3_600_000
    old, new = ("low", 0.25, at_ms), ("high", 0.5, at_ms + 3_600_000)
    table = pa.table(
        {
            "merchant_id": [1, 1, 2],
            "tier": [old[0], new[0], old[0]],
            "risk": [old[1], new[1], old[1]],
            "updated_at": pa.array([old[2], new[2], old[2]], pa.timestamp("ms", tz="UTC")),
        }
    )
    stand.materialize(1, *old)
    stand.materialize(2, "never", 0.25, at_ms)
    stand.ask(tmp_path / "served", [("card-1", merchant, story.newest_ms + 1) for merchant in (1, 2, 3)])
    report = stand.check(tmp_path / "served", plain={"profile": PlainHistory(table, "updated_at")})

    by_feature = {name.feature: outcomes for name, outcomes in report.outcomes.items() if name.view == "profile"}
    assert {ValueOutcome.EQUAL: 1, ValueOutcome.MATERIALIZED_LATER: 1, ValueOutcome.UNEXPLAINED: 1} == by_feature[
        "tier"
    ]
    assert {ValueOutcome.EQUAL: 2, ValueOutcome.MATERIALIZED_LATER: 1} == by_feature["risk"]
    [example] = report.examples
    assert ({"merchant_id": 2}, "never", "low") == (example.entity, example.logged, example.recomputed)


def test_a_value_that_was_changed_in_the_log_is_found_exactly(story: Story, tmp_path: Path) -> None:
    """One cell of one file: one unexplained value, shown with what it should have been and with its positions."""
    shutil.copytree(story.late, tmp_path / "served")
    [path] = (tmp_path / "served").rglob("*.parquet")
    table = pq.read_table(path, partitioning=None)
    column = table.schema.get_field_index("merchants__count_1h")
    values = table.column(column).to_pylist()
    values[17] += 1
    pq.write_table(table.set_column(column, "merchants__count_1h", pa.array(values)), path)
    report = story.stand.check(tmp_path / "served")

    assert {ValueOutcome.EQUAL, ValueOutcome.UNEXPLAINED, ValueOutcome.NO_TABLE} == set(report.total)
    assert report.total[ValueOutcome.UNEXPLAINED] == 1
    [example] = report.examples
    assert FeatureName("scoring", "merchants", "count_1h") == example.name
    assert (values[17], values[17] - 1, values[17] - 1) == (example.logged, example.recomputed, example.at_positions)
    assert table.column("__request_id")[17].as_py() == example.request_id
    ends = [len(records) for records in story.stand.records]
    assert tuple((TOPIC, partition, end) for partition, end in enumerate(ends)) == example.positions


def test_a_store_that_lies_about_a_card_is_found_and_the_command_says_so(
    story: Story, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its events doubled in Redis: just that card, exit code 1, on the terminal and on the page; the rest is equal."""
    stand = story.stand
    stand.double_events("cards", "card-5")
    stand.ask(tmp_path / "served", [(f"card-{card}", 3, story.newest_ms + 1) for card in range(10)])
    options = ["--repo", str(stand.directory), "--events", str(stand.directory / "event_log")]
    page = tmp_path / "parity.html"
    code = main(["parity", "--log", str(tmp_path / "served"), *options, "--html", str(page)])
    shown = capsys.readouterr().out
    report = stand.check(tmp_path / "served")

    assert code == 1
    assert "card_id=card-5" in shown
    assert "unexplained" in shown
    wrong = {name for name, outcomes in report.outcomes.items() if outcomes[ValueOutcome.UNEXPLAINED]}
    assert {"cards", "habits"} == {name.view for name in wrong}, "they are stored together"
    assert FeatureName("scoring", "cards", "count_1d") in wrong
    assert {"card-5"} == {example.entity["card_id"] for example in report.examples}
    html = page.read_text()
    assert html.count("<svg") == html.count("</svg>") == 3
    assert "card_id=card-5" in html
    assert "values are unexplained" in html
    assert not re.findall(r'(?:src|href)="(?!#)', html.replace("http://www.w3.org", "")), "it needs nothing else"


def test_values_of_an_incomplete_store_have_a_cause_once_it_is_told(story: Story, tmp_path: Path) -> None:
    """A stream that began later than the event log: the operator knows, and windows that reach back are explained."""
    stand = story.stand
    stand.forget("merchants", 4)
    stand.ask(tmp_path / "served", [("card-1", 4, story.newest_ms + 1)])
    unaware = stand.check(tmp_path / "served")
    since = ParityOptions(stream_since_ms=story.newest_ms - 7_200_000)
    aware = stand.check(tmp_path / "served", options=since)

    assert unaware.total[ValueOutcome.UNEXPLAINED] >= 2
    merchants = {name.feature: outcomes for name, outcomes in aware.outcomes.items() if name.view == "merchants"}
    assert {ValueOutcome.STREAM_BEGAN_LATER: 1} == merchants["count_2d"]
    assert ValueOutcome.STREAM_BEGAN_LATER not in merchants["count_1h"]


def test_the_command_ends_with_zero_and_takes_service_and_times(
    story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    """All rows, and none: which is an error that says what to look at."""
    options = ["--repo", str(story.stand.directory), "--events", str(story.stand.directory / "event_log")]
    everything = main(["parity", "--log", str(story.early), *options, "--service", "scoring"])
    shown = capsys.readouterr().out
    nothing = main(["parity", "--log", str(story.early), *options, "--until", "2020-01-01"])
    failed = capsys.readouterr().err

    assert (0, 1) == (everything, nothing)
    assert f"{READS} logged rows" in shown
    assert "an event arrived after the read" in shown
    assert "has no rows to compare" in failed
    assert "--log-features" in failed


def test_parity_without_an_event_log_says_where_to_get_one(
    story: Story, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The usual message of the event log's reader."""
    code = main(
        ["parity", "--log", str(story.early), "--repo", str(story.stand.directory), "--events", str(tmp_path / "none")]
    )

    assert code == 1
    assert "featurestore event-log run" in capsys.readouterr().err


def test_messages_of_a_topic_are_checked_like_files(
    story: Story, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same rows as JSON lines, as a consumer of the topic has them: the same outcomes."""
    path = tmp_path / "served.jsonl"
    in_flight = [
        message
        for file in find_logged_files(LogDirectory(story.in_flight[0]))
        for _, message in encode_messages(file.layout, file.read(file.layout.schema.names))
    ]
    events = PinnedEventLogs(str(story.stand.directory / "event_log"))
    of_messages = check_parity(story.stand.repo, decode_messages(in_flight), events)
    assert outcomes_of(story.stand.check(story.in_flight[0])) == outcomes_of(of_messages)
    with path.open("wb") as lines:
        for file in find_logged_files(LogDirectory(story.early)):
            for _, message in encode_messages(file.layout, file.read(file.layout.schema.names)):
                lines.write(message + b"\n")
    with path.open("rb") as lines:
        logged = decode_messages(lines, service="scoring")
    report = check_parity(story.stand.repo, logged, PinnedEventLogs(str(story.stand.directory / "event_log")))
    options = ["--repo", str(story.stand.directory), "--events", str(story.stand.directory / "event_log")]
    path.write_bytes(path.read_bytes() + b'{"request_id": 7}\n')
    code = main(["parity", "--log", str(path), *options])

    assert outcomes_of(story.stand.check(story.early)) == outcomes_of(report)
    assert decode_messages([], service="scoring") == []
    assert code == 1
    assert f"line {READS + 1} is no message of a feature log" in capsys.readouterr().err
