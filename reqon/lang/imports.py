"""`import`: the declarations of other files (spec/language.md 6.3)."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from reqon.diagnostics import Diagnostic, Source
from reqon.errors import ReqonError
from reqon.lang import nodes
from reqon.lang.folders import SUFFIXES, mission_files, path_order
from reqon.lang.lexer import MAX_DIAGNOSTICS
from reqon.lang.texts import Text, Texts
from reqon.values import changed

_KINDS: dict[type, str] = {
    nodes.SourceDef: "source",
    nodes.StoreDef: "store",
    nodes.SchemaDef: "schema",
    nodes.TransformDef: "transform",
    nodes.ActionDef: "action",
    nodes.Let: "let",
}
_NAMEABLE = (nodes.SchemaDef, nodes.TransformDef, nodes.ActionDef)
_DOCUMENTS = (".yaml", ".yml", ".json")
MOST_ENTRIES = 10_000  # files and folders below one that is imported


class Imports:
    """Follows the imports of a unit's files. `sources` are the files it read, in order."""

    def __init__(self, texts: Texts) -> None:
        self.diagnostics: list[Diagnostic] = []
        self.syntax: list[Diagnostic] = []
        self.sources: list[Source] = []
        self._texts = texts
        self._way: list[str] = []

    def of(self, text: Text) -> dict[tuple[str, str], Any]:
        """What a file's imports add, by kind and name; qualified names as `n.Name`."""
        found: dict[tuple[str, str], Any] = {}
        origin: dict[tuple[str, str], nodes.ImportDef] = {}
        own = {(_KINDS[type(item)], item.name.text) for item in text.tree.items if type(item) in _KINDS}  # type: ignore[union-attr]
        self._way.append(os.path.realpath(text.path))
        done: set[tuple[str, str | None]] = set()
        for item in text.tree.items:
            if len(self.diagnostics) > MAX_DIAGNOSTICS:
                break  # as many as a text's own; each further one asks the disk in vain
            if isinstance(item, nodes.ImportDef) and (same := (item.path, _name_of(item))) not in done:
                done.add(same)
                for key, node in self._imported(item, text).items():
                    known = found.setdefault(key, node)
                    if known is not node and key not in own and known != node:
                        self._clash(item, origin[key], key)
                    origin.setdefault(key, item)
        self._way.pop()
        return found

    def _imported(self, item: nodes.ImportDef, text: Text) -> dict[tuple[str, str], Any]:
        found: dict[tuple[str, str], Any] = {}
        if _is_document(item):
            found |= {("schema", name): node for name, node in self._components(item, text).items()}
            return _qualified(item.name.text, found) if item.name is not None else found
        for path in self._paths(item, text):
            real = os.path.realpath(path)
            if real in self._way:
                self._cycle(item, real)
                continue
            library = self._texts.read(path)
            if library.source not in self.sources:
                self.sources.append(library.source)
                self.syntax += library.diagnostics
            declared = self.of(library) | {
                (_KINDS[type(one)], one.name.text): one  # type: ignore[union-attr]
                for one in library.tree.items
                if type(one) in _KINDS
            }
            found |= {key: node for key, node in declared.items() if key not in found}
        return _qualified(item.name.text, found) if item.name is not None else found

    def _components(self, item: nodes.ImportDef, text: Text) -> Mapping[str, nodes.SchemaDef]:
        """The component schemas of an OpenAPI document."""
        if self._texts.components is None:
            hint = 'give the document to a source: source X from "openapi.yaml"'
            message = f"cannot take schemas from '{item.path}'"
            self.diagnostics.append(Diagnostic("import-not-found", message, item.path_span, hint))
            return {}
        path = text.path.parent / item.path
        with suppress(OSError):  # who reads it says why it cannot be read
            if path.is_file():
                # Nothing of it is a text of ours, but whoever watches files has to know it.
                self.sources.append(Source(str(path), ""))
        try:
            return self._texts.components(item, text.path.parent)
        except ReqonError as error:
            self.diagnostics += [
                Diagnostic("import-not-found", f"cannot take schemas: {d.message}", item.path_span, d.hint)
                for d in error.diagnostics
            ]
            return {}

    def _paths(self, item: nodes.ImportDef, text: Text) -> Iterator[Path]:
        """The files that an import means."""
        path = text.path.parent / item.path
        files: list[Path] | None = None
        found: Path | None = None
        try:
            if path.is_dir():
                files = sorted(mission_files(path, at_most=MOST_ENTRIES), key=path_order)
            else:
                found = next((one for one in _spellings(path) if one.is_file()), None)
        except OSError as error:
            message = f"cannot look at '{item.path}': {error.strerror or error}"
            hint = "import a file, or a folder that holds little else"
            self.diagnostics.append(Diagnostic("import-not-found", message, item.path_span, hint))
            return
        if files is not None:
            yield from (file for file in files if not self._texts.read(file).missions)
        elif found is not None:
            yield found
        else:
            message = f"cannot find '{item.path}'"
            hint = f"imports are relative to {text.path.name}"
            self.diagnostics.append(Diagnostic("import-not-found", message, item.path_span, hint))

    def _clash(self, item: nodes.ImportDef, other: nodes.ImportDef, key: tuple[str, str]) -> None:
        message = f"{key[0]} '{key[1]}' comes from '{other.path}' as well as from '{item.path}'"
        hint = 'name one of the imports: import units from "…"'
        self.diagnostics.append(Diagnostic("import-clash", message, item.path_span, hint))

    def _cycle(self, item: nodes.ImportDef, real: str) -> None:
        way = [Path(path).name for path in self._way[self._way.index(real) :]]
        message = f"import cycle: {' -> '.join((*way, way[0]))}"
        hint = "move what both need to a third file"
        self.diagnostics.append(Diagnostic("import-cycle", message, item.path_span, hint))


def _is_document(item: nodes.ImportDef) -> bool:
    return item.path.startswith(("http://", "https://")) or Path(item.path).suffix in _DOCUMENTS


def _spellings(path: Path) -> Iterator[Path]:
    yield path
    for suffix in SUFFIXES:
        yield path.with_name(path.name + suffix)


def _qualified(prefix: str, found: dict[tuple[str, str], Any]) -> dict[tuple[str, str], Any]:
    """What can be named with a prefix; inside it, the names it has in common with the rest get the prefix too."""
    nameable = {key: node for key, node in found.items() if isinstance(node, _NAMEABLE)}
    names = {name for _, name in nameable}
    return {(kind, f"{prefix}.{name}"): _named(node, prefix, names) for (kind, name), node in nameable.items()}


def _named(node: Any, prefix: str, names: set[str]) -> Any:
    name = changed(node.name, text=f"{prefix}.{node.name.text}")
    return changed(_renamed(node, prefix, names), name=name)


def _renamed(node: Any, prefix: str, names: set[str]) -> Any:
    """The tree with every reference to one of these names qualified."""
    if isinstance(node, nodes.Qualified):
        return changed(node, text=f"{prefix}.{node.text}") if node.text in names else node
    if isinstance(node, tuple):
        return tuple(_renamed(item, prefix, names) for item in node)
    if not isinstance(node, nodes.Node):
        return node
    renamed = {}
    for member in node.__struct_fields__:
        value = getattr(node, member)
        if isinstance(value, nodes.Node | tuple):
            new = _renamed(value, prefix, names)
            if new is not value and new != value:
                renamed[member] = new
    return changed(node, **renamed) if renamed else node


def _name_of(item: nodes.ImportDef) -> str | None:
    return item.name.text if item.name is not None else None
