"""What one action carries while it runs: `response`, its variables, where it is."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reqon.errors import FetchError
from reqon.state.compaction import InnerRound
from reqon.values import Value

if TYPE_CHECKING:
    from reqon.runtime.execution import Execution
    from reqon.runtime.loops import LoopRun
    from reqon.webhooks.desk import Endpoint


class Frame:
    """One action's state. Generated steps read and write it; nothing of it is shared with other actions.

    Attributes:
        key: the name its journal entries carry, `<stage>/<action>`; for a called action its `origin`. None for one
            called inside a loop: its requests are kept with the item of that loop, see `work`.
        bound_step, begun_step: whose begin is in the journal; that has written since, see `note_begin`.
        caller: the frame that called this one, whose position has to be in the journal before this one's.
        raw_response, raw_of: the bytes of the answer that gave `raw_of`, so that the journal has them as they came.
        inner: the loops inside the outermost one that send requests, in work, outermost first.
        work, item, trail: the loop that the journal follows when this action runs for one of its items, that item's
            index, and the caller's `inner`. For the action that the loop stands in, `work` is its own `loop`.
        private: what is asked for here renews credentials: nothing of it is kept.
        inner_resume: the item in which a resume begins, and where its inner loops were, by path.
        response, meta: the value of `response` and the record behind it (`code`, `headers`).
        failure: why the last guarded fetch failed, if it did.
        called: source and path template of the last request, for the event of its retry.
        flow: the directive that ends the step in work, for its event; only watched code writes it.
        index: the item in work of the outermost loop; indices: those of all loops, for generated keys.
        origin: what made keys begin with: the action's key, and for a called one also from where, in which round of
            which loops.
        inside_loop: True for an action that a loop's body called: its own loops are no outermost ones.
        endpoints: what this action and its parallel iterations have opened for webhooks.
        waits: how often each `wait` was passed, by its number and the rounds of the loops around it.
        replaying: True while a step is repeated up to the loop where a resume goes on: effects are left out.
    """

    __slots__ = (
        "action",
        "begun_step",
        "bound_step",
        "call_depth",
        "called",
        "caller",
        "endpoints",
        "failure",
        "flow",
        "index",
        "inner",
        "inner_resume",
        "inside_loop",
        "item",
        "key",
        "loop",
        "meta",
        "origin",
        "private",
        "raw_of",
        "raw_response",
        "replaying",
        "request",
        "response",
        "single",
        "skipped",
        "step",
        "trail",
        "tries",
        "variables",
        "waits",
        "webhook",
        "work",
        "x",
    )

    def __init__(self, x: "Execution", action: str, key: str | None, response: Value = None) -> None:
        self.x = x
        self.action = action
        self.key = key
        self.origin = key or action
        self.response = response
        self.meta: Mapping[str, Any] | None = None
        self.raw_response: bytes | None = None
        self.raw_of: Value = None
        self.variables: dict[str, Value] = {}
        self.failure: FetchError | None = None
        self.flow: str | None = None
        self.called: tuple[str, str] = ("", "")
        self.request: Value = None
        self.webhook: Value = None
        self.endpoints: list[Endpoint] = []
        self.waits: dict[str, int] = {}
        self.index = 0
        self.loop: LoopRun | None = None
        self.step = 0
        self.bound_step = self.begun_step = -1
        self.skipped = 0
        self.replaying = False
        self.single = False
        self.tries: dict[str, dict[str, int]] = {}
        self.call_depth = 0
        self.caller: Frame | None = None
        self.inside_loop = False
        self.work: LoopRun | None = None
        self.item = 0
        self.trail: tuple[InnerRound, ...] = ()
        self.private = False
        self.inner: tuple[InnerRound, ...] = ()
        self.inner_resume: tuple[int, dict[str, InnerRound]] | None = None

    def iteration(self) -> "Frame":
        """A frame of its own for one iteration of a parallel loop."""
        child = Frame(self.x, self.action, self.key, self.response)
        child.meta = self.meta
        child.variables = self.variables
        child.request = self.request
        child.webhook = self.webhook
        child.endpoints = self.endpoints
        child.waits = self.waits
        child.loop, child.work, child.item, child.trail = self.loop, self.work, self.item, self.trail
        child.inner, child.private = self.inner, self.private
        child.step = self.step
        child.bound_step = self.bound_step
        child.origin = self.origin
        child.call_depth = self.call_depth
        child.inside_loop = self.inside_loop
        return child

    @property
    def currentOperation(self) -> str | None:  # noqa: N802  # the mission's own word
        request = self.request
        return None if request is None else request["operationId"] or f"{request['method']} {request['path']}"
