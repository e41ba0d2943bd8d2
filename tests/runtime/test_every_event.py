"""Runs that use everything there is: what they tell is what the tables of spec/runtime.md 15 say, event by event."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from reqon.clock import SYSTEM
from reqon.events import Emitted, Event
from reqon.observe import traces
from reqon.observe.otlp import OTLPExporter
from reqon.values import decode, encode
from reqon.webhooks.server import WebhookServer
from tests.support.collector import Collector
from tests.support.missions import Bench
from tests.support.servers import ScriptedServer, Seen, reply
from tests.support.specs import document, written
from tests.support.webhooks import call
from tests.test_event_table import ROWS

SECRET = "cl1ent-secret-of-the-events"
RECORD = "a-record's-own-text"
ENDINGS = ("mission.complete", "mission.failed", "mission.paused")
# What ends something, and what began it.
STARTS = {
    "mission.complete": "mission.start", "mission.failed": "mission.start", "mission.paused": "mission.start",
    "stage.complete": "stage.start", "action.complete": "action.start", "step.complete": "step.start",
    "fetch.complete": "fetch.start", "fetch.error": "fetch.start", "loop.complete": "loop.start",
    "match.result": "match.attempt", "webhook.complete": "webhook.register",
}  # fmt: skip
WORDS = {
    ("mission.paused", "reason"): {"signal", "webhook", "pause"},
    ("auth.refresh", "reason"): {"expiry", "401", "initial"},
    ("data.store", "operation"): {"set", "update", "upsert"},
    ("checkpoint.save", "reason"): {"interval", "items", "page", "action", "webhook", "error", "pause"},
    ("circuitbreaker.state", "state"): {"open", "half_open", "closed"},
    ("circuitbreaker.state", "previousState"): {"open", "half_open", "closed"},
    ("step.start", "stepType"): {
        "fetch",
        "call",
        "for",
        "map",
        "apply",
        "validate",
        "store",
        "match",
        "let",
        "webhook",
        "queue",
        "delete",
        "clear",
        "run",
        "custom",
    },
}
KINDS: dict[Any, Any] = {str: str, int: int, bool: bool, float: (int, float), tuple[str, ...]: list}
MISSION = """mission Everything {{
  source Api from "{spec}" {{
    auth: oauth2, base: env("API"), validateResponses: true, retry: {{ maxAttempts: 2, initialDelay: 1 }},
    rateLimit: {{ requestsPerMinute: 600, notifyAt: 1 }}
  }}
  source Slow {{ auth: none, base: env("API"), rateLimit: {{ requestsPerMinute: 1, notifyAt: 5000 }} }}
  source Weak {{ auth: none, base: env("API"), retry: {{ maxAttempts: 1 }},
    circuitBreaker: {{ failureThreshold: 1, resetTimeout: 1000, successThreshold: 1 }} }}
  store kept: file("kept")
  store out: memory("out")
  store lost: file("lost")
  schema Big {{ id: string, big: boolean }}
  schema Slim {{ id: string }}
  transform Tidy {{ (_) -> Slim {{ id: .id }} }}
  action Fetch {{
    get "/pages" {{ paginate: page(page, 2), since: lastSync }}
    store response -> kept {{ key: .id }}
    store response.data -> kept {{ key: .id, partial: true, upsert: true }}
    call Api.listThings
    get "/flaky"
    get "/slow" from Slow
    get "/slow" from Slow
  }}
  action Break {{
    get "/weak" from Weak
    match response {{ {{ error: _ }} -> continue, _ -> continue }}
    get "/weak" from Weak
    match response {{ {{ error: _ }} -> {{ let x = 1 }}, _ -> continue }}
  }}
  action Mend {{
    get "/slow" from Slow
    get "/mended" from Weak
  }}
  action Inner {{ let inner = 1 }}
  action Work {{
    for thing in kept where .id != "p0" checkpoint every 1 {{
      match thing {{
        Big -> {{ map thing -> Slim {{ id: .id }} }}, {{ id: "p2" }} -> skip, _ -> {{ apply Tidy to thing }}
      }}
      validate thing {{ assume .id != "p3" or "not this one" }}
      store thing -> out
      get "/things/{{thing.id}}" from Weak
      match response {{ {{ error: _ }} -> queue lost {{ item: {{ id: thing.id }} }}, _ -> continue }}
    }}
    for thing in kept parallel {{ delete kept[thing.id] }}
    clear out
    run Inner
    {end}
  }}
  run [Fetch, Inner] then Break then Mend then Work then Inner if 1 == 2
}}
"""
WAITING = """mission Waiting {{
  source Api {{ auth: none, base: env("API") }}
  store got: memory("got")
  action A {{
    wait {{ path: "/hook", timeout: 60000, expectedEvents: 2, eventFilter: .n > 0, storage: got }}
    {end}
  }}
  run A
}}
"""


class Api:
    """Pages, a flaky answer, one that fails the breaker's source, the rest as objects."""

    def __init__(self) -> None:
        self.flaky = 0

    def __call__(self, seen: Seen) -> bytes:
        if seen.path == "/token":
            return reply(data={"access_token": "t0ken-of-events", "expires_in": 3600})
        if seen.path == "/pages":
            rows = [{"id": f"p{n}", "big": True, "text": RECORD} if n == 1 else {"id": f"p{n}"} for n in range(4)]
            at = 2 * (int(seen.query["page"]) - 1)
            return reply(data={"data": rows[at : at + 2]})
        if seen.path == "/flaky":
            self.flaky += 1
            return reply(503, data={"error": RECORD}) if self.flaky == 1 else reply(data={})
        failing = seen.path in ("/weak", "/things/p3")
        return reply(500 if seen.path == "/weak" else 404 if failing else 200, data={"id": 1, "text": RECORD})


