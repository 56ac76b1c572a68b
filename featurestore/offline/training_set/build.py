"""Training sets: for each label row the features as they were at its time, to the event.

    from featurestore.offline.training_set.build import build_training_set
    from featurestore.offline.training_set.histories import EventLogHistory

    table = build_training_set(repo, "fraud_detection", labels, history=EventLogHistory("data/event_log"))

    labels ──> entities, moments ────────────┐
    history ── scan, once a source ── events ┴── by entity ── chunks, in threads ── answers ──> labels + features

The values are those that a lookup at the label time would have given had every event arrived by then: the same parts,
windows and lowering (see `core.point_in_time`). Labels are kept in memory, events as far as `memory_bytes` allows, else
they go through files by entity; the answer does not depend on which. With a work directory, finished parts outlive a
killed process.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.core.spec import PlainViewSpec, RepoSpec, ValueType, ViewSpec
from featurestore.core.view import CompiledView
from featurestore.errors import InvalidRequest, Unavailable
from featurestore.offline.disk import SHARED_FILE_MODE, complete_file
from featurestore.offline.training_set.answer_parts import AnswerParts
from featurestore.offline.training_set.histories import History, KeepsVersions, enriched_history
from featurestore.offline.training_set.plain_join import PlainHistory, join_plain_view, registered_table
from featurestore.offline.training_set.plan import SupportsArrowStream, TrainingSetPlan, ViewOutputs, plan_training_set
from featurestore.offline.training_set.resume import KeptWork
from featurestore.offline.training_set.stream import StreamLimits, StreamWork, run_together
from featurestore.offline.training_set.view_events import BLOCK_ROWS, ScannedBlock, scan_events

MEMORY_BYTES_DEFAULT = 2 << 30
"""Memory that events may take; labels and their answers come on top."""

VERSIONS_KEY = b"featurestore.versions"
"""In the metadata of a training set's file: which versions of event logs it was made from."""

OUTPUT_ROWS = 1 << 18
"""Rows of a block of the output."""

_HELD_SHARE = 3
"""A third of the memory may be held as events; reading a block and sorting a partition need the rest."""

_PARTITION_SHARE = 12
"""A partition should take a twelfth of the memory: it is loaded, sorted and cut into chunks."""

_PARTITIONS_MIN, _PARTITIONS_MAX = 8, 512
_BLOCK_ROWS_MIN = 1 << 14
_STRING_BYTES, _NUMBER_BYTES = 56, 9


@dataclass(frozen=True, slots=True)
class TrainingSetProgress:
    """How far a training set is.

    Attributes:
        step: "reading" (rows of histories) or "computing" (label rows of views).
        done: how many.
        total: of how many; an estimate while reading.
    """

    step: str
    done: int
    total: int


ProgressReport = Callable[[TrainingSetProgress], None]


def build_training_set(
    repo: RepoSpec,
    features: str | Sequence[str],
    entities: pa.Table | SupportsArrowStream,
    *,
    history: History,
    plain: Mapping[str, PlainHistory] | None = None,
    timestamp_column: str = "event_timestamp",
    at_ms: int | None = None,
    full_names: bool = False,
    event_sources: Sequence[str] = (),
    memory_bytes: int = MEMORY_BYTES_DEFAULT,
    work_dir: Path | None = None,
    progress: ProgressReport | None = None,
    repo_path: Path | None = None,
) -> pa.Table:
    """Features of a service (or of some views) for label rows, as one table.

    Args:
        repo: the definitions.
        features: name of a feature service, or "view:feature" texts.
        entities: R rows: the join keys of all views, label times, and whatever else (labels); an Arrow table, or a data
            frame of pandas or Polars, or whatever else gives its rows as a stream of Arrow.
        history: the events of stream views.
        plain: tables of plain views, by name of the view; those of others are found in the registry.
        timestamp_column: the label times' column (see `label_times`).
        at_ms: one moment for all rows, milliseconds UTC; then no column is needed.
        full_names: call features "view__feature".
        event_sources: names of sources of which each row is an event, at its label time: its features count it as a
            lookup counts the payment in flight. What they read of it is found in the entities' columns of these names.
        memory_bytes: memory that events may take.
        work_dir: keeps finished parts until all are done; a later call with the same arguments goes on from there.
        progress: is told how far it is, from time to time.
        repo_path: where relative paths of registered tables start; default: the current directory.

    Returns:
        R rows in the order of the entities: their columns, then the features. A row whose key or label time is null has
        null features; an entity without events has the answers over no events (0 for counts and sums, else null), as
        it has online.

    Raises:
        UnknownFeatureService, UnknownJoinKey, InvalidRequest: the request is wrong; it says how.
        Unavailable: the history cannot be read now.
    """
    plan = plan_training_set(
        repo,
        features,
        entities,
        timestamp_column=timestamp_column,
        at_ms=at_ms,
        full_names=full_names,
        event_sources=event_sources,
    )
    with TrainingSet(
        plan, history, plain, memory_bytes=memory_bytes, work_dir=work_dir, progress=progress, repo_path=repo_path
    ) as answers:
        return pa.concat_tables(answers.blocks())


