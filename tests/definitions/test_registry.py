"""Reading a registry: without Feast, from files and databases, and with errors that say what to do."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featurestore.definitions.changes import registered_or_empty
from featurestore.definitions.registry import compile_registry, read_registry, read_registry_bytes
from featurestore.errors import CorruptData, DefinitionError, InvalidRequest, SourceUnavailable
from featurestore.wire.feast.protos import message_class

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")

StockApply = Callable[[Path], Path]

READ_WITHOUT_FEAST = """
import sys
from featurestore.definitions.changes import compare, render
from featurestore.definitions.registry import read_registry
repo = read_registry(sys.argv[1])
unwanted = {"feast", "pandas", "pyarrow", "grpc", "bytewax", "redis", "sqlalchemy"}
print(len(repo.views), *sorted(unwanted & set(sys.modules)))
"""


def synthetic_registry(view_count: int, feature_count: int) -> bytes:
    """A registry of many views, as Feast would write it."""
    registry: Any = message_class("feast.core.Registry")()
    registry.projects.add().spec.name = "big"
    registry.entities.add().spec.MergeFrom(
        message_class("feast.core.EntitySpecV2")(name="card", join_key="card", value_type=2, project="big")
    )
    for view_number in range(view_count):
        spec = registry.stream_feature_views.add().spec
        spec.name, spec.project, spec.online, spec.timestamp_field = f"view_{view_number}", "big", True, "at"
        spec.entities.append("card")
        source = spec.stream_source
        source.name, source.type, source.timestamp_field = "payments", 3, "at"
        source.kafka_options.topic = "payments"
        source.kafka_options.message_format.json_format.schema_json = "card string, at timestamp, amount bigint"
        for number in range(feature_count):
            spec.features.add(name=f"f{number}", value_type=4)
            aggregation = spec.aggregations.add(name=f"f{number}", function="sum", column="amount")
            aggregation.time_window.seconds = aggregation.slide_interval.seconds = 3600
    return bytes(registry.SerializeToString())


def test_a_server_reads_a_registry_without_importing_feast(example_repo: Path, stock_apply: StockApply) -> None:
    """Nor pandas, pyarrow, gRPC, Bytewax, Redis or SQLAlchemy: five seconds and 174 MiB that a server does not have."""
    registry = stock_apply(example_repo)
    done = subprocess.run(
        [sys.executable, "-c", READ_WITHOUT_FEAST, str(registry)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert done.stdout.strip() == "4"


def test_two_hundred_views_are_read_in_well_under_a_second() -> None:
    """4,000 features: a server polls its registry, so reading it must be cheap."""
    registry = synthetic_registry(200, 20)
    start_ns = time.perf_counter_ns()
    repo = compile_registry(registry).require_sound()
    elapsed_ms = (time.perf_counter_ns() - start_ns) / 1e6

    assert len(repo.views) == 200
    assert elapsed_ms < 1_500


def test_a_sql_registry_gives_the_same_specs_as_a_file(
    example_repo: Path, stock_apply: StockApply, tmp_path: Path
) -> None:
    """Teams share a database; what it holds is the same messages, one a row."""
    from_file = read_registry(stock_apply(example_repo))
    config = example_repo / "feature_store.yaml"
    url = f"sqlite:///{tmp_path}/registry.sqlite"
    config.write_text(
        config.read_text().replace("registry: data/registry.db", f"registry:\n  registry_type: sql\n  path: {url}")
    )
    stock_apply(example_repo)

    assert from_file == read_registry(url, project="payments") == read_registry(url)


def test_a_missing_database_table_is_unavailable_and_says_what_to_do(tmp_path: Path) -> None:
    """An empty database is not an empty project, and half a registry is not one of less."""
    with pytest.raises(SourceUnavailable, match="there is no registry in"):
        read_registry(f"sqlite:///{tmp_path}/empty.sqlite")
    with contextlib.closing(sqlite3.connect(tmp_path / "half.sqlite")) as database:
        database.execute("CREATE TABLE projects (project_proto BLOB)")
    with pytest.raises(SourceUnavailable, match="the SQL registry does not answer"):
        read_registry(f"sqlite:///{tmp_path}/half.sqlite")


def test_a_url_of_an_unknown_kind_is_refused() -> None:
    """Object storage by name, anything else as no database."""
    with pytest.raises(InvalidRequest, match="is not read directly"):
        read_registry("s3://bucket/registry.db")
    with pytest.raises(InvalidRequest, match="URL cannot be used"):
        read_registry("nosuchdatabase://host/feast")


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    """As Feast's configuration allows."""
    path = tmp_path / "a b.db"
    path.write_bytes(synthetic_registry(1, 1))

    assert read_registry(path) == read_registry(path.as_uri())


def test_no_registry_says_to_apply(tmp_path: Path) -> None:
    """The usual first mistake."""
    with pytest.raises(InvalidRequest, match="there is no registry at") as caught:
        read_registry_bytes(tmp_path / "registry.db")

    assert "featurestore apply" in caught.value.hint


