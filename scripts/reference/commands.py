"""What commands.md.template leaves open: every command with its options, exit codes, and every environment variable."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from dataflows import settings as stream_settings
from dataflows import supervisor
from dataflows.log_to_features.settings import PUBLISH_OPTIONS
from dataflows.log_to_table.settings import EVENT_LOG_OPTIONS
from dataflows.settings import OPTIONS, Option, is_set
from featurestore.cli import main, settings
from featurestore.cli.settings import RULES_TOKEN_VARIABLE
from featurestore.errors import TRACEBACK_VARIABLE
from featurestore.online.embedded import DATA_DIR_VARIABLE
from featurestore.testing.servers import kafka, maven, redis
from scripts.reference.markdown import filled, part_default, sentence, table

TEMPLATE = "commands.md.template"

EXAMPLES: Mapping[str, str] = {
    "init": "featurestore init card_features",
    "plan": "featurestore plan",
    "check-schema": "featurestore check-schema --subject payments-value --file next.avsc",
    "apply": "featurestore apply",
    "test": "featurestore test",
    "preview": "featurestore preview card_activity --last 2000 --log-dir data/log",
    "list": "featurestore list views",
    "describe": "featurestore describe card_activity",
    "search": "featurestore search amount card",
    "monitoring": "featurestore monitoring --out data/monitoring",
    "bill": "featurestore bill --since 7d --by team --by caller",
    "audit": "featurestore audit --who 'fraud-*' --since 30d",
    "audit verify": "featurestore audit verify",
    "mcp": "featurestore mcp < messages.jsonl   # as a rule an assistant's program starts it",
    "stream": "featurestore stream --log-dir data/log --until-end   # without --until-end it goes on",
    "event-log run": "featurestore event-log run --log-dir data/log --until-end",
    "event-log compact": "featurestore event-log compact --full",
    "event-log retain": "featurestore event-log retain --days 400",
    "event-log show": "featurestore event-log show",
    "event-log import": "featurestore event-log import data/before/transactions",
    "publish": "featurestore publish fraud_detection --to fraud-vectors --windows",
    "bootstrap": "featurestore bootstrap card_activity",
    "contract export": "featurestore contract export transactions --out transactions.odcs.yaml",
    "contract check": "featurestore contract check transactions.odcs.yaml --source transactions",
    "dead-letters list": "featurestore dead-letters list --log-dir data/log",
    "dead-letters count": "featurestore dead-letters count --log-dir data/log --since 1d",
    "dead-letters show": "featurestore dead-letters show transactions/0/17 --log-dir data/log",
    "dead-letters replay": "featurestore dead-letters replay --log-dir data/log --reason undecodable",
    "rollback": "featurestore rollback card_activity",
    "erase": "featurestore erase card_id=card-1 --receipt erased.json",
    "drop": "featurestore drop card_activity   # which there are; --generation deletes one",
    "doctor": "featurestore doctor --event-log data/event_log",
    "serve": "featurestore serve --port 6566 --log-features data/served --log-share 1",
    "status": "featurestore status --log-dir data/log",
    "simulate": "featurestore simulate --to log:data/log --days 2 --cards 2000 --merchant-table data/merchants.parquet",
    "store start": "featurestore store start",
    "store stop": "featurestore store stop",
    "store status": "featurestore store status",
    "warm-up": "featurestore warm-up",
    "demo": "featurestore demo --repo . --days 1 --seconds 5 --rate 40 --cards 2000",
}
"""Command -> its example, where its help has none; a test types them all in."""

STREAMS: Mapping[str, Sequence[Option]] = {
    "stream": OPTIONS,
    "event-log run": EVENT_LOG_OPTIONS,
    "publish": PUBLISH_OPTIONS,
}
"""Command -> options of the program that it becomes."""

STREAM_NOTES: Mapping[str, str] = {
    "stream": "`--patience-seconds`, as `event-log run` has it, is `--store-patience-seconds` here; both work.",
    "publish": "It reads the source beside the stream, and waits until the store has what it reads.",
    "event-log run": "What it reads, it reads beside the stream of features: neither waits for the other.",
}
"""What is said above the exit codes of a stream."""

STREAM_VALUES: Mapping[str, str] = {
    "dir": "DIR",
    "file": "FILE",
    "payloads": "keep|drop|encrypt",
    "retention": "DURATION",
    "host": "ADDRESS",
    "port": "PORT",
    "seconds": "SECONDS",
    "minutes": "MINUTES",
    "records": "N",
    "rows": "N",
    "writers": "N",
    "id": "N",
    "servers": "HOST:PORT",
    "addresses": "HOST:PORT;...",
    "option": "KEY=VALUE",
    "config": "FILE",
    "group": "NAME",
    "source": "NAME",
    "project": "NAME",
    "registry": "PATH|URL",
    "url": "URL",
    "service": "NAME",
    "to": "TOPIC",
    "format": "FORMAT",
    "where": "SQL",
    "log": "URI",
}
"""Last word of a stream's option -> what is written behind it."""

