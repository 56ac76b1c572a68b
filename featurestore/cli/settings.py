"""Where a command finds its repo, registry and online store: option, then environment, then feature_store.yaml.

    what            option            environment                  feature_store.yaml
    repo            --repo            FEATURESTORE_REPO            its directory; default ".", else "feature_repo"
    registry        --registry        FEATURESTORE_REGISTRY        registry, or registry.path
    project         --project         FEATURESTORE_PROJECT         project
    store's url     --store-url       FEATURESTORE_STORE_URL       online_store.connection_string
    is a cluster    --store-cluster   FEATURESTORE_STORE_CLUSTER   online_store.cluster
    who asks        --token-file      see `definitions/governance/access/auth_section.py`
    audit log                         FEATURESTORE_AUDIT           audit

The file is read as YAML, with $VARIABLES replaced as Feast does; Feast itself is not imported. A server that has
--registry and --project needs no repo at all.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
import yaml

from featurestore.definitions.governance.access.auth_section import AuthSection, auth_section
from featurestore.definitions.governance.audit.directory import audit_directory
from featurestore.errors import InvalidRequest, OnlineStoreDown, SourceUnavailable, redacted

if TYPE_CHECKING:
    from featurestore.catalog.lineage.openlineage import Run
    from featurestore.catalog.lineage.sending import LineageSender
    from featurestore.online.redis.store import RedisStore

FILE_NAME = "feature_store.yaml"

PORT = click.IntRange(0, 65_535)
"""Type of options for ports; 0 takes a free one. gRPC would take a larger one modulo 65,536."""
REPO_DEFAULTS = (Path(), Path("feature_repo"))
REGISTRY_DEFAULT = "data/registry.db"
EVENT_LOG_DEFAULT, EVENT_LOG_VARIABLE = "data/event_log", "FEATURESTORE_EVENT_LOG"
"""Where the event logs are, in the repo, and what says so otherwise."""

POLICIES_VARIABLE, QUOTAS_VARIABLE = "FEATURESTORE_POLICIES", "FEATURESTORE_QUOTAS"

RULES_TOKEN_VARIABLE = "FEATURESTORE_RULES_TOKEN"
LOOPBACK = ("localhost", "127.0.0.1", "::1")

RULES_TIMEOUT_S, RULES_BYTES_MAX = 10.0, 1 << 20
"""For a file of rules at an address."""

STORE_TYPE = "featurestore.feast.RealTimeOnlineStore"
"""`online_store.type` of a repo whose store settings are ours to read."""

LINEAGE = "featurestore.lineage"
"""Where a command keeps where its lineage goes."""

Decorated = TypeVar("Decorated", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """How to reach the online store.

    Attributes:
        url: redis://, rediss:// or unix:// address; None means the embedded store.
        cluster: whether the address is a node of a Redis Cluster.
    """

    url: str | None = None
    cluster: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """Where things are.

    Attributes:
        repo: directory of feature_store.yaml; None when registry and project were given without one.
        project: Feast project name.
        registry: path of the registry file (absolute) or SQLAlchemy URL; goes into `read_registry`.
        store: the online store.
        policies, quotas: path or address of the platform team's rules; "" for none.
        repo_name: which of the repos in the registry it is; "" where it is the only one.
        auth: whose tokens hold, as its file says.
        audit: directory of the audit log; None for none.
    """

    repo: Path | None
    project: str
    registry: str
    store: StoreSettings
    policies: str = ""
    quotas: str = ""
    repo_name: str = ""
    auth: AuthSection = field(default_factory=AuthSection)
    audit: Path | None = None

    def require_repo(self) -> Path:
        """The repo's directory.

        Raises:
            InvalidRequest: there is none.
        """
        if self.repo is None:
            raise InvalidRequest("there is no feature repo here", hint=f"give --repo, the directory of {FILE_NAME}")
        return self.repo

    @property
    def event_logs(self) -> str:
        """Where the event logs are when nothing says otherwise.

        Raises:
            InvalidRequest: there is no repo.
        """
        if self.repo is None:
            raise InvalidRequest(
                "the event log's address is not known", hint=f"give --event-log or set {EVENT_LOG_VARIABLE}"
            )
        return str(self.repo / EVENT_LOG_DEFAULT)


def load_settings(
    *,
    repo: Path | None = None,
    registry: str | None = None,
    project: str | None = None,
    store_url: str | None = None,
    cluster: bool | None = None,
) -> Settings:
    """Settings from what was given, else from the environment, else from the repo's file.

    Raises:
        InvalidRequest: neither a repo nor both registry and project can be found, or the file is wrong.
    """
    environment = os.environ
    registry = registry or environment.get("FEATURESTORE_REGISTRY")
    project = project or environment.get("FEATURESTORE_PROJECT")
    store_url = store_url or environment.get("FEATURESTORE_STORE_URL")
    if cluster is None and "FEATURESTORE_STORE_CLUSTER" in environment:
        cluster = environment["FEATURESTORE_STORE_CLUSTER"].lower() in ("1", "true", "yes", "on")
    if repo is None and "FEATURESTORE_REPO" in environment:
        repo = Path(environment["FEATURESTORE_REPO"])
    directory = _find_repo(repo)
    if directory is None:
        if not (registry and project):
            raise InvalidRequest(
                "there is no feature repo here",
                hint=f"give --repo, the directory of {FILE_NAME}, or set FEATURESTORE_REPO",
            )
        store = StoreSettings(store_url, bool(cluster))
        return Settings(None, project, registry, store, audit=audit_directory({}, None))
    content = _read_yaml(directory / FILE_NAME)
    of_file = _store_settings(content.get("online_store"))
    return Settings(
        repo=directory,
        project=project or _text(content, "project", directory),
        registry=registry or _registry(content.get("registry"), directory),
        store=StoreSettings(store_url or of_file.url, of_file.cluster if cluster is None else cluster),
        policies=_rules(content, "policies", directory),
        quotas=_rules(content, "quotas", directory),
        repo_name=str(content.get("repo") or ""),
        auth=auth_section(content, directory),
        audit=audit_directory(content, directory),
    )


class FiniteRange(click.FloatRange):
    """A click.FloatRange without "nan" and "inf": click's own lets "nan" through, since no comparison with it fails."""

    def convert(self, value: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse one number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number


def settings_options(function: Decorated) -> Decorated:
    """The options of this page's table, for a click command; pass them to `load_settings(**...)`."""
    for option in (
        click.option(
            "--store-cluster/--no-store-cluster",
            "cluster",
            default=None,
            help="Whether the store is a Redis Cluster. Default: the repo's.  [env var: FEATURESTORE_STORE_CLUSTER]",
        ),
        click.option(
            "--store-url",
            metavar="URL",
            help="Online store, redis://host:port/db. Default: the repo's, else an embedded one."
            "  [env var: FEATURESTORE_STORE_URL]",
        ),
        registry_options,
    ):
        function = option(function)
    return function


def registry_options(function: Decorated) -> Decorated:
    """Those of them that say which definitions; for commands that need no store."""
    for option in (
        click.option(
            "--registry",
            metavar="PATH|URL",
            help="Feast registry. Default: the repo's.  [env var: FEATURESTORE_REGISTRY]",
        ),
        click.option(
            "--project", metavar="NAME", help="Feast project. Default: the repo's.  [env var: FEATURESTORE_PROJECT]"
        ),
        repo_option,
    ):
        function = option(function)
    return function


def event_log_option(name: str, metavar: str, text: str, *, is_list: bool = False) -> Callable[[Decorated], Decorated]:
    """The option --event-log, for a command that gets it as `name`."""
    return click.option(
        "--event-log",
        name,
        metavar=metavar,
        multiple=is_list,
        envvar=EVENT_LOG_VARIABLE,
        show_envvar=True,
        help=f"{text} Default: {EVENT_LOG_DEFAULT} of the repo.",
    )


def lineage_option(function: Decorated) -> Decorated:
    """The option --lineage, for a command whose work other catalogs may hear of; see `lineage_sender`."""
    return click.option(
        "--lineage",
        metavar="file:PATH|URL",
        envvar="FEATURESTORE_LINEAGE",
        show_envvar=True,
        expose_value=False,
        callback=_remember_lineage,
        help="Send OpenLineage events there: a file that lines are added to, or an endpoint. Default: nowhere.",
    )(function)


def _remember_lineage(context: click.Context, _option: click.Parameter, place: str | None) -> None:
    """For `lineage_sender`: where they go is of no concern to the commands themselves."""
    context.meta[LINEAGE] = place


def lineage_sender(project: str) -> LineageSender | None:
    """What sends events; None where nobody wants any.

    Raises:
        InvalidRequest: the place is none.
    """
    place = click.get_current_context().meta.get(LINEAGE)
    if not place:
        return None
    from featurestore.catalog.lineage.sending import LineageSender
    from featurestore.clock import SystemClock

    return LineageSender(place, project, SystemClock(), partial(click.echo, err=True))


def tell_lineage(project: str, run: Callable[[], Run]) -> None:
    """Say that a run begins, and when the command ends, how: where anybody wants to hear of it."""
    sender = lineage_sender(project)
    if sender is not None:
        click.get_current_context().with_resource(sender.during(run()))


def format_option(function: Decorated) -> Decorated:
    """The option --format, for a command that prints a table; it gets `output`."""
    return click.option(
        "--format",
        "output",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="A table for people, JSON for programs.",
    )(function)


def print_json(content: object) -> None:
    """What --format json prints: one value, in which texts stay as they are."""
    click.echo(json.dumps(content, indent=2, ensure_ascii=False))


def repo_option(function: Decorated) -> Decorated:
    """The option --repo alone."""
    return click.option(
        "--repo",
        type=click.Path(file_okay=False, path_type=Path),
        help=f"Directory of {FILE_NAME}. Default: here, or feature_repo.  [env var: FEATURESTORE_REPO]",
    )(function)


def time_ms(text: str | None, now_ms: int) -> int | None:
    """A moment, or a duration before now."""
    from featurestore.core.windows.durations import parse_duration_ms

    if not text:
        return None
    try:
        return now_ms - parse_duration_ms(text)
    except InvalidRequest:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            hint = "write a duration such as 2h, or a moment such as 2026-11-30T12:00:00Z"
            raise InvalidRequest(f'"{text}" is no time', hint=hint) from None
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000)


