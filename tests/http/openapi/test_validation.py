"""What does not fit in an answer, in words (runtime.md 10.4)."""

import time
from pathlib import Path
from typing import Any

import pytest

from reqon.errors import SpecError
from reqon.http.openapi import patterns
from tests.support.specs import answering, document, loaded, problems

OWNER = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        (OWNER, {}, "response: missing required field 'name'"),
        ({"properties": {"owner": OWNER}}, {"owner": {}}, ".owner: missing required field 'name'"),
        ({"items": OWNER}, [{"name": 1}], "[0].name: type mismatch: expected string, got number"),
        (OWNER, {"name": "x", "age": "7"}, ".age: type mismatch: expected integer, got string"),
        (OWNER, {"name": "x", "age": 7.5}, ".age: type mismatch: expected integer, got number"),
        (OWNER, [], "response: type mismatch: expected object, got array"),
        ({"type": "boolean"}, None, "response: type mismatch: expected boolean, got null"),
        ({"type": "string"}, True, "response: type mismatch: expected string, got boolean"),
        ({"type": "string", "nullable": True}, 1, "response: type mismatch: expected string or null, got number"),
        ({"enum": ["a", 1]}, "b", 'response: value not in enum: "a", 1'),
        ({"const": "a"}, "b", 'response: value not in enum: "a"'),
        ({"minimum": 3}, 2, "response: constraint failed: minimum 3"),
        ({"minimum": 3, "exclusiveMinimum": True}, 3, "response: constraint failed: exclusiveMinimum 3"),
        ({"minimum": 3, "exclusiveMinimum": False}, 3, None),
        ({"exclusiveMaximum": 3}, 3, "response: constraint failed: exclusiveMaximum 3"),
        ({"multipleOf": 0.1}, 0.35, "response: constraint failed: multipleOf 0.1"),
        ({"multipleOf": 0.1}, 0.3, None),
        ({"maxLength": 2}, "abc", "response: constraint failed: maxLength 2"),
        ({"minItems": 1}, [], "response: constraint failed: minItems 1"),
        ({"uniqueItems": True}, [1, 1], "response: constraint failed: uniqueItems"),
        ({"pattern": "^a+$"}, "b", "response: constraint failed: pattern ^a+$"),
        ({"format": "date"}, "2024-13-01", "response: constraint failed: format date"),
        ({"format": "email"}, "x", "response: constraint failed: format email"),
        ({"format": "hostname"}, "-", None),
        ({"format": "int32", "type": "integer"}, 5, None),
        (
            {"additionalProperties": False, "properties": {"a": {}}},
            {"a": 1, "b": 2},
            "response: constraint failed: additionalProperties, unexpected 'b'",
        ),
        (
            {"additionalProperties": {"type": "string"}},
            {"a b": 1},
            '["a b"]: type mismatch: expected string, got number',
        ),
        ({"oneOf": [{"type": "string"}, {"type": "boolean"}]}, 1, "response: no matching schema (oneOf)"),
        ({"anyOf": [{"type": "string"}, {"type": "boolean"}]}, 1, "response: no matching schema (anyOf)"),
        (
            {"oneOf": [{"type": "number"}, {"type": "integer"}]},
            1,
            "response: constraint failed: oneOf, more than one schema matches",
        ),
        ({"allOf": [OWNER, {"required": ["id"]}]}, {"name": "x"}, "response: missing required field 'id'"),
        ({"not": {"type": "string"}}, "x", "response: constraint failed: not"),
    ],
)
def test_each_kind_of_mismatch_has_its_words(schema: Any, value: Any, expected: str | None, tmp_path: Path) -> None:
    assert problems(tmp_path, schema, value) == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "nullable": True},
        {"type": "string", "enum": ["a"], "nullable": True},
        {"nullable": True, "allOf": [{"type": "string"}]},
        {"nullable": True, "oneOf": [{"type": "string"}, {"type": "object"}]},
    ],
)
def test_what_is_nullable_may_be_null(schema: Any, tmp_path: Path) -> None:
    assert problems(tmp_path, schema, None) == []
    assert problems(tmp_path, schema, 1) != []
    assert problems(tmp_path, {"properties": {"x": schema}}, {"x": "a"}) == []


def test_3_1_says_null_as_a_type(tmp_path: Path) -> None:
    schema = {"type": ["string", "null"], "examples": ["x"]}
    assert problems(tmp_path, schema, None, version="3.1.0") == []
    assert problems(tmp_path, {"type": "string", "nullable": True}, None, version="3.1.0") != []
    tuples = {"prefixItems": [{"type": "string"}], "items": {"type": "integer"}}
    assert problems(tmp_path, tuples, ["a", "b"], version="3.1.0") == [
        "[1]: type mismatch: expected integer, got string"
    ]


