"""Mission text to its syntax tree (spec/language.md 2). Never raises; goes on after an error, to report them all."""

from collections.abc import Callable
from enum import StrEnum
from typing import cast

from reqon.diagnostics import Diagnostic, Source, Span, nearest
from reqon.lang.cursor import Abandoned, Mismatch
from reqon.lang.declarations import DeclarationParser
from reqon.lang.lexer import END, MAX_DIAGNOSTICS, QUOTED, STRING, Lexed, lex
from reqon.lang.nodes import (
    Clause,
    Expression,
    IgnoredBlock,
    ImportDef,
    MissionDef,
    Node,
    Option,
    Run,
    Schedule,
    SourceFile,
    TopItem,
)


class Start(StrEnum):
    """What a text is read as: a whole file, or the items of one kind of brace list without its braces."""

    PROGRAM = "program"
    CLAUSES = "clauses"
    STEPS = "steps"
    OPTIONS = "options"
    ARMS = "arms"
    EXPRESSIONS = "expressions"
    MIXED = "mixed"  # declarations, clauses and steps in any order


def parse(source: Source, *, part: bool = False) -> tuple[SourceFile, list[Diagnostic]]:
    """The tree of a file as far as it could be read, and the findings in order of their places.

    In a `part` of a mission folder a top-level `run`, `schedule` or option is a `mission-in-part` error; that it
    defines a mission can be seen from the tree.
    """
    items: list[Node] = []
    diagnostics = _read(source, lex(source), lambda parser: parser.program(items, part=part))
    # Misplaced clauses are errors already.
    top = cast("list[TopItem]", [item for item in items if not isinstance(item, Run | Schedule | Option)])
    return SourceFile(tuple(top), span=Span(source, 0, len(source.text))), diagnostics


def parse_expression(
    source: Source, *, start: int = 0, end: int | None = None
) -> tuple[Expression | None, list[Diagnostic]]:
    """The one expression that a text, or its characters `start` to `end`, consists of; None if it is none.

    Places are those of the whole text, so that the expression in a placeholder of a path points into its mission.
    """
    items: list[Expression] = []

    def read(parser: Parser) -> None:
        found = parser.expression()
        if parser.kind != END:
            hint = "a function may only be an argument of a call" if parser.kind == "=>" else None
            raise parser.mismatch("the end of the expression", hint)
        items.append(found)

    diagnostics = _read(source, lex(source, start, end), read)
    return (items[0] if items else None), diagnostics


def parse_fragment(source: Source, start: Start | str) -> tuple[tuple[Node, ...], list[Diagnostic]]:
    """The items of a text that is no whole file, and the findings."""
    items: list[Node] = []
    begin = Start(start)
    diagnostics = _read(source, lex(source), lambda parser: parser.fragment(items, begin))
    return tuple(items), diagnostics


def _read(source: Source, lexed: Lexed, read: "Callable[[Parser], None]") -> list[Diagnostic]:
    if not lexed.complete:
        return lexed.diagnostics
    lexical = list(lexed.diagnostics)
    parser = Parser(source, lexed)
    try:
        read(parser)
    except Mismatch:
        pass
    except Abandoned:
        if len(parser.diagnostics) > MAX_DIAGNOSTICS:
            message = f"more than {MAX_DIAGNOSTICS} problems; the rest of the text was not read"
            parser.diagnostics.append(Diagnostic("syntax", message, parser.span_of(parser.token)))
    except RecursionError:
        # Many levels of operators between many levels of brackets; or the caller's own stack is nearly full.
        message = "the text is nested too deeply"
        parser.diagnostics.append(Diagnostic("syntax", message, parser.span_of(parser.token)))
    # A token that is wrong in itself is not reported a second time for standing in the wrong place.
    known = {d.span.start for d in lexical if d.span}
    findings = [*lexical, *(d for d in parser.diagnostics[len(lexical) :] if not d.span or d.span.start not in known)]
    findings = [d for d in findings if not parser.is_ignored(d)]
    findings.sort(key=lambda d: d.span.start if d.span else 0)
    return findings


