"""Expression nodes to Python's own `ast`: one Python expression each, with the mission's positions.

The everyday case of an operator is a test of types in place; everything else is a call into `operators`. What may raise
stays inside its own branch. Temporaries are bound by `:=`, bodies that are evaluated per element are lambdas.
"""

import ast
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from reqon.diagnostics import Span, did_you_mean
from reqon.errors import EvaluatorError, SemanticError
from reqon.lang import functions, nodes, operators, tree
from reqon.lang.analysis import free_names, is_deterministic, reads_current, reads_response
from reqon.lang.calls import Calls
from reqon.lang.code import NUMBERS, Code, Emitter, Kind, Schemas
from reqon.lang.equality import equals, plainly_comparable
from reqon.lang.fitting import VIRTUAL_FIELDS, Patterns
from reqon.lang.places import Positions, complete, place_of
from reqon.lang.scope import Scope, Unit
from reqon.lang.sums import Sums
from reqon.lang.walk import children
from reqon.values import Value

# Python's own parser and compiler give up at about 900 nested nodes; one of ours makes up to five.
_MAX_NESTING = 250
_PLAIN_FACTOR = 10**15
_COMPARISONS: dict[str, Callable[[Value, Value], Value]] = {
    "<": operators.less,
    "<=": operators.less_equal,
    ">": operators.greater,
    ">=": operators.greater_equal,
}
_ARITHMETIC: dict[str, Callable[[Value, Value], Value]] = {
    "-": operators.subtract,
    "*": operators.multiply,
    "/": operators.divide,
    "%": operators.modulo,
}
# From so many fields on, reading them through one bound method is quicker than testing the item's type each time.
_FIELDS_FOR_GETTER = 3
# From so many literal arms on, a table is quicker than comparing one after the other.
_ARMS_FOR_TABLE = 3
_ARMS_IN_CHAIN = 100


