"""Made-up answers: exactly as specified, and valid by their own schemas (runtime.md 10.5)."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.specs import answering, document, loaded, made_up, problems


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"const": "c", "enum": ["e"], "example": "x", "default": "d", "type": "string"}, "c"),
        ({"enum": ["e", "f"], "example": "x", "default": "d", "type": "string"}, "e"),
        ({"enum": [None, "f"], "nullable": True}, "f"),
        ({"example": "x", "default": "d", "type": "string"}, "x"),
        ({"default": "d", "type": "string"}, "d"),
        ({"example": None, "type": "string"}, "sample"),
        ({"type": "boolean"}, True),
        ({"type": "integer"}, 50),
        ({"type": "number"}, 50),
        ({"type": "integer", "minimum": 5, "maximum": 10}, 7),
        ({"type": "number", "minimum": 5, "maximum": 10}, 7.5),
        ({"type": "integer", "minimum": 200}, 250),
        ({"type": "integer", "maximum": -10}, -60),
        ({"type": "integer", "minimum": 5, "maximum": 6, "exclusiveMinimum": True}, 6),
        ({"type": "integer", "exclusiveMinimum": 5, "exclusiveMaximum": 7}, 6),
        ({"type": "integer", "multipleOf": 7}, 49),
        ({"type": "number", "minimum": 1, "maximum": 2, "multipleOf": 0.5}, 1.5),
        ({"type": "string", "format": "date"}, "2024-01-15"),
        ({"type": "string", "format": "date-time"}, "2024-01-15T10:30:00Z"),
        ({"type": "string", "format": "uri"}, "https://example.com"),
        ({"type": "string", "format": "hostname"}, "example.com"),
        ({"type": "string", "format": "ipv4"}, "192.0.2.1"),
        ({"type": "string", "format": "byte"}, "c2FtcGxl"),
        ({"type": "string"}, "sample"),
        ({"type": "string", "minLength": 8}, "samplesa"),
        ({"type": "string", "maxLength": 3}, "sam"),
        ({"type": ["null", "integer"]}, 50),
        ({"type": "array", "items": {"type": "integer"}}, [50, 50]),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 1}, [50]),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 3}, [50, 50, 50]),
        ({"type": "array", "items": {"type": "string", "format": "email"}}, ["user0@example.com", "user1@example.com"]),
        ({"type": "object"}, {}),
        ({"properties": {"a": {"type": "boolean"}}}, {"a": True}),
        (
            {"allOf": [{"properties": {"a": {"type": "boolean"}}}, {"properties": {"b": {"type": "integer"}}}]},
            {"a": True, "b": 50},
        ),
        ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, 50),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, "sample"),
        ({"allOf": [{"type": "string", "example": "x"}]}, "x"),
    ],
)  # fmt: skip
def test_the_first_rule_that_applies(schema: Any, expected: Any, tmp_path: Path) -> None:
    assert made_up(tmp_path, schema, version="3.1.0" if isinstance(schema.get("type"), list) else "3.0.3") == expected


def test_the_counter_begins_at_zero_with_each_answer(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {
            k: {"type": "string", "format": f} for k, f in (("id", "uuid"), ("mail", "email"), ("to", "uuid"))
        },
    }
    expected = {
        "id": "00000000-0000-4000-8000-000000000000",
        "mail": "user1@example.com",
        "to": "00000000-0000-4000-8000-000000000002",
    }
    spec = loaded(tmp_path, document(answering(schema)))
    operation = spec.operation("get")
    assert operation is not None
    assert spec.mock(operation) == (200, expected)
    assert spec.mock(operation) == (200, expected)


@pytest.mark.parametrize(
    ("media", "expected"),
    [
        ({"example": {"id": 1}, "examples": {"a": {"value": 2}}, "schema": {"type": "integer"}}, {"id": 1}),
        ({"examples": {"a": {"$ref": "#/components/examples/A"}, "b": {"value": 3}}}, "referred"),
        ({"examples": {"a": {"externalValue": "http://x"}, "b": {"value": 3}}}, 3),
    ],
)
def test_examples_of_the_media_type_come_first(media: Any, expected: Any, tmp_path: Path) -> None:
    paths = answering({})
    paths["/thing"]["get"]["responses"]["200"]["content"]["application/json"] = media
    spec = loaded(tmp_path, document(paths, components={"examples": {"A": {"value": "referred"}}}))
    operation = spec.operation("get")
    assert operation is not None
    assert spec.mock(operation) == (200, expected)


def test_below_three_levels_there_is_nothing_more(tmp_path: Path) -> None:
    schemas = {"Node": {"type": "object", "properties": {"next": {"$ref": "#/components/schemas/Node"}}}}
    made = made_up(tmp_path, {"$ref": "#/components/schemas/Node"}, schemas=schemas)
    assert made == {"next": {"next": {"next": {"next": {}}}}}


@pytest.mark.parametrize(
    "schemas",
    [
        {"A": {"allOf": [{"$ref": "#/components/schemas/A"}]}},
        {"A": {"oneOf": [{"$ref": "#/components/schemas/B"}]}, "B": {"anyOf": [{"$ref": "#/components/schemas/A"}]}},
        {"A": {"type": "array", "minItems": 10**9, "items": {"$ref": "#/components/schemas/A"}}},
        {"A": {"type": "string", "minLength": 10**12}},
    ],
)
def test_schemas_that_mean_harm_make_an_end(schemas: Any, tmp_path: Path) -> None:
    made_up(tmp_path, {"$ref": "#/components/schemas/A"}, schemas=schemas)


def bounds(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    numbers = st.integers(-1000, 1000)

    def ordered(pair: tuple[int, int]) -> dict[str, Any]:
        return {"type": kind, "minimum": min(pair), "maximum": max(pair)}

    return st.just({"type": kind}) | st.tuples(numbers, numbers).map(ordered)


def lengths() -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(st.integers(0, 20), st.integers(0, 20)).map(
        lambda pair: {"type": "string", "minLength": min(pair), "maxLength": max(pair)}
    )


LEAVES = (
    bounds("integer")
    | bounds("number")
    | lengths()
    | st.sampled_from([{"type": "boolean"}, {"type": "string", "nullable": True}, {"enum": [3, "x"]}, {"const": [1]}])
    | st.sampled_from(["date", "date-time", "email", "uuid", "uri", "ipv4", "ipv6"]).map(
        lambda form: {"type": "string", "format": form}
    )
    | st.integers(1, 9).map(lambda step: {"type": "integer", "multipleOf": step})
)


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    properties = st.dictionaries(st.sampled_from("abcd"), inner, max_size=3)
    return properties.map(
        lambda p: {"type": "object", "properties": p, "required": sorted(p), "additionalProperties": False}
    )


def arrays(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(inner, st.integers(0, 3), st.integers(3, 5)).map(
        lambda x: {"type": "array", "items": x[0], "minItems": x[1], "maxItems": x[2]}
    )


def combined(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    part = st.dictionaries(st.sampled_from("ab"), inner, max_size=2).map(lambda p: {"type": "object", "properties": p})
    other = st.dictionaries(st.sampled_from("cd"), inner, max_size=2).map(lambda p: {"type": "object", "properties": p})
    return st.tuples(part, other).map(lambda parts: {"allOf": list(parts)}) | inner.map(
        lambda one: {"oneOf": [one, {"const": "nobody says this"}]}
    )


LEVEL_1 = LEAVES | objects(LEAVES) | arrays(LEAVES) | combined(LEAVES)
SCHEMAS = LEVEL_1 | objects(LEVEL_1) | arrays(LEVEL_1) | combined(LEVEL_1)


@given(SCHEMAS)
@settings(max_examples=150, deadline=None)
def test_what_is_made_up_for_a_schema_fits_it(schema: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        made = made_up(Path(name), schema)
        assert made is not None
        assert problems(Path(name), schema, made) == []
