"""One mistake is one message, which says what to write; what only follows from it is not blamed."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from featurestore.cli.main import main
from featurestore.definitions.compile.repo import compile_repo
from tests.definitions.records import aggregation, field, repo, view

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")

Capture = pytest.CaptureFixture[str]

HEAD = """\
from feast import Entity, FeatureService, ValueType
from featurestore.features import aggregate, count, derive, kafka_source, stream_view

card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.STRING)
payments = kafka_source(
    name="payments",
    topic="payments",
    columns={"at": "timestamp", "card_id": "string", "amount": "bigint"},
    event_time="at",
)
"""

CONFIG = "project: shop\nregistry: r.db\nonline_store: {type: featurestore.feast.RealTimeOnlineStore}\n"


def problems(repo: Path, definitions: str, capsys: Capture) -> list[str]:
    """What a plan of these definitions finds wrong."""
    (repo / "feature_store.yaml").write_text(CONFIG)
    (repo / "views.py").write_text(HEAD + textwrap.dedent(definitions))
    main(["plan", "--repo", str(repo)])
    return [line.removeprefix("  * ") for line in capsys.readouterr().err.splitlines() if line.startswith("  * ")]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("distinct_count", '"count_distinct"'),
        ("count_distinct_approx", '"approx_count_distinct"'),
        ("maen", '"mean"'),
        ("n_last_distinct(3)", '"last_distinct_n"'),
    ],
)
def test_an_unknown_function_has_a_suggestion(written: str, meant: str) -> None:
    """Also where only the order of its words is another; in quotes, as all other suggestions."""
    (problem,) = compile_repo(repo(view([aggregation(written)]))).problems

    assert f"did you mean {meant}" in problem.remedy
    assert problem.remedy.endswith("?")


def test_what_was_never_assigned_is_told_so(tmp_path: Path, capsys: Capture) -> None:
    """An entity or a view that is made inline has no name by which Feast would find it."""
    found = problems(
        tmp_path,
        """
        activity = stream_view(
            name="activity", source=payments, features=count(over="1h"),
            entities=[Entity(name="shop", join_keys=["card_id"], value_type=ValueType.STRING)],
        )
        served = FeatureService(name="served", features=[
            stream_view(name="inline", entities=[card], source=payments, features=count(over="1h")),
        ])
        """,
        capsys,
    )

    assert found == [
        'feature view "activity": entity "shop" is not registered; assign it to a name in a module, such as '
        "shop = Entity(...): Feast registers no others",
        'feature service "served": feature view "inline" is not registered; assign it to a name in a module: Feast '
        "registers no others",
    ]


def test_an_expression_may_leave_out_the_prefix_as_its_name_does(tmp_path: Path, capsys: Capture) -> None:
    """Plain and quoted, beside full names; texts and functions are none."""
    definitions = """
        activity = stream_view(
            name="activity", entities=[card], source=payments, prefix="{prefix}",
            features=[
                *count(over=["1h", "1d"]), *aggregate("amount", "max", over="1h", name="max"),
                *derive("share", {expression!r}),
            ],
        )
        """
    short = "abs(count_1h) / nullif(\"count_1d\", 0) + length('count_1h') + least(max_1h, 1e3)"
    full = "abs(card_count_1h) / nullif(\"card_count_1d\", 0) + length('count_1h') + least(card_max_1h, 1e3)"

    texts = []
    for expression in (short, full):
        assert problems(tmp_path, definitions.format(prefix="card_", expression=expression), capsys) == []
        main(["plan", "--repo", str(tmp_path)])
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]


@pytest.mark.parametrize("over", ["1x", "2h"])
def test_an_expression_is_not_blamed_for_the_features_that_it_names(tmp_path: Path, capsys: Capture, over: str) -> None:
    """Where one of them has a mistake, or all of them; a mistake of its own is its own."""
    found = problems(
        tmp_path,
        f"""
        activity = stream_view(
            name="activity", entities=[card], source=payments,
            features=[
                *aggregate("amuont", "sum", over="1h"), *count(over="{over}"),
                *derive("share", "amuont_sum_1h / 2"), *derive("wrong", "nothing / 2"),
            ],
        )
        """,
        capsys,
    )

    blamed = {line.split('feature "')[1].split('"')[0] for line in found}
    assert blamed == ({"amuont_sum_1h", "wrong"} | ({"count_1x"} if over == "1x" else set()))
    (own,) = [line for line in found if '"wrong"' in line]
    assert ("there is no column that it could name" in own) == (over == "1x")
    assert "columns are ;" not in own


def test_a_misspelled_field_is_one_mistake() -> None:
    """And not two: one of the Field, and one of the aggregation that has no other."""
    (problem,) = compile_repo(repo(view([aggregation(name="total")], [field("totla")]))).problems

    assert 'feature "totla": the Field has no aggregation of that name; add one; did you mean "total"?' in str(problem)
