"""Runs a dataflow, and again when its plan is outdated; turns outcomes into exit codes.

    0   stopped by SIGTERM or Ctrl-C, or the input's end: everything read was committed
    1   an error that the message explains; nothing is lost, a restart goes on where it was
    2   wrong usage
    3   another process took over: do not restart
    4   another process of the cluster is gone: restart all

A second signal ends the process at once, which loses nothing either.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from types import FrameType
from typing import TypeVar

from bytewax._bytewax import cli_main
from bytewax.dataflow import Dataflow
from prometheus_client import REGISTRY

from dataflows.dead_letters.policy import payload_policy
from dataflows.dead_letters.writer import FILE_RETENTION_MS, DeadLetterWriter, FileDeadLetters, KafkaDeadLetters
from dataflows.logs.file_log import FileLog
from dataflows.logs.opening import open_source_log
from dataflows.logs.sources import Shared, SourceLog
from dataflows.plan.contract_figures import ContractReports, FileReports, KafkaReports
from dataflows.plan.definitions import Definitions
from dataflows.plan.stream_plan import PlanWatch, StreamPlan, make_stream_plan
from dataflows.plan.tile_store import OnlineTileStore, TileStore
from dataflows.progress import StreamProgress
from dataflows.retry import patiently
from dataflows.run_outcome import Conductor, PartitionEnd, RunOutcome
from dataflows.settings import FlowSettings, StreamSettings
from featurestore.clock import Clock, SystemClock
from featurestore.core.spec import RepoSpec, SourceSpec
from featurestore.definitions.compile.versions import stored_views
from featurestore.errors import (
    FeatureStoreError,
    InvalidRequest,
    Unavailable,
    WriterFenced,
    of_system,
    shows_tracebacks,
)
from featurestore.online.redis.store import connect as connect_store
from featurestore.process import serve_metrics, spare_what_lives

EXIT_ERROR = 1
EXIT_FENCED = 3
EXIT_PEER_GONE = 4

PEER_PATIENCE_S = 60.0
"""Beside what they may wait for others. At the first start they may come in their own time."""

EPOCH = timedelta(seconds=5)
"""Bytewax's epoch: a source reads into the next one when every source has finished the previous, and spins until then.
Short epochs therefore cost latency and CPU (100 ms: 71 ms to servable instead of 14, and a fifth of a core at rest); a
long one bounds less tightly what a fast reader can pile up in front of a slow writer in another process."""


_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a flow is built from.

    Attributes:
        definitions: the registered ones.
        repo: what they were when the parts were made.
        store: the online store.
        log: where events come from.
        dead_letters: where refused records go.
        reports: where it is said what breaks a contract.
        shared: what all steps of this process share.
        is_supervised: somebody can plan again when this flow ends.
        opened: what a flow opens beside it, to be closed when it has ended.
    """

    definitions: Definitions
    repo: RepoSpec
    store: TileStore
    log: SourceLog
    dead_letters: DeadLetterWriter
    reports: ContractReports
    shared: Shared
    is_supervised: bool
    opened: ExitStack = field(default_factory=ExitStack)


Result = TypeVar("Result")
Settings = TypeVar("Settings", bound=FlowSettings)
BuildFlow = Callable[[StreamSettings, Parts, StreamPlan], Dataflow]
RunOnce = Callable[[Shared, float | None], bool]


def main(read_settings: Callable[[], Settings], run_stream: Callable[[Settings], None]) -> int:
    """Run a stream until it is stopped or fails; returns the exit code, having explained it."""

    def start() -> None:
        settings = read_settings()
        if settings.metrics_port is not None:
            serve_metrics(REGISTRY, settings.host, settings.metrics_port)
        run_stream(settings)

    return exit_code_of(start)


