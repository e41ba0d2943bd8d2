"""Compiled expressions: the same values as a plain walk, at the mission's own places."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from reqon.errors import EvaluatorError
from reqon.lang import nodes, operators
from tests.lang import trees
from tests.lang.expressions import run
from tests.support import oracle


def outcome(compute: Any) -> tuple[str, Any]:
    try:
        return "value", compute()
    except EvaluatorError:
        return "error", None


def same(a: Any, b: Any) -> bool:
    """Equal to the last type: 1 is not 1.0, and an absent field is not null."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(node=trees.expressions, item=trees.items, x=trees.values, y=trees.scalars, response=trees.items)
def test_compiled_code_agrees_with_a_plain_walk(
    node: nodes.Expression, item: Any, x: Any, y: Any, response: Any
) -> None:
    meta = {"code": 200}
    place = oracle.Place(item=item, names={"x": x, "y": y}, response=response, meta=meta)
    expected = outcome(lambda: oracle.evaluate(node, place))
    found = outcome(lambda: run(node, item, response=response, meta=meta, x=x, y=y))
    assert same(found, expected)
    if expected[0] == "value":
        truth = run(node, item, response=response, meta=meta, x=x, y=y, form="truth")
        assert bool(truth) is operators.truthy(expected[1])
        text = outcome(lambda: run(node, item, response=response, meta=meta, x=x, y=y, form="text"))
        assert text == outcome(lambda: operators.text(expected[1]))
