"""Which letters may be replayed: those that can be counted once, whoever reads the log anew; others say why not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflows.dead_letters.book import FileBook, KeptLetter
from dataflows.dead_letters.policy import PayloadPolicy
from dataflows.dead_letters.replay import MARGIN_MS, ReplayCheck
from dataflows.dead_letters.writer import FileDeadLetters
from dataflows.logs.file_log import FileLog
from featurestore.core.spec import (
    CHANGE_ID,
    IS_UNDO,
    REPLACE,
    Column,
    Expectation,
    FeatureSpec,
    OnFail,
    RepoSpec,
    SourceSpec,
    ValueType,
    ViewSpec,
    Window,
)
from featurestore.online.write.seen_ids import HorizonClock
from featurestore.testing.clock import ManualClock
from featurestore.wire.payloads import DeadLetter, DeadLetterReason

NOW_MS, HOUR_MS = 1_790_000_000_000, 3_600_000
SOURCE = SourceSpec(
    name="payments",
    topic="payments",
    columns=(
        Column("id", ValueType.STRING),
        Column("at", ValueType.INT64),
        Column("card", ValueType.STRING),
        Column("amount", ValueType.INT64),
    ),
    event_time_column="at",
    event_id_column="id",
    dedup_horizon_ms=HOUR_MS,
)
REPLACING = replace(
    SOURCE,
    changes=REPLACE,
    event_id_column=CHANGE_ID,
    row_id_column="id",
    columns=(*SOURCE.columns, Column(CHANGE_ID, ValueType.STRING), Column(IS_UNDO, ValueType.BOOL)),
)
POSITIVE = Expectation("payments", "positive", "amount > 0", OnFail.DEAD_LETTER)


def repo_of(source: SourceSpec = SOURCE) -> RepoSpec:
    """One view that sums amounts."""
    total = FeatureSpec("total", "sum", "amount", Window(HOUR_MS, 60_000), ValueType.INT64)
    view = ViewSpec("cards", (Column("card", ValueType.STRING),), source, (total,), 2 * HOUR_MS, required="amount > 0")
    return RepoSpec("test", (view,), (), (), expectations=(POSITIVE,))


def record(number: int, at_ms: int, amount: object = 5) -> bytes:
    """A payment."""
    return json.dumps({"id": f"p-{number}", "at": at_ms, "card": "c", "amount": amount}).encode()


def log_of(directory: Path, *records: bytes) -> FileLog:
    """An embedded log of one partition."""
    (directory / "payments").mkdir(parents=True, exist_ok=True)
    (directory / "payments" / "0.jsonl").write_bytes(b"".join(one + b"\n" for one in records))
    return FileLog(directory)


def letter(offset: int, payload: bytes | None, **other: object) -> KeptLetter:
    """A letter of a record that could not be decoded when it was read."""
    size = 3 if payload is None else len(payload)
    plain = KeptLetter("undecodable", "no JSON", "payments", 0, offset, None, NOW_MS, payload, size)
    return replace(plain, **other)  # type: ignore[arg-type]  # of its fields


def why_not(directory: Path, one: KeptLetter, *records: bytes, source: SourceSpec = SOURCE) -> str:
    """What is said of a letter of a log."""
    check = ReplayCheck(log_of(directory, *records), repo_of(source), ManualClock(now_ms=NOW_MS))
    [judged] = check.judge([one])
    assert judged.letter == one
    return judged.why_not


SOUND = record(1, NOW_MS)


@pytest.mark.parametrize(
    ("one", "source", "fact"),
    [
        (letter(0, SOUND, view="cards"), SOURCE, 'only "cards" refused it'),
        (letter(0, SOUND, reason="expectation_failed"), SOURCE, "topic and event log have it"),
        (letter(0, SOUND, reason="boredom"), SOURCE, "nothing is known of letters"),
        (letter(0, SOUND, topic="refunds"), SOURCE, 'no registered source reads topic "refunds"'),
        (letter(0, SOUND), replace(SOURCE, event_id_column=None, dedup_horizon_ms=0), "has no event id"),
        (letter(0, SOUND), REPLACING, "it would replace what came after it"),
        (letter(0, None), SOURCE, "its payload was not kept"),
        (letter(0, SOUND, payload_bytes=10_000), SOURCE, "only the beginning of its payload was kept"),
        (letter(0, SOUND, is_replayed=True), SOURCE, "it has been replayed"),
        (letter(0, b"{"), SOURCE, "it would be refused again: "),
        (letter(0, record(1, NOW_MS + HOUR_MS)), SOURCE, "it would be refused again: at is 3600000 ms ahead"),
        (letter(0, record(1, NOW_MS, -5)), SOURCE, 'it would be refused again: it does not meet "positive"'),
    ],
)
def test_what_cannot_be_promised_is_refused_and_says_why(
    one: KeptLetter, source: SourceSpec, fact: str, tmp_path: Path
) -> None:
    """Every letter has its own answer; none is replayed because somebody asked for all of them."""
    assert why_not(tmp_path, one, SOUND, source=source).startswith(fact) or fact in why_not(
        tmp_path, one, SOUND, source=source
    )


def test_a_letter_of_a_mended_source_is_fit(tmp_path: Path) -> None:
    """Nothing stands against it."""
    assert "" == why_not(tmp_path, letter(0, SOUND), SOUND)


@given(steps_ms=st.lists(st.integers(-HOUR_MS, HOUR_MS // 2), min_size=1, max_size=12), data=st.data())
def test_a_letter_is_only_fit_while_whoever_reads_anew_still_knows_its_id(
    steps_ms: list[int], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A generation that fills anew takes the first place's id in; at the second it must not have forgotten it."""
    times_ms = [NOW_MS - 24 * HOUR_MS]
    for step_ms in steps_ms:
        times_ms.append(times_ms[-1] + step_ms)
    offset = data.draw(st.integers(0, len(times_ms) - 1))
    records = [record(number, at_ms) for number, at_ms in enumerate(times_ms)]

    said = why_not(tmp_path_factory.mktemp("log"), letter(offset, records[offset]), *records)

    clock = HorizonClock(HOUR_MS)
    buckets = [clock.advance({("payments", 0): at_ms}, 1) for at_ms in [*times_ms, times_ms[offset]]]
    is_known = buckets[-1] - buckets[offset] < 2
    assert is_known or said != ""
    newest_before_ms = max(times_ms[: offset + 1])
    if max(times_ms) - newest_before_ms < HOUR_MS - MARGIN_MS:
        assert said == ""


def test_letters_in_files_are_found_once_and_marked(tmp_path: Path) -> None:
    """After a crash a letter is written again; a mark says that its record was given to the log once more."""
    log_of(tmp_path, b"{", SOUND)
    written = [DeadLetter(DeadLetterReason.UNDECODABLE, "no", "payments", 0, at, SOUND) for at in (0, 1)]
    for again in (written, written[:1]):
        FileDeadLetters(tmp_path).write(again)
    book = FileBook(tmp_path, tmp_path, PayloadPolicy())
    first, second = book.find(["payments", "refunds"], lambda _: True)

    assert (0, 1) == (first.offset, second.offset)
    assert 1 == book.replay([first])
    assert 0 == book.replay([first])
    assert 1 == book.replay([first, second])
    assert [True, True] == [one.is_replayed for one in book.find(["payments"], lambda _: True)]
    assert [second.offset] == [one.offset for one in book.find(["payments"], lambda one: one.offset == 1)]
    records = (tmp_path / "payments" / "0.jsonl").read_bytes().splitlines()
    assert [b"{", SOUND, SOUND, SOUND] == records
