"""Vectors in an embedded log: whatever a process dies of, each message is there once."""

from __future__ import annotations

import json
import resource
from itertools import pairwise
from pathlib import Path

import pytest

from dataflows.log_to_features.file_output import COMMIT, MESSAGES, FileOutput
from dataflows.log_to_features.publisher import Message
from dataflows.log_to_features.vectors import Vector
from featurestore.errors import InvalidRequest, SourceUnavailable, WriterFenced
from tests.dataflows.conftest import StartStream
from tests.dataflows.log_to_features.published import Seen, assert_last_is_looked_up
from tests.dataflows.payments import make_payments

PLACE = ("payments", 0)


class Number:
    """Encodes a vector as its digest."""

    def encode(self, vector: Vector, *, is_event: bool) -> bytes:
        """See Encoding."""
        return b"%d" % vector.digest


def message(number: int, *, is_removal: bool = False) -> Message:
    """The vector of a number."""
    vector = Vector(b"k", {}, {}, {}, 1_000 + number, None, {}, {}, number, 2_000 if number % 2 else None, True)
    return Message(vector, is_removal=is_removal, is_event=True)


def read(directory: Path) -> list[Seen]:
    """All messages."""
    lines = [json.loads(line) for line in (directory / MESSAGES).read_bytes().splitlines()]
    return [
        Seen(
            one["key"].encode(),
            None if one["value"] is None else json.dumps(one["value"]).encode(),
            {name: value.encode() for name, value in one["headers"].items()},
        )
        for one in lines
    ]


def test_a_process_killed_at_any_byte_has_committed_all_or_nothing(tmp_path: Path) -> None:
    """Whoever comes next finishes what was committed, and knows what was published last."""
    output = FileOutput(tmp_path, "cards", Number())
    output.commit([message(1), message(2)], {PLACE: 5})
    before, before_commit = (tmp_path / MESSAGES).read_bytes(), (tmp_path / COMMIT).read_bytes()
    output.commit([message(3), message(4, is_removal=True)], {PLACE: 9})
    whole, commit = (tmp_path / MESSAGES).read_bytes(), (tmp_path / COMMIT).read_bytes()
    for end in range(len(before), len(whole) + 1):
        (tmp_path / MESSAGES).write_bytes(whole[:end])
        (tmp_path / COMMIT).write_bytes(commit)
        following = FileOutput(tmp_path, "cards", Number())
        assert (tmp_path / MESSAGES).read_bytes() == whole
        assert following.positions() == {PLACE: 9}
    (tmp_path / MESSAGES).write_bytes(before)
    (tmp_path / COMMIT).write_bytes(before_commit)
    following = FileOutput(tmp_path, "cards", Number())
    assert following.positions() == {PLACE: 5}
    following.commit([message(3), message(4, is_removal=True)], {PLACE: 9})

    assert (tmp_path / MESSAGES).read_bytes() == whole
    found = [(key, last.digest, last.as_of_ms, last.next_change_ms) for key, last in following.published()]
    assert found == [
        (b"k", 1, 1_001, 2_000),
        (b"k", 2, 1_002, None),
        (b"k", 3, 1_003, 2_000),
        (b"k", None, 1_004, None),
    ]
    with pytest.raises(WriterFenced, match="another process publishes"):
        output.commit([message(5)], {PLACE: 10})
    with pytest.raises(InvalidRequest, match='it is the topic of "cards"'):
        FileOutput(tmp_path, "others", Number())
    with (tmp_path / MESSAGES).open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(InvalidRequest, match="not as long as what was published"):
        following.commit([message(5)], {PLACE: 10})


def test_a_full_disk_repeats_nothing(tmp_path: Path) -> None:
    """A transaction that was committed, and not written to its end, is made once when there is room again."""
    output = FileOutput(tmp_path, "cards", Number())
    output.commit([message(number) for number in range(100)], {PLACE: 100})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / MESSAGES).stat().st_size + 30, limits[1]))
    try:
        with pytest.raises(SourceUnavailable, match="make room"):
            output.commit([message(100), message(101)], {PLACE: 102})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    output.commit([message(100), message(101)], {PLACE: 102})
    output.commit([message(102)], {PLACE: 103})

    assert [int(one.value or b"") for one in read(tmp_path)] == list(range(103))
    assert output.positions() == {PLACE: 103}


def test_a_kill_loses_nothing_and_repeats_nothing(
    start_stream: StartStream, tmp_path: Path, redis_url: str, published_registry: Path
) -> None:
    """Killed while it publishes: each change of a card once, the last as looked up."""
    log = tmp_path / "log"
    make_payments(500, seed=85).append_to(log)
    streaming = start_stream("--log-dir", str(log), use_registry=published_registry)
    always = ("--log-dir", str(log), "--service", "cards_service", "--to", "vectors", "--only-changes")
    program = ("-m", "dataflows.log_to_features")
    publishing = start_stream(*always, "--batch-records", "20", use_registry=published_registry, program=program)
    # Few records a transaction: it is killed between the first and the last.
    messages = log / "vectors" / MESSAGES
    publishing.wait_until(lambda: messages.exists() and messages.stat().st_size > 0, "nothing was published")
    publishing.kill()
    make_payments(300, seed=86, first=500).append_to(log)
    last = start_stream(*always, "--until-end", use_registry=published_registry, program=program)
    assert last.wait() == 0, last.output
    streaming.terminate()
    assert streaming.wait() == 0

    found = read(log / "vectors")
    assert_last_is_looked_up(redis_url, published_registry, found)
    by_card: dict[bytes, list[Seen]] = {}
    for one in found:
        by_card.setdefault(one.key, []).append(one)
    assert len(by_card) > 300
    for seen in by_card.values():
        digests = [one.headers["featurestore.digest"] for one in seen]
        assert all(before != after for before, after in pairwise(digests))
