"""Expressions of a mission, evaluated as a mission would, for the tests of this room."""

import ast
from collections.abc import Mapping
from typing import Any

from reqon.diagnostics import Source
from reqon.lang import nodes, tree
from reqon.lang.compiler import Expressions, Scope, Unit
from reqon.lang.parser import parse_expression
from reqon.lang.schemas import Schemas

ITEM, RESPONSE, META = "item", "response", "meta"


def parsed(text: str) -> nodes.Expression:
    """The tree of an expression that has no mistakes."""
    node, diagnostics = parse_expression(Source("orders.vague", text))
    assert not diagnostics, diagnostics
    assert node is not None
    return node


def scope_of(names: Mapping[str, Any], stores: Mapping[str, Any]) -> Scope:
    """A scope whose variables and stores are parameters of the function around the expression."""
    return Scope(
        names={word: tree.name(f"var_{word}") for word in names},
        current=tree.name(ITEM),
        response=tree.name(RESPONSE),
        meta=tree.name(META),
        stores={word: tree.name(f"store_{word}") for word in stores},
        sources=("Shop",),
    )


def run(
    node: nodes.Expression,
    item: Any = None,
    *,
    response: Any = None,
    meta: Any = None,
    stores: Mapping[str, Any] | None = None,
    schemas: Schemas | None = None,
    form: str = "value",
    world: Any = None,
    **names: Any,
) -> Any:
    """The value (or the `text`, or the `truth`) of a compiled expression."""
    stores = stores or {}
    unit = Unit(node.span.source)
    if world is not None:
        unit.globals["world"] = world
    expressions = Expressions(unit, schemas or Schemas({}))
    made = getattr(expressions, form)(node, scope_of(names, stores))
    parameters = [ITEM, RESPONSE, META, *(f"var_{w}" for w in names), *(f"store_{w}" for w in stores)]
    whole = ast.Expression(body=tree.function(parameters, made))
    expressions.position(whole, node)
    function = eval(compile(whole, node.span.source.name, "eval"), unit.globals)
    return function(item, response, meta, *names.values(), *stores.values())


def evaluate(text: str, item: Any = None, **known: Any) -> Any:
    """The value of an expression's text."""
    return run(parsed(text), item, **known)
