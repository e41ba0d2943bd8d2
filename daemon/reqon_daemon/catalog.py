"""Mission files -> the last good plans (spec/daemon.md 3, spec/reliability.md 4)."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Protocol

from reqon.clock import SYSTEM, Clock
from reqon.diagnostics import Diagnostic
from reqon.errors import ReqonError
from reqon.lang.folders import refuse_no_file, units_of
from reqon.lang.loader import load as load_paths
from reqon.lang.program import MissionProgram, Unit
from reqon_daemon.policy import Evaluate, Policy, constant, policy_of
from reqon_daemon.zones import Zone

QUIET_SECONDS = 0.25
VANISHED_SECONDS = 2.0
UNREST_SECONDS = 5.0
_STILL_SECONDS = 2.0
_READ_TOGETHER = 50  # units a trip to the reading thread; it lets others run all the while

log = logging.getLogger("reqon.catalog")

Seen = Mapping[Path, Mapping[Path, str]]  # unit -> its files -> their content hashes


class Plan(Protocol):
    """What the daemon knows of a plan."""

    @property
    def name(self) -> str: ...
    @property
    def definition_hash(self) -> str: ...
    @property
    def program(self) -> MissionProgram: ...


@dataclass(frozen=True, slots=True)
class Loaded:
    """One mission in service."""

    plan: Plan
    policy: Policy
    unit: Path

    @property
    def name(self) -> str:
        return self.plan.name


@dataclass(frozen=True, slots=True)
class Reload:
    """What a reload did, by mission name.

    `changed` has the old and the new definition hash, `broken` the errors by path, those known before too.
    """

    added: tuple[str, ...] = ()
    changed: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    broken: Mapping[str, tuple[Diagnostic, ...]] = field(default_factory=dict)
    refused: tuple[str, ...] = ()  # paths that were read in this reload and are broken

    def __bool__(self) -> bool:
        """Whether anything was read anew."""
        return bool(self.added or self.changed or self.removed or self.refused)


@dataclass(frozen=True, slots=True)
class _Kept:
    """A unit as last read: the hashes of its files then, its last good missions, its errors now."""

    files: Mapping[Path, str]
    missions: tuple[Loaded, ...]
    errors: tuple[Diagnostic, ...] = ()


def read_unit(path: Path) -> tuple[Unit, ...]:
    """One file or mission folder, parsed and checked."""
    return load_paths([path]).units


class Catalog:
    """The missions of some paths. `missions` is swapped whole, so whoever holds it sees one consistent set."""

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        plan: Callable[[MissionProgram], Plan],
        load: Callable[[Path], Iterable[Unit]] = read_unit,
        skip: Sequence[Path] = (),
        clock: Clock = SYSTEM,
        default_zone: Zone | None = None,
        evaluate: Callable[[Plan], Evaluate] = lambda _: constant,
        documents: Callable[[Plan], Iterable[Path]] = lambda _: (),
        expect: Callable[[int], object] = lambda _: None,
    ) -> None:
        """`plan` compiles one mission (`Runner.plan`), `load` reads one unit, `skip` holds folders to leave out.

        `expect` is told how many units come before they are loaded.
        `evaluate` gives what reads a plan's options when they are more than constants, `documents` the other files that
        a plan was made of, such as OpenAPI documents.
        """
        self.folders = Folders(tuple(paths), tuple(skip), Hashes(clock))
        self.missions: Mapping[str, Loaded] = {}
        self.broken: Mapping[str, tuple[Diagnostic, ...]] = {}
        self._load = load
        self._plan = plan
        self._clock = clock
        self._default_zone = default_zone
        self._evaluate = evaluate
        self._documents = documents
        self._expect = expect
        self._units: dict[Path, _Kept] = {}
        self._busy = asyncio.Lock()

    def get(self, mission: str) -> Loaded | None:
        return self.missions.get(mission)

    async def reload(self, *, settle: bool = True, everything: bool = False) -> Reload:
        """Look at every file; read, check and compile what changed; swap it in.

        A file counts as changed when two looks 250 ms apart agree, as gone when it is still missing after 2 s; without
        `settle`, at start, at once. `everything` also reads what did not change: credentials may have.
        """
        async with self._busy:
            seen = await self._settled() if settle else await self._look()
            return await self._take(seen, everything=everything)

    async def finish(self, compiled: Callable[[Plan], None]) -> AsyncIterator[Reload]:
        """Compile what was put into service without it; what cannot be compiled goes out again, and is answered."""
        for path in tuple(self._units):
            reload = None
            async with self._busy:
                kept = self._units.get(path)
                try:
                    for mission in kept.missions if kept else ():
                        await asyncio.to_thread(compiled, mission.plan)
                except ReqonError as error:
                    assert kept is not None
                    broken = _Kept(kept.files, (), error.diagnostics)
                    reload = self._swap({**self._units, path: broken}, (path,))
            if reload is not None:
                yield reload

    async def _look(self) -> Seen:
        return await asyncio.to_thread(self.folders.scan, self._known())

    def _known(self) -> Seen:
        return {unit: kept.files for unit, kept in self._units.items()}

    async def _settled(self) -> Seen:
        """The files of each unit once they stand still. Units that are never still for 5 s stay as they were."""
        known, seen, waited = self._known(), await self._look(), 0.0
        while seen != known:
            before = seen
            await self._clock.sleep(QUIET_SECONDS)
            waited += QUIET_SECONDS
            seen = await self._look()
            missing = any(file not in seen.get(unit, ()) for unit, files in known.items() for file in files)
            if seen == before and (not missing or waited >= VANISHED_SECONDS):
                break
            if waited >= UNREST_SECONDS:
                return {unit: files for unit, files in seen.items() if unit not in known} | dict(known)
        return seen

    async def _take(self, seen: Seen, *, everything: bool) -> Reload:
        known = self._units
        anew = [unit for unit, files in seen.items() if everything or unit not in known or known[unit].files != files]
        self._expect(len(anew))
        read: dict[Path, _Kept] = {}
        for at in range(0, len(anew), _READ_TOGETHER):
            read |= await asyncio.to_thread(self._read_all, anew[at : at + _READ_TOGETHER], seen)
        units = {unit: read.get(unit) or known[unit] for unit in seen}
        return self._swap(units, anew)

    def _read_all(self, units: Iterable[Path], seen: Seen) -> dict[Path, _Kept]:
        return {unit: self._read(unit, seen[unit], self._units.get(unit)) for unit in units}

    def _read(self, path: Path, files: Mapping[Path, str], kept: _Kept | None) -> _Kept:
        """One unit anew; with errors it keeps the missions it had."""
        had = kept.missions if kept else ()
        try:
            found = list(self._load(path))
            errors = tuple(d for unit in found for d in unit.errors)
            programs = [mission for unit in found for mission in unit.missions]
            missions = () if errors else tuple(self._compile(path, program) for program in programs)
        except ReqonError as error:
            return _Kept(files, had, error.diagnostics)
        except Exception as error:  # one of the four walls: a file that breaks the reader must not stop the others
            log.exception("reading %s failed", path)
            problem = f"{path} could not be read: {type(error).__name__}; this is a fault of Reqon's, please report it"
            return _Kept(files, had, (Diagnostic("internal", problem),))
        if errors:
            return _Kept(files, had, errors)
        others = [Path(source.name) for program in programs for source in program.files]
        others += [document for mission in missions for document in self._documents(mission.plan)]
        return _Kept(_with_others(files, others), missions)

    def _compile(self, unit: Path, program: MissionProgram) -> Loaded:
        plan = self._plan(program)
        policy = policy_of(program, default_zone=self._default_zone, evaluate=self._evaluate(plan))
        return Loaded(plan, policy, unit)

    def _swap(self, units: dict[Path, _Kept], read: Iterable[Path]) -> Reload:
        missions: dict[str, Loaded] = {}
        broken = {str(path): kept.errors for path, kept in units.items() if kept.errors}
        # Of two with one name the one in service stays, whatever the order of their files.
        for mission in sorted((m for kept in units.values() for m in kept.missions), key=self._is_new):
            first = missions.setdefault(mission.name, mission)
            if first is not mission:
                path = str(mission.unit)
                broken[path] = (*broken.get(path, ()), _duplicate(mission, first))
        old, self._units, self.missions, self.broken = self.missions, units, missions, broken
        return Reload(
            added=tuple(name for name in missions if name not in old),
            changed={
                name: (old[name].plan.definition_hash, now.plan.definition_hash)
                for name, now in missions.items()
                if name in old and old[name].plan.definition_hash != now.plan.definition_hash
            },
            removed=tuple(name for name in old if name not in missions),
            broken=broken,
            refused=tuple(path for path in map(str, read) if path in broken),
        )

    def _is_new(self, mission: Loaded) -> bool:
        in_service = self.missions.get(mission.name)
        return in_service is None or in_service.unit != mission.unit


def _duplicate(mission: Loaded, first: Loaded) -> Diagnostic:
    return Diagnostic(
        "duplicate-mission",
        f"mission '{mission.name}' is already declared at {first.plan.program.node.name.span}",
        mission.plan.program.node.name.span,
        "rename one of them: records and checkpoints are kept by name",
    )


def _with_others(files: Mapping[Path, str], others: Iterable[Path]) -> dict[Path, str]:
    """The files of a unit, with imports and documents."""
    found = dict(files)
    for path in others:
        if path not in found and (digest := content_hash(path)) is not None:
            found[path] = digest
    return found


# --- the folder ---


@dataclass(slots=True)
class Hashes:
    """The content hashes of files, read anew only where the system's own marks of a change have moved.

    A file that changed in the last two seconds is always read: it may change again under the same marks.
    """

    clock: Clock = SYSTEM
    _known: dict[Path, tuple[tuple[int, int, int, int], str]] = field(default_factory=dict)

    def of(self, path: Path) -> str | None:
        """The hash of a file's content; None if it isn't there. What cannot be read is there, unlike itself later."""
        try:
            found = path.stat()
        except OSError:
            return content_hash(path)
        marks = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        known = self._known.get(path)
        if known is not None and known[0] == marks:
            return known[1]
        now = self.clock.now().timestamp()
        digest = content_hash(path)
        # The clock of a network's file system may differ from ours: what looks new by either is not believed.
        if digest is not None and now - max(found.st_mtime, found.st_ctime) > _STILL_SECONDS:
            self._known[path] = (marks, digest)
        return digest


@dataclass(frozen=True, slots=True)
class Folders:
    """The paths whose files are looked at; `skip` holds folders that are no missions, such as the state directory."""

    paths: tuple[Path, ...]
    skip: tuple[Path, ...] = ()
    hashes: Hashes = field(default_factory=Hashes)

    def scan(self, known: Seen) -> Seen:
        """The units that the paths mean (spec/language.md 6.1), each with the content hashes of its files.

        To a unit that is `known` belong the files it was made of too, imports for instance. A folder that cannot be
        read now is as it was.
        """
        found: dict[Path, Mapping[Path, str]] = {}
        for path in self.paths:
            try:
                units = units_of(path, skip=self.skip)
            except FileNotFoundError:
                continue
            except OSError as error:
                log.warning("%s cannot be read: %s", path, error.strerror)
                found |= {unit: files for unit, files in known.items() if unit == path or path in unit.parents}
                continue
            for unit in units:
                files = dict.fromkeys((*unit.files, *known.get(unit.path, ())))
                hashes = {file: digest for file in files if (digest := self.hashes.of(file)) is not None}
                if hashes:
                    found[unit.path] = hashes
        return found


def content_hash(path: Path) -> str | None:
    """The hash of a file's content; None if it isn't there. What cannot be read is there, unlike itself later."""
    try:
        refuse_no_file(path)
        with path.open("rb") as file:
            return file_digest(file, lambda: blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        is_gone = isinstance(error, FileNotFoundError | NotADirectoryError) and not path.is_symlink()
        return None if is_gone else f"unreadable: {error.errno}"