class Expressions(Emitter):
    """Compiles the expressions of one unit. What it gives may be put anywhere into the unit's code."""

    def __init__(
        self,
        unit: Unit,
        schemas: Schemas,
        registered: Mapping[str, Callable[..., Value]] | None = None,
    ) -> None:
        super().__init__(unit, schemas, functions.REGISTERED if registered is None else registered)
        self._positions = Positions()
        self._patterns = Patterns(self)
        self._calls = Calls(self)
        self._sums = Sums(self)
        self._nesting = 0

    # --- what the rest of Reqon calls --------------------------------------------------------------------------------

    def value(self, node: nodes.Expression, scope: Scope) -> ast.expr:
        """The value of an expression.

        Raises:
            SemanticError: a name, function, type or schema that is not there, or an operator misused.
        """
        with self._bounded(node):
            return self.code(node, scope).tree

    def truth(self, node: nodes.Expression, scope: Scope) -> ast.expr:
        """A condition that Python takes as true exactly when the value is truthy. Raises as `value`."""
        with self._bounded(node):
            return self.condition(node, scope)

    def text(self, node: nodes.Expression, scope: Scope) -> ast.expr:
        """The text form of the value. Raises as `value`."""
        with self._bounded(node):
            return self.placed(self._sums.text(self.code(node, scope)), node)

    def pattern(
        self, node: nodes.Pattern, subject: str, scope: Scope, *, response: bool = False
    ) -> tuple[ast.expr, Scope]:
        """Whether the Python local `subject` fits, as a condition that also binds; and the scope with the bindings.

        With `response` the pattern is of a `match` on `response`: virtual fields count, and schema and object patterns
        look at an error response first and at its body then. Raises as `value`.
        """
        with self._bounded(node):
            test, bound = self._patterns.condition(node, subject, scope, response=response)
            self._positions.put(test, node.span)
            return test, bound

    def position(self, made: ast.AST, node: nodes.Node) -> ast.AST:
        """The tree, with the node's place on every part of it that has none yet. For a whole tree, once."""
        self._positions.put(made, node.span)
        complete(made)
        return made

    def getter(self, current: ast.expr) -> ast.expr:
        """A Python callable that answers a field of `current` by its key; for `Scope.getter`, made once per item."""
        return tree.choose(
            tree.type_is(tree.fresh(current), "dict"),
            ast.Attribute(value=tree.fresh(current), attr="get", ctx=ast.Load()),
            self.call(partial, self.unit.constant(operators.member, "member"), tree.fresh(current)),
        )

    @contextmanager
    def _bounded(self, node: nodes.Node) -> Iterator[None]:
        nesting = self._nesting
        try:
            yield
        except RecursionError:
            raise _too_deep(node) from None
        finally:
            self._nesting = nesting

    # --- dispatch ----------------------------------------------------------------------------------------------------

    def code(self, node: nodes.Expression, scope: Scope) -> Code:
        """The expression of a node, with what is known of its value."""
        if self._nesting > _MAX_NESTING:
            raise _too_deep(node)
        self._nesting += 1
        made = self._made(node, scope)
        self._nesting -= 1
        self._positions.put(made.tree, node.span)
        return made

    def _made(self, node: nodes.Expression, scope: Scope) -> Code:
        match node:
            case nodes.Literal_(value=value):
                return self.constant(value)
            case nodes.DurationLiteral():
                return self._duration(node)
            case nodes.Name():
                return self._name(node, scope)
            case nodes.Current():
                return Code(tree.fresh(self._current(node, scope)), repeatable=True)
            case nodes.Member():
                return self._member(node, scope)
            case nodes.Index():
                return self._index(node, scope)
            case nodes.Call():
                return self._calls.code(node, scope)
            case nodes.Unary():
                return self._unary(node, scope)
            case nodes.Binary():
                return self._binary(node, scope)
            case nodes.Is():
                return self._is(node, scope)
            case nodes.Range():
                raise SemanticError(
                    "a range stands only on the right of 'in'", code="range-not-allowed", span=node.span
                )
            case nodes.Conditional():
                return self._conditional(node, scope)
            case nodes.Where() | nodes.AnyOf():
                return self._filtered(node, scope)
            case nodes.ArrayLiteral():
                return self._array(node, scope)
            case nodes.ObjectLiteral():
                return self._object(node, scope)
            case nodes.MatchExpression():
                return self._match(node, scope)

    def placed(self, made: ast.expr, node: nodes.Node) -> ast.expr:
        """The tree at the node's place, if it has none yet; what is in it follows."""
        self._positions.put(made, node.span)
        return made

    def condition(self, node: nodes.Expression, scope: Scope) -> ast.expr:
        """As `truth`."""
        match node:
            case nodes.Binary(operator="and" | "or" as operator):
                tests = [self.condition(part, scope) for part in _chain(node, operator)]
                joined = tree.both(*tests) if operator == "and" else tree.either(*tests)
                return self.placed(joined, node)
            case nodes.Unary(operator="not" | "!"):
                return self.placed(tree.negated(self.condition(node.operand, scope)), node)
            case nodes.Conditional():
                return self.placed(
                    tree.choose(
                        self.condition(node.condition, scope),
                        self.condition(node.then, scope),
                        self.condition(node.otherwise, scope),
                    ),
                    node,
                )
        return self.placed(self._truth_of(self.code(node, scope)), node)

    def _truth_of(self, code: Code) -> ast.expr:
        if code.is_constant:
            return tree.constant(operators.truthy(code.value))
        if code.kind in (Kind.BOOLEAN, Kind.TEXT, Kind.NULL, *NUMBERS):
            return code.tree
        if code.kind is not Kind.ANY:
            return tree.either(code.tree, tree.constant(value=True))
        held, again = self.hold(code)
        falsy = self.unit.constant(operators.FALSY_TYPES, "FALSY_TYPES")
        return tree.either(held, tree.compare(tree.call("type", again()), "not in", falsy))

    # --- names and fields --------------------------------------------------------------------------------------------

    def _duration(self, node: nodes.DurationLiteral) -> Code:
        try:
            return self.constant(operators.duration(node.milliseconds))
        except EvaluatorError as error:
            raise SemanticError(error.message, code="bad-duration", span=node.span) from error

    def _name(self, node: nodes.Name, scope: Scope) -> Code:
        name = node.name
        if name in scope.names:
            return Code(tree.fresh(scope.names[name]), repeatable=True)
        if scope.fields:
            return self._field_of_owner(node, scope)
        if name == "response" and scope.response is not None:
            return Code(tree.fresh(scope.response), repeatable=True)
        if name in scope.stores:
            return Code(tree.fresh(scope.stores[name]), Kind.STORE, repeatable=True)
        if name in scope.sources:
            return self.constant(name)
        known = [*scope.names, *scope.stores, *scope.sources]
        guess = did_you_mean(name, known, "names")
        raise SemanticError(
            f"nothing named '{name}' is in scope",
            code="undefined-name",
            span=node.span,
            hint=guess.split(" Names:")[0]
            if guess.startswith("did you mean")
            else f"to read a field of the current item write '.{name}'",
        )

    def _field_of_owner(self, node: nodes.Name, scope: Scope) -> Code:
        owner = scope.owner or scope.current
        if owner is None:
            raise _no_current_item(node, node.name)
        return self._field(Code(tree.fresh(owner), repeatable=True), node.name)

    def _current(self, node: nodes.Node, scope: Scope) -> ast.expr:
        if scope.current is None:
            raise _no_current_item(node, "")
        return scope.current

    def _member(self, node: nodes.Member, scope: Scope) -> Code:
        target = node.target
        if isinstance(target, nodes.Current):
            if scope.current is None:
                raise _no_current_item(node, node.key)
            if scope.getter is not None:
                return Code(tree.call(tree.fresh(scope.getter), tree.constant(node.key)), repeatable=True)
        elif (
            isinstance(target, nodes.Name)
            and target.name == "response"
            and node.key in VIRTUAL_FIELDS
            and scope.meta is not None
            and not scope.fields
            and "response" not in scope.names
        ):
            body = self.code(target, scope).tree
            return Code(
                self.call(operators.response_member, body, tree.constant(node.key), tree.fresh(scope.meta)),
                repeatable=True,
            )
        return self._field(self.code(target, scope), node.key)

    def _field(self, code: Code, key: str) -> Code:
        quoted = tree.constant(key)
        if code.kind is Kind.OBJECT:
            return Code(tree.method(code.tree, "get", quoted), repeatable=code.repeatable)
        if code.kind is Kind.STORE or code.is_constant:
            return Code(self.call(operators.member, code.tree, quoted), repeatable=code.repeatable)
        held, again = self.hold(code)
        return Code(
            tree.choose(
                tree.type_is(held, "dict"),
                tree.method(again(), "get", quoted),
                self.call(operators.member, again(), tree.constant(key)),
            ),
            repeatable=code.repeatable,
        )

    def _index(self, node: nodes.Index, scope: Scope) -> Code:
        target, at = self.code(node.target, scope), self.code(node.index, scope)
        if at.is_constant and at.kind is Kind.TEXT and target.kind is not Kind.STORE:
            held, again = self.hold(target)
            return Code(
                tree.choose(
                    tree.type_is(held, "dict"),
                    tree.method(again(), "get", at.tree),
                    self.call(operators.index, again(), tree.fresh(at.tree)),
                ),
                repeatable=target.repeatable,
            )
        return Code(self.call(operators.index, target.tree, at.tree))

    # --- operators ---------------------------------------------------------------------------------------------------

    def _unary(self, node: nodes.Unary, scope: Scope) -> Code:
        if node.operator in ("not", "!"):
            code = self.code(node.operand, scope)
            if code.is_constant:
                return self.constant(not operators.truthy(code.value))
            return Code(tree.negated(self._truth_of(code)), Kind.BOOLEAN)
        apply = operators.negative if node.operator == "-" else operators.positive
        code = self.code(node.operand, scope)
        folded = self._folded(apply, code)
        return folded or Code(self.call(apply, code.tree), code.kind if code.kind in NUMBERS else Kind.ANY)

    def _folded(self, apply: Callable[..., Value], *codes: Code) -> Code | None:
        """The value of an operator on constants, if it has one; an error waits until the expression is reached."""
        if not all(code.is_constant for code in codes):
            return None
        try:
            return self.constant(apply(*(code.value for code in codes)))
        except EvaluatorError:
            return None

    def _binary(self, node: nodes.Binary, scope: Scope) -> Code:
        operator = node.operator
        if operator in ("and", "or"):
            return self._logical(node, scope)
        if operator == "+":
            return self._sums.code(node, scope)
        if operator == "in":
            return self._in(node, scope)
        left, right = self.code(node.left, scope), self.code(node.right, scope)
        if operator in _ARITHMETIC:
            return self._arithmetic(operator, left, right)
        if operator in _COMPARISONS:
            return self._ordering(operator, left, right)
        if operator == "==":
            return self._equality(left, right)
        if operator == "!=":
            same = self._equality(left, right)
            return Code(tree.negated(same.tree), Kind.BOOLEAN)
        if operator == "??":
            return self._coalesced(left, right)
        return self._searched(operator, left, right)

    def _logical(self, node: nodes.Binary, scope: Scope) -> Code:
        *tested, last = _chain(node, node.operator)
        result = self.code(last, scope)
        kind = result.kind if result.kind is Kind.BOOLEAN else Kind.ANY
        if node.operator == "and":
            codes = [self.code(part, scope) for part in tested]
            if all(code.kind is Kind.BOOLEAN for code in codes):
                return Code(tree.both(*(code.tree for code in codes), result.tree), kind)
            tests = [self._truth_of(code) for code in codes]
            return Code(tree.choose(tree.both(*tests), result.tree, tree.constant(value=False)), kind)
        made = result.tree
        for part in reversed(tested):
            code = self.code(part, scope)
            if code.kind is Kind.BOOLEAN:
                made = tree.either(code.tree, made)
            else:
                kind = Kind.ANY
                held, again = self.hold(code)
                made = tree.choose(self._truth_of(Code(held, code.kind, code.value)), again(), made)
        return Code(made, kind)

    def _arithmetic(self, operator: str, left: Code, right: Code) -> Code:
        apply = _ARITHMETIC[operator]
        kind = Kind.NUMBER if left.kind in NUMBERS and right.kind in NUMBERS else Kind.ANY
        folded = self._folded(apply, left, right)
        if folded is not None:
            return folded
        plain = operator == "*" and right.is_constant and right.kind in NUMBERS and abs(right.value) < _PLAIN_FACTOR
        factors = (left, right) if plain else None
        return Code(self.call(apply, left.tree, right.tree), kind, factors=factors)

    def _ordering(self, operator: str, left: Code, right: Code) -> Code:
        apply = _COMPARISONS[operator]
        folded = self._folded(apply, left, right)
        if folded is not None:
            return folded
        if left.kind in NUMBERS and right.kind in NUMBERS:
            return Code(tree.compare(left.tree, operator, right.tree), Kind.BOOLEAN)
        if right.is_constant and right.kind in NUMBERS:
            held, again = self.hold(left)
            return Code(
                tree.choose(
                    tree.type_is(held, "int", "float", again=again()),
                    tree.compare(again(), operator, right.tree),
                    self.call(apply, again(), tree.fresh(right.tree)),
                ),
                Kind.BOOLEAN,
            )
        return Code(self.call(apply, left.tree, right.tree), Kind.BOOLEAN)

    def _equality(self, left: Code, right: Code) -> Code:
        folded = self._folded(operators.equal, left, right)
        if folded is not None:
            return folded
        if left.kind in NUMBERS and right.kind in NUMBERS:
            return Code(tree.compare(left.tree, "==", right.tree), Kind.BOOLEAN)
        if left.is_constant:
            left, right = right, left  # a constant is the same whenever it is read
        return Code(equals(self, left.tree, right), Kind.BOOLEAN)

    def _coalesced(self, left: Code, right: Code) -> Code:
        if left.is_constant:
            return right if left.value is None else left
        held, again = self.hold(left)
        return Code(tree.choose(tree.compare(held, "is not", tree.constant(None)), again(), right.tree))

    def _searched(self, operator: str, left: Code, right: Code) -> Code:
        if operator == "contains":
            return Code(self.call(operators.contains, left.tree, right.tree), Kind.BOOLEAN)
        apply, word = (
            (operators.starts_with, "startswith") if operator == "startsWith" else (operators.ends_with, "endswith")
        )
        if not (right.is_constant and right.kind is Kind.TEXT):
            return Code(self.call(apply, left.tree, right.tree), Kind.BOOLEAN)
        held, again = self.hold(left)
        return Code(
            tree.choose(
                tree.type_is(held, "str"),
                tree.method(again(), word, right.tree),
                self.call(apply, again(), tree.fresh(right.tree)),
            ),
            Kind.BOOLEAN,
        )

    def _in(self, node: nodes.Binary, scope: Scope) -> Code:
        left = self.code(node.left, scope)
        if isinstance(node.right, nodes.Range):
            low, high = self.code(node.right.low, scope), self.code(node.right.high, scope)
            return self._within(left, low, high)
        if isinstance(node.right, nodes.ArrayLiteral):
            known = self._plain_constants(node.right, scope)
            if known:
                return Code(tree.compare(left.tree, "in", tree.tuple_of(*known)), Kind.BOOLEAN)
        right = self.code(node.right, scope)
        return Code(self.call(operators.is_in, left.tree, right.tree), Kind.BOOLEAN)

    def _within(self, left: Code, low: Code, high: Code) -> Code:
        if not (low.is_constant and high.is_constant and low.kind in NUMBERS and high.kind in NUMBERS):
            return Code(self.call(operators.within, left.tree, low.tree, high.tree), Kind.BOOLEAN)
        held, again = self.hold(left)
        return Code(
            tree.choose(
                tree.type_is(held, "int", "float", again=again()),
                tree.compare(low.tree, "<=", again(), "<=", high.tree),
                self.call(operators.within, again(), tree.fresh(low.tree), tree.fresh(high.tree)),
            ),
            Kind.BOOLEAN,
        )

    def _plain_constants(self, node: nodes.ArrayLiteral, scope: Scope) -> list[ast.expr]:
        """The array's elements if all are constants that Python compares as we do; else none."""
        found: list[ast.expr] = []
        for element in node.elements:
            if not isinstance(element, nodes.Literal_):
                return []
            code = self.code(element, scope)
            if not plainly_comparable(code) or code.value in (0, 1):
                return []
            found.append(code.tree)
        return found

    def _is(self, node: nodes.Is, scope: Scope) -> Code:
        word = node.type_name.text
        code = self.code(node.value, scope)
        if code.is_constant and word in operators.TYPE_TESTS:
            return self.constant(operators.TYPE_TESTS[word](code.value))
        if word in ("null", "undefined"):
            return Code(tree.compare(code.tree, "is", tree.constant(None)), Kind.BOOLEAN)
        if word in operators.TYPE_TESTS:
            held, again = self.hold(code)
            quick = _QUICK_TYPES.get(word)
            slow = tree.call(self.unit.constant(operators.TYPE_TESTS[word], f"is_{word}"), again())
            if quick is None:
                return Code(tree.call(slow.func, code.tree), Kind.BOOLEAN)
            return Code(tree.either(tree.type_is(held, *quick, again=again()), slow), Kind.BOOLEAN)
        if word in scope.schemas or word in self.schemas:
            matcher = self.unit.constant(self.schemas.matcher(word), f"is_{word}")
            return Code(tree.call(matcher, code.tree), Kind.BOOLEAN)
        raise SemanticError(
            f"schema '{word}' is not declared",
            code="undefined-schema",
            span=node.type_name.span,
            hint=did_you_mean(word, [*operators.TYPE_TESTS, *scope.schemas], "types and schemas"),
        )

    # --- branches, filters, construction -----------------------------------------------------------------------------

    def _conditional(self, node: nodes.Conditional, scope: Scope) -> Code:
        then, otherwise = self.code(node.then, scope), self.code(node.otherwise, scope)
        kind = then.kind if then.kind is otherwise.kind else Kind.ANY
        return Code(tree.choose(self.condition(node.condition, scope), then.tree, otherwise.tree), kind)

    def _filtered(self, node: nodes.Where | nodes.AnyOf, scope: Scope) -> Code:
        collection = self.code(node.collection, scope).tree
        filters = isinstance(node, nodes.Where)
        apply, kind = (operators.where, Kind.ARRAY) if filters else (operators.any_of, Kind.BOOLEAN)
        if node.condition is None:
            return Code(self.call(apply, collection), kind)
        item = self.unit.local("item")
        holds = self.condition(node.condition, scope.with_current(tree.name(item)))
        return Code(self.call(apply, collection, tree.function([item], holds)), kind)

    def _array(self, node: nodes.ArrayLiteral, scope: Scope) -> Code:
        elements: list[ast.expr] = []
        for element in node.elements:
            if isinstance(element, nodes.Spread):
                inner = self.call(operators.spread_elements, self.code(element.value, scope).tree)
                elements.append(tree.starred(self.placed(inner, element)))
            else:
                elements.append(self._part(element, scope))
        made: ast.expr = tree.list_of(*elements)
        if any(isinstance(element, nodes.Spread) for element in node.elements):
            made = self.call(operators.bounded, made)
        return Code(made, Kind.ARRAY)

    def _part(self, node: nodes.Expression, scope: Scope) -> ast.expr:
        """A value inside another: of a store the records that it has now, for what is kept must not change with it."""
        code = self.code(node, scope)
        return self.call(operators.snapshot, code.tree) if code.kind is Kind.STORE else code.tree

    def _object(self, node: nodes.ObjectLiteral, scope: Scope) -> Code:
        getter = None
        if scope.getter is None and scope.current is not None and _fields_read(node) >= _FIELDS_FOR_GETTER:
            getter = self.unit.local("field")
            made_getter = self.getter(scope.current)
            scope = scope.with_current(scope.current, tree.name(getter))
        keys: list[ast.expr | None] = []
        values: list[ast.expr] = []
        for entry in node.entries:
            if isinstance(entry, nodes.Spread):
                value = self.code(entry.value, scope).tree
                keys.append(None)
                values.append(self.placed(self.call(operators.spread_fields, value), entry))
            else:
                keys.append(tree.constant(entry.key))
                values.append(self._part(entry.value, scope))
        made: ast.expr = ast.Dict(keys=keys, values=values)
        if getter is not None:  # a bound method is always true
            made = tree.choose(tree.named(getter, made_getter), made, tree.constant(None))
        return Code(made, Kind.OBJECT)

    def _match(self, node: nodes.MatchExpression, scope: Scope) -> Code:
        if node.subject is None:
            return self._first_true(node, scope)
        subject = self.code(node.subject, scope)
        if subject.kind is Kind.STORE:
            subject = Code(self.call(operators.snapshot, subject.tree), Kind.ARRAY)
        table = self._table(node, subject, scope)
        if table is not None:
            return table
        local = self.unit.local("subject")
        response = isinstance(node.subject, nodes.Name) and node.subject.name == "response"
        response = response and "response" not in scope.names and not scope.fields
        made: ast.expr = tree.constant(None)
        kinds = {Kind.NULL}
        later: list[ast.expr] = []
        for number, arm in enumerate(reversed(node.arms), 1):
            if number % _ARMS_IN_CHAIN == 0:
                later.append(made)
                made = self.not_yet()
            test, inner = self.pattern(_as_pattern(arm.pattern), local, scope, response=response)
            if arm.guard is not None:
                test = tree.both(test, self.condition(arm.guard, inner.with_current(tree.name(local))))
            result = self.code(arm.value, inner)
            if tree.is_true(test):
                made, kinds = result.tree, {result.kind}
            else:
                made = tree.choose(test, result.tree, made)
                kinds.add(result.kind)
        made = self._one_after_the_other([*later, made])
        if not tree.name_first_read(made, local, subject.tree):
            # The subject is evaluated even where the first arm takes anything.
            made = tree.subscript(tree.tuple_of(tree.named(local, subject.tree), made), tree.constant(1))
        return Code(made, kinds.pop() if len(kinds) == 1 else Kind.ANY)

    def _first_true(self, node: nodes.MatchExpression, scope: Scope) -> Code:
        made: ast.expr = tree.constant(None)
        later: list[ast.expr] = []
        for number, arm in enumerate(reversed(node.arms), 1):
            if number % _ARMS_IN_CHAIN == 0:
                later.append(made)
                made = self.not_yet()
            result = self.code(arm.value, scope).tree
            test: ast.expr = tree.constant(value=True)
            if not isinstance(arm.pattern, nodes.Wildcard):
                test = self.condition(_as_expression(arm.pattern), scope)
            if arm.guard is not None:
                test = tree.both(test, self.condition(arm.guard, scope))
            made = result if tree.is_true(test) else tree.choose(test, result, made)
        return Code(self._one_after_the_other([*later, made]))

    def not_yet(self) -> ast.expr:
        """What a chain of arms gives when the arms behind it are to be tried."""
        return self.unit.constant(operators.NOT_YET, "not_yet")

    def _one_after_the_other(self, chains: list[ast.expr]) -> ast.expr:
        """Chains of arms, the last one first: of many arms, since Python nests some hundred conditionals at most."""
        if len(chains) == 1:
            return chains[0]
        return self.call(operators.first_taken, *(tree.function([], chain) for chain in reversed(chains)))

    def _table(self, node: nodes.MatchExpression, subject: Code, scope: Scope) -> Code | None:
        """A match of text literals on constants, as a look-up."""
        arms = list(node.arms)
        if not arms or not all(isinstance(arm.value, nodes.Literal_ | nodes.DurationLiteral) for arm in arms):
            return None
        default = self.constant(None)
        if isinstance(arms[-1].pattern, nodes.Wildcard) and arms[-1].guard is None:
            default = self.code(arms.pop().value, scope)
        if len(arms) < _ARMS_FOR_TABLE:
            return None
        found: dict[str, Value] = {}
        kinds = {default.kind}
        for arm in arms:
            if arm.guard is not None or not isinstance(arm.pattern, nodes.LiteralPattern):
                return None
            key = self.constant(arm.pattern.value)
            result = self.code(arm.value, scope)
            if not (key.kind is Kind.TEXT and plainly_comparable(key)):
                return None
            found.setdefault(arm.pattern.value, result.value)
            kinds.add(result.kind)
        held, again = self.hold(subject)
        look_up = tree.method(self.unit.constant(found, "table"), "get", again(), default.tree)
        made = tree.choose(tree.type_is(held, "str"), look_up, tree.fresh(default.tree))
        return Code(made, kinds.pop() if len(kinds) == 1 else Kind.ANY)


