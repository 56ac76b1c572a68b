"""The page docs/training-sets.md, typed from the top in a directory with nothing but a copy of the feature repo."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from featurestore.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"```(bash|python)\n(.*?)```", re.DOTALL)
PROFILE = ["merchant_category", "home_market", "is_online_only", "onboarded_days", "chargeback_share"]


def test_every_command_of_the_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By CLI and from Python, from event log, files and a table, the answers are the same."""
    shutil.copytree(ROOT / "feature_repo", tmp_path / "feature_repo", ignore=shutil.ignore_patterns("data"))
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "training-sets.md").read_text(encoding="utf-8")
    known: dict[str, pa.Table] = {}
    written: list[pa.Table] = []
    for language, text in BLOCK.findall(page):
        if text.startswith("# feature_repo/"):
            Path(text.splitlines()[0].removeprefix("# ")).write_text(text, encoding="utf-8")
            continue
        if language == "python":
            exec(compile(text, "training-sets.md", "exec"), known)
            continue
        for line in text.replace("\\\n", "").strip().splitlines():
            program, *words = shlex.split(line, comments=True)
            assert program == "featurestore"
            if words[0] == "event-log":  # becomes another program
                subprocess.run([sys.executable, "-m", "featurestore", *words], check=True)
            else:
                assert main(words) == 0, line
            if words[0] == "history":
                written.append(pq.read_table(words[words.index("--out") + 1]))

    first, at_once, mature, of_events, of_files, of_table, of_tonight = written
    assert first.num_rows > 5_000
    assert first.num_columns == len(pq.read_schema("data/asked.parquet")) + 91
    assert known["table"].equals(first)
    assert first.equals(of_files)
    assert first.equals(of_table)
    assert first.drop_columns(PROFILE).equals(of_tonight.drop_columns(PROFILE))
    assert [0] * 5 == [first[name].null_count for name in PROFILE]
    assert [of_tonight.num_rows] * 5 == [of_tonight[name].null_count for name in PROFILE]
    assert pc.add(first["card_count_1m"], 1).equals(of_events["card_count_1m"])
    spent = pc.add(first["card_amount_sum_1h"], pc.fill_null(of_events["amount"], 0).cast(pa.int64()))
    assert spent.equals(of_events["card_amount_sum_1h"])
    old = first.filter(pc.less_equal(first["event_time"], pa.scalar(datetime(2026, 1, 8, tzinfo=UTC))))
    assert 0 < old.num_rows < first.num_rows
    order = [("event_time", "ascending"), ("transaction_id", "ascending")]
    assert mature.select(old.column_names).sort_by(order).equals(old.sort_by(order))
    assert known["mature"].equals(mature)
    assert at_once["card_count_7d"].to_pylist() != first["card_count_7d"].to_pylist()
