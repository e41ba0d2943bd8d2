"""Where control goes in a list of steps, as far as the text alone says it (spec/language.md 7.1, 7.2, 7.10).

Pure functions of the tree: the checker reports by them, the step generator writes code by them.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from reqon.lang import nodes
from reqon.lang.nodes import ActionDef, Arm, ArmBody, Pattern, Step
from reqon.lang.walk import walk

Request: TypeAlias = nodes.Fetch | nodes.CallStep
REQUESTS = (nodes.Fetch, nodes.CallStep)

_DECIDING = (nodes.Abort, nodes.Skip, nodes.Retry, nodes.Queue, nodes.Jump)
_GIVING_UP = (nodes.Abort, nodes.Skip, nodes.Queue)


def steps_of(body: ArmBody) -> tuple[Step, ...]:
    """An arm body as a step list, whether it is a block or one step."""
    return body.steps if isinstance(body, nodes.Block) else (body,)


def decides(body: ArmBody) -> bool:
    """Whether a body is, or ends with, `abort`, `skip`, `retry`, `queue` or `jump`.

    Only then does an unguarded `_` or binding of a guarded match take an error response.
    """
    steps = steps_of(body)
    return bool(steps) and isinstance(steps[-1], _DECIDING)


def gives_up(body: ArmBody) -> bool:
    """Whether a body is, or ends with, `abort`, `skip` or `queue`: it may match after a `retry` is used up."""
    steps = steps_of(body)
    return bool(steps) and isinstance(steps[-1], _GIVING_UP)


def leaves(step: Step) -> bool:
    """Whether the steps after this one in its list never run."""
    if isinstance(step, nodes.Jump):
        return step.then == "retry"
    return isinstance(step, nodes.Skip | nodes.Abort | nodes.Retry | nodes.Continue)


def binding_of(pattern: Pattern | nodes.Expression, schemas: Collection[str]) -> str | None:
    """The name that a bare pattern binds; None where it is no bare name, or the name of a declared schema."""
    if isinstance(pattern, nodes.NamePattern):
        name = pattern.name.text
        if name not in schemas and "." not in name and (name[:1].islower() or name[:1] == "_"):
            return name
    return None


def takes_anything(arm: Arm | nodes.MatchExpressionArm, schemas: Collection[str]) -> bool:
    """Whether an arm is an unguarded `_` or binding."""
    if arm.guard is not None:
        return False
    return isinstance(arm.pattern, nodes.Wildcard) or binding_of(arm.pattern, schemas) is not None


def guard_of(steps: Sequence[Step], index: int) -> nodes.MatchStep | None:
    """The match that decides what an error response of the request at `index` means, if there is one.

    It is the next step of the same list, `let` steps aside, when it matches exactly `response`, or has no subject and
    `response` occurs in it.
    """
    if not isinstance(steps[index], REQUESTS):
        return None
    for step in steps[index + 1 :]:
        if isinstance(step, nodes.MatchStep):
            return step if _asks_response(step) else None
        if not isinstance(step, nodes.Let):
            return None
    return None


def is_guarded(steps: Sequence[Step], index: int) -> bool:
    """Whether a match follows that decides about error responses of the request at `index`."""
    return guard_of(steps, index) is not None


def guarding_match(steps: Sequence[Step], index: int) -> bool:
    """Whether the match at `index` is the one that guards a request before it."""
    match = steps[index]
    if not isinstance(match, nodes.MatchStep):
        return False
    before = index - 1
    while before >= 0 and isinstance(steps[before], nodes.Let):
        before -= 1
    return before >= 0 and isinstance(steps[before], REQUESTS) and _asks_response(match)


def _asks_response(match: nodes.MatchStep) -> bool:
    if match.subject is not None:
        return isinstance(match.subject, nodes.Name) and match.subject.name == "response"
    return any(isinstance(node, nodes.Name) and node.name == "response" for node in walk(match))


@dataclass(frozen=True, slots=True, eq=False)
class RetryTarget:
    """A `retry`, or `jump … then retry`, and the request it repeats; None: there is none to repeat."""

    directive: nodes.Retry | nodes.Jump
    request: Request | None


def retry_targets(steps: Sequence[Step]) -> Iterator[RetryTarget]:
    """Every retry directive in an action's steps, at any depth, with its request, in the order of the text.

    The request is the nearest one before the innermost match around the directive (before the directive itself when
    no match is around it), in the same step list or an enclosing one; the search ends at the surrounding loop body.
    Nodes are equal when they say the same, so compare directives and requests by identity.
    """
    return _retry_targets(steps, None, None, in_match=False)


def retry_target(directive: nodes.Retry | nodes.Jump, steps: Sequence[Step]) -> Request | None:
    """The request that this very directive, somewhere in an action's steps, repeats."""
    return next((found.request for found in retry_targets(steps) if found.directive is directive), None)


