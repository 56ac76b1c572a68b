"""A plan shows all that an apply writes: also what nobody computes here, and what people wrote for people."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from featurestore.cli.main import main
from featurestore.definitions.registry import read_registry
from featurestore.errors import SourceUnavailable
from tests.serving.issuer import AUDIENCE, ISSUER, Issuer

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")

Capture = pytest.CaptureFixture[str]

DEFINITIONS = """\
from feast import Entity, FeatureService, FeatureView, Field, FileSource, Project, PushSource, RequestSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.permissions.action import AuthzedAction
from feast.permissions.permission import Permission
from feast.permissions.policy import RoleBasedPolicy
from feast.types import Float64, Int64

from featurestore.features import LIFETIME, aggregate, count, derive, kafka_source, stream_view

project = Project(name="shop", description="all of it")
card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.STRING, description="a card")
payments = kafka_source(
    name="payments",
    topic="payments",
    columns={"at": "timestamp", "card_id": "string", "amount": "bigint"},
    event_time="at",
    description="from the tills",
)
activity = stream_view(
    name="activity",
    entities=[card],
    source=payments,
    features=[
        *count(over=["1h", LIFETIME]),
        *aggregate("amount", "sum", over="1h", hop="1h"),
        *derive("mean", "amount_sum_1h / nullif(count_1h, 0)"),
    ],
    tags={"team": "risk"},
    owner="ada",
)
table = FileSource(name="profiles", path="data/profiles.parquet", timestamp_field="since")
pushed = PushSource(name="pushed", batch_source=table)
profile = FeatureView(
    name="profile",
    entities=[card],
    source=pushed,
    schema=[Field(name="tier", dtype=Int64, description="of the contract"), Field(name="age", dtype=Int64)],
)
till = RequestSource(name="till", schema=[Field(name="asked", dtype=Float64)])


@on_demand_feature_view(sources=[activity, till], schema=[Field(name="share", dtype=Float64)], mode="python")
def ratios(inputs):
    return {"share": [(asked or 0.0) / 2 for asked in inputs["asked"]]}


model = FeatureService(name="model", features=[activity[["count_1h", "amount_sum_1h"]], profile], owner="ada")
by_sdk = FeatureService(name="by_sdk", features=[activity, ratios])
readers = Permission(
    name="readers", types=[FeatureView], policy=RoleBasedPolicy(roles=["reader"]), actions=[AuthzedAction.DESCRIBE]
)
authors = Permission(name="authors", policy=RoleBasedPolicy(roles=["author"]), actions=list(AuthzedAction))
"""

CONFIG = f"""
project: shop
provider: local
registry: {{registry}}
online_store: {{{{type: sqlite, path: online.db}}}}
auth:
  type: oidc
  auth_discovery_url: {ISSUER}/.well-known/openid-configuration
  audience: {AUDIENCE}
"""


@pytest.fixture(scope="module")
def author(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Keys of an issuer, and a token of whoever may apply."""
    directory = tmp_path_factory.mktemp("issuer")
    issuer = Issuer(directory / "keys.json")
    (directory / "token").write_text(issuer.token("author"))
    return issuer.path, directory / "token"


