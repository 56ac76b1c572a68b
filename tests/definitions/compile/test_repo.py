"""What a sound repo compiles to: hops, retention, orders, output names, notes."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from featurestore.core.spec import Column, ComputedColumn, TableSpec, ValueType, Window
from featurestore.definitions.compile.repo import compile_repo
from featurestore.wire.codecs.view_json import definition_hash
from featurestore.wire.feast.registry import RegisteredTable, RegisteredView
from tests.definitions.records import (
    HOUR_NS,
    MS_NS,
    aggregation,
    field,
    on_demand_view,
    plain_view,
    projection,
    repo,
    service,
    source,
    view,
)

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
MINUTE_MS = 60_000


def window_of(registered: RegisteredView) -> Window:
    """The window of a view's only feature."""
    (compiled,) = compile_repo(repo(registered)).spec.views
    (feature,) = compiled.features
    return feature.window


def test_an_unset_slide_interval_means_the_default_hop() -> None:
    """Feast fills it with the window, so equality reads as "unset": at most 1/60 of the window."""
    assert Window(HOUR_MS, MINUTE_MS) == window_of(view([aggregation()]))
    assert Window(90 * DAY_MS, DAY_MS) == window_of(view([aggregation(window_ns=90 * 24 * HOUR_NS)]))


def test_a_set_slide_interval_is_the_hop() -> None:
    """Down to one millisecond, which makes the window exact."""
    assert Window(HOUR_MS, 1) == window_of(view([aggregation(slide_ns=MS_NS)]))


def test_a_field_tag_moves_the_window_back() -> None:
    """tags={"offset": "7d"} ends the window a week before the read."""
    assert Window(HOUR_MS, MINUTE_MS, 7 * DAY_MS) == window_of(view(fields=[field(tags={"offset": "7d"})]))


@pytest.mark.parametrize("column", ["", "*"])
def test_count_without_a_column_counts_rows(column: str) -> None:
    """No column, or a star as in SQL."""
    (compiled,) = compile_repo(repo(view([aggregation("COUNT ", column)]))).spec.views

    assert (compiled.features[0].function, compiled.features[0].column) == ("count", None)


def test_retention_covers_the_longest_reach_in_whole_hops_and_the_lookback() -> None:
    """The oldest event that a window can hold at the oldest exact read must still be there."""
    (compiled,) = compile_repo(
        repo(
            view(
                [aggregation(), aggregation(name="week_ago")],
                [field(), field("week_ago", tags={"offset": "7d"})],
                tags={"lookback": "2h"},
            )
        )
    ).spec.views

    assert 7 * DAY_MS + HOUR_MS + MINUTE_MS + 2 * HOUR_MS == compiled.retention_ms
    assert 2 * HOUR_MS == compiled.lookback_ms


def test_a_ttl_extends_retention_and_never_cuts_a_window_short() -> None:
    """A ttl equal to the window still keeps the hop that the tail reaches into."""
    (longer,) = compile_repo(repo(view(ttl_ns=48 * HOUR_NS))).spec.views
    (equal,) = compile_repo(repo(view(ttl_ns=HOUR_NS))).spec.views

    assert 2 * DAY_MS + MINUTE_MS == longer.retention_ms
    assert HOUR_MS + MINUTE_MS + MINUTE_MS == equal.retention_ms


def test_a_lifetime_feature_keeps_everything() -> None:
    """Retention is None as soon as one feature covers all of time."""
    (compiled,) = compile_repo(
        repo(
            view(
                [aggregation(), aggregation(window_ns=None, name="ever")],
                [field(), field("ever", tags={"window": "lifetime"})],
            )
        )
    ).spec.views

    assert compiled.retention_ms is None
    assert Window(None) == compiled.features[1].window


def test_source_tags_become_the_source_spec() -> None:
    """Event id, horizon and furthest future have no field in Feast; without a horizon an id is remembered an hour."""
    tagged = source(tags={"event_id": "id", "max_future": "10s"})
    (compiled,) = compile_repo(repo(view(reads=tagged))).spec.views
    (untagged,) = compile_repo(repo(view())).spec.views

    assert ("id", HOUR_MS, 10_000) == (
        compiled.source.event_id_column,
        compiled.source.dedup_horizon_ms,
        compiled.source.max_future_ms,
    )
    assert (None, 0) == (untagged.source.event_id_column, untagged.source.dedup_horizon_ms)


