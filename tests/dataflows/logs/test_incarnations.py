"""A topic or file that was made anew is not the one that was read, also where it has outgrown what was read of it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from dataflows.logs.file_log import FileLog
from dataflows.logs.kafka_log import KafkaLog
from featurestore.cli.main import main
from featurestore.clock import SystemClock
from featurestore.core.spec import Column, SourceSpec, ValueType
from featurestore.errors import EventsLost
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.store import connect
from featurestore.testing.servers import KafkaBroker
from tests.dataflows.conftest import StartStream
from tests.dataflows.payments import PROJECT, TOPIC, Payments, assert_every_value_is_exact, make_payments
from tests.dataflows.stream_process import StreamProcess
from tests.dataflows.test_supervision import bootstrapped

SOURCE = SourceSpec("payments", TOPIC, (Column("paid_at", ValueType.INT64),), "paid_at")

OLD, NEW = make_payments(200, seed=91, partitions=1), make_payments(500, seed=92, partitions=1)
"""The new topic is longer than what was read of the old one."""

Make = Callable[[Payments], None]
Log = Callable[..., StreamProcess]


@pytest.fixture
def make_topic(kafka: KafkaBroker) -> Iterator[Make]:
    """Makes the topic of these records; one of that name is deleted first, and at the end."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})

    def delete() -> None:
        names = [name for name in admin.list_topics(timeout=10).topics if name.startswith(TOPIC)]
        for future in (admin.delete_topics(names, operation_timeout=30) if names else {}).values():
            future.result(timeout=30)
        while any(name.startswith(TOPIC) for name in admin.list_topics(timeout=10).topics):
            time.sleep(0.1)

    def make(payments: Payments) -> None:
        delete()
        kafka.create_topic(TOPIC, partitions=1)
        kafka.append(TOPIC, payments.records[:1])

    yield make
    delete()


