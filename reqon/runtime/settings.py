"""Mission and source options, evaluated and typed, when a run begins (spec/language.md 2.3, 2.4)."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from urllib.parse import urlsplit

from reqon.diagnostics import Diagnostic
from reqon.errors import ConfigurationError
from reqon.http.addresses import origin_of
from reqon.http.messages import BreakerSettings, RateLimitSettings, SourceSettings
from reqon.http.retry import RetryPolicy
from reqon.lang import nodes
from reqon.lang.analysis import depends_on_the_moment
from reqon.lang.kinds import BadOptionError, Block, Either, Kind, Milliseconds, Table, read_value, worded
from reqon.lang.options import SOURCE, STORE_TABLES, fetch_table
from reqon.lang.references import filled, names_read
from reqon.lang.walk import walk
from reqon.values import Value, changed

Evaluate = Callable[[nodes.Expression], Value]
Again = Callable[[nodes.Expression], Callable[[], Value]]
Header = Value | Callable[[], Value]

CREDENTIAL_OPTIONS = {
    "token": "token",
    "username": "username",
    "password": "password",
    "apiKey": "key",
    "apiKeyHeader": "header",
    "apiKeyQuery": "query",
    "apiKeyPrefix": "prefix",
}
_LONGEST = 10.0 * 365 * 86400  # seconds; longer waits are no limit
VALIDATION_MODES = ("warn", "strict", "off")


def source_settings(
    written: nodes.SourceDef,
    evaluate: Evaluate,
    origins: frozenset[str],
    environment: Mapping[str, str],
    *,
    again: Again,
    server: Callable[[], str | None] | None = None,
) -> SourceSettings:
    """A source's options for one run. `server` tells the first server of its OpenAPI document, None if it can't.

    `again` makes of an expression what evaluates it: headers are asked anew for each request.

    Raises:
        ConfigurationError: no base, a variable that is not set, or an option whose computed value does not fit.
    """
    name = written.name.text
    source = _filled(written, environment)
    values: dict[str, Value] = {}
    headers: list[tuple[str, Header]] = []
    for option in source.options:
        if option.key == "headers":
            continue
        value = option_words(option, evaluate, SOURCE)
        values[option.key] = _typed(option, value) if option.key in _TYPED else value
    header_option = next((o for o in source.options if o.key == "headers"), None)
    if header_option is not None:
        headers = list(_headers(header_option.value, evaluate, again))
    base = values.get("base")
    from_document = server is not None and not any(o.key == "base" for o in source.options)
    if server is not None and from_document:
        base = server()
        if base is None:
            message = f"the OpenAPI document of source '{name}' names no server that a file can tell"
            hint = 'give the source a base: "https://…"'
            raise _of_base(Diagnostic("missing-base", message, source.name.span, hint), name)
    if not isinstance(base, str) or not base.strip():
        span = next((o.value.span for o in source.options if o.key == "base"), source.name.span)
        variables = _variables(written, "base")
        hint = f"set the variable {variables[0]}" if variables else 'give it a base: "https://…"'
        raise _of_base(Diagnostic("missing-base", f"the base of source '{name}' is empty", span, hint), name)
    inline = {field: values[key] for key, field in CREDENTIAL_OPTIONS.items() if values.get(key) is not None}
    if isinstance(values.get("oauth"), dict):
        inline |= values["oauth"]
    key_header = values.get("idempotencyKey")
    return SourceSettings(
        name=name,
        base=(checked := _checked_base(base.strip().rstrip("/"), source)),
        # What a document says is no word of the mission: it opens no way to private addresses.
        base_trusted=not from_document or origin_of(checked) in origins,
        validation=_validation(values),
        auth=values.get("auth"),
        inline=inline,
        variables={f: read[0] for key, f in CREDENTIAL_OPTIONS.items() if (read := _variables(written, key))},
        headers=tuple(headers),
        timeout_seconds=seconds(values.get("timeout"), 30.0),
        connect_timeout_seconds=None
        if values.get("connectTimeout") is None
        else seconds(values["connectTimeout"], 10.0),
        retry=retry_policy(values.get("retry")),
        rate_limit=rate_limit(values.get("rateLimit")),
        breaker=_breaker(values.get("circuitBreaker")),
        idempotency_header="Idempotency-Key" if key_header is True else key_header or None,
        allow_origins=frozenset(map(origin_of, values.get("allowOrigins") or ())),
        literal_origins=origins,
        max_response_bytes=int(values.get("maxResponseBytes") or 64 * 1024 * 1024),
        max_redirects=int(5 if values.get("maxRedirects") is None else values["maxRedirects"]),
        propagate_trace=bool(values.get("propagateTrace")),
    )


def _headers(written: object, evaluate: Evaluate, again: Again) -> Iterator[tuple[str, Header]]:
    """A source's headers: values, and where they depend on the moment, as `now()` does, what gives them."""
    if isinstance(written, nodes.ObjectLiteral) and all(isinstance(entry, nodes.Entry) for entry in written.entries):
        for entry in written.entries:
            assert isinstance(entry, nodes.Entry)
            yield entry.key, again(entry.value) if depends_on_the_moment(entry.value) else evaluate(entry.value)
    else:
        pairs = evaluate(written)  # type: ignore[arg-type]
        if not isinstance(pairs, Mapping | None):
            assert isinstance(written, nodes.Node)
            message = "headers must be an object of names and values"
            raise ConfigurationError("", Diagnostic("bad-option-value", message, written.span, 'as in { "X-A": "b" }'))
        yield from pairs.items() if pairs is not None else ()


