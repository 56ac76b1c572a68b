"""The embedded log: line numbers are offsets, whatever the sizes of blocks and reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataflows.logs import file_log
from dataflows.logs.file_log import FileLog
from featurestore.core.spec import Column, SourceSpec, ValueType
from featurestore.errors import EventsLost, InvalidRequest, SourceUnavailable
from featurestore.wire.payloads import EventDecoder

SOURCE = SourceSpec("s", "topic", (Column("at", ValueType.INT64),), "at")


def read_all(log: FileLog, start: int | None, records_max: int) -> list[tuple[int, bytes]]:
    """(offset, payload) of everything that is there."""
    reader = log.open(SOURCE, 0, start)
    found: list[tuple[int, bytes]] = []
    next_offset = start or 0
    while (batch := reader.read(records_max)) is not None:
        assert batch.from_offset == next_offset
        next_offset = batch.next_offset
        found += zip(batch.offsets.tolist(), batch.payloads, strict=True)
    assert reader.has_reached_end
    assert reader.end_offset() == next_offset
    reader.close()
    return found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    lines=st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"x")), max_size=20),
    block_bytes=st.integers(1, 9),
    records_max=st.integers(1, 4),
    data=st.data(),
)
def test_reading_from_any_record_gives_the_rest_of_the_log(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lines: list[bytes],
    block_bytes: int,
    records_max: int,
    data: st.DataObject,
) -> None:
    """Blocks may end anywhere, a line without its newline is not there yet, and a blank one only takes a number."""
    monkeypatch.setattr(file_log, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(file_log, "INDEX_RECORDS", 3)
    (tmp_path / "topic").mkdir(exist_ok=True)
    (tmp_path / "topic" / "0.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    log = FileLog(tmp_path)
    start = data.draw(st.integers(0, len(lines)))

    everything = [(number, line) for number, line in enumerate(lines) if line.strip()]

    assert collect(log, None, records_max) == everything
    assert collect(log, start, records_max) == [record for record in everything if record[0] >= start]


def collect(log: FileLog, start: int | None, records_max: int) -> list[tuple[int, bytes]]:
    """As `read_all`, for blocks so small that a read may find no complete line yet."""
    reader = log.open(SOURCE, 0, start)
    found: list[tuple[int, bytes]] = []
    while not (reader.has_reached_end):
        batch = reader.read(records_max)
        if batch is not None:
            found += zip(batch.offsets.tolist(), batch.payloads, strict=True)
    reader.close()
    return found


def test_a_line_that_is_still_being_written_waits_for_its_newline(tmp_path: Path) -> None:
    """Then it is one record, not two halves."""
    (tmp_path / "topic").mkdir()
    path = tmp_path / "topic" / "0.jsonl"
    path.write_bytes(b"one\ntw")
    reader = FileLog(tmp_path).open(SOURCE, 0, None)

    first = reader.read(10)
    nothing = reader.read(10)
    with path.open("ab") as file:
        file.write(b"o\n")
    second = reader.read(10)

    assert first is not None
    assert first.payloads == [b"one"]
    assert nothing is None
    assert second is not None
    assert (second.payloads, second.from_offset) == ([b"two"], 1)


def test_the_whole_log_is_read_in_order(tmp_path: Path) -> None:
    """Offsets rise by one, reads follow each other without a gap."""
    (tmp_path / "topic").mkdir()
    (tmp_path / "topic" / "0.jsonl").write_bytes(b"a\nb\nc\n")

    assert read_all(FileLog(tmp_path), None, 2) == [(0, b"a"), (1, b"b"), (2, b"c")]


def test_a_log_that_shrank_has_lost_events(tmp_path: Path) -> None:
    """While it is read, and between two runs."""
    (tmp_path / "topic").mkdir()
    path = tmp_path / "topic" / "0.jsonl"
    path.write_bytes(b"a\nb\n")
    reader = FileLog(tmp_path).open(SOURCE, 0, None)
    reader.read(10)
    path.write_bytes(b"a\n")

    with pytest.raises(EventsLost, match="shrank"):
        reader.read(10)
    with pytest.raises(EventsLost, match="has 1 records, 2 were read"):
        FileLog(tmp_path).open(SOURCE, 0, 2)


def test_partitions_are_the_numbered_files(tmp_path: Path) -> None:
    """In numeric order; other files are nobody's business, and none at all is not an empty log."""
    log = FileLog(tmp_path)
    with pytest.raises(SourceUnavailable, match="no partition files"):
        log.partitions(SOURCE)

    (tmp_path / "topic").mkdir()
    for name in ("10.jsonl", "2.jsonl", "labels.jsonl", "0.txt"):
        (tmp_path / "topic" / name).touch()

    assert log.partitions(SOURCE) == [2, 10]


