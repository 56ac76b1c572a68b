"""Somebody's rows go from a log, beside its writer and its readers, and late ones do not come in any more."""

from __future__ import annotations

from pathlib import Path

from featurestore.offline.event_log.address import place_of
from featurestore.offline.event_log.erasing import erase_rows, remaining_rows
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.upkeep import CompactionPolicy, compact
from featurestore.testing.clock import ManualClock
from featurestore.wire.erasures import SALT_BYTES, Erasure, digest_of
from tests.offline.event_log.event_logs import BEGIN_MS, DAY_MS, TOPIC, open_writer, read_of

CARD = "card-7-é"
SALT = "00" * SALT_BYTES
ERASURE = Erasure("card", SALT, digest_of("card", CARD.encode(), SALT), BEGIN_MS + DAY_MS + 3_600_000, BEGIN_MS)
ALL = [(0, 400), (400, 800), (800, 1_200)]


def test_rows_go_and_late_ones_are_left_out(tmp_path: Path) -> None:
    """Positions, other rows, later events and older versions stay; what the table tells of itself names nobody."""
    root = tmp_path / "log"
    place = place_of(root)
    writer = open_writer(place)
    for begin, end in ALL[:2]:
        writer.commit({(TOPIC, 0): [read_of(begin, end)]})
    before = EventLog(root)
    asked = before.to_table(["offset"]).num_rows
    done = erase_rows(place, ERASURE, CARD, ManualClock(now_ms=BEGIN_MS))
    again = erase_rows(place, ERASURE, CARD, ManualClock(now_ms=BEGIN_MS))
    writer.commit({(TOPIC, 0): [read_of(*ALL[2])]})
    list(compact(place, CompactionPolicy(is_full=True)))
    rows = EventLog(root).to_table(["offset", "card", "event_time_ms"]).to_pylist()
    wanted = [row for begin, end in ALL for row in read_of(begin, end).rows.to_pylist()]
    kept = {row["offset"] for row in wanted if row["card"] != CARD or row["event_time_ms"] >= ERASURE.before_ms}

    assert kept == {row["offset"] for row in rows}
    assert len(rows) == len(kept)
    assert any(row["card"] == CARD for row in rows)
    assert (done.rows > 0, again.rows, remaining_rows(place, ERASURE, CARD)) == (True, 0, 0)
    assert before.to_table(["offset"]).num_rows == asked
    assert EventLog(root).positions() == {(TOPIC, 0): 1_200}
    assert done.kept_until_ms == BEGIN_MS + 7 * DAY_MS
    told = [path.read_bytes() for path in root.rglob("*") if path.is_file() and path.suffix in (".json", ".crc")]
    assert not any(CARD.encode() in content for content in told)
