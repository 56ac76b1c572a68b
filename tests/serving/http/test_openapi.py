"""The OpenAPI document: valid by the meta-schema, and true of what is answered."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import jsonschema
import openapi_spec_validator
import pytest

from tests.serving.http.caller import Answer, Caller

ENTITIES = {"card_id": ["c-1", "nobody"], "merchant_id": [7, 404]}
LOOKUP, DESCRIBE, LIST, FEAST = (
    ("post", "/v1/services/{name}:lookup"),
    ("get", "/v1/services/{name}"),
    ("get", "/v1/services"),
    ("post", "/get-online-features"),
)


@pytest.fixture
def document(caller: Caller) -> Any:
    """As it is served."""
    return caller.get("/openapi.json").json


def assert_as_documented(document: Any, operation: tuple[str, str], answer: Answer) -> None:
    """Its body is what the document says of its status and content type."""
    verb, path = operation
    responses = document["paths"][path][verb]["responses"]
    content = responses.get(str(answer.status), responses["default"])["content"]
    schema = {**content[answer.headers["content-type"]]["schema"], "components": document["components"]}
    jsonschema.validate(answer.json, schema)


def test_the_document_is_valid(document: Any) -> None:
    """By the meta-schema of OpenAPI 3.1; and everything that has a name is described."""
    openapi_spec_validator.validate(document)

    for name, schema in document["components"]["schemas"].items():
        assert schema["description"], name
        assert "Attributes:" not in schema["description"]
    lookup = document["components"]["schemas"]["LookupBody"]["properties"]
    assert "every join key of the feature service, N values each." == lookup["entities"]["description"]
    assert "one read time for all rows, or N." in lookup["as_of_ms"]["description"]


@pytest.mark.parametrize("operation", [LOOKUP, DESCRIBE, LIST, FEAST])
def test_answers_are_as_documented(document: Any, caller: Caller, operation: tuple[str, str]) -> None:
    """Good ones and refusals; a body that the document allows is understood."""
    verb, path = operation
    bodies: dict[tuple[str, str], list[Any]] = {
        LOOKUP: [
            {"entities": ENTITIES},
            {"entities": ENTITIES, "as_of_ms": [1_768_089_600_000] * 2, "include_metadata": True},
            {"entities": ENTITIES, "as_of_ms": None},
        ],
        FEAST: [
            {"entities": ENTITIES, "feature_service": "fraud_detection"},
            {
                "entities": {"card_id": ["c-1"]},
                "features": ["card_activity:count_1h"],
                "full_feature_names": True,
                "include_feature_view_version_metadata": True,
            },
        ],
    }
    for body in bodies.get(operation, [None]):
        if body is not None:
            content = document["paths"][path][verb]["requestBody"]["content"]["application/json"]
            jsonschema.validate(body, {**content["schema"], "components": document["components"]})
        for name, status in (("fraud_detection", 200), ("nothing", 404)):
            if name == "nothing" and "{name}" not in path:
                continue
            where = path.replace("{name}", quote(name))
            answer = caller.get(where) if verb == "get" else caller.post(where, body)
            assert status == answer.status, answer.body
            assert_as_documented(document, operation, answer)


def test_what_the_document_forbids_is_refused(document: Any, caller: Caller) -> None:
    """And the other way round: neither is laxer than the other."""
    content = document["paths"][LOOKUP[1]]["post"]["requestBody"]["content"]["application/json"]
    schema = {**content["schema"], "components": document["components"]}
    bodies: list[Any] = [{"entities": {"merchant_id": 7}}, {"entities": {"merchant_id": [7.5]}}, {"as_of_ms": "x"}]
    for body in [*bodies, {"rows": []}]:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(body, schema)
        answer = caller.post("/v1/services/merchant_monitoring:lookup", body)
        assert 400 == answer.status
        assert_as_documented(document, LOOKUP, answer)


def test_every_path_of_the_document_is_there(document: Any, caller: Caller) -> None:
    """Health included."""
    for path, verbs in document["paths"].items():
        for verb in verbs:
            answer = caller.ask(verb.upper(), path.replace("{name}", "fraud_detection"), None)
            assert answer.status in (200, 400), (verb, path, answer)
