"""Traces: the spans of a run as OpenTelemetry's own messages read them, and an exporter that no run notices."""

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Message
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from reqon.errors import ConfigurationError
from reqon.events import EventBus
from reqon.observe import otlp, traces
from reqon.observe.otlp import OTLPExporter
from reqon.observe.spans import Span, SpanBuilder
from reqon.secrets import SECRETS
from reqon.tracing import generate_span_id, generate_trace_id
from reqon.values import encode
from tests.support.collector import Collector, parsed
from tests.support.daemon_process import DaemonProcess
from tests.support.missions import Bench, mission
from tests.support.processes import reqon
from tests.support.servers import ScriptedServer, reply

ORDERS = [{"id": f"o{i}"} for i in range(3)]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as one:
        yield one


@pytest.fixture
async def api() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server


@pytest.fixture
def bench(api: ScriptedServer, tmp_path: Path) -> Bench:
    return Bench(api, tmp_path)


async def traced(bench: Bench, collector: Collector, text: str) -> list[Message]:
    """The spans of one run of a mission's text."""
    exporter = OTLPExporter(collector.endpoint, service_name="orders")
    bench.on_bus = lambda bus: traces.listen(bus, exporter)
    await bench.run(text)
    await asyncio.to_thread(exporter.shutdown, 30)
    return collector.spans()


def attributes(span: Message) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value") or "") for a in span.attributes}


def tree(spans: list[Message]) -> list[str]:
    """`mission:M > stage:A > …` of each span, in the order of their starts."""
    by_id = {s.span_id: s for s in spans}

    def path(span: Message) -> str:
        above = by_id.get(span.parent_span_id)
        return f"{path(above)} > {span.name}" if above is not None else span.name

    return [path(span) for span in spans]


async def test_spans_nest_as_the_work_does(api: ScriptedServer, bench: Bench, collector: Collector) -> None:
    api.on("/orders", reply(data=ORDERS)).on("/orders/o0", reply(404, data={})).on("*", reply(data={"ok": True}))
    steps = """
    get "/orders"
    for o in response {
      get "/orders/{o.id}"
      match response { { code: 404 } -> skip, _ -> store response -> out { key: o.id } }
    }
    """
    spans = await traced(bench, collector, mission(steps))
    root = "mission:M > stage:A > action:A"
    loop = f"{root} > step:for"
    item = [f"{loop} > step:fetch", f"{loop} > step:fetch > fetch:GET /orders/{{o.id}}", f"{loop} > step:match"]
    stored = f"{loop} > step:match > step:store"
    assert sorted(tree(spans)) == sorted(
        ["mission:M", "mission:M > stage:A", root, f"{root} > step:fetch", f"{root} > step:fetch > fetch:GET /orders",
         loop, *item * 3, *[stored] * 2]
    )  # fmt: skip
    assert len({s.trace_id for s in spans}) == 1 and len({s.span_id for s in spans}) == len(spans)
    fetch = next(s for s in spans if s.name == "fetch:GET /orders")
    about = attributes(fetch)
    assert fetch.kind == Message.SPAN_KIND_CLIENT and fetch.status.code == Status.STATUS_CODE_OK
    assert about["http.method"] == "GET" and about["http.status_code"] == 200 and about["reqon.source"] == "Api"
    assert about["http.url"] == f"{api.url}/orders" and about["http.response_content_length"] > 0
    store = next(s for s in spans if s.name == "step:store")
    assert attributes(store)["reqon.store.name"] == "out" and attributes(store)["reqon.store.count"] == 1
    mission_span = next(s for s in spans if s.name == "mission:M")
    assert attributes(mission_span)["reqon.mission.name"] == "M" and mission_span.kind == Message.SPAN_KIND_INTERNAL
    assert all(s.end_time_unix_nano >= s.start_time_unix_nano > 1_000_000_000 * 10**9 for s in spans)
    failed = [s for s in spans if s.status.code == Status.STATUS_CODE_ERROR]
    assert [attributes(s)["http.status_code"] for s in failed] == [404]
    assert {e.name for s in spans for e in s.events} >= {"loop.start", "match.attempt", "match.result", "data.store"}


async def test_parallel_actions_and_iterations_keep_their_parents(
    api: ScriptedServer, bench: Bench, collector: Collector
) -> None:
    api.on("*", lambda seen: reply(data=ORDERS if seen.path.endswith("list") else {"of": seen.path}))
    actions = "\n".join(
        f"""action {name} {{
          get "/{name}/list"
          for o in response parallel {{ get "/{name}/{{o.id}}" }}
        }}"""
        for name in ("B", "C", "D")
    )
    spans = await traced(bench, collector, mission(actions=actions, run="[B, C, D]"))
    fetches = [path for path in tree(spans) if "> fetch:" in path]
    assert sorted(fetches) == sorted(
        f"mission:M > stage:[B, C, D] > action:{n} > step:{step} > {inner}fetch:GET /{n}/{what}"
        for n in ("B", "C", "D")
        for step, inner, what in (
            ("fetch", "", "list"),
            *[("for", "step:fetch > ", "{o.id}")] * 3,
        )
    )


