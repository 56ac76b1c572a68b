"""`featurestore simulate`: card transactions with fraud in them, to Kafka, a log directory or Parquet."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import BinaryIO

import click
import numpy as np

from featurestore.cli.settings import FiniteRange
from featurestore.clock import Clock, SystemClock
from featurestore.core.windows.durations import parse_duration_ms
from featurestore.errors import InvalidRequest
from featurestore.testing.simulator import (
    LabelsWriter,
    LogDirectorySink,
    PopulationSize,
    Scenario,
    Simulation,
    TransactionSink,
    open_sink,
    write_merchant_table,
)
from featurestore.testing.simulator.markets import MARKETS
from featurestore.testing.simulator.rows import Rows
from featurestore.testing.simulator.sinks import DEFAULT_PARTITIONS, DEFAULT_REGISTRY, DEFAULT_TOPIC

HOUR_MS = 3_600_000
DAYS_MAX = 36_500
PROGRESS_EVERY_NS = 1_000_000_000
LOG_LINE_EVERY_NS = 10_000_000_000
_SLICE_S = 0.004


_FORMAT = "Of the records: Avro behind the id of its schema, as Confluent's serializers write it, or JSON."

EXAMPLES = """\b
Examples:
  featurestore simulate --to log:data/log --days 21 --labels data/labels.parquet
  featurestore simulate --to kafka://127.0.0.1:9092/transactions --live --rate 500