_QUICK_TYPES = {
    "string": ("str",),
    "boolean": ("bool",),
    "bool": ("bool",),
    "number": ("int", "float"),
    "decimal": ("int", "float"),
    "float": ("int", "float"),
    "double": ("int", "float"),
    "array": ("list",),
    "object": ("dict",),
}


def _too_deep(node: nodes.Node) -> SemanticError:
    return SemanticError(
        "the expression is nested too deeply", code="syntax", span=node.span, hint="name parts of it with 'let'"
    )


def _no_current_item(node: nodes.Node, key: str) -> SemanticError:
    return SemanticError(f"'.{key}' has no current item here", code="no-current-item", span=node.span)


def _chain(node: nodes.Expression, operator: str) -> list[nodes.Expression]:
    """The operands of `a or b or c`, however long, from left to right."""
    found: list[nodes.Expression] = []
    stack = [node]
    while stack:
        here = stack.pop()
        if isinstance(here, nodes.Binary) and here.operator == operator:
            stack += [here.right, here.left]
        else:
            found.append(here)
    return found


def _fields_read(node: nodes.Node) -> int:
    """How many fields of the current item are read below, element arguments left out as far as that is plain."""
    count = 0
    stack: list[nodes.Node] = [node]
    while stack:
        here = stack.pop()
        if isinstance(here, nodes.Member) and isinstance(here.target, nodes.Current):
            count += 1
        elif isinstance(here, nodes.Where | nodes.AnyOf):
            stack.append(here.collection)
        elif not isinstance(here, nodes.Lambda):
            stack.extend(children(here))
    return count


def _as_pattern(pattern: nodes.Pattern | nodes.Expression) -> nodes.Pattern:
    if isinstance(
        pattern,
        nodes.Wildcard
        | nodes.LiteralPattern
        | nodes.NamePattern
        | nodes.ValuePattern
        | nodes.ArrayPattern
        | nodes.ObjectPattern,
    ):
        return pattern
    return nodes.ValuePattern(value=pattern, span=pattern.span)


def _as_expression(pattern: nodes.Pattern | nodes.Expression) -> nodes.Expression:
    if isinstance(pattern, nodes.ValuePattern):
        return pattern.value
    if isinstance(pattern, nodes.LiteralPattern):
        return nodes.Literal_(value=pattern.value, span=pattern.span)
    if isinstance(pattern, nodes.NamePattern):
        return nodes.Name(name=pattern.name.text, span=pattern.span)
    if isinstance(pattern, nodes.Wildcard | nodes.ArrayPattern | nodes.ObjectPattern):
        raise SemanticError("a match without a subject needs conditions", code="syntax", span=pattern.span)
    return pattern


__all__ = [
    "Expressions",
    "Scope",
    "Span",
    "Unit",
    "free_names",
    "is_deterministic",
    "place_of",
    "reads_current",
    "reads_response",
]
