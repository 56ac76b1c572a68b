"""The pages of reference are what the program says, their examples run, and no environment variable is missing."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import features
from featurestore.definitions.problems import MISTAKE_TAG
from featurestore.online.probe import port_is_free
from scripts.reference import authoring, commands
from scripts.reference_pages import DOCS, PAGES
from tests.docs.pages import ROOT, Reader, clean_environment

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")

AUTHORING, COMMANDS = DOCS / "authoring.md", DOCS / "commands.md"

CONFIG = "project: docs\nprovider: local\nregistry: registry.db\n"

VARIABLE = re.compile(r"FEATURESTORE_[A-Z_]*[A-Z]")
TIMEOUT_S = 180.0
PORT_ON_PAGE = "6566"

GENERAL_CODES = {"EXIT_ERROR", "EXIT_INTERRUPTED"}
STREAM_CODES = {"EXIT_FENCED", "EXIT_PEER_GONE"}

SESSION = (
    *("plan", "apply", "simulate"),
    *("event-log run", "event-log compact", "event-log retain", "event-log show", "event-log import"),
    *("stream", "status"),
    *("bootstrap", "stream", "drop", "doctor", "rollback"),
    *("serve", "lookup", "explain", "stop serving", "parity", "history"),
    *("store status", "store stop", "store start", "warm-up", "demo", "init"),
)
"""The examples of all commands in an order in which each finds what it needs."""

LETTERS = {f"dead-letters {name}" for name in ("list", "count", "show", "replay")}
TEAMS = {"test", "list", "describe", "search"}
HEALTH = {"monitoring", "statistics", "drift baseline", "drift check"}
CATALOG = {"ui", "lineage", "mcp"}
TYPED_ELSEWHERE = {"check-schema", "erase", "fingerprint", "preview", "publish", "contract export", "contract check"}
TYPED_ELSEWHERE |= LETTERS | TEAMS | HEALTH | CATALOG | {"audit", "audit verify", "bill"}
"""Have pages of their own: schemas, erasure, add-your-own-feature, publish, contracts, teams, health, catalog,
audit."""

BEFORE_TABLES = ROOT / "tests" / "offline" / "event_log" / "before_tables"
"""An event log of the release before."""

SAID = {
    "plan": "20 to add",
    "event-log show": "transactions[0]  next offset",
    "event-log import": "2 partitions",
    "status": "card_activity@1",
    "bootstrap": "card_activity@2 is complete",
    "drop": "card_activity@1  retired",
    "doctor": "no entity of it is ever forgotten",
    "rollback": "card_activity@1 serves again",
    "lookup": "card_count_lifetime",
    "explain": "number of events in the transactions of a card_id over 1 h",
    "parity": "1 logged rows",
    "history": "train.parquet: 1 rows, 91 features",
    "init": 'project "card_features"',
}
"""What some of them must print."""


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of a language, in the page's order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def product_sources() -> Iterator[tuple[Path, str]]:
    """Every Python file that is installed."""
    for room in ("featurestore", "dataflows"):
        for path in sorted((ROOT / room).rglob("*.py")):
            yield path, path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_pages_of_reference_are_written_from_the_code(path: Path) -> None:
    """Whatever changes a helper, a tag, a command or a variable changes its page in the same commit."""
    if path.read_text(encoding="utf-8") != PAGES[path]():
        pytest.fail(f"docs/{path.name} is out of date: run python -m scripts.reference_pages")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_links_of_the_pages_of_reference_lead_somewhere(path: Path) -> None:
    """To a page of the docs, and to a heading of it where they name one."""
    links = re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", path.read_text(encoding="utf-8"))
    lost = []
    for name, anchor in links:
        target = DOCS / name if name else path
        headings = (
            re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE) if target.is_file() else []
        )
        anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        lost += [(name, anchor)] if not anchors or (anchor and anchor not in anchors) else []

    assert len(links) > 10
    assert lost == []


def test_everything_at_the_door_has_a_section() -> None:
    """A helper that joins featurestore.features is explained, with arguments and an example."""
    headings = re.findall(r"^## (.+)$", AUTHORING.read_text(encoding="utf-8"), re.MULTILINE)

    assert set(authoring.SECTIONS) == set(features.__all__)
    assert set(authoring.SECTIONS.values()) <= set(headings)


def test_every_tag_that_definitions_are_compiled_from_is_in_the_table() -> None:
    """A tag is a constant whose name says so, wherever it is."""
    texts = "\n".join(text for path, text in product_sources() if {"definitions", "wire"} & set(path.parts))
    named = {ast.literal_eval(text) for text in re.findall(r"^\w+_TAG(?:_PREFIX)? = (\".*\")$", texts, re.MULTILINE)}
    shown = {row[0].strip("`").removesuffix("NAME") for row in authoring.tag_rows()}

    assert len(named) > 10
    assert named == shown | {MISTAKE_TAG}


def test_the_examples_of_authoring_print_what_the_page_says() -> None:
    """One program, from top to bottom; what a block prints is in the block below it."""
    text = AUTHORING.read_text(encoding="utf-8")
    steps = re.findall(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", text, re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {"__name__": "page"}
    for program, expected in steps:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(program, str(AUTHORING), "exec"), names)

        assert printed.getvalue() == expected, program

    assert len(steps) > len(set(authoring.SECTIONS.values()))


def test_the_plan_finds_the_mistakes_of_the_page_and_no_others(tmp_path: Path) -> None:
    """All views of the page are sound but the last, which is wrong in the ways that the page says."""
    programs, [command] = blocks(AUTHORING, "python"), blocks(AUTHORING, "bash")
    expected = blocks(AUTHORING, "text")[-1]
    (tmp_path / "feature_store.yaml").write_text(CONFIG)
    outcomes = []
    for shown in (programs[:-1], programs):
        (tmp_path / "definitions.py").write_text("\n".join(shown))
        outcomes.append(typed(command, tmp_path, environment()))
    sound, wrong = outcomes

    assert sound.returncode == 0, sound.stdout
    assert {"card_risk", "card_rhythm", "card_refunds"} <= set(re.findall(r"\w+", sound.stdout))
    assert wrong.returncode == 1
    assert expected in wrong.stdout


def test_every_variable_that_the_code_reads_is_on_the_page() -> None:
    """Of the whole program; a variable that nobody can look up is a trap."""
    read = {name for _, text in product_sources() for name in VARIABLE.findall(text)}
    read |= {option.environment_variable for options in commands.STREAMS.values() for option in options}
    shown = {row[0].strip("`") for row in commands.variable_rows()}
    text = COMMANDS.read_text(encoding="utf-8")

    assert {"FEATURESTORE_REPO", "FEATURESTORE_WRITERS", "FEATURESTORE_TRACEBACK"} <= read
    assert sorted(name for name in read if f"| `{name}` |" not in text) == []
    assert sorted(name for name in shown - read if name.startswith("FEATURESTORE_")) == []


def test_variables_are_written_out_where_they_are_read() -> None:
    """A name that is put together at run time would escape the page; the stream's options are, and it knows them."""
    built = [
        str(path.relative_to(ROOT))
        for path, text in product_sources()
        if re.search(r"FEATURESTORE_(?![A-Z])\S*[\"']\s*(?:\+|%|\.)|FEATURESTORE_\{|auto_envvar_prefix", text)
    ]

    assert built == ["dataflows/settings.py"]


