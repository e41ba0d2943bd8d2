"""Schemas as compiled functions that tell whether a value matches (spec/language.md 2.5, runtime.md 14)."""

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from reqon.diagnostics import did_you_mean
from reqon.errors import EvaluatorError, SemanticError
from reqon.lang import nodes, operators, tree
from reqon.lang.compiler import Expressions, Scope, Unit
from reqon.lang.instants import read_instant
from reqon.lang.scope import Matcher
from reqon.values import Value, changed

MAX_DEPTH = 64
_DEPTH = "depth"
_NUMBERS = frozenset(("number", "decimal", "float", "double"))
_INTEGERS = frozenset(("int", "integer"))
_DATES = frozenset(("date", "datetime"))
TYPE_WORDS = frozenset(operators.TYPE_TESTS) - {"undefined"}


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of a flattened schema, and the types that refinements give it."""

    field: nodes.SchemaField
    refined: tuple[tuple[nodes.Expression, nodes.SchemaField], ...] = ()


@dataclass(frozen=True, slots=True)
class _Shape:
    """A schema with what it includes: its fields by key, and the conditions that must hold."""

    fields: Mapping[str, _Field]
    assumes: tuple[nodes.Assume, ...]


class Schemas:
    """The schemas of one mission. A schema is compiled when it is first asked for.

    `others` are matchers made elsewhere, such as those of an OpenAPI document's component schemas.
    """

    def __init__(
        self,
        definitions: Mapping[str, nodes.SchemaDef],
        others: Mapping[str, Matcher] | None = None,
        *,
        functions: Mapping[str, Callable[..., Value]] | None = None,
    ) -> None:
        self.definitions = definitions
        self.functions = functions  # registered ones; None: those of the process
        self._others = dict(others or {})
        self._compiled: dict[str, _Match] = {}
        self._shapes: dict[str, _Shape] = {}

    def __contains__(self, name: object) -> bool:
        return name in self.definitions or name in self._others

    def matcher(self, name: str) -> Matcher:
        """Whether a value matches the schema; compiled once.

        Raises:
            SemanticError: undefined-schema, here or in a schema it includes; a base that includes itself.
        """
        other = self._others.get(name)
        return other if other is not None and name not in self.definitions else self._match(name)

    def _match(self, name: str) -> "_Match":
        known = self._compiled.get(name)
        if known is None:
            definition = self._definition(name)
            # Known before it is compiled: a schema may name itself.
            known = self._compiled[name] = _Match()
            try:
                known.function = _Compiler(self, definition).function()
            except SemanticError:
                del self._compiled[name]
                raise
        return known

    def deep(self, name: str) -> Callable[[Value, int], bool]:
        """What generated code calls with a value and its depth."""
        other = self._others.get(name)
        if other is not None and name not in self.definitions:
            return lambda value, _depth: other(value)
        return self._match(name).at

    def _definition(self, name: str) -> nodes.SchemaDef:
        found = self.definitions.get(name)
        if found is None:
            raise SemanticError(
                f"schema '{name}' is not declared",
                code="undefined-schema",
                hint=did_you_mean(name, list(self.definitions), "declared schemas"),
            )
        return found

    def shape(self, definition: nodes.SchemaDef, including: tuple[str, ...] = ()) -> _Shape:
        """The schema with its bases, spreads and refinements worked in.

        Raises:
            SemanticError: a base that is not declared, or that includes itself.
        """
        fields: dict[str, _Field] = {}
        assumes: list[nodes.Assume] = []
        path = (*including, definition.name.text)
        if definition.base is not None:
            self._include(definition.base, path, fields, assumes)
        self._add(definition.fields, path, fields, assumes)
        for refinement in definition.refinements:
            for part in refinement.fields:
                if isinstance(part, nodes.SchemaField):
                    _refine(fields, refinement.condition, part)
                elif isinstance(part, nodes.Assume):
                    assumes.append(_conditional(part, refinement.condition))
        return _Shape(fields, tuple(assumes))

    def parts(self, parts: tuple[nodes.SchemaPart, ...]) -> _Shape:
        """The fields of an inline object, spreads worked in."""
        fields: dict[str, _Field] = {}
        assumes: list[nodes.Assume] = []
        self._add(parts, (), fields, assumes)
        return _Shape(fields, tuple(assumes))

    def _add(
        self,
        parts: tuple[nodes.SchemaPart, ...],
        path: tuple[str, ...],
        fields: dict[str, _Field],
        assumes: list[nodes.Assume],
    ) -> None:
        for part in parts:
            if isinstance(part, nodes.SchemaSpread):
                self._include(part.base, path, fields, assumes)
            elif isinstance(part, nodes.Assume):
                assumes.append(part)
            else:
                fields[part.key] = _Field(part)

    def _include(
        self, base: nodes.Qualified, path: tuple[str, ...], fields: dict[str, _Field], assumes: list[nodes.Assume]
    ) -> None:
        if base.text in path:
            chain = " -> ".join((*path, base.text))
            raise SemanticError(
                f"schema '{base.text}' includes itself ({chain})", code="undefined-schema", span=base.span
            )
        try:
            definition = self._definition(base.text)
        except SemanticError as error:
            raise error.locate(base.span) from None
        shape = self.shape(definition, path)
        fields.update(shape.fields)
        assumes.extend(shape.assumes)


class _Match:
    """A schema's compiled function, which is not there yet while it is being compiled."""

    __slots__ = ("function",)

    def __init__(self) -> None:
        self.function: Callable[[Value, int], bool] = _never

    def __call__(self, value: Value) -> bool:
        return self.function(value, 0)

    def at(self, value: Value, depth: int) -> bool:
        """Whether a value that lies so deep in another matches."""
        return depth <= MAX_DEPTH and self.function(value, depth)


