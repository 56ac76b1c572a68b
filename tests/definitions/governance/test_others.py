"""Several repos in one registry: each touches its own, reads what is the others', and nobody breaks a reader."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from featurestore.cli.main import main
from featurestore.definitions.governance.turns import apply_turn
from featurestore.definitions.registry import read_registry, read_registry_bytes
from featurestore.errors import FeatureStoreError
from featurestore.wire.feast.authors import authored_in

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")

Capture = pytest.CaptureFixture[str]

CONFIG = """\
project: shop
provider: local
repo: {name}
registry: {{registry_type: sql, path: "sqlite:///{path}/registry.db"}}
online_store: {{type: sqlite, path: online.db}}
"""

RISK = """\
from feast import Entity, FeatureService, ValueType
from featurestore.features import about, aggregate, count, kafka_source, stream_view

card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.STRING)
columns = {"at": "timestamp", "card_id": "string", "shop": "string", "amount": "bigint"}
payments = kafka_source(name="payments", topic="payments", columns=columns, event_time="at")
cards = stream_view(
    name="cards",
    entities=[card],
    source=payments,
    features=[*count(over="1h"), *aggregate("amount", "sum", over="1d")],
    tags=about(),
)
"""

GROWTH = """\
from feast import FeatureService
from featurestore.features import count, request_features, stream_view
from risk_features import card, cards, payments