@pytest.fixture
async def server() -> AsyncIterator[WebhookServer]:
    async with WebhookServer(port=0) as running:
        yield running


def text_of(tmp_path: Path, end: str) -> str:
    things = {"type": "object", "required": ["missing"], "properties": {"id": {"type": "string"}}}
    answers = {"200": {"description": "ok", "content": {"application/json": {"schema": things}}}}
    spec = document({"/things": {"get": {"operationId": "listThings", "responses": answers}}})
    return MISSION.format(spec=written(tmp_path / "specs", spec, "api.json"), end=end)


async def everything(api: ScriptedServer, bench: Bench, server: WebhookServer, tmp_path: Path) -> list[list[Emitted]]:
    """The events of runs that complete, fail, stop, are resumed, and wait for calls."""
    api.on("*", Api())
    bench.environment = {
        "REQON_API_CLIENT_ID": "c", "REQON_API_CLIENT_SECRET": SECRET, "REQON_API_TOKEN_URL": f"{api.url}/token"
    }  # fmt: skip
    bench.listen = (Event,)
    runs = []

    async def run(text: str, *, resume: bool = False) -> None:
        runs.append([e for e in (await bench.run(text, resume=resume)).events if not e.event.internal])

    await run(text_of(tmp_path, "let done = 1"))
    await run(text_of(tmp_path, 'abort "enough"'))
    await run(text_of(tmp_path, 'abort "enough"'), resume=True)
    bench.webhooks, bench.clock = server, SYSTEM
    for end, calls in (("let done = 1", 2), ("let done = 2", 1)):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(run(WAITING.format(end=end)))
            while not server.desk.endpoints():
                await asyncio.sleep(0.01)
            await call(f"{server.url}/hook", body=b"{", headers={"Content-Type": "application/json"})
            for n in range(calls + 1):
                await call(f"{server.url}/hook", {"n": n, "text": RECORD})
            if calls == 1:
                assert bench.runner is not None
                bench.runner.stop.request()
            await task
    return runs


async def test_the_events_of_whole_runs_are_those_of_the_table(
    api: ScriptedServer, bench: Bench, server: WebhookServer, tmp_path: Path
) -> None:
    runs = await everything(api, bench, server, tmp_path)
    told = set()
    for events in runs:
        shown: list[dict[str, Any]] = [decode(encode(e.to_dict())) for e in events]
        assert [e["seq"] for e in shown] == list(range(1, len(shown) + 1))
        assert shown[0]["type"] == "mission.start" and shown[-1]["type"] in ENDINGS
        assert sum(e["type"] in ENDINGS for e in shown) == 1
        begun: dict[str, int] = dict.fromkeys(STARTS.values(), 0)
        for event in shown:
            told.add(event["type"])
            fields = ROWS[event["type"]]
            payload = event["payload"]
            about = (event["type"], payload)
            assert set(payload) <= set(fields), about
            assert {name for name, (optional, _) in fields.items() if not optional} <= set(payload), about
            for name, value in payload.items():
                kind = KINDS.get(fields[name][1], dict)
                assert isinstance(value, kind) and (kind is bool or not isinstance(value, bool)), (name, about)
                assert not isinstance(value, list) or all(isinstance(one, str) for one in value)
                assert value in WORDS.get((event["type"], name), [value]), (name, about)
            assert set(event) <= {"type", "seq", "executionId", "mission", "action", "timestamp", "duration", "payload"}
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["timestamp"])
            assert event["executionId"].startswith("exec_") and event["mission"] in ("Everything", "Waiting")
            assert ("duration" in event) == (event["type"] in STARTS.keys() - {"match.result"}), about
            if event["type"] in begun:
                begun[event["type"]] += 1
            if event["type"] in STARTS and event["type"] not in ENDINGS:
                begun[STARTS[event["type"]]] -= 1
                assert begun[STARTS[event["type"]]] >= 0, (about, "has no start")
        whole = json.dumps(shown)
        assert SECRET not in whole and "t0ken" not in whole and RECORD not in whole
    assert told == set(ROWS)


