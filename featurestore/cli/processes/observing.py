"""What a server writes beside its answers: traces, and a sample of the answers themselves."""

from __future__ import annotations

import importlib
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.settings import QUOTAS_VARIABLE, Decorated, FiniteRange, text_at
from featurestore.definitions.governance.audit.directory import AUDIT_VARIABLE
from featurestore.errors import InvalidRequest

if TYPE_CHECKING:
    from featurestore.clock import Clock
    from featurestore.definitions.governance.audit.journal import Journal
    from featurestore.definitions.governance.quotas import Quotas
    from featurestore.serving.request.traces import Traces
    from featurestore.serving.sampling.sample import FeatureLog, FeatureRowsWriter

WRITERS: Mapping[str, str] = {"kafka": "dataflows.feature_log_topic:open_topic"}
"""Scheme of --log-features -> module:function that opens it; imported only when asked for, since it brings its vendor.
Every other address is a directory on some file system."""

_META = "featurestore.usage"


def open_traces(exporter: str, clock: Clock) -> Traces | None:
    """What makes the spans of --traces; None for none, and where OTEL_SDK_DISABLED says so.

    Raises:
        InvalidRequest: an OTEL_* variable asks for what is not there, or a package is missing.
    """
    if exporter == "none":
        return None
    try:
        from featurestore.serving.request.traces import Traces, open_otlp
    except ModuleNotFoundError as error:
        raise InvalidRequest(
            f'`--traces otlp` needs the Python package "{error.name}", which is not installed',
            hint='pip install "featurestore[traces]"',
        ) from error
    provider = open_otlp()
    return None if provider is None else Traces(provider, clock)


def open_feature_log(address: str | None, share: float, roll_seconds: float, clock: Clock) -> FeatureLog | None:
    """The log behind --log-features.

    Args:
        address: a directory, a URI such as s3://bucket/log, or one whose scheme is in WRITERS; None for no log.
        share: of the requests.
        roll_seconds: how long a row waits for its file.
        clock: dates rows.

    Raises:
        InvalidRequest: the address cannot be used.
    """
    if address is None:
        return None
    try:
        from featurestore.offline.parity.feature_log import FeatureLogWriter
        from featurestore.offline.parity.log_directory import LogDirectory
        from featurestore.serving.sampling.sample import FeatureLog

        scheme = address.partition("://")[0]
        writer: FeatureRowsWriter
        if scheme in WRITERS:
            module_name, _, name = WRITERS[scheme].partition(":")
            open_writer: Callable[[str], FeatureRowsWriter] = getattr(importlib.import_module(module_name), name)
            writer = open_writer(address)
        else:
            writer = FeatureLogWriter(LogDirectory(address), secrets.token_hex(4), roll_seconds=roll_seconds)
    except ModuleNotFoundError as error:
        raise InvalidRequest(
            f'`--log-features {address}` needs the Python package "{error.name}", which is not installed',
            hint="install the extra that brings it, or everything by `pip install featurestore[all]`",
        ) from error
    return FeatureLog(writer, clock, share=share)


def usage_options(function: Decorated) -> Decorated:
    """Options about who asks for what; the command's context keeps them, for `open_audit` and `open_quotas`."""

    def remember(context: click.Context, option: click.Parameter, value: object) -> None:
        context.meta[f"{_META}.{option.name}"] = value

    for option in (
        click.option(
            "--quotas",
            metavar="PATH|URL",
            envvar=QUOTAS_VARIABLE,
            show_envvar=True,
            expose_value=False,
            callback=remember,
            help="How much callers and services may take. Default: what feature_store.yaml says, else as they like.",
        ),
        click.option(
            "--audit-share",
            type=FiniteRange(0, 1),
            default=0.0,
            show_default=True,
            expose_value=False,
            callback=remember,
            help="Share of single calls in it; those of services with personal data are all in it.",
        ),
        click.option(
            "--audit",
            type=click.Path(file_okay=False, path_type=Path),
            envvar=AUDIT_VARIABLE,
            show_envvar=True,
            expose_value=False,
            callback=remember,
            help="Keep there who asks for what. Default: what feature_store.yaml says, else nowhere.",
        ),
    ):
        function = option(function)
    return function


def open_audit(of_repo: Path | None, clock: Clock) -> tuple[Journal, float] | None:
    """The audit log, and the share of single calls in it; None for none.

    Args:
        of_repo: directory that the repo's file names, where no option does.
        clock: dates lines.

    Raises:
        SourceUnavailable: it cannot be written now; a server whose log is full does not begin.
    """
    from featurestore.definitions.governance.audit.journal import Journal

    given = click.get_current_context().meta
    directory = given[f"{_META}.audit"] or of_repo
    return None if directory is None else (Journal(directory, clock), given[f"{_META}.audit_share"])


def open_quotas(of_repo: str) -> Quotas:
    """How much callers and services may take.

    Args:
        of_repo: path or address that the repo's file names, where no option does; "" for none.

    Raises:
        InvalidRequest, SourceUnavailable: they cannot be read, or are no quotas.
    """
    from featurestore.definitions.governance.quotas import Quotas, read_quotas

    place = click.get_current_context().meta[f"{_META}.quotas"] or of_repo
    return read_quotas(text_at(place, "quotas"), place) if place else Quotas()
