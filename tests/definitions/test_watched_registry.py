"""Watching a registry in a file and in a database."""

from pathlib import Path

import pytest
import sqlalchemy

from featurestore.definitions.registry import POLLS_PER_DATABASE_READ, open_registry
from featurestore.errors import InvalidRequest, SourceUnavailable
from featurestore.wire.feast.protos import message_class
from featurestore.wire.feast.registry import ROW_LISTS
from tests.serving.registries import write_registry


def write_tables(url: str, registry: bytes) -> None:
    """The registry as Feast's SQL registry holds it: one row a message."""
    message = message_class("feast.core.Registry").FromString(registry)
    with sqlalchemy.create_engine(url).begin() as connection:
        for field, (table, column) in ROW_LISTS.items():
            connection.execute(sqlalchemy.text(f"CREATE TABLE IF NOT EXISTS {table} (project_id TEXT, {column} BLOB)"))
            connection.execute(sqlalchemy.text(f"DELETE FROM {table}"))
            for row in getattr(message, field):
                insert = sqlalchemy.text(f"INSERT INTO {table} VALUES ('payments', :data)")
                connection.execute(insert, {"data": row.SerializeToString()})


def test_a_file_has_a_new_stamp_when_it_is_replaced(tmp_path: Path) -> None:
    """Feast rewrites the whole file at every apply; reading it gives the specs."""
    path = tmp_path / "registry of all.db"
    write_registry(path)
    registry = open_registry(path.as_uri(), "payments")
    before = registry.stamp()

    assert registry.stamp() == before
    assert [service.name for service in registry.read().services] == ["merchant_monitoring"]
    other = tmp_path / "other.db"
    write_registry(other)
    other.replace(path)
    assert registry.stamp() != before


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    """A registry that is not there yet is an error with a remedy."""
    with pytest.raises(InvalidRequest, match="featurestore apply"):
        open_registry(str(tmp_path / "none.db"), None).stamp()


def test_a_database_is_noticed_to_change_within_a_few_polls(tmp_path: Path) -> None:
    """A SQL registry is read now and then, and only a change of its contents is one."""
    path, url = tmp_path / "registry.db", f"sqlite:///{tmp_path / 'feast.sqlite'}"
    write_registry(path)
    write_tables(url, path.read_bytes())
    registry = open_registry(url, "payments")
    before = registry.stamp()
    assert [view.name for view in registry.read().views] == ["merchant_activity"]

    message = message_class("feast.core.Registry").FromString(path.read_bytes())
    message.ClearField("feature_services")
    write_tables(url, message.SerializeToString())
    stamps = [registry.stamp() for _ in range(POLLS_PER_DATABASE_READ)]
    assert stamps[:-1] == [before] * (POLLS_PER_DATABASE_READ - 1)
    assert stamps[-1] != before
    assert registry.read().services == ()


def test_a_database_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    """The running server keeps its snapshot; the error says that it is the registry."""
    with pytest.raises(SourceUnavailable, match="SQL registry"):
        open_registry(f"sqlite:///{tmp_path / 'missing' / 'feast.sqlite'}", "payments").stamp()
