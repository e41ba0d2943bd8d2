"""Paths to a checked Program: finds, reads, parses, merges, checks (spec/language.md 5, 6)."""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from reqon.diagnostics import Diagnostic, Source, nearest
from reqon.errors import ConfigurationError
from reqon.lang import nodes
from reqon.lang.canonical import canonical
from reqon.lang.check import NOTHING_REGISTERED, Registered, check_mission
from reqon.lang.folders import FileUnit, FolderUnit, units_of
from reqon.lang.merge import Merged, merge_file, merge_folder
from reqon.lang.program import MissionProgram, Program, Unit
from reqon.lang.texts import Texts

# What a syntax error may have swallowed: these would complain about the absence of what is there but can't be read.
_CONSEQUENCES = frozenset(
    (
        "map-target-fields",
        "missing-base",
        "missing-path-param",
        "missing-run",
        "no-source",
        "recursive-action",  # an action that is not closed takes the mission's own `run` for a step
        "non-exhaustive-match",
        "paginate-without-until",
        "retry-without-fetch",
        "shadowed-arm",
        "since-options-without-since",
        "unreachable-arm",
        "unreachable-step",
        "until-without-paginate",
        "unused-action",
        "unused-let",
        "unused-store",
    )
)


def no_such_path(path: Path) -> ConfigurationError:
    """What to say of a path that leads nowhere: what beside it was probably meant."""
    try:
        meant = nearest(path.name, [beside.name for beside in path.parent.iterdir()])
    except OSError:
        meant = None
    hint = f"did you mean '{path.with_name(meant)}'?" if meant else "check the path"
    return ConfigurationError(f"'{path}' does not exist", code="path-not-found", hint=hint)


def load(paths: Sequence[Path], *, known: Registered = NOTHING_REGISTERED, skip: Collection[Path] = ()) -> Program:
    """All units that the paths mean, checked; files are named in findings as the paths were given.

    `skip` holds folders that are no missions, such as the data folder. A broken unit has its errors and no missions,
    and hides nothing else.

    Raises:
        ConfigurationError: a path does not exist or cannot be read.
    """
    texts = Texts(known.components)
    units: list[Unit] = []
    for path in dict.fromkeys(Path(path) for path in paths):
        try:
            found = units_of(path, skip=skip)
        except FileNotFoundError:
            raise no_such_path(path) from None
        except OSError as error:
            message = f"'{path}' cannot be read: {error.strerror or error}"
            raise ConfigurationError(message, code="path-not-readable") from error
        units += [_unit(unit, texts, known, skip) for unit in found]
    return _program(units, [str(path) for path in paths])


def load_text(source: Source, *, known: Registered = NOTHING_REGISTERED, folder: Path | None = None) -> Program:
    """The missions of one text; imports are relative to `folder`, by default the working directory."""
    texts = Texts(known.components)
    place = (folder or Path()) / Path(source.name).name
    texts.give(place, source)
    return _program([_file_unit(FileUnit(place), texts, known)], [source.name])


def _program(units: Iterable[Unit], given: Sequence[str]) -> Program:
    unique = _without_duplicates(units)
    found: tuple[Diagnostic, ...] = ()
    if not any(unit.missions or unit.diagnostics for unit in unique):
        where = f"'{given[0]}' defines" if len(given) == 1 else "these paths define"
        hint = "a mission begins with: mission Name { … }"
        found = (Diagnostic("no-mission", f"{where} no mission", None, hint),)
    return Program(tuple(unique), found)


def _without_duplicates(units: Iterable[Unit]) -> list[Unit]:
    """The units with a finding in each one that defines a mission a second time."""
    first: dict[str, nodes.Word] = {}
    out: list[Unit] = []
    for unit in units:
        clashes: list[Diagnostic] = []
        for mission in unit.missions:
            name = mission.node.name
            known = first.setdefault(mission.name, name)
            if known is not name:
                message = f"mission '{mission.name}' is already declared at {known.span}"
                hint = "records and checkpoints are kept by name: rename one of them"
                clashes.append(Diagnostic("duplicate-mission", message, name.span, hint))
        out.append(replace(unit, missions=(), diagnostics=(*unit.diagnostics, *clashes)) if clashes else unit)
    return out


def _unit(unit: FileUnit | FolderUnit, texts: Texts, known: Registered, skip: Collection[Path]) -> Unit:
    if isinstance(unit, FileUnit):
        return _file_unit(unit, texts, known)
    del skip
    merged = merge_folder(unit, texts)
    return _checked(unit.path, merged, texts, known)


def _file_unit(unit: FileUnit, texts: Texts, known: Registered) -> Unit:
    return _checked(unit.path, merge_file(unit, texts), texts, known)


def _checked(path: Path, merged: Merged, texts: Texts, known: Registered) -> Unit:
    diagnostics = dict.fromkeys(merged.diagnostics)
    missions: list[MissionProgram] = []
    unreadable = any(d.severity == "error" for d in merged.syntax)
    for mission in merged.missions:
        checked = check_mission(mission, known, borrowed=merged.borrowed)
        found = [d for d in checked.diagnostics if not (unreadable and _may_follow(d, texts))]
        diagnostics |= dict.fromkeys(found)
        missions.append(replace(mission, definition_hash=_definition_hash(mission, checked.declarations)))
    ordered = tuple(sorted(diagnostics, key=_place))
    broken = any(d.severity == "error" for d in ordered)
    return Unit(path, _content_hash(merged.files), () if broken else tuple(missions), ordered)


def _may_follow(diagnostic: Diagnostic, texts: Texts) -> bool:
    """Whether a finding may only say that something near a syntax error could not be read."""
    if diagnostic.code in _CONSEQUENCES:
        return True
    return (
        diagnostic.code.startswith("undefined-")
        and diagnostic.span is not None
        and texts.mentions(diagnostic.span.text)
    )


def _definition_hash(mission: MissionProgram, declarations: Iterable[nodes.Declaration]) -> str:
    digest = hashlib.sha256(canonical(mission.node).encode())
    inside = {id(clause) for clause in mission.node.clauses}
    for node in declarations:
        if id(node) not in inside:
            digest.update(b"\0" + canonical(node).encode())
    return digest.hexdigest()[:16]


def _content_hash(files: Iterable[Source]) -> str:
    digest = hashlib.sha256()
    for source in files:
        digest.update(f"{source.name}\0{len(source.text)}\0".encode() + source.text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def _place(diagnostic: Diagnostic) -> tuple[str, int, str]:
    span = diagnostic.span
    return (span.source.name, span.start, diagnostic.code) if span else ("", 0, diagnostic.code)
