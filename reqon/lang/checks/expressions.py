"""Names, functions and the current item in expressions and patterns (spec/language.md 3, 4, 7.8)."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from reqon.diagnostics import Span, did_you_mean, nearest
from reqon.lang import flow, nodes
from reqon.lang.checks.arms import check_expression_arms
from reqon.lang.checks.findings import Findings, guess
from reqon.lang.checks.scope import CONTEXT_NAMES, Scope
from reqon.lang.functions import BUILTINS, Builtin

NUMBER_WORDS = frozenset(("number", "int", "integer", "decimal", "float", "double"))
DATE_WORDS = frozenset(("date", "datetime"))
TYPE_WORDS = NUMBER_WORDS | DATE_WORDS | {"string", "boolean", "bool", "array", "object", "null", "any"}
IS_WORDS = TYPE_WORDS | {"undefined"}

Pattern: TypeAlias = nodes.Pattern | nodes.Expression


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What a mission declares, and which functions there are. `lets` are those in force where the check stands."""

    sources: Mapping[str, nodes.SourceDef]
    stores: Mapping[str, nodes.StoreDef]
    schemas: Mapping[str, nodes.SchemaDef]
    transforms: Mapping[str, nodes.TransformDef]
    actions: Mapping[str, nodes.ActionDef]
    lets: Mapping[str, nodes.Let]
    functions: Collection[str]  # the registered ones
    adapters: Collection[str]


_Check = TypeVar("_Check", bound=Callable[..., None])
# One look-up a node: a mission of two thousand lines is checked in a few hundredths of a second.
_CHECKS: dict[type, Callable[["Expressions", Any, Scope], None]] = {}


def _of(*kinds: type) -> Callable[[_Check], _Check]:
    """Declare the method that checks nodes of these classes."""

    def declare(check: _Check) -> _Check:
        _CHECKS.update(dict.fromkeys(kinds, check))
        return check

    return declare


