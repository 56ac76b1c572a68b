"""The page docs/fraud-model.md, run from the top: it says what comes out, and its rows do not know the future.

The script that writes the page runs it elsewhere; here is what must hold of the outcome.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from featurestore.training import FileHistory, build_training_set, read_registry
from scripts.fraud_model_page import IMAGES, PAGE_NAME, ROOT, cells

DOCS = ROOT / "docs"
RUN_TIMEOUT_S = 600.0
IMAGE_BYTES_MAX = 60_000

SHARE_TOLERANCE = 0.05
"""Another processor may add up in another order, and grow another tree."""

RELATIVE_TOLERANCE = 1e-9

EXIT_NOT_RUNNING = 3
"""Of `featurestore store status`."""

_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_PICTURE = re.compile(rf"!\[[^\]]+\]\({IMAGES}/([^)]+)\)")

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Made:
    """What a run of the page has left.

    Attributes:
        docs: page and pictures.
        work: where it ran.
    """

    docs: Path
    work: Path

    @property
    def page(self) -> str:
        """The page as it was written now."""
        return (self.docs / PAGE_NAME).read_text(encoding="utf-8")

    @property
    def training_set(self) -> pa.Table:
        """Label rows with features."""
        return pq.read_table(self.work / "data" / "training_set.parquet")

    @property
    def events(self) -> pa.Table:
        """All records of the event log, each partition's in order."""
        log = pads.dataset(self.work / "feature_repo" / "data" / "event_log" / "transactions", partitioning="hive")
        return log.to_table().sort_by([("partition", "ascending"), ("offset", "ascending")])

    @property
    def registry(self) -> Path:
        """What the page has applied."""
        return self.work / "feature_repo" / "data" / "registry.db"

    def figure(self, name: str) -> list[float]:
        """The numbers that the page prints behind a name."""
        [line] = re.findall(rf"^{re.escape(name)} +([\d., ]+)$", self.page, re.MULTILINE)
        return [float(number.replace(",", "")) for number in line.split()]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The page, made anew."""
    directory = tmp_path_factory.mktemp("fraud_model")
    made = Made(directory / "docs", directory / "work")
    command = [sys.executable, "scripts/fraud_model_page.py", "--docs", str(made.docs), "--work", str(made.work)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def test_the_page_says_what_its_code_does_and_prints(made: Made) -> None:
    """Text and code are those of the script to the letter, and figures are those of today, within a few percent."""
    committed = (DOCS / PAGE_NAME).read_text(encoding="utf-8")
    said, measured = (re.sub(" +", " ", _NUMBER.sub("#", text)) for text in (committed, made.page))
    if said != measured:
        pytest.fail("docs/fraud-model.md is out of date: run python scripts/fraud_model_page.py")
    numbers = ([float(number.replace(",", "")) for number in _NUMBER.findall(text)] for text in (committed, made.page))

    assert list(next(numbers)) == pytest.approx(list(next(numbers)), rel=SHARE_TOLERANCE, abs=SHARE_TOLERANCE)


def test_the_pictures_of_the_page_are_those_that_its_code_draws(made: Made) -> None:
    """Each has labelled axes as text, is small, and is committed."""
    shown = _PICTURE.findall(made.page)
    drawn = {path.name: path.read_text(encoding="utf-8") for path in (made.docs / IMAGES).glob("*.svg")}
    committed = {path.name: path.stat().st_size for path in (DOCS / IMAGES).glob("fraud-model-*.svg")}

    assert sorted(shown) == sorted(drawn) == sorted(committed)
    assert max(committed.values()) < IMAGE_BYTES_MAX
    assert all(svg.count("<text") >= 10 for svg in drawn.values())


def test_features_find_fraud_that_the_payment_alone_does_not_show(made: Made) -> None:
    """The model with features is better by every measure, and nearly as good as the number of frauds allows."""
    alone, with_features = made.figure("average precision")
    assert with_features > max(0.8, alone + 0.2)
    alone, with_features = made.figure("area under ROC")
    assert with_features > max(0.95, alone)
    alone, with_features = made.figure("card precision at 10")
    _, possible = made.figure("... possible")
    assert alone < with_features
    assert possible >= with_features > 0.8 * possible


def test_lookups_answer_what_the_training_set_holds(made: Made) -> None:
    """Every feature of every payment of a day over gRPC equals its row, and so does the model's score."""
    [payments] = made.figure("payments")
    [values] = made.figure("values compared")

    assert payments > 1_000
    assert values == payments * (made.training_set.num_columns - _label_columns(made))
    assert made.figure("mismatches") == [0]
    assert made.figure("scores that differ") == [0]