def test_the_end_of_a_file_is_its_number_of_complete_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the blocks, and wherever counting left off before; a line without its newline is not there yet."""
    monkeypatch.setattr(file_log, "INDEX_RECORDS", 2)
    (tmp_path / "topic").mkdir()
    path = tmp_path / "topic" / "0.jsonl"
    path.touch()
    for block_bytes in (1, 2, 3, 100):
        monkeypatch.setattr(file_log, "BLOCK_BYTES", block_bytes)
        log = FileLog(tmp_path)
        path.write_bytes(b"")
        for count, more in ((0, b""), (0, b"on"), (2, b"e\n\n"), (5, b"two\n\nthree\n"), (5, b"fo"), (6, b"ur\n")):
            with path.open("ab") as file:
                file.write(more)

            assert log.ends(SOURCE, [0]) == {0: count}
        assert collect(log, 4, 10) == [(4, b"three"), (5, b"four")]
    with pytest.raises(SourceUnavailable, match="cannot be opened"):
        FileLog(tmp_path).ends(SOURCE, [1])


@pytest.mark.parametrize("step_bytes", [7, 100, 10_000])
def test_a_line_without_an_end_is_not_kept_in_memory_and_becomes_a_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_bytes: int
) -> None:
    """However it grows, only its beginning is kept; the records around it are whole, and its number is its own."""
    monkeypatch.setattr(file_log, "RECORD_BYTES_MAX", 5_000)
    monkeypatch.setattr(file_log, "CUT_RECORD_BYTES", 50)
    (tmp_path / "topic").mkdir()
    path = tmp_path / "topic" / "0.jsonl"
    path.write_bytes(b'{"at": 1795996740000}\n')
    reader = FileLog(tmp_path).open(SOURCE, 0, None)
    batches = [reader.read(10)]
    endless = b'{"at": 1795996740000}' + b" " * 60_000 + b"}"
    for begin in range(0, len(endless), step_bytes):
        with path.open("ab") as file:
            file.write(endless[begin : begin + step_bytes])
        batches.append(reader.read(10))
    with path.open("ab") as file:
        file.write(b'\n{"at": 1795996741000}\n')
    batches.append(reader.read(10))

    records = [record for one in batches if one for record in zip(one.offsets.tolist(), one.payloads, strict=True)]
    assert [(number, len(payload)) for number, payload in records] == [(0, 21), (1, 51), (2, 21)]
    assert endless.startswith(records[1][1][:-1])
    last = batches[-1]
    assert last is not None
    decoded = EventDecoder(SOURCE, []).decode(last, now_ms=1_795_996_800_000)
    assert [letter.offset for letter in decoded.dead_letters] == [1]
    assert decoded.events.offsets.tolist() == [2]


def test_blank_lines_and_the_mark_of_utf_8_are_no_dead_letters(tmp_path: Path) -> None:
    """Editors and shells leave them; a blank line is counted, as every line is, and nothing else happens."""
    (tmp_path / "topic").mkdir()
    (tmp_path / "topic" / "0.jsonl").write_bytes(
        b'\xef\xbb\xbf{"at": 1795996740000}\n\n \r\n{"at": 1795996741000}\r\n\n'
    )
    batch = FileLog(tmp_path).open(SOURCE, 0, None).read(10)
    assert batch is not None
    decoded = EventDecoder(SOURCE, []).decode(batch, now_ms=1_795_996_800_000)

    assert decoded.dead_letters == ()
    assert decoded.events.offsets.tolist() == [0, 3]
    assert batch.next_offset == 5


def test_a_file_that_may_not_be_read_is_no_reason_to_wait(tmp_path: Path) -> None:
    """Nor is a directory that is a file: the path and the reason are said at once."""
    (tmp_path / "topic").touch()
    with pytest.raises(InvalidRequest, match=f'not a directory: "{tmp_path}/topic"'):
        FileLog(tmp_path).partitions(SOURCE)
    (tmp_path / "topic").unlink()
    (tmp_path / "topic" / "0.jsonl").mkdir(parents=True)
    with pytest.raises(InvalidRequest, match=f'is a directory: "{tmp_path}/topic/0.jsonl"'):
        FileLog(tmp_path).open(SOURCE, 0, None)