async def test_a_failed_run_ends_all_its_spans(api: ScriptedServer, bench: Bench, collector: Collector) -> None:
    spans = await traced(bench, collector, mission('get "/nothing"'))
    assert {s.name: s.status.code for s in spans} == {
        "mission:M": 2, "stage:A": 2, "action:A": 2, "step:fetch": 2, "fetch:GET /nothing": 2,
    }  # fmt: skip
    assert all("404" in s.status.message for s in spans)


async def test_a_trace_goes_on_at_the_api(api: ScriptedServer, bench: Bench, collector: Collector) -> None:
    api.on("/x", reply(data={}))
    spans = await traced(bench, collector, mission('get "/x"', source=", propagateTrace: true"))
    fetch = next(s for s in spans if s.name == "fetch:GET /x")
    assert api.seen[0].headers["traceparent"] == f"00-{fetch.trace_id.hex()}-{fetch.span_id.hex()}-01"
    await bench.run(mission('get "/x"'))
    assert "traceparent" not in api.seen[1].headers


async def test_without_a_collector_the_header_names_a_new_trace(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data={}))
    (await bench.run(mission('get "/x"', source=", propagateTrace: true"))).ok()
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", api.seen[0].headers["traceparent"])


def span(name: str = "s") -> Span:
    return SpanBuilder(name).set_attribute("n", 2**40).build()


def test_spans_go_in_batches_with_resource_and_headers(collector: Collector) -> None:
    exporter = OTLPExporter(
        collector.endpoint, "shop", "1.2", headers={"Authorization": "Bearer otlp-secret-1"},
        resource_attributes={"host": "h"},
    )  # fmt: skip
    exporter.export([span(f"s{i}") for i in range(otlp.BATCH + 1)])
    assert exporter.flush(30)
    assert sorted(len(m.resource_spans[0].scope_spans[0].spans) for m in collector.accepted) == [1, otlp.BATCH]
    resource = {a.key: a.value.string_value for a in collector.accepted[0].resource_spans[0].resource.attributes}
    assert resource == {"service.name": "shop", "service.version": "1.2", "host": "h"}
    path, headers, _ = collector.requests[0]
    assert (path, headers["authorization"]) == ("/v1/traces", "Bearer otlp-secret-1")
    assert SECRETS.redact("Bearer otlp-secret-1") == "***"
    assert (exporter.exported, exporter.dropped) == (otlp.BATCH + 1, 0)
    exporter.shutdown()


def test_what_the_queue_cannot_hold_is_dropped_oldest_first() -> None:
    held = threading.Event()

    def slowly(_: int) -> int:
        held.wait(60)
        return 200

    with Collector(slowly) as collector:
        exporter = OTLPExporter(collector.endpoint, timeout=60_000)
        exporter.export([span("first")] * otlp.BATCH)
        collector_reached = threading.Event()
        while not exporter._sending:  # the first batch is under way
            collector_reached.wait(0.01)
        exporter.export([span(f"s{i}") for i in range(otlp.QUEUE + 100)])
        assert exporter.dropped == 100
        held.set()
        assert exporter.flush(60)
        names = {s.name for s in collector.spans()}
        assert "s99" not in names and {"first", "s100", f"s{otlp.QUEUE + 99}"} <= names
        exporter.shutdown()


@pytest.mark.parametrize(("statuses", "accepted"), [([503, 429, 200], 1), ([503, 503, 503], 0), ([400], 0)])
def test_a_batch_is_tried_three_times_unless_it_is_refused(statuses: list[int], accepted: int) -> None:
    with Collector(lambda n: statuses[n - 1]) as collector:
        exporter = OTLPExporter(collector.endpoint)
        exporter.export([span()])
        assert exporter.flush(60)
        assert (len(collector.requests), exporter.exported) == (len(statuses), accepted)
        assert exporter.dropped == 1 - accepted
        exporter.shutdown()


def test_a_collector_that_is_not_there_delays_nothing_and_is_noted_once(caplog: pytest.LogCaptureFixture) -> None:
    exporter = OTLPExporter("http://127.0.0.1:9/v1/traces", timeout=500)
    exporter.export([span()])
    exporter.flush(30)
    exporter.export([span()])
    exporter.flush(30)
    exporter.shutdown()
    exporter.export([span()])
    assert (exporter.exported, exporter.dropped) == (0, 3)
    assert len([r for r in caplog.records if "cannot be delivered" in r.getMessage()]) == 1


