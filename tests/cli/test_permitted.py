"""Commands keep the registry's permissions as the server does: real tokens, a real registry and a real Redis."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.cli.main import main
from featurestore.clock import SystemClock
from featurestore.definitions.governance.audit.evidence import rows_digest
from featurestore.definitions.governance.audit.journal import Journal
from featurestore.definitions.governance.audit.reading import find_entries
from featurestore.errors import PermissionDenied, Unauthenticated
from featurestore.training import FileHistory, build_training_set, read_registry
from tests.serving.issuer import AUDIENCE, ISSUER, Issuer

DEFINITIONS = """
from feast import Entity, FeatureService, ValueType
from feast.permissions.action import AuthzedAction
from feast.permissions.permission import Permission
from feast.permissions.policy import RoleBasedPolicy
from featurestore.features import count, kafka_source, stream_view

card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.STRING)
payments = kafka_source(
    name="payments", topic="payments", columns={"id": "string", "at": "timestamp", "card_id": "string"},
    event_time="at", event_id="id",
)
cards = stream_view(name="cards", entities=[card], source=payments, features=[*count(over="1h")], owner="cards@x")
check = FeatureService(name="check", features=[cards], owner="cards@x")
everything = Permission(name="everything", actions=list(AuthzedAction), policy=RoleBasedPolicy(roles=["cards"]))
"""

FILE = f"""
project: cards
registry: registry.db
provider: local
online_store: {{type: featurestore.feast.RealTimeOnlineStore}}
offline_store: {{type: featurestore.feast.PointInTimeOfflineStore}}
entity_key_serialization_version: 3
oidc_keys: keys.json
audit: audit
auth:
  type: oidc
  auth_discovery_url: {ISSUER}/.well-known/openid-configuration
  audience: {AUDIENCE}