def _validation(values: Mapping[str, Value]) -> Literal["off", "warn", "strict"]:
    if not values.get("validateResponses"):
        return "off"
    mode: Any = values.get("validationMode")
    return mode if mode in VALIDATION_MODES else "warn"


def _filled(source: nodes.SourceDef, environment: Mapping[str, str]) -> nodes.SourceDef:
    """The source with its `${NAME}` replaced. Credentials may come from elsewhere: theirs are null when unset."""
    options = tuple(
        filled(option, environment, unset_is_null=option.key in CREDENTIAL_OPTIONS or option.key == "oauth")
        for option in source.options
    )
    return changed(source, options=options)


def _variables(source: nodes.SourceDef, key: str) -> list[str]:
    option = next((o for o in source.options if o.key == key), None)
    return [] if option is None else list(names_read(option))


def _checked_base(base: str, source: nodes.SourceDef) -> str:
    span = next((o.value.span for o in source.options if o.key == "base"), source.name.span)
    try:
        parts = urlsplit(base)
        problem = None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            problem = "no http(s) URL" if "@" in base else f"'{base}' is no http(s) URL"
        elif parts.username or parts.password or parts.query or parts.fragment:
            problem = "it holds a user, query or fragment"
    except ValueError as error:
        problem = str(error)
    if problem:
        message = f"the base of source '{source.name.text}': {problem}"
        hint = 'write base: "https://api.example.com/v1"'
        raise _of_base(Diagnostic("bad-option-value", message, span, hint), source.name.text)
    return base


def _of_base(found: Diagnostic, source: str) -> ConfigurationError:
    error = ConfigurationError("", found)
    error.option, error.source_name = "base", source
    return error


# What a source computes is known when the run begins; constants were looked at by the check.
_TYPED = frozenset((
    "timeout", "connectTimeout", "retry", "rateLimit", "circuitBreaker", "validateResponses", "validationMode",
    "idempotencyKey", "allowOrigins", "maxResponseBytes", "maxRedirects", "propagateTrace",
))  # fmt: skip


def _typed(option: nodes.Option, value: Value) -> Value:
    kind = SOURCE.kind(option.key)
    assert kind is not None
    assert isinstance(option.value, nodes.Node)
    try:
        return as_kind(option.key, kind, value)
    except BadOptionError as error:
        found = Diagnostic(error.diagnostics[0].code, error.message, option.value.span, error.hint)
        problem = ConfigurationError("", found)
        problem.option = option.key
        raise problem from None


def as_kind(key: str, kind: Kind, value: Value) -> Value:
    """An evaluated option as its kind takes it: texts that `env` gave become numbers and truths, times durations.

    Raises:
        BadOptionError: it is none of what the option takes.
    """
    if value is None:
        return None
    read = read_value(key, kind, value)
    if isinstance(kind, Either):
        kind = next((k for k in kind.kinds if isinstance(k, Block) == isinstance(value, Mapping)), kind)
    if isinstance(kind, Milliseconds):
        return timedelta(seconds=min(read, _LONGEST))
    if isinstance(kind, Block) and isinstance(value, Mapping):
        table = kind.table
        return {k: as_kind(k, inner, v) for k, v in value.items() if (inner := table.kind(k)) is not None}
    return list(read) if isinstance(read, tuple | frozenset) else read


def typed_option(options: Mapping[str, Value], key: str) -> Value:
    """An option that a request computes, as its kind takes it.

    Raises:
        BadOptionError: it is none.
    """
    value = options.get(key)
    return None if value is None else as_kind(key, _OF_REQUESTS[key], value)


_OF_REQUESTS = {
    key: kind
    for key in ("retry", "timeout", "rateLimit", "maxPages")
    if (kind := fetch_table("get").kind(key)) is not None
}


def option_words(option: nodes.Option, evaluate: Evaluate, table: Table) -> Value:
    """An option's value; an enumerated bare word is its own text. `table` is that of the brace list it stands in."""
    value = option.value
    assert not isinstance(value, nodes.Since | nodes.Paginate)
    return evaluate(worded(value, table.kind(option.key)))


