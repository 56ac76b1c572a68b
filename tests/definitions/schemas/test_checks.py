"""What a plan says of its streams' schemas: problems of what is new or changed, notes of what stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from featurestore.core.spec import SourceSpec, TopicSpec
from featurestore.definitions.schemas.checks import check_schemas
from featurestore.definitions.schemas.subjects import Subject, SubjectSchema, subjects_of
from featurestore.errors import SourceUnavailable
from tests.definitions.schemas.test_breaks import SOURCE, VIEW, avro


@dataclass
class Known:
    """What registries say."""

    subjects: Mapping[str, SubjectSchema] = field(default_factory=dict)
    mode: str = "FULL"

    def newest(self, source: SourceSpec, subject: str) -> SubjectSchema | None:
        """See Registries."""
        if not self.subjects:
            raise SourceUnavailable("schema registry http://schemas.test does not answer")
        return self.subjects.get(subject)

    def before(self, source: SourceSpec, subject: str, version: int) -> SubjectSchema | None:
        """See Registries."""
        return None

    def compatibility(self, source: SourceSpec, subject: str) -> str:
        """See Registries."""
        return self.mode


BROKEN = SubjectSchema(avro(amount="string", channel=None), kind="AVRO", version=3)
PROBLEMS = [
    'feature view "cards", feature "amount_sum_1h": it reads column "amount"; by the newest schema of subject '
    '"payments-value", amount is a string, which no column of type float64 holds: every record would be a dead letter; '
    "read another field, or give the column the field's type",
    'feature view "cards", feature "web_count_1h": it reads column "channel"; by the newest schema of subject '
    '"payments-value", the schema has no field "channel": it would be null; '
    "name the field that has it in fields={...} of the source, or leave the column out",
]


def test_a_new_or_changed_view_has_to_fit_the_newest_schema() -> None:
    """By view, feature and column, with what to do about it."""
    checks = check_schemas([VIEW], {"cards"}, Known({"payments-value": BROKEN}))

    assert [str(problem) for problem in checks.problems] == PROBLEMS
    (note,) = checks.notes
    assert note == (
        'subject "payments-value", version 3: compatibility is FULL, so that a producer may drop a field that has a '
        "default"
    )


def test_what_stays_as_it_is_has_notes() -> None:
    """An apply of something else must not wait for a producer."""
    checks = check_schemas([VIEW, replace(VIEW, name="others")], {"others"}, Known({"payments-value": BROKEN}))

    assert {problem.place.name for problem in checks.problems} == {"others"}
    assert checks.notes[1:] == [
        'subject "payments-value", column "amount": amount is a string, which no column of type float64 holds; '
        "every record would be a dead letter, read by cards (1 features)",
        'subject "payments-value", column "channel": the schema has no field "channel"; it would be null, '
        "read by cards (1 features)",
    ]


def test_a_key_that_is_missing_is_one_problem_of_the_view() -> None:
    """And not one of each of its features."""
    (problem,) = check_schemas([VIEW], {"cards"}, Known({"payments-value": SubjectSchema(avro(card=None))})).problems

    assert str(problem.place) == 'feature view "cards"'
    assert problem.fact.startswith('count_1h, amount_sum_1h, web_count_1h read column "card_id"; by the newest schema')


def test_a_column_of_some_topics_only_may_be_null_in_the_others() -> None:
    """As long as one of them has it."""
    source = replace(SOURCE, more_topics=(TopicSpec("refunds", (("card_id", "card.id"),)),))
    view = replace(VIEW, source=source)
    schemas = {"payments-value": SubjectSchema(avro()), "refunds-value": SubjectSchema(avro(channel=None))}

    partly = check_schemas([view], {"cards"}, Known(schemas))
    assert partly.problems == []
    assert any('subject "refunds-value", column "channel"' in note for note in partly.notes)
    nowhere = check_schemas([view], {"cards"}, Known(dict.fromkeys(schemas, SubjectSchema(avro(channel=None)))))
    assert len(nowhere.problems) == 2


def test_what_cannot_be_asked_is_noted() -> None:
    """A registry that does not answer, and a subject that is not there yet."""
    (silent,) = check_schemas([VIEW], {"cards"}, Known()).notes
    assert silent == (
        'source "payments" is not checked against its schema: schema registry http://schemas.test does not answer'
    )
    (absent,) = check_schemas([VIEW], {"cards"}, Known({"other": BROKEN})).notes
    assert 'has no subject "payments-value"' in absent


def test_a_schema_of_another_kind_is_a_problem_of_the_source() -> None:
    """Of a view that is new; of one that runs it is a note."""
    known = Known({"payments-value": SubjectSchema("{}", kind="JSON", version=1)})

    (problem,) = check_schemas([VIEW], {"cards"}, known).problems
    assert str(problem).startswith('source "payments": its records cannot be read by the newest schema of subject')
    checks = check_schemas([VIEW], (), known)
    assert checks.problems == []
    assert any("has schemas of kind JSON" in note for note in checks.notes)


def test_a_registry_that_refuses_no_schema_is_a_warning() -> None:
    """Whatever the newest one says: the next may say anything."""
    known = Known({"payments-value": SubjectSchema(avro(), version=2)}, mode="NONE")

    (warning,) = check_schemas([VIEW], (), known).warnings
    assert warning.startswith('subject "payments-value", version 2: compatibility is NONE')


def test_subjects_are_called_as_serializers_call_them() -> None:
    """After the topic, the record, or both."""
    records = ("shop.Sale", "shop.Refund")

    assert subjects_of(SOURCE) == (Subject("payments-value"),)
    assert subjects_of(replace(SOURCE, records=records[:1])) == (Subject("payments-value", "shop.Sale"),)
    assert subjects_of(replace(SOURCE, subject_name="record", records=records)) == (
        Subject("shop.Sale", "shop.Sale"),
        Subject("shop.Refund", "shop.Refund"),
    )
    assert [one.name for one in subjects_of(replace(SOURCE, subject_name="topic_record", records=records))] == [
        "payments-shop.Sale",
        "payments-shop.Refund",
    ]