MEANINGS: Mapping[str, str] = {
    "FEATURESTORE_EVENT_LOG": "Directory or URI of the event logs",
    "FEATURESTORE_LOG_FEATURES": "Where the server keeps a sample of its answers, and where parity finds it",
    "FEATURESTORE_LOG_DIR": "The embedded log that is read instead of Kafka",
    "FEATURESTORE_STORE_URL": "Address of the online store; also for the Feast SDK, if its repo names none",
    "FEATURESTORE_BOOTSTRAP_SERVERS": "Kafka addresses; also of `serve --log-features kafka:///TOPIC`",
    "FEATURESTORE_SOURCE": "Names of the sources to log",
    "FEATURESTORE_KAFKA_CONFIG": "File of librdkafka settings; also for `serve --log-features kafka://...`",
    "FEATURESTORE_KAFKA_OPTION": "librdkafka settings; also for `serve --log-features kafka://...`",
}
"""Variable -> its meaning, where that of its first option is not all of it."""

OTHER_VARIABLES: Mapping[str, tuple[str, str]] = {
    TRACEBACK_VARIABLE: ("Set to anything: every error comes with its traceback", ""),
    RULES_TOKEN_VARIABLE: ("Token for policies and quotas at an address, sent as `Authorization: Bearer`", ""),
    DATA_DIR_VARIABLE: ("Data directory of the embedded store, for every repo", "`data/store` of the repo"),
    "FEATURESTORE_PROGRAM": ("Not to be set: how `stream` and `event-log run` call themselves in their help", ""),
    redis.BINARY_VARIABLE: (
        "Server program of `featurestore.testing.servers.redis_server`",
        "`redis-server` on the PATH, else Valkey",
    ),
    kafka.LIBS_VARIABLE: (
        "Directory of Kafka's jars, for `featurestore.testing.servers.kafka_broker`",
        "fetched by Maven",
    ),
    maven.CACHE_VARIABLE: ("Where `kafka_broker` keeps the jars that it fetched", "`.cache`"),
    "PYSPARK_PYTHON": ("Interpreter of Spark's workers, for `history --engine spark`", "that of the command"),
}
"""Variables without an option: meaning, and what holds without them."""

FLAG_TEXTS = ("1", "true", "yes", "on")

