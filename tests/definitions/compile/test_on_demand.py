"""On-demand views: SQL is compiled and checked, functions are passed on, and services ask for both."""

from __future__ import annotations

import pytest

from featurestore.core.spec import Column, OnDemandInput, ValueType
from featurestore.definitions.compile.repo import compile_repo
from featurestore.wire.feast.registry import RegisteredField, RegisteredOnDemandView
from tests.definitions.records import (
    aggregation,
    field,
    on_demand_view,
    plain_view,
    projection,
    repo,
    service,
    view,
)

AMOUNT = field("amount", "DOUBLE")


def sql(
    expression: str,
    value_type: str = "DOUBLE",
    *,
    request: tuple[RegisteredField, ...] = (AMOUNT,),
    sources: tuple[str, ...] = ("activity",),
) -> RegisteredOnDemandView:
    """A view "ratios" with one feature "ratio"."""
    reads = [projection(name) for name in sources]
    tags = {"expression.ratio": expression}
    return on_demand_view(field("ratio", value_type), tags=tags, sources=reads, request=request)


def test_sql_is_compiled_to_what_it_reads_and_computes() -> None:
    """Canonical text, the features by their views, the columns of the request, the join keys of its views."""
    compilation = compile_repo(
        repo(view(), on_demand=[sql("amount/nullif(total,0)")], services=[service(projection("ratios", "ratio"))])
    )

    assert compilation.problems == ()
    [ratios] = compilation.spec.on_demand_views
    assert ratios.inputs == (OnDemandInput("total", "activity", "total", ValueType.INT64),)
    assert ratios.request_columns == (Column("amount", ValueType.FLOAT64),)
    assert [feature.type for feature in ratios.features] == [ValueType.FLOAT64]
    assert ratios.is_sql
    [model] = compilation.spec.services
    assert model.join_keys == (Column("card", ValueType.STRING),)
    assert [(each.view, each.feature) for each in model.features] == [("ratios", "ratio")]


def test_every_spelling_of_an_expression_is_one_definition() -> None:
    """So an apply that only formats it changes nothing."""
    first, second = (
        compile_repo(repo(view(), on_demand=[sql(text)])).spec.on_demand_views
        for text in ("amount/NULLIF(total, 0)", "( amount / nullif(total,0) )")
    )

    assert first == second


@pytest.mark.parametrize(
    ("on_demand", "told"),
    [
        (sql("amuont / total"), "column 'amuont' is unknown; did you mean \"amount\"?"),
        (
            sql("amount / total", "INT64"),
            "the Field is of type INT64, but its expression is DOUBLE; write dtype=Float64",
        ),
        (
            sql("amount / total", sources=("activity", "other")),
            '"total" may mean several things; write activity__total or other__total',
        ),
        (sql("total", "INT64", request=(field("total", "INT64"),)), '"total" may mean several things'),
        (sql("amount", request=(field("amount", "FLOAT"),)), "a Float32, which rounds what is sent; write Float64"),
        (sql("1.5", request=(field("amount", "DOUBLE_LIST"),)), "a list, which SQL does not read"),
        (on_demand_view(field("other"), tags={"expression.ratio": "1"}), "it has an expression and no Field"),
        (on_demand_view(field("other"), tags={"expression.ratio": "1"}), "it has no expression"),
        (on_demand_view(tags={"authoring_mistake": "it is wrong\twrite it right"}), "it is wrong; write it right"),
        (
            on_demand_view(field("x"), sources=[projection("activity", "totl")]),
            'no feature "totl"; did you mean "total"?',
        ),
    ],
)
def test_mistakes_are_told_with_place_and_remedy(on_demand: RegisteredOnDemandView, told: str) -> None:
    """The service that asks for it is not blamed."""
    other = view([aggregation()], [field()], name="other")
    compilation = compile_repo(
        repo(view(), other, on_demand=[on_demand], services=[service(projection("ratios", "ratio"))])
    )

    texts = [str(problem) for problem in compilation.problems]
    assert any(told in text for text in texts), texts
    assert all(text.startswith('on-demand feature view "ratios"') for text in texts)
    assert compilation.spec.on_demand_views == ()
    assert compilation.spec.services == ()


def test_a_feature_of_two_views_goes_by_its_full_name_and_the_plan_notes_what_the_sdk_does() -> None:
    """Without full names Feast puts one value in the place of both."""
    other = view([aggregation()], [field()], name="other")
    compilation = compile_repo(
        repo(view(), other, on_demand=[sql("activity__total + other__total", "INT64", sources=("activity", "other"))])
    )

    assert compilation.problems == ()
    [ratios] = compilation.spec.on_demand_views
    assert [(read.name, read.view) for read in ratios.inputs] == [
        ("activity__total", "activity"),
        ("other__total", "other"),
    ]
    assert any('reads a feature "total" of two views' in note for note in compilation.notes)


def test_a_column_of_the_request_has_one_type_and_no_name_of_a_feature() -> None:
    """In one service: the Feast SDK keeps both in one table."""
    first = sql("amount / 2")
    second = on_demand_view(
        field("sum", "INT64"), name="sums", tags={"expression.sum": "amount"}, request=[field("amount", "INT64")]
    )
    tier = plain_view(field("amount", "DOUBLE"))
    compilation = compile_repo(
        repo(
            view(),
            plain=[tier],
            on_demand=[first, second],
            services=[
                service(projection("ratios", "ratio"), projection("sums", "sum"), projection("profile", "amount"))
            ],
        )
    )

    texts = [problem.fact for problem in compilation.problems]
    assert 'column "amount" of its request is float64 in one view, int64 in another' in texts
    assert 'feature "amount" of "profile" has the name of a column of its request' in texts


def test_a_function_is_passed_on_as_its_text() -> None:
    """Nothing of the author's runs; the plan notes who computes it."""
    by_python = on_demand_view(field("ratio", "DOUBLE"), request=[AMOUNT], text="def compute(inputs): ...")
    compilation = compile_repo(repo(view(), on_demand=[by_python], services=[service(projection("ratios", "ratio"))]))

    assert compilation.problems == ()
    [ratios] = compilation.spec.on_demand_views
    assert ratios.function is not None
    assert (ratios.function.text, ratios.function.mode) == ("def compute(inputs): ...", "python")
    assert not ratios.is_sql
    assert ["model"] == [each.name for each in compilation.spec.services]
    assert any("--python-features" in note for note in compilation.notes)


def test_an_on_demand_view_of_what_is_not_served_is_a_note_with_its_services() -> None:
    """As of any view."""
    dark = view(name="dark", online=False)
    compilation = compile_repo(
        repo(
            dark,
            on_demand=[on_demand_view(field("ratio", "DOUBLE"), sources=[projection("dark")])],
            services=[service(projection("ratios", "ratio"))],
        )
    )

    assert compilation.problems == ()
    assert 'feature view "dark" is not online' in compilation.unserved["model"]
