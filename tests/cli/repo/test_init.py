"""`featurestore init`: a repo that works at once, or nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from feast.data_format import JsonFormat
from feast.repo_config import RepoConfig, load_repo_config
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from featurestore.cli.main import main
from featurestore.cli.repo.init import (
    SAMPLE_PATH,
    WRITTEN,
    render_templates,
    require_project_name,
    sample_payments,
    write_all_or_nothing,
)
from featurestore.cli.repo.templates import definitions
from featurestore.cli.settings import load_settings
from featurestore.definitions.registry import read_registry
from featurestore.definitions.schemas.source_schema import parse_source_schema
from featurestore.errors import InvalidRequest
from featurestore.wire.formats.iso8601 import parse_text

Capture = pytest.CaptureFixture[str]

NOW_MS = 1_796_000_000_000
HOUR_MS = 3_600_000


def _files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_a_new_repo_has_the_files_that_the_command_lists(tmp_path: Path, capsys: Capture) -> None:
    """No others, none without a description, and no placeholder in them."""
    repo = tmp_path / "deep" / "shop"

    assert main(["init", str(repo)]) == 0
    first, *listed, last = capsys.readouterr().out.splitlines()
    assert first == f'project "shop" in {repo}'
    assert last == f"next: cd {repo}, then featurestore plan"
    assert {line.split()[0] for line in listed} == _files(repo) == {*WRITTEN, SAMPLE_PATH}
    assert all(len(line.split()) > 2 for line in listed)
    assert not any("my_project" in (repo / name).read_text() for name in _files(repo))


def test_a_new_repo_can_be_planned_and_applied_without_a_remark(tmp_path: Path, capsys: Capture) -> None:
    """No mistake, no note; and what was applied is what stands there."""
    repo = str(tmp_path / "shop")
    assert main(["init", repo]) == 0
    capsys.readouterr()

    assert main(["plan", "--repo", repo]) == 0
    planned = capsys.readouterr()
    assert "5 to add, 0 to change, 0 to remove, 0 unchanged" in planned.out
    assert planned.err == ""
    assert main(["apply", "--repo", repo]) == 0
    assert main(["plan", "--repo", repo, "--exit-code"]) == 0


def test_data_and_virtual_environments_hold_no_definitions(tmp_path: Path) -> None:
    """What lies there is not imported, whatever it is."""
    repo = tmp_path / "shop"
    assert main(["init", str(repo)]) == 0
    for directory in ("data", ".venv/lib", "venv/lib"):
        (repo / directory).mkdir(parents=True, exist_ok=True)
        (repo / directory / "broken.py").write_text("this is no Python")

    assert main(["plan", "--repo", str(repo)]) == 0


@pytest.mark.parametrize("name", ["shop", "my_shop", "20261130", "007", "1_000", "no", "null", "1e5", "käse"])
def test_every_possible_project_name_arrives_as_it_is(name: str, tmp_path: Path) -> None:
    """YAML has numbers and truths that look like names; our settings, Feast's own and the registry have the name."""
    repo = tmp_path / "somewhere else"

    assert main(["init", str(repo), "--project", name]) == 0
    assert load_settings(repo=repo).project == name
    assert load_repo_config(repo, repo / "feature_store.yaml").project == name
    assert main(["apply", "--repo", str(repo)]) == 0
    assert read_registry(repo / "data" / "registry.db", project=name).project == name


@given(name=st.text(st.sampled_from("aZ9_-äß .$/\n"), max_size=6))
@example("_shop")
@example("my-shop")
@example("my shop")
@example("shop\n")
def test_project_names_are_the_ones_that_feast_takes(name: str) -> None:
    """All of them but the empty one; for every other name there is a remedy, and that is possible."""
    if name and _feast_takes(name):
        assert require_project_name(name, Path("shop")) == name
        return
    with pytest.raises(InvalidRequest) as caught:
        require_project_name(name, Path("shop"))

    remedy = caught.value.hint.rpartition("--project ")[2]
    assert caught.value.message == f'project name "{name}" is not possible'
    assert require_project_name(remedy, Path("shop")) == remedy


def _feast_takes(name: str) -> bool:
    """Whether Feast loads a repo of that project."""
    settings = yaml.safe_load(render_templates("shop")["feature_store.yaml"])
    try:
        return bool(RepoConfig(**{**settings, "project": name}).project == name)
    except ValidationError:
        return False


def test_a_directory_whose_name_is_no_project_is_explained(tmp_path: Path, capsys: Capture) -> None:
    """With the command that works, and without a trace on the disk."""
    wrong = tmp_path / "my shop"

    assert main(["init", str(wrong)]) == 1
    said = capsys.readouterr().err
    assert 'project name "my shop" is not possible' in said
    assert f"hint: featurestore init '{wrong}' --project my_shop" in said
    assert not wrong.exists()