@pytest.fixture
def repo(tmp_path: Path, author: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repo with an object of every kind, in a file registry; its author applies."""
    keys, token = author
    monkeypatch.setenv("FEATURESTORE_OIDC_KEYS", str(keys))
    monkeypatch.setenv("FEATURESTORE_TOKEN_FILE", str(token))
    (tmp_path / "feature_store.yaml").write_text(CONFIG.format(registry="registry.db"))
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    return tmp_path


def in_database(repo: Path) -> str:
    """Let the repo keep its registry in a SQL database; answers its URL."""
    url = f"sqlite:///{repo}/registry.sqlite"
    (repo / "feature_store.yaml").write_text(CONFIG.format(registry=f"{{registry_type: sql, path: '{url}'}}"))
    return url


def changed(repo: Path, old: str, new: str) -> None:
    """Change the definitions in one place."""
    definitions = repo / "definitions.py"
    assert DEFINITIONS.count(old) == 1
    definitions.write_text(DEFINITIONS.replace(old, new))


def planned(repo: Path, capsys: Capture, *, code: int = 10) -> str:
    """What `featurestore plan --exit-code` prints."""
    capsys.readouterr()
    assert main(["plan", "--exit-code", "--repo", str(repo)]) == code
    return capsys.readouterr().out


@pytest.mark.parametrize("is_in_database", [False, True])
def test_after_an_apply_nothing_is_to_change_however_often(
    repo: Path, capsys: Capture, *, is_in_database: bool
) -> None:
    """What Feast fills in, mints and orders anew is no change; the first plan names an object of every kind."""
    if is_in_database:
        in_database(repo)
    first = planned(repo, capsys)
    for kind in (
        "entity                  card  (join key card_id)",
        "data source             payments  (kafka)",
        "feature view            activity  (4 features by card_id from payments; owner ada)",
        "plain feature view      profile",
        "on-demand feature view  ratios  (1 features, computed while they are asked for)",
        "feature service         by_sdk  (5 features by card_id)",
        "feature service         model  (4 features by card_id; owner ada)",
        "permission              readers  (describe)",
    ):
        assert f"+ {kind}" in first
    for _ in range(2):
        assert main(["apply", "--repo", str(repo)]) == 0
        assert "nothing to change" in planned(repo, capsys, code=0)


@pytest.mark.parametrize("is_in_database", [False, True])
def test_another_project_in_the_registry_is_none_of_ours(
    repo: Path, tmp_path_factory: pytest.TempPathFactory, capsys: Capture, *, is_in_database: bool
) -> None:
    """Teams share a registry, and use the same names: neither sees, changes or removes what is the other's."""
    url = in_database(repo) if is_in_database else str(repo / "registry.db")
    assert main(["apply", "--repo", str(repo)]) == 0
    other = tmp_path_factory.mktemp("other")
    config = (
        (repo / "feature_store.yaml").read_text().replace("registry.db", url).replace("project: shop", "project: web")
    )
    (other / "feature_store.yaml").write_text(config)
    definitions = DEFINITIONS.replace('name="shop", description="all of it"', 'name="web"')
    (other / "definitions.py").write_text(definitions.replace('over=["1h", LIFETIME]', 'over=["1h", "2h", LIFETIME]'))

    first = planned(other, capsys)
    assert "- " not in first
    assert "+ feature view            activity" in first
    assert main(["apply", "--repo", str(other)]) == 0
    for one in (repo, other):
        assert "nothing to change" in planned(one, capsys, code=0)
    counts = {name: len(read_registry(url, project=name).views[0].features) for name in ("shop", "web")}
    assert counts["web"] == counts["shop"] + 1
    assert [view.name for view in read_registry(url, project="shop").views] == ["activity"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('description="all of it"', 'description="half of it"', "description: all of it -> half of it"),
        ('description="a card"', 'description="an account"', "description: a card -> an account"),
        ('    description="from the tills",\n', "", "- description: from the tills"),
        ('tags={"team": "risk"}', 'tags={"team": "fraud"}', "~ tags.team: risk -> fraud"),
        ('    tags={"team": "risk"},\n    owner="ada"', '    owner="bob"', "~ owner: ada -> bob"),
        ('description="of the contract"', 'tags={"unit": "level"}', "+ features[tier].tags.unit: level"),
        ('hop="1h"', 'hop="1h", in_flight=False', "+ features[amount_sum_1h].tags.in_flight: false"),
        ("(asked or 0.0) / 2", "(asked or 0.0) / 3", "(asked or 0.0) / 3"),
        ('profile], owner="ada"', 'profile], owner="bob"', "~ owner: ada -> bob"),
        ("AuthzedAction.DESCRIBE", "AuthzedAction.UPDATE", "~ actions: DESCRIBE -> UPDATE"),
        ("features=[activity, ratios]", "features=[ratios]", "- feature count_1h: activity.count_1h"),
        ('path="data/profiles.parquet"', 'path="data/new.parquet"', "data/profiles.parquet -> data/new.parquet"),
    ],
)
def test_what_people_wrote_and_what_only_the_sdk_serves_is_planned(
    repo: Path, capsys: Capture, old: str, new: str, told: str
) -> None:
    """Each is a change with the old text and the new one; it is gone when it has been applied."""
    assert main(["apply", "--repo", str(repo)]) == 0
    changed(repo, old, new)

    assert told in planned(repo, capsys)
    assert main(["apply", "--repo", str(repo)]) == 0
    assert "nothing to change" in planned(repo, capsys, code=0)


