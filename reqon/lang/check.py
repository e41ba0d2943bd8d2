"""The static checks of one mission (spec/language.md 5): every problem of its text, without running anything."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from reqon.diagnostics import Diagnostic, nearest
from reqon.lang import flow, nodes
from reqon.lang.checks.cycles import cycles
from reqon.lang.checks.expressions import Expressions, Names
from reqon.lang.checks.findings import Findings, Namespace
from reqon.lang.checks.options import Extensions, Options
from reqon.lang.checks.paging import Paging
from reqon.lang.checks.requests import Operations, Requests
from reqon.lang.checks.schedule import Schedules
from reqon.lang.checks.schemas import Schemas
from reqon.lang.checks.scope import Scope
from reqon.lang.checks.sources import Sources
from reqon.lang.checks.steps import Steps
from reqon.lang.options import ADAPTER_NAMES, MISSION, SCHEDULE, SOURCE
from reqon.lang.program import MissionProgram
from reqon.lang.texts import Components


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """The words that Python code adds to the language, and how to look into OpenAPI documents (None: don't)."""

    functions: frozenset[str] = frozenset()
    adapters: frozenset[str] = frozenset()
    auth: frozenset[str] = frozenset()
    pagination: frozenset[str] = frozenset()
    steps: frozenset[str] = frozenset()
    state_stores: frozenset[str] = frozenset()
    operations: Operations | None = None
    components: Components | None = None


NOTHING_REGISTERED = Registered()


@dataclass(frozen=True, slots=True)
class Checked:
    """Every error and warning of a mission, in order of file, line and column; and the declarations it consists of."""

    diagnostics: tuple[Diagnostic, ...]
    declarations: tuple[nodes.Declaration, ...]


def check_mission(
    mission: MissionProgram, known: Registered = NOTHING_REGISTERED, *, borrowed: Collection[int] = ()
) -> Checked:
    """Check one mission.

    `borrowed` holds the `id()` of declarations that are shared with other missions: they are checked, and belong to
    this one, only where it uses them, and nobody minds if it doesn't.
    """
    check = _Check(mission, known, borrowed)
    return Checked(tuple(check.run()), tuple(check.members()))


class _Check:
    def __init__(self, mission: MissionProgram, known: Registered, borrowed: Collection[int]) -> None:
        self.mission = mission
        self.borrowed = borrowed
        self.findings = findings = Findings()
        names = Names(
            sources=mission.sources,
            stores=mission.stores,
            schemas=mission.schemas,
            transforms=mission.transforms,
            actions=mission.actions,
            lets=mission.lets,
            functions=known.functions,
            adapters=(*ADAPTER_NAMES, *known.adapters),
        )
        self.expressions = Expressions(names, findings)
        extensions = Extensions(auth=known.auth, pagination=known.pagination, state_stores=known.state_stores)
        self.options = Options(self.expressions, findings, extensions)
        self.sources = Sources(self.expressions, self.options, findings)
        self.schemas = Schemas(self.expressions, findings)
        paging = Paging(self.expressions, self.options, findings)
        self.requests = Requests(self.expressions, self.options, findings, paging, known.operations)
        self.steps = Steps(self.expressions, self.options, self.requests, findings, known.steps)

    def run(self) -> list[Diagnostic]:
        self._clauses()
        self._declarations()
        self.requests.shared_checkpoints()
        self._recursion()
        self.schemas.recursion()
        self._unused()
        return sorted(self.findings.found, key=_place)

    def members(self) -> "Iterator[nodes.Declaration]":
        """What the mission consists of: its own declarations, and those of others that it uses."""
        for namespace in (*_NAMESPACES, "let"):
            for name, node in self._namespace(namespace).items():
                if self._is_own(node) or (namespace, name) in self.findings.used:
                    yield node

    # --- clauses ------------------------------------------------------------------------------------------------------

    def _clauses(self) -> None:
        mission = self.mission
        if mission.schedule is not None:
            Schedules(self.options, self.findings).check(mission.schedule)
            self._twice(mission.schedule)
        known = [option for option in mission.options.values() if MISSION.kind(option.key) is not None]
        self.options.check(known, MISSION, Scope("start"))
        for option in mission.options.values():
            if option not in known:
                self._unknown_option(option)
        run = next((clause for clause in mission.node.clauses if isinstance(clause, nodes.Run)), None)
        if run is not None:
            self.steps.pipeline(run, Scope("stage"))
        else:
            self._missing_run()

    def _unknown_option(self, option: nodes.Option) -> None:
        key = option.key
        if SOURCE.kind(key) is not None and key in ("rateLimit", "circuitBreaker", "headers", "retry", "auth", "base"):
            message = f"unknown option '{key}' for mission"
            hint = f"'{key}' belongs to a source: source Api {{ {key}: … }}"
            self.findings.error("unknown-option", message, option.key_span, hint)
        else:
            self.options.check([option], MISSION, Scope("start"))

    def _twice(self, schedule: nodes.Schedule) -> None:
        for option in schedule.options:
            other = self.mission.options.get(option.key)
            if other is not None and SCHEDULE.kind(option.key) is not None:
                first, second = sorted((option.key_span, other.key_span), key=lambda span: span.start)
                message = f"'{option.key}' is already given at {first}"
                hint = "give it once, in the schedule block or as a mission option"
                self.findings.error("duplicate-clause", message, second, hint)

    def _missing_run(self) -> None:
        mission, span = self.mission, self.mission.node.name.span
        entries = flow.entry_actions({name: a for name, a in mission.actions.items() if self._is_own(a)})
        subject = f"mission '{mission.name}' has no run clause"
        if not mission.actions:
            self.findings.warn("missing-run", f"{subject} and no action, so it does nothing", span)
        elif len(entries) == 1:
            message = f"{subject}, so it runs '{entries[0]}'"
            self.findings.warn("missing-run", message, span, f"add: run {entries[0]}")
        else:
            first = entries[0] if entries else next(iter(mission.actions))
            message = f"{subject} and {len(entries)} possible entry actions"
            self.findings.error("missing-run", message, span, f"add: run {first} then …")

    # --- declarations -------------------------------------------------------------------------------------------------

    def _declarations(self) -> None:
        """Check what is this mission's own, and then what it uses of others, and what that uses, to the end."""
        self._lets()
        checked: set[tuple[Namespace, str]] = set()
        for namespace, name, node in self._all():
            if self._is_own(node):
                checked.add((namespace, name))
                self._declaration(namespace, node)
        while waiting := [used for used in self.findings.used if used not in checked]:
            for namespace, name in waiting:
                checked.add((namespace, name))
                if namespace != "let":
                    self._declaration(namespace, self._namespace(namespace)[name])

    def _all(self) -> "Iterator[tuple[Namespace, str, nodes.Declaration]]":
        for namespace in _NAMESPACES:
            for name, node in self._namespace(namespace).items():
                yield namespace, name, node

    def _namespace(self, namespace: Namespace) -> "Mapping[str, nodes.Declaration]":
        mission = self.mission
        declared: dict[Namespace, Mapping[str, nodes.Declaration]] = {
            "source": mission.sources,
            "store": mission.stores,
            "schema": mission.schemas,
            "transform": mission.transforms,
            "action": mission.actions,
            "let": mission.lets,
        }
        return declared[namespace]

    def _declaration(self, namespace: Namespace, node: nodes.Node) -> None:
        match node:
            case nodes.SourceDef():
                self.sources.source(node)
            case nodes.StoreDef():
                self.sources.store(node)
            case nodes.SchemaDef():
                self.schemas.schema(node)
            case nodes.TransformDef():
                self.schemas.transform(node)
            case nodes.ActionDef():
                self.steps.action(node)
            case _:
                raise AssertionError(namespace)

    def _lets(self) -> None:
        names = list(self.mission.lets)
        for index, (_, let) in enumerate(self.mission.lets.items()):
            self.expressions.later_lets = names[index:]
            self.expressions.check(let.value, Scope("start"))
        self.expressions.later_lets = ()

    def _is_own(self, node: nodes.Node) -> bool:
        return id(node) not in self.borrowed

    # --- the whole ----------------------------------------------------------------------------------------------------

    def _recursion(self) -> None:
        """Report each cycle of `run` and `jump` once, at the name that leads into it."""
        calls = {name: list(flow.called_actions(action.steps)) for name, action in self.mission.actions.items()}
        reported: set[frozenset[str]] = set()
        for way in cycles({name: [called.text for called in names] for name, names in calls.items()}):
            if (members := frozenset(way)) not in reported:
                reported.add(members)
                span = next(called.span for called in calls[way[0]] if called.text == way[1])
                message = f"action '{way[0]}' runs itself ({' -> '.join(way)})"
                self.findings.error("recursive-action", message, span, "use a loop instead")

    def _unused(self) -> None:
        self._unused_actions()
        for namespace in ("store", "let"):
            for name, node in self._namespace(namespace).items():
                if (namespace, name) not in self.findings.used and self._is_own(node) and not name.startswith("_"):
                    word = "'" if namespace == "let" else f"{namespace} '"
                    span = node.name.span
                    self.findings.warn(f"unused-{namespace}", f"{word}{name}' is never used", span, "remove it")

    def _unused_actions(self) -> None:
        if self.mission.pipeline is None:
            return
        waiting = [name.text for name in flow.stage_names(self.mission.pipeline)]
        reached: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name not in self.mission.actions:
                name = nearest(name, self.mission.actions) or name
            action = self.mission.actions.get(name)
            if action is not None and name not in reached:
                reached.add(name)
                waiting += [called.text for called in flow.called_actions(action.steps)]
        for name, action in self.mission.actions.items():
            if name not in reached and self._is_own(action):
                hint = "add it to the run clause, or remove it"
                self.findings.warn("unused-action", f"action '{name}' is never run", action.name.span, hint)


_NAMESPACES: tuple[Namespace, ...] = ("source", "store", "schema", "transform", "action")


def _place(diagnostic: Diagnostic) -> tuple[str, int, str]:
    span = diagnostic.span
    return (span.source.name, span.start, diagnostic.code) if span else ("", 0, diagnostic.code)