seen = count(over="30d", where="shop = 'A'", name="seen")
habits = stream_view(name="habits", entities=[card], source=payments, features=seen)
offers = FeatureService(name="offers", features=[habits, cards[["amount_sum_1d"]]])
by_name = FeatureService(name="by_name", features=["cards:count_1h"])
"""


@pytest.fixture
def repos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Of risk, whose definitions are a package too; and of growth, which imports that and names things."""
    for name, text in (("risk", RISK), ("growth", GROWTH)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "feature_store.yaml").write_text(CONFIG.format(name=name, path=tmp_path))
        (tmp_path / name / "definitions.py").write_text(text)
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "risk_features.py").write_text(RISK)
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    return tmp_path / "risk", tmp_path / "growth"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Callable[..., str]:
    """A command on a repo: what it prints, after it has ended with the code."""

    def run(command: str, repo: Path, code: int = 0) -> str:
        for name in ("risk_features", "definitions"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        capsys.readouterr()
        ended = main([command, "--repo", str(repo)])
        told = capsys.readouterr()
        assert ended == code, told.err
        return told.out + told.err

    return run


def url_of(repo: Path) -> str:
    """The registry of both."""
    return f"sqlite:///{repo.parent}/registry.db"


def test_a_permission_is_its_repos_as_anything_else(repos: tuple[Path, Path], run: Callable[..., str]) -> None:
    """It says whose it is, and stays as it was written."""
    risk, growth = repos
    permission = """
from feast.permissions.action import AuthzedAction
from feast.permissions.permission import Permission
from feast.permissions.policy import RoleBasedPolicy

reads = Permission(
    name="reads",
    name_patterns=["cards"],
    actions=[AuthzedAction.READ_ONLINE],
    policy=RoleBasedPolicy(roles=["risk"]),
    required_tags={"tier": "1"},
)
"""
    (risk / "definitions.py").write_text(RISK + permission)
    assert " ".join(run("apply", risk).split()).find("+ permission reads") >= 0
    assert "nothing to change" in run("plan", risk)

    (growth / "definitions.py").write_text(permission.replace('"1"', '"2"'))
    assert 'permission "reads": it is registered by repo "risk", and is another one here' in run("plan", growth, 1)


def test_each_repo_writes_its_own_and_reads_the_others(repos: tuple[Path, Path], run: Callable[..., str]) -> None:
    """Neither removes what is the other's; by import or by name, a service reads it as it is registered."""
    risk, growth = repos
    run("apply", risk)
    planned = run("plan", growth)
    assert "3 to add, 0 to change, 0 to remove" in planned
    assert planned == run("apply", growth)
    assert "nothing to change" in run("plan", risk)
    assert "nothing to change" in run("plan", growth)
    run("apply", risk)

    registered = read_registry(url_of(risk))
    assert [view.name for view in registered.views] == ["cards", "habits"]
    assert {one.output_name for one in registered.services[1].features} == {"seen_30d", "amount_sum_1d"}

    (growth / "definitions.py").write_text(GROWTH.replace('offers = FeatureService(name="offers"', '_ = dict(name="o"'))
    assert "- feature service  offers" in run("apply", growth)
    assert [one.name for one in read_registry(url_of(risk)).services] == ["by_name"]


def test_a_source_changes_for_all_that_read_it(repos: tuple[Path, Path], run: Callable[..., str]) -> None:
    """Views of others have a copy of it, which follows; one that would no longer compile is named."""
    risk, growth = repos
    run("apply", risk)
    run("apply", growth)
    (risk / "definitions.py").write_text(RISK.replace('"amount": "bigint"', '"amount": "bigint", "market": "string"'))
    run("apply", risk)
    habits = read_registry(url_of(risk)).views[1]
    assert habits.source.column("market") is not None
    told = run("plan", growth, 1)
    assert 'data source "payments": it is registered by repo "risk", and is another one here' in told

    (risk / "definitions.py").write_text(RISK.replace('"shop"', '"store"'))
    assert 'feature view "habits"' in run("apply", risk, 1)


def test_what_is_anothers_is_refused_by_name(repos: tuple[Path, Path], run: Callable[..., str]) -> None:
    """A view of a name that is taken, and an import that is not what is registered."""
    risk, growth = repos
    run("apply", risk)
    (growth / "definitions.py").write_text(RISK.replace('over="1h"', 'over="2h"'))
    told = run("apply", growth, 1)
    assert 'feature view "cards": it is registered by repo "risk", and is another one here' in told
    assert "call it otherwise, or import what is registered" in told
    assert "nothing to change" in run("plan", risk)


def test_a_feature_that_others_read_goes_after_its_deprecation_and_their_leave(
    repos: tuple[Path, Path], run: Callable[..., str]
) -> None:
    """Removed or of another type: refused, with its readers; announced, they are told; over, types may change."""
    risk, growth = repos
    run("apply", risk)
    run("apply", growth)
    less = RISK.replace('*count(over="1h"), ', "")
    (risk / "definitions.py").write_text(less)
    told = run("apply", risk, 1)
    assert 'feature "count_1h": it is removed, and feature service "by_name" of repo "growth" reads it' in told
    assert "announce it first" in told
    typed = RISK.replace('"amount": "bigint"', '"amount": "double"')
    (risk / "definitions.py").write_text(typed)
    assert 'it becomes float64, and was int64, and feature service "offers"' in run("plan", risk, 1)

    (risk / "definitions.py").write_text(RISK.replace("about()", 'about(deprecated_until="2999-01-01")'))
    assert 'read by feature service "offers" of repo "growth"' in run("apply", risk)
    (risk / "definitions.py").write_text(less)
    assert "wait: it is deprecated until 2999-01-01" in run("plan", risk, 1)

    (risk / "definitions.py").write_text(RISK.replace("about()", 'about(deprecated_until="2020-01-01")'))
    run("apply", risk)
    (risk / "definitions.py").write_text(typed)
    run("plan", risk)
    (risk / "definitions.py").write_text(less)
    assert "ask its reader to let go of it" in run("plan", risk, 1)


@pytest.mark.parametrize("is_in_database", [False, True])
def test_of_twenty_applies_at_once_one_has_its_turn(tmp_path: Path, *, is_in_database: bool) -> None:
    """What each reads and writes within its turn, no other one writes between."""
    registry = f"sqlite:///{tmp_path}/registry.db" if is_in_database else str(tmp_path / "registry.db")
    counter, failed = tmp_path / "counter", list[FeatureStoreError]()
    counter.write_text("0")

    def apply() -> None:
        try:
            with apply_turn(registry, "shop"):
                seen = int(counter.read_text())
                time.sleep(0.002)
                counter.write_text(str(seen + 1))
        except FeatureStoreError as error:
            failed.append(error)

    threads = [threading.Thread(target=apply) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failed == []
    assert counter.read_text() == "20"


def test_a_repo_without_a_name_is_tagged_with_none(repos: tuple[Path, Path], run: Callable[..., str]) -> None:
    """A registry of one repo stays as it was."""
    risk, _ = repos
    config = risk / "feature_store.yaml"
    config.write_text(config.read_text().replace("repo: risk\n", ""))
    run("apply", risk)

    assert not any("repo" in one.tags for one in authored_in(read_registry_bytes(url_of(risk)), "shop"))
