"""The event log on an S3 over HTTP: commits, claims, upkeep, and a store or a network that fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.transaction import AddAction

from featurestore.errors import InvalidRequest, Unavailable, WriterFenced
from featurestore.offline.event_log.address import TablePlace, below, directory_names, place_of
from featurestore.offline.event_log.failures import CommitLost
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.table import LogTable
from featurestore.offline.event_log.upkeep import CompactionPolicy, compact, retain, vacuum
from featurestore.offline.event_log.writer import LogWriter, event_date_of, prepare_log
from featurestore.online.probe import free_port
from featurestore.testing.clock import ManualClock
from tests.offline.event_log.event_logs import (
    BEGIN_MS,
    DAY_MS,
    SCHEMA,
    TOPIC,
    offsets_of,
    open_writer,
    read_of,
    rows_up_to,
    write_commits,
)
from tests.offline.event_log.s3_server import LOSE, STRIP, S3Server, network, s3_server

ENDS = (40, 90, 150)
PLACES = ["partition", "offset"]


@pytest.fixture
def uri(s3: S3Server, request: pytest.FixtureRequest) -> str:
    """Where a log of the test's own can be."""
    return s3.uri(f"{request.node.name}/payments")


def test_a_log_is_the_same_as_on_a_disk(uri: str, tmp_path: Path) -> None:
    """Rows, their order, positions and dates."""
    for place in (uri, str(tmp_path / "log")):
        write_commits(place, ENDS)
        write_commits(place, [60], partition=1)
    remote, local = EventLog(uri), EventLog(tmp_path / "log")

    assert _scanned(local).equals(_scanned(remote))
    assert local.positions() == remote.positions() == {(TOPIC, 0): 150, (TOPIC, 1): 60}
    assert local.sizes()[0].rows == remote.sizes()[0].rows
    assert local.begins() == remote.begins()
    assert [] == directory_names(below(uri, "nothing"))
    assert ["payments"] == directory_names(uri.replace("/payments?", "?"))


def test_a_newer_writer_stops_the_older_one(uri: str) -> None:
    """At its next commit; nothing is lost or doubled between the two."""
    older = open_writer(place_of(uri), 0)
    older.commit({(TOPIC, 0): [read_of(0, 30)]})
    newer = open_writer(place_of(uri), 0)

    with pytest.raises(WriterFenced, match="another writer took over partition 0"):
        older.commit({(TOPIC, 0): [read_of(30, 50)]})
    newer.commit({(TOPIC, 0): [read_of(30, 60)]})

    assert rows_up_to(60) == offsets_of(EventLog(uri).scan(PLACES))


def test_writers_of_different_partitions_do_not_disturb_each_other(uri: str) -> None:
    """They commit at the same moments, and each commit is made once."""

    def write(partition: int) -> None:
        write_commits(uri, range(10, 60, 10), partition=partition)

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(write, range(3)))

    log = EventLog(uri)
    assert {(TOPIC, partition): 50 for partition in range(3)} == log.positions()
    assert [row for partition in range(3) for row in rows_up_to(50, partition)] == offsets_of(log.scan(PLACES))


def test_one_of_two_writers_of_a_partition_wins(uri: str) -> None:
    """They claim at the same moment again and again; who was told of a commit has made it, and no offset is missing."""
    open_writer(place_of(uri), 0)

    def write(number: int) -> int:
        try:
            writer = open_writer(place_of(uri), 0)
            begin = writer.position((TOPIC, 0)) or 0
            return writer.commit({(TOPIC, 0): [read_of(begin, begin + 10)]})
        except WriterFenced:
            return 0  # perhaps behind a commit

    with ThreadPoolExecutor(3) as threads:
        told = sum(threads.map(write, range(9)))
    writer = open_writer(place_of(uri), 0)
    end = writer.position((TOPIC, 0)) or 0
    writer.commit({(TOPIC, 0): [read_of(end, end + 10)]})

    assert told <= end <= 90
    assert rows_up_to(end + 10) == offsets_of(EventLog(uri).scan(PLACES))


