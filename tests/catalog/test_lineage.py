"""No arrow is missing, and none is too many: what depends on a column is what the stream reads it for."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.catalog.lineage.graph import FEATURE, SERVICE, Lineage, Node, column
from featurestore.catalog.lineage.picture import draw
from featurestore.catalog.model import Catalog
from featurestore.cli.main import main
from featurestore.core.inputs import ViewInputs
from featurestore.core.spec import ComputedColumn, RepoSpec, ValueType, ViewSpec
from featurestore.errors import InvalidRequest
from featurestore.testing.strategies import view_specs

CONDITIONS = ("", "amount > 100", "market = 'DE' AND doubled > 2", "price IS NULL")
COMPUTED = (
    ComputedColumn("doubled", ValueType.INT64, "amount * 2"),
    ComputedColumn("is_dear", ValueType.BOOL, "doubled > 10 OR price > 1"),
)


@st.composite
def computing_views(draw: st.DrawFn) -> ViewSpec:
    """A view whose features have conditions, over a source with computed columns."""
    view = draw(view_specs())
    conditions = st.sampled_from((*CONDITIONS, "is_dear"))
    features = tuple(replace(one, where=draw(conditions)) for one in view.features)
    source = replace(view.source, computed=COMPUTED)
    return replace(view, source=source, features=features, where=draw(conditions), required=draw(conditions))


@given(computing_views())
@settings(max_examples=60)
def test_a_column_leads_to_the_features_that_the_stream_reads_it_for(view: ViewSpec) -> None:
    """Straight, through computed columns, by a condition or a key: as a decoder would be told, feature by feature."""
    lineage = Lineage(RepoSpec("payments", (view,), (), ()))
    always = {view.source.event_time_column, view.source.event_id_column}
    readers: dict[str, set[str]] = {one.name: set() for one in view.source.columns}
    for one in view.features:
        for name in {*ViewInputs(replace(view, features=(one,))).payload_columns, *(always - {None})}:
            readers[str(name)].add(f"{view.name}:{one.name}")

    found = {
        name: {one.node.name for one in lineage.depends_on(column(view.source.name, name)) if one.node.kind == FEATURE}
        for name in readers
    }
    assert readers == found


def test_down_and_up_are_the_same_arrows(catalog: Catalog) -> None:
    """What a thing is made of is what it depends on; the drawing of each has its boxes, and is well formed."""
    lineage = catalog.lineage
    down = {(node, one.node) for node in lineage.nodes for one in lineage.depends_on(node)}
    up = {(one.node, node) for node in lineage.nodes if node.kind != "view" for one in lineage.comes_from(node)}

    assert {pair for pair in down if pair[1].kind != "view"} == up
    for node in lineage.nodes:
        drawing = ET.fromstring(draw(lineage, catalog.spec, node))
        titles = [title.text or "" for title in drawing.iter("{http://www.w3.org/2000/svg}title")]
        assert any(node.owner in title or node.short in title for title in titles)


def test_the_command_says_what_breaks(catalog: Catalog, registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the reason of each, for people and for programs; a name that nothing has gets a near one."""
    where = ["--registry", str(registry), "--project", "catalog"]
    assert 0 == main(["lineage", "email", *where])
    printed = capsys.readouterr().out
    assert "column payments.email" in printed
    assert "card_activity:email_last_1d  last" in printed
    assert 0 == main(["lineage", "card_activity:large_1d", "--up", "--format", "json", *where])
    reached = {one["name"]: one["why"] for one in json.loads(capsys.readouterr().out)["reached"]}
    assert "amount_in_euro > 500" in reached["payments.amount_in_euro"]
    assert reached["payments.card_id"] == "key"

    services = [
        one.node.name for one in catalog.lineage.depends_on(Node("topic", "payments")) if one.node.kind == SERVICE
    ]
    assert ["card_check", "merchant_watch"] == sorted(services)
    with pytest.raises(InvalidRequest) as refused:
        catalog.lineage.find("payments.emial")
    assert "payments.email" in refused.value.hint
    with pytest.raises(InvalidRequest, match='2 things are called "count_1d"'):
        catalog.lineage.find("count_1d")
