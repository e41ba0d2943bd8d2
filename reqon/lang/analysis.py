"""What an expression reads, found without evaluating it."""

from reqon.lang import nodes
from reqon.lang.functions import BUILTINS
from reqon.lang.walk import children, walk


def is_deterministic(node: nodes.Node) -> bool:
    """Whether the value depends on nothing but names, the current item and stores: no now(), uuid(), env() and so on.

    Registered functions may do anything, so they are not.
    """
    return all(found.name.text == "get" or _is_pure(found) for found in walk(node) if isinstance(found, nodes.Call))


def depends_on_the_moment(node: nodes.Node) -> bool:
    """Whether the value may be another one each time it is asked for: now(), uuid(), registered functions."""
    calls = (found for found in walk(node) if isinstance(found, nodes.Call))
    return not all(call.name.text == "env" or _is_pure(call) for call in calls)


def _is_pure(call: nodes.Call) -> bool:
    builtin = BUILTINS.get(call.name.text)
    return builtin is not None and builtin.pure


def reads_response(node: nodes.Node) -> bool:
    """Whether the name `response` occurs."""
    return any(isinstance(found, nodes.Name) and found.name == "response" for found in walk(node))


def reads_current(node: nodes.Node) -> bool:
    """Whether a leading dot occurs, of whatever item."""
    return any(isinstance(found, nodes.Current) for found in walk(node))


def free_names(node: nodes.Node) -> set[str]:
    """The bare names that are read and not bound inside: variables, context names, stores, sources."""
    found: set[str] = set()
    _collect(node, frozenset(), found)
    return found


def _collect(node: nodes.Node, bound: frozenset[str], found: set[str]) -> None:
    if isinstance(node, nodes.Name):
        if node.name not in bound:
            found.add(node.name)
    elif isinstance(node, nodes.Lambda):
        _collect(node.body, bound | {word.text for word in node.parameters}, found)
    elif isinstance(node, nodes.MatchExpressionArm):
        inner = bound | bindings(node.pattern)
        for part in (node.pattern, node.guard, node.value):
            if part is not None:
                _collect(part, inner, found)
    elif isinstance(node, nodes.NamePattern):
        head, dot, _ = node.name.text.partition(".")
        if dot and head not in bound:  # `a.b` may be a value pattern
            found.add(head)
    else:
        for child in children(node):
            _collect(child, bound, found)


def bindings(pattern: nodes.Node) -> frozenset[str]:
    """The names that a pattern binds; names that could be a schema's by their capital letter are left out."""
    return frozenset(
        found.name.text
        for found in walk(pattern)
        if isinstance(found, nodes.NamePattern) and is_binding(found.name.text)
    )


def is_binding(name: str) -> bool:
    """Whether a pattern's name, if no schema has it, binds: it begins with a lower-case letter or `_`."""
    return "." not in name and (name[:1] == "_" or name[:1].islower())
