"""What `plan` and `apply` do alike: load a repo, compile it, check it against the schemas of its streams, compare."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.extras import missing_package
from featurestore.cli.settings import EVENT_LOG_VARIABLE, Decorated, event_places, text_at
from featurestore.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from featurestore.cli.repo.cost.facts import CostFacts
    from featurestore.cli.settings import Settings
    from featurestore.core.spec import RepoSpec
    from featurestore.definitions.changes import Change, Plan
    from featurestore.definitions.governance.policies import PolicyOutcome
    from featurestore.definitions.repo import LoadedRepo, RegisteredFeatureView
    from featurestore.definitions.schemas.checks import SchemaChecks
    from featurestore.definitions.schemas.subjects import Registries

REGISTRIES = "dataflows.logs.schemas"
"""As a text: the stream is a program of its own, and Kafka's packages are its."""

OPTIONS_VARIABLE = "FEATURESTORE_SCHEMA_REGISTRY_OPTION"
CONFIG_VARIABLE = "FEATURESTORE_SCHEMA_REGISTRY_CONFIG"
"""Environment variables of the stream's options: settings of the registry's client, one a line, and a file of them."""


CALLERS_DAYS = 30
"""Who has asked for a view within so many days is told before it changes."""

_MS_PER_DAY = 86_400_000


@dataclass(frozen=True, slots=True)
class PlannedRepo:
    """A repo without mistakes, and what an apply would change.

    Attributes:
        loaded: its Feast objects.
        plan: what changes.
        notes: what is to be known.
        warnings: what somebody should see to.
        is_shared: whether other repos have objects in the registry, which an apply leaves alone.
        followers: views of theirs that an apply writes with what a source of this repo has become.
        hashes: of the definition of each stream view.
    """

    loaded: LoadedRepo
    plan: Plan
    notes: Sequence[str]
    warnings: Sequence[str]
    is_shared: bool = False
    followers: Sequence[RegisteredFeatureView] = ()
    hashes: Mapping[str, str] = field(default_factory=dict)


def planned_repo(settings: Settings, policies: str | None = None) -> PlannedRepo:
    """Plan a repo.

    Args:
        settings: where it is.
        policies: path or address of the rules that it is held against; default: what its settings say.

    Raises:
        DefinitionError: the repo has mistakes; it carries all of them.
    """
    from featurestore.definitions.changes import compiled_or_empty
    from featurestore.definitions.registry import find_registry_bytes
    from featurestore.definitions.repo import load_repo
    from featurestore.definitions.written.others import among_others, check_readers, deprecations_read, with_readers
    from featurestore.definitions.written.plan import plan_of
    from featurestore.wire.codecs.view_json import definition_hash

    name = settings.repo_name
    shared = among_others(load_repo(settings.require_repo(), settings.project), settings.registry, name)
    loaded = shared.loaded
    registered = find_registry_bytes(settings.registry, with_all_versions=True)
    after = loaded.compile(registered)
    checks = _checks(compiled_or_empty(registered, settings.project), after.spec)
    kept = _held_against(policies or settings.policies, settings, after.spec, loaded)
    others = (*shared.problems, *check_readers(shared, after.spec, name, _today()))
    after = replace(after, problems=(*others, *after.problems, *checks.problems, *kept.violations))
    plan = with_readers(plan_of(loaded, after, settings.registry), shared, name)
    notes = (*after.notes, *checks.notes, *kept.notes, *deprecations_read(shared, after.spec, name))
    plan = _with_callers(plan, compiled_or_empty(registered, settings.project), settings.audit)
    hashes = {view.name: definition_hash(view) for view in after.spec.views}
    return PlannedRepo(loaded, plan, notes, checks.warnings, shared.is_shared, shared.followers, hashes)


def _with_callers(plan: Plan, before: RepoSpec, audit: Path | None) -> Plan:
    """A plan whose changed and removed views say who has looked them up of late, as far as the audit log tells."""
    from featurestore.definitions.changes import Action
    from featurestore.definitions.governance.audit.journal import MANIFEST
    from featurestore.definitions.governance.audit.reading import callers_of

    if audit is None or not (audit / MANIFEST).is_file():
        return plan
    since_ms = SystemClock().now_ms() - CALLERS_DAYS * _MS_PER_DAY
    services = {service.name: {one.view for one in service.features} for service in before.services}

    def told(change: Change) -> Change:
        if change.action is Action.ADD or not change.kind.endswith("feature view"):
            return change
        asked = [
            f"asked for by {one.who} through {name}: {one.rows:,} rows in {CALLERS_DAYS} days"
            for name, views in services.items()
            if change.name in views
            for one in callers_of(audit, name, since_ms)
        ]
        return replace(change, details=(*change.details, *asked))

    return replace(plan, changes=tuple(map(told, plan.changes)))