def test_a_row_counts_just_the_payments_before_its_own(made: Made) -> None:
    """The number of a card's payments in its life, counted here by sorting, for all rows; its last one was earlier."""
    rows, events = made.training_set, made.events
    first = np.unique(events["transaction_id"].to_numpy(zero_copy_only=False), return_index=True)[1]
    cards, card = np.unique(events["card_id"].to_numpy(zero_copy_only=False)[first], return_inverse=True)
    times_ms = events["event_time_ms"].to_numpy()[first]
    as_of_ms = rows["event_time"].cast(pa.timestamp("ms", "UTC")).cast(pa.int64()).to_numpy()
    place = np.lexsort((times_ms, card))
    moments = card[place] * 10**14 + times_ms[place]
    asked = np.searchsorted(cards, rows["card_id"].to_numpy(zero_copy_only=False)) * 10**14
    before = np.searchsorted(moments, asked + as_of_ms) - np.searchsorted(moments, asked)

    np.testing.assert_array_equal(rows["card_count_lifetime"].to_numpy(), before)
    assert pc.all(pc.less(rows["card_event_time_last_lifetime"], rows["event_time"])).as_py()


def test_a_training_row_does_not_change_when_the_future_is_taken_away(made: Made) -> None:
    """Rows of a day, from just the events before the last of them: integers and texts are the same, floats to 1e-9."""
    rows, events = made.training_set, made.events
    asked = rows.filter(pc.equal(rows["day"], 24))
    known = events.filter(pc.less(events["event_time"], pc.max(asked["event_time"])))
    repo = read_registry(made.registry)
    service = repo.service("fraud_detection")
    assert service is not None
    views = {view.name for view in repo.views}
    names = [f"{one.view}:{one.feature}" for one in service.features if one.view in views]
    labels = asked.select(["card_id", "merchant_id", "terminal_id", "event_time"])
    again = build_training_set(
        repo, names, labels, history=FileHistory(known), timestamp_column="event_time"
    ).drop_columns(labels.column_names)

    assert known.num_rows < 0.7 * events.num_rows
    assert asked.num_rows > 1_000
    pd.testing.assert_frame_equal(
        asked.select(again.column_names).to_pandas(), again.to_pandas(), rtol=RELATIVE_TOLERANCE, atol=0.0
    )


def test_training_labels_were_known_on_the_day_of_training(made: Made) -> None:
    """Between the last training payment and the first test payment lies the week until a fraud is reported."""
    rows = made.training_set
    train, test = (rows.filter(pc.equal(rows["period"], name))["day"] for name in ("train", "test"))

    assert pc.min(test).as_py() - pc.max(train).as_py() == 7 + 1


def test_nothing_is_left_running_behind_the_page(made: Made) -> None:
    """Neither the server nor the store."""
    pid = int((made.work / "data" / "serve.pid").read_text())
    command = [sys.executable, "-m", "featurestore", "store", "status"]
    store = subprocess.run(command, cwd=made.work, capture_output=True, text=True, check=False)

    assert store.returncode == EXIT_NOT_RUNNING, store.stdout + store.stderr
    assert not _serves(pid)


def test_cells_are_cut_at_their_headers() -> None:
    """What is above the first header is the file's own; comment signs belong to Python, not to text and commands."""
    story = '"""Ours."""\n\n# %% [markdown]\n# # Title\n#\n# Text.\n\n# %%\n\nx = 1\n\n# %% language="bash"\n# ls\n'

    found = [(cell.kind, cell.text, cell.line) for cell in cells(story)]
    assert found == [("markdown", "# Title\n\nText.\n", 4), ("python", "x = 1\n", 10), ("bash", "ls\n", 13)]


def _label_columns(made: Made) -> int:
    """Columns of the training set that are no features."""
    return len(pq.read_schema(made.work / "data" / "asked.parquet").names)


def _serves(pid: int) -> bool:
    """Whether a process is a server of ours."""
    path = Path(f"/proc/{pid}/cmdline")
    return path.exists() and b"serve" in path.read_bytes()
