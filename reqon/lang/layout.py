"""Syntax trees to text of several lines: where a construct breaks that does not fit on one."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from reqon.lang import nodes
from reqon.lang.canonical import ENDS_IN_UNIT, POSTFIX, PREFIX, OneLine, entry_key, key, name, qualified, sides
from reqon.lang.expressions import CONDITION, LEVELS, NOT, OR, PIPE, WHERE

WIDTH = 120
INDENT = "  "


class Layout(OneLine):
    """Text of any construct. `depth` counts indentations; `used` are the columns before it on its first line."""

    def __init__(self) -> None:
        super().__init__(forms=True)

    def braced(
        self, items: Sequence[nodes.Node], depth: int, used: int, *, comma: str = ",", wide: bool = False
    ) -> str:
        """Items in braces, on one line or, always if `wide`, on a line each with a `comma` between them."""
        raise NotImplementedError

    def breaks(self, node: nodes.Node) -> bool:
        """Whether something inside a construct asks for lines of its own."""
        raise NotImplementedError

    def fits(self, text: str, used: int) -> bool:
        """Whether a text and a comma stand within the width."""
        return used + len(text) < WIDTH

    def item(self, node: nodes.Node, depth: int, used: int) -> str:
        """The text of a step, clause, arm, entry, field or expression."""
        lay_out = self._layouts.get(type(node))
        if lay_out is None:
            return self.text(node)
        if isinstance(node, nodes.MissionDef) or self.breaks(node):
            return lay_out(node, depth, used)
        text = self.text(node)
        return text if self.fits(text, used) else lay_out(node, depth, used)

    def expression(self, node: nodes.Node, depth: int, used: int, least: int = WHERE) -> str:
        """An expression or pattern, in parentheses if its operator is looser than `least`."""
        if self.level(node) < least:
            return f"({self.item(node, depth, used + 1)})"
        return self.item(node, depth, used)

    @cached_property
    def _layouts(self) -> "Mapping[type[nodes.Node], Callable[[Any, int, int], str]]":
        return {kind: getattr(self, f"_lay_{method}") for kind, method in _METHODS.items()}

    # --- expressions -------------------------------------------------------------------------------------------------

    def _lay_object(self, node: nodes.ObjectLiteral | nodes.ObjectPattern, depth: int, used: int) -> str:
        return self.braced(node.entries, depth, used)

    def _lay_entry(self, node: nodes.Entry, depth: int, used: int) -> str:
        head = f"{entry_key(node.key)}: "
        return head + self.item(node.value, depth, used + len(head))

    def _lay_pattern_entry(self, node: nodes.PatternEntry, depth: int, used: int) -> str:
        head = f"{entry_key(node.key)}: "
        return head + self.item(node.pattern, depth, used + len(head))

    def _lay_array(self, node: nodes.ArrayLiteral | nodes.ArrayPattern, depth: int, used: int) -> str:
        return self._listed("[", node.elements, "]", depth, used)

    def _listed(self, opening: str, parts: Sequence[nodes.Node], closing: str, depth: int, used: int) -> str:
        """Parts in brackets: one a line, unless all fit on one, or only the last one has lines of its own."""
        if not parts:
            return opening + closing
        head = opening + "".join(f"{self.text(part)}, " for part in parts[:-1])
        last = self.item(parts[-1], depth, after(head, used))
        hugged = "\n" in last and isinstance(parts[-1], _HUGGED) and not any(map(self.breaks, parts[:-1]))
        if self.fits(head + last.partition("\n")[0], used) and (hugged or "\n" not in last):
            return head + last + closing
        pad = INDENT * (depth + 1)
        lines = [f"{pad}{self.item(part, depth + 1, len(pad))}" for part in parts]
        return f"{opening}\n" + ",\n".join(lines) + f"\n{INDENT * depth}{closing}"

    def _lay_call(self, node: nodes.Call, depth: int, used: int) -> str:
        first = node.arguments[0] if node.arguments else None
        if first is None or node.form == "plain" or isinstance(first, nodes.Lambda | nodes.Spread):
            head = f"{name(node.name.text)}("
            return self._listed(head, node.arguments, ")", depth, used)
        if node.form == "method":
            head = f"{self.expression(first, depth, used, POSTFIX)}.{key(node.name.text)}("
            return self._listed(head, node.arguments[1:], ")", depth, used)
        head = self.expression(first, depth, used, PIPE)
        pad = f"\n{INDENT * (depth + 1)}| {name(node.name.text)}("
        return head + self._listed(pad, node.arguments[1:], ")", depth + 1, 0)

    def _lay_spread(self, node: nodes.Spread, depth: int, used: int) -> str:
        text = self.expression(node.value, depth, used + 3, PREFIX)
        return f"...({text})" if text.startswith(".") else f"...{text}"

    def _lay_lambda(self, node: nodes.Lambda, depth: int, used: int) -> str:
        head = f"{self.parameters(node)} => "
        return head + self.item(node.body, depth, used + len(head))

    def _lay_member(self, node: nodes.Member, depth: int, used: int) -> str:
        return f"{self.expression(node.target, depth, used, POSTFIX)}.{key(node.key)}"

    def _lay_index(self, node: nodes.Index, depth: int, used: int) -> str:
        target = self.expression(node.target, depth, used, POSTFIX)
        return f"{target}[{self.item(node.index, depth, after(target, used) + 1)}]"

    def _lay_unary(self, node: nodes.Unary, depth: int, used: int) -> str:
        sign = "not " if node.operator == "not" else node.operator
        return sign + self.expression(node.operand, depth, used + len(sign), NOT if sign == "not " else PREFIX)

    def _lay_binary(self, node: nodes.Binary, depth: int, used: int) -> str:
        level = LEVELS[node.operator]
        left, right = sides(node.operator)
        operands: list[tuple[str, nodes.Expression]] = []
        first: nodes.Expression = node
        while isinstance(first, nodes.Binary) and LEVELS[first.operator] == level and (not operands or left == level):
            operands.insert(0, (first.operator, first.right))
            first = first.left
        text = self.expression(first, depth, used, left)
        pad = INDENT * (depth + 1)
        for operator, operand in operands:
            head = f"{pad}{operator} "
            text += f"\n{head}{self.expression(operand, depth + 1, len(head), right)}"
        return text

    def _lay_is(self, node: nodes.Is, depth: int, used: int) -> str:
        return f"{self.expression(node.value, depth, used, sides('==')[0])} is {self.type_word(node)}"

    def _lay_conditional(self, node: nodes.Conditional, depth: int, used: int) -> str:
        pad = INDENT * (depth + 1)
        words = ("", "? ", ": ") if node.form == "?" else ("if ", "then ", "else ")
        parts = [self.expression(node.condition, depth, used + len(words[0]), OR if node.form == "?" else CONDITION)]
        for word, part in zip(words[1:], (node.then, node.otherwise), strict=True):
            parts.append(self.expression(part, depth + 1, len(pad) + len(word), CONDITION))
        if node.form == "?" and ENDS_IN_UNIT.search(parts[1]):
            parts[1] = f"({parts[1]})"
        return f"\n{pad}".join(word + part for word, part in zip(words, parts, strict=True))

    def _lay_where(self, node: nodes.Where, depth: int, used: int) -> str:
        text = self.item(node.collection, depth, used)
        if isinstance(node.collection, nodes.AnyOf):
            text = f"({text})"
        return text + self._condition("where", node.condition, depth)

    def _condition(self, word: str, node: nodes.Expression, depth: int) -> str:
        """`where c` on a line of its own."""
        head = f"{INDENT * (depth + 1)}{word} "
        return f"\n{head}{self.expression(node, depth + 1, len(head), CONDITION)}"

    def _lay_any_of(self, node: nodes.AnyOf, depth: int, used: int) -> str:
        text = f"any of {self.expression(node.collection, depth, used + 7, CONDITION)}"
        return text + self._condition("where", node.condition, depth) if node.condition else text

    def _lay_match(self, node: nodes.MatchExpression | nodes.MatchStep, depth: int, used: int) -> str:
        head = f"match {self.subject(node.subject)}"
        text = head + self.braced(node.arms, depth, used + len(head))
        if isinstance(node, nodes.MatchStep) and node.catch:
            text += " catch "
            text += self.braced(node.catch, depth, after(text, used))
        return text

    def _lay_match_arm(self, node: nodes.MatchExpressionArm, depth: int, used: int) -> str:
        head = f"{self._head(node, depth, used)} => "
        return head + self.item(node.value, depth, after(head, used))

    def _head(self, node: nodes.MatchExpressionArm | nodes.Arm, depth: int, used: int) -> str:
        text = self.expression(node.pattern, depth, used, CONDITION)
        if node.guard is None:
            return text
        guard = self.tight(node.guard, CONDITION)
        if self.fits(f"{text} where {guard} ->", used) and not self.breaks(node.guard):
            return f"{text} where {guard}"
        return text + self._condition("where", node.guard, depth)

    def _lay_value_pattern(self, node: nodes.ValuePattern, depth: int, used: int) -> str:
        text = self.text(node)
        return self.item(node.value, depth, used) if self.breaks(node) or not self.fits(text, used) else text

    # --- options and steps -------------------------------------------------------------------------------------------

    def _with_options(self, head: str, options: nodes.Options, depth: int, used: int) -> str:
        return f"{head} {self.braced(options, depth, after(head, used) + 1)}" if options else head

    def _lay_option(self, node: nodes.Option, depth: int, used: int) -> str:
        head = f"{key(node.key)}: "
        if self.misread_option(node, self.text(node.value)):
            return f"{head}({self.item(node.value, depth, used + len(head) + 1)})"
        return head + self.item(node.value, depth, used + len(head))

    def _lay_since(self, node: nodes.Since, depth: int, used: int) -> str:
        head = f"lastSync({self.text(node.key)})" if node.key else "lastSync"
        return self._with_options(head, node.options, depth, used)

    def _lay_paginate(self, node: nodes.Paginate, depth: int, used: int) -> str:
        return self._listed(f"{name(node.strategy.text)}(", node.arguments, ")", depth, used)

    def _lay_fetch(self, node: nodes.Fetch, depth: int, used: int) -> str:
        before = used + len(node.method) + 1 + (len(node.source.text) + 1 if node.source else 0)
        head = self.request(node, self.expression(node.path, depth, before, sides("==")[0]))
        return self._with_options(head, node.options, depth, used)

    def _lay_call_step(self, node: nodes.CallStep, depth: int, used: int) -> str:
        head = f"call {name(node.source.text)}.{key(node.operation.text)}"
        return self._with_options(head, node.options, depth, used)

    def _lay_delete(self, node: nodes.Delete, depth: int, used: int) -> str:
        head = f"delete {name(node.store.text)}["
        return f"{head}{self.item(node.key, depth, used + len(head))}]"

    def _lay_for(self, node: nodes.For, depth: int, used: int) -> str:
        head = self.loop(node)
        if self.breaks(node.collection) or any(map(self.breaks, node.conditions)) or not self.fits(head, used + 2):
            head = f"for {name(node.variable.text)} in "
            head += self.expression(node.collection, depth, used + len(head), CONDITION)
            for condition in node.conditions:
                head += self._condition("where", condition, depth)
            if node.checkpoint:
                head += self._condition("checkpoint every", node.checkpoint, depth)
            if node.parallel:
                head += " parallel"
        return f"{head} {self.braced(node.body, depth, after(head, used) + 1, comma='')}"

    def _lay_map(self, node: nodes.Map, depth: int, used: int) -> str:
        text = f"map {self.item(node.value, depth, used + 4)} -> {qualified(node.target.text)}"
        return f"{text} {self.item(node.mapping, depth, after(text, used) + 1)}" if node.mapping else text

    def _lay_apply(self, node: nodes.Apply, depth: int, used: int) -> str:
        head = f"apply {qualified(node.transform.text)} to "
        bound = f" as {name(node.name.text)}" if node.name else ""
        return f"{head}{self.item(node.value, depth, used + len(head))}{bound}"

    def _lay_validate(self, node: nodes.Validate, depth: int, used: int) -> str:
        head = f"validate {self.subject(node.target)}"
        text = head + self.braced(node.constraints, depth, after(head, used))
        if node.otherwise:
            text += " or "
            text += self._body(node.otherwise, depth, after(text, used))
        return text

    def _lay_assume(self, node: nodes.Assume, depth: int, used: int) -> str:
        if node.constraints:
            text = f"assume if {self.expression(node.condition, depth, used + 10, CONDITION)} "
            text += self.braced(node.constraints, depth, after(text, used))
        else:
            text = f"assume {self.item(node.condition, depth, used + 7)}"
        consequence = self.consequence(node)
        if node.message is None or (self.fits(consequence, after(text, used)) and not self.breaks(node.message)):
            return text + consequence
        head = f"{text} else {f'{node.severity} ' if node.severity else ''}"
        message = self.item(node.message, depth + 1, after(head, used))
        return f"{head}({message})" if consequence.endswith(")") and not message.endswith(")") else head + message

    def _lay_store_step(self, node: nodes.StoreStep, depth: int, used: int) -> str:
        value = self.item(node.value, depth, used + (11 if node.each else 6))
        return self._with_options(self.stored(node, value), node.options, depth, used)

    def _lay_block(self, node: nodes.Block, depth: int, used: int) -> str:
        return self.braced(node.steps, depth, used, comma="")

    def _lay_arm(self, node: nodes.Arm, depth: int, used: int) -> str:
        head = f"{self._head(node, depth, used)} -> "
        return head + self._body(node.body, depth, after(head, used))

    def _body(self, node: nodes.ArmBody, depth: int, used: int) -> str:
        if isinstance(node, nodes.Run) and self.is_bare(node):
            return self.body(node)
        return self.item(node, depth, used)

    def _lay_let(self, node: nodes.Let, depth: int, used: int) -> str:
        head = f"let {name(node.name.text)} = "
        return head + self.item(node.value, depth, used + len(head))

    def _lay_wait(self, node: nodes.Wait, depth: int, used: int) -> str:
        return f"wait {self.braced(node.options, depth, used + 5)}"

    def _lay_abort(self, node: nodes.Abort, depth: int, used: int) -> str:
        return f"abort {self.item(node.message, depth, used + 6)}" if node.message else "abort"

    def _lay_retry(self, node: nodes.Retry, depth: int, used: int) -> str:
        return self._with_options("retry", node.options, depth, used)

    def _lay_queue(self, node: nodes.Queue, depth: int, used: int) -> str:
        head = f"queue {name(node.store.text)}" if node.store else "queue"
        return self._with_options(head, node.options, depth, used)

    def _lay_jump(self, node: nodes.Jump, depth: int, used: int) -> str:
        head = f"jump {qualified(node.action.text)}{f' then {node.then}' if node.then else ''}"
        return self._with_options(head, node.options, depth, used)

    def _lay_run(self, node: nodes.Run, depth: int, used: int) -> str:
        text = f"run {self.item(node.stages[0], depth + 1, used + 4)}"
        for stage in node.stages[1:]:
            head = f"{INDENT * (depth + 1)}then "
            text += f"\n{head}{self.item(stage, depth + 1, len(head))}"
        return text

    def _lay_stage(self, node: nodes.Stage, depth: int, used: int) -> str:
        text = self._listed("[", node.actions, "]", depth, used) if node.parallel else self.text(node.actions[0])
        if node.condition is None:
            return text
        return f"{text} if {self.item(node.condition, depth, after(text, used) + 4)}"

    def _lay_extension(self, node: nodes.Extension, depth: int, used: int) -> str:
        head = f"{self.extension_word(node)} "
        return head + self.braced(node.options, depth, used + len(head))

    # --- types, schemas, transforms ----------------------------------------------------------------------------------

    def _lay_object_type(self, node: nodes.ObjectType, depth: int, used: int) -> str:
        return self.braced(node.fields, depth, used)

    def _lay_named_type(self, node: nodes.NamedType, depth: int, used: int) -> str:
        if node.element is None:
            return self.text(node)
        head = f"{qualified(node.name.text)}<"
        rest = self.text(node).removeprefix(f"{head}{self.text(node.element)}")
        return f"{head}{self.item(node.element, depth, used + len(head))}{rest}"

    def _lay_counted_type(self, node: nodes.CountedType, depth: int, used: int) -> str:
        head = self.text(node).removesuffix(self.text(node.element))
        return head + self.item(node.element, depth, used + len(head))

    def _lay_optional_type(self, node: nodes.OptionalType, depth: int, used: int) -> str:
        inner = self.item(node.inner, depth, used)
        return f"{inner} ?" if inner.endswith("?") else f"{inner}?"

    def _lay_union_type(self, node: nodes.UnionType, depth: int, used: int) -> str:
        pad = INDENT * (depth + 1)
        parts = [self.item(node.alternatives[0], depth, used)]
        parts += [self.item(part, depth + 1, len(pad) + 2) for part in node.alternatives[1:]]
        return f"\n{pad}| ".join(parts)

    def _lay_field(self, node: nodes.SchemaField, depth: int, used: int) -> str:
        head = f"{key(node.key)}: "
        text = head + self.item(node.type, depth, used + len(head))
        conditions = self.field_conditions(node)
        lined = any(self.breaks(c) for c in (node.when, node.where) if c)
        if self.fits(conditions, after(text, used)) and not lined:
            return text + conditions
        if node.when:
            text += self._condition("when", node.when, depth)
        return text + self._condition("where", node.where, depth) if node.where else text

    def _lay_refinement(self, node: nodes.Refinement, depth: int, used: int) -> str:
        text = f"if {self.expression(node.condition, depth, used + 3, CONDITION)} "
        return text + self.braced(node.fields, depth, after(text, used))

    def _lay_schema(self, node: nodes.SchemaDef, depth: int, used: int) -> str:
        head = f"{self.schema_head(node)} "
        text = head + self.braced(node.fields, depth, used + len(head))
        if node.refinements:
            text += " refine "
            text += self.braced(node.refinements, depth, after(text, used))
        return text

    def _lay_variant(self, node: nodes.Variant, depth: int, used: int) -> str:
        head = f"{self.variant_head(node)} "
        return head + self.item(node.mapping, depth, used + len(head))

    def _lay_transform(self, node: nodes.TransformDef, depth: int, used: int) -> str:
        if self.is_short(node):
            head = f"{self.short_head(node)} "
            return head + self.item(node.variants[0].mapping, depth, used + len(head))
        head = f"transform {name(node.name.text)} "
        return head + self.braced(node.variants, depth, used + len(head), comma="")

    # --- declarations ------------------------------------------------------------------------------------------------

    def _lay_source(self, node: nodes.SourceDef, depth: int, used: int) -> str:
        head = f"source {name(node.name.text)}"
        if node.spec:
            head += " from "
            head += self.item(node.spec, depth, used + len(head))
        return self._with_options(head, node.options, depth, used)

    def _lay_store(self, node: nodes.StoreDef, depth: int, used: int) -> str:
        head = f"store {name(node.name.text)}: "
        return head + self.item(node.adapter, depth, used + len(head))

    def _lay_action(self, node: nodes.ActionDef, depth: int, used: int) -> str:
        head = f"action {name(node.name.text)} "
        parts = sorted((*node.options, *node.steps), key=lambda part: part.span.start)
        return head + self.braced(parts, depth, used + len(head), comma="")

    def _lay_schedule(self, node: nodes.Schedule, depth: int, used: int) -> str:
        return self._with_options(self.due(node), node.options, depth, used)

    def _lay_mission(self, node: nodes.MissionDef, depth: int, used: int) -> str:
        head = f"mission {name(node.name.text)} "
        return head + self.braced(node.clauses, depth, used + len(head), comma="", wide=True)


def after(text: str, used: int) -> int:
    """The columns used behind a text that began after `used` ones."""
    line = text.rfind("\n")
    return used + len(text) if line < 0 else len(text) - line - 1


# What may begin on the line of the bracket or call around it and end on the line of its closing bracket.
_HUGGED = (nodes.ObjectLiteral, nodes.ArrayLiteral, nodes.MatchExpression, nodes.Lambda, nodes.ObjectPattern)
_METHODS: dict[type[nodes.Node], str] = {
    nodes.ObjectLiteral: "object",
    nodes.ObjectPattern: "object",
    nodes.Entry: "entry",
    nodes.PatternEntry: "pattern_entry",
    nodes.ArrayLiteral: "array",
    nodes.ArrayPattern: "array",
    nodes.Call: "call",
    nodes.Spread: "spread",
    nodes.Lambda: "lambda",
    nodes.Member: "member",
    nodes.Index: "index",
    nodes.Unary: "unary",
    nodes.Binary: "binary",
    nodes.Is: "is",
    nodes.Conditional: "conditional",
    nodes.Where: "where",
    nodes.AnyOf: "any_of",
    nodes.MatchExpression: "match",
    nodes.MatchExpressionArm: "match_arm",
    nodes.ValuePattern: "value_pattern",
    nodes.Option: "option",
    nodes.Since: "since",
    nodes.Paginate: "paginate",
    nodes.Fetch: "fetch",
    nodes.CallStep: "call_step",
    nodes.Delete: "delete",
    nodes.For: "for",
    nodes.Map: "map",
    nodes.Apply: "apply",
    nodes.Validate: "validate",
    nodes.Assume: "assume",
    nodes.StoreStep: "store_step",
    nodes.Block: "block",
    nodes.Arm: "arm",
    nodes.MatchStep: "match",
    nodes.Let: "let",
    nodes.Wait: "wait",
    nodes.Abort: "abort",
    nodes.Retry: "retry",
    nodes.Queue: "queue",
    nodes.Jump: "jump",
    nodes.Run: "run",
    nodes.Stage: "stage",
    nodes.Extension: "extension",
    nodes.ObjectType: "object_type",
    nodes.NamedType: "named_type",
    nodes.CountedType: "counted_type",
    nodes.OptionalType: "optional_type",
    nodes.UnionType: "union_type",
    nodes.SchemaField: "field",
    nodes.Refinement: "refinement",
    nodes.SchemaDef: "schema",
    nodes.Variant: "variant",
    nodes.TransformDef: "transform",
    nodes.SourceDef: "source",
    nodes.StoreDef: "store",
    nodes.ActionDef: "action",
    nodes.Schedule: "schedule",
    nodes.MissionDef: "mission",
}
