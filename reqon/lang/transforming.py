"""A changed copy of a program: a visitor sees each step and may replace it (spec/runtime.md 20)."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from reqon.diagnostics import did_you_mean
from reqon.lang import nodes
from reqon.lang.canonical import canonical
from reqon.lang.program import MissionProgram, Program
from reqon.values import changed

P = TypeVar("P", Program, MissionProgram)

_WORDS: dict[type[nodes.Node], str] = {
    nodes.Fetch: "fetch",
    nodes.CallStep: "call",
    nodes.Delete: "delete",
    nodes.Clear: "clear",
    nodes.For: "for",
    nodes.Map: "map",
    nodes.Apply: "apply",
    nodes.Validate: "validate",
    nodes.StoreStep: "store",
    nodes.MatchStep: "match",
    nodes.Let: "let",
    nodes.Wait: "wait",
    nodes.Continue: "continue",
    nodes.Skip: "skip",
    nodes.Abort: "abort",
    nodes.Retry: "retry",
    nodes.Queue: "queue",
    nodes.Jump: "jump",
    nodes.Run: "run",
    nodes.Extension: "extension",
}


def transform(program: P, visitor: object) -> P:
    """A copy of a program whose steps the visitor has changed; the program itself stays as it is.

    For each step of each action, inner ones first, `visitor.visit_<kind>_step(node)` is called if there is such a
    method: visit_fetch_step, visit_store_step, visit_for_step, … It answers the node that takes the step's place, a
    list of nodes, an empty one to leave it out, or None to keep it.

    Raises:
        AttributeError: the visitor has a method `visit_…` of another name.
    """
    known = [f"visit_{word}_step" for word in _WORDS.values()]
    for name in dir(visitor):
        if name.startswith("visit_") and name not in known:
            raise AttributeError(f"{name} visits nothing; {did_you_mean(name, known, 'visitors')}")
    if isinstance(program, Program):
        units = tuple(
            replace(unit, missions=tuple(_mission(mission, visitor) for mission in unit.missions))
            for unit in program.units
        )
        return replace(program, units=units)
    return _mission(program, visitor)


def _mission(mission: MissionProgram, visitor: object) -> MissionProgram:
    actions = {name: _rebuilt(action, visitor) for name, action in mission.actions.items()}
    different = {name for name, action in actions.items() if action is not mission.actions[name]}
    if not different:
        return mission
    # Another mission than the one that was written: what the other left unfinished is not taken up.
    digest = hashlib.sha256(mission.definition_hash.encode())
    for name in sorted(different):
        digest.update(f"\0{name}\0{canonical(actions[name])}".encode())
    return replace(mission, actions=actions, definition_hash=digest.hexdigest()[:16])


def _rebuilt(node: Any, visitor: object) -> Any:
    """The node with the steps under it visited; itself, if nothing changed."""
    changes: dict[str, Any] = {}
    for name in node.__struct_fields__:
        value = getattr(node, name)
        made: Any = value
        if isinstance(value, nodes.Node):
            made = _visited(value, visitor)
            made = made[0] if len(made) == 1 else value
        elif isinstance(value, tuple) and any(isinstance(one, nodes.Node) for one in value):
            made = tuple(new for one in value for new in (_visited(one, visitor) if _is_node(one) else (one,)))
            if len(made) == len(value) and all(new is old for new, old in zip(made, value, strict=True)):
                made = value
        if made is not value:
            changes[name] = made
    return changed(node, **changes) if changes else node


def _is_node(value: object) -> bool:
    return isinstance(value, nodes.Node)


def _visited(node: nodes.Node, visitor: object) -> Sequence[nodes.Node]:
    rebuilt: nodes.Node = _rebuilt(node, visitor)
    word = _WORDS.get(type(node))
    visit = getattr(visitor, f"visit_{word}_step", None) if word is not None else None
    answer = visit(rebuilt) if visit is not None else None
    if answer is None:
        return (rebuilt,)
    return (answer,) if isinstance(answer, nodes.Node) else tuple(answer)
