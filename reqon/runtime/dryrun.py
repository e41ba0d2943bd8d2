"""A dry run: what a mission would do, walked without doing it (spec/runtime.md 18).

No socket is opened, nothing is written, no record is made. Every arm and every loop body is walked once; what depends
on answers is shown by its expression.
"""

from collections.abc import Callable, Iterator, Mapping

from reqon.diagnostics import Diagnostic, render
from reqon.errors import ReqonError
from reqon.http.messages import SourceSettings
from reqon.http.paths import encode_query
from reqon.lang import flow, nodes
from reqon.lang.placeholders import Placeholder, split
from reqon.runtime.plan import Plan
from reqon.runtime.settings import store_settings
from reqon.secrets import SECRETS
from reqon.stores.config import ChosenStore
from reqon.values import Value

_STRATEGIES = {
    "offset": "by offset",
    "page": "page after page",
    "cursor": "along the cursor",
    "link": "along the Link header",
}


class DryRun:
    """Walks one plan. `lines` are what would be done, in order, indented as the mission nests."""

    def __init__(self, plan: Plan, store: Callable[[str], ChosenStore | None] = lambda _: None) -> None:
        """`store` tells what a store of this name is, and raises what would keep a run from starting."""
        self.plan = plan
        self._store = store
        self.program = plan.program
        self.sources: dict[str, SourceSettings] = {}
        self._walking: list[str] = []

    def settings(self) -> Mapping[str, SourceSettings]:
        """The sources' options as a run would have them.

        Raises:
            ConfigurationError: a run would not start.
        """
        for name, definition in self.program.sources.items():
            self.sources[name] = self.plan.source_settings(definition)
        return self.sources

    def lines(self) -> Iterator[str]:
        """What would be done, a line for each thing; secrets masked."""
        return map(SECRETS.redact, self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"mission {self.program.name} ({self.program.path})"
        for name, definition in self.program.stores.items():
            written = store_settings(definition, self.plan.evaluate)
            chosen = self._store(name)
            where = "" if chosen is None or chosen.kind == written.adapter else f", in {chosen.kind}"
            yield f'  store {name}: {written.adapter}("{written.identifier}"){where}'
        if self.program.pipeline is None:
            yield "  nothing to run"
        for number, stage in enumerate(self.program.pipeline.stages if self.program.pipeline else (), 1):
            names = ", ".join(a.text for a in stage.actions)
            together = " together" if stage.parallel else ""
            condition = f", if {_text(stage.condition)}" if stage.condition is not None else ""
            yield f"  stage {number}: {names}{together}{condition}"
            for action in stage.actions:
                if stage.parallel:
                    yield f"    {action.text}"
                yield from self._action(action.text, "      " if stage.parallel else "    ")

    def _action(self, name: str, indent: str) -> Iterator[str]:
        if name in self._walking:
            return
        self._walking.append(name)
        yield from self._steps(self.program.actions[name].steps, indent)
        self._walking.pop()

    def _steps(self, steps: tuple[nodes.Step, ...], indent: str) -> Iterator[str]:
        for step in steps:
            yield from self._step(step, indent)

    def _step(self, step: nodes.Step, indent: str) -> Iterator[str]:
        match step:
            case nodes.Fetch() | nodes.CallStep():
                yield indent + self.request(step)
            case nodes.For():
                how = " in parallel" if step.parallel else ""
                which = "".join(f" where {_text(c)}" for c in step.conditions)
                yield f"{indent}for each {step.variable.text} in {_text(step.collection)}{which}{how}:"
                yield from self._steps(step.body, indent + "  ")
            case nodes.Map():
                fields = len(step.mapping.entries) if step.mapping is not None else "?"
                yield f"{indent}would map {_text(step.value)} to {step.target.text} ({fields} fields)"
            case nodes.Apply():
                yield f"{indent}would apply {step.transform.text} to {_text(step.value)}"
            case nodes.Validate():
                target = _text(step.target) if step.target is not None else "response"
                number = len(step.constraints)
                yield f"{indent}would check {target} against {number} constraint{'s' if number != 1 else ''}"
                if step.otherwise is not None:
                    yield f"{indent}  if it fails:"
                    yield from self._steps(flow.steps_of(step.otherwise), indent + "    ")
            case nodes.StoreStep():
                yield indent + self._stored(step)
            case nodes.Delete():
                yield f"{indent}would delete {step.store.text}[{_text(step.key)}]"
            case nodes.Clear():
                yield f"{indent}would clear {step.store.text}"
            case nodes.MatchStep():
                yield from self._match(step, indent)
            case nodes.Queue():
                where = step.store.text if step.store is not None else "the dead-letter store"
                yield f"{indent}would queue the item in {where}"
            case nodes.Abort():
                message = f": {_text(step.message)}" if step.message is not None else ""
                yield f"{indent}would abort the mission{message}"
            case nodes.Retry():
                yield f"{indent}would repeat the request"
            case nodes.Skip():
                yield f"{indent}would skip the rest"
            case nodes.Jump():
                yield f"{indent}would run {step.action.text}" + (
                    ", then repeat the request" if step.then == "retry" else ""
                )
                yield from self._action(step.action.text, indent + "  ")
            case nodes.Run():
                for name in flow.stage_names(step):
                    yield f"{indent}would run {name.text}"
                    yield from self._action(name.text, indent + "  ")
            case nodes.Wait():
                yield f"{indent}would wait for a webhook"
            case nodes.Extension():
                yield f"{indent}would do {step.word.text}"
            case _:
                return

    def _match(self, step: nodes.MatchStep, indent: str) -> Iterator[str]:
        subject = f" {_text(step.subject)}" if step.subject is not None else ""
        yield f"{indent}match{subject}:"
        for arm in (*step.arms, *step.catch):
            guard = f" where {_text(arm.guard)}" if arm.guard is not None else ""
            steps = flow.steps_of(arm.body)
            shown = list(self._steps(steps, indent + "    "))
            yield f"{indent}  {_text(arm.pattern)}{guard} ->" + ("" if shown else " continue")
            yield from shown

    def source_of(self, step: nodes.Fetch | nodes.CallStep) -> SourceSettings:
        """The source that a request goes to; the default source where only the run will know."""
        written = step.source.text if step.source is not None else None
        named = next((o.value for o in step.options if o.key == "source"), None)
        if written is None and isinstance(named, nodes.Name):
            written = named.name
        elif written is None and isinstance(named, nodes.Literal_):
            written = str(named.value)
        return self.sources[written] if written in self.sources else next(iter(self.sources.values()))

    def request(self, step: nodes.Fetch | nodes.CallStep) -> str:
        """What a request would be, as far as it is known before the run."""
        if isinstance(step, nodes.CallStep):
            return f"would call {step.source.text}.{step.operation.text}"
        options = {o.key: o.value for o in step.options}
        source = self.source_of(step)
        path = self._path(step.path)
        parts: list[str] = []
        for key in ("params", "query"):
            given = options.get(key)
            for entry in given.entries if isinstance(given, nodes.ObjectLiteral) else ():
                if isinstance(entry, nodes.Entry):
                    value = self._known(entry.value)
                    unknown = value is _UNKNOWN
                    parts.append(
                        f"{entry.key}={{{_text(entry.value)}}}" if unknown else encode_query([(entry.key, value)])
                    )
        query = "&".join(filter(None, parts))
        url = path if path.startswith(("http://", "https://")) else source.base + path
        line = f"would {step.method.upper()} {url}" + (("&" if "?" in url else "?") + query if query else "")
        if isinstance(paginate := options.get("paginate"), nodes.Paginate):
            line += f", {_STRATEGIES.get(paginate.strategy.text, 'all pages')}"
        if "since" in options:
            line += ", only what changed since the last sync"
        if "body" in options:
            line += ", with a body"
        return line

    def _path(self, node: nodes.Expression) -> str:
        if isinstance(node, nodes.Literal_) and isinstance(node.value, str):
            out = ""
            for piece in split(node)[0]:
                if isinstance(piece, Placeholder):
                    value = self._known(piece.expression) if piece.expression is not None else _UNKNOWN
                    out += f"{{{piece.text}}}" if value is _UNKNOWN else str(value)
                else:
                    out += piece
        else:
            value = self._known(node)
            out = f"{{{_text(node)}}}" if value is _UNKNOWN else str(value)
        return out if out.startswith(("/", "http://", "https://")) else "/" + out

    def _stored(self, step: nodes.StoreStep) -> str:
        options = {o.key: o.value for o in step.options}
        key = options.get("key")
        by = f" by {_text(key)}" if isinstance(key, nodes.Node) else ""
        upsert = options.get("upsert")
        partial = options.get("partial")
        merges = (_is(upsert, True) and not _is(partial, False)) or _is(partial, True)
        how = "merging into" if merges else "replacing"
        return f"would store {_text(step.value)} in {step.store.text}{by} ({how} what is there)"

    def _known(self, node: nodes.Expression) -> Value:
        """The value of an expression that depends on nothing the run would find out; else unknown."""
        try:
            return self.plan.evaluate(node)
        except ReqonError:
            return _UNKNOWN


class _Unknown:
    """A value that only a run would know."""


_UNKNOWN = _Unknown()


def _text(node: nodes.Node) -> str:
    text = " ".join(node.span.text.split())
    return text if len(text) <= 70 else text[:67] + "..."


def _is(node: object, value: bool) -> bool:
    return isinstance(node, nodes.Literal_) and node.value is value


def warning(error: ReqonError) -> str:
    """A problem that only warns in a dry run, in its printed form."""
    first = error.diagnostics[0]
    return render(Diagnostic(first.code, first.message, first.span, first.hint, severity="warning"))
