"""Dead letters of any size, on a real broker and on a disk: kept, or an error that can be waited out."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # its documentation has it here
from confluent_kafka.cimpl import NewTopic

from dataflows.dead_letters.writer import CUT_PAYLOAD_BYTES, TOPIC_SUFFIX, FileDeadLetters, KafkaDeadLetters
from dataflows.logs.kafka_log import of_kafka
from featurestore.errors import InvalidRequest, SourceUnavailable
from featurestore.offline.disk import complete_file, locked_file
from featurestore.testing.clock import ManualClock
from featurestore.testing.servers import KafkaBroker
from featurestore.wire.payloads import DeadLetter, DeadLetterReason
from tests.full_disk import files_of_at_most

LARGE = bytes(range(256)) * 8_000
"""2 MB: a broker takes 1 MB unless its topic says otherwise."""

HOLDS_A_LOCK = """
import fcntl, sys, threading
file = open(sys.argv[1], "rb+")
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
threading.Event().wait()
"""


@pytest.fixture
def topic(kafka: KafkaBroker) -> Iterator[str]:
    """A source topic's name; its dead letters are deleted after the test."""
    name = f"large-{uuid.uuid4().hex[:8]}"
    yield name
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    for future in admin.delete_topics([name + TOPIC_SUFFIX], operation_timeout=30).values():
        future.result(timeout=30)


def letter(topic: str, offset: int, payload: bytes) -> DeadLetter:
    """A record that could not be decoded."""
    return DeadLetter(DeadLetterReason.UNDECODABLE, "no JSON", topic, 0, offset, payload)


def kept(kafka: KafkaBroker, topic: str, count: int) -> dict[str, tuple[bytes, str | None]]:
    """Payload, and its length where it is not whole, by offset header."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "any", "fetch.max.bytes": 9_000_000})
    consumer.assign([TopicPartition(topic + TOPIC_SUFFIX, 0, 0)])
    found: dict[str, tuple[bytes, str | None]] = {}
    for message in consumer.consume(count, timeout=30):
        headers = dict(cast(list[tuple[str, bytes]], message.headers()))
        length = headers.get("payload_bytes")
        found[headers["offset"].decode()] = (message.value() or b"", None if length is None else length.decode())
    consumer.close()
    return found


@pytest.mark.kafka
def test_a_letter_that_the_broker_refuses_for_its_size_is_kept_without_its_end(kafka: KafkaBroker, topic: str) -> None:
    """A record that the source's topic took must not stop the stream for ever; the letters beside it are whole."""
    writer = KafkaDeadLetters({topic: kafka.bootstrap_servers}, {})
    writer.write([letter(topic, 0, b"{"), letter(topic, 1, LARGE), letter(topic, 2, b"}")])
    writer.write([letter(topic, 3, b"after")])

    assert kept(kafka, topic, 4) == {
        "0": (b"{", None),
        "1": (LARGE[: CUT_PAYLOAD_BYTES[0]], str(len(LARGE))),
        "2": (b"}", None),
        "3": (b"after", None),
    }


