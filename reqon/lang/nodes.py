"""The syntax tree: one frozen class per construct, data only. Two texts that mean the same give equal trees."""

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from reqon.diagnostics import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What every construct has: its place, which equality ignores."""

    span: Span = field(compare=False, repr=False)


# --- names -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Word(Node):
    """A name at its place: a declaration's, a target's, a source prefix."""

    text: str


@dataclass(frozen=True, slots=True)
class Qualified(Node):
    """`Name` or `n.Name`, dots included in `text`."""

    text: str


# --- expressions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Literal_(Node):  # noqa: N801  # `Literal` is typing's
    """null, a boolean, a number or a string."""

    value: Any


@dataclass(frozen=True, slots=True)
class DurationLiteral(Node):
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


@dataclass(frozen=True, slots=True)
class Name(Node):
    """A bare name, resolved by spec/language.md 4.1."""

    name: str


@dataclass(frozen=True, slots=True)
class Current(Node):
    """The current item: what `.f` starts from. Never written alone."""


@dataclass(frozen=True, slots=True)
class Member(Node):
    """`target.key`; `.key` has `Current` as its target."""

    target: "Expression"
    key: str


@dataclass(frozen=True, slots=True)
class Index(Node):
    target: "Expression"
    index: "Expression"


CallForm = Literal["plain", "method", "pipe"]


@dataclass(frozen=True, slots=True)
class Call(Node):
    """`f(a, b)`; also `a.f(b)` and `a | f(b)`, whose first argument is `a`. `name` is the function's word."""

    name: Word
    arguments: tuple["Argument", ...]
    form: CallForm = field(default="plain", compare=False)


@dataclass(frozen=True, slots=True)
class Spread(Node):
    """`...value` in an array, object, mapping or argument list."""

    value: "Expression"


@dataclass(frozen=True, slots=True)
class Lambda(Node):
    parameters: tuple[Word, ...]
    body: "Expression"


@dataclass(frozen=True, slots=True)
class Unary(Node):
    operator: str  # - + ! not
    operand: "Expression"


@dataclass(frozen=True, slots=True)
class Binary(Node):
    """`or and == != < <= > >= contains startsWith endsWith in ?? + - * / %`; `span` covers both sides."""

    operator: str
    left: "Expression"
    right: "Expression"
    operator_span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Is(Node):
    """`value is type_name`."""

    value: "Expression"
    type_name: Qualified


@dataclass(frozen=True, slots=True)
class Range(Node):
    low: "Expression"
    high: "Expression"


@dataclass(frozen=True, slots=True)
class Conditional(Node):
    """`if c then a else b`, or `c ? a : b`."""

    condition: "Expression"
    then: "Expression"
    otherwise: "Expression"
    form: Literal["if", "?"] = field(default="if", compare=False)


@dataclass(frozen=True, slots=True)
class Where(Node):
    """`collection where condition`."""

    collection: "Expression"
    condition: "Expression"


@dataclass(frozen=True, slots=True)
class AnyOf(Node):
    collection: "Expression"
    condition: "Expression | None"


@dataclass(frozen=True, slots=True)
class ArrayLiteral(Node):
    elements: tuple["Expression | Spread", ...]


@dataclass(frozen=True, slots=True)
class Entry(Node):
    """`key: value` in an object or mapping."""

    key: str
    value: "Expression"
    key_span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ObjectLiteral(Node):
    entries: tuple[Entry | Spread, ...]


@dataclass(frozen=True, slots=True)
class MatchExpressionArm(Node):
    """`pattern` is an expression when the match has no subject."""

    pattern: "Pattern | Expression"
    guard: "Expression | None"
    value: "Expression"


@dataclass(frozen=True, slots=True)
class MatchExpression(Node):
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


@dataclass(frozen=True, slots=True)
class Wildcard(Node):
    """`_`."""


@dataclass(frozen=True, slots=True)
class LiteralPattern(Node):
    value: Any


@dataclass(frozen=True, slots=True)
class NamePattern(Node):
    """A bare or qualified name: a declared schema if there is one, else a binding (spec/language.md 4.1)."""

    name: Qualified


