"""What a mission's clauses ask of the daemon: its schedule, and how its runs are treated (spec/daemon.md 2)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any, get_args

from reqon.diagnostics import Span
from reqon.errors import SemanticError
from reqon.http.retry import Backoff, RetryPolicy
from reqon.lang import nodes
from reqon.lang.cron import CronFields, parse_cron
from reqon.lang.options import MISSION, SCHEDULE
from reqon.lang.program import MissionProgram
from reqon.runtime.settings import option_words
from reqon.values import Value, milliseconds
from reqon_daemon.slots import Cron, Every, LocalTimes, Once, Schedule, at_rule, jitter_of
from reqon_daemon.zones import Zone, system_zone, zone

Evaluate = Callable[[nodes.Expression], Value]

_RERUN_DELAY_SECONDS = 60.0
_LONGEST_RERUN_DELAY_SECONDS = 86_400.0


class CatchUp(StrEnum):
    """Which of the missed slots are made up for."""

    NONE = "none"
    LAST = "last"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One mission's options as the daemon uses them. Durations in seconds; None where there is no such limit.

    `max_runs` is how many may run at once: 1 with `skipIfRunning`. `retry` counts runs in all, the first included.
    """

    schedule: Schedule | None = None
    jitter_seconds: float = 0.0
    catch_up: CatchUp = CatchUp.LAST
    skip_if_running: bool = True
    max_runs: int = 1
    run_immediately: bool = False
    retry: RetryPolicy | None = None
    timeout_seconds: float | None = None
    stuck_after_seconds: float | None = None
    fresh_within_seconds: float | None = None
    keeps_state: bool = True


def constant(node: nodes.Expression) -> Value:
    """The value of an expression that needs nothing but itself.

    Raises:
        SemanticError: it needs more; daemon options are known when the mission is loaded.
    """
    match node:
        case nodes.Literal_(value=value):
            return value
        case nodes.DurationLiteral():
            return timedelta(milliseconds=node.milliseconds)
        case nodes.Unary(operator="-" | "+" as sign, operand=operand):
            value = constant(operand)
            return -value if sign == "-" else value
        case nodes.Name(name=word):
            return word  # `catchUp: last`, `backoff: exponential`
        case nodes.ObjectLiteral(entries=entries):
            return {e.key: constant(e.value) for e in entries if isinstance(e, nodes.Entry)}
        case nodes.ArrayLiteral(elements=elements):
            return [constant(e) for e in elements if not isinstance(e, nodes.Spread)]
    raise SemanticError("this option needs a constant value", code="bad-option", span=node.span)


def policy_of(program: MissionProgram, *, default_zone: Zone | None = None, evaluate: Evaluate = constant) -> Policy:
    """The policy that a mission's schedule block and options ask for. The schedule of an `every` isn't anchored yet.

    Raises:
        SemanticError: a schedule, zone or option that cannot be; with its place.
    """
    block = program.schedule.options if program.schedule else ()
    options = _Options({**program.options, **{o.key: o for o in block}}, evaluate)
    own = _Options({o.key: o for o in block}, evaluate)
    skip = options.flag("skipIfRunning", default=True)
    most = options.whole("maxConcurrency") or 1
    return Policy(
        schedule=_schedule(program, options, default_zone),
        jitter_seconds=options.seconds("jitter") or 0.0,
        catch_up=options.word("catchUp", CatchUp, CatchUp.LAST),
        skip_if_running=skip,
        max_runs=1 if skip else most,
        run_immediately=options.flag("runImmediately", default=False),
        retry=_retry(options, own),
        timeout_seconds=options.seconds("timeout"),
        stuck_after_seconds=options.seconds("stuckAfter"),
        fresh_within_seconds=options.seconds("freshWithin"),
        keeps_state=options.flag("enableState", default=True),
    )


def cron_rule(fields: CronFields, where: Zone) -> Cron:
    """The due times of a cron text in a zone."""
    times = LocalTimes(fields.minutes, fields.hours, fields.days, fields.months, fields.weekdays)
    return Cron(times, where, fields.every_match)


def _schedule(program: MissionProgram, options: "_Options", default_zone: Zone | None) -> Schedule | None:
    node = program.schedule
    if node is None:
        return None
    where = _zone(options) or default_zone or system_zone()
    spread = timedelta(seconds=options.seconds("jitter") or 0)
    rule, text = _rule(node, where)
    return Schedule(rule=rule, text=text, zone=where, jitter=jitter_of(program.name, spread))


@lru_cache(maxsize=1024)  # thousands of missions share a few hundred texts
def _cron_fields(text: str) -> CronFields | None:
    return parse_cron(text)[0]