def test_what_is_only_written_is_not_required_of_an_answer(tmp_path: Path) -> None:
    schemas = {"Secret": {"type": "string", "writeOnly": True}}
    schema = {
        "required": ["a", "b", "c"],
        "properties": {"a": {"writeOnly": True}, "b": {"$ref": "#/components/schemas/Secret"}, "c": {}},
    }
    assert problems(tmp_path, schema, {}, schemas=schemas) == ["response: missing required field 'c'"]


def test_a_discriminator_says_which_alternative_is_meant(tmp_path: Path) -> None:
    def pet(kind: str) -> dict[str, Any]:
        return {"type": "object", "required": ["kind", kind], "properties": {kind: {"type": "integer"}}}

    refs = [{"$ref": "#/components/schemas/Cat"}, {"$ref": "#/components/schemas/Dog"}]
    schema = {
        "oneOf": refs,
        "discriminator": {"propertyName": "kind", "mapping": {"feline": "#/components/schemas/Cat"}},
    }
    schemas = {"Cat": pet("lives"), "Dog": pet("tricks")}

    def found(value: Any) -> list[str]:
        return problems(tmp_path, schema, value, schemas=schemas)

    assert found({"kind": "feline", "lives": 9}) == []
    assert found({"kind": "Dog", "tricks": 1}) == []
    assert found({"kind": "Dog", "tricks": "x"}) == [".tricks: type mismatch: expected integer, got string"]
    assert found({"kind": "Cow"}) == ['.kind: value not in enum: "feline", "Dog"']
    assert found({}) == ["response: missing required field 'kind'"]


def test_a_hundred_problems_are_told_at_most(tmp_path: Path) -> None:
    assert len(problems(tmp_path, {"items": {"type": "string"}}, list(range(1000)))) == 100


# --- schemas that mean harm ------------------------------------------------------------------------------------------


def test_recursive_schemas_are_followed_as_deep_as_the_value_goes(tmp_path: Path) -> None:
    schemas = {"Node": {"required": ["id"], "properties": {"next": {"$ref": "#/components/schemas/Node"}}}}
    value: dict[str, Any] = {}
    for _ in range(200):
        value = {"id": 1, "next": value}
    (problem,) = problems(tmp_path, {"$ref": "#/components/schemas/Node"}, value, schemas=schemas)
    assert problem == f"{'.next' * 200}: missing required field 'id'"


@pytest.mark.parametrize(
    "schemas",
    [
        {"A": {"$ref": "#/components/schemas/A"}},
        {"A": {"$ref": "#/components/schemas/B"}, "B": {"$ref": "#/components/schemas/A"}},
        {"A": {"allOf": [{"$ref": "#/components/schemas/B"}]}, "B": {"anyOf": [{"$ref": "#/components/schemas/A"}]}},
        {"A": {"not": {"not": {"$ref": "#/components/schemas/A"}}}},
        {"A": {"if": {"$ref": "#/components/schemas/A"}, "then": {}}},
        {"A": {"oneOf": [{"$ref": "#/components/schemas/A"}], "discriminator": {"propertyName": "k"}}},
    ],
)
def test_a_schema_that_refers_to_itself_for_the_same_value_ends(schemas: Any, tmp_path: Path) -> None:
    assert isinstance(problems(tmp_path, {"$ref": "#/components/schemas/A"}, {"k": "A"}, schemas=schemas), list)


def test_the_pattern_of_parent_and_children_in_a_circle_still_checks(tmp_path: Path) -> None:
    schemas = {
        "Pet": {
            "required": ["kind"],
            "oneOf": [{"$ref": "#/components/schemas/Cat"}],
            "discriminator": {"propertyName": "kind"},
        },
        "Cat": {"allOf": [{"$ref": "#/components/schemas/Pet"}, {"required": ["lives"]}]},
    }
    found = problems(tmp_path, {"$ref": "#/components/schemas/Pet"}, {"kind": "Cat"}, schemas=schemas)
    assert found == ["response: missing required field 'lives'"]


@pytest.mark.parametrize("pattern", [r"^(a+)+$", r"^(?=a)(a|aa)+$", r"^(\w+\s?)*\1$", r"(?!x)(a*)*b"])
def test_no_pattern_runs_away(pattern: str, tmp_path: Path) -> None:
    """R-class input: each of these takes a backtracking engine longer than the universe has."""
    began = time.process_time()
    problems(tmp_path, {"pattern": pattern}, "a" * 5000 + "!")
    problems(tmp_path, {"patternProperties": {pattern: {"type": "string"}}}, {"a" * 5000 + "!": 1})
    assert time.process_time() - began < 20  # CPU, generous: without limits it would not end at all


