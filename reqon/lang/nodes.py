"""The syntax tree: one frozen class per construct, data only. Two texts that mean the same give equal trees.

The classes are msgspec's: made at import and filled by the parser in a tenth of the time that dataclasses take.
"""

from functools import cache
from typing import Any, Literal, TypeAlias

from reqon.diagnostics import Span
from reqon.values import Struct


class Node(Struct, frozen=True, kw_only=True, eq=False):
    """What every construct has: its place. Equality and `repr` ignore places, and how a thing is written (`form`)."""

    span: Span

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in compared_fields(type(self)))

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, name) for name in compared_fields(type(self)))))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in compared_fields(type(self)))
        return f"{type(self).__name__}({shown})"


@cache
def compared_fields(kind: type[Node]) -> tuple[str, ...]:
    """The fields of a construct that say what it means: all but places and the way it is written."""
    names = kind.__struct_fields__
    return tuple(n for n in names if n != "span" and not n.endswith("_span") and n != "form")


# --- names -----------------------------------------------------------------------------------------------------------


class Word(Node, frozen=True, eq=False):
    """A name at its place: a declaration's, a target's, a source prefix."""

    text: str


class Qualified(Node, frozen=True, eq=False):
    """`Name` or `n.Name`, dots included in `text`."""

    text: str


# --- expressions -----------------------------------------------------------------------------------------------------


class Literal_(Node, frozen=True, eq=False):  # noqa: N801  # `Literal` is typing's
    """null, a boolean, a number or a string."""

    value: Any


class DurationLiteral(Node, frozen=True, eq=False):
    """`30 seconds`: `amount` as written, `unit` in its plural form (`ms` stays)."""

    amount: int | float
    unit: str

    @property
    def milliseconds(self) -> int | float:
        value = self.amount * UNIT_MILLISECONDS[self.unit]
        return int(value) if value == int(value) else value


UNIT_MILLISECONDS = {
    "ms": 1,
    "milliseconds": 1,
    "seconds": 1000,
    "minutes": 60_000,
    "hours": 3_600_000,
    "days": 86_400_000,
    "weeks": 604_800_000,
}


class Name(Node, frozen=True, eq=False):
    """A bare name, resolved by spec/language.md 4.1."""

    name: str


class Current(Node, frozen=True, eq=False):
    """The current item: what `.f` starts from. Never written alone."""


class Member(Node, frozen=True, eq=False):
    """`target.key`; `.key` has `Current` as its target."""

    target: "Expression"
    key: str


class Index(Node, frozen=True, eq=False):
    target: "Expression"
    index: "Expression"


CallForm = Literal["plain", "method", "pipe"]


class Call(Node, frozen=True, eq=False):
    """`f(a, b)`; also `a.f(b)` and `a | f(b)`, whose first argument is `a`. `name` is the function's word."""

    name: Word
    arguments: tuple["Argument", ...]
    form: CallForm = "plain"


class Spread(Node, frozen=True, eq=False):
    """`...value` in an array, object, mapping or argument list."""

    value: "Expression"


class Lambda(Node, frozen=True, eq=False):
    parameters: tuple[Word, ...]
    body: "Expression"


class Unary(Node, frozen=True, eq=False):
    operator: str  # - + ! not
    operand: "Expression"


class Binary(Node, frozen=True, eq=False):
    """`or and == != < <= > >= contains startsWith endsWith in ?? + - * / %`; `span` covers both sides."""

    operator: str
    left: "Expression"
    right: "Expression"
    operator_span: Span


class Is(Node, frozen=True, eq=False):
    """`value is type_name`."""

    value: "Expression"
    type_name: Qualified


class Range(Node, frozen=True, eq=False):
    low: "Expression"
    high: "Expression"


class Conditional(Node, frozen=True, eq=False):
    """`if c then a else b`, or `c ? a : b`."""

    condition: "Expression"
    then: "Expression"
    otherwise: "Expression"
    form: Literal["if", "?"] = "if"


class Where(Node, frozen=True, eq=False):
    """`collection where condition`."""

    collection: "Expression"
    condition: "Expression"


class AnyOf(Node, frozen=True, eq=False):
    collection: "Expression"
    condition: "Expression | None"


class ArrayLiteral(Node, frozen=True, eq=False):
    elements: tuple["Expression | Spread", ...]


class Entry(Node, frozen=True, eq=False):
    """`key: value` in an object or mapping."""

    key: str
    value: "Expression"
    key_span: Span


class ObjectLiteral(Node, frozen=True, eq=False):
    entries: tuple[Entry | Spread, ...]


class MatchExpressionArm(Node, frozen=True, eq=False):
    """`pattern` is an expression when the match has no subject."""

    pattern: "Pattern | Expression"
    guard: "Expression | None"
    value: "Expression"


