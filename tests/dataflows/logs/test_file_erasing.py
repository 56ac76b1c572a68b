"""Somebody's lines of an embedded log become blank, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dataflows.logs.file_erasing import RecordEraser
from dataflows.logs.file_log import FileLog
from featurestore.core.spec import Column, SourceSpec, ValueType
from featurestore.testing.clock import ManualClock

NOW_MS = 1_780_000_000_000
SOURCE = SourceSpec(
    "payments",
    "payments",
    (Column("card_id", ValueType.STRING), Column("at", ValueType.TIMESTAMP)),
    event_time_column="at",
)


def test_lines_become_blank_and_others_stay_where_they_are(tmp_path: Path) -> None:
    """Also one whose text is escaped, and one that does not decode; not the first, nor what is later or of another."""
    records = [
        msgspec.json.encode({"card_id": card, "at": NOW_MS + ahead_ms})
        for card, ahead_ms in [("c-1", -9), ("c-2", -9), ("c-1", -9), ("c-1", 5), ("c-12", -9), ("c-1", -8)]
    ]
    records[5] = records[5].replace(b"c-1", b"\\u0063-1")
    records += [b'{"card_id": "c-1", "at": "yester', b'{"card_id": "c-3", "at": "yester', b'{"card_id": "c-1", "at": 1']
    path = tmp_path / "payments" / "0.jsonl"
    path.parent.mkdir()
    path.write_bytes(b"\n".join(records))
    log = FileLog(tmp_path)
    before = dict(log.incarnations(SOURCE, [0]))
    eraser = RecordEraser(log, SOURCE, "card_id", b"c-1", NOW_MS, ManualClock(now_ms=NOW_MS + 10))
    looked, done, again = eraser.erase(is_trial=True), eraser.erase(), eraser.erase()
    read = log.open(SOURCE, 0, 0).read(100)

    assert (looked, done.erased, done.first, again.erased) == (done, 3, 1, 0)
    assert read is not None
    assert [0, 1, 3, 4, 7] == read.offsets.tolist()
    assert [records[row] for row in (0, 1, 3, 4, 7)] == list(read.payloads)
    assert before == dict(log.incarnations(SOURCE, [0]))
    assert len(b"\n".join(records)) == path.stat().st_size