def test_a_directory_with_files_is_refused_and_stays_as_it_was(tmp_path: Path, capsys: Capture) -> None:
    """The files are named, as many as fit into a line."""
    for number in range(1, 8):
        (tmp_path / f"note-{number}.txt").write_text("kept")

    assert main(["init", str(tmp_path), "--project", "shop"]) == 1
    said = capsys.readouterr().err
    assert f'directory "{tmp_path}" is not empty' in said
    assert "It has note-1.txt, note-2.txt, note-3.txt, note-4.txt, note-5.txt and 2 more." in said
    assert "hint: name a new directory, or an empty one" in said
    assert len(_files(tmp_path)) == 7


def test_a_repo_is_not_made_twice_in_one_directory(tmp_path: Path, capsys: Capture) -> None:
    """Somebody's definitions are worth more than ours; the remedy is what he may have wanted."""
    repo = tmp_path / "shop"
    assert main(["init", str(repo)]) == 0
    (repo / "definitions.py").write_text("# mine")

    assert main(["init", str(repo)]) == 1
    said = capsys.readouterr().err
    assert f'directory "{repo}" is a feature repo already' in said
    assert f"hint: run `featurestore plan --repo {repo}`" in said
    assert (repo / "definitions.py").read_text() == "# mine"


def test_a_new_clone_with_a_virtual_environment_counts_as_empty(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People make these first, and then say "here"."""
    repo = tmp_path / "shop"
    (repo / ".git").mkdir(parents=True)
    (repo / ".venv").mkdir()
    monkeypatch.chdir(repo)

    assert main(["init", "."]) == 0
    said = capsys.readouterr().out
    assert said.startswith('project "shop" in .')
    assert said.endswith("\nnext: featurestore plan\n")
    assert _files(repo) == {*WRITTEN, SAMPLE_PATH}


def test_a_file_in_the_place_of_the_directory_is_wrong_usage(tmp_path: Path, capsys: Capture) -> None:
    """And it is named."""
    (tmp_path / "shop").write_text("")

    assert main(["init", str(tmp_path / "shop")]) == 2
    assert "shop' is a file" in capsys.readouterr().err


@pytest.mark.parametrize("exists", [False, True])
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, *, exists: bool) -> None:
    """Here a limit on the size of files, after which the system takes no more; an empty directory is empty again."""
    repo = tmp_path / "deep" / "shop"
    if exists:
        repo.mkdir(parents=True)
    command = f'ulimit -f 1; exec "{sys.executable}" -m featurestore init "{repo}"'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert [repo] * exists == list(tmp_path.glob("deep/shop"))
    assert (tmp_path / "deep").exists() == exists
    assert not _files(tmp_path)


def test_a_file_that_came_into_being_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    """What was written before it goes again, the directories too; what somebody else wrote stays."""
    (tmp_path / "third").write_text("somebody else's")

    with pytest.raises(FileExistsError):
        write_all_or_nothing(tmp_path, {"first": "1", "deep/er/second": "2", "third": "3", "fourth": "4"})
    assert [tmp_path / "third"] == list(tmp_path.iterdir())
    assert (tmp_path / "third").read_text() == "somebody else's"


def test_the_sample_payments_are_events_of_the_source_in_the_definitions() -> None:
    """Their columns, each id once, of the last days, and some within the hour, so that short windows are not empty."""
    message_format = definitions.payments.kafka_options.message_format
    assert isinstance(message_format, JsonFormat)
    columns = {column.name for column in parse_source_schema(message_format.schema_json).columns}
    payments = [json.loads(line) for line in sample_payments(NOW_MS).splitlines()]
    ages_ms = [NOW_MS - (parse_text(payment["event_time"]) or 0) for payment in payments]

    assert all(payment.keys() == columns for payment in payments)
    assert len({payment["payment_id"] for payment in payments}) == len(payments) == 5
    assert sorted(ages_ms, reverse=True) == ages_ms
    assert ages_ms[0] == 72 * HOUR_MS
    assert sum(0 < age_ms < HOUR_MS / 2 for age_ms in ages_ms) == 3


def _without(package: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in a process that cannot import a package."""
    program = f"import sys; sys.modules[{package!r}] = None; from featurestore.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_init_needs_no_feast_and_plan_says_that_it_does(tmp_path: Path) -> None:
    """A command that misses a package only when it works ends as one that cannot be imported: with what to install."""
    repo = str(tmp_path / "shop")

    assert _without("feast", "init", repo).returncode == 0
    planned = _without("feast", "plan", "--repo", repo)
    assert planned.returncode == 1
    assert planned.stderr.splitlines() == [
        'error: `featurestore plan` needs the Python package "feast", which is not installed',
        'hint: pip install "featurestore[feast]"',
    ]


def test_a_module_of_ours_that_is_missing_is_no_package_to_install(tmp_path: Path) -> None:
    """It is our bug, and its traceback is needed."""
    repo = str(tmp_path / "shop")
    assert main(["init", repo]) == 0

    assert "Traceback" in _without("featurestore.definitions.changes", "plan", "--repo", repo).stderr


def test_removing_the_directory_removes_the_repo(tmp_path: Path) -> None:
    """Nothing is kept elsewhere: the same may be made again."""
    for _ in range(2):
        assert main(["init", str(tmp_path / "shop")]) == 0
        shutil.rmtree(tmp_path / "shop")

    assert list(tmp_path.iterdir()) == []
