"""Rules and dashboard of a registry: Prometheus's tool takes them, alerts fire when they must, every metric exists."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY, CollectorRegistry

import dataflows.log_to_tiles.flow
from featurestore.cli.main import main
from featurestore.cli.repo.catalog.monitoring import DASHBOARD_FILE, RULES_FILE
from featurestore.definitions.governance.monitoring.dashboard import GRID_COLUMNS
from featurestore.definitions.repo import load_repo
from featurestore.offline.health import drift_metrics
from featurestore.serving.request.metrics import ServerMetrics
from featurestore.wire.codecs.view_json import definition_hash

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")

DEFINITIONS = """\
from feast import Entity, ValueType
from featurestore.features import about, count, kafka_source, stream_view

card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.STRING)
payments = kafka_source(
    name="payments", topic="card.payments-v2", columns={"at": "timestamp", "card_id": "string"}, event_time="at"
)
cards = stream_view(
    name="cards", entities=[card], source=payments, features=count(over="1h"), prefix="a_",
    freshness="30s", owner="risk", tags=about(tier=1, on_call="#risk"),
)
slow_cards = stream_view(
    name="slow_cards", entities=[card], source=payments, features=count(over="2h"), prefix="b_",
    freshness="10m", freshness_target=0.5, tags=about(tier=3),
)
unpromised = stream_view(name="unpromised", entities=[card], source=payments, features=count(over="3h"), prefix="c_")
"""

BURNING = """\
rule_files: [featurestore.rules.yml]
evaluation_interval: 1m
tests:
- interval: 1m
  input_series:
  - {series: 'featurestore_freshness_promise_seconds{view="cards"}', values: '30x180'}
  - {series: 'featurestore_freshness_promise_seconds{view="slow_cards"}', values: '600x60'}
  - {series: 'featurestore_freshness_events_total{view="cards"}', values: '0+100x120 12000x60'}
  - {series: 'featurestore_freshness_late_events_total{view="cards"}', values: '0x60 0+20x60 1200x60'}
  - {series: 'featurestore_freshness_events_total{view="slow_cards"}', values: '0+100x180'}
  - {series: 'featurestore_freshness_late_events_total{view="slow_cards"}', values: '0+20x180'}
  - {series: 'featurestore_stream_lag_records{topic="card.payments-v2",partition="0"}', values: '0x120 0+10x60'}
  - {series: 'featurestore_stream_lag_records{topic="cardXpayments-v2",partition="0"}', values: '9x180'}
  alert_rule_test:
  - {eval_time: 58m, alertname: FreshnessBudgetBurns, exp_alerts: []}
  - {eval_time: 58m, alertname: FreshnessStandsStill, exp_alerts: []}
  - {eval_time: 58m, alertname: FreshnessUnmeasured, exp_alerts: []}
  - eval_time: 119m
    alertname: FreshnessBudgetBurns
    exp_alerts:
    - exp_labels: {severity: page, view: cards, owner: risk, on_call: "#risk", tier: "1", window: 1h}
      exp_annotations:
        summary: "events of cards take longer than 30s: 19.33% in 1h, 14.4 times what 0.99 leaves"
        description: featurestore status; lag and commit time of the stream say where it waits
    - exp_labels: {severity: page, view: cards, owner: risk, on_call: "#risk", tier: "1", window: 6h}
      exp_annotations:
        summary: "events of cards take longer than 30s: 9.748% in 6h, 6 times what 0.99 leaves"
        description: featurestore status; lag and commit time of the stream say where it waits
    - exp_labels: {severity: ticket, view: cards, owner: risk, on_call: "#risk", tier: "1", window: 3d}
      exp_annotations:
        summary: "events of cards take longer than 30s: 9.748% in 3d, 1 times what 0.99 leaves"
        description: featurestore status; lag and commit time of the stream say where it waits
  - eval_time: 135m
    alertname: FreshnessStandsStill
    exp_alerts:
    - exp_labels: {severity: page, view: cards, owner: risk, on_call: "#risk", tier: "1"}
      exp_annotations:
        summary: cards has events to read, and commits none
        description: "the stream's log says what it waits for: the source, the store, or a schema"
  - eval_time: 75m
    alertname: FreshnessUnmeasured
    exp_alerts:
    - exp_labels: {severity: ticket, view: slow_cards, tier: "3"}
      exp_annotations:
        summary: no stream says how fresh slow_cards is
        description: start the stream with --metrics-port, and let Prometheus scrape it
