"""Syntax trees to text on one line: the basis of definition hashes, and what the printer starts from.

Equal trees give equal text, which parses back to an equal tree. Blanks, comments, optional commas and the way a call
or a conditional was written do not show in it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

from reqon.lang import nodes
from reqon.lang.expressions import (
    ADDITIVE,
    COALESCE,
    COMPARISON,
    CONDITION,
    LEVELS,
    NOT,
    OR,
    PIPE,
    RANGE,
    TERM,
    WHERE,
)
from reqon.lang.lexer import RESERVED, TIME_UNITS
from reqon.lang.steps import StepParser

PREFIX, POSTFIX = TERM + 1, TERM + 2

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPED = re.compile("[\\\\\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
ENDS_IN_UNIT = re.compile(rf"[0-9] (?:{'|'.join(TIME_UNITS)})\Z")
_STARTS_AS_CALL = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]*|`[^`]*`)\(")
_STARTS_AS_INDEX = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]*|`[^`]*`)\[")
_SEVERITY = re.compile(r"(?:warning|error)\b")
_SINGULAR = {unit + "s": unit for unit in ("millisecond", "second", "minute", "hour", "day", "week")}
# Words that mean something where a step, an action's name or what follows a step may stand.
_AFTER_STEPS = {"as", "catch", "checkpoint", "else", "from", "parallel", "to", "when"}
_TAKEN = RESERVED | StepParser.step_words() | set(LEVELS) | _AFTER_STEPS


def canonical(node: nodes.Node) -> str:
    """The text of any construct on one line."""
    return _PLAIN.text(node)


def quoted(text: str) -> str:
    """A string literal: in double quotes, unless single ones save escapes."""
    quote = "'" if '"' in text and "'" not in text else '"'
    if _ESCAPED.search(text):
        text = _ESCAPED.sub(lambda m: _ESCAPES.get(m[0]) or f"\\u{ord(m[0]):04x}", text)
    return quote + (text.replace('"', '\\"') if quote == '"' else text) + quote


def name(text: str, taken: Iterable[str] = RESERVED) -> str:
    """A name, in backticks where it would be read as something else."""
    return text if _IDENTIFIER.fullmatch(text) and text not in taken else f"`{text}`"


def qualified(text: str) -> str:
    """A name with dots."""
    if _IDENTIFIER.fullmatch(text) and text not in RESERVED:
        return text
    parts = text.split(".")
    return ".".join(map(name, parts)) if all(parts) else name(text)


def key(text: str) -> str:
    """A key: any word as it is, other text quoted."""
    return text if _IDENTIFIER.fullmatch(text) else quoted(text)


def entry_key(text: str) -> str:
    """A key of an object or an object pattern, which may be a number."""
    return text if text.isdecimal() and text.isascii() and str(int(text[:400])) == text else key(text)


def constant(value: Any) -> str:
    """A literal value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return quoted(value) if isinstance(value, str) else repr(value)


def embrace(items: Iterable[str]) -> str:
    """`{ a, b }`, or `{}`."""
    text = ", ".join(items)
    return f"{{ {text} }}" if text else "{}"