def exit_code_of(start: Callable[[], None]) -> int:
    """Run a stream and return the process's exit code, having explained an error."""
    configure_logging()
    try:
        start()
    except WriterFenced as error:
        return _explain(error, EXIT_FENCED)
    except (FeatureStoreError, OSError) as error:
        if shows_tracebacks():
            _logger.exception("where it comes from")
        return _explain(error if isinstance(error, FeatureStoreError) else of_system(error), EXIT_ERROR)
    except PeerGone as error:
        _logger.error("%s", error)
        return EXIT_PEER_GONE
    return 0


def keep_running(settings: FlowSettings, run_once: RunOnce) -> None:
    """Run, and again while runs end to be planned again.

    Args:
        settings: of the stream.
        run_once: plans and runs a flow, given what its steps share, and how long to wait for the other processes (see
            `run_flow`). Returns whether it came to that, or was ended before.

    Raises:
        FeatureStoreError: why the run failed.
        PeerGone: another process of the cluster ended without saying goodbye.
    """
    signals = Signals()
    shared: Shared | None = None
    while True:
        conductor = Conductor()
        # Before anything is waited for: a signal ends the waiting too.
        signals.end(conductor)
        # Each of the others may wait for the registry and the store, and then for the source.
        patience_s = None if shared is None else PEER_PATIENCE_S + 2 * settings.patience_seconds
        shared = shared_by(settings, conductor, None if shared is None else shared.progress)
        has_run = run_once(shared, patience_s)
        if conductor.outcome is RunOutcome.FAILED:
            raise conductor.error or PeerGone(f"another process of the cluster failed: {conductor.cause}")
        if conductor.outcome is not RunOutcome.REBUILD:
            if has_run:
                _logger.info("stream ended: %s", conductor.cause)
            return
        _logger.info("planning again: %s", conductor.cause)


def shared_by(settings: FlowSettings, conductor: Conductor, progress: StreamProgress | None = None) -> Shared:
    """What the steps of a flow share; the progress of the run before goes on."""
    clock = SystemClock()
    return Shared(
        conductor=conductor,
        progress=progress or StreamProgress(clock, interval_seconds=settings.progress_seconds),
        clock=clock,
        until_end=settings.until_end,
        patience_seconds=settings.patience_seconds,
    )


def run(settings: StreamSettings, build: BuildFlow) -> None:
    """The tile stream, until a run ends for good; raises as `keep_running`."""
    definitions = Definitions(settings.registry, settings.project)

    def run_once(shared: Shared, peers_patience_s: float | None) -> bool:
        parts = unless_stopped(shared.conductor, partial(connect_parts, settings, definitions, shared))
        if parts is None:
            return False
        try:
            return _run_once(settings, parts, build, peers_patience_s)
        finally:
            parts.opened.close()
            parts.store.close()

    keep_running(settings, run_once)


def _run_once(settings: StreamSettings, parts: Parts, build: BuildFlow, peers_patience_s: float | None) -> bool:
    """One plan, one flow."""
    conductor = parts.shared.conductor
    current = unless_stopped(conductor, lambda: plan(settings, parts))
    if conductor.is_ending:
        return False
    if current is None:
        conductor.end(RunOutcome.REBUILD, "other definitions were registered meanwhile")
        return False
    _logger.info("%s", _describe(current))
    run_planned(build(settings, parts, current), settings, parts.shared, peers_patience_s)
    if settings.until_end and not conductor.drops_batches:
        _promote_finished(parts, current)
    return True


