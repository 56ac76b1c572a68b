"""What a server writes beside its answers: traces, and a sample of the answers themselves."""

from __future__ import annotations

import importlib
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from featurestore.errors import InvalidRequest

if TYPE_CHECKING:
    from featurestore.clock import Clock
    from featurestore.serving.request.traces import Traces
    from featurestore.serving.sampling.sample import FeatureLog, FeatureRowsWriter

WRITERS: Mapping[str, str] = {"kafka": "dataflows.feature_log_topic:open_topic"}
"""Scheme of --log-features -> module:function that opens it; imported only when asked for, since it brings its vendor.
Every other address is a directory on some file system."""


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
