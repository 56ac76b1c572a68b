"""Policies: what breaks one is told with rule and remedy, exceptions end by themselves, and a wrong file is refused."""

from __future__ import annotations

import http.server
import threading
from datetime import date
from pathlib import Path

import pytest

from featurestore.cli.main import main
from featurestore.cli.repo.planning import planned_repo
from featurestore.cli.settings import load_settings, text_at
from featurestore.core.spec import RepoSpec
from featurestore.definitions.governance.facts import subjects_of
from featurestore.definitions.governance.policies import PolicyOutcome, check_policies, read_policies
from featurestore.definitions.repo import LoadedRepo, load_repo
from featurestore.errors import DefinitionError, InvalidRequest, SourceUnavailable

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")

DEFINITIONS = """\
from feast import Entity, FeatureService, RequestSource, ValueType, Field
from feast.types import Int64
from featurestore.features import LIFETIME, about, aggregate, count, derive, kafka_source, request_features, stream_view

card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.STRING)
payments = kafka_source(
    name="payments",
    topic="payments",
    columns={"at": "timestamp", "card_id": "string", "email": "string", "amount": "bigint"},
    computed={"shouted": "upper(email)", "is_long": "length(email) > 9"},
    event_time="at",
    tags=about(pii_columns={"email": "personal", "is_long": "none"}),
)
cards = stream_view(
    name="cards",
    entities=[card],
    source=payments,
    features=[
        *count(over=["1h", "500d"]),
        *aggregate("email", ["last", "count_distinct(10)"], over="1h"),
        *aggregate("shouted", "last_n(3)", over="1h", name="heard"),
        *aggregate("amount", "sum by email(10)", over="1h", name="spent"),
        *aggregate("is_long", "last", over="1h"),
        *derive("same", "email_last_1h"),
    ],
    owner="risk",
    tags=about(tier=1),
)
asked = request_features(name="asked", sources=[cards], features={"mail": "email_last_1h", "many": "count_1h"})
model = FeatureService(name="model", features=[cards])
"""