def test_nothing_that_is_shipped_names_a_variable_that_does_not_exist() -> None:
    """A misspelled variable in a page or a compose file sets nothing, and nobody notices."""
    known = {row[0].strip("`") for row in commands.variable_rows()}
    files = [*ROOT.glob("*.md"), *ROOT.glob("*.yml"), *DOCS.rglob("*.md"), *(ROOT / "ops").rglob("*")]
    named = {
        (name, path.name)
        for path in files
        if path.is_file()
        for name in VARIABLE.findall(path.read_text(encoding="utf-8", errors="replace"))
    }

    assert len(named) > len(known)
    assert sorted(each for each in named if each[0] not in known) == []


def test_every_option_says_what_it_is_for() -> None:
    """In --help and on the page."""
    silent = [
        f"{name} {option.opts[0]}"
        for name, command in commands.all_commands()
        for option in command.params
        if isinstance(option, click.Option) and not option.help
    ]

    assert silent == []


def test_every_exit_code_of_a_command_is_in_its_section() -> None:
    """A script that looks at the exit code must find out what it means."""
    sections = dict(re.findall(r"^##+ (\S.*)\n((?:(?!^##).*\n?)*)", COMMANDS.read_text(encoding="utf-8"), re.MULTILINE))
    found = [
        (path.stem, code, int(value))
        for path, text in product_sources()
        for code, value in re.findall(r"^(EXIT_\w+) = (\d+)$", text, re.MULTILINE)
    ]
    missing = [
        (module, code)
        for module, code, value in found
        if code not in GENERAL_CODES | STREAM_CODES
        if not any(
            re.search(rf"[Ee]xit (?:code|with)\b[^|\n]*\b{value}\b", text)
            for name, text in sections.items()
            if module.replace("_", "-") in name.split() or module in name.split()
        )
    ]

    assert {code for _, code, _ in found} >= GENERAL_CODES | STREAM_CODES | {"EXIT_CHANGES", "EXIT_NOT_RUNNING"}
    assert missing == []