class Parser(DeclarationParser):
    """Reads files and missions."""

    def __init__(self, source: Source, lexed: Lexed) -> None:
        super().__init__(source, lexed)
        self._ignored: list[Span] = []
        self._strays = 0

    def is_ignored(self, diagnostic: Diagnostic) -> bool:
        """Whether the lexer complained about something inside a block that is skipped as a whole."""
        span = diagnostic.span
        return span is not None and any(block.start < span.start < block.end for block in self._ignored)

    # --- files -------------------------------------------------------------------------------------------------------

    def program(self, items: list[Node], *, part: bool = False) -> None:
        """Read all of the text into `items`."""

        def read() -> Node:
            return self._top_item(part=part)

        self._all(items, read, self._begins_top_item)

    def fragment(self, items: list[Node], start: Start) -> None:
        """Read all of the text as a list of the items of `start`."""
        if start is Start.PROGRAM:
            self.program(items)
            return
        read, begins = {
            Start.CLAUSES: (self._clause, self._begins_clause),
            Start.STEPS: (self.step, self.begins_step),
            Start.OPTIONS: (self.option, self.begins_entry),
            Start.ARMS: (self.arm, self.begins_arm),
            Start.EXPRESSIONS: (self.expression, self.begins_arm),
            Start.MIXED: (self._anything, self._begins_clause),
        }[start]
        self._all(items, read, begins)

    def _all(self, items: list[Node], read: Callable[[], Node], begins: Callable[[], bool]) -> None:
        """Items up to the end of the text, which no brace closes."""
        while self.kind != END:
            if self.kind == "}":
                self._stray_brace()
                continue
            first = self.at
            try:
                items.append(read())
            except Mismatch:
                self.restart()
                self.recover(first, begins)
            self.take(",")

    def _stray_brace(self) -> None:
        # One brace too many ends a mission early, and each of its blocks then seems to have one too many.
        if not self._strays:
            self.report("syntax", "unexpected '}'", self.span_of(self.token), "no block is open here")
        self._strays += 1
        self.advance()

    def _top_item(self, *, part: bool) -> Node:
        if self.peek().kind == ":" or self.kind == "run":
            return self._misplaced(part=part)
        if self.kind == "mission":
            return self._mission()
        if self.kind == "import":
            return self._import()
        if self.kind in _VAGUE and self.peek(2).kind == "{":
            return self._vague_block()
        if self.kind in _DECLARATIONS:
            return _DECLARATIONS[self.kind](self)
        raise self._no_clause("a mission or a declaration", (*_DECLARATIONS, "mission", "import"))

    def _begins_top_item(self) -> bool:
        return self.token.breaks and (self.kind in _DECLARATIONS or self.kind in ("mission", "import"))

    def _misplaced(self, *, part: bool) -> Node:
        token = self.token
        found = self._clause()
        if part:
            message = "only mission.vague may define a mission"
            hint = f"move '{token.value}' there; a part holds declarations and actions"
            self.report("mission-in-part", message, self.span_of(token), hint)
        else:
            code = "directive-outside-action" if token.kind == "run" else "syntax"
            self.report(code, f"'{token.value}' belongs inside a mission", self.span_of(token))
        return found

    def _import(self) -> ImportDef:
        start = self.advance().start
        name = None
        if self.kind != STRING:
            name = self.declared_name("import")
            self.expect("from", "'from' and a path")
        path = self.expect(STRING, "the path to import, in quotes")
        return ImportDef(name, path.value, self.span_of(path), span=self.span(start))

    def _vague_block(self) -> IgnoredBlock:
        token = self.advance()
        self.advance()
        level = 0
        while self.kind != END:
            kind = self.advance().kind
            level += (kind == "{") - (kind == "}")
            if level == 0:
                break
        if level:
            raise self.mismatch("'}'")
        span = self.span(token.start)
        self._ignored.append(span)
        message = f"'{token.kind}' blocks generate data and are ignored"
        hint = "Reqon reads real data; remove the block"
        self.report("vague-generation", message, self.span_of(token), hint, severity="warning")
        return IgnoredBlock(token.kind, span=span)

    # --- missions ----------------------------------------------------------------------------------------------------

    def _mission(self) -> MissionDef:
        start = self.advance().start
        name = self.declared_name("mission")
        opening = self.expect("{", "'{' and the clauses of the mission")
        clauses = self.items(opening, self._clause, self._begins_clause, until=("mission",))
        return MissionDef(name, tuple(clauses), span=self.span(start))

    def _clause(self) -> Clause:
        if self.peek().kind == ":" and (self.kind.isidentifier() or self.kind in (STRING, QUOTED)):
            return self.schedule() if self.kind == "schedule" else self._mission_option()
        if self.kind == "run":
            return self.pipeline()
        if self.kind in _DECLARATIONS:
            return _DECLARATIONS[self.kind](self)
        raise self._no_clause("a clause of the mission", (*_DECLARATIONS, "run", "schedule"))

    def _mission_option(self) -> Option:
        token = self.advance()
        self.advance()
        return Option(token.value, self.option_value(), self.span_of(token), span=self.span(token.start))

    def _begins_clause(self) -> bool:
        return self.token.breaks and (self.kind in _DECLARATIONS or self.kind == "run" or self.begins_entry())

    def _no_clause(self, expected: str, words: tuple[str, ...]) -> Mismatch:
        if self.kind not in _DIRECTIVES:
            return self.mismatch(expected, self._clause_hint(words))
        message = f"'{self.kind}' is only allowed in an action"
        self.report("directive-outside-action", message, self.span_of(self.token), "steps stand in an action")
        return Mismatch()

    def _clause_hint(self, words: tuple[str, ...]) -> str | None:
        word = self.kind
        if word in ("->", ","):
            return "stages are joined by then: run A then B"
        if word == "=>":
            return "a function may only be an argument of a call"
        if word == "schedule":
            return "write: schedule: every …"
        if word in _VAGUE:
            return f"'{word}' blocks generate data; Reqon has none"
        if self.is_step_word():
            return f"'{word}' is a step; steps stand in an action"
        guess = nearest(word, words) if word.isidentifier() else None
        if guess is not None:
            return f"did you mean '{guess}'?"
        return None if self.at else "a mission begins with: mission Name { … }"

    def _anything(self) -> Node:
        word, after = self.kind, self.peek()
        if self.declares(self.at) or word in ("import", "schema", "transform") or after.kind == ":":
            return self._clause() if word not in ("mission", "import") else self._top_item(part=False)
        if word == "store" and self.peek(2).kind == ":":
            return self.store_def()
        return self.step() if word != "source" else self.source_def()


_DIRECTIVES = frozenset(["continue", "skip", "abort", "retry", "queue", "jump"])
_VAGUE = frozenset(["dataset", "context", "distribution"])
_DECLARATIONS: "dict[str, Callable[[Parser], Clause]]" = {
    "source": Parser.source_def,
    "store": Parser.store_def,
    "schema": Parser.schema,
    "transform": Parser.transform,
    "action": Parser.action,
    "let": Parser.let,
}