RULES = """\
policies:
- {name: described, kind: view, require: owner IS NOT NULL AND description IS NOT NULL, remedy: say whose it is}
- {name: hidden, kind: feature, require: "shown_pii IN ('none', 'pseudonymous')", remedy: count it instead}
- {name: fresh, kind: view, where: tier = 1, require: freshness_minutes <= 10, remedy: promise it by freshness=}
- {name: kept, kind: view, where: is_streamed, require: retention_days <= 400, remedy: shorten its windows}
- {name: named, kind: view, matches: {name: "[a-z]+_[a-z_]+"}, remedy: 'call it team_entity'}
exceptions:
- {policy: named, of: "as*", until: 2026-06-30, reason: it is old}
- {policy: named, of: cards, until: 2026-05-31, reason: it is old}
"""


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repo that breaks each rule."""
    (tmp_path / "feature_store.yaml").write_text(
        "project: shop\nprovider: local\nregistry: registry.db\npolicies: rules.yaml\n"
        "online_store:\n  type: sqlite\n  path: online.db\n"
    )
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    (tmp_path / "rules.yaml").write_text(RULES)
    return tmp_path


def held(loaded: LoadedRepo, rules: str, today: date) -> PolicyOutcome:
    """What rules say of a repo."""
    spec: RepoSpec = loaded.compile().require_sound()
    return check_policies(read_policies(rules, "rules.yaml"), subjects_of(spec, loaded.registry), today)


def test_each_rule_finds_what_breaks_it_and_no_more(repo: Path) -> None:
    """PII that is counted stays, shown it does not, by whatever way; what an author says of a computed column holds."""
    loaded = load_repo(repo, "shop")
    found = held(loaded, RULES, date(2026, 6, 30))
    broken = {(one.fact.split('"')[1], one.place.name, one.place.feature) for one in found.violations}

    shown = {"email_last_1h", "heard_1h", "spent_1h", "same"}
    assert broken == {
        ("described", "cards", ""),
        ("described", "asked", ""),
        *(("hidden", "cards", name) for name in shown),
        ("hidden", "asked", "mail"),
        ("fresh", "cards", ""),
        ("kept", "cards", ""),
        ("named", "cards", ""),
    }
    assert found.notes == ('on-demand feature view "asked" is excepted from policy "named" until 2026-06-30',)
    (named,) = (one for one in found.violations if '"named"' in one.fact)
    assert str(named).endswith('"named" (its exception ended on 2026-05-31): name is "cards"; call it team_entity')
    late = held(loaded, RULES, date(2026, 7, 1))
    assert len(late.violations) == len(found.violations) + 1


def test_plan_and_apply_refuse_what_breaks_a_rule(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is registered; with rules that are kept, or without any, it is."""
    assert main(["plan", "--repo", str(repo)]) == 1
    told = capsys.readouterr().err
    assert 'feature "email_last_1h": it breaks policy "hidden": shown_pii is "personal"; count it instead' in told
    assert main(["apply", "--repo", str(repo)]) == 1
    assert not (repo / "registry.db").exists()
    (repo / "kept.yaml").write_text(
        "policies: [{name: few, kind: service, require: features < 50, remedy: split it}]\n"
    )
    assert main(["plan", "--repo", str(repo), "--policies", str(repo / "kept.yaml")]) == 0


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("{name: a, kind: veiw, require: tier = 1, remedy: b}", 'is of kind "veiw"'),
        ("{name: a, kind: view, require: teir = 1, remedy: b}", "teir"),
        ("{name: a, kind: view, require: tier, remedy: b}", "neither true nor false"),
        ("{name: a, kind: view, require: tier = 1}", "no remedy"),
        ("{name: a, kind: view, matches: {name: '('}, remedy: b}", "pattern"),
        ("{name: a, kind: view, requires: tier = 1, remedy: b}", '"requires" is not known'),
    ],
)
def test_a_rule_that_is_wrong_is_refused(rule: str, told: str) -> None:
    """It would be kept by all, or by none."""
    with pytest.raises(InvalidRequest) as caught:
        read_policies(f"policies:\n- {rule}\n", "rules.yaml")
    assert told in caught.value.message


def test_rules_at_an_address_are_asked_for_with_a_token(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that wants one, one that leads elsewhere, which must not see it, and one that has no rules."""
    seen = list[tuple[str, str | None]]()

    class Door(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, self.headers["Authorization"]))
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/elsewhere")
                self.end_headers()
                return
            is_known = self.path == "/elsewhere" or self.headers["Authorization"] == "Bearer t-1"
            self.send_response(200 if is_known else 401)
            self.end_headers()
            self.wfile.write(RULES.encode() if is_known else b"")

        def log_message(self, *_: object) -> None: ...

    door = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door)
    thread = threading.Thread(target=door.serve_forever, daemon=True)
    thread.start()
    place = f"http://127.0.0.1:{door.server_port}"
    monkeypatch.delenv("FEATURESTORE_RULES_TOKEN", raising=False)
    with pytest.raises(SourceUnavailable, match="401"):
        text_at(f"{place}/rules", "policies")
    monkeypatch.setenv("FEATURESTORE_RULES_TOKEN", "t-1")
    assert RULES == text_at(f"{place}/rules", "policies") == text_at(f"{place}/moved", "policies")
    with pytest.raises(DefinitionError, match='it breaks policy "described"'):
        planned_repo(load_settings(repo=repo), f"{place}/rules")
    with pytest.raises(InvalidRequest, match="in clear text"):
        text_at("http://rules.example/rules", "policies")
    door.shutdown()
    thread.join()
    door.server_close()
    with pytest.raises(SourceUnavailable, match="cannot be read"):
        text_at(f"{place}/rules", "policies")

    assert [("/rules", None), ("/rules", "Bearer t-1"), ("/moved", "Bearer t-1"), ("/elsewhere", None)] == seen[:4]
