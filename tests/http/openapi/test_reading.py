"""Bytes to values: JSON and YAML by content, and documents that mean harm (runtime.md 10.1, reliability.md 6)."""

import json
import math
import tracemalloc
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from reqon.errors import SpecError
from reqon.http.openapi import reading
from reqon.http.openapi.reading import MAX_BYTES, read_document

_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(
        st.characters(exclude_categories=("Cs", "Cc", "Co"), exclude_characters="\ufeff\u2028\u2029\x85"), max_size=20
    )
)
VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc <&*#-~1", max_size=4), inner, max_size=4),
    max_leaves=20,
)


def same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float | int):
        return math.isclose(left, right)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and bool(left == right)


@given(VALUES)
@settings(max_examples=200)
def test_what_was_written_as_yaml_is_read_back(value: Any) -> None:
    text = yaml.dump({"root": value}, Dumper=yaml.CSafeDumper, allow_unicode=True, sort_keys=False)
    assert same(read_document(text.encode(), "x"), {"root": value})


@given(VALUES)
@settings(max_examples=100)
def test_json_is_read_whatever_its_name_says(value: Any) -> None:
    assert same(read_document(json.dumps({"root": value}).encode(), "x.yaml"), {"root": value})


def test_yaml_means_what_version_1_2_says() -> None:
    text = """
    country: no
    answer: on
    time: 12:30:00
    day: 2024-01-15
    flag: true
    nothing: ~
    octal: 0o17
    hex: 0xff
    padded: 012
    number: 1.50
    exponent: 1e3
    quoted: "true"
    version: 3.1.0
    200: status
    dot: .5
    """
    assert read_document(text.encode(), "x") == {
        "country": "no", "answer": "on", "time": "12:30:00", "day": "2024-01-15", "flag": True, "nothing": None,
        "octal": 15, "hex": 255, "padded": 12, "number": 1.5, "exponent": 1000.0, "quoted": "true", "version": "3.1.0",
        "200": "status", "dot": 0.5,
    }  # fmt: skip


def test_anchors_aliases_and_merges_are_followed() -> None:
    text = "base: &b {a: 1, b: 2}\nother: &o {b: 3}\nboth: {<<: [*b, *o], c: *b}\nname: &n key\n*n : 7\n"
    read = read_document(text.encode(), "x")
    assert read["both"] == {"a": 1, "b": 2, "c": {"a": 1, "b": 2}}
    assert read["key"] == 7


def test_braces_may_be_yaml_too() -> None:
    assert read_document(b"{openapi: 3.1.0, list: [a, b]}", "x") == {"openapi": "3.1.0", "list": ["a", "b"]}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("a: 1\n---\nb: 2\n", "second document"),
        ("a: [1, 2", "no YAML"),
        ("a: !!python/object/apply:os.system ['true']", "tag"),
        ("a: !mine x", "tag"),
        ("? [a, b]\n: 1", "a key must be a text"),
        ("a: &x [*x]", "stands inside"),
        ("a: 1\nb: {c: 1,\n  c: 2}\n", "line 3, column 3: the key 'c' stands here twice"),
        ("a: 1" + "0" * 500, "digits"),
        ('{"a": 1,, "b": 2}', "not JSON"),
        ('{"a": NaN', "not JSON"),
        ("a: \x01", "no YAML"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_reason(text: str, problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        read_document(text.encode(), "api.yaml")


def test_a_limit_of_json_is_named_as_one() -> None:
    text = b'{"a": ' + b"9" * 401 + b"}"
    with pytest.raises(SpecError, match="cannot be read: a number has more than 400 digits"):
        read_document(text, "api.json")


def test_a_bomb_of_aliases_is_refused_before_it_goes_off() -> None:
    """Nine levels of nine aliases stand for 387 million nodes; reading them costs no memory to speak of."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    tracemalloc.start()
    with pytest.raises(SpecError, match=r"more than 1,000,000 nodes"):
        read_document("\n".join(lines).encode(), "bomb.yaml")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000


def test_a_chain_of_aliases_counts_its_depth() -> None:
    lines = ["a0: &a0 [1]"] + [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 400)]
    with pytest.raises(SpecError, match="deeper than 250"):
        read_document("\n".join(lines).encode(), "deep.yaml")


@pytest.mark.parametrize("text", ["[" * 100_000, "- " * 50_000 + "x", '{"a":' * 300 + "1" + "}" * 300])
def test_deep_nesting_is_refused(text: str) -> None:
    with pytest.raises(SpecError):
        read_document(text.encode(), "deep.yaml")


def test_json_with_too_many_nodes_is_refused_before_it_is_built() -> None:
    text = b"[" + b"[]," * 1_100_000 + b"1]"
    tracemalloc.start()
    with pytest.raises(SpecError, match="more than 1,000,000 nodes"):
        read_document(text, "wide.json")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * len(text)
    commas = json.dumps({"text": "," * 1_100_000}).encode()
    assert len(read_document(commas, "x")["text"]) == 1_100_000


def test_a_document_above_64_mib_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_BYTES == 64 * 1024 * 1024
    monkeypatch.setattr(reading, "MAX_BYTES", 1000)
    with pytest.raises(SpecError, match="1001 bytes"):
        read_document(b" " * 1001, "huge.yaml")
