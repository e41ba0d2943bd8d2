"""Where users' code may step in: one list of functions for each moment of a run (spec/runtime.md 20)."""

import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from reqon.errors import USERS_FAULTS, ExtensionError, ReqonError, refuse_uncallable

log = logging.getLogger("reqon")

HookFunction = Callable[..., Awaitable[object] | object]


class Hook:
    """The functions that are called at one moment, in order of tapping. Plain or async."""

    def __init__(self, name: str, *, guarded: bool) -> None:
        self.name = name
        self._guarded = guarded  # what is raised here fails the run; without, it is logged
        self._taps: list[tuple[str, HookFunction]] = []

    def tap(self, name: str, function: HookFunction) -> None:
        """Call `function` at this moment; `name` says whose it is."""
        refuse_uncallable(name, function)
        self._taps.append((name, function))

    def __bool__(self) -> bool:
        return bool(self._taps)

    async def __call__(self, *arguments: object) -> object | None:
        """Call them all; the last answer that is not None.

        Raises:
            ExtensionError: one failed, and the hook is one before something.
        """
        found: object | None = None
        for name, function in self._taps:
            try:
                answer = function(*arguments)
                if inspect.isawaitable(answer):
                    answer = await answer
            except ReqonError as error:
                if self._guarded:
                    raise
                log.exception("hook %s of %s failed: %s", self.name, name, error.message)
            except USERS_FAULTS as error:
                if self._guarded:
                    message = f"hook {self.name} of {name} failed: {type(error).__name__}: {error}"
                    raise ExtensionError(message) from error
                log.exception("hook %s of %s failed", self.name, name)
            else:
                found = answer if answer is not None else found
        return found


class Hooks:
    """All moments. A hook before something fails the run when it raises; one after something is only logged.

    Attributes:
        before_parse: called with the text; one that answers a text replaces it.
        after_parse: with the Program; one that answers a Program replaces it. Logged when it raises.
        before_execute: with the mission, a MissionProgram; after_execute: with the ExecutionResult.
        before_action: with the action's name; after_action: with it and an ActionOutcome.
        before_step, after_step: with a StepMoment, and a StepOutcome: steps of an action's own list, not of loops.
        on_error: with an ErrorReport, and a dict of mission, execution_id, action, step.
    """

    def __init__(self) -> None:
        self.before_parse = Hook("before_parse", guarded=True)
        self.after_parse = Hook("after_parse", guarded=False)
        self.before_execute = Hook("before_execute", guarded=True)
        self.after_execute = Hook("after_execute", guarded=False)
        self.before_action = Hook("before_action", guarded=True)
        self.after_action = Hook("after_action", guarded=False)
        self.before_step = Hook("before_step", guarded=True)
        self.after_step = Hook("after_step", guarded=False)
        self.on_error = Hook("on_error", guarded=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionOutcome:
    """How an action ended: `duration` in milliseconds."""

    success: bool
    error: str | None
    items_processed: int
    duration: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMoment:
    """A step of an action's own list: its number from 0, its kind (`fetch`, `for`, …), its place `file:line:col`."""

    action: str
    index: int
    type: str
    location: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutcome:
    """How a step ended; `flow` is `skip` when that ended its action. `duration` in milliseconds."""

    success: bool
    error: str | None = None
    flow: str | None = None
    duration: int = 0


NO_HOOKS = Hooks()