def test_definition_hash_does_not_depend_on_the_order_of_anything() -> None:
    """Feast returns fields in set order and views in apply order; neither is a change of definition."""
    names = [f"f{number}" for number in range(20)]
    shuffled = random.Random(7).sample(names, len(names))
    hashes = {
        definition_hash(
            compile_repo(repo(view([aggregation(name=n) for n in order], [field(n) for n in fields]))).spec.views[0]
        )
        for order, fields in ((names, names), (names, shuffled), (shuffled, names))
    }

    assert len(hashes) == 1


def test_definition_hash_does_not_depend_on_what_the_view_does_not_read() -> None:
    """A new column that nobody reads, renamed or not, and another order of what is, must not refill a view."""
    (spec,) = compile_repo(repo(view())).spec.views
    one, two = (ComputedColumn(name, ValueType.INT64, f"amount + {number}") for number, name in enumerate("ab"))
    unread = (*spec.source.columns, Column("later", ValueType.STRING))
    sources = [
        replace(spec.source, columns=unread),
        replace(spec.source, columns=unread, renamed=(("later", "payload_later"),)),
        replace(spec.source, columns=unread, topic_column="later"),
        replace(spec.source, computed=(one, two)),
    ]
    features = tuple(replace(spec.features[0], name=name, column=name, function="sum") for name in "ab")
    swapped = [
        replace(spec, features=features, source=replace(spec.source, computed=order))
        for order in ((one, two), (two, one))
    ]
    renamed = [
        replace(spec, source=replace(spec.source, renamed=pairs))
        for pairs in ((("amount", "x"), ("card_id", "y")), (("card_id", "y"), ("amount", "x")))
    ]

    assert {definition_hash(spec)} == {definition_hash(replace(spec, source=source)) for source in sources}
    assert definition_hash(swapped[0]) == definition_hash(swapped[1])
    assert definition_hash(renamed[0]) == definition_hash(renamed[1]) != definition_hash(spec)


def test_definition_hash_changes_with_what_is_computed() -> None:
    """Another function, hop, column or id column is another definition; another Kafka address is not."""
    variants = [
        view(),
        view([aggregation("max")]),
        view([aggregation(slide_ns=MS_NS)]),
        view([aggregation(column="ok")]),
        view(reads=source(tags={"event_id": "id"})),
        view(tags={"lookback": "1h"}),
    ]
    hashes = [definition_hash(compile_repo(repo(each)).spec.views[0]) for each in variants]
    moved = definition_hash(compile_repo(repo(view(reads=source(servers="elsewhere:1")))).spec.views[0])

    assert len(set(hashes)) == len(variants)
    assert hashes[0] == moved


def test_features_follow_the_aggregations_and_a_selection_follows_its_author() -> None:
    """A whole view answers in aggregation order, whatever Feast's sets say; a selection in the order it was written."""
    names = ["c", "a", "b"]
    compiled = compile_repo(
        repo(
            view([aggregation(name=n) for n in names], [field(n) for n in sorted(names)]),
            services=[
                service(projection("activity", "a", "b", "c"), name="whole"),
                service(projection("activity", "b", "c"), name="selection"),
            ],
        )
    ).spec
    (view_spec,) = compiled.views
    orders = {each.name: [feature.feature for feature in each.features] for each in compiled.services}

    assert ["c", "a", "b"] == [feature.name for feature in view_spec.features]
    assert {"whole": ["c", "a", "b"], "selection": ["b", "c"]} == orders


def test_features_that_share_a_name_are_both_named_in_full() -> None:
    """As with Feast's full_feature_names, and only those; an alias stands for the view."""
    compiled = compile_repo(
        repo(
            view(),
            view([aggregation(), aggregation("max", name="most")], [field(), field("most")], name="other"),
            services=[service(projection(), projection("other", "total", "most", alias="o"))],
        )
    ).spec

    assert ["activity__total", "o__total", "most"] == [each.output_name for each in compiled.services[0].features]


