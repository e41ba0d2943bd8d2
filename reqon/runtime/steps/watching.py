"""How events name the parts of a mission: kinds of steps, arms and their directives (spec/runtime.md 15.2)."""

from reqon.lang import flow, nodes
from reqon.runtime.telling import MatchArm, MatchArms

_TYPES: dict[type[nodes.Node], str] = {
    nodes.Fetch: "fetch",
    nodes.CallStep: "call",
    nodes.For: "for",
    nodes.Map: "map",
    nodes.Apply: "apply",
    nodes.Validate: "validate",
    nodes.StoreStep: "store",
    nodes.MatchStep: "match",
    nodes.Let: "let",
    nodes.Wait: "webhook",
    nodes.Queue: "queue",
    nodes.Delete: "delete",
    nodes.Clear: "clear",
    nodes.Run: "run",
    nodes.Jump: "run",
}
_DIRECTIVES: dict[type[nodes.Node], str] = {
    nodes.Skip: "skip",
    nodes.Continue: "continue",
    nodes.Abort: "abort",
    nodes.Retry: "retry",
    nodes.Jump: "jump",
    nodes.Queue: "queue",
}
# Directives stand in arms; what ends by one is the step around it.
_NO_STEPS = (nodes.Skip, nodes.Continue, nodes.Abort, nodes.Retry)
_SHOWN = 80


def type_of(step: nodes.Step) -> str:
    """The public word for a kind of step (spec/runtime.md 15.2)."""
    return _TYPES.get(type(step), "custom")


def is_told(step: nodes.Step) -> bool:
    """Whether a step inside another one has events of its own."""
    return not isinstance(step, _NO_STEPS)


def arms_of(step: nodes.MatchStep) -> MatchArms:
    """A match step as its event shows it."""
    arms = [arm_of(arm) for arm in step.arms]
    patterns = tuple(arm.pattern for arm in arms if arm.pattern is not None)
    return MatchArms(patterns=patterns, has_default=any(arm.is_default for arm in arms))


def arm_of(arm: nodes.Arm) -> MatchArm:
    """An arm as the event of its choice shows it."""
    steps = flow.steps_of(arm.body)
    directive = _DIRECTIVES.get(type(steps[-1])) if steps else None
    if isinstance(arm.pattern, nodes.Wildcard) and arm.guard is None:
        return MatchArm(is_default=True, directive=directive)
    text = " ".join(arm.pattern.span.text.split())
    return MatchArm(pattern=text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…", directive=directive)
