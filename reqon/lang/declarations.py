"""Tokens to sources, stores, schemas, transforms, actions and schedules (spec/language.md 2.2 to 2.6)."""

from typing import Literal

from reqon.diagnostics import nearest
from reqon.lang.lexer import END, NUMBER, STRING, TIME_UNITS
from reqon.lang.nodes import (
    ActionDef,
    CountedType,
    LiteralType,
    NamedType,
    ObjectType,
    Option,
    OptionalType,
    Qualified,
    Refinement,
    Schedule,
    SchemaDef,
    SchemaField,
    SchemaPart,
    SchemaSpread,
    SourceDef,
    Step,
    StoreDef,
    TransformDef,
    Type,
    UnionType,
    Variant,
)
from reqon.lang.steps import StepParser

_INTERVAL_UNITS = ("seconds", "minutes", "hours", "days", "weeks")
_GENERATING = frozenset(["unique", "private"])
_GENERATING_HINT = "Reqon checks data and does not generate it; name only the type"


class DeclarationParser(StepParser):
    """Reads declarations."""

    # --- sources, stores, actions ------------------------------------------------------------------------------------

    def source_def(self) -> SourceDef:
        start = self.advance().start
        name = self.declared_name("source")
        spec = self.expression() if self.take_word("from") else None
        return SourceDef(name, spec, self.optional_options(), span=self.span(start))

    def store_def(self) -> StoreDef:
        start = self.advance().start
        name = self.declared_name("store")
        self.expect(":", f"':' and an adapter, as in: store {name.text}: file(\"{name.text}\")")
        return StoreDef(name, self.expression(), span=self.span(start))

    def action(self) -> ActionDef:
        start = self.advance().start
        name = self.declared_name("action")
        opening = self.expect("{", "'{' and the steps of the action")
        parts = self.items(opening, self._action_part, self.begins_step)
        options = tuple(part for part in parts if isinstance(part, Option))
        steps = tuple(part for part in parts if not isinstance(part, Option))
        return ActionDef(name, options, steps, span=self.span(start))

    def _action_part(self) -> Step | Option:
        return self.option() if self.peek().kind == ":" else self.step()

    # --- schedule ----------------------------------------------------------------------------------------------------

    def schedule(self) -> Schedule:
        start = self.advance().start
        self.expect(":", "':' after 'schedule'")
        when = self.token.start
        kind: Literal["every", "cron", "at"]
        amount, unit, text = None, None, None
        if self.take("every"):
            kind = "every"
            amount, unit = self._interval()
        elif self.kind in ("cron", "at"):
            kind = "cron" if self.advance().kind == "cron" else "at"
            text = self.expect(STRING, f"a string after '{kind}'").value
        else:
            raise self.mismatch(
                "'every', 'cron' or 'at'", 'for example: schedule: every 6 hours, schedule: cron "0 2 * * *"'
            )
        when_span = self.span(when)
        options = self.optional_options()
        return Schedule(kind, amount, unit, text, options, when_span, span=self.span(start))

    def _interval(self) -> tuple[int | float, str | None]:
        number = self.expect(NUMBER, "a number after 'every'")
        word = self.token.kind
        if word in TIME_UNITS and TIME_UNITS[word] not in ("ms", "milliseconds"):
            self.advance()
            return number.value, TIME_UNITS[word]
        message = f"'every {number.value}' needs a unit: seconds, minutes, hours, days or weeks"
        hint, span = f"for example: every {number.value} minutes", self.span_of(number)
        if self.kind.isidentifier() and not self.token.breaks and self.peek().kind != ":":
            if meant := nearest(word, _INTERVAL_UNITS):
                hint, span = f"did you mean 'every {number.value} {meant}'?", self.span_of(self.token)
            self.advance()
        self.report("bad-duration", message, span, hint)
        return number.value, None

    # --- schemas -----------------------------------------------------------------------------------------------------

    def schema(self) -> SchemaDef:
        start = self.advance().start
        name = self.declared_name("schema")
        base = self.qualified("the name of a schema after 'from'") if self.take("from") else None
        fields = self.fields()
        refinements: list[Refinement] = []
        if self.kind == "refine" and self.peek().kind == "{":
            self.advance()
            refinements = self.items(self.advance(), self._refinement, lambda: self.kind == "if")
        return SchemaDef(name, base, fields, tuple(refinements), span=self.span(start))

    def _refinement(self) -> Refinement:
        start = self.expect("if", "'if', a condition and fields").start
        condition = self.condition()
        return Refinement(condition, self.fields(), span=self.span(start))

    def fields(self) -> tuple[SchemaPart, ...]:
        """`{ fields }` of a schema or an inline object type."""
        opening = self.expect("{", "'{' and the fields")
        return tuple(self.items(opening, self._field, self._begins_field))

    def _begins_field(self) -> bool:
        return self.begins_entry() or self.begins_assume() or (self.token.breaks and self.kind == "...")

    def _field(self) -> SchemaPart:
        start = self.token.start
        if self.kind == "..." and self.peek().kind.isidentifier():
            self.advance()
            base = self.qualified("the name of a schema after '...'")
            return SchemaSpread(base, span=self.span(start))
        if self.begins_assume():
            return self.assume()
        if self.kind in _GENERATING and self.peek().kind.isidentifier() and not self.peek().breaks:
            self._generating(f"'{self.kind}'")
            self.advance()
        key = self.key("a field")
        self.expect(":", f"':' and a type after the field '{key.value}'")
        found = self.type()
        if self.kind == "~":
            self._generating("'~'")
            self._generated()
        when = self.condition() if self.take_word("when") else None
        where = self.condition() if self.take_word("where") else None
        return SchemaField(key.value, found, when, where, self.span_of(key), span=self.span(start))

    def _generating(self, what: str) -> None:
        message = f"{what} is for generated data"
        self.report("vague-generation", message, self.span_of(self.token), _GENERATING_HINT)

    # --- types -------------------------------------------------------------------------------------------------------

    def type(self) -> Type:
        """`A | B`, or the one alternative itself."""
        start = self.token.start
        self.deeper()
        alternatives = [self._type_atom()]
        while self.take("|"):
            alternatives.append(self._type_atom())
        self.shallower()
        return alternatives[0] if len(alternatives) == 1 else UnionType(tuple(alternatives), span=self.span(start))

    def _type_atom(self) -> Type:
        start = self.token.start
        found = self._type_base()
        if self.on_this_line("?"):
            self.advance()
            return OptionalType(found, span=self.span(start))
        return found

    def _type_base(self) -> Type:
        token = self.token
        if token.kind == "{":
            return ObjectType(self.fields(), span=self.span(token.start))
        if token.kind == NUMBER:
            after = self.peek()
            if after.kind == ":":
                self._generating("a weight")
                self.go_to(self.at + 2)
                return self._type_base()
            if after.kind == ".." or (after.kind == "of" and self.peek(2).kind != ":"):
                return self._counted()
        if token.kind == "~":
            self._generating("'~'")
            self.advance()
            return self._generated()
        if not self.is_name():
            return LiteralType(self.constant("a type"), span=self.span(token.start))
        if token.kind in _GENERATING and self.peek().kind.isidentifier() and not self.peek().breaks:
            self._generating(f"'{token.kind}'")
            self.advance()
        return self._named()

    def _counted(self) -> Type:
        start = self.token.start
        self.deeper()
        least = self._count()
        most = self._count() if self.take("..") else least
        self.expect("of", "'of' and a type after the count")
        element = self._type_atom()
        self.shallower()
        return CountedType(least, most, element, span=self.span(start))

    def _count(self) -> int:
        token = self.expect(NUMBER, "a number of elements")
        if isinstance(token.value, int):
            return token.value
        self.report("syntax", "a number of elements is a whole number", self.span_of(token))
        return 0

    def _named(self) -> Type:
        start = self.token.start
        name = self.qualified("a type")
        element, precision, low, high = None, None, None, None
        if self.take("<"):
            element = self.type()
            self.expect(">", "'>' after the type of the elements")
        if self.on_this_line("("):
            if self.peek().kind != NUMBER or self.peek(2).kind != ")":
                return self._generator(name)
            self.advance()
            precision = self._count()
            self.advance()
        if self.take_word("in"):
            low = self.bound()
            self.expect("..", "'..' and the upper end of the range")
            high = self.bound()
        return NamedType(name, element, precision, low, high, span=self.span(start))

    def _generator(self, name: Qualified) -> Type:
        span = name.span
        self.report("vague-generation", f"'{name.text}(…)' is for generated data", span, _GENERATING_HINT)
        return self._generated()

    def _generated(self) -> Type:
        """Skip a generator call; any value fits."""
        start, level = self.token.start, 0
        while self.kind != END:
            if self.kind in ("(", "["):
                level += 1
            elif self.kind in (")", "]"):
                level -= 1
            elif self.kind in ("{", "}") or (level <= 0 and (self.kind in (",", "|") or self.token.breaks)):
                break
            self.advance()
        span = self.span(start)
        return NamedType(Qualified("any", span=span), None, None, None, None, span=span)

    # --- transforms --------------------------------------------------------------------------------------------------

    def transform(self) -> TransformDef:
        start = self.advance().start
        name = self.declared_name("transform")
        if self.kind == "{":
            variants = self.items(self.advance(), self._variant, lambda: self.token.breaks and self.kind == "(")
            return TransformDef(name, tuple(variants), span=self.span(start))
        begin = self.token.start
        schema = self.qualified("the name of a schema after ':'") if self.take(":") else None
        variant = self._variant_of(schema, begin, guarded=False)
        return TransformDef(name, (variant,), span=self.span(start))

    def _variant(self) -> Variant:
        start = self.expect("(", "'(' and the schema of a variant").start
        schema = self.qualified("the name of a schema, or '_'")
        self.expect(")")
        return self._variant_of(None if schema.text == "_" else schema, start, guarded=True)

    def _variant_of(self, schema: Qualified | None, start: int, *, guarded: bool) -> Variant:
        guard = self.condition() if guarded and self.take_word("where") else None
        expected = "'->' and the target" if guarded or schema else "':' and a schema, '->' and a target, or '{'"
        self.expect("->", expected)
        target = self.qualified("the name of the target")
        return Variant(schema, guard, target, self.mapping(), span=self.span(start))
