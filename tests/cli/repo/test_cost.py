"""`featurestore plan --cost`, typed in: its tables, its JSON, and what it says of wrong calls."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from featurestore.cli.main import main
from featurestore.cli.repo.plan import entities_by_name
from featurestore.cli.settings import EVENT_LOG_VARIABLE
from featurestore.offline.event_log.address import place_of
from featurestore.offline.event_log.schema import log_schema
from featurestore.offline.event_log.writer import prepare_log
from tests.online.write.test_bootstrap_log import SOURCE, write_log

Capture = pytest.CaptureFixture[str]

ROOT = Path(__file__).resolve().parents[3]
EXIT_USAGE = 2


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, and three days of events in a Parquet file; nothing is applied."""
    repo = tmp_path_factory.mktemp("cost") / "feature_repo"
    shutil.copytree(ROOT / "feature_repo", repo, ignore=shutil.ignore_patterns("data", "__pycache__"))
    events = f"parquet:{repo / 'events.parquet'}"
    assert main(["simulate", "--to", events, "--start", "2026-11-01", "--days", "3", "--cards", "300"]) == 0
    return repo


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """80 columns, and no event log that anybody has set."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv(EVENT_LOG_VARIABLE, raising=False)
    capsys.readouterr()


def test_the_tables_fit_on_80_columns(repo: Path, capsys: Capture) -> None:
    """Every storage with its parts, its work, what was sampled, and what each feature adds; no name is cut."""
    command = ["plan", "--cost", "--repo", str(repo), "--event-log", str(repo / "events.parquet")]
    assert main([*command, "--features", "--entities", "2,000,000", "--entities", "card_activity=50_000_000"]) == 0
    printed = capsys.readouterr()
    lines = [line.rstrip() for line in printed.out.splitlines()]

    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if "…" in line]
    for name in ("card_activity", "card_spending", "merchant_activity", "terminal_activity"):
        assert len([line for line in lines if line.startswith(f"{name} ")]) == 3, name
        assert any(line.startswith(f"{name}: all ") for line in lines), name
    assert [len([line for line in lines if line.startswith(f"  {part} ")]) for part in ("head", "body", "names")] == [
        *(4, 4, 4)
    ]
    assert any(line.startswith("card_activity") and "50.0 M" in line and " GB" in line for line in lines)
    assert any(line.startswith("together ") for line in lines)
    assert any(line.startswith("card_merchant_category_last_1d ") for line in lines)
    assert "features add nothing" in printed.out
    assert "rows of" in printed.err


def test_json_has_every_figure(repo: Path, capsys: Capture) -> None:
    """Numbers, not texts; and what was read, sampled and extrapolated."""
    place = f"transactions={repo / 'events.parquet'}"
    assert main(["plan", "--cost", "--repo", str(repo), "--event-log", place, "--format", "json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    card = found["card_activity"]
    rows = pq.read_table(repo / "events.parquet")

    assert set(found) == {"card_activity", "card_spending", "merchant_activity", "terminal_activity"}
    assert card["events"] == rows.num_rows
    assert card["entities"] == card["entities_sampled"] == len(rows["card_id"].unique())
    assert card["entity_bytes"]["mean"] == pytest.approx(
        sum(card[f"{part}_bytes"]["mean"] for part in ("head", "body", "name"))
    )
    assert card["lookup"]["tiles"]["mean"] > 1
    assert card["extrapolation"] is None
    assert card["features"] == []


def test_without_a_history_it_says_where_one_comes_from(repo: Path, tmp_path: Path, capsys: Capture) -> None:
    """No log, none of that source, an empty one, files without rows or without the columns."""
    prepare_log(place_of(tmp_path / "empty" / "transactions"), log_schema(SOURCE), {("transactions", 0): ""})
    write_log(tmp_path / "others" / "transactions", {0: 5})
    rows = pq.read_table(repo / "events.parquet")
    pq.write_table(rows.slice(0, 0), tmp_path / "empty.parquet")
    pq.write_table(rows.drop_columns(["amount"]), tmp_path / "narrow.parquet")
    write_deltalake(tmp_path / "table", rows.drop_columns(["merchant_category"]))

    def refusal(*options: str) -> str:
        assert main(["plan", "--cost", "--repo", str(repo), *options]) == 1
        return capsys.readouterr().err

    missing = refusal()
    assert "there is no event log at" in missing
    assert "featurestore event-log run" in missing
    assert "has no events yet" in refusal("--event-log", str(tmp_path / "empty"))
    other = refusal("--event-log", str(tmp_path / "others"))
    assert '"transaction_id"' in other
    assert 'which "card_activity" reads' in other
    assert "hint: " in other
    assert "has no rows" in refusal("--event-log", str(tmp_path / "empty.parquet"))
    assert 'has no column "amount"' in refusal("--event-log", str(tmp_path / "narrow.parquet"))
    assert 'has no column "merchant_category"' in refusal("--event-log", f"transactions={tmp_path / 'table'}")
    assert 'known are "transactions"' in refusal("--event-log", "payments=x.parquet")


def test_a_wrong_call_says_what_is_meant(repo: Path, capsys: Capture) -> None:
    """Options that go together or not, names that nothing has, numbers that are none."""
    command = ["plan", "--repo", str(repo)]
    for options, said in (
        (["--entities", "5"], "go with --cost"),
        (["--features"], "go with --cost"),
        (["--cost", "--physical"], "give --physical or --cost"),
        (["--cost", "--entities", "many"], "is not [NAME=]N"),
        (["--cost", "--entities", "0"], "is not [NAME=]N"),
        (["--cost", "--entities", "5", "--entities", "6"], "given twice for everything"),
        (["--cost", "--event-log", "a=b", "--event-log", "c"], "give --event-log as SOURCE=PATH"),
    ):
        assert main([*command, *options]) == EXIT_USAGE, options
        assert said in capsys.readouterr().err
    assert main([*command, "--cost", "--event-log", str(repo / "events.parquet"), "--entities", "card=5"]) == 1
    assert 'nothing that is stored is called "card"' in capsys.readouterr().err


def test_entities_are_numbers_for_names_or_for_all() -> None:
    """A storage group's name has a colon, and digits may be set apart."""
    assert entities_by_name(["transactions:card_id=2_000_000", "5,000"]) == {
        "transactions:card_id": 2_000_000,
        "": 5_000,
    }


