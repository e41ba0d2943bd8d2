"""Where generated expressions live: the world of one code object, and what names mean at one place."""

import ast
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from reqon.diagnostics import Source
from reqon.lang import nodes, tree
from reqon.lang.functions.world import PlainWorld

# Generated code finds its own text under this global: a traceback's frame so leads back to the mission.
SOURCE = "__source__"
_NOT_IN_NAMES = re.compile(r"\W+", re.ASCII)


def _hint(hint: str) -> str:
    word = _NOT_IN_NAMES.sub("_", hint).strip("_")[:40]
    return word if word and not word[0].isdigit() else f"v{word}"


@dataclass(slots=True)
class Unit:
    """One generated code object's world.

    Locals are called `word_7` and globals `_word`, so that neither can hide the other. `world` among the globals is
    what now(), env() and their kin ask, unless the scope names another.
    """

    source: Source
    globals: dict[str, object] = field(default_factory=dict)
    _locals: int = 0
    _constants: dict[tuple[type, object], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.globals.setdefault(SOURCE, self.source)
        self.globals.setdefault("world", PlainWorld())

    def constant(self, value: object, hint: str) -> ast.Name:
        """A name that reads the object from the globals. The same object, or an equal immutable one, has one name."""
        try:
            key = (type(value), hash(value) and value) if type(value) in _SHARED else (type(value), id(value))
        except TypeError:
            key = (type(value), id(value))
        known = self._constants.get(key)
        if known is None:
            base = known = f"_{_hint(hint)}"
            number = 1
            while known in self.globals:
                number += 1
                known = f"{base}{number}"
            self.globals[known] = value
            self._constants[key] = known
        return tree.name(known)

    def local(self, hint: str) -> str:
        """A name that no other local of this code has."""
        self._locals += 1
        return f"{_hint(hint)}_{self._locals}"


_SHARED = frozenset((str, int, float))


@dataclass(frozen=True, slots=True)
class Scope:
    """What names mean at one place of a mission.

    Attributes:
        names: variable, `let` or context name -> how Python reads it.
        current: the current item, None where there is none.
        response: the value of `response`; meta: its virtual fields, a dict or None at run time.
        stores: store name -> its StoreHandle.
        fields: schema conditions, where a bare name means a field of the value being matched.
        getter: where given, a Python callable that answers a field of `current` by its key (see `Expressions.getter`).
        world: what now(), env() and their kin ask; the unit's own where None.
        owner: with `fields`, the value being matched, whatever `current` is by now.
    """

    names: Mapping[str, ast.expr] = field(default_factory=dict)
    current: ast.expr | None = None
    response: ast.expr | None = None
    meta: ast.expr | None = None
    stores: Mapping[str, ast.expr] = field(default_factory=dict)
    sources: Collection[str] = ()
    schemas: Mapping[str, nodes.SchemaDef] = field(default_factory=dict)
    fields: bool = False
    getter: ast.expr | None = None
    world: ast.expr | None = None
    owner: ast.expr | None = None

    def bind(self, bindings: Mapping[str, ast.expr] | None = None, **names: ast.expr) -> "Scope":
        """The scope with more names, which hide those of before."""
        added = {**(bindings or {}), **names}
        return replace(self, names={**self.names, **added}) if added else self

    def with_current(self, current: ast.expr | None, getter: ast.expr | None = None) -> "Scope":
        """The scope with another current item."""
        owner = self.current if self.fields and self.owner is None else self.owner
        return replace(self, current=current, getter=getter, owner=owner)


Matcher = Callable[[Any], bool]
