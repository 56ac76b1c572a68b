"""`featurestore plan` and `featurestore apply`, as typed; and how commands are found and errors end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from featurestore.cli.main import main
from featurestore.cli.settings import StoreSettings, load_settings
from featurestore.definitions.registry import read_registry
from featurestore.errors import InvalidRequest

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")

StockApply = Callable[[Path], Path]
Capture = pytest.CaptureFixture[str]


def test_plan_apply_plan(example_repo: Path, capsys: Capture) -> None:
    """Before an apply everything is to add, after it nothing is to change; plan itself registers nothing."""
    arguments = ["--repo", str(example_repo)]
    assert main(["plan", *arguments]) == 0
    planned = capsys.readouterr().out
    assert not (example_repo / "data" / "registry.db").exists()

    assert main(["apply", *arguments]) == 0
    assert planned == capsys.readouterr().out
    assert "20 to add, 0 to change, 0 to remove" in planned

    assert main(["plan", "--exit-code", *arguments]) == 0
    assert "nothing to change, 20 definitions are as registered" in capsys.readouterr().out
    assert len(read_registry(example_repo / "data" / "registry.db").views) == 4


def test_plan_shows_one_changed_window(example_repo: Path, stock_apply: StockApply, capsys: Capture) -> None:
    """Only the view that changed, and in it only the feature that changed."""
    stock_apply(example_repo)
    views = example_repo / "terminal_views.py"
    views.write_text(
        views.read_text().replace(
            '*aggregate("amount", "mean", over=["1d", "30d"])', '*aggregate("amount", "mean", over=["1d"])'
        )
    )

    assert main(["plan", "--exit-code", "--repo", str(example_repo)]) == 10
    output = capsys.readouterr().out
    assert "~ feature view     terminal_activity  (new generation " in output
    assert "- feature terminal_amount_mean_30d: mean(amount) over 30d, hop 6h, float64" in output
    assert "0 to add, 3 to change, 0 to remove, 17 unchanged" in output


def test_a_repo_with_mistakes_is_neither_planned_nor_applied(example_repo: Path, capsys: Capture) -> None:
    """All mistakes on stderr, exit code 1, and the registry is not touched."""
    views = example_repo / "terminal_views.py"
    views.write_text(views.read_text().replace('"amount", "sum"', '"amuont", "sum"').replace('"mean"', '"maen"'))

    for command in ("plan", "apply"):
        assert main([command, "--repo", str(example_repo)]) == 1
        output = capsys.readouterr()
        assert output.out == ""
        assert 'error: project "payments" has 8 problems' in output.err
        assert (
            'feature "terminal_amuont_sum_1h": column "amuont" is not a column of source "transactions"' in output.err
        )
        assert 'unknown aggregation function "maen"; did you mean "mean"' in output.err
    assert not (example_repo / "data" / "registry.db").exists()


def test_a_repo_that_cannot_be_imported_says_where(example_repo: Path, capsys: Capture) -> None:
    """File and line of the author's own code, not a traceback through Feast."""
    views = example_repo / "terminal_views.py"
    views.write_text(views.read_text() + "\nbroken = undefined_name\n")

    assert main(["plan", "--repo", str(example_repo)]) == 1
    line = len(views.read_text().splitlines())
    assert f"terminal_views.py:{line}: NameError: name 'undefined_name' is not defined" in capsys.readouterr().err


def test_two_repos_with_modules_of_one_name_do_not_mix(example_repo: Path, tmp_path: Path, capsys: Capture) -> None:
    """Loading leaves no module behind: another repo's "entities" is another module."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "feature_store.yaml").write_text("project: other\nprovider: local\nregistry: registry.db\n")
    (other / "entities.py").write_text(
        "from feast import Entity, ValueType\ncar = Entity(name='car', value_type=ValueType.INT64)\n"
    )

    assert main(["plan", "--repo", str(example_repo)]) == 0
    assert main(["plan", "--repo", str(other)]) == 0
    assert 'project "other"\n  + entity  car  (join key car)\n' in capsys.readouterr().out
    assert "entities" not in sys.modules


def test_on_demand_views_are_noted(plain_repo: Path, capsys: Capture) -> None:
    """The stock SDK computes them, and a server that is told to; the plan says so and goes on."""
    definitions = plain_repo / "definitions.py"
    definitions.write_text(
        definitions.read_text()
        + """
