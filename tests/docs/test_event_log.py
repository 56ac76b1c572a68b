"""The page on the event log: its Python is run on a log as it describes, and its commands are typed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from featurestore.core.spec import Column, SourceSpec, ValueType
from featurestore.offline.event_log.address import place_of
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.schema import log_schema
from featurestore.offline.event_log.writer import LogWriter, PartitionRows, prepare_log

PAGE = Path(__file__).resolve().parents[2] / "docs" / "event-log.md"
LOG = Path("data/event_log/transactions")

BEGIN_MS = 1_795_305_600_000
"""2026-11-22, as on the page."""

ROWS = 100
SOURCE = SourceSpec(
    name="transactions",
    topic="transactions",
    columns=(Column("card_id", ValueType.INT64), Column("amount", ValueType.FLOAT64)),
    event_time_column="event_time_ms",
)


def write_log(directory: Path) -> None:
    """A hundred rows of partition 3, an hour apart, the first and the last of the card that wants to be forgotten."""
    place, schema, partition = place_of(directory), log_schema(SOURCE), (SOURCE.topic, 3)
    prepare_log(place, schema, {partition: ""})
    writer = LogWriter(place, schema)
    writer.claim([partition])
    offsets = np.arange(ROWS)
    cards = np.where((offsets == 0) | (offsets == ROWS - 1), 4711, offsets)
    columns = {
        "topic": [SOURCE.topic] * ROWS,
        "partition": np.full(ROWS, 3),
        "offset": offsets,
        "ingest_time_ms": np.full(ROWS, BEGIN_MS),
        "event_time_ms": BEGIN_MS + offsets * 3_600_000,
        "card_id": cards,
        "amount": offsets / 4,
    }
    rows = pa.RecordBatch.from_arrays([pa.array(columns[field.name], field.type) for field in schema], schema=schema)
    writer.commit({partition: [PartitionRows(0, ROWS, rows)]})


def test_the_python_of_the_page_reads_the_log_and_forgets_somebody(tmp_path: Path) -> None:
    """Each block as a reader would run it, in the directory that has the log; the last one deletes a card's rows."""
    write_log(tmp_path / LOG)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        # Ended at once: Arrow's threads over delta-rs's file system may abort an interpreter that ends in good order.
        program = f"{block}\nimport os; os._exit(0)"
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, block + done.stderr

    log = EventLog(tmp_path / LOG)
    assert log.row_count == ROWS - 2
    assert log.positions() == {("transactions", 3): ROWS}
    assert 4711 not in {card for batch in log.scan(["card_id"]) for card in batch["card_id"].to_pylist()}


def test_the_commands_of_the_page_that_need_no_stream_are_as_they_stand(tmp_path: Path) -> None:
    """Showing, retention and import; the last one says that there is nothing to import any more."""
    write_log(tmp_path / LOG)
    typed = re.findall(r"^featurestore (event-log (?:show|retain|import).*)$", PAGE.read_text(encoding="utf-8"), re.M)
    assert len(typed) == 3
    printed = []
    for command in typed:
        arguments = command.split("#")[0].split()
        if arguments[1] != "import":
            arguments += ["--event-log", "data/event_log"]
        program = [sys.executable, "-m", "featurestore", *arguments]
        done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
        printed.append((done.returncode, done.stdout + done.stderr))

    (shown, show), (retained, retain), (imported, error) = printed
    assert (shown, retained, imported) == (0, 0, 1)
    assert "transactions[3]  next offset 100" in show
    assert "dropped nothing" in retain
    assert "no log at" in error
