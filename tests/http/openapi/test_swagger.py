"""Swagger 2.0 as 3.0 has it (runtime.md 10.1)."""

from pathlib import Path
from typing import Any

import pytest

from reqon.http.openapi.operation import Operation
from reqon.http.openapi.parameters import placed
from reqon.http.openapi.spec import Spec
from tests.support.specs import loaded

PARCELS: dict[str, Any] = {
    "swagger": "2.0",
    "info": {"title": "Parcels", "version": "1"},
    "host": "api.example.org",
    "basePath": "/v2",
    "schemes": ["http", "https"],
    "consumes": ["application/json"],
    "produces": ["application/json"],
    "parameters": {
        "Branch": {"name": "X-Branch", "in": "header", "type": "string", "required": True},
        "Parcel": {"name": "parcel", "in": "body", "schema": {"$ref": "#/definitions/Parcel"}},
    },
    "responses": {"Gone": {"description": "gone", "schema": {"$ref": "#/definitions/Error"}}},
    "paths": {
        "/parcels/{id}": {
            "parameters": [{"name": "id", "in": "path", "type": "string", "required": True}],
            "get": {
                "operationId": "getParcel",
                "parameters": [
                    {"$ref": "#/parameters/Branch"},
                    {"name": "csv", "in": "query", "type": "array", "items": {"type": "string"}},
                    {
                        "name": "multi",
                        "in": "query",
                        "type": "array",
                        "items": {"type": "string"},
                        "collectionFormat": "multi",
                    },
                    {"name": "ssv", "in": "query", "type": "array", "items": {}, "collectionFormat": "ssv"},
                    {"name": "pipes", "in": "query", "type": "array", "items": {}, "collectionFormat": "pipes"},
                    {"name": "tsv", "in": "query", "type": "array", "items": {}, "collectionFormat": "tsv"},
                ],
                "responses": {
                    "200": {
                        "description": "ok",
                        "schema": {"$ref": "#/definitions/Parcel"},
                        "examples": {"application/json": {"id": "from the example"}},
                    },
                    "410": {"$ref": "#/responses/Gone"},
                },
            },
            "put": {"operationId": "putParcel", "parameters": [{"$ref": "#/parameters/Parcel"}], "responses": {}},
            "post": {
                "operationId": "postForm",
                "consumes": ["application/x-www-form-urlencoded"],
                "parameters": [{"name": "weight", "in": "formData", "type": "integer", "required": True}],
                "responses": {},
            },
            "patch": {
                "operationId": "upload",
                "consumes": ["multipart/form-data"],
                "parameters": [{"name": "file", "in": "formData", "type": "file"}],
                "responses": {},
            },
        }
    },
    "definitions": {
        "Parcel": {
            "type": "object",
            "required": ["id"],
            "properties": {
                "id": {"type": "string"},
                "weight": {"type": "number", "minimum": 0, "exclusiveMinimum": True},
                "note": {"type": "string", "x-nullable": True},
            },
        },
        "Error": {"type": "object", "required": ["code"]},
    },
}


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    return loaded(tmp_path, PARCELS)


def operation(spec: Spec, identity: str) -> Operation:
    found = spec.operation(identity)
    assert found is not None
    return found


def test_host_schemes_and_base_path_are_the_servers(spec: Spec) -> None:
    assert spec.server() == "https://api.example.org/v2"
    assert spec.root.at("/servers") == [{"url": "https://api.example.org/v2"}, {"url": "http://api.example.org/v2"}]


def test_parameters_are_placed_as_collection_formats_say(spec: Spec) -> None:
    known = operation(spec, "getParcel").by_name
    values = [(name, ["a b", "c"]) for name in ("csv", "multi", "ssv", "pipes", "tsv")]
    made = placed([("x-branch", "north"), *values], known)
    assert made.headers == (("X-Branch", "north"),)
    assert made.query == (
        ("csv", "a%20b,c"),
        ("multi", ["a b", "c"]),
        ("ssv", "a%20b%20c"),
        ("pipes", "a%20b%7Cc"),
        ("tsv", "a%20b%09c"),
    )


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        ("putParcel", "application/json"),
        ("postForm", "application/x-www-form-urlencoded"),
        ("upload", "multipart/form-data"),
        ("getParcel", None),
    ],
)
def test_body_and_form_parameters_become_the_body(identity: str, expected: str | None, spec: Spec) -> None:
    assert operation(spec, identity).body_type == expected


def test_answers_are_checked_against_definitions(spec: Spec) -> None:
    ok = spec.check(operation(spec, "getParcel"), 200, "application/json")
    gone = spec.check(operation(spec, "getParcel"), 410, "application/json")
    assert ok is not None
    assert gone is not None
    assert ok.problems({"id": "7", "weight": 0, "note": None}) == [".weight: constraint failed: exclusiveMinimum 0"]
    assert gone.problems({}) == ["response: missing required field 'code'"]


def test_examples_of_answers_are_made_up_answers(spec: Spec) -> None:
    assert spec.mock(operation(spec, "getParcel")) == (200, {"id": "from the example"})


def test_definitions_are_component_schemas(spec: Spec) -> None:
    assert spec.schemas() == ["Parcel", "Error"]


def test_a_file_without_schemes_is_reached_by_https(tmp_path: Path) -> None:
    without = {key: value for key, value in PARCELS.items() if key != "schemes"}
    assert loaded(tmp_path, without).server() == "https://api.example.org/v2"
    assert loaded(tmp_path, {k: v for k, v in without.items() if k != "host"}).server() is None