def _retry_targets(
    steps: Sequence[Step], before: Request | None, at_match: Request | None, *, in_match: bool
) -> Iterator[RetryTarget]:
    for step in steps:
        match step:
            case nodes.Fetch() | nodes.CallStep():
                before = step
            case nodes.Retry() | nodes.Jump(then="retry"):
                yield RetryTarget(step, at_match if in_match else before)
            case nodes.MatchStep():
                for arm in (*step.arms, *step.catch):
                    yield from _retry_targets(steps_of(arm.body), before, before, in_match=True)
            case nodes.Validate(otherwise=body) if body is not None:
                yield from _retry_targets(steps_of(body), before, at_match, in_match=in_match)
            case nodes.For():
                yield from _retry_targets(step.body, None, None, in_match=False)


def sends_requests(actions: Iterable[nodes.ActionDef]) -> bool:
    """Whether a step in one of these actions asks an API."""
    return any(isinstance(node, nodes.Fetch | nodes.CallStep) for action in actions for node in walk(action))


def reads_endpoint(step: Step) -> bool:
    """Whether a step reads `response.webhookUrl`, by name or in a pattern."""
    return any(
        (isinstance(n, nodes.Member) and n.key == "webhookUrl" and _is_response(n.target))
        or (isinstance(n, nodes.ObjectPattern) and any(entry.key == "webhookUrl" for entry in n.entries))
        for n in walk(step)
    )


def runs_inside_wait(steps: Sequence[Step], index: int) -> bool:
    """Whether the step at `index` is run by the `wait` before it, once that has registered (spec/runtime.md 12.2)."""
    return (
        0 < index < len(steps)
        and isinstance(steps[index - 1], nodes.Wait)
        and not isinstance(steps[index], nodes.Wait)
        and not leaves(steps[index])
        and reads_endpoint(steps[index])
    )


def next_waits(steps: Sequence[Step]) -> Mapping[int, nodes.Wait | None]:
    """For each step of an action, by `id`: the `wait` that comes next, seen from its own expressions.

    A loop hides the waits of its body from what precedes it, and so does a `match` inside a loop.
    """
    found: dict[int, nodes.Wait | None] = {}
    _next_waits(steps, None, found, in_loop=False)
    return found


def _next_waits(
    steps: Sequence[Step], after: nodes.Wait | None, found: dict[int, nodes.Wait | None], *, in_loop: bool
) -> nodes.Wait | None:
    for step in reversed(steps):
        bodies: list[Sequence[Step]] = []
        match step:
            case nodes.Wait():
                after = step
            case nodes.For():
                bodies = [step.body]
            case nodes.MatchStep():
                bodies = [steps_of(arm.body) for arm in (*step.arms, *step.catch)]
            case nodes.Validate(otherwise=body) if body is not None:
                bodies = [steps_of(body)]
        hides = isinstance(step, nodes.For)
        firsts = [_next_waits(body, after, found, in_loop=in_loop or hides) for body in bodies]
        waits = [
            first
            for first, body in zip(firsts, bodies, strict=True)
            if any(isinstance(inner, nodes.Wait) for inner in steps_in(body))
        ]
        if waits:
            after = None if hides or in_loop else waits[0]
        found[id(step)] = after
    return after


def _is_response(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Name) and node.name == "response"


def steps_in(steps: Sequence[Step]) -> Iterator[Step]:
    """Every step of a list and of the bodies below it, in the order of the text."""
    for step in steps:
        yield step
        match step:
            case nodes.For():
                yield from steps_in(step.body)
            case nodes.MatchStep():
                for arm in (*step.arms, *step.catch):
                    yield from steps_in(steps_of(arm.body))
            case nodes.Validate(otherwise=body) if body is not None:
                yield from steps_in(steps_of(body))


def stage_names(run: nodes.Run) -> Iterator[nodes.Qualified]:
    """Every action name a pipeline mentions."""
    for stage in run.stages:
        yield from stage.actions


def called_actions(steps: Sequence[Step]) -> Iterator[nodes.Qualified]:
    """The actions that `jump` and `run` steps name, at any depth."""
    for step in steps_in(steps):
        if isinstance(step, nodes.Jump):
            yield step.action
        elif isinstance(step, nodes.Run):
            yield from stage_names(step)


def entry_actions(actions: Mapping[str, ActionDef]) -> list[str]:
    """The actions that no `jump` or `run` step names: without a `run` clause, the only one is what a mission runs."""
    called = {name.text for action in actions.values() for name in called_actions(action.steps)}
    return [name for name in actions if name not in called]