"""
"""At the end of the help; the backspace keeps click from joining the lines."""


@click.command("simulate", epilog=EXAMPLES)
@click.option(
    "--to", "address", metavar="ADDRESS", required=True, help="kafka://HOST:PORT/TOPIC, log:DIR or parquet:FILE."
)
@click.option("--duration", help='Event time to cover, such as "21d" or "30s"; --live without it never ends.')
@click.option("--days", type=FiniteRange(0, DAYS_MAX), help="The same in days.")
@click.option("--start", type=click.DateTime(("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S")), help="First event time, UTC.")
@click.option("--live", is_flag=True, help="Event times are now; otherwise it is history, by default up to now.")
@click.option("--rate", type=FiniteRange(min=0, min_open=True), help="Transactions per second; default: as it comes.")
@click.option("--cards", type=click.IntRange(min=1), default=20_000, show_default=True, help="How many cards pay.")
@click.option(
    "--merchants",
    type=click.IntRange(min=len(MARKETS)),
    default=2_000,
    show_default=True,
    help="How many merchants are paid; at least one a market.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Equal seeds give equal worlds.")
@click.option("--topic", default=DEFAULT_TOPIC, show_default=True, help="Topic of a log directory.")
@click.option(
    "--partitions",
    type=click.IntRange(min=1),
    default=DEFAULT_PARTITIONS,
    show_default=True,
    help="Of a topic that does not exist yet; one that does keeps its own.",
)
@click.option(
    "--format", "record_format", type=click.Choice(["avro", "json"]), default="avro", show_default=True, help=_FORMAT
)
@click.option(
    "--schema-registry",
    "registry",
    metavar="URL",
    default=DEFAULT_REGISTRY,
    show_default=True,
    help="Where the schema of Avro records in Kafka goes; that of a log directory goes to its _schemas.",
)
@click.option(
    "--records",
    type=click.File("rb"),
    help="Send these transactions instead, one JSON object a line, - is standard input; to a log directory.",
)
@click.option("--labels", type=click.Path(dir_okay=False, path_type=Path), help="Parquet file for the fraud labels.")
@click.option("--merchant-table", type=click.Path(dir_okay=False, path_type=Path), help="Parquet file of merchants.")
def command(
    address: str,
    duration: str | None,
    days: float | None,
    start: datetime | None,
    live: bool,
    rate: float | None,
    cards: int,
    merchants: int,
    seed: int,
    topic: str,
    partitions: int,
    record_format: str,
    registry: str,
    records: BinaryIO | None,
    labels: Path | None,
    merchant_table: Path | None,
) -> None:
    """Simulate card transactions of several markets: rhythm, refunds, declines, retries, late records, fraud."""
    clock = SystemClock()
    size = PopulationSize(cards=cards, merchants=merchants)
    start_ms, end_ms = _span_ms(clock.now_ms(), start, _duration_ms(duration, days), is_live=live)
    scenario = Scenario(start_ms, end_ms, seed=seed, size=size, per_second=rate if live else None)
    simulation = Simulation(scenario)
    if merchant_table is not None:
        write_merchant_table(simulation.population, merchant_table, updated_at_ms=clock.now_ms(), seed=seed)
    run = _Run(simulation, clock, rate=rate, is_live=live)
    label_writer = LabelsWriter(labels) if labels is not None else None
    sink = open_sink(
        address,
        simulation.population,
        topic=topic,
        partitions=partitions,
        registry=registry,
        is_json=record_format == "json",
    )
    try:
        if records is not None:
            click.echo(f"{_send_records(sink, records):,} records to {address}")
            return
        run.send(sink, label_writer)
    finally:
        sink.close()
        if label_writer is not None:
            label_writer.close()
    click.echo(run.summary(address))


def _send_records(sink: TransactionSink, records: BinaryIO) -> int:
    """Send what somebody made up; how many."""
    if not isinstance(sink, LogDirectorySink):
        raise InvalidRequest("--records goes to a log directory", hint="write --to log:DIR")
    try:
        found = [json.loads(line) for line in records if line.strip()]
    except ValueError as error:
        raise InvalidRequest("--records has a line that is not JSON", detail=str(error)) from error
    if not all(isinstance(record, dict) for record in found):
        raise InvalidRequest("--records has a line that is no JSON object")
    sink.write_records(found)
    return len(found)


class _Run:
    """Sends a simulation's records at their pace, reports progress, and stops in good order when told to."""

    def __init__(self, simulation: Simulation, clock: Clock, *, rate: float | None, is_live: bool) -> None:
        self._simulation = simulation
        self._clock = clock
        self._rate = rate
        self._is_live = is_live
        self._is_stopping = False
        self._sent = 0
        self._frauds = 0
        self._started_ns = clock.monotonic_ns()
        self._reported_ns = self._started_ns

    def send(self, sink: TransactionSink, labels: LabelsWriter | None) -> None:
        """Send everything; SIGTERM and Ctrl-C end it after the records already sent."""
        handlers = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            for batch in self._simulation.batches():
                for rows in self._paced(batch):
                    sink.write(rows)
                    if labels is not None:
                        labels.write(rows)
                    self._sent += len(rows)
                    self._frauds += int((rows["pattern"] != 0).sum())
                    self._report(int(rows["event_time_ms"].max()))
                if self._is_stopping:
                    break
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def summary(self, address: str) -> str:
        """One line for the end."""
        seconds = self._seconds()
        return (
            f"{self._sent:,} records to {address} in {seconds:.1f} s "
            f"({self._sent / max(seconds, 1e-9):,.0f}/s), {self._frauds:,} of them fraud"
        )

    def _paced(self, batch: Rows) -> Iterator[Rows]:
        """Slices of a batch, each as soon as it is due; never an empty one."""
        first, sent_before = 0, self._sent
        while first < len(batch) and not self._is_stopping:
            end = self._due(batch, sent_before)
            if end > first:
                yield batch[first:end]
                first = end
            if first < len(batch):
                self._clock.sleep(_SLICE_S)

    def _due(self, batch: Rows, sent_before: int) -> int:
        """How many rows of the batch may be out by now; `sent_before` records went out before its first."""
        if self._is_live:
            end_ms = self._simulation.scenario.end_ms
            if end_ms is not None and self._clock.now_ms() >= end_ms:
                # Some records are hours late; a run of five seconds must not wait for them.
                return len(batch)
            return int(np.searchsorted(batch["arrival_ms"], self._clock.now_ms(), side="right"))
        if self._rate is None:
            return len(batch)
        allowed = int(self._seconds() * self._rate) - sent_before
        return min(max(allowed, 0), len(batch))

    def _report(self, event_time_ms: int) -> None:
        """A line that is rewritten on a terminal, a line now and then elsewhere; on stderr."""
        now_ns = self._clock.monotonic_ns()
        is_terminal = sys.stderr.isatty()
        if now_ns - self._reported_ns < (PROGRESS_EVERY_NS if is_terminal else LOG_LINE_EVERY_NS):
            return
        self._reported_ns = now_ns
        moment = np.datetime_as_string(np.datetime64(event_time_ms, "ms"), unit="s")
        rate = self._sent / self._seconds()
        line = f"{self._sent:,} records  {rate:,.0f}/s  event time {moment}Z  fraud {self._frauds:,}"
        click.echo(f"\r{line}\x1b[K" if is_terminal else line, err=True, nl=not is_terminal)

    def _seconds(self) -> float:
        return (self._clock.monotonic_ns() - self._started_ns) / 1e9

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._is_stopping = True


def _duration_ms(duration: str | None, days: float | None) -> int | None:
    if duration is not None and days is not None:
        raise InvalidRequest("--duration and --days say the same thing twice", hint="give one of them")
    if duration is not None:
        return parse_duration_ms(duration)
    return None if days is None else round(days * 24 * HOUR_MS)


def _span_ms(now_ms: int, start: datetime | None, duration_ms: int | None, *, is_live: bool) -> tuple[int, int | None]:
    """First and last event time; history of unset length is a week, of unset start ends now."""
    if is_live:
        if start is not None:
            raise InvalidRequest("--live starts now", hint="leave --start out")
        return now_ms, None if duration_ms is None else now_ms + duration_ms
    length_ms = 7 * 24 * HOUR_MS if duration_ms is None else duration_ms
    if start is not None:
        start_ms = int(np.datetime64(start, "ms").astype(np.int64))
        return start_ms, start_ms + length_ms
    return now_ms - length_ms, now_ms