class Expressions:
    """Goes through expressions and patterns, reporting to `findings`."""

    def __init__(self, names: Names, findings: Findings) -> None:
        self.names = names
        self.findings = findings
        # The lets that come later in order of evaluation, while a mission-level let is checked.
        self.later_lets: Collection[str] = ()

    def check(self, node: nodes.Expression, scope: Scope) -> None:
        """Report everything wrong with an expression."""
        _CHECKS[type(node)](self, node, scope)

    def check_all(self, expressions: Sequence[nodes.Expression | None], scope: Scope) -> None:
        for node in expressions:
            if node is not None:
                _CHECKS[type(node)](self, node, scope)

    # --- names --------------------------------------------------------------------------------------------------------

    @_of(nodes.Name)
    def _name(self, node: nodes.Name, scope: Scope) -> None:
        binding = scope.find(node.name)
        if binding is not None:
            binding.used = True
        elif not scope.fields and not self.resolves(node.name, scope):
            self._undefined_name(node.name, node.span, scope)

    def resolves(self, name: str, scope: Scope) -> bool:
        """Whether a bare name that is no variable means something here; notes what it uses."""
        names = self.names
        if name in names.lets and name not in self.later_lets:
            self.findings.use("let", name)
            return True
        if scope.surroundings == "start":
            return False
        if name in CONTEXT_NAMES:
            return True
        if name in names.stores:
            self.findings.use("store", name)
            return True
        if name in names.sources:
            self.findings.use("source", name)
            return True
        return False

    def _undefined_name(self, name: str, span: Span, scope: Scope) -> None:
        message = f"nothing named '{name}' is in scope"
        if self.findings.many:
            self.findings.error("undefined-name", message, span)
            return
        if name in self.later_lets:
            self.findings.use("let", name)
            self.findings.error("undefined-name", message, span, f"'{name}' is declared further down: move it up")
            return
        if scope.surroundings == "start":
            known: list[str] = [*self.names.lets]
            if name in CONTEXT_NAMES or name in self.names.stores or name in self.names.sources:
                hint = "this is evaluated when the mission starts: use constants, env() and mission-level lets"
                self.findings.error("undefined-name", f"'{name}' has no value here", span, hint)
                return
        else:
            known = [*scope.visible(), *self.names.lets, *CONTEXT_NAMES, *self.names.stores, *self.names.sources]
        field = f"to read a field of the current item write '.{name}'" if scope.current else None
        meant = guess(name, known)
        self._use_instead(name, scope)
        both = f"{meant} To{field.removeprefix('to')}." if meant and field else meant or field
        self.findings.error("undefined-name", message, span, both)

    def _use_instead(self, name: str, scope: Scope) -> None:
        """Count what was probably meant as used: one slip, one finding."""
        names = self.names
        for namespace, declared in (("let", names.lets), ("store", names.stores)):
            meant = nearest(name, declared)
            if meant is not None:
                self.findings.use(namespace, meant)  # type: ignore[arg-type]  # two of its words
        variable = nearest(name, scope.visible())
        binding = scope.find(variable) if variable is not None else None
        if binding is not None:
            binding.used = True

    @_of(nodes.Member)
    def _member(self, node: nodes.Member, scope: Scope) -> None:
        target = node.target
        if type(target) is not nodes.Current:
            _CHECKS[type(target)](self, target, scope)
        elif not scope.current:
            self._no_current_item(f".{node.key}", node.span, scope)

    @_of(nodes.Index)
    def _index(self, node: nodes.Index, scope: Scope) -> None:
        if type(node.target) is not nodes.Current:
            self.check(node.target, scope)
        elif not scope.current:
            self._no_current_item(".[…]", node.span, scope)
        self.check(node.index, scope)

    def _no_current_item(self, shown: str, span: Span, scope: Scope) -> None:
        hint = "this is evaluated when the mission starts, before there is any item"
        if scope.surroundings == "stage":
            hint = f"write 'response{shown}' for what the stage before left"
        self.findings.error("no-current-item", f"'{shown}' has no current item here", span, hint)

    # --- calls --------------------------------------------------------------------------------------------------------

    @_of(nodes.Call)
    def _call(self, node: nodes.Call, scope: Scope) -> None:
        name = node.name.text
        builtin = BUILTINS.get(name)
        elements: Collection[int] = ()
        if builtin is not None:
            self._arity(node, builtin)
            # `max(a, b, c)` takes plain values; of two arguments the second may be asked for each element.
            if not builtin.aggregate or len(node.arguments) == 2:
                elements = builtin.element
        elif name not in self.names.functions and not (name == "get" and node.form == "method"):
            self._undefined_function(node)
        for index, argument in enumerate(node.arguments):
            if index in elements:
                self._element_argument(node, argument, scope)
            elif isinstance(argument, nodes.Lambda):
                hint = "pass a value; only functions that look at each element take '=>'"
                self.findings.error("bad-lambda", f"{name}() does not take a function here", argument.span, hint)
            elif isinstance(argument, nodes.Spread):
                self.check(argument.value, scope)
            else:
                self.check(argument, scope)

    def _undefined_function(self, node: nodes.Call) -> None:
        name = node.name.text
        if name in self.names.adapters:
            hint = f"declare a store: store items: {name}(…)"
            message = f"'{name}' is a store adapter, which only a store definition can call"
            self.findings.error("undefined-function", message, node.name.span, hint)
            return
        known = [] if self.findings.many else [*BUILTINS, *self.names.functions]
        hint = guess(name, known) or "functions are built in, or registered in Python"
        self.findings.error("undefined-function", f"unknown function '{name}'", node.name.span, hint)

    def _arity(self, node: nodes.Call, builtin: Builtin) -> None:
        arguments = node.arguments
        if not builtin.accepts(len(arguments)) and not any(isinstance(one, nodes.Spread) for one in arguments):
            message = f"{builtin.name}() takes {builtin.arity_text()}, got {len(arguments)}"
            self.findings.error("wrong-arity", message, node.name.span, _FIRST_ARGUMENT.get(node.form))

    def _element_argument(self, call: nodes.Call, argument: nodes.Argument, scope: Scope) -> None:
        name = call.name.text
        if isinstance(argument, nodes.Lambda):
            most = len(argument.parameters)
            if most > 2 or (name == "reduce" and most != 2):
                self.findings.error(
                    "bad-lambda", f"{name}() gives its function {_PARAMETERS[name == 'reduce']}", argument.span
                )
            inner = scope.inner()
            for parameter in argument.parameters:
                if parameter.text != "_":
                    inner.bind(parameter, "lambda", self.findings)
            self.check(argument.body, inner)
        elif isinstance(argument, nodes.Spread):
            self.check(argument.value, scope)
        else:
            if name == "reduce":
                hint = "write reduce(xs, (sum, x) => sum + x, 0)"
                self.findings.error("bad-lambda", "reduce() needs a function here", argument.span, hint)
            self.check(argument, scope.with_current())

    # --- the rest -----------------------------------------------------------------------------------------------------

    @_of(nodes.Literal_, nodes.DurationLiteral, nodes.Current)
    def _nothing(self, node: Any, scope: Scope) -> None:
        pass

    @_of(nodes.Unary)
    def _unary(self, node: nodes.Unary, scope: Scope) -> None:
        self.check(node.operand, scope)

    @_of(nodes.Binary)
    def _binary(self, node: nodes.Binary, scope: Scope) -> None:
        left, right = node.left, node.right
        _CHECKS[type(left)](self, left, scope)
        if type(right) is nodes.Range and node.operator == "in":
            self.check(right.low, scope)
            self.check(right.high, scope)
        else:
            _CHECKS[type(right)](self, right, scope)

    @_of(nodes.Range)
    def _range(self, node: nodes.Range, scope: Scope) -> None:
        # Where a range may not stand, the parser has said so.
        self.check(node.low, scope)
        self.check(node.high, scope)

    @_of(nodes.Is)
    def _is(self, node: nodes.Is, scope: Scope) -> None:
        self.check(node.value, scope)
        name = node.type_name.text
        if name not in IS_WORDS and not self._uses_schema(name):
            known = [] if self.findings.many else [*IS_WORDS, *self.names.schemas]
            self.findings.error(
                "undefined-schema",
                f"schema '{name}' is not declared",
                node.type_name.span,
                guess(name, known, f"type words: {', '.join(sorted(IS_WORDS))}"),
            )

    @_of(nodes.Conditional)
    def _conditional(self, node: nodes.Conditional, scope: Scope) -> None:
        self.check(node.condition, scope)
        self.check(node.then, scope)
        self.check(node.otherwise, scope)

    @_of(nodes.Where)
    def _where(self, node: nodes.Where, scope: Scope) -> None:
        self.check(node.collection, scope)
        self.check(node.condition, scope.with_current())

    @_of(nodes.AnyOf)
    def _any_of(self, node: nodes.AnyOf, scope: Scope) -> None:
        self.check(node.collection, scope)
        if node.condition is not None:
            self.check(node.condition, scope.with_current())

    @_of(nodes.ArrayLiteral)
    def _array(self, node: nodes.ArrayLiteral, scope: Scope) -> None:
        for element in node.elements:
            self.check(element.value if isinstance(element, nodes.Spread) else element, scope)

    @_of(nodes.ObjectLiteral)
    def object(self, node: nodes.ObjectLiteral, scope: Scope) -> None:
        """An object or mapping: its keys once each, its values."""
        seen: set[str] = set()
        for entry in node.entries:
            value = entry.value
            _CHECKS[type(value)](self, value, scope)
            if type(entry) is nodes.Entry:
                if entry.key in seen:
                    self.duplicate_key(entry.key, entry.key_span, "this object")
                seen.add(entry.key)

    def duplicate_key(self, key: str, span: Span, place: str) -> None:
        self.findings.error("duplicate-key", f"key '{key}' appears twice in {place}", span, "remove one of them")

    @_of(nodes.MatchExpression)
    def _match(self, node: nodes.MatchExpression, scope: Scope) -> None:
        if node.subject is not None:
            self.check(node.subject, scope)
        for arm in node.arms:
            inner = self.arm(arm, scope, subject=node.subject is not None)
            self.check(arm.value, inner)
        check_expression_arms(node.arms, self.names.schemas, self.findings)

    # --- patterns -----------------------------------------------------------------------------------------------------

    def arm(self, arm: nodes.Arm | nodes.MatchExpressionArm, scope: Scope, *, subject: bool) -> Scope:
        """Check an arm's pattern and guard; the scope of its body, where the current item is still the outer one."""
        inner = scope.inner()
        if subject:
            self.pattern(arm.pattern, inner, scope)
        elif not isinstance(arm.pattern, nodes.Wildcard):
            self.check(arm.pattern, scope)  # type: ignore[arg-type]  # without a subject it is an expression
        if arm.guard is not None:
            self.check(arm.guard, inner.with_current() if subject else inner)
        return inner

    def pattern(self, pattern: Pattern, inner: Scope, scope: Scope) -> None:
        """Check a pattern; what it binds goes into `inner`, its value patterns are of `scope`."""
        match pattern:
            case nodes.NamePattern(name=name):
                self._name_pattern(name, inner, scope)
            case nodes.ValuePattern(value=value):
                self.check(value, scope)
            case nodes.ArrayPattern(elements=elements):
                for element in elements:
                    self.pattern(element, inner, scope)
            case nodes.ObjectPattern(entries=entries):
                seen: set[str] = set()
                for entry in entries:
                    if entry.key in seen:
                        self.duplicate_key(entry.key, entry.span, "this pattern")
                    seen.add(entry.key)
                    self.pattern(entry.pattern, inner, scope)
            case _:
                pass

    def _name_pattern(self, name: nodes.Qualified, inner: Scope, scope: Scope) -> None:
        if self._uses_schema(name.text):
            return
        head, dot, _ = name.text.partition(".")
        if dot and not any(schema.startswith(f"{head}.") for schema in self.names.schemas):
            # `a.b` is a value pattern, unless `a` is imported.
            span = Span(name.span.source, name.span.start, name.span.start + len(head))
            self.check(nodes.Name(name=head, span=span), scope)
            return
        binding = flow.binding_of(nodes.NamePattern(name=name, span=name.span), ())
        if binding is not None:
            inner.bind(nodes.Word(text=binding, span=name.span), "pattern", self.findings)
        else:
            self.undefined_schema(name, _CAPITAL_HINT)

    # --- schemas by name ----------------------------------------------------------------------------------------------

    def _uses_schema(self, name: str) -> bool:
        if name in self.names.schemas:
            self.findings.use("schema", name)
            return True
        return False

    def schema(self, name: nodes.Qualified, hint: str | None = None) -> None:
        """A name that must be a declared schema."""
        if not self._uses_schema(name.text):
            self.undefined_schema(name, hint)

    def undefined_schema(self, name: nodes.Qualified, hint: str | None = None) -> None:
        if self.findings.many:
            self.findings.error("undefined-schema", f"schema '{name.text}' is not declared", name.span)
            return
        meant = nearest(name.text, self.names.schemas)
        hint = f"did you mean '{meant}'?" if meant else hint
        if hint is None:
            hint = did_you_mean(name.text, tuple(self.names.schemas), "declared schemas")
        self.findings.error("undefined-schema", f"schema '{name.text}' is not declared", name.span, hint)


_CAPITAL_HINT = (
    "a pattern name that starts with a capital letter must be a schema; bindings start with a lower-case letter"
)
_PARAMETERS = ("one or two values: the element and its index", "two values: the sum so far and the element")
_FIRST_ARGUMENT = {
    "method": "the value before the '.' is the first argument",
    "pipe": "the value before the '|' is the first argument",
}
