"""Stopping before each step, for `--debug`: what the code of a debugged plan calls (spec/daemon.md 1).

A plan that has a debugger is built with a call before every step. All others have none, and pay nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from reqon.lang import nodes
from reqon.runtime.frame import Frame
from reqon.values import Value

Variables = Callable[[], Mapping[str, Value]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A step that is about to run.

    Attributes:
        depth: how deep it stands: (calls of actions, lists of steps), outermost first.
        round: the round of the outermost loop around, None outside of loops.
        variables: what is bound here, by name; computed when called.
    """

    action: str
    step: nodes.Step
    depth: tuple[int, int]
    round: int | None
    response: Value
    variables: Variables


class Debugger(Protocol):
    """Whoever is asked before each step. Returns when the step may run; raises CancelledError to end the run."""

    def before(self, stop: Stop) -> None: ...


def pause(
    f: Frame,
    debugger: Debugger,
    step: nodes.Step,
    nesting: int,
    response: Value,
    bound: Callable[[], Mapping[str, Value]],
) -> None:
    """Called by generated code before a step."""
    if f.replaying:
        return
    debugger.before(
        Stop(
            action=f.action,
            step=step,
            depth=(f.call_depth, nesting),
            round=f.index if f.loop is not None else None,
            response=response,
            variables=lambda: {**f.variables, **bound()},
        )
    )
