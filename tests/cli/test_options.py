"""Options are called the same in every command; earlier names still work, and a command has one help."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from featurestore.cli.main import COMMANDS, RENAMED, main
from featurestore.cli.main import command as group
from tests.serving.registries import write_registry

Capture = pytest.CaptureFixture[str]

MEANINGS = {
    "FEATURESTORE_EVENT_LOG": "--event-log",
    "FEATURESTORE_STORE_CLUSTER": "--store-cluster",
    "FEATURESTORE_STORE_URL": "--store-url",
    "FEATURESTORE_LOG_DIR": "--log-dir",
}
"""What is meant -> its option, in whichever command."""


def all_options() -> list[tuple[str, click.Option]]:
    """Every option of every command and subcommand."""
    found = []
    context = click.Context(group)
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        each = command.commands.values() if isinstance(command, click.Group) else [command]
        found += [(name, option) for one in each for option in one.params if isinstance(option, click.Option)]
    return found


def test_one_meaning_has_one_name() -> None:
    """By the environment variable that says the same; and no command shows an earlier name."""
    for name, option in all_options():
        variables = option.envvar if isinstance(option.envvar, str) else (option.help or "")
        for variable, flag in MEANINGS.items():
            assert variable not in variables or option.opts[0] == flag, (name, option.opts)
        assert not {*option.opts, *option.secondary_opts} & RENAMED.keys(), name


@pytest.mark.parametrize("option", ["--event-log", "--events", "--event-log=none", "--events=none"])
def test_earlier_names_of_the_event_log_still_work(option: str, tmp_path: Path, capsys: Capture) -> None:
    """Of parity and of history, with a blank and with an equals sign."""
    write_registry(tmp_path / "registry.db")
    (tmp_path / "log").mkdir()
    given = [option] if "=" in option else [option, str(tmp_path / "none")]
    base = ["--registry", str(tmp_path / "registry.db"), "--project", "payments"]

    assert main(["parity", *base, "--log", str(tmp_path / "log"), *given]) == 1
    assert "has no rows to compare" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--store-cluster", "--cluster", "--no-store-cluster", "--no-cluster"])
def test_earlier_names_of_the_cluster_still_work(option: str, tmp_path: Path, capsys: Capture) -> None:
    """The store is asked in the way that was said."""
    store = ["--registry", str(tmp_path / "none.db"), "--project", "p", "--store-url", "redis://127.0.0.1:1"]

    assert main(["status", *store, option]) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err


def test_what_stands_behind_two_dashes_is_no_option(capsys: Capture) -> None:
    """It is an argument, whatever it looks like."""
    assert main(["plan", "--", "--cluster"]) == 2
    assert "unexpected extra argument (--cluster)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("stream", ("--store-cluster", "--log-dir", "--until-end", "--repo")),
        ("event-log run", ("--event-log", "--source", "--commit-seconds", "--registry")),
    ],
)
def test_a_stream_has_one_help(name: str, flags: tuple[str, ...]) -> None:
    """Its own options and the program's in one table, each once; and Bytewax is not needed to read it."""
    code = "import sys; sys.modules['bytewax'] = None; from featurestore.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *name.split(), "--help"], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.count("Usage:") == done.stdout.count("Options:") == done.stdout.count("--help ") == 1
    lines = [line.split()[0] for line in done.stdout.splitlines() if line.strip().startswith("--")]
    assert len(lines) == len(set(lines))
    assert set(flags) <= set(lines)


@pytest.mark.parametrize(
    ("name", "given", "becomes"),
    [
        ("stream", "--patience-seconds", "--store-patience-seconds"),
        ("stream", "--store-patience-seconds=3", "--store-patience-seconds=3"),
        ("event-log run", "--store-patience-seconds=3", "--patience-seconds=3"),
        ("event-log run", "--patience-seconds", "--patience-seconds"),
    ],
)
def test_patience_has_either_name_in_both_streams(
    name: str, given: str, becomes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program gets the one that it knows."""
    executed: list[list[str]] = []

    class Became(Exception):
        """This process would be another one now."""

    def become(_: str, words: list[str], __: object) -> None:
        executed.append(words)
        raise Became

    monkeypatch.setattr("os.execve", become)
    options = ["--registry", "r.db", "--project", "p"]
    options += ["--store-url", "redis://127.0.0.1:1"] if name == "stream" else ["--event-log", str(tmp_path)]
    with pytest.raises(Became):
        main([*name.split(), *options, given, "5"])

    assert executed[0][3:] == [becomes, "5"]


def test_plan_is_json_for_programs(tmp_path: Path, capsys: Capture) -> None:
    """The same as the table says, notes included, and nothing else on stdout; apply too."""
    repo = str(tmp_path / "shop")
    assert main(["init", repo]) == 0
    capsys.readouterr()

    assert main(["plan", "--repo", repo, "--format", "json", "--exit-code"]) == 10
    planned = json.loads(capsys.readouterr().out)
    assert main(["apply", "--repo", repo, "--format", "json"]) == 0
    assert planned == json.loads(capsys.readouterr().out)
    assert ["add"] * 5 == [change["action"] for change in planned["changes"]]
    assert {"kind": "entity", "name": "card", "summary": "join key card_id"}.items() <= planned["changes"][0].items()
    assert main(["plan", "--repo", repo, "--format", "json"]) == 0
    nothing = {"project": "shop", "changes": [], "unchanged": 5, "notes": [], "warnings": []}
    assert nothing == json.loads(capsys.readouterr().out)
