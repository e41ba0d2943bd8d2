"""Everything that a user, a mission, an API or a disk can cause, as one family of exceptions (spec/runtime.md 17).

A room raises without a place; whoever knows the mission's text adds the span on the way up. What is not a
`ReqonError` is a bug of ours and keeps its traceback.
"""

import builtins
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Self, cast

from reqon.diagnostics import Diagnostic, Span, render, render_all
from reqon.secrets import SECRETS


class Location(str):
    """A place in a mission: `file:line:col`. `end_column` is behind its last character, where it is all in one line."""

    __slots__ = ("column", "end_column", "line")

    line: int
    column: int
    end_column: int | None

    @classmethod
    def of(cls, span: Span) -> Self:
        place = cls(span)
        place.line, place.column = span.source.position(span.start)
        line, column = span.source.position(span.end)
        place.end_column = column if line == place.line else None
        return place


class ReqonError(Exception):
    """A failure with findings: what is wrong, where, and what to do.

    `message` is redacted when the error is built. `exit_code` is what the command line answers, `kind` is the
    word that records, `catch` arms and metrics use (spec/language.md 7.12), `slug` the code of its first finding where
    none is given.
    """

    exit_code: int = 1
    slug: ClassVar[str] = "error"
    kind: str = "internal"

    def __init__(
        self,
        message: str = "",
        *diagnostics: Diagnostic,
        code: str | None = None,
        span: Span | None = None,
        hint: str | None = None,
        action: str | None = None,
        step: str | None = None,
    ) -> None:
        if not diagnostics:
            text = SECRETS.redact(message)
            diagnostics = (Diagnostic(code or self.slug, text, span, SECRETS.redact(hint) if hint else None),)
        self.diagnostics: tuple[Diagnostic, ...] = diagnostics
        self.action = action
        self.step = step
        super().__init__(diagnostics[0].message)

    @classmethod
    def of(cls, diagnostics: Sequence[Diagnostic]) -> Self:
        """One error that carries several findings."""
        return cls("", *diagnostics)

    @property
    def message(self) -> str:
        """What is wrong, secrets masked: the first finding's."""
        return self.diagnostics[0].message

    @property
    def hint(self) -> str | None:
        """What to do about it, if that can be said."""
        return self.diagnostics[0].hint

    @property
    def span(self) -> Span | None:
        """Where in a mission's text, if that is known."""
        return self.diagnostics[0].span

    @property
    def location(self) -> Location | None:
        """`file:line:col`, if known; a text with `line`, `column` and `end_column`."""
        return Location.of(self.span) if self.span else None

    @property
    def file_path(self) -> str | None:
        """The file of that place, as it was given."""
        return self.span.source.name if self.span else None

    @property
    def cause(self) -> BaseException | None:
        """What was raised below, if anything was."""
        return self.__cause__

    def locate(self, span: Span | None) -> Self:
        """Add the place to findings that have none; a place that is known stays."""
        self.diagnostics = tuple(
            d if d.span else Diagnostic(d.code, d.message, span, d.hint, severity=d.severity) for d in self.diagnostics
        )
        return self

    def format(self) -> str:
        """The printed form of language.md 5."""
        return render_all(self.diagnostics) if len(self.diagnostics) > 1 else render(self.diagnostics[0])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: kind, message, location, hint, action, step, as far as known."""
        known = {"kind": self.kind, "message": self.message, "location": self.location, "hint": self.hint}
        known |= {"action": self.action, "step": SECRETS.redact_source(self.step) if self.step else None}
        return {k: v for k, v in known.items() if v is not None}


_SUGGESTION = re.compile(r"did you mean '([^']+)'")
_EXCERPT = 2048
_LEXIS = frozenset(("bad-character", "bad-number", "unterminated-comment", "unterminated-string"))
_SYNTAX = frozenset(("syntax", "comparison-chain", "pipe-needs-call", "range-not-allowed"))

# What users' functions, handlers and factories raise when they are wrong; anything else is not theirs to raise.
USERS_FAULTS = (ArithmeticError, AttributeError, LookupError, OSError, builtins.RuntimeError, TypeError, ValueError)


def refuse_uncallable(name: str, thing: object) -> None:
    """What users register under a name is called later: say now that it cannot be.

    Raises:
        TypeError: it is no function, class or other callable.
    """
    if not callable(thing):
        raise TypeError(f"'{name}' needs a function or a class, not {type(thing).__name__}")


class ParseError(ReqonError):
    """The text does not fit the language."""

    exit_code = 2
    slug = "syntax"
    kind = "config"

    @classmethod
    def of(cls, diagnostics: Sequence[Diagnostic]) -> Self:
        """One error that carries several findings: of the class that the first one's code belongs to."""
        chosen: type[ParseError] = cls
        if cls is ParseError and diagnostics[0].code not in _SYNTAX:
            chosen = LexerError if diagnostics[0].code in _LEXIS else SemanticError
        return cast("Self", chosen("", *diagnostics))

    @property
    def token_value(self) -> str | None:
        """The text that does not fit."""
        return self.span.text if self.span else None


