"""A generated expression with what is known of its value, and what all generators of expressions share."""

import ast
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Protocol

from reqon.lang import nodes, tree
from reqon.lang.scope import Matcher, Scope, Unit
from reqon.values import Value


class Kind(Enum):
    """What is known of a value before it exists. `ARRAY` and `OBJECT` mean exactly Python's list and dict."""

    ANY = "any"
    NULL = "null"
    BOOLEAN = "boolean"
    INTEGER = "integer"
    NUMBER = "number"
    TEXT = "text"
    ARRAY = "array"
    OBJECT = "object"
    DATETIME = "datetime"
    DURATION = "duration"
    STORE = "store"


NUMBERS = (Kind.INTEGER, Kind.NUMBER)
_CONSTANT_KINDS: dict[type, Kind] = {
    type(None): Kind.NULL,
    bool: Kind.BOOLEAN,
    int: Kind.INTEGER,
    float: Kind.NUMBER,
    str: Kind.TEXT,
    datetime: Kind.DATETIME,
    timedelta: Kind.DURATION,
}


class _Unknown:
    """No constant: null is one."""


UNKNOWN = _Unknown()


@dataclass(slots=True)
class Code:
    """One generated expression.

    `value` is its value where that is known already. `repeatable`: a few reads of fields, which may be written out
    twice where that saves a temporary. `factors`: of a product with a constant number, the other factor and that one.
    """

    tree: ast.expr
    kind: Kind = Kind.ANY
    value: Any = field(default=UNKNOWN)
    repeatable: bool = False
    factors: "tuple[Code, Code] | None" = None

    @property
    def is_constant(self) -> bool:
        return self.value is not UNKNOWN

    @property
    def is_simple(self) -> bool:
        """Whether reading it again costs nothing."""
        return isinstance(self.tree, ast.Name | ast.Constant)


class Schemas(Protocol):
    """What expressions need of schemas."""

    def matcher(self, name: str) -> Matcher: ...
    def __contains__(self, name: object) -> bool: ...


class Emitter(ABC):
    """What the generators of expressions share. One per unit."""

    def __init__(self, unit: Unit, schemas: Schemas, functions: Mapping[str, Callable[..., Value]]) -> None:
        self.unit = unit
        self.schemas = schemas
        self.functions = functions

    @abstractmethod
    def code(self, node: nodes.Expression, scope: Scope) -> Code:
        """The expression of a node."""

    @abstractmethod
    def condition(self, node: nodes.Expression, scope: Scope) -> ast.expr:
        """An expression that Python takes as true exactly when the node's value is truthy."""

    def constant(self, value: Value) -> Code:
        """A value that is known now."""
        kind = _CONSTANT_KINDS.get(type(value), Kind.ANY)
        shown = tree.constant(value) if tree.is_scalar(value) else self.unit.constant(value, kind.value)
        return Code(shown, kind, value, repeatable=True)

    def call(self, function: Callable[..., Any], *arguments: ast.expr) -> ast.Call:
        """A call of one of our own functions."""
        return tree.call(self.unit.constant(function, function.__name__), *arguments)

    def hold(self, code: Code, hint: str = "t") -> tuple[ast.expr, Callable[[], ast.expr]]:
        """The expression for its first evaluation, and how to read its value again after that."""
        if code.is_simple:
            return code.tree, lambda: tree.fresh(code.tree)
        local = self.unit.local(hint)
        return tree.named(local, code.tree), lambda: tree.name(local)

    def world(self, scope: Scope) -> ast.expr:
        """How Python reads what now() and its kin ask."""
        return tree.name("world") if scope.world is None else tree.fresh(scope.world)