def environment() -> dict[str, str]:
    """Of a reader whose terminal is wide."""
    return {**clean_environment(), "COLUMNS": "200"}


def typed(command: str, directory: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What came of typing a command into a shell."""
    return subprocess.run(
        ["bash", "-c", command],
        cwd=directory,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.fixture
def reader(tmp_path: Path, port: int) -> Iterator[Reader]:
    """A reader in a copy of the example repo; the server is not where the page has it, for others use that port."""
    repo = tmp_path / "feature_repo"
    shutil.copytree(ROOT / "feature_repo", repo, ignore=shutil.ignore_patterns("data"))
    variables = {**environment(), "FEATURESTORE_ADDRESS": f"127.0.0.1:{port}"}
    reader = Reader(repo, variables)
    yield reader
    reader.leave()
    assert typed("featurestore store stop", repo, variables).returncode == 0


@pytest.mark.slow
def test_the_examples_of_all_commands_work(reader: Reader, port: int) -> None:
    """Typed into one repo, each ends in good order, and some must say what was meant."""
    text = COMMANDS.read_text(encoding="utf-8").replace(PORT_ON_PAGE, str(port))
    examples = dict(re.findall(r"^##+ ([^\n]+)\n(?:(?!^##).)*?^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    write_labels(reader.directory / "labels.parquet")
    shutil.copytree(BEFORE_TABLES, reader.directory / "data" / "before" / "transactions")

    assert set(SESSION) - {"stop serving"} == set(examples) - TYPED_ELSEWHERE
    for name in SESSION:
        if name == "serve":
            reader.keep_running(examples[name].strip())
            wait_until_listening(port)
        elif name == "stop serving":
            reader.interrupt_all()
        else:
            # A feature repo within another would be a part of it.
            printed = reader.type("cd ..\n" * (name == "init") + examples[name])

            assert SAID.get(name, "") in printed, f"{examples[name]}\n{printed}"


def wait_until_listening(port: int) -> None:
    """Until a server takes connections."""
    deadline = time.monotonic() + TIMEOUT_S
    while port_is_free(port):
        assert time.monotonic() < deadline, "nothing listens"
        time.sleep(0.1)


def write_labels(path: Path) -> None:
    """A label row such as the example of `history` wants."""
    moment = datetime(2026, 11, 29, 12, tzinfo=UTC)
    row = {"card_id": "c-1", "merchant_id": 7, "terminal_id": 12, "event_timestamp": moment, "is_fraud": False}
    pq.write_table(pa.Table.from_pylist([row]), path)