"""

REFUSED = {
    "history": ["--entities", "labels.parquet", "--service", "check", "--out", "out.parquet"],
    "bootstrap": ["cards"],
    "drop": ["cards"],
    "rollback": ["cards"],
    "erase": ["card_id=c-17"],
    "publish": ["check", "--to", "vectors"],
    "dead-letters": ["replay"],
    "apply": [],
}
WANTED = {
    "history": 'READ_OFFLINE feature service "check"',
    "publish": 'READ_ONLINE feature service "check"',
    "apply": 'UPDATE stream feature view "cards"',
}
WITHOUT_STORE = {"history", "dead-letters", "apply"}


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Issuer:
    """A repo that is applied, with permissions from then on, and a change that is not."""
    monkeypatch.chdir(tmp_path)
    issuer = Issuer(tmp_path / "keys.json")
    (tmp_path / "feature_store.yaml").write_text(FILE)
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    (tmp_path / "log" / "payments").mkdir(parents=True)
    (tmp_path / "log" / "payments" / "0.jsonl").touch()
    monkeypatch.setenv("FEATURESTORE_LOG_DIR", "log")
    labels = pa.table({"card_id": ["c-17"], "event_timestamp": pa.array([1_000], pa.timestamp("ms", "UTC"))})
    pq.write_table(labels, tmp_path / "labels.parquet")
    # Nobody has to be allowed to write the first permissions.
    assert main(["apply"]) == 0
    (tmp_path / "definitions.py").write_text(DEFINITIONS.replace('over="1h"', 'over="2h"'))
    for name, roles in {"cards": ["cards"], "crm": ["crm"]}.items():
        (tmp_path / f"{name}.token").write_text(issuer.token(*roles))
    return issuer


def test_commands_are_for_those_who_may(
    repo: Issuer, redis_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a token and with a wrong one each is refused before it says or does anything; with the right one not."""

    def said(command: str, *more: str) -> str:
        store = [] if command in WITHOUT_STORE else ["--store-url", redis_url]
        assert main([command, *REFUSED[command], *store, *more]) == 1
        return capsys.readouterr().err

    for command in REFUSED:
        wanted = WANTED.get(command, 'WRITE_ONLINE stream feature view "cards"')
        nobody = said(command)
        assert "the registry has permissions, and nothing says who runs this command" in nobody
        assert f"To {wanted} takes role cards." in nobody
        assert "give a token by --token-file or FEATURESTORE_TOKEN_FILE; ask cards@x" in nobody
        denied = said(command, "--token-file", "crm.token")
        assert f'"risk-model" may not {wanted}\nIt takes role cards.\nhint: ask cards@x for it' in denied
    Path("other.token").write_text(repo.token("cards", aud="crm"))
    assert "the token does not hold" in said("apply", "--token-file", "other.token")
    # What there is not is denied in the same words.
    assert main(["history", *REFUSED["history"][:2], "--feature", "no:x", "--out", "o", "--token-file", "crm.token"])
    assert 'may not READ_OFFLINE feature view "no"' in capsys.readouterr().err

    monkeypatch.setenv("FEAST_OIDC_TOKEN", repo.token("cards"))  # as Feast's own clients find it
    for command in ("bootstrap", "drop", "rollback"):
        assert "may not" not in (found := said(command)), found
    assert main(["erase", *REFUSED["erase"], "--store-url", redis_url]) == 0
    assert main(["dead-letters", *REFUSED["dead-letters"]]) == 0
    line = {"who": "fraud", "what": "lookup", "on": "", "outcome": "done", "details": {"service": "check", "rows": 9}}
    journal = Journal(Path("audit"), SystemClock())
    journal.write([line])
    journal.close()
    capsys.readouterr()
    assert main(["apply"]) == 0
    assert "asked for by fraud through check: 9 rows in 30 days" in capsys.readouterr().out

    audit = [(one.who, one.known_by, one.what, one.outcome) for one in find_entries(Path("audit"))]
    for command in REFUSED:
        assert ("risk-model", "token", command.replace("letters", "letters replay"), "refused") in audit
    assert [("apply", "begun"), ("apply", "done")] == [(what, outcome) for _, _, what, outcome in audit[-2:]]
    last = find_entries(Path("audit"), what="apply")[-1]
    change = next(one for one in last.details["changes"] if one["kind"] == "feature view")
    assert ("change", "cards", 32) == (change["action"], change["name"], len(change["definition_hash"]))
    assert main(["audit", "--who", "risk-*", "--what", "refused", "--since", "1h"]) == 0
    assert 'erase refused  WRITE_ONLINE stream feature view "cards"' in capsys.readouterr().out
    assert main(["audit", "verify", "--format", "json"]) == 0
    # What cannot be written down is not done.
    (taken := Path("audit")).rename("elsewhere")
    taken.write_text("no directory")
    assert main(["apply"]) == 1
    assert 'the audit log in "' in capsys.readouterr().err


def test_the_python_door_asks_too(repo: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training set is for those who may read offline what it is made of."""
    pq.write_table(
        pa.table({"id": ["1"], "at": pa.array([500], pa.timestamp("ms")), "card_id": ["c-17"]}), "events.parquet"
    )
    spec, labels = read_registry("registry.db"), pq.read_table("labels.parquet")

    def build() -> pa.Table:
        return build_training_set(spec, "check", labels, history=FileHistory({"payments": "events.parquet"}))

    with pytest.raises(Unauthenticated, match="nothing says who runs"):
        build()
    monkeypatch.setenv("FEATURESTORE_TOKEN_FILE", "crm.token")
    with pytest.raises(PermissionDenied, match='READ_OFFLINE feature service "check"'):
        build()
    monkeypatch.setenv("FEATURESTORE_TOKEN_FILE", "cards.token")
    assert build()["count_1h"].to_pylist() == [1]

    begun, done = (one for one in find_entries(Path("audit"), what="build_training_set") if one.outcome != "refused")
    assert ("risk-model", "token", 'feature service "check"') == (done.who, done.known_by, done.on)
    assert ("begun", "done", 1, ["check"]) == (
        *(begun.outcome, done.outcome),
        *(done.details["rows"], done.details["features"]),
    )
    assert done.details["rows_digest"] == rows_digest(pq.read_table("labels.parquet"))
    assert done.details["first_label"].startswith("1970-01-01 00:00:01")