from feast.on_demand_feature_view import on_demand_feature_view


@on_demand_feature_view(sources=[driver_rides], schema=[Field(name="doubled", dtype=Float64)], mode="python")
def ratios(inputs):
    return {"doubled": [2.0 * (fare or 0.0) for fare in inputs["sum_fare_3600s"]]}


with_ratios = FeatureService(name="with_ratios", features=[driver_rides, ratios])
"""
    )

    assert main(["plan", "--repo", str(plain_repo)]) == 0
    output = capsys.readouterr()
    assert 'note: on-demand feature view "ratios" is a Python function' in output.err
    assert "--python-features" in output.err
    assert "+ on-demand feature view  ratios" in output.out


def test_wrong_usage_exits_with_two(capsys: Capture) -> None:
    """Unknown commands and options are usage errors."""
    assert main(["plann"]) == 2
    assert main(["plan", "--nonsense"]) == 2
    assert "No such command 'plann'" in capsys.readouterr().err


def test_the_command_line_imports_nothing_heavy() -> None:
    """`featurestore --help` answers at once: no Feast, gRPC, Bytewax, Redis or numpy."""
    code = (
        "import sys; from featurestore.cli.main import main; main(['--help']);"
        "print(sorted({'feast', 'grpc', 'bytewax', 'redis', 'numpy', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.splitlines()[-1] == "[]"
    assert "plan " in done.stdout


def test_settings_come_from_options_then_environment_then_the_file(
    example_repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One order for every command."""
    for name in ("REPO", "REGISTRY", "PROJECT", "STORE_URL", "STORE_CLUSTER"):
        monkeypatch.delenv(f"FEATURESTORE_{name}", raising=False)
    config = example_repo / "feature_store.yaml"
    text = config.read_text()
    at = text.index("online_store:")
    config.write_text(
        text[:at]
        + "online_store:\n  type: featurestore.feast.RealTimeOnlineStore\n"
        + "  connection_string: redis://${STORE_HOST}:6379/0\n  cluster: true\n"
    )
    monkeypatch.setenv("STORE_HOST", "db.internal")
    from_file = load_settings(repo=example_repo)
    monkeypatch.setenv("FEATURESTORE_STORE_URL", "redis://from-environment:1")
    monkeypatch.setenv("FEATURESTORE_REPO", str(example_repo))
    monkeypatch.setenv("FEATURESTORE_STORE_CLUSTER", "no")
    from_environment = load_settings()
    from_option = load_settings(store_url="redis://from-option:1", cluster=True, project="other")

    assert ("payments", str(example_repo / "data" / "registry.db")) == (from_file.project, from_file.registry)
    assert StoreSettings("redis://db.internal:6379/0", True) == from_file.store
    assert StoreSettings("redis://from-environment:1", False) == from_environment.store
    assert ("other", StoreSettings("redis://from-option:1", True)) == (from_option.project, from_option.store)


def test_a_repo_without_a_connection_means_the_embedded_store(
    example_repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the example has it: no url."""
    monkeypatch.delenv("FEATURESTORE_STORE_URL", raising=False)

    assert load_settings(repo=example_repo).store == StoreSettings(None, False)


def test_no_repo_says_what_to_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty directory, and with a directory that is no repo; a server needs registry and project only."""
    monkeypatch.chdir(tmp_path)
    for name in ("REPO", "REGISTRY", "PROJECT"):
        monkeypatch.delenv(f"FEATURESTORE_{name}", raising=False)

    with pytest.raises(InvalidRequest, match="there is no feature repo here"):
        load_settings()
    with pytest.raises(InvalidRequest, match="is not a feature repo"):
        load_settings(repo=tmp_path)
    assert load_settings(registry="postgresql://db/feast", project="payments").registry == "postgresql://db/feast"