class OneLine:
    """Text on one line. `forms`: calls and conditionals keep the form in which they were written."""

    def __init__(self, *, forms: bool = False) -> None:
        self.forms = forms

    @cached_property
    def _writers(self) -> "Mapping[type[nodes.Node], Callable[[Any], str]]":
        return {kind: getattr(self, f"_{method}") for kind, method in _METHODS.items()}

    def text(self, node: nodes.Node) -> str:
        return self._writers[type(node)](node)

    def texts(self, found: Iterable[nodes.Node]) -> Iterable[str]:
        return map(self.text, found)

    def tight(self, node: nodes.Node, least: int) -> str:
        """An expression's text, in parentheses if its operator is looser than `least`."""
        text = self.text(node)
        return f"({text})" if self.level(node) < least else text

    def level(self, node: nodes.Node) -> int:
        """The level of the operator that joins an expression; what extends to its right as far as it can is loose."""
        kind = type(node)
        if kind is nodes.Binary:
            return LEVELS[node.operator]  # type: ignore[attr-defined]
        if kind is nodes.Unary:
            return NOT if node.operator == "not" else PREFIX  # type: ignore[attr-defined]
        if kind is nodes.Call:
            return PIPE if self.forms and node.form == "pipe" else POSTFIX  # type: ignore[attr-defined]
        return _LEVELS.get(kind, POSTFIX)

    # --- expressions -------------------------------------------------------------------------------------------------

    def _word(self, node: nodes.Word) -> str:
        return name(node.text)

    def _qualified(self, node: nodes.Qualified) -> str:
        return qualified(node.text)

    def number(self, node: nodes.Literal_ | nodes.DurationLiteral, value: float) -> str:
        """A number's text; `node` is where it stands."""
        del node
        return repr(value)

    def _literal(self, node: nodes.Literal_) -> str:
        value = node.value
        return constant(value) if value is None or isinstance(value, bool | str) else self.number(node, value)

    def _duration(self, node: nodes.DurationLiteral) -> str:
        unit = _SINGULAR.get(node.unit, node.unit) if node.amount == 1 else node.unit
        return f"{self.number(node, node.amount)} {unit}"

    def _name(self, node: nodes.Name) -> str:
        return name(node.name)

    def _current(self, node: nodes.Current) -> str:
        del node
        return ""

    def _member(self, node: nodes.Member) -> str:
        return f"{self.tight(node.target, POSTFIX)}.{key(node.key)}"

    def _index(self, node: nodes.Index) -> str:
        return f"{self.tight(node.target, POSTFIX)}[{self.text(node.index)}]"

    def _call(self, node: nodes.Call) -> str:
        if self.forms and node.form != "plain" and not isinstance(node.arguments[0], nodes.Lambda | nodes.Spread):
            first, rest = node.arguments[0], f"({', '.join(self.texts(node.arguments[1:]))})"
            if node.form == "method":
                return f"{self.tight(first, POSTFIX)}.{key(node.name.text)}{rest}"
            return f"{self.tight(first, PIPE)} | {name(node.name.text)}{rest}"
        return f"{name(node.name.text)}({', '.join(self.texts(node.arguments))})"

    def _spread(self, node: nodes.Spread) -> str:
        return f"...{self.spread_value(node)}"

    def spread_value(self, node: nodes.Spread) -> str:
        text = self.tight(node.value, PREFIX)
        return f"({text})" if text.startswith(".") else text

    def _lambda(self, node: nodes.Lambda) -> str:
        return f"{self.parameters(node)} => {self.text(node.body)}"

    def parameters(self, node: nodes.Lambda) -> str:
        names = ", ".join(self.texts(node.parameters))
        return names if len(node.parameters) == 1 else f"({names})"

    def _unary(self, node: nodes.Unary) -> str:
        if node.operator == "not":
            return f"not {self.tight(node.operand, NOT)}"
        return f"{node.operator}{self.tight(node.operand, PREFIX)}"

    def _binary(self, node: nodes.Binary) -> str:
        left, right = sides(node.operator)
        return f"{self.tight(node.left, left)} {node.operator} {self.tight(node.right, right)}"

    def _is(self, node: nodes.Is) -> str:
        return f"{self.tight(node.value, COALESCE)} is {self.type_word(node)}"

    def type_word(self, node: nodes.Is) -> str:
        text = node.type_name.text
        return text if text in RESERVED and text != "not" else qualified(text)

    def _range(self, node: nodes.Range) -> str:
        return self.bounds(node.low, node.high)

    def bounds(self, low: nodes.Expression, high: nodes.Expression) -> str:
        """`low..high`."""
        end = self.tight(high, ADDITIVE)
        return f"{self.tight(low, ADDITIVE)}..{' ' if end.startswith('.') else ''}{end}"

    def _conditional(self, node: nodes.Conditional) -> str:
        otherwise = self.tight(node.otherwise, CONDITION)
        if self.forms and node.form == "?":
            return f"{self.tight(node.condition, OR)} ? {self.before_colon(node.then)} : {otherwise}"
        return f"if {self.tight(node.condition, CONDITION)} then {self.tight(node.then, CONDITION)} else {otherwise}"

    def before_colon(self, node: nodes.Expression) -> str:
        """The middle of a `? :`, where a time unit would be taken for a key."""
        text = self.tight(node, CONDITION)
        return f"({text})" if ENDS_IN_UNIT.search(text) else text

    def _where(self, node: nodes.Where) -> str:
        return f"{self.filtered(node)} where {self.tight(node.condition, CONDITION)}"

    def filtered(self, node: nodes.Where) -> str:
        """The left side of an infix `where`, which an `any of` there would claim."""
        text = self.text(node.collection)
        return f"({text})" if isinstance(node.collection, nodes.AnyOf) else text

    def _any_of(self, node: nodes.AnyOf) -> str:
        condition = f" where {self.tight(node.condition, CONDITION)}" if node.condition else ""
        return f"any of {self.tight(node.collection, CONDITION)}{condition}"

    def _array(self, node: nodes.ArrayLiteral | nodes.ArrayPattern) -> str:
        return f"[{', '.join(self.texts(node.elements))}]"

    def _entry(self, node: nodes.Entry) -> str:
        return f"{entry_key(node.key)}: {self.text(node.value)}"

    def _object(self, node: nodes.ObjectLiteral | nodes.ObjectPattern) -> str:
        return embrace(self.texts(node.entries))

    def _match(self, node: nodes.MatchExpression) -> str:
        return f"match {self.subject(node.subject)}{embrace(self.texts(node.arms))}"

    def subject(self, node: nodes.Expression | None) -> str:
        """The subject of a match or validate, with a blank behind it; a brace would mean that there is none."""
        if node is None:
            return ""
        text = self.text(node)
        return f"({text}) " if text.startswith("{") or self.level(node) < CONDITION else f"{text} "

    def _match_arm(self, node: nodes.MatchExpressionArm) -> str:
        return f"{self.head(node)} => {self.text(node.value)}"

    def head(self, node: nodes.MatchExpressionArm | nodes.Arm) -> str:
        """What stands before the arrow."""
        guard = f" where {self.tight(node.guard, CONDITION)}" if node.guard else ""
        return f"{self.tight(node.pattern, CONDITION)}{guard}"

    # --- patterns ----------------------------------------------------------------------------------------------------

    def _wildcard(self, node: nodes.Wildcard) -> str:
        del node
        return "_"

    def _literal_pattern(self, node: nodes.LiteralPattern | nodes.LiteralType) -> str:
        return constant(node.value)

    def _name_pattern(self, node: nodes.NamePattern) -> str:
        return qualified(node.name.text)

    def _value_pattern(self, node: nodes.ValuePattern) -> str:
        value = node.value
        if isinstance(value, nodes.Member) and not isinstance(value.target, nodes.Current) and _is_dotted(value):
            # A plain a.b would be read as a qualified name.
            return f"{self.text(value.target)}.{quoted(value.key)}"
        return self.text(value)

    def _pattern_entry(self, node: nodes.PatternEntry) -> str:
        return f"{entry_key(node.key)}: {self.text(node.pattern)}"

    # --- options and steps -------------------------------------------------------------------------------------------

    def options(self, options: nodes.Options) -> str:
        """Options with a blank before them, or nothing."""
        return f" {embrace(self.texts(options))}" if options else ""

    def _option(self, node: nodes.Option) -> str:
        return f"{key(node.key)}: {self.option_value(node)}"

    def option_value(self, node: nodes.Option) -> str:
        text = self.text(node.value)
        return f"({text})" if self.misread_option(node, text) else text

    def misread_option(self, node: nodes.Option, text: str) -> bool:
        """Whether an expression needs parentheses, not to be taken for the special value of its key."""
        if isinstance(node.value, nodes.Since | nodes.Paginate):
            return False
        if node.key == "since":
            return text == "lastSync" or (isinstance(node.value, nodes.Call) and text.startswith("lastSync("))
        return node.key == "paginate" and bool(_STARTS_AS_CALL.match(text))

    def _since(self, node: nodes.Since) -> str:
        return f"lastSync{f'({self.text(node.key)})' if node.key else ''}{self.options(node.options)}"

    def _paginate(self, node: nodes.Paginate) -> str:
        return f"{name(node.strategy.text)}({', '.join(self.texts(node.arguments))})"

    def _fetch(self, node: nodes.Fetch) -> str:
        return f"{self.request(node)}{self.options(node.options)}"

    def request(self, node: nodes.Fetch, path: str | None = None) -> str:
        """Method, source and path; `path` is the text of the path if it is known."""
        path = path or self.tight(node.path, COALESCE)
        if node.method == "delete" and _STARTS_AS_INDEX.match(path):
            path = f"({path})"
        if node.source is None:
            return f"{node.method} {path}"
        source = name(node.source.text)
        prefixed = path[0] in "\"'" or (_STARTS_AS_CALL.match(path) and not path.startswith("from("))
        return f"{node.method} {source} {path}" if prefixed else f"{node.method} {path} from {source}"

    def _call_step(self, node: nodes.CallStep) -> str:
        return f"call {name(node.source.text)}.{key(node.operation.text)}{self.options(node.options)}"

    def _delete(self, node: nodes.Delete) -> str:
        return f"delete {name(node.store.text)}[{self.text(node.key)}]"

    def _clear(self, node: nodes.Clear) -> str:
        return f"clear {name(node.store.text)}"

    def _for(self, node: nodes.For) -> str:
        return f"{self.loop(node)} {embrace(self.texts(node.body))}"

    def loop(self, node: nodes.For) -> str:
        """A loop up to its brace."""
        parts = [f"for {name(node.variable.text)} in {self.tight(node.collection, CONDITION)}"]
        parts += [f"where {self.tight(c, CONDITION)}" for c in node.conditions]
        if node.checkpoint:
            parts.append(f"checkpoint every {self.tight(node.checkpoint, CONDITION)}")
        if node.parallel:
            parts.append("parallel")
        return " ".join(parts)

    def _map(self, node: nodes.Map) -> str:
        mapping = f" {self.text(node.mapping)}" if node.mapping else ""
        return f"map {self.text(node.value)} -> {qualified(node.target.text)}{mapping}"

    def _apply(self, node: nodes.Apply) -> str:
        bound = f" as {name(node.name.text)}" if node.name else ""
        return f"apply {qualified(node.transform.text)} to {self.text(node.value)}{bound}"

    def _validate(self, node: nodes.Validate) -> str:
        otherwise = f" or {self.body(node.otherwise)}" if node.otherwise else ""
        return f"validate {self.subject(node.target)}{embrace(self.texts(node.constraints))}{otherwise}"

    def _assume(self, node: nodes.Assume) -> str:
        return f"assume {self.assumption(node)}{self.consequence(node)}"

    def assumption(self, node: nodes.Assume) -> str:
        if not node.constraints:
            return self.text(node.condition)
        inner = embrace(self.tight(c, CONDITION) for c in node.constraints)
        return f"if {self.tight(node.condition, CONDITION)} {inner}"

    def consequence(self, node: nodes.Assume) -> str:
        """What `else` says of an assumption, with a blank before it, or nothing."""
        if node.severity is None and node.message is None:
            return ""
        message = self.text(node.message) if node.message else ""
        if node.severity is None and _SEVERITY.match(message):
            message = f"({message})"
        return " ".join(part for part in (" else", node.severity, message) if part)

    def _store_step(self, node: nodes.StoreStep) -> str:
        return f"{self.stored(node)}{self.options(node.options)}"

    def stored(self, node: nodes.StoreStep, value: str | None = None) -> str:
        """A store step up to its options; `value` is the text of what is stored if it is known."""
        value = value or self.text(node.value)
        if node.each:
            value = f"each {value}"
        elif re.match(r"each(?![A-Za-z0-9_.]|\Z)", value):
            value = f"`each`{value[4:]}"
        return f"store {value} -> {name(node.store.text, ())}"

    def body(self, node: nodes.ArmBody) -> str:
        """The body of an arm; a `run` of one action is its bare name."""
        if isinstance(node, nodes.Run) and self.is_bare(node):
            return qualified(node.stages[0].actions[0].text)
        return self.text(node)

    def is_bare(self, node: nodes.Run) -> bool:
        """Whether a `run` in an arm is written without its word."""
        stage = node.stages[0]
        first = stage.actions[0].text.partition(".")[0]
        return len(node.stages) == 1 and not stage.parallel and stage.condition is None and first not in _TAKEN

    def _block(self, node: nodes.Block) -> str:
        return embrace(self.texts(node.steps))

    def _arm(self, node: nodes.Arm) -> str:
        return f"{self.head(node)} -> {self.body(node.body)}"

    def _match_step(self, node: nodes.MatchStep) -> str:
        catch = f" catch {embrace(self.texts(node.catch))}" if node.catch else ""
        return f"match {self.subject(node.subject)}{embrace(self.texts(node.arms))}{catch}"

    def _let(self, node: nodes.Let) -> str:
        return f"let {name(node.name.text)} = {self.text(node.value)}"

    def _wait(self, node: nodes.Wait) -> str:
        return f"wait {embrace(self.texts(node.options))}"

    def _continue(self, node: nodes.Continue) -> str:
        del node
        return "continue"

    def _skip(self, node: nodes.Skip) -> str:
        del node
        return "skip"

    def _abort(self, node: nodes.Abort) -> str:
        return f"abort {self.text(node.message)}" if node.message else "abort"

    def _retry(self, node: nodes.Retry) -> str:
        return f"retry{self.options(node.options)}"

    def _queue(self, node: nodes.Queue) -> str:
        return f"queue{f' {name(node.store.text)}' if node.store else ''}{self.options(node.options)}"

    def _jump(self, node: nodes.Jump) -> str:
        then = f" then {node.then}" if node.then else ""
        return f"jump {qualified(node.action.text)}{then}{self.options(node.options)}"

    def _run(self, node: nodes.Run) -> str:
        return f"run {' then '.join(self.texts(node.stages))}"

    def _stage(self, node: nodes.Stage) -> str:
        actions = ", ".join(qualified(a.text) for a in node.actions)
        condition = f" if {self.text(node.condition)}" if node.condition else ""
        return f"[{actions}]{condition}" if node.parallel else f"{actions}{condition}"

    def _extension(self, node: nodes.Extension) -> str:
        return f"{self.extension_word(node)} {embrace(self.texts(node.options))}"

    def extension_word(self, node: nodes.Extension) -> str:
        return name(node.word.text, _TAKEN)

    # --- types, schemas, transforms ----------------------------------------------------------------------------------

    def _named_type(self, node: nodes.NamedType) -> str:
        text = qualified(node.name.text)
        if node.element:
            text += f"<{self.text(node.element)}>"
        if node.precision is not None:
            text += f"({node.precision})"
        if node.low and node.high:
            text += f" in {self.bounds(node.low, node.high)}"
        return text

    def _object_type(self, node: nodes.ObjectType) -> str:
        return embrace(self.texts(node.fields))

    def _counted_type(self, node: nodes.CountedType) -> str:
        count = f"{node.least}" if node.least == node.most else f"{node.least}..{node.most}"
        return f"{count} of {self.text(node.element)}"

    def _optional_type(self, node: nodes.OptionalType) -> str:
        inner = self.text(node.inner)
        return f"{inner} ?" if inner.endswith("?") else f"{inner}?"

    def _union_type(self, node: nodes.UnionType) -> str:
        return " | ".join(self.texts(node.alternatives))

    def _field(self, node: nodes.SchemaField) -> str:
        return f"{key(node.key)}: {self.text(node.type)}{self.field_conditions(node)}"

    def field_conditions(self, node: nodes.SchemaField) -> str:
        when = f" when {self.tight(node.when, CONDITION)}" if node.when else ""
        return f"{when} where {self.tight(node.where, CONDITION)}" if node.where else when

    def _schema_spread(self, node: nodes.SchemaSpread) -> str:
        return f"...{qualified(node.base.text)}"

    def _refinement(self, node: nodes.Refinement) -> str:
        return f"if {self.tight(node.condition, CONDITION)} {embrace(self.texts(node.fields))}"

    def _schema(self, node: nodes.SchemaDef) -> str:
        if node.type is not None:
            return f"{self.schema_head(node)} = {self.text(node.type)}"
        refine = f" refine {embrace(self.texts(node.refinements))}" if node.refinements else ""
        return f"{self.schema_head(node)} {embrace(self.texts(node.fields))}{refine}"

    def schema_head(self, node: nodes.SchemaDef) -> str:
        return f"schema {name(node.name.text)}{f' from {qualified(node.base.text)}' if node.base else ''}"

    def _variant(self, node: nodes.Variant) -> str:
        return f"{self.variant_head(node)} {self.text(node.mapping)}"

    def variant_head(self, node: nodes.Variant) -> str:
        schema = qualified(node.schema.text) if node.schema else "_"
        guard = f" where {self.tight(node.guard, CONDITION)}" if node.guard else ""
        return f"({schema}){guard} -> {qualified(node.target.text)}"

    def _transform(self, node: nodes.TransformDef) -> str:
        if self.is_short(node):
            return f"{self.short_head(node)} {self.text(node.variants[0].mapping)}"
        return f"transform {name(node.name.text)} {embrace(self.texts(node.variants))}"

    def is_short(self, node: nodes.TransformDef) -> bool:
        """Whether a transform is written without a list of variants."""
        return len(node.variants) == 1 and node.variants[0].guard is None

    def short_head(self, node: nodes.TransformDef) -> str:
        variant = node.variants[0]
        schema = f": {qualified(variant.schema.text)}" if variant.schema else ""
        return f"transform {name(node.name.text)}{schema} -> {qualified(variant.target.text)}"

    # --- declarations ------------------------------------------------------------------------------------------------

    def _source(self, node: nodes.SourceDef) -> str:
        return f"{self.source_head(node)}{self.options(node.options)}"

    def source_head(self, node: nodes.SourceDef) -> str:
        return f"source {name(node.name.text)}{f' from {self.text(node.spec)}' if node.spec else ''}"

    def _store(self, node: nodes.StoreDef) -> str:
        return f"store {name(node.name.text)}: {self.text(node.adapter)}"

    def _action(self, node: nodes.ActionDef) -> str:
        return f"action {name(node.name.text)} {embrace(self.texts((*node.options, *node.steps)))}"

    def _schedule(self, node: nodes.Schedule) -> str:
        return f"{self.due(node)}{self.options(node.options)}"

    def due(self, node: nodes.Schedule) -> str:
        """A schedule up to its options."""
        if node.kind != "every":
            return f"schedule: {node.kind} {quoted(node.text or '')}"
        unit = node.unit or ""
        return f"schedule: every {node.amount!r} {_SINGULAR.get(unit, unit) if node.amount == 1 else unit}".rstrip()

    def _import(self, node: nodes.ImportDef) -> str:
        return f"import {f'{name(node.name.text)} from ' if node.name else ''}{quoted(node.path)}"

    def _ignored(self, node: nodes.IgnoredBlock) -> str:
        return f"{node.word} _ {{}}"

    def _mission(self, node: nodes.MissionDef) -> str:
        return f"mission {name(node.name.text)} {embrace(self.texts(node.clauses))}"

    def _file(self, node: nodes.SourceFile) -> str:
        return "\n".join(self.texts(node.items))