def connect_parts(
    settings: StreamSettings, definitions: Definitions, shared: Shared | None = None, *, is_supervised: bool = True
) -> Parts:
    """Open everything a flow needs.

    Raises:
        FeatureStoreError: something cannot be used; what does not answer is retried for the patience first.
    """
    shared = shared or shared_by(settings, Conductor(raises=not is_supervised))
    store = patiently(shared, lambda: connect_store(settings.store_url, cluster=settings.store_cluster))
    repo = patiently(shared, definitions.read)
    if not repo.views:
        raise InvalidRequest(
            f'project "{settings.project}" has no stream feature views',
            hint="define some, and run `featurestore apply`",
        )
    log, dead_letters = open_log(settings, [view.source for view in stored_views(repo)], shared.clock)
    return Parts(
        definitions=definitions,
        repo=repo,
        store=OnlineTileStore(
            store, settings.project, shared.clock, merge_after_ms=int(settings.merge_after_seconds * 1_000)
        ),
        log=log,
        dead_letters=dead_letters,
        reports=open_reports(settings, [view.source for view in stored_views(repo)]),
        shared=shared,
        is_supervised=is_supervised,
    )


def unless_stopped(conductor: Conductor, action: Callable[[], Result]) -> Result | None:
    """Do something that waits for other parts; None when a signal ended the waiting: nothing was begun yet."""
    try:
        return action()
    except Unavailable as error:
        if conductor.outcome is not RunOutcome.STOPPED:
            raise
        _logger.info("stream ended: %s while it waited: %s", conductor.cause, error.message)
        return None


def plan(settings: StreamSettings, parts: Parts) -> StreamPlan | None:
    """What to write and from where; tells the conductor which ends to wait for.

    Returns:
        None when other definitions have been registered since the parts were made: connect again.
    """

    def attempt() -> StreamPlan | None:
        # The wait may be long. A definition that is outdated by now must not be registered: it would retire what was
        # begun for the newer one. Nor is one whose records cannot be read yet.
        views = stored_views(parts.repo)
        if stored_views(parts.definitions.read()) != views:
            return None
        for view in views:
            for source in view.source.per_topic:
                parts.log.partitions(source)
        return make_stream_plan(parts.store, parts.log, views, are_current=parts.definitions.is_current)

    made = patiently(parts.shared, attempt)
    if made is not None and settings.until_end:
        parts.shared.conductor.await_ends(
            PartitionEnd(stage.name, start.source.topic, start.partition)
            for stage in made.stages
            for start in stage.starts
        )
    return made


