"""Tokens to the patterns of match arms (spec/language.md 2.7, 7.8)."""

from typing import Any

from reqon.lang.cursor import Cursor
from reqon.lang.lexer import NUMBER, RESERVED, STRING
from reqon.lang.nodes import (
    ArrayPattern,
    Expression,
    LiteralPattern,
    NamePattern,
    ObjectPattern,
    Pattern,
    PatternEntry,
    ValuePattern,
    Wildcard,
)

CONSTANTS: dict[str, Any] = {"true": True, "false": False, "null": None}


class PatternParser(Cursor):
    """Reads patterns."""

    def operand(self) -> Expression:
        """An expression without infix operators, which a value pattern is."""
        raise NotImplementedError

    def arrow_hint(self) -> str | None:
        """What to do when an arrow was expected but this comes next."""
        if self.kind == ":":
            return "a match that begins with '{' has no subject; an object goes in parentheses: match ({ … }) { … }"
        if self.kind in ("..", "<", "<=", ">", ">=", "==", "!="):
            return f"name the value and test it: n where n {self.kind if self.kind != '..' else 'in a..b'} …"
        return "write one arm for each alternative" if self.kind in ("|", "or") else None

    def pattern(self) -> Pattern:
        """A pattern of an arm with a subject."""
        token = self.token
        kind = token.kind
        if kind == "_":
            self.advance()
            return Wildcard(span=self.span_of(token))
        if kind in (STRING, NUMBER, "-") or kind in CONSTANTS:
            return LiteralPattern(self.constant("a literal"), span=self.span(token.start))
        if kind == "[":
            return self._array_pattern()
        if kind == "{":
            return self._object_pattern()
        if kind == "." or (self.is_name() and self._is_value_pattern()):
            return ValuePattern(self.operand(), span=self.span(token.start))
        name = self.qualified("a pattern")
        return NamePattern(name, span=name.span)

    def constant(self, what: str) -> Any:
        """A literal: a string, a number with its sign, true, false or null."""
        if self.kind == "-" and self.peek().kind == NUMBER:
            self.advance()
            return -self.advance().value
        if self.kind in (STRING, NUMBER):
            return self.advance().value
        if self.kind in CONSTANTS:
            return CONSTANTS[self.advance().kind]
        raise self.mismatch(what)

    def _is_value_pattern(self) -> bool:
        """Whether the name that comes next begins a call or an index: `f(…)`, `a.b[0]`, ``a.`b c` ``."""
        at, plain = self.at + 1, True
        while self.tokens[at].kind == "." and not self.tokens[at].breaks:
            kind = self.tokens[at + 1].kind
            plain = plain and kind.isidentifier() and kind not in RESERVED
            at += 2
            if at >= len(self.tokens):
                return True
        after = self.tokens[at]
        appended = after.kind == "(" or (after.kind == "[" and at > self.at + 1)
        return not plain or (appended and not after.breaks)

    def _array_pattern(self) -> Pattern:
        opening = self.advance()
        joined, self.joined = self.joined, True
        self.deeper()
        found: list[Pattern] = []
        while self.kind != "]":
            found.append(self.pattern())
            if not self.take(","):
                break
        self.close("]", opening)
        self.joined = joined
        self.shallower()
        return ArrayPattern(tuple(found), span=self.span(opening.start))

    def _object_pattern(self) -> Pattern:
        opening = self.advance()
        joined, self.joined = self.joined, False
        self.deeper()
        found: list[PatternEntry] = []
        while self.more(opening):
            token = self.entry_key("a key of the pattern")
            self.expect(":", f"':' after the key '{token.value}'")
            pattern = self.pattern()
            found.append(PatternEntry(token.value, pattern, span=self.span(token.start)))
            self.take(",")
        self.joined = joined
        self.shallower()
        return ObjectPattern(tuple(found), span=self.span(opening.start))