def text_at(place: str, what: str) -> str:
    """A file of rules, here or at an address.

    Args:
        place: path or address; whoever keeps one may want the token in RULES_TOKEN_VARIABLE.
        what: they are, as the option is called.

    Raises:
        InvalidRequest: it cannot be read.
        SourceUnavailable: the address does not answer. Without the rules nobody can say that they are kept.
    """
    import urllib.request
    from http.client import HTTPException
    from urllib.parse import urlsplit

    if not place.startswith(("http://", "https://")):
        try:
            return Path(place).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f'{what} "{place}" cannot be read', detail=str(error)) from error
    request = urllib.request.Request(place)
    if token := os.environ.get(RULES_TOKEN_VARIABLE):
        if place.startswith("http://") and urlsplit(place).hostname not in LOOPBACK:
            hint = f"write https://, or unset {RULES_TOKEN_VARIABLE}"
            raise InvalidRequest(f'{what} at "{redacted(place)}" would be asked for in clear text', hint=hint)
        # A redirection leads elsewhere, where nobody may see it.
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=RULES_TIMEOUT_S) as answer:
            return bytes(answer.read(RULES_BYTES_MAX)).decode()
    except (OSError, ValueError, HTTPException) as error:
        hint = f"try again, or give a copy by --{what} PATH"
        raise SourceUnavailable(
            f'{what} at "{redacted(place)}" cannot be read', detail=str(error), hint=hint
        ) from error


