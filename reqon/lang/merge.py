"""The namespaces of each mission: its own, its file's, its folder's parts', and imports (spec/language.md 6)."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from reqon.diagnostics import Diagnostic, Source
from reqon.lang import flow, nodes
from reqon.lang.checks.findings import first_word
from reqon.lang.folders import FileUnit, FolderUnit
from reqon.lang.imports import Imports
from reqon.lang.program import MissionProgram
from reqon.lang.texts import Text, Texts

_KINDS: dict[type, str] = {
    nodes.SourceDef: "source",
    nodes.StoreDef: "store",
    nodes.SchemaDef: "schema",
    nodes.TransformDef: "transform",
    nodes.ActionDef: "action",
    nodes.Let: "let",
}
# Of these a mission folder's root may have its own instead of a part's.
_REPLACEABLE = (nodes.SchemaDef, nodes.TransformDef)


@dataclass(slots=True)
class Merged:
    """The missions of a unit, not yet checked. `syntax` are the findings of parsing, which `diagnostics` has too."""

    files: tuple[Source, ...]
    missions: list[MissionProgram]
    diagnostics: list[Diagnostic]
    syntax: list[Diagnostic]
    borrowed: frozenset[int] = frozenset()


Key: TypeAlias = tuple[str, str]


@dataclass(slots=True)
class Declarations:
    """Declarations by kind and name, in order. What is declared twice is a finding at the second place."""

    diagnostics: list[Diagnostic]
    by_key: dict[Key, nodes.Declaration] = field(default_factory=dict)

    def add(self, node: nodes.Declaration) -> None:
        key = (_KINDS[type(node)], node.name.text)
        known = self.by_key.setdefault(key, node)
        if known is not node:
            self.diagnostics.append(already(node, known))

    def add_all(self, declarations: Iterable[nodes.Declaration]) -> None:
        for node in declarations:
            self.add(node)

    def over(self, below: Mapping[Key, nodes.Declaration]) -> dict[Key, nodes.Declaration]:
        """These, and after them what they don't hide of others. Lets keep the order of evaluation: the others first."""
        lets = {key: node for key, node in below.items() if key[0] == "let"}
        lets |= {key: node for key, node in self.by_key.items() if key[0] == "let"}
        rest = {key: node for key, node in self.by_key.items() if key[0] != "let"}
        return rest | {key: node for key, node in below.items() if key not in rest and key[0] != "let"} | lets


def already(node: nodes.Declaration | nodes.MissionDef, known: nodes.Declaration | nodes.MissionDef) -> Diagnostic:
    """The finding that a name is taken."""
    kind, name, span = _KINDS.get(type(node), "mission"), node.name.text, node.name.span
    if kind == "let":
        message = f"'{name}' is already bound at {known.name.span}"
        return Diagnostic("duplicate-variable", message, span, "variables cannot change, choose another name")
    message = f"{kind} '{name}' is already declared at {known.name.span}"
    return Diagnostic(f"duplicate-{kind}", message, span, "rename or remove one of them")


def merge_file(unit: FileUnit, texts: Texts) -> Merged:
    """The missions of one file, each with the file's shared declarations and its imports."""
    text = texts.read(unit.path)
    imports = Imports(texts)
    imported = imports.of(text)
    shared = Declarations(imports.diagnostics)
    shared.add_all(_declarations(text.tree.items))
    below = shared.over(imported)
    syntax = [*text.diagnostics, *imports.syntax]
    merged = Merged((text.source, *imports.sources), [], [*syntax], syntax)
    seen: dict[str, nodes.MissionDef] = {}
    for mission in text.missions:
        known = seen.setdefault(mission.name.text, mission)
        if known is not mission:
            merged.diagnostics.append(already(mission, known))
            continue
        own = Declarations(merged.diagnostics)
        own.add_all(_declarations(mission.clauses))
        merged.missions.append(_mission(mission, unit.path, merged, own.over(below)))
    merged.diagnostics += imports.diagnostics
    # A file's shared declarations are its only mission's own.
    lent = imported.values() if len(text.missions) == 1 else below.values()
    merged.borrowed = frozenset(id(node) for node in lent)
    return merged


def merge_folder(unit: FolderUnit, texts: Texts) -> Merged:
    """The mission of a folder: its root, with the declarations of all parts."""
    if len(unit.roots) > 1:
        names = " and ".join(root.name for root in unit.roots)
        problem = Diagnostic(
            "ambiguous-root", f"folder '{unit.path}' holds both {names}", None, "keep one of them, or rename the other"
        )
        return Merged(tuple(texts.read(root).source for root in unit.roots), [], [problem], [])
    root = texts.read(unit.roots[0])
    parts = [texts.read(path, part=True) for path in unit.parts]
    imports = Imports(texts)
    imported: dict[Key, nodes.Declaration] = {}
    for text in (root, *parts):
        imported |= {key: node for key, node in imports.of(text).items() if key not in imported}
    syntax = [d for text in (root, *parts) for d in text.diagnostics] + imports.syntax
    sources = (root.source, *(part.source for part in parts), *imports.sources)
    merged = Merged(sources, [], [*syntax], syntax, frozenset(id(node) for node in imported.values()))
    merged.diagnostics += [_in_part(mission, root) for part in parts for mission in part.missions]
    missions = root.missions
    if not missions:
        if not root.diagnostics:
            problem = Diagnostic("no-mission", f"'{root.source.name}' defines no mission", None, _BEGINS)
            merged.diagnostics.append(problem)
    else:
        merged.diagnostics += [already_one(second, missions[0]) for second in missions[1:]]
        mission = missions[0]
        own = _folder_declarations(mission, root, parts, merged)
        merged.missions.append(_mission(mission, unit.path, merged, own.over(imported)))
    merged.diagnostics += imports.diagnostics
    return merged


