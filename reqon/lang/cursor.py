"""Reading tokens: what every part of the parser needs to look ahead, complain in words, and go on after an error."""

from collections.abc import Callable, Container, Mapping
from typing import NoReturn, TypeVar

from reqon.diagnostics import Diagnostic, Severity, Source, Span
from reqon.lang.lexer import END, MAX_DIAGNOSTICS, NUMBER, QUOTED, RESERVED, STRING, Lexed, Token
from reqon.lang.nodes import Qualified, Word

MAX_NESTING = 100
_LOOKS = 10

# Words that declare, with what follows the name then: where such a line begins inside a block, a '}' is missing.
_DECLARING: Mapping[str, tuple[str, ...]] = {
    "mission": ("{",),
    "action": ("{",),
    "schema": ("{", "from"),
    "transform": ("{", ":", "->"),
    "source": ("{", "from"),
    "store": (":",),
}

T = TypeVar("T")


class Mismatch(Exception):  # noqa: N818  # no error of the user's; the finding is already recorded
    """The item at hand cannot be read; the list it stands in goes on with the next one."""


class Abandoned(Exception):  # noqa: N818  # as above
    """The text passes a limit: nothing more of it is read."""


class Cursor:
    """A place in the tokens.

    `token` is the next one, `kind` its kind, `end` where the token before it ended. `joined` is true directly inside
    parentheses or brackets, where `.` and `[` may start a line. `depth` counts what is open around it.
    """

    def __init__(self, source: Source, lexed: Lexed) -> None:
        self.source = source
        self.tokens = lexed.tokens
        self.diagnostics = lexed.diagnostics
        self.at = 0
        self.token = self.tokens[0]
        self.kind = self.token.kind
        self.end = self.token.start
        self.joined = False
        self.depth = 0
        self._braces: list[int] = []
        self._closed_at = -1
        self._end_reported = any(d.code == "unterminated-comment" for d in lexed.diagnostics)

    # --- moving ------------------------------------------------------------------------------------------------------

    def advance(self) -> Token:
        """Take the next token."""
        token = self.token
        if token.kind != END:
            self.end = token.end
            self.at += 1
            self.token = self.tokens[self.at]
            self.kind = self.token.kind
        return token

    def peek(self, ahead: int = 1) -> Token:
        """The token after the next one."""
        at = self.at + ahead
        return self.tokens[at] if at < len(self.tokens) else self.tokens[-1]

    def take(self, kind: str) -> bool:
        """Take the next token if it is of this kind."""
        if self.kind == kind:
            self.advance()
            return True
        return False

    def take_word(self, word: str) -> bool:
        """Take an infix word, which is none when a colon follows: then it is the key of the next entry."""
        if self.kind == word and self.peek().kind != ":":
            self.advance()
            return True
        return False

    def go_to(self, at: int) -> None:
        self.at = at
        self.token = self.tokens[at]
        self.kind = self.token.kind
        self.end = self.tokens[at - 1].end if at else self.token.start

    def span(self, start: int) -> Span:
        """From `start` to the end of the last token taken."""
        return Span(self.source, start, self.end)

    def span_of(self, token: Token) -> Span:
        return Span(self.source, token.start, token.end)

    # --- nesting -----------------------------------------------------------------------------------------------------

    def deeper(self) -> None:
        """One level more; the caller takes it back with `shallower`, a recovery for whoever could not."""
        self.depth += 1
        if self.depth > MAX_NESTING:
            self.too_deep(self.token)

    def shallower(self) -> None:
        self.depth -= 1

    def restart(self) -> None:
        """After an error, outside all nesting."""
        self.depth = 0
        self.joined = False

    def too_deep(self, token: Token) -> NoReturn:
        message = f"the text is nested more than {MAX_NESTING} levels deep"
        self.report("syntax", message, self.span_of(token), "name a part of it with 'let', or move it to an action")
        raise Abandoned

    # --- findings ----------------------------------------------------------------------------------------------------

    def report(
        self, code: str, message: str, span: Span, hint: str | None = None, *, severity: Severity = "error"
    ) -> None:
        if len(self.diagnostics) > MAX_DIAGNOSTICS:
            raise Abandoned
        self.diagnostics.append(Diagnostic(code, message, span, hint, severity=severity))

    def mismatch(self, expected: str, hint: str | None = None) -> Mismatch:
        """Record that something else was expected here; to be raised by the caller."""
        if self.kind == END:
            if not self._end_reported:
                self._end_reported = True
                self.report("syntax", f"expected {expected}, found the end of the text", self.span_of(self.token), hint)
        elif self.kind == "...":
            hint = "remove this placeholder"
            self.report("syntax", "'...' must be followed by a value to spread", self.span_of(self.token), hint)
        elif self.kind == "~":
            self.report("bad-character", "unexpected character '~'", self.span_of(self.token))
        else:
            self.report("syntax", f"expected {expected}, found {self.found()}", self.span_of(self.token), hint)
        return Mismatch()

    def found(self) -> str:
        """The next token as messages show it."""
        if self.kind == END:
            return "the end of the text"
        text = self.source.text[self.token.start : self.token.end]
        if len(text) > 40:
            text = text[:37] + "…"
        return text if self.kind == STRING else f"'{text}'"

    # --- small pieces ------------------------------------------------------------------------------------------------

    def expect(self, kind: str, what: str | None = None, hint: str | None = None) -> Token:
        """Take a token of this kind; `what` says its role, as in `'->' after the pattern`."""
        if self.kind != kind:
            raise self.mismatch(what or f"'{kind}'", hint)
        return self.advance()

    def close(self, closing: str, opening: Token) -> None:
        """Take the bracket that closes what `opening` began."""
        if self.kind != closing:
            line = self.source.position(opening.start)[0]
            hint = f"'{opening.kind}' on line {line} is not closed" if self.token.breaks else None
            if self.kind == "=>":
                hint = "a function may only be an argument of a call"
            raise self.mismatch(f"'{closing}'", hint)
        self.advance()

    def is_name(self) -> bool:
        """Whether a name comes next: a word that is not reserved, or any text in backticks."""
        kind = self.kind
        return kind == QUOTED or (kind.isidentifier() and kind not in RESERVED)

    def on_this_line(self, kind: str) -> bool:
        """Whether a token of this kind comes next, on the line where the last one ended."""
        return self.kind == kind and not self.token.breaks

    def declared_name(self, role: str) -> Word:
        """The name that a declaration or a binding gives; a reserved word is reported and taken all the same."""
        token = self.token
        if not self.is_name():
            if not token.kind.isidentifier():
                raise self.mismatch(f"the name of the {role}")
            hint = f"choose another name, or write `{token.kind}` between backticks"
            self.report("reserved-name", f"'{token.kind}' cannot be used as a {role} name", self.span_of(token), hint)
        self.advance()
        return Word(text=token.value, span=self.span_of(token))

    def name(self, what: str) -> Word:
        """A name that is referred to; `what` is its role: `the name of a store`."""
        token = self.token
        if not self.is_name():
            raise self.mismatch(what, self._reserved_hint())
        self.advance()
        return Word(text=token.value, span=self.span_of(token))

    def _reserved_hint(self) -> str | None:
        return f"'{self.kind}' is a reserved word; as a name write `{self.kind}`" if self.kind in RESERVED else None

    def qualified(self, what: str) -> Qualified:
        """`Name` or `n.Name`."""
        first = self.name(what)
        if not self.on_this_line("."):
            return Qualified(text=first.text, span=first.span)
        parts = [first.text]
        while self.on_this_line("."):
            self.advance()
            parts.append(self.name("a name after '.'").text)
        return Qualified(text=".".join(parts), span=self.span(first.span.start))

    def key(self, what: str, hint: str | None = None) -> Token:
        """An identifier, reserved or not, or a string; the token's value is its text."""
        kind = self.kind
        if kind.isidentifier() or kind in (STRING, QUOTED):
            return self.advance()
        raise self.mismatch(what, hint)

    def entry_key(self, what: str) -> Token:
        """A key of an object literal, which may be a number as well; its value is text."""
        if self.kind == NUMBER:
            token = self.advance()
            return token._replace(value=str(token.value))
        return self.key(what)

    def starts_value(self) -> bool:
        """Whether an expression can begin with the next token."""
        kind = self.kind
        if kind.isidentifier():
            return kind not in _NO_VALUE
        return kind in _VALUE_MARKS

    # --- lists in braces, and going on after an error ----------------------------------------------------------------

    def items(
        self, opening: Token, item: Callable[[], T], begins: Callable[[], bool], *, until: Container[str] = _DECLARING
    ) -> list[T]:
        """What stands between braces, commas optional. After an error goes on where `begins` sees the next item.

        A declaration whose word is in `until` cannot stand in this list: it shows that a brace is missing.
        """
        found: list[T] = []
        joined, depth = self.joined, self.depth
        self.joined = False
        self.deeper()
        while self.more(opening, until):
            first = self.at
            try:
                found.append(item())
            except Mismatch:
                self.depth = depth + 1
                self.joined = False
                self.recover(first, begins)
            if self.kind == ",":
                self.advance()
        self.joined, self.depth = joined, depth
        return found

    def more(self, opening: Token, until: Container[str] = _DECLARING) -> bool:
        """Whether another item follows in the braces; takes the closing one. If that is missing, says so once."""
        kind = self.kind
        if kind == "}":
            self.advance()
            return False
        if kind == END:
            if not self._end_reported:
                self._end_reported = True
                opening, hint = self._unclosed(opening)
                self.report("syntax", "'{' is not closed", self.span_of(opening), hint)
            return False
        if kind in until and self.token.breaks and self.declares(self.at) and self._ends(opening):
            if self._closed_at != self.at:
                self._closed_at = self.at
                line = self.source.position(self._unclosed(opening)[0].start)[0]
                message = f"expected '}}' before {self.found()}"
                self.report("syntax", message, self.span_of(self.token), f"the '{{' on line {line} is not closed")
            return False
        return True

    def _unclosed(self, outermost: Token) -> tuple[Token, str]:
        """Which '{' lacks its '}', by the indentation of the lines that begin with one; and what to do."""
        opened: list[Token] = []
        # Each look costs the whole text: a text that is wrong all over is not worth many.
        for token in self.tokens[: self.at] if len(self.diagnostics) < _LOOKS else ():
            if token.kind == "{":
                opened.append(token)
            elif token.kind == "}" and opened:
                opening = opened.pop()
                if token.breaks and self._indent(token) < self._indent(opening):
                    line = self.source.position(token.start)[0]
                    return opening, f"add a '}}' where its block ends, before line {line}"
        return outermost, "add a '}' where its block ends"

    def _ends(self, opening: Token) -> bool:
        """Whether the declaration that comes next ends a block. A store is misplaced instead if it is indented more."""
        return self.kind != "store" or self._indent(self.token) <= self._indent(opening)

    def _indent(self, token: Token) -> int:
        """Blanks at the start of a token's line."""
        text = self.source.text
        line = text[text.rfind("\n", 0, token.start) + 1 : token.start]
        return len(line) - len(line.lstrip())

    def declares(self, at: int) -> bool:
        """Whether a declaration that cannot stand inside an action or a block begins at a token."""
        marks = _DECLARING.get(self.tokens[at].kind)
        if marks is None or at + 2 >= len(self.tokens):
            return False
        name = self.tokens[at + 1].kind
        return (name.isidentifier() or name == QUOTED) and self.tokens[at + 2].kind in marks

    def recover(self, first: int, begins: Callable[[], bool]) -> None:
        """Skip from an error in the item that began at token `first` to the next item, or to the end of the list."""
        if self.at == first:
            self.advance()
        levels, tokens = self._brace_levels(), self.tokens
        own = levels[first]
        for at in range(self.at, len(tokens)):
            token = tokens[at]
            if levels[at] <= own:
                if token.kind == "}":
                    break
                self.go_to(at)
                if begins():
                    return
            if token.breaks and self.declares(at):
                break
        self.go_to(at)

    def _brace_levels(self) -> list[int]:
        """How many braces are open before each token; counted when the first error asks for it."""
        if not self._braces:
            level = 0
            for token in self.tokens:
                self._braces.append(level)
                if token.kind == "{":
                    level += 1
                elif token.kind == "}":
                    level -= 1
        return self._braces


_NO_VALUE = frozenset(["then", "else", "and", "or", "in", "is", "where"])
_VALUE_MARKS = frozenset([STRING, NUMBER, QUOTED, ".", "(", "[", "{", "-", "+", "!"])
