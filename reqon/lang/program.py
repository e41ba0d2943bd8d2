"""What the loader hands on: missions with their namespaces merged and checked; still syntax, ready to be planned."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reqon.diagnostics import Diagnostic, Source
from reqon.lang import nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class MissionProgram:
    """One mission: its own declarations, those of its parts, its file's shared ones and its imports, by name.

    Qualified names of `import n from …` stand in the same mappings as `n.Name`. `lets` is in order of evaluation:
    shared ones first. `definition_hash` is of the canonical form: whitespace and comments do not change it.
    """

    name: str
    node: nodes.MissionDef
    path: Path  # the file, or the folder of a multi-file mission
    files: tuple[Source, ...]
    definition_hash: str
    schedule: nodes.Schedule | None
    options: Mapping[str, nodes.Option]
    sources: Mapping[str, nodes.SourceDef]
    stores: Mapping[str, nodes.StoreDef]
    schemas: Mapping[str, nodes.SchemaDef]
    transforms: Mapping[str, nodes.TransformDef]
    actions: Mapping[str, nodes.ActionDef]
    lets: Mapping[str, nodes.Let]
    pipeline: nodes.Run | None  # None only when there is no action at all


@dataclass(frozen=True, slots=True)
class Unit:
    """One file or mission folder: what it gave, and every finding in it. `missions` is empty when one is an error."""

    path: Path
    content_hash: str
    missions: tuple[MissionProgram, ...]
    diagnostics: tuple[Diagnostic, ...]

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        return tuple(d for d in self.diagnostics if d.severity == "error")


@dataclass(frozen=True, slots=True)
class Program:
    """All units that a path argument means, in order, and findings that belong to none of them."""

    units: tuple[Unit, ...]
    diagnostics: tuple[Diagnostic, ...] = field(default=())

    @property
    def missions(self) -> tuple[MissionProgram, ...]:
        return tuple(m for unit in self.units for m in unit.missions)

    @property
    def all_diagnostics(self) -> tuple[Diagnostic, ...]:
        # A library that several units import brings its findings into each of them.
        return tuple(dict.fromkeys((*self.diagnostics, *(d for unit in self.units for d in unit.diagnostics))))

    @property
    def has_errors(self) -> bool:
        return any(d.severity == "error" for d in self.all_diagnostics)