def policies_option(function: Decorated) -> Decorated:
    """The option --policies, for a command that plans; it gets `policies`."""
    return click.option(
        "--policies",
        metavar="PATH|URL",
        envvar=POLICIES_VARIABLE,
        show_envvar=True,
        help=f"The platform team's rules. Default: what {FILE_NAME} says, else none.",
    )(function)


def _find_repo(repo: Path | None) -> Path | None:
    """The directory with feature_store.yaml; None when none was named and none is near."""
    if repo is not None:
        if not (repo / FILE_NAME).is_file():
            raise InvalidRequest(f'"{repo}" is not a feature repo', hint=f"it must contain {FILE_NAME}")
        return repo.resolve()
    return next((path.resolve() for path in REPO_DEFAULTS if (path / FILE_NAME).is_file()), None)


def _read_yaml(path: Path) -> Mapping[str, object]:
    try:
        content = yaml.safe_load(os.path.expandvars(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidRequest(f'"{path}" cannot be read', detail=str(error)) from error
    if not isinstance(content, Mapping):
        raise InvalidRequest(f'"{path}" is not a mapping of settings')
    return content


def _text(content: Mapping[str, object], key: str, directory: Path) -> str:
    value = content.get(key)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f'"{directory / FILE_NAME}" has no "{key}"', hint=f"add `{key}: ...`")
    return value


def _registry(registry: object, directory: Path) -> str:
    """Absolute path or URL; a relative path counts from the repo, as in Feast."""
    path = registry.get("path") if isinstance(registry, Mapping) else registry
    if path is not None and not isinstance(path, str):
        raise InvalidRequest(f'"{directory / FILE_NAME}" has a registry that is not a path')
    location = path or REGISTRY_DEFAULT
    return location if "://" in location else str(directory / location)


def _rules(content: Mapping[str, object], key: str, directory: Path) -> str:
    """Where the file says that rules are; a relative path counts from the repo."""
    place = content.get(key)
    if place is not None and (not isinstance(place, str) or not place):
        raise InvalidRequest(f'"{directory / FILE_NAME}" has {key} that are neither a path nor an address')
    return "" if place is None else place if "://" in place else str(directory / place)


def _store_settings(online_store: object) -> StoreSettings:
    """The connection of our own online store; a repo of another type gives none."""
    if not isinstance(online_store, Mapping) or online_store.get("type") != STORE_TYPE:
        return StoreSettings()
    url = online_store.get("connection_string")
    return StoreSettings(url if isinstance(url, str) and url else None, bool(online_store.get("cluster", False)))


def event_places(texts: Sequence[str]) -> dict[str, str] | str | None:
    """What --event-log was given: places by source, or one place for all; None where nothing was given."""
    given = [text.partition("=") for text in texts]
    named = {source: path for source, equals, path in given if equals and "/" not in source}
    if named and len(named) < len(given):
        raise click.UsageError("give --event-log as SOURCE=PATH once for each source, or one PATH for all")
    if len(texts) > 1 and not named:
        raise click.UsageError("give --event-log as SOURCE=PATH when there are several")
    return named or (texts[0] if texts else None)


def open_running_store(settings: Settings) -> RedisStore:
    """The configured store, else the embedded one if it runs; nothing is started.

    Raises:
        OnlineStoreDown: there is none.
    """
    from featurestore.online.embedded import EmbeddedStore
    from featurestore.online.redis.store import connect

    if settings.store.url is not None:
        return connect(settings.store.url, cluster=settings.store.cluster)
    embedded = EmbeddedStore.for_repo(settings.repo)
    server = embedded.status()
    if server is None:
        raise OnlineStoreDown(
            f'no embedded store runs on "{embedded.data_dir}"',
            hint="run `featurestore store start`, or name a store by --store-url",
        )
    return connect(server.url)