def _never(value: Value, depth: int) -> bool:
    raise AssertionError(f"a schema was asked about {value!r} at depth {depth} before it was compiled")


def _refine(fields: dict[str, _Field], condition: nodes.Expression, part: nodes.SchemaField) -> None:
    known = fields.get(part.key)
    if known is None:
        # A field that only the refinement knows is required only under its condition.
        fields[part.key] = _Field(changed(part, when=_and(condition, part.when)))
    else:
        fields[part.key] = _Field(known.field, ((condition, part), *known.refined))


def _and(first: nodes.Expression, second: nodes.Expression | None) -> nodes.Expression:
    if second is None:
        return first
    return nodes.Binary(operator="and", left=first, right=second, span=first.span, operator_span=first.span)


def _conditional(assume: nodes.Assume, condition: nodes.Expression) -> nodes.Assume:
    if assume.constraints:
        return changed(assume, condition=_and(condition, assume.condition))
    return changed(assume, condition=condition, constraints=(assume.condition,))


def _passes(test: Callable[[], Value]) -> bool:
    try:
        return bool(test())
    except EvaluatorError:
        return False


class _Compiler:
    """Makes the function of one schema: one Python expression over `value` and `depth`."""

    def __init__(self, schemas: Schemas, definition: nodes.SchemaDef) -> None:
        self._schemas = schemas
        self._definition = definition
        source = definition.span.source
        self._unit = Unit(source)
        self._expressions = Expressions(self._unit, schemas, schemas.functions)

    def function(self) -> Callable[[Value, int], bool]:
        value = self._unit.local("value")
        kind = self._definition.type
        test = self._object(self._schemas.shape(self._definition), value) if kind is None else self._type(kind, value)
        made = tree.function([value, _DEPTH], test)
        whole = ast.Expression(body=made)
        self._expressions.position(whole, self._definition)
        code = compile(whole, self._unit.source.name, "eval")
        made_function: Callable[[Value, int], bool] = eval(code, self._unit.globals)  # noqa: S307  # our own tree
        return made_function

    # --- objects -----------------------------------------------------------------------------------------------------

    def _object(self, shape: _Shape, value: str) -> ast.expr:
        """Whether the local `value` is an object with these fields and conditions."""
        scope = Scope(current=tree.name(value), fields=True, schemas=self._schemas.definitions)
        tests = [
            tree.either(
                tree.type_is(tree.name(value), "dict"),
                self._expressions.call(operators.is_object, tree.name(value)),
            )
        ]
        tests += [self._field(field, value, scope) for field in shape.fields.values()]
        tests += [test for field in shape.fields.values() for test in self._where(field, scope)]
        tests += [test for assume in shape.assumes for test in self._assume(assume, scope)]
        return tree.both(*tests)

    def _field(self, known: _Field, value: str, scope: Scope) -> ast.expr:
        test = self._plain_field(known.field, value, scope)
        for condition, part in reversed(known.refined):
            test = tree.choose(self._holds(condition, scope), self._plain_field(part, value, scope), test)
        return test

    def _plain_field(self, field: nodes.SchemaField, value: str, scope: Scope) -> ast.expr:
        local = self._unit.local(field.key)
        found = tree.method(tree.name(value), "get", tree.constant(field.key))
        absent = tree.compare(tree.named(local, found), "is", tree.constant(None))
        kind = field.type
        if _takes_null(kind):
            inner = _without_null(kind)
            test = absent if inner is None else tree.either(absent, self._type(inner, local))
        elif _is_any(kind) or _is_null(kind):
            there = tree.compare(tree.constant(field.key), "in", tree.name(value))
            test = there if _is_any(kind) else tree.both(there, absent)
        else:
            test = self._type(kind, local, first=tree.named(local, found))
        if field.when is not None:
            missing = tree.compare(
                tree.method(tree.name(value), "get", tree.constant(field.key)), "is", tree.constant(None)
            )
            test = tree.choose(self._holds(field.when, scope), test, missing)
        return self._at(test, field)

    def _where(self, known: _Field, scope: Scope) -> Iterator[ast.expr]:
        field = known.field
        if field.where is not None:
            holds = self._holds(field.where, scope)
            if _takes_null(field.type) or field.when is not None:
                # What is allowed to be missing has nothing to hold for.
                assert scope.current is not None
                missing = tree.compare(
                    tree.method(tree.fresh(scope.current), "get", tree.constant(field.key)), "is", tree.constant(None)
                )
                holds = tree.either(missing, holds)
            yield self._at(holds, field)
        for condition, part in known.refined:
            if part.where is not None:
                yield self._at(
                    tree.either(tree.negated(self._holds(condition, scope)), self._holds(part.where, scope)), part
                )

    def _assume(self, assume: nodes.Assume, scope: Scope) -> Iterator[ast.expr]:
        """As in `validate`, an assumption whose evaluation fails does not hold."""
        test = self._holds(assume.condition, scope)
        if assume.constraints:
            holds = tree.both(*(self._holds(constraint, scope) for constraint in assume.constraints))
            test = tree.either(tree.negated(test), holds)
        yield self._at(self._expressions.call(_passes, tree.function([], test)), assume)

    def _holds(self, condition: nodes.Expression, scope: Scope) -> ast.expr:
        return self._expressions.truth(condition, scope)

    def _at(self, test: ast.expr, node: nodes.Node) -> ast.expr:
        return self._expressions.placed(test, node)

    # --- types -------------------------------------------------------------------------------------------------------

    def _type(self, kind: nodes.Type, local: str, first: ast.expr | None = None) -> ast.expr:
        """Whether a local has the type; `first` reads it the first time."""
        read = first if first is not None else tree.name(local)
        match kind:
            case nodes.NamedType():
                return self._named(kind, local, read)
            case nodes.LiteralType(value=value):
                return self._expressions.call(operators.equal, read, tree.constant(value))
            case nodes.ObjectType(fields=fields):
                return self._inline(fields, read)
            case nodes.CountedType():
                size = self._expressions.call(
                    operators.counts, read, tree.constant(kind.least), tree.constant(kind.most)
                )
                return tree.both(size, self._elements(kind.element, tree.name(local)))
            case nodes.OptionalType(inner=inner):
                return tree.either(tree.compare(read, "is", tree.constant(None)), self._type(inner, local))
            case nodes.UnionType(alternatives=alternatives):
                head, *rest = alternatives
                return tree.either(
                    self._type(head, local, first), *(self._type(alternative, local) for alternative in rest)
                )

    def _inline(self, fields: tuple[nodes.SchemaPart, ...], read: ast.expr) -> ast.expr:
        inner = self._unit.local("value")
        deeper = tree.compare(tree.name(_DEPTH), "<", tree.constant(MAX_DEPTH))
        # A function of its own: its conditions have another current item, and its depth is one more.
        body = self._object(self._schemas.parts(fields), inner)
        called = tree.call(tree.function([inner, _DEPTH], body), read, _one_deeper())
        return tree.both(deeper, called) if isinstance(read, ast.Name) else tree.both(called, deeper)

    def _named(self, kind: nodes.NamedType, local: str, read: ast.expr) -> ast.expr:
        word = kind.name.text
        again = tree.name(local)
        test: ast.expr
        if word in _NUMBERS:
            test = tree.type_is(read, "int", "float", again=again)
        elif word in _INTEGERS:
            test = tree.either(tree.type_is(read, "int"), self._expressions.call(operators.is_integer, again))
        elif word == "string":
            test = tree.type_is(read, "str")
        elif word in ("boolean", "bool"):
            test = tree.type_is(read, "bool")
        elif word == "null":
            test = tree.compare(read, "is", tree.constant(None))
        elif word == "any":
            return tree.compare(read, "is", tree.name(local))
        elif word == "array":
            test = self._array(kind, read)
        elif word == "object":
            test = self._expressions.call(operators.is_object, read)
        elif word in _DATES:
            test = self._expressions.call(operators.is_date, read)
        else:
            return self._schema(kind, read)
        return self._in_range(kind, test, local) if kind.low is not None and kind.high is not None else test

    def _schema(self, kind: nodes.NamedType, read: ast.expr) -> ast.expr:
        word = kind.name.text
        if word not in self._schemas:
            raise SemanticError(
                f"schema '{word}' is not declared",
                code="undefined-schema",
                span=kind.name.span,
                hint=did_you_mean(word, [*TYPE_WORDS, *self._schemas.definitions], "types and schemas"),
            )
        deep = self._unit.constant(self._schemas.deep(word), f"is_{word}")
        return tree.call(deep, read, _one_deeper())

    def _array(self, kind: nodes.NamedType, read: ast.expr) -> ast.expr:
        if kind.element is None:
            return tree.compare(self._expressions.call(operators.array_of, read), "is not", tree.constant(None))
        return self._elements(kind.element, read)

    def _elements(self, element: nodes.Type, read: ast.expr) -> ast.expr:
        local = self._unit.local("element")
        return self._expressions.call(operators.all_match, read, tree.function([local], self._type(element, local)))

    def _in_range(self, kind: nodes.NamedType, test: ast.expr, local: str) -> ast.expr:
        bounds = [self._bound(bound, kind) for bound in (kind.low, kind.high) if bound is not None]
        apply = operators.in_date_range if kind.name.text in _DATES else operators.within
        return tree.both(test, self._expressions.call(apply, tree.name(local), *bounds))

    def _bound(self, bound: nodes.Expression, kind: nodes.NamedType) -> ast.expr:
        made = self._expressions.value(bound, Scope(schemas=self._schemas.definitions))
        if kind.name.text in _DATES and isinstance(made, ast.Constant):
            self._check_date(made.value, bound)
        return made

    def _check_date(self, value: Value, bound: nodes.Expression) -> None:
        if isinstance(value, str) and read_instant(value) is None:
            raise SemanticError(f"'{value}' is no date", code="bad-option-value", span=bound.span)


def _one_deeper() -> ast.expr:
    return tree.added(tree.name(_DEPTH), tree.constant(1))


def _is_any(kind: nodes.Type) -> bool:
    return isinstance(kind, nodes.NamedType) and kind.name.text == "any"


def _is_null(kind: nodes.Type) -> bool:
    return (isinstance(kind, nodes.NamedType) and kind.name.text == "null") or (
        isinstance(kind, nodes.LiteralType) and kind.value is None
    )


def _takes_null(kind: nodes.Type) -> bool:
    """Whether a field of the type may be absent or null: `T?`, or a union with `null`."""
    if isinstance(kind, nodes.OptionalType):
        return True
    return isinstance(kind, nodes.UnionType) and any(_is_null(part) or _takes_null(part) for part in kind.alternatives)


def _without_null(kind: nodes.Type) -> nodes.Type | None:
    """The type that a value has which is not null; None where nothing but null is left."""
    if isinstance(kind, nodes.OptionalType):
        return _without_null(kind.inner)
    if isinstance(kind, nodes.UnionType):
        parts = [inner for part in kind.alternatives if (inner := _without_null(part)) is not None]
        return changed(kind, alternatives=tuple(parts)) if parts else None
    return None if _is_null(kind) else kind