@pytest.mark.parametrize("content", [b"not a registry", b"\x0a\xff\xff\xff\xff\x0f"])
def test_bytes_that_are_no_registry_are_corrupt(tmp_path: Path, content: bytes) -> None:
    """Never an empty project: a server must not forget its services because a file was cut short."""
    path = tmp_path / "registry.db"
    path.write_bytes(content)

    with pytest.raises(CorruptData, match=f'the registry at "{re.escape(str(path))}" is damaged') as caught:
        read_registry(path)
    assert "delete it and run `featurestore apply`" in caught.value.hint
    with pytest.raises(CorruptData, match="is damaged"):
        registered_or_empty(path, "payments")


def test_an_unknown_project_is_named_with_the_known_ones() -> None:
    """One registry may hold several projects."""
    registry = synthetic_registry(1, 1)

    with pytest.raises(InvalidRequest, match='project "bigg" is not registered') as caught:
        compile_registry(registry, project="bigg")
    assert '"big"' in caught.value.hint


def test_objects_of_other_projects_are_not_seen() -> None:
    """A view of project "other" in the same file belongs to "other"."""
    registry: Any = message_class("feast.core.Registry")()
    registry.ParseFromString(synthetic_registry(2, 1))
    registry.projects.add().spec.name = "other"
    registry.stream_feature_views[1].spec.project = "other"
    content = bytes(registry.SerializeToString())

    assert ["view_0"] == [view.name for view in compile_registry(content, project="big").spec.views]
    with pytest.raises(InvalidRequest, match="the registry has 2 projects"):
        compile_registry(content)


def test_a_registered_mistake_is_a_definition_error(tmp_path: Path) -> None:
    """Stock `feast apply` checks nothing of it, so reading does."""
    registry: Any = message_class("feast.core.Registry")()
    registry.ParseFromString(synthetic_registry(1, 2))
    registry.stream_feature_views[0].spec.aggregations[0].function = "summ"
    path = tmp_path / "registry.db"
    path.write_bytes(registry.SerializeToString())

    with pytest.raises(DefinitionError, match="has 1 problem") as caught:
        read_registry(path)
    assert 'unknown aggregation function "summ"' in caught.value.problems[0]


def test_feast_and_our_messages_live_in_one_process() -> None:
    """Feast registers the same names in the process-wide pool; ours are in a pool of their own."""
    from feast.protos.feast.types.Value_pb2 import Value as FeastValue

    ours: Any = message_class("feast.types.Value")(int64_val=7)

    assert FeastValue.FromString(ours.SerializeToString()).int64_val == 7


def test_our_messages_have_feasts_numbers() -> None:
    """Every field that is declared has the name, number and type that the installed Feast gives it."""
    from feast.protos.feast.core import Registry_pb2
    from feast.protos.feast.types import Value_pb2

    pairs = [
        (message_class("feast.core.Registry").DESCRIPTOR, Registry_pb2.Registry.DESCRIPTOR),
        (message_class("feast.types.RepeatedValue").DESCRIPTOR, Value_pb2.RepeatedValue.DESCRIPTOR),
    ]
    compared: set[str] = set()
    while pairs:
        ours, feasts = pairs.pop()
        if ours.full_name in compared or ours.full_name.startswith("google."):
            continue
        compared.add(ours.full_name)
        for field in ours.fields:
            theirs = feasts.fields_by_name[field.name]
            assert (field.number, field.type, field.is_repeated) == (theirs.number, theirs.type, theirs.is_repeated)
            if field.enum_type and theirs.enum_type:
                known = theirs.enum_type.values_by_name
                assert all(known[value.name].number == value.number for value in field.enum_type.values), (
                    field.full_name
                )
            if field.message_type and theirs.message_type:
                pairs.append((field.message_type, theirs.message_type))

    assert {"feast.core.StreamFeatureViewSpec", "feast.core.FeatureViewProjection", "feast.types.Value"} <= compared


def test_the_descriptor_set_is_compiled_from_the_proto_files(tmp_path: Path) -> None:
    """Whoever edits proto/feast must run proto/compile_feast.py."""
    from importlib import resources

    protoc = pytest.importorskip("grpc_tools.protoc")
    root = Path(__file__).resolve().parents[2] / "proto"
    output = tmp_path / "feast.binpb"
    sources = sorted(str(path.relative_to(root)) for path in (root / "feast").rglob("*.proto"))
    well_known = resources.files("grpc_tools") / "_proto"
    options = [f"--proto_path={root}", f"--proto_path={well_known}", "--include_imports"]
    code = protoc.main(["protoc", *options, f"--descriptor_set_out={output}", *sources])

    assert code == 0
    assert output.read_bytes() == (resources.files("featurestore.wire.feast") / "feast.binpb").read_bytes()


def test_a_registry_that_is_cut_short_is_never_taken_for_a_smaller_one(
    plain_repo: Path, stock_apply: StockApply
) -> None:
    """Feast rewrites its file in place; whatever part of it a poller sees, it sees everything or an error."""
    content = stock_apply(plain_repo).read_bytes()
    whole = compile_registry(content, project="plain").require_sound()
    accepted = []
    for length in range(len(content)):
        with contextlib.suppress(CorruptData, InvalidRequest):
            accepted.append(compile_registry(content[:length], project="plain").require_sound())

    assert all(part == whole for part in accepted)