@dataclass(frozen=True, slots=True)
class ValuePattern(Node):
    """`.x`, `a.b`, `f(…)`: equal to the expression's value."""

    value: Expression


@dataclass(frozen=True, slots=True)
class ArrayPattern(Node):
    elements: tuple["Pattern", ...]


@dataclass(frozen=True, slots=True)
class PatternEntry(Node):
    key: str
    pattern: "Pattern"


@dataclass(frozen=True, slots=True)
class ObjectPattern(Node):
    entries: tuple[PatternEntry, ...]


Pattern: TypeAlias = Wildcard | LiteralPattern | NamePattern | ValuePattern | ArrayPattern | ObjectPattern


# --- options ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Since(Node):
    """`lastSync`, `lastSync("key")` or either with a block. Any other `since:` value is an expression."""

    key: Expression | None
    options: "tuple[Option, ...]"


@dataclass(frozen=True, slots=True)
class Paginate(Node):
    """`offset(p, size)` and its kin. The object form stays an `ObjectLiteral`."""

    strategy: Word
    arguments: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Option(Node):
    """`key: value` in a brace list of options. A block value (`retry: { … }`) is an `ObjectLiteral`."""

    key: str
    value: Expression | Since | Paginate
    key_span: Span = field(compare=False, repr=False)


Options: TypeAlias = tuple[Option, ...]


# --- steps -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fetch(Node):
    """`method` in lower case. `source` is the prefix or the `from` name, if one is written."""

    method: str
    path: Expression
    source: Word | None
    options: Options


@dataclass(frozen=True, slots=True)
class CallStep(Node):
    source: Word
    operation: Word
    options: Options


@dataclass(frozen=True, slots=True)
class Delete(Node):
    store: Word
    key: Expression


@dataclass(frozen=True, slots=True)
class Clear(Node):
    store: Word


@dataclass(frozen=True, slots=True)
class For(Node):
    """`conditions` are the `where`s, all of which must hold."""

    variable: Word
    collection: Expression
    conditions: tuple[Expression, ...]
    checkpoint: Expression | None
    parallel: bool
    body: "tuple[Step, ...]"


@dataclass(frozen=True, slots=True)
class Map(Node):
    value: Expression
    target: Qualified
    mapping: ObjectLiteral | None


@dataclass(frozen=True, slots=True)
class Apply(Node):
    transform: Qualified
    value: Expression
    name: Word | None


@dataclass(frozen=True, slots=True)
class Assume(Node):
    """`condition` and, in the `if` form, the conditions that must hold under it; else `constraints` is empty."""

    condition: Expression
    constraints: tuple[Expression, ...]
    severity: Literal["warning", "error"] | None
    message: Expression | None


@dataclass(frozen=True, slots=True)
class Validate(Node):
    target: Expression | None
    constraints: tuple[Assume, ...]
    otherwise: "ArmBody | None"


@dataclass(frozen=True, slots=True)
class StoreStep(Node):
    value: Expression
    each: bool
    store: Word
    options: Options


@dataclass(frozen=True, slots=True)
class Block(Node):
    """`{ steps }` as an arm body."""

    steps: "tuple[Step, ...]"


@dataclass(frozen=True, slots=True)
class Arm(Node):
    """`pattern where guard -> body`; `pattern` is an expression when the match has no subject."""

    pattern: Pattern | Expression
    guard: Expression | None
    body: "ArmBody"


@dataclass(frozen=True, slots=True)
class MatchStep(Node):
    subject: Expression | None
    arms: tuple[Arm, ...]
    catch: tuple[Arm, ...]


@dataclass(frozen=True, slots=True)
class Let(Node):
    name: Word
    value: Expression


@dataclass(frozen=True, slots=True)
class Wait(Node):
    options: Options


@dataclass(frozen=True, slots=True)
class Continue(Node):
    pass


@dataclass(frozen=True, slots=True)
class Skip(Node):
    pass


@dataclass(frozen=True, slots=True)
class Abort(Node):
    message: Expression | None


@dataclass(frozen=True, slots=True)
class Retry(Node):
    options: Options


@dataclass(frozen=True, slots=True)
class Queue(Node):
    store: Word | None
    options: Options


