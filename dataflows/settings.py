r"""Settings of a stream process, each from a command line option or an environment variable.

`--log-dir data/log` and `FEATURESTORE_LOG_DIR=data/log` mean the same, and the option wins. Everything can come from
the environment because `python -m bytewax.run dataflows.log_to_tiles.flow:flow` leaves no room for options of our own.

    python -m dataflows.log_to_tiles --project payments --registry feature_repo/data/registry.db \
        --store-url redis://127.0.0.1:6379 --bootstrap-servers 127.0.0.1:9092
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featurestore.core.windows.durations import parse_duration_ms
from featurestore.errors import InvalidRequest
from featurestore.online.registration import MERGE_AFTER_MS

BATCH_RECORDS_DEFAULT = 8_192
"""Records in one read of a partition: large enough that a batch's fixed costs vanish, small enough for the cache."""

BATCH_RECORDS_MAX = 1_000_000
PORT_MAX = 65_535
PATIENCE_SECONDS_DEFAULT = 60.0
PROGRESS_SECONDS_DEFAULT = 10.0
METRICS_HOST_DEFAULT = "127.0.0.1"
MERGE_AFTER_SECONDS_DEFAULT = MERGE_AFTER_MS / 1_000

_TRUE = frozenset({"1", "true", "yes", "on"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowSettings:
    """What every stream process needs to know, whatever it makes of the events.

    Attributes:
        project: Feast project; names the keys in the store.
        registry: path or URL of the Feast registry.
        log_dir: directory of the embedded log; None reads Kafka.
        bootstrap_servers: Kafka addresses, overriding those of the definitions.
        kafka_options: librdkafka settings passed through (TLS, SASL, fetch sizes ...).
        schema_registry_options: settings of the schema registry's client (user, TLS, another URL).
        kafka_group: consumer group under which committed positions are published for lag tools; never read back.
        dead_letter_dir: directory of dead-letter files; None: the log directory, or topics when Kafka is read.
        dead_letter_payloads: what is kept of their payloads: "keep", "drop" or "encrypt".
        dead_letter_key_file: keys that encrypt them; None for none.
        dead_letter_retention_ms: how long letters are kept; None leaves topics to the broker, and files have a default.
        addresses: host:port of every process of a Bytewax cluster; empty runs one process.
        process_id: index of this process in `addresses`.
        batch_records: records in one read of a partition.
        until_end: stop at the end that every partition had at the start.
        metrics_port: port of the Prometheus endpoint; None serves none.
        host: address that it listens on.
        progress_seconds: time between plain progress lines (a terminal is refreshed every half second).
        patience_seconds: how long a store, source or file system that does not answer is retried before the process
            gives up.
    """

    project: str
    registry: str
    log_dir: Path | None = None
    bootstrap_servers: str = ""
    kafka_options: Mapping[str, str] = field(default_factory=dict)
    schema_registry_options: Mapping[str, str] = field(default_factory=dict)
    kafka_group: str = ""
    dead_letter_dir: Path | None = None
    dead_letter_payloads: str = "keep"
    dead_letter_key_file: Path | None = None
    dead_letter_retention_ms: int | None = None
    addresses: tuple[str, ...] = ()
    process_id: int = 0
    batch_records: int = BATCH_RECORDS_DEFAULT
    until_end: bool = False
    metrics_port: int | None = None
    host: str = METRICS_HOST_DEFAULT
    progress_seconds: float = PROGRESS_SECONDS_DEFAULT
    patience_seconds: float = PATIENCE_SECONDS_DEFAULT

    def __post_init__(self) -> None:
        """Refuse what cannot work before anything is connected."""
        if not 1 <= self.batch_records <= BATCH_RECORDS_MAX:
            raise InvalidRequest(f"batch of {self.batch_records} records is not within 1 to {BATCH_RECORDS_MAX}")
        if self.addresses and not 0 <= self.process_id < len(self.addresses):
            raise InvalidRequest(
                f"process id {self.process_id} is not an index of the {len(self.addresses)} addresses",
                hint="give each process of the cluster the same --addresses and its own --process-id, from 0",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings(FlowSettings):
    """What a process of the tile stream needs to know.

    Attributes:
        store_url: redis://, rediss:// or unix:// address of the online store.
        store_cluster: the store is a Redis Cluster.
        writers: how many writers share the store's lanes, at least one for each process.
        merge_after_seconds: how long a view is stored by itself before its storage group takes it in.
        repo: where relative paths of tables in files start; None is the current directory.
    """

    store_url: str
    store_cluster: bool = False
    writers: int = 1
    merge_after_seconds: float = MERGE_AFTER_SECONDS_DEFAULT
    repo: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work before anything is connected."""
        FlowSettings.__post_init__(self)  # super() does not find a class that was made anew with slots
        if self.writers < max(1, len(self.addresses)):
            raise InvalidRequest(
                f"{self.writers} writers cannot be shared by {len(self.addresses)} processes",
                hint="set --writers to the number of processes or a multiple of it, the same in every process",
            )


@dataclass(frozen=True, slots=True)
class Option:
    """One setting as an option; its environment variable is derived from the name unless given."""

    name: str
    help: str
    is_flag: bool = False
    is_required: bool = False
    is_list: bool = False
    variable: str = ""

    @property
    def environment_variable(self) -> str:
        """FEATURESTORE_ and the name in capitals."""
        return self.variable or "FEATURESTORE_" + self.name.upper()


OPTIONS: tuple[Option, ...] = (
    Option("project", "Feast project", is_required=True),
    Option("registry", "path or URL of the Feast registry", is_required=True),
    Option("store_url", "address of the online store, redis://host:port/db", is_required=True),
    Option("store_cluster", "the online store is a Redis Cluster", is_flag=True),
    Option("repo", "where relative paths of tables in files start; default: the current directory"),
    Option("log_dir", "read the embedded log in this directory instead of Kafka"),
    Option("bootstrap_servers", "Kafka addresses; default: those of the definitions"),
    Option("kafka_option", "librdkafka setting KEY=VALUE, may be repeated (variable: one a line)", is_list=True),
    Option("kafka_config", "file of librdkafka settings, KEY=VALUE a line"),
    Option(
        "schema_registry_option",
        "setting KEY=VALUE of the schema registry's client, such as basic.auth.user.info, may be repeated",
        is_list=True,
    ),
    Option("schema_registry_config", "file of such settings, KEY=VALUE a line; where secrets belong"),
    Option("kafka_group", "publish committed positions under this consumer group, for lag tools"),
    Option("dead_letter_dir", "write dead letters to files here instead of topics"),
    Option("dead_letter_payloads", "what is kept of their payloads: keep (default), drop or encrypt"),
    Option("dead_letter_key_file", "file of Fernet keys that encrypt payloads, one a line, the newest first"),
    Option(
        "dead_letter_retention",
        "how long dead letters are kept, such as 90d; default: files 30d, topics that are made as the broker has it",
    ),
    Option("addresses", "host:port of all processes, separated by semicolons", variable="BYTEWAX_ADDRESSES"),
    Option("process_id", "index of this process in the addresses, from 0", variable="BYTEWAX_PROCESS_ID"),
    Option("writers", "how many writers share the lanes; default: one a process"),
    Option("batch_records", f"records in one read of a partition, default {BATCH_RECORDS_DEFAULT}"),
    Option("until_end", "stop at the end that every partition has now", is_flag=True),
    Option("metrics_port", "serve Prometheus metrics on this port"),
    Option("host", f"address to serve metrics on, 0.0.0.0 for all; default {METRICS_HOST_DEFAULT}"),
    Option("progress_seconds", f"time between progress lines, default {PROGRESS_SECONDS_DEFAULT:g}"),
    Option(
        "merge_after_seconds",
        "how long a new or changed view is stored by itself before its storage group takes it in, "
        f"default {MERGE_AFTER_SECONDS_DEFAULT:g}",
    ),
    Option("store_patience_seconds", f"retry an unreachable store, default {PATIENCE_SECONDS_DEFAULT:g}"),
)
"""Every option of `python -m dataflows.log_to_tiles`, in the order of its help."""


def from_command_line(arguments: Sequence[str], environment: Mapping[str, str], *, program: str) -> StreamSettings:
    """Settings from options, and from the environment where an option is absent.

    Raises:
        InvalidRequest: a setting is missing or malformed. (`--help` and unknown options end the process, as usual.)
    """
    given = read_options(OPTIONS, arguments, program=program, purpose="Fold the event stream into tiles.")
    return _settings(given, environment)


def from_environment(environment: Mapping[str, str]) -> StreamSettings:
    """Settings from environment variables alone, for `python -m bytewax.run`."""
    return _settings({}, environment)


def read_options(options: Sequence[Option], arguments: Sequence[str], *, program: str, purpose: str) -> dict[str, str]:
    """Texts of the options that were given, by name; those of a list are lines of one text."""
    parser = argparse.ArgumentParser(prog=program, description=purpose)
    for option in options:
        flag = "--" + option.name.replace("_", "-")
        text = f"{option.help} [{option.environment_variable}]"
        if option.is_flag:
            parser.add_argument(flag, dest=option.name, action="store_const", const="true", help=text)
        elif option.is_list:
            parser.add_argument(flag, dest=option.name, action="append", help=text)
        else:
            parser.add_argument(flag, dest=option.name, help=text)
    given = vars(parser.parse_args(list(arguments)))
    return {
        name: "\n".join(value) if isinstance(value, list) else str(value)
        for name, value in given.items()
        if value is not None
    }


def complete_options(
    options: Sequence[Option], given: Mapping[str, str], environment: Mapping[str, str]
) -> dict[str, str]:
    """Texts of all options, from the environment where not given; "" where absent.

    Raises:
        InvalidRequest: a required one is absent.
    """
    texts = {
        option.name: given.get(option.name, environment.get(option.environment_variable, "")) for option in options
    }
    for option in options:
        if option.is_required and not texts[option.name]:
            raise InvalidRequest(
                f"{option.name.replace('_', ' ')} of the stream is not set",
                hint=f"give --{option.name.replace('_', '-')} or set {option.environment_variable}",
            )
    return texts


def _settings(given: Mapping[str, str], environment: Mapping[str, str]) -> StreamSettings:
    """Texts by option name, completed from the environment, as typed settings."""
    texts = complete_options(OPTIONS, given, environment)
    flow = flow_settings(texts, group="kafka_group", patience="store_patience_seconds")
    return StreamSettings(
        **flow,
        store_url=texts["store_url"],
        store_cluster=is_set(texts["store_cluster"]),
        writers=integer_setting("writers", texts, max(1, len(flow["addresses"]))),
        merge_after_seconds=seconds_setting("merge_after_seconds", texts, MERGE_AFTER_SECONDS_DEFAULT),
        repo=path_setting(texts["repo"]),
    )


def flow_settings(texts: Mapping[str, str], *, group: str, patience: str) -> dict[str, Any]:
    """The values of FlowSettings, by name.

    Args:
        texts: by option name; "" where absent.
        group: name of the option that says under which consumer group positions are published.
        patience: name of the option that says how long to retry.

    Raises:
        InvalidRequest: a setting is malformed.
    """
    return {
        "project": texts["project"],
        "registry": texts["registry"],
        "log_dir": path_setting(texts["log_dir"]),
        "bootstrap_servers": texts["bootstrap_servers"],
        "kafka_options": options_setting("kafka", texts["kafka_config"], texts["kafka_option"]),
        "schema_registry_options": options_setting(
            "schema registry", texts["schema_registry_config"], texts["schema_registry_option"]
        ),
        "kafka_group": texts[group],
        "dead_letter_dir": path_setting(texts["dead_letter_dir"]),
        "dead_letter_payloads": texts["dead_letter_payloads"] or "keep",
        "dead_letter_key_file": path_setting(texts["dead_letter_key_file"]),
        "dead_letter_retention_ms": duration_setting("dead_letter_retention", texts),
        "addresses": addresses_setting(texts["addresses"]),
        "process_id": integer_setting("process_id", texts, 0),
        "batch_records": integer_setting("batch_records", texts, BATCH_RECORDS_DEFAULT),
        "until_end": is_set(texts["until_end"]),
        "metrics_port": port_setting("metrics_port", texts),
        "host": texts["host"] or METRICS_HOST_DEFAULT,
        "progress_seconds": seconds_setting("progress_seconds", texts, PROGRESS_SECONDS_DEFAULT),
        "patience_seconds": seconds_setting(patience, texts, PATIENCE_SECONDS_DEFAULT),
    }


def addresses_setting(text: str) -> tuple[str, ...]:
    """host:port of each process."""
    return tuple(part.strip() for part in text.split(";") if part.strip())


def is_set(text: str) -> bool:
    """A flag."""
    return text.lower() in _TRUE


def path_setting(text: str) -> Path | None:
    """A path, None for an empty text."""
    return Path(text) if text else None


def integer_setting(name: str, texts: Mapping[str, str], default: int) -> int:
    """An integer setting."""
    try:
        return int(texts[name]) if texts[name] else default
    except ValueError:
        raise InvalidRequest(f"{name.replace('_', ' ')} is not an integer: {texts[name]!r}") from None


def seconds_setting(name: str, texts: Mapping[str, str], default: float) -> float:
    """A time in the unit that its name ends with; neither negative nor endless."""
    what, unit = name.replace("_", " "), name.rpartition("_")[2]
    try:
        number = float(texts[name]) if texts[name] else default
    except ValueError:
        raise InvalidRequest(f"{what} is not a number of {unit}: {texts[name]!r}") from None
    if not 0 <= number < math.inf:
        raise InvalidRequest(f"{what} of {texts[name]} is not possible", hint=f"give a number of {unit} from 0")
    return number


def duration_setting(name: str, texts: Mapping[str, str]) -> int | None:
    """Milliseconds of a duration such as 30d, None where none is given."""
    return parse_duration_ms(texts[name]) if texts[name] else None


def port_setting(name: str, texts: Mapping[str, str]) -> int | None:
    """A TCP port, None where none is given."""
    if not texts[name]:
        return None
    port = integer_setting(name, texts, 0)
    if not 0 <= port <= PORT_MAX:
        raise InvalidRequest(f"{name.replace('_', ' ')} {port} is not within 0 to {PORT_MAX}")
    return port


def options_setting(what: str, config_file: str, given: str) -> dict[str, str]:
    """Settings of a client: those of the file, overridden by those of the options; `#` begins a comment line."""
    lines = given.splitlines()
    if config_file:
        try:
            lines = [*Path(config_file).read_text(encoding="utf-8").splitlines(), *lines]
        except OSError as error:
            raise InvalidRequest(
                f'{what} configuration file "{config_file}" cannot be read', detail=str(error)
            ) from None
    return option_lines(f"{what} option", "\n".join(lines))


def option_lines(what: str, text: str) -> dict[str, str]:
    """Settings KEY=VALUE, one a line, of which the last counts; `#` begins a comment line."""
    options: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not equals or not key.strip():
            raise InvalidRequest(f'{what} "{key.strip()}" has no value', hint="write it as key=value")
        options[key.strip()] = value.strip()
    return options
