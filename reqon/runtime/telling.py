"""What steps tell of each item, to whoever listens; only actions compiled as `watched` call most of this."""

from types import TracebackType
from typing import Any, Self

from reqon.errors import AbortError, ReqonError
from reqon.events import (
    DataRefused,
    DataTransformed,
    DataValidated,
    LoopEnded,
    LoopIteration,
    LoopStarted,
    MatchAttempted,
    MatchDecided,
    StepEnded,
    StepStarted,
)
from reqon.runtime.frame import Frame
from reqon.runtime.signals import RetryFetch, SkipIteration
from reqon.values import Struct


class StepPlace(Struct, frozen=True, kw_only=True):
    """What events say of a step. `path`: its place in the tree of its action, as in `2.0`."""

    index: int
    type: str
    path: str


class WatchedStep:
    """Around a step: `step.start`, and `step.complete` however it is left, unless the run itself is stopped."""

    __slots__ = ("_f", "_place", "_started")

    def __init__(self, f: Frame, place: StepPlace) -> None:
        self._f = f
        self._place = place
        self._started = 0.0

    def __enter__(self) -> None:
        f, place = self._f, self._place
        x = f.x
        f.flow = None
        self._started = x.clock.monotonic()
        if x.wants(StepStarted):
            x.emit(
                StepStarted(
                    action_name=f.action,
                    step_index=place.index,
                    step_type=place.type,
                    step_path=f"{f.action}.{place.path}",
                ),
                action=f.action,
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        f, place = self._f, self._place
        x = f.x
        if place.type == "store":
            x.tell_writes(f.action)
        directive = None if place.type == "for" else f.flow
        if isinstance(error, SkipIteration):
            directive = directive or "skip"
        elif isinstance(error, RetryFetch):
            directive = directive or "retry"
        elif isinstance(error, AbortError):
            directive = "abort"
        elif error is not None and not isinstance(error, ReqonError):
            return
        failed = error if isinstance(error, ReqonError) and not isinstance(error, AbortError) else None
        if x.wants(StepEnded):
            x.emit(
                StepEnded(
                    action_name=f.action,
                    step_index=place.index,
                    step_type=place.type,
                    step_path=f"{f.action}.{place.path}",
                    success=failed is None,
                    flow=directive,
                    error=failed.message if failed is not None else None,
                ),
                action=f.action,
                duration_ms=x.since(self._started),
            )


class WatchedLoop:
    """Around a loop inside a loop: `loop.start`, `loop.iteration` of each item, `loop.complete`."""

    __slots__ = ("_begun", "_f", "_filtered", "_first", "_skipped", "_started", "_variable", "total")

    def __init__(self, f: Frame, variable: str, filtered: bool, total: int, start: int = 0) -> None:
        self._f, self._variable, self._filtered, self._first = f, variable, filtered, start
        self.total = total
        self._skipped = f.skipped
        self._begun = start
        self._started = f.x.clock.monotonic()

    def __enter__(self) -> Self:
        tell_loop(self._f, self._variable, self.total, filtered=self._filtered, concurrency=1)
        return self

    def at(self, index: int) -> None:
        """The item at an index is begun."""
        self._begun = index + 1
        tell_iteration(self._f, self._variable, index, self.total)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        f = self._f
        failed = int(isinstance(error, ReqonError))
        if kind is None or failed or isinstance(error, SkipIteration | RetryFetch):
            skipped = f.skipped - self._skipped
            done = self._begun - self._first - failed
            tell_loop_end(f, self._variable, self.total, done, skipped, failed, f.x.since(self._started))


def tell_loop(f: Frame, variable: str, total: int, *, filtered: bool, concurrency: int) -> None:
    """`loop.start`: after filtering."""
    if f.x.wants(LoopStarted):
        f.x.emit(
            LoopStarted(variable=variable, collection_size=total, has_filter=filtered, concurrency=concurrency),
            action=f.action,
        )


def tell_iteration(f: Frame, variable: str, index: int, total: int) -> None:
    """`loop.iteration`: before each item."""
    if f.x.wants(LoopIteration):
        f.x.emit(LoopIteration(variable=variable, item_index=index, total_items=total), action=f.action)


def tell_loop_end(
    f: Frame, variable: str, total: int, processed: int, skipped: int, failed: int, milliseconds: int
) -> None:
    """`loop.complete`, also by an error."""
    if f.x.wants(LoopEnded):
        f.x.emit(
            LoopEnded(
                variable=variable,
                total_items=total,
                items_processed=processed,
                items_skipped=skipped,
                items_failed=failed,
            ),
            action=f.action,
            duration_ms=milliseconds,
        )


def tell_transform(f: Frame, schema: str | None, fields: int) -> None:
    """`data.transform`: one value has become another."""
    if f.x.wants(DataTransformed):
        f.x.emit(
            DataTransformed(target_schema=schema, input_count=1, output_count=1, fields_mapping=fields),
            action=f.action,
        )


class Validation(Struct, frozen=True, kw_only=True):
    """What events say of a `validate` step: what it looks at, and its constraints as the mission writes them."""

    target: str
    rules: tuple[str, ...]


def tell_valid(f: Frame, validation: Validation) -> None:
    """`data.validate`: every constraint holds."""
    if f.x.wants(DataValidated):
        told: dict[str, Any] = {"target": validation.target, "rules": validation.rules}
        f.x.emit(
            DataValidated(passed=True, valid=True, warning_count=0, error_count=0, **told),
            action=f.action,
        )


def tell_refused(f: Frame, validation: Validation, *, warnings: int, errors: int, violated: tuple[str, ...]) -> None:
    """`data.validate`: some do not. This one unwatched actions tell too: a violation is dear enough by itself."""
    if f.x.wants(DataRefused):
        f.x.emit(
            DataRefused(
                target=validation.target,
                rules=validation.rules,
                passed=not errors,
                valid=False,
                warning_count=warnings,
                error_count=errors,
                errors=violated,
            ),
            action=f.action,
        )


class MatchArms(Struct, frozen=True, kw_only=True):
    """What events say of a `match`: its arms' patterns, and whether one takes everything."""

    patterns: tuple[str, ...]
    has_default: bool


class MatchArm(Struct, frozen=True, kw_only=True):
    """What events say of one arm; `pattern` is None for one that takes everything."""

    pattern: str | None = None
    is_default: bool = False
    directive: str | None = None


NO_ARM = MatchArm()


def tell_match(f: Frame, arms: MatchArms) -> None:
    """`match.attempt`: before the arms."""
    if f.x.wants(MatchAttempted):
        f.x.emit(MatchAttempted(schemas=arms.patterns, has_default=arms.has_default), action=f.action)


def tell_arm(f: Frame, arm: MatchArm) -> None:
    """`match.result`: this arm, or none."""
    if f.x.wants(MatchDecided):
        f.x.emit(
            MatchDecided(matched_schema=arm.pattern, is_default=arm.is_default, flow_directive=arm.directive),
            action=f.action,
        )