"""


@pytest.fixture(scope="module")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repo, applied, with its rules and dashboard in `out`."""
    repo = tmp_path_factory.mktemp("monitored")
    (repo / "feature_store.yaml").write_text(
        "project: shop\nprovider: local\nregistry: registry.db\nonline_store:\n  type: sqlite\n  path: online.db\n"
    )
    (repo / "definitions.py").write_text(DEFINITIONS)
    assert main(["apply", "--repo", str(repo)]) == 0
    assert main(["monitoring", "--repo", str(repo), "--out", str(repo / "out")]) == 0
    return repo


def promtool(*arguments: str, directory: Path) -> str:
    """What Prometheus's tool says; it must be content."""
    program = shutil.which("promtool")
    if program is None and os.environ.get("CI") != "true":
        pytest.skip("needs promtool, of Debian's package prometheus")
    assert program is not None
    done = subprocess.run([program, *arguments], cwd=directory, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_the_rules_and_alerts_fire_when_they_must(monitored: Path) -> None:
    """A budget that burns, a view that stands still, one that nobody measures; with owner and channel, and no other."""
    out = monitored / "out"
    (out / "burning.yml").write_text(BURNING)

    assert "SUCCESS" in promtool("check", "rules", RULES_FILE, directory=out)
    assert "SUCCESS" in promtool("test", "rules", "burning.yml", directory=out)


def test_a_promise_is_no_part_of_what_a_view_means(monitored: Path) -> None:
    """Its hash stays, and a wrong promise is a mistake."""
    before = load_repo(monitored, "shop").compile().require_sound()
    written = (monitored / "definitions.py").read_text()
    (monitored / "definitions.py").write_text(written.replace('"30s"', '"5s"').replace("0.5", "1.5"))
    changed = load_repo(monitored, "shop").compile()

    assert [str(one) for one in changed.problems] == [
        'feature view "slow_cards": tag "freshness_target" is "1.5"; write a share of the events above 0 and below 1, '
        "such as 0.99"
    ]
    assert list(map(definition_hash, changed.spec.views)) == list(map(definition_hash, before.views))
    assert [(one.view, one.freshness_ms, one.target) for one in before.promises] == [
        ("cards", 30_000, 0.99),
        ("slow_cards", 600_000, 0.5),
    ]
    assert [(one.view, one.freshness_ms) for one in changed.spec.promises] == [("cards", 5_000)]


def test_grafana_gets_panels_that_lie_side_by_side_and_metrics_that_exist(monitored: Path) -> None:
    """Ids and letters are unique, panels fill the grid without overlapping, PromQL parses, every metric is declared."""
    document = json.loads((monitored / "out" / DASHBOARD_FILE).read_text())
    rules = yaml.safe_load((monitored / "out" / RULES_FILE).read_text())
    panels, taken = document["panels"], set[tuple[int, int]]()
    of_rules = [rule for group in rules["groups"] for rule in group["rules"]]
    recorded = {rule["record"] for rule in of_rules if "record" in rule}

    assert {"uid", "title", "schemaVersion", "templating", "time"} <= document.keys()
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        cells = {(x + place["x"], y + place["y"]) for x in range(place["w"]) for y in range(place["h"])}
        assert 0 <= place["x"] <= place["x"] + place["w"] <= GRID_COLUMNS
        assert not cells & taken
        taken |= cells
        letters = [target["refId"] for target in panel.get("targets", ())]
        assert len(set(letters)) == len(letters)
    queries = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    shown = [{"record": f"shown:{n}", "expr": one.replace("$__rate_interval", "5m")} for n, one in enumerate(queries)]
    (monitored / "out" / "shown.yml").write_text(yaml.safe_dump({"groups": [{"name": "shown", "rules": shown}]}))
    assert "SUCCESS" in promtool("check", "rules", "shown.yml", directory=monitored / "out")
    used = {name for one in [*queries, *(rule["expr"] for rule in of_rules)] for name in _metrics_in(one)}
    assert used <= _declared() | recorded


def _metrics_in(expr: str) -> set[str]:
    """Names of metrics in PromQL; what stands in quotes is none."""
    return set(re.findall(r"\bfeaturestore[\w:]*", re.sub(r'"[^"]*"', "", expr)))


def _declared() -> set[str]:
    """Names of all samples that server and stream can have."""
    assert dataflows.log_to_tiles.flow.FLOW_NAME
    endings: dict[str, tuple[str, ...]] = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
    registries: tuple[CollectorRegistry, ...] = (REGISTRY, ServerMetrics().registry)
    families: list[Any] = [family for registry in registries for family in registry.collect()]
    of_drift = {drift_metrics.DISTANCE, drift_metrics.DRIFTED, drift_metrics.CHECKED}
    return of_drift | {family.name + ending for family in families for ending in endings.get(family.type, ("",))}
