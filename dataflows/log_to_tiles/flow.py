"""The stream: events to tiles.

    read ──> decode ──> key ──> commit        payloads, columns, keyed batches, tiles + offsets in the online store
               │          │
               └──────────┴──> dead letters   what cannot be folded, durable before the commit that passes it

    live       follows the log for the generations that readers see
    catch_up   the same chain for generations that are still behind, so that they delay nothing
    control    heartbeats, and the goodbye that ends all processes of a cluster together

Run it as `featurestore stream`, as `python -m dataflows.log_to_tiles`, or under Bytewax's own runner, with the
settings from the environment (see settings.py):

    python -m dataflows.log_to_tiles --project payments --registry data/registry.db --store-url redis://127.0.0.1:6379
    FEATURESTORE_PROJECT=payments ... python -m bytewax.run dataflows.log_to_tiles.flow:flow

Several processes share the work as a Bytewax cluster: each is started with the same `--addresses a:2101;b:2101` and its
own `--process-id` (under bytewax.run: `-a`, `-i`, and FEATURESTORE_WRITERS set to the number of processes). Source
partitions and writers are dealt out evenly. Give the steps processes, not threads: they are Python. When one process
dies the others end too, and the supervisor that starts them again (systemd, Kubernetes, docker compose) needs no order:
where to go on is in the online store.
"""

from __future__ import annotations

import os
import sys

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from dataflows import supervisor
from dataflows.dead_letters.writer import FileDeadLetters
from dataflows.log_to_tiles.routing import DecodeStep, KeyStep, writer_keys
from dataflows.log_to_tiles.sink import TileSink
from dataflows.logs.pace import CATCH_UP_RECORDS, Pace
from dataflows.logs.sources import ControlSource, EventSource, Watch
from dataflows.logs.tables import LiveTables
from dataflows.plan.contract_figures import ContractFigures
from dataflows.plan.contracts import Contracts
from dataflows.plan.definitions import Definitions, RegistryWatch
from dataflows.plan.freshness_figures import FreshnessFigures
from dataflows.plan.stream_plan import PlanWatch, Stage, StreamPlan
from dataflows.progress import show_owners
from dataflows.settings import StreamSettings, from_command_line, from_environment
from dataflows.supervisor import Parts
from featurestore.core.spec import RepoSpec
from featurestore.definitions.compile.versions import stored_views

FLOW_NAME = "tiles"


def build(settings: StreamSettings, parts: Parts, plan: StreamPlan) -> Dataflow:
    """The dataflow of one plan.

    Every process of a cluster builds the same steps, whatever its plan holds: Bytewax requires it.
    """
    flow = Dataflow(FLOW_NAME)
    shared = parts.shared
    watch = PlanWatch(plan, parts.store, parts.log, shared.conductor, shared.clock, may_replan=parts.is_supervised)
    watches: list[Watch] = [watch]
    if parts.is_supervised:
        planned = _wanted(parts.repo)
        watches.append(RegistryWatch(parts.definitions, _wanted, planned, shared.conductor, shared.clock))
    if isinstance(parts.dead_letters, FileDeadLetters):
        watches.append(parts.dead_letters)
    control = op.input("control", flow, ControlSource(writer_keys(settings.writers), shared, watches))
    contracts = Contracts(parts.repo)
    sources = {contracts.source_of(one.view) for stage in plan.stages for one in stage.generations}
    tables = LiveTables(parts.log, sources, shared, settings.repo)
    parts.opened.callback(tables.close)
    figures = ContractFigures(parts.store, parts.reports, shared.clock, parts.repo.usual_hours)
    freshness = FreshnessFigures(parts.store, shared.clock, parts.repo.promises, plan.live.generations)
    show_owners([one for stage in plan.stages for one in stage.generations], parts.repo.access)
    shared.progress.keep_beside(figures.tick, freshness.tick, note=freshness.note)
    # A run that ends with the log has nobody who waits.
    pace = Pace(shared.clock) if plan.live.generations and not settings.until_end else None
    for stage, other in (plan.stages, plan.stages[::-1]):
        is_late = pace is not None and stage is plan.catch_up
        records_max = min(settings.batch_records, CATCH_UP_RECORDS) if is_late else settings.batch_records
        source = EventSource(stage.name, parts.log, stage.starts, shared, records_max=records_max, pace=pace)
        read = op.input(f"{stage.name}_read", flow, source)
        decode = _decode_step(parts, stage, other, contracts, figures, tables)
        decoded = op.flat_map(f"{stage.name}_decode", read, decode)
        keyed = op.flat_map(
            f"{stage.name}_key",
            decoded,
            KeyStep(parts.dead_letters, shared, lane_count=plan.lane_count, writer_count=settings.writers),
        )
        routed = op.merge(f"{stage.name}_with_control", keyed, control)
        sink = TileSink(stage, parts.store, shared, lane_count=plan.lane_count, writer_count=settings.writers)
        op.output(f"{stage.name}_commit", routed, sink)
    return flow


def flow() -> Dataflow:
    """The dataflow for `python -m bytewax.run dataflows.log_to_tiles.flow:flow`; settings come from the environment.

    Bytewax's runner starts a flow once, so what a supervised run heals by planning again (a store that went back in
    time, a generation that has caught up) ends this one with an error, or waits for the next start.
    """
    settings = from_environment(os.environ)
    supervisor.configure_logging()
    definitions = Definitions(settings.registry, settings.project)
    parts = supervisor.connect_parts(settings, definitions, is_supervised=False)
    signals = supervisor.Signals()
    signals.end(parts.shared.conductor)
    while (plan := supervisor.plan(settings, parts)) is None:
        parts.store.close()
        parts = supervisor.connect_parts(settings, definitions, is_supervised=False)
        signals.end(parts.shared.conductor)
    return build(settings, parts, plan)


def main(arguments: list[str] | None = None, *, program: str = "python -m dataflows.log_to_tiles") -> int:
    """Run the stream until it is stopped; returns the process's exit code (see supervisor.py)."""
    given = sys.argv[1:] if arguments is None else arguments
    return supervisor.main(
        lambda: from_command_line(given, os.environ, program=program), lambda settings: supervisor.run(settings, build)
    )


def _decode_step(
    parts: Parts, stage: Stage, other: Stage, contracts: Contracts, figures: ContractFigures, tables: LiveTables
) -> DecodeStep:
    """The decode step of a stage; letters of records that both stages read are the live stage's, as is their check."""
    live = other if other.name == "live" else None
    checked = contracts.checked_by(one.view for one in stage.generations)
    return DecodeStep(
        stage,
        parts.log,
        parts.dead_letters,
        parts.shared,
        topics_lettered_elsewhere=() if live is None else live.topics,
        contracts=contracts,
        checked=checked - contracts.checked_by(() if live is None else (one.view for one in live.generations)),
        figures=figures,
        tables=tables,
    )


def _wanted(repo: RepoSpec) -> object:
    """What of the registered definitions a flow is planned for."""
    return stored_views(repo), repo.expectations, repo.usual_hours, repo.promises