def test_a_collector_that_hangs_holds_the_end_no_longer_than_said() -> None:
    held = threading.Event()
    with Collector(lambda _: 200 if held.wait(60) else 500) as collector:
        exporter = OTLPExporter(collector.endpoint, timeout=60_000)
        exporter.export([span()])
        assert not exporter.flush(0.2)
        exporter.shutdown(0.2)
        held.set()


def test_ids_are_hex_and_never_twice() -> None:
    assert re.fullmatch("[0-9a-f]{32}", generate_trace_id()) and re.fullmatch("[0-9a-f]{16}", generate_span_id())
    assert len({generate_span_id() for _ in range(1000)}) == 1000


def test_a_built_span_is_a_valid_message() -> None:
    made = (
        SpanBuilder("work")
        .set_trace_id("a" * 32)
        .set_span_id("b" * 16)
        .set_parent("c" * 16)
        .set_attribute("big", -(2**63))
        .set_attribute("huge", 2**70)
        .set_attribute("list", [1, "x", True, 0.5, {"k": 1}])
        .set_attribute("none", None)
        .set_start_time(datetime(2026, 3, 1, tzinfo=UTC))
        .add_event("e", {"n": 1})
        .build()
    )
    exporter = OTLPExporter("http://127.0.0.1:9")
    message = parsed(encode(exporter._message([made]))).resource_spans[0].scope_spans[0].spans[0]
    assert message.trace_id.hex() == "a" * 32 and message.parent_span_id.hex() == "c" * 16
    assert attributes(message)["big"] == -(2**63) and attributes(message)["huge"] == str(2**70)
    assert "none" not in attributes(message) and message.start_time_unix_nano == 1772323200 * 10**9


def test_a_span_keeps_so_many_events_and_counts_the_others() -> None:
    builder = SpanBuilder("s")
    for _ in range(130):
        builder.add_event("e")
    shown = builder.build().to_otlp()
    assert len(shown["events"]) == 128 and shown["droppedEventsCount"] == 2


def test_the_environment_switches_it_on() -> None:
    assert traces.trace(EventBus(), {}) is None
    bus = EventBus()
    exporter = traces.trace(bus, {"REQON_OTEL_ENDPOINT": "http://127.0.0.1:9", "REQON_OTEL_SERVICE": "mine"})
    assert exporter is not None and exporter._resource["service.name"] == "mine"
    with pytest.raises(ConfigurationError, match="no address of a collector"):
        traces.trace(bus, {"REQON_OTEL_ENDPOINT": "localhost:4318"})


FROM_ENVIRONMENT = """
mission Traced {
  schedule: every 1 hour { runImmediately: true }
  store out: memory("out")
  let items = [{ id: "a" }]
  action Load { for item in items { store item -> out { key: .id } } }
  run Load
}
"""


def test_a_one_shot_run_sends_its_spans_before_it_ends(tmp_path: Path, collector: Collector) -> None:
    (tmp_path / "traced.vague").write_text(FROM_ENVIRONMENT)
    ended = reqon(
        "traced.vague", cwd=tmp_path, seconds=120, REQON_OTEL_ENDPOINT=collector.endpoint, REQON_OTEL_SERVICE="mine"
    )
    assert ended.code == 0, ended.text
    names = [s.name for s in collector.spans()]
    assert sorted(names) == ["action:Load", "mission:Traced", "stage:Load", "step:for", "step:store"]
    resource = collector.accepted[0].resource_spans[0].resource.attributes
    assert {a.key: a.value.string_value for a in resource}["service.name"] == "mine"


def test_the_daemon_sends_spans_too(tmp_path: Path, collector: Collector) -> None:
    folder = tmp_path / "missions"
    folder.mkdir()
    (folder / "traced.vague").write_text(FROM_ENVIRONMENT)
    with DaemonProcess(folder, tmp_path / "state", otel_endpoint=collector.endpoint) as daemon:
        daemon.ready()
        collector.wait_for(1)
    assert "mission:Traced" in {s.name for s in collector.spans()}


def test_an_endpoint_that_is_none_keeps_a_run_from_starting(tmp_path: Path) -> None:
    (tmp_path / "traced.vague").write_text(FROM_ENVIRONMENT)
    ended = reqon("traced.vague", cwd=tmp_path, seconds=120, REQON_OTEL_ENDPOINT="localhost:4318")
    assert ended.code == 3 and "no address of a collector" in ended.err
