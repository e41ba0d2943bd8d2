"""`${NAME}` and `${NAME:-default}` in the strings of a source: environment variables (spec/language.md 1.6)."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from reqon.errors import ConfigurationError
from reqon.lang import nodes
from reqon.lang.walk import walk
from reqon.values import changed

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")

N = TypeVar("N", bound=nodes.Node)


def filled(node: N, environment: Mapping[str, str], *, unset_is_null: bool = False) -> N:
    """The node with each reference in its string literals replaced; a default counts when unset or empty.

    A text with a variable that is not set becomes null where `unset_is_null`.

    Raises:
        ConfigurationError: a variable without a default is not set; points at the text.
    """
    if isinstance(node, nodes.Literal_):
        if not isinstance(node.value, str) or "${" not in node.value:
            return node
        return changed(node, value=_text(node, node.value, environment, unset_is_null=unset_is_null))

    def inside(value: Any) -> Any:
        if isinstance(value, nodes.Node):
            return filled(value, environment, unset_is_null=unset_is_null)
        return tuple(map(inside, value)) if type(value) is tuple else value

    return changed(node, **{name: inside(getattr(node, name)) for name in node.__struct_fields__})


def names_read(node: nodes.Node) -> Iterator[str]:
    """The environment variables that an expression reads, by reference or by `env("…")`."""
    for found in walk(node):
        if isinstance(found, nodes.Literal_) and isinstance(found.value, str):
            yield from (match[1] for match in _REFERENCE.finditer(found.value))
        elif isinstance(found, nodes.Call) and found.name.text == "env" and found.arguments:
            name = found.arguments[0]
            if isinstance(name, nodes.Literal_) and isinstance(name.value, str):
                yield name.value


def _text(node: nodes.Node, text: str, environment: Mapping[str, str], *, unset_is_null: bool) -> str | None:
    unset: list[str] = []

    def value(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        known = environment.get(name)
        if default is not None:
            return known or default
        if known is None:
            unset.append(name)
        return known or ""

    replaced = _REFERENCE.sub(value, text)
    if not unset:
        return replaced
    if unset_is_null:
        return None
    raise ConfigurationError(
        f"the environment variable {unset[0]} is not set", hint=f"set {unset[0]}, or write ${{{unset[0]}:-default}}"
    ).locate(node.span)
