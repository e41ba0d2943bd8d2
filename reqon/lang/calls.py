"""Calls of functions in generated code (spec/language.md 3.7, 3.8)."""

import ast
import math
from collections.abc import Sequence
from typing import TypeGuard

from reqon.diagnostics import did_you_mean
from reqon.errors import EvaluatorError, SemanticError
from reqon.lang import functions, nodes, operators, tree
from reqon.lang.analysis import reads_current
from reqon.lang.code import NUMBERS, Code, Emitter, Kind
from reqon.lang.functions import BUILTINS, Builtin
from reqon.lang.functions.lists import Indexed
from reqon.lang.functions.numbers import of_arguments, of_either
from reqon.lang.scope import Scope

# Element functions whose answer only matters as true or false.
_CONDITIONS = frozenset(("filter", "find", "findIndex", "all", "some", "none"))
_RESULTS = {
    Kind.TEXT: ("toString", "today"),
    Kind.INTEGER: ("length", "count"),
    Kind.BOOLEAN: ("isEmpty", "includes", "all", "some", "none", "hasKey", "toBoolean", "isBefore", "isAfter"),
    Kind.ARRAY: ("keys", "values", "entries"),
    Kind.DATETIME: ("now",),
}
_RESULT_KINDS = {name: kind for kind, names in _RESULTS.items() for name in names}
# Below, a float can tell a half from less.
_EXACT_HALVES = 1e15
_TEXT_METHODS = {"lowercase": "lower", "uppercase": "upper", "trim": "strip"}