_BEGINS = "a mission begins with: mission Name { … }"


def already_one(second: nodes.MissionDef, first: nodes.MissionDef) -> Diagnostic:
    """The finding that a mission folder has two missions."""
    message = f"a mission folder has one mission, and '{first.name.text}' is declared at {first.name.span}"
    return Diagnostic("duplicate-mission", message, second.name.span, "give it a folder or file of its own")


def _in_part(mission: nodes.MissionDef, root: Text) -> Diagnostic:
    message = f"only {root.path.name} may define a mission"
    hint = "parts hold actions, schemas, transforms, sources, stores, let and import"
    return Diagnostic("mission-in-part", message, mission.name.span, hint)


def _folder_declarations(mission: nodes.MissionDef, root: Text, parts: Iterable[Text], merged: Merged) -> Declarations:
    """The declarations of a root, its mission first, and of its parts."""
    top = Declarations(merged.diagnostics)
    top.add_all(_declarations(root.tree.items))
    own = Declarations(merged.diagnostics)
    own.add_all(_declarations(mission.clauses))
    own.by_key = own.over(top.by_key)
    for part in parts:
        for node in _declarations(part.tree.items):
            known = own.by_key.get((_KINDS[type(node)], node.name.text))
            if known is not None and isinstance(node, _REPLACEABLE) and known.span.source is root.source:
                merged.diagnostics.append(_shadowed(node, known, root))
            else:
                own.add(node)
    return own


def _shadowed(node: nodes.Declaration, known: nodes.Declaration, root: Text) -> Diagnostic:
    span = node.name.span
    part = Path(span.source.name).name
    message = (
        f"{_KINDS[type(node)]} '{node.name.text}' in {part} is replaced by {root.path.name}:{known.name.span.line}"
    )
    return Diagnostic("shadowed-part", message, span, "remove one of them", severity="warning")


def _declarations(items: Iterable[object]) -> Iterator[nodes.Declaration]:
    for item in items:
        if type(item) in _KINDS:
            yield item  # type: ignore[misc]  # the keys of _KINDS are the declarations


def _mission(
    node: nodes.MissionDef, path: Path, merged: Merged, declared: Mapping[Key, nodes.Declaration]
) -> MissionProgram:
    schedule: nodes.Schedule | None = None
    run: nodes.Run | None = None
    options: dict[str, nodes.Option] = {}
    for clause in node.clauses:
        if isinstance(clause, nodes.Schedule):
            _once(clause, schedule, "schedule", merged.diagnostics)
            schedule = schedule or clause
        elif isinstance(clause, nodes.Run):
            _once(clause, run, "run", merged.diagnostics)
            run = run or clause
        elif isinstance(clause, nodes.Option):
            _once(clause, options.get(clause.key), clause.key, merged.diagnostics)
            options.setdefault(clause.key, clause)
    spaces: dict[str, dict[str, Any]] = {kind: {} for kind in _KINDS.values()}
    for (kind, name), declaration in declared.items():
        spaces[kind][name] = declaration
    return MissionProgram(
        name=node.name.text,
        node=node,
        path=path,
        files=merged.files,
        definition_hash="",
        schedule=schedule,
        options=options,
        sources=spaces["source"],
        stores=spaces["store"],
        schemas=spaces["schema"],
        transforms=spaces["transform"],
        actions=spaces["action"],
        lets=spaces["let"],
        pipeline=run or _only_entry(node, spaces["action"]),
    )


def _once(clause: nodes.Clause, known: nodes.Clause | None, word: str, diagnostics: list[Diagnostic]) -> None:
    if known is not None:
        span = clause.key_span if isinstance(clause, nodes.Option) else first_word(clause.span)
        message = f"'{word}' is already given at {known.span}"
        diagnostics.append(Diagnostic("duplicate-clause", message, span, "a mission has it once"))


def _only_entry(node: nodes.MissionDef, actions: Mapping[str, nodes.ActionDef]) -> nodes.Run | None:
    """The pipeline of a mission that has no `run`: its one entry action."""
    entries = flow.entry_actions(actions)
    if len(entries) != 1:
        return None
    span = node.name.span
    name = nodes.Qualified(text=entries[0], span=span)
    stage = nodes.Stage(actions=(name,), parallel=False, condition=None, span=span)
    return nodes.Run(stages=(stage,), span=span)
