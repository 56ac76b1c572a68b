"""The locks: hashed, free of addresses, complete, and without what a process must not carry."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def _names(lock: Path) -> set[str]:
    return set(re.findall(r"^([a-z0-9._-]+)==", lock.read_text(), re.MULTILINE))


def _canonical(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name[0]).lower()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_pins_and_hashes_everything_and_names_no_address(lock: Path) -> None:
    """Any mirror can serve it, and none can change it."""
    text = lock.read_text()
    entries = re.split(r"\n(?=[a-z0-9])", text)

    assert all("==" in entry and "--hash=sha256:" in entry for entry in entries if not entry.startswith("#"))
    assert not re.search(r"https?:|file:/|--(extra-)?index|--find-links|(^|\s)/\w", text)


@pytest.mark.parametrize("python", ["py311", "py312"])
def test_the_full_lock_has_every_direct_dependency(python: str) -> None:
    """A dependency that was added without `make requirements` is found here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [name for name in project["optional-dependencies"] if name != "all"]
    wanted = project["dependencies"] + [r for extra in extras for r in project["optional-dependencies"][extra]]

    direct = {_canonical(requirement) for requirement in wanted} - {"featurestore"}  # one extra may name another
    assert direct <= _names(ROOT / "requirements" / f"all-{python}.txt")


def test_a_server_carries_neither_feast_nor_bytewax() -> None:
    """Nor the libraries of data frames that they would bring."""
    server = _names(ROOT / "requirements" / "server-py312.txt")
    stream = _names(ROOT / "requirements" / "stream-py312.txt")

    assert not server & {"feast", "bytewax", "pandas", "pyarrow", "confluent-kafka"}
    assert not stream & {"feast", "pandas", "grpcio"}
    assert "grpcio" in server
    assert "bytewax" in stream