class LexerError(ParseError):
    """A character, string or comment is wrong."""


class SemanticError(ParseError):
    """A name, option or value is wrong."""

    @property
    def name(self) -> str | None:
        """What was written."""
        return self.token_value

    @property
    def suggestion(self) -> str | None:
        """What was probably meant."""
        found = _SUGGESTION.search(self.hint or "")
        return found[1] if found else None


class ConfigurationError(ReqonError):
    """Credentials, options, paths, ports: what the operator must mend. `option` and `source_name` where it is one's."""

    exit_code = 3
    slug = "config"
    kind = "config"
    option: str | None = None
    source_name: str | None = None


class SpecError(ConfigurationError):
    """An OpenAPI document cannot be used. `spec` is the document, `problems` all that is wrong with it, in words."""

    slug = "spec"
    spec: str = ""
    problems: tuple[str, ...] = ()


class StateError(ReqonError):
    """The state directory or a state file cannot be used."""

    exit_code = 3
    slug = "state"
    kind = "internal"


class ReqonRuntimeError(ReqonError):
    """A run failed.

    Attributes:
        step_type: of the step in work: fetch, store, match …, where it is known.
        item: what records show of the item in work, where one of a parallel loop failed.
    """

    slug = "runtime"
    step_type: str | None = None
    item: Any = None


RuntimeError = ReqonRuntimeError  # noqa: A001  # the documented alias


class StepError(ReqonRuntimeError):
    """A step failed."""


class EvaluatorError(ReqonRuntimeError):
    """An expression has no value: it names the function or operator, the expected and the actual type."""

    slug = "eval"
    kind = "eval"

    @property
    def expression(self) -> str | None:
        """Its text in the mission."""
        return self.span.text if self.span else None


class UnsupportedOperationError(EvaluatorError):
    """The operation exists, but not for this value or back end."""

    operation: str = ""


class ValidationError(ReqonRuntimeError):
    """Constraints of severity error were violated; `constraint` is the text of the first."""

    slug = "validation"
    kind = "validation"
    constraint: str = ""
    severity: str = "error"


class NoMatchError(ReqonRuntimeError):
    """No arm of a match step takes the value; `value` is the begin of its JSON, secrets masked, at most 200 bytes."""

    slug = "no_match"
    kind = "no_match"
    value: str = ""


class NoVariantError(ReqonRuntimeError):
    """No variant of a transform takes the value."""

    slug = "no_variant"
    kind = "no_variant"


class AbortError(ReqonRuntimeError):
    """The mission said `abort`."""

    slug = "abort"
    kind = "abort"


class ExtensionError(ReqonRuntimeError):
    """A registered step handler failed."""

    slug = "extension"
    kind = "extension"


