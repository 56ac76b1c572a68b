"""feature_store.yaml is checked with the rest: what Feast passes over in silence is a store that answers nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore.cli import settings
from featurestore.cli.main import main
from featurestore.definitions import config

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")

Capture = pytest.CaptureFixture[str]

SOUND = """\
project: shop
provider: local
entity_key_serialization_version: 3
registry:
  path: registry.db
  cache_ttl_seconds: 60
offline_store:
  type: featurestore.feast.PointInTimeOfflineStore
batch_engine:
  type: featurestore.feast.PlainViewEngine
online_store:
  type: featurestore.feast.RealTimeOnlineStore
  connection_string: redis://127.0.0.1:6379/0
"""

DEFINITIONS = """\
from feast import Entity, ValueType
from featurestore.features import count, kafka_source, stream_view

card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.STRING)
payments = kafka_source(
    name="payments", topic="payments", columns={"at": "timestamp", "card_id": "string"}, event_time="at"
)
activity = stream_view(name="activity", entities=[card], source=payments, features=count(over="1h"))
"""


def said(repo: Path, text: str, capsys: Capture, command: str = "plan") -> tuple[int, str]:
    """Exit code and stderr of a command on a repo with this file."""
    (repo / "feature_store.yaml").write_text(text)
    (repo / "definitions.py").write_text(DEFINITIONS)
    code = main([command, "--repo", str(repo)])
    return code, capsys.readouterr().err


def test_a_sound_file_is_not_remarked_upon(tmp_path: Path, capsys: Capture) -> None:
    """With every section, and with as little as Feast needs beside our store."""
    little = "project: shop\nregistry: registry.db\nonline_store: {type: featurestore.feast.RealTimeOnlineStore}\n"

    assert said(tmp_path, SOUND, capsys) == (0, "")
    assert said(tmp_path, little, capsys) == (0, "")
    assert settings.STORE_TYPE == config.ONLINE_STORE


MISTAKES = {
    "misspelled section": (
        "online_store:",
        "onlin_store:",
        'the key "onlin_store", which Feast',
        'did you mean "online_store"',
    ),
    "unknown key": ("provider: local", "provider: local\ncountry: eu", 'the key "country", which Feast', "known are"),
    "key of a store": (
        "connection_string",
        "conection_string",
        'its online_store has the key "conection',
        '"connection_string"?',
    ),
    "key of the registry": ("  path: registry", "  pth: registry", 'its registry has the key "pth"', '"path"?'),
    "misspelled class": (
        "feast.RealTimeOnlineStore",
        "feast.RealTimeOnlinStore",
        'online_store is of type "featurestore.feast.RealTimeOnlinStore", which is not there',
        'did you mean "featurestore.feast.RealTimeOnlineStore"?',
    ),
    "class of another section": (
        "feast.RealTimeOnlineStore",
        "feast.PointInTimeOfflineStore",
        'online_store is of type "featurestore.feast.PointInTimeOfflineStore"',
        "featurestore.feast.RealTimeOnlineStore",
    ),
    "misspelled engine": (
        "feast.PlainViewEngine",
        "feast.PlainVewEngine",
        'batch_engine is of type "featurestore.feast.PlainVewEngine"',
        '"featurestore.feast.PlainViewEngine"?',
    ),
    "value of another type": (
        "  connection_string: redis://127.0.0.1:6379/0",
        "  lanes: many",
        "\"lanes\" of online_store is 'many'",
        "correct it",
    ),
    "type of a registry": ("  path: registry.db", "  path: r.db\n  registry_type: sqll", '"sqll"', '"sql"?'),
    "version": ("version: 3", "version: three", "Feast does not accept it", "entity_key_serialization_version"),
}


@pytest.mark.parametrize(("old", "new", "fact", "remedy"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_of_the_file_is_refused_by_plan_and_apply(
    tmp_path: Path, capsys: Capture, old: str, new: str, fact: str, remedy: str
) -> None:
    """One problem with its remedy, in its place, and nothing is registered."""
    assert SOUND.count(old) == 1
    for command in ("plan", "apply"):
        code, text = said(tmp_path, SOUND.replace(old, new), capsys, command)
        assert code == 1, text
        assert 'project "shop" has 1 problem' in text
        (line,) = [line for line in text.splitlines() if line.startswith("  * ")]
        assert line.startswith('  * file "feature_store.yaml": ')
        assert fact in line
        assert remedy in line
    assert not (tmp_path / "registry.db").exists()


@pytest.mark.parametrize("store", ["online_store: redis\n", "online_store: {type: redis}\n", "online_store: {}\n", ""])
def test_a_store_of_feast_s_own_is_noted(tmp_path: Path, capsys: Capture, store: str) -> None:
    """Our server may answer from another one; but the SDK would answer None, and nobody would know why."""
    code, text = said(tmp_path, SOUND[: SOUND.index("online_store:")] + store, capsys)

    assert code == 0
    assert f"feature_store.yaml names {'redis' if 'redis' in store else 'sqlite'} as the online store" in text
    assert "the Feast SDK answers None for them; write type: featurestore.feast.RealTimeOnlineStore" in text


def test_mistakes_of_the_file_and_of_the_definitions_come_together(tmp_path: Path, capsys: Capture) -> None:
    """All at once, the file's first."""
    (tmp_path / "more.py").write_text(
        "from definitions import *\n"
        'other = stream_view(name="other", entities=[card], source=payments, features=count(over="1x"))\n'
    )
    code, text = said(tmp_path, SOUND.replace("online_store", "onlin_store"), capsys)

    assert code == 1
    assert text.index("onlin_store") < text.index('"1x", not a duration')


def test_a_variable_of_the_file_is_replaced_before_it_is_checked(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Feast does."""
    monkeypatch.setenv("STORE", "featurestore.feast.RealTimeOnlineStore")

    assert said(tmp_path, SOUND.replace("featurestore.feast.RealTimeOnlineStore", "${STORE}"), capsys) == (0, "")
