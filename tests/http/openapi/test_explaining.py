"""What is wrong with an answer is found in a time that does not explode with its depth (runtime.md 10.4)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator

from reqon.http.openapi import explaining
from reqon.http.openapi.explaining import Explanation
from reqon.http.openapi.patterns import Engine
from tests.support.specs import problems

Record = dict[str, Any]

TREE = {"$ref": "#/components/schemas/Tree"}
LEFT: Record = {"type": "object", "required": ["left"], "properties": {"left": TREE}}
LIST: Record = {"type": "array", "minItems": 1, "items": TREE}
NULL = {"enum": [None]}


def nested(depth: int, leaf: Any, step: Callable[[Any], Any] = lambda inner: {"left": inner}) -> Any:
    for _ in range(depth):
        leaf = step(leaf)
    return leaf


# --- alternatives that recur: each of these took longer than anybody waits --------------------------------------------


@pytest.mark.parametrize("depth", [60, 240])
@pytest.mark.parametrize("word", ["oneOf", "anyOf"])
@pytest.mark.parametrize(
    ("branches", "step"),
    [
        ([LEFT, LEFT], lambda inner: {"left": inner}),
        ([LEFT, {"allOf": [LEFT, {"required": ["x"]}]}], lambda inner: {"left": inner}),
        (
            [{"type": "object", "additionalProperties": TREE, "maxProperties": count} for count in (1, 2)],
            lambda inner: {"left": inner},
        ),
        ([LIST, {**LIST, "minItems": 2}], lambda inner: [inner]),
    ],
)
def test_alternatives_that_both_recur_end(
    word: str, branches: list[Any], step: Callable[[Any], Any], depth: int, tmp_path: Path
) -> None:
    tree = {word: [*branches, NULL]}
    wrong = nested(depth, 5, step)
    assert problems(tmp_path, TREE, wrong, schemas={"Tree": tree}) == [f"response: no matching schema ({word})"]


def test_more_than_one_alternative_is_told_apart_from_none(tmp_path: Path) -> None:
    tree = {"oneOf": [LEFT, {"type": "object"}]}
    found = problems(tmp_path, TREE, {"left": {"x": nested(60, 1)}}, schemas={"Tree": tree})
    assert found == ["response: constraint failed: oneOf, more than one schema matches"]


def test_parts_that_all_apply_to_one_place_are_looked_at_once(tmp_path: Path) -> None:
    tree = {"type": "object", "allOf": [{"properties": {"left": TREE}}, {"properties": {"left": TREE}}]}
    found = problems(tmp_path, TREE, nested(60, 5), schemas={"Tree": tree})
    assert found == [f"{'.left' * 60}: type mismatch: expected object, got number"]


def kinds(**common: Any) -> Record:
    """A syntax tree: 12 kinds of nodes under a `kind` of their own, each with two parts."""
    parts = {"left": TREE, "right": TREE, "list": {"type": "array", "items": TREE}}
    nodes = {
        f"K{i}": {"type": "object", "required": ["kind"], "properties": {**parts, "kind": {"enum": [f"K{i}"]}}}
        for i in range(12)
    }
    return {**nodes, "Tree": {"oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in nodes], **common}}


@pytest.mark.parametrize("depth", [30, 240])
def test_a_deep_syntax_tree_fits(depth: int, tmp_path: Path) -> None:
    for common in ({}, {"discriminator": {"propertyName": "kind"}}):
        tree = nested(depth, {"kind": "K0"}, lambda inner: {"kind": "K11", "left": inner, "list": [{"kind": "K5"}] * 3})
        assert problems(tmp_path, TREE, tree, schemas=kinds(**common)) == []


def test_a_mistake_deep_in_a_syntax_tree_is_told(tmp_path: Path) -> None:
    tree = nested(30, {"kind": "K99"}, lambda inner: {"kind": "K11", "left": inner, "list": [{"kind": "K5"}] * 3})
    assert problems(tmp_path, TREE, tree, schemas=kinds()) == ["response: no matching schema (oneOf)"]
    (told,) = problems(tmp_path, TREE, tree, schemas=kinds(discriminator={"propertyName": "kind"}))
    assert told.startswith(f'{".left" * 30}.kind: value not in enum: "K0", ')


def test_what_takes_too_long_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explaining, "SECONDS", -1.0)
    found = problems(tmp_path, {"properties": {"a": TREE}}, {"a": nested(3, 5)}, schemas={"Tree": LEFT})
    assert found == [".a.left: does not fit; what is wrong inside, and what else, could not be said within 1 s"]


# --- the same findings as the validator's own -------------------------------------------------------------------------

NAMES = ("s0", "s1", "s2")
references = st.sampled_from([{"$ref": f"#/$defs/{name}"} for name in NAMES])
leaves = st.sampled_from(
    [True, False, {}, {"type": "string"}, {"type": ["object", "array"]}, {"required": ["a"]}, {"minItems": 1}]
)


def schemas_of(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Schemas whose references stand below a step into the value, as bundles have them."""
    below = inner | references
    some = st.dictionaries(st.sampled_from("ab"), below, max_size=2)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array", "string"]),
            "properties": some,
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b|c"]), below, max_size=2),
            "additionalProperties": below,
            "items": below,
            "prefixItems": st.lists(below, min_size=1, max_size=2),
            "contains": below,
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "if": inner,
            "then": inner,
            "else": inner,
        },
    )


schemas = st.recursive(leaves, schemas_of, max_leaves=6)
values = st.recursive(
    st.sampled_from(["x", 1, None]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None)
@given(definitions=st.fixed_dictionaries(dict.fromkeys(NAMES, schemas)), value=values)
def test_it_finds_what_the_validator_finds(definitions: Record, value: Any) -> None:
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$ref": "#/$defs/s0", "$defs": definitions}
    expected = {
        (tuple(error.instance_path), error.kind.name if "more than one" not in error.message else "oneOfMultipleValid")
        for error in Draft202012Validator(schema).iter_errors(value)
    }
    found = [(finding.path, finding.kind) for finding in Explanation(schema, Engine.LINEAR).findings(value)]
    assert set(found) == expected
