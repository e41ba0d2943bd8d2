"""What a run of a plan would come to: its sources, stores, stages, requests and checkpoints (`reqon plan`).

Reads the text and what can be evaluated before a run; nothing is sent, opened or written.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from reqon.diagnostics import Span
from reqon.errors import ReqonError
from reqon.http.messages import SourceSettings
from reqon.lang import flow, nodes
from reqon.runtime.dryrun import DryRun
from reqon.runtime.plan import Plan
from reqon.runtime.settings import StoreSettings, store_settings
from reqon.secrets import SECRETS

Times: TypeAlias = int | None  # how often something happens; None: only the run will know


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOutline:
    """A request of the text, and how often it would be sent.

    Attributes:
        line: method and URL as far as known, and what else is sent or followed.
        times: how often, when that is known; then `per` is empty.
        per: what the number hangs on: `page`, and the loops around it.
        certain: False in an arm, an `or` block or a stage with a condition: it may not be sent at all.
        sync_key: under which its sync checkpoint is kept, if it has one whose key is known.
    """

    action: str
    line: str
    span: Span
    times: Times = 1
    per: tuple[str, ...] = ()
    certain: bool = True
    syncs: bool = False
    sync_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopOutline:
    """A loop whose progress is saved: `every` so many rounds as the mission says, and each second in any case."""

    action: str
    label: str
    span: Span
    every: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """One mission as its run would go."""

    plan: Plan
    sources: Mapping[str, SourceSettings]
    stores: Mapping[str, StoreSettings]
    requests: tuple[RequestOutline, ...]
    loops: tuple[LoopOutline, ...]

    @property
    def least_requests(self) -> int:
        """How many requests are sent at least, retries not counted."""
        return sum(_least(request) for request in self.requests)

    @property
    def exact(self) -> bool:
        """Whether that is how many there are: no page, no loop over what only the run knows, no arm."""
        return all(request.times is not None and request.certain for request in self.requests)


def _least(request: RequestOutline) -> int:
    if not request.certain:
        return 0
    if request.times is not None:
        return request.times
    return 1 if request.per == ("page",) else 0


def outline(plan: Plan) -> Outline:
    """The outline of a plan.

    Raises:
        ConfigurationError: a run would not start.
    """
    return _Walk(plan).outline()


@dataclass(frozen=True, slots=True)
class _Around:
    """What surrounds a step: the loops and arms it stands in."""

    action: str
    times: Times = 1
    per: tuple[str, ...] = ()
    certain: bool = True


class _Walk:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._dry = DryRun(plan)
        self._requests: list[RequestOutline] = []
        self._loops: dict[Span, LoopOutline] = {}
        self._called: list[str] = []

    def outline(self) -> Outline:
        program = self._plan.program
        sources = self._dry.settings()
        stores = {name: store_settings(node, self._plan.evaluate) for name, node in program.stores.items()}
        if program.pipeline is not None:
            self._pipeline(program.pipeline, _Around(""))
        return Outline(
            plan=self._plan,
            sources=sources,
            stores=stores,
            requests=tuple(self._requests),
            loops=tuple(self._loops.values()),
        )

    def _pipeline(self, run: nodes.Run, around: _Around) -> None:
        for stage in run.stages:
            for action in stage.actions:
                self._action(action.text, replace(around, certain=around.certain and stage.condition is None))

    def _action(self, name: str, around: _Around) -> None:
        if name in self._called or name not in self._plan.program.actions:
            return
        self._called.append(name)
        self._steps(self._plan.program.actions[name].steps, replace(around, action=name))
        self._called.pop()

    def _steps(self, steps: Sequence[nodes.Step], around: _Around) -> None:
        for step in steps:
            self._step(step, around)

    def _step(self, step: nodes.Step, around: _Around) -> None:
        maybe = replace(around, certain=False)
        match step:
            case nodes.Fetch() | nodes.CallStep():
                self._requests.append(self._request(step, around))
            case nodes.For():
                self._loop(step, around)
            case nodes.Validate() if step.otherwise is not None:
                self._steps(flow.steps_of(step.otherwise), maybe)
            case nodes.MatchStep():
                for arm in (*step.arms, *step.catch):
                    self._steps(flow.steps_of(arm.body), maybe)
            case nodes.Jump():
                self._action(step.action.text, around)
            case nodes.Run():
                self._pipeline(step, around)
            case _:
                pass

    def _loop(self, step: nodes.For, around: _Around) -> None:
        label = f"for {step.variable.text} in {_text(step.collection)}"
        every = None if step.checkpoint is None else self._known_number(step.checkpoint)
        if step.checkpoint is not None:
            self._loops[step.span] = LoopOutline(action=around.action, label=label, span=step.span, every=every)
        length = None if step.conditions else self._length(step.collection)
        if length is None or around.times is None:
            per = around.per if length == 1 else (*around.per, step.variable.text)
            inside = replace(around, times=None, per=per)
        else:
            inside = replace(around, times=around.times * length)
        self._steps(step.body, inside)

    def _request(self, step: nodes.Fetch | nodes.CallStep, around: _Around) -> RequestOutline:
        options = {option.key: option.value for option in step.options}
        paged = "paginate" in options
        return RequestOutline(
            action=around.action,
            line=SECRETS.redact(self._dry.request(step).removeprefix("would ")),
            span=step.span,
            times=None if paged else around.times,
            per=(*around.per, "page") if paged else around.per,
            certain=around.certain,
            syncs=_syncs(options),
            sync_key=self._sync_key(step, options),
        )

    def _sync_key(self, step: nodes.Fetch | nodes.CallStep, options: Mapping[str, object]) -> str | None:
        """The key of a fetch that keeps a sync checkpoint, where it can be told before the run."""
        since = options.get("since")
        written = options.get("syncKey")
        if isinstance(since, nodes.Since):
            inside = {option.key: option.value for option in since.options}
            written = since.key or inside.get("key") or written
        if isinstance(written, nodes.Node):
            key = self._known(written)
            return key if isinstance(key, str) else None
        if isinstance(step, nodes.CallStep):
            return f"{step.source.text}-{step.operation.text}"
        if isinstance(step.path, nodes.Literal_) and isinstance(step.path.value, str) and "{" not in step.path.value:
            path = step.path.value.partition("?")[0].rstrip("/")
            return f"{self._dry.source_of(step).name}-{path or '/'}"
        return None

    def _length(self, node: nodes.Expression) -> int | None:
        value = self._known(node)
        return len(value) if isinstance(value, list) else None

    def _known_number(self, node: nodes.Expression) -> int | None:
        value = self._known(node)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def _known(self, node: nodes.Node) -> object:
        try:
            return self._plan.evaluate(node)  # type: ignore[arg-type]
        except ReqonError:
            return None


def _syncs(options: Mapping[str, object]) -> bool:
    since = options.get("since")
    named = isinstance(since, nodes.Name) and since.name == "lastSync"
    return named or isinstance(since, nodes.Since) or "syncKey" in options


def _text(node: nodes.Node) -> str:
    text = " ".join(node.span.text.split())
    return text if len(text) <= 50 else text[:47] + "..."


def described(request: RequestOutline) -> str:
    """How often a request is sent, in words: `once`, `3 times`, `for each page`, `once, if it comes to that`."""
    return "".join(_often(request))


def _often(request: RequestOutline) -> Iterator[str]:
    if request.times is not None:
        yield "once" if request.times == 1 else f"{request.times} times"
    else:
        yield "for each " + ", each ".join(request.per)
    if not request.certain:
        yield ", if it comes to that"
