"""A dry run: what a mission would do, walked without doing it (spec/runtime.md 18).

No socket is opened, nothing is written, no record is made. What local stores hold is known, and what the walk would
write into them, as long as that is certain. A `call` whose answer has a schema is answered with made-up data, and what
follows from that is walked as it would go. All other answers are unknown: what depends on them is shown by its
expression, every arm and every loop body that they decide about is walked once.
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
from reqon.runtime.sources import operation_of
from reqon.runtime.supposed import UNKNOWN, Overlay, Supposed
from reqon.secrets import SECRETS
from reqon.stores.config import ChosenStore
from reqon.stores.memory import MemoryStore
from reqon.values import Value

_STRATEGIES = {
    "offset": "by offset",
    "page": "page after page",
    "cursor": "along the cursor",
    "link": "along the Link header",
}


_SHOWN = 10  # items of a loop whose items are known; those that are made up are few


class DryRun:
    """Walks one plan. `lines` are what would be done, in order, indented as the mission nests."""

    def __init__(
        self,
        plan: Plan,
        store: Callable[[str], ChosenStore | None] = lambda _: None,
        peek: Callable[[str], MemoryStore | None] = lambda _: None,
    ) -> None:
        """`store` tells what a store of this name is, `peek` gives a copy of what a local one holds.

        Both raise what would keep a run from starting.
        """
        self.plan = plan
        self._store = store
        self._overlay = Overlay(peek)
        self.program = plan.program
        self.sources: dict[str, SourceSettings] = {}
        self._walking: list[str] = []
        self._supposed = Supposed(plan, self._overlay)
        self._left = False  # a step that certainly runs has ended the list

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
            self._overlay.of(name)
        if self.program.pipeline is None:
            yield "  nothing to run"
        for number, stage in enumerate(self.program.pipeline.stages if self.program.pipeline else (), 1):
            names = ", ".join(a.text for a in stage.actions)
            together = " together" if stage.parallel else ""
            condition = f", if {_text(stage.condition)}" if stage.condition is not None else ""
            yield f"  stage {number}: {names}{together}{condition}"
            self._overlay.uncertain += stage.condition is not None
            for action in stage.actions:
                if stage.parallel:
                    yield f"    {action.text}"
                yield from self._action(action.text, "      " if stage.parallel else "    ")
            self._overlay.uncertain -= stage.condition is not None

    def _action(self, name: str, indent: str) -> Iterator[str]:
        if name in self._walking:
            return
        self._walking.append(name)
        # Each action has its own variables and its own `response`.
        around, self._supposed = self._supposed, Supposed(self.plan, self._overlay)
        yield from self._steps(self.program.actions[name].steps, indent)
        self._supposed, self._left = around, False
        self._walking.pop()

    def _steps(self, steps: tuple[nodes.Step, ...], indent: str) -> Iterator[str]:
        for step in steps:
            yield from self._step(step, indent)
            self._left = self._left or flow.leaves(step) or isinstance(step, nodes.Abort)
            if self._left:
                return

    def _step(self, step: nodes.Step, indent: str) -> Iterator[str]:
        match step:
            case nodes.Fetch():
                yield indent + self.request(step)
                self._supposed.response = None
            case nodes.CallStep():
                yield from self._called(step, indent)
            case nodes.For():
                yield from self._loop(step, indent)
            case nodes.Let():
                self._supposed.bind(step.name.text, self._supposed.value(step.value))
            case nodes.Map():
                fields = len(step.mapping.entries) if step.mapping is not None else "?"
                yield f"{indent}would map {_text(step.value)} to {step.target.text} ({fields} fields)"
                self._mapped(step)
            case nodes.Apply():
                yield f"{indent}would apply {step.transform.text} to {_text(step.value)}"
                made = self._supposed.applied(step)
                if step.name is not None:
                    self._supposed.bind(step.name.text, made)
                else:
                    self._supposed.becomes(made)
            case nodes.Validate():
                yield from self._checked(step, indent)
            case nodes.StoreStep():
                yield indent + self._stored(step)
                self._supposed.store(step)
            case nodes.Delete():
                yield f"{indent}would delete {step.store.text}[{_text(step.key)}]"
                self._supposed.delete(step)
            case nodes.Clear():
                yield f"{indent}would clear {step.store.text}"
                self._supposed.clear(step)
            case nodes.MatchStep():
                yield from self._match(step, indent)
            case nodes.Queue():
                where = step.store.text if step.store is not None else "the dead-letter store"
                yield f"{indent}would queue the item in {where}"
                self._overlay.lose(step.store.text if step.store is not None else "dlq")
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
                yield f"{indent}would wait for a webhook{self._endpoint(step)}"
                self._supposed.response = None
            case nodes.Extension():
                yield f"{indent}would do {step.word.text}"
            case _:
                return

    def _called(self, step: nodes.CallStep, indent: str) -> Iterator[str]:
        """A call, answered with made-up data where its document describes the answer."""
        document, operation = operation_of(step, self.plan.specs)
        line = indent + self.request(step)
        self._supposed.response = None
        try:
            made = document.mock(operation)
        except ReqonError:
            made = None
        if made is None:
            yield line
            return
        status, body = made
        self._supposed.answer(status, body, paged=any(option.key == "paginate" for option in step.options))
        yield f"{line}, answered with made-up data"

    def _loop(self, step: nodes.For, indent: str) -> Iterator[str]:
        how = " in parallel" if step.parallel else ""
        which = "".join(f" where {_text(c)}" for c in step.conditions)
        head = f"{indent}for each {step.variable.text} in {_text(step.collection)}{which}{how}"
        items = self._supposed.items(step)
        if items is None:
            yield f"{head}:"
            with self._supposed.perhaps():
                self._supposed.bind(step.variable.text, UNKNOWN)
                yield from self._steps(step.body, indent + "  ")
            self._perhaps_left()
            return
        made_up = self._supposed.made_up(step.collection)
        yield f"{head}, {len(items)}{' made up' if made_up else ''}:" if items else f"{head}: none"
        shown = items if made_up else items[:_SHOWN]
        for item in shown:
            with self._supposed.block():
                self._supposed.bind(step.variable.text, item)
                self._supposed.current = (item,)
                yield from self._steps(step.body, indent + "  ")
            self._left = False
        if len(shown) < len(items):
            yield f"{indent}  … and so on for {len(items) - len(shown)} more"
            self._overlay.lose(*self.program.stores)

    def _perhaps_left(self) -> None:
        """Behind a block that may have run: if it ended the list, nobody knows whether what follows runs."""
        self._overlay.uncertain += self._left
        self._left = False

    def _mapped(self, step: nodes.Map) -> None:
        made = self._supposed.mapped(step)
        self._supposed.becomes(made)
        if isinstance(step.value, nodes.Name) and step.value.name in self._supposed.names:
            self._supposed.bind(step.value.name, made)
        if step.target.text not in self.program.schemas:
            self._supposed.bind(step.target.text, made)

    def _checked(self, step: nodes.Validate, indent: str) -> Iterator[str]:
        target = _text(step.target) if step.target is not None else "response"
        number = len(step.constraints)
        violated = self._supposed.violated(step)
        outcome = "" if violated is None else f": {violated} fail" if violated else ": all hold"
        yield f"{indent}would check {target} against {number} constraint{'s' if number != 1 else ''}{outcome}"
        if step.otherwise is None or violated == 0:
            return
        if violated is not None:
            with self._supposed.block():
                yield from self._steps(flow.steps_of(step.otherwise), indent + "  ")
            return
        yield f"{indent}  if it fails:"
        with self._supposed.perhaps():
            yield from self._steps(flow.steps_of(step.otherwise), indent + "    ")
        self._perhaps_left()

    def _match(self, step: nodes.MatchStep, indent: str) -> Iterator[str]:
        subject = f" {_text(step.subject)}" if step.subject is not None else ""
        taken = self._supposed.arm(step)
        if taken is not None:
            yield from self._taken(step, taken, f"{indent}match{subject}:", indent)
            return
        yield f"{indent}match{subject}:"
        for arm in (*step.arms, *step.catch):
            guard = f" where {_text(arm.guard)}" if arm.guard is not None else ""
            steps = flow.steps_of(arm.body)
            with self._supposed.perhaps():
                shown = list(self._steps(steps, indent + "    "))
            self._left = self._left and not isinstance(steps[-1], nodes.Continue)
            self._perhaps_left()
            yield f"{indent}  {_text(arm.pattern)}{guard} ->" + ("" if shown else " continue")
            yield from shown

    def _taken(
        self, step: nodes.MatchStep, taken: tuple[int, Mapping[str, Value]], head: str, indent: str
    ) -> Iterator[str]:
        """A match whose outcome is known."""
        number, bound = taken
        if number < 0:
            yield f"{head} no arm"
            return
        arm = step.arms[number]
        guard = f" where {_text(arm.guard)}" if arm.guard is not None else ""
        with self._supposed.block():
            for name, value in bound.items():
                self._supposed.bind(name, value)
            shown = list(self._steps(flow.steps_of(arm.body), indent + "  "))
            left = self._left
        continues = not left and all(isinstance(one, nodes.Continue) for one in flow.steps_of(arm.body))
        yield f"{head} {_text(arm.pattern)}{guard} ->" + (" continue" if continues or not shown else "")
        yield from shown
        self._left = left and not isinstance(flow.steps_of(arm.body)[-1], nodes.Continue)

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
        options = {o.key: o.value for o in step.options}
        base = self.source_of(step).base
        if isinstance(step, nodes.CallStep):
            method, path, query = self._operation_parts(step)
        else:
            method, path, query = step.method.upper(), self._path(step.path), self._query(self._written(step))
        url = path if path.startswith(("http://", "https://")) else base + path
        line = f"would {method} {url}" + (("&" if "?" in url else "?") + query if query else "")
        if isinstance(paginate := options.get("paginate"), nodes.Paginate):
            line += f", {_STRATEGIES.get(paginate.strategy.text, 'all pages')}"
        if "since" in options:
            line += ", only what changed since the last sync"
        if "body" in options:
            line += ", with a body"
        return line

    def _written(self, step: nodes.Fetch | nodes.CallStep) -> dict[str, nodes.Expression]:
        """The parameters that the text lists, by name."""
        found: dict[str, nodes.Expression] = {}
        for option in step.options:
            if option.key in ("params", "query") and isinstance(option.value, nodes.ObjectLiteral):
                found |= {e.key: e.value for e in option.value.entries if isinstance(e, nodes.Entry)}
        return found

    def _query(self, written: Mapping[str, nodes.Expression]) -> str:
        parts: list[str] = []
        for name, node in written.items():
            value = self._known(node)
            parts.append(f"{name}={{{_text(node)}}}" if value is UNKNOWN else encode_query([(name, value)]))
        return "&".join(filter(None, parts))

    def _operation_parts(self, step: nodes.CallStep) -> tuple[str, str, str]:
        """Method, path and query of a call, as far as they are known."""
        from reqon.http.openapi.parameters import placed  # noqa: PLC0415  # only where operations are called

        _, operation = operation_of(step, self.plan.specs)
        written = self._written(step)
        path = ""
        for is_parameter, piece in operation.parts:
            value: Value = piece
            if is_parameter:
                node = written.pop(piece, nodes.Name(name=piece, span=step.operation.span))
                value = self._known(node)
            path += f"{{{piece}}}" if value is UNKNOWN else str(value)
        values = {name: self._known(node) for name, node in written.items()}
        known = [(name, value) for name, value in values.items() if value is not UNKNOWN]
        query = encode_query(placed(known, operation.by_name).query)
        in_query = {p.name for p in operation.parameters if p.place != "query"}
        unknown = {n: written[n] for n, value in values.items() if value is UNKNOWN and n not in in_query}
        return operation.method, path, "&".join(filter(None, (query, self._query(unknown))))

    def _endpoint(self, step: nodes.Wait) -> str:
        for option in step.options:
            if option.key == "path" and not isinstance(option.value, nodes.Since | nodes.Paginate):
                return f" at {self._path(option.value)}"
        return ""

    def _path(self, node: nodes.Expression) -> str:
        if isinstance(node, nodes.Literal_) and isinstance(node.value, str):
            out = ""
            for piece in split(node)[0]:
                if isinstance(piece, Placeholder):
                    value = self._known(piece.expression) if piece.expression is not None else UNKNOWN
                    out += f"{{{piece.text}}}" if value is UNKNOWN else str(value)
                else:
                    out += piece
        else:
            value = self._known(node)
            out = f"{{{_text(node)}}}" if value is UNKNOWN else str(value)
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
        """The value of an expression that depends on nothing the run would find out; else UNKNOWN."""
        return self._supposed.value(node)


def _text(node: nodes.Node) -> str:
    text = " ".join(node.span.text.split())
    return text if len(text) <= 70 else text[:67] + "..."


def _is(node: object, value: bool) -> bool:
    return isinstance(node, nodes.Literal_) and node.value is value


def warning(error: ReqonError) -> str:
    """A problem that only warns in a dry run, in its printed form."""
    first = error.diagnostics[0]
    return render(Diagnostic(first.code, first.message, first.span, first.hint, severity="warning"))