def test_a_description_of_one_object_changes_that_object_alone(repo: Path, capsys: Capture) -> None:
    """Though Feast copies sources into views and fields into services."""
    assert main(["apply", "--repo", str(repo)]) == 0
    changed(repo, "from the tills", "from the web")

    assert [line for line in planned(repo, capsys).splitlines() if line.startswith("  ")] == [
        "  ~ data source  payments  (stored values stay)",
        "      ~ description: from the tills -> from the web",
    ]


def test_an_on_demand_view_is_added_and_removed(repo: Path, capsys: Capture) -> None:
    """With the service that holds it."""
    assert main(["apply", "--repo", str(repo)]) == 0
    at = DEFINITIONS.index("@on_demand"), DEFINITIONS.index("model = ")
    text = DEFINITIONS[: at[0]] + DEFINITIONS[at[1] :]
    (repo / "definitions.py").write_text(text.replace("[activity, ratios]", "[activity]"))
    without = planned(repo, capsys)

    assert "- on-demand feature view  ratios" in without
    assert "~ feature service         by_sdk  (stored values stay)" in without
    assert main(["apply", "--repo", str(repo)]) == 0
    assert "nothing to change" in planned(repo, capsys, code=0)

    (repo / "definitions.py").write_text(DEFINITIONS)
    again = planned(repo, capsys)
    assert "+ on-demand feature view  ratios" in again
    assert "~ feature service         by_sdk  (stored values stay)" in again


def test_a_change_of_what_is_computed_is_told_once(repo: Path, capsys: Capture) -> None:
    """In the words of features; a description beside it as well."""
    assert main(["apply", "--repo", str(repo)]) == 0
    changed(repo, '["1h", LIFETIME]),', '["1m", "1h", LIFETIME], where="amount > 1"),')
    definitions = repo / "definitions.py"
    definitions.write_text(definitions.read_text().replace('"team": "risk"', '"team": "fraud"'))
    of_view = planned(repo, capsys).split("~ feature view")[1].split("\n  ~ ")[0].splitlines()[1:]

    assert [line.strip() for line in of_view] == [
        "+ feature count_1m: count(*) where amount > 1 over 1m, hop 1s, int64",
        "~ feature count_1h: count(*) over 1h, hop 1m, int64 -> count(*) where amount > 1 over 1h, hop 1m, int64",
        "~ feature count_lifetime: count(*) over lifetime, int64 -> count(*) where amount > 1 over lifetime, int64",
        "~ tags.team: risk -> fraud",
    ]


def test_the_first_apply_into_an_empty_database_works(repo: Path, capsys: Capture) -> None:
    """Whether or not the database has come into being; who reads it before is told to apply."""
    url = in_database(repo)
    sqlite3.connect(repo / "registry.sqlite").close()
    with pytest.raises(SourceUnavailable, match="there is no registry in") as caught:
        read_registry(url)

    assert "featurestore apply" in caught.value.hint
    assert "+ feature view" in planned(repo, capsys)
    assert main(["apply", "--repo", str(repo)]) == 0
    assert [view.name for view in read_registry(url).views] == ["activity"]


def test_a_file_url_without_a_file_is_an_empty_registry(repo: Path, capsys: Capture) -> None:
    """As a path without one."""
    (repo / "feature_store.yaml").write_text(CONFIG.format(registry=f"file://{repo}/none.db"))

    assert "+ feature view" in planned(repo, capsys)


def test_a_request_field_that_is_a_join_key_is_refused(repo: Path, capsys: Capture) -> None:
    """Of a view that the on-demand view reads, and of one that is only beside it in a service."""
    changed(repo, 'name="asked", dtype=Float64', 'name="card_id", dtype=Float64')
    assert main(["plan", "--repo", str(repo)]) == 1
    assert (
        'on-demand feature view "ratios": field "card_id" of its request is the join key of feature view "activity" too'
        in capsys.readouterr().err
    )
    definitions = repo / "definitions.py"
    alone = definitions.read_text().replace("sources=[activity, till]", "sources=[till]")
    definitions.write_text(alone)
    assert main(["plan", "--repo", str(repo)]) == 1
    assert "rename the field" in capsys.readouterr().err
    definitions.write_text(alone.replace("features=[activity, ratios]", "features=[ratios]"))
    assert main(["plan", "--repo", str(repo)]) == 0