@pytest.fixture
def start_log(tmp_path: Path, registry: Path) -> Iterator[Log]:
    """Starts the event log's stream; whatever still runs at the end is killed."""
    started: list[StreamProcess] = []

    def start(*options: str) -> StreamProcess:
        process = StreamProcess(
            tmp_path,
            registry,
            "",
            *("--event-log", str(tmp_path / "event_log"), *options),
            program=("-m", "dataflows.log_to_table"),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()


def write_file(directory: Path, payments: Payments) -> None:
    """A log's file that replaces the one there."""
    shutil.rmtree(directory / TOPIC, ignore_errors=True)
    payments.append_to(directory)


@pytest.mark.kafka
def test_a_kafka_topic_made_anew_is_refused_by_the_stream(
    start_stream: StartStream, kafka: KafkaBroker, make_topic: Make
) -> None:
    """Its first records would be skipped in silence."""
    options = ("--bootstrap-servers", kafka.bootstrap_servers, "--until-end")
    make_topic(OLD)
    assert start_stream(*options).wait() == 0
    make_topic(NEW)

    stream = start_stream(*options)

    assert stream.wait() == 1, stream.output
    assert f'topic "{TOPIC}" was made anew' in stream.output
    assert "featurestore bootstrap" in stream.output


@pytest.mark.kafka
def test_a_kafka_topic_made_anew_is_refused_by_the_event_log(
    start_log: Log, kafka: KafkaBroker, make_topic: Make
) -> None:
    """The log would have a gap that nobody sees."""
    options = ("--bootstrap-servers", kafka.bootstrap_servers, "--until-end")
    make_topic(OLD)
    assert start_log(*options).wait() == 0
    make_topic(NEW)

    stream = start_log(*options)

    assert stream.wait() == 1, stream.output
    assert f'topic "{TOPIC}" was made anew' in stream.output
    assert "move this log away" in stream.output


@pytest.mark.kafka
def test_a_kafka_topic_made_anew_is_noticed_by_a_log_that_is_open(kafka: KafkaBroker, make_topic: Make) -> None:
    """At the next look for partitions, and before another one is opened."""
    make_topic(OLD)
    log = KafkaLog(bootstrap_servers=kafka.bootstrap_servers, options={}, group="", clock=SystemClock())
    assert log.partitions(SOURCE) == [0]
    make_topic(NEW)

    with pytest.raises(EventsLost, match="made anew"):
        log.partitions(SOURCE)
    with pytest.raises(EventsLost, match="made anew"):
        log.open(SOURCE, 0, 10)


def test_a_log_file_that_was_replaced_by_a_longer_one_is_refused(
    start_stream: StartStream, start_log: Log, tmp_path: Path
) -> None:
    """By the stream and by the event log."""
    options = ("--log-dir", str(tmp_path / "log"), "--until-end")
    write_file(tmp_path / "log", OLD)
    assert start_stream(*options).wait() == 0
    assert start_log(*options).wait() == 0
    write_file(tmp_path / "log", NEW)

    for stream in (start_stream(*options), start_log(*options)):
        assert stream.wait() == 1, stream.output
        assert f'topic "{TOPIC}" was made anew' in stream.output


def test_a_log_that_was_copied_elsewhere_is_the_same_log(
    start_stream: StartStream, tmp_path: Path, redis_url: str
) -> None:
    """A backup that was restored has other inodes, and goes on where the first one ended."""
    write_file(tmp_path / "log", OLD)
    assert start_stream("--log-dir", str(tmp_path / "log"), "--until-end").wait() == 0
    shutil.copytree(tmp_path / "log" / TOPIC, tmp_path / "copy" / TOPIC)
    more = make_payments(100, seed=93, partitions=1, first=200)
    more.append_to(tmp_path / "copy")

    stream = start_stream("--log-dir", str(tmp_path / "copy"), "--until-end")

    assert stream.wait() == 0, stream.output
    assert_every_value_is_exact(redis_url, OLD, more)


def test_a_store_that_does_not_know_its_topics_takes_them_as_they_are(
    start_stream: StartStream, tmp_path: Path, redis_url: str
) -> None:
    """One of a release that did not remember them goes on, and remembers them from then on."""
    options = ("--log-dir", str(tmp_path / "log"), "--until-end")
    write_file(tmp_path / "log", OLD)
    assert start_stream(*options).wait() == 0
    store = connect(redis_url)
    known = list(store.scan(b"*/t"))
    assert store.delete(known) == len(known) == 2 * GenerationCatalog(store, PROJECT).lane_count()
    store.close()
    write_file(tmp_path / "log", NEW)

    assert start_stream(*options).wait() == 0
    write_file(tmp_path / "log", OLD)
    assert start_stream(*options).wait() == 1


def test_a_bootstrapped_generation_leads_out_of_a_topic_made_anew(
    start_stream: StartStream, tmp_path: Path, redis_url: str, registry: Path
) -> None:
    """What serves is left as it is and read no further, until the other has read the new topic and serves."""
    options = ("--log-dir", str(tmp_path / "log"), "--until-end")
    write_file(tmp_path / "log", OLD)
    assert start_stream(*options).wait() == 0
    write_file(tmp_path / "log", NEW)
    store = connect(redis_url)
    catalog = GenerationCatalog(store, PROJECT)
    for view in ("cards", "merchants"):
        serving = catalog.serving(view)
        assert serving is not None
        bootstrapped(store, serving.view, {(TOPIC, 0): 0}, is_anew=True)

    stream = start_stream(*options)

    assert stream.wait() == 0, stream.output
    assert [one.number for view in ("cards", "merchants") if (one := catalog.serving(view))] == [2, 2]
    store.close()
    assert_every_value_is_exact(redis_url, NEW)


@pytest.mark.parametrize("way", ["truncated and refilled", "renamed"])
def test_a_file_that_is_made_anew_while_it_is_read_is_noticed(tmp_path: Path, way: str) -> None:
    """As log rotation does it: by copying and truncating, or by renaming. The next read says so, however long it is."""
    write_file(tmp_path, OLD)
    path = tmp_path / TOPIC / "0.jsonl"
    reader = FileLog(tmp_path).open(SOURCE, 0, None)
    assert reader.read(1_000_000) is not None
    if way == "renamed":
        path.rename(path.with_suffix(".1"))
    with path.open("wb") as file:
        file.write(b"".join(line + b"\n" for line in NEW.records[0]))

    with pytest.raises(EventsLost, match="made anew"):
        reader.read(1_000_000)


def test_a_file_is_the_same_while_it_grows(tmp_path: Path) -> None:
    """Also one that begins empty, or with half of a line: it is known from its first whole record on."""
    path = tmp_path / TOPIC / "0.jsonl"
    path.parent.mkdir()
    path.touch()
    log, reader = FileLog(tmp_path), FileLog(tmp_path).open(SOURCE, 0, None)
    found, known = [], []
    for more in (b"", b'{"a"', b": 1}\n", b'{"a": 2}\n'):
        with path.open("ab") as file:
            file.write(more)
        batch = reader.read(10)
        found += list(batch.payloads) if batch is not None else []
        known.append(log.incarnations(SOURCE, [0])[0])
    os.utime(path, (1, 1))

    assert found == [b'{"a": 1}', b'{"a": 2}']
    assert known[:2] == ["", ""]
    assert known[2] == known[3] != ""


@pytest.mark.parametrize("is_event_log_new", [False, True])
def test_a_bootstrap_belongs_to_the_topics_that_the_event_log_was_written_from(
    start_stream: StartStream,
    start_log: Log,
    tmp_path: Path,
    redis_url: str,
    registry: Path,
    *,
    is_event_log_new: bool,
) -> None:
    """From the log of the old topic it does not go on in the new one; from a log of the new one it leads out."""
    options = ("--log-dir", str(tmp_path / "log"), "--until-end")
    write_file(tmp_path / "log", OLD)
    assert (start_stream(*options).wait(), start_log(*options).wait()) == (0, 0)
    write_file(tmp_path / "log", NEW)
    if is_event_log_new:
        shutil.move(tmp_path / "event_log", tmp_path / "moved")
        assert start_log(*options).wait() == 0
    where = ("--registry", str(registry), "--project", PROJECT, "--store-url", redis_url)
    for view in ("cards", "merchants"):
        assert main(["bootstrap", view, "--anew", "--event-log", str(tmp_path / "event_log"), *where]) == 0

    stream = start_stream(*options)

    assert stream.wait() == (0 if is_event_log_new else 1), stream.output
    if is_event_log_new:
        assert_every_value_is_exact(redis_url, NEW)
    else:
        assert 'feature view "cards" generation 2 cannot be brought up to date and is parked' in stream.output