def _today() -> date:
    """By UTC."""
    return datetime.fromtimestamp(SystemClock().now_ms() / 1_000, tz=UTC).date()


def _held_against(place: str, settings: Settings, spec: RepoSpec, loaded: LoadedRepo) -> PolicyOutcome:
    """What the rules of the platform team say of a repo."""
    from featurestore.definitions.governance.facts import ENTITY_BYTES, subjects_of
    from featurestore.definitions.governance.policies import Policies, check_policies, read_policies

    policies = read_policies(text_at(place, "policies"), place) if place else Policies()
    subjects, notes = subjects_of(spec, loaded.registry), tuple[str, ...]()
    if policies.asks_for("view", ENTITY_BYTES):
        told = _cost_facts(settings, spec)
        subjects = [
            replace(one, facts={**one.facts, ENTITY_BYTES: told.entity_bytes.get(one.name)})
            if one.kind == "view"
            else one
            for one in subjects
        ]
        notes = told.notes
    outcome = check_policies(policies, subjects, _today())
    return replace(outcome, notes=(*outcome.notes, *notes))


def _cost_facts(settings: Settings, spec: RepoSpec) -> CostFacts:
    """What history tells of the repo's views, where the event logs are."""
    from featurestore.cli.repo.cost.facts import cost_facts
    from featurestore.cli.repo.cost.history import SourceHistories
    from featurestore.definitions.compile.versions import stored_views

    views, clock = stored_views(spec), SystemClock()
    place = os.environ.get(EVENT_LOG_VARIABLE)
    places = event_places([place] if place else []) or settings.event_logs
    histories = SourceHistories(places, {view.source.name for view in views}, clock.now_ms(), settings.repo)
    return cost_facts(views, histories, settings.project, clock)


def schema_registry_options(function: Decorated) -> Decorated:
    """Settings of the registry's client, which a command gets as `options` and `config_file`, for `registries`."""
    for option in (
        click.option(
            "--schema-registry-config",
            "config_file",
            type=click.Path(exists=True, dir_okay=False),
            help=f"File of such settings, KEY=VALUE a line. Default: ${CONFIG_VARIABLE}.",
        ),
        click.option(
            "--schema-registry-option",
            "options",
            multiple=True,
            metavar="KEY=VALUE",
            help=f"Setting of the registry's client; may be repeated. Default: ${OPTIONS_VARIABLE}.",
        ),
    ):
        function = option(function)
    return function


def registries(command: str, options: str = "", config_file: str = "") -> Registries:
    """The schema registries, by settings of their client, one a line, and a file of them; else the environment's.

    Raises:
        InvalidRequest: the packages to ask one are not installed, or the settings cannot be read.
    """
    try:
        found: Registries = importlib.import_module(REGISTRIES).registries_of(
            config_file or os.environ.get(CONFIG_VARIABLE, ""), options or os.environ.get(OPTIONS_VARIABLE, "")
        )
    except ModuleNotFoundError as error:
        raise missing_package(command, error, extra="stream") from error
    return found


def _checks(before: RepoSpec, after: RepoSpec) -> SchemaChecks:
    """What the newest schemas say of a repo."""
    from featurestore.definitions.changes import changed_views
    from featurestore.definitions.compile.versions import stored_views
    from featurestore.definitions.schemas.checks import SchemaChecks, check_schemas, sources_with_schemas
    from featurestore.errors import FeatureStoreError

    views = stored_views(after)
    if not (sources := sources_with_schemas(views)):
        return SchemaChecks()
    try:
        return check_schemas(views, changed_views(before.views, after.views), registries("plan"))
    except FeatureStoreError as error:
        names = dict.fromkeys(source.name for source, _ in sources)
        text = 'source "{}" is not checked against its schema: {}'
        return SchemaChecks(notes=[text.format(name, error.message) for name in names])