_SHARED = {f"--{name}" for name in ("repo", "registry", "project", "store-url", "store-cluster")}
_ENVIRONMENT = re.compile(r"\s*\[env var: (\w+)\]")
_EXAMPLE = re.compile(r"^Example: (featurestore .*)$", re.DOTALL)
_PLACE = re.compile(r"^ {4}(\S.*?) {2,}(--[\w-]+) +(\w+) +(.*)$", re.MULTILINE)
_EXIT_LINE = re.compile(r"^ {4}(\d+) {3}(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class OptionRow:
    """One option as the page shows it.

    Attributes:
        flag: with what is written behind it.
        variable: environment variable, or "".
        default: text, or "".
        meaning: a sentence.
    """

    flag: str
    variable: str
    default: str
    meaning: str


def page() -> str:
    """The whole page."""
    assert all(map(is_set, FLAG_TEXTS)), stream_settings
    found = dict(all_commands())
    parts = {
        "commands": table(("command", "what it does"), _overview()),
        "places": table(("what", "option", "variable", "`feature_store.yaml`"), _places()),
        "exit codes": table(("code", "meaning"), _general_exit_codes()),
        "sections": "\n".join(_section(name, command) for name, command in found.items()),
        "variables": table(("variable", "meaning", "default", "option"), variable_rows()),
    }
    return filled(TEMPLATE, parts)


def all_commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by its full name; a group before its own."""
    context = click.Context(main.command)
    for name in main.COMMANDS:
        command = main.command.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {sub}", each) for sub, each in command.commands.items())


def _overview() -> Iterator[tuple[str, str]]:
    for name, (_, text) in main.COMMANDS.items():
        yield f"[`{name}`](#{name})", text


def option_rows(name: str, command: click.Command) -> list[OptionRow]:
    """Its own options, and those of the stream that it becomes; without --help, which all have."""
    options = [
        one for one in command.params if isinstance(one, click.Option) and not one.hidden and "--help" not in one.opts
    ]
    known = {one.opts[0].removeprefix("--").replace("-", "_") for one in options}
    more = [_stream_row(one) for one in STREAMS.get(name, ()) if one.name not in known]
    return [_row(one) for one in options] + more


def variable_rows() -> list[tuple[str, str, str, str]]:
    """Every environment variable, by name: meaning, default, and the options that say the same."""
    uses: dict[str, list[tuple[str, OptionRow]]] = {}
    for name, command in all_commands():
        for row in option_rows(name, command):
            if row.variable:
                uses.setdefault(row.variable, []).append((name, row))
    rows = [
        (variable, MEANINGS.get(variable, found[0][1].meaning.rstrip(".")), found[0][1].default, _options(found))
        for variable, found in uses.items()
    ]
    rows += [(variable, *texts, "") for variable, texts in OTHER_VARIABLES.items()]
    return [(f"`{variable}`", meaning, default, options) for variable, meaning, default, options in sorted(rows)]


def example_of(name: str, command: click.Command) -> str:
    """The example in its help, else the one that stands here; "" of a group."""
    for paragraph in _paragraphs(command):
        if found := _EXAMPLE.match(paragraph):
            return " ".join(found[1].split())
    return "" if _only_groups(command) else EXAMPLES[name]


def _only_groups(command: click.Command) -> bool:
    """Whether it does nothing without another word behind it."""
    return isinstance(command, click.Group) and not command.invoke_without_command


def _section(name: str, command: click.Command) -> str:
    """What it does, an example, its usage, options and exit codes."""
    blocks = [f"{'###' if ' ' in name else '##'} {name}"]
    blocks += [text for text in _paragraphs(command) if not _EXAMPLE.match(text)]
    if _only_groups(command):
        return "\n\n".join(blocks) + "\n"
    usage = command.collect_usage_pieces(click.Context(command))
    blocks += [f"```bash\n{example_of(name, command)}\n```", f"Usage: `{' '.join(['featurestore', name, *usage])}`"]
    rows = option_rows(name, command)
    shared = [row for row in rows if row.flag.split()[0] in _SHARED and row.variable]
    own = [row for row in rows if row not in shared]
    if own:
        cells = [(f"`{one.flag}`", one.default, one.meaning, one.variable and f"`{one.variable}`") for one in own]
        blocks.append(table(("option", "default", "meaning", "variable"), cells).rstrip())
    if shared:
        flags = [f"`{row.flag.split()[0]}`" for row in shared]
        blocks.append(f"{_listed(flags)}: see [where things are](#where-things-are).")
    blocks += [STREAM_NOTES[name], _stream_exit_codes()] if name in STREAMS else []
    return "\n\n".join(blocks) + "\n"


def _stream_exit_codes() -> str:
    """The table in the docstring of dataflows.supervisor."""
    return table(("exit code", "meaning"), _EXIT_LINE.findall(supervisor.__doc__ or "")).rstrip()


def _general_exit_codes() -> list[tuple[str, str]]:
    found = re.search(r"^Exit codes: (.*?);", main.__doc__ or "", re.MULTILINE)
    assert found is not None
    return [(code, meaning) for code, _, meaning in (each.partition(" ") for each in found[1].split(", "))]


def _places() -> list[tuple[str, str, str, str]]:
    """The table in the docstring of featurestore.cli.settings."""
    return [
        (what, f"`{option}`", f"`{variable}`", place)
        for what, option, variable, place in _PLACE.findall(settings.__doc__ or "")
    ]


def _paragraphs(command: click.Command) -> list[str]:
    return inspect.cleandoc(command.help or "").split("\n\n")


def _row(option: click.Option) -> OptionRow:
    """An option of click."""
    text = option.help or ""
    variable = option.envvar if isinstance(option.envvar, str) else ""
    if found := _ENVIRONMENT.search(text):
        text, variable = text[: found.start()], found[1]
    meaning, default = part_default(text)
    default = f"`{default}`" if default.isdecimal() else default
    if option.required:
        default = "required"
    elif option.is_flag and not option.secondary_opts:
        default = "off"
    elif isinstance(option.default, bool):
        default = f"`{(option.opts if option.default else option.secondary_opts)[0]}`"
    elif isinstance(option.default, int | float | str | Path):
        default = f"`{option.default:g}`" if isinstance(option.default, float) else f"`{option.default}`"
    flag = " / ".join([*option.opts[:1], *option.secondary_opts[:1]])
    value = "" if option.is_flag else " " + (option.metavar or _value(option.type))
    return OptionRow(flag + value, variable, default, " ".join([sentence(meaning), *_range(option.type)]))


def _stream_row(option: Option) -> OptionRow:
    """An option of the stream."""
    meaning, default = part_default(option.help)
    value = "" if option.is_flag else " " + STREAM_VALUES[option.name.rpartition("_")[2]]
    is_number = default.replace(".", "").isdecimal()
    default = f"`{default}`" if is_number else default or ("off" if option.is_flag else "")
    return OptionRow(
        f"--{option.name.replace('_', '-')}{value}", option.environment_variable, default, sentence(meaning)
    )


def _value(kind: click.ParamType[object]) -> str:
    """What is written behind an option of that type."""
    if isinstance(kind, click.Choice):
        return "|".join(map(str, kind.choices))
    if isinstance(kind, click.Path):
        return "DIR" if not kind.file_okay else "FILE"
    if isinstance(kind, click.DateTime):
        return "YYYY-MM-DD[THH:MM:SS]"
    if isinstance(kind, type(click.INT)):
        return "N"
    return "NUMBER" if isinstance(kind, type(click.FLOAT)) else kind.name.upper()


def _range(kind: click.ParamType[object]) -> list[str]:
    """Bounds of a number, as a sentence."""
    if not isinstance(kind, click.IntRange | click.FloatRange):
        return []
    if kind.min is not None and kind.max is not None and not kind.min_open:
        return [f"From {kind.min:g} to {kind.max:,.0f}."]
    least = [] if kind.min is None else [f"{'above' if kind.min_open else 'at least'} {kind.min:g}"]
    most = [] if kind.max is None else [f"at most {kind.max:,.0f}"]
    return [sentence(", ".join(least + most))] if least or most else []


def _options(uses: Sequence[tuple[str, OptionRow]]) -> str:
    """The options that say the same, with their commands unless all that have the option are meant."""
    by_flag: dict[str, list[str]] = {}
    for name, row in uses:
        by_flag.setdefault(row.flag.split()[0], []).append(name)
    return "; ".join(
        f"`{flag}`" + ("" if flag in _SHARED else f" of {_listed([f'`{name}`' for name in names])}")
        for flag, names in by_flag.items()
    )


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