@dataclass(frozen=True, slots=True)
class Jump(Node):
    """`then` is what follows the action: `retry` (with `options`), `continue`, or None, which means continue."""

    action: Qualified
    then: Literal["retry", "continue"] | None
    options: Options


@dataclass(frozen=True, slots=True)
class Stage(Node):
    """One action, or a parallel group when `parallel`."""

    actions: tuple[Qualified, ...]
    parallel: bool
    condition: Expression | None


@dataclass(frozen=True, slots=True)
class Run(Node):
    """`run …`: the pipeline of a mission, or a step. A bare action name as an arm body is a Run of one stage."""

    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class Extension(Node):
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


@dataclass(frozen=True, slots=True)
class NamedType(Node):
    """A type word or schema name, with what may follow it: `array<T>`, `decimal(2)`, `number in 0..5`."""

    name: Qualified
    element: "Type | None"
    precision: int | None
    low: Expression | None
    high: Expression | None


@dataclass(frozen=True, slots=True)
class LiteralType(Node):
    value: Any


@dataclass(frozen=True, slots=True)
class ObjectType(Node):
    fields: "tuple[SchemaPart, ...]"


@dataclass(frozen=True, slots=True)
class CountedType(Node):
    """`least..most of element`; `most` equals `least` in the form `n of T`."""

    least: int
    most: int
    element: "Type"


@dataclass(frozen=True, slots=True)
class OptionalType(Node):
    """`T?`."""

    inner: "Type"


@dataclass(frozen=True, slots=True)
class UnionType(Node):
    alternatives: "tuple[Type, ...]"


Type: TypeAlias = NamedType | LiteralType | ObjectType | CountedType | OptionalType | UnionType


@dataclass(frozen=True, slots=True)
class SchemaField(Node):
    key: str
    type: Type
    when: Expression | None
    where: Expression | None
    key_span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class SchemaSpread(Node):
    """`...Base`."""

    base: Qualified


SchemaPart: TypeAlias = SchemaField | SchemaSpread | Assume


@dataclass(frozen=True, slots=True)
class Refinement(Node):
    condition: Expression
    fields: tuple[SchemaPart, ...]


@dataclass(frozen=True, slots=True)
class SchemaDef(Node):
    name: Word
    base: Qualified | None
    fields: tuple[SchemaPart, ...]
    refinements: tuple[Refinement, ...]


@dataclass(frozen=True, slots=True)
class Variant(Node):
    """One way of a transform; `schema` None takes any value."""

    schema: Qualified | None
    guard: Expression | None
    target: Qualified
    mapping: ObjectLiteral


@dataclass(frozen=True, slots=True)
class TransformDef(Node):
    name: Word
    variants: tuple[Variant, ...]


# --- declarations ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SourceDef(Node):
    name: Word
    spec: Expression | None  # `from …`
    options: Options


@dataclass(frozen=True, slots=True)
class StoreDef(Node):
    name: Word
    adapter: Expression


@dataclass(frozen=True, slots=True)
class ActionDef(Node):
    """`options` holds `concurrency`."""

    name: Word
    options: Options
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Schedule(Node):
    """`kind` every: `amount` of `unit` (plural); cron and at: `text`."""

    kind: Literal["every", "cron", "at"]
    amount: int | float | None
    unit: str | None
    text: str | None
    options: Options
    when_span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ImportDef(Node):
    name: Word | None
    path: str
    path_span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class IgnoredBlock(Node):
    """A `dataset`, `context` or `distribution` block of the Vague language: skipped, with a warning."""

    word: str


Declaration: TypeAlias = SourceDef | StoreDef | SchemaDef | TransformDef | ActionDef | Let
Clause: TypeAlias = Schedule | Option | Declaration | Run


@dataclass(frozen=True, slots=True)
class MissionDef(Node):
    """Clauses in the order written."""

    name: Word
    clauses: tuple[Clause, ...]


TopItem: TypeAlias = MissionDef | ImportDef | Declaration | IgnoredBlock


@dataclass(frozen=True, slots=True)
class SourceFile(Node):
    """One file's tree."""

    items: tuple[TopItem, ...]
