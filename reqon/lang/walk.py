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
    stack = [node]
    while stack:
        here = stack.pop()
        yield here
        for name in _fields_backwards(type(here)):
            value = getattr(here, name)
            if isinstance(value, Node):
                stack.append(value)
            elif type(value) is tuple and value:
                stack += [item for item in reversed(value) if isinstance(item, Node)]


@cache
def _fields_backwards(kind: type[Node]) -> tuple[str, ...]:
    return _child_fields(kind)[::-1]
