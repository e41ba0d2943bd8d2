"""Patterns of match arms as Python conditions that bind (spec/language.md 7.8)."""

import ast
from dataclasses import dataclass, field

from reqon.diagnostics import did_you_mean
from reqon.errors import SemanticError
from reqon.lang import nodes, operators, tree
from reqon.lang.analysis import is_binding
from reqon.lang.code import Emitter
from reqon.lang.equality import equals
from reqon.lang.scope import Scope

# What a fetch or wait keeps beside its body (spec/language.md 0, runtime.md 2.6).
VIRTUAL_FIELDS = frozenset(("code", "headers", "validationErrors", "webhookUrl", "webhookPath", "webhookId"))


@dataclass(slots=True)
class _Arm:
    """One pattern being compiled: where it stands, and the locals of the names it binds."""

    scope: Scope
    locals: dict[str, str] = field(default_factory=dict)


class Patterns:
    """Compiles patterns for one emitter of expressions."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter

    def condition(
        self, pattern: nodes.Pattern, subject: str, scope: Scope, *, response: bool = False
    ) -> tuple[ast.expr, Scope]:
        """Whether the local `subject` fits, as a condition that also binds; and the scope with the bindings.

        With `response` the pattern is of a `match` on `response`: virtual fields count, and a schema or object pattern
        is tried on an error response and then on its body.

        Raises:
            SemanticError: undefined-schema.
        """
        arm = _Arm(scope)
        test = self._test(pattern, subject, arm, response=response)
        if response and self._is_shape(pattern, scope):
            test = tree.either(test, self._of_body(pattern, subject, arm))
        return test, scope.bind({word: tree.name(local) for word, local in arm.locals.items()})

    def _is_shape(self, pattern: nodes.Pattern, scope: Scope) -> bool:
        if isinstance(pattern, nodes.NamePattern):
            return self._is_schema(pattern.name.text, scope)
        return isinstance(pattern, nodes.ObjectPattern)

    def _of_body(self, pattern: nodes.Pattern, subject: str, arm: _Arm) -> ast.expr:
        body = self._emitter.unit.local("body")
        return tree.both(
            tree.compare(
                tree.call("type", tree.name(subject)),
                "is",
                self._emitter.unit.constant(operators.ErrorResponse, "ErrorResponse"),
            ),
            tree.compare(
                tree.named(body, tree.method(tree.name(subject), "get", tree.constant("body"))),
                "is not",
                tree.constant(None),
            ),
            self._test(pattern, body, arm, response=False),
        )

    def _is_schema(self, name: str, scope: Scope) -> bool:
        return name in scope.schemas or name in self._emitter.schemas

    def _test(self, pattern: nodes.Pattern, subject: str, arm: _Arm, *, response: bool) -> ast.expr:
        match pattern:
            case nodes.Wildcard():
                return tree.constant(value=True)
            case nodes.LiteralPattern(value=value):
                left = self._emitter.code(nodes.Literal_(value=value, span=pattern.span), arm.scope)
                return equals(self._emitter, tree.name(subject), left)
            case nodes.NamePattern():
                return self._name(pattern, subject, arm)
            case nodes.ValuePattern():
                return self._value(pattern, subject, arm)
            case nodes.ArrayPattern():
                return self._array(pattern, subject, arm)
            case nodes.ObjectPattern():
                return self._object(pattern, subject, arm, response=response)

    def _name(self, pattern: nodes.NamePattern, subject: str, arm: _Arm) -> ast.expr:
        name = pattern.name.text
        if self._is_schema(name, arm.scope):
            return self._matches(name, tree.name(subject))
        if "." in name:
            return self._equal(nodes.ValuePattern(value=_path(pattern.name), span=pattern.span), subject, arm)
        if is_binding(name):
            # The subject is never assigned again, but a second try on the body has another one.
            local = arm.locals.setdefault(name, self._emitter.unit.local(name))
            return tree.compare(tree.named(local, tree.name(subject)), "is", tree.name(subject))
        raise SemanticError(
            f"schema '{name}' is not declared",
            code="undefined-schema",
            span=pattern.span,
            hint=did_you_mean(name, list(arm.scope.schemas), "declared schemas"),
        )

    def _matches(self, schema: str, value: ast.expr) -> ast.expr:
        return tree.call(self._emitter.unit.constant(self._emitter.schemas.matcher(schema), f"is_{schema}"), value)

    def _value(self, pattern: nodes.ValuePattern, subject: str, arm: _Arm) -> ast.expr:
        value = pattern.value
        if isinstance(value, nodes.Member) and isinstance(value.target, nodes.Name):
            qualified = f"{value.target.name}.{value.key}"
            if self._is_schema(qualified, arm.scope) and value.target.name not in arm.scope.names:
                return self._matches(qualified, tree.name(subject))
        return self._equal(pattern, subject, arm)

    def _equal(self, pattern: nodes.ValuePattern, subject: str, arm: _Arm) -> ast.expr:
        return equals(self._emitter, tree.name(subject), self._emitter.code(pattern.value, arm.scope))

    def _array(self, pattern: nodes.ArrayPattern, subject: str, arm: _Arm) -> ast.expr:
        if len(pattern.elements) == 1:
            only = pattern.elements[0]
            if isinstance(only, nodes.NamePattern) and self._is_schema(only.name.text, arm.scope):
                matcher = self._emitter.unit.constant(
                    self._emitter.schemas.matcher(only.name.text), f"is_{only.name.text}"
                )
                return self._emitter.call(operators.all_match, tree.name(subject), matcher)
        listed = self._emitter.unit.local("listed")
        tests: list[ast.expr] = [
            tree.compare(
                tree.named(listed, self._emitter.call(operators.array_of, tree.name(subject))),
                "is not",
                tree.constant(None),
            ),
            tree.compare(tree.call("len", tree.name(listed)), "==", tree.constant(len(pattern.elements))),
        ]
        for at, inner in enumerate(pattern.elements):
            if not isinstance(inner, nodes.Wildcard):
                local = self._emitter.unit.local("element")
                element = tree.subscript(tree.name(listed), tree.constant(at))
                tests += [tree.compare(tree.named(local, element), "is", tree.name(local))]
                tests += [self._test(inner, local, arm, response=False)]
        return tree.both(*tests)

    def _object(self, pattern: nodes.ObjectPattern, subject: str, arm: _Arm, *, response: bool) -> ast.expr:
        tests: list[ast.expr] = []
        if not response:
            tests.append(
                tree.either(
                    tree.type_is(tree.name(subject), "dict"),
                    self._emitter.call(operators.is_object, tree.name(subject)),
                )
            )
        for entry in pattern.entries:
            tests += self._entry(entry, self._field(subject, entry.key, arm.scope, response=response), arm)
        return tree.both(*tests)

    def _field(self, subject: str, key: str, scope: Scope, *, response: bool) -> ast.expr:
        quoted = tree.constant(key)
        if response and scope.meta is not None and key in VIRTUAL_FIELDS:
            return self._emitter.call(operators.pattern_field, tree.name(subject), quoted, tree.fresh(scope.meta))
        return tree.choose(
            tree.type_is(tree.name(subject), "dict"),
            tree.method(tree.name(subject), "get", quoted),
            self._emitter.call(operators.pattern_field, tree.name(subject), tree.constant(key), tree.constant(None)),
        )

    def _entry(self, entry: nodes.PatternEntry, found: ast.expr, arm: _Arm) -> list[ast.expr]:
        match entry.pattern:
            case nodes.LiteralPattern(value=None):
                return [tree.compare(found, "is", tree.constant(None))]
            case nodes.Wildcard():
                return [tree.compare(found, "is not", tree.constant(None))]
            case nodes.NamePattern(name=name) if not self._is_schema(name.text, arm.scope) and is_binding(name.text):
                local = arm.locals.setdefault(name.text, self._emitter.unit.local(name.text))
                return [tree.compare(tree.named(local, found), "is not", tree.constant(None))]
            case inner:
                local = self._emitter.unit.local(entry.key)
                present = tree.compare(tree.named(local, found), "is", tree.name(local))
                return [present, self._test(inner, local, arm, response=False)]


def _path(name: nodes.Qualified) -> nodes.Expression:
    head, *keys = name.text.split(".")
    found: nodes.Expression = nodes.Name(name=head, span=name.span)
    for key in keys:
        found = nodes.Member(target=found, key=key, span=name.span)
    return found