def test_a_commit_whose_answer_is_lost_is_made_once(s3: S3Server, uri: str, request: pytest.FixtureRequest) -> None:
    """Every other answer; the writer finds its rows there, and goes on."""
    write_commits(uri, [10])
    with network(s3, LOSE) as port:
        place = place_of(s3.uri(f"{request.node.name}/payments", port=port))
        writer = LogWriter(place, SCHEMA)
        _again(partial(writer.claim, [(TOPIC, 0)]))
        for begin in range(10, 60, 10):
            _again(partial(writer.commit, {(TOPIC, 0): [read_of(begin, begin + 10)]}))

    assert rows_up_to(60) == offsets_of(EventLog(uri).scan(PLACES))


def test_files_are_merged_and_dates_dropped(s3: S3Server, uri: str, request: pytest.FixtureRequest) -> None:
    """Rows, order and positions stay; a reader of the version before reads on; nothing young is deleted."""
    write_commits(uri, ENDS)
    before = EventLog(uri)
    rows = _scanned(before)

    merged = list(compact(place_of(uri), CompactionPolicy(is_full=True)))
    assert [(3, 1), (3, 1)] == [(each.files_before, each.files_after) for each in merged]
    assert rows.equals(_scanned(EventLog(uri)))
    assert [event_date_of(BEGIN_MS)] == retain(place_of(uri), ManualClock(now_ms=BEGIN_MS + 2 * DAY_MS), days=1)
    assert 0 == vacuum(place_of(uri))

    after = EventLog(uri)
    assert [event_date_of(BEGIN_MS + DAY_MS)] == after.dates() == [after.kept_from]
    assert {(TOPIC, 0): 150} == after.positions()
    assert rows.equals(_scanned(before))
    files = [key for key in s3.keys(f"{request.node.name}/payments") if key.startswith("event_date=")]
    assert 2 * (len(ENDS) + 1) == len(files)


def test_others_read_it_with_the_same_settings(uri: str) -> None:
    """Plain delta-rs, without our code."""
    write_commits(uri, ENDS)
    place = place_of(uri)

    table = DeltaTable(place.address, storage_options=dict(place.options)).to_pyarrow_table()
    assert list(range(150)) == sorted(table["offset"].to_pylist())