def write_training_set(
    plan: TrainingSetPlan,
    path: Path,
    *,
    history: History,
    plain: Mapping[str, PlainHistory] | None = None,
    memory_bytes: int = MEMORY_BYTES_DEFAULT,
    work_dir: Path | None = None,
    progress: ProgressReport | None = None,
    repo_path: Path | None = None,
) -> int:
    """As `build_training_set`, into a Parquet file that appears when it is complete; who may read it, the umask says.

    The file's metadata has the versions of the event logs that were read, under VERSIONS_KEY: a JSON object by address.

    Returns:
        The number of rows.

    Raises:
        InvalidRequest: the path cannot be written, which is found out before anything is computed. Else as
            `build_training_set`.
    """
    with (
        TrainingSet(
            plan, history, plain, memory_bytes=memory_bytes, work_dir=work_dir, progress=progress, repo_path=repo_path
        ) as answers,
        parquet_file(path, lambda: {VERSIONS_KEY: msgspec.json.encode(versions_read(history))}) as write,
    ):
        for block in answers.blocks():
            write(block)
    return plan.labels.count


def versions_read(history: History) -> Mapping[str, int]:
    """Of the event logs, and of other tables that have versions."""
    return history.versions_read() if isinstance(history, KeepsVersions) else {}


class TrainingSet:
    """A training set being made; a context manager that cleans up behind itself.

    Args:
        plan: what is asked.
        history: the events of stream views.
        plain, memory_bytes, work_dir, progress, repo_path: see `build_training_set`.
    """

    def __init__(
        self,
        plan: TrainingSetPlan,
        history: History,
        plain: Mapping[str, PlainHistory] | None = None,
        *,
        memory_bytes: int = MEMORY_BYTES_DEFAULT,
        work_dir: Path | None = None,
        progress: ProgressReport | None = None,
        repo_path: Path | None = None,
    ) -> None:
        self._plan = plan
        streams = [one.view for one in plan.views if isinstance(one.view, ViewSpec)]
        self._history = history = enriched_history(history, streams, repo_path)
        given = plain or {}
        self._plain = {
            one.view.name: given.get(one.view.name) or registered_table(one.view, repo_path)
            for one in plan.views
            if isinstance(one.view, PlainViewSpec)
        }
        self._memory_bytes = memory_bytes
        self._work_dir = work_dir
        self._report = progress or (lambda _progress: None)
        self._kept = None if work_dir is None else KeptWork(work_dir, plan, history, memory_bytes)
        self._directory = Path()

    def __enter__(self) -> TrainingSet:
        if self._kept is None:
            self._directory = Path(tempfile.mkdtemp(prefix="featurestore-history-"))
        else:
            self._directory = self._kept.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._kept is None:
            shutil.rmtree(self._directory, ignore_errors=True)
        else:
            self._kept.close(is_done=kind is None)

    def blocks(self) -> Iterator[pa.Table]:
        """Label rows with their features, in order; at least one block."""
        labels = self._plan.labels
        works = self._works()
        # Before the long part: what is wrong with a table is found out now. In the end its answers are held anyway.
        tables = self._plain_tables()
        parts = self._answers(works)
        for begin in range(0, max(labels.count, 1), OUTPUT_ROWS):
            end = min(begin + OUTPUT_ROWS, labels.count)
            columns: dict[str, pa.ChunkedArray] = {}
            for one in parts:
                block = one.block(begin, end)
                columns.update(zip(block.column_names, block.columns, strict=True))
            for table in tables:
                piece = table.slice(begin, end - begin)
                columns.update(zip(piece.column_names, piece.columns, strict=True))
            found = labels.table.slice(begin, end - begin)
            columns.update({one.column.name: one.answer(columns, found) for one in self._plan.on_demand})
            for name in self._plan.names:
                found = found.append_column(name, columns[name])
            yield found

    def _plain_tables(self) -> list[pa.Table]:
        """Answers of plain views."""
        return [
            join_plain_view(outputs, self._plan.labels, self._plain[outputs.view.name])
            for outputs in self._plan.views
            if isinstance(outputs.view, PlainViewSpec)
        ]

    def _works(self) -> list[StreamWork]:
        """What there is to do for stream views; their histories are there and can be opened."""
        return [
            StreamWork(outputs, self._plan.labels, self._directory, self._limits(outputs))
            for outputs in self._plan.views
            if isinstance(outputs.view, ViewSpec)
        ]

    def _answers(self, works: Sequence[StreamWork]) -> list[AnswerParts]:
        """Answers of stream views."""
        sources: dict[str, list[StreamWork]] = {}
        for work in works:
            if not work.events.reopen():
                sources.setdefault(work.view.source.name, []).append(work)
        read, total = 0, sum(self._history.row_count(mine[0].view.source) for mine in sources.values())
        # All of them are begun before one is read: what is missing is found out now.
        for mine, blocks in [(mine, self._scan(mine)) for mine in sources.values()]:
            for block in blocks:
                with self._disk():
                    for work, events in zip(mine, block.events, strict=True):
                        work.events.add(events)
                read += block.rows
                self._report(TrainingSetProgress("reading", read, max(read, total)))
            with self._disk():
                for work in mine:
                    work.events.finish()
        computed, rows = 0, self._plan.labels.count * len(works)
        with self._disk():
            for count in run_together(works):
                computed += count
                self._report(TrainingSetProgress("computing", min(computed, rows), rows))
        self._report(TrainingSetProgress("computing", rows, rows))
        return [work.answers for work in works]

    def _scan(self, mine: Sequence[StreamWork]) -> Iterator[ScannedBlock]:
        """Events of one source for the views that want them."""
        block_rows = min(work.limits.block_rows for work in mine)
        return scan_events(self._history, [work.wanted for work in mine], block_rows)

    def _disk(self) -> AbstractContextManager[None]:
        """Names the directory where events and answers go."""
        remedy = "give another disk by TMPDIR or --work-dir (work_dir)"
        if self._kept is not None:
            remedy = "run it again: it goes on from there"
        return _disk_errors(self._directory, f"make room, and {remedy}" if self._kept else f"make room, or {remedy}")

    def _limits(self, outputs: ViewOutputs) -> StreamLimits:
        """How to cut the work of a view."""
        view = outputs.view
        assert isinstance(view, ViewSpec), "plain views are joined"
        stream_views = sum(isinstance(one.view, ViewSpec) for one in self._plan.views)
        memory_bytes = self._memory_bytes // stream_views
        columns = [*view.source.columns, *CompiledView(view).event_columns]
        row_bytes = sum(_STRING_BYTES if one.type is ValueType.STRING else _NUMBER_BYTES for one in columns)
        needed = self._history.row_count(view.source) * row_bytes * _PARTITION_SHARE // max(memory_bytes, 1)
        return StreamLimits(
            held_bytes=memory_bytes // _HELD_SHARE if self._work_dir is None else 0,
            partition_count=min(max(needed, _PARTITIONS_MIN), _PARTITIONS_MAX),
            block_rows=min(max(memory_bytes // (row_bytes * _PARTITION_SHARE), _BLOCK_ROWS_MIN), BLOCK_ROWS),
            keeps_answers=self._work_dir is not None,
        )


@contextmanager
def parquet_file(
    path: Path, describe: Callable[[], Mapping[bytes, bytes]] = dict
) -> Iterator[Callable[[pa.Table], None]]:
    """Writes tables of one schema to a file that gets its name when it is complete, and is gone when it never is.

    Args:
        path: its name.
        describe: what its metadata shall say, asked when all is written.

    Raises:
        InvalidRequest: there can be no such file; before the block.
        Unavailable: the disk refuses.
    """
    with ExitStack() as file:
        try:
            if path.exists() and not path.is_file():
                raise OSError(errno.EISDIR, "Is a directory or device")  # which a rename would replace
            unfinished = file.enter_context(complete_file(path, SHARED_FILE_MODE))
        except OSError as error:
            raise InvalidRequest(f'"{path}" cannot be written: {error.strerror}', hint="name another file") from error
        writer: pq.ParquetWriter | None = None
        remedy = "make room, or name a file on another disk"

        def write(table: pa.Table) -> None:
            nonlocal writer
            with _disk_errors(path, remedy):
                writer = writer or pq.ParquetWriter(unfinished, table.schema, compression="zstd")
                writer.write_table(table)

        yield write
        assert writer is not None, "there is a block, if only an empty one"
        with _disk_errors(path, remedy):
            writer.add_key_value_metadata(describe())
            writer.close()
            file.close()  # gets its name


@contextmanager
def _disk_errors(path: Path, remedy: str) -> Iterator[None]:
    """What a disk refuses, with the place: Arrow says only that something cannot be written."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f'"{path}" cannot be written', detail=str(error), hint=remedy) from error