def _rule(node: nodes.Schedule, where: Zone) -> tuple[Every | Cron | Once, str]:
    if node.kind == "every":
        amount, unit = node.amount, node.unit or ""
        if not isinstance(amount, int) or amount < 1:
            problem = f"'every {amount} {unit}' never comes: the number must be a whole one from 1 on"
            raise SemanticError(problem, code="bad-schedule", span=node.when_span)
        shown = unit.removesuffix("s") if amount == 1 else unit
        return Every(amount * nodes.UNIT_MILLISECONDS[unit] // 1000), f"every {amount} {shown}"
    text = node.text or ""
    if node.kind == "cron":
        fields = _cron_fields(text)
        if fields is None:
            _, found = parse_cron(text, node.when_span)
            raise SemanticError.of([d for d in found if d.severity == "error"])
        return cron_rule(fields, where), f'cron "{text}"'
    try:
        return at_rule(text, where), f'at "{text}"'
    except ValueError as error:
        raise SemanticError(
            f"'{text}' is no time to run at",
            code="bad-schedule",
            span=node.when_span,
            hint='write at "2031-05-04T06:00:00Z", or a time of day: at "23:55"',
        ) from error


def _zone(options: "_Options") -> Zone | None:
    name, span = options.get("timezone")
    if name is None:
        return None
    try:
        return zone(name) if isinstance(name, str) else _fail("timezone", name, "an IANA name", span)
    except LookupError as error:
        hint = "IANA names look like 'Europe/London'"
        raise SemanticError(str(error), code="bad-timezone", span=span, hint=hint) from error


def _retry(options: "_Options", block: "_Options") -> RetryPolicy | None:
    value, span = options.get("retryOnFailure")
    if value is None:
        value, span = block.get("retry")
    if value is None or value is False:
        return None
    if isinstance(value, int):
        value = {"maxAttempts": value + 1}
    if not isinstance(value, dict):
        _fail("retryOnFailure", value, "a number of reruns or a block of retry options", span)
    if "maxRetries" in value or "delaySeconds" in value:
        delay = value.get("delaySeconds", _RERUN_DELAY_SECONDS) * 1000
        value = {"maxAttempts": value.get("maxRetries", 3) + 1, "delay": delay}
    return RetryPolicy(
        max_attempts=_whole("maxAttempts", value.get("maxAttempts", 3), span),
        backoff=_one_of("backoff", value.get("backoff", "exponential"), get_args(Backoff), span),
        initial_delay_seconds=_seconds(value.get("initialDelay"), "initialDelay", span) or _RERUN_DELAY_SECONDS,
        # Reruns of a mission may be hours apart: the 30 s of a request are no ceiling here.
        max_delay_seconds=_seconds(value.get("maxDelay"), "maxDelay", span) or _LONGEST_RERUN_DELAY_SECONDS,
        delay_seconds=_seconds(value.get("delay"), "delay", span),
        jitter=float(value.get("jitter", 0.1)),
    )


class _Options:
    """Options by name, evaluated when they are asked for."""

    def __init__(self, options: Mapping[str, nodes.Option], evaluate: Evaluate) -> None:
        self._options = options
        self._evaluate = evaluate

    def get(self, key: str) -> tuple[Any, Span | None]:
        option = self._options.get(key)
        if option is None or isinstance(option.value, nodes.Since | nodes.Paginate):
            return None, None
        return option_words(option, self._evaluate, SCHEDULE if key in SCHEDULE.keys else MISSION), option.value.span

    def flag(self, key: str, *, default: bool) -> bool:
        value, span = self.get(key)
        if value is None:
            return default
        return value if isinstance(value, bool) else _fail(key, value, "true or false", span)

    def whole(self, key: str) -> int | None:
        value, span = self.get(key)
        return None if value is None else _whole(key, value, span)

    def seconds(self, key: str) -> float | None:
        value, span = self.get(key)
        return _seconds(value, key, span)

    def word(self, key: str, kind: type[CatchUp], default: CatchUp) -> CatchUp:
        value, span = self.get(key)
        if value is None:
            return default
        return kind(_one_of(key, value, tuple(kind), span))


def _seconds(value: Value, key: str, span: Span | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, timedelta):
        value = milliseconds(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        _fail(key, value, "a duration like 30 seconds, or milliseconds", span)
    return float(value) / 1000


def _whole(key: str, value: Value, span: Span | None) -> int:
    good = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    return int(value) if good else _fail(key, value, "a whole number from 1 on", span)


def _one_of(key: str, value: Value, words: Sequence[str], span: Span | None) -> Any:
    return value if value in words else _fail(key, value, "one of " + ", ".join(words), span)


def _fail(key: str, value: Value, wanted: str, span: Span | None) -> Any:
    raise SemanticError(f"{key} must be {wanted}, not {value!r}", code="bad-option", span=span)