def configure_logging() -> None:
    """Plain lines on stderr, unless the process that embeds us has set logging up already."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    # A line for each request of the schema registry's client says nothing that its errors do not.
    logging.getLogger("httpx2").setLevel(logging.WARNING)


class Signals:
    """SIGTERM and Ctrl-C: read nothing more, commit what was read, exit. A second one ends the process at once.

    One for the process's life, so that a signal between two runs is not lost. To be made in the main thread.
    """

    def __init__(self) -> None:
        self._conductor: Conductor | None = None
        self._received = ""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def end(self, conductor: Conductor) -> None:
        """From now on a signal ends the run of this conductor; so does one that came before."""
        self._conductor = conductor
        if self._received:
            conductor.end(RunOutcome.STOPPED, self._received)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        """Ask for the end; the next signal of this kind is not ours any more."""
        signal.signal(number, signal.SIG_DFL)
        self._received = f"received {signal.Signals(number).name}"
        if self._conductor is not None:
            self._conductor.end(RunOutcome.STOPPED, self._received)


class PeerGone(Exception):
    """Another process of the cluster is gone."""


def run_flow(
    flow: Dataflow,
    conductor: Conductor,
    addresses: Sequence[str],
    process_id: int,
    *,
    peers_patience_s: float | None = None,
) -> None:
    """Run a flow to its end, alone or as a process of a cluster.

    Args:
        flow: what to run.
        conductor: its.
        addresses: of the cluster's processes.
        process_id: which of them this is.
        peers_patience_s: how long the others are waited for, before EXIT_PEER_GONE; None for ever.

    Raises:
        PeerGone: another process of the cluster ended without saying goodbye.
    """
    cluster: dict[str, object] = {}
    if len(addresses) > 1:
        cluster = {"process_id": process_id, "addresses": list(addresses)}
        if peers_patience_s is not None:
            threading.Thread(target=_end_without_peers, args=(conductor, peers_patience_s), daemon=True).start()
    spare_what_lives()
    try:
        cli_main(flow, epoch_interval=EPOCH, **cluster)  # type: ignore[no-untyped-call]  # Rust, without types
    except BaseException as error:
        # Bytewax's Rust side panics when a connection to another process breaks. The exception's class derives from
        # BaseException and cannot be imported.
        if type(error).__name__ == "PanicException":
            raise PeerGone("another process of the cluster is gone; restart this one with it") from error
        raise


def run_planned(flow: Dataflow, settings: FlowSettings, shared: Shared, peers_patience_s: float | None) -> None:
    """`run_flow`, and the last figures of its progress."""
    run_flow(flow, shared.conductor, settings.addresses, settings.process_id, peers_patience_s=peers_patience_s)
    shared.progress.show(is_last=True)


def _end_without_peers(conductor: Conductor, patience_s: float) -> None:
    """End the process if the others do not come: one that was killed between two runs would be waited for for ever.

    Bytewax waits for them in Rust, where nothing can be told to it. Nothing was read yet, so nothing is lost.
    """
    if not conductor.has_begun.wait(patience_s):
        _logger.error("another process of the cluster did not come within %g s; restart this one with it", patience_s)
        os._exit(EXIT_PEER_GONE)


def _promote_finished(parts: Parts, current: StreamPlan) -> None:
    """After both stages have read to the end: what was catching up has nothing left to catch up with."""
    if not current.catch_up.generations:
        return
    shared = parts.shared
    watch = PlanWatch(current, parts.store, parts.log, shared.conductor, shared.clock, may_replan=False)
    for _ in ("note where the live generations are", "see that the others are there too"):
        watch.promote_caught_up()


def open_log(settings: FlowSettings, sources: Iterable[SourceSpec], clock: Clock) -> tuple[SourceLog, DeadLetterWriter]:
    """Where the events of some sources come from, and where refused ones go."""
    letter_dir, options = settings.dead_letter_dir, settings.kafka_options
    policy = payload_policy(settings.dead_letter_payloads, settings.dead_letter_key_file)
    kept_ms = FILE_RETENTION_MS if settings.dead_letter_retention_ms is None else settings.dead_letter_retention_ms
    log = open_source_log(
        settings.log_dir,
        settings.bootstrap_servers,
        options,
        settings.schema_registry_options,
        clock,
        group=settings.kafka_group,
    )
    directory = letter_dir or settings.log_dir
    if isinstance(log, FileLog) or directory is not None:
        assert directory is not None, "an embedded log has one"
        return log, FileDeadLetters(directory, policy, clock, kept_ms)
    servers = {topic: log.servers(source) for source in sources for topic in source.topics}
    return log, KafkaDeadLetters(servers, options, policy, settings.dead_letter_retention_ms)


def open_reports(settings: FlowSettings, sources: Iterable[SourceSpec]) -> ContractReports:
    """Where it is said what breaks the contracts of some sources: beside their dead letters."""
    directory = settings.dead_letter_dir or settings.log_dir
    if directory is not None:
        return FileReports(directory)
    given = settings.bootstrap_servers or settings.kafka_options.get("bootstrap.servers", "")
    servers = {topic: given or source.bootstrap_servers for source in sources for topic in source.topics}
    return KafkaReports(servers, settings.kafka_options)


def _describe(current: StreamPlan) -> str:
    """The plan in a line."""
    parts = []
    for stage in current.stages:
        if stage.generations:
            names = ", ".join(f"{one.view.name}@{one.number}" for one in stage.generations)
            parts.append(f"{stage.name}: {names} from {len(stage.starts)} partitions")
    return "; ".join(parts) or "nothing to do"


def _explain(error: FeatureStoreError, code: int) -> int:
    """Log the error for whoever starts the process again, and return the exit code."""
    _logger.error("%s", error)
    return code
