"""On-demand features in a training set: the request's columns are columns of the labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.core.expressions import compile_expression
from featurestore.core.spec import (
    Column,
    ComputedColumn,
    FeatureReference,
    OnDemandInput,
    OnDemandViewSpec,
    PythonFunction,
    RepoSpec,
    ServiceSpec,
    ValueType,
)
from featurestore.errors import InvalidRequest
from featurestore.offline.training_set.build import build_training_set
from featurestore.offline.training_set.histories import FileHistory
from featurestore.offline.training_set.plan import plan_training_set
from tests.offline.training_set.label_tables import CARD, NOON_MS, PAIR, payments, repo_of

HISTORY = payments(
    ("p1", 0, "c-1", 1, 50, "DE"),
    ("p2", 1_000, "c-1", 2, 150, "SE"),
    ("p3", 1_000, "c-2", 1, 70, None),
)

LABELS = pa.table(
    {
        "event_timestamp": pa.array([NOON_MS + at for at in (1, 1_001, 1_001, 1_001)], pa.timestamp("ms", tz="UTC")),
        "card": ["c-1", "c-1", "c-2", "nobody"],
        "shop": pa.array([1, 2, 1, 9]),
        "amount": pa.array([25, 300, None, 5], pa.int64()),
        "country": ["DE", "DE", "SE", "SE"],
    }
)
"""The amounts are integers, as a table may have them; the request's are doubles."""


def feature_names(repo: RepoSpec, view: str) -> list[str]:
    """Names of what a view answers."""
    return [column.name for column in repo.columns_of(view) or ()]


def with_checks(repo: RepoSpec, function: PythonFunction | None = None) -> RepoSpec:
    """The repo with a view that computes of the first features of the two others and two columns of the request."""
    inputs: list[OnDemandInput] = []
    names: list[str] = []
    for view in (CARD, PAIR):
        column = next(each for each in view.answers if each.type is ValueType.INT64)
        inputs.append(OnDemandInput(f"{view.name}__{column.name}", view.name, column.name, column.type))
        names.append(f"{view.name}__{column.name}")
    request = (Column("amount", ValueType.FLOAT64), Column("country", ValueType.STRING))
    types = {each.name: each.type for each in inputs} | {column.name: column.type for column in request}
    features = []
    for name, sql in {
        "ratio": f"amount / nullif({names[0]}, 0)",
        "both": f"{names[0]} + 1000 * {names[1]}",
        "is_home": "country = 'DE'",
        "text": "country || '!'",
    }.items():
        expression = compile_expression(sql, types)
        features.append(ComputedColumn(name, expression.type, "" if function else expression.text))
    keys = tuple(dict.fromkeys((*CARD.join_keys, *PAIR.join_keys)))
    checks = OnDemandViewSpec("checks", keys, tuple(inputs), request, tuple(features), function)
    references = tuple(FeatureReference("checks", feature.name, feature.name) for feature in features)
    service = ServiceSpec("checked", references, keys)
    return replace(repo, on_demand_views=(checks,), services=(*repo.services, service))


@pytest.fixture
def history(tmp_path: Path) -> FileHistory:
    """The payments in a file."""
    pq.write_table(HISTORY, tmp_path / "payments.parquet")
    return FileHistory(str(tmp_path / "payments.parquet"))


def test_features_are_computed_of_the_labels_columns_and_of_features_that_are_not_asked(history: FileHistory) -> None:
    """What is only read is not in the table; values are those of the features at the label times."""
    repo = with_checks(repo_of(CARD, PAIR))
    checks = repo.on_demand_views[0]
    stored = build_training_set(
        repo, [f"{read.view}:{read.feature}" for read in checks.inputs], LABELS, history=history, full_names=True
    )

    found = build_training_set(repo, "checked", LABELS, history=history)

    assert found.column_names == [*LABELS.column_names, "ratio", "both", "is_home", "text"]
    cards, pairs = (stored.column(read.name).to_pylist() for read in checks.inputs)
    amounts = LABELS.column("amount").to_pylist()
    ratios = [
        amount / card if amount is not None and card else None for amount, card in zip(amounts, cards, strict=True)
    ]
    assert any(ratio is not None for ratio in ratios)
    assert found.column("ratio").to_pylist() == ratios
    sums = [None if None in pair else pair[0] + 1000 * pair[1] for pair in zip(cards, pairs, strict=True)]
    assert found.column("both").to_pylist() == sums
    assert found.column("is_home").to_pylist() == [True, True, False, False]
    assert found.column("text").to_pylist() == ["DE!", "DE!", "SE!", "SE!"]


def test_a_feature_that_is_asked_and_read_is_computed_once(history: FileHistory) -> None:
    """And comes under the name that was asked for, beside those computed of it, in the order of the request."""
    repo = with_checks(repo_of(CARD, PAIR))
    read = repo.on_demand_views[0].inputs[0]

    found = build_training_set(
        repo, ["checks:ratio", f"{read.view}:{read.feature}"], LABELS, history=history, full_names=True
    )

    plan = plan_training_set(repo, ["checks:ratio", f"{read.view}:{read.feature}"], LABELS)
    assert [len(outputs.columns) for outputs in plan.views] == [1]
    assert found.column_names[-2:] == ["checks__ratio", read.name]
    card, ratio = found.column(read.name).to_pylist()[1], found.column("checks__ratio").to_pylist()[1]
    assert ratio == (300 / card if card else None)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS.drop_columns(["amount"]), 'the entities have no column "amount", which feature "ratio" reads'),
        (LABELS.set_column(3, "amount", pa.array(["1"] * 4)), 'column "amount" is of type string, not float64'),
    ],
)
def test_labels_without_the_requests_columns_are_refused(history: FileHistory, labels: pa.Table, message: str) -> None:
    """Before anything is read."""
    with pytest.raises(InvalidRequest, match="amount") as refused:
        build_training_set(with_checks(repo_of(CARD, PAIR)), "checked", labels, history=history)

    assert message in refused.value.message


def test_a_function_of_an_author_is_left_to_the_sdk(history: FileHistory) -> None:
    """An answer without its features would be another one."""
    repo = with_checks(repo_of(CARD, PAIR), PythonFunction("checks", "def checks(inputs): ...", "python"))

    with pytest.raises(InvalidRequest, match='on-demand view "checks" is no SQL') as refused:
        build_training_set(repo, "checked", LABELS, history=history)

    assert "get_historical_features" in refused.value.hint