def test_a_store_that_does_not_answer_is_waited_for(s3: S3Server, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it stands still commits and reads are Unavailable; then the same writer goes on."""
    monkeypatch.setattr(
        "featurestore.offline.event_log.address._PATIENCE",
        {"timeout": "1s", "connect_timeout": "1s", "max_retries": "1", "retry_timeout": "2s"},
    )
    monkeypatch.setattr("featurestore.offline.event_log.address._S3_REQUEST_SECONDS", 1)
    monkeypatch.setattr("featurestore.offline.event_log.address._S3_ATTEMPTS", 1)
    writer = open_writer(place_of(uri), 0)
    writer.commit({(TOPIC, 0): [read_of(0, 30)]})
    s3.process.pause()
    try:
        with pytest.raises(Unavailable):
            writer.commit({(TOPIC, 0): [read_of(30, 60)]})
        with pytest.raises(Unavailable):
            writer.refresh()
        with pytest.raises(Unavailable):
            EventLog(uri)
    finally:
        s3.process.resume()
    writer.refresh()
    writer.commit({(TOPIC, 0): [read_of(30, 60)]})

    assert rows_up_to(60) == offsets_of(EventLog(uri).scan(PLACES))


def test_an_address_where_nobody_listens_is_unavailable(s3: S3Server) -> None:
    """Writing and reading; the address is named."""
    nowhere = s3.uri("nobody/payments", port=free_port())

    with pytest.raises(Unavailable, match="nobody/payments"):
        EventLog(nowhere)
    with pytest.raises(Unavailable, match="nobody/payments"):
        open_writer(place_of(nowhere), 0)


def test_a_log_that_is_not_there_is_named(s3: S3Server, uri: str) -> None:
    """It is not made by reading it, and a bucket that does not exist is not an empty log."""
    with pytest.raises(InvalidRequest, match="there is no event log"):
        EventLog(uri)
    with pytest.raises((InvalidRequest, Unavailable), match="NoSuchBucket"):
        EventLog(s3.uri("payments", bucket="not-there"))
    with pytest.raises((InvalidRequest, Unavailable), match="NoSuchBucket"):
        open_writer(place_of(s3.uri("payments", bucket="not-there")), 0)


def test_a_setting_that_loses_commits_is_refused(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is written; so are commits without conditions."""
    monkeypatch.setenv("AWS_S3_ALLOW_UNSAFE_RENAME", "true")
    with pytest.raises(InvalidRequest, match="AWS_S3_ALLOW_UNSAFE_RENAME"):
        place_of(uri)
    monkeypatch.delenv("AWS_S3_ALLOW_UNSAFE_RENAME")
    monkeypatch.setenv("AWS_CONDITIONAL_PUT", "disabled")

    with pytest.raises((InvalidRequest, Unavailable)):
        open_writer(place_of(uri), 0)


def test_a_store_that_ignores_conditions_is_refused(s3: S3Server, uri: str, request: pytest.FixtureRequest) -> None:
    """There two commits can both be the same version; the first claim finds out."""
    write_commits(uri, ENDS)
    with network(s3, STRIP) as port:
        place = place_of(s3.uri(f"{request.node.name}/payments", port=port))
        assert [True, True] in [_made_together(place) for _ in range(10)]

        with pytest.raises(InvalidRequest, match="does not keep conditional puts"):
            open_writer(place, 0)

    assert rows_up_to(150) == offsets_of(EventLog(uri).scan(PLACES))


def test_a_store_is_asked_at_a_writers_first_claim_alone(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two more claims, three times; of each two, one is refused. A disk is not asked."""
    places = [(TOPIC, 0), (TOPIC, 1)]
    for where in (uri, str(tmp_path / "log")):
        prepare_log(place_of(where), SCHEMA, dict.fromkeys(places, ""))
    made: list[bool] = []
    commit = LogTable.commit

    def noted(table: LogTable, transactions: Mapping[str, int], files: Sequence[AddAction] = ()) -> None:
        try:
            commit(table, transactions, files)
        except CommitLost:
            made.append(False)
            raise
        made.append(True)

    monkeypatch.setattr(LogTable, "commit", noted)
    writer = LogWriter(place_of(uri), SCHEMA)
    writer.claim(places[:1])
    assert [False] * 3 + [True] * 4 == sorted(made)
    writer.claim(places)
    assert [True] == made[7:]
    LogWriter(place_of(tmp_path / "log"), SCHEMA).claim(places)
    assert [True, True] == made[7:]
    assert [False, True] == sorted(_made_together(place_of(uri)))


@pytest.mark.usefixtures("s3")
def test_keys_that_are_not_known_are_refused() -> None:
    """With what the store says; nothing is taken for an empty log."""
    with s3_server(checks_keys=True) as guarded:
        uri = guarded.uri("payments")
        with pytest.raises((InvalidRequest, Unavailable), match="InvalidAccessKeyId"):
            EventLog(uri)
        with pytest.raises((InvalidRequest, Unavailable), match="payments"):
            open_writer(place_of(uri), 0)


def _again(work: Callable[[], object]) -> None:
    """As the flow does it: what is not known to be done is done once more."""
    try:
        work()
    except Unavailable:
        work()


def _made_together(place: TablePlace) -> list[bool]:
    """Whether each of two commits of the same version was made, that begin at the same moment."""
    handles, together = [LogTable(place), LogTable(place)], Barrier(2)

    def is_made(table: LogTable) -> bool:
        together.wait()
        try:
            table.commit({"other": 1})
        except CommitLost:
            return False
        return True

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(is_made, handles))


def _scanned(log: EventLog) -> pa.Table:
    """All rows with all columns, in the order of a scan."""
    return pa.Table.from_batches(log.scan(SCHEMA.names), schema=SCHEMA).combine_chunks()