class MatchExpression(Node, frozen=True, eq=False):
    subject: "Expression | None"
    arms: tuple[MatchExpressionArm, ...]


Expression: TypeAlias = (
    Literal_
    | DurationLiteral
    | Name
    | Current
    | Member
    | Index
    | Call
    | Unary
    | Binary
    | Is
    | Range
    | Conditional
    | Where
    | AnyOf
    | ArrayLiteral
    | ObjectLiteral
    | MatchExpression
)
Argument: TypeAlias = Expression | Lambda | Spread


# --- patterns --------------------------------------------------------------------------------------------------------


class Wildcard(Node, frozen=True, eq=False):
    """`_`."""


class LiteralPattern(Node, frozen=True, eq=False):
    value: Any


class NamePattern(Node, frozen=True, eq=False):
    """A bare or qualified name: a declared schema if there is one, else a binding (spec/language.md 4.1)."""

    name: Qualified


class ValuePattern(Node, frozen=True, eq=False):
    """`.x`, `a.b`, `f(…)`: equal to the expression's value."""

    value: Expression


class ArrayPattern(Node, frozen=True, eq=False):
    elements: tuple["Pattern", ...]


class PatternEntry(Node, frozen=True, eq=False):
    key: str
    pattern: "Pattern"


class ObjectPattern(Node, frozen=True, eq=False):
    entries: tuple[PatternEntry, ...]


Pattern: TypeAlias = Wildcard | LiteralPattern | NamePattern | ValuePattern | ArrayPattern | ObjectPattern


# --- options ---------------------------------------------------------------------------------------------------------


class Since(Node, frozen=True, eq=False):
    """`lastSync`, `lastSync("key")` or either with a block. Any other `since:` value is an expression."""

    key: Expression | None
    options: "tuple[Option, ...]"


class Paginate(Node, frozen=True, eq=False):
    """`offset(p, size)` and its kin. The object form stays an `ObjectLiteral`."""

    strategy: Word
    arguments: tuple[Expression, ...]


class Option(Node, frozen=True, eq=False):
    """`key: value` in a brace list of options. A block value (`retry: { … }`) is an `ObjectLiteral`."""

    key: str
    value: Expression | Since | Paginate
    key_span: Span


Options: TypeAlias = tuple[Option, ...]


# --- steps -----------------------------------------------------------------------------------------------------------


class Fetch(Node, frozen=True, eq=False):
    """`method` in lower case. `source` is the prefix or the `from` name, if one is written."""

    method: str
    path: Expression
    source: Word | None
    options: Options


class CallStep(Node, frozen=True, eq=False):
    source: Word
    operation: Word
    options: Options


class Delete(Node, frozen=True, eq=False):
    store: Word
    key: Expression


class Clear(Node, frozen=True, eq=False):
    store: Word


class For(Node, frozen=True, eq=False):
    """`conditions` are the `where`s, all of which must hold."""

    variable: Word
    collection: Expression
    conditions: tuple[Expression, ...]
    checkpoint: Expression | None
    parallel: bool
    body: "tuple[Step, ...]"


class Map(Node, frozen=True, eq=False):
    value: Expression
    target: Qualified
    mapping: ObjectLiteral | None


class Apply(Node, frozen=True, eq=False):
    transform: Qualified
    value: Expression
    name: Word | None


class Assume(Node, frozen=True, eq=False):
    """`condition` and, in the `if` form, the conditions that must hold under it; else `constraints` is empty."""

    condition: Expression
    constraints: tuple[Expression, ...]
    severity: Literal["warning", "error"] | None
    message: Expression | None


class Validate(Node, frozen=True, eq=False):
    target: Expression | None
    constraints: tuple[Assume, ...]
    otherwise: "ArmBody | None"


class StoreStep(Node, frozen=True, eq=False):
    value: Expression
    each: bool
    store: Word
    options: Options


class Block(Node, frozen=True, eq=False):
    """`{ steps }` as an arm body."""

    steps: "tuple[Step, ...]"


class Arm(Node, frozen=True, eq=False):
    """`pattern where guard -> body`; `pattern` is an expression when the match has no subject."""

    pattern: Pattern | Expression
    guard: Expression | None
    body: "ArmBody"


class MatchStep(Node, frozen=True, eq=False):
    subject: Expression | None
    arms: tuple[Arm, ...]
    catch: tuple[Arm, ...]


class Let(Node, frozen=True, eq=False):
    name: Word
    value: Expression


class Wait(Node, frozen=True, eq=False):
    options: Options


class Continue(Node, frozen=True, eq=False):
    pass


class Skip(Node, frozen=True, eq=False):
    pass


class Abort(Node, frozen=True, eq=False):
    message: Expression | None


class Retry(Node, frozen=True, eq=False):
    options: Options


