"""Tokens to expressions, by precedence climbing (spec/language.md 2.9, 3.1)."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from reqon.diagnostics import Source
from reqon.lang.cursor import MAX_NESTING, Mismatch
from reqon.lang.lexer import NUMBER, QUOTED, RESERVED, STRING, TIME_UNITS, Lexed, Token
from reqon.lang.match_patterns import CONSTANTS, PatternParser
from reqon.lang.nodes import (
    AnyOf,
    Argument,
    ArrayLiteral,
    Binary,
    Call,
    Conditional,
    Current,
    DurationLiteral,
    Entry,
    Expression,
    Index,
    Is,
    Lambda,
    Literal_,
    MatchExpression,
    MatchExpressionArm,
    Member,
    Name,
    Node,
    ObjectLiteral,
    Pattern,
    Qualified,
    Range,
    Spread,
    Unary,
    Where,
    Word,
)
from reqon.lang.walk import children

# Levels of the operator table, loosest first; an operand of level n takes operators from n on.
WHERE, CONDITION, OR, AND, NOT, COMPARISON, COALESCE, PIPE, RANGE, ADDITIVE, TERM = range(1, 12)
LEVELS: dict[str, int] = (
    {"where": WHERE, "?": CONDITION, "or": OR, "and": AND, "??": COALESCE, "|": PIPE, "..": RANGE}
    | dict.fromkeys(["==", "!=", "<", "<=", ">", ">=", "contains", "startsWith", "endsWith", "in", "is"], COMPARISON)
    | dict.fromkeys("+-", ADDITIVE)
    | dict.fromkeys("*/%", TERM)
)
_PLAIN = frozenset([OR, AND, ADDITIVE, TERM])
_INFIX_WORDS = frozenset(word for word in LEVELS if word.isidentifier())
_PREFIXES = frozenset("-+!")

# Blocks, brackets and operators above one another may be this many: whatever walks a tree recurses.
MAX_HEIGHT = 2 * MAX_NESTING

N = TypeVar("N", bound=Node)


class ExpressionParser(PatternParser):
    """Reads expressions. `expression` and `condition` are for those who begin one; all else is on the way down."""

    def __init__(self, source: Source, lexed: Lexed) -> None:
        super().__init__(source, lexed)
        self._ranges: list[Range] = []  # those that no `in` has claimed

    def expression(self) -> Expression:
        """`expr` of the grammar: a condition and its infix `where`s."""
        first = self.at
        return self.checked(self.operators(WHERE), first)

    def condition(self) -> Expression:
        """`cond`: an expression up to an infix `where`, which belongs to the construct around it."""
        first = self.at
        return self.checked(self.operators(CONDITION), first)

    def bound(self) -> Expression:
        """An end of a range."""
        first = self.at
        return self.checked(self.operators(ADDITIVE), first)

    def arm_pattern(self) -> Pattern:
        """The pattern of an arm of a match step."""
        first = self.at
        return self.checked(self.pattern(), first)

    def checked(self, found: N, first: int) -> N:
        """What can be said of an expression only when it is complete; it began at token `first`."""
        if self._ranges:
            for part in self._ranges:
                hint = "a range stands after 'in': x in 1..5"
                self.report("range-not-allowed", "a range is not allowed here", part.span, hint)
            self._ranges.clear()
        # Few tokens cannot make a high tree, so that nearly no expression is measured.
        if self.at - first > MAX_NESTING and _height(found) > (limit := MAX_HEIGHT - self.depth):
            message = f"the expression is nested more than {limit} levels deep; each operator of a chain is one"
            self.report("syntax", message, self.span_of(self.tokens[first]), "name parts of it with 'let'")
            raise Mismatch
        return found

    def recover(self, first: int, begins: Callable[[], bool]) -> None:
        self._ranges.clear()
        super().recover(first, begins)

    # --- operators ---------------------------------------------------------------------------------------------------

    def operators(self, least: int) -> Expression:
        """An operand and all that operators of level `least` or tighter join to it."""
        start = self.token.start
        left = self._negation(least) if self.kind == "not" else self.operand()
        compared = False
        while (level := LEVELS.get(self.kind, 0)) >= least:
            operator = self.token
            if operator.kind in _INFIX_WORDS and self.peek().kind == ":":
                break
            self.advance()
            if level in _PLAIN:
                right = self.operators(level + 1)
                left = Binary(operator.kind, left, right, self.span_of(operator), span=self.span(start))
            elif level == COMPARISON:
                if compared:
                    hint = "write: a < b and b < c"
                    self.report("comparison-chain", "comparisons cannot be chained", self.span_of(operator), hint)
                compared = True
                left = self._comparison(left, operator, start)
            else:
                left = self._special(level, left, operator, start)
        return left

    def _negation(self, least: int) -> Expression:
        if least > NOT:
            raise self.mismatch("a value", "put the negation in parentheses: (not …)")
        token = self.advance()
        self.deeper()
        operand = self.operators(NOT)
        self.shallower()
        return Unary("not", operand, span=self.span(token.start))

    def _comparison(self, left: Expression, operator: Token, start: int) -> Expression:
        if operator.kind == "is":
            return Is(left, self._type_word(), span=self.span(start))
        right = self.operators(COALESCE)
        if operator.kind == "in" and type(right) is Range:
            self._ranges.remove(right)
        return Binary(operator.kind, left, right, self.span_of(operator), span=self.span(start))

    def _type_word(self) -> Qualified:
        token = self.token
        if token.kind == "not" and self.peek().kind.isidentifier() and not self.peek().breaks:
            raise self.mismatch("a type after 'is'", "write: not (x is T)")
        if self.is_name():
            return self.qualified("a type after 'is'")
        word = self.key("a type after 'is'")
        return Qualified(text=word.value, span=self.span_of(word))

    def _special(self, level: int, left: Expression, operator: Token, start: int) -> Expression:
        if level == WHERE:
            condition = self.operators(CONDITION)
            return Where(left, condition, span=self.span(start))
        if level == PIPE:
            return self._pipe(left, start)
        if level == RANGE:
            high = self.operators(ADDITIVE)
            found = Range(left, high, span=self.span(start))
            self._ranges.append(found)
            return found
        if level == COALESCE:
            return self._coalesce(left, operator, start)
        self.deeper()
        then = self.operators(CONDITION)
        self.expect(":", "':' and the other value of the conditional")
        otherwise = self.operators(CONDITION)
        self.shallower()
        return Conditional(left, then, otherwise, "?", span=self.span(start))

    def _coalesce(self, first: Expression, operator: Token, start: int) -> Expression:
        """`a ?? b ?? c` is `a ?? (b ?? c)`; read in a loop, for a chain is no nesting."""
        lefts = [(first, operator, start)]
        start = self.token.start
        last = self.operators(PIPE)
        while self.kind == "??":
            lefts.append((last, self.advance(), start))
            start = self.token.start
            last = self.operators(PIPE)
        for left, mark, begin in reversed(lefts):
            last = Binary("??", left, last, self.span_of(mark), span=self.span(begin))
        return last

    def _pipe(self, left: Expression, start: int) -> Expression:
        token = self.token
        call = self.operand()
        if type(call) is Call and call.form == "plain":
            return Call(call.name, (left, *call.arguments), "pipe", span=self.span(start))
        span = self.span(token.start)
        hint = f"write: {span.text}()" if type(call) is Name else "for example: xs | first()"
        self.report("pipe-needs-call", "the right side of '|' must be a call of a function", span, hint)
        return left

    # --- operands ----------------------------------------------------------------------------------------------------

    def operand(self) -> Expression:
        """`unary`: prefix signs, a primary, and what is appended to it by `.`, `[` and `(`."""
        token = self.token
        kind, start = token.kind, token.start
        found: Expression
        if kind == ".":
            self.advance()
            key = self.key("a field name after '.'", "an element is read by [n]" if self.kind == NUMBER else None)
            found = Member(Current(span=self.span_of(token)), key.value, span=self.span(start))
        elif kind == STRING:
            self.advance()
            found = Literal_(token.value, span=self.span_of(token))
        elif kind == NUMBER:
            found = self._number()
        elif kind in _PREFIXES:
            self.advance()
            self.deeper()
            operand = self.operand()
            self.shallower()
            return Unary(kind, operand, span=self.span(start))
        elif kind == QUOTED or (kind not in RESERVED and kind.isidentifier()):
            found = self._name()
        else:
            found = self._other()
        kind = self.kind
        if kind == "." or kind == "[":  # noqa: PLR1714  # per operand; two comparisons beat a set
            return self._appended(found, start)
        return found

    def _appended(self, target: Expression, start: int) -> Expression:
        while (kind := self.kind) in (".", "[") and (self.joined or not self.token.breaks):
            if kind == "[":
                index = self._enclosed("]")
                target = Index(target, index, span=self.span(start))
                continue
            self.advance()
            hint = "an element is read by [n]" if self.kind == NUMBER else None
            key = self.key("a field name after '.'", hint)
            if self.on_this_line("("):
                name = Word(text=key.value, span=self.span_of(key))
                target = Call(name, (target, *self._arguments()), "method", span=self.span(start))
            else:
                target = Member(target, key.value, span=self.span(start))
        return target

    def _enclosed(self, closing: str) -> Expression:
        """An expression in parentheses or brackets, whose opening one is the next token."""
        opening = self.advance()
        joined, self.joined = self.joined, True
        self.deeper()
        found = self.operators(WHERE)
        self.close(closing, opening)
        self.joined = joined
        self.shallower()
        return found

    def _number(self) -> Expression:
        token = self.advance()
        unit = self.token
        if unit.kind in TIME_UNITS and not unit.breaks and self.peek().kind not in (":", "("):
            self.advance()
            return DurationLiteral(token.value, TIME_UNITS[unit.kind], span=self.span(token.start))
        return Literal_(token.value, span=self.span_of(token))

    def _name(self) -> Expression:
        token = self.advance()
        if self.kind == "(" and not self.token.breaks:
            word = Word(text=token.value, span=self.span_of(token))
            return Call(word, self._arguments(), span=self.span(token.start))
        if token.kind == "any" and self.kind == "of" and self.peek().kind != ":":
            return self._any_of(token)
        if token.kind == "_":
            self.go_to(self.at - 1)
            raise self.mismatch("a value", "'_' matches anything and has no value")
        return Name(token.value, span=self.span_of(token))

    def _any_of(self, token: Token) -> Expression:
        self.advance()
        self.deeper()
        collection = self.operators(CONDITION)
        condition = self.operators(CONDITION) if self.take_word("where") else None
        self.shallower()
        return AnyOf(collection, condition, span=self.span(token.start))

    def _other(self) -> Expression:
        """Brackets, braces and reserved words."""
        token = self.token
        kind = token.kind
        if kind == "(":
            return self._enclosed(")")
        if kind == "[":
            return self._array()
        if kind == "{":
            return self.object_literal()
        if kind in CONSTANTS:
            self.advance()
            return Literal_(CONSTANTS[kind], span=self.span_of(token))
        if kind == "match":
            return self._match()
        if kind == "if":
            return self._if()
        if kind == "not":
            raise self.mismatch("a value", "put the negation in parentheses: (not …)")
        raise self.mismatch(
            "a value", f"'{kind}' is a reserved word; as a name write `{kind}`" if kind in RESERVED else None
        )

    def _if(self) -> Expression:
        start = self.advance().start
        self.deeper()
        condition = self.operators(CONDITION)
        self.expect("then", "'then' and a value after the condition")
        then = self.operators(CONDITION)
        self.expect("else", "'else' and the other value")
        otherwise = self.operators(CONDITION)
        self.shallower()
        return Conditional(condition, then, otherwise, span=self.span(start))

    # --- arrays, objects, arguments ----------------------------------------------------------------------------------

    def _array(self) -> Expression:
        opening = self.advance()
        joined, self.joined = self.joined, True
        self.deeper()
        elements: list[Expression | Spread] = []
        while self.kind != "]":
            elements.append(self._spread() if self.kind == "..." else self.operators(WHERE))
            if not self.take(","):
                break
        self.close("]", opening)
        self.joined = joined
        self.shallower()
        return ArrayLiteral(tuple(elements), span=self.span(opening.start))

    def _spread(self) -> Spread:
        dots = self.advance()
        if not self.starts_value():
            self.go_to(self.at - 1)
            raise self.mismatch("a value")
        value = self.operand()
        return Spread(value, span=self.span(dots.start))

    def object_literal(self) -> ObjectLiteral:
        """`{ … }` with its entries separated by commas or line breaks."""
        opening = self.advance()
        joined, self.joined = self.joined, False
        self.deeper()
        entries: list[Entry | Spread] = []
        while self.more(opening):
            entries.append(self.entry())
            if not self.take(",") and self.kind != "}" and not self.token.breaks:
                raise self.mismatch("',' or a line break between entries")
        self.joined = joined
        self.shallower()
        return ObjectLiteral(tuple(entries), span=self.span(opening.start))

    def entry(self) -> Entry | Spread:
        """`key: value` or `...value`."""
        if self.kind == "...":
            return self._spread()
        token = self.entry_key("a key")
        self.expect(":", f"':' after the key '{token.value}'")
        value = self.operators(WHERE)
        return Entry(token.value, value, self.span_of(token), span=self.span(token.start))

    def _arguments(self) -> tuple[Argument, ...]:
        opening = self.advance()
        joined, self.joined = self.joined, True
        self.deeper()
        found: list[Argument] = []
        while self.kind != ")":
            if self.kind == "...":
                found.append(self._spread())
            else:
                parameters = self._parameters()
                found.append(self._lambda(parameters) if parameters else self.operators(WHERE))
            if not self.take(","):
                break
        self.close(")", opening)
        self.joined = joined
        self.shallower()
        return tuple(found)

    def _parameters(self) -> Sequence[Token]:
        """The parameters, if a function comes next: `x =>` or `(x, y) =>`. Takes nothing."""
        if self.kind != "(":
            named = self.kind == QUOTED or self.kind.isidentifier()
            return (self.token,) if named and self.peek().kind == "=>" else ()
        names, at = [], self.at + 1
        while self.tokens[at].kind.isidentifier() or self.tokens[at].kind == QUOTED:
            names.append(self.tokens[at])
            at += 1
            if self.tokens[at].kind != ",":
                break
            at += 1
        closed = self.tokens[at].kind == ")" and self.tokens[at + 1].kind == "=>"
        return names if closed and self.tokens[at - 1].kind != "," else ()

    def _lambda(self, parameters: Sequence[Token]) -> Lambda:
        start = self.token.start
        words: list[Word] = []
        for token in parameters:
            while self.token is not token:
                self.advance()
            words.append(self.declared_name("parameter"))
        while self.advance().kind != "=>":
            pass
        self.deeper()
        body = self.operators(WHERE)
        self.shallower()
        return Lambda(tuple(words), body, span=self.span(start))

    # --- match ------------------------------------------------------------------------------------------

    def _match(self) -> Expression:
        start = self.advance().start
        self.deeper()
        subject = None if self.kind == "{" else self.operators(CONDITION)
        opening = self.expect("{", "'{' and the arms of the match")
        joined, self.joined = self.joined, False
        arms: list[MatchExpressionArm] = []
        while self.more(opening):
            arms.append(self._match_arm(subject is not None))
            self.take(",")
        self.joined = joined
        self.shallower()
        return MatchExpression(subject, tuple(arms), span=self.span(start))

    def _match_arm(self, has_subject: bool) -> MatchExpressionArm:
        start = self.token.start
        pattern: Pattern | Expression
        pattern = self.pattern() if has_subject or self.kind == "_" else self.operators(CONDITION)
        guard = self.operators(CONDITION) if self.take_word("where") else None
        if self.kind == "->":
            hint = "arms of a match expression use '=>'; '->' belongs to match steps"
            self.report("syntax", "unexpected '->' in a match expression", self.span_of(self.token), hint)
            self.advance()
        else:
            self.expect("=>", "'=>' after the pattern", self.arrow_hint())
        value = self.operators(WHERE)
        return MatchExpressionArm(pattern, guard, value, span=self.span(start))


def _height(node: Node) -> int:
    """Levels of a tree, counted without recursion."""
    height, level = 0, [node]
    while level:
        height += 1
        level = [child for parent in level for child in children(parent)]
    return height