def seconds(value: Value, default: float) -> float:
    """An option in milliseconds, or a duration, as seconds."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return default
    return value / 1000


def retry_policy(written: Value, base: RetryPolicy | None = None) -> RetryPolicy | None:
    """`retry: { … }` over the policy of the source, key by key; None when nothing is written anywhere."""
    if not isinstance(written, dict):
        return base
    known = base or RetryPolicy()
    delay = written.get("delay")
    maximum = written.get("maxDelay")
    return RetryPolicy(
        max_attempts=int(written.get("maxAttempts") or known.max_attempts),
        backoff=written.get("backoff") or known.backoff,
        initial_delay_seconds=seconds(written.get("initialDelay"), known.initial_delay_seconds),
        max_delay_seconds=known.max_delay_seconds if maximum is None else seconds(maximum, 30.0),
        delay_seconds=known.delay_seconds if delay is None else seconds(delay, 0.0),
        jitter=written["jitter"] if written.get("jitter") is not None else known.jitter,
    )


def rate_limit(written: Value) -> RateLimitSettings | None:
    """`rateLimit: { … }` of a source or a fetch; None when nothing is written."""
    if not isinstance(written, dict):
        return None
    strategy: Any = written.get("strategy") or "pause"
    return RateLimitSettings(
        requests_per_minute=written.get("requestsPerMinute") or written.get("fallbackRpm") or 60,
        strategy="pause" if strategy == "queue" else strategy,
        max_wait_seconds=seconds(written.get("maxWait"), 60.0),
        adaptive=bool(written.get("adaptive")),
        notify_at_seconds=seconds(written.get("notifyAt"), 10.0),
    )


def _breaker(written: Value) -> BreakerSettings | None:
    if written is True:
        return BreakerSettings()
    if not isinstance(written, dict):
        return None
    known = BreakerSettings()
    codes = written.get("failureStatusCodes")
    return BreakerSettings(
        failure_threshold=int(written.get("failureThreshold") or known.failure_threshold),
        reset_timeout_seconds=seconds(written.get("resetTimeout"), known.reset_timeout_seconds),
        success_threshold=int(written.get("successThreshold") or known.success_threshold),
        failure_window_seconds=seconds(written.get("failureWindow"), known.failure_window_seconds),
        failure_status_codes=frozenset(codes) if codes else known.failure_status_codes,
        count_network_errors=written.get("countNetworkErrors") is not False,
    )


def literal_origins(program_nodes: Mapping[str, nodes.Node]) -> frozenset[str]:
    """scheme://host:port of every URL that stands in a string literal of a mission."""
    found: set[str] = set()
    for root in program_nodes.values():
        for node in walk(root):
            if (
                isinstance(node, nodes.Literal_)
                and isinstance(node.value, str)
                and node.value.startswith(("http://", "https://"))
            ):
                with suppress(ValueError):  # the beginning of a URL at most
                    found.add(origin_of(node.value))
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """A store definition, evaluated: which adapter, under what name, with which options."""

    adapter: str
    identifier: str
    options: Mapping[str, Any]


def store_settings(store: nodes.StoreDef, evaluate: Evaluate) -> StoreSettings:
    """The adapter call that a store definition comes to; `match` and `if` choose between several.

    Raises:
        ConfigurationError: it comes to no adapter call, or to one whose name is no text, such as an unset variable.
    """
    call = _chosen(store.adapter, evaluate)
    if call is None:
        raise ConfigurationError(
            "",
            Diagnostic(
                "bad-option-value",
                f"store '{store.name.text}' comes to no adapter",
                store.adapter.span,
                'write file("name") or memory("name")',
            ),
        )
    written = [a for a in call.arguments if not isinstance(a, nodes.Lambda | nodes.Spread)]
    table = STORE_TABLES.get(call.name.text)
    kinds = (None, None if table is None else Block(table))
    values = [evaluate(worded(argument, kind)) for argument, kind in zip(written, kinds, strict=False)]
    identifier = values[0] if values else store.name.text
    if not isinstance(identifier, str) or not identifier:
        raise _nameless(store, written[0])
    options = values[1] if len(values) > 1 and isinstance(values[1], dict) else {}
    return StoreSettings(call.name.text, identifier, options)


def _nameless(store: nodes.StoreDef, argument: nodes.Node) -> ConfigurationError:
    variables = list(names_read(argument))
    hint = f"set the variable {variables[0]}" if variables else 'write a text, as in file("orders")'
    message = f"the name that store '{store.name.text}' is given is no text, or empty"
    return ConfigurationError("", Diagnostic("bad-option-value", message, argument.span, hint))


def _chosen(node: nodes.Expression, evaluate: Evaluate) -> nodes.Call | None:
    if isinstance(node, nodes.Call):
        return node
    if isinstance(node, nodes.Conditional):
        return _chosen(node.then if evaluate(node.condition) else node.otherwise, evaluate)
    if isinstance(node, nodes.MatchExpression):
        # Which arm it is, is found by evaluating the same match with the arms' numbers as results.
        arms = tuple(
            nodes.MatchExpressionArm(
                pattern=arm.pattern, guard=arm.guard, value=nodes.Literal_(value=i, span=arm.value.span), span=arm.span
            )
            for i, arm in enumerate(node.arms)
        )
        index = evaluate(nodes.MatchExpression(subject=node.subject, arms=arms, span=node.span))
        return None if index is None else _chosen(node.arms[index].value, evaluate)
    return None
