"""What the checks of one mission find, and which of its declarations they came across."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

from reqon.diagnostics import Diagnostic, Span, did_you_mean, nearest

_GUESSES = 50

Namespace: TypeAlias = Literal["source", "store", "schema", "transform", "action", "let"]


class Findings:
    """Diagnostics so far, in no order, and the names that were used. A finding at one place is kept once."""

    def __init__(self) -> None:
        self.used: dict[tuple[Namespace, str], None] = {}
        self._found: dict[tuple[str, Span], Diagnostic] = {}

    @property
    def found(self) -> list[Diagnostic]:
        return list(self._found.values())

    @property
    def many(self) -> bool:
        """Whether so much was found that guessing what was meant by each would take long and help nobody."""
        return len(self._found) > _GUESSES

    def error(self, code: str, message: str, span: Span, hint: str | None = None) -> None:
        self._found.setdefault((code, span), Diagnostic(code, message, span, hint))

    def warn(self, code: str, message: str, span: Span, hint: str | None = None) -> None:
        self._found.setdefault((code, span), Diagnostic(code, message, span, hint, severity="warning"))

    def add(self, diagnostics: Iterable[Diagnostic]) -> None:
        for diagnostic in diagnostics:
            if diagnostic.span is not None:
                self._found.setdefault((diagnostic.code, diagnostic.span), diagnostic)

    def use(self, namespace: Namespace, name: str) -> None:
        self.used[namespace, name] = None

    def declared(self, namespace: Namespace, name: str, span: Span, declared: Mapping[str, object]) -> bool:
        """Whether a name is declared: noted as used if it is, an `undefined-…` if it isn't."""
        if name in declared:
            self.used[namespace, name] = None
            return True
        self.undefined(namespace, name, span, tuple(declared))
        meant = None if self.many else nearest(name, declared)
        if meant is not None:
            # One slip, one finding: what was meant is not called unused as well.
            self.used[namespace, meant] = None
        return False

    def undefined(self, what: str, name: str, span: Span, declared: Sequence[str]) -> None:
        hint = None if self.many else did_you_mean(name, declared, f"declared {what}s")
        self.error(f"undefined-{what}", f"{what} '{name}' is not declared", span, hint)


def first_word(span: Span) -> Span:
    """The first word of a construct: where its findings point when they mean all of it."""
    words = span.text.split(None, 1)
    return Span(span.source, span.start, span.start + len(words[0].rstrip(":"))) if words else span


def guess(word: str, known: Iterable[str], otherwise: str | None = None) -> str | None:
    """The hint that names the word that was probably meant, else another hint."""
    meant = nearest(word, known)
    return f"did you mean '{meant}'?" if meant else otherwise
