"""Which names an expression sees (spec/language.md 4)."""

from dataclasses import dataclass, field
from typing import Literal

from reqon.diagnostics import Span
from reqon.lang.checks.findings import Findings
from reqon.lang.nodes import Word

# Where an expression stands decides what it may use besides variables: `action` everything; `stage` (the `if` of the
# mission's pipeline) everything but a current item; `start` (sources, stores, options, mission-level lets) only what
# is known when the mission starts.
Surroundings = Literal["action", "stage", "start"]

CONTEXT_NAMES = ("response", "request", "currentRequest", "currentOperation", "lastSync", "webhook")


@dataclass(slots=True)
class Binding:
    """A variable: what bound it, where, and whether anything read it."""

    kind: Literal["let", "loop", "pattern", "lambda", "apply", "map", "page", "field"]
    span: Span
    used: bool = False


@dataclass(slots=True)
class Scope:
    """The names of one block, and through `parent` those around it.

    `current` says that `.f` has something to start from. In a schema condition (`fields`) a bare name is a field.
    """

    surroundings: Surroundings
    current: bool = False
    parent: "Scope | None" = None
    fields: bool = False
    names: dict[str, Binding] = field(default_factory=dict)

    def find(self, name: str) -> Binding | None:
        scope: Scope | None = self
        while scope is not None:
            found = scope.names.get(name)
            if found is not None:
                return found
            scope = scope.parent
        return None

    def inner(self) -> "Scope":
        """A block inside this one."""
        return Scope(self.surroundings, self.current, self, self.fields)

    def with_current(self) -> "Scope":
        """The same names, where there is a current item."""
        return self if self.current else Scope(self.surroundings, True, self, self.fields)

    def visible(self) -> list[str]:
        """Every variable in sight."""
        names: dict[str, None] = {}
        scope: Scope | None = self
        while scope is not None:
            names |= dict.fromkeys(scope.names)
            scope = scope.parent
        return list(names)

    def bind(self, word: Word, kind: Literal["let", "loop", "pattern", "lambda", "apply"], findings: Findings) -> None:
        """Bind a name in this block; twice in one block, or a name that cannot be bound, is a finding."""
        name = word.text
        if name in ("response", "_"):
            findings.error("reserved-name", f"'{name}' cannot be used as a variable name", word.span)
            return
        known = self.names.get(name)
        if known is not None and known.kind != "map":
            findings.error(
                "duplicate-variable",
                f"'{name}' is already bound in this block (line {known.span.line})",
                word.span,
                "variables cannot change, choose another name",
            )
            return
        self.names[name] = Binding(kind, word.span)

    def rebind(self, word: Word, findings: Findings) -> None:
        """Bind what `map … -> name` makes: it may take the place of an earlier variable."""
        if word.text in ("response", "_"):
            findings.error("reserved-name", f"'{word.text}' cannot be used as a variable name", word.span)
        else:
            self.names[word.text] = Binding("map", word.span)