def test_a_policy_may_ask_what_an_entity_takes(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """It is what --cost says; where no rule asks, no event is read; and unknown is not enough."""
    rules = tmp_path / "rules.yaml"
    command = ["plan", "--repo", str(repo), "--policies", str(rules)]

    def rule(require: str) -> None:
        rules.write_text(
            f"policies: [{{name: small, kind: view, where: is_streamed, require: {require}, remedy: store less}}]"
        )

    monkeypatch.setenv(EVENT_LOG_VARIABLE, str(tmp_path / "nowhere"))
    rule("stored_fields > 0")
    assert main(command) == 0
    assert "is not known" not in capsys.readouterr().err
    rule("entity_bytes > 0")
    assert main(command) == 1
    assert "entity_bytes is unknown; store less" in capsys.readouterr().err
    rule("entity_bytes IS NULL OR entity_bytes < 100")
    assert main(command) == 0
    assert "what an entity of card_activity takes is not known" in capsys.readouterr().err

    monkeypatch.setenv(EVENT_LOG_VARIABLE, str(repo / "events.parquet"))
    assert main(["plan", "--cost", "--repo", str(repo), "--format", "json"]) == 0
    costs = json.loads(capsys.readouterr().out)
    known = {name: one["entity_bytes"]["mean"] for one in costs for name in (one["name"], *one["views"])}
    limit = known["merchant_activity"]
    rule(f"entity_bytes <= {limit}")
    assert main(command) == 1
    told = capsys.readouterr().err
    assert f'feature view "card_activity": it breaks policy "small": entity_bytes is {known["card_activity"]}' in told
    assert 'feature view "merchant_activity"' not in told
