"""The audit log: whatever somebody does to its files shows, as far as its manifest has seen them."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.clock import SystemClock
from featurestore.definitions.governance.audit.evidence import rows_digest
from featurestore.definitions.governance.audit.journal import MANIFEST, Journal
from featurestore.definitions.governance.audit.reading import Verified, billed, callers_of, find_entries, verify
from featurestore.errors import InvalidRequest, SourceUnavailable
from tests.full_disk import files_of_at_most

CLOCK = SystemClock()


def record(number: int, who: str = "risk") -> dict[str, object]:
    """Something that somebody did."""
    return {"who": who, "what": "apply", "on": 'project "p"', "outcome": "done", "details": {"number": number}}


def heads_seen(directory: Path) -> dict[str, int]:
    """Writer -> the last line that the manifest has seen of it, read without any of the code that writes it."""
    seen: dict[str, int] = {}
    for line in (directory / MANIFEST).read_text().splitlines():
        seen.update({name: seq for name, (seq, _) in json.loads(line)["heads"].items()})
    return seen


WAYS = ("change", "forge", "take out", "put in", "move", "cut off", "take away", "stranger", "nothing")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_whatever_is_done_to_the_files_shows(seed: int) -> None:
    """Lines changed, taken out, put in, moved; files cut off, taken away, put in; of the manifest too.

    What nobody can tell is a tail that the manifest had not seen yet, or one of the manifest's own.
    """
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        journals = [Journal(directory, CLOCK) for _ in range(draw.randint(1, 3))]
        for journal in journals:
            for number in range(draw.randint(1, 3)):
                journal.write([record(number)] * draw.randint(1, 3))
                if draw.random() < 0.5:
                    journal.note()
        for journal in journals[1:]:
            journal.close()

        assert verify(directory).problems == ()

        path = draw.choice([directory / MANIFEST, *(directory / f"{journal.name}.jsonl" for journal in journals)])
        how = draw.choice(WAYS)
        lines = path.read_bytes().splitlines(keepends=True)
        changed = tampered(lines, how, draw)
        path.write_bytes(b"".join(changed))
        if how == "take away":
            path.unlink()
            is_unseen = False
        elif how == "stranger":
            shutil.copy(path, directory / "2026-01-01-somewhere-1-00.jsonl")
            is_unseen = False
        else:
            is_prefix = changed == lines[: len(changed)]
            is_known = path.name != MANIFEST or (is_prefix and _names_all(directory))
            is_unseen = is_prefix and is_known and len(changed) >= heads_seen(directory).get(path.stem, 0)

        assert bool(_problems(directory)) is not is_unseen, (how, path.name)
        journals[0].close()


def tampered(lines: list[bytes], how: str, draw: random.Random) -> list[bytes]:
    """The lines of a file as somebody leaves them."""
    at, changed = draw.randrange(len(lines)), list(lines)
    if how == "change":
        place = draw.randrange(len(lines[at]) - 1)
        changed[at] = lines[at][:place] + bytes([lines[at][place] ^ 1]) + lines[at][place + 1 :]
    elif how == "forge" and at < len(lines) - 1:
        # By somebody who knows how a line is sealed.
        body = lines[at].rstrip().rpartition(b',"hash":')[0].replace(b'"at_ms":1', b'"at_ms":2') + b"}"
        changed[at] = body[:-1] + b',"hash":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'
    elif how == "take out":
        del changed[at]
    elif how == "put in":
        changed.insert(at, draw.choice(lines))
    elif how == "move" and at:
        changed[at - 1], changed[at] = changed[at], changed[at - 1]
    elif how == "cut off":
        del changed[at:]
    return changed


def _problems(directory: Path) -> Sequence[str]:
    try:
        return verify(directory).problems
    except InvalidRequest as error:
        return [error.message]


def _names_all(directory: Path) -> bool:
    opened = {json.loads(line)["writer"] for line in (directory / MANIFEST).read_text().splitlines()}
    return {path.stem for path in directory.glob("*.jsonl")} - {Path(MANIFEST).stem} == opened


def test_a_writer_that_was_killed_is_noted_by_the_next(tmp_path: Path) -> None:
    """From then on its tail cannot be cut off unseen; and a head that somebody kept is looked for."""
    code = (
        "import os, sys; from pathlib import Path; from featurestore.clock import SystemClock;"
        "from featurestore.definitions.governance.audit.journal import Journal;"
        "journal = Journal(Path(sys.argv[1]), SystemClock());"
        "journal.write([{'who': 'x', 'what': 'apply', 'on': '', 'outcome': 'done', 'details': {}}] * 3); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 9
    killed = next(path for path in tmp_path.iterdir() if path.name != MANIFEST)
    assert "until line 0" in verify(tmp_path).notes[0]

    Journal(tmp_path, CLOCK).close()
    whole = verify(tmp_path)
    assert ((), ()) == (whole.problems, whole.notes)
    lines = killed.read_bytes().splitlines(keepends=True)
    killed.write_bytes(b"".join(lines[:2]))
    assert (f"{killed.name}: it ends at line 2, and had 3",) == verify(tmp_path).problems
    killed.write_bytes(b"".join(lines))
    manifest = tmp_path / MANIFEST
    manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[:-1]))
    assert verify(tmp_path).problems == ()
    assert "is not there any more" in verify(tmp_path, head=whole.head.hash).problems[0]


def test_a_full_disk_leaves_whole_lines_and_is_said(tmp_path: Path) -> None:
    """A line is there or it is not; the same lines can be written when there is room."""
    journal = Journal(tmp_path, CLOCK)
    journal.write([record(0)])
    with files_of_at_most(600), pytest.raises(SourceUnavailable, match="cannot be written"):
        journal.write([record(1), record(2)])
    journal.write([record(1), record(2)])
    journal.close()

    assert Verified(3, 1, verify(tmp_path).head, (), ()) == verify(tmp_path)
    assert [0, 1, 2] == [one.details["number"] for one in find_entries(tmp_path)]


def test_lookups_are_added_up_by_caller(tmp_path: Path) -> None:
    """Of one service, since a moment."""
    journal = Journal(tmp_path, CLOCK)
    told = {"service": "check", "requests": 2, "rows": 5, "until_ms": 70_000}
    for who, at_ms in (("risk", 60_000), ("risk", 70_000), ("crm", 70_000), ("old", 10)):
        line = {"who": who, "what": "lookup", "on": "", "outcome": "done", "details": told, "at_ms": at_ms}
        journal.write([line, {**line, "details": {**told, "service": "other"}}])
    journal.close()

    assert [("", "check"), ("", "other")] == [one.names for one in billed(tmp_path, ("team", "service"))]
    assert [(("crm",), 4, 10), (("old",), 4, 10), (("risk",), 8, 20)] == [
        (one.names, one.requests, one.rows) for one in billed(tmp_path, ("caller",))
    ]
    assert [("risk", 4, 10), ("crm", 2, 5)] == [
        (one.who, one.requests, one.rows) for one in callers_of(tmp_path, "check", since_ms=60_000)
    ]


def test_rows_have_one_digest_however_they_are_cut() -> None:
    """And other rows have another one."""
    whole = pa.table({"card_id": ["a", "b", "c"], "amount": [1, None, 3]})
    parts = pa.concat_tables([whole.slice(0, 1), whole.slice(1)])

    assert rows_digest(whole) == rows_digest(parts)
    assert rows_digest(whole) != rows_digest(whole.slice(0, 2))
