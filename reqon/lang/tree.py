"""Going through a syntax tree without knowing what each node means."""

from collections.abc import Iterator
from dataclasses import fields

from reqon.lang.nodes import Node

# Which members of a class can hold nodes: found once per class, from the first instance that fills them.
_MEMBERS: dict[type, tuple[str, ...]] = {}


def children(node: Node) -> Iterator[Node]:
    """The nodes directly below, in the order of the text."""
    for name in _MEMBERS.get(type(node)) or _members(type(node)):
        value = getattr(node, name)
        if isinstance(value, Node):
            yield value
        elif type(value) is tuple:
            for item in value:
                if isinstance(item, Node):
                    yield item


def descendants(node: Node) -> Iterator[Node]:
    """The node itself and everything below it, parents first, in the order of the text."""
    stack = [node]
    while stack:
        found = stack.pop()
        yield found
        below = list(children(found))
        below.reverse()
        stack += below


def _members(kind: type) -> tuple[str, ...]:
    # `span` and its kin are no nodes; plain texts and numbers are told apart by value, which costs little.
    names = tuple(f.name for f in fields(kind) if not f.name.endswith("span"))
    _MEMBERS[kind] = names
    return names
