"""A plan shows what an apply changes, by what is computed and not by how objects compare."""

from __future__ import annotations

from dataclasses import replace

from featurestore.core.spec import RepoSpec
from featurestore.definitions.changes import Action, compare, render
from featurestore.definitions.compile.repo import compile_repo
from featurestore.wire.feast.registry import RegisteredRepo, RegisteredTable
from tests.definitions.records import MS_NS, aggregation, field, plain_view, projection, repo, service, source, view

NOTHING = RepoSpec("test", (), (), ())


def compiled(registered: RegisteredRepo) -> RepoSpec:
    """A sound repo's specs."""
    return compile_repo(registered).require_sound()


BEFORE = compiled(repo(view(), plain=[plain_view(field("tier"))], services=[service(projection())]))


def test_everything_is_added_to_an_empty_registry() -> None:
    """Views of both kinds and services."""
    plan = compare(NOTHING, BEFORE)

    assert [(Action.ADD, "activity"), (Action.ADD, "profile"), (Action.ADD, "model")] == [
        (change.action, change.name) for change in plan.changes
    ]


def test_nothing_is_planned_where_nothing_changes() -> None:
    """However Feast orders fields, and whatever it would have claimed."""
    reordered = compiled(repo(plain_and := view(), plain=[plain_view(field("tier"))], services=[service(projection())]))
    plan = compare(BEFORE, reordered)

    assert plain_and.name == "activity"
    assert plan.is_empty
    assert render(plan) == 'project "test": nothing to change, 3 definitions are as registered'


def test_a_changed_view_lists_its_features_and_its_new_generation() -> None:
    """Added, removed and changed features, each with what it computes."""
    after = compiled(
        repo(
            view([aggregation(slide_ns=MS_NS), aggregation("max", name="most")], [field(), field("most")]),
            plain=[plain_view(field("tier"))],
            services=[service(projection())],
        )
    )
    plan = compare(BEFORE, after)
    (change,) = plan.changes

    assert change.action is Action.CHANGE
    assert change.summary.startswith("new generation ")
    assert (
        "+ feature most: max(amount) over 1h, hop 1m, int64",
        "~ feature total: sum(amount) over 1h, hop 1m, int64 -> sum(amount) over 1h, hop 1ms, int64",
    ) == change.details
    assert plan.unchanged == 2


def test_another_kafka_address_is_a_change_without_a_new_generation() -> None:
    """Values stay, so the stream does not start over."""
    after = compiled(
        repo(
            view(reads=source(servers="elsewhere:9092")),
            plain=[plain_view(field("tier"))],
            services=[service(projection())],
        )
    )
    (change,) = compare(BEFORE, after).changes

    assert change.summary == "stored values stay"
    assert change.details == ("~ bootstrap servers: kafka:9092 -> elsewhere:9092",)


def test_what_is_gone_is_removed() -> None:
    """With the counts at the end."""
    text = render(compare(BEFORE, compiled(repo(view()))))

    assert "- plain feature view" in text
    assert "- feature service" in text
    assert text.endswith("0 to add, 0 to change, 2 to remove, 1 unchanged")


def test_a_changed_plain_view_and_service_say_how() -> None:
    """Types of fields, and the order of a vector, which a model depends on."""
    after = compiled(
        repo(
            view(),
            plain=[plain_view(field("tier", "STRING"), field("age"))],
            services=[service(projection("profile", "age"), projection())],
        )
    )
    plain, changed_service = compare(BEFORE, after).changes

    assert plain.details == ("+ feature age: int64", "~ feature tier: int64 -> string")
    assert changed_service.details == ("+ feature age: profile.age",)


def test_another_table_of_a_plain_view_is_a_change() -> None:
    """Training sets read it. A time column that only Feast has named, when it applied, is none."""
    table = RegisteredTable("profiles", "BATCH_FILE", "since", "", {}, "data/profiles.parquet", "", "")
    before = compiled(repo(plain=[plain_view(field("tier"), table=table)]))
    moved = replace(table, uri="data/new.parquet", timestamp_field="valid_from", field_mapping={"t": "tier"})
    after = compiled(repo(plain=[plain_view(field("tier"), table=moved)]))
    unnamed = compiled(repo(plain=[plain_view(field("tier"), table=replace(table, timestamp_field=""))]))
    (change,) = compare(before, after).changes

    assert change.summary == "stored values stay"
    assert change.details == (
        "~ path of the table: data/profiles.parquet -> data/new.parquet",
        "~ time column of the table: since -> valid_from",
        "~ renamed columns of the table: none -> t as tier",
    )
    assert compare(before, unnamed).is_empty
