"""The page docs/your-own-repo.md, typed in with nothing but the wheel: no checkout, an empty virtual environment.

checkout ── copy of what a wheel is made of ──> wheel ──┐
tmp_path/  featurestore-*.whl  <────────────────────────┘
           .venv   shop/       what the page makes of it
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from featurestore.cli.repo.init import command as init
from featurestore.online.embedded import EmbeddedStore
from featurestore.testing.servers import kafka_broker, kafka_missing
from tests.docs.pages import Reader, type_in

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "your-own-repo.md"
PORT_ON_PAGE = "6566"
KAFKA_ON_PAGE = "127.0.0.1:9092"
IN_WHEEL = ("pyproject.toml", "README.md", "LICENSE", "featurestore", "dataflows")

pytestmark = pytest.mark.slow


@pytest.fixture
def kafka_address() -> Iterator[str]:
    """A broker of its own, in which no other test has a topic of the page's name."""
    missing = kafka_missing()
    if missing is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    with kafka_broker() as broker:
        yield broker.bootstrap_servers


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Reader]:
    """A reader in a directory with a wheel, whose Python has no packages and knows no checkout."""
    desk = tmp_path / "desk"
    desk.mkdir()
    build_wheel(tmp_path / "source", desk)
    reader = Reader(desk, environment_without_checkout(tmp_path))
    yield reader
    reader.leave()
    EmbeddedStore(desk / "shop" / "data" / "store").stop()
    shutil.rmtree(desk / ".venv", ignore_errors=True)  # of a gigabyte, and pytest keeps directories for a while


@pytest.fixture
def reader_in_new_repo(tmp_path: Path) -> Iterator[Reader]:
    """A reader in a repo that was just made, with everything installed."""
    repo = tmp_path / "shop"
    assert CliRunner().invoke(init, [str(repo)]).exit_code == 0
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FEATURESTORE_")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    reader = Reader(repo, environment)
    yield reader
    reader.leave()
    EmbeddedStore(repo / "data" / "store").stop()


@pytest.mark.kafka
def test_the_page_works_with_nothing_but_the_wheel(newcomer: Reader, kafka_address: str, port: int) -> None:
    """Typed in from the top, every command succeeds and prints what the page says; no module is a checkout's."""
    page = PAGE.read_text(encoding="utf-8").replace(PORT_ON_PAGE, str(port)).replace(KAFKA_ON_PAGE, kafka_address)
    languages = type_in(page, newcomer)
    homes = newcomer.run_python("import featurestore, dataflows; print(featurestore.__file__, *dataflows.__path__)")

    assert languages == {"bash", "python", "text"}
    assert all(Path(home).is_relative_to(newcomer.directory / ".venv") for home in homes.split())
    assert newcomer.type("featurestore store status || true").startswith("no embedded store runs")


def test_the_readme_of_a_new_repo_works_as_written(reader_in_new_repo: Reader, port: int) -> None:
    """Its reader has a repo and no page: every command succeeds, and the payment that it adds is in the answer."""
    readme = (reader_in_new_repo.directory / "README.md").read_text(encoding="utf-8")
    languages = type_in(readme.replace(PORT_ON_PAGE, str(port)), reader_in_new_repo)

    assert languages == {"bash", "text"}
    assert readme.startswith("# shop\n")
    assert reader_in_new_repo.type("featurestore store status || true").startswith("no embedded store runs")


def build_wheel(source: Path, target: Path) -> None:
    """Build the wheel into `target`, from a copy: setuptools leaves its work in the directory that it builds."""
    source.mkdir()
    for name in IN_WHEEL:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(target), str(source)], cwd=source, check=True)


def environment_without_checkout(directory: Path) -> dict[str, str]:
    """This process's environment without its virtual environment and its paths.

    `python3` is the Python below that environment, and pip installs the versions that are locked: without their hashes,
    which a wheel that was made a moment ago has not.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FEATURESTORE_", "PYTHON", "VIRTUAL_ENV"))
    }
    major, minor = sys.version_info[:2]
    programs = directory / "programs"
    programs.mkdir()
    python = programs / "python3"
    python.write_text(f'#!/bin/sh\nexec "{sys.base_prefix}/bin/python{major}.{minor}" "$@"\n')
    python.chmod(0o755)
    own = Path(sys.executable).parent
    others = [path for path in environment["PATH"].split(os.pathsep) if Path(path) != own]
    environment["PATH"] = os.pathsep.join([str(programs), *others])
    lock = (ROOT / "requirements" / f"all-py{major}{minor}.txt").read_text(encoding="utf-8")
    constraints = directory / "constraints.txt"
    constraints.write_text("\n".join(re.findall(r"^[a-z0-9._-]+==[^ \\]+", lock, re.MULTILINE)))
    environment["PIP_CONSTRAINT"] = str(constraints)
    return environment
