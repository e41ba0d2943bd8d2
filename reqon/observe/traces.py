"""Events as spans: mission, stage, action, step and request, each under the one it belongs to (spec/runtime.md 15.4).

The span that is open stands in the task's own context, so that parallel actions and iterations nest rightly.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from reqon.events import Emitted, EventBus, event_kinds
from reqon.observe.emitter import EventEmitter
from reqon.observe.otlp import OTLPExporter
from reqon.observe.spans import CLIENT, ERROR, INTERNAL, OK, Span, nanoseconds
from reqon.tracing import TRACE, generate_span_id, generate_trace_id
from reqon.values import Value

_STARTS = frozenset(("mission.start", "stage.start", "action.start", "step.start", "fetch.start"))
_ENDS = {
    "mission.complete": "mission",
    "mission.failed": "mission",
    "mission.paused": "mission",
    "stage.complete": "stage",
    "action.complete": "action",
    "step.complete": "step",
    "fetch.complete": "fetch",
    "fetch.error": "fetch",
}


@dataclass(slots=True, eq=False)
class _Open:
    """A span that is not over, and the one around it."""

    span: Span
    family: str
    execution_id: str
    around: "_Open | None"


_CURRENT: ContextVar[_Open | None] = ContextVar("reqon_span", default=None)


class OTelEventAdapter:
    """Turns events into spans and gives ended ones to an exporter, or to whatever has its `export`.

    `process_event` takes any event; the `on_…` methods are the same, for wiring by hand.
    """

    def __init__(self, exporter: OTLPExporter, service_name: str | None = None) -> None:
        self._exporter = exporter
        self._service = service_name
        self._missions: dict[str, _Open] = {}
        self._open: dict[str, set[_Open]] = {}

    def process_event(self, event: Emitted) -> None:
        """Hear of one event. To be called where it happens: in the task that does the work."""
        if event.type in _STARTS:
            self._begin(event)
        elif event.type in _ENDS:
            self._end(event, _ENDS[event.type])
        else:
            self._within(event)

    on_mission_start = on_mission_complete = on_mission_failed = on_mission_paused = process_event
    on_stage_start = on_stage_complete = on_action_start = on_action_complete = process_event
    on_step_start = on_step_complete = process_event
    on_fetch_start = on_fetch_complete = on_fetch_retry = on_fetch_error = process_event
    on_data_transform = on_data_validate = on_data_store = process_event

    # --- spans --------------------------------------------------------------------------------------------------------

    def _begin(self, event: Emitted) -> None:
        family = event.type.partition(".")[0]
        around = None if family == "mission" else self._around(event)
        name, kind, attributes = _described(event, family)
        span = Span(
            name=name,
            trace_id=around.span.trace_id if around is not None else generate_trace_id(),
            span_id=generate_span_id(),
            parent_id=around.span.span_id if around is not None else None,
            kind=kind,
            start=nanoseconds(event.timestamp),
            attributes=attributes,
        )
        if around is None and self._service is not None:
            span.attributes["service.name"] = self._service
        begun = _Open(span, family, event.execution_id, around)
        if family == "mission":
            self._missions[event.execution_id] = begun
        self._open.setdefault(event.execution_id, set()).add(begun)
        _CURRENT.set(begun)
        TRACE.set((span.trace_id, span.span_id))

    def _around(self, event: Emitted) -> _Open | None:
        current = _CURRENT.get()
        if current is not None and current.execution_id == event.execution_id:
            return current
        return self._missions.get(event.execution_id)

    def _end(self, event: Emitted, family: str) -> None:
        if family == "mission":
            self._end_mission(event)
            return
        ended = self._around(event)
        while ended is not None and ended.family != family:
            ended = ended.around  # what was left open within ended by an exception, and is closed with it
        if ended is None or ended.family == "mission":
            return
        inner = self._around(event)
        while inner is not None and inner is not ended:
            self._close(inner, event, UNFINISHED)
            inner = inner.around
        self._close(ended, event, _outcome(event))
        _CURRENT.set(ended.around)
        around = ended.around.span if ended.around is not None else None
        TRACE.set((around.trace_id, around.span_id) if around is not None else None)

    def _end_mission(self, event: Emitted) -> None:
        """The last event of an execution: all that is open ends with it."""
        mission = self._missions.pop(event.execution_id, None)
        for left in self._open.pop(event.execution_id, set()):
            if left is not mission:
                self._export(left.span, event, UNFINISHED)
        if mission is not None:
            self._export(mission.span, event, _outcome(event))
        _CURRENT.set(None)
        TRACE.set(None)

    def _close(self, begun: _Open, event: Emitted, outcome: tuple[int, str]) -> None:
        known = self._open.get(begun.execution_id)
        if known is not None and begun in known:
            known.discard(begun)
            self._export(begun.span, event, outcome)

    def _export(self, span: Span, event: Emitted, outcome: tuple[int, str]) -> None:
        span.end = nanoseconds(event.timestamp)
        span.status, span.message = outcome
        if span.kind == CLIENT and event.type in ("fetch.complete", "fetch.error"):
            payload = event.event.payload()
            span.attributes["http.status_code"] = payload.get("statusCode")
            span.attributes["http.response_content_length"] = payload.get("bytesReceived")
        self._exporter.export((span,))

    def _within(self, event: Emitted) -> None:
        """Any other event: a mark in the span that is open."""
        current = self._around(event)
        if current is None:
            return
        payload = event.event.payload()
        current.span.add_event(event.type, nanoseconds(event.timestamp), payload)
        if event.type == "data.store" and current.family == "step":
            current.span.attributes["reqon.store.name"] = payload["storeName"]
            current.span.attributes["reqon.store.count"] = payload["count"]


UNFINISHED = (0, "")


def _described(event: Emitted, family: str) -> tuple[str, int, dict[str, Value]]:
    """Name, kind and attributes of the span that an event begins."""
    e: Any = event.event
    if family == "mission":
        about = {"reqon.mission.name": event.mission, "reqon.execution_id": event.execution_id}
        return f"mission:{event.mission}", INTERNAL, about
    if family == "stage":
        return (
            f"stage:{e.stage_name}",
            INTERNAL,
            {"reqon.stage.name": e.stage_name, "reqon.stage.index": e.stage_index},
        )
    if family == "action":
        return f"action:{e.action_name}", INTERNAL, {"reqon.action.name": e.action_name}
    if family == "step":
        return (
            f"step:{e.step_type}",
            INTERNAL,
            {"reqon.step.type": e.step_type, "reqon.step.index": e.step_index},
        )
    return (
        f"fetch:{e.method} {e.path}",
        CLIENT,
        {"http.method": e.method, "http.url": e.url, "reqon.source": e.source},
    )


def _outcome(event: Emitted) -> tuple[int, str]:
    """Status and message of the span that an event ends."""
    e: Any = event.event
    if event.type == "mission.paused":
        return UNFINISHED
    error = getattr(e, "error", None)
    if event.type in ("mission.failed", "fetch.error") or getattr(e, "success", True) is False:
        return ERROR, str(error or "")
    return OK, ""


# --- switching it on -------------------------------------------------------------------------------------------------


def create_otel_listener(exporter: OTLPExporter, service_name: str | None = None) -> EventEmitter:
    """An emitter for `execute(…, event_emitter=…)` that gives every run's spans to an exporter."""
    emitter = EventEmitter()
    emitter.on_all(OTelEventAdapter(exporter, service_name).process_event)
    return emitter


def listen(bus: EventBus, exporter: OTLPExporter) -> None:
    """Trace what a runner does."""
    adapter = OTelEventAdapter(exporter)
    for kinds in event_kinds().values():
        for kind in kinds:
            bus.on(kind, adapter.process_event, exactly=True)


def exporter_from(environment: Mapping[str, str]) -> OTLPExporter | None:
    """What `REQON_OTEL_ENDPOINT` and `REQON_OTEL_SERVICE` say; None without an endpoint.

    Raises:
        ConfigurationError: the endpoint is no http(s) URL.
    """
    endpoint = environment.get("REQON_OTEL_ENDPOINT")
    if not endpoint:
        return None
    return OTLPExporter(endpoint, service_name=environment.get("REQON_OTEL_SERVICE") or "reqon")


def trace(bus: EventBus, environment: Mapping[str, str]) -> OTLPExporter | None:
    """Trace a runner's bus if the environment says so: the exporter, whose `shutdown` ends it; None if it does not."""
    exporter = exporter_from(environment)
    if exporter is not None:
        listen(bus, exporter)
    return exporter
