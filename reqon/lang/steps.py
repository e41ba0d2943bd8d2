"""Tokens to steps, arms and options (spec/language.md 2.7, 2.8)."""

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

from reqon.diagnostics import nearest
from reqon.lang.expressions import ExpressionParser
from reqon.lang.lexer import END, QUOTED, RESERVED, STRING, Token
from reqon.lang.nodes import (
    Abort,
    Apply,
    Arm,
    ArmBody,
    Assume,
    Block,
    CallStep,
    Clear,
    Continue,
    Delete,
    Entry,
    Expression,
    Extension,
    Fetch,
    For,
    Jump,
    Let,
    Literal_,
    Map,
    MatchStep,
    ObjectLiteral,
    Option,
    Options,
    Paginate,
    Pattern,
    Qualified,
    Queue,
    Retry,
    Run,
    Since,
    Skip,
    Spread,
    Stage,
    Step,
    StoreStep,
    Validate,
    Wait,
    Word,
)

# Enumerated option values that are no identifiers; bare or in quotes they are the same.
HYPHENATED = frozenset(("date-only", "YYYY-MM-DD", "unix-ms", "fail-fast"))

METHODS = ("get", "post", "put", "patch", "delete", "GET", "POST", "PUT", "PATCH", "DELETE")


class StepParser(ExpressionParser):
    """Reads steps."""

    _begun = 0  # the token that began the last step

    # --- options -----------------------------------------------------------------------------------------------------

    def optional_options(self) -> Options:
        """`[~ options]`: none unless the brace stands on the line where the last token ended."""
        return self.options() if self.on_this_line("{") else ()

    def options(self) -> Options:
        opening = self.expect("{", "'{' and options")
        return tuple(self.items(opening, self.option, self.begins_entry))

    def begins_entry(self) -> bool:
        """Whether `key:` comes next, on a new line or after a comma."""
        if self.peek().kind != ":" or not (self.token.breaks or self.tokens[self.at - 1].kind == ","):
            return False
        return self.kind.isidentifier() or self.kind in (STRING, QUOTED)

    def option(self) -> Option:
        token = self.key("an option")
        hint = f"write: {token.value}: {{ … }}" if self.kind == "{" else None
        self.expect(":", f"':' after the option '{token.value}'", hint)
        value: Expression | Since | Paginate | None = None
        if token.value == "since" and self.kind == "lastSync":
            value = self._since()
        elif token.value == "paginate" and self.is_name() and self.peek().kind == "(":
            value = self._paginate()
        if value is None:
            value = self.option_value()
        return Option(token.value, value, self.span_of(token), span=self.span(token.start))

    def option_value(self) -> Expression:
        """An expression; `date-only` and its kin are words although they hold a minus."""
        at, last = self.at, len(self.tokens) - 1
        while at + 2 <= last and self.tokens[at + 1].kind == "-" and self.tokens[at].end == self.tokens[at + 1].start:
            at += 2
        word = self.source.text[self.token.start : self.tokens[at].end] if at > self.at else ""
        if word not in HYPHENATED:
            return self.expression()
        start = self.token.start
        self.go_to(at + 1)
        return Literal_(word, span=self.span(start))

    def _since(self) -> Since | None:
        """`lastSync` and what belongs to it; None, and nothing taken, when it is a part of an expression."""
        first, known = self.at, len(self.diagnostics)
        start = self.advance().start
        key = None
        if self.on_this_line("("):
            self.advance()
            self.joined = True
            key = None if self.kind == ")" else self.expression()
            self.joined = False
            self.expect(")")
        if self.on_this_line("{"):
            options = self.options()
            return Since(key, options, span=self.span(start))
        if self.kind in (",", "}", END) or self.peek().kind == ":":
            return Since(key, (), span=self.span(start))
        self.go_to(first)
        del self.diagnostics[known:]
        return None

    def _paginate(self) -> Paginate:
        strategy = self.name("a pagination strategy")
        self.advance()
        self.joined = True
        arguments: list[Expression] = []
        while self.kind != ")":
            arguments.append(self.expression())
            if not self.take(","):
                break
        self.joined = False
        self.expect(")")
        return Paginate(strategy, tuple(arguments), span=self.span(strategy.span.start))

    # --- step lists --------------------------------------------------------------------------------------------------

    def block(self) -> tuple[Step, ...]:
        """`{ steps }`."""
        opening = self.expect("{", "'{' and steps")
        return tuple(self.items(opening, self.step, self.begins_step))

    def begins_step(self) -> bool:
        """Whether a line begins here with a word that starts a step."""
        return self.token.breaks and (self.kind in self._readers or (self.is_name() and self._is_extension()))

    def _is_extension(self) -> bool:
        after = self.peek()
        return after.kind == "{" and not after.breaks

    def step(self) -> Step:
        read = self._readers.get(self.kind)
        begun, self._begun = self._begun, self.at
        if read is not None:
            return read(self)
        if self.is_name() and self._is_extension():
            word = self.name("a step")
            return Extension(word, self.options(), span=self.span(word.span.start))
        before = self.tokens[self.at - 1]
        if begun < self.at - 1 and before.breaks and before.kind in self._readers:
            # The last step broke off, and took the word that begins this one for a name.
            self.go_to(self.at - 1)
            raise self.mismatch("a value")
        raise self.mismatch("a step", self._step_hint())

    @classmethod
    def step_words(cls) -> frozenset[str]:
        """The words that start a step."""
        return frozenset(cls._readers)

    def is_step_word(self) -> bool:
        return self.kind in self._readers

    def _step_hint(self) -> str | None:
        after = self.peek().kind
        if self.kind == "if":
            return "there is no 'if' step: use match { condition -> …, _ -> continue }"
        if self.is_name() and after == "=":
            return f"write: let {self.token.value} = …"
        if self.is_name() and after == ":":
            return "options stand in braces after their step"
        if self.kind == "=>":
            return "a function may only be an argument of a call"
        if self.kind.isidentifier():
            guess = nearest(self.kind, self._readers)
            return f"did you mean '{guess}'?" if guess else None
        return None

    # --- requests ----------------------------------------------------------------------------------------------------

    def _fetch(self) -> Step:
        token = self.advance()
        if token.kind == "delete" and self.is_name() and self.peek().kind == "[" and not self.peek().breaks:
            return self._delete(token)
        source = self.name("a source") if self._is_prefix() else None
        path = self.expression()
        if self.on_this_line("from") and source is None:
            self.advance()
            source = self.name("the name of a source after 'from'")
        options = self.optional_options()
        return Fetch(token.kind.lower(), path, source, options, span=self.span(token.start))

    def _is_prefix(self) -> bool:
        """Whether the next name is a source: on its line follows a string, or a name and a parenthesis."""
        after = self.peek()
        if not self.is_name() or after.breaks:
            return False
        if after.kind == STRING:
            return True
        named = after.kind == QUOTED or (after.kind.isidentifier() and after.kind not in RESERVED)
        call = self.peek(2)
        return named and after.kind != "from" and call.kind == "(" and not call.breaks

    def _call(self) -> Step:
        start = self.advance().start
        source = self.name("the name of a source")
        self.expect(".", "'.' and an operation, as in: call Source.operation")
        token = self.key("the name of an operation")
        operation = Word(text=token.value, span=self.span_of(token))
        return CallStep(source, operation, self.optional_options(), span=self.span(start))

    def _wait(self) -> Step:
        start = self.advance().start
        return Wait(self.options(), span=self.span(start))

    # --- items and stores --------------------------------------------------------------------------------------------

    def _delete(self, token: Token) -> Step:
        store = self.name("the name of a store")
        self.advance()
        self.joined = True
        key = self.expression()
        self.joined = False
        self.expect("]")
        return Delete(store, key, span=self.span(token.start))

    def _clear(self) -> Step:
        start = self.advance().start
        return Clear(self.name("the name of a store"), span=self.span(start))

    def _for(self) -> Step:
        start = self.advance().start
        variable = self.declared_name("variable")
        self.expect("in", "'in' after the variable of the loop")
        collection = self.condition()
        conditions: list[Expression] = []
        checkpoint, parallel = None, False
        while self.kind != "{":
            if self.take("where"):
                conditions.append(self.condition())
            elif self.take("checkpoint"):
                self.expect("every", "'every' and a number after 'checkpoint'")
                checkpoint = self.condition()
            elif self.take("parallel"):
                parallel = True
            else:
                raise self.mismatch("'{' and the steps of the loop")
        body = self.block()
        return For(variable, collection, tuple(conditions), checkpoint, parallel, body, span=self.span(start))

    def _map(self) -> Step:
        start = self.advance().start
        value = self.expression()
        self.expect("->", "'->' and a target after the value to map")
        target = self.qualified("the target of the map")
        mapping = self.mapping() if self.on_this_line("{") else None
        return Map(value, target, mapping, span=self.span(start))

    def mapping(self) -> ObjectLiteral:
        """`{ key: expr, ...spread }`, commas optional."""
        opening = self.expect("{", "'{' and a mapping")
        entries = self.items(opening, self._mapping_entry, self.begins_entry)
        return ObjectLiteral(tuple(entries), span=self.span(opening.start))

    def _mapping_entry(self) -> Entry | Spread:
        first = self.at
        return self.checked(self.entry(), first)

    def _apply(self) -> Step:
        start = self.advance().start
        transform = self.qualified("the name of a transform")
        self.expect("to", "'to' and a value after the transform")
        value = self.expression()
        name = self.declared_name("variable") if self.take_word("as") else None
        return Apply(transform, value, name, span=self.span(start))

    def _store(self) -> Step:
        start = self.advance().start
        each = self.kind == "each" and not self._reads_variable()
        if each:
            self.advance()
        value = self.expression()
        hint = "a store is declared outside of actions" if self.kind == ":" else None
        self.expect("->", "'->' and a store after the value", hint)
        token = self.token
        if not (token.kind == QUOTED or token.kind.isidentifier()):
            raise self.mismatch("the name of a store after '->'")
        self.advance()
        store = Word(text=token.value, span=self.span_of(token))
        return StoreStep(value, each, store, self.optional_options(), span=self.span(start))

    def _reads_variable(self) -> bool:
        """Whether `each` is a variable here: an arrow follows, or a `.` without a gap (after one, `.f` is a path)."""
        after = self.peek()
        return after.kind == "->" or (after.kind == "." and after.start == self.token.end)

    def let(self) -> Let:
        """`let name = expr`."""
        start = self.advance().start
        name = self.declared_name("variable")
        self.expect("=", f"'=' after the name '{name.text}'")
        return Let(name, self.expression(), span=self.span(start))

    # --- validate ----------------------------------------------------------------------------------------------------

    def _validate(self) -> Step:
        start = self.advance().start
        target = None if self.kind == "{" else self.expression()
        opening = self.expect("{", "'{' and assumptions")
        constraints = self.items(opening, self.assume, self.begins_assume)
        otherwise = self.arm_body() if self.take_word("or") else None
        return Validate(target, tuple(constraints), otherwise, span=self.span(start))

    def begins_assume(self) -> bool:
        return self.kind == "assume" and self.peek().kind != ":"

    def assume(self) -> Assume:
        """`assume condition` or `assume if c { … }`, with `else` and what a violation means."""
        start = self.expect("assume", "'assume' and a condition", self._braced_hint()).start
        condition, constraints = self._assumption()
        severity: Literal["warning", "error"] | None = None
        message = None
        if self.take_word("else"):
            severity = self._severity()
            if not self.token.breaks and self.starts_value():
                message = self.expression()
            elif severity is None:
                raise self.mismatch("'warning', 'error' or a message after 'else'")
        return Assume(condition, constraints, severity, message, span=self.span(start))

    def _braced_hint(self) -> str | None:
        """An object was written where `validate {` begins the assumptions."""
        is_object = self.kind.isidentifier() and self.peek().kind == ":"
        return "put an object in parentheses: validate ({ … }) { … }" if is_object else None

    def _severity(self) -> Literal["warning", "error"] | None:
        if self.take("warning"):
            return "warning"
        return "error" if self.take("error") else None

    def _assumption(self) -> tuple[Expression, tuple[Expression, ...]]:
        if self.kind != "if":
            return self.expression(), ()
        first, known = self.at, len(self.diagnostics)
        self.advance()
        condition = self.condition()
        if self.kind != "{":
            # It is `if c then a else b`, which may go on with operators.
            self.go_to(first)
            del self.diagnostics[known:]
            return self.expression(), ()
        opening = self.advance()
        if self.kind == "}":
            raise self.mismatch("a condition that must hold")
        return condition, tuple(self.items(opening, self.condition, lambda: self.token.breaks))

    # --- match -------------------------------------------------------------------------------------------------------

    def match_step(self) -> Step:
        start = self.advance().start
        subject = None if self.kind == "{" else self.expression()
        arms = self._arms(self.arm if subject is not None else self.condition_arm)
        catch = self._arms(self.arm) if self.take_word("catch") else ()
        return MatchStep(subject, arms, catch, span=self.span(start))

    def _arms(self, read: Callable[[], Arm]) -> tuple[Arm, ...]:
        opening = self.expect("{", "'{' and the arms of the match")
        return tuple(self.items(opening, read, self.begins_arm))

    def begins_arm(self) -> bool:
        return self.token.breaks and self.kind != "}"

    def arm(self) -> Arm:
        """`pattern where guard -> body`."""
        start = self.token.start
        return self._arm_after(self.arm_pattern(), start)

    def condition_arm(self) -> Arm:
        """`condition -> body`, of a match without a subject."""
        start = self.token.start
        return self._arm_after(self.arm_pattern() if self.kind == "_" else self.condition(), start)

    def _arm_after(self, pattern: Pattern | Expression, start: int) -> Arm:
        guard = self.condition() if self.take_word("where") else None
        if self.kind == "=>":
            hint = "arms of a match step use '->'; '=>' belongs to match expressions"
            self.report("syntax", "unexpected '=>' in a match step", self.span_of(self.token), hint)
            self.advance()
        else:
            self.expect("->", "'->' after the pattern", self.arrow_hint())
        body = self.arm_body()
        return Arm(pattern, guard, body, span=self.span(start))

    def arm_body(self) -> ArmBody:
        """A block, a step, or the bare name of an action, which is a `run` of it."""
        if self.kind == "{":
            start = self.token.start
            return Block(self.block(), span=self.span(start))
        if self.kind in self._readers or (self.is_name() and self._is_extension()):
            return self.step()
        if not self.is_name():
            raise self.mismatch("a step, '{' or the name of an action", self._step_hint())
        action = self.qualified("an action")
        return Run((Stage((action,), False, None, span=action.span),), span=action.span)

    # --- directives --------------------------------------------------------------------------------------------------

    def _continue(self) -> Step:
        return Continue(span=self.span_of(self.advance()))

    def _skip(self) -> Step:
        return Skip(span=self.span_of(self.advance()))

    def _abort(self) -> Step:
        start = self.advance().start
        message = self.expression() if not self.token.breaks and self.starts_value() else None
        return Abort(message, span=self.span(start))

    def _retry(self) -> Step:
        start = self.advance().start
        return Retry(self.optional_options(), span=self.span(start))

    def _queue(self) -> Step:
        start = self.advance().start
        store = self.name("a store") if self.is_name() and not self.token.breaks else None
        return Queue(store, self.optional_options(), span=self.span(start))

    def _jump(self) -> Step:
        start = self.advance().start
        action = self.qualified("the name of an action")
        then: Literal["retry", "continue"] | None = None
        options: Options = ()
        if self.take_word("then"):
            if self.take("retry"):
                then, options = "retry", self.optional_options()
            elif self.take("continue"):
                then = "continue"
            else:
                raise self.mismatch("'retry' or 'continue' after 'then'")
        return Jump(action, then, options, span=self.span(start))

    def pipeline(self) -> Run:
        """`run A then [B, C] if c`."""
        start = self.advance().start
        stages = [self._stage()]
        while self.take_word("then"):
            stages.append(self._stage())
        return Run(tuple(stages), span=self.span(start))

    def _stage(self) -> Stage:
        start = self.token.start
        parallel = self.kind == "["
        actions = self._group() if parallel else (self.qualified("the name of an action"),)
        condition = self.expression() if self.take_word("if") else None
        return Stage(actions, parallel, condition, span=self.span(start))

    def _group(self) -> tuple[Qualified, ...]:
        self.advance()
        actions = [self.qualified("the name of an action")]
        while self.take(",") and self.kind != "]":
            actions.append(self.qualified("the name of an action"))
        self.expect("]", "',' or ']' after the action")
        return tuple(actions)

    _readers: ClassVar[Mapping[str, "Callable[[StepParser], Step]"]] = {
        **dict.fromkeys(METHODS, _fetch),
        "call": _call,
        "for": _for,
        "map": _map,
        "apply": _apply,
        "validate": _validate,
        "store": _store,
        "match": match_step,
        "let": let,
        "wait": _wait,
        "run": pipeline,
        "queue": _queue,
        "clear": _clear,
        "skip": _skip,
        "continue": _continue,
        "abort": _abort,
        "retry": _retry,
        "jump": _jump,
    }