def test_join_keys_of_a_service_are_the_union_in_order_of_first_use() -> None:
    """A key that several views share is asked for once."""
    compiled = compile_repo(
        repo(view(), plain=[plain_view(field("tier"))], services=[service(projection("profile", "tier"), projection())])
    ).spec

    assert [("card", ValueType.STRING)] == [(key.name, key.type) for key in compiled.services[0].join_keys]


@pytest.mark.parametrize(
    ("taken", "reason"),
    [
        (projection("ratios", "ratio"), 'feature view "ratios" has "ratio" of a type that is not served'),
        (projection(keys={"card": "other_card"}), "is joined under other keys (with_join_key_map)"),
        (projection(version=2), "is pinned to version 2"),
        (projection("profile", "signature"), 'has "signature" of a type that is not served'),
        (projection("dark"), 'feature view "dark" is not online'),
    ],
)
def test_what_only_the_feast_sdk_serves_is_a_note_and_not_a_problem(taken: object, reason: str) -> None:
    """The repo is right; the service is left out, with the reason at hand, rather than answered in part."""
    from featurestore.wire.feast.registry import RegisteredProjection

    assert isinstance(taken, RegisteredProjection)
    compilation = compile_repo(
        repo(
            view(),
            view(name="dark", online=False),
            plain=[plain_view(field("signature", "BYTES"), field("tier", "INT32"))],
            on_demand=[on_demand_view(field("ratio", "BYTES"))],
            services=[service(projection(), taken), service(projection("profile", "tier"), name="fine")],
        )
    )

    assert compilation.problems == ()
    assert ["fine"] == [each.name for each in compilation.spec.services]
    assert reason in compilation.unserved["model"]
    assert any(reason in note for note in compilation.notes)


def test_a_plain_view_knows_the_table_that_it_is_materialized_from() -> None:
    """Files by path, and other systems by their kind; nothing about a table is a mistake before history asks."""
    mapping = {"level": "tier"}
    file = RegisteredTable("profiles", "BATCH_FILE", "since", "written", mapping, "data/profiles", "", "parquet_format")
    unformatted, bigquery = replace(file, format=""), RegisteredTable("sales", "BATCH_BIGQUERY", "", "", {}, "", "", "")
    tables = (None, file, unformatted, bigquery)
    plain = [replace(plain_view(field("tier"), name=f"view_{at}"), table=table) for at, table in enumerate(tables)]

    compilation = compile_repo(repo(view(), plain=plain))

    known = TableSpec("profiles", "file", "data/profiles", "parquet", "since", "written", (("level", "tier"),))
    expected = [None, known, known, TableSpec("sales", "bigquery", "", "", "")]
    assert compilation.problems == ()
    assert expected == [each.table for each in compilation.spec.plain_views]


def test_a_stream_view_without_aggregations_is_a_plain_view() -> None:
    """Its values are pushed or materialized by Feast, so they are stored as Feast stores them."""
    compiled = compile_repo(repo(view([], [field("tier")]))).spec

    assert compiled.views == ()
    assert ["tier"] == [feature.name for feature in compiled.plain_views[0].features]


@pytest.mark.parametrize("of_view", ["at", "happened", ""])
@pytest.mark.parametrize("of_source", ["at", "happened"])
def test_the_event_time_goes_by_the_name_of_the_column_or_of_the_field(of_view: str, of_source: str) -> None:
    """Feast's own stores take timestamp_field as it is in the payload; both names mean one column."""
    schema = "id string, happened timestamp, card string, amount bigint"
    reads = source(schema=schema, mapping={"happened": "at"}, time=of_source)
    by_name = source(schema=schema, mapping={"happened": "at"}, time="at")
    compilation = compile_repo(repo(view(reads=reads, time=of_view)))

    assert compilation.problems == ()
    assert compile_repo(repo(view(reads=by_name))).spec == compilation.spec
    assert compilation.spec.views[0].source.event_time_column == "at"