class FetchError(StepError):
    """A request failed for good.

    Attributes:
        kind: http, or the failure kind of spec/runtime.md 2.7.
        method, url, source, attempts: of the request; the URL is redacted.
        status_code: HTTP status, 0 if there was no answer.
        retry_after: seconds that the server or a limiter asked for.
        headers, body: of the answer; the body parsed if it could be.
        page: which page failed, from 1; 0 for a request that turns none.
        envelope: the error response that a match would see; None where the request was made outside of a mission.
    """

    slug = "http"
    page: int = 0
    envelope: Mapping[str, Any] | None = None

    def __init__(
        self,
        message: str,
        *,
        kind: str = "http",
        source: str = "",
        method: str = "",
        url: str = "",
        status_code: int = 0,
        attempts: int = 0,
        retry_after: float | None = None,
        headers: Any = None,
        body: Any = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, code=kind, hint=hint)
        self.kind = kind
        self.source = source
        self.method = method
        self.url = SECRETS.redact(url)
        self.status_code = status_code
        self.attempts = attempts
        self.retry_after = retry_after
        self.headers = headers if headers is not None else {}
        self.body = body

    @property
    def body_excerpt(self) -> str:
        """The begin of the answer's body, secrets masked, at most 2 KiB."""
        if self.body is None:
            return ""
        text = SECRETS.redact(self.body if isinstance(self.body, str) else json.dumps(self.body, ensure_ascii=False))
        return text.encode("utf-8", "replace")[:_EXCERPT].decode("utf-8", "ignore")

    def concerning(self, *, source: str, method: str, url: str, attempts: int) -> Self:
        """The same error, its message beginning with the request that failed. Only the first call has an effect."""
        if not self.method:
            self.source, self.method, self.url, self.attempts = source, method, SECRETS.redact(url), attempts
            first = self.diagnostics[0]
            message = f"{method} {self.url} failed: {first.message}"
            self.diagnostics = (Diagnostic(first.code, message, first.span, first.hint), *self.diagnostics[1:])
            self.args = (message,)
        return self


class AuthenticationError(FetchError):
    """A token could not be had. `oauth_error` is the error code of the token endpoint, if it gave one."""

    oauth_error: str | None = None


class RateLimitError(FetchError):
    """A limit forbids the request now; `reset_at` is when it may go, if that is known."""

    reset_at: datetime | None = None


class RateLimitTimeoutError(RateLimitError):
    """A limit would hold the request for longer than `maxWait`; both in seconds."""

    waited: float = 0.0
    max_wait: float = 0.0


class CircuitBreakerError(FetchError):
    """The source's breaker is open since `opened_at`, for `next_attempt_in` more seconds."""

    next_attempt_in: float = 0.0
    opened_at: datetime | None = None


class PaginationError(FetchError):
    """Paging does not end, goes in circles, or leaves its origin: reason max_pages, cursor_loop or origin."""

    reason: str = ""


class ResponseValidationError(FetchError, ValidationError):
    """An answer does not fit its OpenAPI schema: `errors` says where and how, `operation_id` whose answer it is."""

    errors: tuple[str, ...] = ()
    operation_id: str = ""


class RetryExhaustedError(StepError):
    """A `retry` directive's budget is used up: the request was made `attempts` times."""

    slug = "retry_exhausted"
    kind = "retry_exhausted"
    attempts: int = 0


class WebhookTimeoutError(ReqonRuntimeError):
    """A `wait` saw too few events in its time."""

    slug = "webhook_timeout"
    kind = "webhook_timeout"

    def __init__(self, message: str, *, path: str = "", received: int = 0, expected: int = 1) -> None:
        super().__init__(message, hint="give it a longer timeout, or say what then: retryOnTimeout: { … }, or false")
        self.path = path
        self.received = received
        self.expected = expected


class StoreError(StepError):
    """A store refused or failed. `operation` is init, get, set, update, delete, list, count or clear.

    `store_name` is the store's name, `code` the back end's own word or number, `status` that of an HTTP answer.
    `refused`: the record itself is at fault, and others might be written.
    """

    slug = "store"
    kind = "store"

    def __init__(
        self,
        message: str,
        *,
        store: str = "",
        operation: str = "set",
        key: str | None = None,
        code: str | None = None,
        status: int | None = None,
        refused: bool = False,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        if operation == "init":
            self.exit_code = ConfigurationError.exit_code
        self.store_name = store
        self.operation = operation
        self.key = key
        self.code = code
        self.status = status
        self.refused = refused


class ParallelError(ReqonRuntimeError):
    """Several members of a parallel group or loop failed: `failures` holds (name, error) pairs.

    Its exit code is the highest of theirs.
    """

    slug = "parallel"

    def __init__(self, failures: Sequence[tuple[str, ReqonError]]) -> None:
        super().__init__("; ".join(f"{name}: {error.message}" for name, error in failures))
        self.failures = tuple(failures)
        self.exit_code = max((error.exit_code for _, error in failures), default=self.exit_code)
        self.kind = failures[0][1].kind if failures else "internal"