class Calls:
    """Compiles calls for one emitter of expressions."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter

    def code(self, node: nodes.Call, scope: Scope) -> Code:
        """The call of a built-in or registered function.

        Raises:
            SemanticError: undefined-function, wrong-arity, bad-lambda.
        """
        name = node.name.text
        builtin = BUILTINS.get(name)
        if builtin is not None:
            return self._builtin(node, builtin, scope)
        if name in self._emitter.functions:
            self._refuse_lambdas(node, frozenset())
            body = self._emitter.unit.constant(self._emitter.functions[name], name)
            return Code(
                self._emitter.call(
                    functions.call_registered, tree.constant(name), body, *self._values(node.arguments, scope)
                )
            )
        if name == "get" and node.form == "method" and len(node.arguments) == 2:
            return Code(self._emitter.call(operators.record_of, *self._values(node.arguments, scope)))
        raise SemanticError(
            f"unknown function '{name}'",
            code="undefined-function",
            span=node.name.span,
            hint=_suggestion(name, [*BUILTINS, *self._emitter.functions]),
        )

    def _refuse_lambdas(self, node: nodes.Call, allowed: frozenset[int]) -> None:
        for at, argument in enumerate(node.arguments):
            if isinstance(argument, nodes.Lambda) and at not in allowed:
                raise SemanticError(
                    f"{node.name.text}() does not take a function here", code="bad-lambda", span=argument.span
                )

    def _values(self, arguments: Sequence[nodes.Argument], scope: Scope) -> list[ast.expr]:
        found: list[ast.expr] = []
        for argument in arguments:
            if isinstance(argument, nodes.Spread):
                inner = self._emitter.code(argument.value, scope).tree
                found.append(tree.starred(self._emitter.call(operators.spread_elements, inner)))
            elif not isinstance(argument, nodes.Lambda):
                found.append(self._emitter.code(argument, scope).tree)
        return found

    def _builtin(self, node: nodes.Call, builtin: Builtin, scope: Scope) -> Code:
        self._refuse_lambdas(node, builtin.element)
        if any(isinstance(argument, nodes.Spread) for argument in node.arguments):
            return self._spread(node, builtin, scope)
        if not builtin.accepts(len(node.arguments)):
            raise _wrong_arity(node, builtin)
        if builtin.aggregate:
            return Code(self._aggregate(node, builtin, scope))
        if builtin.element:
            return Code(self._element_call(node, builtin, scope), _RESULT_KINDS.get(builtin.name, Kind.ANY))
        return self._plain(node, builtin, scope)

    def _plain(self, node: nodes.Call, builtin: Builtin, scope: Scope) -> Code:
        codes: list[Code] = []
        for argument in node.arguments:  # no comprehension: its frame would count in chains of calls
            if _is_expression(argument):
                codes.append(self._emitter.code(argument, scope))  # noqa: PERF401  # as said
        kind = _RESULT_KINDS.get(builtin.name, Kind.ANY)
        if builtin.world:
            if builtin.name == "lastSync" and not codes:
                return self._last_sync(scope)
            return Code(
                self._emitter.call(builtin.body, self._emitter.world(scope), *(code.tree for code in codes)), kind
            )
        if all(code.is_constant for code in codes):
            try:
                return self._emitter.constant(builtin.body(*(code.value for code in codes)))
            except EvaluatorError:
                pass  # it fails when it is reached, and perhaps it never is
        quick = self._quick(builtin, codes)
        return quick or Code(self._emitter.call(builtin.body, *(code.tree for code in codes)), kind)

    def _last_sync(self, scope: Scope) -> Code:
        known = scope.names.get("lastSync")
        return self._emitter.constant(None) if known is None else Code(tree.fresh(known), repeatable=True)

    def _quick(self, builtin: Builtin, codes: list[Code]) -> Code | None:
        """The everyday case in place, where that is worth it."""
        code = codes[0]
        if builtin.name == "exists":
            return Code(tree.compare(code.tree, "is not", tree.constant(None)), Kind.BOOLEAN)
        if builtin.name == "length" and code.kind is not Kind.STORE:
            return self._length(builtin, code)
        if builtin.name in _TEXT_METHODS:
            held, again = self._emitter.hold(code)
            quick = tree.method(again(), _TEXT_METHODS[builtin.name])
            if code.kind is Kind.TEXT:
                return Code(tree.method(code.tree, _TEXT_METHODS[builtin.name]), Kind.TEXT)
            slow = self._emitter.call(builtin.body, again())
            return Code(tree.choose(tree.type_is(held, "str"), quick, slow))
        if builtin.name == "round" and len(codes) == 1:
            return self._rounded(builtin, code)
        if builtin.name == "toString" and code.kind is Kind.TEXT:
            return code
        return None

    def _length(self, builtin: Builtin, code: Code) -> Code:
        if code.kind in (Kind.TEXT, Kind.ARRAY, Kind.OBJECT):
            return Code(tree.call("len", code.tree), Kind.INTEGER)
        held, again = self._emitter.hold(code)
        return Code(
            tree.choose(
                tree.type_is(held, "str", "list", again=again()),
                tree.call("len", again()),
                self._emitter.call(builtin.body, again()),
            ),
            Kind.INTEGER,
        )

    def _rounded(self, builtin: Builtin, code: Code) -> Code:
        """`round(x)` and `round(x * 100)` in place for floats that are not huge."""
        product, below = self._emitter.unit.local("product"), self._emitter.unit.local("below")
        source, factor = code.factors or (code, None)
        held, again = self._emitter.hold(source)
        made = again() if factor is None else tree.multiplied(again(), factor.tree)
        slow = again()
        if factor is not None:
            slow = self._emitter.call(operators.multiply, slow, tree.fresh(factor.tree))
        limit = tree.constant(_EXACT_HALVES)
        floor = tree.named(below, self._emitter.call(math.floor, tree.name(product)))
        nearest = tree.choose(
            tree.compare(tree.subtracted(tree.name(product), floor), "<", tree.constant(0.5)),
            tree.name(below),
            tree.added(tree.name(below), tree.constant(1)),
        )
        test = tree.both(
            tree.type_is(held, "float"),
            tree.compare(tree.constant(-_EXACT_HALVES), "<", tree.named(product, made), "<", limit),
        )
        return Code(tree.choose(test, nearest, self._emitter.call(builtin.body, slow)))

    # --- element arguments -------------------------------------------------------------------------------------------

    def _element_call(self, node: nodes.Call, builtin: Builtin, scope: Scope) -> ast.expr:
        arguments: list[ast.expr] = []
        for at, argument in enumerate(node.arguments):
            if at in builtin.element:
                arguments.append(self._element(node, argument, scope))
            elif _is_expression(argument):
                arguments.append(self._emitter.code(argument, scope).tree)
        return self._emitter.call(builtin.body, *arguments)

    def _element(self, node: nodes.Call, argument: nodes.Argument, scope: Scope) -> ast.expr:
        """A Python callable for an argument that is evaluated once per element."""
        name = node.name.text
        if isinstance(argument, nodes.Lambda):
            return self._lambda(node, argument, scope)
        if name == "reduce" or isinstance(argument, nodes.Spread):
            raise SemanticError(
                f"{name}() needs a function of two parameters here",
                code="bad-lambda",
                span=argument.span,
                hint="for example: (total, x) => total + x",
            )
        item = self._emitter.unit.local("item")
        body = self._body(name, argument, scope.with_current(tree.name(item)))
        return tree.function([item], body)

    def _lambda(self, node: nodes.Call, argument: nodes.Lambda, scope: Scope) -> ast.expr:
        name, words = node.name.text, [word.text for word in argument.parameters]
        if (len(words) != 2) if name == "reduce" else (len(words) not in (1, 2)):
            wanted = "two parameters" if name == "reduce" else "one or two parameters"
            raise SemanticError(f"{name}() needs a function of {wanted}", code="bad-lambda", span=argument.span)
        locals_ = [self._emitter.unit.local(word) for word in words]
        inner = scope.bind({word: tree.name(local) for word, local in zip(words, locals_, strict=True)})
        made = tree.function(locals_, self._body(name, argument.body, inner))
        if name == "reduce" or len(words) == 1:
            return made
        return tree.call(self._emitter.unit.constant(Indexed, "Indexed"), made)

    def _body(self, name: str, body: nodes.Expression, scope: Scope) -> ast.expr:
        if name in _CONDITIONS:
            return self._emitter.condition(body, scope)
        found = self._emitter.code(body, scope).tree
        return self._emitter.call(operators.bounded, found) if name == "reduce" else found

    def _aggregate(self, node: nodes.Call, builtin: Builtin, scope: Scope) -> ast.expr:
        """`max(xs)`, `max(xs, ƒ)` or `max(a, b, …)`: which of the last two, the first argument's value tells."""
        first, *rest = node.arguments
        value = self._emitter.code(first, scope) if _is_expression(first) else self._emitter.constant(None)
        if not rest:
            return self._emitter.call(builtin.body, value.tree)
        if len(rest) > 1:
            return self._emitter.call(of_arguments, tree.constant(builtin.name), *self._values(node.arguments, scope))
        second = rest[0]
        if isinstance(second, nodes.Lambda):
            return self._emitter.call(builtin.body, value.tree, self._element(node, second, scope))
        if value.kind in (*NUMBERS, Kind.TEXT, Kind.DATETIME, Kind.DURATION):
            return self._emitter.call(of_arguments, tree.constant(builtin.name), *self._values(node.arguments, scope))
        held, again = self._emitter.hold(value)
        by_path = reads_current(second)
        made = self._emitter.call(
            of_either,
            self._emitter.unit.constant(builtin.body, builtin.body.__name__),
            tree.constant(builtin.name),
            again() if by_path else held,
            self._element(node, second, scope),
            tree.constant(None) if scope.current is None else tree.fresh(scope.current),
        )
        if not by_path:
            return made
        # A path stands for the elements' fields, so null is an empty array here.
        nothing = self._emitter.call(builtin.body, tree.constant(None))
        return tree.choose(tree.compare(held, "is not", tree.constant(None)), made, nothing)

    def _spread(self, node: nodes.Call, builtin: Builtin, scope: Scope) -> Code:
        values = self._values(node.arguments, scope)
        if builtin.aggregate:
            return Code(self._emitter.call(of_arguments, tree.constant(builtin.name), *values))
        if builtin.element:
            raise SemanticError(f"{builtin.name}() does not take a spread argument", code="wrong-arity", span=node.span)
        known = self._emitter.unit.constant(builtin, builtin.name)
        return Code(self._emitter.call(functions.call_counted, known, self._emitter.world(scope), *values))


def _is_expression(argument: nodes.Argument) -> TypeGuard[nodes.Expression]:
    return not isinstance(argument, nodes.Lambda | nodes.Spread)


def _wrong_arity(node: nodes.Call, builtin: Builtin) -> SemanticError:
    got = len(node.arguments)
    return SemanticError(
        f"{builtin.name}() takes {builtin.arity_text()}, got {got}", code="wrong-arity", span=node.span
    )


def _suggestion(name: str, known: Sequence[str]) -> str | None:
    hint = did_you_mean(name, known, "functions")
    return hint.split(" Functions:")[0] if hint.startswith("did you mean") else None
