"""Walking a syntax tree: every node under a node, in the order of the text."""

from collections.abc import Iterator
from functools import cache

from reqon.lang.nodes import Node


@cache
def _child_fields(kind: type[Node]) -> tuple[str, ...]:
    return tuple(n for n in kind.__struct_fields__ if n != "span" and not n.endswith("_span"))


def children(node: Node) -> Iterator[Node]:
    """The nodes directly under this one."""
    for name in _child_fields(type(node)):
        value = getattr(node, name)
        if isinstance(value, Node):
            yield value
        elif type(value) is tuple:
            for item in value:
                if isinstance(item, Node):
                    yield item


def walk(node: Node) -> Iterator[Node]:
    """The node and all under it, in the order of the text."""
    yield node
    for child in children(node):
        yield from walk(child)