def sides(operator: str) -> tuple[int, int]:
    """The levels that the operands of a binary operator need, not to stand in parentheses."""
    level = LEVELS[operator]
    if level == COMPARISON:
        return COALESCE, COALESCE
    return (level + 1, level) if level == COALESCE else (level, level + 1)


def _is_dotted(node: nodes.Expression) -> bool:
    """Whether an expression is only names with dots between them."""
    while isinstance(node, nodes.Member):
        if not _IDENTIFIER.fullmatch(node.key) or node.key in RESERVED:
            return False
        node = node.target
    return isinstance(node, nodes.Name) and bool(_IDENTIFIER.fullmatch(node.name))


_LEVELS: dict[type[nodes.Node], int] = {
    nodes.Where: WHERE,
    nodes.AnyOf: WHERE,
    nodes.Conditional: CONDITION,
    nodes.Is: COMPARISON,
    nodes.Range: RANGE,
}
_METHODS: dict[type[nodes.Node], str] = {
    nodes.Word: "word",
    nodes.Qualified: "qualified",
    nodes.Literal_: "literal",
    nodes.DurationLiteral: "duration",
    nodes.Name: "name",
    nodes.Current: "current",
    nodes.Member: "member",
    nodes.Index: "index",
    nodes.Call: "call",
    nodes.Spread: "spread",
    nodes.Lambda: "lambda",
    nodes.Unary: "unary",
    nodes.Binary: "binary",
    nodes.Is: "is",
    nodes.Range: "range",
    nodes.Conditional: "conditional",
    nodes.Where: "where",
    nodes.AnyOf: "any_of",
    nodes.ArrayLiteral: "array",
    nodes.Entry: "entry",
    nodes.ObjectLiteral: "object",
    nodes.MatchExpressionArm: "match_arm",
    nodes.MatchExpression: "match",
    nodes.Wildcard: "wildcard",
    nodes.LiteralPattern: "literal_pattern",
    nodes.NamePattern: "name_pattern",
    nodes.ValuePattern: "value_pattern",
    nodes.ArrayPattern: "array",
    nodes.PatternEntry: "pattern_entry",
    nodes.ObjectPattern: "object",
    nodes.Since: "since",
    nodes.Paginate: "paginate",
    nodes.Option: "option",
    nodes.Fetch: "fetch",
    nodes.CallStep: "call_step",
    nodes.Delete: "delete",
    nodes.Clear: "clear",
    nodes.For: "for",
    nodes.Map: "map",
    nodes.Apply: "apply",
    nodes.Assume: "assume",
    nodes.Validate: "validate",
    nodes.StoreStep: "store_step",
    nodes.Block: "block",
    nodes.Arm: "arm",
    nodes.MatchStep: "match_step",
    nodes.Let: "let",
    nodes.Wait: "wait",
    nodes.Continue: "continue",
    nodes.Skip: "skip",
    nodes.Abort: "abort",
    nodes.Retry: "retry",
    nodes.Queue: "queue",
    nodes.Jump: "jump",
    nodes.Stage: "stage",
    nodes.Run: "run",
    nodes.Extension: "extension",
    nodes.NamedType: "named_type",
    nodes.LiteralType: "literal_pattern",
    nodes.ObjectType: "object_type",
    nodes.CountedType: "counted_type",
    nodes.OptionalType: "optional_type",
    nodes.UnionType: "union_type",
    nodes.SchemaField: "field",
    nodes.SchemaSpread: "schema_spread",
    nodes.Refinement: "refinement",
    nodes.SchemaDef: "schema",
    nodes.Variant: "variant",
    nodes.TransformDef: "transform",
    nodes.SourceDef: "source",
    nodes.StoreDef: "store",
    nodes.ActionDef: "action",
    nodes.Schedule: "schedule",
    nodes.ImportDef: "import",
    nodes.IgnoredBlock: "ignored",
    nodes.MissionDef: "mission",
    nodes.SourceFile: "file",
}
_PLAIN = OneLine()