@pytest.mark.kafka
def test_a_topic_that_takes_large_letters_gets_them_whole(kafka: KafkaBroker, topic: str) -> None:
    """The producer's own limit does not stand in the way."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    made = NewTopic(topic + TOPIC_SUFFIX, 1, config={"max.message.bytes": "5000000"})
    for future in admin.create_topics([made]).values():
        future.result(timeout=30)
    KafkaDeadLetters({topic: kafka.bootstrap_servers}, {}).write([letter(topic, 1, LARGE)])

    assert kept(kafka, topic, 1) == {"1": (LARGE, None)}


@pytest.mark.kafka
def test_more_large_letters_than_the_producers_queue_holds_are_written(kafka: KafkaBroker, topic: str) -> None:
    """A full queue is emptied, and not an error."""
    options = {"queue.buffering.max.kbytes": "1024"}
    letters = [letter(topic, offset, LARGE[:400_000]) for offset in range(8)]
    KafkaDeadLetters({topic: kafka.bootstrap_servers}, options).write(letters)

    assert kept(kafka, topic, 8) == {str(offset): (LARGE[:400_000], None) for offset in range(8)}


def test_a_directory_that_is_a_file_is_not_waited_for(tmp_path: Path) -> None:
    """It will be one in a minute too; the path is named."""
    (tmp_path / f"payments{TOPIC_SUFFIX}").touch()
    with pytest.raises(InvalidRequest, match=f'not a directory: ".*payments{TOPIC_SUFFIX}"'):
        FileDeadLetters(tmp_path).write([letter("payments", 0, b"{")])


def offsets_in(path: Path) -> list[int]:
    """Offset of each letter of a file; every line must be one."""
    return [json.loads(line)["offset"] for line in path.read_bytes().split(b"\n")[:-1]]


def test_letters_for_which_there_is_no_room_are_an_error_and_are_there_once_when_there_is(tmp_path: Path) -> None:
    """A write that took only a part of them is taken back: nobody finds half a line, or a letter twice."""
    letters, path = [letter("payments", offset, b"{") for offset in range(2_000)], letter_file(tmp_path)
    writer = FileDeadLetters(tmp_path)
    writer.write(letters[:10])
    with files_of_at_most(64 * 1024), pytest.raises(SourceUnavailable) as raised:
        writer.write(letters[10:])

    assert offsets_in(path) == list(range(10))
    assert str(path) in raised.value.message
    assert "make room" in raised.value.hint
    writer.write(letters[10:])
    assert offsets_in(path) == list(range(2_000))


def test_a_line_that_a_crash_tore_is_cut_off_before_the_next_letter(tmp_path: Path) -> None:
    """Its record was not committed and comes again; every line of the file is a letter."""
    writer, path = FileDeadLetters(tmp_path), letter_file(tmp_path)
    writer.write([letter("payments", 0, b"{")])
    with path.open("ab") as file:
        file.write(b'{"reason": "undecod')
    writer.write([letter("payments", 1, b"{")])

    assert offsets_in(path) == [0, 1]


def test_a_process_that_is_stopped_while_it_writes_letters_does_not_hold_its_heir_up_for_ever(tmp_path: Path) -> None:
    """The heir waits a moment, then says why it cannot write, which is waited out with a line in the log."""
    writer, path = FileDeadLetters(tmp_path), letter_file(tmp_path)
    writer.write([letter("payments", 0, b"{")])
    holder = subprocess.Popen([sys.executable, "-c", HOLDS_A_LOCK, str(path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.send_signal(signal.SIGSTOP)
        with pytest.raises(SourceUnavailable) as raised:
            writer.write([letter("payments", 1, b"{")])
    finally:
        holder.kill()
        holder.communicate()

    assert "another process has it locked" in raised.value.message
    assert str(path) in raised.value.message
    writer.write([letter("payments", 1, b"{")])
    assert offsets_in(path) == [0, 1]


def test_letters_are_for_the_eyes_of_their_user_alone(tmp_path: Path) -> None:
    """They hold what payments hold, whatever the umask."""
    directory = tmp_path / "letters"
    FileDeadLetters(directory).write([letter("payments", 0, b"{")])

    made = [directory, letter_file(directory).parent, letter_file(directory)]
    assert [stat.S_IMODE(path.stat().st_mode) for path in made] == [0o700, 0o700, 0o600]


def letter_file(directory: Path) -> Path:
    """Where the letters of partition 0 are."""
    return directory / f"payments{TOPIC_SUFFIX}" / "0.jsonl"


def test_what_kafka_denies_is_not_waited_for() -> None:
    """A right that is missing will be missing in a minute too; a broker that is away may come back."""
    denied = of_kafka(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), "letters cannot be written", hint="ask")
    away = of_kafka(KafkaException(KafkaError(KafkaError._ALL_BROKERS_DOWN)), "letters cannot be written")

    assert isinstance(denied, InvalidRequest)
    assert denied.message == "letters cannot be written: Broker: Topic authorization failed"
    assert isinstance(away, SourceUnavailable)


@pytest.mark.kafka
def test_letters_that_were_acknowledged_are_not_written_again_by_another_try(kafka: KafkaBroker, topic: str) -> None:
    """One that no broker takes, whatever is cut off, keeps those before it from being passed, not from being kept."""
    writer = KafkaDeadLetters({topic: kafka.bootstrap_servers}, {"message.max.bytes": "2000"})
    sound = [letter(topic, offset, b"{") for offset in range(3)]
    hopeless = replace(letter(topic, 3, b"{"), detail="x" * 3_000)
    for _ in range(3):
        with pytest.raises(SourceUnavailable, match="cannot be written"):
            writer.write([*sound, hopeless])
    writer.write([*sound, letter(topic, 3, b"{")])

    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    ends = admin.list_offsets({TopicPartition(topic + TOPIC_SUFFIX, 0): OffsetSpec.latest()})  # type: ignore[no-untyped-call]  # it has none
    assert next(iter(ends.values())).result(timeout=30).offset == 4


def test_old_letters_are_dropped_while_others_are_written(tmp_path: Path) -> None:
    """After the retention, an hour late at most; no letter of another process is lost with them."""
    clock = ManualClock(now_ms=1_000_000)
    writer, other = (FileDeadLetters(tmp_path, clock=clock, retention_ms=2 * 3_600_000) for _ in range(2))
    path = letter_file(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(b'{"reason":"undecodable","offset":0}\n')
    writer.write([letter("payments", 1, b"{")])
    clock.advance_ms(3_600_000 + 1)
    writer.write([letter("payments", 2, b"{")])
    writer.tick()
    assert [0, 1, 2] == [json.loads(line)["offset"] for line in path.read_bytes().splitlines()]
    clock.advance_ms(3_600_000)
    with locked_file(path):
        waiting = Thread(target=other.write, args=[[letter("payments", 3, b"{")]])
        waiting.start()
        time.sleep(0.05)  # it waits for the old file, which loses its name now
        with complete_file(path) as unfinished:
            unfinished.write_bytes(path.read_bytes())
    waiting.join()
    writer.tick()

    assert [2, 3] == [json.loads(line)["offset"] for line in path.read_bytes().splitlines()]
    clock.advance_ms(3 * 3_600_000)
    writer.tick()
    assert path.read_bytes() == b""