def test_texts_above_ten_thousand_characters_are_not_looked_at(tmp_path: Path) -> None:
    assert patterns.MAX_CHARACTERS == 10_000
    assert problems(tmp_path, {"pattern": "^b"}, "a" * 10_000) != []
    assert problems(tmp_path, {"pattern": "^b"}, "a" * 10_001) == []


def test_a_pattern_that_nobody_can_run_is_told_and_not_checked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    patterns.engine_of.cache_clear()
    assert problems(tmp_path, {"type": "string", "pattern": "[a"}, "x") == []
    assert "cannot be run here" in caplog.text


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "weird", "minLength": -1, "maxItems": "x", "required": True, "properties": [], "enum": "a"},
        {"items": 7, "allOf": {}, "not": 3, "additionalProperties": "no", "pattern": 9, "multipleOf": 0},
        {"type": ["string", "file"], "format": 8, "exclusiveMinimum": "x", "oneOf": []},
        {"$id": "http://example.com/x", "$schema": "http://example.com/y", "$dynamicRef": "#x", "$anchor": "y"},
        "text",
        7,
        None,
        [],
    ],
)
def test_what_is_no_schema_word_is_left_out(schema: Any, tmp_path: Path) -> None:
    spec = loaded(tmp_path, document(answering(schema)))
    operation = spec.operation("get")
    assert operation is not None
    check = spec.check(operation, 200, None)
    assert check is None or check.problems("x") == []


TREE: dict[str, Any] = {
    "Leaf": {"$anchor": "leaf", "type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}},
    "Node": {
        "$dynamicAnchor": "node",
        "properties": {"leaf": {"$ref": "#leaf"}, "next": {"$dynamicRef": "#node", "description": "one more"}},
    },
}


def test_references_may_name_an_anchor(tmp_path: Path) -> None:
    made = document(answering({"$ref": "#/components/schemas/Node"}), version="3.1.0", schemas=TREE)
    spec = loaded(tmp_path, made)
    operation = spec.operation("get")
    assert operation is not None
    check = spec.check(operation, 200, None)
    assert check is not None
    assert check.problems({"next": {"next": {"leaf": {"id": "x"}}}}) == []
    assert check.problems({"next": {"next": {"leaf": {}}}}) == [".next.next.leaf: missing required field 'id'"]


@pytest.mark.parametrize("ref", [{"$ref": "#gone"}, {"$dynamicRef": "#gone"}, {"$ref": "#twice"}])
def test_an_anchor_that_is_not_there_or_there_twice_is_named(ref: dict[str, str], tmp_path: Path) -> None:
    twice = {name: {"$anchor": "twice", "type": "string"} for name in ("A", "B")}
    spec = loaded(tmp_path, document(answering({"items": ref}), version="3.1.0", schemas=twice))
    with pytest.raises(SpecError, match=r"schema/items: '.*#(gone|twice)' leads nowhere") as caught:
        spec.prepare("get")
    assert caught.value.hint is not None and "the name of one $anchor" in caught.value.hint


def test_a_missing_schema_is_found_before_the_first_answer(tmp_path: Path) -> None:
    spec = loaded(tmp_path, document(answering({"items": {"$ref": "#/components/schemas/Gone"}})))
    with pytest.raises(SpecError, match="leads nowhere"):
        spec.prepare("get")


# --- which schema ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "content_type", "expected"),
    [
        (200, "application/json", "exact"),
        (200, "application/json; charset=utf-8", "exact"),
        (200, "application/vnd.x+json", "vendor"),
        (200, "application/other+json", "exact"),
        (204, "application/json", "range"),
        (404, "application/json", "default"),
        (404, "application/problem+json", "default"),
    ],
)
def test_the_schema_is_that_of_status_and_type(status: int, content_type: str, expected: str, tmp_path: Path) -> None:
    def saying(word: str) -> dict[str, Any]:
        return {"schema": {"enum": [word]}}

    paths = answering({})
    paths["/thing"]["get"]["responses"] = {
        "default": {"content": {"application/json": saying("default")}},
        "2XX": {"content": {"application/json": saying("range")}},
        "200": {"content": {"application/json": saying("exact"), "application/vnd.x+json": saying("vendor")}},
    }
    spec = loaded(tmp_path, document(paths))
    operation = spec.operation("get")
    assert operation is not None
    check = spec.check(operation, status, content_type)
    assert check is not None
    assert check.problems(expected) == []


def test_where_the_document_says_nothing_nothing_is_checked(tmp_path: Path) -> None:
    paths = answering({})
    paths["/thing"]["get"]["responses"] = {"200": {"description": "ok"}, "201": {"content": {"image/png": {}}}}
    spec = loaded(tmp_path, document(paths))
    operation = spec.operation("get")
    assert operation is not None
    assert [spec.check(operation, status, "application/json") for status in (200, 201, 500)] == [None, None, None]