class Queue(Node, frozen=True, eq=False):
    store: Word | None
    options: Options


class Jump(Node, frozen=True, eq=False):
    """`then` is what follows the action: `retry` (with `options`), `continue`, or None, which means continue."""

    action: Qualified
    then: Literal["retry", "continue"] | None
    options: Options


class Stage(Node, frozen=True, eq=False):
    """One action, or a parallel group when `parallel`."""

    actions: tuple[Qualified, ...]
    parallel: bool
    condition: Expression | None


class Run(Node, frozen=True, eq=False):
    """`run …`: the pipeline of a mission, or a step. A bare action name as an arm body is a Run of one stage."""

    stages: tuple[Stage, ...]


class Extension(Node, frozen=True, eq=False):
    word: Word
    options: Options


Step: TypeAlias = (
    Fetch
    | CallStep
    | Delete
    | Clear
    | For
    | Map
    | Apply
    | Validate
    | StoreStep
    | MatchStep
    | Let
    | Wait
    | Continue
    | Skip
    | Abort
    | Retry
    | Queue
    | Jump
    | Run
    | Extension
)
ArmBody: TypeAlias = Step | Block


# --- schemas and transforms ------------------------------------------------------------------------------------------


class NamedType(Node, frozen=True, eq=False):
    """A type word or schema name, with what may follow it: `array<T>`, `decimal(2)`, `number in 0..5`."""

    name: Qualified
    element: "Type | None"
    precision: int | None
    low: Expression | None
    high: Expression | None


class LiteralType(Node, frozen=True, eq=False):
    value: Any


class ObjectType(Node, frozen=True, eq=False):
    fields: "tuple[SchemaPart, ...]"


class CountedType(Node, frozen=True, eq=False):
    """`least..most of element`; `most` equals `least` in the form `n of T`."""

    least: int
    most: int
    element: "Type"


class OptionalType(Node, frozen=True, eq=False):
    """`T?`."""

    inner: "Type"


class UnionType(Node, frozen=True, eq=False):
    alternatives: "tuple[Type, ...]"


Type: TypeAlias = NamedType | LiteralType | ObjectType | CountedType | OptionalType | UnionType


class SchemaField(Node, frozen=True, eq=False):
    key: str
    type: Type
    when: Expression | None
    where: Expression | None
    key_span: Span


class SchemaSpread(Node, frozen=True, eq=False):
    """`...Base`."""

    base: Qualified


SchemaPart: TypeAlias = SchemaField | SchemaSpread | Assume


class Refinement(Node, frozen=True, eq=False):
    condition: Expression
    fields: tuple[SchemaPart, ...]


class SchemaDef(Node, frozen=True, eq=False):
    """`type` is that of an imported schema that is no object, such as an enumeration; it has no fields then."""

    name: Word
    base: Qualified | None
    fields: tuple[SchemaPart, ...]
    refinements: tuple[Refinement, ...]
    type: Type | None = None


class Variant(Node, frozen=True, eq=False):
    """One way of a transform; `schema` None takes any value."""

    schema: Qualified | None
    guard: Expression | None
    target: Qualified
    mapping: ObjectLiteral


class TransformDef(Node, frozen=True, eq=False):
    name: Word
    variants: tuple[Variant, ...]


# --- declarations ----------------------------------------------------------------------------------------------------


class SourceDef(Node, frozen=True, eq=False):
    name: Word
    spec: Expression | None  # `from …`
    options: Options


class StoreDef(Node, frozen=True, eq=False):
    name: Word
    adapter: Expression


class ActionDef(Node, frozen=True, eq=False):
    """`options` holds `concurrency`."""

    name: Word
    options: Options
    steps: tuple[Step, ...]


class Schedule(Node, frozen=True, eq=False):
    """`kind` every: `amount` of `unit` (plural); cron and at: `text`."""

    kind: Literal["every", "cron", "at"]
    amount: int | float | None
    unit: str | None
    text: str | None
    options: Options
    when_span: Span


class ImportDef(Node, frozen=True, eq=False):
    name: Word | None
    path: str
    path_span: Span


class IgnoredBlock(Node, frozen=True, eq=False):
    """A `dataset`, `context` or `distribution` block of the Vague language: skipped, with a warning."""

    word: str


Declaration: TypeAlias = SourceDef | StoreDef | SchemaDef | TransformDef | ActionDef | Let
Clause: TypeAlias = Schedule | Option | Declaration | Run


class MissionDef(Node, frozen=True, eq=False):
    """Clauses in the order written."""

    name: Word
    clauses: tuple[Clause, ...]


TopItem: TypeAlias = MissionDef | ImportDef | Declaration | IgnoredBlock


class SourceFile(Node, frozen=True, eq=False):
    """One file's tree."""

    items: tuple[TopItem, ...]