async def test_the_spans_of_a_whole_run_are_written_as_otlp_says(
    api: ScriptedServer, bench: Bench, server: WebhookServer, tmp_path: Path
) -> None:
    """Field by field what opentelemetry-proto and its JSON mapping name; nothing beside it."""
    with Collector() as collector:
        exporter = OTLPExporter(
            collector.endpoint, service_name="events", service_version="1", headers={"X-Key": SECRET}
        )
        bench.on_bus = lambda bus: traces.listen(bus, exporter)
        await everything(api, bench, server, tmp_path)
        await asyncio.to_thread(exporter.shutdown, 30)
        bodies = [json.loads(body) for _, _, body in collector.requests]
        assert {headers["content-type"] for _, headers, _ in collector.requests} == {"application/json"}
    assert SECRET not in json.dumps(bodies) and RECORD not in json.dumps(bodies)
    spans = []
    for body in bodies:
        assert set(body) == {"resourceSpans"}
        for resource in body["resourceSpans"]:
            assert set(resource) == {"resource", "scopeSpans"}
            assert {"service.name", "service.version"} <= {a["key"] for a in resource["resource"]["attributes"]}
            for scope in resource["scopeSpans"]:
                assert set(scope["scope"]) <= {"name", "version"}
                spans += scope["spans"]
    for span in spans:
        assert set(span) - {"parentSpanId", "events", "droppedEventsCount", "traceState", "flags"} == {
            "traceId", "spanId", "name", "kind", "startTimeUnixNano", "endTimeUnixNano", "attributes", "status",
        }  # fmt: skip
        assert re.fullmatch("[0-9a-f]{32}", span["traceId"]) and int(span["traceId"], 16)
        assert re.fullmatch("[0-9a-f]{16}", span["spanId"]) and int(span["spanId"], 16)
        assert span["kind"] == (3 if span["name"].startswith("fetch:") else 1)
        assert set(span["status"]) <= {"code", "message"} and span["status"].get("code", 0) in (0, 1, 2)
        instants = [
            span["startTimeUnixNano"],
            *(e["timeUnixNano"] for e in span.get("events", ())),
            span["endTimeUnixNano"],
        ]
        assert all(isinstance(one, str) and one.isdecimal() for one in instants)
        assert instants == sorted(instants, key=int), span
        for attribute in [*span["attributes"], *(a for e in span.get("events", ()) for a in e.get("attributes", ()))]:
            is_value(attribute["value"])
    by_id = {(span["traceId"], span["spanId"]): span for span in spans}
    assert len(by_id) == len(spans)
    for span in spans:
        above = by_id.get((span["traceId"], span.get("parentSpanId", "")))
        kind = span["name"].partition(":")[0]
        assert (above is None) == (kind == "mission"), span
        if above is not None:
            allowed = {"stage": "mission", "action": "stage step", "step": "action step", "fetch": "step"}[kind]
            assert above["name"].partition(":")[0] in allowed.split(), (span["name"], above["name"])
            assert int(above["startTimeUnixNano"]) <= int(span["startTimeUnixNano"])
            assert int(span["endTimeUnixNano"]) <= int(above["endTimeUnixNano"]), (span["name"], above["name"])
        keys = {attribute["key"] for attribute in span["attributes"]}
        assert keys >= SPAN_KEYS[kind], (span["name"], keys)
    assert {span["name"].partition(":")[0] for span in spans} == SPAN_KEYS.keys()


SPAN_KEYS = {
    "mission": {"reqon.mission.name", "reqon.execution_id"},
    "stage": {"reqon.stage.name", "reqon.stage.index"},
    "action": {"reqon.action.name"},
    "step": {"reqon.step.type", "reqon.step.index"},
    "fetch": {"http.method", "http.url", "reqon.source"},
}


def is_value(value: dict[str, Any]) -> None:
    """One AnyValue: exactly one field, in the form that OTLP's JSON gives it."""
    ((kind, inner),) = value.items()
    if kind == "intValue":
        assert isinstance(inner, str) and re.fullmatch(r"-?\d+", inner)
    elif kind == "arrayValue":
        assert set(inner) <= {"values"}
        for one in inner.get("values", ()):
            is_value(one)
    elif kind == "kvlistValue":
        for one in inner["values"]:
            is_value(one["value"])
    else:
        assert isinstance(inner, {"stringValue": str, "boolValue": bool, "doubleValue": float}[kind])
